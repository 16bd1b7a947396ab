"""Shops that differ in their pools, and a count of connections as a database server keeps it."""

from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from looplab.shop import Shop, open_shop

PATIENT = 60.0  # seconds that a request queues for a connection, unless a lesson says otherwise


async def open_pool(size: int, *, round_trip: float = 0.0, **options: Any) -> Shop:
    """Open a small shop whose pool has ``size`` connections, all of them open already.

    ``round_trip`` is in seconds, and counts from now on. ``options`` are those of
    :func:`looplab.shop.open_shop`, such as ``pool_timeout``. Close the shop when you are done.
    """
    settings: dict[str, Any] = {
        "users": 50,
        "products": 0,
        "pool_timeout": PATIENT,
        "name": f"pool of {size}",
    }
    shop = await open_shop(pool_size=size, **settings | options)
    await shop.warm()
    shop.round_trip = round_trip
    return shop


class Seats:
    """Counts the connections of every engine that it watches, as one server would.

    One more than ``limit`` is refused as PostgreSQL does, with a ConnectionRefusedError at the one
    who connects.

    Attributes:
        limit: how many may be open; None for no limit. It may change.
        taken: how many are open.
        refused: how many were refused.
    """

    def __init__(self, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit is {limit!r}; it must be 1 or more, or None")
        self.limit = limit
        self.taken = 0
        self.refused = 0

    def watch(self, engine: AsyncEngine) -> None:
        """Count what ``engine`` opens and closes from now on."""
        event.listen(engine.sync_engine, "do_connect", self._admit)
        event.listen(engine.sync_engine, "close", self._leave)

    def _admit(self, *_: Any) -> None:
        if self.limit is not None and self.taken >= self.limit:
            self.refused += 1
            raise ConnectionRefusedError("sorry, too many clients already")
        self.taken += 1

    def _leave(self, *_: Any) -> None:
        self.taken -= 1
