"""The three sources of lesson 05's search, opened together, and a table of what came from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from looplab.lab import Recording, ms, show_table
from looplab.shop import Shop, open_shop
from looplab.shop.partners import SearchEngine, in_this_process
from looplab.shop.sources import Source, index_products, search_sources

USUAL: Final = 20  # milliseconds until a source answers
TRIPS: Final = 3  # of the database's search: BEGIN, the SELECT, ROLLBACK
PRODUCTS: Final = 1_000


@dataclass(frozen=True)
class Market:
    """A shop and its two partners, each of which needs about 20 ms for a search.

    Attributes:
        shop: its database is the first source; close it in the end.
        engine: the search engine.
        api: the API of a marketplace.
        sources: async functions by name, which take a query and return names. They call both
            partners in this process.
    """

    shop: Shop
    engine: SearchEngine
    api: SearchEngine
    sources: dict[str, Source]

    def heal(self) -> None:
        """Let both partners answer again as they did in the beginning."""
        for partner in (self.engine, self.api):
            partner.latency = ms(USUAL)
            partner.faults.clear()
            partner.hang = False


async def open_market() -> Market:
    """Open a shop of a thousand products, indexed and with open connections, and two partners."""
    shop = await open_shop(round_trip=ms(USUAL / TRIPS), products=PRODUCTS)
    await index_products(shop)
    await shop.warm()
    engine = SearchEngine("elasticsearch", latency=ms(USUAL))
    api = SearchEngine("external_api", latency=ms(USUAL))
    sources = search_sources(shop, in_this_process(engine), in_this_process(api))
    return Market(shop, engine, api, sources)


def show_arrivals(searches: Mapping[str, Recording]) -> dict[str, int]:
    """Show a table of x-rays of searches, by deadline, and return how many sources came in.

    A search that has failed brought none; a source whose list is empty did not come in.
    """
    arrived = {
        name: 0 if run.error is not None else sum(map(bool, run.result.values()))
        for name, run in searches.items()
    }
    took = {name: f"{run.duration * 1000:.0f} ms" for name, run in searches.items()}
    rows = [[name, f"{count} of 3", took[name]] for name, count in arrived.items()]
    show_table(["deadline", "sources that came in", "ended after"], rows)
    return arrived
