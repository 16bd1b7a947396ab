"""The check of lesson 04, with right answers and wrong ones."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from support.exercises.limits import EXERCISE, check_process_batch

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy


async def by_workers(items: Any, process_item: Any, max_concurrent: int) -> Any:
    source, turn, results = aiter(items), asyncio.Lock(), []

    async def worker() -> None:
        while True:
            async with turn:
                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    return
                place = len(results)
                results.append(None)
            results[place] = await process_item(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(max_concurrent):
            group.create_task(worker())
    return results


async def by_queue(items: Any, process_item: Any, max_concurrent: int) -> Any:
    queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=max_concurrent)
    results: dict[int, Any] = {}

    async def producer() -> None:
        place = 0
        async for item in items:
            await queue.put((place, item))
            place += 1
        for _ in range(max_concurrent):
            await queue.put(None)

    async def worker() -> None:
        while (job := await queue.get()) is not None:
            place, item = job
            results[place] = await process_item(item)

    async with asyncio.TaskGroup() as group:
        group.create_task(producer())
        for _ in range(max_concurrent):
            group.create_task(worker())
    return [results[place] for place in range(len(results))]


async def by_semaphore_first(items: Any, process_item: Any, max_concurrent: int) -> Any:
    slots, tasks = asyncio.Semaphore(max_concurrent), []

    async def one(item: Any) -> Any:
        try:
            return await process_item(item)
        finally:
            slots.release()

    async with asyncio.TaskGroup() as group:
        async for item in items:
            await slots.acquire()
            tasks.append(group.create_task(one(item)))
    return tuple(task.result() for task in tasks)


async def by_wait(items: Any, process_item: Any, max_concurrent: int) -> Any:
    tasks: list[asyncio.Task[Any]] = []
    running: set[asyncio.Task[Any]] = set()
    try:
        async for item in items:
            tasks.append(asyncio.create_task(process_item(item)))
            running.add(tasks[-1])
            if len(running) == max_concurrent:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        return [await task for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("batch", [by_workers, by_queue, by_semaphore_first, by_wait])
async def test_right_answers_pass(batch: Callable[..., Any]) -> None:
    verdict = await check_process_batch(batch, limit=AMPLE)
    assert verdict.passed, verdict.message


async def one_by_one(items: Any, process_item: Any, max_concurrent: int) -> Any:
    return [await process_item(item) async for item in items]


async def everything(items: Any, process_item: Any, max_concurrent: int) -> Any:
    return await asyncio.gather(*[process_item(item) async for item in items])


async def one_too_many(items: Any, process_item: Any, max_concurrent: int) -> Any:
    return await by_workers(items, process_item, max_concurrent + 1)


async def fixed_number(items: Any, process_item: Any, max_concurrent: int) -> Any:
    return await by_workers(items, process_item, 3)


async def semaphore_inside(items: Any, process_item: Any, max_concurrent: int) -> Any:
    slots = asyncio.Semaphore(max_concurrent)

    async def one(item: Any) -> Any:
        async with slots:
            return await process_item(item)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(item)) async for item in items]
    return [task.result() for task in tasks]


async def list_first(items: Any, process_item: Any, max_concurrent: int) -> Any:
    async def again() -> Any:
        for item in everything:
            yield item

    everything = [item async for item in items]
    return await by_workers(again(), process_item, max_concurrent)


async def in_batches(items: Any, process_item: Any, max_concurrent: int) -> Any:
    results: list[Any] = []
    batch: list[Any] = []
    async for item in items:
        batch.append(process_item(item))
        if len(batch) == max_concurrent:
            results += await asyncio.gather(*batch)
            batch = []
    return results + await asyncio.gather(*batch)


async def in_order(items: Any, process_item: Any, max_concurrent: int) -> Any:
    results: list[Any] = []
    window: deque[asyncio.Task[Any]] = deque()
    async for item in items:
        window.append(asyncio.create_task(process_item(item)))
        if len(window) == max_concurrent:
            results.append(await window.popleft())
    return results + [await task for task in window]


async def shared_loop(items: Any, process_item: Any, max_concurrent: int) -> Any:
    results: list[Any] = []

    async def worker() -> None:
        async for item in items:
            results.append(await process_item(item))

    async with asyncio.TaskGroup() as group:
        for _ in range(max_concurrent):
            group.create_task(worker())
    return results


async def as_they_come(items: Any, process_item: Any, max_concurrent: int) -> Any:
    results: list[Any] = []

    async def one(item: Any) -> None:
        results.append(await process_item(item))

    await by_workers(items, one, max_concurrent)
    return results


async def one_lost(items: Any, process_item: Any, max_concurrent: int) -> Any:
    return (await by_workers(items, process_item, max_concurrent))[:-1]


async def a_dict(items: Any, process_item: Any, max_concurrent: int) -> Any:
    return dict(enumerate(await by_workers(items, process_item, max_concurrent)))


async def nothing(items: Any, process_item: Any, max_concurrent: int) -> Any:
    await by_workers(items, process_item, max_concurrent)


async def generator(items: Any, process_item: Any, max_concurrent: int) -> Any:
    for result in await by_workers(items, process_item, max_concurrent):
        yield result


async def swallowed(items: Any, process_item: Any, max_concurrent: int) -> Any:
    async def careful(item: Any) -> Any:
        try:
            return await process_item(item)
        except Exception:
            return None

    return await by_workers(items, careful, max_concurrent)


async def source_swallowed(items: Any, process_item: Any, max_concurrent: int) -> Any:
    async def careful() -> Any:
        try:
            async for item in items:
                yield item
        except Exception:
            return

    return await by_workers(careful(), process_item, max_concurrent)


async def raised_in_the_end(items: Any, process_item: Any, max_concurrent: int) -> Any:
    async def caught(item: Any) -> Any:
        try:
            return await process_item(item)
        except Exception as error:
            return error

    results = await by_workers(items, caught, max_concurrent)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


async def gathered_workers(items: Any, process_item: Any, max_concurrent: int) -> Any:
    source, turn, results = aiter(items), asyncio.Lock(), []

    async def worker() -> None:
        while True:
            async with turn:
                item = await anext(source, None)
                place = len(results)
                results.append(None)
            if item is None:
                results.pop()
                return
            results[place] = await process_item(item)

    await asyncio.gather(*[worker() for _ in range(max_concurrent)])
    return results


async def not_awaited(items: Any, process_item: Any, max_concurrent: int) -> Any:
    return [process_item(item) async for item in items]


async def not_yet(items: Any, process_item: Any, max_concurrent: int) -> Any:
    raise NotImplementedError


async def wrong_arguments(items: Any) -> Any:
    return []


async def leaves(items: Any, process_item: Any, max_concurrent: int) -> Any:
    raise SystemExit


def plain(items: Any, process_item: Any, max_concurrent: int) -> Any:
    return []


WRONG: list[tuple[str, Callable[..., Any]]] = [
    ("one-by-one", one_by_one),
    ("over-the-limit", everything),
    ("over-the-limit", one_too_many),
    ("slots-unused", fixed_number),
    ("reads-ahead", semaphore_inside),
    ("reads-ahead", list_first),
    ("slow-one-holds-up", in_batches),
    ("slow-one-holds-up", in_order),
    ("asked-at-once", shared_loop),
    ("wrong-order", as_they_come),
    ("wrong-answer", one_lost),
    ("wrong-answer", a_dict),
    ("not-written", nothing),
    ("yields", generator),
    ("error-swallowed", swallowed),
    ("error-swallowed", source_swallowed),
    ("goes-on-after-failure", raised_in_the_end),
    ("siblings-left-running", gathered_workers),
    ("forgotten-await", not_awaited),
    ("not-written", not_yet),
    ("raised", wrong_arguments),
    ("exits", leaves),
    ("not-async", plain),
]


@pytest.mark.parametrize(("mistake", "batch"), WRONG)
async def test_wrong_answers_get_their_hint(mistake: str, batch: Callable[..., Any]) -> None:
    verdict = await check_process_batch(batch, limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    assert {mistake.name for mistake in EXERCISE.mistakes} <= {name for name, _ in WRONG}


async def test_an_endless_batch_is_stopped_and_nothing_is_left() -> None:
    async def endless(items: Any, process_item: Any, max_concurrent: int) -> Any:
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    assert (await check_process_batch(endless, limit=0.5)).mistake == "never-ends"
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("given", [None, 4, "process_batch", list])
async def test_something_else_than_a_function_is_named(given: Any) -> None:
    verdict = await check_process_batch(given)
    assert verdict.mistake == "wrong-type"


async def test_the_batch_called_in_the_check_cell() -> None:
    verdict = await check_process_batch(one_by_one(None, None, 4))
    assert verdict.mistake == "called-instead-of-passed"


async def test_a_limit_that_is_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="limit is -1"):
        await check_process_batch(by_workers, limit=-1)
