import asyncio
import contextlib
import functools
import gc
import logging
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import aiosqlite
import anyio.to_thread
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from looplab.lab import hygiene, still_open
from looplab.lab.clients import serve
from looplab.lab.hygiene import Leaked, caught_leaks, nothing_left_behind
from looplab.lab.silent_failures import listener

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", autouse=True)
def a_small_heap():
    """Leave what pytest and its plugins hold out of each collection, of which there are many."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def warned(monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr(
        warnings, "showwarning", lambda message, *_, **__: shown.append(str(message))
    )
    return shown


@pytest.fixture
def ticks(monkeypatch):
    shown: list[tuple[str, str]] = []
    monkeypatch.setattr(hygiene, "show_note", lambda note, *, kind: shown.append((kind, note)))
    return shown


@pytest.fixture
async def lesson(tmp_path, ticks, warned, monkeypatch):
    """A lesson that has begun, with AnyIO's test runner as its host instead of a kernel."""
    monkeypatch.setattr(still_open, "TASK_HOSTS", {*still_open.TASK_HOSTS, "anyio"})
    monkeypatch.setattr(hygiene, "PATIENCE", 0.2)  # what each thing costs a failing lesson
    asyncio.get_running_loop().set_exception_handler(None)
    hygiene.install(temporary=tmp_path)
    yield tmp_path
    hygiene.uninstall()


async def fails():
    raise ValueError("lost")


async def leaked(*names):
    """Return the report, once it names everything that it must name."""
    with pytest.raises(Leaked) as caught:
        await nothing_left_behind()
    report = str(caught.value)
    for name in names:
        assert name in report
    assert report.count("\n- ") == 1, report
    return report


async def lose_an_exception():
    task = asyncio.create_task(fails(), name="mailer")
    await asyncio.wait([task])


def forget_to_await():
    fails()  # ty: ignore[unused-awaitable]


def forget_in_a_cycle(path):
    cycle: list = [open(path)]  # noqa: SIM115
    cycle.append(cycle)


def a_child(code):
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)


def forget_to_close(path):
    open(path)  # noqa: SIM115


class TestClean:
    async def test_a_lesson_that_leaves_nothing_gets_a_tick_that_says_what_was_checked(
        self, lesson, ticks
    ):
        await nothing_left_behind()
        ((kind, note),) = ticks
        assert kind == "tick"
        for word in ("task", "thread", "server", "connection", "database", "temporary file"):
            assert word in note

    async def test_what_was_there_before_does_not_count(self, tmp_path, ticks):
        release = threading.Event()
        thread = threading.Thread(target=release.wait)
        thread.start()
        task = asyncio.create_task(asyncio.Event().wait())
        (tmp_path / "old.txt").write_text("old")
        async with serve(FastAPI()), aiosqlite.connect(tmp_path / "old.db") as connection:
            await connection.execute("create table t (a)")
            hygiene.install(temporary=tmp_path)
            try:
                await nothing_left_behind()
            finally:
                hygiene.uninstall()
        task.cancel()
        release.set()
        thread.join()
        assert len(ticks) == 1

    async def test_everything_used_and_put_away_passes(self, lesson, ticks):
        engine = create_async_engine(f"sqlite+aiosqlite:///{lesson}/shop.db")
        async with engine.begin() as connection:
            await connection.execute(text("create table t (a)"))
        await engine.dispose()
        (lesson / "shop.db").unlink()
        async with serve(FastAPI()) as server, server.client() as client:
            await client.get("/")
        await asyncio.gather(fails(), return_exceptions=True)
        with ThreadPoolExecutor() as pool:
            pool.submit(int)
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
        await child.wait()
        await nothing_left_behind()
        assert len(ticks) == 1

    async def test_idle_workers_of_the_loops_own_pools_may_stay(self, lesson, ticks):
        await asyncio.to_thread(int)
        await anyio.to_thread.run_sync(int)
        await nothing_left_behind()
        assert len(ticks) == 1

    async def test_it_can_be_asked_twice_and_begun_again(self, lesson, ticks):
        await nothing_left_behind()
        await nothing_left_behind()
        hygiene.install(temporary=lesson)
        await nothing_left_behind()
        assert len(ticks) == 3

    async def test_what_is_only_finishing_is_waited_for(self, lesson, ticks):
        release = threading.Event()
        threading.Thread(target=release.wait, name="finishing").start()
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(asyncio.Event().wait())
        loop.call_later(0.05, release.set)
        loop.call_later(0.05, task.cancel)
        await nothing_left_behind()
        assert len(ticks) == 1

    async def test_a_generator_that_was_left_early_is_closed_and_passes(self, lesson, ticks):
        async def numbers():
            try:
                yield 1
                yield 2
            finally:
                await asyncio.sleep(0)
                closed.append(True)

        closed: list[bool] = []
        async for _ in numbers():
            break
        await nothing_left_behind()
        assert closed == [True]

    async def test_before_the_set_up_it_says_so(self):
        with pytest.raises(hygiene.LessonError, match="set-up cell"):
            await nothing_left_behind()


class TestLeftovers:
    async def test_a_pending_task(self, lesson):
        async def worker():
            await asyncio.Event().wait()

        task = asyncio.create_task(worker(), name="mailer")
        await asyncio.sleep(0)
        report = await leaked("task mailer", "worker", "test_hygiene.py")
        assert "await asyncio.Event().wait()" in report
        task.cancel()

    async def test_a_task_that_never_had_its_turn(self, lesson):
        task = asyncio.create_task(asyncio.sleep(3600), name="sleeper")
        await leaked("task sleeper", "asyncio.tasks.sleep")
        task.cancel()

    async def test_a_thread(self, lesson):
        release = threading.Event()
        thread = threading.Thread(target=release.wait, name="poller")
        thread.start()
        await leaked("thread poller is still running")
        release.set()
        thread.join()
        await nothing_left_behind()

    @pytest.mark.parametrize("run", [asyncio.to_thread, anyio.to_thread.run_sync])
    async def test_a_busy_worker_of_the_loops_own_pool(self, lesson, run):
        release, running = threading.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def work():
            loop.call_soon_threadsafe(running.set)
            release.wait()

        task = asyncio.create_task(run(work))
        await running.wait()
        with pytest.raises(Leaked, match=r"thread .* is still running"):
            await nothing_left_behind()
        release.set()
        await task

    async def test_a_pool_of_the_lessons_own_even_when_idle(self, lesson):
        pool = ThreadPoolExecutor(thread_name_prefix="render")
        await asyncio.get_running_loop().run_in_executor(pool, int)
        await leaked("thread render_0 is still running")
        pool.shutdown()

    async def test_a_server(self, lesson):
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        await leaked(f"a server is still listening on {host}:{port}")
        server.close()
        await server.wait_closed()

    async def test_a_loopback_server(self, lesson):
        async with serve(FastAPI()) as server:
            with pytest.raises(Leaked) as caught:
                await nothing_left_behind()
        assert f"127.0.0.1:{server.port}" in str(caught.value)
        assert "thread loopback server" in str(caught.value)
        await nothing_left_behind()

    async def test_a_connection_to_a_server_from_before(self, tmp_path, ticks):
        async with serve(FastAPI()) as server:
            hygiene.install(temporary=tmp_path)
            try:
                connection = socket.create_connection(("127.0.0.1", server.port))
                await leaked("a connection from", f"to 127.0.0.1:{server.port}")
                connection.close()
                await nothing_left_behind()
            finally:
                hygiene.uninstall()

    async def test_an_open_database(self, lesson):
        connection = sqlite3.connect(lesson / "shop.db")
        connection.execute("create table t (a)")
        (lesson / "shop.db").unlink()
        if sys.platform == "linux":
            await leaked("shop.db", "still open")
        connection.close()
        await nothing_left_behind()

    async def test_an_open_database_outside_the_temporary_directory(self, lesson, tmp_path_factory):
        path = tmp_path_factory.mktemp("elsewhere") / "shop.db"
        connection = sqlite3.connect(path)
        connection.execute("create table t (a)")
        await leaked(str(path), "still open")
        connection.close()

    async def test_an_aiosqlite_connection(self, lesson):
        connection = await aiosqlite.connect(":memory:")
        await leaked("an aiosqlite connection is still open")
        await connection.close()

    async def test_an_engine_that_was_not_disposed(self, lesson):
        engine = create_async_engine(f"sqlite+aiosqlite:///{lesson}/shop.db")
        async with engine.connect():
            pass
        with pytest.raises(Leaked, match=r"aiosqlite[\s\S]*shop\.db is still open"):
            await nothing_left_behind()
        await engine.dispose()

    async def test_a_temporary_file_and_a_temporary_directory(self, lesson):
        (lesson / "export.csv").write_text("a,b")
        await leaked("temporary file export.csv")
        (lesson / "export.csv").unlink()
        (lesson / "folder").mkdir()
        await leaked("temporary file folder")

    async def test_a_child_process(self, lesson):
        child = a_child("input()")
        await leaked(f"child process {child.pid}")
        child.communicate(b"\n")
        await nothing_left_behind()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="zombies are POSIX's")
    async def test_a_child_process_that_nobody_has_waited_for(self, lesson):
        child = a_child("")
        await asyncio.to_thread(os.waitid, os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        await leaked(f"child process {child.pid}", "nobody has waited")
        child.communicate()

    async def test_a_task_factory(self, lesson):
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coroutine, **options: asyncio.Task(coroutine, loop=loop))
        await leaked("task factory")
        loop.set_task_factory(None)
        await nothing_left_behind()

    async def test_several_are_all_named(self, lesson):
        (lesson / "export.csv").write_text("a,b")
        task = asyncio.create_task(asyncio.Event().wait(), name="mailer")
        forget_to_await()
        with pytest.raises(Leaked) as caught:
            await nothing_left_behind()
        for name in ("export.csv", "mailer", "coroutine fails"):
            assert name in str(caught.value)
        task.cancel()


class TestLosses:
    async def test_a_lost_exception(self, lesson, caplog):
        await lose_an_exception()
        await leaked("task mailer (fails) failed with ValueError('lost')")

    async def test_a_lost_exception_of_a_task_with_odd_names(self, lesson, caplog):
        coroutine = fails()
        coroutine.__qualname__ = "GET /orders"
        task = asyncio.create_task(coroutine, name="Ada's mailer")
        await asyncio.wait([task])
        del task, coroutine
        await leaked("task Ada's mailer (GET /orders) failed with ValueError('lost')")

    async def test_a_lost_exception_of_a_future(self, lesson, caplog):
        asyncio.get_running_loop().create_future().set_exception(ValueError("lost"))
        await leaked("future: <Future finished", "ValueError('lost')")

    async def test_a_lost_exception_in_debug_mode(self, lesson, caplog):
        asyncio.get_running_loop().set_debug(True)
        try:
            await lose_an_exception()
        finally:
            asyncio.get_running_loop().set_debug(False)
        await leaked("task mailer (fails) failed with ValueError('lost')")

    async def test_a_lost_exception_is_still_printed_when_its_task_goes(self, lesson, caplog):
        await lose_an_exception()
        assert "Task exception was never retrieved" in caplog.text
        await leaked("ValueError('lost')")

    async def test_a_lost_exception_whose_task_a_variable_still_holds(self, lesson):
        task = asyncio.create_task(fails(), name="mailer")
        await asyncio.wait([task])
        await leaked("task mailer", "ValueError('lost')")
        assert task.done()

    async def test_a_lost_exception_in_another_loop(self, lesson, caplog):
        await asyncio.to_thread(functools.partial(asyncio.run, lose_an_exception()))
        await leaked("task mailer (fails)", "ValueError('lost')")

    async def test_a_lost_exception_in_a_loopback_server(self, lesson, caplog):
        async with serve(FastAPI()) as server:
            await server.run(lose_an_exception)
        await leaked("ValueError('lost')")

    async def test_an_exception_that_somebody_asked_for_is_not_lost(self, lesson):
        task = asyncio.create_task(fails())
        await asyncio.wait([task])
        assert isinstance(task.exception(), ValueError)
        await nothing_left_behind()

    async def test_an_exception_in_a_callback(self, lesson, caplog):
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await leaked("ZeroDivisionError")

    async def test_a_lost_exception_stays_lost_until_the_lesson_begins_again(self, lesson, caplog):
        await lose_an_exception()
        await leaked("ValueError('lost')")
        await leaked("ValueError('lost')")
        hygiene.install(temporary=lesson)
        await nothing_left_behind()

    async def test_a_task_dropped_while_it_waits(self, lesson, caplog):
        async def waits():
            await asyncio.get_running_loop().create_future()

        task = asyncio.create_task(waits(), name="mailer")
        await asyncio.sleep(0)
        del task
        await leaked("task mailer (", "waits) was dropped while it still waited")

    async def test_a_coroutine_never_awaited_each_time_in_one_place(self, lesson, warned):
        for _ in range(2):
            forget_to_await()
        assert warned == ["coroutine 'fails' was never awaited"] * 2
        assert listener.book.never_awaited == ["fails", "fails"]
        await leaked("coroutine fails was never awaited")

    async def test_a_coroutine_that_a_variable_still_holds(self, lesson):
        coroutine = fails()
        await leaked("coroutine fails was never awaited")
        assert coroutine.cr_frame is None

    async def test_a_resource_in_a_cycle(self, lesson, tmp_path_factory):
        path = tmp_path_factory.mktemp("elsewhere") / "notes.txt"
        path.write_text("note")
        forget_in_a_cycle(path)
        await leaked("ResourceWarning", "notes.txt")

    @pytest.mark.parametrize("action", ["ignore", "error", "once"])
    async def test_whatever_filter_the_lesson_sets(self, lesson, action, tmp_path_factory):
        warnings.simplefilter(action)
        path = tmp_path_factory.mktemp("elsewhere") / "notes.txt"
        path.write_text("note")
        forget_in_a_cycle(path)
        await leaked("ResourceWarning", "notes.txt")

    async def test_an_exception_handler_of_the_lesson_makes_losses_unheard(self, lesson):
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        await lose_an_exception()
        await leaked("still has an exception handler of the lesson", "went unheard")
        asyncio.get_running_loop().set_exception_handler(None)
        await nothing_left_behind()


class TestSecondRun:
    async def test_what_an_earlier_run_lost_is_not_told_later(self, lesson, caplog):
        task, coroutine = asyncio.create_task(fails()), fails()
        await asyncio.wait([task])
        hygiene.install(temporary=lesson)
        del task, coroutine
        await nothing_left_behind()
        assert caplog.text == ""

    async def test_a_task_of_an_earlier_run_dropped_later_is_not_told(self, lesson, caplog):
        async def waits():
            await asyncio.get_running_loop().create_future()

        held = [asyncio.create_task(waits())]
        await asyncio.sleep(0)
        hygiene.install(temporary=lesson)
        held.clear()
        await nothing_left_behind()

    async def test_the_last_error_of_an_earlier_run_holds_nothing(self, lesson, tmp_path):
        sys.last_value = ValueError("of the run before")
        hygiene.install(temporary=lesson)
        assert not hasattr(sys, "last_value")

    async def test_the_report_says_what_to_do_after_a_run_that_stopped_half_way(self, lesson):
        hygiene.install(temporary=lesson)
        (lesson / "export.csv").write_text("a,b")
        with pytest.raises(Leaked, match="restart the kernel"):
            await nothing_left_behind()


class TestCaught:
    async def test_what_is_lost_on_purpose_is_collected_and_counts_for_nothing(
        self, lesson, caplog, capfd, tmp_path_factory, warned
    ):
        path = tmp_path_factory.mktemp("elsewhere") / "notes.txt"
        path.write_text("note")
        with caught_leaks() as leaks:
            await lose_an_exception()
            forget_to_await()
            forget_to_close(path)
        assert [repr(error) for error in leaks.lost_exceptions] == ["ValueError('lost')"]
        assert leaks.never_awaited == ["fails"]
        assert len(leaks.resource_warnings) == 1
        assert "notes.txt" in leaks.resource_warnings[0]
        await nothing_left_behind()
        assert caplog.text == ""
        assert capfd.readouterr() == ("", "")
        assert warned == []

    async def test_what_a_variable_still_holds_at_the_end_counts_as_caught(self, lesson):
        with caught_leaks() as leaks:
            task, coroutine = asyncio.create_task(fails()), fails()
            await asyncio.wait([task])
        assert len(leaks.lost_exceptions) == 1
        assert leaks.never_awaited == ["fails"]
        del task, coroutine
        await nothing_left_behind()

    async def test_what_was_lost_before_is_not_caught(self, lesson, caplog):
        before = fails()
        forget_to_await()
        with caught_leaks() as leaks:
            await lose_an_exception()
        assert leaks.never_awaited == []
        await before_runs(before)
        await leaked("coroutine fails was never awaited")

    async def test_what_is_lost_after_is_not_caught(self, lesson, caplog):
        with caught_leaks() as leaks:
            pass
        await lose_an_exception()
        assert leaks.lost_exceptions == []
        await leaked("ValueError('lost')")

    async def test_an_error_in_the_block_passes_and_the_leaks_are_caught(self, lesson):
        books: list = []

        def body():
            with caught_leaks() as leaks:
                books.append(leaks)
                held = fails()
                raise KeyError(held)

        with pytest.raises(KeyError):
            body()
        assert books[0].never_awaited == ["fails"]
        await nothing_left_behind()

    async def test_blocks_nest_and_the_inner_one_catches(self, lesson):
        with caught_leaks() as outer:
            with caught_leaks() as inner:
                forget_to_await()
            await lose_an_exception()
        assert (inner.never_awaited, len(inner.lost_exceptions)) == (["fails"], 0)
        assert (outer.never_awaited, len(outer.lost_exceptions)) == ([], 1)
        await nothing_left_behind()

    async def test_a_lost_exception_keeps_no_locals_alive(self, lesson):
        class Big:
            pass

        import weakref

        big_ones: list = []

        async def loses():
            big = Big()
            big_ones.append(weakref.ref(big))
            raise ValueError(str(id(big)))

        with caught_leaks() as leaks:
            await asyncio.wait([asyncio.create_task(loses())])
        assert len(leaks.lost_exceptions) == 1
        assert big_ones[0]() is None

    async def test_a_task_dropped_while_it_waits_is_caught(self, lesson):
        async def waits():
            await asyncio.get_running_loop().create_future()

        with caught_leaks() as leaks:
            task = asyncio.create_task(waits(), name="mailer")
            await asyncio.sleep(0)
            del task
        assert leaks.destroyed_tasks == ["mailer"]
        await nothing_left_behind()

    def test_it_works_without_a_loop_and_puts_everything_back(self):
        before = (list(warnings.filters), warnings.showwarning)
        with caught_leaks() as leaks:
            forget_to_await()
        assert leaks.never_awaited == ["fails"]
        assert (list(warnings.filters), warnings.showwarning) == before
        assert not logging.getLogger("asyncio").filters

    async def test_it_works_before_the_set_up(self):
        asyncio.get_running_loop().set_exception_handler(None)  # AnyIO's runner has its own
        with caught_leaks() as leaks:
            await lose_an_exception()
        assert len(leaks.lost_exceptions) == 1
        assert not logging.getLogger("asyncio").filters


async def before_runs(coroutine):
    with contextlib.suppress(ValueError):
        await coroutine


class TestPuttingBack:
    async def test_uninstall_restores_filters_and_hooks(self, tmp_path):
        before = (list(warnings.filters), warnings.showwarning)
        hygiene.install(temporary=tmp_path)
        hygiene.install(temporary=tmp_path)
        assert (list(warnings.filters), warnings.showwarning) != before
        assert len(logging.getLogger("asyncio").filters) == 1
        hygiene.uninstall()
        hygiene.uninstall()
        assert (list(warnings.filters), warnings.showwarning) == before
        assert not logging.getLogger("asyncio").filters

    async def test_other_warnings_pass_as_before(self, lesson, warned):
        warnings.simplefilter("always", UserWarning)
        warnings.warn("mind", UserWarning, stacklevel=1)
        assert warned == ["mind"]
        await nothing_left_behind()
