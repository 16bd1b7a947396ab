"""What a learner's code shares with the rest of the process, and must find and leave whole.

The event loop, the other tasks on it, asyncio's own functions and the standard streams belong to
everybody: the kernel, the check and the lessons that follow. Here each of them is put out of reach
for the length of a check, or put back after it.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Generator, Iterable
from types import ModuleType
from typing import Any

from anyio._backends._asyncio import _root_task, find_root_task
from IPython.core.getipython import get_ipython

OUTPUT = 100_000  # characters that a check's code may print, on both streams together

Report = Callable[[str, str], None]

SHARED = "reaches-too-far"

_NAMES: tuple[tuple[ModuleType, tuple[str, ...]], ...] = (
    (
        asyncio,
        (
            "CancelledError",
            "Condition",
            "Event",
            "Lock",
            "Queue",
            "Semaphore",
            "TaskGroup",
            "all_tasks",
            "as_completed",
            "create_task",
            "current_task",
            "ensure_future",
            "gather",
            "get_running_loop",
            "shield",
            "sleep",
            "timeout",
            "timeout_at",
            "to_thread",
            "wait",
            "wait_for",
        ),
    ),
    (time, ("monotonic", "perf_counter", "sleep", "time")),
)
# Taken when the course is imported, which a lesson's first cell does.
_ORIGINALS = [(module, name, getattr(module, name)) for module, names in _NAMES for name in names]


def put_back() -> list[str]:
    """Put back the functions of the standard library that somebody has replaced; name them."""
    replaced = []
    for module, name, original in _ORIGINALS:
        if getattr(module, name, None) is not original:
            setattr(module, name, original)
            replaced.append(f"{module.__name__}.{name}")
    return replaced


@contextlib.contextmanager
def others_hidden() -> Generator[None]:
    """Keep the tasks that are there now out of ``asyncio.all_tasks()`` inside the block.

    Whoever cancels all tasks in there cancels the block's own; the kernel and the check live on.
    Source: https://docs.python.org/3/library/asyncio-extending.html#task-lifetime-support
    """
    others = asyncio.all_tasks()
    with _root_for_anyio():
        for task in others:
            asyncio.tasks._unregister_task(task)
        try:
            yield
        finally:
            for task in others:
                if not task.done():
                    asyncio.tasks._register_task(task)


@contextlib.contextmanager
def _root_for_anyio() -> Generator[None]:
    """Let AnyIO take this task for the loop's main one inside the block, if it knows none.

    It ends its worker threads and processes with the loop's main task. In a kernel it finds none,
    and takes the task that happens to ask first: a request's, whose end then ends the workers of
    all others.
    """
    find_root_task()
    known = _root_task.get(None)
    if known is not None and not known.done():
        yield
        return
    token = _root_task.set(asyncio.current_task())
    try:
        yield
    finally:
        _root_task.reset(token)


@contextlib.contextmanager
def kept_running(
    loop: asyncio.AbstractEventLoop, inside: Callable[[], bool], report: Report
) -> Generator[None]:
    """Let nobody ``inside`` stop the loop, which is reported, or the kernel.

    ``exit()`` in a notebook asks the kernel to end; in the block it is ``sys.exit()``.
    """

    def stop_refused() -> None:
        report(SHARED, "it called stop() of the event loop")

    def exit_refused() -> None:
        raise SystemExit("exit()")

    shell = get_ipython()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_refused(loop, "stop", inside, stop_refused))
        if shell is not None:
            stack.enter_context(_refused(shell, "ask_exit", inside, exit_refused))
        yield


@contextlib.contextmanager
def _refused(
    owner: object, name: str, inside: Callable[[], bool], refuse: Callable[[], None]
) -> Generator[None]:
    """Call ``refuse`` where somebody ``inside`` calls that method of ``owner``."""
    method = getattr(owner, name)

    def called() -> None:
        if inside():
            refuse()
        else:
            method()

    try:
        attributes = vars(owner)
    except TypeError:  # written in C, such as uvloop's loop
        yield
        return
    before = attributes.get(name, called)
    attributes[name] = called
    try:
        yield
    finally:
        if before is called:
            attributes.pop(name, None)
        else:
            attributes[name] = before


class _Stream:
    """A standard stream that nobody can close, and that takes so much and no more."""

    def __init__(self, stream: Any, room: list[int], report: Report) -> None:
        self._stream = stream
        self._room = room
        self._report = report

    def write(self, text: str) -> int:
        taken = text[: max(0, self._room[0])]
        self._room[0] -= len(text)
        if self._room[0] < 0:
            self._report("runs-away", f"it printed more than {OUTPUT:,} characters")
        if taken:
            self._stream.write(taken)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def close(self) -> None:
        self._report(SHARED, "it closed sys.stdout or sys.stderr")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def streams_kept(report: Report) -> Generator[None]:
    """Keep ``sys.stdout`` and ``sys.stderr`` open inside the block, and what they take bounded."""
    room = [OUTPUT]
    names = [name for name in ("stdout", "stderr") if getattr(sys, name) is not None]
    originals = {name: getattr(sys, name) for name in names}
    lent = {name: _Stream(stream, room, report) for name, stream in originals.items()}
    for name, stream in lent.items():
        setattr(sys, name, stream)
    try:
        yield
    finally:
        for name, original in originals.items():
            if getattr(sys, name) is not lent[name]:
                report(SHARED, f"it replaced sys.{name}")
            setattr(sys, name, original)
