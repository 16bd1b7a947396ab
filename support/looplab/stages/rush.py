"""Two hard minutes of lesson 07's database: it stalls, and four workers want it at once."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI
from sqlalchemy import URL, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from looplab.lab import in_process
from looplab.shop import Shop
from looplab.shop.models import User
from looplab.shop.pools import Seats

REQUESTS: Final = 10  # during a stall
WORKERS: Final = 4
EACH: Final = 30  # requests at each worker, in a rush
_COUNT_USERS = select(func.count()).select_from(User)


def users_app(shop: Shop) -> FastAPI:
    """Return an app whose ``/users`` asks ``shop`` how many users there are."""
    app = FastAPI()
    app.add_api_route("/users", shop.users.count)
    return app


async def ask_during_a_stall(shop: Shop, app: FastAPI, seconds: float) -> list[int]:
    """Send ten requests for ``/users`` to ``app`` while the database of ``shop`` stalls.

    ``shop`` has a pool of two connections, which are both held here until every request has an
    answer, for ``seconds`` at most. Returns the statuses of those that were answered by then. The
    others are answered after the stall, and this returns when they are.
    """
    async with in_process(app, raise_errors=False) as client:
        async with shop.engine.connect(), shop.engine.connect():
            asked = [client.get("/users") for _ in range(REQUESTS)]
            calls = [asyncio.create_task(call) for call in asked]
            done, _ = await asyncio.wait(calls, timeout=seconds)
        await asyncio.wait(calls)
    return [call.result().status_code for call in done]


async def rush(
    make_engine: Callable[..., AsyncEngine], url: URL, server: Seats, **settings: Any
) -> int:
    """Send 120 requests through the pools of four workers at once; return how many were answered.

    Each worker's engine is ``make_engine(url, **settings)``. It gets 30 of the requests, and is
    disposed in the end. ``server`` counts the connections of all. A request whose connection it
    refuses is not answered. What else a request raises comes out, in an ExceptionGroup.
    """

    async def ask(engine: AsyncEngine) -> int | None:
        async with AsyncSession(engine) as session:
            return await session.scalar(_COUNT_USERS)

    workers = [make_engine(url, **settings) for _ in range(WORKERS)]
    for worker in workers:
        server.watch(worker)
    calls = [ask(worker) for worker in workers * EACH]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for worker in workers:
        await worker.dispose()
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    others = [error for error in errors if not isinstance(error, ConnectionRefusedError)]
    if others:
        raise ExceptionGroup("requests that were not refused, and failed", others)
    return len(answers) - len(errors)
