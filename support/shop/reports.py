"""Four reports at once, and what they leave of this process meanwhile: lesson 01 runs it."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from support.lab import Recording, loop_lag, xray
from support.lab.compare import milliseconds

REPORTS = 4
INTERVAL = 0.005  # seconds between two rings of the timer


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

    @property
    def row(self) -> list[str]:
        """Title, lag and processors as text, a row of a table."""
        return [self.recording.title, milliseconds(self.lag), f"{self.processors:.2f}"]


async def watched(report: Callable[[], Awaitable[Any]]) -> Watched:
    """Run ``report`` four times at once beside a timer, and tell what that left of this process.

    It runs twice: the first time starts the threads or processes that it needs.
    """
    await four_reports(report)
    worked = time.process_time()
    async with loop_lag(INTERVAL) as lag:
        title = report.__name__.replace("_", " ")
        recording = await xray(four_reports(report), title=title, show=False)
    worked = time.process_time() - worked
    return Watched(recording, lag.median, worked / recording.duration)


async def four_reports(report: Callable[[], Awaitable[Any]]) -> None:
    """Run ``report`` four times at once, and wake every 5 ms until all have ended."""

    async def one() -> None:
        await report()

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
