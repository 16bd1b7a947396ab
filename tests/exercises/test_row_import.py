"""The check of lesson 03, with right answers and wrong ones."""

import asyncio
from typing import Any

import anyio
import pytest

from support.exercises.row_import import EXERCISE, LIMIT, RowRefused, check_import

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy


def stopping() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def reason_of(add: Any, row: Any) -> str | None:
    try:
        return None if await add(row) else "there already"
    except (RowRefused, TimeoutError) as error:
        return repr(error)
    except asyncio.CancelledError:
        if stopping():
            raise
        return "cancelled"


def report_of(reasons: list[str | None]) -> dict[str, Any]:
    return {
        "saved": [number for number, reason in enumerate(reasons) if reason is None],
        "failed": {number: reason for number, reason in enumerate(reasons) if reason is not None},
    }


async def grouped(rows: Any, add: Any, limit: int = 5, reason: Any = reason_of) -> Any:
    limiter = anyio.CapacityLimiter(limit)

    async def one(row: Any) -> str | None:
        async with limiter:
            return await reason(add, row)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(row)) for row in rows]
    return report_of([task.result() for task in tasks])


async def worked_off(rows: Any, add: Any, limit: int = 5) -> Any:
    """A second style: as many workers as the limit, over one iterator."""
    numbered = iter(enumerate(rows))
    reasons: dict[int, str | None] = {}

    async def work() -> None:
        for number, row in numbered:
            reasons[number] = await reason_of(add, row)

    async with asyncio.TaskGroup() as group:
        for _ in range(limit):
            group.create_task(work())
    return report_of([reasons[number] for number in range(len(rows))])


@pytest.mark.parametrize("import_rows", [grouped, worked_off])
async def test_right_answers_pass(import_rows) -> None:
    verdict = await check_import(import_rows, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


async def results_of(rows: Any, add: Any, limit: int) -> list[Any]:
    semaphore = asyncio.Semaphore(limit)

    async def one(row: Any) -> Any:
        async with semaphore:
            return await add(row)

    return await asyncio.gather(*map(one, rows), return_exceptions=True)


def sorted_out(results: list[Any], told: Any = repr, saved: Any = lambda result: result is True):
    return report_of([None if saved(result) else told(result) for result in results])


async def the_cards(rows: Any, add: Any, limit: int) -> Any:
    results = await results_of(rows, add, limit)
    return sorted_out(results, saved=lambda result: not isinstance(result, Exception))


async def false_apart(rows: Any, add: Any, limit: int) -> Any:
    results = await results_of(rows, add, limit)
    return sorted_out(
        results, saved=lambda result: result is not False and not isinstance(result, Exception)
    )


async def told_with_str(rows: Any, add: Any, limit: int) -> Any:
    return sorted_out(await results_of(rows, add, limit), told=str)


async def cancelled_told_with_str(rows: Any, add: Any, limit: int) -> Any:
    results = await results_of(rows, add, limit)
    cancelled = asyncio.CancelledError
    return sorted_out(results, told=lambda one: str(one) if type(one) is cancelled else repr(one))


async def told_in_own_words(rows: Any, add: Any, limit: int) -> Any:
    return sorted_out(await results_of(rows, add, limit), told=lambda result: "failed")


async def repr_of_everything(rows: Any, add: Any, limit: int) -> Any:
    return sorted_out(await results_of(rows, add, limit))


async def no_limit(rows: Any, add: Any, limit: int) -> Any:
    return await grouped(rows, add, limit=len(rows))


async def in_a_loop(rows: Any, add: Any, limit: int) -> Any:
    return report_of([await reason_of(add, row) for row in rows])


async def nothing_caught(rows: Any, add: Any, limit: int) -> Any:
    async with asyncio.TaskGroup() as group:
        for row in rows:
            group.create_task(add(row))


async def cancellation_let_out(rows: Any, add: Any, limit: int) -> Any:
    results = []
    for row in rows:
        try:
            results.append(await add(row))
        except (RowRefused, TimeoutError) as error:
            results.append(error)
    return sorted_out(results)


async def tried_again(rows: Any, add: Any, limit: int) -> Any:
    async def twice(add: Any, row: Any) -> str | None:
        return await reason_of(add, row) and await reason_of(add, row)

    return await grouped(rows, add, limit, twice)


async def counted_from_one(rows: Any, add: Any, limit: int) -> Any:
    report = await grouped(rows, add, limit)
    return {
        "saved": [number + 1 for number in report["saved"]],
        "failed": {number + 1: reason for number, reason in report["failed"].items()},
    }


async def a_list_of_failures(rows: Any, add: Any, limit: int) -> Any:
    report = await grouped(rows, add, limit)
    return {**report, "failed": list(report["failed"].items())}


async def never_stops(rows: Any, add: Any, limit: int) -> Any:
    reasons: list[str | None] = []
    started: list[asyncio.Task[Any]] = [asyncio.create_task(grouped(rows, add, limit))]
    try:
        return await asyncio.shield(started[0])
    except asyncio.CancelledError:
        started[0].cancel()
        await asyncio.wait(started)
        return report_of(reasons)


@pytest.mark.parametrize(
    ("import_rows", "mistake"),
    [
        (the_cards, "false-is-saved"),
        (false_apart, "cancelled-is-saved"),
        (cancellation_let_out, "cancelled-ends-all"),
        (nothing_caught, "first-failure-ends-it"),
        (told_with_str, "reason-without-words"),
        (cancelled_told_with_str, "reason-without-words"),
        (told_in_own_words, "reason-lost"),
        (repr_of_everything, "hides-a-bug"),
        (in_a_loop, "one-by-one"),
        (no_limit, "over-the-limit"),
        (tried_again, "row-added-twice"),
        (counted_from_one, "row-missing"),
        (a_list_of_failures, "wrong-report"),
        (never_stops, "survives-cancellation"),
    ],
)
async def test_wrong_answers_get_their_hint(import_rows, mistake) -> None:
    verdict = await check_import(import_rows)
    assert (verdict.passed, verdict.mistake) == (False, mistake)
    hint = next(known.hint for known in EXERCISE.mistakes if known.name == mistake)
    assert verdict.message.startswith(hint)


async def unwritten(rows: Any, add: Any, limit: int) -> Any:
    raise NotImplementedError


async def returns_nothing(rows: Any, add: Any, limit: int) -> None:
    await grouped(rows, add, limit)


def not_async(rows: Any, add: Any, limit: int) -> Any:
    return {"saved": [], "failed": {}}


async def waits_for_ever(rows: Any, add: Any, limit: int) -> Any:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("import_rows", "mistake"),
    [
        (unwritten, "not-written"),
        (returns_nothing, "wrong-report"),
        (not_async, "not-async"),
        (None, "wrong-type"),
    ],
)
async def test_what_any_exercise_may_meet(import_rows, mistake) -> None:
    verdict = await check_import(import_rows)
    assert (verdict.passed, verdict.mistake) == (False, mistake)


async def test_what_never_ends_is_stopped() -> None:
    before = asyncio.all_tasks()
    verdict = await check_import(waits_for_ever, limit=0.2)
    assert verdict.mistake == "never-ends"
    assert asyncio.all_tasks() == before


async def test_a_task_left_running_behind_a_bug_is_named() -> None:
    kept = []

    async def left(rows: Any, add: Any, limit: int) -> Any:
        async def lingering() -> None:
            await asyncio.Event().wait()

        kept.append(asyncio.create_task(lingering()))
        return await grouped(rows, add, limit)

    verdict = await check_import(left)
    assert verdict.mistake == "left-running"
    assert all(task.done() for task in kept)


async def test_the_limit_is_the_checks_own() -> None:
    asked = []

    async def noted(rows: Any, add: Any, limit: int) -> Any:
        asked.append(limit)
        return await grouped(rows, add, limit)

    assert (await check_import(noted)).passed
    assert set(asked) == {LIMIT}
