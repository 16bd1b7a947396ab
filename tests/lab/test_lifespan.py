"""A request without the lifespan that it needs, and a second run of a lifespan that ran once."""

import asyncio
import contextlib
import functools
import inspect
import traceback
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from starlette.applications import Starlette
from starlette.routing import Router

from looplab.lab import clients
from looplab.lab.clients import (
    LifespanNotRun,
    LifespanTooLong,
    ServerDidNotStart,
    get,
    in_process,
    post,
    serve,
)
from looplab.lab.errors import LessonError
from looplab.lab.lifespan import AGAIN, has_lifespan

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def lifespan(app):
    yield {"greeting": "hello"}


def greeting_app(own=lifespan):
    app = FastAPI(lifespan=own)

    @app.get("/")
    async def index(request: Request):
        return getattr(request.state, "greeting", "nobody")

    return app


class Layer:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


class Hidden:
    """Middleware that keeps the app under a name of its own."""

    def __init__(self, app):
        self.inside = app

    async def __call__(self, scope, receive, send):
        await self.inside(scope, receive, send)


def with_router(**options):
    app = FastAPI()
    app.include_router(APIRouter(**options))
    app.include_router(APIRouter())
    return app


def with_handler(moment):
    app = FastAPI()
    app.router.add_event_handler(moment, print)
    return app


async def pure(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


class TestHasLifespan:
    @pytest.mark.parametrize(
        ("app", "has"),
        [
            (FastAPI(), False),
            (Starlette(), False),
            (Router(), False),
            (FastAPI(lifespan=lifespan), True),
            (Starlette(lifespan=lifespan), True),
            (FastAPI(on_startup=[print]), True),
            (with_handler("shutdown"), True),
            (with_router(), False),
            (with_router(lifespan=lifespan), True),
            (Layer(Layer(FastAPI())), False),
            (Layer(Layer(FastAPI(lifespan=lifespan))), True),
            (pure, None),
            (Hidden(FastAPI(lifespan=lifespan)), None),
        ],
    )
    def test_it_is_told_of_fastapi_and_starlette_apps_and_through_layers(self, app, has):
        assert has_lifespan(app) is has

    def test_a_layer_around_itself_ends(self):
        layer = Layer(None)
        layer.app = layer
        assert has_lifespan(layer) is None


class TestOneRequest:
    @pytest.mark.parametrize("call", [get, post])
    def test_an_app_with_a_lifespan_is_refused_with_the_ways_out(self, call):
        name = call.__name__
        with pytest.raises(LifespanNotRun) as refused:
            call(Layer(greeting_app()), "/orders")
        (sentence,) = refused.value._render_traceback_()
        assert f"{name}() runs no lifespan, and this app has one" in sentence
        assert f"async with in_process(app) as client:` by `await client.{name}('/orders')" in (
            sentence
        )
        assert "lifespan=False" in sentence
        assert isinstance(refused.value, LessonError)

    async def test_without_lifespan_it_is_not_run(self):
        assert (await get(greeting_app(), "/", lifespan=False)).json() == "nobody"

    async def test_with_lifespan_it_runs_around_the_request(self):
        events = []

        @contextlib.asynccontextmanager
        async def noted(app):
            events.append("up")
            yield {"greeting": "hello"}
            events.append("down")

        assert (await get(greeting_app(noted), "/", lifespan=True)).json() == "hello"
        assert events == ["up", "down"]

    async def test_an_app_without_a_lifespan_needs_no_word(self):
        assert (await get(greeting_app(None), "/")).json() == "nobody"
        assert (await get(pure, "/")).status_code == 204


class TestTooLong:
    @pytest.mark.parametrize(
        ("phase", "limit"), [("startup", "LIFESPAN_STARTUP"), ("shutdown", "LIFESPAN_SHUTDOWN")]
    )
    async def test_a_lifespan_that_hangs_in_process_is_cancelled_and_told(
        self, monkeypatch, phase, limit
    ):
        monkeypatch.setattr(clients, limit, 0.05)
        ends = []

        @contextlib.asynccontextmanager
        async def hangs(app):
            try:
                if phase == "startup":
                    await asyncio.Event().wait()
                yield
                await asyncio.Event().wait()
            finally:
                ends.append("cleaned up")

        words = f"The app's {phase} did not end within 0.05 s, and was cancelled"
        with pytest.raises(LifespanTooLong, match=words):
            async with in_process(FastAPI(lifespan=hangs)):
                pass
        assert ends == ["cleaned up"]

    async def test_a_startup_that_hangs_on_a_server_is_told(self, monkeypatch):
        monkeypatch.setattr(clients, "LIFESPAN_STARTUP", 0.05)

        @contextlib.asynccontextmanager
        async def hangs(app):
            await asyncio.Event().wait()
            yield

        with pytest.raises(ServerDidNotStart, match=r"startup did not end within 0\.05 s"):
            async with serve(FastAPI(lifespan=hangs)):
                pytest.fail("it must not start")

    @pytest.mark.parametrize("phase", ["startup", "shutdown"])
    async def test_the_apps_own_timeout_error_stays_what_it_is(self, phase):
        @contextlib.asynccontextmanager
        async def late(app):
            if phase == "startup":
                raise TimeoutError("the database is late")
            yield
            raise TimeoutError("the database is late")

        with pytest.raises(TimeoutError, match="the database is late") as raised:
            async with in_process(FastAPI(lifespan=late)):
                pass
        assert not isinstance(raised.value, LifespanTooLong)


# ---------------------------------------------------------------- a second run


def closes_its_client():
    """An app that starts twice, and whose requests fail the second time."""
    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200)))

    @contextlib.asynccontextmanager
    async def once(app):
        yield
        await client.aclose()

    app = FastAPI(lifespan=once)

    @app.get("/")
    async def index():
        return (await client.get("http://partner.test/")).status_code

    return app


def refuses_a_second_start():
    """An app whose startup fails the second time, as where a manager can be entered only once."""
    used = []

    @contextlib.asynccontextmanager
    async def once(app):
        used.append(app)
        if len(used) > 1:
            raise RuntimeError("can be entered once")
        yield

    return greeting_app(once)


def takes_no_part_a_second_time():
    """An app that raises at its second lifespan before it takes part in it.

    A server must take this for an app that has no lifespan, and go on: without a word.
    """
    inner, used = greeting_app(), []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            used.append(scope)
            if len(used) > 1:
                raise RuntimeError("can be entered once")
        await inner(scope, receive, send)

    return app


async def run_in_process(app):
    async with in_process(app) as client:
        return (await client.get("/")).status_code


async def run_on_a_server(app):
    async with serve(app) as server, server.client() as client:
        return (await client.get("/")).status_code


BROKEN: list[Callable[[], Any]] = [refuses_a_second_start, takes_no_part_a_second_time]


class TestSecondRun:
    @pytest.mark.parametrize("run", [run_in_process, run_on_a_server])
    async def test_an_app_that_can_run_twice_does_so_without_a_word(self, run):
        app = greeting_app()
        assert [await run(app) for _ in range(3)] == [200] * 3

    @pytest.mark.parametrize("make", BROKEN)
    @pytest.mark.parametrize("layer", [lambda app: app, Layer], ids=["bare", "in a new layer"])
    async def test_a_server_that_cannot_start_again_says_why(self, make, layer):
        app = make()
        assert await run_on_a_server(layer(app)) == 200
        with pytest.raises(ServerDidNotStart) as told:
            await run_on_a_server(layer(app))
        assert str(told.value) == (
            f"The server did not start: RuntimeError('can be entered once'). {AGAIN}"
        )

    @pytest.mark.parametrize("make", BROKEN)
    @pytest.mark.parametrize("first", [run_in_process, run_on_a_server])
    async def test_in_process_the_apps_error_carries_a_note(self, make, first):
        app = make()
        assert await first(app) == 200
        with pytest.raises(RuntimeError, match="can be entered once") as told:
            await run_in_process(app)
        assert told.value.__notes__ == [AGAIN]
        assert AGAIN in "".join(traceback.format_exception(told.value))

    async def test_an_error_of_a_request_carries_the_note_in_process(self):
        app = closes_its_client()
        assert await run_in_process(app) == 200
        with pytest.raises(RuntimeError, match="has been closed") as told:
            await run_in_process(app)
        assert told.value.__notes__ == [AGAIN]

    async def test_an_error_of_a_request_carries_the_note_on_a_server(self):
        app = closes_its_client()
        assert await run_on_a_server(app) == 200
        async with serve(app) as server, server.client() as client:
            assert (await client.get("/")).status_code == 500
        (error,) = server.errors
        assert error.__notes__ == [AGAIN]

    @pytest.mark.parametrize("own", [None, lifespan])
    async def test_an_error_in_a_first_run_or_without_a_lifespan_carries_none(self, own):
        app = greeting_app(own)

        @app.get("/fails")
        async def fails():
            raise ZeroDivisionError

        for _ in range(2 if own is None else 1):
            async with in_process(app) as client:
                with pytest.raises(ZeroDivisionError) as raised:
                    await client.get("/fails")
            assert not hasattr(raised.value, "__notes__")

    async def test_a_run_beside_another_is_no_second_run(self):
        app = greeting_app()

        @app.get("/fails")
        async def fails():
            raise ZeroDivisionError

        async with in_process(app), in_process(app) as client:
            with pytest.raises(ZeroDivisionError) as raised:
                await client.get("/fails")
        assert not hasattr(raised.value, "__notes__")


class TestAppsWithoutALifespan:
    """The specification lets such an app raise; whatever runs it goes on without."""

    @pytest.mark.parametrize("run", [run_in_process, run_on_a_server])
    async def test_an_app_that_refuses_the_lifespan_is_called_without(self, run):
        assert [await run(pure) for _ in range(2)] == [204, 204]

    async def test_a_startup_that_a_layer_hides_from_the_server_is_told(self):
        class Fails(Layer):
            async def __call__(self, scope, receive, send):
                if scope["type"] == "lifespan":
                    await receive()
                    raise OSError("no database")
                await self.app(scope, receive, send)

        with pytest.raises(ServerDidNotStart, match="no database"):
            await run_on_a_server(Fails(greeting_app()))

    def test_a_partial_is_an_app_too(self):
        coroutine = get(functools.partial(pure), "/")
        assert inspect.iscoroutine(coroutine)
        coroutine.close()
