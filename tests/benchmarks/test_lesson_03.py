"""How near lesson 03's campaigns come to their bounds."""

from typing import Any

import pytest

from support.lab import compare
from support.shop.partners import Mailer

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

WAIT = 0.05  # seconds a letter takes
SLOW = 0.5  # seconds the two slow addresses take
ADDRESSES = 50
ROUNDS = 3
CELLS = ("setup", "open-mailer", "naive-service", "pattern-service", "compare-services")
SHIPPED = ("outcome", "ship")


@pytest.fixture
def lesson(names_of: Any) -> dict[str, Any]:
    """Return the names that the lesson's cells define, with fifty addresses and no shop."""
    return names_of(
        "03",
        (*CELLS, *SHIPPED),
        everyone=list(range(ADDRESSES)),
        address={number: f"{number}@example.org" for number in range(ADDRESSES)},
    )


async def test_a_gathered_campaign_takes_the_longest_wait(
    lesson: dict[str, Any], figures: Any
) -> None:
    mailer = Mailer(latency=WAIT)
    everyone = lesson["everyone"]
    for number in (7, 39):
        mailer.fault(lesson["address"][everyone[number]], latency=SLOW)
    async with lesson["client_of"](mailer) as letters:
        lesson["letters"] = letters
        calls = {
            "loop": lambda: lesson["loop_with_report"](everyone, "We moved."),
            "gather": lambda: lesson["send_notifications_safe"](everyone, "We moved."),
            "shipped": lambda: lesson["send_notifications"](everyone, "We moved.", limit=50),
        }
        bounds = {"loop": (ADDRESSES - 2) * WAIT + 2 * SLOW, "gather": SLOW, "shipped": SLOW}
        timing = await compare(calls, repeat=ROUNDS, ideal=bounds, show=False)
    with figures("lesson 03, fifty letters of 50 ms, two of them of 500 ms") as table:
        table.at_most("loop, of the sum of its waits", timing.of_ideal("loop"), 1.2)
        table.at_most("gather, of the longest wait", timing.of_ideal("gather"), 1.2)
        table.at_most("outcomes within a limit of 50", timing.of_ideal("shipped"), 1.2)
        table.only("loop, of gather", timing.ratio("loop", "gather"))
