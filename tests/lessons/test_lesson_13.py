"""Lesson 13: the parts that it ships, attacked as production would."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response

from looplab.lab import caught_leaks, in_process, ms, serve, until
from looplab.shop import Shop, storefront
from looplab.shop.newcomers import Reports
from looplab.stages.storefronts import Storefronts

pytestmark = pytest.mark.anyio

PAGES = [("GET", "/page/new")] * 6
SENT = 2  # how many times a burst is sent, once to warm up
Names = SimpleNamespace


def quick(milliseconds: float) -> float:
    """Return a tenth of what a lesson's ``ms`` would: its deadlines are too long for a test."""
    return milliseconds / 10_000


@pytest.fixture
def reports() -> Reports:
    return Reports("shop")


@pytest.fixture
async def lesson(cells_of: Any, reports: Reports) -> Names:
    """Return what the lesson defines."""
    cells = cells_of("13")
    await cells.run("setup")
    cells.names.update(log=storefront.log, diagnosis="")
    await cells.define("naive-partners", "naive-home", "repair-client", "repair-thread")
    await cells.define("repair-gather", "breaks-down-fixed", "exercise-stub", "exercise-solution")
    return SimpleNamespace(**cells.names, all=cells.names)


@pytest.fixture
async def deeper(cells_of: Any, reports: Reports) -> Names:
    """Return what the second helping's queue and its shared answers define."""
    cells = cells_of("13_deeper")
    await cells.run("setup")
    cells.names.update(log=storefront.log)
    await cells.define("queue-publish", "queue-work", "queue-delivering")
    await cells.define("shared-task", "shared-ask")
    return SimpleNamespace(**cells.names, all=cells.names)


@pytest.fixture
async def shop() -> AsyncGenerator[Shop]:
    shop = await storefront.open_stocked(6, 0.0, patience=5.0)
    yield shop
    await shop.close()


@pytest.fixture
def partners() -> storefront.Partners:
    return storefront.Partners(latency=0)


@pytest.fixture
async def service(shop: Shop, partners: storefront.Partners) -> Storefronts:
    return await Storefronts.of(shop, partners, visits=8, clients=4)


@pytest.fixture
def shipped(lesson: Names, shop: Shop) -> dict[str, Any]:
    """Return the parts that the lesson tells its reader to copy."""
    return {
        "shop": shop,
        "middleware": storefront.LendSessions,
        "partners": lesson.OneClient,
        "check_fraud": lesson.check_fraud_in_thread,
        "ask": lesson.all_at_once,
        "recommend": lesson.recommend_or_nothing,
    }


# ---------------------------------------------------------------- pages that survive a partner


def answering(body: bytes, status: int = 200) -> FastAPI:
    """Return a partner that gives everybody the same answer."""
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def answer(path: str) -> Response:
        return Response(body, status_code=status, media_type="application/json")

    return app


@pytest.mark.parametrize(
    ("body", "status"), [(b"{}", 503), (b"<html>", 200), (b"", 200), (b"{}", 404)]
)
async def test_an_answer_of_no_use_costs_no_page(
    service: Storefronts, shipped: Any, reports: Reports, body: bytes, status: int
) -> None:
    async with serve(answering(body, status)) as server:
        load = await service.burst(shipped, PAGES, url=server.url)
    assert load.failed == 0
    assert len(reports.lines) == SENT * 6


async def test_a_search_engine_that_is_gone_or_hangs_costs_no_page(
    service: Storefronts, shipped: Any, reports: Reports, partners: storefront.Partners
) -> None:
    async with serve(answering(b"")) as server:
        gone = server.url
    load = await service.burst(shipped, PAGES, url=gone)
    assert load.failed == 0
    assert all("no recommendations" in line for line in reports.lines)
    hanging = [("GET", f"/page/{storefront.HANGING}")] * 3
    assert (await service.burst(shipped, hanging)).failed == 0
    assert len(reports.lines) == SENT * (6 + 3)


async def test_without_a_net_an_error_of_the_partner_is_a_500(
    lesson: Names, service: Storefronts, shipped: Any
) -> None:
    shipped["recommend"] = lesson.recommend
    lesson.all["ms"] = lambda milliseconds: 10.0  # no deadline decides, however busy the machine
    async with serve(answering(b"{}", 503)) as server:
        load = await service.burst(shipped, PAGES, url=server.url)
    assert load.errors == {"status 500": 6}


async def test_of_the_lessons_load_no_request_fails_once_it_is_shipped(
    service: Storefronts, shipped: Any, reports: Reports
) -> None:
    assert (await service.burst(shipped, service.visits)).failed == 0
    assert [line for line in reports.lines if "no recommendations: TimeoutError" in line]


async def test_a_bug_of_ours_is_a_500_that_somebody_sees(
    lesson: Names, service: Storefronts, shipped: Any
) -> None:
    async def buggy(partners: Any, index: str) -> Any:
        raise KeyError(index)

    lesson.all["recommend"] = buggy
    lesson.all["ms"] = lambda milliseconds: 10.0
    assert (await service.burst(shipped, PAGES)).errors == {"status 500": 6}


# ---------------------------------------------------------------- connections and seats


async def test_a_burst_of_time_outs_loses_no_connection(lesson: Names) -> None:
    slow = asyncio.Event()
    app = FastAPI()

    @app.get("/")
    async def answer() -> dict[str, str]:
        if not slow.is_set():
            await asyncio.sleep(5)
        return {}

    async with serve(app) as server:
        one = lesson.OneClient(server.url)

        async def hurried(deadline: float) -> bool:
            try:
                async with asyncio.timeout(deadline):
                    await one.call_external_api("GET", "/")
            except TimeoutError:
                return False
            return True

        for _ in range(4):
            assert not any(await asyncio.gather(*[hurried(0.03) for _ in range(120)]))
        slow.set()
        lesson.all["ms"] = lambda milliseconds: 10.0
        assert all(await asyncio.gather(*[hurried(10) for _ in range(10)]))
        await one.aclose()


async def test_no_more_calls_than_slots_are_with_the_partner(lesson: Names) -> None:
    app, now, most = FastAPI(), 0, 0

    @app.get("/")
    async def answer() -> dict[str, str]:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        return {}

    lesson.all["ms"] = lambda milliseconds: 10.0
    async with serve(app) as server:
        one = lesson.OneClient(server.url)
        await asyncio.gather(*[one.call_external_api("GET", "/") for _ in range(60)])
        await one.aclose()
        assert server.connections <= 20
    assert most <= 20


async def test_the_shared_client_carries_no_cookie_from_one_call_to_the_next(
    lesson: Names,
) -> None:
    seen: list[dict[str, str]] = []
    app = FastAPI()

    @app.get("/")
    async def answer(request: Request, response: Response) -> dict[str, str]:
        seen.append(dict(request.cookies))
        response.set_cookie("session", "ada")
        return {}

    with caught_leaks() as leaks:
        async with serve(app) as server:
            one = lesson.OneClient(server.url)
            for _ in range(2):
                await one.call_external_api("GET", "/")
            await one.aclose()
    assert seen == [{}, {}]
    assert leaks.sentences == []


async def test_nobody_holds_a_connection_while_a_partner_answers(
    service: Storefronts, shipped: Any, shop: Shop, partners: storefront.Partners
) -> None:
    partners.search.hang = True
    async with service.running(shipped) as send:
        page = asyncio.create_task(send(("GET", "/page/new")))
        await until(lambda: partners.search.calls == 1)
        assert shop.checked_out == 0
        partners.search.hang = False
        assert (await page).status_code == 200


async def test_a_full_pool_is_a_503_that_says_when_to_come_back(
    partners: storefront.Partners, shipped: Any
) -> None:
    full = await storefront.open_stocked(1, 0.2, patience=0.05)
    user = await full.any_user()
    [product] = await full.products.get_featured(1)
    about = {"shop": full, "user_id": user, "product_id": product.id}
    parts: dict[str, Any] = {**shipped, **about}
    async with serve(partners.app) as server:
        app = storefront.storefront(**parts, url=server.url)
        async with in_process(app) as client:
            answers = await asyncio.gather(*[client.get("/page/new") for _ in range(3)])
    await full.close()
    assert {answer.status_code for answer in answers} == {503}
    assert all(answer.headers["retry-after"] == "1" for answer in answers)
    assert full.checked_out == 0


# ---------------------------------------------------------------- the queue that survives


async def test_no_letter_ends_the_worker(deeper: Names, reports: Reports) -> None:
    sent: list[str] = []
    deeper.all["ms"] = quick

    async def send(address: str) -> None:
        match address:
            case "bug":
                raise KeyError(address)
            case "late":
                await asyncio.Event().wait()
        sent.append(address)

    letters: asyncio.Queue[Any] = asyncio.Queue(maxsize=10)
    async with asyncio.timeout(10), deeper.delivering(letters, send):
        for address in ("bug", "late", "ada"):
            deeper.publish(letters, {"to": address})
        deeper.publish(letters, None)
        deeper.publish(letters, {})
        deeper.publish(letters, {"to": "bob"})
        await letters.join()
    assert sent == ["ada", "bob"]
    assert Counter(reports.errors) == {KeyError: 2, TimeoutError: 1, TypeError: 1}


async def test_a_full_queue_holds_up_no_order_and_no_shutdown(
    deeper: Names, reports: Reports
) -> None:
    deeper.all["ms"] = quick
    letters: asyncio.Queue[Any] = asyncio.Queue(maxsize=3)

    async def stubborn(address: str) -> None:
        while True:
            try:
                await asyncio.sleep(1)
                return
            except (asyncio.CancelledError, TimeoutError):
                await asyncio.sleep(0.2)

    before = asyncio.all_tasks()
    async with asyncio.timeout(10), deeper.delivering(letters, stubborn):
        for number in range(100):
            deeper.publish(letters, {"to": str(number)})
    assert sum("dropped" in line for line in reports.lines) == 97
    assert any("lost" in line for line in reports.lines)
    left = asyncio.all_tasks() - before
    assert len(left) <= 1  # one that refuses to be cancelled; nobody waits for it
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def test_a_send_that_cancels_itself_hangs_no_shutdown(
    deeper: Names, reports: Reports
) -> None:
    deeper.all["ms"] = quick
    letters: asyncio.Queue[Any] = asyncio.Queue(maxsize=3)

    async def send(address: str) -> None:
        raise asyncio.CancelledError

    async with asyncio.timeout(10), deeper.delivering(letters, send):
        for _ in range(3):
            deeper.publish(letters, {"to": "ada"})
    assert any("lost" in line for line in reports.lines)


async def test_what_the_block_raises_comes_out_and_letters_are_still_sent(deeper: Names) -> None:
    sent: list[str] = []
    letters: asyncio.Queue[Any] = asyncio.Queue(maxsize=3)

    async def send(address: str) -> None:
        sent.append(address)

    async def fails() -> None:
        async with deeper.delivering(letters, send):
            deeper.publish(letters, {"to": "ada"})
            raise TimeoutError("ours")

    with pytest.raises(TimeoutError, match="ours"):
        await fails()
    assert sent == ["ada"]


# ---------------------------------------------------------------- one question for all


class Partner:
    """Answers when it is let; ``calls`` lists what was asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[Any] = []
        self.let = asyncio.Event()
        self.error = error

    async def fetch(self, key: Any) -> Any:
        self.calls.append(key)
        await self.let.wait()
        if self.error is not None:
            raise self.error
        return key


def shared(names: Names, fetch: Any) -> Any:
    """Return a function that asks once, of the exercise or of the second helping."""
    if hasattr(names, "AskedOnce"):
        return names.AskedOnce(fetch, 60)
    return names.SharedAnswers(fetch, 60)


def ask(cache: Any, key: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(cache.get(key) if hasattr(cache, "get") else cache.rate(key))


@pytest.fixture(params=["lesson", "deeper"])
def names(request: pytest.FixtureRequest) -> Names:
    return request.getfixturevalue(request.param)


async def test_a_failure_is_shared_and_leaves_nothing(names: Names) -> None:
    partner = Partner(ConnectionError("down"))
    cache = shared(names, partner.fetch)
    visitors = [ask(cache, "EUR") for _ in range(20)]
    await asyncio.sleep(0.01)
    partner.let.set()
    ends = await asyncio.gather(*visitors, return_exceptions=True)
    assert [type(end) for end in ends] == [ConnectionError] * 20
    assert partner.calls == ["EUR"]
    assert not cache.asking
    assert not cache.known


async def test_a_question_that_hangs_is_ended_and_asked_again(names: Names) -> None:
    names.all["ms"] = lambda milliseconds: 0.02
    partner = Partner()
    cache = shared(names, partner.fetch)
    ends = await asyncio.gather(*[ask(cache, "EUR") for _ in range(3)], return_exceptions=True)
    assert [type(end) for end in ends] == [TimeoutError] * 3
    assert not cache.asking
    names.all["ms"] = ms
    partner.let.set()
    assert await ask(cache, "EUR") == "EUR"
    assert partner.calls == ["EUR", "EUR"]


async def test_all_leave_and_the_answer_is_kept_for_the_next(names: Names) -> None:
    partner = Partner()
    cache = shared(names, partner.fetch)
    visitors = [ask(cache, "EUR") for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for visitor in visitors:
        visitor.cancel()
    await asyncio.wait(visitors)
    partner.let.set()
    assert await ask(cache, "EUR") == "EUR"
    assert partner.calls == ["EUR"]


async def test_all_leave_and_a_failure_is_no_error_that_nobody_retrieved(
    names: Names, caplog: pytest.LogCaptureFixture
) -> None:
    partner = Partner(ConnectionError("down"))
    cache = shared(names, partner.fetch)
    visitor = ask(cache, "EUR")
    await until(lambda: bool(partner.calls))
    visitor.cancel()
    await asyncio.wait([visitor])
    partner.let.set()
    await until(lambda: not cache.asking)
    await asyncio.sleep(0)
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_keys_of_users_are_bounded_in_every_way(deeper: Names) -> None:
    now, most = 0, 0

    async def fetch(key: int) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        if key % 2:
            raise LookupError(key)
        return key

    clock = SimpleNamespace(now=0.0)
    cache = deeper.SharedAnswers(fetch, 60, size=50, clock=lambda: clock.now)
    ends = await asyncio.gather(*[ask(cache, key) for key in range(400)], return_exceptions=True)
    assert sum(isinstance(end, LookupError) for end in ends) == 200
    assert most == 10
    assert len(cache.known) == 50
    assert not cache.asking
    assert list(cache.known) == list(range(300, 400, 2))
    await ask(cache, 300)
    clock.now = 61
    await ask(cache, 300)  # young again, so it is the last to make room
    await ask(cache, 1000)
    assert 300 in cache.known
    assert 302 not in cache.known


async def test_an_answer_of_none_is_kept_too(deeper: Names) -> None:
    calls: list[str] = []

    async def fetch(key: str) -> None:
        calls.append(key)

    cache = deeper.SharedAnswers(fetch, 60)
    for _ in range(3):
        assert await ask(cache, "nothing") is None
    assert calls == ["nothing"]


async def test_six_orders_at_once_take_six_lamps(
    service: Storefronts, shipped: Any, shop: Shop
) -> None:
    [lamp] = await shop.products.get_featured(1)
    load = await service.burst(shipped, [("POST", "/orders")] * 6)
    assert load.failed == 0
    assert await storefront.in_stock(shop.sessions, lamp.id) == lamp.stock - SENT * 6
