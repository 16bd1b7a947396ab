"""The ledger: how many payments are booked on an order, in the shop's SQLite file."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Integer, MetaData, Table, Uuid, insert, select, update

from looplab.shop import Shop
from looplab.shop.models import new_id

_table = Table(
    "ledger",
    MetaData(),
    Column("order_id", Uuid, primary_key=True),
    Column("paid", Integer, default=0, nullable=False),
    Column("fence", Integer, default=0, nullable=False),
)

PAID: Column[int] = _table.c.paid
FENCE: Column[int] = _table.c.fence


class Ledger:
    """The ledger of a shop. Each call is one statement in a transaction of its own.

    Calls are served one at a time, first come, first served: SQLite has one writer, and those that
    find it busy would otherwise try again at random.
    """

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._turn = asyncio.Lock()

    async def new_order(self) -> UUID:
        """Return the id of a new order, with nothing paid and a fence of 0."""
        order_id = new_id()
        async with self._turn, self._shop.engine.begin() as db:
            await db.execute(insert(_table).values(order_id=order_id))
        return order_id

    async def paid(self, order_id: UUID) -> int:
        """Return how many payments are booked. Raises LookupError for an unknown order."""
        async with self._turn, self._shop.session() as session:
            paid = await session.scalar(select(PAID).where(_table.c.order_id == order_id))
        if paid is None:
            raise LookupError(f"order_id={order_id!r}: the ledger has no such order")
        return paid

    async def write(self, order_id: UUID, *where: Any, **values: Any) -> int:
        """Set columns of the order's row, if it fulfils ``where``; return how many rows were set.

        ``where`` are conditions of SQLAlchemy, such as ``fence == FENCE``. A value may be an
        expression: ``paid=PAID + 1`` adds in the database.
        """
        row = update(_table).where(_table.c.order_id == order_id, *where)
        async with self._turn, self._shop.engine.begin() as db:
            return (await db.execute(row.values(**values))).rowcount

    async def book_at_once(self, process: Callable[[UUID], Awaitable[object]], workers: int) -> int:
        """Let so many workers call ``process(order_id)`` at once, on a new order.

        Returns how many payments are booked when all have ended. Raises what a worker raises.
        """
        order_id = await self.new_order()
        await asyncio.gather(*(process(order_id) for _ in range(workers)))
        return await self.paid(order_id)

    async def raise_fence(self, order_id: UUID) -> int:
        """Raise the order's fence by one, in one statement, and return what it is now.

        Raises LookupError for an unknown order.
        """
        row = update(_table).where(_table.c.order_id == order_id)
        async with self._turn, self._shop.engine.begin() as db:
            raising = row.values(fence=FENCE + 1).returning(FENCE)
            fence = (await db.execute(raising)).scalar()
        if fence is None:
            raise LookupError(f"order_id={order_id!r}: the ledger has no such order")
        return fence


async def open_ledger(shop: Shop) -> Ledger:
    """Return the shop's ledger; its table is made if it is not there."""
    async with shop.engine.begin() as db:
        await db.run_sync(_table.metadata.create_all)
    return Ledger(shop)
