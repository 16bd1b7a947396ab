import re
import sqlite3
import threading
from contextlib import closing
from datetime import datetime
from uuid import UUID

import pytest

from looplab.shop.seed import FIRST_USER_AT, fill, seeded_products, seeded_user_id

pytestmark = pytest.mark.anyio


def rows(path, query, *parameters):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query, parameters).fetchall()


@pytest.fixture
async def seeded(tmp_path):
    path = tmp_path / "seeded.sqlite3"
    await fill(path, users=1_000, products=200)
    return path


async def test_the_same_arguments_write_the_same_rows(seeded, tmp_path):
    again = tmp_path / "again.sqlite3"
    await fill(again, users=1_000, products=200)
    for table in ("users", "products", "orders", "order_items"):
        query = f"SELECT * FROM {table} ORDER BY 1, 2"
        assert rows(seeded, query) == rows(again, query)


async def test_sql_and_python_agree_on_ids(seeded):
    stored = {
        int(email.removeprefix("user").removesuffix("@example.com")): id
        for email, id in rows(seeded, "SELECT email, id FROM users")
    }
    assert stored == {n: seeded_user_id(n).hex for n in range(1, 1_001)}


async def test_ids_are_valid_and_in_the_order_of_time(seeded):
    users = rows(seeded, "SELECT id, created_at FROM users ORDER BY created_at, id")
    ids = [UUID(id) for id, _ in users]
    assert {id.version for id in ids} == {7}
    assert ids == sorted(ids)
    times = [datetime.fromisoformat(at) for _, at in users]
    assert times[0] == FIRST_USER_AT
    assert len(set(times)) == 334, "three users share each instant, so that a key needs the id"


async def test_names_vary(seeded):
    [(names,)] = rows(seeded, "SELECT count(DISTINCT name) FROM users")
    assert names == 1_000
    assert len({product.name for product in seeded_products(200)}) == 200


async def test_each_order_adds_up(seeded):
    wrong = """
        SELECT orders.id FROM orders JOIN order_items ON order_items.order_id = orders.id
        GROUP BY orders.id HAVING sum(quantity * unit_price) != total
    """
    assert rows(seeded, wrong) == []
    [(orders,)] = rows(seeded, "SELECT count(*) FROM orders")
    [(ordered,)] = rows(seeded, "SELECT count(DISTINCT order_id) FROM order_items")
    assert orders == ordered > 1_000


async def test_no_foreign_key_dangles(seeded):
    assert rows(seeded, "PRAGMA foreign_key_check") == []


async def test_one_user_in_four_has_no_orders(seeded):
    [(buyers,)] = rows(seeded, "SELECT count(DISTINCT user_id) FROM orders")
    assert buyers == 750


async def test_half_a_million_users(tmp_path):
    path = tmp_path / "many.sqlite3"
    await fill(path, users=500_000, products=0)
    [counts] = rows(path, "SELECT count(*), count(DISTINCT id), max(id) FROM users")
    assert counts == (500_000, 500_000, seeded_user_id(500_000).hex)


async def test_nothing_at_all(tmp_path):
    path = tmp_path / "empty.sqlite3"
    await fill(path, users=0, products=0)
    assert rows(path, "SELECT count(*) FROM users") == [(0,)]
    assert rows(path, "SELECT count(*) FROM orders") == [(0,)]


async def test_seeding_leaves_no_thread(tmp_path):
    before = set(threading.enumerate())
    await fill(tmp_path / "a.sqlite3", users=10, products=10)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM users WHERE (created_at, id) > ('2024', 'a') ORDER BY created_at, id",
        "SELECT * FROM orders WHERE user_id = 'a' ORDER BY created_at DESC LIMIT 5",
        "SELECT * FROM products WHERE featured = 1 ORDER BY name, id LIMIT 10",
        "SELECT sum(quantity) FROM order_items WHERE product_id = 'a'",
    ],
)
async def test_an_index_answers(seeded, query):
    [plan] = [row[3] for row in rows(seeded, f"EXPLAIN QUERY PLAN {query}")]
    assert re.match("SEARCH .* USING (COVERING )?INDEX", plan)
