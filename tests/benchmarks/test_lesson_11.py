"""What lesson 11's exporter costs at 500,000 users, on the lesson's own cells.

Memory is what Python allocates, byte by byte. Time is compared with the plainest loop that writes
the same file: `sqlite3` and `csv`, without SQLAlchemy, asyncio or threads.
"""

import csv
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from looplab.lab import compare, peak_memory
from looplab.shop import Shop, open_shop

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

USERS = 500_000
FEWER = 100_000
ROUNDS = 5
CELLS = ("setup", "naive-text", "naive-load", "pattern-batch", "pattern-rows")
QUERY = "SELECT id, name, email, created_at FROM users ORDER BY created_at, id"


@pytest.fixture(scope="module")
def lesson(names_of: Any) -> dict[str, Any]:
    """Return the names that the lesson's cells define."""
    return names_of("11", CELLS)


@pytest.fixture
async def shop() -> AsyncGenerator[Shop]:
    async with open_shop(users=USERS, products=0, name="benchmark") as opened:
        yield opened


async def read(rows: AsyncIterator[str]) -> None:
    async for _ in rows:
        pass


async def peak_of(work: Coroutine[Any, Any, Any]) -> float:
    with peak_memory(exact=True) as memory:
        await work
    return memory.peak / 1e6


async def test_memory_stays_flat(lesson: dict[str, Any], shop: Shop, figures: Any) -> None:
    export, load_all = lesson["generate_csv_rows"], lesson["load_all"]
    async with open_shop(users=FEWER, products=0, name="fewer") as fewer:
        await read(export(fewer.sessions))  # fills SQLAlchemy's caches
        at_fewer = await peak_of(read(export(fewer.sessions)))
    streamed = await peak_of(read(export(shop.sessions)))
    loaded = await peak_of(load_all(shop.sessions))
    with figures(f"lesson 11, peak memory at {USERS:,} users") as table:
        table.only("load all", loaded, "MB")
        table.only("streamed", streamed, "MB")
        table.at_most("streamed, of load all", streamed / loaded, 1 / 10)
        table.at_most(f"streamed, of streamed at {FEWER:,}", streamed / at_fewer, 1.1)


async def test_the_exporter_beside_a_plain_loop(
    lesson: dict[str, Any], shop: Shop, figures: Any, tmp_path: Path
) -> None:
    plain_file, exported_file = tmp_path / "plain.csv", tmp_path / "exported.csv"

    def plain_loop() -> None:
        with (
            closing(sqlite3.connect(shop.path)) as connection,
            plain_file.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["id", "name", "email", "created_at"])
            for row in connection.execute(QUERY):
                writer.writerow(row)

    async def exporter() -> None:
        with exported_file.open("w", newline="", encoding="utf-8") as file:
            async for chunk in lesson["generate_csv_rows"](shop.sessions):
                file.write(chunk)

    contenders = {"exporter": exporter, "plain loop": plain_loop}
    timing = await compare(contenders, repeat=ROUNDS, show=False)
    assert exported_file.read_bytes() == plain_file.read_bytes()
    with figures(f"lesson 11, a file of {USERS:,} users") as table:
        table.only("plain loop", timing.median("plain loop"), "s")
        table.only("exporter", timing.median("exporter"), "s")
        table.at_most("exporter, of plain loop", timing.ratio("exporter", "plain loop"), 2)
