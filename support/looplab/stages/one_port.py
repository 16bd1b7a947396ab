"""uvicorn's own workers on one port, for lesson 20's second helping: who gets which request?

The app stands here as well, where uvicorn's processes can import it. It is no FastAPI app, so that
they start quickly.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final, Self

import httpx
import psutil
from starlette.types import Receive, Scope, Send

STARTS_WITHIN: Final = 60.0  # seconds


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer each request with the number of the process."""
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


class OnePort:
    """Worker processes of uvicorn that share one port."""

    def __init__(self, address: str) -> None:
        """Ask at this address."""
        self._address = address

    @classmethod
    @asynccontextmanager
    async def open(cls, *, workers: int) -> AsyncGenerator[Self]:
        """Run ``uvicorn --workers`` on a free loopback port until the block ends.

        Raises RuntimeError when it ends before it answers, TimeoutError when it takes 60 s.
        """
        with socket.create_server(("127.0.0.1", 0)) as free:
            number = free.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", f"{__name__}:app", "--port", str(number)]
        command += ["--workers", str(workers), "--log-level", "critical", "--lifespan", "off"]
        process = _started(command)
        try:
            port = cls(f"http://127.0.0.1:{number}")
            async with asyncio.timeout(STARTS_WITHIN):
                while len(_children(process)) < workers or not await port._answers():
                    if process.poll() is not None:
                        raise RuntimeError(f"uvicorn ended with {process.returncode}")
                    await asyncio.sleep(0.05)
            yield port
        finally:
            await asyncio.shield(asyncio.to_thread(_end, process))

    async def ask(self, requests: int, *, connections: int) -> Counter[str]:
        """Ask so often, over so many connections; return how often each process answered.

        Raises ValueError when there are more connections than requests, and httpx.HTTPError when
        no answer comes.
        """
        if not 1 <= connections <= requests:
            raise ValueError(f"connections={connections!r}: must be 1 to {requests} (the requests)")
        async with asyncio.TaskGroup() as group:
            shares = [
                group.create_task(self._ask(requests // connections)) for _ in range(connections)
            ]
        return Counter(number for share in shares for number in share.result())

    async def _ask(self, times: int) -> list[str]:
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=30) as client:
            return [(await client.get(self._address)).text for _ in range(times)]

    async def _answers(self) -> bool:
        with suppress(httpx.TransportError):
            return bool(await self._ask(1))
        return False


def _started(command: list[str]) -> subprocess.Popen[bytes]:
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere)


def _children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _end(process: subprocess.Popen[bytes]) -> None:
    """End uvicorn and its workers, also where killing a parent leaves its children."""
    family = [*_children(process)]
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in family:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(family, timeout=5)
