# ruff: noqa: ASYNC110 (counters and threads set no event)
import asyncio
import sqlite3
import threading
import time
from contextlib import closing

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import InvalidRequestError, OperationalError, TimeoutError
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, StaticPool

from looplab.shop import open_shop
from looplab.shop.database import Database
from looplab.shop.models import Base, Product, User
from looplab.shop.seed import seeded_user_id

pytestmark = pytest.mark.anyio

ADA = seeded_user_id(3)
TRIES = 10


@pytest.fixture
async def database(tmp_path):
    database = Database(tmp_path / "shop.sqlite3", pool_size=4)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    database.reset_counters()
    yield database
    await database.close()


@pytest.fixture
async def shop():
    async with open_shop(name="database", users=40, products=10) as shop:
        yield shop


def people(count):
    return [{"name": f"name {n}", "email": f"{n}@example.com"} for n in range(count)]


async def test_an_executemany_is_one_statement(database):
    async with database.engine.begin() as connection:
        await connection.execute(insert(User), people(500))
    assert database.statements == 1


async def test_an_insert_of_many_objects_is_one_statement(shop):
    shop.reset_counters()
    async with shop.session() as session:
        session.add_all([User(**person) for person in people(500)])
        await session.commit()
    assert shop.statements == 1


async def test_an_insert_that_returns_rows_is_one_statement(database):
    async with database.engine.begin() as connection:
        result = await connection.execute(insert(User).returning(User.id), people(20))
        assert len(result.all()) == 20
    assert database.statements == 1


async def test_what_a_trigger_does_is_part_of_its_statement(database):
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql(
            "CREATE TRIGGER copy AFTER INSERT ON users BEGIN "
            "INSERT INTO products (id, name, price, stock, featured) "
            "VALUES (new.id, new.name, 1, 1, 0); "
            "UPDATE products SET stock = 2; END"
        )
        database.reset_counters()
        await connection.execute(insert(User), people(1))
        assert database.statements == 1
        await connection.execute(insert(User), people(5))
        assert database.statements == 2
        assert len((await connection.execute(select(Product.id))).all()) == 6


async def test_what_a_full_text_index_does_is_part_of_its_statement(database):
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql("CREATE VIRTUAL TABLE words USING fts5 (word)")
    database.reset_counters()
    async with database.engine.begin() as connection:
        for word in ("blue lamp", "red lamp", "oak table"):
            await connection.execute(text("INSERT INTO words VALUES (:word)"), {"word": word})
    assert database.statements == 3
    async with database.engine.connect() as connection:
        rows = await connection.execute(text("SELECT word FROM words WHERE words MATCH 'lamp'"))
        assert len(rows.all()) == 2
    assert database.statements == 4


async def test_transaction_control_and_pragmas_are_free(database):
    async with database.engine.connect() as connection:
        await connection.execute(text("PRAGMA user_version"))
        async with connection.begin_nested():
            await connection.execute(text("PRAGMA user_version"))
        await connection.commit()
        await connection.rollback()
    assert database.statements == 0


async def test_a_statement_that_opens_with_a_comment_counts(database):
    async with database.engine.connect() as connection:
        await connection.execute(text("-- by hand\nSELECT 1"))
        await connection.execute(text("/* by hand */ SELECT 1"))
        await connection.execute(text("\n   select 1"))
    assert database.statements == 3


async def test_fetching_a_streamed_result_is_free(shop):
    shop.reset_counters()
    async with shop.session() as session:
        rows = await session.stream(select(User.id).execution_options(yield_per=3))
        assert len([row async for row in rows]) == 40
    assert shop.statements == 1


async def test_a_statement_that_fails_counts_once_and_the_next_one_too(database):
    async with database.engine.connect() as connection:
        await connection.execute(insert(Product).values(name="a", price=1))
        with pytest.raises(OperationalError):
            await connection.execute(text("SELECT * FROM nowhere"))
        await connection.execute(text("SELECT 1"))
    assert database.statements == 2, "what does not parse never leaves"


async def test_statements_of_the_driver_itself_count(database):
    async with database.engine.connect() as connection:
        raw = await connection.get_raw_connection()
        await raw.driver_connection.execute_fetchall("SELECT 1")
    assert database.statements == 1


async def test_a_pre_ping_is_a_statement():
    async with open_shop(name="ping", users=1, pool_pre_ping=True) as shop:
        await shop.warm(1)
        shop.reset_counters()
        await shop.users.count()
        assert shop.statements == 2


async def test_waits_overlap_across_connections_only(shop):
    await shop.warm(4)
    shop.round_trip = 0.05

    shop.reset_counters()
    began = time.perf_counter()
    async with shop.session() as session:
        for _ in range(4):
            await session.scalar(select(User).where(User.id == ADA))
    one_by_one = time.perf_counter() - began
    assert (shop.statements, shop.peak_checked_out) == (4, 1)
    assert one_by_one >= 4 * 0.05

    # A busy machine may delay one of the four threads, but not each time. Waits that took turns
    # would need four times as long as one, however often they are tried.
    for _ in range(TRIES):
        shop.reset_counters()
        began = time.perf_counter()
        await asyncio.gather(*[shop.users.get_by_id(ADA) for _ in range(4)])
        gathered = time.perf_counter() - began
        assert (shop.statements, shop.peak_checked_out) == (4, 4)
        if one_by_one > 1.5 * gathered:
            return
    pytest.fail(f"{TRIES} times as slow as one by one, which took {one_by_one:.3f} s")


async def test_a_round_trip_waits_once_however_many_rows_go(database):
    database.round_trip = 0.01
    began = time.perf_counter()
    async with database.engine.begin() as connection:
        await connection.execute(insert(User), people(500))
    assert 0.01 <= time.perf_counter() - began < 500 * 0.01


async def test_the_loop_runs_on_during_a_round_trip(shop):
    shop.round_trip = 0.05
    call = asyncio.create_task(shop.users.count())
    turns = 0
    while not call.done():
        turns += 1
        await asyncio.sleep(0)
    assert await call == 40
    assert turns > 20


async def test_the_round_trip_changes_at_run_time(shop):
    assert shop.round_trip == 0
    shop.round_trip = 0.03
    began = time.perf_counter()
    await shop.users.count()
    assert time.perf_counter() - began >= 0.03
    shop.round_trip = 0
    assert shop.round_trip == 0
    with pytest.raises(ValueError, match=r"^round_trip=-1: must be a finite number of seconds"):
        shop.round_trip = -1
    assert shop.round_trip == 0


async def test_the_trace_changes_no_answer(shop):
    plain = shop.path
    with closing(sqlite3.connect(plain)) as connection:
        expected = connection.execute("SELECT name FROM users ORDER BY created_at, id").fetchall()
    shop.round_trip = 0.001
    async with shop.session() as session:
        names = await session.execute(select(User.name).order_by(User.created_at, User.id))
        assert [tuple(row) for row in names] == expected


async def test_checked_out_follows_connections(database):
    assert (database.checked_out, database.peak_checked_out) == (0, 0)
    async with database.engine.connect(), database.engine.connect():
        assert database.checked_out == 2
    assert (database.checked_out, database.peak_checked_out) == (0, 2)
    async with database.engine.connect():
        database.reset_counters()
        assert (database.checked_out, database.peak_checked_out) == (1, 1)


async def test_warming_opens_connections_and_moves_no_counter(database):
    await database.warm(3)
    pool = database.engine.pool
    assert isinstance(pool, AsyncAdaptedQueuePool)
    assert pool.checkedin() == 3
    assert (database.statements, database.checked_out, database.peak_checked_out) == (0, 0, 0)
    threads = threading.active_count()
    async with database.engine.connect(), database.engine.connect(), database.engine.connect():
        assert threading.active_count() == threads, "no connection more was opened"


async def test_warming_again_asks_open_connections_and_moves_no_counter():
    async with open_shop(name="warm", users=4, pool_pre_ping=True) as shop:
        await shop.users.count()
        await shop.warm(2)
        assert (shop.statements, shop.round_trips, shop.peak_checked_out) == (1, 3, 1)


async def test_warming_fills_the_pool_unless_told_otherwise(database):
    await database.warm()
    assert isinstance(database.engine.pool, AsyncAdaptedQueuePool)
    assert database.engine.pool.checkedin() == 4


@pytest.mark.parametrize("connections", [0, 5])
async def test_warming_more_than_the_pool_keeps(database, connections):
    with pytest.raises(ValueError, match=r"must be a whole number from 1 to 4$"):
        await database.warm(connections)


@pytest.mark.parametrize("poolclass", [NullPool, StaticPool])
async def test_a_pool_that_does_not_queue_takes_no_size(poolclass):
    async with open_shop(name="pool", users=4, poolclass=poolclass) as shop:
        await shop.warm()
        assert isinstance(shop.engine.pool, poolclass)
        assert await shop.users.count() == 4
        assert shop.checked_out == 0


async def test_connections_of_a_null_pool_leave_nothing_behind():
    before = set(threading.enumerate())
    async with open_shop(name="pool", users=4, poolclass=NullPool) as shop:
        database = shop._database
        assert isinstance(database, Database)
        await asyncio.gather(*[shop.users.count() for _ in range(20)])
        assert len(database._links) <= 20
        for _ in range(20):
            await shop.users.count()
        assert len(database._links) <= 21, "those that have ended are forgotten"
    assert set(threading.enumerate()) <= before


async def test_the_pool_is_as_large_as_asked():
    async with open_shop(name="pool", users=4, pool_size=2, pool_timeout=0.01) as shop:
        async with shop.engine.connect(), shop.engine.connect():
            with pytest.raises(TimeoutError):
                await shop.users.count()
        assert shop.peak_checked_out == 2


async def test_pragmas_are_set_on_each_connection(tmp_path):
    async def pragmas(**options):
        database = Database(tmp_path / f"{len(options)}.sqlite3", **options)
        async with database.engine.connect() as connection:
            values = [
                (await connection.execute(text(f"PRAGMA {name}"))).scalar_one()
                for name in ("journal_mode", "busy_timeout", "foreign_keys")
            ]
        await database.close()
        return values

    assert await pragmas() == ["wal", 5000, 1]
    assert await pragmas(wal=False, busy_timeout=0.25, foreign_keys=False) == ["delete", 250, 0]


async def test_connections_that_open_at_once_do_not_lock_each_other_out():
    for _ in range(5):
        async with open_shop(name="cold", users=4) as shop:
            assert await asyncio.gather(*[shop.users.count() for _ in range(10)]) == [4] * 10


async def test_a_cancelled_statement_gives_its_connection_back(shop):
    shop.round_trip = 0.05
    call = asyncio.create_task(shop.users.count())
    while shop.statements == 0:
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    while shop.checked_out:
        await asyncio.sleep(0)
    shop.round_trip = 0
    assert await shop.users.count() == 40


async def test_a_cancelled_connect_leaves_no_thread():
    before = set(threading.enumerate())
    for turns in range(12):
        async with open_shop(name="cancelled", users=1, products=0) as shop:
            call = asyncio.create_task(shop.users.count())
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])
    while set(threading.enumerate()) - before:
        await asyncio.sleep(0)


async def test_closing_ends_connections_that_are_still_in_use(tmp_path):
    before = set(threading.enumerate())
    database = Database(tmp_path / "shop.sqlite3", round_trip=0.02)
    connection = await database.engine.connect().start()
    running = asyncio.create_task(connection.execute(text("SELECT 1")))
    while database.statements == 0:
        await asyncio.sleep(0)
    with pytest.warns(ResourceWarning, match=r"^1 database connection\(s\) were still checked out"):
        await database.close()
    assert set(threading.enumerate()) <= before
    with pytest.raises(OperationalError, match="closed"):
        await running
    with pytest.raises(InvalidRequestError, match=r"^shop.sqlite3 is closed: open the shop again"):
        await database.engine.connect()
    await connection.close()
    await database.close()


async def test_one_session_shared_by_two_branches_takes_turns_or_raises():
    async def both(**options):
        async with open_shop(name="shared", users=4, **options) as shop:
            await shop.warm(2)
            shop.round_trip = 0.01
            async with shop.session() as session:
                users = type(shop.users)(session)
                return await asyncio.gather(users.count(), users.count(), return_exceptions=True)

    assert await both() == [4, 4]
    with_ping = await both(pool_pre_ping=True)
    assert any(isinstance(result, InvalidRequestError) for result in with_ping)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool_size": 0}, "pool_size=0: must be a whole number, 1 or more"),
        ({"max_overflow": -2}, "max_overflow=-2"),
        ({"pool_timeout": -1}, "pool_timeout=-1"),
        ({"round_trip": -1}, "round_trip=-1"),
        ({"busy_timeout": float("nan")}, "busy_timeout=nan"),
    ],
)
def test_bad_options_are_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        Database(tmp_path / "shop.sqlite3", **options)
