"""How near lesson 07's pools come to their bounds, and what a loan costs beside a pool by hand."""

import asyncio
import functools
import math
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.pool import NullPool

from looplab.lab import compare, span
from looplab.shop import Shop, open_shop
from looplab.shop.models import User

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

REQUESTS = 40
TRIPS = 3  # of a request: BEGIN, the SELECT, ROLLBACK
ROUND_TRIP = 0.02  # seconds
LONG_TRIP = 0.07  # seconds: twenty requests at once are wait-bound only well above their work
SIZES = (1, 5, 20)
ROUNDS = 5
LOANS = 200


@pytest.fixture
def burst(names_of: Any) -> Any:
    """Return the lesson's ``burst(shop, requests)``."""
    count_users = select(func.count()).select_from(User)
    given = {"asyncio": asyncio, "span": span, "count_users": count_users}
    return names_of("07", ("naive-request",), definitions_only=True, **given)["burst"]


def _waits(size: int) -> int:
    return math.ceil(REQUESTS / size)


@asynccontextmanager
async def _shops() -> AsyncGenerator[dict[str, Shop]]:
    options: dict[str, Any] = {"users": 50, "products": 0, "pool_timeout": 60.0}
    async with AsyncExitStack() as stack:
        shops = {}
        for size in SIZES:
            name = f"pool of {size}"
            shop = open_shop(name=name, pool_size=size, **options)
            shops[name] = await stack.enter_async_context(shop)
        unpooled = open_shop(name="no pool", poolclass=NullPool, **options)
        shops["no pool"] = await stack.enter_async_context(unpooled)
        for shop in shops.values():
            await shop.warm()
        yield shops


async def test_requests_take_as_many_waits_as_the_pool_makes_groups(
    burst: Any, figures: Any
) -> None:
    waits = {f"pool of {size}": _waits(size) for size in SIZES} | {"no pool": 1}
    async with _shops() as shops:
        for shop in shops.values():
            shop.round_trip = ROUND_TRIP
        timing = await compare(
            {name: functools.partial(burst, shop, REQUESTS) for name, shop in shops.items()},
            repeat=ROUNDS,
            ideal={name: waits[name] * TRIPS * ROUND_TRIP for name in shops},
            show=False,
        )
        twenty = shops["pool of 20"]
        began = time.process_time()
        await burst(twenty, REQUESTS)
        work = time.process_time() - began
        twenty.round_trip = LONG_TRIP
        longer = await compare(
            {"twenty": functools.partial(burst, twenty, REQUESTS)},
            repeat=ROUNDS,
            ideal={"twenty": _waits(20) * TRIPS * LONG_TRIP},
            show=False,
        )
    with figures("lesson 07, 40 requests at once, 20 ms away") as table:
        table.at_most("one connection, of 40 waits", timing.of_ideal("pool of 1"), 1.2)
        table.at_most("five connections, of 8 waits", timing.of_ideal("pool of 5"), 1.2)
        table.only("twenty connections, of 2 waits", timing.of_ideal("pool of 20"))
        table.at_most("twenty connections, of 2 waits, 70 ms away", longer.of_ideal("twenty"), 1.2)
        table.only("twenty, processor time of 40 requests", work * 1000, "ms")
        table.only("NullPool, of 1 wait", timing.of_ideal("no pool"))
        table.only("one connection, of five", timing.ratio("pool of 1", "pool of 5"))


async def test_a_loan_beside_a_pool_by_hand(figures: Any) -> None:
    async with _shops() as shops:
        shop = shops["pool of 5"]
        by_hand: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()
        async with AsyncExitStack() as stack:
            for _ in range(5):
                opened = aiosqlite.connect(shop.path)
                by_hand.put_nowait(await stack.enter_async_context(opened))
            timing = await compare(
                {
                    "by hand": functools.partial(_ask_by_hand, by_hand),
                    "engine": functools.partial(_ask_engine, shop),
                    "session": functools.partial(_ask_session, shop),
                    "NullPool": functools.partial(_ask_engine, shops["no pool"]),
                },
                repeat=ROUNDS,
                show=False,
            )
    with figures(f"lesson 07, {LOANS} loans in turn, no wait") as table:
        each = timing.median("by hand") / LOANS * 1e6
        table.only("an asyncio.Queue of aiosqlite connections", each, "µs a loan")
        table.only("the engine's pool, of that", timing.ratio("engine", "by hand"))
        table.only("with a session, of that", timing.ratio("session", "by hand"))
        table.only("NullPool, of the engine's pool", timing.ratio("NullPool", "engine"))


STATEMENT = "SELECT count(*) FROM users"


async def _ask_by_hand(pool: asyncio.Queue[aiosqlite.Connection]) -> None:
    for _ in range(LOANS):
        connection = await pool.get()
        try:
            async with connection.execute(STATEMENT) as cursor:
                await cursor.fetchone()
            await connection.rollback()
        finally:
            pool.put_nowait(connection)


async def _ask_engine(shop: Shop) -> None:
    for _ in range(LOANS):
        async with shop.engine.connect() as connection:
            await connection.execute(text(STATEMENT))


async def _ask_session(shop: Shop) -> None:
    for _ in range(LOANS):
        async with shop.session() as session:
            await session.execute(text(STATEMENT))
