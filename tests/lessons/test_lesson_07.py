"""Lesson 07's shipped service, attacked as production would, and the pool on PostgreSQL."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import create_async_engine

from looplab.lab import in_process, serve
from looplab.shop.pools import Seats, open_pool

pytestmark = pytest.mark.anyio


@pytest.fixture
async def shipped(cells_of: Any) -> AsyncGenerator[dict[str, Any]]:
    """The names of the lesson's shipped app, whose report waits for ``ready``."""
    lesson = cells_of("07")
    names = await lesson.define("setup", "pattern-engine", "breaks-timeout-fixed", "ship-lifespan")
    count = names["select"](names["func"].count()).select_from(names["User"])
    five = await open_pool(5)
    names.update(five=five, count_users=count, seats=Seats(100))
    await lesson.run("ship-app")
    yield names
    await five.close()


async def test_a_stall_sends_away_who_finds_no_connection_and_an_end_of_it_serves_again(
    shipped: dict[str, Any],
) -> None:
    async with serve(shipped["app"]) as server, server.client() as client:
        shipped["ready"] = asyncio.Event()
        calls = [asyncio.create_task(client.get("/report")) for _ in range(6)]
        ended = asyncio.as_completed(calls)
        away = [await next(ended) for _ in range(4)]
        assert {answer.status_code for answer in away} == {503}
        assert all(1 <= int(answer.headers["Retry-After"]) <= 5 for answer in away)
        server.loop.call_soon_threadsafe(shipped["ready"].set)
        assert [(await call).status_code for call in ended] == [200, 200]
        assert (await client.get("/report")).status_code == 200
        assert shipped["seats"].taken == 2
    assert shipped["seats"].taken == 0


async def test_clients_who_leave_give_their_connections_back(shipped: dict[str, Any]) -> None:
    shipped["ready"] = asyncio.Event()
    async with serve(shipped["app"]) as server, server.client() as client:
        for _ in range(3):
            calls = [asyncio.create_task(client.get("/report")) for _ in range(2)]
            await asyncio.wait(calls, timeout=0.1)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
        server.loop.call_soon_threadsafe(shipped["ready"].set)
        statuses = {(await client.get("/report")).status_code for _ in range(3)}
    assert statuses == {200}
    assert shipped["seats"].taken == 0


async def test_the_handler_knows_the_pools_error_and_no_other(cells_of: Any) -> None:
    names = await cells_of("07").define("setup", "breaks-timeout-fixed")
    app = FastAPI(exception_handlers={exc.TimeoutError: names["busy"]})

    @app.get("/{kind}")
    async def failing(kind: str) -> None:
        raise {"pool": exc.TimeoutError("busy"), "built-in": TimeoutError("late")}[kind]

    async with in_process(app, raise_errors=False) as client:
        statuses = [(await client.get(path)).status_code for path in ("/pool", "/built-in")]
    assert statuses == [503, 500]
    assert not issubclass(exc.TimeoutError, TimeoutError)


async def test_a_server_that_is_full_refuses_and_takes_again_when_one_leaves() -> None:
    shop = await open_pool(1)
    seats = Seats(1)
    first, second = (create_async_engine(shop.engine.url) for _ in range(2))
    for engine in (first, second):
        seats.watch(engine)
    async with first.connect():
        with pytest.raises(ConnectionRefusedError, match="too many clients"):
            await second.connect()
    await first.dispose()
    async with second.connect():
        assert seats.taken == 1
    await second.dispose()
    assert seats.taken == 0
    await shop.close()
    with pytest.raises(ValueError, match="limit is 0; it must be 1 or more"):
        Seats(0)
