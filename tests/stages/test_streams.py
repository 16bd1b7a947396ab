"""The scenes of lesson 17: readers, and one like a browser."""

import asyncio
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.sse import EventSourceResponse, ServerSentEvent

from looplab.lab import serve, until
from looplab.stages import streams
from looplab.stages.events import events_client, events_of, like_a_browser

pytestmark = pytest.mark.anyio


@pytest.fixture
def app() -> FastAPI:
    """An app with a stream that ends; ``app.state.ids`` are the ids that were asked for."""
    app = FastAPI()
    app.state.ids = []

    async def remember(scope: Any) -> None:
        app.state.ids.append(dict(scope["headers"]).get(b"last-event-id"))

    @app.middleware("http")
    async def remembered(request: Any, call_next: Any) -> Any:
        await remember(request.scope)
        return await call_next(request)

    @app.get("/news", response_class=EventSourceResponse)
    async def news() -> Any:
        yield ServerSentEvent(data="hello", id=str(len(app.state.ids)))

    @app.get("/done", response_class=EventSourceResponse)
    async def done() -> Any:
        yield ServerSentEvent(data="hello")
        yield ServerSentEvent(data="", event="done")
        yield ServerSentEvent(data="more")

    @app.get("/nothing")
    async def nothing() -> Response:
        return Response(status_code=204)

    return app


async def test_a_browser_asks_again_with_the_last_id(app: FastAPI) -> None:
    async with serve(app) as server, events_client(server.url) as client:
        came = await like_a_browser(client, "/news", times=4)
    assert [event.id for event in came] == ["1", "2", "3", "4"]
    assert app.state.ids == [None, b"1", b"2", b"3"]


async def test_a_browser_stops_at_done_and_at_204(app: FastAPI) -> None:
    async with serve(app) as server, events_client(server.url) as client:
        came = await like_a_browser(client, "/done")
        assert [event.event for event in came] == ["message", "done"]
        assert await like_a_browser(client, "/nothing") == []
    assert len(app.state.ids) == 2


async def test_a_browser_needs_a_time_to_ask(app: FastAPI) -> None:
    async with serve(app) as server, events_client(server.url) as client:
        with pytest.raises(ValueError, match="times is 0; it must be 1 or more"):
            await like_a_browser(client, "/news", times=0)


async def test_leaving_the_block_closes_the_connection(app: FastAPI) -> None:
    left = []

    @app.get("/endless", response_class=EventSourceResponse)
    async def endless() -> Any:
        try:
            yield "hello"
            await asyncio.sleep(60)
        finally:
            left.append(1)

    async with serve(app) as server, events_client(server.url) as client:
        async with events_of(client, "/endless") as events:
            await anext(events)
        await until(lambda: left == [1] and not server.running_requests)


async def test_what_is_no_stream_is_an_error(app: FastAPI) -> None:
    async with serve(app) as server, events_client(server.url) as client:
        with pytest.raises(httpx2.SSEError):
            async with events_of(client, "/nothing") as events:
                await anext(events)


async def test_come_and_leave_counts_who_is_left() -> None:
    app, online = FastAPI(), []

    @app.websocket("/leaves")
    async def leaves(socket: WebSocket) -> None:
        await socket.accept()
        online.append(socket)
        async for _ in socket.iter_text():
            pass
        online.remove(socket)

    @app.websocket("/half")
    async def half(socket: WebSocket) -> None:
        await socket.accept()
        online.append(socket)
        async for _ in socket.iter_text():
            pass
        if len(online) % 2:
            online.append(socket)

    assert await streams.come_and_leave(app, "/leaves", online) == 0
    assert await streams.come_and_leave(app, "/half", online) > 10


async def test_the_lazy_scene_tells_where_it_stopped() -> None:
    app, readers = FastAPI(), []
    gate = asyncio.Event()

    @app.get("/map", response_class=EventSourceResponse)
    async def pictures() -> Any:
        queue: asyncio.Queue[str] = asyncio.Queue()
        readers.append(queue)
        while True:
            yield ServerSentEvent(raw_data=await queue.get())

    async def publish(picture: str) -> None:
        if picture.startswith("4 "):
            await gate.wait()
        for queue in readers:
            queue.put_nowait(picture)

    scene = await streams.lazy_and_quick(app, "/map", publish, readers, streams.are_full)
    assert scene == ([1, 2, 3], [], [], [False, False])


async def test_a_lazy_reader_that_got_nothing_from_its_stream_catches_up_by_another() -> None:
    app, readers, ids = FastAPI(), [], []

    @app.get("/map", response_class=EventSourceResponse)
    async def pictures(request: Request) -> Any:
        ids.append(request.headers.get("last-event-id"))
        if len(ids) > 2:
            yield ServerSentEvent(raw_data=f"{streams.PICTURES} ")
            return
        queue: asyncio.Queue[str] = asyncio.Queue()
        readers.append(queue)
        if len(readers) == 2:
            while True:
                yield ServerSentEvent(raw_data=await queue.get())

    async def publish(picture: str) -> None:
        readers[1].put_nowait(picture)

    scene = await streams.lazy_and_quick(app, "/map", publish, readers, len)
    assert scene.quick == list(range(1, streams.PICTURES + 1))
    assert (scene.lazy, scene.caught_up) == ([], [streams.PICTURES])
    assert ids == [None, None, None]


def test_a_queue_is_full_when_it_has_as_many_as_it_may() -> None:
    queues: list[asyncio.Queue[str]] = [asyncio.Queue(1), asyncio.Queue(2)]
    for queue in queues:
        queue.put_nowait("a picture")
    assert streams.are_full(queues) == [True, False]
