"""What an x-ray notes about locks, slots, cancels and time-outs, in schedules made by hand."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from aiolimiter import AsyncLimiter

from looplab.lab import mark, span
from looplab.lab.recording import Recording
from looplab.lab.xray import xray

pytestmark = pytest.mark.anyio

LOCKS = {
    "asyncio.Lock": asyncio.Lock,
    "asyncio.Condition": asyncio.Condition,
    "asyncio.Semaphore": lambda: asyncio.Semaphore(1),
    "asyncio.BoundedSemaphore": lambda: asyncio.BoundedSemaphore(1),
    "anyio.Lock": anyio.Lock,
    "anyio.Condition": anyio.Condition,
    "anyio.Semaphore": lambda: anyio.Semaphore(1),
    "anyio.CapacityLimiter": lambda: anyio.CapacityLimiter(1),
}


async def record(coroutine: Any, **options: Any) -> Recording:
    return await xray(coroutine, show=False, **options)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def at_once(work: Callable[[], Awaitable[None]], names: str) -> None:
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(_named(work), name=name)


async def _named(work: Callable[[], Awaitable[None]]) -> None:
    await work()


def who(recording: Recording, name: str) -> list[str]:
    return [one.task for one in recording.spans(name)]


# Holding and queueing.


@pytest.mark.parametrize("make", LOCKS.values(), ids=LOCKS)
async def test_one_holds_at_a_time_and_the_others_queue(make: Callable[[], Any]) -> None:
    lock = make()
    kind = type(lock)

    async def work() -> None:
        async with lock:
            await turns(3)

    recording = await record(at_once(work, "abc"), watch={"lock": lock})
    assert who(recording, "holds lock") == ["a", "b", "c"]
    assert sorted(who(recording, "queues for lock")) == ["b", "c"]
    assert recording.peak_of("holds lock") == 1
    assert recording.peak_of("queues for lock") == 2
    for queue in recording.spans("queues for lock"):
        taken = next(hold for hold in recording.spans("holds lock") if hold.task == queue.task)
        assert queue.began < queue.ended <= taken.began
    assert type(lock) is kind


@pytest.mark.parametrize("make", LOCKS.values(), ids=LOCKS)
async def test_acquire_and_release_by_hand_are_seen_like_async_with(
    make: Callable[[], Any],
) -> None:
    lock = make()

    async def work() -> None:
        await lock.acquire()
        await turns(2)
        lock.release()
        await turns(5)

    recording = await record(at_once(work, "abc"), watch={"lock": lock})
    assert who(recording, "holds lock") == ["a", "b", "c"]
    assert len(recording.spans("queues for lock")) == 2
    ends = {lane.name: lane.ended for lane in recording.tasks}
    assert all(hold.ended < ends[hold.task] for hold in recording.spans("holds lock"))


async def test_so_many_hold_a_slot_as_there_are() -> None:
    slots = asyncio.Semaphore(5)

    async def work() -> None:
        async with slots:
            await turns(4)

    recording = await record(at_once(work, "abcdefghijklmnopqrst"), watch={"slot": slots})
    assert recording.peak_of("holds slot") == 5
    assert len(recording.spans("holds slot")) == 20
    assert len(recording.spans("queues for slot")) == 15
    assert all(hold.duration > 0 for hold in recording.spans("holds slot"))


async def test_a_slot_that_is_free_is_not_queued_for() -> None:
    slots = asyncio.Semaphore(3)

    async def work() -> None:
        async with slots:
            await turns(2)

    recording = await record(at_once(work, "abc"), watch={"slot": slots})
    assert recording.spans("queues for slot") == []
    assert recording.peak_of("queues for slot") == 0


async def test_a_task_that_takes_two_slots_holds_two() -> None:
    slots = asyncio.Semaphore(2)

    async def greedy() -> None:
        async with slots:
            await turns(1)
            async with slots:
                await turns(1)

    recording = await record(greedy(), watch={"slot": slots})
    outer, inner = recording.spans("holds slot")
    assert outer.began < inner.began < inner.ended < outer.ended
    assert recording.peak_of("holds slot") == 2


async def test_a_lock_released_by_another_task_or_a_callback_is_not_held_on() -> None:
    slots = asyncio.Semaphore(2)
    ended: list[float] = []

    async def makes() -> None:
        for _ in range(2):
            await slots.acquire()
        asyncio.get_running_loop().call_soon(slots.release)
        await turns(2)
        await asyncio.create_task(gives(), name="gives")
        await turns(2)

    async def gives() -> None:
        slots.release()

    recording = await record(makes(), watch={"slot": slots})
    ended = [hold.ended for hold in recording.spans("holds slot")]
    assert who(recording, "holds slot") == ["makes", "makes"]
    assert ended == sorted(ended)
    assert ended[-1] < recording.duration


async def test_a_lock_that_is_never_released_is_held_to_the_end() -> None:
    lock = asyncio.Lock()

    async def forgets() -> None:
        await lock.acquire()

    async def main() -> None:
        await asyncio.create_task(forgets())
        await turns(5)

    recording = await record(main(), watch={"lock": lock})
    (hold,) = recording.spans("holds lock")
    assert hold.ended == recording.duration
    assert hold.ended > recording.tasks[1].ended


async def test_a_condition_is_not_held_while_it_waits() -> None:
    condition = asyncio.Condition()

    async def waits() -> None:
        async with condition:
            await condition.wait()
            await turns(1)

    async def main() -> None:
        waiter = asyncio.create_task(waits())
        await turns(2)
        async with condition:
            condition.notify()
        await waiter

    recording = await record(main(), watch={"condition": condition})
    assert who(recording, "holds condition") == ["waits", "main", "waits"]
    assert recording.peak_of("holds condition") == 1
    assert "acquire" in vars(condition)  # its lock's own method is back
    assert vars(condition)["acquire"].__self__ is not condition


async def test_who_gives_up_queueing_does_not_hold() -> None:
    lock = asyncio.Lock()

    async def impatient() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(lock.acquire(), 0.01)

    async def main() -> None:
        async with lock:
            await asyncio.create_task(impatient())

    recording = await record(main(), watch={"lock": lock})
    assert who(recording, "holds lock") == ["main"]
    assert who(recording, "queues for lock") == ["impatient"]
    assert recording.timed_out == ["impatient"]


async def test_wait_for_an_acquire_is_the_waiting_tasks_own() -> None:
    lock = asyncio.Lock()

    async def waits() -> None:
        await asyncio.wait_for(lock.acquire(), 5)
        await turns(1)
        lock.release()
        await turns(3)

    recording = await record(at_once(waits, "ab"), watch={"lock": lock})
    assert who(recording, "holds lock") == ["a", "b"]
    assert recording.names == ["at_once", "a", "b"]
    assert recording.peak_of("holds lock") == 1


async def test_a_lock_that_says_no_is_not_held() -> None:
    class Polled:
        free = False

        async def acquire(self) -> bool:
            await turns(1)
            return self.free

        async def release(self) -> None:
            await turns(1)

        async def __aenter__(self) -> None:
            while not await self.acquire():
                self.free = True

        async def __aexit__(self, *_: object) -> None:
            await self.release()

    async def asks() -> None:
        assert not await lock.acquire()
        async with lock:
            await turns(1)

    lock = Polled()
    recording = await record(asks(), watch={"lock": lock})
    assert len(recording.spans("queues for lock")) == 2
    assert len(recording.spans("holds lock")) == 1
    assert type(lock) is Polled


async def test_a_class_stands_for_all_of_its_objects() -> None:
    class Lease(asyncio.Lock):
        async def __aenter__(self) -> None:
            await super().acquire()

    before = dict(vars(Lease))

    async def work() -> None:
        async with Lease():
            await turns(2)

    recording = await record(at_once(work, "ab"), watch={"lease": Lease})
    assert who(recording, "holds lease") == ["a", "b"]
    assert recording.peak_of("holds lease") == 2
    assert dict(vars(Lease)) == before


async def test_a_rate_limiter_is_queued_for() -> None:
    limiter = AsyncLimiter(1, 0.02)

    async def work() -> None:
        async with limiter:
            await turns(1)

    recording = await record(at_once(work, "ab"), watch={"rate": limiter})
    assert who(recording, "queues for rate") == ["b"]


async def test_acquire_nowait_holds_at_once() -> None:
    limiter = anyio.CapacityLimiter(1)

    async def takes() -> None:
        limiter.acquire_nowait()
        with suppress(anyio.WouldBlock, RuntimeError):
            limiter.acquire_nowait()
        await turns(1)
        limiter.release()

    recording = await record(takes(), watch={"slot": limiter})
    assert len(recording.spans("holds slot")) == 1
    assert recording.spans("queues for slot") == []


async def test_a_lock_of_anyio_that_is_handed_back_on_a_cancel_ends_nobodys_hold() -> None:
    lock = anyio.Lock()

    async def holds() -> None:
        async with lock:
            await turns(2)

    async def leaves() -> None:
        async with lock:
            await turns(20)

    async def main() -> None:
        first = asyncio.create_task(holds())
        await turns(2)
        second = asyncio.create_task(leaves())
        await turns(1)
        await first
        second.cancel()  # it has been given the lock and does not know yet
        third = asyncio.create_task(holds(), name="third")
        await asyncio.wait([second, third])

    recording = await record(main(), watch={"lock": lock})
    assert recording.peak_of("holds lock") == 1
    assert all(hold.duration > 0 for hold in recording.spans("holds lock"))


async def test_a_task_that_is_not_recorded_ends_nobodys_hold() -> None:
    slots = asyncio.Semaphore(2)
    go = asyncio.Event()

    async def outsider() -> None:
        async with slots:
            await go.wait()

    async def insider() -> None:
        async with slots:
            go.set()
            await turns(4)

    outside = asyncio.create_task(outsider())
    await turns(1)
    recording = await record(insider(), watch={"slot": slots})
    await outside
    (hold,) = recording.spans("holds slot")
    assert hold.task == "insider"
    assert hold.ended > recording.tasks[0].steps[-2][1]


async def test_two_recordings_at_once_watch_one_lock_each_for_itself() -> None:
    lock = asyncio.Lock()

    async def long() -> None:
        async with lock:
            await turns(4)
        await turns(8)
        async with lock:
            await turns(1)

    async def short() -> None:
        async with lock:
            await turns(1)

    first, second = await asyncio.gather(
        record(long(), watch={"lock": lock}), record(short(), watch={"mutex": lock})
    )
    assert who(first, "holds lock") == ["long", "long"]
    assert who(second, "holds mutex") == ["short"]
    assert type(lock) is asyncio.Lock


async def test_what_is_watched_is_as_before_when_the_experiment_fails() -> None:
    lock = asyncio.Lock()

    async def fails() -> None:
        async with lock:
            raise LookupError

    with pytest.raises(LookupError):
        await record(fails(), watch={"lock": lock})
    assert type(lock) is asyncio.Lock
    assert not lock.locked()


async def test_a_servers_tasks_are_seen_to_hold_too() -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    lock = asyncio.Lock()

    async def there() -> None:
        async with lock:
            await turns(2)

    async def asks() -> None:
        both = [asyncio.run_coroutine_threadsafe(there(), loop) for _ in range(2)]
        for one in both:
            await asyncio.wrap_future(one)

    try:
        server = SimpleNamespace(loop=loop)
        recording = await record(asks(), server=server, watch={"lock": lock})
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    assert who(recording, "holds lock") == ["there", "there"]
    assert recording.peak_of("holds lock") == 1


class OnlyBlocking:
    def acquire(self) -> None: ...

    def release(self) -> None: ...


@pytest.mark.parametrize(
    ("watch", "kind", "words"),
    [
        (asyncio.Lock(), TypeError, "watch is <asyncio"),
        ([asyncio.Lock()], TypeError, "it must give each lock a name"),
        ({1: asyncio.Lock()}, TypeError, "watch has the name 1"),
        ({" ": asyncio.Lock()}, TypeError, "watch has the name ' '"),
        ({"lock": 3}, TypeError, r"watch\['lock'\] is 3; it must have an async acquire"),
        ({"lock": threading.Lock()}, TypeError, "it must have an async acquire"),
        ({"lock": OnlyBlocking()}, TypeError, "it must have an async acquire"),
        ({"lock": asyncio.Lock}, TypeError, "the class Lock, which libraries use too"),
        ({"gen": AsyncGenerator}, TypeError, "it must have an async acquire"),
    ],
)
async def test_what_cannot_be_watched_is_refused_with_a_reason(
    watch: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        await record(turns(1), watch=watch)


async def test_one_lock_has_one_name() -> None:
    lock = asyncio.Lock()
    with pytest.raises(ValueError, match="is watched as 'a' already"):
        await record(turns(1), watch={"a": lock, "b": lock})


async def test_a_class_that_forbids_subclasses_is_refused_and_left_alone() -> None:
    class Sealed:
        def __init_subclass__(cls) -> None:
            raise TypeError("Sealed has no subclasses")

        async def acquire(self) -> None: ...

        def release(self) -> None: ...

    lock, sealed = asyncio.Lock(), Sealed()
    with pytest.raises(TypeError, match="its methods can't be replaced: Sealed has no subclasses"):
        await record(turns(1), watch={"lock": lock, "sealed": sealed})
    assert type(lock) is asyncio.Lock
    assert type(sealed) is Sealed


async def test_an_unknown_span_is_refused_with_those_that_are_known() -> None:
    recording = await record(turns(1), watch={"slot": asyncio.Lock()})
    with pytest.raises(ValueError, match="the spans holds slot, queues for slot"):
        recording.spans("holds lock")
    with pytest.raises(ValueError, match=r"give xray.*what to watch"):
        (await record(turns(1))).peak_of("holds lock")


# Cancelled here, timed out here.


async def sleeps() -> None:
    await asyncio.sleep(5)


async def by_timeout() -> None:
    async with asyncio.timeout(0.01):
        await sleeps()


async def by_wait_for() -> None:
    await asyncio.wait_for(sleeps(), 0.01)


async def by_fail_after() -> None:
    with anyio.fail_after(0.01):
        await sleeps()


async def by_move_on_after() -> None:
    with anyio.move_on_after(0.01):
        await sleeps()


async def by_an_exit_stack() -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(0.01))
        await sleeps()


@asynccontextmanager
async def deadline() -> AsyncGenerator[None]:
    async with asyncio.timeout(0.01):
        yield


async def by_a_context_manager_of_ours() -> None:
    async with deadline():
        await sleeps()


async def in_a_generator() -> None:
    async def numbers() -> AsyncGenerator[int]:
        async with asyncio.timeout(0.01):
            await sleeps()
        yield 1

    async for _ in numbers():
        pass


@pytest.mark.parametrize(
    "program",
    [
        by_timeout, by_wait_for, by_fail_after, by_move_on_after, by_an_exit_stack,
        by_a_context_manager_of_ours, in_a_generator,
    ],
)  # fmt: skip
async def test_a_time_out_is_marked_where_it_expires(program: Any) -> None:
    recording = await record(program(), catch=TimeoutError)
    assert recording.timed_out == [program.__name__]
    (late,) = [one for one in recording.marks if one.text == "timed out here"]
    assert 0.009 < late.at <= recording.duration


async def test_those_whom_a_time_out_cancels_are_cancelled_and_not_timed_out() -> None:
    async def main() -> None:
        async with asyncio.timeout(0.01), asyncio.TaskGroup() as group:
            group.create_task(sleeps(), name="a")
            group.create_task(sleeps(), name="b")

    recording = await record(main(), catch=TimeoutError)
    marks = {one.task: one.text for one in recording.marks}
    assert marks == {"main": "timed out here", "a": "cancelled here", "b": "cancelled here"}
    assert recording.marks[0].task == "main"
    assert recording.timed_out == ["main"]


async def test_a_cancel_inside_a_time_out_is_a_cancel() -> None:
    async def patient() -> None:
        async with asyncio.timeout(5):
            with anyio.fail_after(5):
                await sleeps()

    async def main() -> None:
        task = asyncio.create_task(patient())
        await turns(2)
        task.cancel()
        await asyncio.wait([task])

    recording = await record(main())
    assert [(one.task, one.text) for one in recording.marks] == [("patient", "cancelled here")]


async def test_a_cancel_after_a_time_out_is_a_cancel() -> None:
    async def main() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0) as over:
                await sleeps()
        assert over.expired()
        asyncio.get_running_loop().call_soon(me().cancel)
        with suppress(asyncio.CancelledError):
            await sleeps()

    def me() -> "asyncio.Task[Any]":
        task = asyncio.current_task()
        assert task is not None
        return task

    recording = await record(main())
    assert [one.text for one in recording.marks] == ["timed out here", "cancelled here"]


async def test_awaiting_what_was_cancelled_marks_nothing() -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.cancel)
        with suppress(asyncio.CancelledError):
            await future

    assert (await record(main())).marks == []


async def test_a_task_cancelled_before_its_first_step_is_told_from_others() -> None:
    async def main() -> None:
        task = asyncio.create_task(sleeps())
        task.cancel()
        await asyncio.wait([task])

    recording = await record(main())
    assert [one.text for one in recording.marks] == ["cancelled before it started"]
    assert recording.cancelled == ["sleeps"]


# Made, not started.


async def test_a_task_that_takes_no_step_is_not_started() -> None:
    made: list[asyncio.Task[None]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: made.append(loop.create_task(sleeps(), name="late")))

    recording = await record(main())
    for task in made:
        task.cancel()
    await asyncio.wait(made)
    assert recording.not_started == ["late"]
    assert recording.names == ["main"]
    assert [lane.name for lane in recording.drawn] == ["main", "late"]


async def test_a_lane_knows_when_its_task_was_made() -> None:
    async def main() -> None:
        task = asyncio.create_task(turns(1))
        until = asyncio.get_running_loop().time() + 0.005
        while asyncio.get_running_loop().time() < until:
            pass
        await task

    lane = (await record(main())).tasks[1]
    assert lane.began - lane.made >= 0.005


async def test_a_library_that_cancels_itself_and_goes_on_leaves_no_mark() -> None:
    """AnyIO's connect cancels its own task group as soon as one address has answered."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    _, port = server.sockets[0].getsockname()

    async def connects() -> None:
        await (await anyio.connect_tcp("127.0.0.1", port)).aclose()

    async with server:
        recording = await record(connects())
        await turns(4)
    assert recording.names == ["connects"]
    assert recording.marks == []


async def test_code_of_ours_that_swallows_its_cancellation_keeps_the_mark() -> None:
    async def stubborn() -> None:
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.05)

    async def main() -> None:
        task = asyncio.create_task(stubborn())
        await turns(2)
        task.cancel()
        await task

    recording = await record(main())
    assert [(one.task, one.text) for one in recording.marks] == [("stubborn", "cancelled here")]


# Marks of a lesson's own.


async def test_a_mark_and_a_span_stand_on_the_lane_of_their_task() -> None:
    async def child() -> None:
        with span("holds the lease"):
            await turns(2)
        mark("gives up")

    async def main() -> None:
        await asyncio.gather(child(), turns(4))

    recording = await record(main())
    assert [(one.task, one.text) for one in recording.marks] == [("child", "gives up")]
    (lease,) = recording.spans("holds the lease")
    assert lease.task == "child"
    assert 0 < lease.began < lease.ended <= recording.marks[0].at


async def test_a_mark_outside_a_recording_does_nothing() -> None:
    mark("nobody looks")
    with span("nobody looks"):
        await turns(1)
    await asyncio.to_thread(mark, "no loop here")


def test_a_mark_needs_no_event_loop() -> None:
    mark("no loop at all")


@pytest.mark.parametrize("put", [mark, lambda text: span(text).__enter__()])
def test_a_mark_has_words(put: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="text is 3; it must be a string"):
        put(3)
    with pytest.raises(ValueError, match="text is ' '; it must say something"):
        put(" ")
