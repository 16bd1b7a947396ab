"""The check of lesson 06, with right answers and wrong ones."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from looplab.exercises import draining
from looplab.exercises.draining import EXERCISE, check_worker

pytestmark = pytest.mark.anyio

BRIEF = 750  # milliseconds: the check's patience with an answer that never goes on
AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy
AT_MOST = 6.0  # seconds that any answer may keep the check, on a machine with room

Written = Callable[[str, str], dict[str, Any]]


@pytest.fixture
def written(written: Written) -> Written:
    """Return the names that an answer sets; `suppress`, which many use, is there."""
    return lambda lesson, source: written(lesson, f"from contextlib import suppress\n{source}")


def changed(source: str, *edits: tuple[str, str]) -> str:
    """Return the source with each edit made, each in one place."""
    for old, new in edits:
        assert source.count(old) == 1, f"{old!r} is there {source.count(old)} times"
        source = source.replace(old, new)
    return source


GROUP = """
async def run_worker(queue, handle, stopping, budget):
    in_hand = []

    async def work():
        while True:
            in_hand.append(await queue.get())
            await handle(in_hand[0])
            in_hand.clear()
            queue.task_done()

    async with asyncio.TaskGroup() as group:
        worker = group.create_task(work())
        await stopping.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(budget):
                await queue.join()
        worker.cancel()
    return in_hand + [queue.get_nowait() for _ in range(queue.qsize())]
"""

NEXT_ITEM = """
async def next_item(queue, stopping):
    getting = asyncio.create_task(queue.get())
    told = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({getting, told}, return_when=asyncio.FIRST_COMPLETED)
        return (getting.result(),) if getting.done() else ()
    finally:
        getting.cancel()
        told.cancel()
        await asyncio.wait({getting, told})

"""

ONE_LOOP = (
    NEXT_ITEM
    + """
async def run_worker(queue, handle, stopping, budget):
    in_hand = ()
    try:
        async with asyncio.timeout(None) as deadline:
            loop = asyncio.get_running_loop()

            async def watch():
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
        if not deadline.expired():
            raise
    return [*in_hand, *(queue.get_nowait() for _ in range(queue.qsize()))]
"""
)

WAIT = """
async def run_worker(queue, handle, stopping, budget):
    in_hand = []

    async def work():
        while True:
            in_hand[:] = [await queue.get()]
            await handle(in_hand[0])
            in_hand.clear()
            queue.task_done()

    tasks = working, told = asyncio.create_task(work()), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            emptied = asyncio.create_task(queue.join())
            tasks = *tasks, emptied
            await asyncio.wait(
                {working, emptied}, timeout=budget, return_when=asyncio.FIRST_COMPLETED
            )
        if working.done():
            working.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    left = in_hand[:]
    while not queue.empty():
        left.append(queue.get_nowait())
    return left
"""

ANYIO = """
import anyio

async def run_worker(jobs, do, leaving, seconds):
    in_hand = []
    with anyio.CancelScope() as whole:
        async with anyio.create_task_group() as group:

            async def leave():
                await leaving.wait()
                whole.deadline = anyio.current_time() + seconds
                await jobs.join()
                whole.cancel()

            group.start_soon(leave)
            while True:
                in_hand.append(await jobs.get())
                await do(in_hand[0])
                in_hand.clear()
                jobs.task_done()
    return in_hand + [jobs.get_nowait() for _ in range(jobs.qsize())]
"""

CLASS = """
class Worker:
    def __init__(self, queue, handle):
        self.queue, self.handle, self.in_hand = queue, handle, []

    async def __aenter__(self):
        self.group = asyncio.TaskGroup()
        await self.group.__aenter__()
        self.task = self.group.create_task(self.work())
        return self

    async def __aexit__(self, *error):
        self.task.cancel()
        return await self.group.__aexit__(*error)

    async def work(self):
        while True:
            self.in_hand.append(await self.queue.get())
            await self.handle(self.in_hand[0])
            self.in_hand.clear()
            self.queue.task_done()


async def run_worker(queue, handle, stopping, budget):
    async with Worker(queue, handle) as worker:
        await stopping.wait()
        with suppress(TimeoutError):
            await asyncio.wait_for(queue.join(), budget)
    rest = [queue.get_nowait() for _ in range(queue.qsize())]
    return worker.in_hand + rest
"""

RIGHT = (
    ("a TaskGroup, and join under a deadline", GROUP),
    ("one loop, which a deadline cuts short", ONE_LOOP),
    ("asyncio.wait for the worker and the event", WAIT),
    ("AnyIO, with other names", ANYIO),
    ("a class with __aenter__, and wait_for", CLASS),
)


@pytest.mark.parametrize(("name", "source"), RIGHT, ids=[name for name, _ in RIGHT])
async def test_a_right_answer_passes_in_any_style(name: str, source: str, written: Written) -> None:
    worker = written("06", source)["run_worker"]
    verdict = await check_worker(worker, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


HEAD = "async def run_worker(queue, handle, stopping, budget):\n"
RETURN = "    return in_hand + [queue.get_nowait() for _ in range(queue.qsize())]\n"
TIMEOUT = "asyncio.timeout(budget)"
DRAIN = """        with suppress(TimeoutError):
            async with asyncio.timeout(budget):
                await queue.join()
"""
HANDLE = "            await handle(in_hand[0])\n"
IN_GROUP = """    async with asyncio.TaskGroup() as group:
        worker = group.create_task(work())
        await stopping.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(budget):
                await queue.join()
        worker.cancel()
"""
TASK_ALONE = """    worker = asyncio.create_task(work())
    try:
        await stopping.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(budget):
                await queue.join()
    finally:
        worker.cancel()
        await asyncio.wait({worker})
"""


def worker(body: str) -> str:
    """Return an answer of its own with this body."""
    return HEAD + body


def with_budget(budget: str) -> str:
    """Return the worker with another budget."""
    return changed(GROUP, (TIMEOUT, f"asyncio.timeout({budget})"))


def caught(error: str, then: str = "pass") -> str:
    """Return the worker with a try around handle."""
    source = f"""            try:
                await handle(in_hand[0])
            except {error}:
                {then}
"""
    return changed(GROUP, (HANDLE, source))


WRONG: tuple[tuple[str, str, str], ...] = (
    # -- coming and going
    (
        "it waits in get and cannot hear stopping, as the stub does",
        worker("""    while not stopping.is_set():
        item = await queue.get()
        await handle(item)
    return []
"""),
        "deaf-while-idle",
    ),
    (
        "it waits for the task that works, which ends only when time is up",
        worker("""    async def work():
        while True:
            await handle(await queue.get())
            queue.task_done()

    async with asyncio.TaskGroup() as group:
        job = group.create_task(work())
        await stopping.wait()
        await asyncio.wait({job}, timeout=budget)
        job.cancel()
    return [queue.get_nowait() for _ in range(queue.qsize())]
"""),
        "waits-for-the-job",
    ),
    (
        "it never marks what it has handled",
        changed(GROUP, ("            queue.task_done()\n", "")),
        "forgets-task-done",
    ),
    (
        "it ends when the queue is empty",
        worker("""    while not queue.empty():
        await handle(await queue.get())
    return []
"""),
        "ends-when-idle",
    ),
    (
        "it cancels the item in hand as soon as it is told to stop",
        changed(GROUP, (DRAIN, "")),
        "cancels-item-in-hand",
    ),
    (
        "it finishes the item in hand and returns the rest",
        NEXT_ITEM
        + worker("""    while item := await next_item(queue, stopping):
        await handle(*item)
        if stopping.is_set():
            break
    return [queue.get_nowait() for _ in range(queue.qsize())]
"""),
        "does-not-drain",
    ),
    # -- what gets lost
    (
        "it returns an empty list, whatever is left",
        changed(GROUP, (RETURN, "    return in_hand\n")),
        "drops-queue",
    ),
    (
        "it returns nothing that is 0",
        changed(
            GROUP,
            (RETURN, RETURN.replace("in_hand +", "[i for i in in_hand if i] +")),
            (HANDLE, "            if in_hand[0]:\n                await handle(in_hand[0])\n"),
        ),
        "drops-queue",
    ),
    (
        "it forgets the item whose handle it has cancelled",
        changed(GROUP, (RETURN, RETURN.replace("in_hand + ", ""))),
        "forgets-item-in-hand",
    ),
    (
        "it drops an item that comes together with stopping",
        worker("""    while not stopping.is_set():
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
"""),
        "loses-item",
    ),
    (
        "it drains what was there when it was told to stop, and loses what comes then",
        NEXT_ITEM
        + worker("""    in_hand = []

    async def work():
        while item := await next_item(queue, stopping):
            in_hand[:] = item
            await handle(*item)
            in_hand.clear()
            if stopping.is_set():
                return

    async with asyncio.TaskGroup() as group:
        working = group.create_task(work())
        await stopping.wait()
        waiting = [queue.get_nowait() for _ in range(queue.qsize())]
        try:
            async with asyncio.timeout(budget):
                await asyncio.wait({working})
                while waiting:
                    in_hand[:] = [waiting.pop(0)]
                    await handle(in_hand[0])
                    in_hand.clear()
        except TimeoutError:
            working.cancel()
    return in_hand + waiting
"""),
        "loses-late-item",
    ),
    (
        "it looks what is left before it has drained",
        changed(
            GROUP,
            (
                DRAIN,
                """        rest = []
        try:
            async with asyncio.timeout(0.8 * budget):
                await queue.join()
        except TimeoutError:
            rest = [queue.get_nowait() for _ in range(queue.qsize())]
            await asyncio.sleep(0.2 * budget)
""",
            ),
            (RETURN, "    return in_hand + rest\n"),
        ),
        "wrong-order",
    ),
    (
        "it sets aside what was there when it was told to stop, and never looks again",
        changed(
            GROUP,
            (DRAIN, "        size = queue.qsize()\n" + DRAIN),
            (
                RETURN,
                RETURN.replace("queue.qsize()", "min(size, queue.qsize())"),
            ),
        ),
        "loses-late-item",
    ),
    # -- the budget
    ("it has no budget", with_budget("None"), "no-budget"),
    ("it takes the budget for milliseconds", with_budget("1000 * budget"), "no-budget"),
    ("it uses half of the budget", with_budget("budget / 2"), "budget-cut-short"),
    ("it uses three quarters of the budget", with_budget("0.75 * budget"), "budget-cut-short"),
    ("it uses 1.4 budgets", with_budget("1.4 * budget"), "budget-stretched"),
    ("it uses six tenths of the budget", with_budget("0.6 * budget"), "budget-cut-short"),
    ("it always waits for half a second", with_budget("0.5"), "budget-per-item"),
    (
        "its budget begins with the worker",
        changed(
            GROUP,
            ("    in_hand = []\n", "    in_hand, began = [], asyncio.get_running_loop().time()\n"),
            (TIMEOUT, "asyncio.timeout_at(began + budget)"),
        ),
        "budget-begins-early",
    ),
    (
        "its budget begins with the item in hand",
        changed(
            GROUP,
            (
                "    in_hand = []\n",
                "    in_hand, began, loop = [], [0.0], asyncio.get_running_loop()\n",
            ),
            (HANDLE, "            began[0] = loop.time()\n" + HANDLE),
            (TIMEOUT, "asyncio.timeout_at(max(began[0], loop.time() - 0.9 * budget) + budget)"),
        ),
        "budget-begins-early",
    ),
    (
        "it gives each item the whole budget",
        NEXT_ITEM
        + worker("""    cut = []
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
"""),
        "budget-per-item",
    ),
    (
        "it lets the TimeoutError of its budget out",
        changed(GROUP, ("suppress(TimeoutError)", "suppress()")),
        "timeout-escapes",
    ),
    (
        "it tidies up for half a budget more",
        changed(
            GROUP, (RETURN, "    if in_hand:\n        await asyncio.sleep(budget / 2)\n" + RETURN)
        ),
        "budget-stretched or budget-cut-short",
    ),
    # -- handle
    (
        "it cancels handle and does not wait for it",
        changed(
            GROUP, (IN_GROUP, TASK_ALONE.replace("        await asyncio.wait({worker})\n", ""))
        ),
        "leaves-handle-running",
    ),
    (
        "it handles every item at once",
        NEXT_ITEM
        + worker("""    async with asyncio.TaskGroup() as group:
        while item := await next_item(queue, stopping):
            group.create_task(handle(*item))
    return []
"""),
        "many-at-once",
    ),
    ("it swallows what handle raises", caught("Exception"), "error-swallowed"),
    (
        "it logs what handle raises and goes on",
        caught("Exception as error", "print(error)"),
        "error-swallowed",
    ),
    ("it swallows a ValueError of handle", caught("ValueError"), "error-swallowed"),
    ("it swallows a LookupError of handle", caught("LookupError"), "error-swallowed"),
    (
        "it takes a time-out of handle's own for the end of the budget",
        changed(
            ONE_LOOP, ("        if not deadline.expired():\n            raise\n", "        pass\n")
        ),
        "error-swallowed",
    ),
    (
        "it raises what handle raised when everything is done",
        changed(
            caught("Exception as error", "failed.append(error)"),
            ("    in_hand = []\n", "    in_hand, failed = [], []\n"),
            (RETURN, "    if failed:\n        raise failed[0]\n" + RETURN),
        ),
        "error-swallowed",
    ),
    (
        "it raises an error of its own instead",
        caught("Exception", 'raise SystemError("the worker failed") from None'),
        "error-replaced",
    ),
    (
        "its task dies and nobody notices",
        changed(GROUP, (IN_GROUP, TASK_ALONE)),
        "dies-unnoticed",
    ),
    (
        "its task dies in the drain and nobody notices",
        changed(
            GROUP,
            (
                IN_GROUP,
                """    worker = asyncio.create_task(work())
    told = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({worker, told}, return_when=asyncio.FIRST_COMPLETED)
        if worker.done():
            worker.result()
        with suppress(TimeoutError):
            async with asyncio.timeout(budget):
                await queue.join()
    finally:
        worker.cancel()
        told.cancel()
        await asyncio.wait({worker, told})
""",
            ),
        ),
        "dies-unnoticed",
    ),
    # -- its own cancellation
    (
        "it shields the work from its cancellation",
        changed(GROUP, ("def run_worker", "def drained"))
        + worker("""    work = asyncio.create_task(drained(queue, handle, stopping, budget))
    return await asyncio.shield(work)
"""),
        "leaves-handle-running",
    ),
    (
        "it returns the rest when it is cancelled",
        changed(
            GROUP,
            (
                IN_GROUP,
                "    try:\n"
                + "".join("    " + line + "\n" for line in IN_GROUP.splitlines())
                + "    except asyncio.CancelledError:\n        pass\n",
            ),
        ),
        "swallows-cancel",
    ),
    (
        "it takes its cancellation for stopping",
        changed(
            GROUP,
            (
                "        await stopping.wait()\n",
                """        try:
            await stopping.wait()
        except asyncio.CancelledError:
            pass
""",
            ),
        ),
        "swallows-cancel",
    ),
    # -- what it returns
    (
        "it returns the newest first",
        changed(
            GROUP, (RETURN, RETURN.replace("range(queue.qsize())]", "range(queue.qsize())][::-1]"))
        ),
        "wrong-order",
    ),
    (
        "it returns the rest before the item in hand",
        changed(
            GROUP,
            (RETURN, "    return [queue.get_nowait() for _ in range(queue.qsize())] + in_hand\n"),
        ),
        "wrong-order",
    ),
    (
        "it returns items that it has handled",
        changed(
            GROUP,
            ("            in_hand.clear()\n", "            done.append(in_hand.pop())\n"),
            ("    in_hand = []\n", "    in_hand, done = [], []\n"),
            (RETURN, RETURN.replace("in_hand +", "done + in_hand +")),
        ),
        "wrong-answer",
    ),
    (
        "it returns a dict",
        changed(GROUP, (RETURN, '    return {"left": in_hand}\n')),
        "wrong-answer",
    ),
    # -- what any exercise may meet
    ("it fails", worker('    raise LookupError("no queue")\n'), "raised"),
    ("it is no coroutine function", worker("    return []\n").removeprefix("async "), "not-async"),
)


# Each passes, and why that is let be.
SURVIVES = (
    # A budget is a real wait, and a busy machine is late by a few hundredths of it. To take less
    # than a tenth of it back for tidying up is sound: Kubernetes kills what is late.
    ("it keeps a twentieth of the budget for itself", with_budget("0.95 * budget")),
    ("it uses 1.05 budgets", with_budget("1.05 * budget")),
)


@pytest.mark.parametrize(("name", "source"), SURVIVES, ids=[name for name, _ in SURVIVES])
async def test_what_survives_is_known(name: str, source: str, written: Written) -> None:
    assert (await check_worker(written("06", source)["run_worker"], limit=AMPLE)).passed
    assert 20 * len(SURVIVES) <= len(SURVIVES) + len(WRONG)


@pytest.mark.parametrize(("name", "source", "mistake"), WRONG, ids=[name for name, *_ in WRONG])
async def test_a_wrong_answer_gets_its_own_hint(
    name: str, source: str, mistake: str, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "PATIENCE", BRIEF)
    before = asyncio.all_tasks()
    verdict = await check_worker(written("06", source)["run_worker"], limit=AMPLE)
    assert not verdict.passed
    # where the machine stands still, an answer that ends late may be found out by its item first
    assert verdict.mistake in mistake.split(" or "), verdict.message
    assert asyncio.all_tasks() == before


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    assert {mistake.name for mistake in EXERCISE.mistakes} <= {
        one for *_, mistake in WRONG for one in mistake.split(" or ")
    }


@pytest.mark.parametrize("when", [0.8, 0.95])
async def test_a_machine_that_stands_still_is_not_taken_for_a_wrong_budget(
    when: float, written: Written
) -> None:
    right = written("06", GROUP)["run_worker"]
    budgets: list[float] = []

    async def worker(queue: Any, handle: Any, stopping: Any, budget: float) -> Any:
        async def stand_still() -> None:
            await stopping.wait()
            if budgets.count(budget) == 1 and budget == draining.ms(draining.MEASURED):
                asyncio.get_running_loop().call_later(when * budget, time.sleep, budget / 2)

        budgets.append(budget)
        async with asyncio.TaskGroup() as group:
            standing = group.create_task(stand_still())
            try:
                return await right(queue, handle, stopping, budget)
            finally:
                standing.cancel()

    verdict = await check_worker(worker, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert budgets[-1] == 2 * budgets[-2]  # another trial, with more room


HOSTILE = (
    (
        "it never awaits anything that waits",
        worker("    while True:\n        await asyncio.sleep(0)\n"),
        "never-ends",
    ),
    (
        "its task swallows its cancellation",
        worker("""    async def stubborn():
        while True:
            with suppress(BaseException):
                await asyncio.sleep(0.01)

    await asyncio.create_task(stubborn())
"""),
        "drops-queue",
    ),
)


@pytest.mark.parametrize(("name", "source", "mistake"), HOSTILE, ids=[name for name, *_ in HOSTILE])
async def test_a_hostile_answer_ends_soon_and_leaves_later_checks_whole(
    name: str, source: str, mistake: str, written: Written
) -> None:
    before, began = asyncio.all_tasks(), time.monotonic()
    limit = 1.0 if mistake == "never-ends" else AMPLE
    verdict = await check_worker(written("06", source)["run_worker"], limit=limit)
    assert verdict.mistake == mistake, verdict.message
    assert time.monotonic() - began < AT_MOST
    assert asyncio.all_tasks() == before
    assert (await check_worker(written("06", GROUP)["run_worker"], limit=AMPLE)).passed


@pytest.mark.parametrize("given", [None, 3, [], type])
async def test_something_else_than_a_function(given: Any) -> None:
    assert (await check_worker(given)).mistake == "wrong-type"


async def test_the_worker_called_in_the_check_cell(written: Written) -> None:
    called = written("06", GROUP)["run_worker"](None, None, None, 0)
    assert (await check_worker(called)).mistake == "called-instead-of-passed"


async def test_a_bad_limit_is_the_callers(written: Written) -> None:
    with pytest.raises(ValueError, match="limit is 0"):
        await check_worker(written("06", GROUP)["run_worker"], limit=0)
