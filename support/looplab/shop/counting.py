"""An engine's pool and counters, the same whichever database is behind the engine."""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import (
    AsyncAdaptedQueuePool,
    ConnectionPoolEntry,
    Pool,
    PoolProxiedConnection,
    QueuePool,
)

from looplab.shop import checks

POOL_SIZE: Final = 20
MAX_OVERFLOW: Final = 0
POOL_TIMEOUT: Final = 5.0


class CountingDatabase(ABC):
    """A database behind an `AsyncEngine`, with counters of statements and of connections lent.

    Attributes:
        engine: the engine, to be used as any other.
        pool_size: how many connections its pool keeps.
        pooled: whether it keeps any; a `NullPool` or a `StaticPool` queues nobody.
    """

    engine: AsyncEngine

    def __init__(
        self,
        *,
        pool_size: int = POOL_SIZE,
        max_overflow: int = MAX_OVERFLOW,
        pool_timeout: float = POOL_TIMEOUT,
        pool_pre_ping: bool = False,
        poolclass: type[Pool] | None = None,
    ) -> None:
        """Check and keep the pool's arguments, those of `sqlalchemy.create_engine`.

        Raises:
            TypeError, ValueError: an argument is of the wrong type or out of range.
        """
        self.pool_size = checks.count("pool_size", pool_size, at_least=1)
        checks.count("max_overflow", max_overflow, at_least=-1)
        checks.seconds("pool_timeout", pool_timeout)
        poolclass = poolclass or AsyncAdaptedQueuePool
        self.pooled = issubclass(poolclass, QueuePool)
        self._pool_options: dict[str, Any] = {
            "poolclass": poolclass,
            "pool_pre_ping": checks.flag("pool_pre_ping", pool_pre_ping),
        }
        if self.pooled:
            self._pool_options |= {
                "pool_size": pool_size,
                "max_overflow": max_overflow,
                "pool_timeout": pool_timeout,
            }
        self._lock = threading.Lock()
        self._closed = False
        self._statements = 0
        self._round_trips = 0
        self._peak = 0
        self._out: dict[int, tuple[ConnectionPoolEntry, weakref.ref[PoolProxiedConnection]]] = {}

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call the database."""

    @abstractmethod
    async def close(self) -> None:
        """Close every connection; closing again does nothing."""

    @property
    def statements(self) -> int:
        """Statements sent since the last reset, pre-pings included."""
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
        """Count what is sent from 0 again, and `peak_checked_out` from what is in use now."""
        with self._lock:
            self._statements = self._round_trips = 0
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
        before = self._statements, self._round_trips
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
                # A pool with a pre-ping asks connections that are open already.
                self._statements, self._round_trips = before
                self._peak = max(peak, len(self._out))

    def _listen(self) -> None:
        event.listen(self.engine.sync_engine, "checkout", self._on_checkout)
        event.listen(self.engine.sync_engine, "checkin", self._on_checkin)

    def _on_checkout(
        self, connection: object, record: ConnectionPoolEntry, proxy: PoolProxiedConnection
    ) -> None:
        with self._lock:
            self._out[id(record)] = record, weakref.ref(proxy)
            self._peak = max(self._peak, len(self._out))

    def _on_checkin(self, connection: object, record: ConnectionPoolEntry) -> None:
        with self._lock:
            self._out.pop(id(record), None)
        if self._closed:
            record.invalidate()

    def _in_use(self) -> list[tuple[ConnectionPoolEntry, PoolProxiedConnection]]:
        held = [(record, reference()) for record, reference in list(self._out.values())]
        return [(record, proxy) for record, proxy in held if proxy is not None and proxy.is_valid]
