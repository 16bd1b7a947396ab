"""Lesson 10's shipped layer and dependency, attacked as production would."""

import asyncio
import logging
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, WebSocket
from fastapi.responses import StreamingResponse

from looplab.lab import in_process, serve
from looplab.shop.log_lines import note_log
from looplab.stages.wrapping import events, open_noting_shop

pytestmark = pytest.mark.anyio

LAYER = ("setup", "pattern-header", "pattern-middleware")


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
async def layer(cells_of: Any, lines: list[str]) -> Any:
    """The lesson's layer, whose log goes to ``lines``."""
    names = await cells_of("10").define(*LAYER)
    logger = names["logger"] = note_log("shop.test", lines.append)
    assert logger.isEnabledFor(logging.INFO)
    return names["ASGITimingMiddleware"]


def app_with(endpoint: Any, path: str = "/") -> FastAPI:
    app = FastAPI()
    app.get(path)(endpoint)
    return app


async def test_a_404_a_500_and_an_answer_are_each_timed_once(layer: Any, lines: list[str]) -> None:
    async def missing() -> None:
        raise HTTPException(404)

    async def broken() -> None:
        raise RuntimeError("a bug")

    async def fine() -> str:
        return "fine"

    for endpoint, status in ((missing, 404), (broken, 500), (fine, 200)):
        lines.clear()
        async with in_process(layer(app_with(endpoint)), raise_errors=False) as client:
            response = await client.get("/")
        assert response.status_code == status
        assert "X-Process-Time" in response.headers
        assert len(lines) == 1


async def test_the_cards_layer_logs_a_failure_only_where_it_is_wrapped_around(
    cells_of: Any, lines: list[str]
) -> None:
    names = await cells_of("10").define("setup", "naive-middleware")
    names["logger"] = note_log("shop.test", lines.append)

    async def broken() -> None:
        raise RuntimeError("a bug")

    added = app_with(broken)
    added.add_middleware(names["TimingMiddleware"])
    for app, logged in ((added, 0), (names["TimingMiddleware"](app_with(broken)), 1)):
        lines.clear()
        async with in_process(app, raise_errors=False) as client:
            assert (await client.get("/")).status_code == 500
        assert len(lines) == logged


async def test_a_body_that_is_cut_is_logged_and_the_reader_learns_of_it(
    layer: Any, lines: list[str]
) -> None:
    async def cut() -> StreamingResponse:
        async def rows():
            yield "first\n"
            raise RuntimeError("a bug")

        return StreamingResponse(rows())

    async with serve(layer(app_with(cut))) as server, server.client() as client:
        with pytest.raises(Exception, match="peer closed connection"):
            await client.get("/")
    assert len(lines) == 1
    assert [str(error) for error in server.errors] == ["a bug"]


async def test_a_path_can_forge_no_line_and_no_escape_code(layer: Any, lines: list[str]) -> None:
    async with in_process(layer(FastAPI())) as client:
        for path in ("/x%0a2026-01-01 INFO paid", "/x%0d%0aforged", "/x%1b[2Jcleared"):
            await client.get(path)
    assert len(lines) == 3
    assert not [line for line in lines if any(character < " " for character in line)]


async def test_a_websocket_and_the_lifespan_pass_untouched(layer: Any, lines: list[str]) -> None:
    started = []

    async def lifespan_of(app: FastAPI):
        started.append(True)
        yield

    app = FastAPI(lifespan=lifespan_of)

    @app.websocket("/chat")
    async def chat(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.close()

    async with serve(layer(app)) as server, server.websocket("/chat") as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
    assert started == [True]
    assert lines == []


async def test_two_requests_at_once_have_times_of_their_own(layer: Any) -> None:
    async def wait(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    async with in_process(layer(app_with(wait, "/wait/{seconds}"))) as client:
        short, long = await asyncio.gather(client.get("/wait/0"), client.get("/wait/0.2"))
    times = [float(one.headers["X-Process-Time"]) for one in (short, long)]
    assert times[0] < times[1]
    assert times[1] >= 0.19


async def test_the_shipped_dependency_gives_the_connection_back_when_a_reader_leaves(
    cells_of: Any,
) -> None:
    lesson = cells_of("10")
    shop, lesson.names["sessions"] = await open_noting_shop()
    cells = ("breaks-session-lines", "breaks-session-app", "breaks-session-fixed")
    names = await lesson.run("setup", *cells)
    try:
        async with (
            serve(names["exports"]) as server,
            server.client() as client,
            client.stream("GET", "/fixed") as response,
        ):
            await anext(response.aiter_raw())
        assert events[-1] == "session closed"
        assert shop.checked_out == 0
    finally:
        await shop.close()
