"""Ways to call an app: in this process, and over a real socket on this machine."""

import asyncio
import contextlib
import importlib
import os
import ssl
import threading
import traceback
import urllib.request
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.lowlevel
import anyio.streams.tls
import httpx
import uvicorn

from looplab.lab.announce import announced
from looplab.lab.background import AnswersFirst
from looplab.lab.errors import LessonError
from looplab.lab.lane_names import without_ids
from looplab.lab.lifespan import LifespanRun, has_lifespan
from looplab.lab.still_open import sentence_on

if TYPE_CHECKING:
    from websockets.asyncio.client import connect

ASGIApp = Callable[..., Awaitable[None]]
T = TypeVar("T")

IN_PROCESS_URL = "http://shop.test"
HOST = "127.0.0.1"
GRACEFUL = 1.0  # seconds that running requests get when a loopback server stops
LIFESPAN_STARTUP = 30.0  # seconds that an app's startup gets
STARTUP_CANCELLED = 1.0  # seconds that a start gets to end by itself once nobody wants it
LIFESPAN_SHUTDOWN = 5.0  # seconds that an app's shutdown gets, on a server after those requests
WEBSOCKET_CLOSE = 2.0  # seconds that a server gets to answer when a WebSocket client closes
ACCEPTED_WITHIN = 2  # rounds of a loop: one makes a connection's transport, one its protocol
TURNS = 5  # of a loop, in which what has been cancelled ends
FORCED = 5.0  # seconds that cancelled tasks and busy threads get before serve() gives up


class LifespanNotRun(LessonError):
    """An app with a lifespan of its own was called without it."""


class LifespanTooLong(LessonError, TimeoutError):
    """An app's startup or shutdown did not end in its time, and was cancelled."""


class ServerDidNotStart(LessonError):
    """A loopback server could not start; the cause is chained."""


class ServerDidNotStop(LessonError):
    """A loopback server's thread is busy still, though it was told to stop and cancelled."""


# ---------------------------------------------------------------- in this process


def _client_in_process(app: ASGIApp, *, raise_errors: bool = True) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=announced(app), raise_app_exceptions=raise_errors),
        base_url=IN_PROCESS_URL,
        trust_env=False,
    )


@contextlib.asynccontextmanager
async def in_process(
    app: ASGIApp,
    *,
    lifespan: bool = True,
    raise_errors: bool = True,
    wait_for_background: bool = True,
) -> AsyncGenerator[httpx.AsyncClient]:
    """Yield a client that calls ``app`` in this process, with the app's lifespan run around it.

    The transport is httpx's ASGITransport. It buffers each response, enforces no timeout or
    connection limit, never reports a disconnect, speaks no WebSocket, and raises the app's
    exceptions in the caller. Use :func:`serve` where one of these matters.

    It also returns a response only when the app's call has ended, so that background tasks look
    like waiting: a client on a server has had its answer by then.

    Args:
        app: the ASGI app.
        lifespan: whether its lifespan is run. An app that has none is called without.
        raise_errors: whether the app's exceptions are raised in the caller; if not, they become the
            500 that a server would answer.
        wait_for_background: whether a response waits for the app's background tasks. If not, it is
            returned when it's complete, as on a server; each call then runs in a task of its own.
            What is still going on is awaited when the block ends, before the shutdown, and raises
            what it raised, more than one error as an ExceptionGroup.

    Raises:
        LifespanTooLong: the startup took longer than 30 seconds, or the shutdown than 5.
        Exception: what the app's startup or shutdown raises. The shutdown runs also when the block
            fails. An app that was shut down before may not start again, or not work: what it raises
            then carries a note that says so.
    """
    _require_app(app)
    async with contextlib.AsyncExitStack() as stack:
        if lifespan:
            app = await stack.enter_async_context(_running_lifespan(app))
        if not wait_for_background:
            app = await stack.enter_async_context(AnswersFirst(app, raise_errors=raise_errors))
        yield await stack.enter_async_context(_client_in_process(app, raise_errors=raise_errors))


@contextlib.asynccontextmanager
async def _running_lifespan(app: ASGIApp) -> AsyncGenerator[ASGIApp]:
    """Run the lifespan of ``app`` around the block; yields the app to call, with its state."""
    from asgi_lifespan import LifespanManager, LifespanNotSupported

    run = LifespanRun(app)
    manager = LifespanManager(_with_state_of_its_own(run), LIFESPAN_STARTUP, LIFESPAN_SHUTDOWN)
    try:
        await manager.__aenter__()
    except LifespanNotSupported:
        if run.refused and run.failure is not None:
            raise run.failure from None
        yield run
        return
    except TimeoutError as error:
        _explain_lateness(error, run, "startup", LIFESPAN_STARTUP)
        raise
    try:
        yield manager.app
    finally:
        try:
            # Told of an error, it would cancel the app's lifespan instead of shutting it down.
            await manager.__aexit__(None, None, None)
        except TimeoutError as error:
            _explain_lateness(error, run, "shutdown", LIFESPAN_SHUTDOWN)
            raise


def _explain_lateness(error: TimeoutError, run: LifespanRun, phase: str, seconds: float) -> None:
    """Raise LifespanTooLong, which has a message, unless ``error`` is the app's own."""
    if error is not run.failure:
        raise LifespanTooLong(
            f"The app's {phase} did not end within {seconds:g} s, and was cancelled.{run.hint}"
        ) from None


def _with_state_of_its_own(app: ASGIApp) -> ASGIApp:
    """Give each request a copy of the lifespan's state, as the ASGI specification has it.

    asgi-lifespan 2.1 hands the same dict to all, so that what one request sets in `request.state`
    is read by the others. Source: https://asgi.readthedocs.io/en/latest/specs/lifespan.html
    """

    async def own_state(scope: MutableMapping[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] != "lifespan":
            scope["state"] = dict(scope["state"])
        await app(scope, receive, send)

    return own_state


def get(
    app: ASGIApp,
    path: str,
    *,
    lifespan: bool | None = None,
    raise_errors: bool = True,
    **options: Any,
) -> Coroutine[Any, Any, httpx.Response]:
    """Return a coroutine that answers one GET in this process and returns the httpx.Response.

    It runs in the caller's task. Its name is the method and the path without ids or query, such as
    ``GET /dashboard``, so that an x-ray names the lane by it. Its limits are those of
    :func:`in_process`: among them, it returns only when the app's background tasks have ended.

    Args:
        app: the ASGI app.
        path: what to ask for; it begins with a slash.
        lifespan: an app's startup and shutdown are no part of a request, so they are not run, and
            an app that has a lifespan of its own is refused: call it within ``in_process(app)``.
            False calls it all the same, without; True runs the lifespan around this one request.
        raise_errors: whether the app's exceptions are raised here; if not, they become the 500 that
            a server would answer.
        **options: those of ``httpx.AsyncClient.get``: ``params``, ``headers`` and so on.

    Raises:
        LifespanNotRun: ``app`` has a lifespan of its own, and ``lifespan`` was not given. It is
            known of FastAPI and Starlette apps, also inside middleware that keeps them as ``.app``.
        ValueError: ``path`` does not begin with a slash.
        TypeError: ``app`` can't be called.
    """
    return _named_request(app, "GET", path, lifespan, raise_errors, options)


def post(
    app: ASGIApp,
    path: str,
    *,
    lifespan: bool | None = None,
    raise_errors: bool = True,
    **options: Any,
) -> Coroutine[Any, Any, httpx.Response]:
    """Return a coroutine that answers one POST in this process; see :func:`get`.

    ``options`` are those of ``httpx.AsyncClient.post``: ``json``, ``content``, ``data`` and so on.
    """
    return _named_request(app, "POST", path, lifespan, raise_errors, options)


def _named_request(
    app: ASGIApp,
    method: str,
    path: str,
    lifespan: bool | None,
    raise_errors: bool,
    options: dict[str, Any],
) -> Coroutine[Any, Any, httpx.Response]:
    _require_app(app)
    _require_path(path)
    if lifespan is None and has_lifespan(app):
        raise LifespanNotRun(
            f"{method.lower()}() runs no lifespan, and this app has one. Call the app within "
            f"`async with in_process(app) as client:` by `await client.{method.lower()}({path!r})`,"
            " which runs it, or pass lifespan=False to go without."
        )

    async def request() -> httpx.Response:
        call = in_process if lifespan else _client_in_process
        async with call(app, raise_errors=raise_errors) as client:
            return await client.request(method, path, **options)

    coroutine = request()
    coroutine.__name__ = coroutine.__qualname__ = f"{method} {without_ids(path)}"
    return coroutine


def reach_loopback_directly() -> None:
    """Let httpx clients of a learner's own reach 127.0.0.1 without the proxies of this machine.

    Adds the address to ``no_proxy`` where the environment names a proxy; does nothing elsewhere.
    """
    proxies = urllib.request.getproxies_environment()
    spared = proxies.get("no", "")
    if proxies.keys() - {"no"} and HOST not in spared.replace(" ", "").split(","):
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = f"{spared},{HOST}".lstrip(",")


def _require_app(app: object) -> None:
    if not callable(app):
        raise TypeError(f"app is {app!r}; it must be an ASGI app, such as FastAPI()")


def _require_path(path: object) -> None:
    if not isinstance(path, str) or not path.startswith("/"):
        raise ValueError(f"path is {path!r}; it must be text that begins with /")


# ---------------------------------------------------------------- over a socket


class _Server(uvicorn.Server):
    """A uvicorn server that says when it has started and stops as soon as it is told to."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell_started = started
        self._stop = asyncio.Event()
        self.accepted = 0
        self.most_open = 0

    async def startup(self, sockets: Any = None) -> None:
        server = self
        protocol: Any = self.config.http_protocol_class

        class Counted(protocol):
            def connection_made(self, transport: Any) -> None:
                server.accepted += 1
                super().connection_made(transport)
                server.most_open = max(server.most_open, len(server.server_state.connections))

        self.config.http_protocol_class = Counted
        await super().startup(sockets)
        if self.started:
            self._tell_started()

    async def main_loop(self) -> None:
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self._stop.wait()

    async def shutdown(self, sockets: Any = None) -> None:
        """Shut down once every accepted connection has its protocol, and no other is accepted.

        asyncio drops a connection, unclosed, whose server closes in between: CPython issue 109564.
        """
        loop = asyncio.get_running_loop()
        for server in self.servers:
            for listening in server.sockets:
                with contextlib.suppress(NotImplementedError):  # Windows accepts without readers
                    loop.remove_reader(listening.fileno())
        for _ in range(ACCEPTED_WITHIN):
            await asyncio.sleep(0)
        await super().shutdown(sockets)

    def stop(self) -> None:
        self.should_exit = True
        self._stop.set()

    def close_sockets(self) -> None:
        """Close what a cancelled shutdown has left open."""
        for server in getattr(self, "servers", ()):
            server.close()
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()


class LoopbackServer:
    """A real uvicorn server on 127.0.0.1, in a thread with a loop of its own.

    ``port`` is the port that the system picked; ``errors`` the exceptions that the app has raised
    while it answered, in order. ``left_behind`` has a sentence on each task that was still pending
    when the app had shut down; they are cancelled then.
    """

    def __init__(
        self,
        app: ASGIApp,
        options: dict[str, Any],
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        self.port = 0
        self.errors: list[Exception] = []
        self.left_behind: list[str] = []
        self._lifespan = LifespanRun(app)
        self._app = announced(self._lifespan)
        self._config = uvicorn.Config(
            self._observed, host=HOST, port=0, interface="asgi3", **options
        )
        self._prepare = prepare
        self._lifespan_error: BaseException | None = None
        self._failure: BaseException | None = None
        self._server: _Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._unwanted = threading.Event()
        self._caller = asyncio.get_running_loop()
        self._started: asyncio.Future[bool] = self._caller.create_future()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="loopback server", daemon=True)

    def __repr__(self) -> str:
        return f"<LoopbackServer {self.url}, {self.open_connections} open connections>"

    @property
    def url(self) -> str:
        """The address to call, such as ``http://127.0.0.1:40123``."""
        return f"http://{HOST}:{self.port}"

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The server's own event loop, which runs in the server's thread."""
        if self._loop is None:
            raise RuntimeError("the server's loop has not started")
        return self._loop

    @property
    def thread(self) -> int:
        """The identifier of the thread that the server's loop runs in."""
        return self._thread.ident or 0

    @property
    def connections(self) -> int:
        """How many TCP connections the server has accepted so far, those of WebSockets too."""
        return self._server.accepted if self._server else 0

    @property
    def open_connections(self) -> int:
        """How many of them are open now."""
        return len(self._server.server_state.connections) if self._server else 0

    @property
    def most_connections(self) -> int:
        """How many of them were open at once, at most."""
        return self._server.most_open if self._server else 0

    @property
    def running_requests(self) -> int:
        """How many requests the app works on now, those whose client has left among them."""
        return len(self._server.server_state.tasks) if self._server else 0

    def client(self, **options: Any) -> httpx.AsyncClient:
        """Return an ``httpx.AsyncClient`` bound to this server; close it, best by ``async with``.

        Proxies in the environment are not used. The address is plain http, so unless ``options``
        bring a ``verify``, no certificates are loaded: that takes tens of milliseconds.
        """
        options.setdefault("base_url", self.url)
        options.setdefault("trust_env", False)
        options.setdefault("verify", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return httpx.AsyncClient(**options)

    def websocket(self, path: str, **options: Any) -> "connect":
        """Return a WebSocket client of this server, to be opened by ``async with``.

        ``async with server.websocket("/path") as socket`` yields the ``ClientConnection`` of
        the websockets library: ``await socket.send(text_or_bytes)``, ``await socket.recv()``,
        ``async for message in socket``. Leaving the block closes it, with 2 seconds for the server
        to answer; then the connection is dropped. Proxies in the environment are not used.

        ``options`` are those of ``websockets.asyncio.client.connect``: ``subprotocols``,
        ``additional_headers``, ``close_timeout`` and so on. The client sends no pings of its own
        unless they say else; it answers the server's.

        Raises ValueError when ``path`` does not begin with a slash. Entering the block raises
        ``websockets.exceptions.InvalidStatus`` when the app refuses (403 where it closes before it
        accepts) and TimeoutError when it does neither within ``open_timeout`` (10 seconds);
        receiving raises ``ConnectionClosed``, with the code, once the connection is closed.
        """
        from websockets.asyncio.client import connect

        _require_path(path)
        options.setdefault("proxy", None)
        options.setdefault("close_timeout", WEBSOCKET_CLOSE)
        options.setdefault("ping_interval", None)
        # With host and port given, websockets follows no redirect away from this server.
        return connect(f"ws://{HOST}:{self.port}{path}", host=HOST, port=self.port, **options)

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Await ``function()`` on the server's loop and return its result, or raise its error.

        Cancelling the caller cancels it there.
        """

        async def call() -> T:
            return await function()

        coroutine = call()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        except RuntimeError:
            coroutine.close()
            raise
        return await asyncio.wrap_future(future)

    # -- the server's thread

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_loop_factory(self._config)) as runner:
                runner.run(self._serve())
        except asyncio.CancelledError:
            pass  # stopped by force
        except BaseException as error:
            self._failure = error
        finally:
            with contextlib.suppress(RuntimeError):  # the caller's loop is closed
                self._caller.call_soon_threadsafe(self._has_ended)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        if self._unwanted.is_set():
            return
        self._prepare()
        self._server = _Server(self._config, self._has_bound)
        try:
            await self._server.serve()
            await self._note_tasks()
        except SystemExit as error:  # how uvicorn ends when a start fails
            self._failure = error
        finally:
            self._server.close_sockets()

    async def _note_tasks(self) -> None:
        for _ in range(TURNS):  # what has been cancelled needs them to end
            await asyncio.sleep(0)
        pending = asyncio.all_tasks() - {asyncio.current_task()}
        self.left_behind.extend(sorted(map(sentence_on, pending)))

    def _has_bound(self) -> None:
        if self._server is not None:
            self.port = self._server.servers[0].sockets[0].getsockname()[1]
            self._caller.call_soon_threadsafe(self._has_started, True)

    async def _observed(
        self, scope: MutableMapping[str, Any], receive: Callable, send: Callable
    ) -> None:
        try:
            await self._app(scope, receive, send)
        except BaseException as error:
            if scope["type"] == "lifespan":
                self._lifespan_error = error
            elif isinstance(error, Exception):
                traceback.clear_frames(error.__traceback__)
                self.errors.append(error)
            raise

    # -- the caller

    def _has_started(self, started: bool) -> None:
        if not self._started.done():
            self._started.set_result(started)

    def _has_ended(self) -> None:
        self._has_started(False)
        self._ended.set()

    async def _start(self) -> None:
        self._thread.start()
        try:
            async with asyncio.timeout(LIFESPAN_STARTUP):
                started = await self._started
        except TimeoutError:
            raise ServerDidNotStart(
                f"The app's startup did not end within {LIFESPAN_STARTUP:g} s.{self._lifespan.hint}"
            ) from None
        if not started or self._lifespan.refused:
            cause = self._lifespan_error or self._failure
            told = f"{cause!r}" if cause else self._lifespan.refusal or "the app did not say why"
            message = f"The server did not start: {told}.{self._lifespan.hint}"
            raise ServerDidNotStart(message) from cause
        self._lifespan_error = None  # an app without a lifespan fails here, and may

    async def _stop(self) -> None:
        """Stop the thread: gracefully, then by force; the caller's cancellation hastens it."""
        cancelled: asyncio.CancelledError | None = None
        self._unwanted.set()
        up = self._started.done() and not self._started.cancelled()
        running = (self._config.timeout_graceful_shutdown or 0) + LIFESPAN_SHUTDOWN
        graceful = running if up else STARTUP_CANCELLED
        for seconds, stop in ((graceful, self._shut_down), (FORCED, self._cancel)):
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # that loop is closed already
                    self._loop.call_soon_threadsafe(stop)
            try:
                async with asyncio.timeout(seconds):
                    await self._ended.wait()
            except TimeoutError:
                continue
            except asyncio.CancelledError as error:
                cancelled = error
                continue
            break
        if not self._ended.is_set():
            raise ServerDidNotStop(
                f"The server at {self.url} did not stop: something in the app blocks its thread."
            )
        self._thread.join()
        if cancelled is not None:
            raise cancelled

    def _shut_down(self) -> None:
        if self._server is not None:
            self._server.stop()

    def _cancel(self) -> None:
        if self._main is not None:
            self._main.cancel()


def _loop_factory(config: uvicorn.Config) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the loop that uvicorn would run on; None stands for asyncio's default.

    Before 0.36 uvicorn made its loop by a policy, which is the whole process's.
    """
    get_factory = getattr(config, "get_loop_factory", None)
    if get_factory is not None:
        return get_factory()
    if config.loop in ("auto", "uvloop"):
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module("uvloop").new_event_loop
    return None


def _websocket_protocol() -> str:
    """Return the websockets library's, where it and uvicorn have it: "websockets" is deprecated."""
    try:
        importlib.import_module("uvicorn.protocols.websockets.websockets_sansio_impl")
    except ImportError:
        return "auto"
    return "websockets-sansio"


@contextlib.asynccontextmanager
async def serve(app: ASGIApp, **options: Any) -> AsyncGenerator[LoopbackServer]:
    """Serve ``app`` with uvicorn on 127.0.0.1, on a port that the system picks; yields the server.

    The server runs in a thread with its own event loop and installs no signal handlers. ``options``
    are those of ``uvicorn.Config``; ``host`` and ``port`` are fixed. uvicorn logs nothing below
    critical unless ``log_level`` says else; errors that the app raises are kept in ``.errors``.
    Its loop is asyncio's own, also beside an installed uvloop, unless ``loop`` says else. It speaks
    WebSocket (by the websockets library) unless ``ws`` says else.

    When the block ends, however it ends, the server stops: WebSockets are closed with code 1012,
    running requests get ``timeout_graceful_shutdown`` seconds (1 unless given), then they are
    cancelled. The thread has ended when the block is left.

    Raises ServerDidNotStart when the app's startup fails (its error is the cause) or takes longer
    than 30 seconds, what the app's shutdown raises, and ServerDidNotStop when a blocking call keeps
    the thread busy beyond the deadlines; the thread is then left behind, because Python cannot end
    it. An app that was shut down before may not start again: the message says so. If it starts but
    no longer works, it answers 500, and the errors in ``.errors`` carry a note that says so.
    """
    async with served(app, options) as server:
        yield server


@contextlib.asynccontextmanager
async def served(
    app: ASGIApp, options: dict[str, Any], *, prepare: Callable[[], object] = lambda: None
) -> AsyncGenerator[LoopbackServer]:
    """Serve as :func:`serve` does; ``prepare`` is called on its loop before the app starts.

    Raises what :func:`serve` raises.
    """
    _require_app(app)
    # AnyIO loads its backend, and what httpx opens connections by, when it is first used: tens of
    # milliseconds that an x-ray of the first request would show as the lesson's own work.
    await anyio.lowlevel.checkpoint()
    for fixed in ("host", "port", "uds", "fd", "interface", "workers", "reload", "factory"):
        if fixed in options:
            raise ValueError(f"{fixed} is {options[fixed]!r}; serve() does not take it")
    options.setdefault("log_config", None)
    options.setdefault("log_level", "critical")
    options.setdefault("access_log", False)
    options.setdefault("loop", "asyncio")  # "auto" takes an installed uvloop: it sends later
    options.setdefault("ws", _websocket_protocol())
    options.setdefault("timeout_graceful_shutdown", GRACEFUL)
    server = LoopbackServer(app, options, prepare)
    try:
        await server._start()
        yield server
    finally:
        await server._stop()
    if isinstance(server._lifespan_error, Exception):
        raise server._lifespan_error
