"""The check of lesson 04, with right answers and wrong ones."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from looplab.exercises.limits import EXERCISE, check_process_batch

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy
AT_MOST = 6.0  # seconds that any answer may keep the check, on a machine with room

Written = Callable[[str, str], dict[str, Any]]


def changed(source: str, *edits: tuple[str, str]) -> str:
    """Return the source with each edit made, each in one place."""
    for old, new in edits:
        assert source.count(old) == 1, f"{old!r} is there {source.count(old)} times"
        source = source.replace(old, new)
    return source


WORKERS = """
async def process_batch(items, process_item, max_concurrent):
    source, turn, results = aiter(items), asyncio.Lock(), []

    async def worker():
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
"""

QUEUE = """
async def process_batch(items, process_item, max_concurrent):
    queue, results = asyncio.Queue(maxsize=max_concurrent), {}

    async def producer():
        place = 0
        async for item in items:
            await queue.put((place, item))
            place += 1
        for _ in range(max_concurrent):
            await queue.put(None)

    async def worker():
        while (job := await queue.get()) is not None:
            place, item = job
            results[place] = await process_item(item)

    async with asyncio.TaskGroup() as group:
        group.create_task(producer())
        for _ in range(max_concurrent):
            group.create_task(worker())
    return [results[place] for place in range(len(results))]
"""

SEMAPHORE = """
async def process_batch(rows, work, at_once):
    slots, tasks = asyncio.Semaphore(at_once), []

    async def one(row):
        try:
            return await work(row)
        finally:
            slots.release()

    async with asyncio.TaskGroup() as group:
        async for row in rows:
            await slots.acquire()
            tasks.append(group.create_task(one(row)))
    return tuple(task.result() for task in tasks)
"""

WAIT = """
async def process_batch(items, process_item, max_concurrent):
    tasks, running = [], set()
    try:
        async for item in items:
            tasks.append(asyncio.create_task(process_item(item)))
            running.add(tasks[-1])
            if len(running) == max_concurrent:
                done, running = await asyncio.wait(
                    running, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
        while running:
            done, running = await asyncio.wait(
                running, return_when=asyncio.FIRST_EXCEPTION
            )
            for task in done:
                task.result()
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
"""

GATHER = """
async def process_batch(items, process_item, max_concurrent):
    source, turn, results = aiter(items), asyncio.Lock(), []

    async def worker():
        while True:
            async with turn:
                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    return
                place = len(results)
                results.append(None)
            results[place] = await process_item(item)

    workers = [asyncio.create_task(worker()) for _ in range(max_concurrent)]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return results
"""

ANYIO = """
import anyio

async def process_batch(items, process_item, max_concurrent):
    limiter, results = anyio.CapacityLimiter(max_concurrent), {}

    async def one(place, item, holder):
        try:
            results[place] = await process_item(item)
        finally:
            limiter.release_on_behalf_of(holder)

    async with anyio.create_task_group() as group:
        place = 0
        async for item in items:
            holder = object()
            await limiter.acquire_on_behalf_of(holder)
            group.start_soon(one, place, item, holder)
            place += 1
    return [results[place] for place in sorted(results)]
"""

STREAMS = """
import anyio

async def process_batch(items, process_item, max_concurrent):
    send, receive = anyio.create_memory_object_stream(0)
    results = []

    async def produce():
        async with send:
            async for item in items:
                results.append(None)
                await send.send((len(results) - 1, item))

    async def consume(receive):
        async with receive:
            async for place, item in receive:
                results[place] = await process_item(item)

    async with receive, anyio.create_task_group() as group:
        group.start_soon(produce)
        for _ in range(max_concurrent):
            group.start_soon(consume, receive.clone())
    return results
"""

CLASS = """
class Batch:
    def __init__(self, source, work, slots):
        self.source, self.work = source, work
        self.slots, self.tasks = asyncio.Semaphore(slots), []

    async def __aenter__(self):
        self.group = asyncio.TaskGroup()
        await self.group.__aenter__()
        return self

    async def __aexit__(self, *error):
        return await self.group.__aexit__(*error)

    async def one(self, item):
        try:
            return await self.work(item)
        finally:
            self.slots.release()

    async def run(self):
        async for item in self.source:
            await self.slots.acquire()
            self.tasks.append(self.group.create_task(self.one(item)))


async def process_batch(items, process_item, max_concurrent):
    async with Batch(items, process_item, max_concurrent) as batch:
        await batch.run()
    return [task.result() for task in batch.tasks]
"""

UNWRAPPED = changed(
    WORKERS,
    (
        """    async with asyncio.TaskGroup() as group:
        for _ in range(max_concurrent):
            group.create_task(worker())
""",
        """    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(max_concurrent):
                group.create_task(worker())
    except* Exception as failed:
        raise failed.exceptions[0]
""",
    ),
)

SLOT_FIRST = """
async def process_batch(items, process_item, max_concurrent):
    slots = asyncio.Semaphore(max_concurrent)
    tasks = []

    async def process(item):
        result = await process_item(item)
        slots.release()
        return result

    async with asyncio.TaskGroup() as group:
        await slots.acquire()
        async for item in items:
            tasks.append(group.create_task(process(item)))
            await slots.acquire()
    return [task.result() for task in tasks]
"""

IN_A_CALLBACK = changed(
    SLOT_FIRST,
    ("        slots.release()\n", ""),
    (
        "            tasks.append(group.create_task(process(item)))\n",
        """            tasks.append(group.create_task(process(item)))
            tasks[-1].add_done_callback(lambda task: slots.release())
""",
    ),
)
RELEASED_BLINDLY = changed(IN_A_CALLBACK, ("lambda task: slots.release()", "slots.release"))

RIGHT = (
    ("a slot before each item, as in the lesson's solution", SLOT_FIRST),
    ("a slot before each item, given back in a callback", IN_A_CALLBACK),
    ("workers that ask in turn, in a TaskGroup", WORKERS),
    ("a bounded queue with a producer", QUEUE),
    ("a semaphore before each task, with other names", SEMAPHORE),
    ("asyncio.wait over a window", WAIT),
    ("gather, with a finally that ends the others", GATHER),
    ("AnyIO's task group and CapacityLimiter", ANYIO),
    ("AnyIO's streams", STREAMS),
    ("a class with __aenter__", CLASS),
    ("the first error taken out of its group", UNWRAPPED),
)


@pytest.mark.parametrize(("name", "source"), RIGHT, ids=[name for name, _ in RIGHT])
async def test_a_right_answer_passes_in_any_style(name: str, source: str, written: Written) -> None:
    batch = written("04", source)["process_batch"]
    verdict = await check_process_batch(batch, limit=AMPLE)
    assert verdict.passed, verdict.message


HEAD = "async def process_batch(items, process_item, max_concurrent):\n"
FIRST_LINE = "    source, turn, results = aiter(items), asyncio.Lock(), []\n"
PROCESS = "            results[place] = await process_item(item)\n"
GROUP = """    async with asyncio.TaskGroup() as group:
        for _ in range(max_concurrent):
            group.create_task(worker())
"""
END = """                except StopAsyncIteration:
                    return
"""


def caught(error: str, then: str) -> str:
    """Return the workers with a try around process_item."""
    source = f"""            try:
                results[place] = await process_item(item)
            except {error}:
                {then}
"""
    return changed(WORKERS, (PROCESS, source))


def batch(body: str) -> str:
    """Return an answer of its own with this body."""
    return HEAD + body


SIBLINGS = """    tasks = [asyncio.create_task(worker()) for _ in range(max_concurrent)]
    await asyncio.gather(*tasks)
"""

WRONG: tuple[tuple[str, str, str], ...] = (
    # -- how many at once
    (
        "its tasks give no slot back",
        changed(SLOT_FIRST, ("        slots.release()\n", "")),
        "slot-kept",
    ),
    (
        "it gives a slot back for results that are true only",
        changed(
            SLOT_FIRST,
            (
                "        slots.release()\n",
                "        if result:\n            slots.release()\n",
            ),
        ),
        "slot-kept",
    ),
    (
        "it gives the slot back when the task has been made",
        changed(
            SLOT_FIRST,
            ("        slots.release()\n", ""),
            (
                "            await slots.acquire()\n    return",
                "            slots.release()\n            await slots.acquire()\n    return",
            ),
        ),
        "over-the-limit",
    ),
    (
        "each task takes the slot for itself",
        changed(
            SLOT_FIRST,
            ("        result = await", "        await slots.acquire()\n        result = await"),
            ("        await slots.acquire()\n        async for", "        async for"),
            ("            await slots.acquire()\n    return", "    return"),
        ),
        "reads-ahead",
    ),
    (
        "it awaits each item before the next, as the stub does",
        batch("    return [await process_item(item) async for item in items]\n"),
        "one-by-one",
    ),
    (
        "it holds the lock of the source while it processes",
        changed(
            WORKERS,
            (PROCESS, PROCESS.replace("            ", "                ", 1)),
        ),
        "one-by-one",
    ),
    (
        "it gathers everything",
        batch("    return await asyncio.gather(*[process_item(item) async for item in items])\n"),
        "over-the-limit",
    ),
    (
        "it starts one worker too many",
        changed(WORKERS, ("range(max_concurrent)", "range(max_concurrent + 1)")),
        "over-the-limit",
    ),
    (
        "it starts one worker too few",
        changed(WORKERS, ("range(max_concurrent)", "range(max(1, max_concurrent - 1))")),
        "slots-unused",
    ),
    (
        "it always starts four workers",
        changed(WORKERS, ("range(max_concurrent)", "range(4)")),
        "over-the-limit",
    ),
    (
        "it always starts three workers",
        changed(WORKERS, ("range(max_concurrent)", "range(3)")),
        "slots-unused",
    ),
    (
        "it never starts more than eight workers, whatever is allowed",
        changed(WORKERS, ("range(max_concurrent)", "range(min(8, max_concurrent))")),
        "slots-unused",
    ),
    (
        "it makes a task for each item, which then waits for a semaphore",
        batch("""    slots = asyncio.Semaphore(max_concurrent)

    async def one(item):
        async with slots:
            return await process_item(item)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(item)) async for item in items]
    return [task.result() for task in tasks]
"""),
        "reads-ahead",
    ),
    (
        "it makes a list of the items first",
        changed(
            WORKERS,
            (
                FIRST_LINE,
                """    rows = [item async for item in items]

    async def again():
        for row in rows:
            yield row

    source, turn, results = again(), asyncio.Lock(), []
""",
            ),
        ),
        "reads-ahead",
    ),
    (
        "its queue has no bound",
        changed(QUEUE, ("asyncio.Queue(maxsize=max_concurrent)", "asyncio.Queue()")),
        "reads-ahead",
    ),
    (
        "it works in batches that wait for their slowest",
        batch("""    results, batch = [], []
    async for item in items:
        batch.append(process_item(item))
        if len(batch) == max_concurrent:
            results += await asyncio.gather(*batch)
            batch = []
    return results + await asyncio.gather(*batch)
"""),
        "slow-one-holds-up",
    ),
    (
        "it awaits its tasks in the order of the items",
        batch("""    results, window = [], []
    async for item in items:
        window.append(asyncio.create_task(process_item(item)))
        if len(window) == max_concurrent:
            results.append(await window.pop(0))
    return results + [await task for task in window]
"""),
        "slow-one-holds-up",
    ),
    # -- the source
    (
        "its workers share one async for",
        batch("""    results = []

    async def worker():
        async for item in items:
            results.append(await process_item(item))

    async with asyncio.TaskGroup() as group:
        for _ in range(max_concurrent):
            group.create_task(worker())
    return results
"""),
        "asked-at-once",
    ),
    (
        "it writes pass for return at the end of the source",
        changed(WORKERS, (END, END.replace("return", "pass"))),
        "asks-after-end",
    ),
    (
        "it writes continue for return at the end of the source",
        changed(WORKERS, (END, END.replace("return", "continue"))),
        "asks-after-end",
    ),
    (
        "it catches every error of the source and goes on asking",
        changed(
            WORKERS,
            (END, END.replace("StopAsyncIteration", "Exception").replace("return", "continue")),
        ),
        "asks-after-end",
    ),
    (
        "it begins an ended source again and again",
        batch("""    results = []
    while True:
        async for item in items:
            results.append(await process_item(item))
"""),
        "asks-after-end",
    ),
    (
        "it takes None for the end of the source",
        changed(
            WORKERS,
            (
                """                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    return
""",
                """                item = await anext(source, None)
                if item is None:
                    return
""",
            ),
        ),
        "falsy-dropped",
    ),
    (
        "it skips items that are empty",
        changed(
            QUEUE,
            (
                "            await queue.put((place, item))\n            place += 1\n",
                """            if item:
                await queue.put((place, item))
                place += 1
""",
            ),
        ),
        "falsy-dropped",
    ),
    # -- the results
    (
        "it drops results that are empty",
        changed(
            WORKERS,
            ("    return results\n", "    return [result for result in results if result]\n"),
        ),
        "falsy-dropped",
    ),
    (
        "it drops results that are None",
        changed(
            WORKERS,
            ("    return results\n", "    return [r for r in results if r is not None]\n"),
        ),
        "falsy-dropped",
    ),
    (
        "it puts None for every empty result",
        changed(WORKERS, ("await process_item(item)", "(await process_item(item)) or None")),
        "falsy-dropped",
    ),
    (
        "it appends results as they come",
        changed(
            WORKERS,
            (
                """                place = len(results)
                results.append(None)
            results[place] = await process_item(item)
""",
                "            results.append(await process_item(item))\n",
            ),
        ),
        "wrong-order",
    ),
    (
        "it loses the last result",
        changed(WORKERS, ("    return results\n", "    return results[:-1]\n")),
        "wrong-answer",
    ),
    (
        "it returns a dict",
        changed(WORKERS, ("    return results\n", "    return dict(enumerate(results))\n")),
        "wrong-answer",
    ),
    (
        "it hands the place along with the item",
        changed(WORKERS, ("process_item(item)", "process_item((place, item))")),
        "wrong-answer",
    ),
    (
        "it returns nothing",
        changed(WORKERS, ("    return results\n", "")),
        "not-written",
    ),
    (
        "it is an async generator",
        changed(
            WORKERS, ("    return results\n", "    for result in results:\n        yield result\n")
        ),
        "yields",
    ),
    (
        "it does each item twice, to be sure",
        changed(WORKERS, (PROCESS, "            await process_item(item)\n" + PROCESS)),
        "processed-twice",
    ),
    # -- failures
    (
        "it puts None where an item failed",
        caught("Exception", "results[place] = None"),
        "error-swallowed",
    ),
    (
        "it takes a ValueError for no error",
        caught("ValueError", "results[place] = None"),
        "error-swallowed",
    ),
    ("it takes a LookupError for no error", caught("LookupError", "pass"), "error-swallowed"),
    ("it takes a time-out for no error", caught("TimeoutError", "pass"), "error-swallowed"),
    (
        "it puts the error among the results",
        caught("Exception as error", "results[place] = error"),
        "error-swallowed",
    ),
    (
        "it returns what it has when the source fails",
        changed(WORKERS, (END, END.replace("StopAsyncIteration", "Exception"))),
        "error-swallowed",
    ),
    (
        "it gathers with return_exceptions and asks for none",
        changed(
            WORKERS,
            (GROUP, SIBLINGS.replace("(*tasks)", "(*tasks, return_exceptions=True)")),
        ),
        "error-swallowed",
    ),
    (
        "it waits for its workers and asks for no result",
        changed(WORKERS, (GROUP, SIBLINGS.replace("gather(*tasks)", "wait(tasks)"))),
        "error-swallowed",
    ),
    (
        "it raises an error of its own instead",
        caught("Exception", 'raise SystemError("the batch failed") from None'),
        "error-replaced",
    ),
    (
        "it tries a failed item again",
        caught("Exception", "results[place] = await process_item(item)"),
        "processed-twice",
    ),
    (
        "it raises when everything has ended",
        changed(
            caught("Exception as error", "results[place] = error"),
            (
                "    return results\n",
                """    for result in results:
        if isinstance(result, Exception):
            raise result
    return results
""",
            ),
        ),
        "goes-on-after-failure",
    ),
    (
        "it takes the remaining items after a failure",
        changed(
            WORKERS,
            (
                GROUP,
                """    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(max_concurrent):
                group.create_task(worker())
    finally:
        async for _ in source:
            pass
""",
            ),
        ),
        "takes-after-failure",
    ),
    (
        "its producer puts the remaining items where nobody takes them",
        changed(
            QUEUE,
            (
                """    async with asyncio.TaskGroup() as group:
        group.create_task(producer())
        for _ in range(max_concurrent):
            group.create_task(worker())
""",
                """    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(producer())
            for _ in range(max_concurrent):
                group.create_task(worker())
    except* Exception:
        left = [item async for item in items]
        raise
""",
            ),
        ),
        "takes-after-failure",
    ),
    (
        "it gathers its workers, which run on",
        changed(WORKERS, (GROUP, SIBLINGS)),
        "siblings-left-running",
    ),
    (
        "it cancels the others and does not wait for them",
        changed(
            WORKERS,
            (
                GROUP,
                """    tasks = [asyncio.create_task(worker()) for _ in range(max_concurrent)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
""",
            ),
        ),
        "siblings-left-running",
    ),
    # -- its own cancellation
    (
        "its tasks run on when it is cancelled",
        changed(
            WORKERS,
            (
                GROUP,
                """    tasks = [asyncio.create_task(worker()) for _ in range(max_concurrent)]
    done, running = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
    for task in done:
        task.result()
""",
            ),
        ),
        "left-on-cancel",
    ),
    (
        "it shields its workers from its cancellation",
        changed(
            WORKERS,
            (
                GROUP,
                """    async def grouped():
        async with asyncio.TaskGroup() as group:
            for _ in range(max_concurrent):
                group.create_task(worker())

    await asyncio.shield(asyncio.create_task(grouped()))
""",
            ),
        ),
        "left-on-cancel",
    ),
    (
        "it returns what it has when it is cancelled",
        changed(
            WORKERS,
            (
                GROUP,
                """    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(max_concurrent):
                group.create_task(worker())
    except asyncio.CancelledError:
        pass
""",
            ),
        ),
        "swallows-cancel",
    ),
    # -- what any exercise may meet
    (
        "it awaits nothing",
        batch("    return [process_item(item) async for item in items]\n"),
        "forgotten-await",
    ),
    (
        "it gives slots back in a callback that takes no task",
        RELEASED_BLINDLY,
        "raised",
    ),
    ("it is not written", batch("    raise NotImplementedError\n"), "not-written"),
    ("it takes one argument", "async def process_batch(items):\n    return []\n", "raised"),
    ("it ends the program", batch("    raise SystemExit\n"), "exits"),
    ("it is no coroutine function", batch("    return []\n").removeprefix("async "), "not-async"),
)


@pytest.mark.parametrize(("name", "source", "mistake"), WRONG, ids=[name for name, *_ in WRONG])
async def test_a_wrong_answer_gets_its_own_hint(
    name: str, source: str, mistake: str, written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    batch = written("04", source)["process_batch"]
    before = asyncio.all_tasks()
    verdict = await check_process_batch(batch, limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message
    assert asyncio.all_tasks() == before
    assert caplog.messages == [], "what is logged would make the lesson's last cell red"


async def test_the_error_of_a_callback_is_told_and_the_loop_is_as_before(
    written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    def mine(loop: asyncio.AbstractEventLoop, told: dict[str, Any]) -> None:
        heard.append(told)

    heard: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(mine)
    try:
        verdict = await check_process_batch(written("04", RELEASED_BLINDLY)["process_batch"])
        assert loop.get_exception_handler() is mine
    finally:
        loop.set_exception_handler(None)
    assert "a callback raised TypeError: Semaphore.release()" in verdict.message
    assert heard == []
    assert caplog.messages == []


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    assert {mistake.name for mistake in EXERCISE.mistakes} <= {mistake for *_, mistake in WRONG}


HOSTILE = (
    ("it waits for ever", batch("    await asyncio.Event().wait()\n"), "never-ends"),
    (
        "it asks for ever and swallows every error, its cancellation too",
        batch("""    while True:
        try:
            await anext(items)
        except BaseException:
            pass
"""),
        "asks-after-end",
    ),
    (
        "its tasks swallow their cancellation",
        batch("""    async def stubborn():
        while True:
            try:
                await asyncio.sleep(0.01)
            except BaseException:
                pass

    asyncio.create_task(stubborn())
    return [await process_item(item) async for item in items]
"""),
        "left-running",
    ),
)


@pytest.mark.parametrize(("name", "source", "mistake"), HOSTILE, ids=[name for name, *_ in HOSTILE])
async def test_a_hostile_answer_ends_soon_and_leaves_later_checks_whole(
    name: str, source: str, mistake: str, written: Written
) -> None:
    batch = written("04", source)["process_batch"]
    before, began = asyncio.all_tasks(), time.monotonic()
    verdict = await check_process_batch(batch, limit=1.0)
    assert verdict.mistake == mistake, verdict.message
    assert time.monotonic() - began < AT_MOST
    assert asyncio.all_tasks() == before
    right = written("04", WORKERS)["process_batch"]
    assert (await check_process_batch(right, limit=AMPLE)).passed


@pytest.mark.parametrize("given", [None, 4, "process_batch", list])
async def test_something_else_than_a_function_is_named(given: Any) -> None:
    verdict = await check_process_batch(given)
    assert verdict.mistake == "wrong-type"


async def test_the_batch_called_in_the_check_cell(written: Written) -> None:
    batch = written("04", WORKERS)["process_batch"]
    verdict = await check_process_batch(batch(None, None, 4))
    assert verdict.mistake == "called-instead-of-passed"


async def test_a_limit_that_is_no_time_is_refused(written: Written) -> None:
    with pytest.raises(ValueError, match="limit is -1"):
        await check_process_batch(written("04", WORKERS)["process_batch"], limit=-1)
