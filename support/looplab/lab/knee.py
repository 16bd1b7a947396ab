"""Latency over throughput: where a service has its knee, and what a limit does to it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from looplab.lab.colours import BOUND, CARD, HELD, INK, SERIES
from looplab.lab.display import show_picture
from looplab.lab.load import LoadReport, load_test

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")

ROUNDS = 4
"""How often a limit's slots are filled in a load: enough for the first and last to matter less."""
REPEAT = 3


async def load_at_limits(
    send: Callable[[T], Awaitable[Any]], requests: Sequence[T], limits: Sequence[int]
) -> dict[int, LoadReport[T]]:
    """Load a service with so many calls under way, for each limit, and return reports by limit.

    Each load sends the first ``4 * limit`` of ``requests``, or all. The limits take turns, three
    times, and the load that had most answers a second counts, as what else the machine did has only
    ever made one slower.

    Raises what `load_test` raises, and ValueError when there is no limit.
    """
    if not limits:
        raise ValueError("limits is empty; give at least one limit")
    best: dict[int, LoadReport[T]] = {}
    for _ in range(REPEAT):
        for limit in limits:
            report = await load_test(send, requests[: ROUNDS * limit], clients=limit)
            if limit not in best or report.throughput > best[limit].throughput:
                best[limit] = report
    return best


def show_knee(
    reports: Mapping[int, LoadReport[Any]],
    latency_at: Callable[[int], float],
    *,
    latest: int | None = None,
) -> None:
    """Draw the time of a call over the calls answered a second, a point for each limit.

    The predicted curve is Little's law: with ``n`` calls under way that take ``latency_at(n)``
    seconds each, ``n / latency_at(n)`` are answered a second. Its rightmost point is the knee.

    Args:
        reports: loads by their limit, from ``load_test``; each point carries its limit.
        latency_at: seconds that a call is predicted to take with so many under way.
        latest: the limit whose point is drawn in red, and told in the summary.

    Raises ValueError when there is no report, or none of ``latest``.
    """
    if not reports:
        raise ValueError("reports is empty; give at least one report, by its limit")
    if latest is not None and latest not in reports:
        raise ValueError(f"latest is {latest!r}; the reports are of {sorted(reports)}")
    limits = range(1, max(reports) + 1)
    knee = max(limits, key=lambda limit: limit / latency_at(limit))
    summary = f"The knee is predicted at {knee / latency_at(knee):.0f} calls a second, limit {knee}"
    told = max(reports, key=lambda n: reports[n].throughput) if latest is None else latest
    rate, late = reports[told].throughput, 1000 * reports[told].mean
    most = "Best measured, limit" if latest is None else "Limit"
    figure = _drawn(reports, [(n / latency_at(n), latency_at(n)) for n in limits], knee, latest)
    show_picture(
        figure,
        alt="Time of a call over calls answered a second: level up to the knee, then up and back.",
        summary=f"{summary}. {most} {told}: {rate:.0f} a second, {late:.0f} ms each.",
    )


def _drawn(
    reports: Mapping[int, LoadReport[Any]],
    law: list[tuple[float, float]],
    knee: int,
    latest: int | None,
) -> "Figure":
    from matplotlib.figure import Figure

    from looplab.lab.charts import WIDTH, plain

    figure = Figure(figsize=(WIDTH, 3.0), dpi=100, facecolor=CARD, layout="constrained")
    axes = figure.add_subplot()
    plain(axes, "both")
    rates, times = [rate for rate, _ in law], [1000 * late for _, late in law]
    axes.plot(rates, times, color=BOUND, linestyle=(0, (4, 3)), lw=1.6, label="predicted")
    axes.plot(rates[knee - 1], times[knee - 1], "x", color=BOUND, ms=8, mew=2, label="knee")
    measured = [(n, reports[n].throughput, 1000 * reports[n].mean) for n in sorted(reports)]
    across, up = [rate for _, rate, _ in measured], [late for *_, late in measured]
    axes.plot(across, up, "o-", color=SERIES[0], ms=4.5, lw=1.2, label="measured, at each limit")
    for limit, rate, late in measured:
        colour = HELD if limit == latest else INK
        if limit == latest:
            axes.plot(rate, late, "o", color=HELD, ms=7, label=f"limit {limit}", zorder=4)
        beyond = limit > knee
        axes.annotate(
            str(limit), (rate, late), xytext=(8, 0) if beyond else (0, -16),
            textcoords="offset points", ha="left" if beyond else "center",
            va="center" if beyond else "top", size=8.5, color=colour,
            weight="bold" if limit == latest else "normal",
        )  # fmt: skip
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("calls answered a second", size=9, color=INK, loc="left")
    axes.set_ylabel("ms a call", size=9, color=INK)
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="upper left")
    return figure
