"""What lesson 10's sessions and cache do, noted in one list in the order in which it happens."""

from collections.abc import Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker


def noting_sessions(engine: AsyncEngine, note: Callable[[str], object]) -> async_sessionmaker[Any]:
    """Return a maker of sessions; each calls ``note("session closed")`` when it has closed."""

    class NotingSession(AsyncSession):
        async def close(self) -> None:
            await super().close()
            note("session closed")

    return async_sessionmaker(engine, class_=NotingSession)


def noting_cache(note: Callable[[str], object], *, server: Any) -> Any:
    """Return a client of an embedded Redis; it calls ``note("cache closed")`` when it has closed.

    ``server`` is a ``fakeredis.FakeServer``.
    """
    from fakeredis import FakeAsyncRedis  # takes a second to import, and one section needs it

    class NotingCache(FakeAsyncRedis):
        async def aclose(self, close_connection_pool: bool | None = None) -> None:
            await super().aclose(close_connection_pool)
            note("cache closed")

    return NotingCache(server=server)
