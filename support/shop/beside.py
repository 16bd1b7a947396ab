"""What lesson 01 runs beside one another: requests of one app, and four reports beside a timer."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import httpx
from starlette.applications import Starlette

from support.lab import Recording, get, loop_lag, show_table, show_xray, xray
from support.lab.compare import milliseconds

Report = Callable[..., Awaitable[Any]]

REPORTS = 4
INTERVAL = 0.005  # seconds between two rings of the timer


async def requests_to(app: Starlette, paths: Iterable[str]) -> list[httpx.Response]:
    """Send a GET request to each of ``paths`` at the same moment, in this process.

    Returns the answers in the order of ``paths``. Raises what the app raises first.
    """
    return await asyncio.gather(*[get(app, path) for path in paths])


async def answers_to(client: httpx.AsyncClient, paths: Iterable[str]) -> list[httpx.Response]:
    """Send a GET request to each of ``paths`` at the same moment.

    Returns the answers in the order in which they come. Raises what a request raises first.
    """
    answers: list[httpx.Response] = []

    async def visit(path: str) -> None:
        answers.append(await client.get(path))

    async with asyncio.TaskGroup() as group:
        for path in paths:
            group.create_task(visit(path))
    return answers


@dataclass(frozen=True, slots=True)
class Watched:
    """What four reports left of this process.

    Attributes:
        recording: the x-ray. Its first lane wakes every 5 ms if the loop lets it.
        lag: how late the loop usually came to a timer, the median, in seconds.
        processors: how many processors this process kept busy, in the mean, with all its threads.
    """

    recording: Recording
    lag: float
    processors: float


async def watched(title: str, report: Report, *args: Any) -> Watched:
    """Run ``report(*args)`` four times at once beside a timer, and tell what that left of us.

    The four run twice: the first time starts the threads or processes that they need.
    """
    await every_5_ms(report, args)
    worked = time.process_time()
    async with loop_lag(INTERVAL) as lag:
        recording = await xray(every_5_ms(report, args), title=title, show=False)
    worked = time.process_time() - worked
    return Watched(recording, lag.median, worked / recording.duration)


def show_watched(*watched: Watched) -> None:
    """Draw the recordings one under another, with a table of lag and processors."""
    show_xray(*[one.recording for one in watched])
    rows = [
        [one.recording.title, milliseconds(one.lag), f"{one.processors:.2f}"] for one in watched
    ]
    show_table(["four reports", "lag, median", "processors that we use"], rows)


async def every_5_ms(report: Report, args: tuple[Any, ...]) -> None:
    """Run the reports, and wake every 5 ms until all have ended; its name is its lane's."""

    async def one() -> None:
        await report(*args)

    reports = [asyncio.create_task(one(), name=f"report {n + 1}") for n in range(REPORTS)]
    try:
        while not all(task.done() for task in reports):
            await asyncio.sleep(INTERVAL)
        await asyncio.gather(*reports)
    finally:
        for task in reports:
            task.cancel()


def two_processes() -> ProcessPoolExecutor:
    """Return a pool of two clean processes, which leave an interrupt to this one."""
    deaf = (signal.SIGINT, signal.SIG_IGN)
    return ProcessPoolExecutor(2, get_context("spawn"), signal.signal, deaf)
