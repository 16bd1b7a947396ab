"""What lesson 09's locks cost beside redis-py's Lock, on the lesson's own classes."""

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from functools import partial
from random import uniform
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio.lock import Lock
from redis.exceptions import RedisError

from looplab.lab import Comparison, compare
from looplab.shop.redis import CourseRedis, open_redis

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

TURNS = 100
ROUNDS = 7
WORKERS = 10
WAIT = 0.05  # seconds
IMPORTS = {
    "asyncio": asyncio,
    "asynccontextmanager": asynccontextmanager,
    "uniform": uniform,
    "uuid4": uuid4,
    "Lock": Lock,
    "RedisError": RedisError,
}
CELLS = ("pattern-commands", "pattern-lock", "pattern-holding", "ship-release")


@pytest.fixture
def lesson(names_of: Any) -> dict[str, Any]:
    """Return the names that the lesson's cells define, and those of the second helping."""
    shipped = names_of("09", CELLS, **IMPORTS)
    fenced = names_of("09_deeper", ["fence-script"], **IMPORTS)
    return shipped | {"FencedLock": fenced["FencedLock"]}


def locks_of(lesson: dict[str, Any], redis: CourseRedis) -> dict[str, Callable[[], Any]]:
    options = {"timeout": 10, "sleep": 0.005}
    return {
        "redis-py's Lock": partial(redis.lock, "order:7", **options),
        "holding": partial(lesson["holding"], redis, "order:7"),
        "FencedLock": partial(redis.lock, "order:7", lock_class=lesson["FencedLock"], **options),
    }


async def uncontended(locks: dict[str, Callable[[], Any]]) -> Comparison:
    async def turns(lock: Callable[[], Any]) -> None:
        for _ in range(TURNS):
            async with lock():
                pass

    runs = {name: partial(turns, lock) for name, lock in locks.items()}
    return await compare(runs, repeat=ROUNDS, show=False)


async def contended(locks: dict[str, Callable[[], Any]]) -> Comparison:
    async def work(lock: Callable[[], Any]) -> None:
        async with lock():
            await asyncio.sleep(WAIT)

    async def workers(lock: Callable[[], Any]) -> None:
        await asyncio.gather(*(work(lock) for _ in range(WORKERS)))

    runs = {name: partial(workers, lock) for name, lock in locks.items()}
    ideal = dict.fromkeys(runs, WORKERS * WAIT)
    return await compare(runs, repeat=3, ideal=ideal, show=False)


@pytest.mark.parametrize(
    "server", ["the embedded fake", pytest.param("a Redis server", marks=pytest.mark.redis)]
)
async def test_the_locks_cost_what_redis_pys_lock_costs(
    server: str, request: pytest.FixtureRequest, lesson: dict[str, Any], figures: Any
) -> None:
    url = "" if server == "the embedded fake" else request.getfixturevalue("redis_server")
    async with open_redis(url) as redis:
        locks = locks_of(lesson, redis)
        free, taken = await uncontended(locks), await contended(locks)
    with figures(f"lesson 09, a lock taken and given back, on {server}") as table:
        table.only("redis-py's Lock", free.median("redis-py's Lock") / TURNS * 1e6, "µs")
        table.only("holding, of it", free.ratio("holding", "redis-py's Lock"))
        fenced = free.ratio("FencedLock", "redis-py's Lock")
        if url:
            table.at_most("FencedLock, of it", fenced, 1.1)
        else:  # the fake starts a Lua interpreter for each script, a cost that no server has
            table.only("FencedLock, of it", fenced)
        for name in locks:
            table.at_most(
                f"{WORKERS} workers of 50 ms, {name}, of the bound", taken.of_ideal(name), 1.3
            )
