"""The recorder watches tasks and changes nothing about them."""

import asyncio
import contextvars
import gc
import inspect
import sys
import threading
import traceback
import weakref
from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import pytest

from looplab.lab.trace import (
    Call,
    Recorder,
    TaskTrace,
    Traced,
    attach,
    detach,
    in_scope_of,
    is_ours,
    on_loop,
    short_name,
)

pytestmark = pytest.mark.anyio


@contextmanager
def watched(**options: Any) -> Generator[Recorder]:
    """Record every task that the running loop makes meanwhile."""
    recorder = Recorder(everything=True, **options)
    loop = attach(recorder)
    try:
        yield recorder
    finally:
        detach(recorder, loop)


def traces(recorder: Recorder) -> dict[str, TaskTrace]:
    return {trace.function: trace for trace in recorder.traces}


async def test_a_step_per_resumption() -> None:
    async def three_steps() -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "done"

    with watched() as recorder:
        assert await asyncio.create_task(three_steps()) == "done"
    (trace,) = recorder.traces
    assert len(trace.steps) == 3
    assert trace.outcome == "done"
    times = [time for began, ended, _ in trace.steps for time in (began, ended)]
    assert times == sorted(times)


async def test_an_event_loop_gets_its_own_factory_back() -> None:
    loop = asyncio.get_running_loop()
    assert loop.get_task_factory() is None
    with watched():
        assert loop.get_task_factory() is not None
    assert loop.get_task_factory() is None


async def test_a_factory_that_was_there_makes_the_tasks_and_is_given_back() -> None:
    loop = asyncio.get_running_loop()
    made: list[asyncio.Task[Any]] = []

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(asyncio.Task(coro, loop=loop, **options))
        return made[-1]

    loop.set_task_factory(factory)
    try:
        with watched() as recorder:
            task = asyncio.create_task(asyncio.sleep(0, "slept"))
            assert await task == "slept"
        assert loop.get_task_factory() is factory
        assert made == [task]
        assert len(recorder.traces) == 1
    finally:
        loop.set_task_factory(None)


async def test_a_factory_set_meanwhile_is_left_alone() -> None:
    loop = asyncio.get_running_loop()

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=loop, **options)

    try:
        with watched():
            loop.set_task_factory(factory)
        assert loop.get_task_factory() is factory
    finally:
        loop.set_task_factory(None)


@pytest.mark.parametrize("first_ends", ["first", "last"])
async def test_overlapping_recorders_each_see_their_own_span(first_ends: str) -> None:
    async def before() -> None: ...
    async def both() -> None: ...
    async def after() -> None: ...

    first, second = Recorder(everything=True), Recorder(everything=True)
    loop = attach(first)
    await asyncio.create_task(before())
    attach(second)
    await asyncio.create_task(both())
    ends, stays = (first, second) if first_ends == "first" else (second, first)
    detach(ends, loop)
    await asyncio.create_task(after())
    detach(stays, loop)
    assert loop.get_task_factory() is None
    seen = {"first": list(traces(first)), "second": list(traces(second))}
    whole, part = (seen["second"], seen["first"]) if first_ends == "first" else seen.values()
    assert whole[-1] == "after"
    assert part[-1] == "both"


async def test_a_recorder_can_be_detached_without_a_running_loop() -> None:
    """So that an x-ray which is closed from outside its loop still gives the factory back."""
    recorder = Recorder(everything=True)
    loop = attach(recorder)
    thread = threading.Thread(target=detach, args=(recorder, loop))
    thread.start()
    thread.join()
    assert loop.get_task_factory() is None


async def test_only_the_scope_is_watched() -> None:
    async def inside() -> None:
        await asyncio.create_task(asyncio.sleep(0))

    async def outside() -> None:
        await asyncio.create_task(asyncio.sleep(0))

    recorder = Recorder()
    loop = attach(recorder)
    try:
        await asyncio.gather(
            asyncio.create_task(outside()),
            asyncio.create_task(inside(), context=in_scope_of(recorder)),
        )
    finally:
        detach(recorder, loop)
    assert [trace.function for trace in recorder.traces] == ["inside", "sleep"]


async def test_a_child_in_a_context_of_its_own_is_watched_too() -> None:
    async def child() -> None: ...

    async def parent() -> None:
        await asyncio.create_task(child(), context=contextvars.Context())

    recorder = Recorder()
    loop = attach(recorder)
    try:
        await asyncio.create_task(parent(), context=in_scope_of(recorder))
    finally:
        detach(recorder, loop)
    assert [trace.function for trace in recorder.traces] == ["parent", "child"]
    assert recorder.traces[1].parent is recorder.traces[0]


async def test_a_task_made_from_a_callback_has_no_parent_but_is_watched() -> None:
    made = asyncio.Event()
    tasks = []

    async def child() -> None: ...

    async def parent() -> None:
        def callback() -> None:
            tasks.append(asyncio.ensure_future(child()))
            made.set()

        asyncio.get_running_loop().call_soon(callback)
        await made.wait()
        await tasks[0]

    recorder = Recorder()
    loop = attach(recorder)
    try:
        await asyncio.create_task(parent(), context=in_scope_of(recorder))
    finally:
        detach(recorder, loop)
    assert traces(recorder)["child"].parent is None


async def test_context_variables_are_those_of_the_task() -> None:
    colour = contextvars.ContextVar("colour", default="none")

    async def paint() -> tuple[str, str]:
        found = colour.get()
        colour.set("red")
        await asyncio.sleep(0)
        return found, colour.get()

    colour.set("blue")
    with watched():
        assert await asyncio.create_task(paint()) == ("blue", "red")
        own = contextvars.Context()
        assert await asyncio.create_task(paint(), context=own) == ("none", "red")
        assert own[colour] == "red"
    assert colour.get() == "blue"


async def test_current_task_is_the_task() -> None:
    async def who() -> asyncio.Task[Any] | None:
        await asyncio.sleep(0)
        return asyncio.current_task()

    with watched():
        task = asyncio.create_task(who())
        assert await task is task


async def test_a_task_cancelled_before_its_first_step_ends_cancelled_and_silently() -> None:
    ran = []

    async def never() -> None:
        ran.append(True)

    with watched() as recorder:
        task = asyncio.create_task(never())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        coroutine: Any = task.get_coro()
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
        del task, coroutine
        gc.collect()  # a coroutine that was never awaited would warn here
    assert ran == []
    assert recorder.traces[0].outcome == "cancelled"
    assert len(recorder.traces[0].steps) == 1


async def test_a_task_may_swallow_its_cancellation() -> None:
    began = asyncio.Event()

    async def stubborn() -> str:
        began.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return "still here"

    with watched() as recorder:
        task = asyncio.create_task(stubborn())
        await began.wait()
        task.cancel()
        assert await task == "still here"
        assert task.cancelling() == 1
    assert recorder.traces[0].outcome == "done"


async def test_cancellation_runs_the_clean_up() -> None:
    began, cleaned = asyncio.Event(), []

    async def careful() -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with watched() as recorder:
        task = asyncio.create_task(careful())
        await began.wait()
        task.cancel("stop it")
        with pytest.raises(asyncio.CancelledError, match="stop it"):
            await task
    assert cleaned == [True]
    assert recorder.traces[0].outcome == "cancelled"


@pytest.mark.parametrize("ending", [ValueError("x"), ExceptionGroup("several", [KeyError("k")])])
async def test_an_exception_passes_through_unchanged(ending: Exception) -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise ending

    with watched() as recorder:
        with pytest.raises(type(ending)) as raised:
            await asyncio.create_task(fails())
        assert raised.value is ending
    (trace,) = recorder.traces
    assert (trace.outcome, trace.error) == ("failed", type(ending).__name__)


async def test_a_traceback_still_ends_in_the_frame_that_raised() -> None:
    async def deepest() -> None:
        await asyncio.sleep(0)
        raise LookupError("here")

    async def outer() -> None:
        await deepest()

    with watched(), pytest.raises(LookupError) as raised:
        await asyncio.create_task(outer())
    assert raised.value.__context__ is None
    frames = traceback.extract_tb(raised.value.__traceback__)
    assert [frame.name for frame in frames][-2:] == ["outer", "deepest"]


async def test_an_exception_thrown_in_and_handled_leaves_no_context_behind() -> None:
    async def recovers() -> None:
        failing = asyncio.get_running_loop().create_future()
        failing.set_exception(KeyError("first"))
        with suppress(KeyError):
            await failing
        raise ValueError("second")

    with watched(), pytest.raises(ValueError, match="second") as raised:
        await asyncio.create_task(recovers())
    assert raised.value.__context__ is None


async def test_stop_iteration_becomes_a_runtime_error_as_ever() -> None:
    async def stops() -> None:
        raise StopIteration

    with watched() as recorder, pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.create_task(stops())
    assert recorder.traces[0].error == "RuntimeError"


def test_a_keyboard_interrupt_ends_the_loop_and_the_factory_is_given_back() -> None:
    loop = asyncio.new_event_loop()
    recorders = []

    async def interrupted() -> None:
        await asyncio.sleep(0)
        raise KeyboardInterrupt

    async def main() -> None:
        with watched() as recorder:
            recorders.append(recorder)
            await asyncio.create_task(interrupted())

    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    task.cancel()
    with suppress(asyncio.CancelledError, KeyboardInterrupt):
        loop.run_until_complete(task)
    assert loop.get_task_factory() is None
    loop.close()
    assert recorders[0].traces[0].error == "KeyboardInterrupt"


def test_closing_a_suspended_task_closes_its_coroutine() -> None:
    closed = []

    async def open_ended() -> None:
        try:
            await asyncio.sleep(0)
        except GeneratorExit:
            closed.append(True)
            raise

    coroutine = open_ended()
    traced, trace = Recorder().wrap(coroutine, None)
    traced.send(None)
    traced.close()
    assert closed == [True]
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    assert trace.outcome == "pending"


def test_closing_a_task_that_never_ran_is_silent() -> None:
    async def unused() -> None: ...

    coroutine = unused()
    traced, _ = Recorder().wrap(coroutine, None)
    traced.close()
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


async def test_a_task_tells_about_its_coroutine_as_ever() -> None:
    began, go = asyncio.Event(), asyncio.Event()

    async def told() -> None:
        began.set()
        await go.wait()

    with watched():
        task = asyncio.create_task(told(), name="ada")
        coroutine: Any = task.get_coro()
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
        await began.wait()
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_SUSPENDED
        assert coroutine.__qualname__.endswith("told")
        assert coroutine.__name__ == "told"
        assert asyncio.iscoroutine(coroutine)
        assert inspect.isawaitable(coroutine)
        assert "told() running at" in repr(task)
        assert "'ada'" in repr(task)
        assert [frame.f_code.co_name for frame in task.get_stack()] == ["told"]
        go.set()
        await task
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


async def test_an_argument_that_is_no_coroutine_is_refused_as_ever() -> None:
    with watched() as recorder:
        loop = asyncio.get_running_loop()
        wrong: Any = 5
        with pytest.raises(TypeError, match="a coroutine was expected, got 5"):
            await loop.create_task(wrong)
    assert recorder.traces == []


async def test_a_recording_keeps_no_result_alive() -> None:
    class Rows:
        pass

    kept: list[weakref.ref[Rows]] = []
    alive_after_del = []

    async def load() -> Rows:
        rows = Rows()
        kept.append(weakref.ref(rows))
        return rows

    async def parent() -> None:
        rows = await asyncio.create_task(load())
        del rows
        await asyncio.sleep(0)  # the loop itself holds on to a result for one step
        alive_after_del.append(kept[0]() is not None)

    with watched() as recorder:
        await asyncio.create_task(parent())
    assert len(recorder.traces) == 2
    assert alive_after_del == [False]


async def test_a_recorder_holds_no_task() -> None:
    with watched() as recorder:
        task = asyncio.create_task(asyncio.sleep(0))
        held = weakref.ref(task)
        await task
        del task
        await asyncio.sleep(0)  # the loop itself holds on to a task for one step
        gc.collect()
        assert held() is None
    assert len(recorder.traces) == 1


async def test_a_task_that_goes_on_afterwards_is_no_longer_recorded() -> None:
    go = asyncio.Event()

    async def long() -> str:
        await asyncio.sleep(0)
        await go.wait()
        await asyncio.sleep(0)
        return "finished"

    with watched() as recorder:
        task = asyncio.create_task(long(), name="outlives")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    (trace,) = recorder.traces
    steps = len(trace.steps)
    go.set()
    assert await task == "finished"
    assert len(trace.steps) == steps
    assert (trace.outcome, trace.given_name) == ("pending", "outlives")


# Names of what a task waits in.


class Ticker:
    """Awaitable by a generator of its own."""

    def __await__(self) -> Iterator[None]:
        yield
        yield


async def labels_of(coroutine: Coroutine[Any, Any, Any]) -> list[str]:
    with watched() as recorder:
        await asyncio.create_task(coroutine)
    return [label for _, _, label in recorder.traces[0].steps]


async def fetch() -> None:
    await asyncio.sleep(0)


async def test_the_innermost_coroutine_of_ours_gives_the_name() -> None:
    async def middle() -> None:
        await fetch()
        await asyncio.sleep(0)

    async def main() -> None:
        await middle()
        await asyncio.sleep(0)

    assert await labels_of(main()) == ["fetch", "middle", "main", ""]


async def test_an_async_generator_gives_its_name_until_it_is_left() -> None:
    async def rows() -> AsyncIterator[int]:
        await asyncio.sleep(0)
        yield 1
        await fetch()
        yield 2

    async def main() -> None:
        async for _ in rows():
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    assert await labels_of(main()) == ["rows", "main", "fetch", "main", "main", ""]


async def test_anext_and_aclose_lead_to_the_generator() -> None:
    async def rows() -> AsyncIterator[int]:
        try:
            await asyncio.sleep(0)
            yield 1
        finally:
            await asyncio.sleep(0)

    async def main() -> None:
        numbers: Any = rows()
        await anext(numbers)
        await numbers.aclose()
        await anext(rows(), None)

    assert await labels_of(main()) == ["rows", "rows", "rows", ""]


async def test_an_async_context_manager_gives_its_name() -> None:
    class Lock:
        async def __aenter__(self) -> None:
            await asyncio.sleep(0)

        async def __aexit__(self, *_: object) -> None:
            await asyncio.sleep(0)

    async def main() -> None:
        async with Lock():
            await asyncio.sleep(0)

    assert await labels_of(main()) == ["__aenter__", "main", "__aexit__", ""]


async def test_the_iterator_of_a_coroutine_leads_to_it() -> None:
    class Wrapped:
        def __await__(self) -> Any:
            return fetch().__await__()

    async def main() -> None:
        await Wrapped()
        await Ticker()

    assert await labels_of(main()) == ["fetch", "__await__", "__await__", ""]


async def test_two_calls_of_one_function_are_told_apart() -> None:
    async def main() -> None:
        await fetch()
        await fetch()

    with watched() as recorder:
        await asyncio.create_task(main())
    (trace,) = recorder.traces
    assert [label for *_, label in trace.steps] == ["fetch", "fetch", ""]
    assert trace.changes() == {0, 1}
    assert trace.calls() == [Call("fetch", 0, 1), Call("fetch", 1, 2)]


async def test_calls_are_noted_however_deep() -> None:
    async def inner() -> None:
        await fetch()
        await fetch()

    async def main() -> None:
        await inner()
        await asyncio.sleep(0)
        await inner()

    with watched() as recorder:
        await asyncio.create_task(main())
    (trace,) = recorder.traces
    assert trace.calls() == [
        Call("inner", 0, 2), Call("fetch", 0, 1), Call("fetch", 1, 2),
        Call("inner", 3, 5), Call("fetch", 3, 4), Call("fetch", 4, 5),
    ]  # fmt: skip
    assert trace.changes() == {0, 1, 2, 3, 4}


async def test_waiting_on_in_one_call_is_no_change() -> None:
    async def patient() -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    async def main() -> None:
        await patient()

    with watched() as recorder:
        await asyncio.create_task(main())
    assert recorder.traces[0].changes() == {0}


async def test_a_call_that_has_not_ended_stays_open() -> None:
    go = asyncio.Event()

    async def waits() -> None:
        await go.wait()

    async def main() -> None:
        await waits()

    with watched() as recorder:
        task = asyncio.create_task(main())
        await asyncio.sleep(0)
    go.set()
    await task
    assert recorder.traces[0].calls() == [Call("waits", 0, None)]


async def test_nested_recorders_both_give_names() -> None:
    async def main() -> None:
        await fetch()

    with watched() as outer, watched() as inner:
        await asyncio.create_task(main())
    assert [label for *_, label in outer.traces[0].steps] == ["fetch", ""]
    assert [label for *_, label in inner.traces[0].steps] == ["fetch", ""]


async def test_a_given_name_is_kept_and_an_automatic_one_is_not() -> None:
    with watched() as recorder:
        async with asyncio.TaskGroup() as group:
            group.create_task(fetch(), name="ada")
            group.create_task(fetch(), name="Task-force")
            group.create_task(fetch(), name="queue")
            group.create_task(fetch())
            late = group.create_task(fetch())
            late.set_name("late")
    assert [trace.given_name for trace in recorder.traces] == [
        "ada",
        "Task-force",
        "queue",
        "",
        "late",
    ]


async def fails_at_once() -> None:
    raise LookupError


async def test_tasks_of_anyio_are_named_after_their_functions() -> None:
    from functools import partial

    class Users:
        async def get_by_id(self, ident: int) -> None:
            await asyncio.sleep(0)

        async def __call__(self) -> None:
            await asyncio.sleep(0)

    async def server(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        task_status.started()

    with watched() as recorder, suppress(ExceptionGroup):
        async with anyio.create_task_group() as group:
            group.start_soon(fetch)
            group.start_soon(partial(fetch))
            group.start_soon(Users().get_by_id, 1)
            group.start_soon(Users())
            group.start_soon(fetch, name="ada")
            await group.start(server)
            group.start_soon(fails_at_once)
    found = [(trace.given_name or trace.function, trace.ours) for trace in recorder.traces]
    names = ["fetch", "fetch", "get_by_id", "Users", "ada", "server", "fails_at_once"]
    assert found == [(name, True) for name in names]
    assert recorder.traces[-1].error == "LookupError"


async def test_an_anyio_scope_cancels_a_watched_task() -> None:
    began = asyncio.Event()

    async def waits() -> None:
        began.set()
        await anyio.sleep_forever()

    async def main() -> bool:
        async with anyio.create_task_group() as group:
            group.start_soon(waits)
            await began.wait()
            group.cancel_scope.cancel()
        with anyio.move_on_after(0) as scope:
            await anyio.sleep_forever()
        return scope.cancelled_caught

    with watched() as recorder:
        assert await asyncio.create_task(main())
    assert {name: trace.outcome for name, trace in traces(recorder).items()} == {
        "main": "done",
        "waits": "cancelled",
    }


async def test_a_library_function_that_we_ask_for_is_ours_and_one_that_it_asks_for_is_not() -> None:
    async def main() -> None:
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0)
        await asyncio.shield(asyncio.sleep(0))

    with watched() as recorder:
        await asyncio.create_task(main())
        namespace: dict[str, Any] = {}
        library = compile(
            "import asyncio\nasync def close():\n    await asyncio.shield(asyncio.sleep(0))\n",
            asyncio.__file__.replace("asyncio", "somelib"),
            "exec",
        )
        exec(library, namespace)
        await namespace["close"]()
    found = [(trace.function, trace.ours) for trace in recorder.traces]
    assert found == [("main", True), *[("sleep", True)] * 5, ("sleep", False)]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
async def test_eager_tasks_keep_parents_names_and_results() -> None:
    loop = asyncio.get_running_loop()
    eager: Any = asyncio.eager_task_factory  # ty: ignore[missing-attribute]
    loop.set_task_factory(eager)
    try:

        async def child() -> str:
            return "at once"

        async def parent() -> list[str]:
            return [await asyncio.create_task(child(), name="ada"), await slow()]

        async def slow() -> str:
            await asyncio.sleep(0)
            return "later"

        with watched() as recorder:
            assert await asyncio.create_task(parent()) == ["at once", "later"]
        assert loop.get_task_factory() is eager
    finally:
        loop.set_task_factory(None)
    root, below = recorder.traces
    assert below.parent is root
    assert below.given_name == "ada"
    assert [label for *_, label in root.steps] == ["slow", ""]


# Other loops.


@contextmanager
def loop_in_a_thread() -> Generator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_on_loop_runs_in_the_loops_thread_and_passes_errors_on() -> None:
    seen = []
    with loop_in_a_thread() as loop:
        on_loop(loop, lambda: seen.append(threading.current_thread()))
        with pytest.raises(ZeroDivisionError):
            on_loop(loop, lambda: 1 // 0)
    assert seen[0] is not threading.current_thread()


def test_on_loop_gives_up_on_a_loop_that_is_held() -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        release.wait()

    with loop_in_a_thread() as loop:
        loop.call_soon_threadsafe(hold)
        held.wait()
        try:
            with pytest.raises(TimeoutError):
                on_loop(loop, lambda: None, wait=0.01)
        finally:
            release.set()


# Whose code it is.


def test_whose_code_it_is() -> None:
    import httpx
    import IPython

    from looplab.lab.xray import xray

    assert is_ours(fetch.__code__)
    assert not is_ours(asyncio.sleep.__code__)
    assert not is_ours(httpx.AsyncClient.get.__code__)
    assert not is_ours(IPython.get_ipython.__code__)
    assert not is_ours(xray.__code__)
    in_a_cell = compile("async def f(): pass", "/tmp/ipykernel_7/1.py", "exec")
    assert is_ours(in_a_cell)


@pytest.mark.parametrize(
    ("qualified", "short"),
    [
        ("fetch", "fetch"),
        ("Users.fetch", "fetch"),
        ("main.<locals>.Users.fetch", "fetch"),
        ("main.<locals>.<lambda>", "<lambda>"),
        ("GET /users/1.json", "GET /users/1.json"),
    ],
)
def test_short_names(qualified: str, short: str) -> None:
    assert short_name(qualified) == short


def test_a_traced_coroutine_can_be_awaited() -> None:
    async def answer() -> int:
        return 42

    traced: Any = Recorder().wrap(answer(), None)[0]
    assert isinstance(traced, Traced)

    async def main() -> int:
        return await traced

    assert asyncio.run(main()) == 42
