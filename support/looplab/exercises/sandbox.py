"""Where a learner's code runs during a check: apart, watched, and stopped in the end.

Whatever the code does, the check goes on: it runs in tasks of its own, which a task factory wraps.
A wrapped task that raises SystemExit or KeyboardInterrupt does not take the event loop with it, and
one that swallows its cancellation can be closed.

Some code goes too far for the check to go on with it: it keeps the loop (see
:mod:`looplab.exercises.watchdog`), changes what the whole process shares (see
:mod:`looplab.exercises.containment`), or has a callback that raises, which nothing that awaits
would hear of. Then the run ends at once, and so does the check.

One thing cannot be stopped: a thread that the code has started runs on to its own end.
"""

import asyncio
import contextlib
import ctypes
import inspect
import math
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Self, TypeVar, cast

import psutil

from looplab.exercises.containment import (
    SHARED,
    kept_running,
    others_hidden,
    put_back,
    streams_kept,
)
from looplab.exercises.error_text import leaves, tell
from looplab.exercises.verdicts import Wrong, wrong
from looplab.exercises.watchdog import Watchdog
from looplab.lab.silent_failures import let_go
from looplab.lab.trace import asked_for_by_us, is_ours, short_name

T = TypeVar("T")

GRACE = 0.5  # seconds that a library's task, or one that was cancelled, gets to finish
ROUNDS = 3  # how often what is left is cancelled before it is closed
ROUND = 0.3  # seconds between two such rounds


class Exits(BaseException):
    """Stands for a SystemExit or KeyboardInterrupt that the learner's code raised."""


class NotAwaitable(Exception):
    """What should have been awaited was no awaitable, but ``value``."""

    def __init__(self, value: object) -> None:
        super().__init__(type(value).__name__)
        self.value = value


def require_awaitable(outcome: Any) -> Awaitable[Any]:
    """Return ``outcome``, which the learner's code returned. Raises NotAwaitable if it is none."""
    if not inspect.isawaitable(outcome):
        raise NotAwaitable(outcome)
    return outcome


class Endless(Exception):
    """The learner's code had not ended when its time was up."""


@dataclass(slots=True)
class Ran(Generic[T]):
    """How a run ended: with a ``value`` or an ``error``, and with which tasks ``left`` running."""

    value: T | None
    error: BaseException | None
    left: list[str]

    def result(self) -> T:
        """Return the value.

        Raises Wrong, with a mistake of any exercise, when the run failed or left a task running.
        """
        if self.error is not None:
            raise blame(self.error)
        if self.left:
            raise wrong("left-running", ", ".join(self.left))
        return cast("T", self.value)


def blame(error: BaseException) -> Exception:
    """Return the mistake of any exercise that ``error`` stands for, and let go of the error.

    A mistake that is one already is returned as it is.
    """
    if isinstance(error, Wrong):
        return error
    told = tell(error)
    let_go(error)
    match next(leaves(error)):
        case Exits() as exits:
            return wrong("exits", str(exits))
        case asyncio.CancelledError():
            return wrong("cancels-itself")
        case NotImplementedError():
            return wrong("not-written")
        case NotAwaitable():
            return wrong("not-async")
        case Endless() as endless:
            return wrong("never-ends", str(endless))
    return wrong("raised", told)


def _keep_for_good(coroutine: Any) -> None:
    """Let nothing ever collect a coroutine that went on awaiting while it was closed.

    Python would close it again, and complain. When it exits, no loop runs and no await waits: an
    endless loop around one would keep the process from ending.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(coroutine))


def _awaiting(coroutine: Any) -> Iterator[Any]:
    """Yield a coroutine, the one that it awaits, and so on inwards."""
    while coroutine is not None:
        yield coroutine
        inwards = ("wrapped", "cr_await", "ag_await", "gi_yieldfrom")
        coroutine = next(filter(None, (getattr(coroutine, way, None) for way in inwards)), None)


class _Guarded(Coroutine):
    """A coroutine of the sandbox: cannot end the loop, and stops when the sandbox closes."""

    def __init__(self, wrapped: Coroutine, sandbox: "Sandbox") -> None:
        self.wrapped = wrapped
        self.sandbox = sandbox
        self._told_to_end = False

    def send(self, value: Any) -> Any:
        if self.sandbox.is_over() and not self._told_to_end:
            return self.throw(asyncio.CancelledError())
        return self._step(self.wrapped.send, value)

    def throw(self, *error: Any) -> Any:
        self._told_to_end = self._told_to_end or self.sandbox.is_over()
        return self._step(self.wrapped.throw, *error)

    def _step(self, resume: Callable[..., Any], *given: Any) -> Any:
        sandbox = self.sandbox
        began = sandbox.watchdog.begin()
        try:
            if sandbox.closed:
                self._end()
            return resume(*given)
        except (SystemExit, KeyboardInterrupt) as error:
            if sandbox.watchdog.interrupts:
                raise  # the interrupt came from outside, and is meant for the program
            raise Exits(tell(error)) from None
        finally:
            sandbox.watchdog.end(began)

    def _end(self) -> None:
        awaiting = list(_awaiting(self.wrapped))
        with contextlib.suppress(BaseException):
            self.wrapped.close()
        for one in awaiting:
            if getattr(one, "cr_frame", None) is not None:
                _keep_for_good(one)
        raise asyncio.CancelledError

    def close(self) -> None:
        self.wrapped.close()

    def __await__(self) -> Generator:
        return self.wrapped.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)


_sandbox: ContextVar["Sandbox | None"] = ContextVar("_sandbox", default=None)

# Taken before a learner's code can replace it.
_wait = asyncio.wait


class Sandbox:
    """An async context manager in which a learner's code runs; :meth:`run` runs it.

    ``limit`` is the time that all runs together may take and ``patience`` the time that one of them
    may, both in seconds; a run may take all of it unless ``patience`` is given. A run that starts
    processes gets it twice: a busy machine takes seconds to start them. ``offence`` is what the
    code did that no check goes on after, or None.
    """

    def __init__(self, limit: float, *, patience: float | None = None) -> None:
        for name, seconds in (("limit", limit), ("patience", patience)):
            if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
                raise ValueError(f"{name} is {seconds!r}; it must be above 0, in seconds")
        self.limit = limit
        self.patience = limit if patience is None else patience
        self.closed = False
        self.offence: Wrong | None = None
        self.watchdog = Watchdog(self._is_inside, self._report)
        self._tasks: list[asyncio.Future[Any]] = []
        self._librarys: set[int] = set()
        self._previous: Callable[..., asyncio.Future[Any]] | None = None
        self._deadline = 0.0
        self._run_ends = math.inf
        self._late = False
        self._children: set[int] = set()
        self._extended = False
        self._wake: asyncio.Future[None] | None = None
        self._threads_may_hang = False
        self._shared = contextlib.ExitStack()
        self._others_handler: Callable[..., Any] | None = None
        self._hears_callbacks = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        if replaced := put_back():
            raise wrong(SHARED, f"{', '.join(replaced)} had been replaced")
        self._children = _children()
        self._previous = self._loop.get_task_factory()
        with contextlib.ExitStack() as shared:
            shared.enter_context(streams_kept(self._report))
            shared.enter_context(kept_running(self._loop, self._is_inside, self._report))
            shared.callback(self._loop.set_task_factory, self._previous)
            self._loop.set_task_factory(self._factory)
            self._others_handler = self._loop.get_exception_handler()
            shared.callback(self._loop.set_exception_handler, self._others_handler)
            self._loop.set_exception_handler(self._hear)
            shared.callback(self.watchdog.stop)
            self.watchdog.start()
            self._shared = shared.pop_all()
        self._deadline = self._loop.time() + self.limit
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.stop()
        finally:
            self._shared.close()
            if self._threads_may_hang:
                # Later checks and cells get threads of their own, however long these are busy.
                self._loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="asyncio"))

    async def run(self, act: Callable[[], Any]) -> Ran[Any]:
        """Call ``act``, await what it returns in a task of its own, and tell how that ended.

        Returns when the task has ended or the time is up, and nothing of it runs any more.
        Raises Wrong when the code went too far for the check to go on, and otherwise nothing but
        the caller's own cancellation.
        """

        async def learners_code() -> Any:
            return await require_awaitable(act())

        began = self._loop.time()
        given = min(self.patience, self._deadline - began)
        self._run_ends, self._late = began + given, False
        self._extended = False
        self._wake = self._loop.create_future()
        left: list[str] = []
        with others_hidden():
            task = asyncio.create_task(learners_code(), context=self._context())
            self._hears_callbacks = True
            try:
                while not (task.done() or self.is_over()):
                    await _wait(
                        {task, self._wake},
                        timeout=self._run_ends - self._loop.time(),
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                if task.done() and not self.is_over():
                    left = [_name(other) for other in await self._left()]
            finally:
                # what fails from here on, stopping it may have caused
                self._hears_callbacks = False
                ended = task.done() and not self._late
                if replaced := put_back():
                    self._report(SHARED, f"it replaced {', '.join(replaced)}")
                self._threads_may_hang |= not ended or self.offence is not None
                await self.stop()
        if self.offence is not None:
            raise self.offence
        if not ended:
            return Ran(None, Endless(f"{given:.3g} s were not enough"), left)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        return Ran(None if error else task.result(), error, left)

    async def run_each(self, trials: Iterable[Callable[..., Any]], *given: Any) -> None:
        """Run each of ``trials`` with ``given``, one after another.

        Raises Wrong as soon as one of them failed, or left a task running.
        """
        for trial in trials:
            (await self.run(partial(trial, *given))).result()

    def is_over(self) -> bool:
        """Return whether the code has been told to end: its time is up, or it went too far."""
        if self._loop.time() >= self._run_ends and not self._extended:
            self._extended = True
            if _children() - self._children:
                self._run_ends = min(self._run_ends + self.patience, self._deadline)
        self._late |= self._loop.time() >= self._run_ends
        return self._late or self.offence is not None

    def _is_inside(self) -> bool:
        """Return whether the learner's code is what runs now, in this thread."""
        return _sandbox.get() is self

    def _report(self, name: str, detail: str) -> None:
        """Remember the first mistake that ends the check, and end the run. Any thread may call."""
        if self.offence is None:
            self.offence = wrong(name, detail)
            self._loop.call_soon_threadsafe(self._wake_up)

    def _hear(self, loop: asyncio.AbstractEventLoop, told: dict[str, Any]) -> None:
        """Report the error of a callback of the learner's code, which asyncio would only log.

        This is the loop's exception handler meanwhile; whatever else comes is passed on.
        """
        error = told.get("exception")
        # Its public name is new in Python 3.12, and only there does a handler run in it.
        context = getattr(told.get("handle"), "_context", None)
        if error is not None and context is not None and context.get(_sandbox) is self:
            if self._hears_callbacks:
                self._report("raised", f"a callback raised {tell(error)}")
            let_go(error)
        elif self._others_handler is not None:
            self._others_handler(loop, told)
        else:
            loop.default_exception_handler(told)

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _left(self) -> list["asyncio.Future[Any]"]:
        """Return the learner's tasks that run on; what is only finishing gets time to do so."""
        if not (pending := self._pending()):
            return []
        if left := [task for task in pending if self._is_left(task)]:
            return left
        await _wait(pending, timeout=GRACE)
        return [task for task in self._pending() if self._is_left(task)]

    def _is_left(self, task: "asyncio.Future[Any]") -> bool:
        """Return whether the learner's code made the task, and nobody has told it to end."""
        told_to_end = isinstance(task, asyncio.Task) and task.cancelling() > 0
        return id(task) not in self._librarys and not told_to_end

    async def stop(self) -> None:
        """End every task of the sandbox: cancel it, and close it if that does not help.

        Always returns with none of them running.
        """
        try:
            for _ in range(ROUNDS):
                if not (pending := self._pending()):
                    break
                for task in pending:
                    task.cancel()
                await _wait(pending, timeout=ROUND)
            self.closed = True
            while pending := self._pending():
                for task in pending:
                    task.cancel()
                await _wait(pending, timeout=ROUND)
        finally:
            self.closed = False
            self._run_ends, self._late = math.inf, False
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.exception()  # asked for, so that asyncio does not report it as lost
        self._tasks.clear()
        self._librarys.clear()

    def _pending(self) -> list["asyncio.Future[Any]"]:
        return [task for task in self._tasks if not task.done()]

    def _context(self) -> Context:
        context = copy_context()
        context.run(_sandbox.set, self)
        return context

    def _factory(
        self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any
    ) -> "asyncio.Future[Any]":
        context = options.get("context")
        mine = (_sandbox.get() if context is None else context.get(_sandbox)) is self
        if mine:
            coro = _Guarded(coro, self)
        if self._previous is None:
            task: asyncio.Future[Any] = asyncio.Task(coro, loop=loop, **options)
        else:
            task = self._previous(loop, coro, **options)
        if mine:
            self._tasks.append(task)
            if not asked_for_by_us(is_ours, sys._getframe(1)):
                self._librarys.add(id(task))
        return task


def _children() -> set[int]:
    """Return the process ids of this process's children, and of theirs."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


def _name(task: "asyncio.Future[Any]") -> str:
    coroutine = task.get_coro() if isinstance(task, asyncio.Task) else None
    return short_name(getattr(coroutine, "__qualname__", "a task"))
