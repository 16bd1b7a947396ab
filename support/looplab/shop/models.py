"""The shop's tables. Money is in whole cents; times are in UTC, without a zone (as in SQLite)."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, ForeignKey, Index, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def new_id() -> UUID:
    """Return a UUID of version 7, which sorts by the millisecond it was made in.

    Source: RFC 9562, section 5.7. Rows with such ids are added at the end of an index.
    """
    milliseconds = time.time_ns() // 1_000_000
    return UUID(
        int=milliseconds << 80
        | 0x7 << 76
        | secrets.randbits(12) << 64
        | 0b10 << 62
        | secrets.randbits(62)
    )


def utc_now() -> datetime:
    """Return the present time in UTC, without a time zone, as the tables keep it."""
    return datetime.now(UTC).replace(tzinfo=None)


class Base(DeclarativeBase):
    """The base of the shop's tables. There are no relationships: each query is written out."""


class User(Base):
    __tablename__ = "users"
    __table_args__ = (Index("ix_users_created_at_id", "created_at", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(120))
    email: Mapped[str] = mapped_column(String(254))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    def __repr__(self) -> str:
        return f"User(name={self.name!r}, email={self.email!r})"


class Product(Base):
    """Something for sale; `price` is in cents."""

    __tablename__ = "products"
    __table_args__ = (Index("ix_products_featured_name_id", "featured", "name", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(120))
    price: Mapped[int]
    stock: Mapped[int] = mapped_column(default=0)
    featured: Mapped[bool] = mapped_column(default=False)

    def __repr__(self) -> str:
        return f"Product(name={self.name!r}, price={self.price}, stock={self.stock})"


class Order(Base):
    """What a user bought at once; `total` in cents, `status` "pending", "paid" or "shipped"."""

    __tablename__ = "orders"
    __table_args__ = (Index("ix_orders_user_id_created_at", "user_id", "created_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    total: Mapped[int]
    status: Mapped[str] = mapped_column(String(16), default="pending")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    def __repr__(self) -> str:
        return f"Order(total={self.total}, status={self.status!r})"


class OrderItem(Base):
    """One line of an order; `unit_price` is the price in cents when it was bought."""

    __tablename__ = "order_items"

    order_id: Mapped[UUID] = mapped_column(
        ForeignKey("orders.id", ondelete="CASCADE"), primary_key=True
    )
    product_id: Mapped[UUID] = mapped_column(
        ForeignKey("products.id"), primary_key=True, index=True
    )
    quantity: Mapped[int]
    unit_price: Mapped[int]

    def __repr__(self) -> str:
        return f"OrderItem(quantity={self.quantity}, unit_price={self.unit_price})"


class Notification(Base):
    """A message to a user; `sent_at` is None until it has been sent."""

    __tablename__ = "notifications"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    message: Mapped[str] = mapped_column(String(500))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    sent_at: Mapped[datetime | None] = mapped_column(default=None)

    def __repr__(self) -> str:
        return f"Notification(message={self.message!r}, sent_at={self.sent_at})"


class OutboxMessage(Base):
    """An effect that must happen, written in the transaction that causes it and carried out later.

    It may be carried out from `due_at` on; a relay moves that ahead while it works on the row.
    `attempts` is how often that was tried, `published_at` None until it has been done.

    Source: the transactional outbox, https://microservices.io/patterns/data/transactional-outbox.html
    """

    __tablename__ = "outbox_messages"
    __table_args__ = (Index("ix_outbox_messages_published_at_due_at", "published_at", "due_at"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    event: Mapped[str] = mapped_column(String(80))
    payload: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    due_at: Mapped[datetime] = mapped_column(default=utc_now)
    attempts: Mapped[int] = mapped_column(default=0)
    published_at: Mapped[datetime | None] = mapped_column(default=None)

    def __repr__(self) -> str:
        return f"OutboxMessage(id={self.id}, event={self.event!r}, payload={self.payload!r})"
