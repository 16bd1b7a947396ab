"""Lesson 15's stage: where orders come in, and a Redis, a bank, a mailer and worker processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter
from typing import Any, Final, Self
from uuid import UUID, uuid4

import httpx
import redis.asyncio
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import ASGIApp, Lifespan
from taskiq import AsyncBroker, AsyncTaskiqTask, TaskiqResult
from taskiq.api import run_receiver_task
from taskiq_redis import ListRedisScheduleSource

from looplab.lab import caught_leaks, in_process, mark, ms, serve, show_table, span
from looplab.shop import Shop
from looplab.shop.models import Order
from looplab.shop.newcomers import Rush, open_mailer
from looplab.shop.partners import Mailer, PaymentService
from looplab.shop.pools import open_pool
from looplab.shop.redis import delete_keys, serve_redis
from looplab.stages.child import kill_each
from looplab.stages.settling import Worker
from looplab.stages.stage import Stage

RUSH: Final = ("", "last answer after", "last invoice after", "invoices at once")
PRICE: Final = 1_999  # cents


@dataclass(frozen=True, slots=True)
class FrontDesk:
    """Where orders come in: a shop with two connections, and a mailer in this process.

    Attributes:
        shop: the shop; `shop.sessions()` opens a session.
        mailer: takes the invoices, each in the time that `open` was given.
        mail: a client of the mailer.
        buyer: who orders.
    """

    shop: Shop
    mailer: Mailer
    mail: httpx.AsyncClient
    buyer: UUID

    @classmethod
    async def open(cls, *, invoice: float) -> Self:
        """Open it; an invoice takes `invoice` seconds. Close it in the end."""
        mailer, mail = open_mailer(latency=invoice)
        shop = await open_pool(2)
        return cls(shop, mailer, mail, (await shop.users.get_batch(0, 1))[0].id)

    async def place_order(self, session: AsyncSession) -> Order:
        """Add an order, commit it, and refresh it, as FastAPI's tutorial does."""
        order = Order(user_id=self.buyer, total=PRICE)
        session.add(order)
        await session.commit()
        await session.refresh(order)
        return order

    async def send_invoice(self, order_id: UUID) -> None:
        """Mail an order's invoice. Raises httpx.HTTPStatusError when the mailer refuses."""
        with span("invoice"):
            letter = {"to": f"{order_id}@x.test", "subject": "Invoice"}
            (await self.mail.post("/send", json=letter)).raise_for_status()

    async def close(self) -> None:
        """Close the shop and the mailer's client."""
        await self.mail.aclose()
        await self.shop.close()


def app_with(
    endpoint: Callable[..., Awaitable[Any]], *, lifespan: Lifespan[FastAPI] | None = None
) -> FastAPI:
    """Return an app that answers POST /orders by `endpoint`, with a lifespan if one is given."""
    app = FastAPI(lifespan=lifespan)
    app.add_api_route("/orders", endpoint, methods=["POST"])
    return app


async def one_order(app: ASGIApp) -> None:
    """Send one order, mark when it is answered, and return when the app has done everything."""
    async with in_process(app, wait_for_background=False) as client:
        (await client.post("/orders")).raise_for_status()
        mark("answered")


delivered: list[str] = []
"""The orders that `deliver` has delivered; clear it to begin anew."""


async def deliver(order_id: str) -> None:
    """Deliver an order, which takes 700 ms."""
    await asyncio.sleep(ms(700))
    delivered.append(order_id)


async def refuse(order_id: str) -> None:
    """Raises LookupError: there is nowhere to deliver to."""
    raise LookupError("no such address")


class BackOffice(Stage):
    """Served on loopback: a Redis with a queue of its own, a bank and a mailer.

    `await BackOffice.open(...)` opens one, and closes the one that was open before, so that a cell
    may run twice.

    Attributes:
        redis_url: the address of REDIS_URL's server, or of a fake that is served in a thread.
        queue: the name of the queue, which no other has. What stands under it is deleted on close.
        bank, mailer: the partners; `bank.charges` and `mailer.sent` tell what they have done.
        addresses: where the partners answer, by "bank" and "mailer".
        workers: the worker processes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queue = f"course:{uuid4().hex}:jobs"
        self.redis_url = ""
        self.bank = PaymentService()
        self.mailer = Mailer()
        self.addresses: dict[str, str] = {}
        self.workers: list[Worker] = []

    @classmethod
    async def open(cls, *, given_up_after: float, workers: int = 2) -> Self:
        """Open one, whose workers load and wait for their `begin`.

        A worker leaves a job to another one that hasn't finished it `given_up_after` seconds after
        it took it. Raises what `serve` raises when a server can't start.
        """
        office = cls()
        async with office._opening() as stack:
            office.redis_url = await stack.enter_async_context(serve_redis())
            stack.push_async_callback(office._delete_queue)
            bank = await stack.enter_async_context(serve(office.bank.app))
            mailer = await stack.enter_async_context(serve(office.mailer.app))
            office.addresses = {"bank": bank.url, "mailer": mailer.url}
            stack.push_async_callback(office._stop_work)
            for _ in range(workers):
                worker = Worker(
                    office.redis_url,
                    office.queue,
                    given_up_after=given_up_after,
                    **office.addresses,
                )
                office.workers.append(worker)
        return office

    async def _stop_work(self) -> None:
        try:
            await kill_each(self.workers)
        finally:
            self.workers.clear()
            self.mailer.release()
            self.bank.release()

    async def _delete_queue(self) -> None:
        async with redis.asyncio.Redis.from_url(self.redis_url) as client:
            await delete_keys(client.execute_command, f"*{self.queue}*")

    async def age_jobs(self, *, seconds: float) -> int:
        """Make the jobs that are out look as if a worker took them `seconds` ago.

        Nobody has to wait so long then for another worker to take them over. Returns how many of
        the queue's first thousand that were. Raises redis.ResponseError where no broker of the
        queue was started.
        """
        async with redis.asyncio.Redis.from_url(self.redis_url) as client:
            out: Any = await client.xpending_range(self.queue, "taskiq", "-", "+", count=1_000)
            idle = round(seconds * 1_000)
            for job in out:
                await client.xclaim(
                    self.queue,
                    "taskiq",
                    job["consumer"],
                    0,
                    [job["message_id"]],
                    idle=idle,
                    justid=True,
                )
        return len(out)

    async def read_jobs(self, queue: str, *, count: int) -> list[bytes]:
        """Read up to `count` jobs of a queue as a worker does, and return the ids of their entries.

        They are out until they are acknowledged. Raises redis.ResponseError where no broker of the
        queue was started.
        """
        async with redis.asyncio.Redis.from_url(self.redis_url) as client:
            answer: Any = await client.xreadgroup("taskiq", "reader", {queue: ">"}, count=count)
        return [entry for _, entries in answer for entry, _ in entries]

    async def result_of(
        self, client: httpx.AsyncClient, broker: AsyncBroker, order_id: str
    ) -> TaskiqResult[Any]:
        """Send an order to an app, wait until its job has ended, and return the job's result.

        The app answers POST /orders/ORDER by ``{"job": JOB}``. Raises TaskiqResultTimeoutError when
        the job has not ended within 20 s, and httpx.HTTPStatusError when the order is refused.
        """
        answer = (await client.post(f"/orders/{order_id}")).raise_for_status()
        job = AsyncTaskiqTask(answer.json()["job"], broker.result_backend)
        return await job.wait_result(check_interval=ms(20), timeout=ms(20_000))


def show_rushes(rushes: Mapping[str, Rush]) -> None:
    """Show a table of rushes by name."""
    show_table(RUSH, [one.row(name) for name, one in rushes.items()])


async def rush(app: ASGIApp, mailer: Mailer, *, orders: int = 10) -> Rush:
    """Send so many orders at once and wait until each has its answer and its invoice.

    One order goes ahead, to warm everything up; it isn't counted, and nor is what the mailer had
    before. Raises httpx.HTTPStatusError when an order is refused, and what a background task
    raises.
    """
    async with in_process(app, wait_for_background=False) as client:
        (await client.post("/orders")).raise_for_status()
    mailer.reset()
    began = perf_counter()
    async with in_process(app, wait_for_background=False) as client:
        answers = await asyncio.gather(*(client.post("/orders") for _ in range(orders)))
        answered = perf_counter() - began
        for answer in answers:
            answer.raise_for_status()
    return Rush(answered, perf_counter() - began, mailer.peak_in_flight)


@asynccontextmanager
async def working(
    broker: AsyncBroker, *others: Coroutine[Any, Any, None], places: int = 100
) -> AsyncGenerator[None]:
    """Run a worker of `broker`, and `others`, as tasks of this process for the length of a block.

    The worker does `places` jobs at once at most, as many as taskiq's own command by default.

    What they have in hand ends with them, as it would in a process that is killed, and the broker
    is shut down. On Python 3.11 `asyncio.wait_for` may drop a cancellation that comes as its wait
    ends (CPython issue 86296). redis-py waits by it, and taskiq cancels the read of its queue only
    once. So what is left is cancelled until it heeds, that read included. taskiq-redis leaves
    pipelines unclosed, which are not the lesson's to close.
    """
    with caught_leaks():
        before = asyncio.all_tasks()
        worker = run_receiver_task(broker, max_async_tasks=places, run_startup=True)
        loops = (worker, *others)
        tasks = {asyncio.create_task(loop) for loop in loops}
        try:
            yield
        finally:
            while pending := {one for one in tasks | _made_by_taskiq(before) if not one.done()}:
                for task in pending:
                    task.cancel()
                await asyncio.wait(pending, timeout=ms(50))
            await broker.shutdown()


def _made_by_taskiq(before: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Return the jobs in hand and the reads of a queue that have begun since."""
    found = set()
    for task in asyncio.all_tasks() - before:
        coroutine = task.get_coro()
        is_job = getattr(coroutine, "__qualname__", "") == "Receiver.callback"
        if is_job or type(coroutine).__name__ == "async_generator_asend":
            found.add(task)
    return found


class ScheduleSource(ListRedisScheduleSource):
    """taskiq-redis's source of schedules, which closes its connections and forgets no late job.

    That of taskiq-redis 1.2 leaves its connections open. And where its prefix has a colon, it never
    looks at the minutes before this one: a job that is due at the end of a minute, and was not sent
    in it, is lost.
    """

    def _parse_time_key(self, key: str) -> datetime | None:
        minute = key.removeprefix(f"{self._prefix}:time:")
        return super()._parse_time_key(f"prefix:time:{minute}")

    async def shutdown(self) -> None:
        """Close the connections."""
        await self._connection_pool.disconnect()
