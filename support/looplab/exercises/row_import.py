"""The exercise of lesson 03: import rows, keep what became of each, and stop at a bug."""

import asyncio
import functools
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from looplab.exercises.checking import check, require_function
from looplab.exercises.error_text import leaves, tell
from looplab.exercises.sandbox import Ran, Sandbox, blame, require_awaitable
from looplab.exercises.verdicts import Exercise, Mistake, Verdict
from looplab.lab.units import ms

LIMIT = 4
OTHER_LIMITS = (2, 7)
ROUND_TRIP = 10  # milliseconds
PATIENCE = 2_500  # milliseconds that a cancelled import gets to end
FILLING = 500  # milliseconds in which as many rows as the limit allows are to be under way

EXERCISE = Exercise(
    lesson="03",
    check="check_import",
    stub="false-is-saved",
    task=(
        "Import rows within a limit, keep what became of each as soon as it ends, and stop at a "
        "bug without cutting off the rows under way."
    ),
    usual_wrong_prediction=(
        "Some add up the slow addresses, or all of them, as the loop would. Others think that a "
        "failure ends the wait: with return_exceptions=True gather waits for every child."
    ),
    mistakes=(
        Mistake(
            "false-is-saved",
            "counts every row as saved that raised nothing, as the stub does",
            "A row that was there already counts as saved, though add returned False for it. Ask "
            "for True. Everything else is a failure, with a reason.",
        ),
        Mistake(
            "cancelled-is-saved",
            "asks isinstance(result, Exception), which a CancelledError is not",
            "A row counts as saved, though what it waited for was cancelled. CancelledError is a "
            "BaseException and no Exception, so ask for the success instead.",
        ),
        Mistake(
            "cancelled-ends-all",
            "lets the CancelledError of one row out of gather, or into an AnyIO task group",
            "What one row waited for was cancelled, and its CancelledError ended other rows too. "
            "Nobody had told the import to stop. gather(..., return_exceptions=True) lets the "
            "other rows go on, and this one stays unknown.",
        ),
        Mistake(
            "cancelled-is-nowhere",
            "keeps rows only after they have ended, and one was cancelled from inside",
            "What one row waited for was cancelled, so your code after add never ran, and the book "
            'says nothing about that row. Keep "unknown" before you add it: then the book is '
            "right whatever happens.",
        ),
        Mistake(
            "first-failure-ends-it",
            "lets RowRefused or TimeoutError out",
            "One bad row ended the import, and the rows after it never had a chance. Catch the "
            "errors that you expect around add, for each row by itself.",
        ),
        Mistake(
            "reason-without-words",
            "keeps str(error), which is empty for a TimeoutError",
            "A reason is empty. str of a TimeoutError has no words; its repr begins with the type.",
        ),
        Mistake(
            "reason-lost",
            "keeps words of its own in place of the row's",
            "The book does not say why a row was refused. Keep what its error says.",
        ),
        Mistake(
            "hides-a-bug",
            "catches Exception and never raises it, or gathers with return_exceptions=True and "
            "leaves it at that",
            "A bug became a failed row. add raised an error that no bad row causes, and your "
            "import returned as if nothing had happened, so nobody would look for it. Catch "
            "RowRefused and TimeoutError by name, and raise anything else in the end.",
        ),
        Mistake(
            "hides-the-books-error",
            "calls keep inside the try that catches what add raises, or drops what gather returns",
            "keep raised an error, and your import returned as if the row were in the book. That "
            "is a bug too, whatever the error is called. Call keep outside of the try that catches "
            "what add raises, and look at each result of gather.",
        ),
        Mistake(
            "bug-is-saved",
            "keeps saved for the row whose add raised a bug",
            "The row with the bug counts as saved, and add never returned True for it.",
        ),
        Mistake(
            "cut-off-by-a-bug",
            "lets a TaskGroup or a cancel() of its own end the rows under way",
            "A bug came, and the rows that were under way were cut off. They may be in the "
            "database, and the book does not say so. A TaskGroup cancels its other tasks when one "
            "raises; let them end, keep them, and raise the bug after that.",
        ),
        Mistake(
            "goes-on-after-a-bug",
            "begins the remaining rows after a bug, as the lesson's letters do",
            "A row was begun after the bug. This import is to stop there: once a row has its slot, "
            "it has to find out whether a bug has come.",
        ),
        Mistake(
            "one-by-one",
            "awaits each row in a loop",
            "The book is right, but only one row is under way at a time. Let several of them wait "
            "together, up to the limit.",
        ),
        Mistake(
            "over-the-limit",
            "starts all rows at once, or ignores limit",
            "More rows were under way at once than the limit allows. Hold one of "
            "asyncio.Semaphore(limit) around each add.",
        ),
        Mistake(
            "own-limit",
            "writes a number of its own where limit belongs, or fewer than limit",
            "Fewer rows were under way at once than the limit allows. The caller knows how many "
            "connections there are: use limit, and no number of your own.",
        ),
        Mistake(
            "row-added-twice",
            "calls add again for a row, as a retry does",
            "A row was given to add more than once. A second try is safe only if the first had no "
            "effect, and here nobody knows.",
        ),
        Mistake(
            "row-missing",
            "leaves rows out of the book, or counts from 1",
            "Every row is to be kept under its number, counted from 0.",
        ),
        Mistake(
            "wrong-entry",
            "keeps something else than a number and a text",
            'An entry is a row\'s number and a text, as in keep(0, "saved").',
        ),
        Mistake(
            "added-before-unknown",
            "keeps a row only after add, or begins with something else than unknown",
            "A row was added before the book knew of it. If the process had died there, nobody "
            'could tell. Keep "unknown" first, then add.',
        ),
        Mistake(
            "kept-at-the-end",
            "collects the results and writes them when all rows have ended",
            "The import was cancelled, and rows that had been saved long before were still unknown "
            "in the book. Keep each row as soon as it has ended.",
        ),
        Mistake(
            "no-rows",
            "calls asyncio.wait, max or next on nothing when there are no rows",
            "Without rows there is nothing to do, and nothing to raise. A file with a heading and "
            "no row below it comes in some day.",
        ),
        Mistake(
            "survives-cancellation",
            "catches CancelledError and goes on when the import itself is cancelled",
            "The import was told to stop, and went on or returned. Let CancelledError out. If you "
            "catch it, raise it again at once.",
        ),
        Mistake(
            "keeps-after-the-stop",
            "catches a row's CancelledError and keeps a reason, also when the import is cancelled",
            "The import was cancelled, and it still wrote into the book about rows that had not "
            "ended. They are unknown, and the book says so already. A row that you don't catch "
            "CancelledError for stays as it is; if you do, current_task().cancelling() is above 0 "
            "when the row itself was told to stop, and then you raise it again.",
        ),
    ),
)

# What the rows do, in order.
ADDED, REFUSED, KNOWN, BUSY, CANCELLED, BROKEN, WAITING, GATED, SLOW = (
    "added",
    "refused",
    "known",
    "busy",
    "cancelled",
    "broken",
    "waiting",
    "gated",
    "slow",
)
MIXED = (ADDED, REFUSED, ADDED, KNOWN, ADDED, BUSY, ADDED, CANCELLED, REFUSED, *[ADDED] * 4)
WITH_A_BUG = (SLOW, BROKEN, SLOW, SLOW, *[ADDED] * LIMIT)
TO_BE_CANCELLED = (*[ADDED] * LIMIT, *[WAITING] * (2 * LIMIT))
TOLD = {
    ADDED: "add returned True for it",
    KNOWN: "add returned False for it",
    REFUSED: "add raised RowRefused for it",
    BUSY: "add raised TimeoutError for it",
    CANCELLED: "what it waited for was cancelled",
}
SAVED, UNKNOWN = "saved", "unknown"


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
    """Adds products, as the shop's database would, keeps the book, and notes what is asked of it.

    ``full`` is set once ``gate`` rows are under way; gated rows wait for that, or for ``FILLING``.
    The row with the bug waits as well, and slow rows wait until it has raised.
    """

    fates: Sequence[str]
    bug: Exception | None = None
    gate: int = 0
    lost: Exception | None = None
    """What ``keep`` raises, once, for the outcome of the first row."""
    calls: Counter[int] = field(default_factory=Counter)
    under_way: int = 0
    peak: int = 0
    waiting: int = 0
    full: asyncio.Event = field(default_factory=asyncio.Event)
    all_wait: asyncio.Event = field(default_factory=asyncio.Event)
    raised: asyncio.Event = field(default_factory=asyncio.Event)
    book: dict[Any, Any] = field(default_factory=dict)
    entries: list[tuple[Any, Any]] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    unbooked: list[int] = field(default_factory=list)
    begun_after: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "id": str(UUID(int=0x03_0000 + number)),
                "name": f"Product {number}",
                "price": -5 - number if fate == REFUSED else 100 + number,
            }
            for number, fate in enumerate(self.fates)
        ]

    async def keep(self, number: Any, text: Any) -> None:
        with suppress(TypeError):  # what is no number may not even be a key
            self._begin(number)
            self.book[number] = text
        self.entries.append((number, text))
        await asyncio.sleep(0)
        if self.lost is not None and number == 0 and text != UNKNOWN:
            lost, self.lost = self.lost, None
            raise lost

    async def add(self, row: dict[str, Any]) -> bool:
        number = UUID(row["id"]).int - 0x03_0000
        if self.book.get(number) != UNKNOWN:
            self.unbooked.append(number)
        self._begin(number)
        self.calls[number] += 1
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        if self.under_way >= self.gate:
            self.full.set()
        try:
            return await self._add(row, self.fates[number])
        except asyncio.CancelledError:
            if self.fates[number] != CANCELLED:
                self.cut.append(number)
            raise
        finally:
            self.under_way -= 1

    def _begin(self, number: Any) -> None:
        if number not in self.begun:
            self.begun.append(number)
            if self.raised.is_set():
                self.begun_after.append(number)

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
                await self._until(self.full)
                self.raised.set()
                raise self.bug
            case "slow":
                await self._until(self.raised)
            case "waiting":
                self.waiting += 1
                if self.waiting == LIMIT:
                    self.all_wait.set()
                await asyncio.Event().wait()
            case "gated":
                await self._until(self.full)
        await asyncio.sleep(ms(ROUND_TRIP))
        return fate != KNOWN

    async def _until(self, event: asyncio.Event) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(ms(FILLING)):
                await event.wait()


async def check_import(import_rows: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's ``import_rows`` of lesson 03, show one line, and return the verdict.

    It is called as ``await import_rows(rows, add, keep, limit=4)`` with rows as dicts and with an
    ``add`` and a ``keep`` of the check's own, and passes if

    - the last text kept of each row is ``"saved"`` if ``add`` returned True for it, and otherwise
      something else that is not empty, with each refused row's own reason;
    - ``"unknown"`` is kept of each row before it is added, and what became of it when it has ended;
    - as many rows are under way at once as its ``limit`` says, whatever it says, and each is added
      once;
    - it raises what ``keep`` raises;
    - after an error that no row causes it begins no row, lets those under way end and keeps them,
      and raises the error, by itself or in an ExceptionGroup;
    - without rows it returns;
    - it ends as cancelled when it is cancelled, adds and keeps nothing more, and leaves nothing
      running.

    ``limit`` of the check is how long the function may take in all, in seconds; unless given, as
    :func:`looplab.exercises.checking.check` has it.
    """
    return await check(functools.partial(_judge, import_rows=import_rows), limit=limit)


async def _judge(sandbox: Sandbox, *, import_rows: Any) -> str:
    act = require_function(import_rows, example="check_import(import_rows)")
    await _judge_book(sandbox, act)
    for limit in OTHER_LIMITS:
        await _judge_limit(sandbox, act, limit)
    for bug in _bugs():
        await _judge_bug(sandbox, act, bug)
    for lost in (ConnectionError("the book is away"), TimeoutError("the book is busy")):
        await _judge_lost_entry(sandbox, act, lost)
    await _judge_no_rows(sandbox, act)
    await _judge_cancellation(sandbox, act)
    return (
        "Every row is in the book as soon as it has ended, within the limit. A bug stops the "
        "import and reaches you, and cuts off nothing."
    )


def _call(act: Callable[..., Any], stockroom: _Stockroom, limit: int = LIMIT) -> Any:
    return act(stockroom.rows(), stockroom.add, stockroom.keep, limit=limit)


async def _judge_book(sandbox: Sandbox, act: Callable[..., Any]) -> None:
    stockroom = _Stockroom(MIXED)
    ran = await sandbox.run(lambda: _call(act, stockroom))
    _judge_error(ran)
    ran.result()
    for number, text in stockroom.book.items():
        if text == UNKNOWN and (number in stockroom.cut or not stockroom.calls[number]):
            raise EXERCISE.wrong("cancelled-ends-all", f"row {number} was cut off")
    _judge_entries(stockroom)
    _judge_successes(stockroom.book)
    _judge_reasons(stockroom)
    if twice := [number for number, times in stockroom.calls.items() if times > 1]:
        raise EXERCISE.wrong("row-added-twice", f"row {min(twice)}")
    if stockroom.peak > LIMIT:
        raise EXERCISE.wrong("over-the-limit", f"{stockroom.peak} at once, limit {LIMIT}")
    if stockroom.unbooked:
        raise EXERCISE.wrong("added-before-unknown", f"row {stockroom.unbooked[0]}")
    if stockroom.peak == 1:
        raise EXERCISE.wrong("one-by-one")


def _judge_error(ran: Ran[Any]) -> None:
    if ran.error is None:
        return
    kinds = [type(leaf) for leaf in leaves(ran.error)]
    if RowRefused in kinds or TimeoutError in kinds:
        raise EXERCISE.wrong("first-failure-ends-it", f"it raised {kinds[0].__name__}")
    if asyncio.CancelledError in kinds:
        raise EXERCISE.wrong("cancelled-ends-all", f"row {MIXED.index(CANCELLED)}")
    raise blame(ran.error)


def _judge_entries(stockroom: _Stockroom) -> None:
    for number, text in stockroom.entries:
        if isinstance(number, bool) or not isinstance(number, int):
            raise EXERCISE.wrong("wrong-entry", f"the number is {type(number).__name__}")
        if number not in range(len(MIXED)):
            raise EXERCISE.wrong("row-missing", f"there is no row {number}")
        if not isinstance(text, str | None):
            raise EXERCISE.wrong("wrong-entry", f"row {number} has {type(text).__name__}")
    missing = [number for number in range(len(MIXED)) if number not in stockroom.book]
    cancelled = MIXED.index(CANCELLED)
    if missing == [cancelled]:
        raise EXERCISE.wrong("cancelled-is-nowhere", f"row {cancelled}")
    for number in missing:
        told = TOLD[MIXED[number]]
        raise EXERCISE.wrong("row-missing", f"the book has no row {number}; {told}")


def _judge_successes(book: dict[int, str]) -> None:
    if book[known := MIXED.index(KNOWN)] == SAVED:
        raise EXERCISE.wrong("false-is-saved", f"row {known}")
    if book[cancelled := MIXED.index(CANCELLED)] == SAVED:
        raise EXERCISE.wrong("cancelled-is-saved", f"row {cancelled}")
    for number, fate in enumerate(MIXED):
        if (fate == ADDED) is not (book[number] == SAVED):
            told = f"row {number} is {book[number]!r}; {TOLD[fate]}"
            raise EXERCISE.wrong("row-missing", told)


def _judge_reasons(stockroom: _Stockroom) -> None:
    for number, row in enumerate(stockroom.rows()):
        text = stockroom.book[number]
        if not (text or "").strip():
            raise EXERCISE.wrong("reason-without-words", f"row {number}: {text!r}")
        if MIXED[number] == REFUSED and f"price is {row['price']}" not in text:
            raise EXERCISE.wrong("reason-lost", f"row {number}: {text!r}")
        if MIXED[number] in (KNOWN, BUSY) and text == UNKNOWN:
            raise EXERCISE.wrong("reason-lost", f"row {number}: {text!r}; {TOLD[MIXED[number]]}")


async def _judge_limit(sandbox: Sandbox, act: Callable[..., Any], limit: int) -> None:
    stockroom = _Stockroom([GATED] * (2 * limit), gate=limit)
    (await sandbox.run(lambda: _call(act, stockroom, limit))).result()
    told = f"{stockroom.peak} at once, limit {limit}"
    if stockroom.peak > limit:
        raise EXERCISE.wrong("over-the-limit", told)
    if stockroom.peak < limit:
        raise EXERCISE.wrong("own-limit", told)


async def _judge_bug(sandbox: Sandbox, act: Callable[..., Any], bug: Exception) -> None:
    stockroom = _Stockroom(WITH_A_BUG, bug=bug, gate=LIMIT)
    ran = await sandbox.run(lambda: _call(act, stockroom))
    if ran.error is None:
        raise EXERCISE.wrong("hides-a-bug", f"{type(bug).__name__}: {bug}")
    if not any(leaf is bug for leaf in leaves(ran.error)):
        raise blame(ran.error)
    if ran.left:
        ran.error = None
        ran.result()
    for number in set(stockroom.begun) - set(stockroom.begun_after):
        text = stockroom.book.get(number)
        if number == WITH_A_BUG.index(BROKEN) and text == SAVED:
            raise EXERCISE.wrong("bug-is-saved", f"row {number}")
        if number != WITH_A_BUG.index(BROKEN) and text != SAVED:
            raise EXERCISE.wrong("cut-off-by-a-bug", f"row {number} is {text!r}")
    if stockroom.begun_after:
        raise EXERCISE.wrong("goes-on-after-a-bug", f"row {stockroom.begun_after[0]}")


async def _judge_lost_entry(sandbox: Sandbox, act: Callable[..., Any], lost: Exception) -> None:
    stockroom = _Stockroom([GATED] * 2, lost=lost)
    ran = await sandbox.run(lambda: _call(act, stockroom))
    if ran.error is None:
        raise EXERCISE.wrong("hides-the-books-error", f"{type(lost).__name__}: {lost}")
    if not any(leaf is lost for leaf in leaves(ran.error)):
        raise blame(ran.error)


async def _judge_no_rows(sandbox: Sandbox, act: Callable[..., Any]) -> None:
    stockroom = _Stockroom(())
    ran = await sandbox.run(lambda: _call(act, stockroom))
    if ran.error is not None:
        raise EXERCISE.wrong("no-rows", tell(ran.error))
    ran.result()
    if stockroom.entries:
        raise EXERCISE.wrong("no-rows", f"it kept {stockroom.entries[0]!r}")


async def _judge_cancellation(sandbox: Sandbox, act: Callable[..., Any]) -> None:
    stockroom = _Stockroom(TO_BE_CANCELLED)

    async def cancelled() -> tuple[str, str] | None:
        importing = asyncio.ensure_future(require_awaitable(_call(act, stockroom)))
        await stockroom.all_wait.wait()
        await asyncio.sleep(ms(ROUND_TRIP))
        importing.cancel()
        asked, kept = stockroom.calls.total(), len(stockroom.entries)
        late = [number for number in range(LIMIT) if stockroom.book.get(number) != SAVED]
        await asyncio.wait({importing}, timeout=ms(PATIENCE))
        if more := stockroom.calls.total() - asked:
            return "survives-cancellation", f"it gave {more} more rows to add"
        if not importing.cancelled():
            return "survives-cancellation", "it did not end as cancelled"
        if late:
            return "kept-at-the-end", f"row {late[0]}"
        if more := stockroom.entries[kept:]:
            return "keeps-after-the-stop", "row {}: {!r}".format(*more[0])
        return None

    if found := (await sandbox.run(cancelled)).result():
        raise EXERCISE.wrong(*found)
