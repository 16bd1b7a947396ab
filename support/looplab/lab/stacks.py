"""Where in the source a loop was held: look at its thread every few milliseconds.

The x-ray knows how long each step took and whose it was, but not the line that it stood in
meanwhile. A thread of its own reads that from ``sys._current_frames()``, which is how
``faulthandler`` and ``py-spy`` come by theirs; see
https://docs.python.org/3/library/sys.html#sys._current_frames.
"""

import linecache
import sys
import threading
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from types import CodeType, FrameType

from looplab.lab.our_code import LAB_FOLDER, short_name
from looplab.lab.trace import Recorder

DEEPEST = 100
"""Frames of one stack that are looked at."""

LIBRARIES = 4
"""So many libraries are named on the way to a place that is in none of the learner's code."""


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of source that a thread stood in: its file as Python knows it, and the function."""

    file: str
    line: int
    function: str

    @property
    def source(self) -> str:
        """The line's text without the space around it; empty where there is none to read."""
        return linecache.getline(self.file, self.line).strip()


@dataclass(frozen=True, slots=True)
class Stack:
    """Where a step stood at one moment.

    ``ours`` are the places in the learner's code, from the outside in; it is empty where a library
    runs by itself. ``inside`` is the innermost place of a library's below them, or None. Where
    nothing is ours, ``through`` are the libraries that led to it, from the outside in.
    """

    ours: tuple[SourceLine, ...]
    inside: SourceLine | None
    through: tuple[SourceLine, ...] = ()

    @property
    def innermost(self) -> SourceLine | None:
        """The innermost place of the learner's, or else the library's."""
        return self.ours[-1] if self.ours else self.inside

    @property
    def callers(self) -> tuple[SourceLine, ...]:
        """The places that led to the innermost one, from the outside in."""
        return self.ours[:-1] if self.ours else self.through


class StackSampler:
    """A thread that looks at what another one runs, every ``interval`` seconds, while it is on.

    Only steps of traced tasks are noted: an idle loop is not. ``look`` is called each time as well,
    and at the beginning and the end, in the sampler's thread.
    """

    def __init__(
        self,
        thread: int,
        *,
        interval: float,
        is_ours: Callable[[CodeType], bool],
        look: Callable[[], object] = lambda: None,
    ) -> None:
        self.interval = interval
        self._watched = thread
        self._is_ours = is_ours
        self._look = look
        self._known: dict[CodeType, bool] = {}
        self._times: list[float] = []
        self._stacks: list[Stack] = []
        self._stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, name="stack sampler", daemon=True)

    def __enter__(self) -> "StackSampler":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.thread.join()

    def between(self, began: float, ended: float) -> list[tuple[Stack, float]]:
        """Return where the thread stood in that time, most often first, each with its share.

        One stack a function, that of the line in which the function was seen most often; shares add
        up to 1. Empty where nobody looked. Times are readings of ``time.perf_counter``.
        """
        first, last = bisect_left(self._times, began), bisect_right(self._times, ended)
        seen = self._stacks[first:last]
        found = []
        for function, number in Counter(map(_innermost_function, seen)).most_common():
            there = [stack for stack in seen if _innermost_function(stack) == function]
            (line, _), *_ = Counter(map(_innermost_line, there)).most_common(1)
            stack = next(stack for stack in there if _innermost_line(stack) == line)
            found.append((stack, number / len(seen)))
        return found

    def _run(self) -> None:
        self._look()
        while not self._stopped.wait(self.interval):
            self._note()
            self._look()
        self._look()

    def _note(self) -> None:
        frame = sys._current_frames().get(self._watched)
        stack = None if frame is None else self._stack(frame)
        if stack is not None:
            self._times.append(perf_counter())
            self._stacks.append(stack)

    def _stack(self, innermost: FrameType) -> Stack | None:
        """Return the stack of the step that runs, or None where none does."""
        frame: FrameType | None = innermost
        ours: list[SourceLine] = []
        inside: SourceLine | None = None
        through: list[SourceLine] = []
        package = ""
        for _ in range(DEEPEST):
            if frame is None:
                return None
            code = frame.f_code
            if code is Recorder._drive.__code__:
                break
            if self._own(code):
                ours.append(_place(frame))
            elif not ours and not code.co_filename.startswith(LAB_FOLDER):
                before, package = package, _package(frame)
                if inside is None:
                    inside = _place(frame)
                elif package != before and len(through) < LIBRARIES:
                    through.append(_place(frame))
            frame = frame.f_back
        return Stack(tuple(reversed(ours)), inside, () if ours else tuple(reversed(through)))

    def _own(self, code: CodeType) -> bool:
        found = self._known.get(code)
        if found is None:
            found = self._known[code] = self._is_ours(code)
        return found


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _place(frame: FrameType) -> SourceLine:
    code = frame.f_code
    return SourceLine(code.co_filename, frame.f_lineno or code.co_firstlineno, _name(code))


def _name(code: CodeType) -> str:
    return short_name(code.co_qualname)


def _innermost_function(stack: Stack) -> tuple[str, str]:
    place = stack.innermost
    return ("", "") if place is None else (place.file, place.function)


def _innermost_line(stack: Stack) -> int:
    place = stack.innermost
    return 0 if place is None else place.line
