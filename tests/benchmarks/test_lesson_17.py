"""How near lesson 17's stream is to its bound, and what its broadcast costs beside its rivals."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from anyio import WouldBlock, create_memory_object_stream
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from looplab.lab import compare, serve
from looplab.stages import streams
from looplab.stages.events import events_client, events_of

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

ROUNDS = 9
READERS = 1_000
EVENTS = 2_000
CELLS = ("naive-app", "pattern-app", "ship-broadcast", "ship-join")


@pytest.fixture
def lesson(names_of: Any) -> dict[str, Any]:
    """Return the names that the lesson's cells define."""
    given = {
        "FastAPI": FastAPI,
        "deque": deque,
        "contextmanager": contextmanager,
        "WouldBlock": WouldBlock,
        "create_memory_object_stream": create_memory_object_stream,
        "EventSourceResponse": EventSourceResponse,
        "write_answer": streams.write_answer,
    }
    return names_of("17", CELLS, **given)


async def test_the_words_come_when_they_are_written(lesson: dict[str, Any], figures: Any) -> None:
    ways: dict[str, Callable[..., Any]] = {
        "last word": streams.read_words,
        "first word": streams.read_first,
    }
    ideal = {"last word": streams.expected(10), "first word": streams.expected(1)}
    async with serve(lesson["app"]) as server, events_client(server.url) as client:
        reads = {name: partial(read, client) for name, read in ways.items()}
        timing = await compare(reads, repeat=ROUNDS, ideal=ideal, show=False)
    with figures("lesson 17, ten words of a model on a real server") as table:
        for name in ways:
            table.at_most(f"{name}, of its bound", timing.of_ideal(name), 1.2)


async def test_publishing_to_a_thousand_readers_costs_little_more_than_queues_alone(
    lesson: dict[str, Any], figures: Any
) -> None:
    """The rival is the shortest code that bounds what each reader has: a queue, and QueueFull."""
    board = lesson["Broadcast"](size=20)
    queues: list[asyncio.Queue[Any]] = [asyncio.Queue(20) for _ in range(READERS)]
    number = 0

    def publish_to_queues(message: Any) -> None:
        nonlocal number
        number += 1
        for queue in list(queues):
            try:
                queue.put_nowait((number, message))
            except asyncio.QueueFull:
                queues.remove(queue)

    async def to_board() -> None:
        for count in range(10):
            board.publish(count)
        for receive in joined:
            for _ in range(10):
                receive.receive_nowait()

    async def to_queues() -> None:
        for count in range(10):
            publish_to_queues(count)
        for queue in queues:
            for _ in range(10):
                queue.get_nowait()

    blocks = [lesson["joined"](board) for _ in range(READERS)]
    joined = [block.__enter__() for block in blocks]
    ways = {"board": to_board, "queues": to_queues}
    timing = await compare(ways, repeat=ROUNDS, show=False)
    for block in blocks:
        block.__exit__(None, None, None)
    with figures("lesson 17, ten messages to a thousand readers, and taken by them") as table:
        for name in ways:
            table.only(f"{name}, a message", timing.median(name) / 10 * 1e3, "ms")
        table.at_most("board, of queues", timing.ratio("board", "queues"), 1.1)


async def test_fastapis_events_beside_a_response_written_by_hand(figures: Any) -> None:
    app = FastAPI()

    @app.get("/fastapi", response_class=EventSourceResponse)
    async def fastapis() -> AsyncGenerator[ServerSentEvent]:
        for count in range(EVENTS):
            yield ServerSentEvent(raw_data=f"order {count}")

    @app.get("/by-hand")
    async def by_hand() -> StreamingResponse:
        async def lines() -> AsyncGenerator[str]:
            for count in range(EVENTS):
                yield f"data: order {count}\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def read(client: Any, path: str) -> None:
        async with events_of(client, path) as events:
            assert len([event async for event in events]) == EVENTS

    async with serve(app) as server, events_client(server.url) as client:
        ways = {path: partial(read, client, f"/{path}") for path in ("fastapi", "by-hand")}
        timing = await compare(ways, repeat=ROUNDS, show=False)
    with figures("lesson 17, two thousand events as fast as they go") as table:
        for name in ways:
            table.only(f"{name}, an event", timing.median(name) / EVENTS * 1e6, "µs")
        table.only("FastAPI's, of a response by hand", timing.ratio("fastapi", "by-hand"))
