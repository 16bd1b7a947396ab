"""Where lesson 13 tries its storefront."""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any, ClassVar
from uuid import uuid4

import httpx
import httpx2
import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from looplab.lab import LoadReport, Rounds, ms, xray
from looplab.lab.display import collected
from looplab.shop import Shop, storefront
from looplab.stages.storefronts import (
    Storefronts,
    answered_after_bursts,
    download,
    fetch_rate,
    fraud_score,
    waits_of_arrivals,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def shop() -> AsyncGenerator[Shop]:
    shop = await storefront.open_stocked(4, 0.0, patience=5)
    yield shop
    await shop.close()


@pytest.fixture
async def service(shop: Shop) -> Storefronts:
    return await Storefronts.of(shop, storefront.Partners(latency=0), visits=4, clients=2)


class Client:
    """Calls partners by a client of its own, and notes the URL that it was made for."""

    urls: ClassVar[list[str]] = []

    def __init__(self, url: str) -> None:
        self.urls.append(url)
        self.client = httpx2.AsyncClient(base_url=url)

    async def call_external_api(self, method: str, path: str, **more: Any) -> Any:
        return (await self.client.request(method, path, **more)).json()

    async def aclose(self) -> None:
        await self.client.aclose()


@pytest.fixture
def parts(shop: Shop) -> dict[str, Any]:
    async def pass_fraud(user_id: Any) -> None: ...

    async def ask(asked: Any) -> list[Any]:
        return [await question() for question in asked]

    async def recommend(partners: Any, index: str) -> Any:
        if index == storefront.HANGING:
            raise LookupError(index)
        return await partners.call_external_api("GET", f"/search/{index}/_search")

    return {
        "shop": shop,
        "middleware": storefront.LendSessions,
        "partners": Client,
        "check_fraud": pass_fraud,
        "ask": ask,
        "recommend": recommend,
    }


async def test_a_state_is_measured_three_times_and_remembered(
    service: Storefronts, parts: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = await service.measure("first", parts)
    again = await service.measure("second", parts)
    assert service.states == {"first": measured, "second": again}
    assert [len(report.samples) for report in measured.reports] == [4, 4, 4]
    assert measured.failed == 1  # the index for which recommend raises
    assert "second" in capsys.readouterr().out


async def test_partners_are_beside_it_or_where_a_url_says(service: Storefronts, parts: Any) -> None:
    pages = [("GET", "/page/new")] * 3
    assert (await service.burst(parts, pages)).failed == 0
    gone = Client.urls[-1]
    assert (await service.burst(parts, pages, url=gone)).errors == {"status 500": 3}
    assert Client.urls[-1] == gone


async def test_an_unknown_part_is_refused(service: Storefronts, parts: Any) -> None:
    with pytest.raises(TypeError, match="tell"):
        await service.burst({**parts, "tell": None}, service.visits)


async def test_an_x_ray_sends_all_visits_at_once(service: Storefronts, parts: Any) -> None:
    seen = await service.watch("both", parts, service.visits[:2], show=False)
    assert {"client 1", "client 2"} <= set(seen.names)


def state(*durations: float) -> Rounds:
    return Rounds(tuple(LoadReport(1, (), each, 0.0) for each in durations))


async def test_the_waterfall_says_what_cannot_be_told_from_noise(service: Storefronts) -> None:
    with pytest.raises(ValueError, match="0 states were measured"):
        service.show_waterfall(bound=0.1)
    service.states.update(
        first=state(1.0, 1.1), gather=state(1.05, 1.2), pool=state(0.2, 0.3, 0.25)
    )
    with collected() as outputs:
        service.show_waterfall(bound=0.1)
    shown = str([each for each in outputs if "image/png" not in each])
    assert "From 1,050 ms to 250 ms, 4.2 times as quick. Not told from noise: gather." in shown


async def test_the_fraud_library_holds_whoever_calls_it() -> None:
    began = time.perf_counter()
    fraud_score(uuid4())
    assert time.perf_counter() - began >= ms(59)


async def test_each_question_for_a_rate_is_marked() -> None:
    seen = await xray(fetch_rate("EUR"), show=False)
    assert seen.result == 1.08
    assert [mark.text for mark in seen.marks] == ["asks for EUR"]


async def test_bursts_lose_connections_of_httpx_and_slots_keep_them() -> None:
    lost = await answered_after_bursts(httpx, pool=0.5, slots=asyncio.Semaphore(40))
    kept = await answered_after_bursts(httpx2, pool=0.5, slots=asyncio.Semaphore(10))
    assert (lost, kept) == (0, 10)


async def test_a_download_that_is_cut_short_has_failed() -> None:
    app = FastAPI()

    @app.get("/")
    async def lines() -> PlainTextResponse:
        return PlainTextResponse("a\n" * 5)

    whole = await download(app, "/", lines=5)
    assert whole.failed == 0
    assert whole.peak is not None
    assert (await download(app, "/", lines=6)).errors == {"EOFError": 1}


async def test_arrivals_wait_for_nobody_before_them() -> None:
    under_way = most = 0

    async def send(number: int) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.2)
        under_way -= 1

    waits = await waits_of_arrivals(send, 5, rate=1_000)
    assert most == 5
    assert min(waits) >= 0.19
    with pytest.raises(ValueError, match="rate is 0"):
        await waits_of_arrivals(send, 1, rate=0)
