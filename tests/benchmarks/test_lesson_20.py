"""How far lesson 20's two limits are from their bounds: orders in groups, over two workers."""

from typing import Any

import pytest

from looplab.stages.fleet import Fleet

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

CHARGE = 0.2  # seconds
ORDERS = 20
AT_ONCE = 5
ROUNDS = 5


async def test_shared_slots_take_little_longer_than_the_partners_own_time(figures: Any) -> None:
    fleet = await Fleet.open()
    try:
        fleet.start("A", "B")
        best = {}
        for path in ("/orders/semaphore", "/orders/shared"):
            await fleet.ready("A", "B")
            taken = []
            for _ in range(ROUNDS):
                rush = await fleet.rush(ORDERS, path, "A", "B", in_batches=False)
                taken.append(rush.seconds)
            best[path] = min(taken)
    finally:
        await fleet.close()
    with figures("lesson 20, twenty orders over two workers") as table:
        bound = ORDERS / AT_ONCE * CHARGE
        table.at_most("shared slots, of their bound", best["/orders/shared"] / bound, 1.2)
        bound = ORDERS / (2 * AT_ONCE) * CHARGE
        table.at_most("a semaphore in each, of its bound", best["/orders/semaphore"] / bound, 1.2)
