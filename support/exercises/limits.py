"""The exercise of lesson 04: a bounded, lazy batch over an async iterator.

Accepted is whatever keeps the promises: workers that ask one iterator in turn, a bounded queue with
a producer, a semaphore that is taken before a task is made, or `asyncio.wait` over a window. A few
items may be taken ahead of what is done: a queue of as many places as there are slots is fine.
"""

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from support.exercises.checking import check, require_function
from support.exercises.error_text import leaves
from support.exercises.sandbox import Ran, Sandbox, blame
from support.exercises.verdicts import Exercise, Mistake, Verdict, wrong
from support.lab.units import ms

ITEMS = 24
LIMIT = 4
LIMIT_OF_FAILURE = 3
FAILING = 4  # the item that fails in the second run
SOURCE_FAILS_AT = 5
TICK = 20  # milliseconds between two looks at whether anything moves
STILL = 12  # so many looks without a movement: the batch waits for what is held
CLASH = "already running"  # what an async generator says when it is asked twice at once

EXERCISE = Exercise(
    lesson="04",
    check="check_process_batch",
    stub="one-by-one",
    task="Process an async iterator's items, a few at a time, in order and without reading ahead.",
    usual_wrong_prediction=(
        "That the more calls are sent at once, the sooner the last is answered: beyond the knee "
        "each call more makes all of them slower."
    ),
    mistakes=(
        Mistake(
            "one-by-one",
            "awaits each item before it takes the next, as the stub does",
            "The answers are right, and one item is processed at a time: start up to "
            "max_concurrent of them before you wait.",
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
            "reads-ahead",
            "makes a list of the items, or a task for each that then waits for a semaphore",
            "The limit holds, but the items are taken long before a slot is free: from a long "
            "stream, that fills the memory. Take an item when it can be started.",
        ),
        Mistake(
            "slow-one-holds-up",
            "works in batches that wait for their slowest, or awaits tasks in the order of items",
            "One slow item holds up the others: as soon as any item is done, its slot should go "
            "to the next one.",
        ),
        Mistake(
            "asked-at-once",
            "lets several tasks run `async for` over one async generator",
            "Two tasks asked the source for an item at the same time, and an async generator "
            "refuses that. Let them ask in turn, or let one task ask for all.",
        ),
        Mistake(
            "wrong-order",
            "appends results as they come",
            "The results come in the order in which items were done. Note an item's place when "
            "you take it, and put its result there.",
        ),
        Mistake(
            "wrong-answer",
            "loses or doubles items, or returns something else than their results",
            "The answer is not a list with one result for each item.",
        ),
        Mistake(
            "yields",
            "writes an async generator",
            "Here process_batch is to return a list: collect the results instead of yielding them.",
        ),
        Mistake(
            "error-swallowed",
            "catches every exception, or lets one end a task that nobody asks",
            "An error was lost: whoever called process_batch must learn of it.",
        ),
        Mistake(
            "goes-on-after-failure",
            "collects exceptions and raises when everything has ended",
            "An item failed, and the error waited until others had ended. Cancel them: a "
            "TaskGroup does it for you.",
        ),
        Mistake(
            "siblings-left-running",
            "uses gather or tasks, which run on when one of them fails",
            "The error came out, and other tasks of the batch ran on: gather does not stop them. "
            "A TaskGroup cancels them and waits until they have ended.",
        ),
    ),
)


class _ItemError(Exception):
    """What the failing item raises."""


class _SourceError(Exception):
    """What the failing source raises."""


@dataclass(slots=True)
class _Watch:
    """What the check sees of one run. Items that are held end when `opened` is set."""

    taken: int = 0
    begun: int = 0
    ended: int = 0
    peak: int = 0
    ahead: int = 0
    looks: int = 0
    stalled: bool = False
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self) -> None:
        self.taken += 1
        self.ahead = max(self.ahead, self.taken - self.ended)
        self.looks = 0

    @contextmanager
    def processing(self) -> Generator[None]:
        self.begun += 1
        self.peak = max(self.peak, self.begun - self.ended)
        self.looks = 0
        try:
            yield
        finally:
            self.ended += 1
            self.looks = 0

    async def look_on(self) -> None:
        """Open the door to held items once nothing has moved for many looks.

        Looks are counted, not time: a machine that stops everything stops them as well.
        """
        while not self.opened.is_set():
            await asyncio.sleep(ms(TICK))
            self.looks += 1
            if self.looks > STILL:
                self.stalled = self.begun > self.ended
                self.opened.set()


async def _source(watch: _Watch, items: int, *, fails: bool = False) -> AsyncGenerator[int]:
    for number in range(items):
        await asyncio.sleep(0)
        if fails and number == SOURCE_FAILS_AT:
            raise _SourceError("the source broke off")
        watch.take()
        yield number


async def check_process_batch(process_batch: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's ``process_batch`` of lesson 04, show one line, and return the verdict.

    It is called as ``await process_batch(items, process_item, max_concurrent)`` with an async
    generator, a coroutine function of one item and a whole number. It passes if

    - it returns a list of the results in the order of the items, none for an empty source;
    - ``max_concurrent`` items are processed at once, no more, and a slow one holds up no other;
    - it takes at most ``2 * max_concurrent + 1`` items ahead of what is done;
    - an item's or the source's error comes out, alone or in a group, with nothing left running.

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
    await _judge_short_sources(sandbox, batch)
    return (
        f"{ITEMS} items, {LIMIT} at a time, in order, none taken early; an error comes out, and "
        "nothing runs on behind it."
    )


async def _ran(
    sandbox: Sandbox,
    batch: Callable[..., Any],
    watch: _Watch,
    process_item: Callable[[int], Any],
    *,
    items: int,
    limit: int,
    fails: bool = False,
) -> Ran[Any]:
    source = _source(watch, items, fails=fails)
    looking = asyncio.create_task(watch.look_on())
    try:
        return await sandbox.run(lambda: batch(source, process_item, limit))
    finally:
        watch.opened.set()
        await sandbox.stop()
        looking.cancel()
        await asyncio.wait({looking})
        await source.aclose()


async def _judge_order_and_limit(sandbox: Sandbox, batch: Callable[..., Any]) -> None:
    """Hold the first item until all others have ended, or nothing moves any more."""
    watch = _Watch()

    async def process_item(number: int) -> str:
        with watch.processing():
            if number == 0:
                await watch.opened.wait()
            else:
                await asyncio.sleep(ms(1 + 3 * number % 4))
        if watch.ended == ITEMS - 1:
            watch.opened.set()
        return _result(number)

    ran = await _ran(sandbox, batch, watch, process_item, items=ITEMS, limit=LIMIT)
    _judge_error(ran)
    results = _results(ran)
    if watch.peak > LIMIT:
        raise EXERCISE.wrong("over-the-limit", f"{watch.peak} at once, {LIMIT} were allowed")
    if watch.ahead > 2 * LIMIT + 1:
        detail = f"{watch.ahead} taken and not done, with {LIMIT} allowed at once"
        raise EXERCISE.wrong("reads-ahead", detail)
    if watch.peak == 1:
        raise EXERCISE.wrong("one-by-one")
    if watch.peak < LIMIT:
        raise EXERCISE.wrong("slots-unused", f"{watch.peak} at once, {LIMIT} are allowed")
    if watch.stalled:
        raise EXERCISE.wrong("slow-one-holds-up")
    _judge_results(results, ITEMS)


async def _judge_failing_item(sandbox: Sandbox, batch: Callable[..., Any]) -> None:
    """Let one item fail while its neighbours are held."""
    watch = _Watch()

    async def process_item(number: int) -> str:
        with watch.processing():
            if number > FAILING:
                await watch.opened.wait()
            else:
                await asyncio.sleep(ms(1))
        if number == FAILING:
            raise _ItemError(f"item {number} failed")
        return _result(number)

    limit = LIMIT_OF_FAILURE
    ran = await _ran(sandbox, batch, watch, process_item, items=ITEMS, limit=limit)
    if watch.peak > limit:
        raise EXERCISE.wrong("over-the-limit", f"{watch.peak} at once, {limit} were allowed")
    _judge_failure(ran, _ItemError, "an item's", watch)


async def _judge_failing_source(sandbox: Sandbox, batch: Callable[..., Any]) -> None:
    watch = _Watch()

    async def process_item(number: int) -> str:
        with watch.processing():
            await asyncio.sleep(ms(1))
        return _result(number)

    ran = await _ran(sandbox, batch, watch, process_item, items=ITEMS, limit=LIMIT, fails=True)
    _judge_failure(ran, _SourceError, "the source's", watch)


async def _judge_short_sources(sandbox: Sandbox, batch: Callable[..., Any]) -> None:
    """Fewer items than slots, and none."""
    for items in (2, 0):
        watch = _Watch()

        async def process_item(number: int, watch: _Watch = watch) -> str:
            with watch.processing():
                await asyncio.sleep(0)
            return _result(number)

        ran = await _ran(sandbox, batch, watch, process_item, items=items, limit=LIMIT)
        _judge_error(ran)
        _judge_results(_results(ran), items)


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
    if not any(isinstance(leaf, expected) for leaf in leaves(ran.error)):
        raise blame(ran.error)
    if ran.left:
        raise EXERCISE.wrong("siblings-left-running", ", ".join(ran.left))
    if watch.stalled:
        raise EXERCISE.wrong("goes-on-after-failure")


def _results(ran: Ran[Any]) -> list[Any]:
    if ran.value is None:
        raise wrong("not-written", "process_batch returned None")
    if not isinstance(ran.value, list | tuple):
        raise EXERCISE.wrong("wrong-answer", f"it is no list but {type(ran.value).__name__}")
    return list(ran.value)


def _judge_results(results: list[Any], items: int) -> None:
    expected = [_result(number) for number in range(items)]
    if results == expected:
        return
    if len(results) != items:
        raise EXERCISE.wrong("wrong-answer", f"{len(results)} results for {items} items")
    if all(result in expected for result in results) and len(set(results)) == items:
        raise EXERCISE.wrong("wrong-order")
    raise EXERCISE.wrong("wrong-answer")


def _result(number: int) -> str:
    return f"result {number}"
