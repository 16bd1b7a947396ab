"""The proxy of lesson 17 does what nginx does."""

import asyncio
import shutil
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from looplab.lab import serve, until
from looplab.lab.clients import LoopbackServer
from looplab.stages.events import events_client
from looplab.stages.proxy import through_proxy

pytestmark = pytest.mark.anyio

SILENCE = 1  # second: what nginx can be told is whole seconds
OPEN = {"X-Accel-Buffering": "no"}

Through = Callable[[LoopbackServer], AbstractAsyncContextManager[httpx2.AsyncClient]]


@pytest.fixture
def app() -> FastAPI:
    """An app whose streams wait, after each piece, until the client says go on."""
    app = FastAPI()
    app.state.go_on = asyncio.Semaphore(0)
    app.state.begun = app.state.left = 0
    app.state.ended = False

    async def pieces(size: int) -> AsyncGenerator[bytes]:
        app.state.begun += 1
        try:
            for _ in range(3):
                yield b"x" * size
                await app.state.go_on.acquire()
            app.state.ended = True
        except asyncio.CancelledError:
            app.state.left += 1
            raise

    @app.get("/kept")
    async def kept(size: int = 3) -> StreamingResponse:
        return StreamingResponse(pieces(size), media_type="text/event-stream")

    @app.get("/passed")
    async def passed(size: int = 3) -> StreamingResponse:
        return StreamingResponse(pieces(size), headers=OPEN, media_type="text/event-stream")

    @app.get("/silent")
    async def silent() -> None:
        await app.state.go_on.acquire()

    @app.get("/echo")
    async def echo(request: Request) -> dict[str, str]:
        return {"query": request.url.query, "id": request.headers["last-event-id"]}

    return app


@pytest.fixture(params=["ours", "nginx"])
def proxied(
    request: pytest.FixtureRequest,
    missing: Callable[[str], None],
    serving: Callable[..., AbstractContextManager[None]],
    free_tcp_port: int,
    tmp_path: Path,
) -> Through:
    """Return a function that puts a proxy before a server: ours, or a real nginx."""
    program = shutil.which("nginx")
    if request.param == "nginx" and program is None:
        missing("no nginx on the PATH")

    @asynccontextmanager
    async def ours(server: LoopbackServer) -> AsyncGenerator[httpx2.AsyncClient]:
        async with through_proxy(server, silence=SILENCE) as client:
            yield client

    @asynccontextmanager
    async def nginx(server: LoopbackServer) -> AsyncGenerator[httpx2.AsyncClient]:
        folders = " ".join(
            f"{kind}_temp_path {tmp_path}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = tmp_path / "nginx.conf"
        config.write_text(
            f"daemon off; pid {tmp_path}/pid; error_log stderr; worker_processes 1;\n"
            "events {}\n"
            f"http {{ access_log off; {folders}\n"
            f"  server {{ listen 127.0.0.1:{free_tcp_port};\n"
            f"    location / {{ proxy_pass {server.url};\n"
            f"      proxy_read_timeout {SILENCE}s; }} }} }}\n"
        )

        def answers() -> bool:
            with socket.socket() as one:
                return one.connect_ex(("127.0.0.1", free_tcp_port)) == 0

        command = [str(program), "-p", str(tmp_path), "-c", str(config)]
        with serving(command, tmp_path / "log", answers):
            async with events_client(f"http://127.0.0.1:{free_tcp_port}") as client:
                yield client

    return ours if request.param == "ours" else nginx


def go_on(server: LoopbackServer, app: FastAPI, times: int = 1) -> None:
    for _ in range(times):
        server.loop.call_soon_threadsafe(app.state.go_on.release)


async def test_a_stream_is_kept_until_it_ends(app: FastAPI, proxied: Through) -> None:
    async with serve(app) as server, proxied(server) as client:

        async def read() -> list[bool]:
            """Return, for each piece, whether the app had made all of them when it came."""
            async with client.stream("GET", "/kept") as answer:
                return [app.state.ended async for _ in answer.aiter_raw()]

        reading = asyncio.create_task(read())
        await until(lambda: app.state.begun == 1)
        for _ in range(3):
            await asyncio.sleep(SILENCE / 10)  # so that pieces that are passed on come one by one
            go_on(server, app)
        assert all(await reading)


async def test_a_stream_that_says_so_is_passed_on(app: FastAPI, proxied: Through) -> None:
    async with serve(app) as server, proxied(server) as client:
        async with client.stream("GET", "/passed") as answer:
            chunks = answer.aiter_raw()
            for _ in range(3):
                assert await anext(chunks) == b"xxx"
                go_on(server, app)
            assert [chunk async for chunk in chunks] == []
        assert "x-accel-buffering" not in answer.headers
        assert answer.headers["content-type"].startswith("text/event-stream")


async def test_a_full_buffer_is_passed_on(app: FastAPI, proxied: Through) -> None:
    async with serve(app) as server, proxied(server) as client:
        async with client.stream("GET", "/kept?size=100000") as answer:
            assert len(await anext(answer.aiter_raw())) > 0
        go_on(server, app, 3)


async def test_a_reader_who_leaves_is_missed_by_the_app(app: FastAPI, proxied: Through) -> None:
    async with serve(app) as server, proxied(server) as client:
        async with client.stream("GET", "/passed") as answer:
            await anext(answer.aiter_raw())
        await until(lambda: app.state.left == 1)


async def test_a_silent_stream_is_cut_off(app: FastAPI, proxied: Through) -> None:
    async with serve(app) as server, proxied(server) as client:
        async with client.stream("GET", "/passed") as answer:
            chunks = answer.aiter_raw()
            assert await anext(chunks) == b"xxx"
            with pytest.raises(httpx2.RemoteProtocolError):
                await anext(chunks)
        await until(lambda: app.state.left == 1)


async def test_an_app_that_does_not_begin_is_a_504(app: FastAPI, proxied: Through) -> None:
    async with serve(app) as server, proxied(server) as client:
        assert (await client.get("/silent")).status_code == 504
        go_on(server, app)


async def test_queries_and_headers_are_passed_on(app: FastAPI, proxied: Through) -> None:
    async with serve(app) as server, proxied(server) as client:
        answer = await client.get("/echo?a=1&b=2", headers={"Last-Event-ID": "7"})
    assert answer.json() == {"query": "a=1&b=2", "id": "7"}


@pytest.mark.parametrize("silence", [0, -1])
async def test_a_patience_below_zero_is_refused(app: FastAPI, silence: float) -> None:
    async with serve(app) as server:
        with pytest.raises(ValueError, match=rf"silence is {silence}; it must be above 0"):
            async with through_proxy(server, silence=silence):
                pass
