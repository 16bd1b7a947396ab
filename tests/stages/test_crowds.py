"""The crowds that lesson 04 sends."""

import asyncio
from contextlib import nullcontext

import pytest
from aiolimiter import AsyncLimiter
from fastapi import FastAPI, Response

from looplab.lab import ms
from looplab.shop.partners import Supplier
from looplab.stages.crowds import bad_minute, three_pairs, twenty_calls

pytestmark = pytest.mark.anyio


async def test_of_twenty_calls_that_nothing_limits_ten_are_refused() -> None:
    assert sorted(await twenty_calls(nullcontext())) == [200] * 10 + [429] * 10


async def test_at_a_rate_below_the_contracts_all_twenty_are_served() -> None:
    assert await twenty_calls(AsyncLimiter(1, ms(25))) == [200] * 20


async def test_pairs_follow_one_another_although_calls_fail() -> None:
    inside, most, calls = 0, 0, 0

    async def call() -> None:
        nonlocal inside, most, calls
        inside, calls = inside + 1, calls + 1
        most = max(most, inside)
        await asyncio.sleep(0)
        inside -= 1
        raise LookupError

    await three_pairs(call)
    assert (calls, most) == (6, 2)


async def test_what_calls_leave_running_is_waited_for() -> None:
    running: set[asyncio.Task[None]] = set()

    async def call() -> None:
        running.add(asyncio.create_task(asyncio.sleep(ms(20))))

    await three_pairs(call, running)
    assert len(running) == 6
    assert all(task.done() for task in running)


async def test_in_a_bad_minute_all_requests_come_while_the_supplier_hangs() -> None:
    supplier, shop = Supplier(), FastAPI()
    hung = []

    @shop.get("/stock/{sku}")
    async def stock(sku: str) -> Response:
        hung.append(supplier.hang)
        return Response(status_code=200 if sku == "A" else 404)

    assert await bad_minute(shop, supplier, ["A", "B"]) == [200, 404]
    assert hung == [True, True]
    assert not supplier.hang
    assert shop.state.supplier_url.startswith("http://")
