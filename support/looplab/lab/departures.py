"""A client that goes away before its answer is complete, from a server that is real."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx

from looplab.lab.clients import ASGIApp, LoopbackServer, serve
from looplab.lab.recording import Recording
from looplab.lab.units import ms
from looplab.lab.xray import xray

LOOKS_EVERY = 10  # milliseconds
HELD = 250  # milliseconds: such a visit is not about short holds, which a busy machine makes


async def until(condition: Callable[[], bool]) -> None:
    """Wait until ``condition()`` is true, for something that another thread does.

    It is asked every 10 ms, for as long as it takes, by callbacks of the loop: an x-ray shows one
    wait. What it raises comes out.
    """
    loop = asyncio.get_running_loop()
    met: asyncio.Future[None] = loop.create_future()

    def look() -> None:
        if met.done():  # the caller was cancelled
            return
        try:
            if condition():
                met.set_result(None)
            else:
                loop.call_later(ms(LOOKS_EVERY), look)
        except Exception as error:
            met.set_exception(error)

    look()
    await met


async def leave(
    server: LoopbackServer, client: httpx.AsyncClient, path: str, *, when: Callable[[], bool]
) -> None:
    """GET ``path``, go away as soon as ``when()`` is true, and wait until the server is done.

    The request's task is called "client". Going away closes its connection, as a browser does whose
    tab is closed. What the request raised is dropped, and so is an answer that came first.
    """
    reading = asyncio.create_task(client.get(path), name="client")
    try:
        await until(lambda: when() or reading.done())
    finally:
        reading.cancel()
        await asyncio.wait({reading})
    if not reading.cancelled():
        reading.exception()
    await until(lambda: not server.running_requests)


async def leave_early(
    app: ASGIApp, path: str, *, when: Callable[[], bool], title: str = ""
) -> Recording:
    """Serve ``app``, have a client :func:`leave` it, and return the x-ray of both, not drawn yet.

    A first request, to ``/docs``, opens the connection and warms both sides; it is not recorded.
    """
    async with serve(app) as server, server.client() as client:
        await client.get("/docs")
        leaving = leave(server, client, path, when=when)
        options: dict[str, Any] = {"held": ms(HELD), "unfold": False, "show": False}
        return await xray(leaving, title=title, server=server, **options)
