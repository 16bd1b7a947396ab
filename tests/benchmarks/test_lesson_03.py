"""How near lesson 03's campaigns come to their bounds."""

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest

from looplab.lab import compare
from looplab.shop.partners import Mailer, in_this_process

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

WAIT = 0.05  # seconds a letter takes
SLOW = 0.5  # seconds the two slow addresses take
ADDRESSES = 50
ROUNDS = 3
CARD = ("send-one", "pattern-service")
SHIPPED = ("greet", "outcome", "expected", "send-letter", "keep-one", "ship")


class Free:
    """A book that costs nothing and lets every letter leave."""

    async def begin(self, user_id: Any) -> bool:
        return True

    async def keep(self, outcome: Any) -> None:
        pass


@pytest.fixture
def lesson(names_of: Any) -> dict[str, Any]:
    """Return the names that the lesson's cells define, with fifty addresses and no shop."""
    everyone = list(range(ADDRESSES))
    return names_of(
        "03",
        (*CARD, *SHIPPED),
        asyncio=asyncio,
        dataclass=dataclass,
        httpx=httpx,
        UUID=UUID,
        everyone=everyone,
        address={number: f"{number}@example.org" for number in everyone},
        names=dict.fromkeys(everyone, "Ada"),
        slots=asyncio.Semaphore(ADDRESSES),
        __name__="lesson",
    )


async def test_a_gathered_campaign_takes_the_longest_wait(
    lesson: dict[str, Any], figures: Any
) -> None:
    mailer = Mailer(latency=WAIT)
    everyone = lesson["everyone"]
    for number in (7, 39):
        mailer.fault(lesson["address"][everyone[number]], latency=SLOW)

    async def one_at_a_time() -> None:
        for user_id in everyone:
            await lesson["send_notifications_safe"]([user_id], "We moved.")

    async with in_this_process(mailer) as letters:
        lesson["letters"] = letters
        calls = {
            "one at a time": one_at_a_time,
            "at once": lambda: lesson["send_notifications_safe"](everyone, "We moved."),
            "shipped": lambda: lesson["send_notifications"](letters, Free(), everyone, "We moved."),
        }
        bounds = {
            "one at a time": (ADDRESSES - 2) * WAIT + 2 * SLOW,
            "at once": SLOW,
            "shipped": SLOW,
        }
        timing = await compare(calls, repeat=ROUNDS, ideal=bounds, show=False)
    with figures("lesson 03, fifty letters of 50 ms, two of them of 500 ms") as table:
        table.at_most("one at a time, of its sum", timing.of_ideal("one at a time"), 1.2)
        table.at_most("at once, of the longest wait", timing.of_ideal("at once"), 1.2)
        table.at_most("shipped, with fifty slots", timing.of_ideal("shipped"), 1.2)
        table.only("one at a time, of at once", timing.ratio("one at a time", "at once"))
