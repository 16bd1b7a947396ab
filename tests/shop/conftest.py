"""A PostgreSQL server, and a proxy before it that counts round trips and can make them long."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Self

import pytest
from sqlalchemy import URL, make_url

LONGEST = 64 * 1024  # bytes that are read at once


class CountingProxy:
    """A TCP proxy on loopback that counts round trips: each turn from the server to the client.

    A client that sends, is answered and sends again has made two. What it sends without waiting for
    an answer is part of the same trip, in however many pieces it comes.

    Attributes:
        trips: the trips since `reset`.
        connections: connections accepted since then.
        delay: seconds that each direction takes longer.
    """

    def __init__(self, target: URL, delay: float = 0.0) -> None:
        self.delay = delay
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()
        self.reset()

    def reset(self) -> None:
        """Count from 0 again."""
        self.trips = self.connections = 0

    @property
    def url(self) -> str:
        """The target's URL, by way of the proxy."""
        port = self._server.sockets[0].getsockname()[1]
        return self._target.set(host="127.0.0.1", port=port).render_as_string(False)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._target.host, self._target.port or 5432
        answers, asks = await asyncio.open_connection(host, port)
        clients_turn = True

        def asked() -> None:
            nonlocal clients_turn
            self.trips += clients_turn
            clients_turn = False

        def answered() -> None:
            nonlocal clients_turn
            clients_turn = True

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, asks, asked))
                group.create_task(self._pass_on(answers, writer, answered))
        except* ConnectionError:
            pass  # one end hung up
        finally:
            for end in (writer, asks):
                end.close()

    async def _pass_on(self, source, sink, heard) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        now = asyncio.get_running_loop().time

        async def send_in_time() -> None:
            while True:
                due, data = await queue.get()
                await asyncio.sleep(due - now())
                if not data:
                    return
                sink.write(data)
                await sink.drain()

        async with asyncio.TaskGroup() as group:
            group.create_task(send_in_time())
            data = b"."
            while data:
                data = await source.read(LONGEST)
                if data:
                    heard()
                queue.put_nowait((now() + self.delay, data))
        sink.close()


@pytest.fixture
async def proxy(postgres_server: str) -> AsyncGenerator[CountingProxy]:
    """A proxy to the PostgreSQL server, without a delay."""
    async with CountingProxy(make_url(postgres_server)) as proxy:
        yield proxy
