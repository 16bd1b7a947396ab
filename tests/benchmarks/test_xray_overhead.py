"""What the x-ray adds to a task's step, beside what viztracer and yappi add to the same program.

All of it in one process: a round runs the program bare and then under each tool, started right
before and stopped right after, and times it from inside, so that neither starting a tool nor what
it does with its records afterwards counts. A figure is the median over the rounds of the ratios
inside each. The program never waits, so it is timed in seconds of processor time, which other work
on the machine disturbs less. The garbage collector rests throughout, as it does in an x-ray.

The shares of what the others add are promised for the steady program. Where every step awaits new
coroutines, each of them has to be named anew, and the bare cost alone is promised.

AsyncFlow is the recorder of wigglystuff's widget of that name, without the widget, which draws in a
browser meanwhile and would add to it. It is measured where wigglystuff is installed, on Python 3.12
or later: it needs ``sys.monitoring``.

A request to a server is compared with one to the same app in process: what the x-ray adds to it in
the server's thread, against what it adds in process, where client and app share a thread. What it
adds to the client of the server is shown as well: a client waits for its socket again and again,
and each wait ends a step. A round is a handful of requests, and a figure the lowest tenth of many
rounds, since other work on the machine can only add to one.
"""

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from statistics import median, quantiles
from time import thread_time
from typing import Any

import httpx
import pytest
import yappi
from fastapi import FastAPI
from viztracer import VizTracer

from looplab.lab.clients import LoopbackServer, in_process, serve
from looplab.lab.xray import xray

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

STEPS = 20_000
ROUNDS = 9
REQUESTS = 40
REQUEST_ROUNDS = 60

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


async def under_asyncflow(program: Program) -> float:
    asyncflow = pytest.importorskip("wigglystuff.async_flow")
    logger = asyncflow.AsyncFlowLogger([program.__code__.co_filename])
    async with logger:
        taken = await asyncio.create_task(program())
    assert len(logger.events) > STEPS
    return taken


TOOLS: dict[str, Callable[[Program], Awaitable[float]]] = {
    "bare": bare,
    "x-ray": under_xray,
    "viztracer": under_viztracer,
    "yappi": under_yappi,
}


async def rounds_of(
    tools: Mapping[str, Callable[[Program], Awaitable[float]]], program: Program
) -> dict[str, list[float]]:
    """Return what the program took in each round, by tool, in seconds of processor time."""
    taken: dict[str, list[float]] = {name: [] for name in tools}
    gc.collect()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            for name, run in tools.items():
                taken[name].append(await run(program))
                gc.collect()
    finally:
        gc.enable()
    return taken


def added(taken: dict[str, list[float]], name: str) -> float:
    """Return what a tool adds, in times of the bare cost."""
    rounds = zip(taken[name], taken["bare"], strict=True)
    return median((time - bare) / bare for time, bare in rounds)


def share(taken: dict[str, list[float]], of: str) -> float:
    """Return what the x-ray adds, in times of what another tool does."""
    rounds = zip(taken["x-ray"], taken["bare"], taken[of], strict=True)
    return median((mine - bare) / (other - bare) for mine, bare, other in rounds)


@pytest.mark.parametrize("program", [steady, renewed])
async def test_what_the_x_ray_adds_to_a_step(program: Program, figures: Any) -> None:
    taken = await rounds_of(TOOLS, program)
    with figures(f"a step five coroutines deep, {program.__qualname__}") as table:
        table.only("bare", min(taken["bare"]) / STEPS * 1e6, "µs")
        most = 0.5 if program is steady else 1.2
        table.at_most("the x-ray adds, of the bare cost", added(taken, "x-ray"), most)
        table.only("viztracer with log_async adds", added(taken, "viztracer"))
        table.only("yappi adds", added(taken, "yappi"))
        if program is steady:
            table.at_most(
                "the x-ray adds, of what viztracer does", share(taken, "viztracer"), 1 / 4
            )
            table.at_most("the x-ray adds, of what yappi does", share(taken, "yappi"), 1 / 8)
        else:
            table.only("the x-ray adds, of what viztracer does", share(taken, "viztracer"))
            table.only("the x-ray adds, of what yappi does", share(taken, "yappi"))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="AsyncFlow needs Python 3.12")
async def test_what_the_x_ray_adds_beside_asyncflow(figures: Any) -> None:
    tools = {"bare": bare, "x-ray": under_xray, "AsyncFlow": under_asyncflow}
    taken = await rounds_of(tools, steady)
    with figures("a step five coroutines deep, beside AsyncFlow") as table:
        table.only("the x-ray adds, of the bare cost", added(taken, "x-ray"))
        table.only("AsyncFlow adds", added(taken, "AsyncFlow"))
        table.at_most("the x-ray adds, of what AsyncFlow does", share(taken, "AsyncFlow"), 1 / 8)


async def load_orders() -> None:
    await asyncio.sleep(0)


async def requests_to(
    client: httpx.AsyncClient, server: LoopbackServer | None
) -> tuple[float, float]:
    """Return the processor time of ``REQUESTS`` requests in turn, each a task, in seconds.

    That of this thread, and that of the server's thread, which is 0 for no server.
    """

    async def clock() -> float:
        return thread_time()

    there = 0.0 if server is None else await server.run(clock)
    here = thread_time()
    for _ in range(REQUESTS):
        response = await asyncio.create_task(client.get("/orders"))
        assert response.status_code == 200
    taken = thread_time() - here
    return taken, 0.0 if server is None else await server.run(clock) - there


def per_request(rounds: list[tuple[float, float]], thread: int) -> float:
    """Return the lowest tenth of what a request took in a thread, in microseconds."""
    return quantiles((taken[thread] for taken in rounds), n=10)[0] / REQUESTS * 1e6


async def test_what_the_x_ray_adds_to_a_served_request(figures: Any) -> None:
    app = FastAPI()

    @app.get("/orders")
    async def orders() -> dict[str, int]:
        await load_orders()
        return {"orders": 1}

    bare: dict[str, list[tuple[float, float]]] = {"in process": [], "served": []}
    seen: dict[str, list[tuple[float, float]]] = {"in process": [], "served": []}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve(app))
        over_a_socket = await stack.enter_async_context(server.client())
        in_this_process = await stack.enter_async_context(in_process(app))
        gc.collect()
        gc.disable()
        stack.callback(gc.enable)
        for _ in range(REQUEST_ROUNDS):
            for where, client, of in (
                ("in process", in_this_process, None),
                ("served", over_a_socket, server),
            ):
                bare[where].append(await asyncio.create_task(requests_to(client, of)))
                recording = await xray(requests_to(client, of), server=of, show=False)
                assert recording.names.count("GET /orders") == REQUESTS * (2 if of else 1)
                seen[where].append(recording.result)
            gc.collect()
    with figures("what the x-ray adds to a request") as table:
        added: dict[str, float] = {}
        for name, where, thread in (
            ("in process", "in process", 0),
            ("served, to the client", "served", 0),
            ("served, to the server", "served", 1),
        ):
            whole = per_request(bare[where], thread)
            added[name] = per_request(seen[where], thread) - whole
            table.only(name, added[name], "µs")
            table.only(f"{name}, of the bare cost", added[name] / whole)
        both = added["served, to the client"] + added["served, to the server"]
        table.only("served, to both, of what it adds in process", both / added["in process"])
        ratio = added["served, to the server"] / added["in process"]
        table.at_most("served, to the server, of what it adds in process", ratio, 2)
