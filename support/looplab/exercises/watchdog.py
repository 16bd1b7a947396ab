"""Ends code that keeps the event loop, or fills the memory, while a check runs.

The loop cannot do it: while a learner's step runs, nothing else does. A timer of the operating
system can. Every quarter of a second it interrupts whatever the main thread is doing, and if that
is a step of the learner's code that has lasted too long, :class:`Held` is raised in the middle of
it. ``time.sleep``, a blocking read and an endless loop of Python all end that way; only one long
call into C code does not.

Windows has no such timer, and only a main thread gets its signals. There a check runs without a
watchdog, and an endless loop that never awaits keeps it: restart the kernel.
"""

import signal
import threading
from collections.abc import Callable
from time import monotonic
from types import FrameType
from typing import Any, Self

import psutil

LOOK_EVERY = 0.25  # seconds
HOLD = 2.0  # seconds that one step may keep the loop
HOLD_AGAIN = 0.5  # seconds, once the code has been told to end
LONG = 0.6  # seconds; shorter steps can be a busy machine's and are not added up
HELD_IN_ALL = 4.0  # seconds that long steps may keep the loop together
MEMORY = 500_000_000  # bytes that the process may grow by

Report = Callable[[str, str], None]


class Held(BaseException):
    """Raised in the learner's code, at whatever it is doing, to end its step."""


class Watchdog:
    """Watches one sandbox; :meth:`start` and :meth:`stop` are called in the loop's thread.

    ``inside`` tells whether the learner's code is what runs now. ``report`` is called with the name
    of a mistake and its detail when the code goes too far.
    """

    def __init__(self, inside: Callable[[], bool], report: Report) -> None:
        self.interrupts = 0
        self._inside = inside
        self._report = report
        self._since = monotonic()
        self._held = 0.0
        self._told = False
        self._looks = False
        self._memory = 0
        self._process = psutil.Process()
        self._previous: dict[int, Any] = {}

    def start(self) -> Self:
        """Begin to look, where this thread gets signals and nobody else uses the timer."""
        self._since = monotonic()
        self._memory = self._process.memory_info().rss
        if threading.current_thread() is not threading.main_thread():
            return self
        if callable(handler := signal.getsignal(signal.SIGINT)):
            self._previous[signal.SIGINT] = handler
            signal.signal(signal.SIGINT, self._interrupted)
        if hasattr(signal, "setitimer") and signal.getsignal(signal.SIGALRM) == signal.SIG_DFL:
            self._previous[signal.SIGALRM] = signal.SIG_DFL
            signal.signal(signal.SIGALRM, self._look)
            signal.setitimer(signal.ITIMER_REAL, LOOK_EVERY, LOOK_EVERY)
            self._looks = True
        return self

    def stop(self) -> None:
        """Look no more, and give the signals back."""
        if self._looks:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._looks = False
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def begin(self) -> float:
        """Note that the loop turns: a step begins now. Returns the time, for :meth:`end`."""
        self._since = monotonic()
        return self._since

    def end(self, began: float) -> None:
        """Note that the step which began then has ended."""
        now = self._since = monotonic()
        if (lasted := now - began) < LONG:
            return
        self._held += lasted
        if lasted >= HOLD or self._held >= HELD_IN_ALL:
            self._told = True
            self._report("blocks-the-loop", f"for {max(lasted, self._held):.1f} s")

    def _look(self, signum: int, frame: FrameType | None) -> None:
        inside = self._inside()
        held = monotonic() - self._since
        if inside and held >= (HOLD_AGAIN if self._told else HOLD):
            self._told = True
            self._report("blocks-the-loop", f"for {held:.1f} s")
            raise Held
        grown = self._process.memory_info().rss - self._memory
        if grown > MEMORY:
            self._told = True
            self._report("runs-away", f"it took {grown / 1e6:,.0f} MB of memory")
            if inside:
                raise Held

    def _interrupted(self, signum: int, frame: FrameType | None) -> None:
        """Pass an interrupt on; a second one ends the step that does not let the first through."""
        self.interrupts += 1
        if self.interrupts > 1 and self._inside():
            raise Held
        self._previous[signal.SIGINT](signum, frame)
