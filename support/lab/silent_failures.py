"""What gets lost without a sound: tasks' exceptions, coroutines never awaited, open resources.

asyncio tells of a lost exception only when the task is collected, through the loop's exception
handler; Python tells of the others through the warnings machinery, often once a place and often not
at all. The listener here hears all of them, and a look through the collector's objects finds those
that a variable still holds.
"""

import asyncio
import gc
import inspect
import logging
import re
import threading
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import CoroutineType
from typing import Any, TextIO, cast

_NEVER_AWAITED = re.compile(r"coroutine '(?P<name>.*)' was never awaited", re.DOTALL)
_DESTROYED = "Task was destroyed but it is pending!"


@dataclass
class SilentFailures:
    """What was lost.

    ``lost_exceptions`` are exceptions of tasks that nobody asked for; ``never_awaited`` names of
    coroutines; ``resource_warnings`` messages of ResourceWarnings; ``destroyed_tasks`` names of
    tasks that were collected while they still waited.
    """

    lost_exceptions: list[BaseException] = field(default_factory=list)
    never_awaited: list[str] = field(default_factory=list)
    resource_warnings: list[str] = field(default_factory=list)
    destroyed_tasks: list[str] = field(default_factory=list)
    _sentences: list[str] = field(default_factory=list, repr=False)

    @property
    def sentences(self) -> list[str]:
        """One sentence a loss, in order."""
        return list(self._sentences)

    def note(self, sentence: str) -> None:
        """Enter a loss that has no list of its own."""
        self._sentences.append(sentence)

    def _add_exception(self, error: BaseException, whose: str) -> None:
        let_go(error)
        self.lost_exceptions.append(error)
        self._sentences.append(f"{whose} failed with {error!r}, and nothing asked for its result")

    def _add_coroutine(self, name: str) -> None:
        self.never_awaited.append(name)
        self._sentences.append(f"coroutine {name} was never awaited")

    def _add_warning(self, message: str, where: str = "") -> None:
        self.resource_warnings.append(message)
        self._sentences.append(f"ResourceWarning: {message}{where}")

    def _add_destroyed(self, name: str, coroutine: str) -> None:
        self.destroyed_tasks.append(name)
        self._sentences.append(
            f"task {name} ({coroutine}) was dropped while it still waited: keep a reference to it"
        )


def let_go(error: BaseException) -> None:
    """Drop what the frames of the exception hold, so that keeping the error keeps nothing else."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        traceback.clear_frames(one.__traceback__)
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions


def describe_task(task: "asyncio.Future[Any]") -> str:
    """Return a task's name and the coroutine it runs."""
    if not isinstance(task, asyncio.Task):
        return f"a future ({type(task).__name__})"
    return f"task {task.get_name()} ({coroutine_name(task.get_coro())})"


def coroutine_name(coroutine: object) -> str:
    """Return the qualified name of a coroutine, or of what stands for one."""
    return getattr(coroutine, "__qualname__", type(coroutine).__qualname__)


@dataclass
class NotYetTold:
    """What is lost already, though something still holds it, so that Python has not told."""

    failed: "list[asyncio.Task[Any]]"
    unstarted: list[CoroutineType]

    @classmethod
    def find(cls) -> "NotYetTold":
        """Look through all objects that the collector tracks."""
        tasks: list[asyncio.Task[Any]] = []
        fresh: list[CoroutineType] = []
        for thing in gc.get_objects():
            kind = type(thing)
            if kind is CoroutineType:
                if inspect.getcoroutinestate(thing) == inspect.CORO_CREATED:
                    fresh.append(thing)
            elif issubclass(kind, asyncio.Task):
                tasks.append(thing)
        owned = {id(task.get_coro()) for task in tasks if not task.done()}
        owned |= {id(getattr(task.get_coro(), "wrapped", None)) for task in tasks}
        return cls(
            # The flag that Task.__del__ reads: set when a task fails, cleared when it is asked.
            failed=[task for task in tasks if getattr(task, "_log_traceback", False)],
            unstarted=[coroutine for coroutine in fresh if id(coroutine) not in owned],
        )

    def without(self, known: "weakref.WeakSet[Any]") -> "NotYetTold":
        """Return the rest, once those that were ``known`` before are left out."""
        return NotYetTold(
            [task for task in self.failed if task not in known],
            [coroutine for coroutine in self.unstarted if coroutine not in known],
        )

    def settle(self, failures: SilentFailures | None = None) -> None:
        """Enter these in ``failures``, and let Python know, so that it does not tell again."""
        for task in self.failed:
            error = task.exception()
            if failures is not None and error is not None:
                failures._add_exception(error, describe_task(task))
        for coroutine in self.unstarted:
            coroutine.close()
            if failures is not None:
                failures._add_coroutine(coroutine.__qualname__)


def collect_garbage() -> None:
    """Collect until nothing more is found: what is freed first may hold what is freed next."""
    for _ in range(4):
        if gc.collect() == 0:
            return


class _Warnings:
    """Hears ResourceWarnings and never-awaited coroutines, each time, whatever the filters say."""

    def __init__(self, listener: "Listener") -> None:
        self._listener = listener
        self._filters: list[Any] = []
        self._previous: Callable[..., None] | None = None
        self._show: Callable[..., None] | None = None

    def install(self) -> None:
        if not self._filters or _active_filters()[: len(self._filters)] != self._filters:
            self._drop_filters()
            warnings.filterwarnings("always", category=ResourceWarning)
            warnings.filterwarnings("always", "coroutine '.*' was never awaited", RuntimeWarning)
            self._filters = _active_filters()[:2]
        if self._show is None or warnings.showwarning is not self._show:
            self._previous = previous = warnings.showwarning

            def showwarning(
                message: Warning | str,
                category: type[Warning],
                filename: str,
                lineno: int,
                file: TextIO | None = None,
                line: str | None = None,
            ) -> None:
                if self._listener.warned(str(message), category, filename, lineno):
                    previous(message, category, filename, lineno, file, line)

            self._show = showwarning
            _set_showwarning(showwarning)

    def uninstall(self) -> None:
        self._drop_filters()
        if self._previous is not None and warnings.showwarning is self._show:
            _set_showwarning(self._previous)
        self._previous = self._show = None

    def _drop_filters(self) -> None:
        for item in self._filters:
            if item in _active_filters():
                _active_filters().remove(item)
        self._filters = []


def _set_showwarning(show: Callable[..., None]) -> None:
    # The documented way to hear warnings; typed as a function, so not assignable to a checker.
    vars(warnings)["showwarning"] = show


def _active_filters() -> list[Any]:
    """Return the warnings module's own list of filters."""
    return cast("list[Any]", warnings.filters)


class _Log(logging.Filter):
    """Hears what loops without our handler (other threads', ``asyncio.run``'s) write to the log."""

    def __init__(self, listener: "Listener") -> None:
        super().__init__()
        self._listener = listener

    def filter(self, record: logging.LogRecord) -> bool:
        return self._listener.logged(record)


class Listener:
    """Hears every loss in this process from :meth:`install` to :meth:`uninstall`."""

    def __init__(self) -> None:
        self.books = [SilentFailures()]
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()
        self._earlier: set[tuple[int, str]] = set()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.installed = False
        self._passing_on = threading.local()
        self._warnings = _Warnings(self)
        self._log = _Log(self)
        self._previous_handler: Callable[..., object] | None = None
        self._handler: Callable[..., object] | None = None

    @property
    def book(self) -> SilentFailures:
        return self.books[-1]

    @property
    def quiet(self) -> bool:
        return len(self.books) > 1

    def hears(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether ``loop`` reports to this listener: nobody has replaced its handler."""
        return self._handler is not None and loop.get_exception_handler() is self._handler

    def install(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Listen; repeat at will: what somebody has replaced meanwhile is put back."""
        self.installed = True
        self._warnings.install()
        logging.getLogger("asyncio").addFilter(self._log)
        if loop is None or (loop is self.loop and self.hears(loop)):
            return
        if loop is not self.loop:
            self._release_loop()
            self._previous_handler = loop.get_exception_handler()
            self.loop = loop
        # One object, kept: asking the loop for its handler must answer with this very one.
        self._handler = self._handler or self.handle
        loop.set_exception_handler(self._handler)

    def uninstall(self) -> None:
        """Stop listening and put everything back."""
        self.installed = False
        self._warnings.uninstall()
        logging.getLogger("asyncio").removeFilter(self._log)
        self._release_loop()
        self.books = [SilentFailures()]
        self.known = weakref.WeakSet()
        self._earlier = set()
        self._handler = None

    def _release_loop(self) -> None:
        if self.loop is not None and not self.loop.is_closed() and self.hears(self.loop):
            self.loop.set_exception_handler(self._previous_handler)
        self.loop = self._previous_handler = None

    def disregard(self, tasks: Iterable["asyncio.Task[Any]"]) -> None:
        """Say nothing of these tasks when they are collected: they are an earlier run's.

        They are known by address and name: by the time a task in a cycle tells of its end, all weak
        references to it are gone.
        """
        self._earlier = {(id(task), task.get_name()) for task in tasks}

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take note of what the loop reports, and pass it on unless it is being caught."""
        task = context.get("task") or context.get("future")
        if isinstance(task, asyncio.Task) and (id(task), task.get_name()) in self._earlier:
            return
        if not self.quiet:
            self._pass_on(loop, context)
        error = context.get("exception")
        if isinstance(error, BaseException):
            whose = (
                describe_task(task) if task is not None else context.get("message", "a callback")
            )
            self.book._add_exception(error, whose)
        elif context.get("message") == _DESTROYED and isinstance(task, asyncio.Task):
            self.book._add_destroyed(task.get_name(), coroutine_name(task.get_coro()))

    def _pass_on(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._passing_on.now = True
        try:
            if self._previous_handler is not None:
                self._previous_handler(loop, context)
            else:
                loop.default_exception_handler(context)
        finally:
            self._passing_on.now = False

    def logged(self, record: logging.LogRecord) -> bool:
        """Take note of a log record; return whether it is to be written."""
        if getattr(self._passing_on, "now", False) or record.levelno < logging.ERROR:
            return True
        error = record.exc_info[1] if record.exc_info else None
        text = record.getMessage()
        if error is not None:
            self.book._add_exception(error, f"a task of another loop ({text.splitlines()[-1]})")
        elif text.startswith(_DESTROYED):
            self.book._add_destroyed("of another loop", text.splitlines()[-1])
        else:
            return True
        return not self.quiet

    def warned(self, message: str, category: type[Warning], filename: str, lineno: int) -> bool:
        """Take note of a warning; return whether it is to be shown."""
        if issubclass(category, ResourceWarning):
            self.book._add_warning(message, f" (noticed at {filename}:{lineno})")
        elif issubclass(category, RuntimeWarning) and (found := _NEVER_AWAITED.search(message)):
            self.book._add_coroutine(found["name"])
        else:
            return True
        return not self.quiet


listener = Listener()
