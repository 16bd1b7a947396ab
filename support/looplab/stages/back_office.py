"""What lesson 15 runs its jobs on: a Redis, a bank, a mailer and worker processes.

Also the rush of orders that its three ways to send an invoice are compared by.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Final, Self
from uuid import uuid4

import redis.asyncio
from redis.exceptions import RedisError
from starlette.types import ASGIApp

from looplab.lab import in_process, serve
from looplab.shop.partners import Mailer, PaymentService
from looplab.shop.redis import serve_redis
from looplab.shop.settling import Worker

RUSH: Final = ("", "last answer after", "last invoice after", "invoices at once")


class BackOffice:
    """Served on loopback: a Redis with a queue of its own, a bank and a mailer.

    `await BackOffice.open()` opens one, and closes the one that was open before, so that a cell may
    run twice.

    Attributes:
        redis_url: the address of REDIS_URL's server, or of a fake that is served in a thread.
        queue: the name of the queue, which no other has. What stands under it is deleted on close.
        bank, mailer: the partners; `bank.charges` and `mailer.sent` tell what they have done.
    """

    _open: BackOffice | None = None

    def __init__(self) -> None:
        self.queue = f"course:{uuid4().hex}:jobs"
        self.bank = PaymentService()
        self.mailer = Mailer()
        self._stack = AsyncExitStack()
        self._workers: list[Worker] = []

    @classmethod
    async def open(cls) -> Self:
        """Open one. Raises what `serve` raises when a server can't start."""
        if cls._open is not None:
            await cls._open.close()
        office = cls()
        async with office._stack:
            office.redis_url = await office._stack.enter_async_context(serve_redis())
            bank = await office._stack.enter_async_context(serve(office.bank.app))
            mailer = await office._stack.enter_async_context(serve(office.mailer.app))
            office._addresses = {"bank": bank.url, "mailer": mailer.url}
            office._stack = office._stack.pop_all()
        cls._open = office
        return office

    def hire(self, *, given_up_after: float) -> Worker:
        """Return a worker process that loads and waits for its `begin`.

        `given_up_after` is how long it leaves a job to another worker that doesn't finish it, in
        seconds.
        """
        worker = Worker(
            self.redis_url, self.queue, given_up_after=given_up_after, **self._addresses
        )
        self._workers.append(worker)
        return worker

    async def close(self) -> None:
        """End the workers and the servers and delete the queue; closing again does nothing."""
        if BackOffice._open is self:
            BackOffice._open = None
        self.mailer.release()
        self.bank.release()
        for worker in self._workers:
            await worker.kill()
        self._workers.clear()
        with suppress(RedisError, OSError):
            async with redis.asyncio.Redis.from_url(self.redis_url) as client:
                keys = [key async for key in client.scan_iter(match=f"*{self.queue}*")]
                if keys:
                    await client.delete(*keys)
        await self._stack.aclose()


@dataclass(frozen=True, slots=True)
class Rush:
    """Many orders in one moment. Times are in seconds since the first.

    Attributes:
        answered: when the last of them had its answer.
        mailed: when the mailer had taken the last invoice.
        at_once: the most invoices that the mailer had in hand at a time.
    """

    answered: float
    mailed: float
    at_once: int

    def row(self, name: str) -> list[str]:
        """Return a row of a table with the headings in `RUSH`."""
        times = (f"{seconds * 1000:.0f} ms" for seconds in (self.answered, self.mailed))
        return [name, *times, str(self.at_once)]


async def rush(app: ASGIApp, mailer: Mailer, *, path: str = "/orders", orders: int = 10) -> Rush:
    """Send so many POSTs at once and wait until each has its answer and its invoice.

    One order goes ahead, to warm everything up; it isn't counted, and nor is what the mailer had
    before. Raises httpx.HTTPStatusError when an order is refused, and what a background task
    raises.
    """
    async with in_process(app, wait_for_background=False) as client:
        (await client.post(path)).raise_for_status()
    mailer.reset()
    began = perf_counter()
    async with in_process(app, wait_for_background=False) as client:
        answers = await asyncio.gather(*(client.post(path) for _ in range(orders)))
        answered = perf_counter() - began
        for answer in answers:
            answer.raise_for_status()
    return Rush(answered, perf_counter() - began, mailer.peak_in_flight)
