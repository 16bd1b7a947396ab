"""The check of lesson 10, with right answers and wrong ones."""

import asyncio
import contextlib
import re
import textwrap
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.base import BaseHTTPMiddleware

from looplab.exercises.request_id import EXERCISE, check_request_id

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy
PATIENCE = 6.0  # seconds, in which a wrong one is found, whatever it does
ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
STARTS = ("http.response.start", "websocket.accept")


class Layer:
    """A right answer in parts, so that a wrong one can get one part wrong."""

    kinds: tuple[str, ...] = ("http", "websocket")

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in self.kinds:
            await self.app(scope, receive, send)
            return
        request_id = self.id_of(scope)
        self.keep(scope, request_id)

        async def named(message: Any) -> None:
            if message["type"] in STARTS:
                self.mark(message, request_id)
            await send(message)

        await self.run(scope, receive, named)

    def id_of(self, scope: Any) -> str:
        sent = Headers(scope=scope).get("x-request-id", "")
        return sent if ID.fullmatch(sent) else uuid4().hex

    def keep(self, scope: Any, request_id: str) -> None:
        scope.setdefault("state", {})["request_id"] = request_id

    def mark(self, message: Any, request_id: str) -> None:
        message.setdefault("headers", [])
        MutableHeaders(scope=message)["X-Request-ID"] = request_id

    async def run(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def middleware_of(source: str) -> Any:
    """Run an answer's source, and return the middleware that it defines."""
    names: dict[str, Any] = {
        "asyncio": asyncio,
        "contextlib": contextlib,
        "re": re,
        "uuid4": uuid4,
        "Headers": Headers,
        "MutableHeaders": MutableHeaders,
        "ID": ID,
    }
    exec(compile(textwrap.dedent(source), "<answer>", "exec"), names)
    return names["RequestIdMiddleware"]


ANSWER = """
class RequestIdMiddleware:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] not in {{"http", "websocket"}}:
            await self.app(scope, receive, send)
            return
        request_id = Headers(scope=scope).get("X-Request-ID", "")
        {check}
            request_id = {new}
        scope.setdefault("state", {{}})["request_id"] = request_id

        async def named_send(message):
            if message["type"] in {{"http.response.start", "websocket.accept"}}:
                message.setdefault("headers", [])
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            {send}

        {run}
"""


def answer(
    check: str = "if not ID.fullmatch(request_id):",
    new: str = "uuid4().hex",
    send: str = "await send(message)",
    run: str = "await self.app(scope, receive, named_send)",
) -> str:
    """Return the course's own answer with one part of it changed."""
    indented = run.replace("\n", "\n        ")
    return ANSWER.format(check=check, new=new, send=send, run=indented)


RIGHT: tuple[tuple[str, str], ...] = (
    ("a class that wraps send", answer()),
    (
        "a function that returns a function, and changes no dict that it was given",
        """
        def RequestIdMiddleware(app):
            async def wrapped(scope, receive, send):
                if scope["type"] == "lifespan":
                    return await app(scope, receive, send)
                sent = [value for name, value in scope["headers"] if name == b"x-request-id"]
                request_id = sent[0].decode("latin-1") if sent else ""
                if not ID.fullmatch(request_id):
                    request_id = str(uuid4())

                async def named(message):
                    if message["type"] in ("http.response.start", "websocket.accept"):
                        pair = (b"x-request-id", request_id.encode())
                        message = {**message, "headers": [*message.get("headers", ()), pair]}
                    await send(message)

                state = {**scope.get("state", {}), "request_id": request_id}
                return await app({**scope, "state": state}, receive, named)

            return wrapped
        """,
    ),
    (
        "a class whose send is an object of its own, and ids of secrets",
        """
        import secrets
        import string

        ALLOWED = frozenset(string.ascii_letters + string.digits + ".-_")


        class NamedSend:
            def __init__(self, send, request_id):
                self.send, self.request_id = send, request_id

            async def __call__(self, message):
                if message["type"].endswith((".start", ".accept")):
                    headers = MutableHeaders(raw=list(message.get("headers", [])))
                    headers["X-Request-ID"] = self.request_id
                    message["headers"] = headers.raw
                await self.send(message)


        class RequestIdMiddleware:
            def __init__(self, app):
                self.app = app

            async def __call__(self, scope, receive, send):
                if scope["type"] in ("http", "websocket"):
                    sent = Headers(scope=scope).get("x-request-id", "")
                    fits = 0 < len(sent) <= 128 and ALLOWED.issuperset(sent)
                    request_id = sent if fits else secrets.token_urlsafe(16)
                    scope.setdefault("state", {})["request_id"] = request_id
                    send = NamedSend(send, request_id)
                await self.app(scope, receive, send)
        """,
    ),
    (
        "a task group around the app, whose error comes out alone",
        """
        class RequestIdMiddleware:
            def __init__(self, app):
                self.app = app

            async def __call__(self, scope, receive, send):
                if scope["type"] == "lifespan":
                    return await self.app(scope, receive, send)
                sent = Headers(scope=scope).get("x-request-id", "")
                request_id = sent if ID.fullmatch(sent) else f"shop-{uuid4()}"
                scope.setdefault("state", {})["request_id"] = request_id

                async def named(message):
                    if message["type"] in ("http.response.start", "websocket.accept"):
                        message.setdefault("headers", [])
                        MutableHeaders(scope=message)["X-Request-ID"] = request_id
                    await send(message)

                try:
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(self.app(scope, receive, named))
                except ExceptionGroup as group:
                    raise group.exceptions[0] from None
        """,
    ),
)


@pytest.mark.parametrize("source", [each[1] for each in RIGHT], ids=[each[0] for each in RIGHT])
async def test_a_right_answer_passes_in_any_style(source: str) -> None:
    verdict = await check_request_id(middleware_of(source), limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


class Untouched(Layer):
    kinds = ()


class BaseClass(BaseHTTPMiddleware):
    async def dispatch(self, request: Any, call_next: Any) -> Any:
        return await call_next(request)


def base_class_inside(app: Any) -> Any:
    return BaseClass(app)


class Dropped(Layer):
    async def run(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)


class NoHeader(Layer):
    def mark(self, message: Any, request_id: str) -> None:
        pass


class NoState(Layer):
    def keep(self, scope: Any, request_id: str) -> None:
        pass


class TwoIds(Layer):
    def keep(self, scope: Any, request_id: str) -> None:
        super().keep(scope, uuid4().hex)


class BytesInState(Layer):
    def keep(self, scope: Any, request_id: str) -> None:
        scope.setdefault("state", {})["request_id"] = request_id.encode()


class CallersBytes(Layer):
    def keep(self, scope: Any, request_id: str) -> None:
        raw = dict(scope["headers"]).get(b"x-request-id")
        scope.setdefault("state", {})["request_id"] = raw or request_id


class Text(Layer):
    def mark(self, message: Any, request_id: str) -> None:
        message["headers"] = [*message.get("headers", ()), ("X-Request-ID", request_id)]


class Replaced(Layer):
    def mark(self, message: Any, request_id: str) -> None:
        message["headers"] = [(b"x-request-id", request_id.encode())]


class ThroughDict(Layer):
    def mark(self, message: Any, request_id: str) -> None:
        headers = dict(message.get("headers", ()))
        message["headers"] = list({**headers, b"x-request-id": request_id.encode()}.items())


class NewState(Layer):
    def keep(self, scope: Any, request_id: str) -> None:
        scope["state"] = {"request_id": request_id}


class MadeOnce(Layer):
    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self.made = uuid4().hex

    def id_of(self, scope: Any) -> str:
        return Headers(scope=scope).get("x-request-id") or self.made


class OwnOnly(Layer):
    def id_of(self, scope: Any) -> str:
        return uuid4().hex


class OnSelf(Layer):
    def id_of(self, scope: Any) -> str:
        self.request_id = super().id_of(scope)
        return self.request_id

    def mark(self, message: Any, request_id: str) -> None:
        super().mark(message, self.request_id)


class HeadersNeeded(Layer):
    def mark(self, message: Any, request_id: str) -> None:
        MutableHeaders(scope=message)["X-Request-ID"] = request_id


class Buffered(Layer):
    async def run(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        messages: list[Any] = []

        async def keep(message: Any) -> None:
            messages.append(message)

        try:
            await self.app(scope, receive, keep)
        finally:
            for message in messages:
                await send(message)


class OnlyGood(Layer):
    def mark(self, message: Any, request_id: str) -> None:
        if message.get("status", 200) < 500:
            super().mark(message, request_id)


class Swallowing(Layer):
    async def run(self, scope: Any, receive: Any, send: Any) -> None:
        with contextlib.suppress(Exception):
            await self.app(scope, receive, send)


class EverythingIsARequest(Layer):
    kinds = ("http", "websocket", "lifespan")


class NoLifespan(Layer):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await super().__call__(scope, receive, send)


class MethodNeeded(Layer):
    def id_of(self, scope: Any) -> str:
        assert scope["method"]
        return super().id_of(scope)


class NoWebsocket(Layer):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            await super().__call__(scope, receive, send)


class HttpOnly(Layer):
    kinds = ("http",)


class StateOnly(Layer):
    def mark(self, message: Any, request_id: str) -> None:
        if message["type"] == "http.response.start":
            super().mark(message, request_id)


class Forgetful(Layer):
    async def run(self, scope: Any, receive: Any, send: Any) -> None:
        self.app(scope, receive, send)


class Failing(Layer):
    def id_of(self, scope: Any) -> str:
        return scope["state"]["request_id"]


class Leaving(Layer):
    def id_of(self, scope: Any) -> str:
        raise SystemExit


class InTheBackground(Layer):
    async def run(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)
        kept.append(asyncio.create_task(never(), name="behind"))


class NotYet(Layer):
    async def run(self, scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError


class Plain(Layer):
    def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # ty: ignore[incompatible-method-override]
        pass


kept: list[Any] = []


async def never() -> None:
    await asyncio.Event().wait()


def returns_nothing(app: Any) -> Any:
    pass


async def with_call_next(request: Any, call_next: Any) -> Any:
    return await call_next(request)


IN_ONE_PART: list[tuple[str, Any]] = [
    ("untouched", Untouched),
    ("base-class", BaseClass),
    ("base-class", base_class_inside),
    ("no-answer", Dropped),
    ("no-header", NoHeader),
    ("no-state", NoState),
    ("two-ids", TwoIds),
    ("bytes-in-state", BytesInState),
    ("bytes-in-state", CallersBytes),
    ("text-headers", Text),
    ("headers-lost", Replaced),
    ("headers-lost", ThroughDict),
    ("state-lost", NewState),
    ("same-id", MadeOnce),
    ("ignores-the-caller", OwnOnly),
    ("shared-between-requests", OnSelf),
    ("headers-may-be-absent", HeadersNeeded),
    ("buffers", Buffered),
    ("missing-on-500", OnlyGood),
    ("swallows-the-error", Swallowing),
    ("lifespan-broken", EverythingIsARequest),
    ("lifespan-broken", NoLifespan),
    ("websocket-broken", MethodNeeded),
    ("websocket-broken", NoWebsocket),
    ("websocket-without-id", HttpOnly),
    ("websocket-without-id", StateOnly),
    ("forgotten-await", Forgetful),
    ("raised", Failing),
    ("exits", Leaving),
    ("left-running", InTheBackground),
    ("not-written", NotYet),
    ("not-async", Plain),
    ("wrong-type", returns_nothing),
    ("wrong-type", with_call_next),
    ("wrong-type", Layer(None)),
    ("wrong-type", "RequestIdMiddleware"),
]


@pytest.mark.parametrize(("mistake", "middleware"), IN_ONE_PART)
async def test_wrong_answers_get_their_hint(mistake: str, middleware: Callable[..., Any]) -> None:
    verdict = await check_request_id(middleware, limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message
    kept.clear()


JOINED = """
chunks, more = [], True
while more:
    message = await receive()
    chunks.append(message.get("body", b""))
    more = message.get("more_body", False)

async def replay():
    return {"type": "http.request", "body": b"".join(chunks), "more_body": False}

await self.app(scope, {given}, named_send)
"""

WRONG: tuple[tuple[str, str, str], ...] = (
    # the request's body
    (
        "the request's body is read, and the app gets what is left of it",
        answer(run="await receive()\nawait self.app(scope, receive, named_send)"),
        "body-lost",
    ),
    (
        "the request's body is read whole, and replayed for ever",
        answer(run=JOINED.replace("{given}", "replay").strip()),
        "body-lost",
    ),
    (
        "one message is read, and replayed for ever",
        answer(
            run="first = await receive()\n\nasync def replay():\n    return first\n\n"
            "await self.app(scope, replay, named_send)"
        ),
        "body-lost",
    ),
    (
        "the request's body is read whole, replayed once, and then the app hears the client",
        answer(
            run=JOINED.replace("{given}", "once")
            .strip()
            .replace(
                "await self.app",
                "waiting = [await replay()]\n\nasync def once():\n"
                "    return waiting.pop() if waiting else await receive()\n\nawait self.app",
            )
        ),
        "buffers",
    ),
    (
        "the app gets an empty receive",
        answer(
            run="async def nothing():\n    return {'type': 'http.request', 'body': b''}\n\n"
            "await self.app(scope, nothing, named_send)"
        ),
        "body-lost",
    ),
    (
        "the app never learns that the client has gone",
        answer(
            run="async def deaf():\n    message = await receive()\n"
            "    if message['type'] == 'http.disconnect':\n"
            "        await asyncio.Event().wait()\n"
            "    return message\n\nawait self.app(scope, deaf, named_send)"
        ),
        "body-lost",
    ),
    (
        "it reads for ever after the body's end",
        answer(
            run="while scope['type'] == 'http' and scope['method'] == 'POST':\n"
            "    await receive()\nawait self.app(scope, receive, named_send)"
        ),
        "never-ends",
    ),
    # the response
    (
        "all but the first chunk of the response are kept until its end",
        """
        class RequestIdMiddleware:
            def __init__(self, app):
                self.app = app

            async def __call__(self, scope, receive, send):
                if scope["type"] == "lifespan":
                    return await self.app(scope, receive, send)
                sent = Headers(scope=scope).get("x-request-id", "")
                request_id = sent if ID.fullmatch(sent) else uuid4().hex
                scope.setdefault("state", {})["request_id"] = request_id
                kept, first = [], True

                async def named(message):
                    nonlocal first
                    if message["type"] in ("http.response.start", "websocket.accept"):
                        message.setdefault("headers", [])
                        MutableHeaders(scope=message)["X-Request-ID"] = request_id
                    elif message["type"] == "http.response.body" and message.get("more_body"):
                        if not first:
                            kept.append(message)
                            return
                        first = False
                    else:
                        for each in kept:
                            await send(each)
                        kept.clear()
                    await send(message)

                await self.app(scope, receive, named)
        """,
        "buffers",
    ),
    (
        "the start waits for the first chunk",
        """
        class RequestIdMiddleware:
            def __init__(self, app):
                self.app = app

            async def __call__(self, scope, receive, send):
                if scope["type"] == "lifespan":
                    return await self.app(scope, receive, send)
                sent = Headers(scope=scope).get("x-request-id", "")
                request_id = sent if ID.fullmatch(sent) else uuid4().hex
                scope.setdefault("state", {})["request_id"] = request_id
                start = None

                async def named(message):
                    nonlocal start
                    if message["type"] in ("http.response.start", "websocket.accept"):
                        message.setdefault("headers", [])
                        MutableHeaders(scope=message)["X-Request-ID"] = request_id
                    if message["type"] == "http.response.start":
                        start = message
                        return
                    if start is not None:
                        await send(start)
                        start = None
                    await send(message)

                await self.app(scope, receive, named)
        """,
        "buffers",
    ),
    (
        "messages of other types are dropped",
        answer(
            send="if message['type'] in {'http.response.start', 'http.response.body'} or "
            "message['type'].startswith('websocket'):\n                await send(message)"
        ),
        "no-answer",
    ),
    (
        "each chunk says that it is the last",
        answer(send="await send({k: v for k, v in message.items() if k != 'more_body'})"),
        "no-answer",
    ),
    (
        "each response is a 200",
        answer(
            send="if 'status' in message and message['status'] < 500:\n"
            "                message['status'] = 200\n            await send(message)"
        ),
        "no-answer",
    ),
    # the caller's id
    (
        "the caller's id is taken as it comes",
        answer(check="if not request_id:"),
        "callers-id-unchecked",
    ),
    (
        "the caller's id is bounded in length only",
        answer(check="if not 0 < len(request_id) <= 128:"),
        "callers-id-unchecked",
    ),
    (
        "the caller's id is bounded in its characters only",
        answer(check="if not re.fullmatch(r'[A-Za-z0-9._-]+', request_id):"),
        "callers-id-unchecked",
    ),
    (
        "the caller's id may end in a line break, as $ has it",
        answer(check="if not re.match(r'[A-Za-z0-9._-]{1,128}$', request_id):"),
        "callers-id-unchecked",
    ),
    (
        "the caller's id may be followed by anything",
        answer(check="if not re.match(r'[A-Za-z0-9._-]{1,128}', request_id):"),
        "callers-id-unchecked",
    ),
    (
        "the caller's id may hold letters of any language",
        answer(check="if not re.fullmatch(r'[\\w.-]{1,128}', request_id):"),
        "callers-id-unchecked",
    ),
    (
        "the caller's id is cut",
        answer(
            check="request_id = re.sub(r'[^A-Za-z0-9._-]', '', request_id)[:128]\n"
            "        if not request_id:"
        ),
        "callers-id-unchecked",
    ),
    (
        "the caller's id loses its line breaks only",
        answer(
            check="request_id = request_id.replace('\\r', '').replace('\\n', '')[:128]\n"
            "        if not request_id:"
        ),
        "callers-id-unchecked",
    ),
    (
        "the caller's id is a UUID or nothing",
        answer(check="if not re.fullmatch(r'[0-9a-f-]{36}', request_id):"),
        "ignores-the-caller",
    ),
    (
        "the caller's id is cut at 64 characters",
        answer(check="if not re.fullmatch(r'[A-Za-z0-9._-]{1,64}', request_id):"),
        "ignores-the-caller",
    ),
    # new ids
    (
        "ids are counted from 1 by each object",
        answer(new="str(next(self.numbers))").replace(
            "self.app = app",
            "self.app = app\n        self.numbers = __import__('itertools').count(1)",
        ),
        "comes-again",
    ),
    (
        "ids are counted from 1 by each process",
        "import itertools\nNUMBERS = itertools.count(1)\n" + answer(new="str(next(NUMBERS))"),
        "comes-again",
    ),
    (
        "ids are counted from 1, with zeros and a name in front",
        "import itertools\nNUMBERS = itertools.count(1)\n"
        + answer(new="f'request-{next(NUMBERS):012}'"),
        "comes-again",
    ),
    ("ids are the time", "import time\n" + answer(new="str(time.time_ns())"), "comes-again"),
    (
        "ids are four random digits",
        "import random\n" + answer(new="str(random.randint(1000, 9999))"),
        "comes-again",
    ),
    ("ids are eight digits of a UUID", answer(new="uuid4().hex[:8]"), "comes-again"),
    (
        "ids are the path's hash",
        answer(new="uuid5(NAMESPACE_URL, scope['path']).hex").replace(
            "class Req", "from uuid import NAMESPACE_URL, uuid5\n\nclass Req"
        ),
        "same-id",
    ),
    # errors
    (
        "an error of the connection is swallowed",
        answer(
            run="try:\n    await self.app(scope, receive, named_send)\nexcept OSError:\n    pass"
        ),
        "swallows-the-error",
    ),
    (
        "an HTTPException is swallowed before the response has begun",
        answer(
            run="from starlette.exceptions import HTTPException\ntry:\n"
            "    await self.app(scope, receive, named_send)\n"
            "except HTTPException as error:\n"
            "    await named_send({'type': 'http.response.start', 'status': error.status_code})\n"
            "    await named_send({'type': 'http.response.body', 'body': b''})"
        ),
        "swallows-the-error",
    ),
    (
        "a cancellation is swallowed",
        answer(
            run="try:\n    await self.app(scope, receive, named_send)\n"
            "except asyncio.CancelledError:\n    pass"
        ),
        "swallows-the-error",
    ),
)


@pytest.mark.parametrize(
    ("source", "mistake"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG]
)
async def test_a_wrong_answer_gets_its_own_hint(source: str, mistake: str) -> None:
    verdict = await check_request_id(middleware_of(source), limit=PATIENCE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    made = {name for name, _ in IN_ONE_PART} | {mistake for *_, mistake in WRONG}
    assert {mistake.name for mistake in EXERCISE.mistakes} <= made


async def test_an_endless_wait_is_stopped() -> None:
    class Waiting(Layer):
        async def run(self, scope: Any, receive: Any, send: Any) -> None:
            await never()

    before = asyncio.all_tasks()
    assert (await check_request_id(Waiting, limit=0.3)).mistake == "never-ends"
    assert asyncio.all_tasks() == before


async def test_a_coroutine_in_place_of_the_class() -> None:
    assert (await check_request_id(never())).mistake == "wrong-type"
