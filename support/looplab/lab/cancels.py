"""Why a CancelledError is thrown into a task: somebody cancelled it, or a time-out of its own did.

Nothing is patched: only when the loop throws a CancelledError, which is rare, the suspended frames
of the task are searched for the ``asyncio.timeout`` or AnyIO scope that has just expired.
"""

import asyncio
import gc
from collections import deque
from collections.abc import Iterable, Iterator
from types import AsyncGeneratorType, CoroutineType, GeneratorType, MethodType
from typing import Any

import anyio

CANCELLED = "cancelled here"
TIMED_OUT = "timed out here"
NEVER_STARTED = "cancelled before it started"

FRAMES = (CoroutineType, GeneratorType, AsyncGeneratorType)
WRAPPERS = frozenset(
    {"async_generator_asend", "async_generator_athrow", "coroutine_wrapper", "anext_awaitable"}
)
CONTAINERS = (dict, deque, tuple, list)
NESTED = 6
"""How many context managers inside one another are looked into: an exit stack, a wrapper, …"""
SEARCHED = 1_000
"""How many objects are looked at, at most."""


def why_cancelled(task: "asyncio.Task[Any]", coroutine: Any, library: Any = None) -> str:
    """Return a mark's text for a CancelledError that is about to be thrown into ``task``.

    ``coroutine`` is what the task runs, suspended; ``library`` is the part of it that is a
    library's own, None for none. Returns :data:`TIMED_OUT` where a time-out that the task itself
    has entered expires: ``asyncio.timeout``, ``wait_for``, a deadline of an AnyIO scope;
    :data:`CANCELLED` where somebody else asked for it; and an empty text where not the task was
    cancelled but what it awaits, or where the library has cancelled a scope of its own, which goes
    no further: AnyIO does so when it connects, once an address has answered.
    """
    if any(_has_expired(manager, task) for manager in _managers(coroutine)):
        return TIMED_OUT
    if library is not None and any(_is_cancelled(one, task) for one in _managers(library)):
        return ""
    return CANCELLED if task.cancelling() else ""


def _has_expired(manager: Any, task: "asyncio.Task[Any]") -> bool:
    if isinstance(manager, asyncio.Timeout):
        expiring = "[expiring]" in repr(manager)  # expired() stays true for ever after
        return expiring and any(value is task for value in vars(manager).values())
    return _is_cancelled(manager, task) and manager.deadline <= task.get_loop().time()


def _is_cancelled(manager: Any, task: "asyncio.Task[Any]") -> bool:
    """Return whether ``manager`` is a scope of AnyIO that was cancelled and that ``task`` is in."""
    if not (isinstance(manager, anyio.CancelScope) and manager.cancel_called):
        return False
    return any(referred is task for referred in gc.get_referents(manager))


def _managers(coroutine: Any) -> Iterator[Any]:
    """Yield the context managers that suspended frames know, those they are inside of among them.

    ``async with`` keeps the manager's ``__aexit__`` on the frame's stack, which has no attribute
    that leads to it, so the garbage collector is asked what a frame refers to.
    """
    found: deque[tuple[Any, int]] = deque([(coroutine, 0)])
    seen: set[int] = set()
    while found and len(seen) < SEARCHED:
        thing, depth = found.popleft()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        kind = type(thing)
        inside: Iterable[Any] = ()
        if kind in FRAMES or kind.__name__ in WRAPPERS:
            inside = gc.get_referents(thing)
        elif kind is MethodType:
            inside = [thing.__self__]
        elif hasattr(kind, "__exit__") or hasattr(kind, "__aexit__"):
            yield thing
            depth += 1
            inside = gc.get_referents(thing)
        elif depth and kind in CONTAINERS:  # of a manager: its attributes, an exit stack's entries
            inside = gc.get_referents(thing)
        if depth <= NESTED:
            found.extend((one, depth) for one in inside)


def gave_up_waiting(task: "asyncio.Task[Any]") -> bool:
    """Return whether ``wait_for`` of Python 3.11 gives up in ``task``.

    There it runs what it waits for in a task of its own, and cancels that. (From 3.12 on it is an
    ``asyncio.timeout``.)
    """
    names = []
    inner: Any = task.get_coro()
    while (code := getattr(inner, "cr_code", None)) is not None:
        names.append(code.co_name)
        inner = inner.cr_await
    return names[-2:] == ["wait_for", "_cancel_and_wait"] and not task.cancelling()
