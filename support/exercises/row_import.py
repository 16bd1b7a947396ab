"""The exercise of lesson 03: import rows, tell which failed and why, and hide no bug."""

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from support.exercises.checking import check, require_function
from support.exercises.error_text import leaves
from support.exercises.lending import lent_shop
from support.exercises.sandbox import Ran, Sandbox, blame, require_awaitable
from support.exercises.verdicts import Exercise, Mistake, Verdict
from support.lab.units import ms
from support.shop.models import Product

LIMIT = 4
ROUND_TRIP = 10  # milliseconds
PATIENCE = 2_500  # milliseconds that a cancelled import gets to end

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
            "import returned as if nothing had happened. Catch by name the errors that you expect, "
            "and no Exception at large.",
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
            "survives-cancellation",
            "catches CancelledError and goes on, also when the import itself is cancelled",
            "The import was told to stop and went on, or returned a report. A CancelledError that "
            "is meant for you must go on: current_task().cancelling() is above 0 then.",
        ),
    ),
)

# What the rows of the first run do, in order.
ADDED, REFUSED, KNOWN, BUSY, CANCELLED, BROKEN, WAITING = (
    "added",
    "refused",
    "known",
    "busy",
    "cancelled",
    "broken",
    "waiting",
)
MIXED = (ADDED, REFUSED, ADDED, KNOWN, ADDED, BUSY, ADDED, CANCELLED, *[ADDED] * 4)
WITH_A_BUG = (ADDED, ADDED, BROKEN, ADDED)
REASON = "price is -5"

Sessions = async_sessionmaker[AsyncSession]


class RowRefused(Exception):
    """The shop does not take this row; the message says why."""


class _BrokenStockroomError(TypeError):
    """Stands for a bug: no row causes it."""


@dataclass(slots=True)
class _Stockroom:
    """Adds products to the shop's database, and counts how it is asked to."""

    sessions: Sessions
    fates: Sequence[str]
    calls: Counter[int] = field(default_factory=Counter)
    under_way: int = 0
    peak: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "id": str(UUID(int=0x03_0000 + number)),
                "name": f"Product {number}",
                "price": -5 if fate == REFUSED else 100 + number,
            }
            for number, fate in enumerate(self.fates)
        ]

    async def prepare(self) -> None:
        """Add the products that are to be there already."""
        rows = self.rows()
        for number, fate in enumerate(self.fates):
            if fate == KNOWN:
                await self._insert(rows[number])

    async def add(self, row: dict[str, Any]) -> bool:
        number = UUID(row["id"]).int - 0x03_0000
        self.calls[number] += 1
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        self.asked.set()
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
            case "broken":
                raise _BrokenStockroomError("the stockroom's code has a bug")
            case "waiting":
                await asyncio.Event().wait()
        return await self._insert(row)

    async def _insert(self, row: dict[str, Any]) -> bool:
        values = {"id": UUID(row["id"]), "name": row["name"], "price": row["price"]}
        statement = insert(Product).values(stock=0, featured=False, **values)
        statement = statement.on_conflict_do_nothing().returning(Product.id)
        async with self.sessions.begin() as session:
            return (await session.scalar(statement)) is not None


async def check_import(import_rows: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's ``import_rows`` of lesson 03, show one line, and return the verdict.

    It is called as ``await import_rows(rows, add, limit=4)`` with rows as dicts and with the
    ``add`` of a shop of the check's own, and passes if

    - it returns ``{"saved": [numbers], "failed": {number: reason}}``, with every row in one of the
      two, each refused row's own reason, and no reason empty;
    - several rows are under way at once, never more than its ``limit``, and each is added once;
    - an error that no row causes reaches the caller, by itself or in an ExceptionGroup;
    - it ends as cancelled when it is cancelled, and leaves nothing running.

    ``limit`` of the check is how long the function may take in all, in seconds; 15 unless given.
    """
    return await check(functools.partial(_judge, import_rows=import_rows), limit=limit)


async def _judge(sandbox: Sandbox, *, import_rows: Any) -> str:
    act = require_function(import_rows, example="check_import(import_rows)")
    async with lent_shop(sandbox, name="exercise 03", users=1, products=1) as (_, sessions):
        await _judge_report(sandbox, act, sessions)
        await _judge_bug(sandbox, act, sessions)
        await _judge_cancellation(sandbox, act, sessions)
    return (
        "Every row has an outcome and every failure a reason, within the limit; a bug reaches the "
        "caller, and a cancellation too."
    )


def _call(act: Callable[..., Any], stockroom: _Stockroom) -> Any:
    return act(stockroom.rows(), stockroom.add, limit=LIMIT)


async def _judge_report(sandbox: Sandbox, act: Callable[..., Any], sessions: Sessions) -> None:
    stockroom = _Stockroom(sessions, MIXED)
    await stockroom.prepare()
    ran = await sandbox.run(lambda: _call(act, stockroom))
    _judge_error(ran)
    saved, failed = _parts(ran.result())
    _judge_numbers(saved, failed)
    _judge_successes(saved)
    if wordless := [number for number, reason in failed.items() if not str(reason).strip()]:
        raise EXERCISE.wrong("reason-without-words", f"row {min(wordless)}")
    refused = MIXED.index(REFUSED)
    if REASON not in str(failed[refused]):
        raise EXERCISE.wrong("reason-lost", f"row {refused}: {failed[refused]!r}")
    if twice := [number for number, times in stockroom.calls.items() if times > 1]:
        raise EXERCISE.wrong("row-added-twice", f"row {min(twice)}")
    if stockroom.peak > LIMIT:
        raise EXERCISE.wrong("over-the-limit", f"{stockroom.peak} at once, limit {LIMIT}")
    if stockroom.peak == 1:
        raise EXERCISE.wrong("one-by-one")


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
    for number in range(len(MIXED)):
        if numbers[number] != 1:
            times = "twice" if numbers[number] else "nowhere"
            raise EXERCISE.wrong("row-missing", f"row {number} is {times}")


def _judge_successes(saved: list[int]) -> None:
    if MIXED.index(KNOWN) in saved:
        raise EXERCISE.wrong("false-is-saved", f"row {MIXED.index(KNOWN)}")
    if MIXED.index(CANCELLED) in saved:
        raise EXERCISE.wrong("cancelled-is-saved", f"row {MIXED.index(CANCELLED)}")
    for number, fate in enumerate(MIXED):
        if (fate == ADDED) is not (number in saved):
            told = "failed" if fate == ADDED else "saved"
            raise EXERCISE.wrong("row-missing", f"row {number} is in {told}")


async def _judge_bug(sandbox: Sandbox, act: Callable[..., Any], sessions: Sessions) -> None:
    stockroom = _Stockroom(sessions, WITH_A_BUG)
    ran = await sandbox.run(lambda: _call(act, stockroom))
    if ran.error is None:
        raise EXERCISE.wrong("hides-a-bug", "it was a TypeError")
    if not any(isinstance(leaf, _BrokenStockroomError) for leaf in leaves(ran.error)):
        raise blame(ran.error)
    if ran.left:
        ran.error = None
        ran.result()


async def _judge_cancellation(
    sandbox: Sandbox, act: Callable[..., Any], sessions: Sessions
) -> None:
    stockroom = _Stockroom(sessions, [WAITING] * (2 * LIMIT))

    async def cancelled() -> bool:
        importing = asyncio.ensure_future(require_awaitable(_call(act, stockroom)))
        await stockroom.asked.wait()
        importing.cancel()
        await asyncio.wait({importing}, timeout=ms(PATIENCE))
        return importing.cancelled()

    ran = await sandbox.run(cancelled)
    if not ran.result():
        raise EXERCISE.wrong("survives-cancellation")
