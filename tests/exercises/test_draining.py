"""The check of lesson 06, with right answers and wrong ones."""

import asyncio
import contextlib
from typing import Any

import pytest

from support.exercises import draining
from support.exercises.draining import EXERCISE, check_worker

pytestmark = pytest.mark.anyio

BRIEF = 750  # milliseconds: the check's patience with an answer that never goes on
AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy


def emptied(queue: Any) -> list[Any]:
    return [queue.get_nowait() for _ in range(queue.qsize())]


async def one_group(queue: Any, handle: Any, stopping: Any, budget: float) -> list[Any]:
    in_hand: list[Any] = []

    async def work() -> None:
        while True:
            in_hand.append(await queue.get())
            await handle(in_hand[0])
            in_hand.clear()
            queue.task_done()

    async with asyncio.TaskGroup() as group:
        worker = group.create_task(work())
        await stopping.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(budget):
                await queue.join()
        worker.cancel()
    return in_hand + emptied(queue)


async def next_item(queue: Any, stopping: Any) -> tuple[Any, ...]:
    """Return the next item, alone in a tuple, or () once the event is set and none is there."""
    getting = asyncio.create_task(queue.get())
    told = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({getting, told}, return_when=asyncio.FIRST_COMPLETED)
        return (getting.result(),) if getting.done() else ()
    finally:
        getting.cancel()
        told.cancel()
        await asyncio.wait({getting, told})


async def one_after_another(queue: Any, handle: Any, stopping: Any, budget: float) -> list[Any]:
    """No group and no join: a loop in the worker's own task, which a deadline cuts short."""
    in_hand: tuple[Any, ...] = ()
    try:
        async with asyncio.timeout(None) as deadline:
            loop = asyncio.get_running_loop()

            async def watch() -> None:
                await stopping.wait()
                deadline.reschedule(loop.time() + budget)

            watching = asyncio.create_task(watch())
            try:
                while not (stopping.is_set() and queue.empty()):
                    in_hand = await next_item(queue, stopping)
                    if in_hand:
                        await handle(*in_hand)
                    in_hand = ()
            finally:
                watching.cancel()
                await asyncio.wait({watching})
    except TimeoutError:
        pass
    return [*in_hand, *emptied(queue)]


@pytest.mark.parametrize("worker", [one_group, one_after_another])
async def test_right_answers_pass(worker) -> None:
    verdict = await check_worker(worker, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


async def the_stub(queue: Any, handle: Any, stopping: Any, budget: float) -> list[Any]:
    while not stopping.is_set():
        item = await queue.get()
        await handle(item)
    return []


async def ends_when_empty(queue: Any, handle: Any, stopping: Any, budget: float) -> list[Any]:
    while not queue.empty():
        await handle(await queue.get())
    return []


def variation(
    *,
    drain: str = "join",
    limited: bool = True,
    awaits: bool = True,
    in_hand_too: bool = True,
    rest: Any = emptied,
    swallow: bool = False,
) -> Any:
    """Return ``one_group`` without the group, with one thing done differently."""

    async def worker(queue: Any, handle: Any, stopping: Any, budget: float) -> Any:
        in_hand: list[Any] = []

        async def work() -> None:
            while True:
                in_hand.append(await queue.get())
                await handle(in_hand[0])
                in_hand.clear()
                queue.task_done()

        working = asyncio.create_task(work())
        try:
            await stopping.wait()
            if drain == "join":
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(budget if limited else None):
                        await queue.join()
            elif drain == "in hand":
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(budget):
                        waiting = queue.qsize()
                        while in_hand and queue.qsize() == waiting:  # noqa: ASYNC110
                            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if not swallow:
                raise
        finally:
            working.cancel()
            if awaits:
                await asyncio.wait({working})
        return (in_hand if in_hand_too else []) + rest(queue)

    return worker


async def forgets_task_done(queue: Any, handle: Any, stopping: Any, budget: float) -> list[Any]:
    async def work() -> None:
        while True:
            await handle(await queue.get())

    async with asyncio.TaskGroup() as group:
        working = group.create_task(work())
        await stopping.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(queue.join(), budget)
        working.cancel()
    return emptied(queue)


async def leaves_on_cancel(queue: Any, handle: Any, stopping: Any, budget: float) -> list[Any]:
    left: list[Any] = []

    async def work() -> None:
        left[:] = await one_group(queue, handle, stopping, budget)

    working = asyncio.create_task(work())
    await asyncio.shield(working)
    return left


async def loses_the_last(queue: Any, handle: Any, stopping: Any, budget: float) -> list[Any]:
    while not stopping.is_set():
        getting = asyncio.create_task(queue.get())
        told = asyncio.create_task(stopping.wait())
        await asyncio.wait({getting, told}, return_when=asyncio.FIRST_COMPLETED)
        if not told.done():
            told.cancel()
            await handle(getting.result())
        getting.cancel()
        await asyncio.wait({getting, told})
    while not queue.empty():
        await handle(queue.get_nowait())
    return []


async def each_its_own_budget(queue: Any, handle: Any, stopping: Any, budget: float) -> list[Any]:
    cut: list[Any] = []
    while item := await next_item(queue, stopping):
        try:
            if stopping.is_set():
                await asyncio.wait_for(handle(*item), budget)
            else:
                working = asyncio.create_task(handle(*item))
                told = asyncio.create_task(stopping.wait())
                await asyncio.wait({working, told}, return_when=asyncio.FIRST_COMPLETED)
                told.cancel()
                await asyncio.wait_for(working, budget)
        except TimeoutError:
            cut += item
    return cut


async def lets_the_timeout_out(queue: Any, handle: Any, stopping: Any, budget: float) -> list[Any]:
    async def work() -> None:
        while True:
            await handle(await queue.get())
            queue.task_done()

    async with asyncio.TaskGroup() as group:
        working = group.create_task(work())
        await stopping.wait()
        await asyncio.wait_for(queue.join(), budget)
        working.cancel()
    return emptied(queue)


async def a_task_each(queue: Any, handle: Any, stopping: Any, budget: float) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        while item := await next_item(queue, stopping):
            group.create_task(handle(*item))
    return []


def newest_first(queue: Any) -> list[Any]:
    return emptied(queue)[::-1]


async def a_dict(queue: Any, handle: Any, stopping: Any, budget: float) -> Any:
    return {"left": await one_group(queue, handle, stopping, budget)}


async def fails(queue: Any, handle: Any, stopping: Any, budget: float) -> Any:
    raise LookupError("no queue")


def not_async(queue: Any, handle: Any, stopping: Any, budget: float) -> list[Any]:
    return []


WRONG = [
    ("deaf-while-idle", the_stub),
    ("forgets-task-done", forgets_task_done),
    ("ends-when-idle", ends_when_empty),
    ("cancels-item-in-hand", variation(drain="no")),
    ("does-not-drain", variation(drain="in hand")),
    ("drops-queue", variation(rest=lambda queue: [])),
    ("forgets-item-in-hand", variation(in_hand_too=False)),
    ("loses-item", loses_the_last),
    ("no-budget", variation(limited=False)),
    ("budget-per-item", each_its_own_budget),
    ("timeout-escapes", lets_the_timeout_out),
    ("leaves-handle-running", variation(awaits=False)),
    ("leaves-handle-running", leaves_on_cancel),
    ("swallows-cancel", variation(swallow=True)),
    ("many-at-once", a_task_each),
    ("wrong-order", variation(rest=newest_first)),
    ("wrong-answer", a_dict),
    ("raised", fails),
    ("not-async", not_async),
]


@pytest.mark.parametrize(("mistake", "worker"), WRONG)
async def test_each_wrong_answer_gets_its_own_hint(mistake, worker, monkeypatch) -> None:
    monkeypatch.setattr(draining, "PATIENCE", BRIEF)
    verdict = await check_worker(worker, limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    assert {mistake.name for mistake in EXERCISE.mistakes} <= {name for name, _ in WRONG}


async def test_nothing_is_left_behind(monkeypatch) -> None:
    monkeypatch.setattr(draining, "PATIENCE", BRIEF)
    before = asyncio.all_tasks()
    for worker in (the_stub, variation(awaits=False)):
        await check_worker(worker, limit=AMPLE)
    assert asyncio.all_tasks() == before


async def test_an_endless_worker_is_stopped() -> None:
    async def endless(queue: Any, handle: Any, stopping: Any, budget: float) -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    assert (await check_worker(endless, limit=0.3)).mistake == "never-ends"


@pytest.mark.parametrize("given", [None, 3, [], type])
async def test_something_else_than_a_function(given) -> None:
    assert (await check_worker(given)).mistake == "wrong-type"


async def test_the_worker_called_in_the_check_cell() -> None:
    called = the_stub(None, None, None, 0)
    assert (await check_worker(called)).mistake == "called-instead-of-passed"


async def test_a_bad_limit_is_the_callers() -> None:
    with pytest.raises(ValueError, match="limit is 0"):
        await check_worker(one_group, limit=0)
