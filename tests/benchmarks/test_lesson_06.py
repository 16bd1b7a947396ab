"""What a server still does for nobody, and whether it cleans up, on lesson 06's own cells.

Counts, not times: how many items are finished and how many cleanups end. The last table sets the
shutdown of the second helping beside the card's, on a job that ends at once.
"""

import asyncio
from typing import Any

import pytest

from looplab.lab import compare
from looplab.stages import exports

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

VISITS = 5
CALLS = 100
ROUNDS = 9
CELLS = ("setup", "naive-app", "pattern-generator", "breaks-shield")
CELLS_OF_DEEPER = (
    "setup",
    "reader-run",
    "reader-five",
    "reader-app",
    "card-printed",
    "card-watch",
    "card-fixed",
)


async def test_work_after_the_client_has_left(names_of: Any, figures: Any) -> None:
    lesson = names_of("06", CELLS)
    items = len(lesson["ITEMS"])
    apps = {
        "plain endpoint": lesson["plain_app"],
        "the card's generator": lesson["export_app"](lesson["as_printed"]),
        "shipped": lesson["export_app"](lesson["process_with_cancellation"]),
    }
    done, cleaned = dict.fromkeys(apps, 0), dict.fromkeys(apps, 0)
    for _ in range(VISITS):
        for name, app in apps.items():
            _, story = await lesson["visit"](app, name)
            done[name] += story.count("item done")
            cleaned[name] += story.count("cleanup done")
    with figures(f"lesson 06, {VISITS} clients leave after 3 of {items} items") as table:
        for name in apps:
            table.only(f"items done, {name}", done[name] / (VISITS * items), "of all")
        table.only(
            "cleanups ended, the card's generator", cleaned["the card's generator"], f"of {VISITS}"
        )
        table.at_most(
            "items done, shipped, of plain", done["shipped"] / done["plain endpoint"], 0.5
        )
        table.at_most(
            "clients without a cleanup, shipped", VISITS - cleaned["shipped"], 0, "clients"
        )


async def test_cleanup_behind_slow_readers(names_of: Any, figures: Any) -> None:
    deeper = names_of("06_deeper", CELLS_OF_DEEPER)
    begun = {}
    for name, process in {
        "the card's generator": exports.as_printed,
        "try/finally": exports.process_with_cancellation,
    }.items():
        story = await deeper["five_slow_readers"](deeper["yielding_app"](process))
        begun[name] = story.count("cleanup begun")
    with figures("lesson 06, 5 slow readers leave") as table:
        table.only("cleanups begun, the card's generator", begun["the card's generator"], "of 5")
        table.at_most("readers without a cleanup, try/finally", 5 - begun["try/finally"], 0)


async def test_what_a_graceful_shutdown_costs(names_of: Any, figures: Any) -> None:
    deeper = names_of("06_deeper", CELLS_OF_DEEPER)

    def calls(run: Any) -> Any:
        async def many() -> None:
            never = asyncio.Event()
            for _ in range(CALLS):
                await run(asyncio.sleep(0), never)

        return many

    contenders = {
        "shipped": calls(deeper["run_with_graceful_shutdown"]),
        "card": calls(deeper["shutdown_as_printed"]),
    }
    timing = await compare(contenders, repeat=ROUNDS, show=False)
    with figures(f"lesson 06, {CALLS} jobs that end at once") as table:
        table.only("shipped, a job", timing.median("shipped") / CALLS * 1e6, "µs")
        table.only("shipped, of the card's", timing.ratio("shipped", "card"))
