"""Lesson 01: what its claims leave out, and attacks on the pools that it ships."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI, HTTPException

from looplab.exercises.supplier import PRICES, prices_of, summarise
from looplab.lab import in_process, ms, serve, xray
from looplab.stages import parallel, two_loops
from looplab.stages.beside import SlowSupplier, answers_to, requests_to, two_processes, watched
from looplab.stages.child import WorkerFailed

pytestmark = pytest.mark.anyio

SHIP = ("setup", "naive-app", "ship-pool", "ship-workers", "ship-lifespan", "ship-app")


@pytest.fixture
async def lesson(cells_of: Any) -> Any:
    lesson = cells_of("01")
    await lesson.run(*SHIP)
    return lesson


@pytest.fixture
async def workers(lesson: Any) -> AsyncGenerator[Any]:
    workers = lesson.names["Workers"]()
    yield workers
    await asyncio.to_thread(workers.close)


async def test_every_innocent_request_waits_until_the_blocking_one_is_done(cells_of) -> None:
    lesson = cells_of("01")
    names = await lesson.run("setup", "naive-app", "pattern-awaited")
    paths = ["/awaited"] * 10 + [f"/blocking?wait={ms(100)}"]
    hurt = await xray(requests_to(names["app"], paths), show=False)
    ten = [lane for lane in hurt.tasks if lane.name == "GET /awaited"]
    assert [lane for lane in ten if lane.ended - lane.began < ms(100)] == []


async def test_all_that_met_a_broken_pool_get_503_and_one_of_them_replaces_it(
    workers, lesson, monkeypatch
) -> None:
    made = []
    make = lesson.names["process_pool"]
    monkeypatch.setitem(lesson.names, "process_pool", lambda: made.append(make()) or made[-1])
    worker = await workers.run(os.getpid)
    slow = [asyncio.create_task(workers.run(time.sleep, 60)) for _ in range(4)]
    await asyncio.sleep(0)  # the four have their pool
    os.kill(worker, getattr(signal, "SIGKILL", signal.SIGTERM))

    outcomes = await asyncio.gather(*slow, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [HTTPException] * 4
    assert [getattr(outcome, "status_code", 0) for outcome in outcomes] == [503] * 4
    assert len(made) == 1
    assert await workers.run(summarise, PRICES) == summarise(PRICES)


async def test_an_error_of_the_work_is_no_broken_pool(workers) -> None:
    before = workers.pool
    with pytest.raises(TypeError):
        await workers.run(summarise, None)
    assert workers.pool is before
    assert await workers.run(len, [1, 2]) == 2


async def test_a_caller_that_leaves_breaks_no_pool(workers) -> None:
    before = workers.pool
    with anyio.move_on_after(0.05):
        await workers.run(time.sleep, 0.5)
    assert await workers.run(len, [1]) == 1
    assert workers.pool is before


async def test_workers_ignore_the_signal_of_the_stop_button(lesson) -> None:
    with lesson.names["process_pool"]() as pool:
        future = pool.submit(signal.raise_signal, signal.SIGINT)
        await asyncio.to_thread(wait, [future])
        assert future.exception() is None


async def test_slow_prices_leave_the_other_def_endpoints_their_threads(lesson) -> None:
    app = lesson.names["shop_app"]

    @app.get("/def-ping")
    def def_ping() -> str:
        return "pong"

    async with in_process(app) as client:
        limiter = anyio.to_thread.current_default_thread_limiter()
        calls = [client.get(path) for path in ["/price"] * 60 + ["/def-ping"]]
        run = await xray(_gathered(calls), watch={"thread": limiter}, show=False)
    assert run.spans("queues for thread") == []
    assert {answer.status_code for answer in run.result} == {200}


async def _gathered(calls: Any) -> list[httpx.Response]:
    return await asyncio.gather(*calls)


async def test_callers_that_leave_let_no_sixth_thread_in(lesson) -> None:
    supplier = SlowSupplier(0.2)
    lesson.names["ask_supplier"] = supplier.ask
    async with in_process(lesson.names["shop_app"]) as client:
        for _ in range(4):
            for _ in range(5):
                with anyio.move_on_after(0.01):
                    await client.get("/price")
        await supplier.is_empty()
    assert supplier.most_inside <= 5


async def test_the_app_starts_again_with_pools_of_its_own(lesson) -> None:
    for _ in range(2):
        async with in_process(lesson.names["shop_app"]) as client:
            assert (await client.get("/trend")).json() == summarise(PRICES)


async def test_an_app_whose_workers_cannot_compute_does_not_start(lesson, monkeypatch) -> None:
    monkeypatch.setitem(lesson.names, "PRICES", None)
    with pytest.raises(TypeError):
        async with in_process(lesson.names["shop_app"]):
            pass


async def test_a_plain_pool_stays_broken() -> None:
    with two_processes() as pool:
        loop = asyncio.get_running_loop()
        with pytest.raises(BrokenProcessPool):
            await loop.run_in_executor(pool, os._exit, 1)
        with pytest.raises(BrokenProcessPool):
            await loop.run_in_executor(pool, summarise, PRICES)


async def test_among_threads_that_compute_the_loop_is_less_late_than_under_them() -> None:
    async def on_the_loop() -> None:
        summarise(PRICES)

    async def in_threads() -> None:
        await asyncio.to_thread(summarise, PRICES)

    blocked = await watched("on the loop", on_the_loop)
    breathing = await watched("in threads", in_threads)
    assert breathing.lag < blocked.lag


async def test_what_is_watched_raises_what_a_report_raises() -> None:
    async def fails() -> None:
        raise LookupError("no prices")

    with pytest.raises(LookupError, match="no prices"):
        await watched("fails", fails)


async def test_the_lessons_prices_are_the_suppliers() -> None:
    assert prices_of("lamp-7") == PRICES


@pytest.mark.parametrize("build", parallel.kept(), ids=lambda build: build.name)
def test_what_other_pythons_measured_bears_out_the_claim_too(build: parallel.Build) -> None:
    measured = parallel.kept()[build]
    stopped = [kind for kind, one in measured.items() if not one.woken]
    assert stopped == (["threads"] if build.gil else [])
    assert {"threads", "processes"} <= set(measured)


def test_the_command_measures_this_python_and_keeps_the_other_kind(tmp_path: Path) -> None:
    here = parallel.this_build()
    other = parallel.Build("3.99.0", not here.gil, 2)
    older = parallel.Build("3.0.0", here.gil, 2)
    one = {"threads": parallel.Beside(0.1, 0.2, 0.3, 4)}
    path = tmp_path / "parallel.json"
    path.write_text(parallel.as_kept({other: one, older: one}), encoding="utf-8")
    subprocess.run([sys.executable, "-m", parallel.__name__, path], check=True, timeout=60)
    kept = parallel.kept(path)
    assert set(kept) == {here, other}
    assert kept[other] == one
    assert set(kept[here]) == set(parallel.pools())
    assert [kind for kind, it in kept[here].items() if not it.woken] == ["threads"] * here.gil


async def test_a_thread_gives_up_its_gil_as_before_when_a_job_has_failed() -> None:
    usual = sys.getswitchinterval()
    with pytest.raises(ZeroDivisionError):
        await parallel.beside(parallel.pools()["threads"], partial(divmod, 1, 0))
    assert sys.getswitchinterval() == usual


@pytest.mark.skipif(sys.version_info < (3, 14), reason="interpreters need Python 3.14")
@pytest.mark.parametrize("name", ["pydantic_core", "sqlalchemy", "uvloop"])
def test_an_interpreter_still_refuses_what_the_lesson_says_it_refuses(name: str) -> None:
    interpreters = import_module("concurrent.interpreters")
    interpreter = interpreters.create()
    try:
        with pytest.raises(interpreters.ExecutionFailed, match="loading in subinterpreters"):
            interpreter.exec(f"import {name}")
    finally:
        interpreter.close()


@pytest.mark.skipif(bool(two_loops.MISSING), reason=two_loops.MISSING)
class TestUvloop:
    async def test_an_xray_shows_the_tasks_of_a_server_that_runs_on_it(self, cells_of) -> None:
        names = await cells_of("01_deeper").run("setup", "setup-app", "uvloop-app")
        async with serve(names["app"], loop="uvloop") as server, server.client() as client:
            calls = answers_to(client, ["/waits", "/computes"])
            run = await xray(calls, server=server, show=False)
            assert type(server.loop).__module__.partition(".")[0] == "uvloop"
        steps = {lane.name: len(lane.steps) for lane in run.tasks}
        assert steps["GET /computes"] == 1, "it never lets the loop go"
        assert steps["GET /waits"] > 1

    async def test_a_race_counts_each_round_on_both_loops(self) -> None:
        raced = await two_loops.race(FastAPI(), {"line": (2, 3)})
        rounds = {loop: len(visits) for loop, visits in raced.visits["line"].items()}
        assert rounds == dict.fromkeys(two_loops.LOOPS, two_loops.ROUNDS)
        assert raced.answers == {"line": 6}

    async def test_an_answer_that_is_an_error_ends_the_race(self) -> None:
        with pytest.raises(WorkerFailed, match="the server answered 404"):
            await two_loops.race(FastAPI(), {"/nowhere": (1, 1)})
