"""An x-ray of schedules made by hand: events decide who runs when, so order is certain."""

import asyncio
import contextvars
import gc
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from looplab.lab import display
from looplab.lab.recording import Recording
from looplab.lab.xray import show_xray, xray

pytestmark = pytest.mark.anyio


async def record(coroutine: Any, **options: Any) -> Recording:
    return await xray(coroutine, show=False, **options)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# Order and overlap.


async def test_started_and_order_follow_the_schedule() -> None:
    gates = {name: asyncio.Event() for name in "abc"}

    async def branch(name: str) -> None:
        await gates[name].wait()

    async def conduct() -> None:
        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(branch(name), name=name)
            await turns(2)
            for name in "cab":
                gates[name].set()
                await turns(2)

    recording = await record(conduct())
    assert recording.names == ["conduct", "a", "b", "c"]
    assert recording.started == ["conduct", "a", "b", "c"]
    assert recording.order == ["c", "a", "b", "conduct"]
    assert recording.peak_in_flight() == 3
    assert recording.peak_in_flight("a", "b") == 2
    assert recording.cancelled == recording.failed == recording.pending == []


async def get_by_id() -> None:
    await turns(3)


async def get_recent() -> None:
    await turns(3)


async def test_named_waits_in_one_task_come_one_at_a_time() -> None:
    async def one_by_one() -> None:
        await get_by_id()
        await get_recent()
        await get_by_id()

    recording = await record(one_by_one())
    assert recording.names == ["one_by_one"]
    assert recording.peak_in_flight("get_by_id", "get_recent") == 1
    assert len(recording.waits("get_by_id")) == 2
    assert len(recording.waits("get_recent")) == 1
    ((first, second), (third,)) = recording.waits("get_by_id"), recording.waits("get_recent")
    assert first[1] <= third[0]
    assert third[1] <= second[0]


async def test_a_loop_over_one_function_is_as_many_waits() -> None:
    async def one_by_one() -> None:
        for _ in range(6):
            await get_by_id()

    recording = await record(one_by_one())
    assert len(recording.waits("get_by_id")) == 6
    assert recording.peak_in_flight("get_by_id") == 1


async def test_gathered_they_are_in_flight_at_once() -> None:
    async def gathered() -> None:
        await asyncio.gather(get_by_id(), get_recent(), get_by_id())

    recording = await record(gathered())
    assert recording.names == ["gathered", "get_by_id", "get_recent", "get_by_id"]
    assert recording.peak_in_flight("get_by_id", "get_recent") == 3
    assert recording.peak_in_flight() == 3


async def test_branches_with_names_inside_overlap_too() -> None:
    async def branch() -> None:
        await get_by_id()
        await get_recent()

    async def gathered() -> None:
        await asyncio.gather(branch(), branch())

    recording = await record(gathered())
    assert recording.names == ["gathered", "branch", "branch"]
    assert recording.peak_in_flight("get_by_id") == 2
    assert recording.peak_in_flight("branch") == 2


async def test_nested_gathers_nest() -> None:
    async def inner() -> None:
        await asyncio.gather(get_by_id(), get_recent())

    async def outer() -> None:
        await asyncio.gather(get_by_id(), inner())

    recording = await record(outer())
    assert [(lane.name, lane.depth) for lane in recording.tasks] == [
        ("outer", 0), ("get_by_id", 1), ("inner", 1), ("get_by_id", 2), ("get_recent", 2),
    ]  # fmt: skip
    assert recording.peak_in_flight() == 3


async def test_gathered_library_functions_have_lanes() -> None:
    async def naps() -> None:
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0), asyncio.sleep(0))

    recording = await record(naps())
    assert recording.names == ["naps", "sleep", "sleep", "sleep"]
    assert recording.peak_in_flight() == 3


async def test_a_semaphore_bounds_the_named_waits() -> None:
    semaphore = asyncio.Semaphore(2)

    async def call() -> None:
        await turns(3)

    async def branch() -> None:
        async with semaphore:
            await call()

    async def bounded() -> None:
        await asyncio.gather(*(branch() for _ in range(7)))

    recording = await record(bounded())
    assert recording.peak_in_flight("branch") == 7
    assert recording.peak_in_flight("call") == 2


async def test_anyio_task_groups_have_named_lanes() -> None:
    async def group_of_three() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(get_by_id)
            group.start_soon(get_recent)
            group.start_soon(get_by_id, name="ada")

    recording = await record(group_of_three())
    assert recording.names == ["group_of_three", "get_by_id", "get_recent", "ada"]
    assert recording.peak_in_flight() == 3


async def test_async_generators_and_context_managers_are_named_waits() -> None:
    async def rows() -> AsyncIterator[int]:
        for number in range(2):
            await asyncio.sleep(0)
            yield number

    @asynccontextmanager
    async def timed() -> AsyncGenerator[None]:
        await asyncio.sleep(0)
        yield

    async def export() -> list[int]:
        async with timed():
            return [row async for row in rows()]

    recording = await record(export())
    assert recording.result == [0, 1]
    assert list(recording.tasks[0].waits) == ["timed", "rows"]


# Who held the loop.


async def test_the_longest_hold_and_who_held() -> None:
    async def render() -> None:
        await asyncio.sleep(0)
        time.sleep(0.03)  # noqa: ASYNC251

    async def page() -> None:
        await asyncio.gather(get_by_id(), render(), get_recent())

    recording = await record(page(), held=0.025)
    assert recording.longest_hold >= 0.03
    longest = max(recording.holds, key=lambda hold: hold.duration)
    assert longest.name == "render"
    assert longest.duration == recording.longest_hold


async def test_awaiting_holds_nobody_up() -> None:
    recording = await record(asyncio.sleep(0.5), held=5)
    assert recording.holds == []
    assert recording.longest_hold < recording.duration / 2


# Cancellation and exceptions.


async def test_a_failing_branch_of_a_task_group_cancels_its_siblings() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise LookupError("gone")

    async def waits() -> None:
        await asyncio.Event().wait()

    async def page() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(waits())
            group.create_task(fails())

    recording = await record(page(), catch=ExceptionGroup)
    assert isinstance(recording.error, ExceptionGroup)
    assert recording.cancelled == ["waits"]
    assert recording.failed == [("page", "ExceptionGroup"), ("fails", "LookupError")]
    assert recording.order == ["fails", "waits", "page"]
    with pytest.raises(ExceptionGroup):
        _ = recording.result


async def test_a_failing_branch_of_gather_leaves_the_others_running() -> None:
    go = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def fails() -> None:
        raise LookupError("gone")

    async def goes_on() -> None:
        await go.wait()

    async def page() -> None:
        tasks.append(asyncio.create_task(goes_on()))
        await asyncio.gather(tasks[0], fails())

    recording = await record(page(), catch=LookupError)
    assert recording.pending == ["goes_on"]
    assert recording.order == ["fails", "page"]
    go.set()
    await tasks[0]
    assert recording.pending == ["goes_on"]


async def test_a_cancelled_task_that_goes_on_is_not_called_cancelled() -> None:
    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async def obedient() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        tasks = [asyncio.create_task(stubborn()), asyncio.create_task(obedient())]
        await turns(1)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    recording = await record(main())
    assert recording.cancelled == ["obedient"]


async def test_a_task_cancelled_before_its_first_step_has_a_lane() -> None:
    async def never() -> None: ...

    async def main() -> None:
        task = asyncio.create_task(never())
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    recording = await record(main())
    assert recording.cancelled == ["never"]
    gc.collect()


@pytest.mark.parametrize("how", ["wait_for", "timeout"])
async def test_a_time_out_is_seen(how: str) -> None:
    async def partner() -> None:
        await asyncio.Event().wait()

    async def impatient() -> None:
        if how == "wait_for":
            await asyncio.wait_for(partner(), 0.001)
        else:
            async with asyncio.timeout(0.001):
                await partner()

    recording = await record(impatient(), catch=TimeoutError)
    assert ("impatient", "TimeoutError") in recording.failed
    assert recording.peak_in_flight("partner") == 1


async def test_an_exception_that_catch_does_not_name_is_raised() -> None:
    async def fails() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await record(fails(), catch=KeyError)
    assert asyncio.get_running_loop().get_task_factory() is None


async def test_catch_takes_several() -> None:
    async def fails() -> None:
        raise LookupError("gone")

    recording = await record(fails(), catch=(ValueError, LookupError))
    assert isinstance(recording.error, LookupError)


async def test_an_x_ray_that_is_cancelled_cancels_what_it_runs() -> None:
    began = asyncio.Event()
    ended = []

    async def runs() -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    outer = asyncio.create_task(record(runs()))
    await began.wait()
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outer
    assert ended == [True]
    assert asyncio.get_running_loop().get_task_factory() is None
    assert gc.isenabled()


async def test_an_anyio_scope_ends_an_x_ray() -> None:
    with anyio.move_on_after(0.001) as scope:
        await record(anyio.sleep_forever())
    assert scope.cancelled_caught
    assert asyncio.get_running_loop().get_task_factory() is None


async def test_an_anyio_scope_inside_an_x_ray_works() -> None:
    async def partner() -> None:
        await anyio.sleep_forever()

    async def impatient() -> bool:
        with anyio.move_on_after(0.001) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(partner)
                group.start_soon(partner)
        return scope.cancelled_caught

    recording = await record(impatient())
    assert recording.result is True
    assert recording.cancelled == ["partner", "partner"]


# Before, after and beside.


async def test_tasks_made_before_have_no_lane() -> None:
    go = asyncio.Event()
    early = asyncio.create_task(go.wait())
    await asyncio.sleep(0)

    async def main() -> None:
        go.set()
        await early
        await asyncio.create_task(get_by_id())

    recording = await record(main())
    assert recording.names == ["main", "get_by_id"]


async def test_tasks_made_after_are_plain() -> None:
    await record(get_by_id())
    task = asyncio.create_task(get_by_id())
    assert type(task.get_coro()).__name__ == "coroutine"
    await task
    assert asyncio.get_running_loop().get_task_factory() is None


async def test_other_tasks_of_the_loop_have_no_lane() -> None:
    stop = asyncio.Event()

    async def beside() -> None:
        while not stop.is_set():
            await asyncio.create_task(asyncio.sleep(0))

    other = asyncio.create_task(beside())
    recording = await record(get_by_id())
    stop.set()
    await other
    assert recording.names == ["get_by_id"]


async def test_a_task_that_outlives_the_recording_is_pending_and_runs_on() -> None:
    go = asyncio.Event()
    tasks = []

    async def background() -> str:
        await go.wait()
        await asyncio.create_task(get_by_id())
        return "finished"

    async def main() -> None:
        tasks.append(asyncio.create_task(background()))
        await turns(2)

    recording = await record(main())
    assert recording.pending == ["background"]
    steps = recording.steps
    go.set()
    assert await tasks[0] == "finished"
    assert recording.steps == steps


async def test_nested_recordings_each_have_their_own() -> None:
    inner = []

    async def main() -> None:
        inner.append(await record(get_by_id()))
        await get_recent()

    outer = await record(main())
    assert inner[0].names == ["get_by_id"]
    assert outer.names == ["main", "get_by_id"]
    assert len(outer.waits("get_recent")) == 1
    assert asyncio.get_running_loop().get_task_factory() is None


async def test_overlapping_recordings_do_not_mix() -> None:
    async def short() -> None:
        await asyncio.gather(get_by_id(), get_by_id())

    async def long() -> None:
        await turns(20)
        await asyncio.gather(get_recent(), get_recent())

    first, second = await asyncio.gather(record(short()), record(long()))
    assert first.names == ["short", "get_by_id", "get_by_id"]
    assert second.names == ["long", "get_recent", "get_recent"]
    assert asyncio.get_running_loop().get_task_factory() is None
    assert gc.isenabled()


async def test_context_variables_pass_in_and_stay_in() -> None:
    colour = contextvars.ContextVar("colour", default="none")

    async def paint() -> str:
        found = colour.get()
        colour.set("red")
        return found

    colour.set("blue")
    recording = await record(paint())
    assert recording.result == "blue"
    assert colour.get() == "blue"


async def test_a_child_in_an_empty_context_has_a_lane() -> None:
    async def main() -> None:
        await asyncio.create_task(get_by_id(), context=contextvars.Context())

    assert (await record(main())).names == ["main", "get_by_id"]


async def test_the_result_is_passed_on() -> None:
    rows = [1, 2, 3]

    async def load() -> list[int]:
        return rows

    assert (await record(load())).result is rows


# A server in a thread.


@dataclass
class Server:
    loop: asyncio.AbstractEventLoop


@contextmanager
def server() -> Generator[Server]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield Server(loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def answers() -> str:
    await asyncio.gather(get_by_id(), get_by_id())
    return "answered"


async def test_a_servers_tasks_have_lanes_of_their_own() -> None:
    with server() as remote:

        async def asks() -> str:
            asked = asyncio.run_coroutine_threadsafe(answers(), remote.loop)
            return await asyncio.wrap_future(asked)

        recording = await record(asks(), server=remote)
        assert remote.loop.get_task_factory() is None
    assert recording.result == "answered"
    lanes = [(lane.name, lane.loop, lane.depth) for lane in recording.tasks]
    assert lanes == [("asks", 0, 0), ("answers", 1, 0), ("get_by_id", 1, 1), ("get_by_id", 1, 1)]
    assert recording.peak_in_flight("get_by_id") == 2


async def test_a_servers_factory_is_given_back_after_an_error() -> None:
    async def fails() -> None:
        raise LookupError

    with server() as remote:
        with pytest.raises(LookupError):
            await record(fails(), server=remote)
        assert remote.loop.get_task_factory() is None


async def test_a_server_that_has_stopped_is_refused_and_nothing_is_left_behind() -> None:
    with server() as remote:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        await record(get_by_id(), server=remote)
    assert asyncio.get_running_loop().get_task_factory() is None
    gc.collect()


# Arguments.


async def test_a_function_that_was_not_called_is_refused_with_a_hint() -> None:
    with pytest.raises(
        TypeError, match=r"coroutine is <function get_by_id.*; call it: get_by_id\(\)"
    ):
        await record(get_by_id)


@pytest.mark.parametrize("wrong", [5, None, "f()"])
async def test_something_else_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="it must be a coroutine"):
        await record(wrong)


async def test_a_task_is_refused_and_does_not_run_on() -> None:
    task = asyncio.create_task(get_by_id())
    with pytest.raises(TypeError, match="a task that already runs"):
        await record(task)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_future_of_gather_is_refused_and_does_not_run_on() -> None:
    gathered = asyncio.gather(get_by_id(), get_by_id())
    with pytest.raises(TypeError, match="already runs"):
        await record(gathered)
    with pytest.raises(asyncio.CancelledError):
        await gathered


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"held": 0}, ValueError, "held is 0; it must be a number above 0, in seconds"),
        ({"held": -1}, ValueError, "held is -1"),
        ({"held": float("nan")}, ValueError, "held is nan"),
        ({"held": "10"}, ValueError, "held is '10'"),
        ({"catch": 5}, TypeError, "catch is 5; it must be an exception type"),
        ({"catch": (ValueError, "x")}, TypeError, "it must be an exception type or a tuple"),
        ({"catch": int}, TypeError, "catch is <class 'int'>"),
        ({"against": 5}, TypeError, "against is 5; it must be a recording"),
        ({"against": [5]}, TypeError, r"against is \[5\]"),
        ({"server": "http://localhost"}, TypeError, "it must have a loop"),
    ],
)
async def test_a_wrong_option_is_refused_before_anything_runs(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    ran = []

    async def runs() -> None:
        ran.append(True)

    with pytest.raises(error, match=words):
        await record(runs(), **options)
    gc.collect()  # a coroutine that was never awaited would warn here
    assert ran == []
    assert asyncio.get_running_loop().get_task_factory() is None


async def test_a_server_on_this_loop_is_refused() -> None:
    with pytest.raises(ValueError, match="it runs on this loop"):
        await record(get_by_id(), server=Server(asyncio.get_running_loop()))


# Titles and showing.


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    bundles: list[dict[str, str]] = []
    monkeypatch.setattr(display, "display", lambda bundle, **_: bundles.append(bundle))
    return bundles


async def test_the_title_is_the_coroutines_name_unless_given() -> None:
    assert (await record(get_by_id())).title == "get_by_id"
    assert (await record(get_by_id(), title="One user")).title == "One user"


async def test_a_picture_and_its_words_are_shown(shown: list[dict[str, str]]) -> None:
    await xray(get_by_id(), title="One user")
    picture, words = shown
    assert picture["text/plain"].startswith("A lane per task over time. One user: 1 task")
    assert words["text/plain"].startswith("One user: 1 task, done after")


async def test_recordings_are_drawn_against_earlier_ones(shown: list[dict[str, str]]) -> None:
    first = await xray(get_by_id(), title="First", show=False)
    second = await xray(get_by_id(), title="Second", show=False, against=first)
    assert shown == []
    await xray(get_by_id(), title="Third", against=[first, second])
    words = shown[1]["text/plain"]
    assert words.index("First:") < words.index("Second:") < words.index("Third:")


async def test_a_summary_of_ones_own_is_shown_instead(shown: list[dict[str, str]]) -> None:
    recording = await record(get_by_id())
    show_xray(recording, summary="One user, nothing else.")
    assert shown[1]["text/plain"] == "One user, nothing else."


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="recordings is empty"):
        show_xray()
