"""What the shop of lesson 18 keeps its one cup in, and two buyers who wait for one another."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiosqlite
import httpx
from fastapi import FastAPI

from looplab.lab import mark


@asynccontextmanager
async def one_cup(app: FastAPI) -> AsyncGenerator[None]:
    """Keep a SQLite database in `app.state.db` while the app runs; its table `stock` has one row.

    The row's only column is `cups`, and it is 1.
    """
    async with aiosqlite.connect(":memory:") as app.state.db:
        await app.state.db.execute("CREATE TABLE stock (cups INTEGER)")
        await app.state.db.execute("INSERT INTO stock VALUES (1)")
        yield


async def one_by_one(client: httpx.AsyncClient) -> None:
    """Post to `/cups` twice, the second time when the first has its answer; mark each in an x-ray.

    Raises what the client raises when there is no answer.
    """
    for buyer in ("first asks", "second asks"):
        mark(buyer)
        await client.post("/cups")
