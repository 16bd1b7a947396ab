"""What the x-ray adds to a task's step, beside what viztracer and yappi add to the same program.

All of it in one process: a round runs the program bare and then under each tool, started right
before and stopped right after, and times it from inside, so that neither starting a tool nor what
it does with its records afterwards counts. A figure is the median over the rounds of the ratios
inside each. The program never waits, so it is timed in seconds of processor time, which other work
on the machine disturbs less. The garbage collector rests throughout, as it does in an x-ray.

The shares of what the others add are promised for the steady program. Where every step awaits new
coroutines, each of them has to be named anew, and the bare cost alone is promised.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from statistics import median
from time import thread_time
from typing import Any

import pytest
import yappi
from viztracer import VizTracer

from support.lab.xray import xray

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

STEPS = 20_000
ROUNDS = 9

Program = Any


async def suspended_steady(level: int) -> None:
    if level:
        await suspended_steady(level - 1)
    else:
        for _ in range(STEPS):
            await asyncio.sleep(0)


async def steady() -> float:
    """Five coroutines deep, counting this one and ``sleep``; the same five at each step."""
    began = thread_time()
    await suspended_steady(2)
    return thread_time() - began


async def nested(level: int) -> None:
    if level:
        await nested(level - 1)
    else:
        await asyncio.sleep(0)


async def renewed() -> float:
    """Five coroutines deep as well, four of them new at each step: the hard case."""
    began = thread_time()
    for _ in range(STEPS):
        await nested(2)
    return thread_time() - began


async def bare(program: Program) -> float:
    return await asyncio.create_task(program())


async def under_xray(program: Program) -> float:
    recording = await xray(program(), show=False)
    assert recording.steps == STEPS + 1
    return recording.result


async def under_viztracer(program: Program) -> float:
    tracer = VizTracer(log_async=True, verbose=0, tracer_entries=40 * STEPS)
    tracer.start()
    try:
        return await asyncio.create_task(program())
    finally:
        tracer.stop()
        tracer.clear()


async def under_yappi(program: Program) -> float:
    yappi.set_clock_type("wall")
    yappi.start()
    try:
        return await asyncio.create_task(program())
    finally:
        yappi.stop()
        yappi.clear_stats()


TOOLS: dict[str, Callable[[Program], Awaitable[float]]] = {
    "bare": bare,
    "x-ray": under_xray,
    "viztracer": under_viztracer,
    "yappi": under_yappi,
}


@pytest.mark.parametrize("program", [steady, renewed])
async def test_what_the_x_ray_adds_to_a_step(program: Program, figures: Any) -> None:
    taken: dict[str, list[float]] = {name: [] for name in TOOLS}
    gc.collect()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            for name, run in TOOLS.items():
                taken[name].append(await run(program))
                gc.collect()
    finally:
        gc.enable()

    def added(name: str) -> float:
        rounds = zip(taken[name], taken["bare"], strict=True)
        return median((time - bare) / bare for time, bare in rounds)

    def share(of: str) -> float:
        rounds = zip(taken["x-ray"], taken["bare"], taken[of], strict=True)
        return median((mine - bare) / (other - bare) for mine, bare, other in rounds)

    with figures(f"a step five coroutines deep, {program.__qualname__}") as table:
        table.only("bare", min(taken["bare"]) / STEPS * 1e6, "µs")
        table.at_most("the x-ray adds, of the bare cost", added("x-ray"), 1.2)
        table.only("viztracer with log_async adds", added("viztracer"))
        table.only("yappi adds", added("yappi"))
        if program is steady:
            table.at_most("the x-ray adds, of what viztracer does", share("viztracer"), 1 / 4)
            table.at_most("the x-ray adds, of what yappi does", share("yappi"), 1 / 8)
        else:
            table.only("the x-ray adds, of what viztracer does", share("viztracer"))
            table.only("the x-ray adds, of what yappi does", share("yappi"))
