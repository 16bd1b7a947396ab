"""Loads at several limits, and the picture of latency over throughput."""

import asyncio
from typing import Any

import pytest

from looplab.lab import load_at_limits, show_knee
from looplab.lab.load import LoadReport, Sample

pytestmark = pytest.mark.anyio


def report_of(limit: int, seconds: float, duration: float) -> LoadReport[int]:
    return LoadReport(limit, (Sample(0, seconds, ""),) * limit, duration, 0.0)


REPORTS = {5: report_of(5, 0.02, 0.02), 20: report_of(20, 0.05, 0.05)}


def latency_at(limit: int) -> float:
    return 0.02 * max(1.0, limit / 10) ** 1.3


async def test_each_limit_is_kept_and_filled_four_times() -> None:
    at_once, most = 0, 0

    async def send(_: int) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.001)
        at_once -= 1

    reports = await load_at_limits(send, range(100), [1, 3])
    assert list(reports) == [1, 3]
    assert [len(report.samples) for report in reports.values()] == [4, 12]
    assert most == 3


async def test_of_three_loads_the_quickest_counts() -> None:
    sent = 0

    async def send(_: int) -> None:
        nonlocal sent
        sent += 1
        await asyncio.sleep(0.05 if sent <= 4 else 0.001)

    reports = await load_at_limits(send, range(100), [1])
    assert sent == 12
    assert reports[1].mean < 0.03


async def test_no_limit_is_an_error() -> None:
    async def send(_: int) -> None: ...

    with pytest.raises(ValueError, match="limits is empty"):
        await load_at_limits(send, range(3), [])


def shown(monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Any, str]:
    calls: list[tuple[Any, str]] = []
    monkeypatch.setattr(
        "looplab.lab.knee.show_picture",
        lambda figure, *, alt, summary: calls.append((figure, summary)),
    )
    show_knee(REPORTS, latency_at, **options)
    return calls[0]


def test_each_point_carries_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    figure, summary = shown(monkeypatch)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["5", "20"]
    assert summary == (
        "The knee is predicted at 500 calls a second, limit 10. "
        "Best measured, limit 20: 400 a second, 50 ms each."
    )


def test_the_latest_limit_stands_out(monkeypatch: pytest.MonkeyPatch) -> None:
    figure, summary = shown(monkeypatch, latest=5)
    bold = [text.get_text() for text in figure.axes[0].texts if text.get_weight() == "bold"]
    assert bold == ["5"]
    assert summary.endswith("500 calls a second, limit 10. Limit 5: 250 a second, 20 ms each.")


def test_the_knee_is_predicted_where_throughput_is_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    figure, _ = shown(monkeypatch)
    marked = next(line for line in figure.axes[0].lines if line.get_label() == "knee")
    assert (marked.get_xdata()[0], marked.get_ydata()[0]) == (500.0, 20.0)


def test_what_there_is_no_report_of_is_named() -> None:
    with pytest.raises(ValueError, match="reports is empty"):
        show_knee({}, latency_at)
    with pytest.raises(ValueError, match="latest is 7; the reports are of"):
        show_knee(REPORTS, latency_at, latest=7)
