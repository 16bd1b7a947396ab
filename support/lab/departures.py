"""A client that goes away before its answer is complete, from a server that is real."""

import asyncio
from collections.abc import Callable

from support.lab.clients import LoopbackServer
from support.lab.units import ms

LOOKS_EVERY = 10  # milliseconds


async def until(condition: Callable[[], bool]) -> None:
    """Wait until ``condition()`` is true, for something that another thread does.

    It is asked every 10 ms, for as long as it takes.
    """
    while not condition():  # noqa: ASYNC110 (a server in a thread of its own sets no event here)
        await asyncio.sleep(ms(LOOKS_EVERY))


async def leave_early(server: LoopbackServer, path: str, *, when: Callable[[], bool]) -> None:
    """GET ``path``, go away as soon as ``when()`` is true, and wait until the server is done.

    The request's task is called "client". Going away closes its connection, as a browser does whose
    tab is closed. What the request raised is dropped, and so is an answer that came first.
    """
    async with server.client() as client:
        reading = asyncio.create_task(client.get(path), name="client")
        try:
            await until(lambda: when() or reading.done())
        finally:
            reading.cancel()
            await asyncio.wait({reading})
        if not reading.cancelled():
            reading.exception()
    await until(lambda: not server.running_requests)
