"""The check of lesson 10, with right answers and wrong ones."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.base import BaseHTTPMiddleware

from support.exercises.request_id import EXERCISE, check_request_id

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy
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
        return Headers(scope=scope).get("x-request-id") or uuid4().hex

    def keep(self, scope: Any, request_id: str) -> None:
        scope.setdefault("state", {})["request_id"] = request_id

    def mark(self, message: Any, request_id: str) -> None:
        message.setdefault("headers", [])
        MutableHeaders(scope=message)["X-Request-ID"] = request_id

    async def run(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def as_function(app: Any) -> Any:
    """Wrap an app by a closure, copying what it changes, bytes by hand."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await app(scope, receive, send)
        found = [value for name, value in scope["headers"] if name == b"x-request-id"]
        request_id = found[0] if found else str(uuid4()).encode()

        async def named(message: Any) -> None:
            if message["type"] in STARTS:
                headers = [*message.get("headers", ()), (b"x-request-id", request_id)]
                message = {**message, "headers": headers}
            await send(message)

        state = {**scope.get("state", {}), "request_id": request_id.decode()}
        return await app({**scope, "state": state}, receive, named)

    return wrapped


@pytest.mark.parametrize("middleware", [Layer, as_function])
async def test_right_answers_pass(middleware) -> None:
    verdict = await check_request_id(middleware, limit=AMPLE)
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


WRONG: list[tuple[str, Any]] = [
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


@pytest.mark.parametrize(("mistake", "middleware"), WRONG)
async def test_wrong_answers_get_their_hint(mistake: str, middleware: Callable[..., Any]) -> None:
    verdict = await check_request_id(middleware, limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message
    kept.clear()


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    assert {mistake.name for mistake in EXERCISE.mistakes} <= {name for name, _ in WRONG}


async def test_an_endless_wait_is_stopped() -> None:
    class Waiting(Layer):
        async def run(self, scope: Any, receive: Any, send: Any) -> None:
            await never()

    before = asyncio.all_tasks()
    assert (await check_request_id(Waiting, limit=0.3)).mistake == "never-ends"
    assert asyncio.all_tasks() == before


async def test_a_coroutine_in_place_of_the_class() -> None:
    assert (await check_request_id(never())).mistake == "wrong-type"
