"""Repositories: each public method sends exactly one statement.

A repository takes either an `async_sessionmaker`, and then each call opens a session of its own and
closes it (calls may run at the same time), or one `AsyncSession`, which all its calls share (one
after another: a session is one conversation with the database).

With a sessionmaker, a method that writes commits. With a session, it flushes: commit it yourself.
Objects are returned detached or from the shared session; with the shop's `expire_on_commit=False`
their columns stay readable. Money is in cents.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import CursorResult, delete, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from looplab.shop import checks
from looplab.shop.models import Order, OrderItem, Product, User

Sessions = async_sessionmaker[AsyncSession] | AsyncSession


class _Repository:
    def __init__(self, sessions: Sessions) -> None:
        """Keep `sessions`: a sessionmaker (a session for each call) or one session to share.

        Raises:
            TypeError: it is neither.
        """
        if not isinstance(sessions, async_sessionmaker | AsyncSession):
            raise TypeError(
                f"sessions={sessions!r}: must be an async_sessionmaker "
                "(each call opens its own session) or an AsyncSession (all calls share it)"
            )
        self._sessions = sessions

    # Not a coroutine, and neither context manager's own code is the shop's: the public method stays
    # the innermost coroutine of the shop wherever it waits.
    def _session(self) -> AbstractAsyncContextManager[AsyncSession]:
        if isinstance(self._sessions, AsyncSession):
            return nullcontext(self._sessions)
        return self._sessions()

    @property
    def _commits(self) -> bool:
        return isinstance(self._sessions, async_sessionmaker)


class UserRepository(_Repository):
    async def get_by_id(self, user_id: UUID) -> User | None:
        """Return the user, or None."""
        async with self._session() as session:
            return await session.scalar(select(User).where(User.id == user_id))

    async def get_by_email(self, email: str) -> User | None:
        """Return the first user with this address, or None."""
        async with self._session() as session:
            return await session.scalar(
                select(User).where(User.email == email).order_by(User.created_at).limit(1)
            )

    async def count(self) -> int:
        """Return how many users there are."""
        async with self._session() as session:
            return await session.scalar(select(func.count()).select_from(User)) or 0

    async def get_batch(self, offset: int, limit: int) -> Sequence[User]:
        """Return a page by OFFSET, ordered by (created_at, id)."""
        page = select(User).order_by(User.created_at, User.id)
        page = page.offset(checks.count("offset", offset)).limit(checks.count("limit", limit))
        async with self._session() as session:
            return (await session.scalars(page)).all()

    async def get_batch_after(
        self, last: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[User]:
        """Return the page after the key (created_at, id) of the last user seen; None starts."""
        page = select(User).order_by(User.created_at, User.id).limit(checks.count("limit", limit))
        if last is not None:
            page = page.where(tuple_(User.created_at, User.id) > last)
        async with self._session() as session:
            return (await session.scalars(page)).all()

    async def get_recent_buyers(self, product_id: UUID, limit: int = 5) -> Sequence[User]:
        """Return users that ordered the product, the last to order first."""
        buyers = (
            select(User)
            .join(Order, Order.user_id == User.id)
            .join(OrderItem, OrderItem.order_id == Order.id)
            .where(OrderItem.product_id == product_id)
            .group_by(User.id)
            .order_by(func.max(Order.created_at).desc(), User.id)
            .limit(checks.count("limit", limit))
        )
        async with self._session() as session:
            return (await session.scalars(buyers)).all()

    async def create(
        self, *, name: str, email: str, id: UUID | None = None, created_at: datetime | None = None
    ) -> User:
        """Insert a user and return it, with a random `id` and the present time unless given.

        Raises:
            sqlalchemy.exc.IntegrityError: the id is taken.
        """
        given = {"id": id, "created_at": created_at}
        user = User(name=name, email=email, **{k: v for k, v in given.items() if v is not None})
        async with self._session() as session:
            session.add(user)
            await session.flush()
            if self._commits:
                await session.commit()
        return user

    async def delete(self, user_id: UUID) -> bool:
        """Delete the user with their orders and notifications; return whether there was one."""
        async with self._session() as session:
            result = await session.execute(delete(User).where(User.id == user_id))
            if self._commits:
                await session.commit()
        return _touched(result)


class OrderRepository(_Repository):
    async def get_by_id(self, order_id: UUID) -> Order | None:
        """Return the order, or None."""
        async with self._session() as session:
            return await session.scalar(select(Order).where(Order.id == order_id))

    async def get_recent_by_user(self, user_id: UUID, limit: int = 5) -> Sequence[Order]:
        """Return the user's last orders, newest first."""
        recent = (
            select(Order)
            .where(Order.user_id == user_id)
            .order_by(Order.created_at.desc(), Order.id)
            .limit(checks.count("limit", limit))
        )
        async with self._session() as session:
            return (await session.scalars(recent)).all()

    async def get_items(self, order_id: UUID) -> Sequence[OrderItem]:
        """Return the order's lines."""
        items = select(OrderItem).where(OrderItem.order_id == order_id)
        async with self._session() as session:
            return (await session.scalars(items.order_by(OrderItem.product_id))).all()

    async def count_by_user(self, user_id: UUID) -> int:
        """Return how many orders the user has."""
        orders = select(func.count()).select_from(Order).where(Order.user_id == user_id)
        async with self._session() as session:
            return await session.scalar(orders) or 0

    async def sum_total_by_user(self, user_id: UUID) -> int:
        """Return what the user has spent, in cents."""
        spent = select(func.sum(Order.total)).where(Order.user_id == user_id)
        async with self._session() as session:
            return await session.scalar(spent) or 0

    async def count_items_by_user(self, user_id: UUID) -> int:
        """Return how many items the user has bought, quantities added up."""
        items = select(func.sum(OrderItem.quantity)).join(Order, Order.id == OrderItem.order_id)
        async with self._session() as session:
            return await session.scalar(items.where(Order.user_id == user_id)) or 0

    async def get_totals_by_user(self, user_id: UUID) -> tuple[int, int, int]:
        """Return the user's orders, what was spent in cents, and the items, all in one statement.

        They are what `count_by_user`, `sum_total_by_user` and `count_items_by_user` return, but of
        one moment.
        """
        mine = Order.user_id == user_id
        items = select(func.sum(OrderItem.quantity)).join(Order, Order.id == OrderItem.order_id)
        totals = select(func.count(), func.sum(Order.total), items.where(mine).scalar_subquery())
        async with self._session() as session:
            orders, spent, bought = (
                await session.execute(totals.select_from(Order).where(mine))
            ).one()
        return orders, spent or 0, bought or 0

    async def count_sold(self, product_id: UUID) -> int:
        """Return how many of the product have been sold, quantities added up."""
        sold = select(func.sum(OrderItem.quantity)).where(OrderItem.product_id == product_id)
        async with self._session() as session:
            return await session.scalar(sold) or 0

    async def create(self, *, user_id: UUID, total: int, status: str = "pending") -> Order:
        """Insert an order of `total` cents, without items, and return it.

        Raises:
            sqlalchemy.exc.IntegrityError: there is no such user.
        """
        order = Order(user_id=user_id, total=checks.count("total", total), status=status)
        async with self._session() as session:
            session.add(order)
            await session.flush()
            if self._commits:
                await session.commit()
        return order

    async def set_status(self, order_id: UUID, status: str) -> bool:
        """Set the order's status; return whether there was such an order."""
        change = update(Order).where(Order.id == order_id).values(status=status)
        async with self._session() as session:
            result = await session.execute(change)
            if self._commits:
                await session.commit()
        return _touched(result)


class ProductRepository(_Repository):
    async def get_by_id(self, product_id: UUID) -> Product | None:
        """Return the product, or None."""
        async with self._session() as session:
            return await session.scalar(select(Product).where(Product.id == product_id))

    async def get_featured(self, limit: int = 10) -> Sequence[Product]:
        """Return featured products, by name."""
        featured = select(Product).where(Product.featured).order_by(Product.name, Product.id)
        async with self._session() as session:
            return (await session.scalars(featured.limit(checks.count("limit", limit)))).all()

    async def get_bought_with(self, product_id: UUID, limit: int = 5) -> Sequence[Product]:
        """Return other products from the orders that hold this one, the most frequent first."""
        orders = select(OrderItem.order_id).where(OrderItem.product_id == product_id)
        others = (
            select(Product)
            .join(OrderItem, OrderItem.product_id == Product.id)
            .where(OrderItem.order_id.in_(orders), Product.id != product_id)
            .group_by(Product.id)
            .order_by(func.count().desc(), Product.id)
            .limit(checks.count("limit", limit))
        )
        async with self._session() as session:
            return (await session.scalars(others)).all()

    async def create(
        self, *, name: str, price: int, stock: int = 0, featured: bool = False
    ) -> Product:
        """Insert a product that costs `price` cents and return it."""
        product = Product(
            name=name,
            price=checks.count("price", price),
            stock=checks.count("stock", stock),
            featured=checks.flag("featured", featured),
        )
        async with self._session() as session:
            session.add(product)
            await session.flush()
            if self._commits:
                await session.commit()
        return product

    async def reserve(self, product_id: UUID, quantity: int = 1) -> bool:
        """Take `quantity` from stock if that many are left; return whether they were."""
        checks.count("quantity", quantity, at_least=1)
        enough = (Product.id == product_id) & (Product.stock >= quantity)
        change = update(Product).where(enough).values(stock=Product.stock - quantity)
        async with self._session() as session:
            result = await session.execute(change)
            if self._commits:
                await session.commit()
        return _touched(result)


class Repositories(NamedTuple):
    """The shop's repositories, by the names that they have on a `Shop`."""

    users: UserRepository
    orders: OrderRepository
    products: ProductRepository


def _touched(result: object) -> bool:
    return isinstance(result, CursorResult) and result.rowcount > 0
