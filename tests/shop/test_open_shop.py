# ruff: noqa: ASYNC110 (files and threads set no event)
import asyncio
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest

import looplab.shop
from looplab.shop import Shop, ShopClosedError, TemporaryDirectoryError, open_shop

pytestmark = pytest.mark.anyio


async def test_awaited_it_stays_open_until_it_is_closed():
    before = set(threading.enumerate())
    shop = await open_shop(name="awaited", users=10, products=5)
    assert isinstance(shop, Shop)
    assert await shop.users.count() == 10
    assert shop.path.is_file()
    assert not shop.closed
    await shop.close()
    assert shop.closed
    assert not shop.path.parent.exists()
    assert set(threading.enumerate()) <= before


async def test_entered_it_closes_at_the_end():
    async with open_shop(name="entered", users=10, products=5) as shop:
        assert await shop.users.count() == 10
    assert shop.closed
    with pytest.raises(RuntimeError, match="over"):
        async with open_shop(name="entered", users=1) as failed:
            raise RuntimeError("over")
    assert failed.closed


async def test_an_awaited_shop_can_be_entered():
    async with await open_shop(name="both", users=1) as shop:
        assert await shop.users.count() == 1
    assert shop.closed


async def test_closing_again_does_nothing():
    shop = await open_shop(name="twice", users=1)
    await asyncio.gather(shop.close(), shop.close())
    await shop.close()
    assert repr(shop) == "<Shop 'twice', closed>"
    with pytest.raises(ShopClosedError, match="is closed: open the shop again") as raised:
        await shop.users.count()
    (sentence,) = raised.value._render_traceback_()
    assert "run the cell that opens it" in sentence


async def test_opening_again_under_the_same_name_closes_the_one_before():
    first = await open_shop(name="again", users=1)
    await first.users.count()
    other = await open_shop(name="other", users=1)
    async with open_shop(name="again", users=2) as second:
        assert first.closed
        assert not other.closed
        assert await second.users.count() == 2
    await other.close()


async def test_opening_the_same_name_at_once_leaves_one():
    shops = await asyncio.gather(*[open_shop(name="race", users=1) for _ in range(3)])
    assert sorted(shop.closed for shop in shops) == [False, True, True]
    for shop in shops:
        await shop.close()


def test_opening_again_in_another_loop_closes_the_one_before():
    before = set(threading.enumerate())

    async def first():
        shop = await open_shop(name="loops", users=1)
        await asyncio.gather(*[shop.users.count() for _ in range(3)])
        return shop

    async def second():
        async with open_shop(name="loops", users=2) as shop:
            return await shop.users.count()

    shop = asyncio.run(first())
    assert asyncio.run(second()) == 2
    assert shop.closed
    assert not shop.path.parent.exists()
    assert set(threading.enumerate()) <= before


async def test_the_same_arguments_make_the_same_shop():
    async def contents():
        async with open_shop(name="same", users=20, products=5) as shop:
            user = await shop.any_user()
            orders = await shop.orders.get_recent_by_user(user)
            return user, [(order.id, order.total, order.created_at) for order in orders]

    assert await contents() == await contents()


async def test_any_user_has_orders():
    async with open_shop(name="any", users=20, products=5) as shop:
        assert await shop.orders.count_by_user(await shop.any_user()) > 0


async def test_no_user_has_orders():
    async with open_shop(name="empty", users=0, products=0) as shop:
        with pytest.raises(LookupError, match="no user of the shop 'empty' has orders"):
            await shop.any_user()


async def test_the_file_is_a_database_in_a_directory_of_its_own():
    async with open_shop(name="file", users=3) as shop:
        assert shop.path.parent.parent == Path(tempfile.gettempdir())
        with closing(connect(shop.path)) as connection:
            assert connection.execute("SELECT count(*) FROM users").fetchone() == (3,)


async def test_the_default_pool_holds_a_dashboard():
    async with open_shop(name="dashboard", round_trip=0.02) as shop:
        user = await shop.any_user()
        shop.reset_counters()
        await asyncio.gather(
            shop.users.get_by_id(user),
            shop.orders.get_recent_by_user(user, limit=5),
            shop.products.get_featured(limit=10),
            shop.orders.count_by_user(user),
            shop.orders.sum_total_by_user(user),
            shop.orders.count_items_by_user(user),
        )
        assert (shop.statements, shop.peak_checked_out, shop.checked_out) == (6, 6, 0)


async def test_expire_on_commit_is_passed_on():
    for expire in (True, False):
        async with open_shop(name="expire", users=1, expire_on_commit=expire) as shop:
            session = shop.session()
            assert session.sync_session.expire_on_commit is expire


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"users": -1}, ValueError, "users=-1: must be a whole number from 0 to 2000000"),
        ({"users": 1.5}, TypeError, "users=1.5: must be a whole number"),
        ({"products": "5"}, TypeError, "products='5'"),
        ({"round_trip": -0.1}, ValueError, "round_trip=-0.1: must be a finite number of seconds"),
        ({"round_trip": "50 ms"}, TypeError, "round_trip='50 ms': must be a number of seconds"),
        ({"pool_size": 0}, ValueError, "pool_size=0: must be a whole number, 1 or more"),
        ({"poolclass": "NullPool"}, TypeError, "poolclass='NullPool'"),
        ({"expire_on_commit": 0}, TypeError, "expire_on_commit=0: must be True or False"),
        ({"name": ""}, ValueError, "name='': must be a string that is not empty"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_opened(options, error, message):
    with pytest.raises(error, match=message):
        open_shop(**options)


def test_a_forgotten_await_says_so():
    with pytest.raises(AttributeError, match=r"has no 'users': write `shop = await open_shop"):
        _ = open_shop().users


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


async def test_a_temporary_directory_that_cannot_be_written(elsewhere, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere / "missing"))
    with pytest.raises(TemporaryDirectoryError) as caught:
        await open_shop(name="refused")
    message = str(caught.value)
    assert isinstance(caught.value, OSError)
    assert str(elsewhere / "missing") in message
    assert message.endswith("folder that you may write to, and restart the kernel.")
    assert caught.value._render_traceback_() == [message]


async def test_a_file_that_cannot_be_written(elsewhere, monkeypatch):
    monkeypatch.setattr(looplab.shop, "_new_directory", lambda: elsewhere / "missing")
    with pytest.raises(TemporaryDirectoryError, match="unable to open database file"):
        await open_shop(name="refused")


async def test_a_failed_opening_leaves_nothing(elsewhere, monkeypatch):
    async def fail(*_, **__):
        raise RuntimeError("seeding failed")

    monkeypatch.setattr(looplab.shop, "fill", fail)
    with pytest.raises(RuntimeError, match="seeding failed"):
        await open_shop(name="failed")
    assert list(elsewhere.iterdir()) == []


async def test_a_cancelled_opening_leaves_nothing(elsewhere):
    before = set(threading.enumerate())
    opening = asyncio.ensure_future(open_shop(name="cancelled", users=200_000))
    while not list(elsewhere.glob("*/shop.sqlite3")):
        await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert list(elsewhere.iterdir()) == []
    while set(threading.enumerate()) - before:
        await asyncio.sleep(0.001)


def test_a_process_that_ends_without_closing_deletes_the_file(tmp_path):
    program = (
        "import asyncio, tempfile, sys; tempfile.tempdir = sys.argv[1]\n"
        "from looplab.shop import open_shop\n"
        "async def main():\n"
        "    shop = await open_shop(users=5)\n"
        "    print(await shop.users.count(), shop.path.is_file())\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stdout == "5 True\n"
    assert list(tmp_path.iterdir()) == []
