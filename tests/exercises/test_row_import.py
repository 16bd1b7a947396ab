"""The check of lesson 03, with right answers and wrong ones."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from support.exercises.row_import import EXERCISE, LIMIT, OTHER_LIMITS, check_import

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy

# What most answers share: the outcome of one row, and the report of all.
HEADER = """
import asyncio, time, anyio
from support.exercises.row_import import RowRefused

def stopping():
    return asyncio.current_task().cancelling() > 0

async def reason_of(add, row):
    try:
        return None if await add(row) else "is there already"
    except (RowRefused, TimeoutError) as error:
        return repr(error)
    except asyncio.CancelledError as error:
        if stopping():
            raise
        return repr(error)

def report_of(reasons):
    return {
        "saved": [number for number, reason in enumerate(reasons) if reason is None],
        "failed": {number: reason for number, reason in enumerate(reasons) if reason is not None},
    }

async def grouped(rows, add, limit, reason=reason_of):
    semaphore = asyncio.Semaphore(limit)

    async def one(row):
        async with semaphore:
            return await reason(add, row)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(row)) for row in rows]
    return report_of([task.result() for task in tasks])

async def results_of(rows, add, limit):
    semaphore = asyncio.Semaphore(limit)

    async def one(row):
        async with semaphore:
            return await add(row)

    return await asyncio.gather(*map(one, rows), return_exceptions=True)
"""

RIGHT: tuple[tuple[str, str], ...] = (
    (
        "a TaskGroup and a semaphore",
        """
async def import_rows(rows, add, limit=5):
    return await grouped(rows, add, limit)
""",
    ),
    (
        "an AnyIO task group and a CapacityLimiter",
        """
async def import_rows(rows, add, limit=5):
    limiter = anyio.CapacityLimiter(limit)
    reasons = {}

    async def one(number, row):
        async with limiter:
            reasons[number] = await reason_of(add, row)

    async with anyio.create_task_group() as group:
        for number, row in enumerate(rows):
            group.start_soon(one, number, row)
    return report_of([reasons[number] for number in range(len(rows))])
""",
    ),
    (
        "as many workers as the limit, over one iterator",
        """
async def import_rows(rows, add, limit=5):
    numbered = iter(enumerate(rows))
    reasons = {}

    async def work():
        for number, row in numbered:
            reasons[number] = await reason_of(add, row)

    async with asyncio.TaskGroup() as group:
        for _ in range(limit):
            group.create_task(work())
    return report_of([reasons[number] for number in range(len(rows))])
""",
    ),
    (
        "workers over a queue",
        """
async def import_rows(rows, add, limit=5):
    queue = asyncio.Queue()
    for numbered in enumerate(rows):
        queue.put_nowait(numbered)
    reasons = [None] * len(rows)

    async def work():
        while not queue.empty():
            number, row = queue.get_nowait()
            reasons[number] = await reason_of(add, row)

    async with asyncio.TaskGroup() as group:
        for _ in range(limit):
            group.create_task(work())
    return report_of(reasons)
""",
    ),
    (
        "gather with return_exceptions, whose bugs are raised",
        """
async def import_rows(rows, add, limit=5):
    expected = (RowRefused, TimeoutError, asyncio.CancelledError)
    results = await results_of(rows, add, limit)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, expected):
            raise result
    return report_of([None if result is True else repr(result) for result in results])
""",
    ),
    (
        "asyncio.wait, and tasks cancelled by hand",
        """
async def import_rows(rows, add, limit=5):
    semaphore = asyncio.Semaphore(limit)

    async def one(row):
        async with semaphore:
            return await reason_of(add, row)

    tasks = [asyncio.create_task(one(row)) for row in rows]
    try:
        if tasks:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return report_of([task.result() for task in tasks])
""",
    ),
    (
        # In a TaskGroup a row's task that swallows a cancellation ends, and the group raises it:
        # the guard is needed only where code goes on after the row.
        "a row's CancelledError as a reason, with a TaskGroup to raise the import's own",
        """
async def unguarded(add, row):
    try:
        return None if await add(row) else "is there already"
    except (RowRefused, TimeoutError, asyncio.CancelledError) as error:
        return repr(error)

async def import_rows(rows, add, limit=5):
    return await grouped(rows, add, limit, unguarded)
""",
    ),
)

WRONG: tuple[tuple[str, str, str], ...] = (
    (
        "the card's",
        """
async def import_rows(rows, add, limit=5):
    results = await results_of(rows, add, limit)
    return report_of([repr(r) if isinstance(r, Exception) else None for r in results])
""",
        "false-is-saved",
    ),
    (
        "whatever did not raise counts as saved",
        """
async def unasked(add, row):
    try:
        await add(row)
    except (RowRefused, TimeoutError) as error:
        return repr(error)
    except asyncio.CancelledError:
        if stopping():
            raise
        return "cancelled"

async def import_rows(rows, add, limit=5):
    return await grouped(rows, add, limit, unasked)
""",
        "false-is-saved",
    ),
    (
        "a cancelled row counts as saved",
        """
async def import_rows(rows, add, limit=5):
    results = await results_of(rows, add, limit)
    failed = [result is False or isinstance(result, Exception) for result in results]
    return report_of([repr(r) if f else None for r, f in zip(results, failed)])
""",
        "cancelled-is-saved",
    ),
    (
        "a cancelled row ends the import",
        """
async def uncaught(add, row):
    try:
        return None if await add(row) else "is there already"
    except (RowRefused, TimeoutError) as error:
        return repr(error)

async def import_rows(rows, add, limit=5):
    return report_of(await asyncio.gather(*(uncaught(add, row) for row in rows)))
""",
        "cancelled-ends-all",
    ),
    (
        "a cancelled row ends its task in a TaskGroup",
        """
async def import_rows(rows, add, limit=5):
    semaphore = asyncio.Semaphore(limit)
    report = {"saved": [], "failed": {}}

    async def one(number, row):
        async with semaphore:
            try:
                if await add(row):
                    report["saved"].append(number)
                else:
                    report["failed"][number] = "is there already"
            except (RowRefused, TimeoutError) as error:
                report["failed"][number] = repr(error)

    async with asyncio.TaskGroup() as group:
        for number, row in enumerate(rows):
            group.create_task(one(number, row))
    return report
""",
        "cancelled-is-nowhere",
    ),
    (
        "the same in an AnyIO task group, with a guard that raises each time",
        """
async def import_rows(rows, add, limit=5):
    report = {"saved": [], "failed": {}}
    limiter = anyio.CapacityLimiter(limit)

    async def one(number, row):
        async with limiter:
            try:
                reason = None if await add(row) else "is there already"
            except asyncio.CancelledError:
                raise
            except (RowRefused, TimeoutError) as error:
                reason = repr(error)
            if reason:
                report["failed"][number] = reason
            else:
                report["saved"].append(number)

    async with anyio.create_task_group() as group:
        for number, row in enumerate(rows):
            group.start_soon(one, number, row)
    return report
""",
        "cancelled-is-nowhere",
    ),
    (
        "nothing caught",
        """
async def import_rows(rows, add, limit=5):
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
        return None if await add(row) else "is there already"
    except RowRefused as error:
        return repr(error)
    except asyncio.CancelledError as error:
        if stopping():
            raise
        return repr(error)

async def import_rows(rows, add, limit=5):
    return await grouped(rows, add, limit, impatient)
""",
        "first-failure-ends-it",
    ),
    (
        "reasons by str",
        """
async def import_rows(rows, add, limit=5):
    results = await results_of(rows, add, limit)
    return report_of([None if result is True else str(result) for result in results])
""",
        "reason-without-words",
    ),
    (
        "no reason for a row that is there already",
        """
async def import_rows(rows, add, limit=5):
    report = await grouped(rows, add, limit)
    for number, reason in report["failed"].items():
        if "already" in reason:
            report["failed"][number] = None
    return report
""",
        "reason-without-words",
    ),
    (
        "the same words for each reason",
        """
async def import_rows(rows, add, limit=5):
    report = await grouped(rows, add, limit)
    return {**report, "failed": dict.fromkeys(report["failed"], "failed")}
""",
        "reason-lost",
    ),
    (
        "the first refusal's reason for each",
        """
async def import_rows(rows, add, limit=5):
    report = await grouped(rows, add, limit)
    first = next(iter(report["failed"].values()), "")
    return {**report, "failed": dict.fromkeys(report["failed"], first)}
""",
        "reason-lost",
    ),
    (
        "only the type of the error",
        """
async def typed(add, row):
    reason = await reason_of(add, row)
    return reason and reason.partition("(")[0]

async def import_rows(rows, add, limit=5):
    return await grouped(rows, add, limit, typed)
""",
        "reason-lost",
    ),
    (
        "gather with return_exceptions, and repr of everything",
        """
async def import_rows(rows, add, limit=5):
    results = await results_of(rows, add, limit)
    return report_of([None if result is True else repr(result) for result in results])
""",
        "hides-a-bug",
    ),
    *(
        (
            f"{kind} caught beside what is expected",
            f"""
async def wide(add, row):
    try:
        return await reason_of(add, row)
    except {kind} as error:
        return repr(error)

async def import_rows(rows, add, limit=5):
    return await grouped(rows, add, limit, wide)
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
        return await reason_of(add, row)
    except (TypeError, ValueError, LookupError, OSError, RuntimeError, AttributeError):
        raise
    except Exception as error:
        return repr(error)

async def import_rows(rows, add, limit=5):
    return await grouped(rows, add, limit, listed)
""",
        "hides-a-bug",
    ),
    (
        "one row after another",
        """
async def import_rows(rows, add, limit=5):
    return report_of([await reason_of(add, row) for row in rows])
""",
        "one-by-one",
    ),
    (
        "the limit ignored",
        """
async def import_rows(rows, add, limit=5):
    return await grouped(rows, add, len(rows) or 1)
""",
        "over-the-limit",
    ),
    (
        "a semaphore for each row",
        """
async def import_rows(rows, add, limit=5):
    async def alone(add, row):
        async with asyncio.Semaphore(limit):
            return await reason_of(add, row)

    return await grouped(rows, add, 1_000, alone)
""",
        "over-the-limit",
    ),
    (
        "one more than the limit",
        """
async def import_rows(rows, add, limit=5):
    return await grouped(rows, add, limit + 1)
""",
        "over-the-limit",
    ),
    (
        "the stub's default written into the code",
        """
async def import_rows(rows, add, limit=5):
    return await grouped(rows, add, 5)
""",
        "over-the-limit",
    ),
    (
        "the check's own limit written into the code",
        """
async def import_rows(rows, add, limit=5):
    return await grouped(rows, add, 4)
""",
        "over-the-limit",
    ),
    (
        "two at a time, whatever the limit",
        """
async def import_rows(rows, add, limit=5):
    return await grouped(rows, add, 2)
""",
        "own-limit",
    ),
    (
        "half the limit, to be careful",
        """
async def import_rows(rows, add, limit=5):
    return await grouped(rows, add, max(2, limit // 2))
""",
        "own-limit",
    ),
    (
        "a second try for whatever failed",
        """
async def twice(add, row):
    return await reason_of(add, row) and await reason_of(add, row)

async def import_rows(rows, add, limit=5):
    return await grouped(rows, add, limit, twice)
""",
        "row-added-twice",
    ),
    (
        "a second try after a TimeoutError",
        """
async def again(add, row):
    reason = await reason_of(add, row)
    return await reason_of(add, row) if "Timeout" in str(reason) else reason

async def import_rows(rows, add, limit=5):
    return await grouped(rows, add, limit, again)
""",
        "row-added-twice",
    ),
    (
        "counted from 1",
        """
async def import_rows(rows, add, limit=5):
    report = await grouped(rows, add, limit)
    return {
        "saved": [number + 1 for number in report["saved"]],
        "failed": {number + 1: reason for number, reason in report["failed"].items()},
    }
""",
        "row-missing",
    ),
    (
        "the last rows left out",
        """
async def import_rows(rows, add, limit=5):
    return await grouped(rows[: len(rows) // limit * limit], add, limit)
""",
        "row-missing",
    ),
    (
        "rows saved before the refusal only",
        """
async def import_rows(rows, add, limit=5):
    report = await grouped(rows, add, limit)
    first = min(report["failed"], default=len(rows))
    return {**report, "saved": [number for number in report["saved"] if number < first]}
""",
        "row-missing",
    ),
    (
        "a deadline of its own for each row",
        """
async def hurried(add, row):
    try:
        async with asyncio.timeout(0):
            return await reason_of(add, row)
    except TimeoutError:
        return "too slow"

async def import_rows(rows, add, limit=5):
    return await grouped(rows, add, limit, hurried)
""",
        "row-missing",
    ),
    (
        "failures as a list",
        """
async def import_rows(rows, add, limit=5):
    report = await grouped(rows, add, limit)
    return {**report, "failed": list(report["failed"].items())}
""",
        "wrong-report",
    ),
    (
        "another key",
        """
async def import_rows(rows, add, limit=5):
    report = await grouped(rows, add, limit)
    return {"ok": report["saved"], "failed": report["failed"]}
""",
        "wrong-report",
    ),
    (
        "exceptions in place of words",
        """
async def kept(add, row):
    try:
        return await reason_of(add, row) and ValueError(await reason_of(add, row))
    except RowRefused as error:
        return error

async def import_rows(rows, add, limit=5):
    results = await results_of(rows, add, limit)
    return report_of([None if r is True else r or "is there already" for r in results])
""",
        "wrong-report",
    ),
    (
        "nothing returned",
        """
async def import_rows(rows, add, limit=5):
    await grouped(rows, add, limit)
""",
        "wrong-report",
    ),
    (
        "asyncio.wait of no tasks",
        """
async def import_rows(rows, add, limit=5):
    semaphore = asyncio.Semaphore(limit)

    async def one(row):
        async with semaphore:
            return await reason_of(add, row)

    tasks = [asyncio.create_task(one(row)) for row in rows]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return report_of([task.result() for task in tasks])
""",
        "no-rows",
    ),
    (
        "a report in place of the import's own cancellation",
        """
async def import_rows(rows, add, limit=5):
    work = asyncio.create_task(grouped(rows, add, limit))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        work.cancel()
        await asyncio.wait([work])
        return report_of([])
""",
        "survives-cancellation",
    ),
    (
        "workers without the guard, which take the next row",
        """
async def import_rows(rows, add, limit=5):
    numbered = iter(enumerate(rows))
    reasons = [None] * len(rows)

    async def work():
        for number, row in numbered:
            try:
                reasons[number] = None if await add(row) else "is there already"
            except (RowRefused, TimeoutError, asyncio.CancelledError) as error:
                reasons[number] = repr(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(limit):
            group.create_task(work())
    return report_of(reasons)
""",
        "survives-cancellation",
    ),
    (
        "tasks that outlive the import's cancellation",
        """
async def import_rows(rows, add, limit=5):
    semaphore = asyncio.Semaphore(limit)

    async def one(row):
        async with semaphore:
            return await reason_of(add, row)

    tasks = [asyncio.create_task(one(row)) for row in rows]
    if tasks:
        await asyncio.wait(tasks)
    return report_of([task.result() for task in tasks])
""",
        "left-running",
    ),
    (
        "tasks that outlive a bug",
        """
async def import_rows(rows, add, limit=5):
    semaphore = asyncio.Semaphore(limit)

    async def one(row):
        async with semaphore:
            reason = await reason_of(add, row)
            await asyncio.sleep(0.05)
            return reason

    return report_of(await asyncio.gather(*map(one, rows)))
""",
        "left-running",
    ),
    (
        "nothing written",
        """
async def import_rows(rows, add, limit=5):
    raise NotImplementedError
""",
        "not-written",
    ),
    (
        "def in place of async def",
        """
def import_rows(rows, add, limit=5):
    return {"saved": [], "failed": {}}
""",
        "not-async",
    ),
    (
        "add not awaited",
        """
async def import_rows(rows, add, limit=5):
    return report_of([None if add(row) else "is there already" for row in rows])
""",
        "forgotten-await",
    ),
    ("a coroutine in place of the function", "import_rows = None", "wrong-type"),
    (
        "time.sleep between rows",
        """
async def import_rows(rows, add, limit=5):
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
    assert verdict.message.endswith("(row 12 is nowhere; add returned True for it)")


async def test_what_never_ends_is_stopped() -> None:
    async def waits_for_ever(rows: Any, add: Any, limit: int) -> Any:
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    verdict = await check_import(waits_for_ever, limit=0.2)
    assert verdict.mistake == "never-ends"
    assert asyncio.all_tasks() == before


async def test_a_task_left_running_behind_a_bug_is_named(function_of) -> None:
    right = function_of(RIGHT[0][1])
    kept = []

    async def left(rows: Any, add: Any, limit: int) -> Any:
        async def lingering() -> None:
            await asyncio.Event().wait()

        kept.append(asyncio.create_task(lingering()))
        return await right(rows, add, limit)

    verdict = await check_import(left)
    assert verdict.mistake == "left-running"
    assert "lingering" in verdict.message
    assert all(task.done() for task in kept)


async def test_the_limits_are_the_checks_own(function_of) -> None:
    right = function_of(RIGHT[0][1])
    asked = set()

    async def noted(rows: Any, add: Any, limit: int) -> Any:
        asked.add(limit)
        return await right(rows, add, limit)

    assert (await check_import(noted)).passed
    assert asked == {LIMIT, *OTHER_LIMITS}
