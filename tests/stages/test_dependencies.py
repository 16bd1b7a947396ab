"""What lesson 16 sends to its apps, and the carrier that they ask."""

import asyncio
import time
from typing import Any

import anyio.to_thread
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from sqlalchemy import text

from looplab.lab import get, xray
from looplab.shop.pools import open_pool
from looplab.stages.dependencies import (
    Burst,
    Carrier,
    ask_carrier,
    at_once,
    burst,
    open_sessions,
    order_of_events,
    put_orders,
    show_bursts,
    thread_loans,
    threads_at_most,
    watch,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def app() -> FastAPI:
    """An app that serves every other request, and fails the rest in two ways."""
    app, asked = FastAPI(), []

    @app.get("/")
    @app.post("/")
    async def page() -> None:
        asked.append(1)
        if len(asked) % 4 == 0:
            raise HTTPException(503)
        if len(asked) % 4 == 2:
            raise LookupError("a bug")

    return app


async def test_a_burst_tells_how_many_were_served_and_when(app: FastAPI) -> None:
    # the one that goes ahead is the first of all
    told = await burst(app, "/", 4)
    assert (told.served, told.failed) == (2, 2)
    assert sorted(status for status, _ in told.answers) == [200, 200, 500, 503]
    assert 0 < told.first_served <= told.seconds


async def test_a_burst_that_nobody_survives_is_shown_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    none = Burst(((500, 0.1), (500, 0.2)))
    assert none.first_served == float("inf")
    show_bursts({"none": none})
    assert "never" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_at_once_returns_a_status_for_each(app: FastAPI, method: str) -> None:
    assert sorted(await at_once(app, "/", 4, method)) == [200, 200, 500, 503]


async def test_what_is_watched_is_named_by_its_request_and_has_its_statuses(app: FastAPI) -> None:
    seen = await watch(app, "POST /", 2, show=False)
    assert (seen.title, sorted(seen.result)) == ("POST /", [200, 500])
    assert (await watch(app, "GET /", title="mine", show=False)).title == "mine"
    with pytest.raises(ValueError, match="method is 'PUT'"):
        await watch(app, "PUT /", show=False)


async def test_a_loan_of_a_thread_is_before_the_answer_or_after_it() -> None:
    app = FastAPI()

    def late() -> Any:
        yield
        time.sleep(0.02)

    @app.get("/def")
    def page(_: Any = Depends(late)) -> None:  # noqa: B008
        time.sleep(0.01)

    @app.get("/async")
    async def awaited() -> None:
        await asyncio.sleep(0.01)

    await get(app, "/def")
    loans = thread_loans(await xray(get(app, "/def"), show=False))
    assert (loans[0], loans[-1]) == ("before the answer", "after the answer")
    assert thread_loans(await xray(get(app, "/async"), show=False)) == []


async def test_whoever_asks_the_carrier_is_seen_there() -> None:
    async def two() -> None:
        await asyncio.gather(ask_carrier(), ask_carrier())

    assert (await xray(two(), show=False)).peak_of("with the carrier") == 2


async def test_orders_are_put_with_ids_of_their_own_and_the_sessions_share_the_connections() -> (
    None
):
    ids, most = set(), 0
    async with await open_pool(1) as shop:
        app = FastAPI(lifespan=open_sessions(shop, connections=2))

        @app.put("/orders/{order_id}", status_code=201)
        async def put(order_id: str, request: Request) -> None:
            nonlocal most
            async with request.state.sessions() as session:
                ids.add(order_id)
                await session.execute(text("SELECT 1"))
                most = max(most, session.bind.pool.checkedout())

        assert await put_orders(app, 5) == [201] * 5
    assert (len(ids), most <= 2) == (5, True)


async def test_an_answer_is_noted_between_what_the_app_notes() -> None:
    events: list[str] = []
    app = FastAPI()
    app.get("/")(lambda: events.append("endpoint"))
    assert await order_of_events(app, "/", events) == ["endpoint", "answer begins", "answer ends"]


async def test_a_carrier_answers_when_enough_are_inside_and_at_once_after_that() -> None:
    carrier = Carrier(answers_at=2, price=7)
    first = asyncio.create_task(carrier.ask())
    await asyncio.sleep(0)
    assert not first.done()
    assert [await carrier.ask(), await first] == [7, 7]
    assert await carrier.ask() == 7
    assert (carrier.asked, carrier.inside, carrier.peak) == (3, 0, 2)


async def test_a_caller_that_leaves_the_carrier_is_no_longer_inside() -> None:
    carrier = Carrier(answers_at=2)
    left = asyncio.create_task(carrier.ask())
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.wait([left])
    assert carrier.inside == 0


async def test_threads_are_as_many_as_before_in_the_end() -> None:
    limiter = anyio.to_thread.current_default_thread_limiter()
    before = limiter.total_tokens
    inside = []

    def fails() -> None:
        with threads_at_most(3):
            inside.append(limiter.total_tokens)
            raise LookupError

    with pytest.raises(LookupError):
        fails()
    assert inside == [3]
    assert limiter.total_tokens == before


async def test_what_cannot_be_is_refused(app: FastAPI) -> None:
    with pytest.raises(ValueError, match="requests is 0; it must be 1 or more"):
        await burst(app, "/", 0)
    with pytest.raises(ValueError, match="method is 'PUT'; it must be GET or POST"):
        await at_once(app, "/", 1, "PUT")
    with pytest.raises(ValueError, match="answers_at is 0"):
        Carrier(answers_at=0)
    with pytest.raises(ValueError, match="count is 0"), threads_at_most(0):
        pass
