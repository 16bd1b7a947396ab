# ruff: noqa: ASYNC110 (counters set no event)
import asyncio
import threading
from contextlib import asynccontextmanager
from time import perf_counter

import httpx
import pytest
import uvicorn

from looplab.shop.partners import (
    Fault,
    Mailer,
    Partner,
    PaymentService,
    SearchEngine,
    Supplier,
)

pytestmark = pytest.mark.anyio


def client_of(partner):
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(partner.app), base_url="http://partner", timeout=None
    )


@asynccontextmanager
async def on_loopback(partner):
    """Serve the partner on a real socket, from a thread of its own; yield its address."""
    config = uvicorn.Config(
        partner.app, host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            await asyncio.sleep(0.001)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        while thread.is_alive():
            await asyncio.sleep(0.001)


async def send(client, to="ada@example.com"):
    return await client.post("/send", json={"to": to, "subject": "Hello"})


async def send_all(mailer, count):
    async with client_of(mailer) as client:
        return await asyncio.gather(*[send(client, f"{n}@example.com") for n in range(count)])


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


async def test_the_mailer_takes_letters():
    mailer = Mailer()
    async with client_of(mailer) as client:
        answer = await send(client)
    assert (answer.status_code, answer.json()) == (202, {"id": 1, "to": "ada@example.com"})
    assert [letter.to for letter in mailer.sent] == ["ada@example.com"]


async def test_counters():
    mailer = Mailer(failure_rate=1.0)
    await send_all(mailer, 5)
    assert (mailer.calls, mailer.failures, mailer.in_flight, mailer.peak_in_flight) == (5, 5, 0, 5)
    assert mailer.calls_by_path == {"/send": 5}
    assert mailer.sent == []
    mailer.reset()
    assert (mailer.calls, mailer.failures, mailer.peak_in_flight) == (0, 0, 0)
    assert mailer.calls_by_path == {}
    assert mailer.failure_rate == 1.0, "knobs stay"


async def test_a_partner_knows_when_its_calls_arrived():
    mailer = Mailer(latency=0.02)
    before = perf_counter()
    await send_all(mailer, 3)
    assert len(mailer.arrivals) == 3
    assert before <= mailer.arrivals[0] <= mailer.arrivals[1] <= mailer.arrivals[2]
    assert mailer.arrivals[2] < perf_counter() - 0.02, "not when they were answered"
    mailer.reset()
    assert mailer.arrivals == []


async def test_what_a_call_takes_with_so_many_under_way_can_be_asked():
    supplier = Supplier(latency=0.02, degrade_above=10, degradation=1.3)
    assert supplier.latency_at(10) == 0.02
    assert supplier.latency_at(20) == pytest.approx(0.02 * 2**1.3)
    assert Supplier(latency=0.02).latency_at(1_000) == 0.02


async def test_a_failure_has_the_status_asked_for():
    mailer = Mailer(failure_rate=1.0, failure_status=500)
    async with client_of(mailer) as client:
        answer = await send(client)
    assert (answer.status_code, answer.json()) == (500, {"detail": "mailer is unavailable"})


async def test_the_same_seed_meets_the_same_failures():
    async def outcomes(mailer):
        async with client_of(mailer) as client:
            return [(await send(client)).status_code for _ in range(40)]

    mailer = Mailer(failure_rate=0.3, seed=7)
    first = await outcomes(mailer)
    assert {202, 503} == set(first)
    mailer.reset()
    assert await outcomes(mailer) == first
    assert await outcomes(Mailer(failure_rate=0.3, seed=7, jitter=0.0001)) == first
    assert await outcomes(Mailer(failure_rate=0.3, seed=8)) != first


async def test_delays_are_latency_jitter_and_degradation():
    partner = Partner("any", latency=0.1, jitter=0.05, degrade_above=10, degradation=2.0)
    assert partner._delay(0.0, 1) == pytest.approx(0.1)
    assert partner._delay(1.0, 10) == pytest.approx(0.15)
    assert partner._delay(0.0, 20) == pytest.approx(0.1 * 4)
    partner.degradation = 1
    assert partner._delay(0.0, 20) == pytest.approx(0.1 * 2)
    partner.degrade_above = None
    assert partner._delay(0.0, 1_000) == pytest.approx(0.1)


async def test_too_many_at_once_are_served_after_the_few():
    mailer = Mailer(latency=0.02, degrade_above=2)
    await send_all(mailer, 6)
    assert [letter.to[0] for letter in mailer.sent[2:]] == ["2", "3", "4", "5"]
    assert {letter.to[0] for letter in mailer.sent[:2]} == {"0", "1"}


async def test_knobs_change_at_run_time():
    mailer = Mailer()
    async with client_of(mailer) as client:
        assert (await send(client)).status_code == 202
        mailer.failure_rate = 1
        assert (await send(client)).status_code == 503
        mailer.failure_rate = 0
        assert (await send(client)).status_code == 202


async def test_an_address_can_fail_be_slow_or_hang():
    mailer = Mailer()
    mailer.fault("broken@example.com", failure=True)
    mailer.fault("slow@example.com", latency=0.05)
    mailer.fault("hung@example.com", hang=True)
    async with client_of(mailer) as client:
        hung = asyncio.create_task(send(client, "hung@example.com"))
        slow = asyncio.create_task(send(client, "slow@example.com"))
        assert (await send(client, "broken@example.com")).status_code == 503
        assert (await send(client, "fine@example.com")).status_code == 202
        assert not slow.done()
        assert (await slow).status_code == 202
        assert not hung.done()
        hung.cancel()
        await asyncio.wait([hung])
    assert [letter.to for letter in mailer.sent] == ["fine@example.com", "slow@example.com"]
    mailer.faults.clear()
    async with client_of(mailer) as client:
        assert (await send(client, "broken@example.com")).status_code == 202


async def test_a_call_that_hangs_can_be_cancelled():
    before = asyncio.all_tasks()
    mailer = Mailer(hang=True)
    async with client_of(mailer) as client:
        call = asyncio.create_task(send(client))
        await until(lambda: mailer.in_flight == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert (mailer.in_flight, mailer.abandoned, mailer.sent) == (0, 1, [])
    assert asyncio.all_tasks() == before


async def test_a_call_that_waits_can_be_cancelled():
    mailer = Mailer(latency=60)
    async with client_of(mailer) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await send(client)
    assert (mailer.in_flight, mailer.abandoned, mailer.sent) == (0, 1, [])


async def test_hanging_calls_are_answered_when_the_knob_is_turned_back():
    mailer = Mailer(hang=True)
    async with client_of(mailer) as client:
        calls = [asyncio.create_task(send(client)) for _ in range(3)]
        await until(lambda: mailer.in_flight == 3)
        mailer.hang = False
        assert [(await call).status_code for call in calls] == [202, 202, 202]
    assert mailer.abandoned == 0


async def test_hanging_calls_end_with_the_app():
    mailer = Mailer(hang=True)
    async with mailer.app.router.lifespan_context(mailer.app), client_of(mailer) as client:
        call = asyncio.create_task(send(client))
        await until(lambda: mailer.in_flight == 1)
    assert (await call).status_code == 202


async def test_on_a_real_server_a_hanging_call_ends_when_its_caller_leaves():
    mailer = Mailer(hang=True)
    async with on_loopback(mailer) as url:
        async with httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(60, read=0.5)) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/send", json={"to": "ada@example.com"})
        await until(lambda: mailer.in_flight == 0)
        assert (mailer.abandoned, mailer.sent) == (1, [])


async def test_on_a_real_server_another_thread_releases_the_calls():
    mailer = Mailer(hang=True)
    async with on_loopback(mailer) as url, httpx.AsyncClient(base_url=url) as client:
        call = asyncio.create_task(send(client))
        await until(lambda: mailer.in_flight == 1)
        mailer.hang = False
        assert (await call).status_code == 202


@pytest.mark.parametrize(
    ("knob", "value", "error", "allowed"),
    [
        ("latency", -1, ValueError, "a finite number of seconds, 0 or more"),
        ("latency", "1", TypeError, "a number of seconds"),
        ("jitter", float("inf"), ValueError, "a finite number of seconds, 0 or more"),
        ("failure_rate", 1.5, ValueError, "a number from 0 to 1"),
        ("failure_status", 200, ValueError, "a whole number from 400 to 599"),
        ("hang", 1, TypeError, "True or False"),
        ("degrade_above", 0, ValueError, "a whole number, 1 or more"),
        ("degradation", -1, ValueError, "a number from 0 to 10"),
        ("degradation", "2", TypeError, "a number from 0 to 10"),
    ],
)
def test_a_bad_knob_is_refused_and_the_old_value_stays(knob, value, error, allowed):
    expected = f"{knob}={value!r}: must be {allowed}"
    with pytest.raises(error, match=expected):
        Mailer(**{knob: value})
    mailer = Mailer()
    before = getattr(mailer, knob)
    with pytest.raises(error, match=expected):
        setattr(mailer, knob, value)
    assert getattr(mailer, knob) == before


def test_a_bad_fault_is_refused():
    with pytest.raises(ValueError, match="latency=-1"):
        Mailer().fault("a@b.c", latency=-1)
    with pytest.raises(TypeError, match="hang='yes'"):
        Fault(hang="yes")  # ty: ignore[invalid-argument-type]


async def test_search_answers_in_the_shape_of_elasticsearch():
    async with client_of(SearchEngine()) as client:
        answer = await client.post(
            "/products/_search", json={"query": {"match": {"name": "lamp"}}, "size": 3}
        )
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {"took", "timed_out", "_shards", "hits"}
    assert body["timed_out"] is False
    assert body["hits"]["total"]["value"] > 3
    assert len(body["hits"]["hits"]) == 3
    for hit in body["hits"]["hits"]:
        assert set(hit) == {"_index", "_id", "_score", "_source"}
        assert "lamp" in hit["_source"]["name"]


async def test_every_query_that_search_knows():
    documents = [
        {"id": 1, "name": "Blue lamp", "text": "for a desk"},
        {"id": 2, "name": "Oak desk", "text": "with room for a lamp"},
        {"id": 3, "name": "Vase", "text": "glass"},
    ]
    engine = SearchEngine(documents={"things": documents})

    async def ids(**body):
        async with client_of(engine) as client:
            answer = await client.post("/things/_search", json=body)
        return [hit["_id"] for hit in answer.json()["hits"]["hits"]]

    assert await ids() == ["1", "2", "3"]
    assert await ids(query={"match_all": {}}, size=1) == ["1"]
    assert await ids(**{"query": {"match_all": {}}, "from": 1}) == ["2", "3"]
    assert await ids(query={"match": {"name": "LAMP"}}) == ["1"]
    assert await ids(query={"match": {"name": {"query": "oak desk"}}}) == ["2"]
    both = {"query": "oak lamp", "fields": ["name", "text"]}
    assert await ids(query={"multi_match": both}) == ["2", "1"]
    assert await ids(query={"match": {"name": "nothing"}}) == []
    async with client_of(engine) as client:
        answer = await client.get("/things/_search", params={"q": "lamp"})
    assert [hit["_id"] for hit in answer.json()["hits"]["hits"]] == ["1", "2"]


async def test_search_refuses_in_the_shape_of_elasticsearch():
    async with client_of(SearchEngine()) as client:
        missing = await client.post("/nowhere/_search", json={})
        unknown = await client.post("/products/_search", json={"query": {"fuzzy": {}}})
    assert (missing.status_code, unknown.status_code) == (404, 400)
    assert missing.json()["error"]["type"] == "index_not_found_exception"
    assert unknown.json()["error"]["type"] == "parsing_exception"
    assert unknown.json()["status"] == 400


async def test_payment_charges_once_a_key():
    payment = PaymentService()
    order = {"order_id": "a", "amount": 500}
    async with client_of(payment) as client:
        keyed = [
            await client.post("/charges", json=order, headers={"Idempotency-Key": "k"})
            for _ in range(2)
        ]
        again = await client.post("/charges", json=order)
        nothing = await client.post("/charges", json={"order_id": "b", "amount": 0})
    assert [answer.json() for answer in keyed] == [{"id": 1, **order}] * 2
    assert again.json()["id"] == 2
    assert nothing.status_code == 422
    assert [charge.amount for charge in payment.charges] == [500, 500]


async def test_the_supplier_answers_the_same_each_time():
    async def answer(sku):
        supplier = Supplier()
        async with client_of(supplier) as client:
            response = await client.get(f"/stock/{sku}")
        assert supplier.calls_by_path == {f"/stock/{sku}": 1}
        return response.json()

    assert await answer("lamp-1") == await answer("lamp-1")
    assert set(await answer("lamp-2")) == {"sku", "available", "lead_days"}


@pytest.mark.parametrize(
    ("partner", "request_", "subject"),
    [
        (SearchEngine, ("POST", "/products/_search", {}), "products"),
        (SearchEngine, ("GET", "/products/_search", None), "products"),
        (PaymentService, ("POST", "/charges", {"order_id": "a", "amount": 1}), "a"),
        (Supplier, ("GET", "/stock/s", None), "s"),
    ],
)
async def test_every_partner_heeds_its_knobs(partner, request_, subject):
    method, path, body = request_
    service = partner()
    service.fault(subject, failure=True)
    async with client_of(service) as client:
        assert (await client.request(method, path, json=body)).status_code == 503
        service.faults.clear()
        assert (await client.request(method, path, json=body)).is_success
        service.hang = True
        call = asyncio.create_task(client.request(method, path, json=body))
        await until(lambda: service.in_flight == 1)
        service.hang = False
        assert (await call).is_success
    assert (service.calls, service.failures) == (3, 1)


async def test_a_wait_is_seen_under_the_endpoint_s_name():
    mailer = Mailer(latency=0.01)
    async with client_of(mailer) as client:
        call = asyncio.create_task(send(client))
        await until(lambda: mailer.in_flight == 1)
        names, coroutine = [], call.get_coro()
        while coroutine is not None:
            code = getattr(coroutine, "cr_code", None)
            if code is not None and "partners" in code.co_filename.split("tests")[0]:
                names.append(code.co_name)
            coroutine = getattr(coroutine, "cr_await", None)
        await call
    assert names == ["send"]
