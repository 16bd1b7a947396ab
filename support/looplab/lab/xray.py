"""Watch an event loop work: run a coroutine and draw what each of its tasks did."""

import asyncio
import gc
import inspect
import math
from collections.abc import Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Protocol, TypeVar

from looplab.lab.display import show_picture
from looplab.lab.lane_names import request_of
from looplab.lab.marks import check_watch, watching
from looplab.lab.our_code import Packages, is_ours, places_of, short_name
from looplab.lab.recording import Recording
from looplab.lab.trace import Recorder, attach, detach, in_scope_of, on_loop
from looplab.lab.units import ms

T = TypeVar("T")


class HasLoop(Protocol):
    """A server that runs in a thread of its own."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The server's event loop."""
        ...


async def xray(
    coroutine: Coroutine[Any, Any, T],
    *,
    title: str = "",
    against: Recording | Sequence[Recording] = (),
    server: HasLoop | None = None,
    ours: Packages = (),
    held: float | None = None,
    unfold: bool = True,
    catch: type[BaseException] | tuple[type[BaseException], ...] = (),
    watch: Mapping[str, Any] | None = None,
    show: bool = True,
) -> Recording:
    """Run ``coroutine`` as a task, record each step of it and of the tasks it makes, and draw them.

    Args:
        coroutine: what to run. Its task is the first lane.
        title: the panel's heading; the coroutine's name, or its request's, unless given.
        against: recordings to draw above this one, on the same time axis.
        server: a server in a thread, whose loop's tasks are drawn as lanes of their own.
        ours: packages or modules, themselves or by name, that are installed as libraries are and
            whose code is drawn as ours all the same: an app in site-packages, for one.
        held: a step of at least so many seconds is drawn red: it held the loop; 10 ms unless given.
        unfold: whether a task that waits in several coroutines gets a lane for each below its own.
        catch: exceptions that the experiment is meant to end with: kept as ``recording.error``.
        watch: locks and slots by name, as in ``{"slot": semaphore}``: lanes show who holds and who
            queues for them, ``recording.spans("holds slot")`` tells when. Anything with an async
            ``acquire()`` and a ``release()`` or for ``async with``; a class stands for all of its
            objects. They are as before once the recording ends.
        show: whether to draw.

    Returns:
        The recording, with ``result``, what the coroutine returned.

    Raises:
        TypeError: ``coroutine`` is not a coroutine, ``catch`` names something that is no exception,
            ``against`` holds something that is no recording, ``server`` has no loop, ``ours`` holds
            something that is neither a module nor a name, or ``watch`` names something that can't
            be watched.
        ValueError: ``held`` is not above 0, ``server`` runs on this very loop, ``ours`` names what
            can't be imported here or has no Python file, or ``watch`` names one thing twice.
        Exception: whatever the coroutine raises and ``catch`` does not name.

    A task of a server or a client library is named after its request: ``GET /orders``, or
    ``WS /chat``, ids left out. A name given to a task comes first, and a coroutine of ours keeps
    its own. Where a middleware runs the rest of the app in a task, as Starlette's base class does,
    that task is ``GET /orders inside TimingMiddleware``. A wait for ``asyncio.to_thread`` or
    AnyIO's ``run_sync``, which a ``def`` endpoint comes down to, is called ``thread: orders``: it
    begins with the asking, so it holds the time in which no thread was free.

    A lane is dotted from its task's making to its first step, ends in an arrow where the task had
    not ended, and is marked where the task was cancelled or a time-out of its own expired; see
    ``recording.marks``. A lesson adds marks by :func:`~looplab.lab.mark` and
    :func:`~looplab.lab.span`. Taking and giving back what is watched costs some 50 µs more.

    Not seen, on a server's loop as on this one: tasks that existed before, a request that had begun
    among them; callbacks of the loop, in which a server parses requests and writes to sockets; what
    a thread does with its time, and what ``loop.run_in_executor`` waits for; other processes, such
    as further workers. A request of an app that the lab neither serves nor calls has its name, but
    not the moment of its answer. The garbage collector rests meanwhile, as it does in ``timeit``.
    Recording adds about half the cost of a bare step.
    """
    __tracebackhide__ = True
    name = _checked(coroutine)
    threshold = ms(10) if held is None else held
    above = [against] if isinstance(against, Recording) else against
    try:
        _check_options(threshold, above, server, catch)
        watch = {} if watch is None else watch
        check_watch(watch)
        places = places_of(ours)
    except BaseException:
        coroutine.close()
        raise
    recorder = Recorder(places=places)
    watched = [recorder]
    if server is not None:
        watched.append(Recorder(everything=True, loop_number=1, places=places))
    result: Any = None
    failure: BaseException | None = None
    root: asyncio.Task[T] | None = None
    try:
        with (
            gc_at_rest(),
            _recording(recorder, server, watched[-1]),
            watching(watch, watched),
        ):
            root = asyncio.create_task(coroutine, context=in_scope_of(recorder))
            recorder.traces[0].ours = True
            start = perf_counter()
            try:
                result = await root
            except catch as error:
                failure = error
            end = perf_counter()
    finally:
        if root is None:
            coroutine.close()
    traces = [trace for one in watched for trace in one.traces]
    own = traces[0].steps
    recording = Recording(
        traces,
        title=title or name,
        start=own[0][0] if own else start,
        end=own[-1][1] if own else end,
        held=threshold,
        unfold=unfold,
        result=result,
        error=failure,
        watched=watch,
    )
    if show:
        show_xray(*above, recording)
    return recording


def show_xray(*recordings: Recording, summary: str = "") -> None:
    """Draw recordings one under another on one time axis, with a summary in words.

    Where scripts run, a reader can zoom into the picture and point at its bars; elsewhere it is a
    still one. See :mod:`looplab.lab.explorer`.

    Raises ValueError when there is none to draw.
    """
    from looplab.lab.explorer import MIME, data_of, fragment_of, kept
    from looplab.lab.pictures import draw

    if not recordings:
        raise ValueError("recordings is empty; give at least one recording to draw")
    data = data_of(*recordings)
    described = " ".join(panel["said"] for panel in data["panels"])
    small = kept(data)
    show_picture(
        draw(recordings),
        alt=f"A lane per task over time. {described}",
        summary=summary or described,
        live=lambda still: fragment_of(data, still=still),
        beside={} if small is None else {MIME: small},
    )


def _checked(coroutine: Any) -> str:
    if isinstance(coroutine, asyncio.Future):
        coroutine.cancel()
        raise TypeError(
            "coroutine is a task that already runs; pass the coroutine itself, as in f()"
        )
    if not inspect.iscoroutine(coroutine):
        called = getattr(coroutine, "__name__", "f")
        hint = f"; call it: {called}()" if callable(coroutine) else ""
        raise TypeError(f"coroutine is {coroutine!r}; it must be a coroutine, such as f(){hint}")
    code = getattr(coroutine, "cr_code", None)
    request = "" if code is None or is_ours(code) else request_of(coroutine)[0]
    return request or short_name(coroutine.__qualname__)


def _check_options(held: Any, against: Any, server: Any, catch: Any) -> None:
    number = isinstance(held, int | float)
    if not (number and math.isfinite(held) and held > 0):
        raise ValueError(f"held is {held!r}; it must be a number above 0, in seconds")
    listed = isinstance(against, Sequence)
    if not (listed and all(isinstance(other, Recording) for other in against)):
        raise TypeError(f"against is {against!r}; it must be a recording or a list of them")
    for kind in catch if isinstance(catch, tuple) else (catch,):
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"catch is {catch!r}; it must be an exception type or a tuple of them")
    if server is None:
        return
    loop = getattr(server, "loop", None)
    if not isinstance(loop, asyncio.AbstractEventLoop):
        raise TypeError(f"server is {server!r}; it must have a loop, as what serve() gives has")
    if loop is asyncio.get_running_loop():
        raise ValueError(f"server is {server!r}; it runs on this loop, whose tasks are seen anyway")


@contextmanager
def _recording(recorder: Recorder, server: HasLoop | None, remote: Recorder) -> Generator[None]:
    home = attach(recorder)
    try:
        if server is None:
            yield
            return
        on_loop(server.loop, lambda: attach(remote))
        try:
            yield
        finally:
            on_loop(server.loop, lambda: detach(remote, server.loop))
    finally:
        detach(recorder, home)


@contextmanager
def gc_at_rest() -> Generator[None]:
    """Keep the garbage collector from running by itself in this block, as ``timeit`` does."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
