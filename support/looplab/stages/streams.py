"""What lesson 17 streams, who reads it, and the scenes that are played with its endpoints."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Iterable, Sized
from functools import partial
from typing import Any, NamedTuple

import httpx2
from fastapi import FastAPI
from starlette.types import ASGIApp

from looplab.lab import Recording, mark, ms, serve, until, xray
from looplab.stages.events import events_client, events_of
from looplab.stages.proxy import through_proxy

WORDS = ["Your", "tea", "left", "at", "six", "and", "will", "be", "here", "soon"]
READS = 100  # milliseconds that the model takes for the question
WRITES = 40  # milliseconds that it takes for a word
PICTURE = 200_000  # bytes
PICTURES = 100
PATIENCE = 1_500  # milliseconds that a picture gets to reach the quick reader
SCREENS = 10
ROUNDS = 10  # of the server's loop: more than an endpoint needs to end
GRACE = 50  # milliseconds for what runs when a scene is over
HOUR = 3_600_000  # milliseconds

written: list[str] = []
"""The words that the model has written so far."""


async def write_answer() -> AsyncGenerator[str]:
    """Yield ten words as a language model does: 100 ms for the question, then 40 ms for each.

    Each is noted in ``written``.
    """
    await asyncio.sleep(ms(READS))
    for word in WORDS:
        await asyncio.sleep(ms(WRITES))
        written.append(word)
        yield word


def expected(words: int) -> float:
    """Return after how many seconds the model has written so many words."""
    return ms(READS) + words * ms(WRITES)


async def next_order() -> str:
    """Return the next order, which comes in an hour."""
    await asyncio.sleep(ms(HOUR))
    return "order 2"


async def read_whole(client: httpx2.AsyncClient) -> None:
    """GET ``/whole``, a list of words, and mark how many came."""
    words = (await client.get("/whole")).json()
    mark(f"{len(words)} words")


async def read_words(client: httpx2.AsyncClient) -> list[int]:
    """Read the events of ``/answer`` and mark each word; see :func:`written_when_read`."""
    return await written_when_read(client, "/answer")


async def read_first(client: httpx2.AsyncClient) -> None:
    """Read the first event of ``/answer``, and leave."""
    async with events_of(client, "/answer") as events:
        await anext(events)


async def written_when_read(client: httpx2.AsyncClient, path: str) -> list[int]:
    """Read the events of ``path``; return how many words were written when each of them came."""
    written.clear()
    counts = []
    async with events_of(client, path) as events:
        async for event in events:
            mark(event.data.strip('"'))
            counts.append(len(written))
    return counts


def ways_to_read(client: httpx2.AsyncClient) -> dict[str, Callable[[], Any]]:
    """Return three ways to read the model's words: whole, until the last word, until the first."""
    return {
        "whole": partial(read_whole, client),
        "last word": partial(read_words, client),
        "first word": partial(read_first, client),
    }


async def words_through_proxy(endpoint: Callable[..., Any], **options: Any) -> list[int]:
    """Serve ``endpoint``, read it through a proxy, and return :func:`written_when_read`.

    ``options`` are those of ``FastAPI.add_api_route``.
    """
    app = FastAPI()
    app.add_api_route("/answer", endpoint, **options)
    async with serve(app) as server, through_proxy(server) as client:
        return await written_when_read(client, "/answer")


async def watch(app: ASGIApp, read: Callable[..., Any], **options: Any) -> Recording:
    """Serve ``app``, and return the x-ray of ``read(client)`` and of the server.

    A first request, to ``/docs``, opens the connection. ``options`` are those of ``xray``.
    """
    async with serve(app) as server, events_client(server.url) as client:
        await client.get("/docs")
        return await xray(read(client), server=server, unfold=False, **options)


async def come_and_leave(app: ASGIApp, path: str, online: Sized) -> int:
    """Let ten WebSocket clients come and leave, and return how many ``online`` holds then.

    They come one after another. The next one, and the count, wait until the server has closed the
    connection before and its loop has gone round often enough for the app to hear of it. What the
    app still does then is cancelled.
    """
    async with serve(app, timeout_graceful_shutdown=ms(GRACE)) as server:
        for _ in range(SCREENS):
            async with server.websocket(path):
                await until(lambda: len(online) > 0)
            await until(lambda: not server.open_connections)
            for _ in range(ROUNDS):
                await server.run(partial(asyncio.sleep, 0))
        return len(online)


class Scene(NamedTuple):
    """What two readers of a map got while one of them was lazy: numbers of pictures, in order.

    Attributes:
        quick: what the quick reader got.
        lazy: what the lazy one got from its connection, once it woke up; empty if nobody woke it.
        caught_up: the same, with what it got from a second connection.
        seen: what ``look`` returned when the quick reader got nothing more; None unless it did.
    """

    quick: list[int]
    lazy: list[int]
    caught_up: list[int]
    seen: Any = None


def are_full(queues: Iterable[asyncio.Queue[Any]]) -> list[bool]:
    """Return for each queue whether it is full."""
    return [queue.full() for queue in queues]


async def lazy_and_quick(
    app: ASGIApp,
    path: str,
    publish: Callable[[str], Any],
    readers: Sized,
    look: Callable[[Any], Any] | None = None,
) -> Scene:
    """Publish a hundred pictures to two readers of ``path``, of whom one reads nothing.

    ``publish(picture)`` is called, and awaited if it returns something to await, on the server's
    loop once ``readers`` holds two. Each picture is 200 kB of text that begins with its number, and
    is published when the quick reader has the one before. The scene ends when a picture takes over
    1.5 s; ``look(readers)`` is called then, while both readers are still there. After the hundredth
    the lazy reader wakes up. It reads on to the end of its stream or the hundredth, and connects
    again with the id of its last event, until it has the hundredth too.

    Raises what ``publish`` and ``look`` raise, and what httpx2 raises.
    """

    async def publish_on_the_server(picture: str) -> None:
        outcome = publish(picture)
        if inspect.isawaitable(outcome):
            await outcome

    quick_got: list[int] = []
    async with (
        serve(app, timeout_graceful_shutdown=ms(GRACE)) as server,
        events_client(server.url) as client,
        events_of(client, path) as lazy,
        events_of(client, path) as quick,
    ):
        await until(lambda: len(readers) == 2)
        for number in range(1, PICTURES + 1):
            picture = f"{number} ".ljust(PICTURE, ".")
            try:
                async with asyncio.timeout(ms(PATIENCE)):
                    await server.run(partial(publish_on_the_server, picture))
                    quick_got.append(_number(await anext(quick)))
            except TimeoutError:
                return Scene(quick_got, [], [], look(readers) if look else None)
        lazy_got: list[int] = []
        last = ""
        async for event in lazy:
            lazy_got.append(_number(event))
            last = event.id
            if lazy_got[-1] == PICTURES:
                break
        caught_up = list(lazy_got)
        headers = {"last_event_id": last} if last else {}
        async with events_of(client, path, **headers) as again:
            while PICTURES not in caught_up:
                caught_up.append(_number(await anext(again)))
    return Scene(quick_got, lazy_got, caught_up)


def _number(event: httpx2.ServerSentEvent) -> int:
    return int(event.data.split(maxsplit=1)[0])
