"""The shop's contents, the same each time: all of it is a function of a row's number.

Into SQLite users are written by one recursive INSERT ... SELECT, so that half a million take a
second or two. Products, orders and items are few and come from Python, and into another database
the same users do.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Index, Table
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from looplab.shop.models import Base

FIRST_PRODUCT_AT: Final = datetime(2023, 12, 1)
FIRST_USER_AT: Final = datetime(2024, 1, 1)
FIRST_ORDER_AT: Final = datetime(2026, 1, 1)
USERS_PER_INSTANT: Final = 3
SECONDS_BETWEEN_INSTANTS: Final = 30
BUYERS_AT_MOST: Final = 1_000

_EPOCH: Final = datetime(1970, 1, 1)
_MASK: Final = 0xFFFFFFFF
_FACTORS: Final = (2654435761, 2246822519)
_OFFSETS: Final = (374761393, 2869860233)


def _words(text: str) -> list[str]:
    return text.split()


_FIRST_NAMES: Final = _words(
    "Ada Alan Amara Anita Barbara Björn Carlos Chidi Chloé Dorothy Edsger Elif Fatima Frances "
    "Grace Hedy Ibrahim Ingrid João Karen Katherine Kofi Leila Linus Łukasz Margaret Mei Niklaus "
    "Noor Olga Priya Radia Rosa Sofía Tim Tomás Wanjiru Yuki Zoë Žofie"
)
_LAST_NAMES: Final = _words(
    "Adeyemi Allen Berg Boucher Castro Chen Costa Dubois Eriksen Fischer García Hamilton Haddad "
    "Hopper Ito Jensen Johnson Kaya Khan Kim Kowalski Lamarr Liskov Lovelace Mbeki Meyer Moreau "
    "Nakamura Novak Okafor Olsen Patel Perlman Petrov Rossi Santos Schmidt Silva Singh Sørensen "
    "Tanaka Torvalds Turing Vargas Weber Wilson Wirth Öztürk Zhang Zuse Þórsdóttir"
)
_ADJECTIVES: Final = _words(
    "blue brass copper folding glass green linen oak paper plain red round wooden"
)
_THINGS: Final = _words(
    "basket blanket bowl candle chair clock cup desk frame jug kettle lamp mirror mug notebook "
    "pan pillow plate rug shelf stool table teapot towel tray umbrella vase"
)
_STORED: Final[dict[type, Callable[[Any], Any]]] = {
    UUID: lambda value: value.hex,
    datetime: lambda value: f"{value:%Y-%m-%d %H:%M:%S.%f}",
}
_STATUSES: Final = ("paid", "shipped", "shipped", "pending")


class SeededProduct(NamedTuple):
    """A product as seeded: `price` in cents."""

    id: UUID
    name: str
    price: int
    stock: int
    featured: bool


class SeededUser(NamedTuple):
    """A user as seeded: the columns of `users`."""

    id: UUID
    name: str
    email: str
    created_at: datetime


class SeededOrder(NamedTuple):
    """An order as seeded: the columns of `orders`, `total` in cents."""

    id: UUID
    user_id: UUID
    total: int
    status: str
    created_at: datetime


class SeededItem(NamedTuple):
    """A line of an order as seeded: the columns of `order_items`, `unit_price` in cents."""

    order_id: UUID
    product_id: UUID
    quantity: int
    unit_price: int


def seeded_user_id(number: int) -> UUID:
    """Return the id of the user with that number; the first is 1.

    Ids are UUIDs of version 7, in the order of the numbers.
    """
    place = (number - 1) % USERS_PER_INSTANT
    return _uuid(_created_at(number), place, number)


def seeded_users(count: int) -> Iterator[SeededUser]:
    """Yield the first `count` users, as `fill` writes them by SQL."""
    for n in range(1, count + 1):
        first = _FIRST_NAMES[n % len(_FIRST_NAMES)]
        last = _LAST_NAMES[n * 7 % len(_LAST_NAMES)]
        name, email = f"{first} {last}", f"user{n}@example.com"
        yield SeededUser(seeded_user_id(n), name, email, _created_at(n))


def seeded_products(count: int) -> list[SeededProduct]:
    """Return the first `count` products; one in ten is featured."""
    return [
        SeededProduct(
            id=_uuid(FIRST_PRODUCT_AT + timedelta(minutes=n), 0, n),
            name=_product_name(n),
            price=495 + 250 * (n * 7 % 40),
            stock=20 + n * 13 % 180,
            featured=n % 10 == 0,
        )
        for n in range(count)
    ]


def seeded_orders(
    users: int, catalogue: Sequence[SeededProduct]
) -> tuple[list[SeededOrder], list[SeededItem]]:
    """Return the orders of the first `users` users, and their items; no products, no orders."""
    orders: list[SeededOrder] = []
    items: list[SeededItem] = []
    if not catalogue:
        return orders, items
    for buyer in range(1, min(users, BUYERS_AT_MOST) + 1):
        if buyer % 4 == 0:
            continue
        user_id = seeded_user_id(buyer)
        for _ in range(1 + buyer * 5 % 8):
            number = len(orders)
            created_at = FIRST_ORDER_AT + timedelta(minutes=7 * number)
            order_id = _uuid(created_at, 1, number)
            total = 0
            for product in _basket(number, catalogue):
                quantity = 1 + number % 3
                items.append(SeededItem(order_id, product.id, quantity, product.price))
                total += quantity * product.price
            status = _STATUSES[number % len(_STATUSES)]
            orders.append(SeededOrder(order_id, user_id, total, status, created_at))
    return orders, items


async def fill(path: Path, *, users: int, products: int) -> None:
    """Create the tables in the new file at `path` and fill them; leave no connection, no thread.

    Raises:
        sqlite3.OperationalError: the file cannot be written.
    """
    # A thread of its own, ended here: that of `asyncio.to_thread` would stay.
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="seed")
    writing = asyncio.get_running_loop().run_in_executor(executor, _write, path, users, products)
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait([writing])
        writing.exception()
        raise
    finally:
        executor.shutdown()


def _write(path: Path, users: int, products: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        _write_tables(connection, users, seeded_products(products))


def _write_tables(
    connection: sqlite3.Connection, users: int, catalogue: list[SeededProduct]
) -> None:
    orders, items = seeded_orders(users, catalogue)
    # Nobody else reads the file yet, and a half-written one is thrown away.
    connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
    connection.execute("PRAGMA cache_size = -200000")
    connection.executescript(";".join(_ddl(CreateTable, Base.metadata.sorted_tables)))
    _insert_users(connection, users)
    connection.executemany(
        "INSERT INTO products (id, name, price, stock, featured) VALUES (?, ?, ?, ?, ?)",
        map(_as_stored, catalogue),
    )
    connection.executemany(
        "INSERT INTO orders (id, user_id, total, status, created_at) VALUES (?, ?, ?, ?, ?)",
        map(_as_stored, orders),
    )
    connection.executemany(
        "INSERT INTO order_items (order_id, product_id, quantity, unit_price) VALUES (?, ?, ?, ?)",
        map(_as_stored, items),
    )
    connection.commit()
    # An index built over rows that are there is sorted once, not row by row.
    indexes = [index for table in Base.metadata.sorted_tables for index in table.indexes]
    connection.executescript(";".join(_ddl(CreateIndex, indexes)))


def _as_stored(row: Iterable[Any]) -> list[Any]:
    """Return a row as SQLAlchemy's types store it in SQLite."""
    return [_STORED.get(type(value), lambda value: value)(value) for value in row]


def _insert_users(connection: sqlite3.Connection, count: int) -> None:
    names = [(i, name) for i, name in enumerate(_FIRST_NAMES)]
    surnames = [(i, name) for i, name in enumerate(_LAST_NAMES)]
    connection.execute("CREATE TEMP TABLE first_names (i INTEGER PRIMARY KEY, name TEXT)")
    connection.execute("CREATE TEMP TABLE last_names (i INTEGER PRIMARY KEY, name TEXT)")
    connection.executemany("INSERT INTO first_names VALUES (?, ?)", names)
    connection.executemany("INSERT INTO last_names VALUES (?, ?)", surnames)
    words = ", ".join(
        f"(n * {factor} + {offset}) & {_MASK} AS w{i}"
        for i, (factor, offset) in enumerate(zip(_FACTORS, _OFFSETS, strict=True))
    )
    start = (FIRST_USER_AT - _EPOCH) // timedelta(seconds=1)
    connection.execute(
        f"""
        WITH RECURSIVE
            counter (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < :count),
            numbered AS (
                SELECT n, {words}, (n - 1) % {USERS_PER_INSTANT} AS place,
                    {start} + (n - 1) / {USERS_PER_INSTANT} * {SECONDS_BETWEEN_INSTANTS} AS at
                FROM counter
            )
        INSERT INTO users (id, name, email, created_at)
        SELECT
            printf('%012x7%03x%x%03x%04x%08x', at * 1000, (place << 10) | (w0 & 1023),
                   8 | (w0 >> 30), (w0 >> 12) & 4095, w1 >> 16, (w1 * 3) & {_MASK}),
            first_names.name || ' ' || last_names.name,
            'user' || n || '@example.com',
            strftime('%Y-%m-%d %H:%M:%S.000000', at, 'unixepoch')
        FROM numbered
        JOIN first_names ON first_names.i = n % {len(names)}
        JOIN last_names ON last_names.i = n * 7 % {len(surnames)}
        WHERE n <= :count
        """,
        {"count": count},
    )


def _created_at(number: int) -> datetime:
    instant = (number - 1) // USERS_PER_INSTANT
    return FIRST_USER_AT + timedelta(seconds=instant * SECONDS_BETWEEN_INSTANTS)


def _basket(number: int, catalogue: Sequence[SeededProduct]) -> Iterator[SeededProduct]:
    size = min(1 + number % 4, len(catalogue))
    for line in range(size):
        yield catalogue[(number * 17 + line) % len(catalogue)]


def _product_name(n: int) -> str:
    adjectives, things = len(_ADJECTIVES), len(_THINGS)
    name = f"{_ADJECTIVES[n % adjectives]} {_THINGS[n * 5 % things]}".capitalize()
    series = n // (adjectives * things)
    return f"{name} {series + 1}" if series else name


def _uuid(at: datetime, place: int, number: int) -> UUID:
    """Return the UUIDv7 that `_insert_users` computes in SQL; `place` orders one instant's."""
    milliseconds = (at - _EPOCH) // timedelta(milliseconds=1)
    w0, w1 = _mixed(number)
    return UUID(
        f"{milliseconds:012x}7{(place << 10) | (w0 & 1023):03x}"
        f"{8 | (w0 >> 30):x}{(w0 >> 12) & 4095:03x}{w1 >> 16:04x}{(w1 * 3) & _MASK:08x}"
    )


def _mixed(number: int) -> tuple[int, int]:
    w0, w1 = (
        (number * factor + offset) & _MASK
        for factor, offset in zip(_FACTORS, _OFFSETS, strict=True)
    )
    return w0, w1


def _ddl(
    create: type[CreateTable] | type[CreateIndex], elements: Iterable[Table] | Iterable[Index]
) -> Iterator[str]:
    dialect = SQLiteDialect_pysqlite()
    for element in elements:
        yield str(create(element).compile(dialect=dialect))  # ty: ignore
