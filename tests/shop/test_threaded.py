"""The blocking engine on a shop's file: its round trips, its pool, its arguments."""

import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from sqlalchemy import exc, func, select
from sqlalchemy.orm import Session

from looplab.shop import Shop, threaded
from looplab.shop.models import User
from looplab.shop.pools import open_pool
from looplab.shop.threaded import threaded_engine

pytestmark = pytest.mark.anyio

COUNT = select(func.count()).select_from(User)


@pytest.fixture
async def shop() -> AsyncGenerator[Shop]:
    async with await open_pool(1) as shop:
        yield shop


async def test_a_session_waits_for_as_many_trips_as_the_shop_counts(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(threaded.time, "sleep", waits.append)
    engine = threaded_engine(shop, size=1, round_trip=0.25)
    with Session(engine) as session:
        assert session.scalar(COUNT) == session.scalar(COUNT) == 50
    engine.dispose()
    shop.reset_counters()
    async with shop.session() as session:
        await session.scalar(COUNT)
        await session.scalar(COUNT)
    assert waits == [0.25] * 4 == [0.25] * shop.round_trips


async def test_a_call_that_finds_no_connection_blocks_and_then_raises(shop: Shop) -> None:
    engine = threaded_engine(shop, size=1, pool_timeout=0.05)
    with engine.connect(), pytest.raises(exc.TimeoutError, match="QueuePool limit of size 1"):
        engine.connect()
    engine.dispose()


async def test_a_connection_serves_another_thread_than_the_one_that_opened_it(shop: Shop) -> None:
    engine = threaded_engine(shop, size=1)
    found: list[Any] = []

    def ask() -> None:
        with Session(engine) as session:
            found.append(session.scalar(COUNT))

    for _ in range(2):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    engine.dispose()
    assert found == [50, 50]


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"size": 0}, ValueError, "size=0: must be a whole number, 1 or more"),
        ({"size": 1.5}, TypeError, "size=1.5: must be a whole number"),
        ({"size": 1, "round_trip": -1}, ValueError, "round_trip=-1: must be a finite number"),
        ({"size": 1, "pool_timeout": "1"}, TypeError, "pool_timeout='1': must be a number"),
    ],
)
async def test_a_wrong_argument_is_named(
    shop: Shop, given: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        threaded_engine(shop, **given)
