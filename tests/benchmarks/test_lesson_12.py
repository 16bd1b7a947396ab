"""What publishing costs with lesson 12's queue, and beside pyee and blinker."""

import asyncio
import inspect
import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from blinker import Signal
from pyee.asyncio import AsyncIOEventEmitter

from looplab.lab import compare, ms
from looplab.shop.newcomers import running

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

SLOW = 0.05  # seconds that the slow handler takes
BURST = 200  # events
ROUNDS = 15
EVENT = "user.created"
CELLS = ("naive-bus", "pattern-bus", "pattern-worker", "breaks-silent-logging")


@pytest.fixture
def lesson(names_of: Any) -> dict[str, Any]:
    """Return the names that the lesson's cells define."""
    given = {"asyncio": asyncio, "inspect": inspect, "defaultdict": defaultdict, "ms": ms}
    log = logging.getLogger("shop.events")
    return names_of("12", CELLS, definitions_only=True, log=log, **given)


class Buses:
    """The lesson's two buses and the two libraries, each with the same handlers."""

    def __init__(self, lesson: dict[str, Any], *handlers: Callable[[Any], Any]) -> None:
        self.waiting = lesson["AsyncEventBus"]()
        self.logging = lesson["LoggingEventBus"]()
        self.queued = lesson["QueuedEventBus"](self.logging, size=BURST)
        self.pyee = AsyncIOEventEmitter()
        self.blinker = Signal()
        for handler in handlers:
            self.waiting.subscribe(EVENT, handler)
            self.logging.subscribe(EVENT, handler)
            self.pyee.on(EVENT, handler)
            self.blinker.connect(handler, weak=False)


def three_handlers() -> list[Callable[[Any], Any]]:
    def handler() -> Callable[[Any], Any]:
        async def nothing(data: Any) -> None:
            pass

        return nothing

    return [handler() for _ in range(3)]


async def test_publishing_to_the_queue_is_a_twentieth_of_the_slow_handler(
    lesson: dict[str, Any], figures: Any
) -> None:
    async def slow(data: Any) -> None:
        await asyncio.sleep(SLOW)

    buses = Buses(lesson, slow, *three_handlers())
    ways = {
        "wait": lambda: buses.waiting.publish(EVENT, {}),
        "queue": lambda: buses.queued.publish(EVENT, {}),
    }
    timing = await compare(ways, repeat=ROUNDS, ideal={"wait": SLOW, "queue": SLOW}, show=False)
    with figures("lesson 12, publishing to a handler of 50 ms and three quick ones") as table:
        table.at_most("queue, of the slow handler", timing.of_ideal("queue"), 1 / 20)
        table.only("publish and wait, of the slow handler", timing.of_ideal("wait"))


async def test_an_event_with_deadlines_costs_at_most_twice_what_pyee_takes(
    lesson: dict[str, Any], figures: Any
) -> None:
    buses = Buses(lesson, *three_handlers())

    async def queued() -> None:
        for number in range(BURST):
            await buses.queued.publish(EVENT, number)
        await buses.queued.queue.join()

    async def queued_one_at_a_time() -> None:
        for number in range(BURST):
            await buses.queued.publish(EVENT, number)
            await buses.queued.queue.join()

    async def waiting() -> None:
        for number in range(BURST):
            await buses.waiting.publish(EVENT, number)

    async def pyee() -> None:
        for number in range(BURST):
            buses.pyee.emit(EVENT, number)
        await buses.pyee.wait_for_complete()

    async def blinker() -> None:
        for number in range(BURST):
            await buses.blinker.send_async(number)

    ways = {
        "queue": queued,
        "queue, one at a time": queued_one_at_a_time,
        "card": waiting,
        "pyee": pyee,
        "blinker": blinker,
    }
    async with running(lesson["work"](buses.queued)):
        timing = await compare(ways, repeat=ROUNDS, show=False)
    with figures("lesson 12, an event delivered to three handlers that do nothing") as table:
        for name in ways:
            table.only(f"{name}, an event", timing.median(name) / BURST * 1e6, "µs")
        # the queue's handlers have a deadline each, which neither library gives
        table.at_most("queue, of pyee", timing.ratio("queue", "pyee"), 2)
        table.only("queue, of blinker", timing.ratio("queue", "blinker"))
        idle = timing.ratio("queue, one at a time", "blinker")
        table.only("queue with an idle worker, of blinker", idle)


async def test_who_publishes_pays_no_more_than_with_a_library(
    lesson: dict[str, Any], figures: Any
) -> None:
    buses = Buses(lesson, *three_handlers())

    async def queued() -> None:
        for number in range(BURST):
            await buses.queued.publish(EVENT, number)

    def pyee() -> None:
        for number in range(BURST):
            buses.pyee.emit(EVENT, number)

    async def blinker() -> None:
        for number in range(BURST):
            await buses.blinker.send_async(number)

    shares: dict[str, list[float]] = {"pyee": [], "blinker": []}
    loop = asyncio.get_running_loop()

    async def seconds(publish: Callable[[], Any]) -> float:
        """Return what ``publish`` takes; what it has put off is done or dropped afterwards."""
        began = loop.time()
        outcome = publish()
        if outcome is not None:
            await outcome
        taken = loop.time() - began
        await buses.pyee.wait_for_complete()
        while not buses.queued.queue.empty():
            buses.queued.queue.get_nowait()
        return taken

    for _ in range(ROUNDS):
        ours = await seconds(queued)
        shares["pyee"].append(ours / await seconds(pyee))
        shares["blinker"].append(ours / await seconds(blinker))
    with figures("lesson 12, what publish takes from who publishes") as table:
        for name, found in shares.items():
            table.at_most(f"queue, of {name}", sorted(found)[ROUNDS // 2], 1.1)
