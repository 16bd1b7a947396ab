"""The check of lesson 01, with right answers and wrong ones."""

import asyncio
import multiprocessing
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import pytest
from fastapi import FastAPI, HTTPException

from support.exercises.blocking import EXERCISE, check_blocking
from support.exercises.supplier import fetch_prices, prices_of, summarise, watched

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy


def app_with(report: Callable[..., Any], **options: Any) -> FastAPI:
    app = FastAPI(**options)
    app.get("/report/{sku}")(report)

    @app.get("/ping")
    async def ping() -> dict[str, bool]:
        return {"ok": True}

    return app


async def in_threads(sku: str) -> Any:
    prices = await asyncio.to_thread(fetch_prices, sku)
    return {"sku": sku, "trend": await asyncio.to_thread(summarise, prices)}


async def in_one_thread(sku: str) -> Any:
    def both() -> Any:
        return {"sku": sku, "trend": summarise(fetch_prices(sku))}

    return await anyio.to_thread.run_sync(both)


def plain_def(sku: str) -> Any:
    return {"sku": sku, "trend": summarise(fetch_prices(sku))}


@pytest.mark.parametrize("report", [in_threads, in_one_thread, plain_def])
async def test_right_answers_pass(report) -> None:
    verdict = await check_blocking(app_with(report), limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


@pytest.mark.parametrize("io_too", [False, True])
async def test_a_process_pool_from_the_lifespan_passes(io_too) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as app.state.pool:
            yield

    async def report(sku: str) -> Any:
        loop = asyncio.get_running_loop()
        fetching = loop.run_in_executor(app.state.pool if io_too else None, fetch_prices, sku)
        summing = loop.run_in_executor(app.state.pool, summarise, await fetching)
        return {"sku": sku, "trend": await summing}

    app = app_with(report, lifespan=lifespan)
    verdict = await check_blocking(app, limit=AMPLE)
    assert verdict.passed, verdict.message


async def untouched(sku: str) -> Any:
    return {"sku": sku, "trend": summarise(fetch_prices(sku))}


async def sleep_zero(sku: str) -> Any:
    await asyncio.sleep(0)
    prices = fetch_prices(sku)
    await asyncio.sleep(0)
    return {"sku": sku, "trend": summarise(prices)}


async def only_io(sku: str) -> Any:
    return {"sku": sku, "trend": summarise(await asyncio.to_thread(fetch_prices, sku))}


async def only_cpu(sku: str) -> Any:
    return {"sku": sku, "trend": await asyncio.to_thread(summarise, fetch_prices(sku))}


async def fetch_called(sku: str) -> Any:
    prices = await asyncio.to_thread(fetch_prices(sku))  # ty: ignore[invalid-argument-type]
    return {"sku": sku, "trend": await asyncio.to_thread(summarise, prices)}


async def summary_called(sku: str) -> Any:
    prices = await asyncio.to_thread(fetch_prices, sku)
    loop = asyncio.get_running_loop()
    trend = await loop.run_in_executor(None, summarise(prices))  # ty: ignore[invalid-argument-type]
    return {"sku": sku, "trend": trend}


async def awaited(sku: str) -> Any:
    prices = await fetch_prices(sku)  # ty: ignore[invalid-await]
    return {"sku": sku, "trend": summarise(prices)}


async def forgot_fetch(sku: str) -> Any:
    prices: Any = asyncio.to_thread(fetch_prices, sku)
    return {"sku": sku, "trend": await asyncio.to_thread(summarise, prices)}


async def forgot_summary(sku: str) -> Any:
    prices = await asyncio.to_thread(fetch_prices, sku)
    return {"sku": sku, "trend": asyncio.to_thread(summarise, prices)}


def one_at_a_time() -> Callable[..., Any]:
    lock = asyncio.Lock()

    async def locked(sku: str) -> Any:
        async with lock:
            return await in_threads(sku)

    return locked


def one_thread() -> Callable[..., Any]:
    pool = ThreadPoolExecutor(1)

    async def queued(sku: str) -> Any:
        loop = asyncio.get_running_loop()
        prices = await loop.run_in_executor(pool, fetch_prices, sku)
        return {"sku": sku, "trend": await loop.run_in_executor(pool, summarise, prices)}

    return queued


async def sleeps_itself(sku: str) -> Any:
    time.sleep(0.12)  # noqa: ASYNC251
    return await in_threads(sku)


async def sleeps_in_a_task(sku: str) -> Any:
    async with asyncio.TaskGroup() as group:
        report = group.create_task(sleeps_itself(sku))
    return report.result()


async def computes_itself(sku: str) -> Any:
    deadline = time.thread_time() + 0.12
    while time.thread_time() < deadline:
        pass
    return await in_threads(sku)


async def dropped(sku: str) -> Any:
    await asyncio.to_thread(fetch_prices, sku)
    return {"sku": sku, "trend": None}


def shared() -> Callable[..., Any]:
    last: dict[str, Any] = {}

    async def confused(sku: str) -> Any:
        last["sku"] = sku
        answer = await in_threads(sku)
        return {**answer, "sku": last["sku"]}

    return confused


async def gone(sku: str) -> Any:
    raise HTTPException(410, "gone")


async def not_yet(sku: str) -> Any:
    raise NotImplementedError


async def divides(sku: str) -> Any:
    return 1 // 0


async def leaves(sku: str) -> Any:
    raise SystemExit(1)


async def cancels(sku: str) -> Any:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def spawns(sku: str) -> Any:
    spawned.append(asyncio.create_task(asyncio.Event().wait()))
    return await in_threads(sku)


spawned: list[Any] = []

WRONG: list[tuple[str, Callable[..., Any]]] = [
    ("untouched", untouched),
    ("sleep-zero", sleep_zero),
    ("only-io-mended", only_io),
    ("only-cpu-mended", only_cpu),
    ("called-not-passed", fetch_called),
    ("called-not-passed", summary_called),
    ("awaited-a-plain-function", awaited),
    ("forgotten-await", forgot_fetch),
    ("forgotten-await", forgot_summary),
    ("holds-the-loop", sleeps_itself),
    ("holds-the-loop", computes_itself),
    ("holds-the-loop", sleeps_in_a_task),
    ("wrong-result", dropped),
    ("wrong-result", gone),
    ("not-written", not_yet),
    ("raised", divides),
    ("exits", leaves),
    ("cancels-itself", cancels),
    ("left-running", spawns),
]
MADE_WRONG: list[tuple[str, Callable[[], Callable[..., Any]]]] = [
    ("one-at-a-time", one_at_a_time),
    ("one-at-a-time", one_thread),
    ("wrong-result", shared),
]


@pytest.mark.parametrize(("mistake", "report"), WRONG)
async def test_wrong_answers_get_their_hint(mistake, report) -> None:
    verdict = await check_blocking(app_with(report), limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake)
    spawned.clear()


@pytest.mark.parametrize(("mistake", "make"), MADE_WRONG)
async def test_wrong_answers_with_a_memory_get_their_hint(mistake, make) -> None:
    verdict = await check_blocking(app_with(make()))
    assert (verdict.passed, verdict.mistake) == (False, mistake)


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    made = {name for name, _ in [*WRONG, *MADE_WRONG]}
    assert {mistake.name for mistake in EXERCISE.mistakes} <= made


async def test_an_endless_report_is_stopped() -> None:
    async def endless(sku: str) -> Any:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    assert (await check_blocking(app_with(endless), limit=0.5)).mistake == "never-ends"


@pytest.mark.parametrize("given", [untouched, None, "app", 7])
async def test_something_else_than_an_app(given) -> None:
    verdict = await check_blocking(given, limit=AMPLE)
    assert verdict.mistake == "wrong-type"
    assert "write check_blocking(report_app)" in verdict.message


async def test_a_coroutine_in_place_of_an_app() -> None:
    assert (await check_blocking(untouched("x"))).mistake == "wrong-type"


@pytest.mark.parametrize("missing", ["report", "ping"])
async def test_a_missing_route_is_named(missing) -> None:
    app = FastAPI()
    if missing == "ping":
        app.get("/report/{sku}")(in_threads)
    verdict = await check_blocking(app, limit=AMPLE)
    assert verdict.mistake == "wrong-result"
    assert f"GET /{missing}" in verdict.message


async def test_a_startup_that_fails_is_told() -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        raise OSError("no such pool")
        yield

    verdict = await check_blocking(app_with(in_threads, lifespan=lifespan), limit=AMPLE)
    assert verdict.mistake == "raised"
    assert "OSError: no such pool" in verdict.message


async def test_calls_know_whether_they_keep_a_loop_waiting() -> None:
    with watched() as calls:
        prices = await asyncio.to_thread(fetch_prices, "lamp-7")
        summarise(prices)
    fetch_prices("lamp-7")
    assert [(call.name, call.on_loop) for call in calls] == [
        ("fetch_prices", False),
        ("summarise", True),
    ]
    assert prices == prices_of("lamp-7")
    assert prices != prices_of("desk-2")
