"""How long a recording of 100,000 steps takes to draw, PNG included."""

import asyncio
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import pytest
from matplotlib.figure import Figure

from looplab.lab import display
from looplab.lab.display import show_picture
from looplab.lab.xray import show_xray, xray

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

STEPS = 100_000


async def ask() -> None:
    await asyncio.sleep(0)


async def answer() -> None:
    await asyncio.sleep(0)


async def in_turn(count: int) -> None:
    for _ in range(count // 2):
        await ask()
        await answer()


async def one_task() -> None:
    await in_turn(STEPS)


async def a_thousand_tasks() -> None:
    await asyncio.gather(*(in_turn(STEPS // 1000) for _ in range(1000)))


def empty() -> None:
    figure = Figure(figsize=(7.6, 1.5), dpi=100)
    figure.add_subplot()
    show_picture(figure, alt="nothing", summary="nothing")


def times(*contenders: Callable[[], None]) -> list[float]:
    taken: list[list[float]] = [[] for _ in contenders]
    for turn in range(4):
        for place, contender in enumerate(contenders):
            began = perf_counter()
            contender()
            if turn:  # the first warms up
                taken[place].append(perf_counter() - began)
    return [median(one) for one in taken]


@pytest.mark.parametrize("program", [one_task, a_thousand_tasks])
async def test_drawing_100_000_steps(
    program: Any, figures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "display", lambda *_, **__: None)
    recording = await xray(program(), show=False)
    assert recording.steps >= STEPS
    drawn, nothing = times(lambda: show_xray(recording), empty)
    with figures(f"drawing {recording.steps:,} steps, {program.__name__}") as table:
        table.at_most("the x-ray's picture", drawn, 2, "s")
        table.only("an empty picture of the same width", nothing, "s")
        table.only("the x-ray's picture against an empty one", drawn / nothing)
