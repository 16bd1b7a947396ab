"""How far lesson 19's retries are from their bounds: the calls' own time, and the library's."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import stamina

from looplab.shop.partners import Supplier
from looplab.stages.outage import ask, calls_to

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

ROUNDS = 5
CALLS = 200
GIVEN = {"httpx": httpx, "stamina": stamina, "ask": ask, "ms": lambda number: number / 1_000}


async def seconds(call: Callable[[], Awaitable[Any]]) -> float:
    """Return how long the quickest of some rounds of calls took, for each call."""
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(CALLS):
            await call()
        took.append((time.perf_counter() - began) / CALLS)
    return min(took)


async def test_a_call_that_works_costs_little_more_with_retries_than_without(
    names_of: Any, figures: Any
) -> None:
    names = names_of("19", ("pattern-caller", "budget-class"), **GIVEN)
    names = names_of("19", ("budget-ask",), definitions_only=True, **names)
    names["budget"] = names["RetryBudget"]()
    client = calls_to(Supplier(latency=0.01))
    bare = await seconds(lambda: ask(client, "/stock/cup"))
    patient = await seconds(lambda: names["ask_patiently"](client, "/stock/cup"))
    thrifty = await seconds(lambda: names["ask_within_budget"](client, "/stock/cup"))
    with figures("lesson 19, a call of 10 ms that works") as table:
        table.at_most("bare, of its bound", bare / 0.01, 1.2)
        table.at_most("with stamina, of bare", patient / bare, 1.1)
        table.at_most("with the budget, of stamina alone", thrifty / patient, 1.1)
