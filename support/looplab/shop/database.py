"""An engine whose SQLite file answers as if it stood across a network.

SQLite answers in microseconds, so nothing is gained by asking two questions at once. Here what a
server would have to answer first waits for `round_trip` seconds in its connection's own thread,
with the GIL released. Such waits overlap only across connections, hold a place in the pool, and
cannot be interrupted.

**What waits.** The round trips are those that SQLAlchemy 2.1 with asyncpg 0.32 makes to PostgreSQL
15, counted by a proxy that stands between them (`tests/shop/test_round_trips.py` counts them again,
and compares them with the shop's):

| what a session does | trips |
| --- | --- |
| opens and closes, or only calls `connection()` | 0 |
| n statements, then closes (BEGIN, n, ROLLBACK) or commits (BEGIN, n, COMMIT) | n + 2 |
| an `executemany`, or an INSERT of many objects, up to 1,000 rows | 1, as a statement |
| a savepoint and its release | 2 more |
| n statements under `isolation_level="AUTOCOMMIT"` | n |
| a pre-ping (BEGIN, an empty statement, ROLLBACK) | 3 more |

BEGIN goes with the first statement, and nothing is begun or ended before it. A connection that goes
back to the pool with its transaction open is rolled back there, for the same trip.

**What does not wait**, and does across a network:

- connecting: 2 trips, more with a password, TLS or an older asyncpg;
- preparing a statement: 1 trip, the first time that a connection meets it;
- fetching more of a streamed result: a trip for each batch of rows;
- a statement that does not parse: here it never leaves;
- giving up: asyncpg cancels the statement at the server, by one more connection, and the pool
  connects anew. A statement here runs on to its end, and then its connection is closed;
- transaction control that is written out as a statement, and PRAGMA, which is SQLite's alone.

A trip waits whole before its statement runs, and takes as long for a megabyte as for a byte.

A connection that is closed in the middle of a write gives SQLite's lock back at once, as a server
does. Without this module it may not: the standard library's `close` leaves the transaction open as
long as a cursor of the cancelled statement is alive, which may be until garbage is collected.

One execution in SQLAlchemy is one trip whatever it makes SQLite do: the triggers it fires and the
statements inside a full-text index add none.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, event
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from looplab.shop import checks
from looplab.shop.counting import CountingDatabase
from looplab.shop.errors import ShopClosedError

BUSY_TIMEOUT: Final = 5.0
PING_TRIPS: Final = 3
"""Round trips of a pre-ping: BEGIN, the statement, ROLLBACK."""

_FREE: Final = ("BEGIN", "COMMIT", "END", "ROLLBACK", "PRAGMA")
_SAVEPOINTS: Final = ("SAVEPOINT", "RELEASE", "ROLLBACK TO")
_LINK: Final = "looplab.shop.link"


class _Link:
    """One connection to the file, and what its thread has already paid for."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.connection: sqlite3.Connection | None = None
        self.lent = False
        self.executing = False
        self.paid = False
        self.begun = False
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


class _Connection(sqlite3.Connection):
    """A connection for which ending a transaction is a round trip, and closing it ends one.

    The driver calls these methods in the connection's own thread. SQLite begins a transaction when
    something is to be written; a server has one to end after any statement.
    """

    def __init__(self, *args: Any, end: Callable[[], None], **options: Any) -> None:
        super().__init__(*args, **options)
        self._end = end

    def commit(self) -> None:
        self._end()
        super().commit()

    def rollback(self) -> None:
        self._end()
        super().rollback()

    def close(self) -> None:
        # SQLite keeps a closed connection, and the lock of its transaction, for as long as a cursor
        # is alive: here that of a cancelled statement, until garbage is collected.
        with suppress(sqlite3.Error):
            super().rollback()
        super().close()


class Database(CountingDatabase):
    """An `AsyncEngine` on a SQLite file, with round trips and counters.

    Attributes:
        engine: the engine, to be used as any other.
        path: the SQLite file.
    """

    def __init__(
        self,
        path: Path,
        *,
        round_trip: float = 0.0,
        wal: bool = True,
        busy_timeout: float = BUSY_TIMEOUT,
        foreign_keys: bool = True,
        **pool: Any,
    ) -> None:
        """Build the engine; no connection of its own is opened before the first statement.

        `pool` are the pool's arguments, those of `sqlalchemy.create_engine`, times in seconds. A
        `poolclass` that does not queue (`NullPool`, `StaticPool`) leaves size, overflow and timeout
        unused. `wal` is the file's journal mode; `busy_timeout` and `foreign_keys` are set on each
        connection.

        Raises:
            TypeError, ValueError: an argument is of the wrong type or out of range.
            sqlite3.OperationalError: the file cannot be written.
        """
        super().__init__(**pool)
        self.path = path
        self.round_trip = round_trip
        self._setup = _setup_script(
            wal=checks.flag("wal", wal),
            busy_timeout=checks.seconds("busy_timeout", busy_timeout),
            foreign_keys=checks.flag("foreign_keys", foreign_keys),
        )
        self._links: list[_Link] = []
        self.engine: AsyncEngine = create_async_engine(
            URL.create("sqlite+aiosqlite", database=str(path)), **self._pool_options
        )
        self._listen()
        if wal:
            # Once, and by one connection: two that switch the mode at once lock each other out.
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def round_trip(self) -> float:
        """Seconds that each round trip waits; may be set at any time, 0 is none."""
        return self._round_trip

    @round_trip.setter
    def round_trip(self, value: float) -> None:
        self._round_trip = checks.seconds("round_trip", value)

    @property
    def round_trips(self) -> int:
        """Round trips since the last reset: statements, and BEGIN, COMMIT and ROLLBACK."""
        return self._round_trips

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
                f"when {self.name} was closed",
                ResourceWarning,
                stacklevel=2,
            )

    def _invalidate_checked_out(self) -> None:
        for record, proxy in self._in_use():
            # One that is being closed already is left alone: aiosqlite ends a thread once only, and
            # whoever asks a second time waits for ever.
            link = record.info.get(_LINK)
            if link is not None and not link.closing:
                proxy.invalidate()

    def _listen(self) -> None:
        super()._listen()
        engine = self.engine.sync_engine
        event.listen(engine, "do_connect", self._on_do_connect)
        event.listen(engine, "close", _on_close)
        event.listen(engine, "before_cursor_execute", _on_execute)
        event.listen(engine, "after_cursor_execute", _on_executed)
        event.listen(engine, "handle_error", _on_error)

    def _on_do_connect(
        self, _dialect: object, record: ConnectionPoolEntry, _args: object, options: dict[str, Any]
    ) -> None:
        if self._closed:
            raise ShopClosedError(self.name)
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
                raise sqlite3.OperationalError(f"{self.name} is closed")
            link.thread = threading.current_thread()
        end = partial(self._end, link)
        link.connection = connection = _Connection(*args, end=end, **options)
        try:
            connection.executescript(self._setup)
        except sqlite3.Error:
            connection.close()
            raise
        connection.set_trace_callback(partial(self._pay, link))
        return connection

    def _on_checkout(
        self, connection: object, record: ConnectionPoolEntry, proxy: PoolProxiedConnection
    ) -> None:
        record.info[_LINK].lent = True
        super()._on_checkout(connection, record, proxy)

    def _on_checkin(self, connection: object, record: ConnectionPoolEntry) -> None:
        if link := record.info.get(_LINK):
            link.lent = False
        super()._on_checkin(connection, record)

    def _pay(self, link: _Link, statement: str) -> None:
        """Wait for what is about to run. SQLite calls this in the connection's thread."""
        start = statement.lstrip()[:20].upper()
        if start.startswith(_SAVEPOINTS):
            if link.executing:
                self._wait(trips=self._begin(link) + 1)
        elif start.startswith(_FREE):
            pass
        elif link.executing:
            if not link.paid:
                link.paid = True
                self._wait(statements=1, trips=self._begin(link) + 1)
        elif not statement.startswith("--"):
            # Not SQLAlchemy's execution: its pre-ping, or somebody on the driver's connection. What
            # starts with a comment is a full-text index at work inside a statement that has paid.
            self._wait(statements=1, trips=1 if link.lent else PING_TRIPS)

    def _begin(self, link: _Link) -> int:
        """Return how many trips go before the connection's next statement: BEGIN's, or none."""
        autocommit = link.connection is not None and link.connection.isolation_level is None
        if link.begun or autocommit:
            return 0
        link.begun = True
        return 1

    def _end(self, link: _Link) -> None:
        """Wait for COMMIT or ROLLBACK, if there is a transaction to end."""
        if link.begun:
            link.begun = False
            self._wait(trips=1)

    def _wait(self, *, trips: int, statements: int = 0) -> None:
        with self._lock:
            self._statements += statements
            self._round_trips += trips
        if self._round_trip:
            time.sleep(trips * self._round_trip)


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
