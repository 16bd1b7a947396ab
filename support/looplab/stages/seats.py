"""A bad moment of lesson 08's supplier, and how many calls a pool of ten can make after it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

from looplab.lab import ms, serve
from looplab.shop.partners import Supplier

SEATS = 10
CALLS = 40
TIMES = 4
SLOW = 500  # milliseconds
PATIENCE = 1_000  # milliseconds


async def after_a_bad_moment(
    library: ModuleType, hurried: Callable[[Any, int], Awaitable[Any]]
) -> dict[str, int]:
    """Hurry a slow supplier, and count what ten calls get once it answers at once again.

    Forty calls of ``hurried(client, number)`` come at the same moment, four times, while the
    supplier takes 500 ms. They share a client of ``library``, httpx or httpx2, with a pool of ten.

    Returns how many of the ten calls got what, by the name of its class: ``{"Response": 10}``.
    Raises what ``hurried`` raises.
    """
    supplier = Supplier(latency=ms(SLOW))
    limits = library.Limits(max_connections=SEATS)
    async with (
        serve(supplier.app) as server,
        # no TLS context: the supplier speaks http
        library.AsyncClient(base_url=server.url, limits=limits, verify=False) as client,
    ):
        for _ in range(TIMES):
            await asyncio.gather(*[hurried(client, number) for number in range(CALLS)])
        supplier.latency = 0
        calls = [client.get("/stock/A", timeout=ms(PATIENCE)) for _ in range(SEATS)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    return dict(Counter(type(outcome).__name__ for outcome in outcomes))
