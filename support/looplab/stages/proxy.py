"""A proxy in front of a server, for lesson 17: it collects, and hangs up on silent apps."""

import contextlib
from collections.abc import AsyncGenerator

import anyio
import httpx2
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from looplab.lab.clients import LoopbackServer, serve
from looplab.stages.events import events_client

BUFFER = 4096  # bytes that the proxy collects before it sends them on; nginx has 4k or 8k
SILENCE = 60.0  # seconds that the proxy bears with a silent app; nginx's proxy_read_timeout
CONNECT = 5.0  # seconds that the proxy gives the app to take a connection
BETWEEN_TWO = frozenset({"connection", "host", "keep-alive", "transfer-encoding"})
OWN = frozenset({"x-accel-buffering", "date", "server"})


class HungUp(Exception):
    """The proxy closed a connection because the app was silent for too long, or gone."""


@contextlib.asynccontextmanager
async def through_proxy(
    server: LoopbackServer, *, silence: float = SILENCE
) -> AsyncGenerator[httpx2.AsyncClient]:
    """Yield a client that reaches ``server`` through a proxy, as most readers do.

    The proxy is a server of its own on this machine, and does what nginx 1.22 does with its
    usual settings. (Told to speak HTTP/1.1 to the app, it passes pieces on.) It collects an
    answer until it has 4096 bytes or the answer ends; an answer with the header ``X-Accel-
    Buffering: no`` is passed on as it comes. When the app has sent nothing for ``silence``
    seconds, the proxy answers 504, or closes the connection of an answer that has begun: the
    client then raises ``httpx2.RemoteProtocolError``. It passes GET on, and when its client
    leaves, it leaves the app.

    Source: nginx, module ngx_http_proxy_module, `proxy_buffering` and `proxy_read_timeout`;
    `tests/stages/test_proxy.py` holds it against a real nginx.

    Raises ValueError when ``silence`` is not above 0.
    """
    if not silence > 0:
        raise ValueError(f"silence is {silence!r}; it must be above 0, in seconds")
    async with (
        serve(_Proxy(server.url, silence)) as proxy,
        events_client(proxy.url) as client,
    ):
        yield client


class _Proxy:
    """An ASGI app that passes GET requests on to ``target``."""

    def __init__(self, target: str, silence: float) -> None:
        self._target = target
        self._timeout = httpx2.Timeout(CONNECT, read=silence)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"the proxy speaks no {scope['type']}")
        async with (
            events_client(self._target, timeout=self._timeout) as app,
            anyio.create_task_group() as group,
        ):
            group.start_soon(_pass_on, app, Request(scope), send, group.cancel_scope)
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()


async def _pass_on(
    app: httpx2.AsyncClient, request: Request, send: Send, scope: anyio.CancelScope
) -> None:
    address = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    begun = False
    try:
        async with app.stream("GET", address, headers=_between(request.headers)) as answer:
            sent = [(k.encode(), v.encode()) for k, v in _between(answer.headers) if k not in OWN]
            start = {"type": "http.response.start", "status": answer.status_code, "headers": sent}
            await send(start)
            begun = True
            collects = answer.headers.get("x-accel-buffering", "").lower() != "no"
            held = b""
            async for chunk in answer.aiter_raw():
                held += chunk
                if len(held) >= BUFFER or not collects:
                    await send({"type": "http.response.body", "body": held, "more_body": True})
                    held = b""
            await send({"type": "http.response.body", "body": held})
    except httpx2.TransportError as error:
        if begun:  # it can't answer 504 any more; an error makes the server close the connection
            raise HungUp(type(error).__name__) from None
        await send({"type": "http.response.start", "status": 504, "headers": []})
        await send({"type": "http.response.body"})
    scope.cancel()


def _between(headers: Headers | httpx2.Headers) -> list[tuple[str, str]]:
    """Return the headers that a proxy passes on."""
    return [(name, value) for name, value in headers.items() if name not in BETWEEN_TWO]
