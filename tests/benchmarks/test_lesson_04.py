"""How near lesson 04's limits come to their bounds, and what a batch costs beside the libraries.

The batches are cells of its second helping. Memory is what Python allocates, byte by byte.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import aiometer
import anyio
import pytest

from looplab.lab import Comparison, compare, peak_memory
from looplab.shop.partners import Supplier, in_this_process

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

WAIT = 0.05  # seconds
CALLS = 200
AT_ONCE = 10
DEGRADATION = 1.3
ITEMS = 100_000
FEWER = 2_000
ROUNDS = 3
CELLS = ("setup", "breaks-memory", "pattern-workers")


@pytest.fixture(scope="module")
def lesson(names_of: Any) -> dict[str, Any]:
    """Return the names that the lesson's cells import and define; nothing else of them runs."""
    return names_of("04_deeper", CELLS, definitions_only=True)


async def short_work(number: int) -> int:
    await asyncio.sleep(0)
    return number


async def waiting_work(number: int) -> int:
    await asyncio.sleep(WAIT)
    return number


async def by_aiometer(items: Any, process_item: Any, most: int) -> list[Any]:
    return await aiometer.run_all([partial(process_item, item) for item in items], max_at_once=most)


def batches_of(lesson: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    return {
        "workers": lesson["process_batch_with_limit"],
        "gather": lesson["gather_batch"],
        "AnyIO limiter": partial(lesson["gather_batch"], kind=anyio.CapacityLimiter),
        "aiometer": by_aiometer,
    }


async def test_the_headline_is_bound_by_its_waits(lesson: dict[str, Any], figures: Any) -> None:
    supplier = Supplier(latency=WAIT, degrade_above=AT_ONCE, degradation=DEGRADATION)
    async with in_this_process(supplier) as client:

        async def stock(number: int) -> Any:
            return (await client.get(f"/stock/SKU-{number}")).json()["available"]

        def calls(batch: str, at_once: int) -> Callable[[], Any]:
            return lambda: lesson[batch](range(CALLS), stock, at_once)

        timing = await compare(
            {
                "all at once": calls("gather_batch", CALLS),
                "limit 5": calls("gather_batch", 5),
                "limit 10": calls("gather_batch", AT_ONCE),
                "10 workers": calls("process_batch_with_limit", AT_ONCE),
            },
            repeat=ROUNDS,
            ideal={
                "all at once": WAIT * (CALLS / AT_ONCE) ** DEGRADATION,
                "limit 5": WAIT * CALLS / 5,
                "limit 10": WAIT * CALLS / AT_ONCE,
                "10 workers": WAIT * CALLS / AT_ONCE,
            },
            show=False,
        )
    with figures("lesson 04, 200 calls of 50 ms to a supplier that serves ten") as table:
        for name in timing.samples:
            table.at_most(f"{name}, of its bound", timing.of_ideal(name), 1.2)
        table.only("all at once, of limit 10", timing.ratio("all at once", "limit 10"))


async def test_memory_of_a_batch(lesson: dict[str, Any], figures: Any) -> None:
    peaks: dict[str, float] = {}
    for name, batch in batches_of(lesson).items():
        with peak_memory(exact=True) as memory:
            await batch(iter(range(ITEMS)), short_work, AT_ONCE)
        peaks[name] = memory.peak / 1e6
    with figures(f"lesson 04, peak memory of a batch of {ITEMS:,}, results included") as table:
        for name, peak in peaks.items():
            table.only(name, peak, "MB")
        table.at_most("workers, of gather", peaks["workers"] / peaks["gather"], 1 / 20)


async def test_a_batch_beside_the_libraries(lesson: dict[str, Any], figures: Any) -> None:
    async def timed(items: int, work: Any, repeat: int) -> Comparison:
        contenders = {
            name: partial(batch, range(items), work, AT_ONCE)
            for name, batch in batches_of(lesson).items()
        }
        for run in contenders.values():
            assert await run() == list(range(items))
        return await compare(contenders, repeat=repeat, show=False)

    busy = await timed(FEWER, short_work, 9)
    waiting = await timed(10 * AT_ONCE, waiting_work, ROUNDS)
    with figures("lesson 04, workers beside other ways to bound a batch") as table:
        for name in busy.samples:
            table.only(f"{name}, an item without a wait", 1e6 * busy.median(name) / FEWER, "µs")
        for name in list(busy.samples)[1:]:
            table.at_most(f"workers, of {name}, no wait", busy.ratio("workers", name), 1.1)
            table.at_most(f"workers, of {name}, 50 ms", waiting.ratio("workers", name), 1.1)
