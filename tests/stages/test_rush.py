"""Lesson 07's stall and its rush: who is answered, who is refused, and what is left open."""

from functools import partial

import pytest
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import create_async_engine

from looplab.shop.pools import Seats, open_pool
from looplab.stages.rush import ask_during_a_stall, rush, users_app

pytestmark = pytest.mark.anyio
ROOM = 60.0  # seconds, where nothing is to be late


async def test_who_has_patience_has_no_answer_during_a_stall_and_one_after_it() -> None:
    shop = await open_pool(2)
    shop.reset_counters()
    assert await ask_during_a_stall(shop, users_app(shop), 0.2) == []
    assert shop.statements == 10
    await shop.close()


async def test_without_a_handler_a_short_timeout_of_the_pool_is_a_500() -> None:
    shop = await open_pool(2, pool_timeout=0.05)
    assert await ask_during_a_stall(shop, users_app(shop), ROOM) == [500] * 10
    await shop.close()


async def test_those_beyond_the_servers_connections_are_refused_and_all_are_given_back() -> None:
    shop = await open_pool(1)
    make = partial(create_async_engine, pool_size=2, max_overflow=0, pool_timeout=ROOM)
    server = Seats(8)
    assert await rush(make, shop.engine.url, server) == 120
    server.limit = 7
    assert await rush(make, shop.engine.url, server) < 120
    assert server.taken == 0
    assert server.refused > 0
    await shop.close()


async def test_a_request_that_fails_otherwise_is_raised() -> None:
    shop = await open_pool(1)
    make = partial(create_async_engine, pool_size=1, max_overflow=0)
    with pytest.raises(ExceptionGroup) as caught:
        await rush(make, shop.engine.url, Seats(100), pool_timeout=0)
    assert {type(error) for error in caught.value.exceptions} == {exc.TimeoutError}
    await shop.close()
