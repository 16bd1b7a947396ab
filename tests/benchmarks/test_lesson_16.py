"""How near lesson 16's ways come to their bound, and what the shipped dependency costs."""

import functools
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from looplab.lab import compare, get
from looplab.shop import Shop
from looplab.shop.models import Order, User
from looplab.shop.pools import open_pool
from looplab.shop.threaded import threaded_engine
from looplab.stages.dependencies import burst

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

REQUESTS = 60
CONNECTIONS = 5
ROUND_TRIP = 0.03  # seconds: well above the work of a request
TRIPS = 4  # BEGIN, two statements, ROLLBACK
IN_TURN = 100
ROUNDS = 5
ASKS = {"first_user": select(User).limit(1), "count": select(func.count()).select_from(Order)}


@pytest.fixture
async def shop() -> AsyncGenerator[Shop]:
    async with await open_pool(CONNECTIONS) as shop:
        yield shop


async def test_limited_threads_and_awaited_sessions_are_bound_by_the_connections(
    shop: Shop, figures: Any
) -> None:
    shop.round_trip = ROUND_TRIP
    engine = threaded_engine(shop, size=CONNECTIONS, round_trip=ROUND_TRIP, pool_timeout=60.0)
    ways = {"max_concurrency": _blocking_app(engine), "async def": _awaited_app(shop)}
    bound = REQUESTS / CONNECTIONS * TRIPS * ROUND_TRIP
    timing = await compare(
        {name: functools.partial(burst, app, "/", REQUESTS) for name, app in ways.items()},
        repeat=3,
        ideal=dict.fromkeys(ways, bound),
        show=False,
    )
    engine.dispose()
    with figures(f"lesson 16, {REQUESTS} requests, {CONNECTIONS} connections, 30 ms away") as table:
        for name in ways:
            table.at_most(f"{name}, of its waits", timing.of_ideal(name), 1.2)


async def test_the_shipped_dependency_beside_a_session_by_hand(
    names_of: Any, shop: Shop, figures: Any
) -> None:
    lesson = names_of("16", ("setup", "ship-session"), shop=shop)
    database = Depends(lesson["database"], scope="function")

    async def with_sessions(request: Request) -> None:
        request.state.sessions = shop.sessions

    app = FastAPI(dependencies=[Depends(with_sessions)])

    @app.get("/dependency")
    async def by_dependency(db: Annotated[AsyncSession, database]) -> int | None:
        return await db.scalar(ASKS["count"])

    @app.get("/by-hand")
    async def by_hand() -> int | None:
        async with shop.session() as session:
            found = await session.scalar(ASKS["count"])
            await session.commit()
            return found

    async def in_turn(path: str) -> None:
        for _ in range(IN_TURN):
            await get(app, path)

    paths = ("/by-hand", "/dependency")
    ways = {path: functools.partial(in_turn, path) for path in paths}
    timing = await compare(ways, repeat=ROUNDS, show=False)
    with figures(f"lesson 16, {IN_TURN} requests in turn, database near") as table:
        each = timing.median("/by-hand") / IN_TURN * 1e6
        table.only("a session by hand", each, "µs a request")
        table.only("the dependency, of that", timing.ratio("/dependency", "/by-hand"))


def _blocking_app(engine: Any) -> FastAPI:
    def get_db() -> Any:
        with Session(engine) as session:
            yield session

    few = Depends(get_db, max_concurrency=CONNECTIONS)

    def user(db: Annotated[Session, few]) -> Any:
        return db.scalar(ASKS["first_user"])

    app = FastAPI()

    @app.get("/")
    def page(db: Annotated[Session, few], user: Annotated[Any, Depends(user)]):
        return db.scalar(ASKS["count"])

    return app


def _awaited_app(shop: Shop) -> FastAPI:
    async def get_session() -> AsyncGenerator[AsyncSession]:
        async with shop.session() as session:
            yield session

    async def user(db: Annotated[AsyncSession, Depends(get_session)]) -> Any:
        return await db.scalar(ASKS["first_user"])

    app = FastAPI()

    @app.get("/")
    async def page(
        db: Annotated[AsyncSession, Depends(get_session)], user: Annotated[Any, Depends(user)]
    ):
        return await db.scalar(ASKS["count"])

    return app
