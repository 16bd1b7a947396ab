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
from starlette.responses import PlainTextResponse

from looplab.lab import in_process, serve, until
from looplab.shop.partners import PaymentService, Supplier
from looplab.shop.single_flight import SingleFlight
from looplab.stages.outage import Chain, calls_to, checkout, crowd, note_retries
from looplab.stages.overload import _visit, overload, show_overloads

pytestmark = pytest.mark.anyio


@pytest.fixture
async def names(cells_of: Callable[[str], Any]) -> Any:
    lesson = cells_of("19")
    await lesson.run("setup")
    stamina.instrumentation.set_on_retry_hooks([])
    names = lesson.names
    names["supplier"] = Supplier(latency=0.01)
    names["to_supplier"] = calls_to(names["supplier"])
    await lesson.run("pattern-caller", "budget-class", "budget-ask")
    names["budget"] = names["RetryBudget"]()
    await lesson.define("naive-ask")
    await lesson.run("fix-deadline", "ship-app")
    deeper = cells_of("19_deeper")
    await deeper.run("setup", "post-rule")
    names["nothing_done"] = deeper.names["nothing_done"]
    yield names
    stamina.instrumentation.set_on_retry_hooks(None)


@pytest.fixture
def unhurried(names: Any) -> Any:
    """The names, where no attempt takes too long: a pause of a busy machine would be a time-out."""
    names["per_attempt"] = 60.0
    return names


@pytest.mark.parametrize(
    ("status", "calls"),
    [(400, 1), (404, 1), (422, 1), (500, 1), (429, 3), (502, 3), (503, 3), (504, 3)],
)
async def test_only_what_may_be_gone_in_a_moment_is_retried(
    names: Any, status: int, calls: int
) -> None:
    supplier = names["supplier"]
    supplier.failure_rate, supplier.failure_status = 1, status
    with pytest.raises(httpx.HTTPStatusError):
        await names["ask_patiently"](names["to_supplier"], "/stock/cup")
    assert supplier.calls == calls


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (httpx.ConnectError("nobody listens"), True),
        (httpx.ConnectTimeout("no connection"), True),
        (httpx.ReadTimeout("no answer"), True),
        (httpx.ReadError("it broke"), True),
        (httpx.RemoteProtocolError("it broke"), True),
        (TimeoutError(), True),
        (httpx.DecodingError("no answer that can be read"), False),
        (KeyError("a bug"), False),
        (asyncio.CancelledError(), False),
    ],
)
async def test_what_is_retried_is_what_the_table_says(
    names: Any, error: BaseException, retried: bool
) -> None:
    assert names["temporary"](error) is retried


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (httpx.ConnectError("nobody listens"), True),
        (httpx.ConnectTimeout("no connection"), True),
        (httpx.PoolTimeout("no connection is free"), True),
        (httpx.ReadTimeout("no answer"), False),
        (httpx.WriteTimeout("half of it was sent"), False),
        (httpx.ReadError("it broke"), False),
        (httpx.WriteError("it broke"), False),
        (httpx.RemoteProtocolError("it broke"), False),
        (TimeoutError(), False),
        (asyncio.CancelledError(), False),
        (KeyError("a bug"), False),
    ],
)
async def test_a_post_without_a_key_is_repeated_only_if_it_was_never_sent(
    names: Any, error: BaseException, retried: bool
) -> None:
    assert names["nothing_done"](error) is retried


@pytest.mark.parametrize(
    ("status", "calls"), [(404, 1), (500, 1), (502, 1), (504, 1), (429, 3), (503, 3)]
)
async def test_a_post_without_a_key_is_repeated_only_after_a_refusal(
    unhurried: Any, status: int, calls: int
) -> None:
    names, supplier = unhurried, unhurried["supplier"]
    supplier.failure_rate, supplier.failure_status = 1, status
    to_supplier, attempt = names["to_supplier"], names["ask_once"]
    with pytest.raises(httpx.HTTPStatusError):
        await names["patiently"](names["nothing_done"], attempt, to_supplier, "/stock/cup")
    assert supplier.calls == calls


async def test_a_late_payment_without_a_key_is_charged_once_by_who_does_not_ask_again(
    names: Any,
) -> None:
    bank = PaymentService(latency=0.3)

    async def pay(client: httpx.AsyncClient) -> Any:
        return await names["patiently"](names["nothing_done"], names["charge"], client, "ada")

    assert await checkout(bank, pay, patience=0.1) == "ReadTimeout"
    assert (bank.calls, len(bank.charges)) == (1, 1)


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


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_temporary_fault_is_a_503_that_says_when_to_come_back(
    names: Any, status: int
) -> None:
    supplier = names["supplier"]
    supplier.failure_rate, supplier.failure_status = 1, status
    async with in_process(names["app"]) as client:
        refused = await asyncio.gather(*(client.get("/stock/pot") for _ in range(20)))
    assert {answer.status_code for answer in refused} == {503}
    assert all(5 <= int(answer.headers["Retry-After"]) <= 15 for answer in refused)
    assert len({answer.headers["Retry-After"] for answer in refused}) > 1


async def test_a_supplier_that_hangs_is_a_503_too(names: Any) -> None:
    names["supplier"].hang = True
    async with in_process(names["app"]) as client:
        assert (await client.get("/stock/cup")).status_code == 503
    assert names["supplier"].in_flight == 0


@pytest.mark.parametrize("status", [400, 401, 404, 422, 500])
async def test_what_another_attempt_would_not_change_is_a_500_that_nobody_retries(
    unhurried: Any, status: int
) -> None:
    names, supplier = unhurried, unhurried["supplier"]
    supplier.failure_rate, supplier.failure_status = 1, status
    async with in_process(names["app"]) as client:
        refused = await client.get("/stock/cup")
    assert (refused.status_code, "Retry-After" in refused.headers) == (500, False)
    assert supplier.calls == 1
    with pytest.raises(httpx.HTTPStatusError) as error:
        refused.raise_for_status()
    assert not names["temporary"](error.value)
    assert not names["nothing_done"](error.value)


async def test_a_crowd_is_counted_and_refuses_what_is_no_number() -> None:
    chain = Chain(Supplier())
    assert await crowd(chain, 4) == (4, 4, 4, 4, 0.0)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="visitors"):
            await crowd(chain, wrong)
    with pytest.raises(ValueError, match="failure_rate"):
        await crowd(chain, 4, failing=2)


@pytest.fixture
async def deeper(cells_of: Callable[[str], Any]) -> Any:
    lesson = cells_of("19_deeper")
    await lesson.run("setup", "after-function", "after-hook", "hedge-function", "breaker-class")
    await lesson.run("stale-class", "shed-shop", "shed-refusal", "shed-class")
    await lesson.define("breaker-call")
    lesson.names["supplier"] = Supplier()
    lesson.names["to_supplier"] = calls_to(lesson.names["supplier"])
    yield lesson.names
    stamina.instrumentation.set_on_retry_hooks(None)


@pytest.mark.parametrize("told", ["", "soon", "-1", "3600", "Fri, 31 Dec 2100 23:59:59 GMT", "²"])
async def test_what_cannot_be_waited_for_is_not_retried(deeper: Any, told: str) -> None:
    answer = httpx.Response(503, headers=[(b"Retry-After", told.encode())])
    assert deeper["told_to_wait"](answer) is None


async def test_retry_after_is_read_as_a_date_too(deeper: Any) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=1.9), usegmt=True)
    wait = deeper["told_to_wait"](httpx.Response(503, headers={"Retry-After": soon}))
    assert 0 <= wait <= 2.2
    assert 1 <= deeper["told_to_wait"](httpx.Response(503, headers={"Retry-After": "1"})) <= 1.2


@pytest.mark.parametrize("ahead", [-3_600, -5, 0, 0.9])
async def test_a_date_that_is_past_means_that_the_partner_is_ready(
    deeper: Any, ahead: float
) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
    assert 0 <= deeper["told_to_wait"](httpx.Response(503, headers={"Retry-After": date})) <= 1.2
    request = httpx.Request("GET", "http://supplier")
    refused = httpx.Response(503, headers={"Retry-After": date}, request=request)
    error = httpx.HTTPStatusError("", request=request, response=refused)
    assert deeper["when_to_retry"](error) is not False


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


async def test_a_visitor_who_leaves_does_not_take_the_answer_from_the_others(deeper: Any) -> None:
    asked, answer = [], asyncio.Event()

    async def fetch(key: str) -> str:
        asked.append(key)
        await answer.wait()
        return key.upper()

    cache = deeper["StaleCache"](fetch, fresh=60, usable=60)
    first, second = (asyncio.create_task(cache.get("cup")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    answer.set()
    assert await second == "CUP"
    assert await cache.get("cup") == "CUP"
    assert asked == ["cup"]


async def test_an_old_answer_bridges_an_outage_until_it_is_too_old(
    deeper: Any, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[Any] = ["seven"]

    async def fetch(_key: str) -> str:
        if not answers:
            raise httpx.ConnectError("the supplier is away")
        return answers.pop()

    cache = deeper["StaleCache"](fetch, fresh=0, usable=60)
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


async def test_a_failed_flight_fails_all_who_wait_and_the_next_one_asks_again(deeper: Any) -> None:
    supplier = deeper["supplier"]
    supplier.failure_rate = 1

    async def fetch(sku: str) -> Any:
        return await deeper["ask"](deeper["to_supplier"], f"/stock/{sku}")

    cache = deeper["StaleCache"](fetch, fresh=60, usable=60)
    ended = await asyncio.gather(*(cache.get("cup") for _ in range(9)), return_exceptions=True)
    assert [type(error) for error in ended] == [httpx.HTTPStatusError] * 9
    assert supplier.calls == 1
    supplier.failure_rate = 0
    assert (await cache.get("cup"))["sku"] == "cup"


async def test_keys_do_not_wait_for_one_another(deeper: Any) -> None:
    async def fetch(key: str) -> str:
        if key == "slow":
            await asyncio.Event().wait()
        return key

    cache = deeper["StaleCache"](fetch, fresh=60, usable=60)
    slow = asyncio.create_task(cache.get("slow"))
    assert await cache.get("quick") == "quick"
    await cache.flights.close()
    with pytest.raises(asyncio.CancelledError):
        await slow


async def test_a_fresh_entry_is_served_without_a_call_and_an_old_one_is_renewed(
    deeper: Any,
) -> None:
    asked = []

    async def fetch(key: str) -> str:
        asked.append(key)
        return key

    cache = deeper["StaleCache"](fetch, fresh=30, usable=600)
    for _ in range(3):
        assert await cache.get("cup") == "cup"
    assert asked == ["cup"]
    value, since = cache.entries["cup"]
    cache.entries["cup"] = value, since - 31
    assert await cache.get("cup") == "cup"
    await until(lambda: not cache.flights.flights)
    assert await cache.get("cup") == "cup"
    assert asked == ["cup"] * 2


# ---------------------------------------------------------------- load shedding


async def body_of(client: httpx.AsyncClient, path: str) -> tuple[int, str]:
    answer = await client.get(path)
    return answer.status_code, answer.text


class Busy:
    """An ASGI app whose requests end when they are let go: by an error, or by an answer."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.go = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.loop = asyncio.get_running_loop()
        if scope["type"] != "http" or scope["path"] in {"/live", "/ready"}:
            return await PlainTextResponse("ready")(scope, receive, send)
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.go.wait()
            if scope["path"] == "/fails":
                raise LookupError
            await PlainTextResponse("answer")(scope, receive, send)
        finally:
            self.inside -= 1


def in_shed(app: Any, raise_errors: bool = True) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=raise_errors)
    return httpx.AsyncClient(transport=transport, base_url="http://shop")


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def require_all_places(shed: Any, busy: Busy, at_once: int, queue: int) -> None:
    """Fill each place once more: one that is lost would refuse somebody."""
    busy.go.set()
    async with in_shed(shed) as client:
        visits = (client.get("/works") for _ in range(at_once + queue))
        answers = await asyncio.gather(*visits)
    assert {answer.status_code for answer in answers} == {200}
    assert (shed.places._value, shed.slots._value) == (at_once + queue, at_once)
    assert busy.most <= at_once


async def test_two_work_two_wait_and_the_fifth_is_refused_at_once(deeper: Any) -> None:
    busy = Busy()
    shed = deeper["Shed"](busy, at_once=2, queue=2)
    async with in_shed(shed) as client:
        inside = [asyncio.create_task(client.get("/works")) for _ in range(4)]
        await turns()
        refused = await client.post("/works", content=b"x" * 100_000)
        assert (refused.status_code, busy.inside) == (503, 2)
        assert 1 <= int(refused.headers["Retry-After"]) <= 5
        for probe in ("/live", "/ready"):
            assert (await client.get(probe)).text == "ready"
        assert not any(task.done() for task in inside)
        busy.go.set()
        assert [(await task).text for task in inside] == ["answer"] * 4
    await require_all_places(shed, busy, 2, 2)


async def test_a_request_that_fails_gives_its_place_back(deeper: Any) -> None:
    busy = Busy()
    shed = deeper["Shed"](busy, at_once=2, queue=1)
    busy.go.set()
    async with in_shed(shed, raise_errors=False) as client:
        for _ in range(5):
            assert (await client.get("/fails")).status_code == 500
        await asyncio.gather(*(client.get("/works") for _ in range(3)))
    await require_all_places(shed, busy, 2, 1)


async def test_who_is_cancelled_while_queued_or_working_gives_the_place_back(deeper: Any) -> None:
    busy = Busy()
    shed = deeper["Shed"](busy, at_once=1, queue=3)
    for left in ([1], [0], [3, 2, 1], [0, 1, 2, 3]):  # the first works, the others are queued
        busy.go.clear()
        async with in_shed(shed) as client:
            tasks = [asyncio.create_task(client.get("/works")) for _ in range(4)]
            await turns()
            assert (await client.get("/works")).status_code == 503
            for number in left:
                tasks[number].cancel()
            await turns()
            busy.go.set()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert sum(isinstance(one, httpx.Response) for one in ended) == 4 - len(left)
    await require_all_places(shed, busy, 1, 3)


async def test_the_slot_goes_to_the_next_when_its_receiver_is_cancelled_just_then(
    deeper: Any,
) -> None:
    busy = Busy()
    shed = deeper["Shed"](busy, at_once=1, queue=2)
    async with in_shed(shed) as client:
        first, second, third = (asyncio.create_task(client.get("/works")) for _ in range(3))
        await turns()
        busy.go.set()
        while not first.done() and busy.inside:  # noqa: ASYNC110 (each turn counts)
            await asyncio.sleep(0)
        second.cancel()
        assert (await first).text == (await third).text == "answer"
        await asyncio.wait({second})
    await require_all_places(shed, busy, 1, 2)


async def test_visitors_who_leave_a_real_server_give_their_places_back(deeper: Any) -> None:
    busy = Busy()
    shed = deeper["Shed"](busy, at_once=2, queue=2)
    async with serve(shed) as server, server.client(timeout=30) as client:
        leaving = [asyncio.create_task(client.get("/works")) for _ in range(4)]
        await until(lambda: shed.places.locked())
        for task in leaving:
            task.cancel()
        await asyncio.wait(leaving)
        assert (await client.get("/works")).status_code == 503  # the server goes on for them
        busy.loop.call_soon_threadsafe(busy.go.set)
        await until(lambda: not server.running_requests)
        assert [await body_of(client, "/works") for _ in range(4)] == [(200, "answer")] * 4
    assert shed.places._value == 4


async def test_websockets_and_the_lifespan_take_no_place(deeper: Any) -> None:
    seen = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope["type"])

    shed = deeper["Shed"](app, at_once=1, queue=0)
    await shed.places.acquire()
    for kind in ("lifespan", "websocket"):
        await shed({"type": kind, "path": "/works"}, None, None)
    assert seen == ["lifespan", "websocket"]


async def test_an_overload_counts_each_visitor_once(deeper: Any) -> None:
    rush: dict[str, Any] = {"requests": 12, "every": 0.001, "patience": 30.0}
    calm = await overload(deeper["report_shop"](), "/report", **rush)
    assert (calm.in_time, calm.refused, calm.for_nobody) == (12, 0, 0)
    assert len(calm.inside) == 4
    rush["patience"] = 0.0
    left = await overload(deeper["report_shop"](), "/report", **rush)
    assert (left.in_time, left.refused) == (0, 0)
    rush["requests"] = 3
    with pytest.raises(ValueError, match="requests"):
        await overload(deeper["report_shop"](), "/report", **rush)
    with pytest.raises(ValueError, match="overloads is empty"):
        show_overloads({})


async def test_a_visitor_whose_connection_is_dropped_has_no_answer() -> None:
    dropping = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with dropping:
        host, port = dropping.sockets[0].getsockname()
        assert await _visit(httpx.URL(f"http://{host}:{port}"), "/report", patience=30) == 0
