"""What lesson 15 ships, attacked: errors, hangs, kills, shutdowns, a Redis that is away or real."""

import ast
import asyncio
import inspect
import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest
import redis.asyncio
from fastapi import BackgroundTasks, Depends, FastAPI, Request
from taskiq import ScheduledTask, TaskiqResult
from taskiq.exceptions import SendTaskError

from looplab.lab import in_process, serve, until
from looplab.shop.newcomers import Reports
from looplab.shop.redis import URL_VARIABLE, delete_keys, serve_redis
from looplab.stages import settling
from looplab.stages.back_office import (
    BackOffice,
    FrontDesk,
    ScheduleSource,
    app_with,
    one_order,
    working,
)
from looplab.stages.child import Child, WorkerFailed
from looplab.stages.dependencies import threads_at_most

pytestmark = pytest.mark.anyio

GIVEN_UP = 0.5  # seconds
PATIENCE = 30  # seconds that a job may take on a busy machine


@pytest.fixture
async def background(cells_of: Callable[[str], Any]) -> dict[str, Any]:
    cells = ("setup", "background-job", "background-class", "background-lifespan")
    names = await cells_of("15").define(*cells)
    names["log"] = logging.getLogger("shop")
    names["reports"] = Reports("shop")
    return names


@pytest.fixture
async def open_office() -> AsyncGenerator[Callable[..., Any]]:
    opened: list[BackOffice] = []

    async def opens(**settings: Any) -> BackOffice:
        settings = {"given_up_after": GIVEN_UP} | settings
        opened.append(await BackOffice.open(**settings))
        return opened[-1]

    yield opens
    for office in opened:
        await office.close()


@asynccontextmanager
async def jobs_of(office: BackOffice) -> AsyncGenerator[Any]:
    """Yield a broker, started, that knows both jobs."""
    broker = settling.make_broker(office.redis_url, office.queue)
    settling.register_jobs(broker)
    await broker.startup()
    try:
        yield broker
    finally:
        await broker.shutdown()


def kiq(broker: Any, name: str, *arguments: Any) -> Any:
    return broker.find_task(name).kiq(*arguments)


# ---------------------------------------------------------------- the stage is the lesson


@pytest.mark.parametrize(
    ("lesson", "cell", "name"),
    [
        ("15_deeper", "broker-settings", "make_broker"),
        ("15", "queue-job", "settle_with_new_keys"),
        ("15", "twice-job", "settle"),
        ("15_deeper", "told-results", "make_results"),
    ],
)
def test_what_the_worker_does_is_what_the_lesson_shows(
    cells_of: Callable[[str], Any], bare: Callable[..., str], lesson: str, cell: str, name: str
) -> None:
    shown = cells_of(lesson).defined(cell, name)
    shown.decorator_list = []  # the worker registers its jobs elsewhere
    run = ast.parse(inspect.getsource(getattr(settling, name))).body[0]
    assert bare(shown) == bare(run)


# ---------------------------------------------------------------- in one process


async def test_ten_jobs_wait_for_slots_and_one_that_hangs_is_given_up(
    background: dict[str, Any],
) -> None:
    at_once = most = 0

    async def busy() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1

    background["ms"] = lambda _: 0.3
    async with asyncio.TaskGroup() as group:
        jobs = background["Background"](group, at_once=2)
        for _ in range(10):
            jobs.start(busy)
        jobs.start(asyncio.Event().wait)
    assert most == 2
    assert background["reports"].errors == [TimeoutError]


@pytest.mark.parametrize(("at_most", "taken"), [(100, 100), (300, 300)])
async def test_of_three_hundred_jobs_each_is_done_or_refused_and_none_is_lost_in_silence(
    background: dict[str, Any], at_most: int, taken: int
) -> None:
    done: list[int] = []
    refused: list[int] = []

    async def works(number: int) -> None:
        await asyncio.sleep(0.1)
        done.append(number)

    background["ms"] = lambda _: 1.0  # ten of the fifteen rounds that three hundred jobs take
    async with asyncio.TaskGroup() as group:
        jobs = background["Background"](group, at_most=at_most)
        for number in range(300):
            try:
                jobs.start(works, number)
            except RuntimeError:
                refused.append(number)
    assert background["reports"].lines == []
    assert (len(done), len(refused)) == (taken, 300 - taken)
    assert sorted(done + refused) == list(range(300))


async def test_the_place_of_a_job_that_has_ended_is_free_again_however_it_ended(
    background: dict[str, Any],
) -> None:
    async def fails() -> None:
        raise LookupError

    async def cancelled() -> None:
        raise asyncio.CancelledError

    background["ms"] = lambda _: 0.1
    async with asyncio.TaskGroup() as group:
        jobs = background["Background"](group, at_most=1)
        for job in (fails, cancelled, asyncio.Event().wait, fails):
            jobs.start(job)
            with pytest.raises(RuntimeError, match="too many background jobs"):
                jobs.start(fails)
            await until(lambda: not jobs._jobs)
    assert background["reports"].errors == [LookupError, TimeoutError, LookupError]


async def test_a_job_that_cancels_itself_takes_no_other_with_it(background: dict[str, Any]) -> None:
    done = []

    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def works() -> None:
        await asyncio.sleep(0.01)
        done.append("works")

    async with asyncio.TaskGroup() as group:
        jobs = background["Background"](group)
        for job in (cancelled, works):
            jobs.start(job)
    assert done == ["works"]


async def test_jobs_outlive_the_request_that_started_them_and_its_client(
    background: dict[str, Any],
) -> None:
    done = []

    async def works() -> None:
        await asyncio.sleep(0.2)
        done.append("works")

    app = FastAPI(lifespan=background["lifespan"])

    @app.get("/orders")
    async def order(request: Request) -> None:
        request.state.background.start(works)
        await asyncio.sleep(60)

    async with serve(app) as server, server.client() as client:
        call = asyncio.create_task(client.get("/orders"))
        await until(lambda: server.running_requests == 1)
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.wait({call})
    assert done == ["works"]


async def test_a_partial_that_fails_is_reported_and_takes_no_other_job_with_it(
    background: dict[str, Any],
) -> None:
    done = []

    async def works(number: int) -> None:
        await asyncio.sleep(0)
        done.append(10 // number)

    async with asyncio.TaskGroup() as group:
        jobs = background["Background"](group)
        jobs.start(partial(works, 0))
        jobs.start(works, 1)
    assert background["reports"].errors == [ZeroDivisionError]
    assert done == [10]


async def test_an_error_of_a_job_is_reported_once_with_its_arguments(
    background: dict[str, Any],
) -> None:
    async def fails(number: int) -> None:
        raise LookupError(f"order {number}")

    async with asyncio.TaskGroup() as group:
        background["Background"](group).start(fails, 7)
    (line,) = background["reports"].lines
    assert "fails(7,) failed: LookupError: order 7" in line


async def test_a_dependency_with_yield_is_closed_after_the_background_task_unless_scoped() -> None:
    steps: list[str] = []

    async def dependency() -> AsyncGenerator[None]:
        yield
        steps.append("closed")

    async def work() -> None:
        steps.append("worked")

    for scope in (None, "function"):
        app = FastAPI()

        async def order(
            tasks: BackgroundTasks,
            _: Any = Depends(dependency, scope=scope),  # noqa: B008
        ) -> None:
            tasks.add_task(work)

        app.add_api_route("/orders", order, methods=["POST"])
        async with in_process(app) as client:
            await client.post("/orders")
    assert steps == ["worked", "closed", "closed", "worked"]


async def test_background_tasks_that_block_and_plain_endpoints_share_one_lot_of_threads() -> None:
    printed = threading.Event()
    app = FastAPI()

    @app.post("/orders")
    async def order(tasks: BackgroundTasks) -> None:
        tasks.add_task(printed.wait, PATIENCE)

    @app.get("/health")
    def health() -> str:
        return "well"

    with threads_at_most(2):
        async with in_process(app, wait_for_background=False) as client:
            for _ in range(2):
                await client.post("/orders")
            asked = asyncio.create_task(client.get("/health"))
            done, _ = await asyncio.wait({asked}, timeout=0.2)
            printed.set()
            assert (await asked).json() == "well"
    assert not done


async def test_of_two_jobs_that_begin_after_one_that_fails_each_is_done(
    background: dict[str, Any],
) -> None:
    done = []

    async def fails() -> None:
        raise LookupError

    async def works(number: int) -> None:
        await asyncio.sleep(0.01)
        done.append(number)

    app = FastAPI(lifespan=background["lifespan"])

    @app.post("/orders")
    async def order(request: Request) -> None:
        for job, arguments in ((works, (1,)), (fails, ()), (works, (2,))):
            request.state.background.start(job, *arguments)

    async with serve(app) as server, server.client() as client:
        await client.post("/orders")
    assert sorted(done) == [1, 2]
    assert background["reports"].errors == [LookupError]


async def test_while_an_invoice_is_mailed_a_connection_is_held_unless_the_session_is_brief(
    cells_of: Callable[[str], Any],
) -> None:
    cells = cells_of("15")
    names = await cells.run("setup")
    names["desk"] = desk = await FrontDesk.open(invoice=0.2)
    await cells.run("naive-app", "pattern-app")
    brief = Depends(names["get_session"], scope="function")
    names["Brief"] = names["Annotated"][names["AsyncSession"], brief]
    await cells.define("compare")
    held = {}
    for name in ("answer_first", "let_go_first"):
        ordering = asyncio.create_task(one_order(app_with(names[name])))
        await until(lambda: desk.mailer.in_flight == 1)
        held[name] = desk.shop.checked_out
        await ordering
    await desk.close()
    assert held == {"answer_first": 1, "let_go_first": 0}


# ---------------------------------------------------------------- the queue


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.redis)])
def each_redis(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the queue is: the fake, then a real server."""
    if request.param == "server":
        monkeypatch.setenv(URL_VARIABLE, request.getfixturevalue("redis_server"))
    else:
        monkeypatch.delenv(URL_VARIABLE, raising=False)
    return request.param


async def test_a_killed_workers_jobs_are_done_again_and_only_the_orders_key_charges_once(
    each_redis: str, open_office: Callable[..., Any]
) -> None:
    office = await open_office()
    first, second = office.workers
    async with jobs_of(office) as broker:
        office.mailer.hang = True
        await first.begin()
        kim = await kiq(broker, "settle_with_new_keys", "kim", 1)
        lou = await kiq(broker, "settle", "lou", 1)
        await until(lambda: office.mailer.in_flight >= 2)
        await first.kill()
        office.mailer.hang = False
        await second.begin()
        await asyncio.sleep(GIVEN_UP)
        await kiq(broker, "settle", "max", 1)
        for job in (kim, lou):
            assert not (await job.wait_result(timeout=PATIENCE)).is_err
        paid = [order.order_id for order in office.bank.charges]
    assert paid.count("kim") >= 2  # on a slow machine, the second attempt may be given up as well
    assert paid.count("lou") == 1


async def test_nothing_of_the_queue_is_left_on_a_server(
    redis_server: str, open_office: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, redis_server)
    office = await open_office(workers=1)
    async with jobs_of(office) as broker:
        await office.workers[0].begin()
        job = await kiq(broker, "settle", "ada", 1)
        await job.wait_result(timeout=PATIENCE)
        async with redis.asyncio.Redis.from_url(redis_server) as client:
            found = [key async for key in client.scan_iter(match=f"*{office.queue}*")]
            assert found
            await office.close()
            left = [key async for key in client.scan_iter(match=f"*{office.queue}*")]
    assert left == []


async def test_on_a_server_an_abandoned_job_waits_until_a_new_one_comes(
    redis_server: str, open_office: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, redis_server)
    office = await open_office()
    first, second = office.workers
    async with jobs_of(office) as broker:
        office.mailer.hang = True
        await first.begin()
        lou = await kiq(broker, "settle", "lou", 1)
        await until(lambda: office.mailer.in_flight == 1)
        await first.kill()
        office.mailer.hang = False
        office.mailer.reset()
        await second.begin()
        await asyncio.sleep(4 * GIVEN_UP + 2)  # two of the worker's looks, of 2 s each at most
        assert not await lou.is_ready()
        await kiq(broker, "settle", "max", 1)
        assert (await lou.wait_result(timeout=PATIENCE)).return_value == 1


async def test_jobs_that_came_before_the_first_worker_and_before_startup_are_done(
    each_redis: str, open_office: Callable[..., Any]
) -> None:
    office = await open_office(workers=1)
    broker = settling.make_broker(office.redis_url, office.queue)
    settling.register_jobs(broker)
    job = await kiq(broker, "settle", "early", 1)
    await office.workers[0].begin()
    assert (await job.wait_result(timeout=PATIENCE)).return_value == 1
    await broker.shutdown()


async def test_a_job_that_hangs_is_ended_by_its_time_out_and_tried_three_times(
    open_office: Callable[..., Any],
) -> None:
    office = await open_office(given_up_after=60, workers=1)
    async with jobs_of(office) as broker:
        office.mailer.hang = True
        await office.workers[0].begin()
        task = broker.find_task("settle")
        job = await task.kicker().with_labels(timeout=0.5).kiq("ada", 1)
        result = await job.wait_result(timeout=PATIENCE)
        assert result.is_err
        assert isinstance(result.error, TimeoutError)
        assert int(result.labels["_retries"]) == 2  # after the first attempt
        assert len(office.bank.charges) <= 1


async def test_jobs_that_were_aged_look_abandoned_and_those_that_wait_are_left_alone(
    each_redis: str, open_office: Callable[..., Any]
) -> None:
    office = await open_office(workers=0)
    async with jobs_of(office) as broker:
        for order in ("ada", "bob", "cyd"):
            await kiq(broker, "settle", order, 1)
        taken = await office.read_jobs(office.queue, count=2)
        assert await office.age_jobs(seconds=300) == 2
        async with redis.asyncio.Redis.from_url(office.redis_url) as client:
            out = await client.xpending_range(office.queue, "taskiq", "-", "+", 10, idle=299_000)
    assert [job["message_id"] for job in out] == taken


@pytest.fixture
async def shipped(
    cells_of: Callable[[str], Any], open_office: Callable[..., Any]
) -> dict[str, Any]:
    """The second helping's app with the lesson's job, and an office with one worker at work."""
    office = await open_office(workers=1, given_up_after=60)
    broker = settling.make_broker(office.redis_url, office.queue)
    settling.register_jobs(broker)

    class Settle:  # the app sends an order's number alone
        @staticmethod
        async def kiq(order_id: str) -> Any:
            return await kiq(broker, "settle", order_id, 1_999)

    cells = cells_of("15_deeper")
    names = await cells.define("setup")
    names.update(broker=broker, results=broker.result_backend, settle_order=Settle, office=office)
    await cells.run("told-app", "told-post")
    await office.workers[0].begin()
    return names


async def test_the_shipped_app_takes_an_order_twice_and_charges_it_once(
    shipped: dict[str, Any],
) -> None:
    office, broker = shipped["office"], shipped["broker"]
    async with in_process(shipped["api"]) as client:
        sent = [office.result_of(client, broker, "pia") for _ in range(3)]
        results = await asyncio.gather(*sent)
    assert [result.is_err for result in results] == [False] * 3
    assert [order.order_id for order in office.bank.charges] == ["pia"]


async def test_an_order_that_the_bank_refuses_has_a_result_that_says_so(
    shipped: dict[str, Any],
) -> None:
    office, broker = shipped["office"], shipped["broker"]
    office.bank.fault("ray", failure=True)
    async with in_process(shipped["api"]) as client:
        assert (await office.result_of(client, broker, "ray")).is_err
    assert office.bank.failures == 3


async def test_an_order_is_refused_and_not_lost_in_silence_when_redis_is_away(
    shipped: dict[str, Any], free_tcp_port: int
) -> None:
    away = settling.make_broker(f"redis://127.0.0.1:{free_tcp_port}/0", "away")
    settling.register_jobs(away)
    with pytest.raises(SendTaskError):
        await kiq(away, "settle", "ada", 1)
    await away.shutdown()
    await shipped["broker"].shutdown()


# ---------------------------------------------------------------- what the second helping ships


@pytest.fixture
async def telling(
    cells_of: Callable[[str], Any], open_office: Callable[..., Any]
) -> AsyncGenerator[dict[str, Any]]:
    """The second helping's app that tells how far a job is, with no worker."""
    cells = cells_of("15_deeper")
    names = await cells.define("setup")
    names["office"] = await open_office(workers=0)
    await cells.run("told", "told-app", "told-post", "told-get")
    yield names
    await names["broker"].shutdown()


async def test_only_a_job_that_was_sent_is_told_as_waiting_and_no_other_key_is_read(
    telling: dict[str, Any],
) -> None:
    async with in_process(telling["api"]) as client:
        job = (await client.post("/orders/pia")).json()["job"]
        asked = [job, str(UUID(job)), uuid4().hex, f"{job}__progress", "nobody"]
        answers = [(await client.get(f"/jobs/{one}")).status_code for one in asked]
    assert answers == [200, 200, 404, 422, 422]


async def test_a_job_that_failed_is_told_as_failed(telling: dict[str, Any]) -> None:
    async with in_process(telling["api"]) as client:
        job = (await client.post("/orders/pia")).json()["job"]
        failed = TaskiqResult(
            is_err=True, return_value=None, execution_time=0, error=LookupError("no bank")
        )
        await telling["results"].set_result(job, failed)
        assert (await client.get(f"/jobs/{job}")).json() == {"status": "failed"}


async def test_a_note_of_a_job_and_its_result_are_kept_for_a_day(telling: dict[str, Any]) -> None:
    async with in_process(telling["api"]) as client:
        await client.post("/orders/pia")
    office = telling["office"]
    async with redis.asyncio.Redis.from_url(office.redis_url) as client:
        (note,) = [key async for key in client.scan_iter(match=f"*{office.queue}*__progress")]
        assert 86_000 < await client.ttl(note) <= 86_400


async def test_trimming_while_workers_work_loses_no_job_and_leaves_no_finished_one(
    each_redis: str, cells_of: Callable[[str], Any], open_office: Callable[..., Any]
) -> None:
    cells = cells_of("15_deeper")
    names = await cells.define("setup", "full-trim")
    office = await open_office(workers=0)
    done: set[int] = set()

    async def note(number: int) -> None:
        await asyncio.sleep(0.001)
        done.add(number)

    broker = settling.make_broker(office.redis_url, office.queue)
    task = broker.task("note")(note)
    async with (
        redis.asyncio.Redis.from_url(office.redis_url) as client,
        working(broker),
    ):
        await broker.startup()
        for number in range(60):
            await task.kiq(number)
            await names["trim_finished"](client, office.queue)
        async with asyncio.timeout(PATIENCE):
            await all_acknowledged(client, office.queue)
        await names["trim_finished"](client, office.queue)
        left = await client.xlen(office.queue)
    assert done == set(range(60))
    assert left == 1  # the last that was read, which marks how far the group is


async def all_acknowledged(client: Any, queue: str) -> None:
    """Wait until each job was read and is acknowledged."""
    for pause in itertools.repeat(0.02):
        groups = await client.xinfo_groups(queue)
        unfinished = groups[0]["lag"] + groups[0]["pending"]
        if not unfinished:
            return
        await asyncio.sleep(pause)


@pytest.mark.parametrize(("at_once", "read"), [(1, 1), (100, 3)])
async def test_a_worker_with_one_place_reads_one_job_unless_it_reads_many_at_a_time(
    at_once: int, read: int, open_office: Callable[..., Any]
) -> None:
    office = await open_office(workers=0)
    broker: Any = settling.make_broker(office.redis_url, office.queue)
    broker.count = at_once
    begun = asyncio.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = broker.task("hang")(hang)
    for _ in range(3):
        await task.kiq()
    async with (
        redis.asyncio.Redis.from_url(office.redis_url) as client,
        working(broker, places=1),
    ):
        async with asyncio.timeout(PATIENCE):
            await begun.wait()
        await asyncio.sleep(0.2)
        out = await client.xpending(office.queue, "taskiq")
    assert out["pending"] == read


# ---------------------------------------------------------------- the worker process


def started(
    command: list[str], folder: Path, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


async def test_a_worker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = tmp_path / "starts_a_worker.py"
    script.write_text(
        "from looplab.stages.settling import Worker\n"
        "worker = Worker('redis://127.0.0.1:1/0', 'q', bank='', mailer='', given_up_after=1)\n"
        "print(worker.pid, flush=True)\n"
        "input()\n"
    )
    parent = started([sys.executable, str(script)], tmp_path)
    assert parent.stdout is not None
    worker = psutil.Process(int(await asyncio.to_thread(parent.stdout.readline)))
    parent.kill()
    await asyncio.to_thread(parent.communicate)
    with suppress(psutil.NoSuchProcess):
        await asyncio.to_thread(worker.wait, PATIENCE)
    assert not worker.is_running()


HURRIED = """
import asyncio, sys, threading, time
from looplab.stages import settling

since = None  # when the clock began to run 200 times as fast

def clock(loop):
    now = time.monotonic()
    return now if since is None else since + (now - since) * 200

def hurry_when_told():
    global since
    sys.stdin.readline()
    since = time.monotonic()

async def tick():
    while True:
        await asyncio.sleep(0.02)

async def work():
    ticking = asyncio.create_task(tick())  # the loop looks at its clock when it wakes
    await settling._work(*sys.argv[1:])

asyncio.BaseEventLoop.time = clock
threading.Thread(target=hurry_when_told, daemon=True).start()
print(settling.READY, flush=True)
asyncio.run(work())
"""


async def test_a_worker_waits_for_jobs_while_the_reader_pauses_for_minutes() -> None:
    async with serve_redis() as address:
        queue = f"course:{uuid4().hex}"
        worker = Child(["-c", HURRIED, address, queue, "300"])
        try:
            await worker.hear()
            async with redis.asyncio.Redis.from_url(address) as client:
                async with asyncio.timeout(60):
                    # Redis sets no event for either
                    while not await client.exists(queue):  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                    while not await client.xinfo_consumers(queue, "taskiq"):  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                worker.tell("hurry\n")  # not before: to connect may take a busy machine its time
                await asyncio.sleep(8)  # 27 minutes by the worker's clock
                assert worker.alive
                await delete_keys(client.execute_command, f"*{queue}*")
        finally:
            await worker.kill()


async def test_a_job_that_was_due_in_an_earlier_minute_is_sent_late_and_not_forgotten() -> None:
    async with serve_redis() as address:
        source = ScheduleSource(address, prefix=f"course:{uuid4().hex}:jobs-later")
        due = datetime.now(UTC) - timedelta(minutes=2)
        late = ScheduledTask(task_name="fails", labels={}, args=[], kwargs={}, time=due)
        await source.add_schedule(late)
        assert [one.schedule_id for one in await source.get_schedules()] == [late.schedule_id]
        await source.shutdown()


async def test_a_worker_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(settling, "__name__", "looplab.stages.no_such_module")
    worker = settling.Worker("redis://127.0.0.1:1/0", "q", bank="", mailer="", given_up_after=1)
    with pytest.raises(WorkerFailed, match="no_such_module"):
        await worker.begin()
    await worker.kill()


@pytest.fixture
async def commanded(
    redis_server: str,
    tmp_path: Path,
    open_office: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncGenerator[tuple[BackOffice, subprocess.Popen[str]]]:
    """An office, and a worker of it that was started by taskiq's own command."""
    monkeypatch.setenv(URL_VARIABLE, redis_server)
    office = await open_office(workers=0)
    (tmp_path / "tasks.py").write_text(
        "from looplab.stages.settling import make_broker, register_jobs\n"
        f"broker = make_broker({office.redis_url!r}, {office.queue!r})\n"
        "register_jobs(broker)\n"
    )
    addresses = office.addresses
    command = [sys.executable, "-m", "taskiq", "worker", "tasks:broker", "--workers", "1"]
    environment = os.environ | {"BANK_URL": addresses["bank"], "MAILER_URL": addresses["mailer"]}
    worker = started(command, tmp_path, dict(environment))
    yield office, worker
    office.mailer.release()
    worker.send_signal(signal.SIGTERM)
    await asyncio.to_thread(worker.communicate)


by_signal = pytest.mark.skipif(
    os.name == "nt", reason="taskiq's own command is asked to stop by SIGTERM"
)


@by_signal
@pytest.mark.redis
async def test_taskiqs_own_command_runs_the_lessons_broker(
    commanded: tuple[BackOffice, subprocess.Popen[str]],
) -> None:
    office, _ = commanded
    async with jobs_of(office) as broker:
        job = await kiq(broker, "settle", "ada", 1)
        assert (await job.wait_result(timeout=PATIENCE)).return_value == 1


@by_signal
@pytest.mark.redis
async def test_a_worker_that_is_asked_to_stop_ends_its_job_first_and_takes_no_other(
    commanded: tuple[BackOffice, subprocess.Popen[str]],
) -> None:
    office, worker = commanded
    async with jobs_of(office) as broker:
        office.mailer.hang = True
        in_hand = await kiq(broker, "settle", "ada", 1)
        await until(lambda: office.mailer.in_flight == 1)
        worker.send_signal(signal.SIGTERM)
        await asyncio.sleep(3)  # a read of the queue lasts for two
        late = await kiq(broker, "settle", "bob", 1)
        await asyncio.sleep(1)
        assert worker.poll() is None
        office.mailer.hang = False
        office.mailer.release()
        assert not (await in_hand.wait_result(timeout=PATIENCE)).is_err
        await asyncio.to_thread(worker.wait, PATIENCE)
        assert not await late.is_ready()
    assert [order.order_id for order in office.bank.charges] == ["ada"]
