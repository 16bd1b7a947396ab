"""What lesson 01 runs beside one another: requests of one app, and four reports beside a timer."""

import asyncio
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import mean
from typing import Any

import httpx
from starlette.applications import Starlette

from looplab.lab import Recording, get, loop_lag, show_table, show_xray, xray
from looplab.lab.compare import milliseconds

Report = Callable[..., Awaitable[Any]]

REPORTS = 4
ROUNDS = 3
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


async def in_own_loop(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run ``main()`` in an event loop of its own, in another thread; return what it returns.

    It is that loop's main task, as a server has one and a notebook has none: AnyIO keeps its
    threads and processes until that task ends. Raises what ``main`` raises.
    """
    return await asyncio.to_thread(lambda: asyncio.run(main()))


class SlowSupplier:
    """A supplier that is asked in threads, and counts those that are inside.

    Attributes:
        most_inside: how many threads were inside at once, at most.
    """

    def __init__(self, wait: float) -> None:
        """Make a supplier that takes ``wait`` seconds for each call."""
        self.most_inside = 0
        self._wait = wait
        self._inside = 0
        self._changed = threading.Condition()

    def ask(self) -> None:
        """Ask, and block until the answer is there."""
        with self._changed:
            self._inside += 1
            self.most_inside = max(self.most_inside, self._inside)
        time.sleep(self._wait)
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    async def is_empty(self) -> None:
        """Wait until no thread is inside any more."""
        await asyncio.to_thread(self._wait_until_empty)

    def _wait_until_empty(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._inside)


@dataclass(frozen=True, slots=True)
class Watched:
    """What four reports left of this process.

    Attributes:
        recording: the x-ray. Its first lane wakes every 5 ms if the loop lets it.
        lag: how late the loop came to a timer, in the mean, in seconds.
        worked: how many seconds this process computed, with all its threads.
    """

    recording: Recording
    lag: float
    worked: float

    @property
    def processors(self) -> float:
        """How many processors this process kept busy, in the mean."""
        return self.worked / self.recording.duration


async def watched(title: str, report: Report, *args: Any) -> Watched:
    """Run ``report(*args)`` four times at once beside a timer, and tell what that left of us.

    Two run first, to start threads or processes. Then the four run three times; what is told is the
    round whose lag is in the middle.
    """
    await asyncio.gather(report(*args), report(*args))
    rounds = [await _round(title, report, args) for _ in range(ROUNDS)]
    return sorted(rounds, key=lambda one: one.lag)[ROUNDS // 2]


async def _round(title: str, report: Report, args: tuple[Any, ...]) -> Watched:
    worked = time.process_time()
    async with loop_lag(INTERVAL) as lag:
        experiment = every_5_ms(report, args)
        recording = await xray(experiment, title=title, unfold=False, show=False)
    worked = time.process_time() - worked
    late = mean(late for _, late in lag.samples)
    return Watched(recording, late, worked)


def show_watched(*watched: Watched) -> None:
    """Draw the recordings one under another, with a table of lag and processors."""
    show_xray(*[one.recording for one in watched])
    rows = [
        [one.recording.title, milliseconds(one.lag), f"{one.processors:.2f}"] for one in watched
    ]
    show_table(["four reports", "mean lag", "processors we use"], rows)


async def every_5_ms(report: Report, args: tuple[Any, ...]) -> None:
    """Run the reports, and wake every 5 ms until all have ended; its name is its lane's."""

    async def one() -> None:
        await report(*args)

    reports = [asyncio.create_task(one(), name=f"report {n + 1}") for n in range(REPORTS)]
    try:
        pending = set(reports)
        while pending:
            _, pending = await asyncio.wait(reports, timeout=INTERVAL)
        await asyncio.gather(*reports)
    finally:
        for task in reports:
            task.cancel()


def two_processes() -> ProcessPoolExecutor:
    """Return a pool of two clean processes, which leave an interrupt to this one."""
    return ProcessPoolExecutor(
        max_workers=2,
        mp_context=get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
