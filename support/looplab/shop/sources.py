"""The three sources of the shop's search: its database, a search engine, and a marketplace's API.

Each is an async function that takes a query and returns names. It raises what its library raises,
and `ExternalServiceError` where a partner answers, but not with hits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
from sqlalchemy import text

from looplab.shop import Shop, open_shop

Source = Callable[[str], Awaitable[list[str]]]

HITS = 5  # of a source, at most
BUSY = 429
_MATCHES = text("SELECT name FROM product_index WHERE name MATCH :phrase LIMIT :most")


class ExternalServiceError(Exception):
    """A service gave no answer that can be used."""

    def __init__(self, service: str, message: str) -> None:
        super().__init__(f"{service}: {message}")
        self.service = service


async def index_products(shop: Shop) -> None:
    """Build a full-text index (FTS5) of the products' names, which the database source asks.

    Source: https://www.sqlite.org/fts5.html
    """
    async with shop.engine.begin() as connection:
        await connection.execute(text("CREATE VIRTUAL TABLE product_index USING fts5(name)"))
        await connection.execute(text("INSERT INTO product_index SELECT name FROM products"))


def database_source(shop: Shop) -> Source:
    """Return the source that asks the shop's index; a query is one phrase, whatever it holds."""

    async def database(query: str) -> list[str]:
        phrase = '"' + query.replace('"', '""') + '"'
        async with shop.session() as session:
            names = await session.scalars(_MATCHES, {"phrase": phrase, "most": HITS})
            return list(names)

    return database


def search_sources(
    shop: Shop, engine: httpx.AsyncClient, api: httpx.AsyncClient, *, at_most: int = 100
) -> dict[str, Source]:
    """Return the sources by name: `database`, `elasticsearch` and `external_api`.

    `engine` and `api` are clients of a `SearchEngine` each. A semaphore of `at_most` stands in
    front of each; let it be no more than the client's connections, so that no call waits for one.
    """

    def partner(name: str, client: httpx.AsyncClient) -> Source:
        slots = asyncio.Semaphore(at_most)

        async def search(query: str) -> list[str]:
            async with slots:
                return await ask(name, client, query)

        search.__name__ = search.__qualname__ = name
        return search

    return {
        "database": database_source(shop),
        "elasticsearch": partner("elasticsearch", engine),
        "external_api": partner("external_api", api),
    }


async def ask(name: str, client: httpx.AsyncClient, query: str) -> list[str]:
    """Return the names that the `_search` of the partner called `name` finds.

    Raises:
        ExternalServiceError: the partner is busy, has failed, or its answer holds no hits.
        httpx.HTTPStatusError: it refuses the request, which is then ours to fix.
        httpx.TransportError: there is no answer, or none in the client's time.
    """
    body = {"query": {"match": {"name": query}}, "size": HITS}
    answer = await client.post("/products/_search", json=body)
    if answer.is_server_error or answer.status_code == BUSY:
        raise ExternalServiceError(name, f"status {answer.status_code}")
    answer.raise_for_status()
    try:
        return [str(hit["_source"]["name"]) for hit in answer.json()["hits"]["hits"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ExternalServiceError(name, "no hits in the answer") from error


@asynccontextmanager
async def busy_shop(*, pool_timeout: float) -> AsyncGenerator[Shop]:
    """Yield an indexed shop whose only connection is in use; its counters stand at 0."""
    opened = open_shop(name="busy", users=0, pool_size=1, pool_timeout=pool_timeout)
    async with opened as shop:
        await index_products(shop)
        async with shop.session() as report:
            await report.connection()
            shop.reset_counters()
            yield shop
