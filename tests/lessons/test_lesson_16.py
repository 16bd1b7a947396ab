"""Lesson 16: its shipped service, attacked as production would, and what its prose says."""

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Annotated, Any, cast
from uuid import uuid4

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import event, exc, func, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Session

from looplab.lab import get, in_process, serve
from looplab.lab.departures import until
from looplab.shop.models import Order, User, new_id
from looplab.shop.pools import Seats, open_pool
from looplab.shop.threaded import threaded_engine
from looplab.stages import dependencies
from looplab.stages.dependencies import Carrier, burst, threads_at_most

pytestmark = pytest.mark.anyio

FIRST_USER = select(User).order_by(User.id).limit(1)


@pytest.fixture
async def shipped(cells_of: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[dict[str, Any]]:
    """The names of the lesson's shipped service, on a shop of its own."""
    lesson = cells_of("16")
    names = await lesson.define("setup")
    shop = await open_pool(5)
    seats = Seats()

    def check_foreign_keys(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA foreign_keys = 1")  # as PostgreSQL does without being told

    def watched_engine(*args: Any, **options: Any) -> AsyncEngine:
        engine = create_async_engine(*args, **options)
        seats.watch(engine)
        event.listen(engine.sync_engine, "connect", check_foreign_keys)
        return engine

    names.update(shop=shop, seats=seats, carrier=Carrier(answers_at=1), first_user=FIRST_USER)
    monkeypatch.setattr(dependencies, "create_async_engine", watched_engine)
    await lesson.run("ship-session", "ship-app")
    yield names
    await shop.close()


@pytest.fixture
async def sent_again(cells_of: Any) -> AsyncGenerator[dict[str, Any]]:
    """The names of the second helping's service whose orders may be sent twice."""
    lesson = cells_of("16_deeper")
    names = await lesson.define("setup")
    shop = await open_pool(2)
    async with shop.session() as session:
        users = await session.scalars(select(User.id).limit(2))
    names.update(shop=shop, carrier=Carrier(answers_at=1), users=[str(user) for user in users])
    await lesson.run("again-duplicate", "again-session", "again-app")
    yield names
    await shop.close()


async def orders_in(names: dict[str, Any]) -> int:
    async with names["shop"].session() as session:
        return await session.scalar(select(func.count()).select_from(Order))


class Refusing:
    """A carrier that hangs up."""

    async def ask(self) -> int:
        raise ConnectionError("the carrier hung up")


async def test_a_carrier_that_fails_leaves_no_order_and_no_connection(
    shipped: dict[str, Any],
) -> None:
    before = await orders_in(shipped)
    shipped["carrier"] = Refusing()
    async with in_process(shipped["service"], raise_errors=False) as client:
        statuses = [(await client.put(f"/orders/{new_id()}")).status_code for _ in range(3)]
        shipped["carrier"] = Carrier(answers_at=1)
        after = await client.put(f"/orders/{new_id()}")
    assert (statuses, after.status_code) == ([500] * 3, 201)
    assert await orders_in(shipped) == before + 1
    assert shipped["seats"].taken == 0


async def test_an_order_is_there_when_the_answer_is(shipped: dict[str, Any]) -> None:
    async with serve(shipped["service"]) as server, server.client() as client:
        for _ in range(10):
            before = await orders_in(shipped)
            assert (await client.put(f"/orders/{new_id()}")).status_code == 201
            assert await orders_in(shipped) == before + 1


async def test_the_same_order_again_is_saved_once(shipped: dict[str, Any]) -> None:
    before = await orders_in(shipped)
    path = f"/orders/{new_id()}"
    async with in_process(shipped["service"], raise_errors=False) as client:
        answers = [(await client.put(path)).status_code for _ in range(2)]
    assert answers == [201, 500]
    assert await orders_in(shipped) == before + 1
    assert shipped["seats"].taken == 0


async def test_a_user_who_leaves_while_the_carrier_is_asked_reads_500(
    shipped: dict[str, Any],
) -> None:
    before = await orders_in(shipped)
    carrier = shipped["carrier"] = Carrier(answers_at=2)
    async with in_process(shipped["service"], raise_errors=False) as client:
        order = asyncio.create_task(client.put(f"/orders/{new_id()}"))
        async with asyncio.timeout(20):
            await until(lambda: carrier.inside == 1)
        async with shipped["shop"].session() as session:
            await session.delete(await session.scalar(FIRST_USER))
            await session.commit()
        await carrier.ask()
        assert (await order).status_code == 500
    assert await orders_in(shipped) <= before


async def test_an_order_that_was_sent_again_is_saved_once_and_belongs_to_one_user(
    sent_again: dict[str, Any],
) -> None:
    before = await orders_in(sent_again)
    carrier = sent_again["carrier"] = Carrier(answers_at=3)
    path, (ada, bob) = f"/{new_id()}", sent_again["users"]
    async with serve(sent_again["order_service"]) as server, server.client() as client:
        calls = [client.put(path, params={"user_id": ada}) for _ in range(3)]
        first = sorted(answer.status_code for answer in await asyncio.gather(*calls))
        again = await client.put(path, params={"user_id": ada})
        other = await client.put(path, params={"user_id": bob})
    assert first == [201, 409, 409]
    assert (again.status_code, again.json()) == (200, {"total": carrier.price})
    assert other.status_code == 409
    assert carrier.asked == 3
    assert await orders_in(sent_again) == before + 1


async def test_only_a_duplicate_is_a_conflict_and_any_other_fault_of_the_row_is_ours(
    sent_again: dict[str, Any],
) -> None:
    before = await orders_in(sent_again)
    params = {"user_id": sent_again["users"][0]}
    sent_again["carrier"] = Carrier(answers_at=1, price=cast("int", None))  # NOT NULL
    async with in_process(sent_again["order_service"], raise_errors=False) as client:
        answer = await client.put(f"/{new_id()}", params=params)
        sent_again["carrier"] = Carrier(answers_at=1)
        assert (await client.put(f"/{new_id()}", params=params)).status_code == 201
        stranger = await client.put(f"/{new_id()}", params={"user_id": str(new_id())})
    assert (answer.status_code, stranger.status_code) == (500, 500)
    assert await orders_in(sent_again) == before + 1


async def test_on_postgres_a_duplicate_is_told_from_a_missing_user_and_a_missing_price(
    sent_again: dict[str, Any], postgres_server: str
) -> None:
    url = make_url(postgres_server).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url)
    schema = f"lesson_16_{uuid4().hex}"
    told = {}
    async with engine.connect() as connection:
        await connection.execute(text(f"CREATE SCHEMA {schema}"))
        await connection.execute(text(f"SET search_path TO {schema}"))
        await connection.execute(text("CREATE TABLE users (id int PRIMARY KEY)"))
        await connection.execute(
            text(
                "CREATE TABLE orders (id int PRIMARY KEY, "
                "user_id int REFERENCES users, total int NOT NULL)"
            )
        )
        await connection.execute(text("INSERT INTO users VALUES (1)"))
        await connection.execute(text("INSERT INTO orders VALUES (1, 1, 1)"))
        for what, row in {"same": "1, 1, 1", "user": "2, 2, 1", "price": "2, 1, NULL"}.items():
            savepoint = await connection.begin_nested()
            with pytest.raises(exc.IntegrityError) as caught:
                await connection.execute(text(f"INSERT INTO orders VALUES ({row})"))
            told[what] = sent_again["is_duplicate"](caught.value)
            await savepoint.rollback()
    await engine.dispose()
    assert told == {"same": True, "user": False, "price": False}


async def test_orders_that_are_refused_do_not_eat_the_pool(sent_again: dict[str, Any]) -> None:
    ada, bob = sent_again["users"]
    sent_again["carrier"] = Carrier(answers_at=2)
    path = f"/{new_id()}"
    gc.disable()  # it would give back what a session has forgotten
    try:
        async with in_process(sent_again["order_service"]) as client, asyncio.timeout(20):
            calls = [client.put(path, params={"user_id": ada}) for _ in range(2)]
            pair = [answer.status_code for answer in await asyncio.gather(*calls)]
            strangers = [await client.put(path, params={"user_id": bob}) for _ in range(5)]
    finally:
        gc.enable()
    assert sorted(pair) == [201, 409]
    assert [answer.status_code for answer in strangers] == [409] * 5
    assert sent_again["shop"].checked_out == 0


async def test_a_commit_that_fails_is_no_201(shipped: dict[str, Any]) -> None:
    before = await orders_in(shipped)

    def refuse(*_: Any) -> None:
        raise exc.OperationalError("INSERT", {}, Exception("disk is full"))

    async with in_process(shipped["service"], raise_errors=False) as client:
        with_order = shipped["AsyncSession"].sync_session_class
        event.listen(with_order, "before_flush", refuse)
        try:
            answer = await client.put(f"/orders/{new_id()}")
        finally:
            event.remove(with_order, "before_flush", refuse)
        assert answer.status_code == 500
        assert (await client.put(f"/orders/{new_id()}")).status_code == 201
    assert await orders_in(shipped) == before + 1


async def test_forty_orders_pass_through_two_connections(shipped: dict[str, Any]) -> None:
    shipped["carrier"] = Carrier(answers_at=40)
    async with serve(shipped["service"]) as server, server.client() as client:
        puts = [client.put(f"/orders/{new_id()}") for _ in range(40)]
        async with asyncio.timeout(20):  # they would wait for one another for ever
            statuses = {answer.status_code for answer in await asyncio.gather(*puts)}
        assert shipped["seats"].taken == 2
    assert statuses == {201}


async def test_a_client_that_leaves_takes_no_connection_along(shipped: dict[str, Any]) -> None:
    carrier = shipped["carrier"] = Carrier(answers_at=10)
    async with serve(shipped["service"]) as server, server.client() as client:
        left = [asyncio.create_task(client.put(f"/orders/{new_id()}")) for _ in range(5)]
        async with asyncio.timeout(20):
            await until(lambda: carrier.inside == 5)
        for call in left:
            call.cancel()
        await asyncio.wait(left)
        puts = [client.put(f"/orders/{new_id()}") for _ in range(5)]
        statuses = {answer.status_code for answer in await asyncio.gather(*puts)}
    assert statuses == {201}
    assert shipped["seats"].taken == 0


async def test_a_shutdown_in_the_middle_saves_nothing_half_done(shipped: dict[str, Any]) -> None:
    before = await orders_in(shipped)
    carrier = shipped["carrier"] = Carrier(answers_at=10)
    calls = []
    async with (
        serve(shipped["service"], timeout_graceful_shutdown=0) as server,
        server.client() as client,
    ):
        calls = [asyncio.create_task(client.put(f"/orders/{new_id()}")) for _ in range(5)]
        async with asyncio.timeout(20):
            await until(lambda: carrier.inside == 5)
    for call in calls:
        with suppress(Exception):
            await call
    assert await orders_in(shipped) == before
    assert shipped["seats"].taken == 0


async def test_nobody_is_logged_in_in_an_empty_shop(shipped: dict[str, Any]) -> None:
    async with shipped["shop"].session() as session:
        for user in await session.scalars(select(User)):
            await session.delete(user)
        await session.commit()
    async with in_process(shipped["service"]) as client:
        assert (await client.put(f"/orders/{new_id()}")).status_code == 401


async def test_each_request_has_one_session_and_no_more(shipped: dict[str, Any]) -> None:
    opened = []
    event.listen(Session, "after_begin", lambda session, *_: opened.append(id(session)))
    async with in_process(shipped["service"]) as client:
        opened.clear()
        await client.put(f"/orders/{new_id()}")
    assert len(set(opened)) == 1  # it began twice: before the carrier and after
    assert len(opened) == 2


def blocking_app(engine: Any, **options: Any) -> FastAPI:
    """An app of the lesson's kind: a session, a user by a dependency, an endpoint, all `def`."""

    def get_db() -> Any:
        with Session(engine) as session:
            yield session

    database = Annotated[Session, Depends(get_db, **options)]

    def user(db: database) -> Any:
        return db.scalar(FIRST_USER)

    app = FastAPI()

    @app.get("/")
    def page(db: database, user: Annotated[Any, Depends(user)]):
        return db.scalar(select(func.count()).select_from(Order))

    return app


@pytest.fixture
async def blocking() -> AsyncGenerator[Callable[..., Any]]:
    """Make blocking engines on a shop, with two connections unless said."""
    shop = await open_pool(1)
    engines = []

    def make(size: int = 2, *, pool_timeout: float = 0.4) -> Any:
        engine = threaded_engine(shop, size=size, round_trip=0.01, pool_timeout=pool_timeout)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.dispose()
    await shop.close()


async def test_a_session_that_ends_with_its_endpoint_keeps_its_connection_while_a_partner_is_asked(
    cells_of: Any,
) -> None:
    carrier = Carrier(answers_at=3)
    lesson = cells_of("16")
    names = await lesson.define("setup")
    async with await open_pool(2) as shop:
        names["shop"] = shop
        await lesson.run("pattern-session")
        app = FastAPI()

        @app.get("/")
        async def held(
            session: Any = Depends(names["get_session"], scope="function"),  # noqa: B008
        ) -> None:
            await session.scalar(FIRST_USER)
            await carrier.ask()

        async with in_process(app) as client:
            calls = [asyncio.create_task(client.get("/")) for _ in range(4)]
            async with asyncio.timeout(20):
                await until(lambda: carrier.inside == 2)
            await asyncio.sleep(0.1)
            assert (carrier.inside, shop.checked_out) == (2, 2)
            await carrier.ask()
            assert {call.status_code for call in await asyncio.gather(*calls)} == {200}


async def test_the_commit_gives_the_connection_back_before_the_partner_is_asked(
    cells_of: Any,
) -> None:
    carrier = Carrier(answers_at=4)
    lesson = cells_of("16")
    names = await lesson.define("setup")
    names.update(app=FastAPI(), first_user=FIRST_USER, ask_carrier=carrier.ask)
    async with await open_pool(2) as names["shop"]:
        await lesson.run("pattern-session", "breaks-partner")
        async with in_process(names["app"]) as client, asyncio.timeout(20):
            calls = [client.get("/let-go") for _ in range(4)]  # all four are inside, or none ends
            assert {call.status_code for call in await asyncio.gather(*calls)} == {200}


async def test_requests_stand_still_from_the_sum_of_threads_and_connections_on(
    blocking: Callable[..., Any],
) -> None:
    with threads_at_most(4):
        below = await burst(blocking_app(blocking(pool_timeout=30.0)), "/", 4 + 2 - 1)
        above = await burst(blocking_app(blocking()), "/", 4 + 2 + 6)
    assert below.failed == 0
    assert above.failed >= 4
    assert above.seconds >= 0.4


async def test_a_place_that_is_limited_is_given_back_by_a_request_that_fails(
    blocking: Callable[..., Any],
) -> None:
    engine = blocking(pool_timeout=30.0)
    app = blocking_app(engine, max_concurrency=2)
    failing = True

    def refuse(*_: Any) -> None:
        if failing:
            raise exc.OperationalError("SELECT", {}, Exception("no such table"))

    event.listen(engine, "before_cursor_execute", refuse)
    with threads_at_most(3):
        assert (await burst(app, "/", 8)).failed == 8
        failing = False
        assert (await burst(app, "/", 8)).failed == 0


@pytest.mark.parametrize(
    ("first", "second", "bypasses"),
    [("Db", "Few", True), ("Few", "Db", False), ("Few", "Few", False)],
)
async def test_the_first_asker_of_a_request_decides_whether_the_limit_counts_it(
    first: str, second: str, bypasses: bool
) -> None:
    inside = peak = 0

    async def counted() -> AsyncGenerator[object]:
        nonlocal inside, peak
        inside += 1
        peak = max(peak, inside)
        await asyncio.sleep(0.01)
        yield object()
        inside -= 1

    names = {"Db": Depends(counted), "Few": Depends(counted, max_concurrency=2)}
    app = FastAPI()

    @app.get("/")
    async def page(one: Annotated[Any, names[first]], other: Annotated[Any, names[second]]) -> bool:
        return one is other

    async with in_process(app) as client:
        answers = await asyncio.gather(*[client.get("/") for _ in range(6)])
    assert [answer.json() for answer in answers] == [True] * 6
    assert (peak > 2) is bypasses


@pytest.mark.parametrize(("path", "status"), [("/late", 201), ("/soon", 500)])
async def test_the_log_names_what_the_commit_failed_of_whatever_the_client_reads(
    path: str, status: int, cells_of: Any
) -> None:
    lesson = cells_of("16")
    names = await lesson.define("setup")
    names["app"] = app = FastAPI()
    async with await open_pool(1) as names["shop"]:
        await lesson.run("breaks-commit", "breaks-commit-fixed")
        async with serve(app) as server, server.client() as client:
            answer = await client.post(path)
    assert answer.status_code == status
    (error,) = server.errors
    assert isinstance(error, exc.IntegrityError)
    assert "FOREIGN KEY" in str(error.orig)


@pytest.mark.parametrize(
    ("given", "calls"), [({}, 1), ({"use_cache": False}, 1)], ids=["cached", "not cached"]
)
async def test_a_list_of_dependencies_calls_each_once_whatever_use_cache_says(
    given: dict[str, Any], calls: int
) -> None:
    called = []

    async def dependency() -> None:
        called.append(1)

    app = FastAPI(dependencies=[Depends(dependency, **given) for _ in range(3)])
    app.get("/")(lambda: None)
    await get(app, "/")
    assert len(called) == calls


async def test_a_parameter_that_turns_the_cache_off_has_a_call_of_its_own() -> None:
    called = []

    async def dependency() -> int:
        called.append(1)
        return len(called)

    app = FastAPI()

    @app.get("/")
    async def page(
        one: Annotated[int, Depends(dependency)],
        other: Annotated[int, Depends(dependency, use_cache=False)],
    ) -> list[int]:
        return [one, other]

    assert (await get(app, "/")).json() == [1, 2]


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_exit_code_runs_to_its_end_when_the_request_is_cancelled(kind: str) -> None:
    steps: list[str] = []
    inside = asyncio.Event()

    async def awaited() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(0.01)
            steps.append("closed")

    def blocks() -> Any:
        try:
            yield
        finally:
            steps.append("closed")

    dependency = blocks if kind == "def" else awaited
    app = FastAPI(dependencies=[Depends(dependency)])

    @app.get("/")
    async def hangs() -> None:
        inside.set()
        await asyncio.Event().wait()

    request = asyncio.create_task(get(app, "/"))
    await inside.wait()
    request.cancel()
    await asyncio.wait([request])
    assert request.cancelled()
    assert steps == ["closed"]
