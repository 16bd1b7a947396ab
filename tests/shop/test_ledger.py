"""The ledger of lesson 09."""

import asyncio
from uuid import UUID

import pytest

from looplab.shop import open_shop
from looplab.shop.ledger import FENCE, PAID, open_ledger

pytestmark = pytest.mark.anyio


async def test_an_order_is_new_then_written() -> None:
    async with open_shop(users=0, products=0, name="ledger") as shop:
        ledger = await open_ledger(shop)
        order_id = await ledger.new_order()
        assert await ledger.paid(order_id) == 0
        assert await ledger.write(order_id, paid=3) == 1
        assert await ledger.write(order_id, paid=PAID + 1) == 1
        assert await ledger.paid(order_id) == 4
        assert await (await open_ledger(shop)).paid(order_id) == 4


async def test_a_condition_keeps_a_row_as_it_is() -> None:
    async with open_shop(users=0, products=0, name="ledger") as shop:
        ledger = await open_ledger(shop)
        order_id = await ledger.new_order()
        assert await ledger.write(order_id, FENCE <= 2, paid=1, fence=2) == 1
        assert await ledger.write(order_id, FENCE <= 1, paid=9, fence=1) == 0
        assert await ledger.paid(order_id) == 1


async def test_an_unknown_order_is_named() -> None:
    async with open_shop(users=0, products=0, name="ledger") as shop:
        ledger = await open_ledger(shop)
        with pytest.raises(LookupError, match="order_id="):
            await ledger.paid(UUID(int=7))
        assert await ledger.write(UUID(int=7), paid=1) == 0


async def test_calls_are_served_in_their_order() -> None:
    async with open_shop(users=0, products=0, name="ledger") as shop:
        ledger = await open_ledger(shop)
        order_id = await ledger.new_order()

        async def book() -> int:
            paid = await ledger.paid(order_id)
            await ledger.write(order_id, paid=paid + 1)
            return paid

        assert await asyncio.gather(*(book() for _ in range(10))) == [0] * 10
        assert await ledger.paid(order_id) == 1


async def test_a_fence_is_raised_by_one_and_returned() -> None:
    async with open_shop(users=0, products=0, name="ledger") as shop:
        ledger = await open_ledger(shop)
        order_id = await ledger.new_order()
        assert [await ledger.raise_fence(order_id) for _ in range(3)] == [1, 2, 3]
        assert await ledger.write(order_id, FENCE == 3, paid=1) == 1
        with pytest.raises(LookupError, match="no such order"):
            await ledger.raise_fence(UUID(int=0))


async def test_workers_start_at_once_on_a_new_order() -> None:
    async with open_shop(users=0, products=0, name="ledger") as shop:
        ledger = await open_ledger(shop)
        inside, most = 0, 0

        async def books(order_id: UUID) -> None:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            await ledger.write(order_id, paid=PAID + 1)
            inside -= 1

        assert await ledger.book_at_once(books, workers=4) == 4
        assert most == 4
        assert await ledger.book_at_once(books, workers=0) == 0
