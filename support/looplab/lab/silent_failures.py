"""What fails without a sound: tasks' exceptions, coroutines never awaited, open resources.

asyncio logs an exception that nobody asked for only when its task is collected; Python tells of the
others through the warnings machinery, often once a place and often not at all. The listener here
hears asyncio's log and all such warnings, and a look through the collector's objects finds the
failures that a variable still holds.
"""

import asyncio
import functools
import gc
import inspect
import logging
import re
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import CoroutineType
from typing import Any, TextIO, cast

_NEVER_AWAITED = re.compile(r"coroutine '(?P<name>.*)' was never awaited", re.DOTALL)
_DESTROYED = "Task was destroyed but it is pending!"
# A task as asyncio's log writes it: <Task finished name='mailer' coro=<send() done, defined at ...
_TASK = re.compile(r"<\w+ \w+ name=(['\"])(?P<name>.*?)\1 coro=<(?P<coroutine>.*?)\(\)")


@dataclass
class SilentFailures:
    """What failed without a sound.

    ``lost_exceptions`` are exceptions of tasks that nobody asked for; ``never_awaited`` names of
    coroutines; ``resource_warnings`` messages of ResourceWarnings; ``destroyed_tasks`` names of
    tasks that were collected while they still waited. ``sentences`` has one for each, in order.
    """

    lost_exceptions: list[BaseException] = field(default_factory=list)
    never_awaited: list[str] = field(default_factory=list)
    resource_warnings: list[str] = field(default_factory=list)
    destroyed_tasks: list[str] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list, repr=False)

    def _add_exception(self, error: BaseException, whose: str) -> None:
        let_go(error)
        self.lost_exceptions.append(error)
        self.sentences.append(f"{whose} failed with {error!r}, and nothing asked for its result")

    def _add_coroutine(self, name: str) -> None:
        self.never_awaited.append(name)
        self.sentences.append(f"coroutine {name} was never awaited")

    def _add_warning(self, message: str, where: str) -> None:
        self.resource_warnings.append(message)
        self.sentences.append(f"ResourceWarning: {message} (noticed at {where})")

    def _add_destroyed(self, name: str, whose: str) -> None:
        self.destroyed_tasks.append(name)
        self.sentences.append(f"{whose} was dropped while it still waited: keep a reference to it")


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


def describe_task(task: "asyncio.Task[Any]") -> str:
    """Return a task's name and the coroutine it runs."""
    coroutine = task.get_coro()
    name = getattr(coroutine, "__qualname__", type(coroutine).__qualname__)
    return f"task {task.get_name()} ({name})"


@dataclass
class HeldFailures:
    """What has failed already and is not told, because something still holds it."""

    failed: "list[asyncio.Task[Any]]"
    unstarted: list[CoroutineType]

    @classmethod
    def find(cls) -> "HeldFailures":
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

    def without(self, known: "weakref.WeakSet[Any]") -> "HeldFailures":
        """Return the rest, once those that were ``known`` before are left out."""
        return HeldFailures(
            [task for task in self.failed if task not in known],
            [coroutine for coroutine in self.unstarted if coroutine not in known],
        )

    def move_to(self, failures: SilentFailures) -> None:
        """Enter these in ``failures``, and settle them, so that Python does not tell them again."""
        for task in self.failed:
            error = task.exception()
            if error is not None:
                failures._add_exception(error, describe_task(task))
        for coroutine in self.unstarted:
            coroutine.close()
            failures._add_coroutine(coroutine.__qualname__)


def collect_garbage() -> None:
    """Collect until nothing more is found: what is freed first may hold what is freed next."""
    for _ in range(4):
        if gc.collect() == 0:
            return


class Listener(logging.Filter):
    """Hears every silent failure in this process from :meth:`install` to :meth:`uninstall`.

    What it hears goes into the last of ``books``: the first is the lesson's, the others belong to
    blocks that fail on purpose. Only what goes into the first is also printed, as Python would.
    ``known`` are failures from before that something still holds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.books = [SilentFailures()]
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()
        self.installed = False
        self._earlier: set[str] = set()
        self._filters: list[Any] = []
        self._show: Callable[..., None] | None = None
        self._show_before: Callable[..., None] = warnings.showwarning

    @property
    def book(self) -> SilentFailures:
        """Where failures are entered now."""
        return self.books[-1]

    @property
    def prints(self) -> bool:
        """Whether what is heard is also printed."""
        return len(self.books) == 1

    def install(self) -> None:
        """Listen; repeat at will: what somebody has replaced meanwhile is put back."""
        self.installed = True
        logging.getLogger("asyncio").addFilter(self)
        self._remove_filters()
        warnings.filterwarnings("always", category=ResourceWarning)
        warnings.filterwarnings("always", "coroutine '.*' was never awaited", RuntimeWarning)
        self._filters = _active_filters()[:2]
        if self._show is None or warnings.showwarning is not self._show:
            self._show_before = warnings.showwarning
            self._show = functools.partial(self._hear_warning, self._show_before)
            _set_showwarning(self._show)

    def uninstall(self) -> None:
        """Stop listening, put everything back, and forget what was heard."""
        self.installed = False
        logging.getLogger("asyncio").removeFilter(self)
        self._remove_filters()
        if warnings.showwarning is self._show:
            _set_showwarning(self._show_before)
        self._show = None
        self.books = [SilentFailures()]
        self.known = weakref.WeakSet()
        self._earlier = set()

    def _remove_filters(self) -> None:
        for item in self._filters:
            if item in _active_filters():
                _active_filters().remove(item)
        self._filters = []

    def disregard(self, tasks: Iterable["asyncio.Task[Any]"]) -> None:
        """Say nothing of these pending tasks when they are collected: they are an earlier run's."""
        self._earlier = {task.get_name() for task in tasks}

    def filter(self, record: logging.LogRecord) -> bool:
        """Hear what a loop's exception handler logs; return whether it is to be written."""
        if record.levelno < logging.ERROR:
            return True
        text = record.getMessage()
        task = _TASK.search(text)
        whose = f"task {task['name']} ({task['coroutine']})" if task else text.splitlines()[-1]
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            self.book._add_exception(error, whose)
        elif text.startswith(_DESTROYED) and task:
            if task["name"] in self._earlier:
                self._earlier.remove(task["name"])
                return False
            self.book._add_destroyed(task["name"], whose)
        else:
            return True
        return self.prints

    def _hear_warning(
        self,
        show: Callable[..., None],
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        never_awaited = _NEVER_AWAITED.search(str(message))
        if issubclass(category, ResourceWarning):
            self.book._add_warning(str(message), f"{filename}:{lineno}")
        elif issubclass(category, RuntimeWarning) and never_awaited:
            self.book._add_coroutine(never_awaited["name"])
        else:
            show(message, category, filename, lineno, file, line)
            return
        if self.prints:
            show(message, category, filename, lineno, file, line)


def _set_showwarning(show: Callable[..., None]) -> None:
    # The documented way to hear warnings; typed as a function, so not assignable to a checker.
    vars(warnings)["showwarning"] = show


def _active_filters() -> list[Any]:
    """Return the warnings module's own list of filters."""
    return cast("list[Any]", warnings.filters)


listener = Listener()
