"""Lesson 08's shipped client, attacked as production would, and claims that left the screen."""

import asyncio
import socket
from collections import Counter
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import pytest
from fastapi import FastAPI, Request, Response

from looplab.lab import in_process, ms, serve
from looplab.lab.clients import HOST
from looplab.shop.partners import Supplier
from looplab.stages.seats import after_a_bad_moment

pytestmark = pytest.mark.anyio

SHIPPED = ("setup", "ship-client", "ship-ask", "ship-sku", "ship-app")


@pytest.fixture
async def shipped(cells_of: Any) -> Any:
    """The lesson's ``stock_app(url)``."""
    return (await cells_of("08").run(*SHIPPED))["stock_app"]


@pytest.fixture
async def supplied(shipped: Any) -> Any:
    """Open the shipped app and its supplier: yields the app's client."""

    @asynccontextmanager
    async def opened(supplier: Any):
        app = getattr(supplier, "app", supplier)
        async with serve(app) as server, in_process(shipped(server.url)) as client:
            yield client

    return opened


async def rush(client: Any, number: int) -> Counter[int]:
    calls = [client.get(f"/stock/{n}") for n in range(number)]
    return Counter(answer.status_code for answer in await asyncio.gather(*calls))


async def recovers(supplier: Supplier, client: Any) -> None:
    """Let the supplier answer again, and find that ten calls are in flight at once."""
    supplier.hang = False
    supplier.reset()
    supplier.latency = ms(200)
    assert await rush(client, 10) == {200: 10}
    assert supplier.peak_in_flight == 10


async def test_after_a_bad_moment_all_ten_seats_are_there(supplied: Any) -> None:
    supplier = Supplier(hang=True)
    async with supplied(supplier) as client:
        assert await rush(client, 30) == {504: 30}
        await recovers(supplier, client)


async def test_callers_who_leave_while_they_wait_take_no_seat_along(supplied: Any) -> None:
    supplier = Supplier(hang=True)
    async with supplied(supplier) as client:
        for _ in range(3):
            calls = [asyncio.create_task(client.get(f"/stock/{n}")) for n in range(30)]
            await asyncio.sleep(ms(50))
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
        await recovers(supplier, client)


async def test_a_partner_that_fails_or_hangs_or_babbles_is_told_apart(supplied: Any) -> None:
    supplier = Supplier()
    supplier.fault("failing", failure=True)
    supplier.fault("hanging", hang=True)
    babbling = FastAPI()

    @babbling.get("/stock/{sku}")
    async def babble(sku: str) -> Response:
        return Response("<html>maintenance</html>")

    async with supplied(supplier) as client:
        statuses = [(await client.get(f"/stock/{sku}")).status_code for sku in ("failing", "fine")]
        assert statuses == [502, 200]
        assert (await client.get("/stock/hanging")).status_code == 504
    async with supplied(babbling) as client:
        assert (await client.get("/stock/A")).status_code == 502


async def test_a_partner_that_drips_is_late_although_no_read_is(supplied: Any) -> None:
    async def dripping(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(100):
            await asyncio.sleep(ms(50))
            await send({"type": "http.response.body", "body": b" ", "more_body": True})

    async with supplied(dripping) as client:
        assert (await client.get("/stock/A")).status_code == 504


async def test_a_partner_that_cannot_be_reached_is_a_502(shipped: Any) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        async with in_process(shipped(f"http://{HOST}:{taken.getsockname()[1]}")) as client:
            assert (await client.get("/stock/A")).status_code == 502


async def test_a_sku_reaches_the_partner_whole_or_not_at_all(supplied: Any) -> None:
    supplier = Supplier()
    async with supplied(supplier) as client:
        assert (await client.get("/stock/A%3Fprice=0")).json()["sku"] == "A?price=0"
        assert (await client.get("/stock/%2e%2e")).status_code in {404, 422}
        assert (await client.get("/stock/.")).status_code in {404, 422}
        assert (await client.get("/stock/A%2FB")).status_code == 404
    assert list(supplier.calls_by_path) == ["/stock/A%3Fprice=0"]


async def test_no_cookie_travels_from_one_call_to_another(supplied: Any) -> None:
    partner, seen = FastAPI(), []

    @partner.get("/stock/{sku}")
    async def stock(sku: str, request: Request, response: Response) -> str:
        seen.append(dict(request.cookies))
        response.set_cookie("session", sku)
        return sku

    async with supplied(partner) as client:
        await client.get("/stock/ada")
        await client.get("/stock/bob")
    assert seen == [{}, {}]


async def test_the_client_is_closed_when_the_app_fails_and_made_anew_on_a_start(
    shipped: Any,
) -> None:
    async with serve(Supplier().app) as server:
        app = shipped(server.url)

        async def fail() -> None:
            async with in_process(app) as client:
                await client.get("/stock/A")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        for _ in range(500):
            if server.open_connections:
                await asyncio.sleep(0.01)
        assert server.open_connections == 0
        async with in_process(app) as client:
            assert (await client.get("/stock/A")).status_code == 200


async def test_a_client_made_in_each_loop_works_in_each(cells_of: Any) -> None:
    partner_at = (await cells_of("08").define("setup", "ship-client"))["partner_at"]

    async def ask(url: str) -> int:
        async with partner_at(url) as partner:
            return (await partner.client.get("/stock/A")).status_code

    async with serve(Supplier().app) as server:
        answers = [await asyncio.to_thread(asyncio.run, ask(server.url)) for _ in range(3)]
    assert answers == [200] * 3


async def test_deadlines_cost_httpx_seats_and_httpx2_none(cells_of: Any) -> None:
    hurried = (await cells_of("08").define("setup", "breaks-seats-hurried"))["hurried"]
    assert (await after_a_bad_moment(httpx, hurried)).get("Response", 0) < 10
    assert await after_a_bad_moment(httpx2, hurried) == {"Response": 10}


async def test_a_call_that_is_cancelled_as_it_starts_costs_httpx_a_seat_and_httpx2_none() -> None:
    async def seats_lost(library: Any) -> int:
        return sum([await _loses_its_seat(library, steps) for steps in range(20)])

    assert await seats_lost(httpx) > 0
    assert await seats_lost(httpx2) == 0


async def _loses_its_seat(library: Any, steps: int) -> bool:
    """Cancel a call after so many steps of the loop; return whether the only seat is gone then."""
    limits = library.Limits(max_connections=1)
    async with (
        serve(Supplier().app) as server,
        library.AsyncClient(
            base_url=server.url, limits=limits, trust_env=False, verify=False
        ) as client,
    ):
        call = asyncio.create_task(client.get("/stock/A"))
        for _ in range(steps):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        try:
            await client.get("/stock/A", timeout=library.Timeout(5, pool=ms(200)))
        except library.PoolTimeout:
            return True
        return False
