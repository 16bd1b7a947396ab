"""Ways to call an app: in this process, and over a real socket on this machine."""

import asyncio
import contextlib
import os
import ssl
import threading
import traceback
import urllib.request
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

import httpx
import uvicorn
from asgi_lifespan import LifespanManager

from support.lab.announce import announced
from support.lab.errors import LessonError
from support.lab.lane_names import without_ids

ASGIApp = Callable[..., Awaitable[None]]
T = TypeVar("T")

IN_PROCESS_URL = "http://shop.test"
HOST = "127.0.0.1"
GRACEFUL = 1.0  # seconds that running requests get when a loopback server stops
STARTUP_CANCELLED = 1.0  # seconds that a start gets to end by itself once nobody wants it
LIFESPAN_SHUTDOWN = 5.0  # seconds that an app's shutdown gets after that
ACCEPTED_WITHIN = 2  # rounds of a loop: one makes a connection's transport, one its protocol
FORCED = 5.0  # seconds that cancelled tasks and busy threads get before serve() gives up


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
    app: ASGIApp, *, lifespan: bool = True, raise_errors: bool = True
) -> AsyncGenerator[httpx.AsyncClient]:
    """Yield a client that calls ``app`` in this process, with the app's lifespan run around it.

    The transport is httpx's ASGITransport: it buffers each response, enforces no timeout or
    connection limit, never reports a disconnect, and raises the app's exceptions in the caller;
    without ``raise_errors`` they become the 500 that a server would answer. Use :func:`serve` where
    one of these matters.

    Raises what the app's startup or shutdown raises. The shutdown runs also when the block fails.
    """
    _require_app(app)
    if not lifespan:
        async with _client_in_process(app, raise_errors=raise_errors) as client:
            yield client
        return
    manager = LifespanManager(_with_state_of_its_own(app))
    await manager.__aenter__()
    try:
        async with _client_in_process(manager.app, raise_errors=raise_errors) as client:
            yield client
    finally:
        # Told of an error, the manager would cancel the app's lifespan instead of shutting it down.
        await manager.__aexit__(None, None, None)


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


def get(app: ASGIApp, path: str, **options: Any) -> Coroutine[Any, Any, httpx.Response]:
    """Return a coroutine that answers one GET in this process and returns the httpx.Response.

    It runs in the caller's task and does not run the app's lifespan. Its name is the method and the
    path without ids or query, such as ``GET /dashboard``, so that an x-ray names the lane by it.
    ``options`` are those of ``httpx.AsyncClient.get``: ``params``, ``headers`` and so on.
    """
    return _named_request(app, "GET", path, options)


def post(app: ASGIApp, path: str, **options: Any) -> Coroutine[Any, Any, httpx.Response]:
    """Return a coroutine that answers one POST in this process; see :func:`get`.

    ``options`` are those of ``httpx.AsyncClient.post``: ``json``, ``content``, ``data`` and so on.
    """
    return _named_request(app, "POST", path, options)


def _named_request(
    app: ASGIApp, method: str, path: str, options: dict[str, Any]
) -> Coroutine[Any, Any, httpx.Response]:
    _require_app(app)
    if not isinstance(path, str) or not path.startswith("/"):
        raise ValueError(f"path is {path!r}; it must be text that begins with /")

    async def request() -> httpx.Response:
        async with _client_in_process(app) as client:
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


# ---------------------------------------------------------------- over a socket


class _Server(uvicorn.Server):
    """A uvicorn server that says when it has started and stops as soon as it is told to."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell_started = started
        self._stop = asyncio.Event()
        self.accepted = 0

    async def startup(self, sockets: Any = None) -> None:
        server = self
        protocol: Any = self.config.http_protocol_class

        class Counted(protocol):
            def connection_made(self, transport: Any) -> None:
                server.accepted += 1
                super().connection_made(transport)

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
    while it answered, in order.
    """

    def __init__(self, app: ASGIApp, options: dict[str, Any]) -> None:
        self.port = 0
        self.errors: list[Exception] = []
        self._app = announced(app)
        self._config = uvicorn.Config(
            self._observed, host=HOST, port=0, interface="asgi3", **options
        )
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
    def connections(self) -> int:
        """How many TCP connections the server has accepted so far."""
        return self._server.accepted if self._server else 0

    @property
    def open_connections(self) -> int:
        """How many of them are open now."""
        return len(self._server.server_state.connections) if self._server else 0

    def client(self, **options: Any) -> httpx.AsyncClient:
        """Return an ``httpx.AsyncClient`` bound to this server; close it, best by ``async with``.

        Proxies in the environment are not used. The address is plain http, so unless ``options``
        bring a ``verify``, no certificates are loaded: that takes tens of milliseconds.
        """
        options.setdefault("base_url", self.url)
        options.setdefault("trust_env", False)
        options.setdefault("verify", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return httpx.AsyncClient(**options)

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
            with asyncio.Runner(loop_factory=self._config.get_loop_factory()) as runner:
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
        self._server = _Server(self._config, self._has_bound)
        try:
            await self._server.serve()
        except SystemExit as error:  # how uvicorn ends when a start fails
            self._failure = error
        finally:
            self._server.close_sockets()

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
        if not await self._started:
            cause = self._lifespan_error or self._failure
            raise ServerDidNotStart(f"The server did not start: {cause!r}.") from cause
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


@contextlib.asynccontextmanager
async def serve(app: ASGIApp, **options: Any) -> AsyncGenerator[LoopbackServer]:
    """Serve ``app`` with uvicorn on 127.0.0.1, on a port that the system picks; yields the server.

    The server runs in a thread with its own event loop and installs no signal handlers. ``options``
    are those of ``uvicorn.Config``; ``host`` and ``port`` are fixed. uvicorn logs nothing below
    critical unless ``log_level`` says else; errors that the app raises are kept in ``.errors``.

    When the block ends, however it ends, the server stops: running requests get
    ``timeout_graceful_shutdown`` seconds (1 unless given), then they are cancelled. The thread has
    ended when the block is left.

    Raises ServerDidNotStart when the app's startup fails (its error is the cause), what the app's
    shutdown raises, and ServerDidNotStop when a blocking call keeps the thread busy beyond the
    deadlines; the thread is then left behind, because Python cannot end it.
    """
    _require_app(app)
    for fixed in ("host", "port", "uds", "fd", "interface", "workers", "reload", "factory"):
        if fixed in options:
            raise ValueError(f"{fixed} is {options[fixed]!r}; serve() does not take it")
    options.setdefault("log_config", None)
    options.setdefault("log_level", "critical")
    options.setdefault("access_log", False)
    options.setdefault("timeout_graceful_shutdown", GRACEFUL)
    server = LoopbackServer(app, options)
    try:
        await server._start()
        yield server
    finally:
        await server._stop()
    if isinstance(server._lifespan_error, Exception):
        raise server._lifespan_error
