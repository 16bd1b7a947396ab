"""A worker process that a lesson starts, listens to and kills.

It imports nothing of the course, so that a worker which imports it starts no slower for it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack, suppress


class WorkerFailed(RuntimeError):
    """A worker process ended before it could begin; the message holds what it wrote."""


class Child:
    """A Python process of its own, whose standard input, output and errors are pipes of text."""

    def __init__(
        self, arguments: Iterable[str], *, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start Python with these arguments, and with ``environment`` besides this process's."""
        # Not asyncio's own subprocesses: the event loop of a notebook on Windows starts none.
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            env=os.environ | dict(environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    async def hear(self) -> str:
        """Return the next line that it prints, without the space around it.

        Raises WorkerFailed when it ends, or prints an empty one, instead.
        """
        assert self._process.stdout is not None
        line = (await asyncio.to_thread(self._process.stdout.readline)).strip()
        if not line:
            self._process.kill()
            _, errors = await asyncio.to_thread(self._process.communicate)
            raise WorkerFailed(errors.strip()[-2_000:] or "it said nothing")
        return line

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens when it has ended."""
        self._process.send_signal(number)

    async def kill(self) -> None:
        """Kill the process as the system does when memory runs out: no handler, no `finally`.

        Killing one that has ended does nothing.
        """
        self._process.kill()
        await asyncio.shield(asyncio.to_thread(self._reap))

    def _reap(self) -> None:
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            with suppress(OSError):  # what was still to be written finds nobody to read it
                stream.close()


async def kill_each(children: Iterable[Child]) -> None:
    """Kill all of them, each even where killing another one fails or is cancelled."""
    async with AsyncExitStack() as stack:
        for child in children:
            stack.push_async_callback(child.kill)
