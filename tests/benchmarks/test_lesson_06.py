"""What a server still does for nobody, and whether it cleans up, on lesson 06's own cells.

Counts, not times: how many items are finished and how many cleanups end. The last table sets the
lesson's shutdown beside AnyIO's and beside the card's, on a job that ends at once.
"""

import asyncio
from typing import Any

import pytest

from support.lab import compare

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

VISITS = 5
CALLS = 100
ROUNDS = 9
CELLS = (
    "setup",
    "work",
    "work-cleanup",
    "leave",
    "visit",
    "naive-app",
    "pattern-generator",
    "pattern-app",
    "pattern-until",
    "breaks-yield",
    "breaks-yield-readers",
    "breaks-shutdown",
    "practice-anyio",
)


@pytest.fixture
def lesson(names_of: Any) -> dict[str, Any]:
    """Return the names that the lesson's cells define."""
    return names_of("06", CELLS)


async def test_work_after_the_client_has_left(lesson: dict[str, Any], figures: Any) -> None:
    log, items = lesson["log"], len(lesson["ITEMS"])
    card, shipped = lesson["AsPrinted"], lesson["process_with_cancellation"]
    apps = {
        "plain endpoint": lesson["plain_app"],
        "the card's generator": lesson["streaming_app"](card.process_with_cancellation),
        "shipped": lesson["streaming_app"](shipped),
    }
    done, cleaned = dict.fromkeys(apps, 0), dict.fromkeys(apps, 0)
    for _ in range(VISITS):
        for name, app in apps.items():
            await lesson["visit"](app)
            done[name] += log.count("item done")
            cleaned[name] += log.count("cleanup done")
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


async def test_cleanup_behind_slow_readers(lesson: dict[str, Any], figures: Any) -> None:
    ended = {}
    for name, process in {
        "the card's generator": lesson["AsPrinted"].process_with_cancellation,
        "try/finally": lesson["process_with_cancellation"],
    }.items():
        app = lesson["yielding_app"](process)
        story = await lesson["slow_readers"](app, readers=VISITS)
        ended[name] = story.count("cleanup done")
    with figures(f"lesson 06, {VISITS} slow readers leave") as table:
        table.only(
            "cleanups ended, the card's generator", ended["the card's generator"], f"of {VISITS}"
        )
        table.at_most(
            "readers without a cleanup, try/finally", VISITS - ended["try/finally"], 0, "readers"
        )


async def test_what_a_graceful_shutdown_costs(lesson: dict[str, Any], figures: Any) -> None:
    def calls(run: Any) -> Any:
        async def many() -> None:
            never = asyncio.Event()
            for _ in range(CALLS):
                await run(asyncio.sleep(0), never)

        return many

    contenders = {
        "shipped": calls(lesson["run_with_graceful_shutdown"]),
        "anyio": calls(lesson["run_with_anyio"]),
        "card": calls(lesson["PrintedShutdown"].run_with_graceful_shutdown),
    }
    timing = await compare(contenders, repeat=ROUNDS, show=False)
    with figures(f"lesson 06, {CALLS} jobs that end at once") as table:
        table.only("shipped, a job", timing.median("shipped") / CALLS * 1e6, "µs")
        table.only("shipped, of AnyIO's scope", timing.ratio("shipped", "anyio"))
        table.only("shipped, of the card's", timing.ratio("shipped", "card"))
