"""The check of lesson 03, with right answers and wrong ones."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from looplab.exercises.row_import import EXERCISE, LIMIT, OTHER_LIMITS, check_import

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy

# What most answers share: how one row ends, and an import that takes what a row does as `ending`.
HEADER = """
import asyncio, time, anyio
from looplab.exercises.row_import import RowRefused

async def ending_of(add, row):
    try:
        return "saved" if await add(row) else "is there already"
    except (RowRefused, TimeoutError) as error:
        return repr(error)

async def guarded(add, row):
    try:
        return await ending_of(add, row)
    except asyncio.CancelledError as error:
        if asyncio.current_task().cancelling():
            raise
        return repr(error)

async def until_a_bug(rows, add, keep, limit, ending=ending_of, looks=True):
    slots, bugs = asyncio.Semaphore(limit), []

    async def one(number, row):
        async with slots:
            if bugs:
                return
            await keep(number, "unknown")
            try:
                ended = await ending(add, row)
            except Exception as bug:
                bugs.append(bug)
                return
            await keep(number, ended)

    tasks = [one(number, row) for number, row in enumerate(rows)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    if looks:
        bugs += [result for result in results if isinstance(result, Exception)]
    if bugs:
        raise ExceptionGroup("bugs", bugs)

async def results_of(rows, add, keep, limit):
    slots = asyncio.Semaphore(limit)

    async def one(number, row):
        async with slots:
            await keep(number, "unknown")
            return await add(row)

    tasks = [one(number, row) for number, row in enumerate(rows)]
    return await asyncio.gather(*tasks, return_exceptions=True)
"""

RIGHT: tuple[tuple[str, str], ...] = (
    (
        "gather, a semaphore and a list of bugs",
        """
async def import_rows(rows, add, keep, limit=5):
    await until_a_bug(rows, add, keep, limit)
""",
    ),
    (
        "a TaskGroup whose tasks catch the bug",
        """
async def import_rows(rows, add, keep, limit=5):
    slots, bugs = asyncio.Semaphore(limit), []

    async def one(number, row):
        async with slots:
            if not bugs:
                await keep(number, "unknown")
                try:
                    await keep(number, await ending_of(add, row))
                except Exception as bug:
                    bugs.append(bug)

    async with asyncio.TaskGroup() as group:
        for number, row in enumerate(rows):
            group.create_task(one(number, row))
    if bugs:
        raise bugs[0]
""",
    ),
    (
        "an AnyIO task group and a CapacityLimiter",
        """
async def import_rows(rows, add, keep, limit=5):
    limiter, bugs = anyio.CapacityLimiter(limit), []

    async def one(number, row):
        async with limiter:
            if not bugs:
                await keep(number, "unknown")
                try:
                    await keep(number, await guarded(add, row))
                except Exception as bug:
                    bugs.append(bug)

    async with anyio.create_task_group() as group:
        for number, row in enumerate(rows):
            group.start_soon(one, number, row)
    if bugs:
        raise bugs[0]
""",
    ),
    (
        "as many workers as the limit, over one iterator",
        """
async def import_rows(rows, add, keep, limit=5):
    numbered, bugs = iter(enumerate(rows)), []

    async def work():
        for number, row in numbered:
            await keep(number, "unknown")
            try:
                await keep(number, await ending_of(add, row))
            except Exception as bug:
                bugs.append(bug)
            except asyncio.CancelledError as error:
                if asyncio.current_task().cancelling():
                    raise
                await keep(number, repr(error))
            if bugs:
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(limit):
            group.create_task(work())
    if bugs:
        raise ExceptionGroup("bugs", bugs)
""",
    ),
    (
        "an event that says stop, and the row with the bug kept with it",
        """
async def import_rows(rows, add, keep, limit=5):
    slots, stop = asyncio.Semaphore(limit), asyncio.Event()

    async def one(number, row):
        async with slots:
            if stop.is_set():
                return
            await keep(number, "unknown")
            try:
                ended = await ending_of(add, row)
            except Exception as bug:
                stop.set()
                await keep(number, f"bug: {bug!r}")
                raise
            await keep(number, ended)

    tasks = [one(number, row) for number, row in enumerate(rows)]
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
""",
    ),
    (
        "a row's CancelledError kept as a reason, unless the row was told to stop",
        """
async def import_rows(rows, add, keep, limit=5):
    await until_a_bug(rows, add, keep, limit, guarded)
""",
    ),
)

WRONG: tuple[tuple[str, str, str], ...] = (
    (
        "the card's",
        """
async def import_rows(rows, add, keep, limit=5):
    results = await results_of(rows, add, keep, limit)
    for number, result in enumerate(results):
        await keep(number, repr(result) if isinstance(result, Exception) else "saved")
""",
        "false-is-saved",
    ),
    (
        "whatever did not raise counts as saved",
        """
async def unasked(add, row):
    try:
        await add(row)
        return "saved"
    except (RowRefused, TimeoutError) as error:
        return repr(error)

async def import_rows(rows, add, keep, limit=5):
    await until_a_bug(rows, add, keep, limit, unasked)
""",
        "false-is-saved",
    ),
    (
        "a cancelled row counts as saved",
        """
async def import_rows(rows, add, keep, limit=5):
    for number, result in enumerate(await results_of(rows, add, keep, limit)):
        failed = result is False or isinstance(result, Exception)
        await keep(number, repr(result) if failed else "saved")
""",
        "cancelled-is-saved",
    ),
    (
        "gather without return_exceptions",
        """
async def import_rows(rows, add, keep, limit=5):
    slots = asyncio.Semaphore(limit)

    async def one(number, row):
        async with slots:
            await keep(number, "unknown")
            await keep(number, await ending_of(add, row))

    await asyncio.gather(*(one(number, row) for number, row in enumerate(rows)))
""",
        "cancelled-ends-all",
    ),
    (
        "an AnyIO task group, which a row's CancelledError ends",
        """
async def import_rows(rows, add, keep, limit=5):
    limiter, bugs = anyio.CapacityLimiter(limit), []

    async def one(number, row):
        async with limiter:
            if not bugs:
                await keep(number, "unknown")
                try:
                    await keep(number, await ending_of(add, row))
                except Exception as bug:
                    bugs.append(bug)

    async with anyio.create_task_group() as group:
        for number, row in enumerate(rows):
            group.start_soon(one, number, row)
    if bugs:
        raise bugs[0]
""",
        "cancelled-ends-all",
    ),
    (
        "a TaskGroup that keeps a row after it has ended only",
        """
async def import_rows(rows, add, keep, limit=5):
    slots = asyncio.Semaphore(limit)

    async def one(number, row):
        async with slots:
            await keep(number, await ending_of(add, row))

    async with asyncio.TaskGroup() as group:
        for number, row in enumerate(rows):
            group.create_task(one(number, row))
""",
        "cancelled-is-nowhere",
    ),
    (
        "nothing caught",
        """
async def import_rows(rows, add, keep, limit=5):
    async with asyncio.TaskGroup() as group:
        for row in rows:
            group.create_task(add(row))
""",
        "first-failure-ends-it",
    ),
    (
        "TimeoutError forgotten",
        """
async def impatient(add, row):
    try:
        return "saved" if await add(row) else "is there already"
    except RowRefused as error:
        return repr(error)

async def import_rows(rows, add, keep, limit=5):
    await until_a_bug(rows, add, keep, limit, impatient)
""",
        "first-failure-ends-it",
    ),
    (
        "reasons by str",
        """
async def worded(add, row):
    try:
        return "saved" if await add(row) else "is there already"
    except (RowRefused, TimeoutError) as error:
        return str(error)

async def import_rows(rows, add, keep, limit=5):
    await until_a_bug(rows, add, keep, limit, worded)
""",
        "reason-without-words",
    ),
    (
        "no reason for a row that is there already",
        """
async def silent(add, row):
    ended = await ending_of(add, row)
    return None if "already" in ended else ended

async def import_rows(rows, add, keep, limit=5):
    await until_a_bug(rows, add, keep, limit, silent)
""",
        "reason-without-words",
    ),
    (
        "the same words for each reason",
        """
async def worded(add, row):
    ended = await ending_of(add, row)
    return ended if ended == "saved" else "failed"

async def import_rows(rows, add, keep, limit=5):
    await until_a_bug(rows, add, keep, limit, worded)
""",
        "reason-lost",
    ),
    (
        "only the type of the error",
        """
async def typed(add, row):
    return (await ending_of(add, row)).partition("(")[0]

async def import_rows(rows, add, keep, limit=5):
    await until_a_bug(rows, add, keep, limit, typed)
""",
        "reason-lost",
    ),
    (
        "a row that is there already stays unknown",
        """
async def unasked(add, row):
    ended = await ending_of(add, row)
    return "unknown" if "already" in ended else ended

async def import_rows(rows, add, keep, limit=5):
    await until_a_bug(rows, add, keep, limit, unasked)
""",
        "reason-lost",
    ),
    (
        "gather with return_exceptions, and bugs left in the list",
        """
async def import_rows(rows, add, keep, limit=5):
    slots = asyncio.Semaphore(limit)

    async def one(number, row):
        async with slots:
            await keep(number, "unknown")
            await keep(number, await ending_of(add, row))

    tasks = [one(number, row) for number, row in enumerate(rows)]
    await asyncio.gather(*tasks, return_exceptions=True)
""",
        "hides-a-bug",
    ),
    (
        "the book's error counts as a row's, since both are called TimeoutError",
        """
async def import_rows(rows, add, keep, limit=5):
    async def kept(number, text):
        try:
            await keep(number, text)
        except TimeoutError as error:
            await keep(number, repr(error))

    await until_a_bug(rows, add, kept, limit)
""",
        "hides-the-books-error",
    ),
    (
        "the book's error stays in what gather returns",
        """
async def import_rows(rows, add, keep, limit=5):
    await until_a_bug(rows, add, keep, limit, looks=False)
""",
        "hides-the-books-error",
    ),
    *(
        (
            f"{kind} caught beside what is expected",
            f"""
async def wide(add, row):
    try:
        return await ending_of(add, row)
    except {kind} as error:
        return repr(error)

async def import_rows(rows, add, keep, limit=5):
    await until_a_bug(rows, add, keep, limit, wide)
""",
            "hides-a-bug",
        )
        for kind in (
            "Exception",
            "ValueError",
            "LookupError",
            "OSError",
            "RuntimeError",
            "AttributeError",
            "(TypeError, KeyError)",
        )
    ),
    (
        "the bugs that Python's authors named are raised, and no others",
        """
async def listed(add, row):
    try:
        return await ending_of(add, row)
    except (TypeError, ValueError, LookupError, OSError, RuntimeError, AttributeError):
        raise
    except Exception as error:
        return repr(error)

async def import_rows(rows, add, keep, limit=5):
    await until_a_bug(rows, add, keep, limit, listed)
""",
        "hides-a-bug",
    ),
    (
        "the row with the bug kept as saved",
        """
async def import_rows(rows, add, keep, limit=5):
    slots, bugs = asyncio.Semaphore(limit), []

    async def one(number, row):
        async with slots:
            if bugs:
                return
            await keep(number, "unknown")
            ended = "saved"
            try:
                ended = await ending_of(add, row)
            except Exception as bug:
                bugs.append(bug)
            await keep(number, ended)

    tasks = [one(number, row) for number, row in enumerate(rows)]
    await asyncio.gather(*tasks, return_exceptions=True)
    if bugs:
        raise bugs[0]
""",
        "bug-is-saved",
    ),
    (
        "a TaskGroup that the bug goes through",
        """
async def import_rows(rows, add, keep, limit=5):
    slots = asyncio.Semaphore(limit)

    async def one(number, row):
        async with slots:
            await keep(number, "unknown")
            await keep(number, await ending_of(add, row))

    async with asyncio.TaskGroup() as group:
        for number, row in enumerate(rows):
            group.create_task(one(number, row))
""",
        "cut-off-by-a-bug",
    ),
    (
        "the rows under way cancelled by hand",
        """
async def import_rows(rows, add, keep, limit=5):
    slots = asyncio.Semaphore(limit)

    async def one(number, row):
        async with slots:
            await keep(number, "unknown")
            await keep(number, await ending_of(add, row))

    tasks = [asyncio.create_task(one(number, row)) for number, row in enumerate(rows)]
    try:
        if tasks:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                if not task.cancelled():
                    task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
""",
        "cut-off-by-a-bug",
    ),
    (
        "the lesson's version, which sends all the others",
        """
async def import_rows(rows, add, keep, limit=5):
    slots = asyncio.Semaphore(limit)

    async def one(number, row):
        async with slots:
            await keep(number, "unknown")
            await keep(number, await ending_of(add, row))

    tasks = [one(number, row) for number, row in enumerate(rows)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    bugs = [result for result in results if isinstance(result, Exception)]
    if bugs:
        raise ExceptionGroup("bugs", bugs)
""",
        "goes-on-after-a-bug",
    ),
    (
        "looking for a bug before the slot is free",
        """
async def import_rows(rows, add, keep, limit=5):
    slots, bugs = asyncio.Semaphore(limit), []

    async def one(number, row):
        if bugs:
            return
        async with slots:
            await keep(number, "unknown")
            try:
                await keep(number, await ending_of(add, row))
            except Exception as bug:
                bugs.append(bug)

    tasks = [one(number, row) for number, row in enumerate(rows)]
    await asyncio.gather(*tasks, return_exceptions=True)
    if bugs:
        raise bugs[0]
""",
        "goes-on-after-a-bug",
    ),
    (
        "one row after another",
        """
async def import_rows(rows, add, keep, limit=5):
    for number, row in enumerate(rows):
        await keep(number, "unknown")
        try:
            await keep(number, await ending_of(add, row))
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():
                raise
""",
        "one-by-one",
    ),
    *(
        (
            name,
            f"""
async def import_rows(rows, add, keep, limit=5):
    await until_a_bug(rows, add, keep, {limit})
""",
            mistake,
        )
        for name, limit, mistake in (
            ("the limit ignored", "len(rows) or 1", "over-the-limit"),
            ("one more than the limit", "limit + 1", "over-the-limit"),
            ("the stub's default written into the code", "5", "over-the-limit"),
            ("the check's own limit written into the code", "4", "over-the-limit"),
            ("two at a time, whatever the limit", "2", "own-limit"),
            ("half the limit, to be careful", "max(2, limit // 2)", "own-limit"),
        )
    ),
    (
        "a semaphore for each row",
        """
async def import_rows(rows, add, keep, limit=5):
    async def alone(add, row):
        async with asyncio.Semaphore(limit):
            return await ending_of(add, row)

    await until_a_bug(rows, add, keep, 1_000, alone)
""",
        "over-the-limit",
    ),
    (
        "a second try for whatever failed",
        """
async def twice(add, row):
    ended = await ending_of(add, row)
    return ended if ended == "saved" else await ending_of(add, row)

async def import_rows(rows, add, keep, limit=5):
    await until_a_bug(rows, add, keep, limit, twice)
""",
        "row-added-twice",
    ),
    (
        "a second try after a TimeoutError",
        """
async def again(add, row):
    ended = await ending_of(add, row)
    return await ending_of(add, row) if "Timeout" in ended else ended

async def import_rows(rows, add, keep, limit=5):
    await until_a_bug(rows, add, keep, limit, again)
""",
        "row-added-twice",
    ),
    (
        "counted from 1",
        """
async def import_rows(rows, add, keep, limit=5):
    async def keep_from_one(number, text):
        await keep(number + 1, text)

    await until_a_bug(rows, add, keep_from_one, limit)
""",
        "row-missing",
    ),
    (
        "the last rows left out",
        """
async def import_rows(rows, add, keep, limit=5):
    await until_a_bug(rows[: len(rows) // limit * limit], add, keep, limit)
""",
        "row-missing",
    ),
    (
        "the rows after a refusal stay unknown",
        """
async def import_rows(rows, add, keep, limit=5):
    refused = []

    async def one(add, row):
        ended = await ending_of(add, row)
        if "Refused" in ended:
            refused.append(row)
        return "unknown" if refused and ended == "saved" else ended

    await until_a_bug(rows, add, keep, limit, one)
""",
        "row-missing",
    ),
    (
        "a deadline of its own for each row",
        """
async def hurried(add, row):
    try:
        async with asyncio.timeout(0):
            return await ending_of(add, row)
    except TimeoutError:
        return "too slow"

async def import_rows(rows, add, keep, limit=5):
    await until_a_bug(rows, add, keep, limit, hurried)
""",
        "row-missing",
    ),
    (
        "True and False in place of words",
        """
async def import_rows(rows, add, keep, limit=5):
    async def keep_flag(number, text):
        await keep(number, text == "saved")

    await until_a_bug(rows, add, keep_flag, limit)
""",
        "wrong-entry",
    ),
    (
        "the row in place of its number",
        """
async def import_rows(rows, add, keep, limit=5):
    async def keep_row(number, text):
        await keep(rows[number], text)

    await until_a_bug(rows, add, keep_row, limit)
""",
        "wrong-entry",
    ),
    (
        "nothing kept",
        """
async def import_rows(rows, add, keep, limit=5):
    async def forget(number, text):
        await asyncio.sleep(0)

    await until_a_bug(rows, add, forget, limit)
""",
        "row-missing",
    ),
    (
        "kept after add only, with a reason for what was cancelled",
        """
async def import_rows(rows, add, keep, limit=5):
    slots, bugs = asyncio.Semaphore(limit), []

    async def one(number, row):
        async with slots:
            try:
                await keep(number, await ending_of(add, row))
            except asyncio.CancelledError:
                if asyncio.current_task().cancelling():
                    raise
                await keep(number, "cancelled")

    await asyncio.gather(*(one(number, row) for number, row in enumerate(rows)))
""",
        "added-before-unknown",
    ),
    (
        "begins with another word",
        """
async def import_rows(rows, add, keep, limit=5):
    async def keep_started(number, text):
        await keep(number, "started" if text == "unknown" else text)

    await until_a_bug(rows, add, keep_started, limit)
""",
        "added-before-unknown",
    ),
    (
        "results written when all rows have ended",
        """
async def import_rows(rows, add, keep, limit=5):
    endings = {}

    async def note(number, text):
        if text == "unknown":
            await keep(number, text)
        else:
            endings[number] = text

    try:
        await until_a_bug(rows, add, note, limit)
    except asyncio.CancelledError:
        raise
    except ExceptionGroup:
        for number, text in endings.items():
            await keep(number, text)
        raise
    for number, text in endings.items():
        await keep(number, text)
""",
        "kept-at-the-end",
    ),
    (
        "asyncio.wait of no tasks",
        """
async def import_rows(rows, add, keep, limit=5):
    work = asyncio.create_task(until_a_bug(rows, add, keep, limit))
    try:
        await asyncio.wait([work][: len(rows)])
        work.result()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
""",
        "no-rows",
    ),
    (
        "a summary kept of no rows",
        """
async def import_rows(rows, add, keep, limit=5):
    if not rows:
        await keep(0, "no rows")
    await until_a_bug(rows, add, keep, limit)
""",
        "no-rows",
    ),
    (
        "a return in place of the import's own cancellation",
        """
async def import_rows(rows, add, keep, limit=5):
    work = asyncio.create_task(until_a_bug(rows, add, keep, limit))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        work.cancel()
        await asyncio.wait([work])
""",
        "survives-cancellation",
    ),
    (
        "workers without the guard, which take the next row",
        """
async def import_rows(rows, add, keep, limit=5):
    numbered, bugs = iter(enumerate(rows)), []

    async def work():
        for number, row in numbered:
            if bugs:
                return
            await keep(number, "unknown")
            try:
                await keep(number, await ending_of(add, row))
            except Exception as bug:
                bugs.append(bug)
            except asyncio.CancelledError as error:
                await keep(number, repr(error))

    async with asyncio.TaskGroup() as group:
        for _ in range(limit):
            group.create_task(work())
    if bugs:
        raise bugs[0]
""",
        "survives-cancellation",
    ),
    (
        "a reason for every CancelledError, the import's own too",
        """
async def unguarded(add, row):
    try:
        return await ending_of(add, row)
    except asyncio.CancelledError as error:
        return repr(error)

async def import_rows(rows, add, keep, limit=5):
    await until_a_bug(rows, add, keep, limit, unguarded)
""",
        "keeps-after-the-stop",
    ),
    (
        "tasks that outlive the import's cancellation",
        """
async def import_rows(rows, add, keep, limit=5):
    work = asyncio.create_task(until_a_bug(rows, add, keep, limit))
    await asyncio.shield(work)
""",
        "left-running",
    ),
    (
        "tasks that outlive a bug",
        """
async def import_rows(rows, add, keep, limit=5):
    slots = asyncio.Semaphore(limit)

    async def one(number, row):
        async with slots:
            await keep(number, "unknown")
            try:
                ended = await ending_of(add, row)
            except asyncio.CancelledError:
                if asyncio.current_task().cancelling():
                    raise
                ended = "cancelled"
            await asyncio.sleep(0.05)
            await keep(number, ended)

    await asyncio.gather(*(one(number, row) for number, row in enumerate(rows)))
""",
        "left-running",
    ),
    (
        "nothing written",
        """
async def import_rows(rows, add, keep, limit=5):
    raise NotImplementedError
""",
        "not-written",
    ),
    (
        "def in place of async def",
        """
def import_rows(rows, add, keep, limit=5):
    return None
""",
        "not-async",
    ),
    (
        "add not awaited",
        """
async def import_rows(rows, add, keep, limit=5):
    for number, row in enumerate(rows):
        await keep(number, "unknown")
        await keep(number, "saved" if add(row) else "is there already")
""",
        "forgotten-await",
    ),
    ("something else in place of the function", "import_rows = None", "wrong-type"),
    (
        "time.sleep between rows",
        """
async def import_rows(rows, add, keep, limit=5):
    for row in rows:
        time.sleep(3)
        await add(row)
""",
        "blocks-the-loop",
    ),
)


@pytest.fixture
def function_of(written: Callable[[str, str], dict[str, Any]]) -> Callable[[str], Any]:
    """Return ``import_rows`` as an answer has it."""
    return lambda source: written("03", HEADER + source)["import_rows"]


@pytest.mark.parametrize("source", [pytest.param(source, id=name) for name, source in RIGHT])
async def test_a_right_answer_passes_in_any_style(source, function_of) -> None:
    verdict = await check_import(function_of(source), limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


@pytest.mark.parametrize(
    ("source", "mistake"),
    [pytest.param(source, mistake, id=name) for name, source, mistake in WRONG],
)
async def test_a_wrong_answer_gets_its_own_hint(source, mistake, function_of) -> None:
    verdict = await check_import(function_of(source))
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    assert {mistake.name for mistake in EXERCISE.mistakes} <= {mistake for *_, mistake in WRONG}


async def test_a_missing_row_is_told_with_what_became_of_it(function_of) -> None:
    source = next(source for name, source, _ in WRONG if name == "the last rows left out")
    verdict = await check_import(function_of(source))
    assert verdict.message.endswith("(the book has no row 12; add returned True for it)")


async def test_what_never_ends_is_stopped() -> None:
    async def waits_for_ever(rows: Any, add: Any, keep: Any, limit: int) -> Any:
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    verdict = await check_import(waits_for_ever, limit=0.2)
    assert verdict.mistake == "never-ends"
    assert asyncio.all_tasks() == before


async def test_a_task_left_running_after_a_bug_is_named(function_of) -> None:
    right = function_of(RIGHT[0][1])
    kept = []

    async def left(rows: Any, add: Any, keep: Any, limit: int) -> Any:
        async def lingering() -> None:
            await asyncio.Event().wait()

        kept.append(asyncio.create_task(lingering()))
        return await right(rows, add, keep, limit)

    verdict = await check_import(left)
    assert verdict.mistake == "left-running"
    assert "lingering" in verdict.message
    assert all(task.done() for task in kept)


async def test_the_limits_are_the_checks_own(function_of) -> None:
    right = function_of(RIGHT[0][1])
    asked = set()

    async def noted(rows: Any, add: Any, keep: Any, limit: int) -> Any:
        asked.add(limit)
        return await right(rows, add, keep, limit)

    assert (await check_import(noted)).passed
    assert asked == {LIMIT, *OTHER_LIMITS}
