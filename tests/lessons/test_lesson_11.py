"""Lesson 11's shipped export, attacked as production would, and what its second helping writes."""

import asyncio
import csv
import io
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from looplab.lab import serve
from looplab.shop import open_shop
from looplab.shop.reader import download

pytestmark = pytest.mark.anyio

EXPORT = ("setup", "naive-text", "pattern-batch", "pattern-rows")


@pytest.fixture
async def export(cells_of: Any) -> Any:
    """The lesson's generator of rows."""
    lesson = cells_of("11")
    names = await lesson.define(*EXPORT)
    user = names["User"]
    names["columns"] = columns = [user.id, user.name, user.email, user.created_at]
    names["HEADER"] = [column.key for column in columns]
    names["in_order"] = names["select"](*columns).order_by(user.created_at, user.id)
    return names["generate_csv_rows"]


async def read_all(rows: Any) -> list[list[str]]:
    text = "".join([chunk async for chunk in rows])
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("users", [0, 1, 999, 1_000, 1_001])
async def test_every_user_is_in_the_file_once_at_each_end_of_a_page(
    export: Any, users: int
) -> None:
    async with open_shop(users=users, products=0) as shop:
        header, *rows = await read_all(export(shop.sessions))
        known = await shop.users.get_batch(0, users + 1)
    assert header == ["id", "name", "email", "created_at"]
    assert [row[0] for row in rows] == [str(user.id) for user in known]


async def test_a_pool_of_one_connection_serves_two_slow_readers(export: Any) -> None:
    async with open_shop(users=2_500, products=0, pool_size=1) as shop:
        one, other = export(shop.sessions), export(shop.sessions)
        for _ in range(3):
            async with asyncio.timeout(10):
                await anext(one)
                await anext(other)
            assert shop.checked_out == 0
        await one.aclose()
        await other.aclose()


async def test_a_database_that_fails_half_way_ends_in_an_error_and_holds_nothing(
    export: Any,
) -> None:
    async with open_shop(users=2_500, products=0) as shop:
        rows = export(shop.sessions)
        await anext(rows)
        await anext(rows)
        async with shop.engine.begin() as connection:
            await connection.exec_driver_sql("DROP TABLE users")
        with pytest.raises(OperationalError, match="no such table"):
            await anext(rows)
        assert shop.checked_out == 0


async def test_a_reader_who_leaves_ends_the_shipped_export(cells_of: Any, export: Any) -> None:
    lesson = cells_of("11")
    names = await lesson.define("setup")
    async with open_shop(users=50_000, products=0) as shop:
        names.update(shop=shop, generate_csv_rows=export)
        await lesson.run("ship", "ship-app")
        async with serve(names["native"]) as server, server.client() as client:
            async with client.stream("GET", "/export/users") as response:
                await anext(response.aiter_raw())
            whole = await download(client)
            assert server.errors == []
        assert whole.lines == 50_001
        assert whole.kind.startswith("text/csv")
        assert shop.checked_out == 0


async def test_no_cell_for_people_begins_as_a_formula_does(cells_of: Any) -> None:
    names = await cells_of("11_deeper").define("setup", "setup-rows", "names-formula")
    names["RISKY"] = ("=", "+", "-", "@", "\t", "\r", "\n")
    cells = ["=1+1", "+1", "-1", "@SUM", "\t=1", "\r=1", "\n=1", "Ada", "", 7]
    written = names["for_people"]([cells])
    (row,) = csv.reader(io.StringIO(written, newline=""))
    assert row == [*(f"'{cell}" for cell in cells[:7]), "Ada", "", "7"]


async def test_a_stream_that_fails_half_way_has_sent_what_came_before(cells_of: Any) -> None:
    lesson = cells_of("11")
    names = await lesson.define("setup", "naive-text", "pattern-batch", "breaks-half")
    names["HEADER"] = ["id"]
    names["in_order"] = names["select"](names["User"]).order_by(names["User"].id)
    async with open_shop(users=1_500, products=0) as shop:
        names["shop"] = shop
        read = [await names["read_stream"](names[rows]) for rows in ("fails", "careful")]
    assert [seen.lines for seen in read] == [1_001, 1_001]
