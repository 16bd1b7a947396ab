"""Lesson 20's sections on PostgreSQL, which run where DATABASE_URL names a server."""

from __future__ import annotations

import os
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final
from uuid import uuid4

import asyncpg

from looplab.lab import show_note
from looplab.shop.server import DROP_WITHIN, server_url

VARIABLE: Final = "DATABASE_URL"
CLOSES_WITHIN: Final = 5.0  # seconds

Connect = Callable[..., Awaitable[Any]]
Section = Callable[[Connect], Awaitable[None]]


async def on_postgres(section: Section) -> bool:
    """Run a section on the server that DATABASE_URL names, and return whether it ran.

    `section(connect)` gets a function: `await connect(**settings)` opens a connection of asyncpg,
    with settings of the server such as ``statement_timeout``. All of them share a schema of their
    own, which is dropped in the end with what stands in it, and all are closed. A schema that
    somebody holds a lock in for 5 s more stays, and a `ResourceWarning` says so. Where DATABASE_URL
    names no server, a note says so.

    Raises what the section raises, what asyncpg raises when the server can't be reached, and
    ValueError when DATABASE_URL is no address of a PostgreSQL server.
    """
    given = os.environ.get(VARIABLE, "").strip()
    if not given:
        show_note(f"Not run: it needs a PostgreSQL server, named by {VARIABLE}.", kind="info")
        return False
    url = server_url(given).set(drivername="postgresql").render_as_string(hide_password=False)
    schema = f"course_{uuid4().hex}"
    async with AsyncExitStack() as stack:
        owner = await asyncpg.connect(url)
        stack.push_async_callback(_close, owner)
        await owner.execute(f"CREATE SCHEMA {schema}")
        stack.push_async_callback(_drop, owner, schema)

        async def connect(**settings: str) -> Any:
            opened = await asyncpg.connect(url, server_settings={"search_path": schema, **settings})
            stack.push_async_callback(_close, opened)
            return opened

        await section(connect)
    return True


async def _drop(owner: Any, schema: str) -> None:
    within = f"SET lock_timeout = '{DROP_WITHIN}s'"
    try:
        await owner.execute(f"{within}; DROP SCHEMA {schema} CASCADE")
    except asyncpg.LockNotAvailableError as error:
        warnings.warn(f"the schema {schema} could not be dropped: {error}", ResourceWarning, 2)


async def _close(connection: Any) -> None:
    try:
        await connection.close(timeout=CLOSES_WITHIN)
    except (OSError, TimeoutError):  # the server had ended it, or is stuck
        connection.terminate()
