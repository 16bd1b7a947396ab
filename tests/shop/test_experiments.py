# ruff: noqa: ASYNC110, PT012 (a server sets no event; a group is the statement)
"""The experiments of lessons 02, 05 and 07 on PostgreSQL, which SQLite stands in for there."""

import asyncio
import contextlib
import math
import time
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event, func, select, text, update
from sqlalchemy.exc import (
    DBAPIError,
    InvalidRequestError,
    MissingGreenlet,
    OperationalError,
    PendingRollbackError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from looplab.shop import OrderRepository, ProductRepository, Shop, UserRepository, open_shop
from looplab.shop.models import User

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]

TRIPS = 3  # of a session that asks once: BEGIN, the statement, ROLLBACK
DELAY = 0.005  # seconds, each way
LONG = text("SELECT pg_sleep(60)")
COUNT = select(func.count()).select_from(User)
RUNNING = text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE application_name = :name AND state = 'active' AND query LIKE '%pg_sleep%'"
    " AND pid <> pg_backend_pid()"
)


def served(url: str, **options: Any):
    contents: dict[str, Any] = {"name": "served", "users": 40, "products": 30}
    return open_shop(database_url=url, **contents | options)


@pytest.fixture
async def shop(postgres_server):
    async with served(postgres_server) as shop:
        yield shop


@pytest.fixture
async def buyer(shop):
    return await shop.any_user()


async def running(shop: Shop) -> int:
    """Return how many of the shop's connections are in the middle of `LONG`."""
    async with shop.session() as session:
        return await session.scalar(RUNNING, {"name": shop._database.name}) or 0


async def started(shop: Shop, statements: int = 1) -> None:
    async with asyncio.timeout(20):
        while await running(shop) < statements:
            await asyncio.sleep(0.01)


def dashboard(users, orders, products, user_id):
    return [
        users.get_by_id(user_id),
        orders.get_recent_by_user(user_id, limit=5),
        products.get_featured(limit=10),
        orders.count_by_user(user_id),
        orders.sum_total_by_user(user_id),
        orders.count_items_by_user(user_id),
    ]


def opened_by(engine):
    opened = []
    event.listen(engine.sync_engine, "connect", lambda *_: opened.append(1))
    return opened


class TestGather:
    """Lesson 02."""

    async def test_six_questions_take_eighteen_trips_in_turn_or_three(self, proxy):
        async with served(proxy.url, pool_size=6) as shop:
            await shop.warm()
            user_id = await shop.any_user()
            parts = shop.users, shop.orders, shop.products

            async def one_by_one():
                return [await question for question in dashboard(*parts, user_id)]

            async def gathered():
                return await asyncio.gather(*dashboard(*parts, user_id))

            for _ in range(3):  # each connection prepares what it has not met before
                await gathered()
            proxy.delay = DELAY
            times, trips = [], []
            for way in (one_by_one, gathered):
                shop.reset_counters()
                proxy.reset()
                began = time.perf_counter()
                assert len(await way()) == 6
                times.append(time.perf_counter() - began)
                trips.append(proxy.trips)
                assert shop.statements == 6
            assert shop.peak_checked_out == 6
            assert all(6 * TRIPS <= count <= 6 * TRIPS + 6 for count in trips), trips
            assert times[0] >= 6 * TRIPS * 2 * DELAY
            assert TRIPS * 2 * DELAY <= times[1] < times[0]

    async def test_branches_that_share_a_session_take_turns(self, shop, buyer):
        await shop.warm(2)
        shop.reset_counters()
        async with shop.session() as session:
            kinds = UserRepository, OrderRepository, ProductRepository
            parts = [kind(session) for kind in kinds]
            user, *_ = await asyncio.gather(*dashboard(*parts, buyer))
        assert user.id == buyer
        assert (shop.statements, shop.peak_checked_out) == (6, 1)

    async def test_with_a_pre_ping_the_second_branch_is_refused(self, postgres_server):
        async with served(postgres_server, pool_pre_ping=True) as shop:
            await shop.warm(2)
            async with shop.session() as session:
                users = UserRepository(session)
                answers = await asyncio.gather(users.count(), users.count(), return_exceptions=True)
        assert any(isinstance(answer, InvalidRequestError) for answer in answers)

    async def test_a_group_cancels_what_runs_at_the_server(self, shop):
        await shop.warm(4)

        async def branch():
            async with shop.session() as session:
                await session.execute(LONG)

        async def failing():
            await started(shop, statements=2)
            raise LookupError("no such user")

        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                for task in (branch(), branch(), failing()):
                    group.create_task(task)
        assert [type(error) for error in caught.value.exceptions] == [LookupError]
        assert shop.checked_out == 0
        assert await running(shop) == 0

    async def test_holding_one_seat_and_asking_for_more_starves(self, postgres_server):
        async with served(postgres_server, pool_size=5, pool_timeout=0.3) as shop:
            await shop.warm()
            all_hold = asyncio.Barrier(5)

            async def greedy():
                async with shop.session() as session:
                    await UserRepository(session).count()
                    await all_hold.wait()
                    await asyncio.gather(shop.users.count(), shop.users.count())

            async def modest():
                await asyncio.gather(*[shop.users.count() for _ in range(3)])

            starved = await asyncio.gather(*[greedy() for _ in range(5)], return_exceptions=True)
            assert PoolTimeoutError in {type(answer) for answer in starved}
            await asyncio.gather(*[modest() for _ in range(5)])


class TestTimeouts:
    """Lesson 05."""

    async def test_a_deadline_stops_the_statement_at_the_server(self, shop):
        await shop.warm(2)

        async def query():
            async with shop.session() as session:
                await session.execute(LONG)

        asking = asyncio.create_task(query())
        await started(shop)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await running(shop) == 0

    async def test_a_statement_limit_is_a_dbapi_error_and_ends_the_transaction(self, shop):
        async with shop.session() as session:
            raw = await (await session.connection()).get_raw_connection()
            first = raw.driver_connection
            await session.execute(text("SET LOCAL statement_timeout = '25ms'"))
            with pytest.raises(DBAPIError, match="canceling statement due to statement timeout"):
                await session.execute(LONG)
            with pytest.raises(DBAPIError, match="current transaction is aborted") as refused:
                await session.execute(text("SELECT 1"))
            assert not isinstance(refused.value, OperationalError)
            await session.rollback()
            assert await session.scalar(text("SELECT 1")) == 1
            raw = await (await session.connection()).get_raw_connection()
            assert raw.driver_connection is first

    async def test_a_session_after_a_timeout_wants_a_rollback(self, shop):
        async with shop.session() as session:
            raw = await (await session.connection()).get_raw_connection()
            first = raw.driver_connection
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await session.execute(LONG)
            with pytest.raises(PendingRollbackError):
                await session.execute(text("SELECT 2"))
            await session.rollback()
            assert await session.scalar(text("SELECT 3")) == 3
            raw = await (await session.connection()).get_raw_connection()
            assert raw.driver_connection is not first

    async def test_a_request_that_waits_for_a_seat_sends_nothing(self, postgres_server):
        async with (
            served(postgres_server, pool_size=1, pool_timeout=0.1) as shop,
            shop.session() as report,
        ):
            await report.connection()
            shop.reset_counters()
            with pytest.raises(PoolTimeoutError):
                await shop.users.count()
            assert shop.statements == 0


class TestPool:
    """Lesson 07."""

    @pytest.mark.parametrize("size", [1, 5, 20])
    async def test_forty_requests_come_in_groups_of_three_trips_each(self, proxy, size):
        async with served(proxy.url, pool_size=size, pool_timeout=60.0) as shop:
            await asyncio.gather(*[shop.users.count() for _ in range(3 * size)])
            proxy.delay = DELAY
            proxy.reset()
            shop.reset_counters()
            began = time.perf_counter()
            await asyncio.gather(*[shop.users.count() for _ in range(40)])
            took = time.perf_counter() - began
            assert took >= math.ceil(40 / size) * TRIPS * 2 * DELAY
            assert 40 * TRIPS <= proxy.trips <= 40 * TRIPS + size
            assert shop.peak_checked_out == size

    async def test_a_session_that_is_held_keeps_others_from_the_partner(self, postgres_server):
        async with served(postgres_server, pool_size=2) as shop:
            await shop.warm()
            inside = peak = 0
            crowd = asyncio.Event()

            async def partner(wanted):
                nonlocal inside, peak
                inside += 1
                peak = max(peak, inside)
                if inside == wanted:
                    crowd.set()
                await crowd.wait()
                inside -= 1

            async def holds():
                async with shop.session() as session:
                    await session.scalar(COUNT)
                    await partner(wanted=2)

            async def lets_go():
                async with shop.session() as session:
                    await session.scalar(COUNT)
                await partner(wanted=8)

            await asyncio.gather(*[holds() for _ in range(8)])
            assert peak == 2
            crowd.clear()
            await asyncio.gather(*[lets_go() for _ in range(8)])
            assert peak == 8

    @pytest.mark.parametrize(("ping", "answered"), [(False, 0), (True, 1)])
    async def test_a_pre_ping_finds_the_connection_that_the_server_has_cut(
        self, postgres_server, ping, answered
    ):
        async with (
            served(postgres_server) as other,
            served(postgres_server, name="cut", pool_size=1, pool_pre_ping=ping) as shop,
        ):
            await shop.users.count()
            async with other.session() as session:
                await session.execute(
                    text(
                        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                        " WHERE application_name = :name"
                    ),
                    {"name": shop._database.name},
                )
            opened, answers = opened_by(shop.engine), []
            for _ in range(3):
                try:
                    answers.append(await shop.users.count())
                except DBAPIError:
                    answers.append(None)
            assert answers == ([None] * (1 - answered)) + [40] * (2 + answered)
            assert len(opened) == 1

    @pytest.mark.parametrize(
        ("settings", "connections"),
        [({"pool_size": 5, "max_overflow": 5}, 5 + 3 * 5), ({"pool_size": 10}, 10)],
    )
    async def test_an_overflow_connects_again_in_each_rush(
        self, postgres_server, settings, connections
    ):
        async with served(postgres_server, pool_timeout=30.0, **settings) as shop:
            await shop.engine.dispose()
            opened = opened_by(shop.engine)
            for _ in range(3):
                all_in = asyncio.Barrier(10)

                async def ask(all_in=all_in):
                    async with shop.session() as session:
                        await session.scalar(COUNT)
                        await all_in.wait()

                await asyncio.gather(*[ask() for _ in range(10)])
            assert len(opened) == connections

    async def test_workers_that_ask_for_more_connections_than_the_server_has_are_refused(
        self, shop
    ):
        async with shop.session() as session:
            seats = int(await session.scalar(text("SHOW max_connections")))
        if seats > 60:
            pytest.skip(f"the server has {seats} connections, too many to take them all")
        workers = [
            create_async_engine(shop.engine.url, pool_size=10, max_overflow=math.ceil(seats / 4))
            for _ in range(4)
        ]
        held = contextlib.AsyncExitStack()
        refused = []
        async with held:
            for turn in range(seats):
                connection = workers[turn % 4].connect()
                try:
                    await held.enter_async_context(connection)
                except (DBAPIError, asyncpg.PostgresError) as error:  # as it comes in 2.0
                    refused.append(str(error))
        for worker in workers:
            await worker.dispose()
        assert refused
        assert all("too many clients already" in reason for reason in refused)
        assert await shop.users.count() == 40

    async def test_writers_of_other_rows_go_on_side_by_side(self, shop):
        first, second, *_ = await shop.users.get_batch(0, 2)

        async def rename(session, user):
            change = update(User).where(User.id == user.id).values(name="renamed")
            await session.execute(change)

        async with shop.session() as one, shop.session() as two:
            await rename(one, first)
            assert await shop.users.count() == 40, "a reader goes on"
            await rename(two, second)
            await two.commit()
            waiting = asyncio.create_task(rename(two, first))
            done, _ = await asyncio.wait([waiting], timeout=0.2)
            assert not done, "a writer of the same row waits"
            await one.commit()
            await waiting
            await two.commit()

    async def test_an_object_after_its_commit(self, shop):
        for expire in (True, False):
            sessions = async_sessionmaker(shop.engine, expire_on_commit=expire)
            async with sessions() as session:
                ada = User(name="Ada", email="ada@example.com")
                session.add(ada)
                await session.commit()
                if expire:
                    # aiosqlite's comes wrapped, in a StatementError.
                    with pytest.raises(MissingGreenlet):
                        _ = ada.name
                    await session.refresh(ada)
                assert ada.name == "Ada"

    async def test_autoflush_is_one_statement_more(self, shop):
        counts = []
        for autoflush in (True, False):
            sessions = async_sessionmaker(shop.engine, autoflush=autoflush)
            async with sessions() as session:
                session.add(User(name="Ada", email="ada@example.com"))
                shop.reset_counters()
                counts.append((await session.scalar(COUNT), shop.statements))
        assert counts == [(41, 2), (40, 1)]
