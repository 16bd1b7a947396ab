"""Where a learner's code runs during a check: apart, watched, and stopped in the end.

Whatever the code does, the check goes on: it runs in tasks of its own, which a task factory wraps.
A wrapped task that raises SystemExit or KeyboardInterrupt does not take the event loop with it, and
one that swallows its cancellation can be closed.

One thing cannot be stopped: code that never awaits. An endless loop without an await keeps the
thread of the event loop, and with it the check; restart the kernel. For the same reason a thread
that the code has started runs on to its own end.
"""

import asyncio
import contextlib
import inspect
import math
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from support.exercises.error_text import leaves, tell
from support.exercises.verdicts import Wrong, wrong
from support.lab.silent_failures import let_go
from support.lab.trace import is_ours, short_name

T = TypeVar("T")

GRACE = 2.0  # seconds that a library's task, or one that was cancelled, gets to finish
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


# Coroutines that went on awaiting while they were closed. Python would try again, and complain,
# when it collects them.
_abandoned: list[Any] = []


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

    def send(self, value: Any) -> Any:
        if self.sandbox.closed:
            self._end()
        try:
            return self.wrapped.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise Exits(tell(error)) from None

    def throw(self, *error: Any) -> Any:
        if self.sandbox.closed:
            self._end()
        try:
            return self.wrapped.throw(*error)
        except (SystemExit, KeyboardInterrupt) as ended:
            raise Exits(tell(ended)) from None

    def _end(self) -> None:
        awaiting = list(_awaiting(self.wrapped))
        with contextlib.suppress(BaseException):
            self.wrapped.close()
        _abandoned.extend(one for one in awaiting if getattr(one, "cr_frame", None) is not None)
        raise asyncio.CancelledError

    def close(self) -> None:
        self.wrapped.close()

    def __await__(self) -> Generator:
        return self.wrapped.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)


_sandbox: ContextVar["Sandbox | None"] = ContextVar("_sandbox", default=None)


class Sandbox:
    """An async context manager in which a learner's code runs; :meth:`run` runs it.

    ``limit`` is the time that all runs together may take, in seconds.
    """

    def __init__(self, limit: float) -> None:
        if not (math.isfinite(limit) and limit > 0):
            raise ValueError(f"limit is {limit!r}; it must be above 0, in seconds")
        self.limit = limit
        self.closed = False
        self._tasks: list[asyncio.Future[Any]] = []
        self._previous: Callable[..., asyncio.Future[Any]] | None = None
        self._deadline = 0.0

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._previous = self._loop.get_task_factory()
        self._loop.set_task_factory(self._factory)
        self._deadline = self._loop.time() + self.limit
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.stop()
        finally:
            self._loop.set_task_factory(self._previous)

    async def run(self, act: Callable[[], Any]) -> Ran[Any]:
        """Call ``act``, await what it returns in a task of its own, and tell how that ended.

        Returns when the task has ended or the time is up, and nothing of it runs any more.
        Raises nothing but the caller's own cancellation.
        """

        async def learners_code() -> Any:
            return await require_awaitable(act())

        task = asyncio.create_task(learners_code(), context=self._context())
        left: list[str] = []
        try:
            await asyncio.wait({task}, timeout=max(0.0, self._deadline - self._loop.time()))
            if task.done():
                left = [_name(other) for other in await self._left()]
        finally:
            ended = task.done()
            await self.stop()
        if not ended:
            return Ran(None, Endless(f"{self.limit:.3g} s were not enough"), left)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        return Ran(None if error else task.result(), error, left)

    async def _left(self) -> list["asyncio.Future[Any]"]:
        """Return the learner's tasks that run on; what is only finishing gets time to do so."""
        if not (pending := self._pending()):
            return []
        if left := [task for task in pending if _is_left(task)]:
            return left
        await asyncio.wait(pending, timeout=GRACE)
        return [task for task in self._pending() if not _is_cancelled(task)]

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
                await asyncio.wait(pending, timeout=ROUND)
            self.closed = True
            while pending := self._pending():
                for task in pending:
                    task.cancel()
                await asyncio.wait(pending, timeout=ROUND)
        finally:
            self.closed = False
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.exception()  # asked for, so that asyncio does not report it as lost
        self._tasks.clear()

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
        return task


def _is_left(task: "asyncio.Future[Any]") -> bool:
    """Return whether the task runs the learner's code, and nobody has told it to end."""
    if not isinstance(task, asyncio.Task) or _is_cancelled(task):
        return False
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and is_ours(code)


def _is_cancelled(task: "asyncio.Future[Any]") -> bool:
    return isinstance(task, asyncio.Task) and task.cancelling() > 0


def _name(task: "asyncio.Future[Any]") -> str:
    coroutine = task.get_coro() if isinstance(task, asyncio.Task) else None
    return short_name(getattr(coroutine, "__qualname__", "a task"))
