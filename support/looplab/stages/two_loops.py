"""One app on two event loops, asyncio's and uvloop's: what lesson 01 measures of them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, TypeVar

from starlette.applications import Starlette

from looplab.lab import serve, show_table
from looplab.lab.clients import LoopbackServer
from looplab.stages import visitors
from looplab.stages.child import Child

LOOPS = ("asyncio", "uvloop")
ROUNDS = 11  # with five, the median of what FastAPI's answer gains came up to that of a line
MISSING: Final = "There is no uvloop for Windows." if sys.platform == "win32" else ""
"""Why this machine has one loop only; empty where it has both."""

T = TypeVar("T")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send each line back as it came, until the client hangs up."""
    try:
        async for line in reader:
            writer.write(line)
            await writer.drain()
    finally:
        writer.close()


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit to a server: times in seconds, ``work`` is what its loop's thread computed."""

    took: float
    work: float


@dataclass(frozen=True, slots=True)
class Race:
    """What both loops needed: ``visits[kind][loop]`` has a visit for each round.

    ``answers`` is how many answers a visit of each kind asks for.
    """

    visits: Mapping[str, Mapping[str, list[Visit]]]
    answers: Mapping[str, int]

    def gain(self, kind: str) -> float:
        """Return how many times as much asyncio's loop computes as uvloop's for the same answers.

        It is the median of the rounds, in each of which both loops had their turn. Raises KeyError
        for an unknown kind.
        """
        each = self.visits[kind]
        pairs = zip(*(each[loop] for loop in LOOPS), strict=True)
        return median(plain.work / quick.work for plain, quick in pairs)

    def quickest(self, kind: str) -> float:
        """Return how long the quickest visit of this kind took, on either loop, in seconds."""
        return min(visit.took for loop in LOOPS for visit in self.visits[kind][loop])

    def show(self) -> None:
        """Show a table: the work of one answer on either loop, in the median, and the gain."""
        rows = []
        for kind, of in self.visits.items():
            work = [median(one.work for one in of[loop]) / self.answers[kind] for loop in LOOPS]
            rows.append([kind, *map(_shown, work), f"{self.gain(kind):.2f} times"])
        show_table(["work for one answer", *LOOPS, "uvloop gains"], rows)


async def race(app: Starlette, visits: Mapping[str, tuple[int, int]]) -> Race:
    """Serve ``app`` on both loops, and :func:`echo` beside it, and let clients visit them in turn.

    ``visits`` says by path how many clients ask how often; "line" is the path of :func:`echo`. Each
    visit is made once before anything counts, then eleven times on either loop. The clients are in
    a process of their own.

    Raises what :func:`~looplab.lab.serve` raises, ImportError where there is no uvloop, and
    WorkerFailed when an answer is not 200.
    """
    outcome: dict[str, dict[str, list[Visit]]] = {
        path: {loop: [] for loop in LOOPS} for path in visits
    }
    async with AsyncExitStack() as stack:
        client = Child(["-m", visitors.__name__])
        stack.push_async_callback(client.kill)
        servers = {loop: await stack.enter_async_context(_served(app, loop)) for loop in LOOPS}
        for turn in range(ROUNDS + 1):
            for path, (clients, turns) in visits.items():
                for loop in LOOPS if turn % 2 else reversed(LOOPS):
                    server, lines = servers[loop]
                    port = lines if path == visitors.LINE else server.port
                    one = await _visit(client, server, f"{port} {path} {clients} {turns}\n")
                    if turn:
                        outcome[path][loop].append(one)
    return Race(outcome, {path: clients * turns for path, (clients, turns) in visits.items()})


@asynccontextmanager
async def _served(app: Starlette, loop: str) -> AsyncGenerator[tuple[LoopbackServer, int]]:
    """Serve the app and, on the same loop, lines; yield the server and the port of the lines."""
    async with serve(app, loop=loop) as server:

        async def begin() -> asyncio.Server:
            return await asyncio.start_server(echo, visitors.HOST, 0)

        async def end(lines: asyncio.Server) -> None:
            lines.close()

        lines = await _on(server, begin())
        try:
            yield server, lines.sockets[0].getsockname()[1]
        finally:
            await _on(server, end(lines))


async def _on(server: LoopbackServer, coroutine: Coroutine[Any, Any, T]) -> T:
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, server.loop))


async def _visit(client: Child, server: LoopbackServer, line: str) -> Visit:
    clock = time.pthread_getcpuclockid(server.thread)
    worked, began = time.clock_gettime(clock), time.perf_counter()
    client.tell(line)
    await client.hear()
    return Visit(time.perf_counter() - began, time.clock_gettime(clock) - worked)


def _shown(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs"
