"""What lesson 04 ships, attacked on a real server: late, refused, broken, cancelled, shut down."""

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from looplab.lab import in_process, serve
from looplab.shop.partners import Supplier, in_this_process

pytestmark = pytest.mark.anyio

SHIPPED = ("setup", "practice-start", "practice-call", "practice-ship")
APP = ("practice-lifespan", "practice-endpoint")
AMPLE = 30.0  # seconds
SHORT = 0.1  # less than what the partner takes, and ample for a call to reach it
LONG = 0.4


@pytest.fixture
async def lesson(cells_of: Callable[[str], Any]) -> Any:
    cells = cells_of("04")
    await cells.run(*SHIPPED, *APP)
    return cells.names


@asynccontextmanager
async def calling(
    lesson: Any, partner: Supplier, *, at_once: int = 2, longest: float = AMPLE
) -> AsyncGenerator[Any]:
    """Yield the shipped object, on a real server, and wait for its calls at the end."""
    async with serve(partner.app, timeout_graceful_shutdown=5) as server, server.client() as client:
        api = lesson["ExternalAPI"](client, at_once, 0.001, longest)
        yield api
        if api.calls:
            await asyncio.wait(api.calls)


@asynccontextmanager
async def shop(lesson: Any, app: FastAPI) -> AsyncGenerator[httpx.AsyncClient]:
    async with serve(app) as server:
        lesson["shop"].state.supplier_url = server.url
        async with in_process(lesson["shop"]) as customers:
            yield customers


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(AMPLE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_limit_changes_no_answer(cells_of: Callable[[str], Any]) -> None:
    names = await cells_of("04").define("setup", "naive", "pattern-semaphore")
    names["_external_api_semaphore"] = asyncio.Semaphore(3)
    names["skus"] = [f"SKU-{number}" for number in range(20)]
    supplier = Supplier()
    async with in_this_process(supplier) as names["client"]:
        unlimited = await names["for_all"](names["stock"])
        assert supplier.peak_in_flight == 20
        supplier.reset()
        assert await names["for_all"](names["call_external_api"]) == unlimited
        assert supplier.peak_in_flight == 3


async def test_sixty_calls_that_time_out_put_no_more_than_ten_at_the_partner(lesson: Any) -> None:
    partner = Supplier(latency=LONG)
    async with calling(lesson, partner, at_once=10) as api:
        for _ in range(6):
            calls = [api.get("/stock/SKU-1", SHORT) for _ in range(10)]
            await asyncio.gather(*calls, return_exceptions=True)
    assert partner.peak_in_flight == 10


async def test_after_a_storm_of_time_outs_every_slot_is_free_again(lesson: Any) -> None:
    partner = Supplier(latency=LONG)
    async with calling(lesson, partner, at_once=3) as api:
        storm = [api.get("/stock/SKU-1", SHORT / 2) for _ in range(30)]
        await asyncio.gather(*storm, return_exceptions=True)
        await until(lambda: not api.calls)
        partner.latency = 0.0
        for _ in range(3):
            await api.slots.acquire()
        assert api.slots.locked(), "there were three slots, no fewer and no more"
        for _ in range(3):
            api.slots.release()
        answers = [api.get("/stock/SKU-1", AMPLE) for _ in range(9)]
        assert {a.status_code for a in await asyncio.gather(*answers)} == {200}


async def test_a_cancelled_request_leaves_its_slot_to_its_call(lesson: Any) -> None:
    partner = Supplier(hang=True)
    async with calling(lesson, partner, at_once=1) as api:
        left = asyncio.create_task(api.get("/stock/SKU-1", AMPLE))
        await until(lambda: partner.in_flight == 1)
        left.cancel()
        await asyncio.wait({left})
        assert left.cancelled()
        with pytest.raises(TimeoutError):
            await api.get("/stock/SKU-2", SHORT)
        assert partner.calls == 1
        partner.hang = False
        assert (await api.get("/stock/SKU-3", AMPLE)).status_code == 200


async def test_a_request_cancelled_in_the_queue_takes_no_slot_along(lesson: Any) -> None:
    partner = Supplier(hang=True)
    async with calling(lesson, partner, at_once=1) as api:
        first = asyncio.create_task(api.get("/stock/SKU-1", AMPLE))
        await until(lambda: partner.in_flight == 1)
        queueing = [asyncio.create_task(api.get("/stock/SKU-2", AMPLE)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in queueing:
            task.cancel()
        await asyncio.wait(queueing)
        partner.hang = False
        assert (await first).status_code == 200
        assert (await api.get("/stock/SKU-3", AMPLE)).status_code == 200
    assert partner.calls == 2, "what was cancelled in the queue was never sent"


async def test_cancelled_while_its_slot_comes_free_a_request_loses_none(lesson: Any) -> None:
    async with calling(lesson, Supplier(), at_once=1) as api:
        await api.slots.acquire()
        queueing = asyncio.create_task(api.get("/stock/SKU-1", AMPLE))
        await asyncio.sleep(0)
        api.slots.release()
        queueing.cancel()
        await asyncio.wait({queueing})
        assert (await api.get("/stock/SKU-2", AMPLE)).status_code == 200


async def test_a_partner_that_never_answers_keeps_a_slot_for_longest_and_no_longer(
    lesson: Any,
) -> None:
    partner = Supplier(hang=True)
    async with calling(lesson, partner, at_once=2, longest=LONG) as api:
        stuck = [api.get("/stock/SKU-1", AMPLE) for _ in range(4)]
        outcomes = await asyncio.gather(*stuck, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {TimeoutError}
        await until(lambda: partner.in_flight == 0)  # a hanging partner sees that its caller left
        partner.hang = False
        answers = [api.get("/stock/SKU-1", AMPLE) for _ in range(4)]
        assert {a.status_code for a in await asyncio.gather(*answers)} == {200}


async def test_the_error_of_a_call_that_nobody_waits_for_is_not_reported_lost(lesson: Any) -> None:
    lost: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
    try:
        async with calling(lesson, Supplier(hang=True), at_once=1, longest=LONG) as api:
            with pytest.raises(TimeoutError):
                await api.get("/stock/SKU-1", SHORT)
            assert len(api.calls) == 1
            await until(lambda: not api.calls)
        gc.collect()
    finally:
        asyncio.get_running_loop().set_exception_handler(None)
    assert lost == []


async def test_a_partner_that_fails_is_a_502_and_a_late_one_a_504(lesson: Any) -> None:
    partner = Supplier()
    partner.fault("down", failure=True)
    partner.fault("late", hang=True)
    async with shop(lesson, partner.app) as customers:
        paths = ("/stock/fine", "/stock/down", "/stock/late")
        answers = await asyncio.gather(*map(customers.get, paths))
        partner.faults.clear()
        partner.release()
    assert [answer.status_code for answer in answers] == [200, 502, 504]
    assert not any("127.0.0.1" in answer.text for answer in answers)


async def test_a_partner_that_is_not_there_is_a_502(lesson: Any) -> None:
    async with serve(FastAPI()) as gone:
        url = gone.url
    lesson["shop"].state.supplier_url = url
    async with in_process(lesson["shop"]) as customers:
        assert (await customers.get("/stock/SKU-1")).status_code == 502


@pytest.mark.parametrize(
    "answer",
    [
        Response("<h1>Welcome</h1>", media_type="text/html"),
        Response(b"\xff\xfe{", media_type="application/json"),
        Response('{"available": 3', media_type="application/json"),
        Response("", status_code=302, headers={"location": "/login"}),
        Response("{}", status_code=404),
        Response("{}", status_code=429),
    ],
    ids=["html", "bytes", "half", "elsewhere", "404", "429"],
)
async def test_whatever_a_partner_answers_our_customer_gets_no_500(
    lesson: Any, answer: Response
) -> None:
    app = FastAPI()
    app.get("/stock/{sku}")(lambda sku: answer)
    async with shop(lesson, app) as customers:
        assert (await customers.get("/stock/SKU-1")).status_code == 502


async def test_a_sku_stays_one_part_of_the_path(lesson: Any) -> None:
    seen: list[bytes] = []
    app = FastAPI()

    @app.get("/{rest:path}")
    def any_path(request: Request) -> dict[str, str]:
        seen.append(request.scope["raw_path"] + b"?" + request.scope["query_string"])
        return {}

    async with shop(lesson, app) as customers:
        for sku in ("x%3Fprice%3D0", "%C3%A4%20%25", "a%23b", "...a"):
            assert (await customers.get(f"/stock/{sku}")).status_code == 200
        for sku in ("%2E%2E", "%2E", "-", "x" * 41):
            assert (await customers.get(f"/stock/{sku}")).status_code == 422
    skus = (b"x%3Fprice%3D0", b"%C3%A4%20%25", b"a%23b", b"...a")
    assert seen == [b"/stock/" + sku + b"?" for sku in skus]


async def test_no_cookie_of_one_customer_goes_out_with_the_next(lesson: Any) -> None:
    sent: list[str] = []
    app = FastAPI()

    @app.get("/stock/{sku}")
    def stock(request: Request, response: Response) -> dict[str, str]:
        sent.append(request.headers.get("cookie", ""))
        response.set_cookie("session", "of ada")
        return {}

    async with shop(lesson, app) as customers:
        for _ in range(2):
            assert (await customers.get("/stock/SKU-1")).status_code == 200
    assert sent == ["", ""]


async def test_the_shutdown_waits_for_calls_that_are_with_the_partner(lesson: Any) -> None:
    partner = Supplier(hang=True)
    async with serve(partner.app) as server:
        lesson["shop"].state.supplier_url = server.url
        async with in_process(lesson["shop"]) as customers:
            assert (await customers.get("/stock/SKU-1")).status_code == 504
            assert partner.in_flight == 1
            asyncio.get_running_loop().call_later(SHORT, partner.release)
        assert partner.in_flight == 0
        assert partner.abandoned == 0, "it was answered, not dropped"


async def test_no_time_out_of_the_clients_ends_a_call_before_longest_does(
    lesson: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults: Any = httpx.AsyncClient.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "timeout", httpx.Timeout(SHORT))
    async with shop(lesson, Supplier(latency=LONG).app) as customers:
        assert (await customers.get("/stock/SKU-1")).status_code == 200


async def test_time_in_the_queue_counts_towards_the_deadline(lesson: Any) -> None:
    partner = Supplier(latency=LONG)
    loop = asyncio.get_running_loop()
    async with calling(lesson, partner, at_once=1) as api:
        began = loop.time()
        calls = [api.get("/stock/SKU-1", SHORT) for _ in range(20)]
        await asyncio.gather(*calls, return_exceptions=True)
        assert loop.time() - began < LONG
    assert partner.calls == 1, "the others never left"
