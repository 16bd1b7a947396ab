"""Lesson 05's shipped search, attacked: errors, bursts, cancellation, slow statements."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import sqlalchemy.exc
from fastapi import FastAPI, Response
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from looplab.lab import get, ms, serve
from looplab.shop import open_shop
from looplab.shop.partners import SearchEngine
from looplab.shop.server import server_url
from looplab.shop.sources import (
    ExternalServiceError,
    ask,
    busy_shop,
    database_source,
    index_products,
)
from looplab.shop.statement_limit import limit_statements, plain_notes, slow_source, slow_statement

pytestmark = pytest.mark.anyio

Source = Callable[[str], Awaitable[list[str]]]
CELLS = ("setup", "expected", "search-what-comes", "ship-app", "ship-sources")
ROOM = 60.0  # seconds, where nothing is to be late


@pytest.fixture
async def lesson(cells_of: Any) -> dict[str, Any]:
    """The names of the shipped version, with two partners that answer at once."""
    cells = cells_of("05")
    cells.names |= {"engine": SearchEngine("elasticsearch"), "api": SearchEngine("external_api")}
    return await cells.run(*CELLS)


@pytest.fixture
async def shipped(lesson: dict[str, Any]) -> AsyncGenerator[tuple[Any, dict[str, Source]]]:
    """The shipped shop and its sources."""
    async with lesson["shipped_sources"]() as opened:
        yield opened


async def answers(query: str) -> list[str]:
    return [query]


async def hangs(query: str) -> list[str]:
    await asyncio.sleep(ROOM)
    return [query]


def raises(error: Exception) -> Source:
    async def source(_query: str) -> list[str]:
        raise error

    return source


async def until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds, which another thread brings about."""
    async with asyncio.timeout(ROOM):
        while not condition():  # noqa: ASYNC110 (another thread changes it, and sets no event)
            await asyncio.sleep(0.005)


async def test_a_good_day_is_200_with_all_three(
    lesson: dict[str, Any], shipped: tuple[Any, dict[str, Source]]
) -> None:
    lesson["ms"] = lambda _: ROOM
    app = lesson["search_app"](shipped[1])
    everybody = await asyncio.gather(*[get(app, "/search?q=blue lamp") for _ in range(5)])
    assert {answer.status_code for answer in everybody} == {200}
    found = everybody[0].json()["found"]
    assert all(found[name] for name in ("database", "elasticsearch", "external_api"))
    assert [answer.json()["missing"] for answer in everybody] == [[]] * 5


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ExternalServiceError("partner", "status 503"),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("late"),
        httpx.PoolTimeout("no connection"),
        httpx.RemoteProtocolError("gone"),
        sqlalchemy.exc.TimeoutError("QueuePool limit"),
        sqlalchemy.exc.OperationalError("SELECT secret", {}, Exception("down")),
    ],
    ids=lambda error: f"{type(error).__module__}.{type(error).__name__}",
)
async def test_an_expected_error_costs_its_own_source_and_is_told_to_the_log_only(
    lesson: dict[str, Any], error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    sources = {"first": answers, "broken": raises(error), "last": answers}
    answer = await get(lesson["search_app"](sources), "/search?q=lamp")
    assert answer.status_code == 200
    told = {"found": {"first": ["lamp"], "last": ["lamp"]}, "missing": ["broken"]}
    assert answer.json() == told
    assert caplog.messages == [f"search without broken: {error!r}"]


@pytest.mark.parametrize("error", [KeyError("hits"), ValueError(), sqlalchemy.exc.ArgumentError()])
async def test_a_bug_comes_out_and_nothing_runs_on(
    lesson: dict[str, Any], error: Exception
) -> None:
    before = asyncio.all_tasks()
    sources = {"hung": hangs, "buggy": raises(error)}
    with pytest.raises(ExceptionGroup) as caught:
        await lesson["search_what_comes"]("lamp", sources, ROOM)
    assert caught.value.exceptions == (error,)
    assert asyncio.all_tasks() == before


async def test_nothing_found_is_503_and_names_everybody(lesson: dict[str, Any]) -> None:
    answer = await get(lesson["search_app"]({"one": hangs, "other": hangs}), "/search?q=lamp")
    assert (answer.status_code, answer.json()) == (503, {"found": {}, "missing": ["one", "other"]})


async def test_no_hits_are_an_answer(lesson: dict[str, Any]) -> None:
    async def empty(_query: str) -> list[str]:
        return []

    answer = await get(lesson["search_app"]({"one": empty}), "/search?q=lamp")
    assert (answer.status_code, answer.json()) == (200, {"found": {"one": []}, "missing": []})


async def test_a_search_that_is_cancelled_ends_cancelled_with_its_sources(
    lesson: dict[str, Any],
) -> None:
    ended: list[str] = []
    both_asked = asyncio.Barrier(3)

    async def told(query: str) -> list[str]:
        try:
            await both_asked.wait()
            return await hangs(query)
        finally:
            ended.append(query)

    search = lesson["search_what_comes"]("lamp", {"one": told, "other": told}, ROOM)
    task = asyncio.create_task(search)
    await both_asked.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert ended == ["lamp", "lamp"]


async def test_a_callers_own_deadline_is_not_taken_for_the_searchs(lesson: dict[str, Any]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await lesson["search_what_comes"]("lamp", {"one": hangs}, ROOM)


async def test_a_statement_is_stopped_before_the_deadline_and_its_connection_stays_good(
    lesson: dict[str, Any], shipped: tuple[Any, dict[str, Source]]
) -> None:
    shop, sources = shipped
    slow = {**sources, "database": slow_source(shop, ms(3_000))}
    found, missing = await lesson["search_what_comes"]("blue lamp", slow, ms(2_000))
    assert set(found) == {"elasticsearch", "external_api"}
    assert "interrupted" in missing["database"]
    assert shop.checked_out == 0
    found, missing = await lesson["search_what_comes"]("blue lamp", sources, ROOM)
    assert found["database"]
    assert missing == {}


async def test_after_bursts_of_time_outs_all_ten_connections_reach_the_partner(
    lesson: dict[str, Any], shipped: tuple[Any, dict[str, Source]]
) -> None:
    api, search = lesson["api"], lesson["search_what_comes"]
    only = {"external_api": shipped[1]["external_api"]}
    api.hang = True
    for _ in range(3):
        await asyncio.gather(*[search("lamp", only, 0.05) for _ in range(40)])
    before = -1
    while before != api.calls:  # on a busy machine some of them reach the partner late
        before = api.calls
        await asyncio.sleep(0.3)
    await asyncio.gather(*[search("lamp", only, 2) for _ in range(10)])
    assert api.calls - before == 10


async def test_the_partner_sees_its_caller_leave_at_the_deadline(
    lesson: dict[str, Any], shipped: tuple[Any, dict[str, Source]]
) -> None:
    api = lesson["api"]
    api.hang = True
    only = {"external_api": shipped[1]["external_api"]}
    found, missing = await lesson["search_what_comes"]("lamp", only, 0.2)
    assert (found, missing) == ({}, {"external_api": "late"})
    await until(lambda: api.abandoned == 1)
    assert api.in_flight == 0


async def test_a_query_is_a_phrase_whatever_it_holds() -> None:
    async with open_shop(name="queries", users=0, products=50) as shop:
        await index_products(shop)
        database = database_source(shop)
        assert await database("blue")
        for query in ('"', 'blue" OR "x', "*", "", "NEAR(a b)", "name:blue", "\N{BOMB}"):
            assert await database(query) == []


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, "{}", ExternalServiceError),
        (429, "{}", ExternalServiceError),
        (200, "<html>", ExternalServiceError),
        (200, "[]", ExternalServiceError),
        (200, json.dumps({"hits": {"hits": [{}]}}), ExternalServiceError),
        (400, "{}", httpx.HTTPStatusError),
        (404, "{}", httpx.HTTPStatusError),
    ],
)
async def test_a_partner_that_fails_is_told_from_a_request_that_is_ours_to_fix(
    status: int, body: str, kind: type[Exception]
) -> None:
    partner = FastAPI()

    @partner.post("/products/_search")
    async def search() -> Response:
        return Response(body, status)

    transport = httpx.ASGITransport(partner)
    async with httpx.AsyncClient(transport=transport, base_url="http://partner") as client:
        with pytest.raises(kind):
            await ask("partner", client, "lamp")


async def test_a_full_pool_names_itself_and_no_statement_is_sent() -> None:
    async with busy_shop(pool_timeout=0.02) as busy:
        with pytest.raises(sqlalchemy.exc.TimeoutError, match="QueuePool limit"):
            await database_source(busy)("lamp")
        assert busy.statements == 0


async def test_a_limit_counts_each_statement_and_not_the_transaction() -> None:
    async with plain_notes(limit=0.5) as engine, engine.connect() as connection:
        for _ in range(3):
            await slow_statement(connection, 0.2)
        with pytest.raises(sqlalchemy.exc.OperationalError, match="interrupted"):
            await slow_statement(connection, 5.0)
        await slow_statement(connection, 0.2)


@pytest.mark.parametrize("seconds", [-1, float("nan"), "1"])
async def test_a_limit_is_a_time(seconds: Any) -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    with pytest.raises((TypeError, ValueError), match="seconds"):
        limit_statements(engine, seconds)
    await engine.dispose()


# -- what the second helping says of PostgreSQL


async def test_postgresqls_own_limit_is_a_dbapi_error_and_wants_a_rollback(
    postgres_server: str,
) -> None:
    settings = {"statement_timeout": "50"}
    engine = create_async_engine(
        server_url(postgres_server), connect_args={"server_settings": settings}
    )
    async with engine.connect() as connection:
        with pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
            await connection.execute(text("SELECT pg_sleep(5)"))
        assert not isinstance(caught.value, sqlalchemy.exc.OperationalError)
        assert getattr(caught.value.orig, "sqlstate", None) == "57014"
        with pytest.raises(sqlalchemy.exc.DBAPIError, match="transaction is aborted"):
            await connection.execute(text("SELECT 1"))
        await connection.rollback()
        assert await connection.scalar(text("SELECT 1")) == 1
    await engine.dispose()


async def test_a_deadline_stops_a_statement_at_a_postgresql_server(postgres_server: str) -> None:
    engine = create_async_engine(server_url(postgres_server))
    running = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE state = 'active' AND query LIKE 'SELECT pg_sleep(17)%'"
    )
    began = time.monotonic()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1), engine.connect() as connection:
            await connection.execute(text("SELECT pg_sleep(17)"))
    assert time.monotonic() - began < 10
    async with engine.connect() as connection:
        assert await connection.scalar(running) == 0
    await engine.dispose()


async def test_a_postgresql_server_that_refuses_raises_an_oserror() -> None:
    async with serve(FastAPI()) as server:
        port = server.port
    engine = create_async_engine(server_url(f"postgresql://ada@127.0.0.1:{port}/shop"))
    with pytest.raises(OSError, match=str(port)):
        await engine.connect()
    await engine.dispose()
