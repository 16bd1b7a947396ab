"""An engine whose SQLite file answers as if it stood across a network.

SQLite answers in microseconds, so nothing is gained by asking two questions at once. Here each
statement first waits for `round_trip` seconds in its connection's own thread, with the GIL
released (what `sqlite3.Connection.set_trace_callback` sets is called there before a statement
runs). Such waits overlap only across connections, hold a place in the pool, and cannot be
interrupted: like those of a database server. Transaction control (BEGIN, COMMIT, ROLLBACK,
savepoints) and PRAGMA do not wait.

One execution in SQLAlchemy is one round trip, whatever it makes SQLite do: an `executemany`, the
triggers it fires and the statements inside a full-text index add none. SQLAlchemy's pre-ping is one
too. Fetching more rows of a running statement is none.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, event
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import (
    AsyncAdaptedQueuePool,
    ConnectionPoolEntry,
    Pool,
    PoolProxiedConnection,
    QueuePool,
)

from support.shop import checks
from support.shop.errors import ShopClosedError

POOL_SIZE: Final = 20
MAX_OVERFLOW: Final = 0
POOL_TIMEOUT: Final = 5.0
BUSY_TIMEOUT: Final = 5.0

_FREE: Final = ("BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "PRAGMA")
_LONGEST_FREE: Final = max(map(len, _FREE))
_LINK: Final = "support.shop.link"


class _Link:
    """One connection to the file, and what its thread has already paid for."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.connection: sqlite3.Connection | None = None
        self.executing = False
        self.paid = False
        self.closing = False

    @property
    def alive(self) -> bool:
        return self.thread is not None and self.thread.is_alive()

    @property
    def ended(self) -> bool:
        return self.thread is not None and not self.thread.is_alive()

    def discard(self) -> None:
        """Close what aiosqlite drops unclosed when it is cancelled while it connects."""
        if self.connection is not None:
            self.connection.close()


class Database:
    """An `AsyncEngine` on a SQLite file, with a round trip and counters.

    Attributes:
        engine: the engine, to be used as any other.
        path: the SQLite file.
    """

    def __init__(
        self,
        path: Path,
        *,
        round_trip: float = 0.0,
        pool_size: int = POOL_SIZE,
        max_overflow: int = MAX_OVERFLOW,
        pool_timeout: float = POOL_TIMEOUT,
        pool_pre_ping: bool = False,
        poolclass: type[Pool] | None = None,
        wal: bool = True,
        busy_timeout: float = BUSY_TIMEOUT,
        foreign_keys: bool = True,
    ) -> None:
        """Build the engine; no connection of its own is opened before the first statement.

        Arguments are those of `sqlalchemy.create_engine`, times in seconds. A `poolclass` that
        does not queue (`NullPool`, `StaticPool`) leaves size, overflow and timeout unused.
        `wal` is the file's journal mode; `busy_timeout` and `foreign_keys` are set on each
        connection.

        Raises:
            TypeError, ValueError: an argument is of the wrong type or out of range.
            sqlite3.OperationalError: the file cannot be written.
        """
        self.path = path
        self.round_trip = round_trip
        self.pool_size = checks.count("pool_size", pool_size, at_least=1)
        checks.count("max_overflow", max_overflow, at_least=-1)
        self._setup = _setup_script(
            wal=checks.flag("wal", wal),
            busy_timeout=checks.seconds("busy_timeout", busy_timeout),
            foreign_keys=checks.flag("foreign_keys", foreign_keys),
        )
        self._lock = threading.Lock()
        self._statements = 0
        self._out: dict[int, tuple[_Link, weakref.ref[PoolProxiedConnection]]] = {}
        self._closed = False
        self._peak = 0
        self._links: list[_Link] = []

        poolclass = poolclass or AsyncAdaptedQueuePool
        self.pooled = issubclass(poolclass, QueuePool)
        sizes: dict[str, Any] = {}
        if self.pooled:
            sizes = {
                "pool_size": self.pool_size,
                "max_overflow": max_overflow,
                "pool_timeout": checks.seconds("pool_timeout", pool_timeout),
            }
        self.engine: AsyncEngine = create_async_engine(
            URL.create("sqlite+aiosqlite", database=str(path)),
            poolclass=poolclass,
            pool_pre_ping=checks.flag("pool_pre_ping", pool_pre_ping),
            **sizes,
        )
        self._listen()
        if wal:
            # Once, and by one connection: two that switch the mode at once lock each other out.
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")

    @property
    def round_trip(self) -> float:
        """Seconds that each statement waits before it runs; may be set at any time, 0 is none."""
        return self._round_trip

    @round_trip.setter
    def round_trip(self, value: float) -> None:
        self._round_trip = checks.seconds("round_trip", value)

    @property
    def statements(self) -> int:
        """Statements sent since the last reset: those that wait for a round trip."""
        return self._statements

    @property
    def checked_out(self) -> int:
        """Connections in use at this moment."""
        return len(self._out)

    @property
    def peak_checked_out(self) -> int:
        """The most connections in use at once since the last reset."""
        return self._peak

    def reset_counters(self) -> None:
        """Count `statements` from 0 again, and `peak_checked_out` from what is checked out now."""
        with self._lock:
            self._statements = 0
            self._peak = len(self._out)

    async def warm(self, connections: int | None = None) -> None:
        """Open that many pooled connections, `pool_size` if not said; no counter moves.

        A pool that keeps nothing (`NullPool`) has nothing to warm.

        Raises:
            TypeError, ValueError: `connections` is not a whole number from 1 to `pool_size`.
        """
        if connections is None:
            connections = self.pool_size
        checks.count("connections", connections, at_least=1, at_most=self.pool_size)
        if not self.pooled:
            return
        peak = self._peak
        opened = [self.engine.connect() for _ in range(connections)]
        try:
            for connection in opened:
                await connection.start()
        finally:
            for connection in opened:
                if connection.sync_connection is not None:
                    await connection.close()
            with self._lock:
                self._peak = max(peak, len(self._out))

    async def close(self) -> None:
        """Dispose the engine, close connections still in use, and wait for every thread to end.

        A statement that is running ends first: it cannot be interrupted. Connections that were
        still checked out are reported by a `ResourceWarning`; what goes on using one, or connects
        from now on, meets an error. Closing again does nothing.
        """
        with self._lock:
            self._closed = True
        forgotten = self.checked_out
        await self.engine.dispose()
        # A closed connection's thread ends some microseconds after `close` returns.
        while any(link.alive for link in self._links):
            self._invalidate_checked_out()
            await asyncio.sleep(0.001)
        for link in self._links:
            link.discard()
        self._links.clear()
        if forgotten:
            warnings.warn(
                f"{forgotten} database connection(s) were still checked out "
                f"when {self.path.name} was closed",
                ResourceWarning,
                stacklevel=2,
            )

    def _invalidate_checked_out(self) -> None:
        for link, reference in list(self._out.values()):
            proxy = reference()
            # One that is being closed already is left alone: aiosqlite ends a thread once only, and
            # whoever asks a second time waits for ever.
            if proxy is not None and proxy.is_valid and not link.closing:
                proxy.invalidate()

    def _listen(self) -> None:
        engine = self.engine.sync_engine
        event.listen(engine, "do_connect", self._on_do_connect)
        event.listen(engine, "checkout", self._on_checkout)
        event.listen(engine, "checkin", self._on_checkin)
        event.listen(engine, "close", _on_close)
        event.listen(engine, "before_cursor_execute", _on_execute)
        event.listen(engine, "after_cursor_execute", _on_executed)
        event.listen(engine, "handle_error", _on_error)

    def _on_do_connect(
        self, _dialect: object, record: ConnectionPoolEntry, _args: object, options: dict[str, Any]
    ) -> None:
        if self._closed:
            raise ShopClosedError(self.path.name)
        link = record.info[_LINK] = _Link()
        with self._lock:
            for known in self._links:
                if known.ended:
                    known.discard()
            self._links = [*(known for known in self._links if not known.ended), link]
        # Called by `sqlite3.connect` in the new connection's thread.
        options["factory"] = partial(self._connect, link)

    def _connect(self, link: _Link, *args: Any, **options: Any) -> sqlite3.Connection:
        with self._lock:
            if self._closed:
                raise sqlite3.OperationalError(f"{self.path.name} is closed")
            link.thread = threading.current_thread()
        link.connection = connection = sqlite3.Connection(*args, **options)
        try:
            connection.executescript(self._setup)
        except sqlite3.Error:
            connection.close()
            raise
        connection.set_trace_callback(self._payer(link))
        return connection

    def _on_checkout(
        self, _connection: object, record: ConnectionPoolEntry, proxy: PoolProxiedConnection
    ) -> None:
        with self._lock:
            self._out[id(record)] = record.info[_LINK], weakref.ref(proxy)
            self._peak = max(self._peak, len(self._out))

    def _on_checkin(self, _connection: object, record: ConnectionPoolEntry) -> None:
        with self._lock:
            self._out.pop(id(record), None)
        if self._closed:
            record.invalidate()

    def _payer(self, link: _Link) -> Callable[[str], None]:
        def pay(statement: str) -> None:
            if _is_free(statement):
                return
            if link.executing:
                if link.paid:
                    return
                link.paid = True
            elif statement.startswith("--"):
                # A full-text index at work inside a statement that has been paid for.
                return
            with self._lock:
                self._statements += 1
            if self._round_trip:
                time.sleep(self._round_trip)

        return pay


def _is_free(statement: str) -> bool:
    return statement.lstrip()[:_LONGEST_FREE].upper().startswith(_FREE)


def _setup_script(*, wal: bool, busy_timeout: float, foreign_keys: bool) -> str:
    pragmas = [f"busy_timeout = {round(busy_timeout * 1000)}"]
    if wal:
        pragmas.append("synchronous = NORMAL")
    pragmas.append(f"foreign_keys = {int(foreign_keys)}")
    return "".join(f"PRAGMA {pragma};" for pragma in pragmas)


def _on_close(_connection: object, record: ConnectionPoolEntry) -> None:
    if link := record.info.get(_LINK):
        link.closing = True


def _link_of(connection: Connection) -> _Link | None:
    return connection.info.get(_LINK)


def _on_execute(connection: Connection, *_: object) -> None:
    if link := _link_of(connection):
        link.executing, link.paid = True, False


def _on_executed(connection: Connection, *_: object) -> None:
    if link := _link_of(connection):
        link.executing = False


def _on_error(context: ExceptionContext) -> None:
    if context.connection is not None and not context.connection.invalidated:
        _on_executed(context.connection)
