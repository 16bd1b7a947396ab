"""How late an event loop wakes: the lag that one blocking call gives to everything else."""

import asyncio
import math
import statistics
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class LoopLag:
    """The lateness of a heartbeat, in seconds, one sample a beat.

    ``samples`` holds ``(time since the start, lateness)``. A beat that is overdue while you ask
    counts with the lateness it has by then.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float) -> None:
        self._loop = loop
        self._interval = interval
        self._start = loop.time()
        self._beats: list[tuple[float, float]] = []
        self._due = self._start
        self._handle: asyncio.TimerHandle | None = None
        self._stopped = False

    @property
    def samples(self) -> list[tuple[float, float]]:
        overdue = [] if self._stopped else self._overdue()
        return [*self._beats, *overdue]

    @property
    def worst(self) -> float:
        """The largest lateness so far, in seconds; 0 before the first beat is due."""
        return max((late for _, late in self.samples), default=0.0)

    @property
    def median(self) -> float:
        """The lateness in the middle, in seconds; 0 before the first beat is due."""
        return statistics.median([late for _, late in self.samples] or [0.0])

    def _overdue(self) -> list[tuple[float, float]]:
        now = self._loop.time()
        return [(now - self._start, now - self._due)] if now > self._due else []

    def _schedule(self) -> None:
        self._due = self._loop.time() + self._interval
        self._handle = self._loop.call_at(self._due, self._beat)

    def _beat(self) -> None:
        if self._stopped:
            return
        now = self._loop.time()
        self._beats.append((now - self._start, max(0.0, now - self._due)))
        self._schedule()

    def _stop(self) -> None:
        self._beats.extend(self._overdue() or [(self._loop.time() - self._start, 0.0)])
        self._stopped = True

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


@asynccontextmanager
async def loop_lag(
    interval: float = 0.005, *, loop: asyncio.AbstractEventLoop | None = None
) -> AsyncGenerator[LoopLag]:
    """Measure how late the loop wakes inside the block; yields a :class:`LoopLag`.

    A timer asks to be called every ``interval`` seconds and notes how much later it was called. It
    is a timer, not a task: it leaves no lane in an x-ray. A hold that lasts beyond the end of the
    block counts as far as the block goes. Resolution is ``interval``: a hold of 50 ms reads as 45
    to 50 ms.

    ``loop`` measures another running loop, such as a loopback server's, from this one.

    Raises ValueError for an ``interval`` that is not above 0, and RuntimeError when ``loop``
    is closed.
    """
    if not (math.isfinite(interval) and interval > 0):
        raise ValueError(f"interval is {interval!r}; it must be above 0, in seconds")
    here = asyncio.get_running_loop()
    measured = loop or here
    lag = LoopLag(measured, interval)
    if measured is here:
        lag._schedule()
    else:
        measured.call_soon_threadsafe(lag._beat)
    try:
        yield lag
    finally:
        lag._stop()
        if measured is here:
            lag._cancel()
        elif not measured.is_closed():
            try:
                measured.call_soon_threadsafe(lag._cancel)
            except RuntimeError:
                if not measured.is_closed():
                    raise
