"""The exercise of lesson 03: import rows, tell which failed and why, and hide no bug."""

import asyncio
import functools
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from support.exercises.checking import check, require_function
from support.exercises.error_text import leaves, tell
from support.exercises.sandbox import Ran, Sandbox, blame, require_awaitable
from support.exercises.verdicts import Exercise, Mistake, Verdict
from support.lab.units import ms

LIMIT = 4
OTHER_LIMITS = (2, 7)
ROUND_TRIP = 10  # milliseconds
PATIENCE = 2_500  # milliseconds that a cancelled import gets to end
FILLING = 500  # milliseconds in which as many rows as the limit allows are to be under way

EXERCISE = Exercise(
    lesson="03",
    check="check_import",
    stub="false-is-saved",
    task="Import rows within a limit; report each failed row with its reason, and hide no bug.",
    usual_wrong_prediction=(
        "That return_exceptions=True makes gather faster or slower, or that a report made from it "
        "is complete: it counts cancelled and refused letters as sent, and bugs as refused ones."
    ),
    mistakes=(
        Mistake(
            "false-is-saved",
            "counts whatever is no exception as saved, as the stub does",
            "A row that was there already counts as saved: add returned False for it. Ask for "
            "True; everything else is a failure with a reason.",
        ),
        Mistake(
            "cancelled-is-saved",
            "asks isinstance(result, Exception), which a CancelledError is not",
            "A row that was cancelled from inside counts as saved: CancelledError is a "
            "BaseException and no Exception.",
        ),
        Mistake(
            "cancelled-ends-all",
            "lets the CancelledError of one row out, in place of a report",
            "One row was cancelled from inside, and the whole import ended. Catch CancelledError "
            "around add, and raise it again only if current_task().cancelling() says that the "
            "import itself was told to stop.",
        ),
        Mistake(
            "cancelled-is-nowhere",
            "lets the CancelledError of one row end its task in a TaskGroup, which says nothing",
            "What a row waited for was cancelled from inside, and the row is in neither part of "
            "the report: CancelledError ended its task, and a TaskGroup takes a cancelled task for "
            "one that has ended. Catch CancelledError around add and note a reason; raise it again "
            "only if current_task().cancelling() says that the import itself was told to stop.",
        ),
        Mistake(
            "first-failure-ends-it",
            "lets RowRefused or TimeoutError out",
            "One bad row ended the import, and nobody learns what became of the others. Catch "
            "what you expect around add, one row at a time.",
        ),
        Mistake(
            "reason-without-words",
            "keeps str(error), which is empty for a TimeoutError and a CancelledError",
            "A reason is empty: str of a TimeoutError or a CancelledError has no words. repr "
            "begins with the type.",
        ),
        Mistake(
            "reason-lost",
            "keeps a reason of its own in place of the row's",
            "The reason of a refused row does not say why it was refused. Keep what the error "
            "says.",
        ),
        Mistake(
            "hides-a-bug",
            "catches Exception, or gathers with return_exceptions=True",
            "A bug became a failed row: add raised an error that no bad row causes, and your "
            "import returned as if nothing had happened. In production nobody would look at it. "
            "Catch by name the errors that you expect, RowRefused and TimeoutError, and no wider "
            "class.",
        ),
        Mistake(
            "one-by-one",
            "awaits each row in a loop",
            "The report is right, and the rows take turns: one at a time. Let several wait "
            "together, up to the limit.",
        ),
        Mistake(
            "over-the-limit",
            "starts all rows at once, or ignores limit",
            "More rows were under way at once than the limit allows. Hold a semaphore or a "
            "CapacityLimiter(limit) around each add.",
        ),
        Mistake(
            "own-limit",
            "writes a number of its own where limit belongs, or fewer than limit",
            "Fewer rows were under way at once than the limit allows: the number of connections is "
            "the caller's to choose. Use limit, and no number of your own.",
        ),
        Mistake(
            "row-added-twice",
            "calls add again for a row, as a retry does",
            "A row was given to add more than once. A second try needs to know that the first had "
            "no effect; here nobody knows it.",
        ),
        Mistake(
            "row-missing",
            "leaves rows out of the report, or counts from 1",
            "Each row belongs to saved or to failed, by its number from 0.",
        ),
        Mistake(
            "wrong-report",
            "returns another shape",
            'The report is to look like {"saved": [0, 2], "failed": {1: "its reason"}}.',
        ),
        Mistake(
            "no-rows",
            "calls asyncio.wait, max or next on nothing when there are no rows",
            "An import without rows is to return an empty report. A file with a heading and "
            "nothing below it comes in some day.",
        ),
        Mistake(
            "survives-cancellation",
            "catches CancelledError and goes on, also when the import itself is cancelled",
            "The import was told to stop and went on, or returned a report. A CancelledError that "
            "is meant for you must go on: current_task().cancelling() is above 0 then.",
        ),
    ),
)

# What the rows of the first run do, in order.
ADDED, REFUSED, KNOWN, BUSY, CANCELLED, BROKEN, WAITING, GATED = (
    "added",
    "refused",
    "known",
    "busy",
    "cancelled",
    "broken",
    "waiting",
    "gated",
)
MIXED = (ADDED, REFUSED, ADDED, KNOWN, ADDED, BUSY, ADDED, CANCELLED, REFUSED, *[ADDED] * 4)
WITH_A_BUG = (ADDED, ADDED, BROKEN, ADDED)
TOLD = {
    ADDED: "add returned True for it",
    KNOWN: "add returned False for it",
    REFUSED: "add raised RowRefused for it",
    BUSY: "add raised TimeoutError for it",
    CANCELLED: "what it waited for was cancelled",
}


class RowRefused(Exception):
    """The shop does not take this row; the message says why."""


def _bugs() -> list[Exception]:
    """Return errors that no row causes: of common kinds, and of one that nobody has heard of."""
    words = "the stockroom's code has a bug"
    unheard_of = type(f"Stockroom{secrets.token_hex(3).title()}Error", (Exception,), {})
    kinds = (TypeError, ValueError, KeyError, OSError, RuntimeError, AttributeError, unheard_of)
    return [kind(words) for kind in kinds]


@dataclass(slots=True)
class _Stockroom:
    """Adds products, as the shop's database would, and counts how it is asked to.

    ``full`` is set once ``gate`` rows are under way; gated rows wait for that, or for ``FILLING``.
    """

    fates: Sequence[str]
    bug: Exception | None = None
    gate: int = 0
    calls: Counter[int] = field(default_factory=Counter)
    under_way: int = 0
    peak: int = 0
    full: asyncio.Event = field(default_factory=asyncio.Event)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "id": str(UUID(int=0x03_0000 + number)),
                "name": f"Product {number}",
                "price": -5 - number if fate == REFUSED else 100 + number,
            }
            for number, fate in enumerate(self.fates)
        ]

    async def add(self, row: dict[str, Any]) -> bool:
        number = UUID(row["id"]).int - 0x03_0000
        self.calls[number] += 1
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        if self.under_way >= self.gate:
            self.full.set()
        try:
            return await self._add(row, self.fates[number])
        finally:
            self.under_way -= 1

    async def _add(self, row: dict[str, Any], fate: str) -> bool:
        if row["price"] < 0:
            raise RowRefused(f"price is {row['price']}")
        match fate:
            case "busy":
                async with asyncio.timeout(ms(ROUND_TRIP)):
                    await asyncio.Event().wait()
            case "cancelled":
                connection = asyncio.ensure_future(asyncio.Event().wait())
                asyncio.get_running_loop().call_later(ms(ROUND_TRIP), connection.cancel)
                await connection
            case "broken" if self.bug is not None:
                raise self.bug
            case "waiting":
                await asyncio.Event().wait()
            case "gated":
                with suppress(TimeoutError):
                    async with asyncio.timeout(ms(FILLING)):
                        await self.full.wait()
        await asyncio.sleep(ms(ROUND_TRIP))
        return fate != KNOWN


async def check_import(import_rows: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's ``import_rows`` of lesson 03, show one line, and return the verdict.

    It is called as ``await import_rows(rows, add, limit=4)`` with rows as dicts and with an
    ``add`` of the check's own, and passes if

    - it returns ``{"saved": [numbers], "failed": {number: reason}}``, with every row in one of the
      two, each refused row's own reason, and no reason empty;
    - as many rows are under way at once as its ``limit`` says, whatever it says, and each is added
      once;
    - an error that no row causes reaches the caller, by itself or in an ExceptionGroup;
    - without rows it returns an empty report;
    - it ends as cancelled when it is cancelled, adds nothing more and leaves nothing running.

    ``limit`` of the check is how long the function may take in all, in seconds; unless given, as
    :func:`support.exercises.checking.check` has it.
    """
    return await check(functools.partial(_judge, import_rows=import_rows), limit=limit)


async def _judge(sandbox: Sandbox, *, import_rows: Any) -> str:
    act = require_function(import_rows, example="check_import(import_rows)")
    await _judge_report(sandbox, act)
    for limit in OTHER_LIMITS:
        await _judge_limit(sandbox, act, limit)
    for bug in _bugs():
        await _judge_bug(sandbox, act, bug)
    await _judge_no_rows(sandbox, act)
    await _judge_cancellation(sandbox, act)
    return (
        "Every row has an outcome and every failure a reason, within the limit; a bug reaches the "
        "caller, and a cancellation too."
    )


def _call(act: Callable[..., Any], stockroom: _Stockroom, limit: int = LIMIT) -> Any:
    return act(stockroom.rows(), stockroom.add, limit=limit)


async def _judge_report(sandbox: Sandbox, act: Callable[..., Any]) -> None:
    stockroom = _Stockroom(MIXED)
    ran = await sandbox.run(lambda: _call(act, stockroom))
    _judge_error(ran)
    saved, failed = _parts(ran.result())
    _judge_numbers(saved, failed)
    _judge_successes(saved)
    _judge_reasons(failed, stockroom)
    if twice := [number for number, times in stockroom.calls.items() if times > 1]:
        raise EXERCISE.wrong("row-added-twice", f"row {min(twice)}")
    if stockroom.peak > LIMIT:
        raise EXERCISE.wrong("over-the-limit", f"{stockroom.peak} at once, limit {LIMIT}")
    if stockroom.peak == 1:
        raise EXERCISE.wrong("one-by-one")


def _judge_reasons(failed: dict[int, Any], stockroom: _Stockroom) -> None:
    for number, reason in failed.items():
        if reason is None or not str(reason).strip():
            raise EXERCISE.wrong("reason-without-words", f"row {number}: {reason!r}")
        if not isinstance(reason, str):
            told = f"the reason of row {number} is no text but {type(reason).__name__}"
            raise EXERCISE.wrong("wrong-report", told)
    for number, row in enumerate(stockroom.rows()):
        if MIXED[number] == REFUSED and f"price is {row['price']}" not in failed[number]:
            raise EXERCISE.wrong("reason-lost", f"row {number}: {failed[number]!r}")


def _judge_error(ran: Ran[Any]) -> None:
    if ran.error is None:
        return
    kinds = [type(leaf) for leaf in leaves(ran.error)]
    if RowRefused in kinds or TimeoutError in kinds:
        raise EXERCISE.wrong("first-failure-ends-it", f"it raised {kinds[0].__name__}")
    if asyncio.CancelledError in kinds:
        raise EXERCISE.wrong("cancelled-ends-all")
    raise blame(ran.error)


def _parts(report: Any) -> tuple[list[int], dict[int, Any]]:
    if report is None:
        raise EXERCISE.wrong("wrong-report", "import_rows returned None")
    if not isinstance(report, dict):
        raise EXERCISE.wrong("wrong-report", f"it is no dict but {type(report).__name__}")
    if report.keys() != {"saved", "failed"}:
        raise EXERCISE.wrong("wrong-report", f"its keys are {', '.join(map(str, report))}")
    saved, failed = report["saved"], report["failed"]
    if not isinstance(failed, dict):
        raise EXERCISE.wrong("wrong-report", f"failed is no dict but {type(failed).__name__}")
    if not isinstance(saved, list | tuple | set):
        raise EXERCISE.wrong("wrong-report", f"saved is no list but {type(saved).__name__}")
    return list(saved), failed


def _judge_numbers(saved: list[int], failed: dict[int, Any]) -> None:
    numbers = Counter([*saved, *failed])
    if extra := set(numbers) - set(range(len(MIXED))):
        raise EXERCISE.wrong("row-missing", f"there is no row {min(map(str, extra))}")
    if not numbers[cancelled := MIXED.index(CANCELLED)]:
        others = sum(not numbers[number] for number in range(len(MIXED))) - 1
        more = f" and {others} more that were cancelled with it" if others else ""
        raise EXERCISE.wrong("cancelled-is-nowhere", f"row {cancelled}{more}")
    for number in range(len(MIXED)):
        if numbers[number] != 1:
            times = "twice" if numbers[number] else "nowhere"
            told = TOLD[MIXED[number]]
            raise EXERCISE.wrong("row-missing", f"row {number} is {times}; {told}")


def _judge_successes(saved: list[int]) -> None:
    if MIXED.index(KNOWN) in saved:
        raise EXERCISE.wrong("false-is-saved", f"row {MIXED.index(KNOWN)}")
    if MIXED.index(CANCELLED) in saved:
        raise EXERCISE.wrong("cancelled-is-saved", f"row {MIXED.index(CANCELLED)}")
    for number, fate in enumerate(MIXED):
        if (fate == ADDED) is not (number in saved):
            part = "failed" if fate == ADDED else "saved"
            raise EXERCISE.wrong("row-missing", f"row {number} is in {part}; {TOLD[fate]}")


async def _judge_limit(sandbox: Sandbox, act: Callable[..., Any], limit: int) -> None:
    stockroom = _Stockroom([GATED] * (2 * limit), gate=limit)
    (await sandbox.run(lambda: _call(act, stockroom, limit))).result()
    told = f"{stockroom.peak} at once, limit {limit}"
    if stockroom.peak > limit:
        raise EXERCISE.wrong("over-the-limit", told)
    if stockroom.peak < limit:
        raise EXERCISE.wrong("own-limit", told)


async def _judge_bug(sandbox: Sandbox, act: Callable[..., Any], bug: Exception) -> None:
    stockroom = _Stockroom(WITH_A_BUG, bug=bug)
    ran = await sandbox.run(lambda: _call(act, stockroom))
    if ran.error is None:
        raise EXERCISE.wrong("hides-a-bug", f"{type(bug).__name__}: {bug}")
    if not any(leaf is bug for leaf in leaves(ran.error)):
        raise blame(ran.error)
    if ran.left:
        ran.error = None
        ran.result()


async def _judge_no_rows(sandbox: Sandbox, act: Callable[..., Any]) -> None:
    ran = await sandbox.run(lambda: _call(act, _Stockroom(())))
    if ran.error is not None:
        raise EXERCISE.wrong("no-rows", tell(ran.error))
    if any(map(len, _parts(ran.result()))):
        raise EXERCISE.wrong("no-rows", f"it returned {ran.value!r}")


async def _judge_cancellation(sandbox: Sandbox, act: Callable[..., Any]) -> None:
    stockroom = _Stockroom([WAITING] * (2 * LIMIT), gate=LIMIT)

    async def cancelled() -> str:
        importing = asyncio.ensure_future(require_awaitable(_call(act, stockroom)))
        await stockroom.full.wait()
        importing.cancel()
        asked = stockroom.calls.total()
        await asyncio.wait({importing}, timeout=ms(PATIENCE))
        if more := stockroom.calls.total() - asked:
            return f"it gave {more} more rows to add"
        return "" if importing.cancelled() else "it did not end as cancelled"

    if told := (await sandbox.run(cancelled)).result():
        raise EXERCISE.wrong("survives-cancellation", told)
