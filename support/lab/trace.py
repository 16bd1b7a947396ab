"""Record every step of every task: what the x-ray sees.

A task runs in steps: the loop resumes it with ``send`` (or ``throw``), it runs until its next
suspension, and the loop turns to others. A task factory wraps each new task's coroutine and notes
when each step began and ended. It uses public API only: ``loop.set_task_factory``, the coroutine
protocol and ``cr_await``.
"""

import asyncio
import gc
import inspect
import sysconfig
import weakref
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from types import CodeType, CoroutineType, GeneratorType
from typing import Any

LAB_FOLDER = str(Path(__file__).parent)
LIBRARY_FOLDERS = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {str(Path(asyncio.__file__).parent.parent)}
)

Step = tuple[float, float, str]


@dataclass(slots=True)
class TaskTrace:
    """What one task did. Times are readings of ``time.perf_counter``, in seconds.

    ``steps`` holds ``(began, ended, label)``: the label names the innermost coroutine of the
    course's own code that the task was suspended in when the step ended, and is empty for none.
    """

    qualified: str
    parent: "TaskTrace | None"
    loop: int
    ours: bool
    steps: list[Step] = field(default_factory=list)
    outermost: str = ""
    given_name: str = ""
    outcome: str = "pending"
    error: str = ""
    task: "weakref.ref[asyncio.Task[Any]] | None" = None

    def note_name(self) -> None:
        """Keep the name that somebody gave the task; ``Task-7`` and its like are not names.

        AnyIO names a task after its function's module and qualified name; that is no name either.
        """
        task = None if self.task is None else self.task()
        if task is not None:
            name = task.get_name()
            automatic = name.startswith("Task-") or name.endswith(f".{self.qualified}")
            self.given_name = "" if automatic else name

    @property
    def function(self) -> str:
        """The last part of the coroutine's qualified name."""
        return short_name(self.qualified)


def is_ours(code: CodeType) -> bool:
    """Return whether ``code`` is the course's or the learner's: not a library's, not the lab's."""
    file = code.co_filename
    if file.startswith("<frozen"):
        return False
    return not file.startswith((*LIBRARY_FOLDERS, LAB_FOLDER))


def short_name(qualified: str) -> str:
    """Return the last part of a qualified name: ``f.<locals>.Users.get_by_id`` is ``get_by_id``."""
    local = qualified.rpartition("<locals>.")[2]
    return local if "/" in local or " " in local else local.rpartition(".")[2]


class Traced(Coroutine):
    """A coroutine that reports its steps; everything else it leaves to the coroutine it wraps.

    ``send``, ``throw`` and ``close`` are those of a generator, kept as attributes, so that the loop
    calls them without a Python frame in between.
    """

    __slots__ = ("__weakref__", "close", "send", "throw", "wrapped")

    def __init__(self, wrapped: Coroutine, driver: Generator) -> None:
        self.wrapped = wrapped
        self.send = driver.send
        self.throw = driver.throw
        self.close = driver.close

    def __await__(self) -> Generator:
        return self.wrapped.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)


class Recorder:
    """Collects the traces of the tasks made in its scope while it is on.

    With ``everything`` that is each task made on the loop; otherwise the tasks descending from a
    context in which :meth:`run` was called.
    """

    def __init__(self, *, everything: bool = False, loop_number: int = 0) -> None:
        self.everything = everything
        self.loop_number = loop_number
        self.traces: list[TaskTrace] = []
        self.on = True
        self._labels: dict[int, str] = {}
        self._codes: list[CodeType] = []
        self._by_task: weakref.WeakKeyDictionary[asyncio.Task[Any], TaskTrace] = (
            weakref.WeakKeyDictionary()
        )

    def wrap(self, coroutine: Coroutine) -> tuple[Coroutine, TaskTrace]:
        """Return ``coroutine`` wrapped, and the trace that its steps will be written to."""
        code = getattr(coroutine, "cr_code", None)
        name = getattr(coroutine, "__qualname__", type(coroutine).__qualname__)
        creator = asyncio.current_task()
        trace = TaskTrace(
            qualified=name,
            parent=self._by_task.get(creator) if creator is not None else None,
            loop=self.loop_number,
            ours=code is not None
            and (is_ours(code) or short_name(name) != short_name(code.co_qualname)),
        )
        self.traces.append(trace)
        return Traced(coroutine, self._drive(coroutine, trace)), trace

    def adopt(self, task: "asyncio.Task[Any]", trace: TaskTrace) -> None:
        """Remember which trace belongs to ``task``."""
        trace.task = weakref.ref(task)
        self._by_task[task] = trace

    def stop(self) -> None:
        """End the recording; a task that goes on is no longer watched."""
        self.on = False
        for trace in self.traces:
            if trace.outcome == "pending":
                trace.note_name()

    def _label(self, code: CodeType) -> str:
        label = short_name(code.co_qualname) if is_ours(code) else ""
        self._labels[id(code)] = label
        self._codes.append(code)  # an id stays this code's only while the code lives
        return label

    def _drive(self, coroutine: Any, trace: TaskTrace) -> Generator:
        """Run ``coroutine`` as ``yield from`` would, and note each step."""
        send = coroutine.send
        append = trace.steps.append
        labels = self._labels
        clock = perf_counter
        coroutine_type = CoroutineType
        native = type(coroutine) is coroutine_type
        root_label = self._label(coroutine.cr_code) if native else ""
        trace.outermost = root_label
        named = bool(root_label)
        anchor: Any = coroutine
        anchor_label = root_label
        thrown: BaseException | None = None
        while True:
            began = clock()
            try:
                if thrown is None:
                    awaited = send(None)
                else:
                    error, thrown = thrown, None
                    try:
                        awaited = coroutine.throw(error)
                    finally:
                        del error
            except BaseException as ending:
                if self.on:
                    append((began, clock(), ""))
                    trace.note_name()
                    trace.outcome = _outcome(ending)
                    if trace.outcome == "failed":
                        trace.error = type(ending).__name__
                if isinstance(ending, StopIteration):
                    return ending.value
                raise
            if self.on:
                ended = clock()
                label = anchor_label
                # The innermost coroutine of ours found last time is still on the stack of awaits
                # unless it has finished, so the walk starts there.
                inner = anchor.cr_await if native else None
                if inner is None and anchor is not coroutine:
                    anchor, label = coroutine, root_label
                    inner = coroutine.cr_await
                while inner is not None:
                    if type(inner) is not coroutine_type:
                        inner = _behind(inner)
                        if type(inner) is not coroutine_type:
                            if inner is None:
                                break
                            found = self._of_generator(inner)
                            label = found or label
                            inner = _awaited_by(inner)
                            continue
                    code = inner.cr_code
                    found = labels.get(id(code))
                    if found is None:
                        found = self._label(code)
                    if found:
                        label = found
                        anchor = inner
                    inner = inner.cr_await
                if not named and label:
                    trace.outermost = self._outermost(coroutine)
                    named = True
                anchor_label = label
                append((began, ended, label))
            try:
                yield awaited
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:
                thrown = error

    def _of_generator(self, generator: Any) -> str:
        code = getattr(generator, "ag_code", None) or getattr(generator, "gi_code", None)
        if code is None:
            return ""
        found = self._labels.get(id(code))
        return self._label(code) if found is None else found

    def _outermost(self, coroutine: Any) -> str:
        """Return the label of the first coroutine of ours on the way in, for tasks of a library."""
        inner: Any = coroutine
        while inner is not None:
            if type(inner) is CoroutineType:
                label = self._labels.get(id(inner.cr_code)) or ""
            else:
                label = self._of_generator(inner)
            if label:
                return label
            inner = _awaited_by(inner)
            if inner is not None and type(inner) is not CoroutineType:
                inner = _behind(inner)
        return ""


def _outcome(ending: BaseException) -> str:
    if isinstance(ending, StopIteration):
        return "done"
    return "cancelled" if isinstance(ending, asyncio.CancelledError) else "failed"


def _behind(awaitable: Any) -> Any:
    """Return the coroutine or generator that an opaque awaitable stands for, or None.

    ``asend()`` of an async generator and ``coroutine.__await__()`` have no attribute that leads on,
    so the garbage collector is asked what they refer to.
    """
    if isinstance(awaitable, GeneratorType) or inspect.isasyncgen(awaitable):
        return awaitable
    if type(awaitable).__name__ in _OPAQUE:
        for referred in gc.get_referents(awaitable):
            if inspect.isasyncgen(referred) or isinstance(referred, CoroutineType):
                return referred
    return None


_OPAQUE = frozenset(
    {"async_generator_asend", "async_generator_athrow", "coroutine_wrapper", "anext_awaitable"}
)


def _awaited_by(awaitable: Any) -> Any:
    for attribute in ("cr_await", "ag_await", "gi_yieldfrom"):
        if hasattr(awaitable, attribute):
            return getattr(awaitable, attribute)
    return None


_in_scope: ContextVar[tuple[Recorder, ...]] = ContextVar("_in_scope", default=())


class _Factory:
    """The task factory of one loop while at least one recorder is on."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.previous = loop.get_task_factory()
        self.recorders: list[Recorder] = []

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any
    ) -> "asyncio.Future[Any]":
        context = options.get("context")
        scope = _in_scope.get() if context is None else context.get(_in_scope, ())
        watching: list[tuple[Recorder, TaskTrace]] = []
        for recorder in self.recorders:
            if recorder.on and (recorder.everything or recorder in scope):
                coro, trace = recorder.wrap(coro)
                watching.append((recorder, trace))
        if self.previous is None:
            task: asyncio.Future[Any] = asyncio.Task(coro, loop=loop, **options)
        else:
            task = self.previous(loop, coro, **options)
        if isinstance(task, asyncio.Task):
            for recorder, trace in watching:
                recorder.adopt(task, trace)
        return task


def attach(recorder: Recorder) -> None:
    """Let ``recorder`` watch the tasks made on the running loop from now on."""
    loop = asyncio.get_running_loop()
    factory = loop.get_task_factory()
    if not isinstance(factory, _Factory):
        factory = _Factory(loop)
        loop.set_task_factory(factory)
    factory.recorders.append(recorder)


def detach(recorder: Recorder) -> None:
    """Stop ``recorder`` and, if it was the last one, give the running loop its own factory back."""
    recorder.stop()
    loop = asyncio.get_running_loop()
    factory = loop.get_task_factory()
    if isinstance(factory, _Factory) and recorder in factory.recorders:
        factory.recorders.remove(recorder)
        if not factory.recorders:
            loop.set_task_factory(factory.previous)


def on_loop(loop: asyncio.AbstractEventLoop, act: Callable[[], None], *, wait: float = 5.0) -> None:
    """Call ``act`` in the thread of ``loop`` and wait until it is done, ``wait`` seconds at most.

    Raises TimeoutError when the loop does not get to it in time, and what ``act`` raises.
    """
    done: Future[None] = Future()

    def call() -> None:
        try:
            act()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    loop.call_soon_threadsafe(call)
    done.result(wait)


def in_scope_of(recorder: Recorder) -> Context:
    """Return a context whose tasks, and theirs in turn, ``recorder`` watches."""
    context = copy_context()
    context.run(lambda: _in_scope.set((*_in_scope.get(), recorder)))
    return context
