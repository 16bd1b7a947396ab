"""The exercise of lesson 10: a middleware in pure ASGI that gives each request an id.

The check wraps the learner's class around a Starlette app and around bare ASGI apps, and speaks
ASGI with the result: no server, no client, and a websocket like any other connection. Each receive
and send suspends, and no receive is answered for ever.
"""

import asyncio
import functools
import inspect
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import uuid4

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from looplab.exercises.checking import check
from looplab.exercises.error_text import holds, tell
from looplab.exercises.sandbox import Ran, Sandbox, blame, require_awaitable
from looplab.exercises.verdicts import Exercise, Mistake, Verdict, Wrong, wrong
from looplab.lab.silent_failures import let_go
from looplab.lab.units import ms

Message = MutableMapping[str, Any]
ASGIApp = Callable[..., Awaitable[Any]]

HEADER = b"x-request-id"
CALLERS = "caller-7"
LONGEST = 128  # characters of a caller's id
SHORTEST = 11  # characters of a new id; those have 64 bits at most, and 8 hex digits have 32
COUNTED = 10**10  # how far apart two ids are at most that differ by a counter or a clock
PATIENCE = 1_500  # milliseconds that one side waits for the other to see what it has sent
RECEIVES = 200  # calls of receive after which nobody is reading a body any more
PARTS = 4  # chunks of a body, either way
WATCH = "looplab.exercises.request_id"  # the key in a scope that leads to what is watched
EXAMPLE = "write check_request_id(RequestIdMiddleware)"

EXERCISE = Exercise(
    lesson="10",
    check="check_request_id",
    stub="untouched",
    task="A request-id middleware in pure ASGI that survives streaming, errors and websockets.",
    usual_wrong_prediction=(
        "That a layer of BaseHTTPMiddleware costs about as much as one of pure ASGI: it makes a "
        "task and two streams for every request, and costs many times as much."
    ),
    mistakes=(
        Mistake(
            "untouched",
            "passes everything through, as the stub does",
            "No id yet: requests pass through as they are. Wrap send in a function of your own, "
            "and let it add the header to the message that begins the response.",
        ),
        Mistake(
            "base-class",
            "derives from BaseHTTPMiddleware",
            "This one builds on BaseHTTPMiddleware, which skips websockets and ends cut bodies as "
            "if they were whole. Write __call__(self, scope, receive, send) yourself.",
        ),
        Mistake(
            "no-answer",
            "does not call the app within, or drops its messages",
            "The app's answer does not arrive as it was sent: call the app within, and pass on "
            "each of its messages, whatever its type, changing nothing but the headers of the "
            "first.",
        ),
        Mistake(
            "body-lost",
            "reads the request's body, or hands on a receive of its own that gives it back",
            "The app does not get the request as the client sent it. Who reads the body in a "
            "middleware takes it from the app, and a receive that gives it back again and again "
            "never ends. Hand receive on as it is.",
        ),
        Mistake(
            "no-header",
            "puts the id into the state and into no header",
            "The response has no X-Request-ID: add it to the message http.response.start.",
        ),
        Mistake(
            "no-state",
            "adds the header and leaves the state without the id",
            "An endpoint can't read request.state.request_id: put it into the state of the scope, "
            "before you call the app.",
        ),
        Mistake(
            "two-ids",
            "makes one id for the state and another for the header",
            "The endpoint and the response have different ids: make it once, before the app runs.",
        ),
        Mistake(
            "bytes-in-state",
            "takes the caller's id from the raw headers as it is",
            "The endpoint finds bytes in request.state.request_id: headers are bytes in ASGI, so "
            "decode the id before you put it into the state.",
        ),
        Mistake(
            "text-headers",
            "adds a header of str to a raw message",
            "ASGI headers are pairs of bytes, and a server fails on text: encode both, or let "
            "MutableHeaders do it.",
        ),
        Mistake(
            "headers-lost",
            "replaces the headers, or turns them into a dict that keeps one cookie of two",
            "The app's own headers are gone, or some of them: add yours and keep the rest. One "
            "name may come twice, as Set-Cookie does, so a dict loses some.",
        ),
        Mistake(
            "state-lost",
            "assigns a new dict to scope['state']",
            "What the server put into the state is gone: what a lifespan yields lives there. Add "
            "to the dict, with scope.setdefault('state', {}).",
        ),
        Mistake(
            "same-id",
            "makes the id once: in __init__, at import, or as a default argument",
            "Two requests got one id: make a new one in each call.",
        ),
        Mistake(
            "comes-again",
            "counts ids from 1, takes the time, or a few random digits",
            "A new id is to be one that never comes again, also in another worker and after a "
            "restart. Yours counts, or is short: two requests in one log then share it. Make it by "
            "uuid4().hex.",
        ),
        Mistake(
            "callers-id-unchecked",
            "takes whatever the caller sent, or checks its length only, or cuts it",
            "A caller's id goes into your logs and headers, and this one was too long or held what "
            "no id holds: a line break forges a line of the log, and a megabyte fills it. Keep 1 "
            "to 128 ASCII letters, digits, dots, hyphens and underscores, by re.fullmatch, and "
            "make an id of your own in place of anything else.",
        ),
        Mistake(
            "ignores-the-caller",
            "always makes an id of its own",
            "The caller sent an X-Request-ID, and the response has another: keep the caller's, so "
            "that its logs and yours agree.",
        ),
        Mistake(
            "shared-between-requests",
            "keeps the id on self",
            "Two requests at once, and one got the other's id: self is one object for all of them. "
            "Keep the id in a local variable of the call.",
        ),
        Mistake(
            "headers-may-be-absent",
            "reads message['headers'] of a start that has none",
            "A response may begin without headers, and yours then fails: the key is optional in "
            "ASGI. Give the message an empty list first.",
        ),
        Mistake(
            "buffers",
            "collects a body, or its rest, and passes it on in the end",
            "A message arrived late, together with those that came after it. A stream is worth "
            "nothing then, and a large body fills the memory: pass each message on at once.",
        ),
        Mistake(
            "missing-on-500",
            "adds the header only once the app has returned without an error",
            "The response to a failure has no id, and that is the one you will look for. The 500 "
            "passes through send like any other response.",
        ),
        Mistake(
            "swallows-the-error",
            "catches the app's exception and returns",
            "The app failed, and the server is not told: it logs nothing, and ends a cut body as "
            "if it were whole. Let the exception through.",
        ),
        Mistake(
            "lifespan-broken",
            "treats a lifespan as if it were a request",
            "The app can't start any more: a lifespan has no headers and sends no response. Pass "
            "on untouched what is neither http nor websocket.",
        ),
        Mistake(
            "websocket-broken",
            "treats a websocket as a request, or does not pass it on",
            "A websocket no longer works behind it: its scope has no method, and it sends "
            "websocket.accept where a request's answer has http.response.start.",
        ),
        Mistake(
            "websocket-without-id",
            "handles http only",
            "A websocket passes, and has no id: it has a state, and websocket.accept takes headers "
            "like the start of a response.",
        ),
    ),
)


class Boom(Exception):
    """The error of an app that fails on purpose."""


@dataclass(slots=True)
class _Watch:
    """What the check and the app within share during one connection, or two at once.

    ``passed`` counts what has reached the other side, so that the next can wait for it.
    """

    together: asyncio.Barrier | None = None
    passed: int = 0
    passing: asyncio.Condition = field(default_factory=asyncio.Condition)
    buffered: bool = False
    started: bool = False
    received: list[Message] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)

    async def note(self) -> None:
        """Note that one more message has reached the other side."""
        async with self.passing:
            self.passed += 1
            self.passing.notify_all()

    async def until(self, count: int) -> None:
        """Wait until so many have reached the other side; not again once one was held back."""
        if self.buffered:
            return
        try:
            async with asyncio.timeout(ms(PATIENCE)), self.passing:
                await self.passing.wait_for(lambda: self.passed >= count)
        except TimeoutError:
            self.buffered = True


def _watch(connection: HTTPConnection) -> _Watch:
    watch: _Watch = connection.scope[WATCH]
    watch.state = {
        name: getattr(connection.state, name, None) for name in ("request_id", "lent_by_server")
    }
    return watch


async def _plain(request: Request) -> JSONResponse:
    watch = _watch(request)
    if watch.together is not None:
        await watch.together.wait()
    answer = JSONResponse({"id": str(getattr(request.state, "request_id", None))})
    for cookie in ("basket", "theme"):
        answer.set_cookie(cookie, "1")
    return answer


async def _stream(request: Request) -> StreamingResponse:
    watch = _watch(request)

    async def body() -> AsyncGenerator[str]:
        for number in range(PARTS):
            yield f"part {number};"
            await watch.until(number + 2)  # the start has been the first

    return StreamingResponse(body())


async def _fail(request: Request) -> JSONResponse:
    _watch(request)
    raise Boom


async def _socket(websocket: WebSocket) -> None:
    _watch(websocket)
    await websocket.accept(headers=[(b"x-own", b"1")])
    await websocket.send_text((await websocket.receive_text()).upper())
    await websocket.close()


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncGenerator[None]:
    app.state.watch.started = True
    yield


def _app_within(watch: _Watch | None = None) -> Starlette:
    routes = [
        Route("/plain", _plain),
        Route("/stream", _stream),
        Route("/fail", _fail),
        WebSocketRoute("/socket", _socket),
    ]
    app = Starlette(routes=routes, lifespan=_lifespan)
    app.state.watch = watch
    return app


async def _bare(scope: Message, receive: Callable, send: Callable) -> None:
    """Answer without headers, as ASGI allows."""
    await send({"type": "http.response.start", "status": 204})
    await send({"type": "http.response.body"})


async def _piecemeal(scope: Message, receive: Callable, send: Callable) -> None:
    """Send each message only when the client has the one before."""
    for number, message in enumerate(_pieces()):
        await send(message)
        await scope[WATCH].until(number + 1)


def _pieces() -> list[Message]:
    """Return a whole response, to be sent and to be compared with what arrives."""
    start = {"status": 207, "headers": [(b"x-own", b"1")], "trailers": True}
    parts = [
        {"type": "http.response.body", "body": b"part %d;" % number, "more_body": True}
        for number in range(PARTS)
    ]
    return [
        {"type": "http.response.start", **start},
        *parts,
        {"type": "http.response.body", "body": b"end"},
        {"type": "http.response.trailers", "headers": [(b"x-sum", b"7")]},
    ]


async def _upload(scope: Message, receive: Callable, send: Callable) -> None:
    """Take a body chunk by chunk, answer, and stay until the client has gone."""
    watch = scope[WATCH]
    while True:
        try:
            async with asyncio.timeout(ms(PATIENCE)):
                message = await receive()
        except TimeoutError:
            break
        watch.received.append(dict(message))
        await watch.note()
        if message.get("type") != "http.request":
            break
        if not message.get("more_body", False):
            await _bare(scope, receive, send)


async def _waits(scope: Message, receive: Callable, send: Callable) -> None:
    """Wait for something that does not come."""
    await scope[WATCH].note()
    await asyncio.Event().wait()


def _cut_by(error: Callable[[], Exception], *, begun: bool) -> ASGIApp:
    """Return an app that fails in the middle of a body, or before it has sent anything."""

    async def cut(scope: Message, receive: Callable, send: Callable) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
        raise error()

    return cut


FAILURES: tuple[Callable[[], Exception], ...] = (
    Boom,
    lambda: ValueError("no such amount"),
    lambda: LookupError("no such row"),
    lambda: ConnectionResetError("the client has gone"),
    lambda: HTTPException(409),
)


async def check_request_id(middleware: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's ``RequestIdMiddleware`` of lesson 10, show one line, return the verdict.

    It is a class, or a function, that takes an ASGI app and returns one. It passes if

    - it is pure ASGI, and not a ``BaseHTTPMiddleware``;
    - each response has an ``X-Request-ID``: the caller's, if that is 1 to 128 ASCII letters,
      digits, dots, hyphens and underscores, or else a new one that never comes again; endpoints
      read the same as ``request.state.request_id``, also when two requests run at once;
    - headers, state and bodies arrive as they were sent, either way, and chunk by chunk;
    - a 500 has an id too, and the app's error reaches the server, and a cancellation the app;
    - a lifespan passes, and a websocket has an id in its state and on its ``websocket.accept``.

    ``limit`` is how long it may take in all, in seconds; 15 unless given. An endless loop that
    never awaits cannot be stopped: restart the kernel.
    """
    return await check(functools.partial(_judge, middleware=middleware), limit=limit)


async def _judge(sandbox: Sandbox, *, middleware: Any) -> str:
    _require_middleware(middleware)
    caller = _Caller(sandbox, middleware)
    await _judge_plain(caller)
    await _judge_new_ids(caller)
    await _judge_callers_id(caller)
    await _judge_absent_headers(caller)
    await _judge_two_at_once(caller)
    await _judge_stream(caller)
    await _judge_upload(caller)
    await _judge_failures(caller)
    await _judge_lifespan(caller)
    await _judge_websocket(caller)
    await _judge_refused_ids(caller)
    return (
        "Each request has an id of its own, in its state and on its response: also streamed, "
        "failed, two at once, and on a websocket."
    )


def _require_middleware(given: Any) -> None:
    if inspect.iscoroutine(given):
        given.close()
        raise wrong("wrong-type", f"it got a coroutine; {EXAMPLE}")
    if isinstance(given, type):
        if issubclass(given, BaseHTTPMiddleware):
            raise EXERCISE.wrong("base-class")
        return
    if not callable(given):
        raise wrong("wrong-type", f"it got {type(given).__name__}; {EXAMPLE}")
    if inspect.iscoroutinefunction(given):
        raise wrong("wrong-type", f"it got an async function; {EXAMPLE}")
    if inspect.iscoroutinefunction(getattr(given, "__call__", None)):  # noqa: B004
        raise wrong("wrong-type", f"it got an object, not the class; {EXAMPLE}")


@dataclass(slots=True)
class _Heard:
    """What came out of one connection. ``error`` is what the wrapped app raised."""

    sent: list[Message] = field(default_factory=list)
    error: BaseException | None = None
    left: list[str] = field(default_factory=list)

    def start(self, kind: str = "http.response.start") -> Message | None:
        return next((one for one in self.sent if one.get("type") == kind), None)

    @property
    def body(self) -> bytes:
        return b"".join(
            one.get("body", b"") for one in self.sent if one.get("type") == "http.response.body"
        )

    def request_id(self, kind: str = "http.response.start") -> str | None:
        """Return the id on the message of that kind; None when there is none."""
        values = [value for name, value in _headers(self.start(kind)) if name.lower() == HEADER]
        return values[-1].decode("latin-1") if values else None


def _headers(message: Message | None) -> list[tuple[bytes, bytes]]:
    pairs = list((message or {}).get("headers") or ())
    for pair in pairs:
        two = isinstance(pair, tuple | list) and len(pair) == 2
        if not two or not all(isinstance(part, bytes) for part in pair):
            raise EXERCISE.wrong("text-headers", f"it has {pair!r}")
    return [(name, value) for name, value in pairs]


def _bounded(app: ASGIApp) -> ASGIApp:
    """Return the app, with a receive that suspends and has an end, whatever a middleware gives."""

    async def within(scope: Message, receive: Callable, send: Callable) -> None:
        await app(scope, _counted(receive, f"receive gave it {RECEIVES} messages"), send)

    return within


def _counted(
    receive: Callable[[], Awaitable[Message]], too_often: str
) -> Callable[[], Awaitable[Message]]:
    """Return a receive that suspends first, and is a mistake when it is called too often."""
    calls = 0

    async def counted() -> Message:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        if calls > RECEIVES:
            raise EXERCISE.wrong("body-lost", too_often)
        return await receive()

    return counted


@dataclass(slots=True)
class _Caller:
    """Calls apps that the learner's middleware wraps."""

    sandbox: Sandbox
    middleware: Any
    built: ASGIApp | None = None

    def wrap(self, within: ASGIApp) -> ASGIApp:
        """Return the app that the learner's middleware makes of the one within."""
        app = self.middleware(_bounded(within))
        if isinstance(app, BaseHTTPMiddleware):
            raise EXERCISE.wrong("base-class")
        if not callable(app):
            kind = type(app).__name__
            raise wrong("wrong-type", f"called with an app, it returns {kind}; {EXAMPLE}")
        return app

    def wrap_once(self) -> ASGIApp:
        """Return the same wrapped app for every request, as on a server."""
        if self.built is None:
            self.built = self.wrap(_app_within())
        return self.built

    async def ask(self, path: str, watch: _Watch, **options: Any) -> _Heard:
        """Send a GET, and return what comes back when the app has returned or raised."""
        return await self.connect(self.wrap_once, *_request(path, watch, **options))

    async def connect(
        self, wrapped: Callable[[], ASGIApp], scope: Message, incoming: "list[Incoming]"
    ) -> _Heard:
        """Call the app that ``wrapped`` returns with a scope and what the client sends."""
        heard = _Heard()

        async def connection() -> None:
            await _speak(wrapped(), scope, incoming, heard)

        ran: Ran[None] = await self.sandbox.run(connection)
        heard.error, heard.left = ran.error, ran.left
        return heard


Incoming = Message | Callable[[], Awaitable[Message]]


async def _speak(app: ASGIApp, scope: Message, incoming: list[Incoming], heard: _Heard) -> None:
    """Do a server's part: hand over what comes in, take what goes out."""
    waiting = list(incoming)

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()  # nothing more comes; whoever waits is cancelled
        following = waiting.pop(0)
        return following if isinstance(following, MutableMapping) else await following()

    async def send(message: Message) -> None:
        await asyncio.sleep(0)
        if not isinstance(message, MutableMapping):
            raise TypeError(f"send was given {type(message).__name__}; a message is a dict")
        body = message.get("body", b"")
        if not isinstance(body, bytes):
            raise TypeError(f"a message's body is {type(body).__name__}; it must be bytes")
        heard.sent.append(message)
        if WATCH in scope:
            await scope[WATCH].note()

    counted = _counted(receive, f"receive was called {RECEIVES} times")
    await require_awaitable(app(scope, counted, send))


def _request(
    path: str,
    watch: _Watch,
    *,
    caller_id: str | bytes | None = None,
    state: dict[str, Any] | None = None,
) -> tuple[Message, list[Incoming]]:
    scope = _scope("http", path, watch, caller_id, state) | {"method": "GET", "scheme": "http"}
    return scope, [{"type": "http.request", "body": b"", "more_body": False}]


def _scope(
    kind: str,
    path: str,
    watch: _Watch,
    caller_id: str | bytes | None = None,
    state: dict[str, Any] | None = None,
) -> dict[str, Any]:
    headers = [(b"host", b"shop.test")]
    if caller_id is not None:
        sent = caller_id.encode("latin-1") if isinstance(caller_id, str) else caller_id
        headers.append((HEADER, sent))
    scope: dict[str, Any] = {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
        WATCH: watch,
    }
    if state is not None:
        scope["state"] = state
    return scope


def _clean(heard: _Heard) -> None:
    """Raise what any exercise says of an error, or of tasks that run on."""
    if heard.error is not None:
        raise blame(heard.error)
    if heard.left:
        raise wrong("left-running", ", ".join(heard.left))


async def _judge_plain(caller: _Caller) -> None:
    watch = _Watch()
    heard = await caller.ask("/plain", watch)
    _clean(heard)
    start = heard.start()
    if start is None or not heard.body:
        raise EXERCISE.wrong("no-answer", f"it sent {len(heard.sent)} messages")
    request_id, known = heard.request_id(), watch.state["request_id"]
    if request_id is None and known is None:
        raise EXERCISE.wrong("untouched")
    if [name for name, _ in _headers(start)].count(b"set-cookie") != 2:
        raise EXERCISE.wrong("headers-lost")
    if request_id is None:
        raise EXERCISE.wrong("no-header")
    if known is None:
        raise EXERCISE.wrong("no-state")
    _require_id(known, request_id)
    again = await caller.ask("/plain", _Watch())
    _clean(again)
    if again.request_id() == request_id:
        raise EXERCISE.wrong("same-id")


def _require_id(known: Any, expected: str) -> None:
    """Require that the id in the state is the one of the header."""
    if isinstance(known, bytes):
        raise EXERCISE.wrong("bytes-in-state")
    if str(known) != expected:
        raise EXERCISE.wrong("two-ids")


async def _judge_new_ids(caller: _Caller) -> None:
    """Ask one object and two more, as three workers would be, for ids of their own."""
    apps = [caller.wrap_once, *(lambda: caller.wrap(_app_within()) for _ in range(2))]
    ids: list[str] = []
    for app in (*apps, *apps):
        watch = _Watch()
        heard = await caller.connect(app, *_request("/plain", watch))
        _clean(heard)
        if (request_id := heard.request_id()) is None:
            raise EXERCISE.wrong("no-header", "on one of several requests")
        _require_id(watch.state["request_id"], request_id)
        ids.append(request_id)
    if len(set(ids)) < len(ids):
        raise EXERCISE.wrong("comes-again", f"{ids[0]!r:.50} in two workers")
    if len(shortest := min(ids, key=len)) < SHORTEST:
        raise EXERCISE.wrong("comes-again", f"{shortest!r} is short")
    if all(_is_counted(one, another) for one, another in pairwise(ids)):
        raise EXERCISE.wrong("comes-again", f"{ids[0]!r:.50} was followed by {ids[1]!r:.50}")


def _is_counted(one: str, another: str) -> bool:
    """Return whether two ids differ in their digits only, and not by much."""
    if re.sub(r"[0-9]", "0", one) != re.sub(r"[0-9]", "0", another):
        return False
    numbers = [int(re.sub(r"[^0-9]", "", each) or 0) for each in (one, another)]
    return abs(numbers[0] - numbers[1]) < COUNTED


async def _judge_callers_id(caller: _Caller) -> None:
    lent = {"lent_by_server": "a pool"}
    for kept in (CALLERS, str(uuid4()), uuid4().hex, "A.b_c-7" * 18 + "xy"):
        watch = _Watch()
        heard = await caller.ask("/plain", watch, caller_id=kept, state=dict(lent))
        _clean(heard)
        if watch.state["lent_by_server"] is None:
            raise EXERCISE.wrong("state-lost")
        if heard.request_id() != kept:
            raise EXERCISE.wrong("ignores-the-caller", f"one of {len(kept)} characters")
        _require_id(watch.state["request_id"], kept)


# What a caller may send and no id is: each is refused by another part of a check.
REFUSED: dict[str, bytes] = {
    "a line break within": b"caller-7\r\nset-cookie: session=ada",
    "a line break at the end": b"caller-7\n",
    f"{LONGEST + 1} characters": b"x" * (LONGEST + 1),
    "a megabyte": b"x" * 1_000_000,
    "a letter that is not ASCII": "caf\xe9".encode("latin-1"),
    "a digit that is not ASCII": "caller-\xb2".encode("latin-1"),
    "a space": b"caller 7 status=200",
    "a NUL": b"caller\x007",
    "markup": b"<b>caller-7</b>",
    "nothing": b"",
}


async def _judge_refused_ids(caller: _Caller) -> None:
    """Send what no id is: the request gets a new one."""
    for what, refused in REFUSED.items():
        watch = _Watch()
        heard = await caller.ask("/plain", watch, caller_id=refused)
        if heard.error is not None and isinstance(heard.error, Exception):
            raise EXERCISE.wrong("callers-id-unchecked", f"{what}: {_told(heard.error)}")
        _clean(heard)
        answered = heard.request_id()
        if answered is None or not answered.strip():
            raise EXERCISE.wrong("no-header", f"when the caller had sent {what}")
        if answered.encode("latin-1") in refused:
            raise EXERCISE.wrong("callers-id-unchecked", what)
        if not re.fullmatch(r"[!-~]{1,128}", answered):
            raise EXERCISE.wrong("callers-id-unchecked", f"{what}, and {answered!r:.40} came back")
        _require_id(watch.state["request_id"], answered)


async def _judge_absent_headers(caller: _Caller) -> None:
    heard = await caller.connect(lambda: caller.wrap(_bare), *_request("/bare", _Watch()))
    if heard.error is not None:
        if holds(heard.error, KeyError | TypeError):
            raise EXERCISE.wrong("headers-may-be-absent", _told(heard.error))
        raise blame(heard.error)
    if heard.request_id() is None:
        raise EXERCISE.wrong("headers-may-be-absent")


async def _judge_two_at_once(caller: _Caller) -> None:
    """Let two requests through one object meet in the app, then answer: with ids, and without."""
    for ids in (("left-1", "right-2"), (None, None)):
        together = asyncio.Barrier(2)
        heard = [_Heard() for _ in ids]

        async def both(
            ids: tuple[str | None, ...] = ids,
            together: asyncio.Barrier = together,
            heard: list[_Heard] = heard,
        ) -> None:
            app = caller.wrap_once()
            await asyncio.gather(
                *(
                    _speak(app, *_request("/plain", _Watch(together), caller_id=sent), each)
                    for sent, each in zip(ids, heard, strict=True)
                )
            )

        ran = await caller.sandbox.run(both)
        ran.result()
        answered = [each.request_id() for each in heard]
        for sent, got, each in zip(ids, answered, heard, strict=True):
            if got != _told_by(each) or (sent is not None and got != sent):
                raise EXERCISE.wrong("shared-between-requests")
        if answered[0] == answered[1]:
            raise EXERCISE.wrong("same-id", "to two that came at once")


def _told_by(heard: _Heard) -> str:
    """Return the id that the endpoint wrote into its answer."""
    return heard.body.decode("latin-1").removeprefix('{"id":"').removesuffix('"}')


async def _judge_stream(caller: _Caller) -> None:
    watch = _Watch()
    heard = await caller.ask("/stream", watch)
    _clean(heard)
    if watch.buffered:
        raise EXERCISE.wrong("buffers", "in the response")
    whole = b"".join(b"part %d;" % number for number in range(PARTS))
    if heard.body != whole:
        raise EXERCISE.wrong("no-answer", f"a streamed body came as {heard.body!r:.60}")
    if heard.request_id() is None:
        raise EXERCISE.wrong("no-header", "on a streamed response")
    watch = _Watch()
    heard = await caller.connect(lambda: caller.wrap(_piecemeal), *_request("/piecemeal", watch))
    _clean(heard)
    _require_pieces(heard)
    if watch.buffered:
        raise EXERCISE.wrong("buffers", "in the response, with its start")


def _require_pieces(heard: _Heard) -> None:
    """Require each message of the app, with nothing changed but the headers of the start."""
    sent = _pieces()
    kinds = [str(message.get("type")) for message in heard.sent]
    due = [message["type"] for message in sent]
    if kinds != due:
        missing = next((kind for kind in due if kinds.count(kind) < due.count(kind)), "one")
        raise EXERCISE.wrong("no-answer", f"{missing} is missing, or came twice")
    for before, after in zip(sent, heard.sent, strict=True):
        for key in before.keys() - {"headers"}:
            if after.get(key) != before[key]:
                kind = before["type"]
                raise EXERCISE.wrong("no-answer", f"{key} of {kind} is {after.get(key)!r:.40}")
    if (b"x-own", b"1") not in _headers(heard.sent[0]):
        raise EXERCISE.wrong("headers-lost")


async def _judge_upload(caller: _Caller) -> None:
    """Send a body chunk by chunk, each only when the app has seen the one before; then leave."""
    watch = _Watch()
    chunks: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"part %d;" % number, "more_body": number + 1 < PARTS}
        for number in range(PARTS)
    ]

    def sends(number: int) -> Callable[[], Awaitable[Message]]:
        async def send_one() -> Message:
            await watch.until(number)
            return dict(chunks[number])

        return send_one

    scope, _ = _request("/upload", watch)
    scope["method"] = "POST"
    incoming: list[Incoming] = [sends(number) for number in range(PARTS)]
    incoming.append({"type": "http.disconnect"})
    heard = await caller.connect(lambda: caller.wrap(_upload), scope, incoming)
    _clean(heard)
    requests = [one for one in watch.received if one.get("type") == "http.request"]
    came = b"".join(one.get("body", b"") for one in requests)
    whole = b"".join(chunk["body"] for chunk in chunks)
    if came != whole:
        raise EXERCISE.wrong("body-lost", f"{came!r:.60} came of {whole!r}")
    if watch.buffered or requests != chunks:
        raise EXERCISE.wrong("buffers", "in the request's body")
    if watch.received[-1].get("type") != "http.disconnect":
        raise EXERCISE.wrong("body-lost", "the client went away, and the app was not told")


async def _judge_failures(caller: _Caller) -> None:
    heard = await caller.ask("/fail", _Watch())
    _require_error(heard, Boom)
    if heard.start() is None or heard.request_id() is None:
        raise EXERCISE.wrong("missing-on-500")
    for failure in FAILURES:
        for begun in (True, False):
            app = functools.partial(caller.wrap, _cut_by(failure, begun=begun))
            heard = await caller.connect(app, *_request("/cut", _Watch()))
            _require_error(heard, type(failure()))
    await _judge_cancelled(caller)


async def _judge_cancelled(caller: _Caller) -> None:
    """Cancel a request, as a server does whose client has gone or that shuts down."""
    cancelled = False

    async def leaves() -> None:
        nonlocal cancelled
        watch = _Watch()
        app = caller.wrap(_waits)
        task = asyncio.create_task(_speak(app, *_request("/waits", watch), _Heard()))
        await watch.until(1)
        task.cancel()
        await asyncio.wait({task})
        cancelled = task.cancelled()

    (await caller.sandbox.run(leaves)).result()
    if not cancelled:
        raise EXERCISE.wrong("swallows-the-error", "it was a cancellation")


def _require_error(heard: _Heard, kind: type[Exception]) -> None:
    """Require that the app's error came out of the middleware."""
    if heard.error is None:
        raise EXERCISE.wrong("swallows-the-error", f"it was a {kind.__name__}")
    if not holds(heard.error, kind):
        raise blame(heard.error)
    let_go(heard.error)
    if heard.left:
        raise wrong("left-running", ", ".join(heard.left))


async def _judge_lifespan(caller: _Caller) -> None:
    watch = _Watch()
    scope: Message = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    heard = await caller.connect(
        lambda: caller.wrap(_app_within(watch)),
        scope,
        [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}],
    )
    _intact(heard, "lifespan-broken")
    said = [message.get("type") for message in heard.sent]
    if not watch.started or said != ["lifespan.startup.complete", "lifespan.shutdown.complete"]:
        raise EXERCISE.wrong("lifespan-broken")


async def _judge_websocket(caller: _Caller) -> None:
    watch = _Watch()
    scope = _scope("websocket", "/socket", watch, CALLERS) | {"scheme": "ws", "subprotocols": []}
    heard = await caller.connect(
        caller.wrap_once,
        scope,
        [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}],
    )
    _intact(heard, "websocket-broken")
    texts = [one.get("text") for one in heard.sent if one.get("type") == "websocket.send"]
    if texts != ["HELLO"]:
        raise EXERCISE.wrong("websocket-broken")
    accepted = heard.start("websocket.accept")
    if (b"x-own", b"1") not in _headers(accepted):
        raise EXERCISE.wrong("headers-lost", "on websocket.accept")
    if watch.state["request_id"] is None:
        raise EXERCISE.wrong("websocket-without-id", "its state has none")
    if heard.request_id("websocket.accept") != CALLERS:
        raise EXERCISE.wrong("websocket-without-id", "websocket.accept has none, or another")


def _intact(heard: _Heard, mistake: str) -> None:
    """Raise ``mistake`` for an error that no other mistake describes better."""
    if heard.error is not None:
        found = blame(heard.error)
        if isinstance(found, Wrong) and found.mistake.name == "raised":
            raise EXERCISE.wrong(mistake, found.detail)
        raise found
    _clean(heard)


def _told(error: BaseException) -> str:
    told = tell(error)
    let_go(error)
    return told
