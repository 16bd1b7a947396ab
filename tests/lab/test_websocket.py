"""A served WebSocket and its client, and how both end."""

import asyncio
import contextlib
import threading

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from looplab.lab import clients, hygiene, still_open
from looplab.lab.clients import serve
from looplab.lab.hygiene import caught_leaks, nothing_left_behind

pytestmark = pytest.mark.anyio


class Chat:
    """An app with WebSocket endpoints that end in different ways; notes what they saw."""

    def __init__(self):
        self.seen, self.app = [], FastAPI()
        self.inside, self.release = threading.Event(), threading.Event()

        @self.app.websocket("/echo")
        async def echo(socket: WebSocket):
            await socket.accept()
            self.inside.set()
            try:
                async for text in socket.iter_text():
                    await socket.send_text(text.upper())
            finally:
                self.seen.append("echo ended")

        @self.app.websocket("/listen")
        async def listen(socket: WebSocket):
            await socket.accept()
            try:
                await socket.receive_text()
            except WebSocketDisconnect as left:
                self.seen.append(left.code)

        @self.app.websocket("/deaf")
        async def deaf(socket: WebSocket):
            await socket.accept()
            self.inside.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.seen.append("cancelled")

        @self.app.websocket("/flood")
        async def flood(socket: WebSocket):
            await socket.accept()
            self.inside.set()
            try:
                while True:
                    await socket.send_bytes(bytes(1_000_000))
            finally:
                self.seen.append("flood stopped")

        @self.app.websocket("/blocks")
        async def blocks(socket: WebSocket):
            await socket.accept()
            self.inside.set()
            self.release.wait()

        @self.app.websocket("/refused")
        async def refused(socket: WebSocket):
            await socket.close()

        @self.app.websocket("/silent")
        async def silent(socket: WebSocket):
            await asyncio.Event().wait()

        @self.app.websocket("/fails")
        async def fails(socket: WebSocket):
            await socket.accept()
            raise ZeroDivisionError("by nought")


@pytest.fixture
def chat():
    return Chat()


@pytest.fixture
async def nothing_is_left(tmp_path, monkeypatch):
    """Fail the test if a task, thread, socket or lost exception of it is left at its end."""
    monkeypatch.setattr(still_open, "TASK_HOSTS", {*still_open.TASK_HOSTS, "anyio"})
    monkeypatch.setattr(hygiene, "show_note", lambda *_, **__: None)
    asyncio.get_running_loop().set_exception_handler(None)
    hygiene.install(temporary=tmp_path)
    try:
        yield
        await nothing_left_behind()
    finally:
        hygiene.uninstall()


async def until(condition):
    while not condition():  # noqa: ASYNC110 (another thread changes it, and sets no event)
        await asyncio.sleep(0.001)


class TestTalking:
    async def test_messages_go_both_ways_and_the_client_closes(self, chat, nothing_is_left):
        async with serve(chat.app) as server:
            async with server.websocket("/echo") as socket:
                for word in ("hello", "there"):
                    await socket.send(word)
                    assert await socket.recv() == word.upper()
            await until(lambda: chat.seen == ["echo ended"])
            assert server.errors == []

    async def test_connections_of_websockets_are_counted(self, chat, nothing_is_left):
        async with serve(chat.app) as server:
            async with server.websocket("/echo") as one, server.websocket("/echo") as two:
                await one.send("a")
                await two.send("b")
                assert (await one.recv(), await two.recv()) == ("A", "B")
                assert (server.connections, server.open_connections) == (2, 2)
            await until(lambda: server.open_connections == 0)
            assert server.connections == 2

    async def test_http_is_answered_beside_it(self, chat, nothing_is_left):
        async with (
            serve(chat.app) as server,
            server.client() as client,
            server.websocket("/echo") as socket,
        ):
            assert (await client.get("/docs")).status_code == 200
            await socket.send("still here")
            assert await socket.recv() == "STILL HERE"
            assert server.open_connections == 2

    async def test_the_app_hears_that_the_client_has_closed(self, chat, nothing_is_left):
        async with serve(chat.app) as server:
            async with server.websocket("/listen") as socket:
                await socket.close(code=4001)
            await until(lambda: chat.seen == [4001])

    @pytest.mark.parametrize(("path", "status"), [("/refused", 403), ("/nowhere", 403)])
    async def test_a_refusal_is_raised_with_its_status(self, chat, nothing_is_left, path, status):
        async with serve(chat.app) as server:
            with pytest.raises(InvalidStatus) as refused:
                async with server.websocket(path):
                    pytest.fail("it must not open")
        assert refused.value.response.status_code == status

    async def test_an_app_that_does_not_accept_is_given_up(self, chat, nothing_is_left):
        async with serve(chat.app, timeout_graceful_shutdown=0.05) as server:
            with pytest.raises(TimeoutError, match="opening handshake"):
                async with server.websocket("/silent", open_timeout=0.05):
                    pytest.fail("it must not open")

    async def test_an_error_of_the_app_is_kept_and_closes_the_connection(
        self, chat, nothing_is_left
    ):
        async with serve(chat.app) as server:
            with pytest.raises(ConnectionClosed):
                async with server.websocket("/fails") as socket:
                    await socket.recv()
            assert [repr(error) for error in server.errors] == ["ZeroDivisionError('by nought')"]

    async def test_no_proxy_is_asked(self, chat, nothing_is_left, monkeypatch):
        for name in ("http_proxy", "https_proxy", "ws_proxy", "wss_proxy", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        async with serve(chat.app) as server, server.websocket("/echo") as socket:
            await socket.send("direct")
            assert await socket.recv() == "DIRECT"

    async def test_a_redirect_to_another_server_is_not_followed(self, chat, nothing_is_left):
        reached = []

        async def elsewhere(scope, receive, send):
            reached.append(scope["type"])

        async with serve(elsewhere, lifespan="off") as other:

            async def sends_away(scope, receive, send):
                where = f"ws://localhost:{other.port}/".encode()
                start = {"type": "websocket.http.response.start", "status": 307}
                await send({**start, "headers": [(b"location", where)]})
                await send({"type": "websocket.http.response.body", "body": b""})

            async with serve(sends_away, lifespan="off") as server:
                with pytest.raises(ValueError, match="cross-origin redirect"):
                    async with server.websocket("/"):
                        pytest.fail("it must not open")
        assert reached == []

    @pytest.mark.parametrize("path", ["echo", "", None, "ws://localhost/echo"])
    async def test_a_path_that_is_none_is_refused_at_the_call(self, chat, path):
        async with serve(chat.app) as server:
            with pytest.raises(ValueError, match="path is"):
                server.websocket(path)

    async def test_it_can_be_switched_off(self, chat):
        async with serve(chat.app, ws="none") as server:
            with pytest.raises(InvalidStatus) as refused:
                async with server.websocket("/echo"):
                    pytest.fail("it must not open")
        assert refused.value.response.status_code == 404


class TestTheServerEnds:
    @pytest.mark.parametrize("path", ["/echo", "/listen"])
    async def test_an_open_websocket_is_closed_with_1012(self, chat, nothing_is_left, path):
        async with contextlib.AsyncExitStack() as stack:
            async with serve(chat.app, timeout_graceful_shutdown=5) as server:
                socket = await stack.enter_async_context(server.websocket(path))
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert chat.seen == [{"/echo": "echo ended", "/listen": 1012}[path]]

    async def test_an_endpoint_that_does_not_listen_is_cancelled_after_its_grace(
        self, chat, nothing_is_left
    ):
        async with (
            contextlib.AsyncExitStack() as stack,
            serve(chat.app, timeout_graceful_shutdown=0.05) as server,
        ):
            await stack.enter_async_context(server.websocket("/deaf"))
            await asyncio.to_thread(chat.inside.wait)
        assert chat.seen == ["cancelled"]

    async def test_a_reader_that_reads_no_more_does_not_keep_it(self, chat, nothing_is_left):
        async with contextlib.AsyncExitStack() as stack:
            async with serve(chat.app, timeout_graceful_shutdown=0.05) as server:
                small = {"max_queue": 1, "compression": None, "close_timeout": 0.05}
                await stack.enter_async_context(server.websocket("/flood", **small))
                await asyncio.to_thread(chat.inside.wait)
            assert chat.seen == ["flood stopped"]

    async def test_a_block_that_fails_closes_client_and_server(self, chat, nothing_is_left):
        with pytest.raises(KeyError):
            async with serve(chat.app) as server, server.websocket("/echo"):
                raise KeyError
        assert chat.seen == ["echo ended"]

    async def test_cancelling_the_block_closes_client_and_server(self, chat, nothing_is_left):
        inside = asyncio.Event()

        async def body():
            async with serve(chat.app) as server, server.websocket("/echo") as socket:
                inside.set()
                await socket.recv()

        task = asyncio.create_task(body())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert chat.seen == ["echo ended"]

    async def test_nothing_is_unclosed(self, chat):
        with caught_leaks() as failures:
            async with serve(chat.app) as server:
                for _ in range(3):
                    async with server.websocket("/echo") as socket:
                        await socket.send("hello")
                        await socket.recv()
        assert failures.sentences == []

    async def test_a_server_that_is_busy_does_not_keep_the_client(
        self, chat, nothing_is_left, monkeypatch
    ):
        monkeypatch.setattr(clients, "WEBSOCKET_CLOSE", 0.05)
        async with serve(chat.app) as server:
            async with server.websocket("/blocks"):
                await asyncio.to_thread(chat.inside.wait)
            chat.release.set()  # not before the client has closed without an answer
