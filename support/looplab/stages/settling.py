"""Lesson 15's job, which a worker process does: charge an order, then mail its invoice.

`make_results`, `make_broker`, `settle_with_new_keys` and `settle` stand in the lesson or its second
helping as well, where an app and its worker would import one module; a test holds them against the
cells. Run as a module, this file is the worker: it takes no job until its standard input says so.
It ends when that is closed, which happens however the notebook ends, and not before: a reader may
pause between two cells. It imports neither lab nor shop, which would make it slower to start.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Any, Final
from uuid import uuid4

import httpx
from taskiq import AsyncBroker, SmartRetryMiddleware
from taskiq.api import run_receiver_task
from taskiq.serializers import JSONSerializer
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from looplab.stages.child import Child

ANSWERS_WITHIN: Final = 120.0  # seconds
READY: Final = "ready"
BEGIN: Final = "begin\n"
BANK: Final = "BANK_URL"
MAILER: Final = "MAILER_URL"


# ---------------------------------------------------------------- what the job does


async def charge(order_id: str, amount: int, *, key: str) -> int:
    """Charge an order and return the number of its receipt; `amount` in cents.

    The bank charges once for each `key`. Raises httpx.HTTPError when it refuses or is away.
    """
    order = {"order_id": order_id, "amount": amount}
    return await _post(BANK, "/charges", order, {"Idempotency-Key": key})


async def mail_invoice(order_id: str, receipt: int) -> None:
    """Mail the invoice to ``ORDER@x.test``. Raises httpx.HTTPError when the mailer refuses."""
    letter = {"to": f"{order_id}@x.test", "subject": "Invoice", "body": str(receipt)}
    await _post(MAILER, "/send", letter)


async def _post(
    partner: str, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
) -> int:
    async with httpx.AsyncClient(base_url=os.environ[partner], trust_env=False) as client:
        answer = await client.post(path, json=body, headers=headers, timeout=ANSWERS_WITHIN)
        answer.raise_for_status()
        return answer.json()["id"]


# ---------------------------------------------------------------- what the lesson's cells hold


def make_results(url: str, queue: str) -> RedisAsyncResultBackend[Any]:
    """Return where the results of a queue's jobs are kept: in Redis, as JSON, for a day."""
    return RedisAsyncResultBackend(
        url, result_ex_time=86400, serializer=JSONSerializer(), prefix_str=queue
    )


def make_broker(url: str, queue: str = "jobs", given_up_after: float = 300) -> RedisStreamBroker:
    """Return the broker: jobs in a stream of Redis, results for a day, three attempts for each.

    A job that a worker has had for longer than `given_up_after` seconds, and has not finished, is
    given to another one.
    """
    broker = RedisStreamBroker(
        url,
        queue_name=queue,
        consumer_id="0",
        xread_count=1,
        idle_timeout=int(given_up_after * 1_000),
    )
    retries = SmartRetryMiddleware(default_retry_label=True, default_delay=0)
    results = make_results(url, queue)
    return broker.with_result_backend(results).with_middlewares(retries)


async def settle_with_new_keys(order_id: str, amount: int) -> int:
    """Charge an order and mail its invoice; return the number of the receipt."""
    receipt = await charge(order_id, amount, key=uuid4().hex)
    await mail_invoice(order_id, receipt)
    return receipt


async def settle(order_id: str, amount: int) -> int:
    """Charge an order and mail its invoice, with a key that another attempt finds again."""
    receipt = await charge(order_id, amount, key=order_id)
    await mail_invoice(order_id, receipt)
    return receipt


def register_jobs(broker: AsyncBroker) -> None:
    """Make both jobs known to the broker, as the lesson's cells do."""
    broker.task("settle_with_new_keys", timeout=60)(settle_with_new_keys)
    broker.task("settle", timeout=60)(settle)


# ---------------------------------------------------------------- the worker process


class Worker(Child):
    """A worker as a process of its own, which loads at once and takes no job before `begin`."""

    def __init__(
        self, url: str, queue: str, *, bank: str, mailer: str, given_up_after: float
    ) -> None:
        """Start the process; `bank` and `mailer` are addresses, `given_up_after` in seconds."""
        super().__init__(
            ["-m", __name__, url, queue, str(given_up_after)],
            environment={BANK: bank, MAILER: mailer},
        )

    async def begin(self) -> None:
        """Let the worker take jobs. Raises WorkerFailed when it could not be loaded."""
        await self.hear()  # says READY
        self.tell(BEGIN)


def _end_when_nobody_listens() -> None:
    sys.stdin.read()
    os._exit(0)


async def _work(url: str, queue: str, given_up_after: str) -> None:
    broker = make_broker(url, queue, float(given_up_after))
    register_jobs(broker)
    await run_receiver_task(broker, max_async_tasks=10, run_startup=True)


if __name__ == "__main__":
    print(READY, flush=True)  # noqa: T201
    if sys.stdin.readline() == BEGIN:
        threading.Thread(target=_end_when_nobody_listens, daemon=True).start()
        asyncio.run(_work(*sys.argv[1:]))
