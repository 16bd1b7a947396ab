"""Readers of server-sent events, for lesson 17: httpx2's client, and one like a browser."""

import contextlib
import ssl
from collections.abc import AsyncGenerator
from typing import Any, cast

import httpx2

LAST = "done"
"""The event at which a page closes its stream."""


def events_client(url: str, **options: Any) -> httpx2.AsyncClient:
    """Return an ``httpx2.AsyncClient`` for ``url``, which reads server-sent events by ``.sse()``.

    Proxies in the environment are not used. The address is plain http, so no certificates are
    loaded. ``options`` are those of ``httpx2.AsyncClient``. Close it, best by ``async with``.
    """
    options.setdefault("verify", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    return httpx2.AsyncClient(base_url=url, trust_env=False, **options)


@contextlib.asynccontextmanager
async def events_of(
    client: httpx2.AsyncClient, path: str, **headers: str
) -> AsyncGenerator[AsyncGenerator[httpx2.ServerSentEvent]]:
    """Yield the server-sent events of a GET of ``path``, one by one as they come.

    Leaving the block closes the connection, as a browser does whose tab is closed. ``headers`` are
    sent along, with hyphens for underscores: ``last_event_id="7"``. Raises what httpx2 raises, and
    ``httpx2.SSEError`` when the answer is no stream of events.
    """
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        client.sse(path, headers=named) as source,
        contextlib.aclosing(
            cast("AsyncGenerator[httpx2.ServerSentEvent]", aiter(source))
        ) as events,
    ):
        yield events


async def like_a_browser(
    client: httpx2.AsyncClient, path: str, *, times: int = 3
) -> list[httpx2.ServerSentEvent]:
    """Read ``path`` as a browser's EventSource does; return all events that came.

    When a stream ends, it connects again and sends the id of the last event, if there was one. A
    browser waits a few seconds first, or as long as ``retry`` says; this doesn't. It stops when an
    answer is no stream of events, such as 204, and after ``times`` connections, where a browser
    would go on. The page on it closes it at an event called "done".

    Raises ValueError when ``times`` is below 1.

    Source: WHATWG, HTML standard, section 9.2, Server-sent events.
    """
    if times < 1:
        raise ValueError(f"times is {times!r}; it must be 1 or more")
    came: list[httpx2.ServerSentEvent] = []
    for _ in range(times):
        ids = [event.id for event in came if event.id]
        headers = {"last_event_id": ids[-1]} if ids else {}
        with contextlib.suppress(httpx2.SSEError):
            async with events_of(client, path, **headers) as events:
                async for event in events:
                    came.append(event)
                    if event.event == LAST:
                        return came
                continue
        break
    return came
