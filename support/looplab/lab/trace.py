"""Record every step of every task: what the x-ray sees.

A task runs in steps: the loop resumes it with ``send`` (or ``throw``), it runs until its next
suspension, and the loop turns to others. A task factory wraps each new task's coroutine and notes
when each step began and ended. It uses public API only: ``loop.set_task_factory``, the coroutine
protocol and ``cr_await``::

    loop.create_task(page())
      |
      |   _Factory, the task factory, lets each recorder that watches wrap the coroutine
      v
    Task ----------------> Traced -------------> driver --------------> page()
      what the loop          what the task         Recorder._drive,       the coroutine
      resumes                takes for its         a generator that       that somebody
                             coroutine             notes the steps        has written

    One step:

    Task                driver                              page()
      |  send(None)       |                                   |
      |------------------>|  began = clock()                  |
      |                   |  send(None)                       |
      |                   |---------------------------------->|  runs: this is the step
      |                   |                                   |  and holds the loop
      |                   |<----------------------------------|  yields a future: suspended
      |                   |  ended = clock()                  |
      |                   |  reads the stack of awaits        |
      |                   |  notes (began, ended, "load")     |
      |<------------------|  yields the same future           |

    The stack of awaits, from the outside in, and what it is called:

    page()                     ours: it names the lane, "page"
      .cr_await  gather_rows() ours: noted in the log as a call that began
      .cr_await  Session.get() a library's: passed over
      .cr_await  load()        ours and the innermost: "load", the label of the step, names the wait
      .cr_await  sleep()       asyncio's: passed over
      .cr_await  a future      the end

``send`` and ``throw`` of a ``Traced`` are the driver's own, so the loop resumes the driver without
a Python frame in between. An exception that the loop throws, a cancellation for one, goes the same
way as ``send``. The driver reads the stack after each step, but not all of it: it begins at the
innermost coroutine of ours that it found last time, as long as that waits still, and a label is
worked out once for each function. Results and exceptions pass through it unchanged.

A request's lane is named by the task's arguments instead, and a wait for a thread by its own; see
``lane_names``.
"""

import asyncio
import gc
import inspect
import re
import sys
import weakref
from bisect import bisect_right
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any

import anyio

from looplab.lab.cancels import NEVER_STARTED, TIMED_OUT, WRAPPERS, gave_up_waiting, why_cancelled
from looplab.lab.lane_names import ELSEWHERE, is_request, request_of, work_of
from looplab.lab.our_code import LAB_FOLDER, folder, is_ours, short_name

TASK_MAKERS = tuple(folder(Path(str(module.__file__)).parent) for module in (asyncio, anyio))
AUTOMATIC_NAME = re.compile(r"Task-\d+|None")
"""Python 3.13.0 names a task ``None`` that a task factory made and nobody named."""

TO_BE_READ = "<read from its arguments>"
"""Stands for the label of a coroutine that waits for a thread, which differs from call to call."""

Step = tuple[float, float, str]
Entry = tuple[int, int] | str


class Label(str):
    """The name of a function of ours, and its code: where it stands is looked up after the run."""

    __slots__ = ("code",)
    code: CodeType


@dataclass(slots=True)
class Call:
    """A coroutine of ours that a task waited in.

    ``first`` is the place of the step that it was first suspended after, ``last`` that of the step
    in which it ended, or None while it has not.
    """

    name: str
    first: int
    last: int | None = None


@dataclass(slots=True)
class Stretch:
    """What a task did from ``began`` to ``ended``, such as holding a lock; None: not yet ended."""

    name: str
    began: float
    ended: float | None = None


@dataclass(slots=True)
class TaskTrace:
    """What one task did. Times are readings of ``time.perf_counter``, in seconds.

    ``steps`` holds ``(began, ended, label)``: the label names the innermost coroutine of the
    course's own code that the task was suspended in when the step ended, and is empty for none.
    ``log`` tells how the stack of awaited coroutines of ours changed. An entry ``(step, depth)``
    says: after that step all but the outermost ``depth`` of them had ended; the names that follow
    it are those that had begun. ``points`` has an entry for each step that ended in a suspension:
    the offset in the bytecode of the innermost coroutine of ours, -1 for none; a name that is a
    :class:`Label` knows that bytecode. ``made`` is when the task was created, None where nobody
    noted it; ``marks`` holds times and what happened then, ``stretches`` what it did for a time.

    ``request``, such as ``GET /orders``, is what a task of a server or a client library is for, and
    ``inside`` the middleware of which it runs the rest of the app. ``answered`` is when the last of
    the response had been sent, None where it was not or where nobody told; see ``announced``.
    """

    qualified: str
    parent: "TaskTrace | None"
    loop: int
    ours: bool
    of_anyio: bool = False
    steps: list[Step] = field(default_factory=list)
    log: list[Entry] = field(default_factory=list)
    points: list[int] = field(default_factory=list)
    outermost: str = ""
    request: str = ""
    inside: str = ""
    answered: float | None = None
    answering: bool = False
    given_name: str = ""
    outcome: str = "pending"
    error: str = ""
    task: "weakref.ref[asyncio.Task[Any]] | None" = None
    made: float | None = None
    marks: list[tuple[float, str]] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)

    def note_name(self) -> None:
        """Keep the name that somebody gave the task; ``Task-7`` and its like are not names.

        AnyIO names a task after its function's module and qualified name; that is no name either.
        """
        task = None if self.task is None else self.task()
        if task is not None:
            self.note_name_of(task)

    def note_name_of(self, task: "asyncio.Task[Any]") -> None:
        """Keep the name of ``task``, which is this trace's, in the same way."""
        name = task.get_name()
        of_anyio = self.of_anyio or name.endswith(f".{self.qualified}")  # older ones have no handle
        automatic = AUTOMATIC_NAME.fullmatch(name) or (of_anyio and _is_path(name))
        self.given_name = "" if automatic else name

    def calls(self) -> list[Call]:
        """Return the coroutines of ours that the task waited in, however deep, by their start."""
        calls: list[Call] = []
        stack: list[Call] = []
        step = 0
        for entry in self.log:
            if isinstance(entry, str):
                call = Call(entry, step)
                calls.append(call)
                stack.append(call)
            else:
                step, depth = entry
                for ended in stack[depth:]:
                    ended.last = step
                del stack[depth:]
        if self.outcome != "pending":
            for ended in stack:
                ended.last = len(self.steps) - 1
        return calls

    def changes(self) -> frozenset[int]:
        """Return the places of the steps after which it waited in another call than before."""
        return frozenset(entry[0] for entry in self.log if not isinstance(entry, str))

    def begin_at(self, moment: float) -> bool:
        """Leave out what the task did before ``moment``; return whether anything is left.

        What it waited in at that moment, it has waited in since then.
        """
        steps = self.steps
        before = bisect_right(steps, moment, key=lambda step: step[1])
        if before == len(steps) and self.outcome != "pending":
            return False
        if self.made is not None:
            self.made = max(self.made, moment)
        later = steps[before:]
        if later and later[0][0] < moment:
            later[0] = (moment, *later[0][1:])
        if before:
            (_, _, label) = steps[before - 1]
            later.insert(0, (moment, moment, label))
            del self.points[: before - 1]
            self.log = _shortened(self.log, before - 1)
        self.steps[:] = later
        self.marks = [mark for mark in self.marks if mark[0] >= moment]
        self.stretches = [
            Stretch(one.name, max(one.began, moment), one.ended)
            for one in self.stretches
            if one.ended is None or one.ended > moment
        ]
        return True

    @property
    def function(self) -> str:
        """The last part of the coroutine's qualified name."""
        return short_name(self.qualified)

    @property
    def name(self) -> str:
        """What the lane is called: a given name, the request, or a coroutine of ours."""
        if self.given_name:
            return self.given_name
        if self.request:
            return f"{self.request} inside {self.inside}" if self.inside else self.request
        return self.function if self.ours else self.outermost or self.function

    @property
    def library(self) -> bool:
        """Whether the task is a library's own affair, which is not drawn."""
        return not (self.ours or self.request or self.outermost or self.given_name)


def _shortened(log: list[Entry], first: int) -> list[Entry]:
    """Return a log of what the steps from the place ``first`` on have changed."""
    waiting: list[str] = []
    later: list[Entry] = []
    for place, entry in enumerate(log):
        if isinstance(entry, str):
            waiting.append(entry)
        elif entry[0] > first:
            later = [
                one if isinstance(one, str) else (one[0] - first, one[1]) for one in log[place:]
            ]
            break
        else:
            del waiting[entry[1] :]
    return [(0, 0), *waiting, *later]


def _is_path(name: str) -> bool:
    """Return whether ``name`` is a module's, or a module's and something's in it."""
    parts = name.split(".")
    return any(".".join(parts[:end]) in sys.modules for end in range(1, len(parts) + 1))


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
    context that :func:`in_scope_of` gave. ``places`` are beginnings of paths whose code is ours
    though it is installed as a library.
    """

    def __init__(
        self, *, everything: bool = False, loop_number: int = 0, places: tuple[str, ...] = ()
    ) -> None:
        self.everything = everything
        self.loop_number = loop_number
        self.places = places
        self.traces: list[TaskTrace] = []
        self.on = True
        self._labels: dict[int, str] = {}
        self._codes: list[CodeType] = []
        self._ends: set[type] = set()
        self._by_task: weakref.WeakKeyDictionary[asyncio.Task[Any], TaskTrace] = (
            weakref.WeakKeyDictionary()
        )

    def watches(self, scope: "tuple[Recorder, ...]", creator: "asyncio.Task[Any] | None") -> bool:
        """Return whether a task that ``creator`` makes in ``scope`` belongs to this recording."""
        return self.on and (
            self.everything or self in scope or (creator is not None and creator in self._by_task)
        )

    def wrap(
        self, coroutine: Coroutine, creator: "asyncio.Task[Any] | None"
    ) -> tuple[Coroutine, TaskTrace]:
        """Return ``coroutine`` wrapped, and the trace that its steps will be written to."""
        core = coroutine
        while isinstance(core, Traced):
            core = core.wrapped
        subject = _behind_anyio(core)
        code = getattr(subject, "cr_code", None)
        name = getattr(subject, "__qualname__", type(subject).__qualname__)
        label = "" if code is None else self._known(code)
        own = bool(label) and label is not TO_BE_READ
        renamed = (
            code is not None
            and name != code.co_qualname
            and short_name(name) != short_name(code.co_qualname)
        )
        request = inside = ""
        if renamed:
            request = short_name(name) if not own and is_request(short_name(name)) else ""
        elif label is TO_BE_READ:
            name, _ = work_of(subject, self.is_ours)
        elif not own:
            request, inside = request_of(subject)
        trace = TaskTrace(
            qualified=name,
            parent=self.trace_of(creator),
            loop=self.loop_number,
            ours=own or renamed or (not request and asked_for_by_us(self.is_ours, sys._getframe())),
            of_anyio=subject is not core,
            made=perf_counter(),
            request=request,
            inside=inside,
        )
        self.traces.append(trace)
        driver = self._drive(coroutine, core, trace)
        next(driver)
        return Traced(coroutine, driver), trace

    def is_ours(self, code: CodeType) -> bool:
        """Return whether ``code`` is the course's or the learner's, or lies in ``places``."""
        return is_ours(code, self.places)

    def trace_of(self, task: "asyncio.Task[Any] | None") -> TaskTrace | None:
        """Return the trace of ``task``, or None if it has none here."""
        return None if task is None else self._by_task.get(task)

    def adopt(self, task: "asyncio.Task[Any]", trace: TaskTrace) -> None:
        """Remember which trace belongs to ``task``."""
        if trace.task is None:
            trace.task = weakref.ref(task)
            self._by_task[task] = trace

    def _adopt_current(self, trace: TaskTrace) -> None:
        """An eager task runs before its factory could return it, so its first step adopts it."""
        with suppress(RuntimeError):  # no loop: somebody drives the coroutine by hand
            task = asyncio.current_task()
            if task is not None:
                self.adopt(task, trace)

    def _note_cancel(self, trace: TaskTrace, root: Any, within: Any, started: bool) -> None:
        """Mark that a CancelledError is thrown into a task, and why.

        ``within`` is what the innermost coroutine of ours awaits: a library's affair.
        """
        task = None if trace.task is None else trace.task()
        if not self.on or task is None:
            return
        parent = trace.parent
        maker = None if parent is None or parent.task is None else parent.task()
        if parent is not None and maker is not None and gave_up_waiting(maker):
            parent.marks.append((perf_counter(), TIMED_OUT))
        why = why_cancelled(task, root, within) if started else NEVER_STARTED
        if why:
            trace.marks.append((perf_counter(), why))

    def note_running(self, thread: int) -> None:
        """Note the step that a thread is in just now, as if it ended here.

        ``thread`` is the identifier of another thread than this one. It is for a loop that is held
        and does not get to end its step.
        """
        frame = sys._current_frames().get(thread)
        while frame is not None:
            if frame.f_code is Recorder._drive.__code__:
                names = frame.f_locals
                trace, began = names["trace"], names.get("began")
                if any(one is trace for one in self.traces) and began is not None:
                    trace.steps.append((began, perf_counter(), ""))
                return
            frame = frame.f_back

    def stop(self) -> None:
        """End the recording; a task that goes on is no longer watched."""
        self.on = False
        for trace in self.traces:
            trace.note_name()

    def _label(self, code: CodeType) -> str:
        label = ""
        if code in ELSEWHERE:
            label = TO_BE_READ
        elif self.is_ours(code):
            label = Label(short_name(code.co_qualname))
            label.code = code
        self._labels[id(code)] = label
        self._codes.append(code)  # an id stays this code's only while the code lives
        return label

    def _drive(self, coroutine: Any, root: Any, trace: TaskTrace) -> Generator:
        """Run ``coroutine`` as ``yield from`` would, and note each step.

        ``root`` is the coroutine whose awaits are named: ``coroutine`` itself, or what is inside it
        when another recorder has wrapped it already. The first ``yield`` comes before the first
        step, so that an exception thrown into a task that has not started yet reaches it.
        """
        __tracebackhide__ = True
        send = coroutine.send
        steps = trace.steps
        append = steps.append
        get_label = self._labels.get
        clock = perf_counter
        coroutine_type, generator_type = CoroutineType, GeneratorType
        ends = self._ends
        native = type(root) is coroutine_type
        root_label = self._known(root.cr_code) if native else ""
        if root_label is TO_BE_READ:
            root_label = ""  # its task is named by it
        trace.outermost = root_label
        named = bool(root_label or trace.request)
        anchor: Any = root
        anchor_label = root_label
        stack: list[Any] = []
        push = stack.append
        log = trace.log.append
        point = trace.points.append
        thrown: BaseException | None = None
        awaited: Any = None
        started = False
        while True:
            try:
                yield awaited
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:
                thrown = error
                if isinstance(error, asyncio.CancelledError):
                    within = anchor.cr_await if native else None
                    self._note_cancel(trace, root, within, started)
            if not started:
                started = True
                self._adopt_current(trace)
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
            if not self.on:
                continue
            ended = clock()
            # The innermost coroutine of ours found last time is still on the stack of awaits
            # unless it has finished, so the walk starts there.
            inner = anchor.cr_await if native else None
            depth = known = len(stack)
            if inner is None and depth:
                anchor, anchor_label = root, root_label
                inner = root.cr_await
                depth = 0
            label = anchor_label
            while inner is not None:
                kind = type(inner)
                if kind is coroutine_type:
                    code = inner.cr_code
                    found = get_label(id(code))
                    if found is None:
                        found = self._label(code)
                    if found:
                        if found is TO_BE_READ:
                            found, _ = work_of(inner, self.is_ours)
                        label = anchor_label = found
                        anchor = inner
                        if depth < known and stack[depth] is inner:
                            depth += 1
                        else:
                            if known >= 0:
                                del stack[depth:]
                                log((len(steps), depth))
                                depth = known = -1
                            push(inner)
                            log(found)
                    inner = inner.cr_await
                elif kind in ends:
                    break
                elif kind is generator_type:
                    found = get_label(id(inner.gi_code))
                    if found is None:
                        found = self._label(inner.gi_code)
                    label = found or label
                    inner = inner.gi_yieldfrom
                else:
                    label, inner = self._through(inner, label)
            if depth < known:
                del stack[depth:]
                log((len(steps), depth))
            if not named and label:
                trace.outermost = self._outermost(root)
                named = bool(trace.outermost)
            point(anchor.cr_frame.f_lasti if native and label is anchor_label else -1)
            append((began, ended, label))

    def _known(self, code: CodeType) -> str:
        found = self._labels.get(id(code))
        return self._label(code) if found is None else found

    def _through(self, awaitable: Any, label: str) -> tuple[str, Any]:
        """Return the label, and what is awaited behind an awaitable that is no coroutine."""
        behind = _behind(awaitable)
        if behind is None:
            if type(awaitable).__name__ not in WRAPPERS:
                self._ends.add(type(awaitable))
            return label, None
        if isinstance(behind, AsyncGeneratorType):
            return self._known(behind.ag_code) or label, behind.ag_await
        return label, behind

    def _outermost(self, coroutine: Any) -> str:
        """Return the label of the first coroutine of ours on the way in, for tasks of a library."""
        inner: Any = coroutine
        label = ""
        while inner is not None and not label:
            if isinstance(inner, CoroutineType):
                label = self._known(inner.cr_code)
                if label is TO_BE_READ:
                    work, own = work_of(inner, self.is_ours)
                    label = work if own else ""
                inner = inner.cr_await
            elif isinstance(inner, GeneratorType):
                label, inner = self._known(inner.gi_code), inner.gi_yieldfrom
            else:
                label, inner = self._through(inner, "")
        return label


def _outcome(ending: BaseException) -> str:
    if isinstance(ending, StopIteration):
        return "done"
    return "cancelled" if isinstance(ending, asyncio.CancelledError) else "failed"


def _behind(awaitable: Any) -> Any:
    """Return the coroutine or generator that an opaque awaitable stands for, or None.

    ``asend()`` of an async generator, ``anext()`` and ``coroutine.__await__()`` have no attribute
    that leads on, so the garbage collector is asked what they refer to.
    """
    kind = type(awaitable)
    if kind is GeneratorType or kind is AsyncGeneratorType or kind is CoroutineType:
        return awaitable
    if kind.__name__ in WRAPPERS:
        for referred in gc.get_referents(awaitable):
            found = _behind(referred)
            if found is not None:
                return found
    return None


def _behind_anyio(coroutine: Any) -> Any:
    """Return the coroutine that an AnyIO task group was given: it runs it inside one of its own."""
    if getattr(coroutine, "__qualname__", "") == "TaskHandle._run_coro":
        frame = coroutine.cr_frame
        handle = None if frame is None else frame.f_locals.get("self")
        return getattr(handle, "coro", coroutine)
    return coroutine


def asked_for_by_us(is_ours: Callable[[CodeType], bool], frame: FrameType | None) -> bool:
    """Return whether code of ours asks, in ``frame`` or outside of it, for a task.

    Between it and the task factory stand plain functions of asyncio and AnyIO, such as ``gather``
    and ``start_soon``. A coroutine of theirs that makes a task makes it for itself, and so does any
    other library: SQLAlchemy closes connections in tasks of its own.
    """
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith((LAB_FOLDER, *TASK_MAKERS)):
            return is_ours(code)
        if code.co_flags & inspect.CO_COROUTINE and code.co_qualname != "TaskGroup.start":
            return False
        frame = frame.f_back
    return False


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
        creator = asyncio.current_task(loop)
        watching: list[tuple[Recorder, TaskTrace]] = []
        if asyncio.iscoroutine(coro):
            for recorder in self.recorders:
                if recorder.watches(scope, creator):
                    coro, trace = recorder.wrap(coro, creator)
                    watching.append((recorder, trace))
        if self.previous is None:
            task: asyncio.Future[Any] = asyncio.Task(coro, loop=loop, **options)
        else:
            task = self.previous(loop, coro, **options)
        if isinstance(task, asyncio.Task):
            for recorder, trace in watching:
                recorder.adopt(task, trace)
                if task.done():  # an eager task: it is given its name after its end
                    loop.call_soon(trace.note_name_of, task)
        return task


def traces_of_current_task() -> list[TaskTrace]:
    """Return the traces that recorders of the running loop keep of its current task."""
    factory = asyncio.get_running_loop().get_task_factory()
    if not isinstance(factory, _Factory):
        return []
    task = asyncio.current_task()
    found = (recorder.trace_of(task) for recorder in factory.recorders)
    return [trace for trace in found if trace is not None]


def attach(recorder: Recorder) -> asyncio.AbstractEventLoop:
    """Let ``recorder`` watch the tasks made on the running loop from now on; return that loop."""
    loop = asyncio.get_running_loop()
    factory = loop.get_task_factory()
    if not isinstance(factory, _Factory):
        factory = _Factory(loop)
        loop.set_task_factory(factory)
    factory.recorders.append(recorder)
    return loop


def detach(recorder: Recorder, loop: asyncio.AbstractEventLoop) -> None:
    """Stop ``recorder`` and, if it was the last one, give ``loop`` its own factory back."""
    recorder.stop()
    factory = loop.get_task_factory()
    if isinstance(factory, _Factory) and recorder in factory.recorders:
        factory.recorders.remove(recorder)
        if not factory.recorders:
            loop.set_task_factory(factory.previous)


def on_loop(
    loop: asyncio.AbstractEventLoop, act: Callable[[], object], *, wait: float = 5.0
) -> None:
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
