"""A clerk: a process of its own that books one payment on an order, under a lock (lesson 09).

Two clerks start together, since each waits until the other is there. Whoever is inside its lock
gives the other a while to come in too; what then becomes of the two bookings is the experiment.
A pool of processes imports this module, so it needs little: redis-py and SQLite.
"""

import asyncio
import sqlite3
from contextlib import AbstractAsyncContextManager, closing
from typing import Literal

from redis.asyncio import Redis

Guard = Literal["asyncio.Lock", "Redis lock"]

CLERKS = 2
START_WITHIN = 60.0  # seconds until the other process must be there
LEASE = 60.0  # seconds
LOOK = 0.005  # seconds between two looks at Redis

READ = "SELECT paid FROM ledger WHERE order_id = ?"
WRITE = "UPDATE ledger SET paid = ? WHERE order_id = ?"


def book(url: str, prefix: str, path: str, order_id: str, guard: Guard, linger: float) -> int:
    """Book one payment in the ledger at ``path``; return how many clerks were inside at once.

    ``url`` and ``prefix`` say which Redis the clerks share and how their keys begin there,
    ``order_id`` is as the file holds it, and ``linger`` is how long the other may take to come in,
    in seconds.

    Raises ValueError for an unknown ``guard``, LookupError for an unknown order, and TimeoutError
    when the other clerk never starts.
    """
    if guard not in ("asyncio.Lock", "Redis lock"):
        raise ValueError(f"guard={guard!r}: must be 'asyncio.Lock' or 'Redis lock'")
    return asyncio.run(_book(url, prefix, path, order_id, guard, linger))


async def _book(
    url: str, prefix: str, path: str, order_id: str, guard: Guard, linger: float
) -> int:
    async with Redis.from_url(url) as redis:
        lock: AbstractAsyncContextManager[object] = (
            asyncio.Lock()
            if guard == "asyncio.Lock"
            else redis.lock(f"{prefix}lock:{order_id}", timeout=LEASE, sleep=LOOK)
        )
        here, inside, done = (
            f"{prefix}{what}:{guard}:{order_id}" for what in ("here", "in", "out")
        )
        await redis.incrby(here)
        if not await _seen(redis, {here: CLERKS}, within=START_WITHIN):
            raise TimeoutError(f"the other clerk was not there within {START_WITHIN:g} s")
        async with lock:
            paid = _read(path, order_id)
            together = await redis.incrby(inside)
            if await _seen(redis, {inside: CLERKS, done: 1}, within=linger) == inside:
                together = CLERKS
            _write(path, order_id, paid + 1)
            await redis.incrby(done)
            await redis.decrby(inside)
        return together


async def _seen(redis: Redis, counts: dict[str, int], *, within: float) -> str:
    """Return the first key whose number is high enough, or nothing when the time is over."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    while loop.time() < end:
        for key, enough in counts.items():
            if int(await redis.get(key) or 0) >= enough:
                return key
        await asyncio.sleep(LOOK)
    return ""


def _read(path: str, order_id: str) -> int:
    with closing(sqlite3.connect(path)) as db:
        row = db.execute(READ, (order_id,)).fetchone()
    if row is None:
        raise LookupError(f"order_id={order_id!r}: the ledger has no such order")
    return row[0]


def _write(path: str, order_id: str, paid: int) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(WRITE, (paid, order_id))
