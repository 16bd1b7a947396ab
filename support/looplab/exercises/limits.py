"""The exercise of lesson 04: a bounded, lazy batch over an async iterator.

Every answer that keeps the promises is accepted: a semaphore that is taken before a task is made,
workers that ask one iterator in turn, a bounded queue with a producer, `asyncio.wait` over a
window. A few items may be taken ahead of what is done: a queue with a place for each slot is fine.

Every answer of the source and of `process_item` suspends, also the source's "there is no more", so
that a batch which never stops asking can be stopped.
"""

import asyncio
import functools
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from looplab.exercises.checking import check, require_function
from looplab.exercises.error_text import holds, leaves, raised_from
from looplab.exercises.sandbox import Ran, Sandbox, blame, require_awaitable
from looplab.exercises.verdicts import Exercise, Mistake, Verdict, Wrong, wrong
from looplab.lab.silent_failures import let_go
from looplab.lab.units import ms

LIMIT = 4
LIMIT_OF_FAILURE = 3
FAILING = 4  # the place of the item that fails in the second run
SOURCE_FAILS_AT = 5
TICK = 20  # milliseconds between two looks at whether anything moves
STILL = 12  # so many looks without a movement: the batch waits for what is held
ASKS_AFTER_END = 3  # for each slot: so often may a source be asked once it has said it is empty
CLASH = "already running"  # what an async generator says when it is asked twice at once

# Some items and results are empty or None, and some items are equal: no reason to lose one.
ITEMS: tuple[Any, ...] = (
    *(f"row {number}" for number in range(8)),
    *(0, None, "", "row 11", "row 11"),
    *(f"row {number}" for number in range(13, 24)),
)
EMPTY_RESULTS: dict[Any, Any] = {"row 14": None, "row 16": 0, "row 18": "", "row 20": False}

EXERCISE = Exercise(
    lesson="04",
    check="check_process_batch",
    stub="one-by-one",
    task="Process the items of an async iterator a few at a time, in order, and take none early.",
    usual_wrong_prediction=(
        "That queueing on our side comes on top, so that a limit makes the batch slower. But "
        "beyond the knee, each call more makes all of them slower."
    ),
    mistakes=(
        Mistake(
            "one-by-one",
            "awaits each item before it takes the next, as the stub does",
            "The answers are right, but one item is processed at a time. Start up to "
            "max_concurrent of them before you wait for one.",
        ),
        Mistake(
            "over-the-limit",
            "gathers everything, or has no limit on one of its ways",
            "More items are processed at once than max_concurrent allows.",
        ),
        Mistake(
            "slots-unused",
            "starts fewer tasks than the limit allows, or fixes their number",
            "Fewer items are processed at once than max_concurrent allows: a slot stays empty.",
        ),
        Mistake(
            "slot-kept",
            "takes a slot for each item and gives none back, or not on every way",
            "Everything stands still: all slots are taken, and nothing is processed. Each task has "
            "to give its slot back when its item is done.",
        ),
        Mistake(
            "reads-ahead",
            "makes a list of the items, or a task for each that then waits for a semaphore",
            "The limit holds, but items are taken long before a slot is free for them. With a long "
            "stream that fills the memory. Wait for a slot first, and take the item then.",
        ),
        Mistake(
            "slow-one-holds-up",
            "works in batches that wait for their slowest, or awaits tasks in the order of items",
            "One slow item holds up the others. As soon as any item is done, its slot should go to "
            "the next one.",
        ),
        Mistake(
            "asked-at-once",
            "lets several tasks run `async for` over one async generator",
            "Two tasks asked the stream for an item at the same time, and an async generator "
            "refuses that. Let one task ask for all of them, or let them ask in turn.",
        ),
        Mistake(
            "asks-after-end",
            "writes pass or continue where the loop should end at StopAsyncIteration",
            "The stream has ended, and it is asked again and again. In production such a loop "
            "takes a whole core and never returns. End it at StopAsyncIteration, with return or "
            "break.",
        ),
        Mistake(
            "falsy-dropped",
            "tests an item or a result for its truth, or takes None for the end of the source",
            "An item or a result that is 0, empty or None was lost, and such rows are quite "
            "ordinary. Don't test whether a value is true. Only StopAsyncIteration says that the "
            "stream has ended.",
        ),
        Mistake(
            "processed-twice",
            "tries an item again when it fails, or takes it from two places",
            "An item was processed twice. If it were a payment, somebody would pay twice. Process "
            "each item once.",
        ),
        Mistake(
            "wrong-order",
            "appends results as they come",
            "The results come in the order in which the items were done. Keep an item's place from "
            "the moment when you take it, and put its result there.",
        ),
        Mistake(
            "wrong-answer",
            "loses or doubles items, or returns something else than their results",
            "The answer is not a list with one result for each item.",
        ),
        Mistake(
            "yields",
            "writes an async generator",
            "process_batch has to return a list. Collect the results instead of yielding them.",
        ),
        Mistake(
            "error-swallowed",
            "catches errors, all or of some kinds, or lets one end a task that nobody asks",
            "An error was lost, so the caller takes the results for complete. Let the error out "
            "instead of putting None, or nothing, in its place.",
        ),
        Mistake(
            "error-replaced",
            "raises another exception where an item or the source has failed",
            "An item raised an error, and a different one came out. The caller can't catch the "
            "error that it knows. Let the item's own error out, alone or in a group.",
        ),
        Mistake(
            "goes-on-after-failure",
            "collects exceptions and raises when everything has ended",
            "An item failed, and its error came out only after other items had ended. Cancel the "
            "others. A TaskGroup does that for you.",
        ),
        Mistake(
            "takes-after-failure",
            "reads the rest of the source in a finally, or goes on taking items",
            "After an item had failed, more items were taken and never processed. If they came "
            "from a queue, they are gone. Stop asking the stream when an item fails.",
        ),
        Mistake(
            "siblings-left-running",
            "uses gather or tasks, which run on when one fails, or cancels and does not wait",
            "The error came out while other items were still being processed. gather doesn't stop "
            "them, and cancel() only asks them to stop. A TaskGroup cancels them and waits until "
            "they have ended.",
        ),
        Mistake(
            "left-on-cancel",
            "makes tasks with create_task and does not end them when it is cancelled itself",
            "The batch was cancelled, as it is when a deadline passes, and its tasks ran on. Make "
            "them in a TaskGroup, or cancel and await them in a finally.",
        ),
        Mistake(
            "swallows-cancel",
            "catches CancelledError or BaseException and returns or goes on",
            "The batch was cancelled and went on, so a deadline around it could not stop it. Clean "
            "up in a finally, and let CancelledError through.",
        ),
    ),
)


class _ItemError(TimeoutError, LookupError, ValueError, RuntimeError, ArithmeticError):
    """What the failing item raises: a narrow except that hides a bug catches it too."""


class _SourceError(TimeoutError, LookupError, ValueError, RuntimeError, ArithmeticError):
    """What the failing source raises."""


@dataclass(slots=True)
class _Watch:
    """What the check sees of one run. Items that are held end when `opened` is set."""

    limit: int
    reach: int
    """How many items are processed at once if no slot stays empty."""
    taken: int = 0
    begun: int = 0
    ended: int = 0
    peak: int = 0
    ahead: int = 0
    looks: int = 0
    stalled: bool = False
    taken_at_failure: int | None = None
    running_at_end: int = 0
    """Items that were being processed still when the batch came out."""
    calls: Counter[Any] = field(default_factory=Counter)
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    full: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once so many were processed at once, or nothing moves any more."""
    found: "asyncio.Future[Wrong]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """A mistake that is plain before the batch has ended, which it may never do."""

    def take(self) -> None:
        self.taken += 1
        self.ahead = max(self.ahead, self.taken - self.ended)
        self.looks = 0

    def fails(self) -> None:
        """Note that an item or the source fails now."""
        if self.taken_at_failure is None:
            self.taken_at_failure = self.taken

    def find(self, mistake: Wrong) -> None:
        if not self.found.done():
            self.found.set_result(mistake)

    @contextmanager
    def processing(self, item: Any) -> Generator[None]:
        self.begun += 1
        self.calls[item] += 1
        self.peak = max(self.peak, self.running)
        if self.running >= self.reach:
            self.full.set()
        self.looks = 0
        try:
            yield
        finally:
            self.ended += 1
            self.looks = 0

    @property
    def running(self) -> int:
        return self.begun - self.ended

    async def look_on(self) -> None:
        """Open the door to held items once nothing has moved for many looks.

        If nothing moves even then, and nothing is being processed, the slots are taken for good.
        Looks are counted, not time: a machine that stops everything stops them as well.
        """
        while not self.found.done():
            await asyncio.sleep(ms(TICK))
            self.looks += 1
            if self.looks <= STILL:
                continue
            if not self.opened.is_set():
                self.stalled = self.running > 0
                self.opened.set()
                self.full.set()
                self.looks = 0
            elif self.ended >= self.limit and not self.running:
                self.find(EXERCISE.wrong("slot-kept", f"{self.ended} items were processed"))


class _Source:
    """An async iterator that behaves like an async generator, and suspends whenever it is asked.

    Asked twice at once it refuses, and once it has failed or was cancelled it is at its end.
    """

    def __init__(self, watch: _Watch, items: tuple[Any, ...], fails_at: int | None) -> None:
        self._watch = watch
        self._items = items
        self._fails_at = fails_at
        self._place = 0
        self._asked = False
        self._at_end = False
        self._asks_after_end = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._asked:
            raise RuntimeError(f"anext(): asynchronous generator is {CLASH}")
        self._asked = True
        try:
            await asyncio.sleep(0)
            return self._next()
        except BaseException:
            self._at_end = True
            raise
        finally:
            self._asked = False

    def _next(self) -> Any:
        if self._at_end or self._place == len(self._items):
            self._asks_after_end += self._at_end
            if self._asks_after_end > ASKS_AFTER_END * self._watch.limit:
                self._watch.find(EXERCISE.wrong("asks-after-end"))
            raise StopAsyncIteration
        if self._place == self._fails_at:
            self._watch.fails()
            raise _SourceError("the source broke off")
        item = self._items[self._place]
        self._place += 1
        self._watch.take()
        return item

    async def aclose(self) -> None:
        """End the source, as an async generator is ended."""
        self._at_end = True


Batch = Callable[..., Any]
Process = Callable[[Any], Awaitable[Any]]


async def check_process_batch(process_batch: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's ``process_batch`` of lesson 04, show one line, and return the verdict.

    It is called as ``await process_batch(items, process_item, max_concurrent)`` with an async
    iterator, a coroutine function of one item and a whole number. It passes if

    - it returns a list of the results in the order of the items, none for an empty source;
    - ``max_concurrent`` items are processed at once, no more, and a slow one holds up no other;
    - it takes at most ``2 * max_concurrent + 1`` items ahead of what is done;
    - an item's or the source's error comes out, alone or in a group, with nothing left running and
      no more items taken;
    - cancelled itself, it ends cancelled, with nothing left running.

    ``limit`` is how long the function may take in all, in seconds; 15 unless given. An endless loop
    that never awaits cannot be stopped: restart the kernel.
    """
    return await check(functools.partial(_judge, batch=process_batch), limit=limit)


async def _judge(sandbox: Sandbox, *, batch: Any) -> str:
    batch = require_function(batch, example="check_process_batch(process_batch)")
    if inspect.isasyncgenfunction(batch):
        raise EXERCISE.wrong("yields")
    await _judge_order_and_limit(sandbox, batch)
    await _judge_failing_item(sandbox, batch)
    await _judge_failing_source(sandbox, batch)
    await _judge_other_lengths(sandbox, batch)
    await _judge_cancelled(sandbox, batch)
    return (
        f"{len(ITEMS)} items, {LIMIT} at a time, in order, and none taken early. An error comes "
        "out, and nothing is left running."
    )


async def _ran(
    sandbox: Sandbox,
    batch: Batch,
    watch: _Watch,
    process: Process,
    *,
    items: tuple[Any, ...] = ITEMS,
    fails_at: int | None = None,
    cancel: bool = False,
) -> Ran[Any]:
    """Run the batch until it has ended, or a mistake is plain before that.

    ``process`` is what happens to each item; it is awaited once the item counts as begun. With
    ``cancel`` the batch is cancelled once all its slots are in use.
    """

    async def process_item(item: Any) -> Any:
        if item not in items:
            watch.find(EXERCISE.wrong("wrong-answer", f"process_item was called with {item!r}"))
        with watch.processing(item):
            await asyncio.sleep(0)
            await process(item)
        return _result(item)

    async def working() -> Any:
        try:
            source = _Source(watch, items, fails_at)
            return await require_awaitable(batch(source, process_item, watch.limit))
        finally:
            watch.running_at_end = watch.running

    async def until_plain() -> Any:
        task = asyncio.create_task(working())
        if cancel:
            full = asyncio.create_task(watch.full.wait())
            await asyncio.wait({task, full}, return_when=asyncio.FIRST_COMPLETED)
            full.cancel()
            task.cancel()
        await asyncio.wait({task, watch.found}, return_when=asyncio.FIRST_COMPLETED)
        if watch.found.done():
            raise watch.found.result()
        return task.result()

    looking = asyncio.create_task(watch.look_on())
    try:
        ran = await sandbox.run(until_plain)
    finally:
        watch.opened.set()
        await sandbox.stop()
        looking.cancel()
        await asyncio.wait({looking})
    if isinstance(ran.error, Wrong):
        raise ran.error
    return ran


async def _judge_order_and_limit(sandbox: Sandbox, batch: Batch) -> None:
    """Hold the first item until all others have ended, or nothing moves any more."""
    watch = _Watch(LIMIT, LIMIT)

    async def process(item: Any) -> None:
        if item == ITEMS[0]:
            await watch.opened.wait()
        else:
            await asyncio.sleep(ms(1 + 3 * watch.begun % 4))
        if watch.ended >= len(ITEMS) - 2:  # this one and the first have not ended yet
            watch.opened.set()

    ran = await _ran(sandbox, batch, watch, process)
    _judge_error(ran)
    results = _results(ran)
    _judge_limit(watch)
    _judge_empty_values(results)
    if watch.ahead > 2 * LIMIT + 1:
        detail = f"{watch.ahead} taken and not done, with {LIMIT} allowed at once"
        raise EXERCISE.wrong("reads-ahead", detail)
    if watch.peak == 1:
        raise EXERCISE.wrong("one-by-one")
    if watch.peak < LIMIT:
        raise EXERCISE.wrong("slots-unused", f"{watch.peak} at once, {LIMIT} are allowed")
    if watch.stalled:
        raise EXERCISE.wrong("slow-one-holds-up")
    _judge_calls(watch, ITEMS)
    _judge_results(results, ITEMS)


async def _judge_failing_item(sandbox: Sandbox, batch: Batch) -> None:
    """Let one item fail while its neighbours are held."""
    watch = _Watch(LIMIT_OF_FAILURE, LIMIT_OF_FAILURE)

    async def process(item: Any) -> None:
        if ITEMS.index(item) > FAILING:
            await _held(watch)
        elif item == ITEMS[FAILING]:
            await watch.full.wait()
            await asyncio.sleep(ms(5))  # for one that takes too many, or goes on taking
            watch.fails()
            raise _ItemError(f"{item} failed")

    ran = await _ran(sandbox, batch, watch, process)
    _judge_limit(watch)
    _judge_failure(ran, _ItemError, "an item's", watch)
    if watch.stalled:
        raise EXERCISE.wrong("goes-on-after-failure")
    _judge_calls(watch, ITEMS)
    if watch.taken_at_failure is not None:
        after = watch.taken - watch.taken_at_failure
        if after > watch.limit:  # a worker or a producer may have been about to get one
            raise EXERCISE.wrong("takes-after-failure", f"{after} were taken")


async def _judge_failing_source(sandbox: Sandbox, batch: Batch) -> None:
    """Let the source fail while two items are held; to finish these first is no mistake."""
    watch = _Watch(LIMIT, LIMIT)

    async def process(item: Any) -> None:
        if ITEMS.index(item) >= SOURCE_FAILS_AT - 2:
            await _held(watch)

    ran = await _ran(sandbox, batch, watch, process, fails_at=SOURCE_FAILS_AT)
    _judge_failure(ran, _SourceError, "the source's", watch)


async def _judge_other_lengths(sandbox: Sandbox, batch: Batch) -> None:
    """Fewer items than slots, none, one slot, and many slots."""
    for items, limit in ((ITEMS[:2], LIMIT), ((), LIMIT), (ITEMS[:3], 1), (ITEMS[7:19], 11)):
        watch = _Watch(limit, min(limit, len(items)))

        async def process(item: Any, watch: _Watch = watch) -> None:
            await watch.full.wait()

        ran = await _ran(sandbox, batch, watch, process, items=items)
        _judge_error(ran)
        _judge_limit(watch)
        if watch.peak < watch.reach:
            raise EXERCISE.wrong("slots-unused", f"{watch.peak} at once, {limit} are allowed")
        _judge_results(_results(ran), items)


async def _judge_cancelled(sandbox: Sandbox, batch: Batch) -> None:
    """Cancel the batch while every slot holds an item."""
    watch = _Watch(LIMIT, LIMIT)
    ran = await _ran(sandbox, batch, watch, lambda _: _held(watch), cancel=True)
    if ran.error is None:
        raise EXERCISE.wrong("swallows-cancel")
    if not isinstance(ran.error, asyncio.CancelledError):
        raise blame(ran.error)
    if watch.stalled:
        raise EXERCISE.wrong("swallows-cancel", "it waited for its items to end")
    if ran.left or watch.running_at_end:
        raise EXERCISE.wrong("left-on-cancel", f"{watch.running_at_end} items still ran")


async def _held(watch: _Watch) -> None:
    """Wait until the check opens; a cancellation takes a moment, as a real cleanup does."""
    try:
        await watch.opened.wait()
    except asyncio.CancelledError:
        await asyncio.sleep(ms(2))
        raise


def _judge_limit(watch: _Watch) -> None:
    if watch.peak > watch.limit:
        detail = f"{watch.peak} at once, {watch.limit} were allowed"
        raise EXERCISE.wrong("over-the-limit", detail)


def _judge_calls(watch: _Watch, items: tuple[Any, ...]) -> None:
    if more := watch.calls - Counter(items):
        raise EXERCISE.wrong("processed-twice", ", ".join(map(repr, more)))


def _judge_error(ran: Ran[Any]) -> None:
    if ran.error is None:
        if ran.left:
            raise wrong("left-running", ", ".join(ran.left))
        return
    if any(isinstance(leaf, RuntimeError) and CLASH in str(leaf) for leaf in leaves(ran.error)):
        raise EXERCISE.wrong("asked-at-once")
    raise blame(ran.error)


def _judge_failure(ran: Ran[Any], expected: type[Exception], whose: str, watch: _Watch) -> None:
    if ran.error is None:
        raise EXERCISE.wrong("error-swallowed", f"{whose} error")
    if not holds(ran.error, expected):
        if replaced := raised_from(ran.error, expected):
            raise EXERCISE.wrong("error-replaced", f"{type(replaced).__name__} for {whose}")
        raise blame(ran.error)
    let_go(ran.error)
    if ran.left or watch.running_at_end:
        detail = ", ".join(ran.left) or f"{watch.running_at_end} items"
        raise EXERCISE.wrong("siblings-left-running", detail)


def _results(ran: Ran[Any]) -> list[Any]:
    if ran.value is None:
        raise wrong("not-written", "process_batch returned None")
    if not isinstance(ran.value, list | tuple):
        raise EXERCISE.wrong("wrong-answer", f"it is no list but {type(ran.value).__name__}")
    return list(ran.value)


def _judge_empty_values(results: list[Any]) -> None:
    """Find results that lack what is empty, or that break off at it."""
    told = [repr(result) for result in results]
    expected = [repr(_result(item)) for item in ITEMS]
    empty = [repr(_result(item)) for item in ITEMS if not item or not _result(item)]
    lacking = Counter(expected) - Counter(told)
    broken_off = told == expected[: len(told)] and len(told) < len(ITEMS) and not ITEMS[len(told)]
    if broken_off or (lacking and not lacking - Counter(empty)):
        raise EXERCISE.wrong("falsy-dropped", f"{len(results)} results for {len(ITEMS)} items")


def _judge_results(results: list[Any], items: tuple[Any, ...]) -> None:
    told = [repr(result) for result in results]
    expected = [repr(_result(item)) for item in items]
    if told == expected:
        return
    if len(results) != len(items):
        raise EXERCISE.wrong("wrong-answer", f"{len(results)} results for {len(items)} items")
    if sorted(told) == sorted(expected):
        raise EXERCISE.wrong("wrong-order")
    raise EXERCISE.wrong("wrong-answer")


def _result(item: Any) -> Any:
    return EMPTY_RESULTS.get(item, f"result of {item!r}")
