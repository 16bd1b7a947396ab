"""How near lesson 05's searches come to their deadlines when one of three sources hangs.

On the lesson's own functions. The shipped search stands beside the same one by AnyIO, the library
that a user would pick.
"""

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from support.lab import compare
from support.shop import open_shop

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

DEADLINE = 0.05  # seconds, of each source in one search and of everything in the other
WAIT = 0.02  # seconds until a source answers, if it does
ROUNDS = 15
QUERY = "blue lamp"
CELLS = ("open-shop", "connect", "naive", "pattern", "breaks-errors-mended", "practice-anyio")


@pytest.fixture
async def lesson(names_of: Any) -> AsyncGenerator[dict[str, Any]]:
    """Yield the names that the lesson's cells define, with the external API hung."""
    names = names_of("05", ("setup", *CELLS), definitions_only=True)
    used = [{"id": 1, "name": f"Used {QUERY}"}]
    engine = names["SearchEngine"]("elasticsearch", latency=WAIT)
    api = names["SearchEngine"]("external_api", documents={"used": used}, latency=WAIT)
    async with (
        open_shop(users=0, products=200, name="benchmark 05") as shop,
        names["in_this_process"](engine) as engine_client,
        names["in_this_process"](api) as api_client,
    ):
        await names["index_products"](shop)
        await shop.warm()
        shop.round_trip = WAIT / 3  # BEGIN, the SELECT, ROLLBACK
        names["searches"] = names["connect"](shop, engine_client, api_client)
        everybody = await names["perform_search"](QUERY)
        assert all(everybody.values()), everybody
        api.hang = True
        yield names


async def test_a_search_with_one_hung_source_takes_its_deadline(
    lesson: dict[str, Any], figures: Any
) -> None:
    came: dict[str, set[str]] = {}

    async def overall() -> None:
        try:
            await lesson["search_with_timeout"](QUERY, DEADLINE)
        except lesson["ExternalServiceError"]:
            came["overall"] = set()

    async def per_source() -> None:
        answer = await lesson["search_multiple_sources"](QUERY, 2 * DEADLINE)
        came["per source"] = {source for source, hits in answer.items() if hits}

    async def shipped() -> None:
        came["shipped"] = set((await lesson["search_what_comes"](QUERY, DEADLINE))[0])

    async def by_anyio() -> None:
        came["AnyIO"] = set((await lesson["with_anyio"](QUERY, DEADLINE))[0])

    ways = {"overall": overall, "per source": per_source, "shipped": shipped, "AnyIO": by_anyio}
    timing = await compare(ways, repeat=ROUNDS, ideal=dict.fromkeys(ways, DEADLINE), show=False)
    two = {"database", "elasticsearch"}
    assert came == {"overall": set(), "per source": two, "shipped": two, "AnyIO": two}
    with figures("lesson 05, one of three sources hangs, deadlines of 50 ms") as table:
        for way in ways:
            table.at_most(f"{way}, of one deadline", timing.of_ideal(way), 1.2)
        table.only("shipped, of AnyIO's", timing.ratio("shipped", "AnyIO"))


async def test_a_search_without_a_hung_source_costs_what_anyios_does(
    lesson: dict[str, Any], figures: Any
) -> None:
    """Compare what a deadline and a task for each source cost when nothing has to be waited for."""

    async def at_once(_query: str) -> list[str]:
        return [QUERY]

    lesson["searches"] = dict.fromkeys(("database", "elasticsearch", "external_api"), at_once)

    def hundred(search: Any) -> Any:
        async def run() -> None:
            for _ in range(100):
                await search(QUERY, DEADLINE)

        return run

    ways = {
        "shipped": hundred(lesson["search_what_comes"]),
        "AnyIO": hundred(lesson["with_anyio"]),
    }
    timing = await compare(ways, repeat=ROUNDS, show=False)
    with figures("lesson 05, a search whose sources answer at once") as table:
        table.only("shipped", timing.median("shipped") / 100 * 1e6, "µs")
        table.only("AnyIO", timing.median("AnyIO") / 100 * 1e6, "µs")
        table.at_most("shipped, of AnyIO's", timing.ratio("shipped", "AnyIO"), 1.1)
