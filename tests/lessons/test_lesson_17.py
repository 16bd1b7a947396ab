"""Lesson 17: what its streams, its WebSocket and its broadcast do when things go wrong."""

import ast
import asyncio
import contextlib
import gc
import inspect
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import httpx2
import pytest
from fastapi import FastAPI
from fastapi.sse import ServerSentEvent
from websockets.exceptions import ConnectionClosed

from looplab.exercises.open_connections import PriceBoard
from looplab.lab import serve, until
from looplab.stages import streams
from looplab.stages.events import events_client, events_of
from looplab.stages.proxy import through_proxy
from looplab.stages.services import stopped_with_a_reader

pytestmark = pytest.mark.anyio

LARGE = "." * 200_000


@pytest.fixture
async def lesson(cells_of: Any) -> SimpleNamespace:
    """Return what the lesson defines, with an app of its own."""
    cells = cells_of("17")
    await cells.run("setup")
    names = cells.names
    names["app"] = FastAPI()
    await cells.define("naive-app")
    await cells.run("pattern-app")
    names["answer_app"] = names["app"]
    await cells.run("ship-broadcast", "ship-join", "ship-endpoint")
    return SimpleNamespace(**names, all=names)


@pytest.fixture
async def kitchens(cells_of: Any) -> SimpleNamespace:
    """Return what the second helping defines for its kitchen screens."""
    cells = cells_of("17_deeper")
    await cells.run("setup", "left-app", "left-fixed")
    return SimpleNamespace(**cells.names, all=cells.names)


async def closed_with(socket: Any) -> int | None:
    """Return the code with which the server closes a WebSocket."""
    with pytest.raises(ConnectionClosed) as caught:
        await socket.recv()
    return caught.value.rcvd.code if caught.value.rcvd else None


# ---------------------------------------------------------------- the stream of words


async def test_the_model_stops_when_its_reader_has_left(lesson: SimpleNamespace) -> None:
    streams.written.clear()
    async with serve(lesson.answer_app) as server, events_client(server.url) as client:
        async with events_of(client, "/answer") as events:
            await anext(events)
        await until(lambda: not server.running_requests)
    assert 1 <= len(streams.written) < 10
    assert server.errors == []


async def test_a_model_that_fails_ends_its_answer_and_is_reported(lesson: SimpleNamespace) -> None:
    read = asyncio.Event()

    async def fails() -> Any:
        yield "Your"
        await read.wait()  # FastAPI drops what it has not sent when its generator fails
        raise ConnectionError("the model is away")

    lesson.all["write_answer"] = fails
    async with serve(lesson.answer_app) as server, events_client(server.url) as client:
        async with events_of(client, "/answer") as events:
            assert (await anext(events)).json() == "Your"
            server.loop.call_soon_threadsafe(read.set)
            # Whether that looks like an end or like a cut is FastAPI's and chance's.
            with contextlib.suppress(httpx2.RemoteProtocolError):
                assert [event async for event in events] == []
        await until(lambda: not server.running_requests)
    assert len(server.errors) == 1


async def test_twenty_readers_each_get_every_word(lesson: SimpleNamespace) -> None:
    async def read(client: Any) -> list[Any]:
        async with events_of(client, "/answer") as events:
            return [event.json() async for event in events]

    async with serve(lesson.answer_app) as server, events_client(server.url) as client:
        read_by_all = await asyncio.gather(*[read(client) for _ in range(20)])
    assert read_by_all == [streams.WORDS] * 20


# ---------------------------------------------------------------- the WebSocket


@pytest.fixture
def sends(kitchens: SimpleNamespace) -> Callable[..., None]:
    """Return a function that puts another sender in place of the lesson's."""
    return partial(kitchens.all.__setitem__, "send_orders")


async def test_a_client_whose_network_is_gone_is_off_the_list(kitchens: SimpleNamespace) -> None:
    async with serve(kitchens.left_app) as server:
        async with server.websocket("/kitchen", close_timeout=0.05) as socket:
            await until(lambda: len(kitchens.online) == 1)
            socket.transport.abort()
            await until(lambda: not server.running_requests)
        assert kitchens.online == []
    assert server.errors == []


async def test_a_sender_that_fails_closes_the_connection(
    kitchens: SimpleNamespace, sends: Callable[..., None]
) -> None:
    async def fails(socket: Any) -> None:
        raise LookupError("no such kitchen")

    sends(fails)
    async with serve(kitchens.left_app) as server, server.websocket("/kitchen") as socket:
        await closed_with(socket)
        await until(lambda: not server.running_requests)
        assert kitchens.online == []
    (error,) = server.errors
    assert isinstance(error, ExceptionGroup)
    assert isinstance(error.exceptions[0], LookupError)


async def test_the_last_order_ends_both_tasks(kitchens: SimpleNamespace, cells_of: Any) -> None:
    async def at_once() -> str:
        return "order 2"

    kitchens.all["streams"] = SimpleNamespace(next_order=at_once)
    async with serve(kitchens.left_app) as server, server.websocket("/kitchen") as socket:
        assert await socket.recv() == "order 2"
        assert await closed_with(socket) == 1000
        await until(lambda: not server.running_requests)
        assert kitchens.online == []
    assert server.errors == []


async def test_an_order_for_a_client_who_has_left_is_no_error(
    kitchens: SimpleNamespace, sends: Callable[..., None]
) -> None:
    send_orders, gate = kitchens.send_orders, asyncio.Event()

    async def wait_for_the_gate() -> str:
        await gate.wait()
        return "order 2"

    async def sends_while_it_is_cancelled(socket: Any) -> None:
        try:
            await gate.wait()
        finally:
            await send_orders(socket)

    kitchens.all["streams"] = SimpleNamespace(next_order=wait_for_the_gate)
    sends(sends_while_it_is_cancelled)
    async with serve(kitchens.left_app) as server:
        async with server.websocket("/kitchen"):
            await until(lambda: len(kitchens.online) == 1)
        server.loop.call_soon_threadsafe(gate.set)
        await until(lambda: not server.running_requests)
        assert kitchens.online == []
    assert server.errors == []


async def test_a_client_that_talks_is_listened_to(kitchens: SimpleNamespace) -> None:
    async with serve(kitchens.left_app) as server:
        async with server.websocket("/kitchen") as socket:
            for number in range(200):
                await socket.send(f"hello {number}")
        await until(lambda: not server.running_requests)
    assert (kitchens.online, server.errors) == ([], [])


async def test_a_client_that_sends_bytes_is_disconnected(kitchens: SimpleNamespace) -> None:
    async with serve(kitchens.left_app) as server, server.websocket("/kitchen") as socket:
        await socket.send(b"\x00")
        await closed_with(socket)
        await until(lambda: not server.running_requests)
        assert kitchens.online == []


async def test_a_shutdown_ends_the_websockets_before_its_grace_is_over(
    kitchens: SimpleNamespace,
) -> None:
    async with serve(kitchens.left_app, timeout_graceful_shutdown=60) as server:
        socket = await server.websocket("/kitchen")
        await until(lambda: len(kitchens.online) == 1)
    # left long before the 60 s, or the lab would have given up
    assert await closed_with(socket) == 1012
    await socket.close()
    assert (kitchens.online, server.errors) == ([], [])


# ---------------------------------------------------------------- the broadcast


async def test_a_reader_keeps_what_it_had_when_it_is_dropped(lesson: SimpleNamespace) -> None:
    board = lesson.Broadcast(size=3)
    with lesson.joined(board) as messages:
        for number in range(5):
            board.publish(f"order {number}")
        assert board.readers == set()
        had = [messages.receive_nowait() for _ in range(3)]
        assert had == [(1, "order 0"), (2, "order 1"), (3, "order 2")]
        with pytest.raises(anyio.EndOfStream):
            messages.receive_nowait()


async def test_who_comes_back_has_neither_a_gap_nor_a_message_twice(
    lesson: SimpleNamespace,
) -> None:
    board = lesson.Broadcast(size=10, keep=20)
    for number in range(1, 31):
        board.publish(number)
    with lesson.joined(board, after=25) as messages:
        for number in range(31, 41):
            board.publish(number)
        got = [messages.receive_nowait()[0] for _ in range(15)]
    assert got == list(range(26, 41))


async def test_who_is_new_gets_only_what_is_new(lesson: SimpleNamespace) -> None:
    board = lesson.Broadcast()
    board.publish("old")
    with lesson.joined(board) as messages:
        board.publish("new")
        assert messages.receive_nowait() == (2, "new")
        with pytest.raises(anyio.WouldBlock):
            messages.receive_nowait()


async def test_a_number_of_the_future_gets_what_comes(lesson: SimpleNamespace) -> None:
    board = lesson.Broadcast()
    with lesson.joined(board, after=900) as messages:
        board.publish("new")
        assert messages.receive_nowait() == (1, "new")


async def test_who_missed_more_than_the_board_keeps_gets_the_rest_and_is_not_told(
    lesson: SimpleNamespace,
) -> None:
    board = lesson.Broadcast()
    for number in range(1, 151):
        board.publish(number)
    with lesson.joined(board, after=20) as messages:
        got = [messages.receive_nowait()[0] for _ in range(100)]
        assert got == list(range(51, 151))
        with pytest.raises(anyio.WouldBlock):
            messages.receive_nowait()


async def test_after_a_restart_the_old_messages_are_gone(lesson: SimpleNamespace) -> None:
    board = lesson.Broadcast()
    board.publish("missed")
    with lesson.joined(board, after=120) as messages, pytest.raises(anyio.WouldBlock):
        messages.receive_nowait()


async def test_the_board_keeps_no_more_than_it_says(lesson: SimpleNamespace) -> None:
    board = lesson.Broadcast(size=2, keep=5)
    for number in range(100):
        board.publish(number)
    assert [number for number, _ in board.kept] == [96, 97, 98, 99, 100]


async def test_a_block_that_fails_takes_its_reader_off(lesson: SimpleNamespace) -> None:
    board = lesson.Broadcast()
    with pytest.raises(LookupError), lesson.joined(board):
        raise LookupError
    assert board.readers == set()
    board.publish("nobody is there")


async def test_a_reader_that_is_cancelled_is_off_the_list(lesson: SimpleNamespace) -> None:
    board = lesson.Broadcast()

    async def read() -> None:
        with lesson.joined(board) as messages:
            async for _ in messages:
                pass

    reading = [asyncio.create_task(read()) for _ in range(3)]
    await asyncio.sleep(0)
    assert len(board.readers) == 3
    reading[1].cancel()
    await asyncio.wait({reading[1]})
    assert len(board.readers) == 2
    board.publish("for two")
    for each in reading:
        each.cancel()
    await asyncio.wait(reading)
    assert board.readers == set()


# ---------------------------------------------------------------- the endpoint


async def test_a_reader_leaves_the_board_with_its_request_though_it_reads_nothing(
    lesson: SimpleNamespace,
) -> None:
    board = lesson.board

    async def flood() -> None:
        while board.readers:  # until the reader is behind, and the server waits to send to it
            board.publish(LARGE)
            await asyncio.sleep(0.001)

    async with serve(lesson.app) as server, events_client(server.url) as client:
        for _ in range(3):
            async with events_of(client, "/live"):
                await until(lambda: len(board.readers) == 1)
                board.size = 10
                await server.run(flood)
            await until(lambda: not server.running_requests)
            assert board.readers == set()
        async with events_of(client, "/live"):
            await until(lambda: len(board.readers) == 1)
        await until(lambda: not server.running_requests)
        assert board.readers == set()


async def read_a_burst(lesson: SimpleNamespace, burst: int, pause: float | None) -> list[int]:
    """Publish ``burst`` messages to a quick reader, and return the numbers that reached it."""
    board = lesson.all["board"]

    async def publish() -> None:
        for number in range(burst):
            board.publish(f"order {number}")
            if pause is not None:
                await asyncio.sleep(pause)

    got: list[int] = []
    async with (
        serve(lesson.app) as server,
        events_client(server.url) as client,
        events_of(client, "/live") as events,
    ):
        await until(lambda: len(board.readers) == 1)
        reading = asyncio.create_task(note_numbers(events, got))
        await server.run(publish)
        await until(lambda: reading.done() or len(got) == burst)
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
    return got


async def note_numbers(events: Any, got: list[int]) -> None:
    async for event in events:
        got.append(int(event.id))


async def test_the_shipped_board_keeps_its_quick_reader_through_a_burst(
    lesson: SimpleNamespace,
) -> None:
    lesson.all["board"] = lesson.Broadcast()
    assert await read_a_burst(lesson, 90, None) == list(range(1, 91))


@pytest.mark.parametrize("pause", [None, 0])
async def test_a_burst_above_the_size_drops_a_quick_reader_though_the_publisher_gives_way(
    lesson: SimpleNamespace, pause: float | None
) -> None:
    board = lesson.all["board"] = lesson.Broadcast(size=10)
    got = await read_a_burst(lesson, 300, pause)
    assert got == list(range(1, len(got) + 1))
    assert len(got) < 300
    with lesson.joined(board, after=290) as messages:
        assert [messages.receive_nowait()[0] for _ in range(10)] == list(range(291, 301))


async def test_a_reader_off_the_board_holds_its_request_until_it_reads(
    lesson: SimpleNamespace,
) -> None:
    board = lesson.board

    async def flood() -> None:
        while board.readers:
            board.publish(LARGE)
            await asyncio.sleep(0.001)

    async with (
        serve(lesson.app) as server,
        events_client(server.url) as client,
        events_of(client, "/live") as events,
    ):
        await until(lambda: len(board.readers) == 1)
        await server.run(flood)
        await server.run(partial(asyncio.sleep, 0.05))
        assert server.running_requests == 1
        assert server.open_connections
        numbers = [int(event.id) async for event in events]
        await until(lambda: not server.running_requests)
    assert numbers == list(range(1, len(numbers) + 1))


async def test_a_reader_comes_back_through_a_proxy(lesson: SimpleNamespace) -> None:
    board = lesson.board

    async def publish(first: int, last: int) -> None:
        for number in range(first, last + 1):
            board.publish(f"order {number}")

    async with serve(lesson.app) as server, through_proxy(server) as client:
        async with events_of(client, "/live") as events:
            await until(lambda: len(board.readers) == 1)
            await server.run(partial(publish, 1, 3))
            got = [(await anext(events)).id for _ in range(3)]
        await until(lambda: not board.readers)
        await server.run(partial(publish, 4, 6))
        async with events_of(client, "/live", last_event_id=got[-1]) as events:
            got += [(await anext(events)).id for _ in range(3)]
    assert got == ["1", "2", "3", "4", "5", "6"]


async def test_a_last_id_that_is_no_number_is_refused(lesson: SimpleNamespace) -> None:
    async with serve(lesson.app) as server, events_client(server.url) as client:
        refused = await client.get("/live", headers={"Last-Event-ID": "x"})
        assert refused.status_code == 422
        assert lesson.board.readers == set()


async def test_a_shutdown_leaves_nobody_on_the_board(lesson: SimpleNamespace) -> None:
    async with serve(lesson.app, timeout_graceful_shutdown=0.05) as server:
        client = events_client(server.url)
        reading = asyncio.create_task(streams.written_when_read(client, "/live"))
        await until(lambda: len(lesson.board.readers) == 1)
    with pytest.raises(httpx2.TransportError):
        await reading
    await client.aclose()
    assert lesson.board.readers == set()


async def test_fastapi_tells_proxies_not_to_collect_a_stream(lesson: SimpleNamespace) -> None:
    async with serve(lesson.answer_app) as server, events_client(server.url) as client:
        headers = (await client.get("/answer")).headers
    assert headers["x-accel-buffering"] == "no"
    assert headers["cache-control"] == "no-cache"
    assert headers["content-type"].startswith("text/event-stream")


def test_fastapi_pings_well_within_the_patience_of_a_usual_proxy() -> None:
    from fastapi.sse import _PING_INTERVAL, KEEPALIVE_COMMENT

    assert (KEEPALIVE_COMMENT, _PING_INTERVAL) == (b": ping\n\n", 15.0)


# ---------------------------------------------------------------- the exercise


def test_the_board_that_the_exercise_shows_is_the_one_that_judges(
    cells_of: Any, bare: Callable[..., str]
) -> None:
    prose = cells_of("17").source("exercise-prose")
    shown = ast.parse(prose.split("```python\n")[1].split("```")[0])
    assert bare(shown) == bare(ast.parse(inspect.getsource(PriceBoard)))


# ---------------------------------------------------------------- the second helping


async def test_heartbeats_leave_no_task_when_the_reader_goes(cells_of: Any) -> None:
    deeper = cells_of("17_deeper")
    await deeper.run("setup", "beat-quiet", "beat-coming", "beat-beating")
    async with serve(deeper.names["beat_app"]) as server, events_client(server.url) as client:
        async with events_of(client, "/beating") as events:
            await anext(events)
        await until(lambda: not server.running_requests)

        async def names() -> list[str]:
            return [repr(each.get_coro()) for each in asyncio.all_tasks()]

        await server.run(partial(asyncio.sleep, 0))
        assert "next_order" not in str(await server.run(names))


async def test_heartbeats_leave_no_task_when_the_reader_goes_while_the_server_sends(
    cells_of: Any,
) -> None:
    deeper = cells_of("17_deeper")
    await deeper.run("setup", "beat-quiet", "beat-coming", "beat-beating")
    sent, started = [], []

    async def next_order() -> str:
        started.append(asyncio.current_task())
        await asyncio.sleep(3600)
        return "order 2"

    def large(comment: str) -> Any:
        sent.append(comment)
        return ServerSentEvent(comment=LARGE)

    deeper.names.update(next_order=next_order, ServerSentEvent=large, ms=lambda _: 0.0001)
    gc.disable()  # which would close the generator sooner or later
    try:
        async with serve(deeper.names["beat_app"]) as server, events_client(server.url) as client:
            async with events_of(client, "/beating") as events:
                await anext(events)
                before = -1
                while before < len(sent):  # until the server waits to send
                    before = len(sent)
                    await asyncio.sleep(0.3)
                assert before > 0
            await until(lambda: not server.running_requests)
            await server.run(partial(asyncio.sleep, 0))
            assert [task.done() for task in started] == [True]
    finally:
        gc.enable()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
@pytest.mark.parametrize(
    ("pause", "last"),
    [("", "stream: ended"), ("    await asyncio.sleep(0.2)\n", "stream: cut off")],
    ids=["at once", "after a pause"],
)
async def test_a_late_lifespan_reaches_the_stream_before_the_cancellation_if_it_is_quick(
    cells_of: Any, pause: str, last: str
) -> None:
    deeper = cells_of("17_deeper")
    await deeper.run("setup", "stop-lifespan", "stop-stream")
    setting = "    stopping.set()\n"
    lifespan = deeper.names["LIFESPAN"]
    assert lifespan.count(setting) == 1
    lifespan = lifespan.replace(setting, pause + setting)
    stopped = await stopped_with_a_reader(lifespan + deeper.names["STREAM"], "/live", grace=0.1)
    assert not stopped.clean
    assert stopped.said == ["lifespan: streams, please end", last]


@pytest.mark.parametrize("pause", [None, 0, 0.02])
async def test_a_model_that_fails_is_told_in_an_event(cells_of: Any, pause: float | None) -> None:
    async def fails() -> Any:
        yield "on"
        if pause is not None:
            await asyncio.sleep(pause)
        raise ConnectionError("the model is away")

    deeper = cells_of("17_deeper")
    await deeper.run("setup", "fail-apps", "fail-told")
    deeper.names["two_words"] = fails
    async with (
        serve(deeper.names["fail_app"]) as server,
        events_client(server.url) as client,
        events_of(client, "/tells") as events,
    ):
        told = [(event.event, event.json()) async for event in events]
    assert told == [("message", "on"), ("failed", "try again later")]
    assert server.errors == []


async def test_catching_up_knows_an_empty_board_from_a_lost_one(cells_of: Any) -> None:
    deeper = cells_of("17_deeper")
    catch_up = (await deeper.define("gap-catch-up"))["catch_up"]
    nothing: deque[tuple[int, str]] = deque()
    assert catch_up(nothing, 0, 0) == []
    assert catch_up(nothing, 7, 7) == []
    assert catch_up(nothing, 7, 6) is None
