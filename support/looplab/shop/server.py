"""The shop on a PostgreSQL server, spoken to by asyncpg: the same tables, rows and counters.

Each shop has a schema of its own, `shop_` and some hexadecimal digits, which is dropped when it
closes; nothing else in the database is read or touched. A process that is killed leaves its schema.

What a lesson does to SQLite itself (its journal, its PRAGMAs, full-text search by FTS5) has no
counterpart here, and the distance of the server is its own: `round_trip` belongs to the SQLite
file.
"""

from __future__ import annotations

import asyncio
import re
import warnings
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import URL, event, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, PoolProxiedConnection

from looplab.shop.counting import CountingDatabase
from looplab.shop.errors import (
    DatabaseUnavailableError,
    DatabaseUrlError,
    DriverMissingError,
    ShopClosedError,
)
from looplab.shop.models import Base, Order, OrderItem, Product, User
from looplab.shop.seed import seeded_orders, seeded_products, seeded_users

CONNECT_WITHIN: Final = 5.0  # seconds
DROP_WITHIN: Final = 5.0  # seconds that a schema's tables may still be locked
DRIVER: Final = "postgresql+asyncpg"

_SCHEMES: Final = ("postgresql", "postgres", DRIVER)
_SAVEPOINTS: Final = ("SAVEPOINT", "RELEASE", "ROLLBACK TO")
_PINGS: Final = "looplab.shop.pings"


def server_url(value: object) -> URL:
    """Return `value` as the URL of a PostgreSQL server, for asyncpg.

    Raises:
        TypeError: it is not a string.
        DatabaseUrlError: it is no URL, or that of another kind of database (a `ValueError`).
        DriverMissingError: asyncpg is not installed (a `ModuleNotFoundError`).
    """
    if not isinstance(value, str):
        raise TypeError(f"database_url={value!r}: must be a string, or None for SQLite")
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        raise DatabaseUrlError(re.sub(r":[^:@/]*@", ":***@", value)) from None
    if url.drivername not in _SCHEMES or not url.host:
        raise DatabaseUrlError(url.render_as_string())
    if find_spec("asyncpg") is None:
        raise DriverMissingError("asyncpg")
    return url.set(drivername=DRIVER)


class ServerDatabase(CountingDatabase):
    """An `AsyncEngine` on a schema of its own in a PostgreSQL database, with counters.

    `open_server` makes one, with the tables filled.

    Attributes:
        engine: the engine, to be used as any other.
        url: the database's URL.
        schema: the schema's name.
    """

    def __init__(self, url: URL, **pool: Any) -> None:
        """Build the engine; nothing is sent before the first statement.

        `pool` are the pool's arguments, those of `sqlalchemy.create_engine`, times in seconds.

        Raises:
            TypeError, ValueError: an argument is of the wrong type or out of range.
        """
        super().__init__(**pool)
        self.url = url
        self.schema = f"shop_{uuid4().hex}"
        settings = {"search_path": self.schema, "application_name": self.schema}
        self.engine = create_async_engine(
            url,
            connect_args={"server_settings": settings, "timeout": CONNECT_WITHIN},
            **self._pool_options,
        )
        self._listen()

    @property
    def name(self) -> str:
        """The schema's name."""
        return self.schema

    async def create(self, *, users: int, products: int) -> None:
        """Create the schema, with its tables filled as those of a SQLite file are.

        Raises:
            DatabaseUnavailableError: the server cannot be reached, or refuses (a
                `ConnectionError`).
        """
        created = False
        try:
            await self._run(f"CREATE SCHEMA {self.schema}")
            created = True
            async with self.engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
                await _copy(connection, users, products)
        except BaseException as error:
            if created or isinstance(error, asyncio.CancelledError):
                await asyncio.shield(self.close())
            if isinstance(error, _refusals()):
                url = self.url.render_as_string()
                raise DatabaseUnavailableError(url, _reason(error)) from error
            raise
        self.reset_counters()

    async def close(self) -> None:
        """Dispose the engine, close connections still in use, and drop the schema.

        Connections that were still checked out, and a schema that could not be dropped, are
        reported by a `ResourceWarning`. Closing again does nothing.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        held = self._in_use()
        for _, proxy in held:
            proxy.invalidate()
        await self.engine.dispose()
        try:
            await self._run(
                f"SET LOCAL lock_timeout = '{DROP_WITHIN}s'",
                "SET LOCAL client_min_messages = 'error'",
                f"DROP SCHEMA IF EXISTS {self.schema} CASCADE",
            )
        except _refusals() as error:
            self._warn(f"the schema {self.schema} could not be dropped: {_reason(error)}")
        if held:
            self._warn(
                f"{len(held)} database connection(s) were still checked out "
                f"when {self.name} was closed"
            )

    async def _run(self, *statements: str) -> None:
        """Run statements in one transaction, on a connection outside the pool and its counters."""
        engine = create_async_engine(
            self.url, poolclass=NullPool, connect_args={"timeout": CONNECT_WITHIN}
        )
        async with engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement))

    def _warn(self, message: str) -> None:
        warnings.warn(message, ResourceWarning, stacklevel=3)

    def _listen(self) -> None:
        super()._listen()
        event.listen(self.engine.sync_engine, "do_connect", self._on_do_connect)
        event.listen(self.engine.sync_engine, "before_cursor_execute", self._on_execute)

    def _on_do_connect(self, *_: object) -> None:
        if self._closed:
            raise ShopClosedError(self.name)

    def _on_checkout(
        self, connection: object, record: ConnectionPoolEntry, proxy: PoolProxiedConnection
    ) -> None:
        # The pool asks each connection that it lends again; one that it has just opened it does not
        # ask.
        pinged = self._pool_options["pool_pre_ping"] and record.info.setdefault(_PINGS, False)
        record.info[_PINGS] = True
        if pinged:
            with self._lock:
                self._statements += 1
        super()._on_checkout(connection, record, proxy)

    def _on_execute(self, _connection: object, _cursor: object, sql: str, *_: object) -> None:
        if not sql.startswith(_SAVEPOINTS):
            with self._lock:
                self._statements += 1


def _refusals() -> tuple[type[Exception], ...]:
    """Return the errors of a server that cannot be used."""
    import asyncpg  # only a shop on a server needs it

    # A TypeError is a parameter in the URL that asyncpg does not have. SQLAlchemy 2.0 passes on
    # what the driver raises while it connects; 2.1 wraps it.
    return SQLAlchemyError, OSError, TypeError, asyncpg.PostgresError


async def _copy(connection: AsyncConnection, users: int, products: int) -> None:
    catalogue = seeded_products(products)
    orders, items = seeded_orders(users, catalogue)
    rows: dict[Any, Iterable[Any]] = {
        User: seeded_users(users),
        Product: catalogue,
        Order: orders,
        OrderItem: items,
    }
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    for model, records in rows.items():
        table = model.__table__
        await driver.copy_records_to_table(
            table.name, records=records, columns=[column.name for column in table.columns]
        )


def _reason(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    said = re.sub(r"^<class '[^']+'>: ", "", " ".join(str(cause).split()))
    return said.rstrip(".") or type(cause).__name__
