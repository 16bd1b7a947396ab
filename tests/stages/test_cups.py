"""What the shop of lesson 18 keeps its one cup in, and its two buyers."""

import asyncio

import pytest
from fastapi import FastAPI

from looplab.lab import in_process, xray
from looplab.stages.cups import one_by_one, one_cup

pytestmark = pytest.mark.anyio


async def test_each_run_of_an_app_begins_with_one_cup() -> None:
    app = FastAPI(lifespan=one_cup)
    for _ in range(2):
        async with one_cup(app):
            found = await app.state.db.execute("SELECT cups FROM stock")
            assert await found.fetchall() == [(1,)]
            await app.state.db.execute("UPDATE stock SET cups = 0")


async def test_the_second_buyer_asks_when_the_first_has_an_answer() -> None:
    app, seen = FastAPI(), []

    @app.post("/cups")
    async def buy() -> None:
        seen.append("in")
        await asyncio.sleep(0.01)
        seen.append("out")

    async with in_process(app) as client:
        shown = await xray(one_by_one(client), show=False)
    assert seen == ["in", "out", "in", "out"]
    assert [mark.text for mark in shown.marks] == ["first asks", "second asks"]
