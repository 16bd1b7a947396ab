"""X-ray an app of your own: from its import path to what held its loop, line by line.

``load_app("shop.main:app")`` imports the app as uvicorn does; ``await xray_app(app, "GET /")``
serves it on 127.0.0.1, sends the requests and returns a report. It needs no notebook: the command
`course xray` is built on it.
"""

import asyncio
import contextlib
import importlib
import inspect
import logging
import math
import os
import platform
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import psutil

from looplab.lab.clients import LoopbackServer, ServerDidNotStart, ServerDidNotStop, served
from looplab.lab.errors import LessonError
from looplab.lab.hygiene import caught_leaks, settle_down
from looplab.lab.our_code import Packages, places_of
from looplab.lab.places import shown_file
from looplab.lab.recording import Recording
from looplab.lab.silent_failures import collect_garbage
from looplab.lab.stacks import SourceLine, StackSampler
from looplab.lab.still_open import Baseline, sockets_in_use
from looplab.lab.trace import Recorder, attach, detach, on_loop
from looplab.lab.units import ms
from looplab.lab.xray import gc_at_rest

HELD = ms(50)
"""A hold of less is not told unless asked for: on a busy machine a step may just not get its turn.
"""
WITHIN = 10.0
"""Seconds that an answer may take unless said otherwise."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing, so that such a request may be sent once more, before the recording.
"""
WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
AFTERWARDS = 1.0
"""Seconds in which requests may end once the last answer has been read: background tasks."""
RESPONSIVE = 0.5
"""Seconds that the app's loop gets to answer when the recording ends."""
NO_ANSWER = 0
"""The status of a request that got no answer."""
NAMED_PACKAGES = ("fastapi", "starlette", "litestar", "uvicorn", "anyio", "fastapi-async-course")


_THREAD_NUMBER = re.compile(r"^Thread-\d+ (?=\()|[-_\d]+$")
"""What tells threads apart that do the same: ``Thread-3 (poll)``, ``ThreadPoolExecutor-0_1``."""


class AppNotLoaded(LessonError):
    """There is no app at an import path; the message says in a sentence what there is instead."""


# ---------------------------------------------------------------- from an import path to an app


def load_app(path: str, *, app_dir: str | os.PathLike[str] = "", factory: bool = False) -> Any:
    """Import an app by its path, as uvicorn does.

    Args:
        path: ``"package.module:attribute"``; the attribute may have dots.
        app_dir: the folder to import from, which is put first on ``sys.path`` and stays there; the
            working directory unless given.
        factory: whether what the path leads to is a function that makes the app.

    Returns:
        The ASGI app. A module that was imported before is not imported again.

    Raises:
        AppNotLoaded: the path is written otherwise, there is no such module or attribute, importing
            it or calling the factory fails, or what was found is no app. The error that the app's
            own code has raised is its cause.
    """
    module_name, colon, names = path.partition(":")
    file = module_name.endswith(".py")
    if file or not (module_name and colon and names and _is_dotted(module_name)):
        raise AppNotLoaded(f"The app is {path!r}; {_written(module_name, names)}.")
    folder = Path(app_dir or ".").resolve()
    if not folder.is_dir():
        raise AppNotLoaded(f"There is no folder {folder} to import {module_name} from.")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise AppNotLoaded(
                f"There is no module {error.name} in {folder}, nor is one installed."
            ) from None
        raise AppNotLoaded(_failed(f"Importing {module_name}", error)) from error
    except (Exception, SystemExit) as error:
        raise AppNotLoaded(_failed(f"Importing {module_name}", error)) from error
    found: Any = module
    for name in names.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise AppNotLoaded(_no_attribute(module, names)) from None
    return _made(found, path) if factory else _app(found, path)


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _written(module: str, names: str) -> str:
    as_module = module.removesuffix(".py").replace("/", ".").replace("\\", ".").strip(".")
    if _is_dotted(as_module):
        return f"write it as module:attribute, such as {as_module}:{names or 'app'}"
    return "write it as module:attribute, such as shop.main:app"


def _failed(what: str, error: BaseException) -> str:
    """Return a sentence on an error of the app's own code, with the line that raised it."""
    trace, at = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<frozen") and file != __file__ and "importlib" not in file:
            at = f" ({shown_file(file)}, line {trace.tb_lineno})"
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename:
        at = f" ({shown_file(error.filename)}, line {error.lineno})"
    return f"{what} failed: {one_line(error)}{at}."


def one_line(error: BaseException) -> str:
    """Return an exception's type and message in one line; a group of one is that one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        (error,) = error.exceptions
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _no_attribute(module: Any, names: str) -> str:
    apps = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.isclass(value) and _is_likely_app(value)
    ]
    there = f"; an app there is {', '.join(apps)}" if apps else ""
    where = f" ({module.__file__})" if getattr(module, "__file__", None) else ""
    return f"The module {module.__name__}{where} has no attribute {names}{there}."


def _takes_scope(value: Any) -> bool:
    """Return whether ``value`` can be called with ASGI's scope, receive and send."""
    if not callable(value) or inspect.ismodule(value):
        return False
    try:
        inspect.signature(value).bind({}, None, None)
    except (TypeError, ValueError):
        return False
    called = value if inspect.isroutine(value) else type(value).__call__
    return inspect.iscoroutinefunction(called)


def _is_likely_app(value: Any) -> bool:
    """Return whether ``value`` is an app to name: an endpoint may have three parameters too."""
    if not _takes_scope(value):
        return False
    return not inspect.isroutine(value) or "scope" in inspect.signature(value).parameters


def _made(factory: Any, path: str) -> Any:
    if not callable(factory):
        raise AppNotLoaded(f"{path} is no factory: {type(factory).__name__} can't be called.")
    try:
        made = factory()
    except (Exception, SystemExit) as error:
        raise AppNotLoaded(_failed(f"Calling {path}()", error)) from error
    if inspect.iscoroutine(made):
        made.close()
        raise AppNotLoaded(f"{path} is an async function; a factory has to be a plain one.")
    return _app(made, f"{path}()")


def _app(found: Any, path: str) -> Any:
    if not callable(found):
        raise AppNotLoaded(f"{path} is no ASGI app: {type(found).__name__} can't be called.")
    if inspect.isroutine(found) and not _takes_scope(found):
        with contextlib.suppress(TypeError, ValueError):
            inspect.signature(found).bind()
            raise AppNotLoaded(f"{path} is a function; if it makes the app, say so by --factory.")
        raise AppNotLoaded(f"{path} is no ASGI app: it does not take scope, receive and send.")
    return found


# ---------------------------------------------------------------- what is asked and answered


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to send: ``Ask("POST", "/orders", json={"sku": "tea"})``.

    ``path`` begins with a slash and may have a query. A body is ``json``, anything that the json
    module can write, or ``content``, text or bytes as they are.
    """

    method: str
    path: str
    json: Any = None
    content: str | bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (isinstance(self.method, str) and self.method.isalpha() and self.method.isupper()):
            raise ValueError(f"method is {self.method!r}; it must be one such as GET, in capitals")
        if not isinstance(self.path, str) or not self.path.startswith("/"):
            raise ValueError(f"path is {self.path!r}; it must be text that begins with /")
        if self.json is not None and self.content is not None:
            raise ValueError("json and content are both given; a request has one body")

    @property
    def name(self) -> str:
        """Method and path without the query, such as ``GET /orders``."""
        return f"{self.method} {self.path.partition('?')[0]}"

    @classmethod
    def of(cls, text: str) -> "Ask":
        """Return the request that ``"GET /orders"`` or ``"/orders"`` stands for.

        Raises ValueError when it is written otherwise.
        """
        method, _, path = text.strip().rpartition(" ")
        return cls(method.strip() or "GET", path)


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of one request; ``status`` is 0 and ``error`` says why where none was answered.

    ``began`` and ``seconds`` count from the recording's start and from the sending, in seconds.
    """

    name: str
    status: int
    began: float
    seconds: float
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was answered by a status below 400."""
        return 0 < self.status < 400


@dataclass(frozen=True, slots=True)
class HeldAt:
    """A step that held the loop. Times are seconds; ``began`` counts from the recording's start.

    ``place`` is the line of the learner's code that the loop mostly stood in meanwhile, ``callers``
    the places that led there, from the outside in, and ``inside`` a library's place below it. Where
    nobody of the learner's ran, ``place`` is the library's; None where the line was not seen.
    ``share`` is how much of the time it stood in that function, from 0 to 1, and ``others`` are
    further functions with their shares.
    """

    name: str
    began: float
    duration: float
    place: SourceLine | None
    callers: tuple[SourceLine, ...] = ()
    inside: SourceLine | None = None
    share: float = 0.0
    others: tuple[tuple[SourceLine, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Waits:
    """All waits of lanes called ``lane`` in ``name``; times in seconds."""

    name: str
    lane: str
    count: int
    total: float
    longest: float


@dataclass(frozen=True)
class AppReport:
    """What an x-ray of an app has found.

    ``peak_connections`` is how many TCP connections the app had open to others at once, such as a
    database's; ``peak_clients`` how many were open to it; ``peak_threads`` how many threads it had
    besides its loop's, by ``thread_names``. The first and the last were seen by looking, so that
    one which was there for less than some 50 ms may be missing.
    """

    title: str
    recording: Recording
    replies: tuple[Reply, ...]
    holds: tuple[HeldAt, ...]
    waits: tuple[Waits, ...]
    peak_connections: int
    peak_clients: int
    peak_threads: int
    thread_names: Mapping[str, int]
    left_behind: tuple[str, ...]
    """A sentence on each thing that was still there after the shutdown, or had failed unheard."""
    errors: tuple[str, ...]
    """What the app raised while it answered, each once."""
    stopped: bool
    """Whether the server's thread has ended; a blocking call may keep it."""
    versions: Mapping[str, str]

    @property
    def longest_hold(self) -> float:
        """How long the loop was held at most, in seconds, 0 where it was not."""
        return max((hold.duration for hold in self.holds), default=0.0)

    @property
    def failed(self) -> tuple[Reply, ...]:
        """Requests that got no answer, or a status of 400 and above."""
        return tuple(reply for reply in self.replies if not reply.ok)

    def page(self) -> str:
        """Return a page of HTML that needs no network and no other file."""
        from looplab.lab.app_page import page

        return page(self)

    def _repr_html_(self) -> str:
        from looplab.lab.app_page import fragment

        return fragment(self)

    def as_json(self) -> dict[str, Any]:
        """Return the report as what the json module can write; times in milliseconds."""
        from looplab.lab.app_page import as_json

        return as_json(self)

    def __repr__(self) -> str:
        return (
            f"<AppReport {self.title!r}: {len(self.replies)} requests, {len(self.holds)} holds, "
            f"the longest {1000 * self.longest_hold:.0f} ms>"
        )


# ---------------------------------------------------------------- the x-ray


async def xray_app(
    app: Any,
    requests: str | Ask | Iterable[str | Ask],
    *,
    at_once: int = 1,
    times: int | None = None,
    within: float = WITHIN,
    held: float = HELD,
    ours: Packages = (),
    warm_up: bool = True,
    title: str = "",
) -> AppReport:
    """Serve ``app`` on 127.0.0.1, send it requests and return what its loop did meanwhile.

    The app starts and stops once, with its lifespan. Tasks that it makes at its start are seen too.
    While it is recorded, another thread looks at what the loop's thread runs, some hundred times a
    second, and the garbage collector rests.

    Args:
        app: the ASGI app, of whatever framework.
        requests: ``"GET /orders"``, ``"/orders"`` for a GET, an :class:`Ask`, or several of these.
        at_once: how many requests are under way at once, at most.
        times: how often each is sent, in turn with the others; ``at_once`` unless given.
        within: seconds after which an answer is no longer waited for.
        held: how many seconds a step has to take to count as a hold.
        ours: packages that are installed as libraries are and whose code counts as the app's own,
            as for :func:`~looplab.lab.xray`.
        warm_up: whether GET, HEAD and OPTIONS are sent once before the recording, so that it does
            not show what happens in the first request only.
        title: what the report is called; the requests unless given.

    Raises:
        ServerDidNotStart: the app's startup failed, or took more than 30 seconds.
        ValueError: an argument is none of those allowed. TypeError: ``app`` can't be called.
    """
    __tracebackhide__ = True
    asks = asks_of(requests)
    _check(at_once=at_once, times=times, within=within, held=held)
    rounds = at_once if times is None else times
    places = places_of(ours)
    recorder = Recorder(everything=True, places=places)
    baseline = Baseline(asyncio.get_running_loop(), None)
    watch: _Watch | None = None
    sampler: StackSampler | None = None
    replies: list[Reply] = []
    start = end = perf_counter()
    left: list[str] = []
    server: LoopbackServer | None = None
    stopped = True
    with caught_leaks() as failures, contextlib.ExitStack() as quiet:
        try:
            async with (
                served(app, {}, prepare=partial(attach, recorder)) as server,
                _client(server, at_once) as client,
            ):
                quiet.callback(_unlogged(server.url))
                if warm_up:
                    for ask in {repr(ask): ask for ask in asks}.values():  # a body may be anything
                        if ask.method in SAFE:
                            await _sent(client, ask, within, perf_counter())
                    await _none_running(server, min(within, AFTERWARDS))
                watch = _Watch(baseline, server)
                sampler = StackSampler(
                    server.thread,
                    interval=min(max(held / 4, ms(1)), ms(20)),
                    is_ours=recorder.is_ours,
                    look=watch.look,
                )
                with gc_at_rest(), sampler:
                    start = perf_counter()
                    await _all_sent(client, asks * rounds, at_once, within, start, replies)
                    end = perf_counter()
                    await _none_running(server, min(within, AFTERWARDS))
                    _end(recorder, server)
        except ServerDidNotStart:
            raise
        except ServerDidNotStop:
            stopped = False
        except Exception as error:
            if server is None or not replies:
                raise
            left.append(f"the app's shutdown failed: {one_line(error)}")
        collect_garbage()
        await settle_down(baseline)
        left.extend(thing.sentence for thing in baseline.still_open())
    assert server is not None
    assert watch is not None
    assert sampler is not None
    recording = _recording(recorder, title or _titled(asks, rounds), start, end, held)
    return AppReport(
        title=recording.title,
        recording=recording,
        replies=tuple(sorted(replies, key=lambda reply: reply.began)),
        holds=tuple(_holds(recording, sampler)),
        waits=tuple(_waits(recording)),
        peak_connections=watch.connections,
        peak_clients=server.most_connections,
        peak_threads=watch.threads,
        thread_names=watch.names,
        left_behind=tuple(dict.fromkeys([*server.left_behind, *left, *failures.sentences])),
        errors=tuple(dict.fromkeys(map(one_line, server.errors))),
        stopped=stopped,
        versions=_versions(),
    )


def asks_of(requests: str | Ask | Iterable[str | Ask]) -> list[Ask]:
    """Return requests as a list of :class:`Ask`; one may stand alone.

    Raises ValueError when there is none, or when one is written otherwise.
    """
    listed = [requests] if isinstance(requests, str | Ask) else list(requests)
    if not listed:
        raise ValueError("requests is empty; give at least one, such as 'GET /orders'")
    asks = []
    for one in listed:
        if not isinstance(one, str | Ask):
            raise ValueError(f"requests has {one!r}; each is text such as 'GET /orders', or an Ask")
        asks.append(Ask.of(one) if isinstance(one, str) else one)
    return asks


def _check(*, at_once: Any, times: Any, within: Any, held: Any) -> None:
    for name, number in (("at_once", at_once), ("times", 1 if times is None else times)):
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(f"{name} is {number!r}; it must be a whole number from 1 on")
    for name, number in (("within", within), ("held", held)):
        if not (isinstance(number, int | float) and math.isfinite(number) and number > 0):
            raise ValueError(f"{name} is {number!r}; it must be a number above 0, in seconds")


def _client(server: LoopbackServer, at_once: int) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    return server.client(timeout=None, limits=limits)


def _unlogged(url: str) -> Callable[[], None]:
    """Keep the client's own requests out of an app's log; return what undoes that.

    The app may have turned httpx's log on, for the requests that it sends itself.
    """

    def others(record: logging.LogRecord) -> bool:
        return url not in record.getMessage()

    logger = logging.getLogger("httpx")
    logger.addFilter(others)
    return partial(logger.removeFilter, others)


async def _all_sent(
    client: httpx.AsyncClient,
    asks: Sequence[Ask],
    at_once: int,
    within: float,
    start: float,
    replies: list[Reply],
) -> None:
    waiting = iter(asks)

    async def one_after_another() -> None:
        for ask in waiting:
            replies.append(await _sent(client, ask, within, start))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(at_once, len(asks))):
            group.create_task(one_after_another())


async def _sent(client: httpx.AsyncClient, ask: Ask, within: float, start: float) -> Reply:
    body: dict[str, Any] = {}
    if ask.json is not None:
        body["json"] = ask.json
    elif ask.content is not None:
        body["content"] = ask.content
    began = perf_counter()
    status, error = NO_ANSWER, ""
    try:
        async with asyncio.timeout(within):
            response = await client.request(ask.method, ask.path, headers=dict(ask.headers), **body)
            status = response.status_code
    except TimeoutError:
        error = f"no answer within {within:g} s"
    except httpx.HTTPError as failure:
        error = one_line(failure)
    return Reply(ask.name, status, began - start, perf_counter() - began, error)


async def _none_running(server: LoopbackServer, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while server.running_requests:  # noqa: ASYNC110 - it is another loop's affair
                await asyncio.sleep(ms(5))


def _end(recorder: Recorder, server: LoopbackServer) -> None:
    """End the recording on the server's loop, or from here where that is held."""
    try:
        on_loop(server.loop, lambda: detach(recorder, server.loop), wait=RESPONSIVE)
    except TimeoutError:
        recorder.note_running(server.thread)
        recorder.stop()


class _Watch:
    """Counts threads and connections that came since the baseline, whenever it looks."""

    def __init__(self, baseline: Baseline, server: LoopbackServer) -> None:
        self.connections = 0
        self.threads = 0
        self.names: dict[str, int] = {}
        self._threads = baseline.threads
        self._pairs = {(local, remote) for local, remote, _ in baseline.sockets}
        self._server = server
        self._next = 0.0

    def look(self) -> None:
        """Look at the threads, and now and then at the connections, which takes longer."""
        self._look_at_threads()
        now = perf_counter()
        if now >= self._next:
            self._look_at_connections()
            took = perf_counter() - now
            self._next = now + max(0.05, 50 * took)

    def _look_at_threads(self) -> None:
        if threading.active_count() <= self.threads:
            return
        others = {threading.get_ident(), self._server.thread}
        names = [
            _THREAD_NUMBER.sub("", one.name).strip("() ")
            for one in threading.enumerate()
            if one.ident not in others and one not in self._threads
        ]
        if len(names) > self.threads:
            self.threads, self.names = len(names), dict(Counter(names))

    def _look_at_connections(self) -> None:
        with contextlib.suppress(psutil.Error, OSError):
            own = f":{self._server.port}"
            there = sum(
                status == psutil.CONN_ESTABLISHED
                and not (local.endswith(own) or remote.endswith(own))
                and (local, remote) not in self._pairs
                for local, remote, status in sockets_in_use()
            )
            self.connections = max(self.connections, there)


# ---------------------------------------------------------------- what came of it


def _recording(recorder: Recorder, title: str, start: float, end: float, held: float) -> Recording:
    kept = [
        trace
        for trace in recorder.traces
        if trace.begin_at(start) and (len(trace.steps) > 1 or trace.qualified != "LifespanOn.main")
    ]
    return Recording(kept, title=title, start=start, end=end, held=held)


def _titled(asks: Sequence[Ask], rounds: int) -> str:
    names = list(dict.fromkeys(ask.name for ask in asks))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}" + (f" × {rounds}" if rounds > 1 else "")


def _holds(recording: Recording, sampler: StackSampler) -> Iterable[HeldAt]:
    for hold in recording.holds:
        began, ended = recording.start + hold.began, recording.start + hold.ended
        seen = [
            (stack, place, share)
            for stack, share in sampler.between(began, ended)
            if (place := stack.innermost) is not None
        ]
        if not seen:
            yield HeldAt(hold.name, hold.began, hold.duration, None)
            continue
        (stack, place, share), *others = seen
        yield HeldAt(
            hold.name,
            hold.began,
            hold.duration,
            place,
            callers=stack.callers,
            inside=stack.inside if stack.ours else None,
            share=share,
            others=tuple((place, share) for _, place, share in others),
        )


def _waits(recording: Recording) -> list[Waits]:
    found: dict[tuple[str, str], list[float]] = {}
    for lane in recording.tasks:
        for name, spans in lane.waits.items():
            lengths = found.setdefault((name, lane.name), [])
            lengths.extend(max(ended - began, 0.0) for began, ended in spans)
    listed = [
        Waits(name, lane, len(spans), sum(spans), max(spans))
        for (name, lane), spans in found.items()
        if spans
    ]
    requests = {lane.name for lane in recording.tasks if lane.request}
    return sorted(listed, key=lambda one: (one.lane not in requests, -one.total))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in NAMED_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
