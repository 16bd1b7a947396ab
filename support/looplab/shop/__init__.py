"""The shop: the system that the lessons study. Start with `open_shop`."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
import warnings
import weakref
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, NoReturn, Self
from uuid import UUID

from sqlalchemy import URL, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.pool import Pool

from looplab.shop import checks
from looplab.shop.counting import MAX_OVERFLOW, POOL_SIZE, POOL_TIMEOUT, CountingDatabase
from looplab.shop.database import BUSY_TIMEOUT, Database
from looplab.shop.errors import (
    DatabaseUnavailableError,
    DatabaseUrlError,
    DriverMissingError,
    EmbeddedOnlyError,
    ShopClosedError,
    ShopError,
    TemporaryDirectoryError,
)
from looplab.shop.models import Order
from looplab.shop.repositories import (
    OrderRepository,
    ProductRepository,
    Repositories,
    UserRepository,
)
from looplab.shop.seed import fill
from looplab.shop.server import ServerDatabase, server_url

__all__ = [
    "DatabaseUnavailableError",
    "DatabaseUrlError",
    "DriverMissingError",
    "EmbeddedOnlyError",
    "OrderRepository",
    "ProductRepository",
    "Shop",
    "ShopClosedError",
    "ShopError",
    "TemporaryDirectoryError",
    "UserRepository",
    "open_shop",
]

USERS_AT_MOST: Final = 2_000_000
PRODUCTS_AT_MOST: Final = 100_000

_EMBEDDED_DEFAULTS: Final = {
    "round_trip": 0.0,
    "wal": True,
    "busy_timeout": BUSY_TIMEOUT,
    "foreign_keys": True,
}

_open: dict[str, Shop] = {}


class Shop:
    """An open shop: a seeded database, its engine and its repositories. `open_shop` makes one.

    Attributes:
        name: the name that it was opened under.
        engine: the `AsyncEngine`.
        sessions: an `async_sessionmaker` on it (`autoflush=False`, as on the card).
        users, orders, products: repositories whose calls each open a session of their own.
    """

    def __init__(self, name: str, database: CountingDatabase, *, expire_on_commit: bool) -> None:
        self.name = name
        self.engine: AsyncEngine = database.engine
        self.sessions: async_sessionmaker[AsyncSession] = async_sessionmaker(
            self.engine, expire_on_commit=expire_on_commit, autoflush=False
        )
        self.users = UserRepository(self.sessions)
        self.orders = OrderRepository(self.sessions)
        self.products = ProductRepository(self.sessions)
        self._database = database
        self._closed = False
        # For a kernel that ends without closing the shop.
        self._remove_directory = (
            weakref.finalize(self, shutil.rmtree, database.path.parent, ignore_errors=True)
            if isinstance(database, Database)
            else None
        )

    def __repr__(self) -> str:
        if self.closed:
            state = "closed"
        elif isinstance(self._database, Database):
            state = f"round_trip={self.round_trip} s"
        else:
            state = f"on a server, as {self._database.name}"
        return f"<Shop {self.name!r}, {state}>"

    @property
    def closed(self) -> bool:
        """Whether `close` has finished."""
        return self._closed

    @property
    def path(self) -> Path:
        """The SQLite file, alone in a temporary directory that goes when the shop closes.

        Raises:
            EmbeddedOnlyError: the shop is on a server (an `AttributeError`).
        """
        return self._file("path").path

    @property
    def round_trip(self) -> float:
        """Seconds that each round trip waits; may be set at any time, 0 is none.

        Raises:
            EmbeddedOnlyError: the shop is on a server, whose distance is its own.
        """
        return self._file("round_trip").round_trip

    @round_trip.setter
    def round_trip(self, value: float) -> None:
        self._file("round_trip").round_trip = value

    @property
    def round_trips(self) -> int:
        """Round trips since the last reset: statements, and BEGIN, COMMIT and ROLLBACK.

        `looplab.shop.database` says what is a round trip and what is not.

        Raises:
            EmbeddedOnlyError: the shop is on a server, where nobody counts them.
        """
        return self._file("round_trips").round_trips

    @property
    def statements(self) -> int:
        """Statements sent to the database since the last reset, pre-pings included."""
        return self._database.statements

    @property
    def checked_out(self) -> int:
        """Connections in use at this moment."""
        return self._database.checked_out

    @property
    def peak_checked_out(self) -> int:
        """The most connections in use at once since the last reset."""
        return self._database.peak_checked_out

    def reset_counters(self) -> None:
        """Count what is sent from 0 again, and `peak_checked_out` from what is in use now."""
        self._database.reset_counters()

    def session(self) -> AsyncSession:
        """Return a new session; use it as `async with shop.session() as session:`."""
        return self.sessions()

    def on(self, session: AsyncSession) -> Repositories:
        """Return the shop's three repositories on one session, which all their calls share.

        Raises:
            TypeError: `session` is no `AsyncSession`.
        """
        if not isinstance(session, AsyncSession):
            raise TypeError(f"session={session!r}: must be an AsyncSession")
        return Repositories(
            UserRepository(session), OrderRepository(session), ProductRepository(session)
        )

    async def any_user(self) -> UUID:
        """Return the id of the user with the most orders, always the same one: one statement.

        Raises:
            LookupError: no user has orders.
        """
        buyers = select(Order.user_id).group_by(Order.user_id)
        async with self.sessions() as session:
            user_id = await session.scalar(
                buyers.order_by(func.count().desc(), Order.user_id).limit(1)
            )
        if user_id is None:
            raise LookupError(f"no user of the shop {self.name!r} has orders")
        return user_id

    async def warm(self, connections: int | None = None) -> None:
        """Open that many pooled connections, `pool_size` if not said; no counter moves.

        A timing that follows does not pay for connecting. A pool that keeps no connection
        (`NullPool`) has nothing to warm.

        Raises:
            TypeError, ValueError: `connections` is not a whole number from 1 to `pool_size`.
        """
        await self._database.warm(connections)

    async def close(self) -> None:
        """Dispose the engine, and delete what the shop kept: its directory, or its schema.

        Closing again does nothing. Connections still checked out are closed too, under a
        `ResourceWarning`.
        """
        if self.closed:
            return
        await self._database.close()
        left = None
        if self._remove_directory is not None:
            directory = self.path.parent
            left = None if await _delete(directory) else directory
            self._remove_directory.detach()
        self._closed = True
        if _open.get(self.name) is self:
            del _open[self.name]
        if left is not None:
            warnings.warn(f"the shop could not delete {left}", ResourceWarning, stacklevel=2)

    def _file(self, asked: str) -> Database:
        if isinstance(self._database, Database):
            return self._database
        raise EmbeddedOnlyError(asked)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class OpeningShop:
    """What `open_shop` returns: await it, or enter it with `async with`."""

    def __init__(
        self,
        *,
        name: str,
        users: int,
        products: int,
        expire_on_commit: bool,
        url: URL | None,
        pool: dict[str, Any],
        embedded: dict[str, Any],
    ) -> None:
        self._name = name
        self._url = url
        self._users = users
        self._products = products
        self._expire_on_commit = expire_on_commit
        self._pool = pool
        self._embedded = embedded
        self._shop: Shop | None = None

    def __await__(self) -> Generator[Any, Any, Shop]:
        return self._opened().__await__()

    async def __aenter__(self) -> Shop:
        self._shop = await self._opened()
        return self._shop

    async def __aexit__(self, *_: object) -> None:
        if self._shop is not None:
            await self._shop.close()

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"the shop is not open yet, so it has no {name!r}: write `shop = await open_shop(...)`"
        )

    async def _opened(self) -> Shop:
        await _close_named(self._name)
        database = await (self._file() if self._url is None else self._server(self._url))
        shop = Shop(self._name, database, expire_on_commit=self._expire_on_commit)
        await _close_named(self._name)
        _open[self._name] = shop
        return shop

    async def _file(self) -> Database:
        directory = _new_directory()
        try:
            path = directory / "shop.sqlite3"
            await fill(path, users=self._users, products=self._products)
            return Database(path, **self._embedded, **self._pool)
        except BaseException as error:
            shutil.rmtree(directory, ignore_errors=True)
            if isinstance(error, sqlite3.OperationalError) and _disk_refuses(error):
                raise TemporaryDirectoryError(str(directory.parent), str(error)) from error
            raise

    async def _server(self, url: URL) -> ServerDatabase:
        database = ServerDatabase(url, **self._pool)
        await database.create(users=self._users, products=self._products)
        return database


def open_shop(
    *,
    round_trip: float = 0.0,
    users: int = 1_000,
    products: int = 200,
    pool_size: int = POOL_SIZE,
    max_overflow: int = MAX_OVERFLOW,
    pool_timeout: float = POOL_TIMEOUT,
    pool_pre_ping: bool = False,
    poolclass: type[Pool] | None = None,
    expire_on_commit: bool = False,
    wal: bool = True,
    busy_timeout: float = BUSY_TIMEOUT,
    foreign_keys: bool = True,
    database_url: str | None = None,
    name: str = "shop",
) -> OpeningShop:
    """Open a shop: `shop = await open_shop()`, or `async with open_shop() as shop:`.

    It keeps a new SQLite file, unless `database_url` names a PostgreSQL server, on which it keeps a
    new schema; the same arguments make the same contents. Opening again under the
    same `name` first closes the shop that was open before, so a cell that opens one can run twice;
    give a second shop another name. One opened by `await` stays open until `await shop.close()`.

    Args:
        round_trip: seconds that each round trip waits, as across a network; 0 is none. A session
            makes one for BEGIN, one for each statement, and one for COMMIT or ROLLBACK.
        users: how many users; up to the first 1,000 have orders, three in four of them.
        products: how many products; one in ten is featured.
        pool_size, max_overflow, pool_timeout, pool_pre_ping, poolclass: as in SQLAlchemy, times in
            seconds. `NullPool` and `StaticPool` ignore the first three.
        expire_on_commit: as in SQLAlchemy; False, as here, leaves objects readable after a commit.
        wal, busy_timeout, foreign_keys: SQLite's PRAGMAs, the time in seconds.
        database_url: a PostgreSQL server, such as ``postgresql://ada@127.0.0.1:5432/shop``; it is
            spoken to by asyncpg. Its distance is its own, and SQLite's settings mean nothing to it,
            so `round_trip`, `wal`, `busy_timeout` and `foreign_keys` are left out beside it.
        name: what the shop is known by in this process.

    Raises:
        TypeError, ValueError: an argument is of the wrong type, out of range, or of no meaning
            beside another.
        TemporaryDirectoryError: the temporary directory cannot be written (an `OSError`).
        DatabaseUrlError: `database_url` names no PostgreSQL server (a `ValueError`).
        DatabaseUnavailableError: the server cannot be reached (a `ConnectionError`).
        DriverMissingError: asyncpg is not installed (a `ModuleNotFoundError`).
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"name={name!r}: must be a string that is not empty")
    pool = {
        "pool_size": checks.count("pool_size", pool_size, at_least=1),
        "max_overflow": checks.count("max_overflow", max_overflow, at_least=-1),
        "pool_timeout": checks.seconds("pool_timeout", pool_timeout),
        "pool_pre_ping": checks.flag("pool_pre_ping", pool_pre_ping),
        "poolclass": checks.pool_class("poolclass", poolclass),
    }
    embedded = {
        "round_trip": checks.seconds("round_trip", round_trip),
        "wal": checks.flag("wal", wal),
        "busy_timeout": checks.seconds("busy_timeout", busy_timeout),
        "foreign_keys": checks.flag("foreign_keys", foreign_keys),
    }
    url = None
    if database_url is not None:
        for setting, value in embedded.items():
            if value != _EMBEDDED_DEFAULTS[setting]:
                raise ValueError(
                    f"{setting}={value!r}: a shop on a server has no such setting; leave it out, "
                    "or leave out database_url"
                )
        url = server_url(database_url)
    return OpeningShop(
        name=name,
        users=checks.count("users", users, at_most=USERS_AT_MOST),
        products=checks.count("products", products, at_most=PRODUCTS_AT_MOST),
        expire_on_commit=checks.flag("expire_on_commit", expire_on_commit),
        url=url,
        pool=pool,
        embedded=embedded,
    )


async def _close_named(name: str) -> None:
    if shop := _open.get(name):
        await shop.close()


async def _delete(directory: Path) -> bool:
    # A connect that was cancelled may touch the file once more; Windows may hold it a moment.
    for _ in range(100):
        if _deleted(directory):
            return True
        await asyncio.sleep(0.01)
    return False


def _deleted(directory: Path) -> bool:
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()


def _disk_refuses(error: sqlite3.OperationalError) -> bool:
    # The low byte of an extended code is the code itself: https://www.sqlite.org/rescode.html
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }


def _new_directory() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="shop-"))
    except OSError as error:
        directory = tempfile.tempdir or "of this computer"
        raise TemporaryDirectoryError(str(directory), error.strerror or str(error)) from error
