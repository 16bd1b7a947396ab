"""Watch an event loop work: run a coroutine and draw what each of its tasks did."""

import asyncio
import gc
import inspect
from collections.abc import Coroutine, Generator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Protocol, TypeVar

from support.lab.display import show_picture
from support.lab.recording import Recording
from support.lab.trace import Recorder, attach, detach, in_scope_of, on_loop, short_name
from support.lab.units import ms

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
    held: float | None = None,
    catch: type[BaseException] | tuple[type[BaseException], ...] = (),
    show: bool = True,
) -> Recording:
    """Run ``coroutine`` as a task, record each step of it and of the tasks it makes, and draw them.

    Args:
        coroutine: what to run. Its task is the first lane.
        title: the panel's heading; the coroutine's name unless given.
        against: recordings to draw above this one, on the same time axis.
        server: a server in a thread, whose loop's tasks are drawn as lanes of their own.
        held: a step of at least so many seconds is drawn red: it held the loop; 10 ms unless given.
        catch: exceptions that the experiment is meant to end with: kept as ``recording.error``.
        show: whether to draw.

    Returns:
        The recording, with ``result``, what the coroutine returned.

    Raises:
        TypeError: ``coroutine`` is not a coroutine.
        Exception: whatever the coroutine raises and ``catch`` does not name.

    Tasks that existed before, threads and other processes have no lane. The garbage collector rests
    meanwhile, as it does in ``timeit``. Recording adds about half the cost of a bare step.
    """
    name = _checked(coroutine)
    threshold = ms(10) if held is None else held
    if threshold <= 0:
        coroutine.close()
        raise ValueError(f"held is {held!r}; it must be above 0, in seconds")
    recorder = Recorder()
    watched = [recorder]
    if server is not None:
        watched.append(Recorder(everything=True, loop_number=1))
    result: Any = None
    failure: BaseException | None = None
    with _gc_at_rest(), _recording(recorder, server, watched[-1]):
        root = asyncio.create_task(coroutine, context=in_scope_of(recorder))
        start = perf_counter()
        try:
            result = await root
        except catch as error:
            failure = error
        end = perf_counter()
    traces = [trace for one in watched for trace in one.traces]
    own = traces[0].steps
    recording = Recording(
        traces,
        title=title or name,
        start=own[0][0] if own else start,
        end=own[-1][1] if own else end,
        held=threshold,
        result=result,
        error=failure,
    )
    if show:
        above = [against] if isinstance(against, Recording) else list(against)
        show_xray(*above, recording)
    return recording


def show_xray(*recordings: Recording, summary: str = "") -> None:
    """Draw recordings one under another on one time axis, with a summary in words.

    Raises ValueError when there is none to draw.
    """
    from support.lab.pictures import describe, draw

    if not recordings:
        raise ValueError("recordings is empty; give at least one recording to draw")
    described = " ".join(describe(recording) for recording in recordings)
    show_picture(
        draw(recordings),
        alt=f"A lane per task over time. {described}",
        summary=summary or described,
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
    return short_name(coroutine.__qualname__)


@contextmanager
def _recording(recorder: Recorder, server: HasLoop | None, remote: Recorder) -> Generator[None]:
    attach(recorder)
    try:
        if server is None:
            yield
            return
        on_loop(server.loop, lambda: attach(remote))
        try:
            yield
        finally:
            on_loop(server.loop, lambda: detach(remote))
    finally:
        detach(recorder)


@contextmanager
def _gc_at_rest() -> Generator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
