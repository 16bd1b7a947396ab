"""How near lesson 02's dashboards come to their bounds, on the lesson's own services."""

from typing import Any

import pytest

from looplab.lab import compare
from looplab.shop import open_shop

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

ROUND_TRIP = 0.03  # seconds
QUESTION = 3 * ROUND_TRIP  # BEGIN, the SELECT, ROLLBACK
QUESTIONS = 6
ROUNDS = 9
CELLS = ("setup", "naive-service", "pattern-stats", "pattern-service")


@pytest.fixture
def lesson(names_of: Any) -> dict[str, Any]:
    """Return the names that the lesson's cells define."""
    return names_of("02", CELLS)


async def test_a_gathered_dashboard_takes_the_trips_of_one_question(
    lesson: dict[str, Any], figures: Any
) -> None:
    async with open_shop(round_trip=ROUND_TRIP, name="benchmark 02") as shop:
        await shop.warm()
        user_id = await shop.any_user()
        one_by_one, quick = lesson["one_by_one"], lesson["DashboardService"](shop)
        timing = await compare(
            {
                "one by one": lambda: one_by_one(shop, user_id),
                "gathered": lambda: quick.get_dashboard_data(user_id),
            },
            repeat=ROUNDS,
            ideal={"one by one": QUESTIONS * QUESTION, "gathered": QUESTION},
            show=False,
        )
    with figures("lesson 02, a dashboard of six questions 30 ms away") as table:
        table.at_most("gathered, of three round trips", timing.of_ideal("gathered"), 1.2)
        table.at_most("one by one, of eighteen round trips", timing.of_ideal("one by one"), 1.1)
        table.only("one by one, of gathered", timing.ratio("one by one", "gathered"))
