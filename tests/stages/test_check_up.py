"""What lesson 14 measures an app by: loans, connections, the app at an import path."""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool

from looplab.lab import LessonError, serve
from looplab.lab.own_app import Ask
from looplab.stages.check_up import (
    OpenSupplier,
    PoolWatch,
    asked,
    chosen,
    connects,
    pool_watch,
)

pytestmark = pytest.mark.anyio


def new_engine(folder: Path, name: str = "one"):
    url = f"sqlite:///{folder / name}.sqlite3"
    return create_engine(url, poolclass=QueuePool, pool_size=3, max_overflow=0)


def test_an_engine_from_before_and_one_from_inside_are_watched(tmp_path: Path) -> None:
    before = new_engine(tmp_path)
    before.connect().close()
    with pool_watch() as watch:
        inside = new_engine(tmp_path, "two")
        with before.connect(), inside.connect():
            pass
        inside.dispose()
    assert len(watch.loans) == 2
    before.connect().close()
    assert len(watch.loans) == 2, "it listens after its end"
    before.dispose()


def test_a_loan_that_is_still_out_counts_as_far_as_the_watch_goes(tmp_path: Path) -> None:
    engine = new_engine(tmp_path)
    with pool_watch() as watch:
        connection = engine.connect()
    assert len(watch.loans) == 1
    connection.close()
    engine.dispose()
    assert len(watch.loans) == 1


def test_loans_of_another_thread_count(tmp_path: Path) -> None:
    engine = new_engine(tmp_path)
    with pool_watch() as watch:
        thread = threading.Thread(target=lambda: engine.connect().close())
        thread.start()
        thread.join()
    assert len(watch.loans) == 1
    engine.dispose()


def test_the_usual_loan_leaves_out_what_began_before() -> None:
    watch = PoolWatch(loans=[(1.0, 9.0), (2.0, 0.1), (3.0, 0.3)])
    assert watch.usual_loan() == 0.3
    assert watch.usual_loan(since=2.0) == pytest.approx(0.2)
    assert watch.usual_loan(since=4.0) is None


async def test_connects_counts_what_others_open_and_nothing_of_its_own_thread() -> None:
    app = FastAPI()
    logger = logging.getLogger("httpcore.connection")
    level = logger.level

    async def visit(times: int) -> None:
        async with httpx.AsyncClient(base_url=server.url) as client:
            for _ in range(times):
                await client.get("/")

    async with serve(app) as server:
        with connects() as counted:
            await visit(1)
            assert counted.count == 0
            await asyncio.to_thread(lambda: asyncio.run(visit(3)))
            assert counted.count == 1, "a client keeps its connection"
            for _ in range(2):
                await asyncio.to_thread(lambda: asyncio.run(visit(1)))
        assert counted.count == 3
    assert (logger.level, logger.handlers, logger.propagate) == (level, [], True)


def test_an_empty_path_gives_a_new_teahouse_each_time() -> None:
    make = chosen("  ")
    assert make() is not make()
    assert make().title == "Teahouse"


def test_a_path_gives_its_app_and_a_factory_new_ones() -> None:
    one = chosen("looplab.shop.teahouse:app")
    assert one() is one()
    make = chosen("looplab.shop.teahouse:create_app", factory=True)
    assert make() is not make()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("shop/main.py", "such as shop.main:app"),
        ("looplab.shop.teahouse", "looplab.shop.teahouse:app"),
        ("looplab.shop.teahouse:shop", "an app there is router, app."),
        ("looplab.shop.teahouses:app", "There is no module looplab.shop.teahouses"),
        ("looplab.shop.teahouse:TEAS", "is no ASGI app"),
        (None, "APP is None; it is text"),
    ],
)
def test_a_bad_path_gets_a_sentence(path: str, told: str) -> None:
    with pytest.raises(LessonError) as caught:
        chosen(path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_requests_are_read_and_one_may_stand_alone() -> None:
    post = Ask("POST", "/orders", json={"sku": "tea"})
    assert asked("/orders") == [Ask("GET", "/orders")]
    assert asked(["GET /orders", post]) == [Ask("GET", "/orders"), post]


@pytest.mark.parametrize("bad", [[], None, 3, ["orders"], ["get /orders"], [None], {"GET /": 1}])
def test_a_bad_request_gets_a_sentence(bad: object) -> None:
    with pytest.raises(LessonError, match=r"^REQUESTS .*'GET /orders'") as caught:
        asked(bad)
    assert "\n" not in str(caught.value)


@pytest.fixture
async def two_suppliers() -> AsyncGenerator[list]:
    opened = [await OpenSupplier.open(), await OpenSupplier.open()]
    yield opened
    await opened[-1].close()


async def test_a_supplier_takes_the_place_of_the_one_before(two_suppliers: list) -> None:
    first, second = two_suppliers
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{second.url}/stock/tea-1")).status_code == 200
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{first.url}/stock/tea-1")
