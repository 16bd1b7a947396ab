"""What tasks hold and queue for, and what a lesson marks itself, on the lanes of an x-ray.

``xray(..., watch={"slot": semaphore})`` watches the methods that take and give back a lock or a
slot, so that the code under study stays as it is. :func:`mark` and :func:`span` are for a lesson
that wants to point at something else.
"""

import asyncio
import inspect
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import anyio

from looplab.lab.recording import holds, queues_for
from looplab.lab.trace import Recorder, Stretch, TaskTrace, traces_of_current_task

Task = asyncio.Task[Any]

SHARED = ("asyncio", "anyio", "threading")
"""Classes of these modules are used by libraries too, so only single objects of them are watched.
"""
TAKING = ("acquire", "acquire_nowait", "__aenter__")
GIVING_BACK = ("release", "__aexit__")


def mark(text: str) -> None:
    """Mark this moment with ``text`` on the lane of the current task, if an x-ray records it.

    Raises TypeError when ``text`` is no string and ValueError when it is empty.
    """
    _check_text(text)
    for trace in _current_traces():
        trace.marks.append((perf_counter(), text))


@contextmanager
def span(text: str) -> Generator[None]:
    """Show on the lane of the current task, if an x-ray records it, how long the block takes.

    Use it as in ``with span("holds the lease"):``; the block may await. Raises TypeError when
    ``text`` is no string and ValueError when it is empty.
    """
    _check_text(text)
    stretch = Stretch(text, perf_counter())
    for trace in _current_traces():
        trace.stretches.append(stretch)
    try:
        yield
    finally:
        stretch.ended = perf_counter()


def _check_text(text: Any) -> None:
    if not isinstance(text, str):
        raise TypeError(f"text is {text!r}; it must be a string")
    if not text.strip():
        raise ValueError(f"text is {text!r}; it must say something")


def _current_traces() -> list[TaskTrace]:
    """Return the traces of the current task, one for each x-ray that records it."""
    try:
        return traces_of_current_task()
    except RuntimeError:  # no event loop in this thread
        return []


def check_watch(watch: Any) -> None:
    """Raise TypeError or ValueError unless ``watch`` maps names to what can be watched."""
    if not isinstance(watch, Mapping):
        raise TypeError(
            f'watch is {watch!r}; it must give each lock a name, as in {{"slot": semaphore}}'
        )
    names: dict[int, str] = {}
    for name, target in watch.items():
        if not (isinstance(name, str) and name.strip()):
            raise TypeError(f"watch has the name {name!r}; it must be a string, such as 'slot'")
        if id(target) in names:
            raise ValueError(
                f"watch[{name!r}] is {target!r}; that is watched as {names[id(target)]!r} already"
            )
        names[id(target)] = name
        _check_target(name, target)


def _check_target(name: str, target: Any) -> None:
    kind = target if isinstance(target, type) else type(target)
    acquire = getattr(target, "acquire", None)
    acquires = inspect.iscoroutinefunction(acquire) and callable(getattr(target, "release", None))
    enters = hasattr(kind, "__aenter__") and hasattr(kind, "__aexit__")
    if not (acquires or enters):
        raise TypeError(
            f"watch[{name!r}] is {target!r}; it must have an async acquire() and a release(), or "
            "work with async with"
        )
    if target is kind and kind.__module__.partition(".")[0] in SHARED:
        raise TypeError(
            f"watch[{name!r}] is the class {kind.__name__}, which libraries use too; watch an "
            "object of it"
        )


@contextmanager
def watching(watch: Mapping[str, Any], recorders: Sequence[Recorder]) -> Generator[None]:
    """Note on the lanes of ``recorders`` who holds and queues for what ``watch`` names.

    ``watch`` maps a name to an object, or to a class for every object of it. They are as before
    once the block ends. Raises TypeError for an object whose methods can't be watched.
    """
    with ExitStack() as stack:
        for name, target in watch.items():
            stack.enter_context(_tapped(name, target, _Watch(name, recorders)))
        yield


class _Watch:
    """Notes for one recording who holds one named thing."""

    def __init__(self, name: str, recorders: Sequence[Recorder]) -> None:
        self.name = name
        self.recorders = recorders
        self.held: dict[int, list[tuple[TaskTrace, Stretch]]] = {}

    def trace_of(self, task: Task | None) -> TaskTrace | None:
        """Return the trace of ``task``, None if it isn't recorded."""
        found = (recorder.trace_of(task) for recorder in self.recorders)
        return next((trace for trace in found if trace is not None), None)

    def queues(self, trace: TaskTrace | None) -> Stretch:
        """Note that the task of ``trace`` waits for the thing from now on."""
        stretch = Stretch(queues_for(self.name), perf_counter())
        owner = _with_a_lane(trace)
        if owner is not None:
            owner.stretches.append(stretch)
        return stretch

    def forget(self, trace: TaskTrace | None, stretch: Stretch) -> None:
        """Take back that the task of ``trace`` queued: it was served at once."""
        owner = _with_a_lane(trace)
        stretches = owner.stretches if owner is not None else []
        for place in range(len(stretches) - 1, -1, -1):  # it is among the last
            if stretches[place] is stretch:
                del stretches[place]
                break

    def takes(self, target: Any, trace: TaskTrace | None) -> None:
        """Note that the task of ``trace`` holds ``target`` from now on."""
        owner = _with_a_lane(trace)
        if owner is not None:
            stretch = Stretch(holds(self.name), perf_counter())
            owner.stretches.append(stretch)
            self.held.setdefault(id(target), []).append((owner, stretch))

    def gives_back(self, target: Any, task: Task | None) -> None:
        """Note that ``task`` releases ``target``: its own hold if it has one, else the oldest.

        A semaphore may be released by another task than took it, or by a callback, which is none.
        """
        held = self.held.get(id(target))
        if held:
            owner = _with_a_lane(self.trace_of(task))
            own = [place for place, (holder, _) in enumerate(held) if holder is owner]
            if own or owner is not None or task is None:
                _, stretch = held.pop(own[-1] if own else 0)
                stretch.ended = perf_counter()


def _with_a_lane(trace: TaskTrace | None) -> TaskTrace | None:
    """Return ``trace``, or that of the task that made it where it has no lane of its own.

    ``wait_for(lock.acquire(), 1)`` on Python 3.11 acquires in such a task.
    """
    while trace is not None and trace.library and trace.parent is not None:
        trace = trace.parent
    return trace


class _Tap:
    """Tells watches of every call that takes or gives back ``target``, while there are any.

    The methods of an object are replaced by giving it a subclass of its class, since ``async with``
    looks them up on the class. Those of a class are replaced on the class.
    """

    def __init__(self, target: Any) -> None:
        self.target = target
        self.watches: list[_Watch] = []
        self.undo = ExitStack()
        self._inside: set[tuple[Task | None, int]] = set()

    def install(self) -> None:
        """Replace the methods; :attr:`undo` gives them back."""
        target = self.target
        kind = target if isinstance(target, type) else type(target)
        names = [name for name in (*TAKING, *GIVING_BACK) if callable(getattr(kind, name, None))]
        methods = {name: self._method(name, getattr(kind, name)) for name in names}
        if target is kind:
            for name, method in methods.items():
                self._replace(kind, name, method)
            return
        own = vars(target) if hasattr(target, "__dict__") else {}
        for name in {*TAKING, *GIVING_BACK} & own.keys():
            # asyncio.Condition keeps the methods of its lock as attributes of its own.
            self._replace(target, name, partial(self._method(name, vars(target)[name]), None))
        names_of_kind = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
        body = {"__slots__": (), **names_of_kind, **methods}
        target.__class__ = type(kind)(kind.__name__, (kind,), body)
        self.undo.callback(setattr, target, "__class__", kind)

    def _replace(self, owner: Any, name: str, method: Any) -> None:
        if name in vars(owner):
            self.undo.callback(setattr, owner, name, vars(owner)[name])
        else:
            self.undo.callback(delattr, owner, name)
        setattr(owner, name, method)

    def _method(self, name: str, original: Any) -> Any:
        """Return a function that does what ``original`` does and tells the watches.

        Its first argument is the lock; None for a bound method, which needs none.
        """

        async def acquire(lock: Any, *args: Any, **options: Any) -> Any:
            call = self._begin(lock)
            if call is None:
                return await original(*_given(lock), *args, **options)
            free = _is_free(call.subject)
            queueing = []
            for watch in call.watches:
                trace = watch.trace_of(call.task)
                steps = 0 if trace is None else len(trace.steps)  # one more for each suspension
                queueing.append((watch, trace, watch.queues(trace), steps))
            taken = False
            try:
                result = await original(*_given(lock), *args, **options)
                taken = name == "__aenter__" or result is not False
                return result
            finally:
                self._end(call)
                for watch, trace, stretch, steps in queueing:
                    stretch.ended = perf_counter()
                    if free or (trace is not None and len(trace.steps) == steps):
                        watch.forget(trace, stretch)
                    if taken:
                        watch.takes(call.subject, trace)

        def acquire_nowait(lock: Any, *args: Any, **options: Any) -> Any:
            result = original(*_given(lock), *args, **options)
            call = self._begin(lock)
            if call is not None:
                self._end(call)
                for watch in call.watches if result is not False else ():
                    watch.takes(call.subject, watch.trace_of(call.task))
            return result

        def gives_back(lock: Any) -> _Call | None:
            call = self._begin(lock)
            if call is not None:
                for watch in call.watches:
                    watch.gives_back(call.subject, call.task)
            return call

        async def release(lock: Any, *args: Any, **options: Any) -> Any:
            call = gives_back(lock)
            try:
                return await original(*_given(lock), *args, **options)
            finally:
                self._end(call)

        def release_at_once(lock: Any, *args: Any, **options: Any) -> Any:
            call = gives_back(lock)
            try:
                return original(*_given(lock), *args, **options)
            finally:
                self._end(call)

        waits = inspect.iscoroutinefunction(original)
        if name in TAKING:
            return acquire if waits else acquire_nowait
        return release if waits else release_at_once

    def _begin(self, lock: Any) -> "_Call | None":
        """Return a call to tell the watches of.

        None for a call inside another: ``async with`` calls ``acquire()`` in turn.
        """
        call = _Call(_current_task(), self.target if lock is None else lock, self.watches.copy())
        if call.key in self._inside:
            return None
        self._inside.add(call.key)
        return call

    def _end(self, call: "_Call | None") -> None:
        if call is not None:
            self._inside.discard(call.key)


class _Call(NamedTuple):
    """``task`` takes ``subject``, or gives it back."""

    task: Task | None
    subject: Any
    watches: list[_Watch]

    @property
    def key(self) -> tuple[Task | None, int]:
        return self.task, id(self.subject)


_taps: dict[int, _Tap] = {}


@contextmanager
def _tapped(name: str, target: Any, watch: _Watch) -> Generator[None]:
    """Let ``watch`` be told of ``target``; x-rays that overlap share one tap."""
    tap = _taps.get(id(target))
    if tap is None:
        tap = _Tap(target)
        try:
            tap.install()
        except (TypeError, AttributeError) as error:
            tap.undo.close()
            raise TypeError(
                f"watch[{name!r}] is {target!r}; its methods can't be replaced: {error}"
            ) from error
        _taps[id(target)] = tap
    tap.watches.append(watch)
    try:
        yield
    finally:
        tap.watches.remove(watch)
        if not tap.watches:
            del _taps[id(target)]
            tap.undo.close()


def _given(lock: Any) -> tuple[Any, ...]:
    return () if lock is None else (lock,)


def _current_task() -> Task | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop in this thread
        return None


def _is_free(lock: Any) -> bool:
    """Return whether a lock of AnyIO can be had at once: it lets others run once even then."""
    if isinstance(lock, anyio.Lock | anyio.Condition):
        return not lock.locked()
    if isinstance(lock, anyio.Semaphore):
        return lock.value > 0
    if isinstance(lock, anyio.CapacityLimiter):
        return lock.available_tokens > 0 and not lock.statistics().tasks_waiting
    return False
