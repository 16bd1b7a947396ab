"""What lesson 19 ships, attacked: outages, hangs, visitors who leave, a cache without news."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
import stamina

from looplab.lab import in_process, serve, until
from looplab.shop.partners import PaymentService, Supplier
from looplab.shop.single_flight import SingleFlight
from looplab.stages.outage import Chain, calls_to, checkout, crowd, note_retries

pytestmark = pytest.mark.anyio


@pytest.fixture
async def names(cells_of: Callable[[str], Any]) -> Any:
    lesson = cells_of("19")
    await lesson.run("setup")
    stamina.instrumentation.set_on_retry_hooks([])
    names = lesson.names
    names["supplier"] = Supplier(latency=0.01)
    names["to_supplier"] = calls_to(names["supplier"])
    await lesson.run("pattern-caller", "budget-class", "budget-ask", "stale-class")
    names["budget"] = names["RetryBudget"]()
    await lesson.define("naive-ask", "fix-deadline")
    await lesson.run("ship-app")
    yield names
    stamina.instrumentation.set_on_retry_hooks(None)


@pytest.mark.parametrize(
    ("status", "calls"), [(400, 1), (404, 1), (422, 1), (500, 1), (429, 3), (503, 3), (504, 3)]
)
async def test_only_what_may_be_gone_in_a_moment_is_retried(
    names: Any, status: int, calls: int
) -> None:
    supplier = names["supplier"]
    supplier.failure_rate, supplier.failure_status = 1, status
    with pytest.raises(httpx.HTTPStatusError):
        await names["ask_patiently"](names["to_supplier"], "/stock/cup")
    assert supplier.calls == calls


async def test_a_bug_and_a_cancellation_are_not_retried(names: Any) -> None:
    tries = []

    async def fails(error: type[BaseException]) -> None:
        tries.append(error)
        raise error

    for error in (KeyError, asyncio.CancelledError):
        with pytest.raises(error):
            await names["patiently"](names["temporary"], fails, error)
    assert tries == [KeyError, asyncio.CancelledError]


async def test_a_refused_connection_is_retried_and_told(names: Any) -> None:
    retried = note_retries()
    async with httpx.AsyncClient(base_url="http://127.0.0.1:9", trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await names["ask_in_time"](client, "/stock/cup")
    assert [retry.retry_num for retry in retried] == [1, 2]


async def test_a_wait_that_reaches_its_maximum_has_no_jitter_left() -> None:
    retried = note_retries()
    caller = stamina.AsyncRetryingCaller(
        attempts=3, wait_initial=0.01, wait_jitter=1.0, wait_max=0.01
    )

    async def fails() -> None:
        raise ConnectionError

    for _ in range(3):
        with pytest.raises(ConnectionError):
            await caller(ConnectionError, fails)
    stamina.instrumentation.set_on_retry_hooks(None)
    assert [round(retry.wait_for, 6) for retry in retried] == [0.01] * 6


async def test_in_a_long_outage_retries_stay_at_a_tenth_of_the_calls(names: Any) -> None:
    supplier = names["supplier"]
    chain = Chain(supplier, warehouse=names["ask_within_budget"])
    calls = [(await crowd(chain, 50, failing=1)).calls for _ in range(4)]
    assert sum(calls) <= 4 * 50 * 1.1 + 5
    assert sum(calls[1:]) <= 3 * 50 * 1.1 + 1


async def test_a_budget_never_holds_more_than_its_spare(names: Any) -> None:
    budget = names["RetryBudget"](share=0.5, spare=2)
    for _ in range(100):
        budget.earn()
    assert [budget.spend() for _ in range(3)] == [True, True, False]


async def test_the_deadline_ends_the_waits_of_the_back_off_too(names: Any) -> None:
    names["supplier"].failure_rate = 1
    names["patiently"] = stamina.AsyncRetryingCaller(attempts=3, wait_initial=60, wait_max=60)
    async with asyncio.timeout(20):
        [ended] = await asyncio.gather(
            names["ask_in_time"](names["to_supplier"], "/stock/cup"), return_exceptions=True
        )
    assert isinstance(ended, TimeoutError)
    assert names["supplier"].calls == 1


async def test_a_hanging_supplier_has_at_most_three_calls_and_none_is_left(names: Any) -> None:
    supplier = names["supplier"]
    supplier.hang = True
    with pytest.raises(TimeoutError):
        await names["ask_in_time"](names["to_supplier"], "/stock/cup")
    assert supplier.calls == 3
    assert supplier.in_flight == 0


async def test_a_visitor_who_leaves_stops_the_retries_on_a_real_server(names: Any) -> None:
    supplier = names["supplier"]
    supplier.hang = True
    async with serve(supplier.app) as server, server.client() as client:
        asking = asyncio.create_task(names["ask_in_time"](client, "/stock/cup"))
        await until(lambda: supplier.calls == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: supplier.in_flight == 0)
        assert supplier.calls == 1


@pytest.mark.parametrize(("key", "charges"), [(None, 3), ("order-7", 1)])
async def test_late_payments_are_charged_once_for_each_key(
    names: Any, key: str | None, charges: int
) -> None:
    bank = PaymentService(latency=0.3)

    async def pay(client: httpx.AsyncClient) -> Any:
        return await names["patiently"](names["temporary"], names["charge"], client, "ada", key)

    assert await checkout(bank, pay, patience=0.1) == "ReadTimeout"
    assert bank.calls == 3
    assert len(bank.charges) == charges


async def test_a_bank_in_good_health_is_paid_once_and_the_customer_hears_it(names: Any) -> None:
    bank = PaymentService()
    assert await checkout(bank, names["charge"], "ada", patience=5) == "paid"
    assert len(bank.charges) == 1


async def test_a_visitor_who_leaves_does_not_take_the_answer_from_the_others(names: Any) -> None:
    asked, answer = [], asyncio.Event()

    async def fetch(key: str) -> str:
        asked.append(key)
        await answer.wait()
        return key.upper()

    cache = names["StaleCache"](fetch, fresh=60, usable=60)
    first, second = (asyncio.create_task(cache.get("cup")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    answer.set()
    assert await second == "CUP"
    assert await cache.get("cup") == "CUP"
    assert asked == ["cup"]


async def test_an_old_answer_bridges_an_outage_until_it_is_too_old(
    names: Any, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[Any] = ["seven"]

    async def fetch(_key: str) -> str:
        if not answers:
            raise httpx.ConnectError("the supplier is away")
        return answers.pop()

    cache = names["StaleCache"](fetch, fresh=0, usable=60)
    assert await cache.get("cup") == "seven"
    with caplog.at_level(logging.WARNING, "looplab.shop"):
        for _ in range(3):
            assert await cache.get("cup") == "seven"
            await until(lambda: not cache.flights.flights)
    assert [record.message for record in caplog.records] == [
        "no news of cup: ConnectError('the supplier is away')"
    ] * 3
    cache.usable = 0
    with pytest.raises(httpx.ConnectError):
        await cache.get("cup")


async def test_a_failed_flight_fails_all_who_wait_and_the_next_one_asks_again(names: Any) -> None:
    supplier = names["supplier"]
    supplier.failure_rate = 1
    cache = names["StaleCache"](names["fetch_stock"], fresh=60, usable=60)
    ended = await asyncio.gather(*(cache.get("cup") for _ in range(9)), return_exceptions=True)
    assert [type(error) for error in ended] == [httpx.HTTPStatusError] * 9
    assert supplier.calls <= 3
    supplier.failure_rate = 0
    assert (await cache.get("cup"))["sku"] == "cup"


async def test_keys_do_not_wait_for_one_another(names: Any) -> None:
    async def fetch(key: str) -> str:
        if key == "slow":
            await asyncio.Event().wait()
        return key

    cache = names["StaleCache"](fetch, fresh=60, usable=60)
    slow = asyncio.create_task(cache.get("slow"))
    assert await cache.get("quick") == "quick"
    await cache.flights.close()
    with pytest.raises(asyncio.CancelledError):
        await slow


async def test_closing_ends_what_is_under_way_and_may_be_done_twice() -> None:
    flights = SingleFlight()
    ended = []

    async def work(key: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(key)

    flight = flights.join("cup", work)
    assert flights.join("cup", work) is flight
    await asyncio.sleep(0)
    await flights.close()
    await flights.close()
    assert ended == ["cup"]
    assert flights.flights == {}


async def test_the_shop_answers_in_an_outage_and_says_when_to_come_back(names: Any) -> None:
    supplier = names["supplier"]
    async with in_process(names["app"]) as client:
        assert (await client.get("/stock/cup")).status_code == 200
        supplier.failure_rate = 1
        supplier.reset()
        answers = await asyncio.gather(*(client.get("/stock/cup") for _ in range(20)))
        refused = await asyncio.gather(*(client.get("/stock/pot") for _ in range(20)))
    await names["stock"].flights.close()
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.status_code for answer in refused} == {503}
    assert all(5 <= int(answer.headers["Retry-After"]) <= 15 for answer in refused)
    assert len({answer.headers["Retry-After"] for answer in refused}) > 1
    assert supplier.calls <= 6


async def test_a_crowd_is_counted_and_refuses_what_is_no_number() -> None:
    chain = Chain(Supplier())
    assert await crowd(chain, 4) == (4, 4, 4, 4)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="visitors"):
            await crowd(chain, wrong)
    with pytest.raises(ValueError, match="failure_rate"):
        await crowd(chain, 4, failing=2)


@pytest.fixture
async def deeper(cells_of: Callable[[str], Any]) -> Any:
    lesson = cells_of("19_deeper")
    await lesson.run("setup", "after-function", "after-hook", "hedge-function", "breaker-class")
    await lesson.define("breaker-call")
    lesson.names["supplier"] = Supplier()
    lesson.names["to_supplier"] = calls_to(lesson.names["supplier"])
    yield lesson.names
    stamina.instrumentation.set_on_retry_hooks(None)


@pytest.mark.parametrize("told", ["", "soon", "-1", "3600", "Fri, 31 Dec 1999 23:59:59 GMT", "²"])
async def test_what_cannot_be_waited_for_is_not_retried(deeper: Any, told: str) -> None:
    answer = httpx.Response(503, headers=[(b"Retry-After", told.encode())])
    assert deeper["told_to_wait"](answer) is None


async def test_retry_after_is_read_as_a_date_too(deeper: Any) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=1.9), usegmt=True)
    wait = deeper["told_to_wait"](httpx.Response(503, headers={"Retry-After": soon}))
    assert wait is None or 0 <= wait < 3
    assert 1 <= deeper["told_to_wait"](httpx.Response(503, headers={"Retry-After": "1"})) < 3


async def test_a_hedge_leaves_no_call_behind_however_it_ends(deeper: Any) -> None:
    ended = []

    async def call(seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        finally:
            ended.append(seconds)
        return "answer"

    assert await deeper["hedged"](call, 0.05, patience=0.01) == "answer"
    assert ended == [0.05] * 2
    left = asyncio.create_task(deeper["hedged"](call, 60, patience=0.01))
    await asyncio.sleep(0.1)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    assert ended[2:] == [60] * 2


async def test_a_quick_answer_and_a_quick_error_have_no_hedge(deeper: Any) -> None:
    calls = []

    async def call(error: Exception | None) -> str:
        calls.append(error)
        if error:
            raise error
        return "answer"

    assert await deeper["hedged"](call, None, patience=1) == "answer"
    with pytest.raises(LookupError):
        await deeper["hedged"](call, LookupError(), patience=1)
    assert len(calls) == 2


async def test_only_one_of_a_crowd_tries_when_the_pause_is_over(deeper: Any) -> None:
    supplier, breaker = deeper["supplier"], deeper["Breaker"](limit=2, pause=0.2)
    supplier.failure_rate = 1
    for _ in range(2):
        await deeper["guarded"](breaker, "/stock/cup")
    await asyncio.sleep(0.3)
    supplier.reset()
    crowd = [deeper["guarded"](breaker, "/stock/cup") for _ in range(9)]
    ended = await asyncio.gather(*crowd, return_exceptions=True)
    assert supplier.calls == 1
    assert sum(isinstance(one, ConnectionError) for one in ended) == 8
    with pytest.raises(ConnectionError):
        await deeper["guarded"](breaker, "/stock/cup")


async def test_a_404_and_a_cancelled_call_do_not_open_the_breaker(deeper: Any) -> None:
    supplier, breaker = deeper["supplier"], deeper["Breaker"](limit=2, pause=60)
    supplier.failure_rate, supplier.failure_status = 1, 404
    for _ in range(4):
        await deeper["guarded"](breaker, "/stock/cup")
    supplier.hang = True
    for _ in range(3):
        asking = asyncio.create_task(deeper["guarded"](breaker, "/stock/cup"))
        await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait({asking})
    breaker.let_in()
