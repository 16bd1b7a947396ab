"""How near lesson 05's searches come to their deadlines when one of three sources hangs.

On the lesson's own functions. The shipped search stands beside the same one by AnyIO, the library
that a user would pick.
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import anyio
import pytest

from looplab.lab import compare
from looplab.shop import open_shop
from looplab.shop.partners import SearchEngine, in_this_process
from looplab.shop.sources import (
    ExternalServiceError,
    Source,
    index_products,
    search_sources,
)

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

DEADLINE = 0.2  # seconds, of each source in one search and of everything in the other
WAIT = 0.02  # seconds until a source answers, if it does
ROUNDS = 10
QUERY = "blue lamp"
CELLS = ("setup", "naive", "pattern-overall", "pattern", "expected", "search-what-comes")


@pytest.fixture
def lesson(names_of: Any) -> dict[str, Any]:
    """The names that the lesson's cells define."""
    return names_of("05", CELLS)


@pytest.fixture
async def sources() -> AsyncGenerator[dict[str, Source]]:
    """Yield the three sources, of which the external API hangs."""
    engine = SearchEngine("elasticsearch", latency=WAIT)
    api = SearchEngine("external_api", latency=WAIT, hang=True)
    async with open_shop(users=0, products=200, name="benchmark 05") as shop:
        await index_products(shop)
        await shop.warm()
        shop.round_trip = WAIT / 3  # BEGIN, the SELECT, ROLLBACK
        yield search_sources(shop, in_this_process(engine), in_this_process(api))


async def by_anyio(sources: Mapping[str, Source], seconds: float) -> dict[str, list[str]]:
    """Search as the lesson does, by the library that FastAPI stands on."""
    found: dict[str, list[str]] = {}

    async def search_source(source: str) -> None:
        found[source] = await sources[source](QUERY)

    with anyio.move_on_after(seconds):
        async with anyio.create_task_group() as group:
            for source in sources:
                group.start_soon(search_source, source)
    return found


async def test_a_search_with_one_hung_source_takes_its_deadline(
    lesson: dict[str, Any], sources: dict[str, Source], figures: Any
) -> None:
    came: dict[str, set[str]] = {}

    async def overall() -> None:
        try:
            await lesson["search_with_timeout"](QUERY, sources, DEADLINE)
        except ExternalServiceError:
            came["overall"] = set()

    async def per_source() -> None:
        answer = await lesson["search_multiple_sources"](QUERY, sources, 2 * DEADLINE)
        came["per source"] = {source for source, hits in answer.items() if hits}

    async def shipped() -> None:
        came["shipped"] = set((await lesson["search_what_comes"](QUERY, sources, DEADLINE))[0])

    async def with_anyio() -> None:
        came["AnyIO"] = set(await by_anyio(sources, DEADLINE))

    ways = {"overall": overall, "per source": per_source, "shipped": shipped, "AnyIO": with_anyio}
    timing = await compare(ways, repeat=ROUNDS, ideal=dict.fromkeys(ways, DEADLINE), show=False)
    two = {"database", "elasticsearch"}
    assert came == {"overall": set(), "per source": two, "shipped": two, "AnyIO": two}
    with figures("lesson 05, one of three sources hangs, deadlines of 200 ms") as table:
        for way in ways:
            table.at_most(f"{way}, of one deadline", timing.of_ideal(way), 1.2)
        table.only("shipped, of AnyIO's", timing.ratio("shipped", "AnyIO"))


async def test_a_search_without_a_hung_source_costs_what_anyios_does(
    lesson: dict[str, Any], figures: Any
) -> None:
    """Compare what a deadline and a task for each source cost when nothing has to be waited for."""

    async def at_once(_query: str) -> list[str]:
        return [QUERY]

    quick = dict.fromkeys(("database", "elasticsearch", "external_api"), at_once)

    async def shipped() -> None:
        for _ in range(100):
            await lesson["search_what_comes"](QUERY, quick, DEADLINE)

    async def with_anyio() -> None:
        for _ in range(100):
            await by_anyio(quick, DEADLINE)

    timing = await compare({"shipped": shipped, "AnyIO": with_anyio}, repeat=ROUNDS, show=False)
    with figures("lesson 05, a search whose sources answer at once") as table:
        table.only("shipped", timing.median("shipped") / 100 * 1e6, "µs")
        table.only("AnyIO", timing.median("AnyIO") / 100 * 1e6, "µs")
        table.at_most("shipped, of AnyIO's", timing.ratio("shipped", "AnyIO"), 1.1)
