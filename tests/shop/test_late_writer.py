"""The late writer of lesson 09: two holders, step by step."""

from typing import Any
from uuid import UUID

import pytest

from looplab.shop import open_shop
from looplab.shop.late_writer import two_holders
from looplab.shop.ledger import open_ledger
from looplab.shop.redis import open_redis

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("last", "written"), [("late", [1, 0]), ("prompt", [0, 1])])
async def test_two_holders_write_in_the_order_that_is_asked_for(
    last: Any, written: list[int]
) -> None:
    begun, wrote = [], []
    async with (
        open_shop(users=0, products=0, name="late") as shop,
        open_redis("", name="late") as redis,
    ):
        ledger = await open_ledger(shop)

        async def begin(order_id: UUID) -> int:
            assert await redis.set(f"order:{order_id}", "mine", nx=True), "the lease had not ended"
            begun.append(order_id)
            return len(begun) - 1

        async def finish(order_id: UUID, read: int) -> bool:
            wrote.append(read)
            return await ledger.write(order_id, paid=1) == 1

        assert await two_holders(redis, ledger, begin, finish, last=last) == (2, 1)
        assert wrote == written
        assert not await redis.exists(f"order:{begun[0]}")
        never: Any = "nobody"
        with pytest.raises(ValueError, match="last='nobody'"):
            await two_holders(redis, ledger, begin, finish, last=never)
