"""What lesson 08's clients cost, over one loopback server that answers at once."""

import ssl
from typing import Any

import httpx
import pytest

from looplab.lab import compare, serve
from looplab.shop.partners import Supplier

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

ROUNDS = 9
CELLS = ("setup", "open-supplier", "naive-service", "pattern-service", "pattern-call")


@pytest.fixture
def lesson(names_of: Any) -> dict[str, Any]:
    """Return the names that the lesson's cells define."""
    return names_of("08", CELLS, skus=[f"SKU-{number}" for number in range(10)])


async def test_a_client_per_call_costs_ten_times_the_shared_one(
    lesson: dict[str, Any], figures: Any
) -> None:
    context = ssl.create_default_context()
    skus, stock_of = lesson["skus"], lesson["stock_of"]

    async def context_shared(endpoint: str) -> Any:
        async with httpx.AsyncClient(verify=context) as client:
            return (await client.get(endpoint)).json()

    async with serve(Supplier().app) as server:
        before = server.connections
        timing = await compare(
            {
                "a client per call": lambda: stock_of(server.url, lesson["call_external_api"]),
                "the same, context shared": lambda: stock_of(server.url, context_shared),
                "one client": lambda: stock_of(server.url, lesson["call_shared"]),
            },
            repeat=ROUNDS,
            show=False,
        )
        connections = server.connections - before
        await lesson["HTTPClientPool"].close()
    calls = len(skus) * (ROUNDS + 1)
    assert connections == 2 * calls + 1
    with figures("lesson 08, ten calls over http to a server that answers at once") as table:
        table.at_most(
            "shared, of a client per call", timing.ratio("one client", "a client per call"), 0.1
        )
        table.only("a client per call, of shared", timing.ratio("a client per call", "one client"))
        table.only(
            "context shared, of shared", timing.ratio("the same, context shared", "one client")
        )
