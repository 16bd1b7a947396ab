"""Lesson 20's service: it takes orders, and charges each at a partner who allows few at once.

What the lesson's cells hold stands here as well, where several processes can import it; a test
holds one against the other. Run as a module, this file is a worker: uvicorn on a loopback port of
its own. It ends when its standard input is closed, which happens however the notebook ends, and not
before: a reader may pause between two cells. It imports neither lab nor shop, which would make it
slower to start.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import uuid4

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException
from redis.asyncio import Redis
from redis.exceptions import RedisError

ANSWERS_WITHIN: Final = 120.0  # seconds
STOP: Final = "stop\n"

app = FastAPI()


# ---------------------------------------------------------------- what the process is connected to


class Connections:
    """What one process has opened: a client of the partner, and Redis.

    Attributes:
        name: what the worker is called.
        partner: a client of the partner.
        redis: a client of the Redis that all workers share.
        prefix: what each key in Redis begins with.
    """

    name: str = ""
    partner: httpx.AsyncClient
    redis: Any
    prefix: str = ""


here = Connections()


def connect(name: str, partner: str, redis: str, prefix: str) -> None:
    """Open the process's connections. `partner` and `redis` are addresses."""
    here.name, here.prefix = name, prefix
    here.partner = httpx.AsyncClient(
        base_url=partner, trust_env=False, timeout=ANSWERS_WITHIN, headers={"X-Worker": name}
    )
    here.redis = Redis.from_url(redis, decode_responses=True)


async def disconnect() -> None:
    """Close what `connect` has opened."""
    await here.partner.aclose()
    await here.redis.aclose()


async def charge() -> None:
    """Charge one order. Raises HTTPException with 502 when the partner refuses."""
    answer = await here.partner.post("/charges")
    if answer.is_error:
        raise HTTPException(502, f"the partner answered {answer.status_code}")


async def read_price() -> int:
    """Return the lamp's price in cents, as the partner has it."""
    return (await here.partner.get("/price")).json()


async def write_price(cents: int) -> None:
    """Change the lamp's price at the partner."""
    (await here.partner.put("/price", json=cents)).raise_for_status()


# ---------------------------------------------------------------- what the lesson's cells hold

slots = asyncio.Semaphore(5)


async def order_with_semaphore() -> None:
    """Charge an order, five at a time in this process."""
    async with slots:
        await charge()


TAKE: Final = """
-- KEYS[1]: the slots; ARGV: the limit, the lease in ms, our token
local now = redis.call('TIME')
local at = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, at)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], at + ARGV[2], ARGV[3])
local left = redis.call('PTTL', KEYS[1])  -- negative without an expiry
redis.call('PEXPIRE', KEYS[1], math.max(left, tonumber(ARGV[2])))
return 1
"""


class SlotsBusy(Exception):
    """No slot came free in time."""


async def take_slot(redis: Redis, key: str, arguments: list[Any], patience: float) -> None:
    """Run the script until it has taken a slot. Raises SlotsBusy when `patience` is over."""
    try:
        async with asyncio.timeout(patience) as waiting:
            while not await redis.eval(TAKE, 1, key, *arguments):
                # wait_for of Python 3.11, in redis-py, can lose a cancellation
                if waiting.expired():
                    raise TimeoutError
                await asyncio.sleep(random.uniform(0.01, 0.03))
    except TimeoutError:
        raise SlotsBusy from None


log = logging.getLogger("slots")


async def release_slot(redis: Redis, key: str, token: str, lease: float) -> None:
    """Give a slot back. If Redis is away, or silent for a lease, that is logged."""
    try:
        async with asyncio.timeout(lease):
            await asyncio.shield(redis.zrem(key, token))
    except (RedisError, TimeoutError):
        log.warning("Redis is away: the lease will free a slot of %s", key)


@asynccontextmanager
async def shared_slot(
    redis: Redis, key: str, *, limit: int, lease: float, patience: float
) -> AsyncGenerator[None]:
    """Hold one of `limit` slots that all processes share which use this `key` of one Redis.

    Waits `patience` seconds for one. `lease` is how many seconds Redis keeps a slot whose holder is
    gone; the block may take 0.8 of that, and is cancelled then.

    Raises SlotsBusy when no slot came free in time, TimeoutError when the block took too long, and
    redis.RedisError when Redis is away before the block: nobody gets a slot then. If it's away
    afterwards, or silent for a lease, what the block did stands: that is logged, and the lease
    frees the slot.
    """
    token = uuid4().hex
    arguments = [limit, int(lease * 1_000), token]
    try:
        await take_slot(redis, key, arguments, patience)
        async with asyncio.timeout(0.8 * lease):
            yield
    finally:
        await release_slot(redis, key, token, lease)


limits: dict[str, Any] = {"limit": 5, "lease": 10, "patience": 20}


async def order_with_shared_slots() -> None:
    """Charge an order, five at a time in all processes.

    Raises HTTPException: with 503 when no slot comes free in time, and nothing was charged; with
    504 when the charge was cut off, and may have been done.
    """
    try:
        async with shared_slot(here.redis, f"{here.prefix}:slots", **limits):
            await charge()
    except (SlotsBusy, RedisError):
        raise HTTPException(503, "busy", {"Retry-After": "1"}) from None
    except TimeoutError:
        raise HTTPException(504, "perhaps charged") from None


async def order_with_counter() -> None:
    """Charge an order, five at a time in all processes, as long as none of them is killed."""
    key = f"{here.prefix}:counter"
    while await here.redis.incr(key) > 5:
        await here.redis.decr(key)
        await asyncio.sleep(0.02)
    try:
        await charge()
    finally:
        await here.redis.decr(key)


prices: dict[str, int] = {}


async def get_price_from_memory() -> int:
    """Return the lamp's price, which this process asks for once."""
    if "lamp" not in prices:
        prices["lamp"] = await read_price()
    return prices["lamp"]


async def put_price_into_memory(cents: int) -> None:
    """Change the lamp's price, and what this process remembers of it."""
    await write_price(cents)
    prices["lamp"] = cents


async def get_price_from_redis() -> int:
    """Return the lamp's price, which one process asks for once in a minute."""
    key = f"{here.prefix}:price:lamp"
    kept = await here.redis.get(key)
    if kept is not None:
        return int(kept)
    cents = await read_price()
    await here.redis.set(key, cents, ex=60)
    return cents


async def put_price_into_redis(cents: int) -> None:
    """Change the lamp's price, and drop what is remembered of it."""
    await write_price(cents)
    await here.redis.delete(f"{here.prefix}:price:lamp")


@app.get("/ready")
async def ready() -> str:
    """Return the worker's name. Raises HTTPException with 503 when it is about to stop."""
    if getattr(app.state, "draining", False):
        raise HTTPException(503, "draining")
    return here.name


class DrainingServer(uvicorn.Server):
    """A uvicorn that is not ready for `pause` seconds before it stops."""

    pause = 5.0

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Say that the service is not ready, go on for `pause` seconds, then stop."""
        if getattr(app.state, "draining", False):
            super().handle_exit(sig, frame)
            return
        app.state.draining = True
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(loop.call_later, self.pause, self.end, sig)

    def end(self, sig: int) -> None:
        """Stop, unless a second signal has done so."""
        if not self.should_exit:
            super().handle_exit(sig, None)


# ---------------------------------------------------------------- the worker process

app.post("/orders/semaphore")(order_with_semaphore)
app.post("/orders/shared")(order_with_shared_slots)
app.post("/orders/counter")(order_with_counter)
app.get("/price/memory")(get_price_from_memory)
app.put("/price/memory")(put_price_into_memory)
app.get("/price/redis")(get_price_from_redis)
app.put("/price/redis")(put_price_into_redis)


def _obey(server: uvicorn.Server, loop: asyncio.AbstractEventLoop) -> None:
    """Stop when told to, where there is no SIGTERM; end when nobody is there to tell."""
    for line in sys.stdin:
        if line == STOP:
            loop.call_soon_threadsafe(server.handle_exit, signal.SIGTERM, None)
    os._exit(0)


async def _work(pause: str, name: str, partner: str, redis: str, prefix: str, lease: str) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    connect(name, partner, redis, prefix)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, loop="asyncio", timeout_graceful_shutdown=5
    )
    DrainingServer.pause, limits["lease"] = float(pause), float(lease)
    server = DrainingServer(config) if DrainingServer.pause else uvicorn.Server(config)
    loop = asyncio.get_running_loop()
    threading.Thread(target=_obey, args=(server, loop), daemon=True).start()
    print(listening.getsockname()[1], flush=True)  # noqa: T201
    await server.serve([listening])
    await disconnect()


if __name__ == "__main__":
    # As a module of its own name, so that nothing exists twice.
    from looplab.stages import checkout

    asyncio.run(checkout._work(*sys.argv[1:]))
