"""More requests than an app can answer, over a real connection, for lesson 19's second helping."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from looplab.lab import serve, show_table, until
from looplab.shop import checks

MARKS = 4


@dataclass(frozen=True, slots=True)
class Overload:
    """What became of requests that came faster than they could be answered.

    Attributes:
        requests: how many came.
        in_time: how many had a 200 before their visitor gave up.
        refused: how many had a 503 before their visitor gave up.
        for_nobody: how many the app answered by 200 when their visitor had given up.
        inside: how many requests the app had in hand after each quarter of the visitors.
    """

    requests: int
    in_time: int
    refused: int
    for_nobody: int
    inside: list[int]


class _Watched:
    """An ASGI app, and how many requests it has in hand and has answered by 200."""

    def __init__(self, app: ASGIApp) -> None:
        self.inside = self.answered = 0
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def note(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        self.inside += 1
        try:
            await self._app(scope, receive, note)
        finally:
            self.inside -= 1
            self.answered += status == 200


async def overload(
    app: ASGIApp, path: str, *, requests: int, every: float, patience: float
) -> Overload:
    """Serve the app and send it GETs, one `every` so many seconds, whether it keeps up or not.

    Each visitor gives up after `patience` seconds and closes the connection. When this returns, the
    app has ended all requests, those of visitors who have left too.

    Raises TypeError or ValueError when `requests` is no whole number from 4 up, or a time is none.
    """
    checks.count("requests", requests, at_least=MARKS)
    checks.seconds("every", every)
    checks.seconds("patience", patience)
    watched, inside = _Watched(app), []
    async with serve(watched) as server:
        at = httpx.URL(server.url)
        await _ask(at, "/warms-both-sides")
        visits = []
        for number in range(1, requests + 1):
            visits.append(asyncio.create_task(_visit(at, path, patience)))
            # not by the clock: what a busy machine made up for would come all at once
            await asyncio.sleep(every)
            if number * MARKS % requests < MARKS:
                inside.append(watched.inside)
        heard = Counter(await asyncio.gather(*visits))
        await until(lambda: not watched.inside)
    return Overload(requests, heard[200], heard[503], watched.answered - heard[200], inside)


async def _visit(at: httpx.URL, path: str, patience: float) -> int:
    """Return the status of an answer that came in time, or 0."""
    try:
        async with asyncio.timeout(patience):
            return await _ask(at, path)
    except (TimeoutError, OSError):
        return 0


async def _ask(at: httpx.URL, path: str) -> int:
    """Return the status of one GET over a connection of its own.

    By hand, because a client's own work would be a good part of what a busy machine can do. Raises
    OSError when no answer comes.
    """
    reader, writer = await asyncio.open_connection(at.host, at.port)
    try:
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {at.host}\r\nConnection: close\r\n\r\n".encode()
        )
        status = await reader.readline()
        await reader.read()
        if not status:
            raise ConnectionResetError("the server hung up without an answer")
        return int(status.split()[1])
    finally:
        writer.close()


def show_overloads(overloads: Mapping[str, Overload]) -> None:
    """Show a table of overloads by name.

    Raises ValueError when there is none to show.
    """
    if not overloads:
        raise ValueError("overloads is empty; give at least one overload, by name")
    headers = ["", "inside, by quarters", "answered in time", "refused", "worked for nobody"]
    rows = [
        [
            name,
            ", ".join(map(str, one.inside)),
            *(str(n) for n in (one.in_time, one.refused, one.for_nobody)),
        ]
        for name, one in overloads.items()
    ]
    show_table(headers, rows)
