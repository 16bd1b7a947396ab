# ruff: noqa: ASYNC110 (counters set no event)
"""What a session costs in round trips: counted before a PostgreSQL server, and by the shop."""

import asyncio
import contextlib
import time
from typing import Any

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.pool import NullPool

from looplab.shop import Shop, open_shop
from looplab.shop.models import User

pytestmark = pytest.mark.anyio

CONTENTS: dict[str, Any] = {"users": 40, "products": 10}


async def nothing(shop):
    async with shop.session():
        pass


async def only_a_connection(shop):
    async with shop.session() as session:
        await session.connection()


async def a_query(shop):
    await shop.users.count()


async def three_queries(shop):
    async with shop.session() as session:
        for _ in range(3):
            await session.scalar(select(User.name).limit(1))


async def a_query_and_a_commit(shop):
    async with shop.session() as session:
        await session.scalar(select(User.name).limit(1))
        await session.commit()


async def two_transactions(shop):
    async with shop.session() as session:
        for _ in range(2):
            await session.scalar(select(User.name).limit(1))
            await session.commit()


async def an_insert(shop):
    await shop.users.create(name="Ada", email="ada@example.com")


async def an_insert_that_is_given_up(shop):
    async with shop.session() as session:
        session.add(User(name="Ada", email="ada@example.com"))
        await session.flush()


async def a_hundred_objects(shop):
    async with shop.session() as session:
        session.add_all([User(name="Ada", email=f"{n}@example.com") for n in range(100)])
        await session.commit()


async def an_executemany(shop):
    rows = [{"name": "Ada", "email": f"{n}@example.com"} for n in range(500)]
    async with shop.engine.begin() as connection:
        await connection.execute(insert(User), rows)


async def a_savepoint(shop):
    async with shop.session() as session:
        async with session.begin_nested():
            await session.scalar(select(User.name).limit(1))
        await session.commit()


async def a_savepoint_rolled_back(shop):
    async with shop.session() as session:
        async with session.begin_nested() as savepoint:
            await session.scalar(select(User.name).limit(1))
            await savepoint.rollback()
        await session.commit()


async def a_query_without_a_transaction(shop):
    sessions = async_sessionmaker(shop.engine.execution_options(isolation_level="AUTOCOMMIT"))
    async with sessions() as session:
        await session.scalar(select(User.name).limit(1))


async def a_connection_without_a_session(shop):
    async with shop.engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


COSTS = [
    (nothing, 0),
    (only_a_connection, 0),
    (a_query, 3),
    (three_queries, 5),
    (a_query_and_a_commit, 3),
    (two_transactions, 6),
    (an_insert, 3),
    (an_insert_that_is_given_up, 3),
    (a_hundred_objects, 3),
    (an_executemany, 3),
    (a_savepoint, 5),
    (a_savepoint_rolled_back, 5),
    (a_query_without_a_transaction, 1),
    (a_connection_without_a_session, 3),
]
LOANS = {nothing: 0, two_transactions: 2}
"""How often a connection is lent; once, if not said."""

COSTLY = pytest.mark.parametrize(("ask", "trips"), COSTS, ids=[ask.__name__ for ask, _ in COSTS])


@COSTLY
async def test_the_shop_charges_the_round_trips_of_a_server(ask, trips):
    async with open_shop(name="charged", **CONTENTS) as shop:
        await ask(shop)
        shop.reset_counters()
        await ask(shop)
        assert shop.round_trips == trips


@COSTLY
async def test_the_shop_charges_a_pre_ping_as_three_more_for_each_loan(ask, trips):
    async with open_shop(name="pinged", pool_pre_ping=True, **CONTENTS) as shop:
        await shop.warm(1)
        await ask(shop)
        shop.reset_counters()
        await ask(shop)
        assert shop.round_trips == trips + 3 * LOANS.get(ask, 1)


async def a_stream(shop):
    pages = select(User.id).order_by(User.id).execution_options(yield_per=1_000)
    async with shop.session() as session:
        assert len([row async for row in await session.stream(pages)]) == 3_000


async def counted(proxy, ask, shop):
    """Return the trips that the proxy sees, when each statement has been prepared before."""
    for _ in range(2):
        await ask(shop)
    proxy.reset()
    await ask(shop)
    return proxy.trips


@pytest.mark.postgres
@COSTLY
async def test_postgresql_takes_as_many(proxy, ask, trips):
    async with open_shop(name="counted", database_url=proxy.url, **CONTENTS) as shop:
        assert await counted(proxy, ask, shop) == trips


@pytest.mark.postgres
@COSTLY
async def test_postgresql_takes_three_more_for_a_pre_ping(proxy, ask, trips):
    opened = open_shop(name="counted", database_url=proxy.url, pool_pre_ping=True, **CONTENTS)
    async with opened as shop:
        await shop.warm(1)
        assert await counted(proxy, ask, shop) == trips + 3 * LOANS.get(ask, 1)


@pytest.mark.postgres
async def test_what_the_shop_does_not_charge(proxy):
    async with open_shop(name="counted", database_url=proxy.url, users=3_000) as shop:
        await shop.warm(1)
        proxy.reset()
        await shop.users.count()
        assert proxy.trips == 4, "the first time, a connection prepares the statement"

        proxy.reset()
        with pytest.raises(DBAPIError):
            async with shop.engine.connect() as connection:
                await connection.execute(text("SELECT * FROM nowhere"))
        assert proxy.trips == 4, "BEGIN, what is refused, the end of that, ROLLBACK"

        assert await counted(proxy, a_stream, shop) >= 3 + 3, "a trip for each page"


@pytest.mark.postgres
async def test_connecting_takes_two_trips_or_more_and_a_statement_is_prepared_again(proxy):
    opened = open_shop(name="counted", database_url=proxy.url, poolclass=NullPool, **CONTENTS)
    async with opened as shop:
        await shop.users.count()
        proxy.reset()
        await shop.users.count()
        goodbye = 1  # it is sent, and nobody waits for an answer
        assert proxy.connections == 1
        assert proxy.trips - goodbye >= 2 + 1 + 3, "more with asyncpg 0.30, a password or TLS"


async def test_round_trips_start_again_when_the_counters_do():
    async with open_shop(name="counted", **CONTENTS) as shop:
        await shop.users.count()
        assert (shop.statements, shop.round_trips) == (1, 3)
        shop.reset_counters()
        assert (shop.statements, shop.round_trips) == (0, 0)


@pytest.mark.parametrize(("ask", "trips"), [(a_query, 3), (an_insert, 3), (three_queries, 5)])
async def test_each_round_trip_is_waited_for(ask, trips):
    async with open_shop(name="waited", **CONTENTS) as shop:
        await ask(shop)
        shop.round_trip = 0.02
        began = time.perf_counter()
        await ask(shop)
        assert time.perf_counter() - began >= trips * 0.02


async def test_a_transaction_is_ended_while_its_connection_is_still_out():
    async with open_shop(name="ended", pool_size=1, **CONTENTS) as shop:
        await shop.warm()
        shop.round_trip = 0.02
        began = time.perf_counter()
        await asyncio.gather(a_query(shop), a_query(shop))
        assert time.perf_counter() - began >= 2 * 3 * 0.02


async def test_ends_of_transactions_overlap_across_connections():
    async with open_shop(name="overlap", pool_size=8, **CONTENTS) as shop:
        await shop.warm()
        opened = [shop.session() for _ in range(8)]
        for session in opened:
            await session.scalar(select(User.name).limit(1))
        shop.round_trip = 0.2
        began = time.perf_counter()
        await asyncio.gather(*(session.commit() for session in opened))
        assert 0.2 <= time.perf_counter() - began < 8 * 0.2


async def test_a_cancelled_statement_is_not_rolled_back_but_its_connection_is_dropped():
    async with open_shop(name="cancelled", **CONTENTS) as shop:
        await shop.warm(1)
        shop.round_trip = 0.02
        call = asyncio.create_task(shop.users.count())
        while shop.round_trips == 0:
            await asyncio.sleep(0.001)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        assert (shop.round_trips, shop.checked_out) == (2, 0)
        assert await shop.users.count() == CONTENTS["users"]


def busy(shop: Shop) -> str:
    if "sqlite" in shop.engine.url.drivername:
        numbers = "SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000"
        return f"WITH RECURSIVE n(i) AS ({numbers}) SELECT sum(i) FROM n"
    return "SELECT pg_sleep(30)"


@pytest.mark.parametrize(
    "place", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)], ids=str
)
async def test_a_cancelled_write_gives_its_lock_back_at_once(place, request):
    options: dict[str, Any] = {"busy_timeout": 0.3}
    if place == "postgres":
        options = {"database_url": request.getfixturevalue("postgres_server")}
    async with open_shop(name="locked", **options, **CONTENTS) as shop:
        user = (await shop.users.get_batch(0, 1))[0]
        rename = text("UPDATE users SET name = :name")
        for turn in range(6):
            entered = asyncio.Event()

            async def write(entered=entered):
                async with shop.session() as session:
                    await session.execute(rename, {"name": "half"})
                    entered.set()
                    await session.execute(text(busy(shop)))
                    await session.commit()

            writing = asyncio.create_task(write())
            await entered.wait()
            await asyncio.sleep(0.01)
            writing.cancel()
            await asyncio.wait([writing])
            async with asyncio.timeout(20), shop.session() as session:
                await session.execute(rename, {"name": f"whole {turn}"})
                await session.commit()
            found = await shop.users.get_by_id(user.id)
            assert found is not None
            assert found.name == f"whole {turn}"
