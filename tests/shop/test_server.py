"""The shop on a PostgreSQL server: its contents, its counters, what it leaves, bad input."""

import asyncio
import importlib.util
from typing import Any

import pytest
from sqlalchemy import make_url, select, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import looplab.shop.server
from looplab.shop import (
    DatabaseUnavailableError,
    DatabaseUrlError,
    DriverMissingError,
    EmbeddedOnlyError,
    ShopClosedError,
    ShopError,
    open_shop,
)
from looplab.shop.models import Base

pytestmark = pytest.mark.anyio
postgres = pytest.mark.postgres


async def rows(shop):
    """Return all rows of all tables."""
    async with shop.session() as session:
        return {
            table.name: sorted(tuple(row) for row in await session.execute(select(*table.columns)))
            for table in Base.metadata.sorted_tables
        }


async def schemas(url):
    """Return the names of the shops' schemas on the server."""
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
    async with engine.connect() as connection:
        found = await connection.scalars(
            text("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'shop!_%' ESCAPE '!'")
        )
        names = set(found)
    await engine.dispose()
    return names


@postgres
@pytest.mark.parametrize(("users", "products"), [(1_000, 200), (0, 0), (3, 0)])
async def test_it_holds_what_the_embedded_shop_holds(postgres_server, users, products):
    contents: dict[str, Any] = {"users": users, "products": products}
    async with (
        open_shop(name="embedded", **contents) as embedded,
        open_shop(name="served", database_url=postgres_server, **contents) as served,
    ):
        assert await rows(served) == await rows(embedded)


@postgres
async def test_each_shop_has_a_schema_which_goes_when_it_closes(postgres_server):
    before = await schemas(postgres_server)
    async with (
        open_shop(name="one", database_url=postgres_server, users=5) as one,
        open_shop(name="two", database_url=postgres_server, users=5) as two,
    ):
        assert len(await schemas(postgres_server) - before) == 2
        await one.users.create(name="Ada", email="ada@example.com")
        assert (await one.users.count(), await two.users.count()) == (6, 5)
        assert "on a server, as shop_" in repr(one)
    assert await schemas(postgres_server) == before
    assert repr(one) == "<Shop 'one', closed>"
    with pytest.raises(ShopClosedError, match="open the shop again"):
        await one.users.count()


@postgres
async def test_counters_count_statements_pings_and_loans(postgres_server):
    opened = open_shop(name="served", database_url=postgres_server, users=5, pool_pre_ping=True)
    async with opened as shop:
        assert (shop.statements, shop.peak_checked_out) == (0, 0)
        await shop.warm(2)
        assert (shop.statements, shop.peak_checked_out) == (0, 0)
        async with shop.session() as one, shop.session() as other:
            for session in (one, other):
                await session.scalar(text("SELECT 1"))
            assert shop.checked_out == 2
        assert (shop.statements, shop.peak_checked_out, shop.checked_out) == (4, 2, 0)
        async with shop.session() as session, session.begin_nested():
            await session.scalar(text("SELECT 1"))
        assert shop.statements == 6, "a ping and a query; a savepoint is no statement"


@postgres
@pytest.mark.parametrize("poolclass", [None, NullPool])
async def test_the_pool_is_as_asked(postgres_server, poolclass):
    opened = open_shop(
        name="served", database_url=postgres_server, users=5, poolclass=poolclass,
        pool_size=1, pool_timeout=0.05,
    )  # fmt: skip
    async with opened as shop, shop.engine.connect():
        if poolclass is NullPool:
            assert await shop.users.count() == 5
        else:
            with pytest.raises(PoolTimeoutError):
                await shop.users.count()


@postgres
async def test_what_is_sqlites_alone_is_refused(postgres_server):
    async with open_shop(name="served", database_url=postgres_server, users=5) as shop:
        for name in ("path", "round_trip", "round_trips"):
            with pytest.raises(EmbeddedOnlyError, match=f"has no '{name}': only one in an embed"):
                getattr(shop, name)
        with pytest.raises(EmbeddedOnlyError):
            shop.round_trip = 0.02


@postgres
async def test_a_connection_that_is_held_is_reported_and_keeps_no_schema(postgres_server):
    before = await schemas(postgres_server)
    shop = await open_shop(name="held", database_url=postgres_server, users=5)
    session = shop.session()
    await session.execute(text("UPDATE users SET name = 'locked'"))
    with pytest.warns(ResourceWarning, match=r"^1 database connection\(s\) were still checked out"):
        await shop.close()
    assert await schemas(postgres_server) == before
    await session.close()


@postgres
async def test_an_opening_that_fails_or_is_cancelled_leaves_no_schema(postgres_server, monkeypatch):
    before = await schemas(postgres_server)

    async def fail(*_):
        raise RuntimeError("seeding failed")

    reached = asyncio.Event()

    async def hang(*_):
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(looplab.shop.server, "_copy", fail)
    with pytest.raises(RuntimeError, match="seeding failed"):
        await open_shop(name="failed", database_url=postgres_server)
    monkeypatch.setattr(looplab.shop.server, "_copy", hang)
    opening = asyncio.ensure_future(open_shop(name="failed", database_url=postgres_server))
    await reached.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert await schemas(postgres_server) == before


@postgres
async def test_a_server_that_refuses_is_one_sentence(postgres_server):
    url = make_url(postgres_server)
    refused = {
        url.set(database="nowhere"): 'database "nowhere" does not exist',
        url.set(query={"sslmode": "require"}): "unexpected keyword argument 'sslmode'",
    }
    for bad, reason in refused.items():
        with pytest.raises(DatabaseUnavailableError, match=reason):
            await open_shop(name="refused", database_url=bad.render_as_string(False))


async def test_a_server_that_is_down_is_one_sentence(free_tcp_port):
    url = f"postgresql://ada:secret@127.0.0.1:{free_tcp_port}/shop"
    with pytest.raises(DatabaseUnavailableError) as caught:
        await open_shop(name="down", database_url=url)
    message = str(caught.value)
    assert isinstance(caught.value, ConnectionError)
    assert f"at postgresql+asyncpg://ada:***@127.0.0.1:{free_tcp_port}/shop (" in message
    assert message.endswith("or leave the URL out to use the embedded SQLite.")
    assert caught.value._render_traceback_() == [message]


async def test_a_server_that_says_nothing_is_given_up_on(monkeypatch):
    monkeypatch.setattr(looplab.shop.server, "CONNECT_WITHIN", 0.2)
    gone = asyncio.Event()

    async def keep_silent(_reader, writer):
        await gone.wait()
        writer.close()

    async with await asyncio.start_server(keep_silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(DatabaseUnavailableError, match=r"\(TimeoutError\)"):
            await open_shop(name="silent", database_url=f"postgresql://127.0.0.1:{port}/shop")
        gone.set()


@pytest.mark.parametrize(
    "url",
    [
        "mysql://ada:secret@127.0.0.1/shop",
        "postgresql+psycopg://ada:secret@127.0.0.1/shop",
        "sqlite+aiosqlite:///shop.sqlite3",
        "postgresql:///shop",
        "postgresql://ada:secret@127.0.0.1:port/shop",
        "ada:secret@127.0.0.1",
        "",
    ],
)
def test_another_kind_of_database_is_one_sentence(url):
    with pytest.raises(DatabaseUrlError) as caught:
        open_shop(database_url=url)
    message = str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert message.endswith("write postgresql://user:password@host:port/database.")
    assert "secret" not in message
    assert message.count(". ") == 0
    assert caught.value._render_traceback_() == [message]


def test_without_the_driver_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(looplab.shop.server, "find_spec", lambda _: None)
    with pytest.raises(DriverMissingError, match="python -m pip install asyncpg") as caught:
        open_shop(database_url="postgresql://127.0.0.1/shop")
    assert caught.value.name == "asyncpg"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"database_url": 5}, TypeError, "database_url=5: must be a string, or None for SQLite"),
        ({"round_trip": 0.1}, ValueError, "round_trip=0.1: a shop on a server has no such setting"),
        ({"wal": False}, ValueError, "wal=False"),
        ({"busy_timeout": 1.0}, ValueError, "busy_timeout=1.0"),
        ({"foreign_keys": False}, ValueError, "foreign_keys=False"),
        ({"pool_size": 0}, ValueError, "pool_size=0: must be a whole number, 1 or more"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_sent(options, error, message):
    with pytest.raises(error, match=message):
        open_shop(**({"database_url": "postgresql://127.0.0.1/shop"} | options))


def test_every_error_of_the_shop_shows_one_sentence():
    kinds = ShopError.__subclasses__()
    assert len(kinds) == 6
    assert all(kind.__doc__ for kind in kinds)
