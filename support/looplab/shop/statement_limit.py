"""A time limit for statements, which SQLite lacks, and what to try it on."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

from sqlalchemy import URL, event, text
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from looplab.shop import Shop, checks
from looplab.shop.sources import Source

EVERY: Final = 1_000  # steps of SQLite's machine between two looks at the clock
STEPS: Final = 5_000  # of a slow statement, so that there are some looks at the clock in it
PAUSE: Final = 0.005  # seconds that it works at a time: each pause asks for the GIL again
_UNTIL: Final = "looplab.shop.until"


def limit_statements(engine: AsyncEngine, seconds: float) -> None:
    """Let SQLite stop each statement that takes longer, as PostgreSQL's `statement_timeout` does.

    What is stopped raises `sqlalchemy.exc.OperationalError`, "interrupted"; its session and its
    connection stay good. Call it before the engine's first statement. Rows that are streamed are
    not limited.

    Raises TypeError or ValueError when `seconds` is no time.

    Source: https://www.sqlite.org/c3ref/progress_handler.html
    """
    checks.seconds("seconds", seconds)
    target = engine.sync_engine

    @event.listens_for(target, "connect")
    def on_connect(connection: Any, record: Any) -> None:
        def out_of_time() -> bool:
            return time.monotonic() > record.info.get(_UNTIL, math.inf)

        connection.run_async(lambda sqlite: sqlite.set_progress_handler(out_of_time, EVERY))

    @event.listens_for(target, "before_cursor_execute")
    def begin(connection: Connection, *_: object) -> None:
        connection.info[_UNTIL] = time.monotonic() + seconds

    @event.listens_for(target, "after_cursor_execute")
    def end(connection: Connection, *_: object) -> None:
        connection.info.pop(_UNTIL, None)

    @event.listens_for(target, "handle_error")
    def fail(context: Any) -> None:
        if context.connection is not None and not context.connection.invalidated:
            context.connection.info.pop(_UNTIL, None)


async def slow_statement(session: AsyncSession | AsyncConnection, seconds: float) -> int:
    """Run a statement that keeps SQLite busy for about `seconds`; return its steps, `STEPS`.

    It keeps the connection's thread, with the GIL released: no deadline of the loop stops it, a
    limit of SQLite's own does.
    """
    connection = await session.connection() if isinstance(session, AsyncSession) else session
    raw = await connection.get_raw_connection()
    sqlite: Any = raw.driver_connection
    due = time.monotonic()

    def work(pause: float) -> None:
        nonlocal due
        due += pause
        if (ahead := due - time.monotonic()) > PAUSE:
            time.sleep(ahead)

    await sqlite.create_function("work", 1, work)
    rows = f"SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {STEPS}"
    statement = f"WITH RECURSIVE n(i) AS ({rows}) SELECT count(*) FROM n WHERE work(:pause) IS NULL"
    done = await connection.execute(text(statement), {"pause": seconds / STEPS})
    return int(done.scalar_one())


def slow_source(shop: Shop, seconds: float) -> Source:
    """Return a source of the search that keeps the shop's database busy for about `seconds`."""

    async def database(query: str) -> list[str]:
        async with shop.session() as session:
            steps = await slow_statement(session, seconds)
        return [f"{query}, after {steps} steps"]

    return database


@asynccontextmanager
async def plain_notes(
    *, limit: float | None = None, **connect_args: Any
) -> AsyncGenerator[AsyncEngine]:
    """Yield an engine on a SQLite file with a table `notes (number)`, without the shop's care.

    The shop's connections give their locks back when they are closed; these are the driver's own.
    `limit` is one for statements, in seconds.
    """
    with tempfile.TemporaryDirectory(prefix="notes-") as folder:
        url = URL.create("sqlite+aiosqlite", database=f"{folder}/notes.db")
        engine = create_async_engine(url, connect_args=connect_args)
        if limit is not None:
            limit_statements(engine, limit)
        try:
            async with engine.begin() as connection:
                await connection.execute(text("CREATE TABLE notes (number)"))
            yield engine
        finally:
            await engine.dispose()
