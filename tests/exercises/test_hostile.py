"""Code that goes too far ends a check soon, with a word, and leaves the process as it was."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from asyncio import all_tasks
from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from looplab.exercises import containment, watchdog
from looplab.exercises.checking import check
from looplab.exercises.sandbox import Sandbox
from looplab.exercises.verdicts import Verdict

pytestmark = pytest.mark.anyio

SLEEP = asyncio.sleep
NAP = 30.0  # seconds that a blocking answer means to sleep
IN_TIME = NAP / 3  # seconds: far more than a check needs, far less than the nap

needs_a_timer = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="this system has no timer that interrupts a thread"
)


async def verdict_on(
    act: Callable[[], Any], limit: float | None = None, *, runs: int = 1
) -> Verdict:
    async def judge(sandbox: Sandbox) -> str:
        for _ in range(runs):
            (await sandbox.run(act)).result()
        return "fine"

    return await check(judge, limit=limit)


async def fine() -> None:
    await asyncio.sleep(0)


@pytest.fixture(autouse=True)
async def everything_is_as_it_was():
    """Whatever was shared is the same after each test, and the next check works."""
    loop = asyncio.get_running_loop()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    streams = sys.stdout, sys.stderr
    before = asyncio.all_tasks()
    yield
    assert (sys.stdout, sys.stderr) == streams
    assert asyncio.sleep is SLEEP
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    if hasattr(signal, "setitimer"):
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    assert "stop" not in vars(loop)
    assert {task for task in before if not task.done()} <= asyncio.all_tasks()
    assert (await verdict_on(fine)).passed


@pytest.fixture
def impatient(monkeypatch) -> None:
    """A watchdog that barks four times sooner."""
    for name in ("LOOK_EVERY", "HOLD", "HOLD_AGAIN", "LONG", "HELD_IN_ALL"):
        monkeypatch.setattr(watchdog, name, getattr(watchdog, name) / 4)


# ---------------------------------------------------------------- the loop, held


async def naps() -> None:
    time.sleep(NAP)  # noqa: ASYNC251


async def spins() -> None:
    while True:
        pass


async def spins_and_swallows() -> None:
    while True:
        with contextlib.suppress(BaseException):
            len("the only place where it can be interrupted")


async def ended_source() -> AsyncGenerator[int]:
    yield 1


async def asks_an_ended_source_again() -> None:
    """Written ``pass`` where ``return`` was meant: no later step of this loop suspends."""
    source = ended_source()
    while True:
        with contextlib.suppress(StopAsyncIteration):
            await anext(source)


async def spins_in_a_callback() -> None:
    asyncio.get_running_loop().call_soon(lambda: [None for _ in iter(int, 1)])
    await asyncio.sleep(NAP)


async def spins_while_it_ends() -> None:
    try:
        await spins()
    finally:
        await spins()


async def naps_in_each_of_many_tasks() -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(naps())


async def many_short_naps() -> None:
    for _ in range(100):
        time.sleep(0.6)  # noqa: ASYNC251
        await asyncio.sleep(0)


@needs_a_timer
@pytest.mark.parametrize(
    "act",
    [
        naps,
        spins,
        spins_and_swallows,
        asks_an_ended_source_again,
        spins_in_a_callback,
        spins_while_it_ends,
        naps_in_each_of_many_tasks,
        many_short_naps,
    ],
)
@pytest.mark.usefixtures("impatient")
async def test_code_that_keeps_the_loop_is_ended_and_told(act) -> None:
    began = time.monotonic()
    verdict = await verdict_on(act, runs=10)
    assert (verdict.passed, verdict.mistake) == (False, "blocks-the-loop")
    assert "(for " in verdict.message
    assert time.monotonic() - began < IN_TIME


@needs_a_timer
async def test_ten_runs_that_each_block_cost_no_more_than_one() -> None:
    began = time.monotonic()
    verdict = await verdict_on(naps, runs=10)
    assert verdict.mistake == "blocks-the-loop"
    assert time.monotonic() - began < IN_TIME


@pytest.mark.usefixtures("impatient")
async def test_a_blocking_step_is_told_without_a_timer_too(monkeypatch) -> None:
    monkeypatch.setattr(watchdog.threading, "main_thread", lambda: None)

    async def naps_long_enough() -> None:
        time.sleep(watchdog.HOLD * 1.5)  # noqa: ASYNC251

    verdict = await verdict_on(naps_long_enough, runs=10)
    assert verdict.mistake == "blocks-the-loop"


async def test_a_step_of_moments_blocks_nothing() -> None:
    async def moments() -> None:
        for _ in range(20):
            time.sleep(0.01)  # noqa: ASYNC251
            await asyncio.sleep(0)

    assert (await verdict_on(moments)).passed


async def test_a_run_that_waits_for_ever_ends_before_the_whole_limit_is_gone() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    async def judge(sandbox: Sandbox) -> str:
        assert sandbox.patience < sandbox.limit / 3
        sandbox.patience /= 10
        (await sandbox.run(forever)).result()
        return "fine"

    verdict = await check(judge)
    assert verdict.mistake == "never-ends"
    assert "(0.45 s were not enough)" in verdict.message


async def test_a_run_that_starts_a_process_gets_its_patience_twice() -> None:
    async def computes_elsewhere() -> None:
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-c", "import time; time.sleep(0.5)"
        )
        await program.wait()

    async def waits() -> None:
        await asyncio.sleep(0.5)

    async def verdict_with_little_patience(act: Callable[[], Any]) -> Verdict:
        async def judge(sandbox: Sandbox) -> str:
            sandbox.patience = 0.4
            (await sandbox.run(act)).result()
            return "fine"

        return await check(judge)

    assert (await verdict_with_little_patience(waits)).mistake == "never-ends"
    for _ in range(5):  # a machine may be too busy for it once
        if (await verdict_with_little_patience(computes_elsewhere)).passed:
            return
    pytest.fail("no run with a process got more than its patience")


@needs_a_timer
async def test_a_timer_of_somebody_elses_is_left_alone() -> None:
    rang = threading.Event()
    signal.signal(signal.SIGALRM, lambda *_: rang.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert (await verdict_on(lambda: asyncio.sleep(0.2))).passed
        assert rang.is_set()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


# ---------------------------------------------------------------- interrupts


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
async def test_a_second_interrupt_ends_a_step_that_lets_the_first_not_through() -> None:
    loop, check_task = asyncio.get_running_loop(), asyncio.current_task()
    assert check_task is not None
    passed_on = []

    def cancel_the_cell(*_: Any) -> None:
        passed_on.append(1)
        loop.call_soon_threadsafe(cell.cancel)

    async def spins_until_interrupted_twice() -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        await spins()

    before = signal.signal(signal.SIGINT, cancel_the_cell)
    try:
        cell = asyncio.ensure_future(verdict_on(spins_until_interrupted_twice))
        with pytest.raises(asyncio.CancelledError):
            await cell
    finally:
        signal.signal(signal.SIGINT, before)
    assert passed_on == [1]


# ---------------------------------------------------------------- what everybody shares


@pytest.mark.parametrize("get_all", [all_tasks, lambda: asyncio.all_tasks()])
async def test_cancelling_all_tasks_cancels_the_codes_own_only(get_all) -> None:
    other = asyncio.create_task(asyncio.Event().wait())

    async def cancels_all() -> None:
        for task in get_all():
            task.cancel()
        await asyncio.sleep(1)

    verdict = await verdict_on(cancels_all)
    assert verdict.mistake == "cancels-itself"
    assert not other.cancelling()
    other.cancel()
    await asyncio.wait({other})


@pytest.mark.parametrize("soon", [False, True])
async def test_stopping_the_loop_stops_nothing_and_is_told(soon) -> None:
    async def stops() -> None:
        loop = asyncio.get_running_loop()
        if soon:
            loop.call_soon(loop.stop)
        else:
            loop.stop()
        await asyncio.sleep(0.01)

    verdict = await verdict_on(stops)
    assert verdict.mistake == "reaches-too-far"
    assert "it called stop() of the event loop" in verdict.message


@pytest.mark.parametrize("name", ["sleep", "wait", "all_tasks"])
async def test_a_replaced_function_is_put_back_and_told(name) -> None:
    original = getattr(asyncio, name)

    async def replaces() -> None:
        setattr(asyncio, name, None)

    verdict = await verdict_on(replaces)
    assert verdict.mistake == "reaches-too-far"
    assert f"it replaced asyncio.{name}" in verdict.message
    assert getattr(asyncio, name) is original


async def test_a_function_that_the_cell_replaced_is_told_before_the_code_runs() -> None:
    ran = []

    async def runs() -> None:
        ran.append(1)

    time.sleep, before = fine, time.sleep  # ty: ignore[invalid-assignment]
    verdict = await verdict_on(runs)
    assert time.sleep is before
    assert verdict.mistake == "reaches-too-far"
    assert "time.sleep had been replaced" in verdict.message
    assert ran == []


async def test_a_sandbox_that_cannot_open_leaves_nothing_changed(monkeypatch) -> None:
    def fails(watchdog: Any) -> None:
        raise OSError("no such signal")

    with monkeypatch.context() as patched:
        patched.setattr(watchdog.Watchdog, "start", fails)
        with pytest.raises(OSError, match="no such signal"):
            await verdict_on(fine)
    assert asyncio.get_running_loop().get_task_factory() is None


async def test_a_judge_that_fails_over_a_replaced_function_blames_the_code() -> None:
    async def judge(sandbox: Sandbox) -> str:
        sandbox._report(containment.SHARED, "it replaced asyncio.sleep")
        raise ZeroDivisionError

    assert (await check(judge)).mistake == "reaches-too-far"


@pytest.mark.parametrize("name", ["stdout", "stderr"])
async def test_a_closed_stream_stays_open_and_is_told(name, capfd) -> None:
    async def closes() -> None:
        getattr(sys, name).close()

    verdict = await verdict_on(closes)
    assert verdict.mistake == "reaches-too-far"
    assert verdict.message in capfd.readouterr().out
    print("still here", file=getattr(sys, name))
    assert "still here" in getattr(capfd.readouterr(), name[3:])


async def test_a_replaced_stream_is_put_back_and_told() -> None:
    async def replaces() -> None:
        sys.stdout = None

    verdict = await verdict_on(replaces)
    assert "it replaced sys.stdout" in verdict.message


async def test_code_may_print(capsys) -> None:
    async def prints() -> None:
        print("one line", "and another", sep="\n", flush=True)  # noqa: T201
        sys.stderr.writelines(["of", " text"])

    assert (await verdict_on(prints)).passed
    printed = capsys.readouterr()
    assert printed.out.startswith("one line\nand another\n")
    assert printed.err == "of text"


async def test_endless_output_is_cut_and_told(capsys) -> None:
    async def floods() -> None:
        while True:
            print("a line of output" * 100)  # noqa: T201
            await asyncio.sleep(0)

    verdict = await verdict_on(floods)
    assert verdict.mistake == "runs-away"
    assert len(capsys.readouterr().out) < 2 * containment.OUTPUT


@needs_a_timer
@pytest.mark.parametrize("suspends", [False, True])
async def test_endless_memory_is_told(suspends, monkeypatch) -> None:
    monkeypatch.setattr(watchdog, "MEMORY", 50_000_000)

    async def hoards() -> None:
        kept = []
        while True:
            kept.append(bytes(range(256)) * 4_000)
            if suspends:
                await asyncio.sleep(0)

    verdict = await verdict_on(hoards)
    assert verdict.mistake == "runs-away"
    assert "MB of memory" in verdict.message


async def test_threads_that_hang_leave_threads_for_the_next_check() -> None:
    release = threading.Event()
    loop = asyncio.get_running_loop()

    async def hangs_in_every_thread() -> None:
        await asyncio.gather(*(asyncio.to_thread(release.wait) for _ in range(64)))

    try:
        assert (await verdict_on(hangs_in_every_thread, 0.3)).mistake == "never-ends"
        async with asyncio.timeout(IN_TIME):
            assert await asyncio.to_thread(len, "seven") == 5
    finally:
        release.set()
    assert loop.is_running()


# ---------------------------------------------------------------- whose task it is


async def test_a_task_that_a_library_makes_for_itself_is_not_the_learners(tmp_path) -> None:
    """SQLAlchemy closes an interrupted connection in a task of its own."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/rows.db")

    async def cancelled_statement() -> None:
        with anyio.move_on_after(0.01):
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
                await asyncio.sleep(NAP)

    try:
        verdict = await verdict_on(cancelled_statement)
        assert verdict.passed, verdict.message
    finally:
        await engine.dispose()


async def test_a_task_of_a_learners_anyio_group_is_the_learners() -> None:
    kept: list[Any] = []

    async def leaves_a_group_open() -> None:
        group = anyio.create_task_group()
        await group.__aenter__()
        group.start_soon(asyncio.Event().wait)
        kept.append(group)

    verdict = await verdict_on(leaves_a_group_open)
    assert verdict.mistake == "left-running"
