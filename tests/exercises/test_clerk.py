"""The clerks of lesson 09, here in threads; the lesson runs them in processes."""

import asyncio
from uuid import UUID

import pytest

from looplab.exercises import clerk
from looplab.shop import open_shop
from looplab.shop.ledger import open_ledger
from looplab.shop.redis import open_redis, serve_redis

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("guard", "linger", "inside", "paid"),
    [("asyncio.Lock", 30, 2, 1), ("Redis lock", 0.2, 1, 2)],
)
async def test_two_clerks(guard: clerk.Guard, linger: float, inside: int, paid: int) -> None:
    async with (
        open_shop(users=0, products=0, name="clerks") as shop,
        serve_redis() as url,
        open_redis(url, name="clerks") as redis,
    ):
        ledger = await open_ledger(shop)
        order_id = await ledger.new_order()
        given = url, redis.prefix, str(shop.path), order_id.hex, guard, linger
        met = await asyncio.gather(*(asyncio.to_thread(clerk.book, *given) for _ in "12"))
        assert max(met) == inside
        assert await ledger.paid(order_id) == paid


async def test_an_unknown_guard_is_named() -> None:
    with pytest.raises(ValueError, match="guard='no lock': must be"):
        clerk.book("", "", "", "", "no lock", 0)  # ty: ignore[invalid-argument-type]


async def test_an_unknown_order_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clerk, "CLERKS", 1)
    async with (
        open_shop(users=0, products=0, name="clerks") as shop,
        serve_redis() as url,
        open_redis(url, name="clerks") as redis,
    ):
        await open_ledger(shop)
        given = url, redis.prefix, str(shop.path), UUID(int=7).hex, "Redis lock", 0.1
        with pytest.raises(LookupError, match="no such order"):
            await asyncio.to_thread(clerk.book, *given)


async def test_a_clerk_who_stays_alone_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clerk, "START_WITHIN", 0.05)
    async with serve_redis() as url, open_redis(url, name="clerks") as redis:
        given = url, redis.prefix, "nowhere", "order", "Redis lock", 0.1
        with pytest.raises(TimeoutError, match="the other clerk was not there"):
            await asyncio.to_thread(clerk.book, *given)
