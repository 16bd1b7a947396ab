"""Lesson 18's suite against faults that the lesson doesn't show, and its fix under load."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from looplab.lab import in_process
from looplab.publishing.cells import run_cell

pytestmark = pytest.mark.anyio

SHOP = ("setup", "shop-stock", "shop-take", "shop-app", "compare-fix")
SUITE = ("naive-test", "pattern-fixtures", "pattern-test", "breaks-blocking-fixture")
FAULTS = """
async def refuses_everybody(db):
    return False


async def sells_two(db):
    taken = await db.execute("UPDATE stock SET cups = cups - 1 WHERE cups > -1")
    return taken.rowcount == 1


async def breaks_under_load(db):
    taken = await db.execute("UPDATE stock SET cups = cups - 1 WHERE cups > 0")
    if taken.rowcount == 0:
        raise ConnectionError("too many connections")
    return True


async def reads_a_file(db):
    with open(__file__) as settings:
        settings.read()
    return await take_first(db)


FAULTY = [refuses_everybody, sells_two, breaks_under_load, reads_a_file]
"""


async def test_ten_buyers_of_the_fixed_shop_get_one_cup_each_time(
    cells_of: Callable[[str], Any],
) -> None:
    names = await cells_of("18").define(*SHOP, "pattern-test")
    for _ in range(5):
        async with in_process(names["make_shop"](names["take_first"])) as client:
            assert await names["ten_at_once"](client) == [200] + [409] * 9


@pytest.mark.parametrize("take", ["take_cup", "take_first"])
async def test_a_cup_that_is_taken_stays_taken_when_the_process_dies(
    cells_of: Callable[[str], Any], take: str, tmp_path: Path
) -> None:
    names = await cells_of("18").define(*SHOP)
    names["CHECKING"] = 0
    async with aiosqlite.connect(tmp_path / "stock.db") as db:
        await db.execute("CREATE TABLE stock (cups INTEGER)")
        await db.execute("INSERT INTO stock VALUES (1)")
        await db.commit()
        assert await names[take](db)
        async with aiosqlite.connect(tmp_path / "stock.db") as another:
            found = await another.execute("SELECT cups FROM stock")
            assert await found.fetchone() == (0,)


async def test_ten_buyers_of_a_shop_that_hangs_are_given_up(
    cells_of: Callable[[str], Any],
) -> None:
    async def hangs(db: Any) -> bool:
        await asyncio.Event().wait()
        return True

    names = await cells_of("18").define(*SHOP, "pattern-test")
    names["PATIENCE"] = 0.05
    async with in_process(names["make_shop"](hangs)) as client:
        with pytest.raises(TimeoutError):
            await names["ten_at_once"](client)


async def test_the_suite_fails_for_each_of_four_other_faults(
    cells_of: Callable[[str], Any],
) -> None:
    lesson = cells_of("18")
    more = ("breaks-blocking", "breaks-leak", "breaks-leak-test", "ship-versions")
    names = await lesson.define(*SHOP, *SUITE, *more)
    await run_cell(FAULTS, names, "<faults>")

    parts = ["test_ten_buyers", "test_nothing_left", "every_shop", "anyio_backend", "client"]
    ran = await names["run_tests"](
        *(names[part] for part in parts),
        names["no_blocking"],
        show=False,
        VERSIONS=names["FAULTY"],
    )
    caught = {name.partition("[")[2].rstrip("]") for name in ran.failed}
    assert caught == {fault.__name__ for fault in names["FAULTY"]}


async def test_a_jumping_clock_waits_for_what_a_thread_sends(
    cells_of: Callable[[str], Any],
) -> None:
    lesson = cells_of("18_deeper")
    names = await lesson.define("setup", "clock-loop", "clock-selector")
    source = """
@pytest.mark.anyio
async def test_without_a_deadline_a_thread_is_waited_for():
    assert await asyncio.to_thread(sum, [1, 2]) == 3
"""
    await run_cell(source, names, "<thread>")
    test = names["test_without_a_deadline_a_thread_is_waited_for"]
    ran = await names["run_tests"](test, names["jumping_backend"], show=False)
    assert ran.passed == [test.__name__]
