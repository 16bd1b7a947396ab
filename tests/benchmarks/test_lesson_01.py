"""How long lesson 01's twenty requests take beside one wait, on the lesson's own cells.

The pace stretches the lesson's waits of 20 ms to the 50 ms for which the target is stated.
"""

from functools import partial
from typing import Any

import pytest

from looplab.lab import compare, ms
from looplab.lab.units import PACE_VARIABLE
from looplab.stages import two_loops
from looplab.stages.beside import requests_to

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

REQUESTS = 20
LESSON_WAIT = 20  # milliseconds
TARGET_WAIT = 50  # milliseconds
ROUNDS = 9
CELLS = ("setup", "naive-app", "pattern-awaited", "compare-threaded")


@pytest.fixture
def lesson(names_of: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the names that the lesson's cells define, at a pace that makes a wait 50 ms."""
    monkeypatch.setenv(PACE_VARIABLE, str(TARGET_WAIT / LESSON_WAIT))
    return names_of("01", CELLS)


async def test_twenty_awaited_requests_take_one_wait(lesson: dict[str, Any], figures: Any) -> None:
    wait = ms(LESSON_WAIT)
    assert wait == pytest.approx(TARGET_WAIT / 1000)

    bounds = {"/awaited": wait, "/threaded": wait, "/blocking": REQUESTS * wait}
    calls = {path: partial(requests_to, lesson["app"], [path] * REQUESTS) for path in bounds}
    timing = await compare(calls, repeat=ROUNDS, ideal=bounds, show=False)
    with figures(f"lesson 01, {REQUESTS} requests of {TARGET_WAIT} ms") as table:
        table.at_most("awaited, of one wait", timing.of_ideal("/awaited"), 1.25)
        table.only("def, of one wait", timing.of_ideal("/threaded"))
        table.only("blocking, of twenty waits", timing.of_ideal("/blocking"))
        table.only("blocking, of awaited", timing.ratio("/blocking", "/awaited"))


@pytest.mark.skipif(bool(two_loops.MISSING), reason=two_loops.MISSING)
async def test_uvloop_shortens_no_wait_and_gains_on_the_echoed_line(
    names_of: Any, figures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PACE_VARIABLE, str(TARGET_WAIT / LESSON_WAIT))
    app = names_of("01_deeper", ("setup", "setup-app", "uvloop-app"))["app"]
    visits = {"line": (8, 40), "/small": (8, 10), "/waits": (5, 1), "/computes": (1, 1)}
    raced = await two_loops.race(app, visits)
    with figures("lesson 01, asyncio's loop against uvloop") as table:
        took = raced.quickest("/waits") / ms(LESSON_WAIT)
        table.at_most("five waits at once, of one wait", took, 1.25)
        table.at_most("uvloop's work of asyncio's, a line", 1 / raced.gain("line"), 0.8)
        table.only("asyncio's work of uvloop's, FastAPI's answer", raced.gain("/small"))
        table.only("asyncio's work of uvloop's, a wait", raced.gain("/waits"))
        table.only("asyncio's work of uvloop's, computing", raced.gain("/computes"))
