"""The exercise of lesson 19: a payment that is tried again and done once.

The judge plays the bank, and writes down when each call came and ended, its key, and how often the
budget had been asked by then. Jitter is told by order, not by time: customers who fail together and
come back in the same order have waited equally long.
"""

import asyncio
import functools
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

from looplab.exercises.checking import check, require_function
from looplab.exercises.error_text import chain
from looplab.exercises.sandbox import Sandbox, require_awaitable
from looplab.exercises.verdicts import Exercise, Mistake, Verdict, Wrong
from looplab.lab.silent_failures import let_go

EXAMPLE: Final = "check_pay(pay)"
USUAL: Final = 0.05  # seconds that the bank needs for a call
ATTEMPTS: Final = 3
LONGEST_ATTEMPT: Final = 0.3  # seconds, as the task says; twice as long is let pass
WAITS: Final = (0.02, 0.2)  # seconds, as the task says
LATE: Final = 0.3  # seconds that a busy machine may add to a wait
GIVEN_UP: Final = 2.6  # seconds after which a payment hangs
CUSTOMERS: Final = 24
SHUFFLED: Final = 0.05  # the share of pairs that change places if waits differ; evenly drawn: 0.5

EXERCISE = Exercise(
    lesson="19",
    check="check_pay",
    stub="new-key",
    task="Write a payment with three attempts at most, which waits, ends in time and charges once.",
    usual_wrong_prediction=(
        "Ninety: ten visitors with three attempts in each of three services. But the layers "
        "multiply, since each call of one layer makes three of the next, so it's 27 for each."
    ),
    mistakes=(
        Mistake(
            "new-key",
            "draws a key for each attempt",
            "The customer has paid more than once. The bank had charged when the time was up, and "
            "the next attempt came with another key. All attempts of a payment need the same one.",
        ),
        Mistake(
            "shared-key",
            "uses one key for all orders",
            "Two customers came, and one was charged: both had the same key. The key has to tell "
            "one order from another.",
        ),
        Mistake(
            "no-receipt",
            "forgets to return what charge returned",
            "The bank charged, and pay returned something else than the receipt.",
        ),
        Mistake(
            "retries-declined",
            "retries every exception",
            "The card was declined, and the bank was asked again. What is final is not worth a "
            "retry: let Declined out at once.",
        ),
        Mistake(
            "budget-wasted",
            "asks the budget before the first attempt, or for an error that it doesn't retry",
            "The budget was asked, and there was nothing to retry. Each time costs a retry that "
            "somebody else needs: ask only when a retry would follow.",
        ),
        Mistake(
            "ignores-budget",
            "doesn't ask the budget, or goes on when it says no",
            "A retry was made that the budget had not allowed. Ask budget.spend() after each "
            "failure that is worth a retry, and let the error out when it says False.",
        ),
        Mistake(
            "error-swallowed",
            "returns after the last failure",
            "Every attempt failed, and pay ended as if all were well. Nobody has paid then. Let "
            "the last error out.",
        ),
        Mistake(
            "gives-up-early",
            "retries only one of the two errors, or has one time-out for all attempts together",
            "It gave up although budget and attempts were left. Both ConnectionError and "
            "TimeoutError are worth a retry, and a time-out around one attempt leaves time for "
            "the next.",
        ),
        Mistake(
            "too-many-attempts",
            "makes more than three attempts",
            "It made more than three attempts. Three is the number of calls, the first included.",
        ),
        Mistake(
            "hangs",
            "has no time-out for an attempt, or trusts stamina's timeout",
            "The bank hung, and pay waited with it. stamina's timeout looks at the clock between "
            "attempts only; an attempt that is under way needs a time-out of its own.",
        ),
        Mistake(
            "attempt-too-long",
            "has a time-out that is too long",
            "An attempt was given far more than 300 ms. Put the time-out around each call.",
        ),
        Mistake(
            "too-impatient",
            "has a time-out that is too short",
            "The bank usually takes 50 ms, and it was given less. A time-out that ends healthy "
            "calls causes the very load that it should prevent.",
        ),
        Mistake(
            "no-wait",
            "retries at once",
            "A retry followed at once. The bank had no time to recover: wait for 20 ms at least.",
        ),
        Mistake(
            "waits-too-long",
            "has too long a back-off, stamina's own for instance",
            "A wait was far longer than 200 ms, and a customer stands at the till. Set the "
            "largest wait, too.",
        ),
        Mistake(
            "no-jitter",
            "waits for a fixed time, or for one that all customers share",
            "All customers failed together, waited equally long and came back together. Draw a "
            "part of each wait at random, for each customer and each retry.",
        ),
        Mistake(
            "goes-on-cancelled",
            "catches CancelledError",
            "The customer left, pay was cancelled, and it called the bank again or returned. "
            "CancelledError is nothing to retry: don't catch it.",
        ),
        Mistake(
            "wrong-call",
            "leaves out the key, or gives charge something else than the order",
            "A call got something else than it takes. It is charge(order, key=text), with the "
            "order that pay was given.",
        ),
    ),
)


async def check_pay(pay: Any) -> Verdict:
    """Let customers pay at a bank that is well, late, down or hangs; show and return the verdict.

    ``pay(order, charge, budget)`` is an ``async def``. Nothing that it does raises here.
    """
    return await check(functools.partial(_judge, pay=pay))


async def _judge(sandbox: Sandbox, *, pay: Any) -> str:
    job = require_function(pay, example=EXAMPLE)
    trials = (
        _pays,
        _pays_after_two_late_answers,
        _is_declined,
        _has_no_budget,
        _finds_the_bank_down,
        _comes_in_a_crowd,
        _is_cancelled,
        _meets_a_bank_that_hangs,
    )
    await sandbox.run_each(trials, job)
    return (
        "It paid once whatever the bank did, gave up in time, and no crowd came back in step. "
        "That is a retry you can afford on the worst day."
    )


class Declined(ValueError):
    """The card has no money."""


@dataclass(frozen=True)
class _Order:
    id: str


@dataclass(slots=True)
class _Called:
    """One call to the bank."""

    order: str
    key: str
    began: float
    spent: int
    """How often the budget had been asked when it began."""
    ended: float = 0.0


@dataclass(slots=True)
class _Budget:
    """Allows so many retries; ``asked`` counts how often it was asked."""

    allows: int = 1_000
    asked: int = 0

    def spend(self) -> bool:
        self.asked += 1
        return self.asked <= self.allows


@dataclass(slots=True)
class _Bank:
    """Does with each order's calls what ``does`` says, the last of them with all further calls.

    That is "ok", "declined" or "unavailable"; "late", which charges and times out; or "hang", which
    charges and never answers.
    """

    does: Sequence[str]
    budget: _Budget = field(default_factory=_Budget)
    calls: list[_Called] = field(default_factory=list)
    charged: dict[str, str] = field(default_factory=dict)
    fault: Wrong | None = None
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def charge(self, order: Any = None, *, key: Any = None) -> str:
        if not (isinstance(order, _Order) and isinstance(key, str)):
            self.fault = EXERCISE.wrong("wrong-call", f"it got {order!r} and key={key!r}")
            raise self.fault
        nth = sum(call.order == order.id for call in self.calls)
        call = _Called(order.id, key, perf_counter(), self.budget.asked)
        self.calls.append(call)
        self.arrived.set()
        try:
            return await self._answer(self.does[min(nth, len(self.does) - 1)], order.id, key)
        finally:
            call.ended = perf_counter()

    async def _answer(self, deed: str, order: str, key: str) -> str:
        await asyncio.sleep(USUAL)
        if deed == "declined":
            raise Declined("the card has no money")
        if deed == "unavailable":
            raise ConnectionError("the bank is unavailable")
        self.charged.setdefault(key, order)
        if deed == "late":
            raise TimeoutError("no answer")
        if deed == "hang":
            await asyncio.Event().wait()
        return f"receipt {[*self.charged].index(key) + 1}"

    def payments(self, order: str) -> int:
        """Return how often the order was charged."""
        return [*self.charged.values()].count(order)


@dataclass(slots=True)
class _End:
    """How a payment ended: with a receipt, or with an error."""

    receipt: Any = None
    error: Exception | None = None

    def is_a(self, kind: type[Exception]) -> bool:
        """Return whether the error is of this kind, or was raised from one that is."""
        return self.error is not None and any(isinstance(one, kind) for one in chain(self.error))


Job = Callable[..., Awaitable[Any]]
EXPECTED: Final = (Declined, ConnectionError, TimeoutError)


async def _end(job: Job, bank: _Bank, number: str = "order-7") -> _End:
    """Let one customer pay. Raises what is neither the bank's doing nor a time-out."""
    try:
        receipt = await require_awaitable(job(_Order(number), bank.charge, bank.budget))
    except Exception as error:
        if bank.fault is not None:
            raise bank.fault from None
        ended = _End(error=error)
        if not any(ended.is_a(kind) for kind in EXPECTED):
            raise
        let_go(error)
        return ended
    if bank.fault is not None:
        raise bank.fault
    return _End(receipt=receipt)


def _require_once(bank: _Bank, number: str) -> None:
    if bank.payments(number) > 1:
        keys = [key for key, order in bank.charged.items() if order == number]
        raise EXERCISE.wrong("new-key", f"its keys were {keys[0]!r} and {keys[1]!r}")


def _require_allowed(bank: _Bank) -> None:
    """Raise unless the budget had been asked, and had said yes, before each retry of one order."""
    for retries, call in enumerate(bank.calls):
        if retries > min(call.spent, bank.budget.allows):
            raise EXERCISE.wrong("ignores-budget", f"before attempt {retries + 1}")


async def _pays(job: Job) -> None:
    bank = _Bank(["ok"])
    for number in ("order-7", "order-8"):
        ended = await _end(job, bank, number)
        if ended.is_a(TimeoutError):
            raise EXERCISE.wrong("too-impatient")
        if not bank.payments(number) and number == "order-8":
            raise EXERCISE.wrong("shared-key")
        if ended.receipt != f"receipt {len(bank.charged)}" or not bank.charged:
            raise EXERCISE.wrong("no-receipt", f"it returned {ended.receipt!r}")
    if bank.budget.asked:
        raise EXERCISE.wrong("budget-wasted", "the first attempt had not failed")


async def _pays_after_two_late_answers(job: Job) -> None:
    bank = _Bank(["late", "late", "ok"])
    ended = await _end(job, bank)
    _require_once(bank, "order-7")
    if ended.error is not None or len(bank.calls) < ATTEMPTS:
        raise EXERCISE.wrong("gives-up-early", f"TimeoutError came, {len(bank.calls)} calls")
    if ended.receipt != "receipt 1":
        raise EXERCISE.wrong("no-receipt", f"it returned {ended.receipt!r} after two retries")


async def _is_declined(job: Job) -> None:
    bank = _Bank(["declined"])
    ended = await _end(job, bank)
    if len(bank.calls) > 1:
        raise EXERCISE.wrong("retries-declined", f"{len(bank.calls)} calls")
    if not ended.is_a(Declined):
        raise EXERCISE.wrong("error-swallowed", "the card was declined")
    if bank.budget.asked:
        raise EXERCISE.wrong("budget-wasted", "the card was declined")


async def _has_no_budget(job: Job) -> None:
    for allows in (0, 1):
        bank = _Bank(["unavailable"], _Budget(allows))
        ended = await _end(job, bank)
        _require_allowed(bank)
        if not ended.is_a(ConnectionError):
            raise EXERCISE.wrong("error-swallowed", "the budget was empty")
        if len(bank.calls) < allows + 1:
            raise EXERCISE.wrong("gives-up-early", "ConnectionError came, one retry was allowed")


async def _finds_the_bank_down(job: Job) -> None:
    bank = _Bank(["unavailable"])
    ended = await _end(job, bank)
    _require_attempts(bank, "ConnectionError came each time")
    if not ended.is_a(ConnectionError):
        raise EXERCISE.wrong("error-swallowed")


def _require_attempts(bank: _Bank, when: str) -> None:
    calls = len(bank.calls)
    if calls > ATTEMPTS:
        raise EXERCISE.wrong("too-many-attempts", f"{calls} calls")
    if calls < ATTEMPTS:
        raise EXERCISE.wrong("gives-up-early", f"{when}, {calls} calls")


async def _comes_in_a_crowd(job: Job) -> None:
    bank = _Bank(["unavailable"])
    numbers = [f"order-{number}" for number in range(CUSTOMERS)]
    async with asyncio.TaskGroup() as group:
        for number in numbers:
            group.create_task(_end(job, bank, number))
    shares = []
    by_order = [[call for call in bank.calls if call.order == number] for number in numbers]
    for before, after in itertools.pairwise(zip(*by_order, strict=True)):
        waits = [b.began - a.ended for a, b in zip(before, after, strict=True)]
        # a timer may fire up to a tick of its clock early
        if min(waits) < WAITS[0] * 0.7:
            raise EXERCISE.wrong("no-wait", f"it waited for {min(waits) * 1e3:.0f} ms")
        if max(waits) > WAITS[1] + LATE:
            raise EXERCISE.wrong("waits-too-long", f"it waited for {max(waits) * 1e3:.0f} ms")
        shares.append(_overtaken(before, after))
    if min(shares) < SHUFFLED:
        raise EXERCISE.wrong("no-jitter")


def _overtaken(before: Sequence[_Called], after: Sequence[_Called]) -> float:
    """Return the share of pairs of customers who come back in another order than they failed."""
    turns = sorted(zip(before, after, strict=True), key=lambda pair: pair[0].ended)
    pairs = list(itertools.combinations([second.began for _, second in turns], 2))
    return sum(first > second for first, second in pairs) / len(pairs)


async def _is_cancelled(job: Job) -> None:
    bank = _Bank(["ok"])
    paying = asyncio.create_task(_end(job, bank))
    arriving = asyncio.create_task(bank.arrived.wait())
    await asyncio.wait({paying, arriving}, return_when=asyncio.FIRST_COMPLETED)
    arriving.cancel()
    paying.cancel()
    await asyncio.wait({paying}, timeout=GIVEN_UP)
    stopped = paying.done() and (paying.cancelled() or paying.exception() is not None)
    if len(bank.calls) != 1 or not stopped:
        raise EXERCISE.wrong("goes-on-cancelled")


async def _meets_a_bank_that_hangs(job: Job) -> None:
    bank = _Bank(["hang"])
    paying = asyncio.create_task(_end(job, bank))
    try:
        await asyncio.wait({paying}, timeout=GIVEN_UP)
        longest = max((c.ended or perf_counter()) - c.began for c in bank.calls)
        if not bank.calls[0].ended:
            raise EXERCISE.wrong("hangs")
        if longest > 2 * LONGEST_ATTEMPT or not paying.done():
            raise EXERCISE.wrong("attempt-too-long", f"{longest * 1e3:.0f} ms")
        _require_once(bank, "order-7")
        _require_attempts(bank, "the bank hung")
        if not paying.result().is_a(TimeoutError):
            raise EXERCISE.wrong("error-swallowed", "the bank hung")
    finally:
        paying.cancel()
        await asyncio.wait({paying}, timeout=1)
