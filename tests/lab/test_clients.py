import asyncio
import contextlib
import inspect
import logging
import os
import socket
import threading
import time
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from looplab.lab import clients
from looplab.lab.clients import (
    ServerDidNotStart,
    ServerDidNotStop,
    get,
    in_process,
    post,
    reach_loopback_directly,
    serve,
)
from looplab.lab.hygiene import caught_leaks

pytestmark = pytest.mark.anyio

AN_ID = UUID("7d3ea1c6-1d5f-4b0a-9c0e-2f1f6a8b9c0d")  # the same for every worker of a test run


def task_name():
    task = asyncio.current_task()
    assert task is not None
    return task.get_name()


def server_threads():
    return [thread for thread in threading.enumerate() if thread.name == "loopback server"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert server_threads() == []


def an_app(events=None, **options):
    events = [] if events is None else events

    @contextlib.asynccontextmanager
    async def lifespan(app):
        events.append("up")
        yield {"greeting": "hello"}
        events.append("down")

    app = FastAPI(lifespan=lifespan, **options)

    @app.get("/greeting")
    async def greeting(request: Request):
        return {"greeting": request.state.greeting}

    @app.get("/plain/{item}")
    async def plain(item: str, more: int = 0):
        return {"item": item, "more": more, "task": task_name()}

    @app.post("/plain")
    async def echo(body: dict):
        return body

    @app.get("/fails")
    async def fails():
        raise ZeroDivisionError("by nought")

    return app


class TestInProcess:
    async def test_the_lifespan_runs_around_the_block_and_its_state_arrives(self):
        events = []
        async with in_process(an_app(events)) as client:
            assert events == ["up"]
            assert (await client.get("/greeting")).json() == {"greeting": "hello"}
        assert events == ["up", "down"]

    async def test_the_lifespan_can_be_left_out(self):
        events = []
        async with in_process(an_app(events), lifespan=False) as client:
            assert (await client.get("/plain/1")).status_code == 200
        assert events == []

    async def test_the_shutdown_runs_in_full_when_the_block_fails(self):
        events = []
        with pytest.raises(KeyError):
            async with in_process(an_app(events)):
                raise KeyError
        assert events == ["up", "down"]

    async def test_what_the_app_raises_is_raised_here(self):
        async with in_process(an_app()) as client:
            with pytest.raises(ZeroDivisionError):
                await client.get("/fails")

    async def test_what_the_startup_raises_is_raised_here(self):
        @contextlib.asynccontextmanager
        async def lifespan(app):
            raise OSError("no database")
            yield

        with pytest.raises(OSError, match="no database"):
            async with in_process(FastAPI(lifespan=lifespan)):
                pass

    async def test_something_that_is_no_app_is_refused(self):
        with pytest.raises(TypeError, match="app is 'shop'"):
            async with in_process("shop"):  # ty: ignore[invalid-argument-type]
                pass


class TestOneRequest:
    async def test_get_answers_in_the_callers_task(self):
        response = await get(an_app(), "/plain/7", lifespan=False, params={"more": 3})
        assert response.json() == {
            "item": "7",
            "more": 3,
            "task": task_name(),
        }

    async def test_post_sends_the_body(self):
        assert (await post(an_app(), "/plain", lifespan=False, json={"a": 1})).json() == {"a": 1}

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("/dashboard", "GET /dashboard"),
            (f"/dashboard/{AN_ID}", "GET /dashboard"),
            (f"/dashboard/{AN_ID.hex}?limit=5", "GET /dashboard"),
            ("/users/42/orders", "GET /users/…/orders"),
            ("/users/42/orders/7", "GET /users/…/orders"),
            ("/v2/users", "GET /v2/users"),
            ("/?page=2", "GET /"),
            ("/42", "GET /"),
        ],
    )
    def test_the_coroutine_is_named_by_method_and_path(self, path, name):
        coroutine = get(an_app(), path, lifespan=False)
        assert inspect.iscoroutine(coroutine)
        assert coroutine.__qualname__ == coroutine.__name__ == name
        coroutine.close()

    @pytest.mark.parametrize("lifespan", [False, True])
    async def test_an_error_is_a_500_where_the_caller_says_so(self, lifespan):
        answer = await get(an_app(), "/fails", lifespan=lifespan, raise_errors=False)
        assert answer.status_code == 500
        with pytest.raises(ZeroDivisionError):
            await get(an_app(), "/fails", lifespan=lifespan)

    async def test_a_client_costs_no_tls_context(self, monkeypatch):
        def forbidden(*args, **options):
            raise AssertionError("a TLS context was built")

        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
        monkeypatch.setattr("ssl.create_default_context", forbidden)
        assert (await get(an_app(), "/plain/1", lifespan=False)).status_code == 200
        async with serve(an_app()) as server, server.client() as client:
            assert (await client.get("/plain/1")).status_code == 200

    @pytest.mark.parametrize("path", ["dashboard", "", None, "http://shop.test/"])
    def test_a_path_that_is_none_is_refused_at_the_call(self, path):
        with pytest.raises(ValueError, match="path is"):
            get(an_app(), path)

    def test_something_that_is_no_app_is_refused_at_the_call(self):
        with pytest.raises(TypeError, match="app is"):
            get(None, "/")  # ty: ignore[invalid-argument-type]


class TestServe:
    async def test_it_answers_over_a_real_socket_with_the_lifespan_run(self):
        events = []
        async with serve(an_app(events)) as server:
            assert server.url == f"http://127.0.0.1:{server.port}"
            async with httpx.AsyncClient(trust_env=False) as client:
                response = await client.get(f"{server.url}/greeting")
            assert response.json() == {"greeting": "hello"}
            assert events == ["up"]
        assert events == ["up", "down"]

    async def test_two_servers_run_side_by_side(self):
        async with serve(an_app()) as one, serve(an_app()) as two:
            assert one.port != two.port
            async with one.client() as first, two.client() as second:
                assert (await first.get("/greeting")).is_success
                assert (await second.get("/greeting")).is_success

    async def test_the_port_is_closed_after_the_block(self):
        async with serve(an_app()) as server:
            pass
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.port)

    async def test_connections_are_counted_where_they_arrive(self):
        async with serve(an_app()) as server:
            assert (server.connections, server.open_connections) == (0, 0)
            async with server.client() as client:
                for _ in range(5):
                    await client.get("/greeting")
                assert (server.connections, server.open_connections) == (1, 1)
            for _ in range(3):
                async with server.client() as client:
                    await client.get("/greeting")
            assert server.connections == 4
            await until(lambda: not server.open_connections)
        assert server.connections == 4

    async def test_a_silent_tcp_connection_counts(self):
        async with serve(an_app()) as server:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            await until(lambda: server.connections == 1)
            assert server.open_connections == 1
            writer.close()
            await writer.wait_closed()
            await until(lambda: not server.open_connections)

    async def test_run_awaits_on_the_servers_loop(self):
        async def where():
            return asyncio.get_running_loop(), threading.current_thread().name

        async with serve(an_app()) as server:
            loop, thread = await server.run(where)
            assert loop is server.loop
            assert loop is not asyncio.get_running_loop()
            assert thread == "loopback server"

            async def fails():
                raise LookupError("there")

            with pytest.raises(LookupError, match="there"):
                await server.run(fails)
        with pytest.raises(RuntimeError):
            await server.run(where)

    async def test_the_loop_is_asyncios_own_unless_another_is_asked_for(self):
        uvloop = pytest.importorskip("uvloop")  # what uvicorn takes by itself where it is installed
        for options, taken in [({}, False), ({"loop": "uvloop"}, True)]:
            async with serve(an_app(), **options) as server, server.client() as client:
                assert isinstance(server.loop, uvloop.Loop) == taken
                assert (await client.get("/plain/1")).status_code == 200

    async def test_cancelling_a_run_cancels_it_there(self):
        started, cancelled = threading.Event(), asyncio.Event()
        here = asyncio.get_running_loop()

        async def forever():
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                here.call_soon_threadsafe(cancelled.set)

        async with serve(an_app()) as server:
            task = asyncio.create_task(server.run(forever))
            await asyncio.to_thread(started.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await cancelled.wait()

    async def test_errors_of_the_app_are_kept_and_nothing_is_logged(self, caplog, capfd):
        async with serve(an_app()) as server, server.client() as client:
            assert (await client.get("/fails")).status_code == 500
        assert [repr(error) for error in server.errors] == ["ZeroDivisionError('by nought')"]
        assert caplog.records == []
        assert capfd.readouterr() == ("", "")

    async def test_the_log_level_can_be_asked_for(self, caplog):
        with caplog.at_level(logging.ERROR, logger="uvicorn.error"):
            async with serve(an_app(), log_level="error") as server, server.client() as client:
                await client.get("/fails")
        assert any("ASGI application" in record.getMessage() for record in caplog.records)

    async def test_signal_handlers_stay_as_they_are(self):
        import signal

        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        async with serve(an_app()):
            assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


class TestHowAServerEnds:
    async def test_a_startup_that_fails_is_told_with_its_cause(self):
        @contextlib.asynccontextmanager
        async def lifespan(app):
            raise OSError("no database")
            yield

        with pytest.raises(ServerDidNotStart, match="no database") as caught:
            async with serve(FastAPI(lifespan=lifespan)):
                pytest.fail("it must not start")
        assert isinstance(caught.value.__cause__, OSError)

    async def test_an_app_without_a_lifespan_is_served(self):
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

        async with serve(app) as server, server.client() as client:
            assert (await client.get("/")).status_code == 204

    async def test_a_shutdown_that_fails_is_told(self):
        @contextlib.asynccontextmanager
        async def lifespan(app):
            yield
            raise OSError("cannot dispose")

        with pytest.raises(OSError, match="cannot dispose"):
            async with serve(FastAPI(lifespan=lifespan)):
                pass

    async def test_an_error_in_the_block_passes_and_the_server_stops(self):
        events = []
        with pytest.raises(KeyError):
            async with serve(an_app(events)):
                raise KeyError
        assert events == ["up", "down"]

    async def test_a_connection_that_comes_while_the_server_stops_is_closed(self):
        with caught_leaks() as failures:
            for _ in range(10):
                async with serve(an_app()) as server:
                    # busy meanwhile, the server hears of both at once
                    server.loop.call_soon_threadsafe(time.sleep, 0.05)
                    late = socket.create_connection((clients.HOST, server.port), timeout=10)
                with late, contextlib.suppress(ConnectionResetError):  # if it was never accepted
                    assert late.recv(1) == b""
        assert failures.resource_warnings == []

    async def test_cancelling_the_block_stops_the_server(self):
        events, inside = [], asyncio.Event()

        async def body():
            async with serve(an_app(events)):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(body())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert events == ["up", "down"]

    async def test_cancelling_while_it_starts_stops_the_server(self):
        starting = asyncio.Event()
        here = asyncio.get_running_loop()

        @contextlib.asynccontextmanager
        async def lifespan(app):
            here.call_soon_threadsafe(starting.set)
            await asyncio.Event().wait()
            yield

        async def body():
            async with serve(FastAPI(lifespan=lifespan)):
                pytest.fail("it must not start")

        task = asyncio.create_task(body())
        await starting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_cancelling_at_once_stops_the_server(self):
        async def body():
            async with serve(an_app()):
                pytest.fail("it must not start")

        for turns in range(4):
            task = asyncio.create_task(body())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def test_cancelling_while_it_stops_still_stops_it(self):
        stopping = asyncio.Event()
        here = asyncio.get_running_loop()

        @contextlib.asynccontextmanager
        async def lifespan(app):
            yield
            here.call_soon_threadsafe(stopping.set)
            await asyncio.Event().wait()

        async def body():
            async with serve(FastAPI(lifespan=lifespan)):
                pass

        task = asyncio.create_task(body())
        await stopping.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_a_request_that_runs_on_gets_its_grace_and_is_cancelled(self):
        here, started, ends = asyncio.get_running_loop(), asyncio.Event(), []
        app = FastAPI()

        @app.get("/endless")
        async def endless():
            async def lines():
                try:
                    while True:
                        yield b"line\n"
                        here.call_soon_threadsafe(started.set)
                        await asyncio.sleep(0.01)
                finally:
                    ends.append("cancelled")

            return StreamingResponse(lines())

        async with serve(app, timeout_graceful_shutdown=0.05) as server:
            client = server.client()
            request = asyncio.create_task(client.get("/endless"))
            await started.wait()
        assert ends == ["cancelled"]
        with contextlib.suppress(httpx.HTTPError):
            await request
        await client.aclose()

    async def test_a_shutdown_that_hangs_is_ended_by_force(self, monkeypatch):
        monkeypatch.setattr(clients, "LIFESPAN_SHUTDOWN", 0.5)
        ends = []

        @contextlib.asynccontextmanager
        async def lifespan(app):
            yield
            try:
                await asyncio.Event().wait()
            finally:
                ends.append("cancelled")

        async with serve(FastAPI(lifespan=lifespan), timeout_graceful_shutdown=0.05):
            pass
        assert ends == ["cancelled"]

    async def test_a_thread_that_cannot_be_ended_is_told(self, monkeypatch):
        monkeypatch.setattr(clients, "LIFESPAN_SHUTDOWN", 0.5)
        monkeypatch.setattr(clients, "FORCED", 0.05)
        release = threading.Event()

        @contextlib.asynccontextmanager
        async def lifespan(app):
            yield
            release.wait()

        with pytest.raises(ServerDidNotStop, match="blocks its thread"):
            async with serve(FastAPI(lifespan=lifespan), timeout_graceful_shutdown=0.05):
                pass
        (thread,) = server_threads()
        release.set()
        await asyncio.to_thread(thread.join)

    async def test_stopping_does_not_hold_the_callers_loop(self):
        here, answers = asyncio.get_running_loop(), []

        @contextlib.asynccontextmanager
        async def lifespan(app):
            yield
            answered = threading.Event()
            here.call_soon_threadsafe(answered.set)
            answers.append(answered.wait(timeout=30))

        async with serve(FastAPI(lifespan=lifespan)):
            pass
        assert answers == [True]

    @pytest.mark.parametrize("option", ["host", "port", "workers", "reload"])
    async def test_what_is_fixed_is_refused(self, option):
        with pytest.raises(ValueError, match=f"{option} is 1"):
            async with serve(an_app(), **{option: 1}):
                pass

    async def test_an_option_that_uvicorn_lacks_is_refused(self):
        with pytest.raises(TypeError, match="colour"):
            async with serve(an_app(), colour="red"):
                pass


async def until(condition):
    while not condition():  # noqa: ASYNC110 (another thread changes it, and sets no event)
        await asyncio.sleep(0)


async def test_each_request_has_a_state_of_its_own_in_process() -> None:
    both_set = asyncio.Barrier(2)
    app = an_app()

    @app.get("/mine/{name}")
    async def mine(name: str, request: Request):
        request.state.name = name
        await both_set.wait()
        return {"name": request.state.name, "greeting": request.state.greeting}

    async with in_process(app) as client:
        answers = await asyncio.gather(client.get("/mine/a"), client.get("/mine/b"))
        later = await client.get("/greeting")
    assert [answer.json()["name"] for answer in answers] == ["a", "b"]
    assert {answer.json()["greeting"] for answer in [*answers, later]} == {"hello"}


class TestProxies:
    @pytest.fixture
    def environment(self, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
        for name in ("http", "https", "all", "no"):
            monkeypatch.delenv(f"{name}_proxy", raising=False)
            monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)
        return monkeypatch

    def test_without_a_proxy_nothing_changes(self, environment: pytest.MonkeyPatch) -> None:
        before = dict(os.environ)
        reach_loopback_directly()
        assert dict(os.environ) == before

    def test_a_proxy_is_not_asked_for_loopback(self, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("http_proxy", "http://proxy.test:3128")
        environment.setenv("no_proxy", "example.org")
        environment.setenv("NO_PROXY", "example.org")
        reach_loopback_directly()
        reach_loopback_directly()
        assert os.environ["no_proxy"] == "example.org,127.0.0.1"

    @pytest.mark.anyio
    async def test_a_client_of_ones_own_reaches_the_server(
        self, environment: pytest.MonkeyPatch
    ) -> None:
        environment.setenv("no_proxy", "")  # so that both names are restored afterwards
        environment.setenv("NO_PROXY", "")
        environment.setenv("http_proxy", "http://127.0.0.1:9")
        reach_loopback_directly()
        async with serve(FastAPI()) as server, httpx.AsyncClient() as client:
            assert (await client.get(f"{server.url}/openapi.json")).status_code == 200
