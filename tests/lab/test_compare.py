import asyncio
import gc
import math
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from looplab.lab import charts, display
from looplab.lab.answers import Answers
from looplab.lab.clients import in_process
from looplab.lab.compare import Comparison, compare, milliseconds

pytestmark = pytest.mark.anyio


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    bundles: list[dict[str, str]] = []
    monkeypatch.setattr(display, "display", lambda bundle, **_: bundles.append(bundle))
    return bundles


class Calls:
    """Contenders that note when they were called, and whether the collector was on."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.collecting: list[bool] = []

    def named(self, name: str) -> Any:
        async def contender() -> None:
            self.order.append(name)
            await asyncio.sleep(0)
            self.collecting.append(gc.isenabled())

        return contender


async def test_contenders_are_interleaved_and_turn() -> None:
    calls = Calls()
    contenders = {name: calls.named(name) for name in "abc"}
    comparison = await compare(contenders, repeat=4, show=False)
    assert "".join(calls.order) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert {name: len(taken) for name, taken in comparison.samples.items()} == dict.fromkeys(
        "abc", 4
    )


async def test_without_a_warm_up_every_call_is_timed() -> None:
    calls = Calls()
    contenders = {name: calls.named(name) for name in "ab"}
    await compare(contenders, repeat=2, warm_up=False, show=False)
    assert "".join(calls.order) == "abba"


async def test_the_collector_rests_while_they_are_timed_and_only_then() -> None:
    calls = Calls()
    await compare({"a": calls.named("a")}, repeat=2, show=False)
    assert calls.collecting == [True, False, False]
    assert gc.isenabled()


async def test_a_ratio_that_is_known() -> None:
    async def one() -> None:
        await asyncio.sleep(0.02)

    async def four() -> None:
        for _ in range(4):
            await asyncio.sleep(0.02)

    comparison = await compare(
        {"one": one, "four": four}, repeat=3, ideal={"one": 0.02, "four": 0.08}, show=False
    )
    assert 2 < comparison.ratio("four", "one") < 6
    assert 0.5 > comparison.ratio("one", "four") > 1 / 6
    assert 1 <= comparison.of_ideal("one") < 3


async def test_plain_functions_and_what_they_return_are_run() -> None:
    calls = []

    async def answer() -> None:
        calls.append("awaited")

    await compare(
        {"plain": lambda: calls.append("plain"), "returns a coroutine": lambda: answer()},
        repeat=1,
        warm_up=False,
        show=False,
    )
    assert calls == ["plain", "awaited"]


async def test_an_error_of_a_contender_is_raised_and_the_collector_is_on_again() -> None:
    async def fails() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await compare({"fails": fails}, warm_up=False, show=False)
    assert gc.isenabled()


def by_hand(**samples: list[float]) -> Comparison:
    return Comparison(samples, {"slow": 0.2})


def test_medians_and_ratios() -> None:
    comparison = by_hand(slow=[0.4, 0.2, 0.9], quick=[0.1, 0.1, 0.3])
    assert comparison.median("slow") == 0.4
    assert comparison.ratio("slow", "quick") == pytest.approx(2)  # of 0.2 and 0.1
    assert comparison.of_ideal("slow") == pytest.approx(2)


def test_rounds_that_the_machine_disturbed_do_not_count() -> None:
    comparison = by_hand(slow=[20, 2, 2], quick=[10, 10, 1])
    assert comparison.ratio("slow", "quick") == 2


def test_unknown_names_are_refused_with_those_that_are_known() -> None:
    comparison = by_hand(slow=[1], quick=[1])
    for ask in (comparison.median, comparison.of_ideal, lambda n: comparison.ratio(n, "slow")):
        with pytest.raises(ValueError, match="name is 'other'; compared were 'slow', 'quick'"):
            ask("other")
    with pytest.raises(ValueError, match="name is 'quick'; only 'slow' had an ideal"):
        comparison.of_ideal("quick")


async def test_a_table_and_bars_are_shown(shown: list[dict[str, str]]) -> None:
    comparison = by_hand(slow=[0.4, 0.3], quick=[0.1, 0.1])
    comparison.show()
    table, bars, words = shown
    lines = table["text/plain"].splitlines()
    assert lines[0].split() == ["median", "range", "best,", "against", "slow", "predicted", "bound"]
    assert lines[1].split("  ")[0] == "slow"
    assert "350 ms" in lines[1]
    assert "300 ms to 400 ms" in lines[1]
    assert "200 ms" in lines[1]
    assert "0.33 times" in lines[2]
    assert bars["text/plain"].startswith("Bars of the median times. slow takes 3 times")
    assert words["text/plain"] == "slow takes 3 times as long as quick, best of 2 rounds."


async def test_one_contender_can_be_shown(shown: list[dict[str, str]]) -> None:
    await compare({"only": lambda: None}, repeat=1)
    assert shown[2]["text/plain"] == "only takes 1 times as long as only, best of 1 round."


class TestErrors:
    """A quick 500 must not pass for a quick answer."""

    async def test_answers_of_a_service_that_sheds_load_are_counted_and_not_raised(self) -> None:
        app, calls = FastAPI(), []

        @app.get("/page")
        async def page() -> None:
            calls.append(1)
            if len(calls) % 2:
                raise ZeroDivisionError

        @app.get("/fine")
        async def fine() -> None: ...

        async with in_process(app, raise_errors=False) as client:
            comparison = await compare(
                {
                    "fine": lambda: client.get("/fine"),
                    "half": lambda: asyncio.gather(*[client.get("/page") for _ in range(4)]),
                    "nothing": nothing,
                },
                repeat=3,
                show=False,
            )
        assert comparison.errors == {"fine": {}, "half": {500: 6}, "nothing": {}}
        assert [answers.total for answers in comparison.answers.values()] == [3, 12, 0]
        assert "half" in repr(comparison)
        assert "(6 of 12 answers were 500)" in repr(comparison)

    async def test_only_timed_rounds_are_counted(self) -> None:
        cold = iter([httpx.Response(503)])

        def warms_up() -> httpx.Response:
            return next(cold, httpx.Response(200))

        warmed = await compare({"cold": warms_up}, repeat=2, show=False)
        assert (warmed.answers["cold"].total, dict(warmed.errors["cold"])) == (2, {})

    async def test_returned_exceptions_are_counted_by_their_class(self) -> None:
        async def late() -> None:
            raise httpx.PoolTimeout("no seat")

        def both() -> Any:
            return asyncio.gather(late(), late(), return_exceptions=True)

        comparison = await compare({"both": both}, repeat=2, show=False)
        assert comparison.errors["both"] == {"PoolTimeout": 4}

    async def test_table_note_bars_and_summary_name_them(
        self, shown: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn: list[Any] = []
        bars = charts.bars
        monkeypatch.setattr(
            charts, "bars", lambda *a, **o: (drawn.append(o["failed"]), bars(*a, **o))[1]
        )
        answers = {"slow": Answers(20), "quick": Answers()}
        for _ in range(3):
            answers["quick"].count(httpx.Response(500))
        Comparison({"slow": [0.4], "quick": [0.1]}, {}, answers).show()
        table, note, picture, words = (bundle["text/plain"] for bundle in shown)
        header, slow, quick = table.splitlines()
        assert header.endswith("errors")
        assert slow.endswith("0 of 20")
        assert quick.endswith("3 of 3")
        assert note == "✗ quick: 3 of 3 answers were 500. Its time includes them."
        assert picture.endswith("quick: 3 of 3 answers were 500.")
        assert words.endswith("best of 1 round. quick: 3 of 3 answers were 500.")
        assert drawn == [[False, True]]

    async def test_without_errors_nothing_is_said_of_them(
        self, shown: list[dict[str, str]]
    ) -> None:
        await compare({"fine": lambda: httpx.Response(200)}, repeat=2)
        assert len(shown) == 3
        assert "error" not in "".join(bundle["text/plain"] for bundle in shown)


async def nothing() -> None: ...


@pytest.mark.parametrize(
    ("contenders", "options", "error", "words"),
    [
        ({}, {}, ValueError, "contenders is empty"),
        ([nothing], {}, TypeError, "it must be functions by name"),
        ({"a": 5}, {}, TypeError, "contender 'a' is 5; it must be a function"),
        ({"a": nothing}, {"repeat": 0}, ValueError, "repeat is 0; it must be a whole number"),
        ({"a": nothing}, {"repeat": 2.5}, ValueError, "repeat is 2.5"),
        ({"a": nothing}, {"ideal": {"b": 1}}, ValueError, "ideal names 'b'; compared are 'a'"),
        ({"a": nothing}, {"ideal": {"a": 0}}, ValueError, "ideal of 'a' is 0; it must be above 0"),
        ({"a": nothing}, {"ideal": {"a": math.inf}}, ValueError, "ideal of 'a' is inf"),
    ],
)
async def test_wrong_arguments_are_refused(
    contenders: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await compare(contenders, **options)


async def test_coroutines_are_refused_and_none_is_left_unawaited() -> None:
    contenders: Any = {"a": nothing(), "b": nothing()}
    with pytest.raises(TypeError, match=r"contender 'a' is a coroutine; pass the function"):
        await compare(contenders)
    contenders.clear()
    gc.collect()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0001, "0.10 ms"), (0.00999, "9.99 ms"), (0.009996, "10.0 ms"), (0.0999, "99.9 ms"),
        (0.09996, "100 ms"), (1.5, "1,500 ms"),
    ],
)  # fmt: skip
def test_times_in_words(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text
