"""The crowds of calls that lesson 04 sends: twenty at once, three pairs, thirty in a bad minute."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI

from looplab.lab import in_process, ms, serve
from looplab.shop.metered import MeteredPartner
from looplab.shop.partners import Supplier

CALLS = 20
SOLD = 10  # calls that the partner sells
PER = 200  # milliseconds in which it sells them
LATENCY = 5  # milliseconds that it takes for one
PAIRS = 3
STALL = 700  # milliseconds


async def twenty_calls(limiter: AbstractAsyncContextManager[Any]) -> list[int]:
    """Make twenty calls at once, each inside ``async with limiter``, and return their statuses.

    Their partner sells ten calls in any 200 ms, takes 5 ms for each, and answers 429 to more.
    """
    partner = MeteredPartner(most=SOLD, per=ms(PER), latency=ms(LATENCY))

    async def one_call() -> int:
        async with limiter:
            return await partner.call()

    return await asyncio.gather(*[one_call() for _ in range(CALLS)])


async def three_pairs(
    call: Callable[[], Awaitable[Any]], still_running: Collection[asyncio.Task[Any]] = ()
) -> None:
    """Make two calls at once, three times, whether they fail or not.

    Then wait for the tasks that ``still_running`` holds by then. Raises what one of these raises.
    """
    for _ in range(PAIRS):
        pair = [call(), call()]
        await asyncio.gather(*pair, return_exceptions=True)
    await asyncio.gather(*still_running)


async def bad_minute(shop: FastAPI, supplier: Supplier, skus: Sequence[str]) -> list[int]:
    """Ask ``shop`` for all ``skus`` at once while its supplier hangs; return the statuses.

    The supplier is served on a real server, whose URL the shop finds in
    ``app.state.supplier_url``. After 700 ms it wakes up and answers.
    """
    async with serve(supplier.app) as server:
        shop.state.supplier_url = server.url
        supplier.hang = True
        async with in_process(shop) as customers, asyncio.TaskGroup() as group:
            crowd = [group.create_task(customers.get(f"/stock/{sku}")) for sku in skus]
            await asyncio.sleep(ms(STALL))
            supplier.hang = False
        return [request.result().status_code for request in crowd]
