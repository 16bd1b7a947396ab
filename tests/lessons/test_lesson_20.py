# ruff: noqa: ASYNC110, PT012 (Redis and processes set no event; the block is what is tested)
"""What lesson 20 ships, attacked: slots that are killed, late, cancelled; workers that stop."""

import ast
import asyncio
import inspect
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import nullcontext
from typing import Any

import asyncpg
import httpx
import pytest
import redis.asyncio
import uvicorn
from fastapi import HTTPException
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from uvicorn.server import HANDLED_SIGNALS

from looplab.lab import until
from looplab.shop.redis import URL_VARIABLE, serve_redis
from looplab.stages import checkout
from looplab.stages.child import Child, WorkerFailed
from looplab.stages.fleet import Fleet, Worker
from looplab.stages.one_port import OnePort
from looplab.stages.postgres import VARIABLE, on_postgres

pytestmark = pytest.mark.anyio


# ---------------------------------------------------------------- the stage is the lesson


@pytest.mark.parametrize(
    ("lesson", "cell", "name"),
    [
        ("20", "naive-order", "order_with_semaphore"),
        ("20", "pattern-take", "SlotsBusy"),
        ("20", "pattern-take", "take_slot"),
        ("20", "pattern-release", "release_slot"),
        ("20", "pattern-slot", "shared_slot"),
        ("20", "pattern-order", "order_with_shared_slots"),
        ("20", "drain-ready", "ready"),
        ("20", "drain-server", "DrainingServer"),
        ("20_deeper", "cache-memory", "get_price_from_memory"),
        ("20_deeper", "cache-memory-put", "put_price_into_memory"),
        ("20_deeper", "cache-redis", "get_price_from_redis"),
        ("20_deeper", "cache-redis", "put_price_into_redis"),
    ],
)
def test_what_the_workers_do_is_what_the_lesson_shows(
    cells_of: Callable[[str], Any], bare: Callable[..., str], lesson: str, cell: str, name: str
) -> None:
    shown = cells_of(lesson).defined(cell, name)
    run = ast.parse(inspect.getsource(getattr(checkout, name))).body[0]
    assert bare(shown, keep=["cents"]) == bare(run, keep=["cents"])


async def test_script_limits_and_counter_are_those_of_the_lesson(
    cells_of: Callable[[str], Any],
) -> None:
    lesson = cells_of("20")
    await lesson.run("setup", "pattern-script")
    assert lesson.names["TAKE"] == checkout.TAKE
    assert f"limits = {checkout.limits!r}".replace("'", '"') in lesson.source("pattern-order")
    counter = inspect.getsource(checkout.order_with_counter)
    shown = lesson.source("breaks-killed-prose").partition("```python\n")[2].partition("```")[0]
    run = counter[counter.index("    while") :].replace("here.redis", "redis")
    assert inspect.cleandoc(shown) == inspect.cleandoc(run)


# ---------------------------------------------------------------- slots that are shared


@pytest.fixture(params=["embedded", "server"])
async def client(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[redis.asyncio.Redis]:
    if request.param == "server":
        monkeypatch.setenv(URL_VARIABLE, request.getfixturevalue("redis_server"))
    async with (
        serve_redis() as address,
        redis.asyncio.Redis.from_url(address, decode_responses=True) as opened,
    ):
        await opened.delete("slots")
        yield opened


@pytest.fixture
async def shared_slot(cells_of: Callable[[str], Any]) -> Any:
    lesson = cells_of("20")
    await lesson.run("setup", "pattern-script", "pattern-take", "pattern-release", "pattern-slot")
    lesson.names["shared_slot"].busy = lesson.names["SlotsBusy"]
    return lesson.names["shared_slot"]


def slot(shared_slot: Any, client: Any, **settings: Any) -> Any:
    return shared_slot(client, "slots", **({"limit": 2, "lease": 30, "patience": 30} | settings))


async def test_twenty_at_once_hold_two_slots_and_leave_none(
    shared_slot: Any, client: redis.asyncio.Redis
) -> None:
    at_once = most = 0

    async def works() -> None:
        nonlocal at_once, most
        async with slot(shared_slot, client):
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.005)
            at_once -= 1

    await asyncio.gather(*(works() for _ in range(20)))
    assert most == 2
    assert await client.zcard("slots") == 0


async def test_a_slot_whose_holder_fails_is_free_and_the_error_comes_out(
    shared_slot: Any, client: redis.asyncio.Redis
) -> None:
    with pytest.raises(LookupError):
        async with slot(shared_slot, client):
            raise LookupError
    assert await client.zcard("slots") == 0


async def test_no_slot_in_time_is_an_error_of_its_own_and_takes_none(
    shared_slot: Any, client: redis.asyncio.Redis
) -> None:
    assert not issubclass(shared_slot.busy, TimeoutError)
    async with slot(shared_slot, client, limit=1):
        with pytest.raises(shared_slot.busy):
            async with slot(shared_slot, client, limit=1, patience=0.05):
                pytest.fail("two hold one slot")
        assert await client.zcard("slots") == 1


async def test_no_slot_in_time_is_said_though_redis_py_loses_the_cancel(
    shared_slot: Any, client: redis.asyncio.Redis, losing_a_cancel: Callable[..., Any]
) -> None:
    async with slot(shared_slot, client, limit=1):
        with losing_a_cancel(client, "eval") as lost:
            async with asyncio.timeout(5):
                with pytest.raises(shared_slot.busy):
                    async with slot(shared_slot, client, limit=1, patience=0.05):
                        pytest.fail("two hold one slot")
        assert lost == ["eval"]


async def test_a_dead_holders_slot_is_given_away_after_its_lease_and_not_before(
    shared_slot: Any, client: redis.asyncio.Redis
) -> None:
    taken = await client.eval(checkout.TAKE, 1, "slots", 1, 600, "dead")
    assert taken == 1
    assert await client.eval(checkout.TAKE, 1, "slots", 1, 600, "early") == 0
    async with slot(shared_slot, client, limit=1):
        assert await client.zscore("slots", "dead") is None


async def test_a_short_lease_does_not_end_a_long_one(
    shared_slot: Any, client: redis.asyncio.Redis
) -> None:
    async with slot(shared_slot, client):
        assert await client.eval(checkout.TAKE, 1, "slots", 2, 50, "short") == 1
        await asyncio.sleep(0.2)
        assert await client.zcard("slots") > 0
        assert 20_000 < await client.pttl("slots") <= 30_000


@pytest.mark.parametrize("silent", [("eval", "zrem"), ("zrem",)], ids=["always", "at the end"])
async def test_a_silent_redis_keeps_nobody_longer_than_patience_and_a_lease(
    silent: tuple[str, ...],
    shared_slot: Any,
    client: redis.asyncio.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def says_nothing(*_: Any) -> None:
        await asyncio.Event().wait()

    for command in silent:
        monkeypatch.setattr(client, command, says_nothing)
    gets_in = "eval" not in silent
    async with asyncio.timeout(20):
        with nullcontext() if gets_in else pytest.raises(shared_slot.busy):
            async with slot(shared_slot, client, patience=0.1, lease=0.5):
                assert gets_in
    assert "the lease will free a slot of slots" in caplog.text


async def test_who_works_too_long_is_cancelled_before_the_lease_ends(
    shared_slot: Any, client: redis.asyncio.Redis
) -> None:
    others = []
    with pytest.raises(TimeoutError):
        async with slot(shared_slot, client, limit=1, lease=2):
            try:
                await asyncio.sleep(60)
            finally:
                others.append(await client.eval(checkout.TAKE, 1, "slots", 1, 60_000, "other"))
    assert others == [0], "the lease was over while its holder still worked"


async def test_who_is_cancelled_while_waiting_or_working_leaves_no_slot(
    shared_slot: Any, client: redis.asyncio.Redis
) -> None:
    async def works() -> None:
        async with slot(shared_slot, client, limit=1):
            await asyncio.sleep(60)

    tasks = [asyncio.create_task(works()) for _ in range(3)]
    async with asyncio.timeout(20):
        while not await client.zcard("slots"):
            await asyncio.sleep(0.005)
    pending = set(tasks)
    async with asyncio.timeout(20):  # less than the block takes without a cancel
        while pending:  # on Python 3.11 redis-py can swallow a cancel
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=1)
    assert all(task.cancelled() for task in tasks)
    async with asyncio.timeout(20):
        while await client.zcard("slots"):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("limit", [0, 1], ids=["nobody gets a slot", "the charge hangs"])
async def test_only_an_order_that_never_had_a_slot_is_invited_to_come_again(
    limit: int, client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    charging = []

    async def hangs() -> None:
        charging.append(1)
        await asyncio.Event().wait()

    monkeypatch.setattr(checkout, "charge", hangs)
    monkeypatch.setattr(checkout.here, "redis", client, raising=False)
    monkeypatch.setattr(checkout.here, "prefix", "orders")
    limits = {"limit": limit, "lease": 0.5, "patience": 0.2 if limit == 0 else 20}
    monkeypatch.setattr(checkout, "limits", limits)
    with pytest.raises(HTTPException) as refused:
        await checkout.order_with_shared_slots()
    told = refused.value.status_code, "Retry-After" in (refused.value.headers or {})
    assert (told, len(charging)) == (((503, True), 0) if limit == 0 else ((504, False), 1))
    assert await client.zcard("orders:slots") == 0


async def test_without_redis_nobody_gets_in(shared_slot: Any, free_tcp_port: int) -> None:
    async with redis.asyncio.Redis(port=free_tcp_port, retry=Retry(NoBackoff(), 0)) as nowhere:
        with pytest.raises(RedisError):
            async with slot(shared_slot, nowhere):
                pytest.fail("it let somebody in")


async def test_without_redis_an_order_may_come_again(
    free_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with redis.asyncio.Redis(port=free_tcp_port, retry=Retry(NoBackoff(), 0)) as nowhere:
        monkeypatch.setattr(checkout.here, "redis", nowhere, raising=False)
        monkeypatch.setattr(checkout.here, "prefix", "orders")
        with pytest.raises(HTTPException) as refused:
            await checkout.order_with_shared_slots()
    assert refused.value.status_code == 503
    assert refused.value.headers


async def test_a_charge_that_is_done_stays_done_when_redis_fails_before_the_slot_is_given_back(
    client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def charged() -> None:
        pass

    async def fails(*_: Any) -> None:
        raise redis.exceptions.ConnectionError("Redis is away")

    monkeypatch.setattr(checkout, "charge", charged)
    monkeypatch.setattr(client, "zrem", fails)
    monkeypatch.setattr(checkout.here, "redis", client, raising=False)
    monkeypatch.setattr(checkout.here, "prefix", "orders")
    await client.delete("orders:slots")
    await checkout.order_with_shared_slots()
    assert "orders:slots" in caplog.text
    assert 0 < await client.pttl("orders:slots") <= checkout.limits["lease"] * 1_000


# ---------------------------------------------------------------- worker processes


@pytest.fixture
async def fleet() -> AsyncGenerator[Fleet]:
    opened = await Fleet.open()
    yield opened
    await opened.close()


@pytest.fixture
async def draining(fleet: Fleet) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of worker D, which has been told to stop and drains for a minute."""
    if sys.platform == "win32":
        pytest.skip("Windows has no SIGTERM")
    fleet.workers["D"] = Worker("D", fleet._arguments, pause=60)
    await fleet.ready("D")
    address = await fleet.workers["D"].address()
    fleet.workers["D"].terminate()
    async with httpx.AsyncClient(trust_env=False, base_url=address) as client:
        async with asyncio.timeout(20):
            while (await client.get("/ready")).status_code != 503:
                await asyncio.sleep(0.01)
        yield client


async def test_a_draining_worker_still_works_on_new_connections(
    fleet: Fleet, draining: httpx.AsyncClient
) -> None:
    async with httpx.AsyncClient(trust_env=False, base_url=draining.base_url) as another:
        assert (await another.get("/price/memory")).json() == fleet.partner.cents
    assert fleet.workers["D"].alive


async def test_a_second_signal_skips_the_pause(fleet: Fleet, draining: httpx.AsyncClient) -> None:
    fleet.workers["D"].terminate()
    await fleet.workers["D"].ended()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
async def test_the_end_of_the_pause_is_no_further_ctrl_c_after_a_second_one(fleet: Fleet) -> None:
    worker = fleet.workers["D"] = Worker("D", fleet._arguments, pause=1)
    await fleet.ready("D")
    address = await worker.address()
    fleet.partner.slow = True
    async with httpx.AsyncClient(trust_env=False, base_url=address, timeout=30) as client:
        order = asyncio.create_task(client.post("/orders/semaphore"))
        async with asyncio.timeout(20):
            while not fleet.partner.at_once:
                await asyncio.sleep(0.01)
            worker.signal(signal.SIGINT)
            while (await client.get("/ready")).status_code != 503:
                await asyncio.sleep(0.01)
        worker.signal(signal.SIGINT)
        await asyncio.sleep(1.5)  # the pause of the first is over
        assert worker.alive
        fleet.partner.slow = False
        assert (await order).status_code == 200
    await worker.ended()


OWN_SERVER = """
import sys
import uvicorn
from looplab.stages.checkout import DrainingServer, app

DrainingServer.pause = 0.5
config = uvicorn.Config(app, port=int(sys.argv[1]), timeout_graceful_shutdown=30, log_config=None)
DrainingServer(config).run()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
async def test_the_server_runs_as_the_lesson_says_and_is_unready_before_it_ends(
    cells_of: Callable[[str], Any], free_tcp_port: int
) -> None:
    shown = cells_of("20").source("ship-prose")
    assert "uvicorn.Config(app, port=8000, timeout_graceful_shutdown=30)" in shown
    assert "DrainingServer(config).run()" in shown
    child = Child(["-c", OWN_SERVER, str(free_tcp_port)])
    seen = []
    try:
        async with (
            asyncio.timeout(60),
            httpx.AsyncClient(
                trust_env=False, base_url=f"http://127.0.0.1:{free_tcp_port}"
            ) as client,
        ):
            while child.alive:
                try:
                    status = (await client.get("/ready")).status_code
                except httpx.TransportError:
                    status = 0
                if status == 200 and 200 not in seen:
                    child.signal(signal.SIGTERM)
                seen.append(status)
                await asyncio.sleep(0.01)
    finally:
        await child.kill()
    answers = [status for status in dict.fromkeys(seen) if status]
    assert answers == [200, 503]


async def test_a_worker_ends_with_the_process_that_started_it(fleet: Fleet) -> None:
    fleet.start("A")
    await fleet.workers["A"].address()
    process = fleet.workers["A"]._process
    assert process.stdin is not None
    process.stdin.close()
    await fleet.workers["A"].ended()


FAST = """
import asyncio, sys, time
asyncio.BaseEventLoop.time = lambda self: time.monotonic() * 200
from looplab.stages import checkout
asyncio.run(checkout._work("0", "A", *sys.argv[1:], "10"))
"""


async def test_a_worker_serves_on_while_the_reader_pauses_for_minutes(fleet: Fleet) -> None:
    child = Child(["-c", FAST, *fleet._arguments])
    try:
        address = f"http://127.0.0.1:{int(await child.hear())}"
        await asyncio.sleep(1.5)  # five minutes by the worker's clock
        async with httpx.AsyncClient(trust_env=False, base_url=address) as client:
            assert (await client.get("/ready")).json() == "A"
    finally:
        await child.kill()


async def test_a_charge_of_three_seconds_keeps_its_slot(fleet: Fleet) -> None:
    fleet.start("A")
    await fleet.ready("A")
    fleet.partner.slow = True
    address = await fleet.workers["A"].address()
    async with httpx.AsyncClient(trust_env=False, base_url=address, timeout=60) as client:
        order = asyncio.create_task(client.post("/orders/shared"))
        await asyncio.sleep(3)
        fleet.partner.slow = False
        assert (await order).status_code == 200


async def test_the_lesson_draws_no_start_of_a_worker_that_had_ended(
    cells_of: Callable[[str], Any], fleet: Fleet
) -> None:
    lesson = cells_of("20")
    await lesson.run("setup")
    lesson.names["fleet"] = fleet
    fleet.start("A", "B")
    await fleet.ready("A", "B")
    for cell, drawn in (("naive-xray", "one"), ("pattern-xray", "shown")):
        await fleet.kill("A")
        await fleet.kill("B")
        await lesson.run(cell)
        names = [lane.name for lane in lesson.names[drawn].tasks]
        assert not [name for name in names if "_reap" in name or "_warm" in name], names
        assert sum("charges" in name for name in names) == 20, names


@pytest.mark.parametrize(
    ("with_partner", "refused"),
    [((4, 3, 3), 20), ((5, 3, 2), 15), ((5, 5, 0), 10)],
    ids=["no worker has all its slots there", "one has", "two have"],
)
async def test_a_worker_with_a_slot_to_spend_has_the_rest_of_its_ten_orders_refused(
    with_partner: tuple[int, ...], refused: int, fleet: Fleet
) -> None:
    fleet.start("A", "B", "C")
    await fleet.ready("A", "B", "C")
    fleet.partner.slow, there, came = True, 0, []

    def orders(number: int, name: str) -> None:
        rush = fleet.rush(number, "/orders/semaphore", name, in_batches=False)
        came.append(asyncio.create_task(rush))

    try:
        for name, number in zip("ABC", with_partner, strict=True):
            if number:
                orders(number, name)
                there += number
                await until(lambda there=there: fleet.partner.at_once == there)
        for name, number in zip("ABC", with_partner, strict=True):
            orders(10 - number, name)
            if number < 5:  # with the partner full, all of them are refused, one after another
                await came[-1]
    finally:
        fleet.partner.slow = False
    statuses = sum([rush.statuses for rush in await asyncio.gather(*came)], Counter())
    assert statuses == {200: 30 - refused, 502: refused}


async def test_with_shared_slots_no_order_fails_while_a_third_worker_is_there(fleet: Fleet) -> None:
    fleet.start("A", "B", "C")
    rush = await fleet.rush(30, "/orders/shared", "A", "B", "C")
    assert (rush.statuses, rush.refused, rush.most) == ({200: 30}, 0, 5)


async def test_a_worker_holds_orders_of_each_path_until_it_is_killed(fleet: Fleet) -> None:
    fleet.start("A")
    await fleet.hold("A", 5, "/orders/counter", "/orders/shared")
    assert fleet.partner.at_once == 10
    assert await fleet.redis.zcard(f"{fleet.prefix}:slots") == 5
    assert int(await fleet.redis.get(f"{fleet.prefix}:counter")) == 5
    await fleet.kill("A")


async def test_a_worker_that_cannot_start_says_why(fleet: Fleet) -> None:
    fleet._arguments = ["http://127.0.0.1:1"]
    fleet.start("A")
    with pytest.raises(WorkerFailed, match="prefix"):
        await fleet.ready("A")


async def test_a_worker_that_is_alive_is_not_started_again(fleet: Fleet) -> None:
    fleet.start("A")
    first = fleet.workers["A"]
    fleet.start("A")
    assert fleet.workers["A"] is first


async def test_a_killed_worker_is_held_and_killed_again_when_its_cell_runs_twice(
    fleet: Fleet,
) -> None:
    fleet.start("A")
    for _ in range(2):
        await fleet.hold("A", 5, "/orders/counter")
        assert fleet.partner.at_once == 5
        await fleet.kill("A")
        assert fleet.partner.at_once == 0
        assert int(await fleet.redis.get(f"{fleet.prefix}:counter")) == 5


async def test_the_partner_never_counts_beyond_the_first_that_he_refuses(fleet: Fleet) -> None:
    headers = {"X-Worker": "A"}
    async with fleet.partner_server.client(headers=headers, timeout=30) as client:
        charges = (client.post("/charges") for _ in range(40))
        answers = await asyncio.gather(*charges)
    assert sum(answer.status_code == 429 for answer in answers) == fleet.partner.refused > 0
    assert fleet.partner.most == 10 + 1


def test_uvicorn_still_calls_handle_exit_for_each_signal() -> None:
    assert "self.handle_exit" in inspect.getsource(uvicorn.Server.capture_signals)
    assert list(inspect.signature(uvicorn.Server.handle_exit).parameters)[1:] == ["sig", "frame"]
    assert signal.SIGTERM in HANDLED_SIGNALS


async def test_more_connections_than_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="connections=3"):
        await OnePort("http://127.0.0.1:1").ask(2, connections=3)


# ---------------------------------------------------------------- PostgreSQL


SECTIONS = {
    "time-section": "hangs_with_a_lock",
    "holder-section": "five_schedulers",
    "queue-section": "five_takers",
    "pool-section": "shares",
}


@pytest.mark.parametrize("cell", SECTIONS)
async def test_each_section_on_postgresql_keeps_its_claims(
    cell: str,
    cells_of: Callable[[str], Any],
    postgres_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, postgres_server)
    lesson = cells_of("20_deeper")
    claims: list[tuple[str, bool]] = []
    await lesson.define("setup", "queue-statements")
    await lesson.run("queue-statements")
    lesson.names["claim"] = lambda text, holds: claims.append((text, bool(holds)))
    await lesson.run(cell)
    assert await on_postgres(lesson.names[SECTIONS[cell]])
    assert len(claims) >= 2
    assert [text for text, holds in claims if not holds] == []


async def test_a_section_leaves_no_schema_and_no_connection_behind(
    postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, postgres_server)
    opened = []

    async def fails(connect: Any) -> None:
        opened.append(await connect(application_name="left-behind"))
        await opened[0].execute("CREATE TABLE kept (id int)")
        raise LookupError

    with pytest.raises(LookupError):
        await on_postgres(fails)
    assert opened[0].is_closed()
    looks = await asyncpg.connect(postgres_server)
    try:
        schemas = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'course\\_%'"
        assert await looks.fetchval(schemas) == 0
    finally:
        await looks.close()


async def test_a_schema_that_somebody_holds_a_lock_in_is_not_waited_for_for_ever(
    postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, postgres_server)
    monkeypatch.setattr("looplab.stages.postgres.DROP_WITHIN", 0.1, raising=False)
    outside = await asyncpg.connect(postgres_server)
    schemas: list[str] = []

    async def leaves_a_lock(connect: Any) -> None:
        inside = await connect()
        schemas.append(await inside.fetchval("SELECT current_schema()"))
        await inside.execute("CREATE TABLE kept (id int)")
        await outside.execute(f"BEGIN; LOCK TABLE {schemas[0]}.kept IN ACCESS SHARE MODE")

    try:
        with pytest.warns(ResourceWarning, match="could not be dropped"):
            async with asyncio.timeout(20):
                await on_postgres(leaves_a_lock)
    finally:
        await outside.execute(f"ROLLBACK; DROP SCHEMA {schemas[0]} CASCADE")
        await outside.close()


async def test_without_a_server_a_section_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)

    async def never(connect: Any) -> None:
        pytest.fail("there is no server")

    assert not await on_postgres(never)


async def test_the_share_of_each_worker_fits_and_the_pool_after_it_is_refused(
    postgres_server: str,
) -> None:
    looks = await asyncpg.connect(postgres_server)
    try:
        most = int(await looks.fetchval("SHOW max_connections"))
        share = (most - int(await looks.fetchval("SHOW superuser_reserved_connections")) - 2) // 5
    finally:
        await looks.close()
    if most > 100:
        pytest.skip("the server is not the tests' own")
    pools = []
    try:
        for _ in range(5):
            pools.append(await asyncpg.create_pool(postgres_server, min_size=share, max_size=share))
        # as superuser, the reserved ones can be had as well
        with pytest.raises(asyncpg.TooManyConnectionsError):
            pools.append(await asyncpg.create_pool(postgres_server, min_size=share, max_size=share))
    finally:
        await asyncio.gather(*(pool.close() for pool in pools))


@pytest.mark.parametrize(
    ("cell", "old", "new", "claim"),
    [
        ("time-section", '"BEGIN; UPDATE', '"UPDATE', "The other gets the row"),
        ("holder-section", "advisory_lock(", "advisory_lock_shared(", "One of five"),
        (
            "holder-section",
            "        got = [await worker.fetchval(ask, ",
            '        got = [await worker.fetchval(ask.replace("lock(", "lock_shared("), ',
            "A dead holder is followed by one other",
        ),
        ("queue-section", "attempt = $2", "attempt >= $2", "The late one can't finish it"),
        ("pool-section", "room // pools", "room // 4", "Five pools fit"),
    ],
)
async def test_a_section_on_postgresql_that_is_broken_fails_its_claim(
    cell: str,
    old: str,
    new: str,
    claim: str,
    cells_of: Callable[[str], Any],
    postgres_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, postgres_server)
    lesson = cells_of("20_deeper")
    failed: list[str] = []

    def check(text: str, holds: object) -> None:
        if not holds:
            failed.append(text)
            raise LookupError

    await lesson.define("setup")
    for identity in dict.fromkeys(["queue-statements", cell]):
        source = lesson._cells[identity]["source"]
        lesson._cells[identity]["source"] = source.replace(old, new)
        await lesson.run(identity)
    lesson.names["claim"] = check
    with pytest.raises(LookupError):
        await on_postgres(lesson.names[SECTIONS[cell]])
    assert failed[0].startswith(claim)
