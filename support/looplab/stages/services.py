"""A service in a process of its own that is stopped while a reader is connected, for lesson 17."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from typing import NamedTuple

import httpx2

from looplab.stages.events import events_client, events_of

STARTS_WITHIN = 30.0  # seconds that a process gets to import FastAPI and answer
ENDS_WITHIN = 10.0  # seconds beyond its grace that it gets to end


class ServiceFailed(Exception):
    """A service in a process of its own ended before it served anybody."""


_SERVICE = """
import asyncio, signal, socket
from contextlib import asynccontextmanager
import uvicorn
from fastapi import FastAPI, Request
from fastapi.sse import EventSourceResponse
{source}
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown={grace!r})
uvicorn.Server(config).run([listening])
"""


class Stopped(NamedTuple):
    """How a service of its own process ended that was stopped while a reader was connected.

    Attributes:
        clean: whether the reader's stream came to its end; if not, it was cut off.
        seconds: how long the process took to end.
        said: what it printed, line by line.
    """

    clean: bool
    seconds: float
    said: list[str]


async def stopped_with_a_reader(source: str, path: str, *, grace: float) -> Stopped:
    """Run ``source`` in a process of its own, read ``path``, send SIGTERM, and tell the end.

    ``source`` is Python that makes ``app``; asyncio, signal, asynccontextmanager, FastAPI, Request
    and EventSourceResponse are imported for it. uvicorn serves it, with ``grace`` seconds for what
    runs. The signal is sent when the first event has come. The process is killed if it has not
    ended 10 s after its grace.

    Raises ServiceFailed when the process ends before it serves, OSError where there is no SIGTERM
    to send, and what httpx2 raises when the answer is no stream.
    """
    if sys.platform == "win32":
        raise OSError("Windows has no SIGTERM that a process could handle")
    process = _started(_SERVICE.format(source=source, grace=grace))
    assert process.stdout is not None
    try:
        port = await asyncio.to_thread(process.stdout.readline)
        if not port.strip():
            _, errors = await asyncio.to_thread(process.communicate)
            raise ServiceFailed((errors.strip() or "it said nothing").splitlines()[-1])
        async with (
            events_client(f"http://127.0.0.1:{int(port)}", timeout=STARTS_WITHIN) as client,
            events_of(client, path) as events,
        ):
            await anext(events)
            began = time.perf_counter()
            process.send_signal(signal.SIGTERM)
            clean = await _ends(events)
        said, _ = await asyncio.to_thread(process.communicate, timeout=grace + ENDS_WITHIN)
        return Stopped(clean, time.perf_counter() - began, said.splitlines())
    finally:
        process.kill()
        process.communicate()


def _started(program: str) -> subprocess.Popen[str]:
    # Not asyncio's own subprocesses: an event loop that isn't the main thread's may have none.
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def _ends(events: AsyncGenerator[httpx2.ServerSentEvent]) -> bool:
    try:
        async for _ in events:
            pass
    except httpx2.TransportError:
        return False
    return True
