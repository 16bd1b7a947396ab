"""The chain of services in front of a supplier, and what is counted there."""

import asyncio
import random

import httpx
import pytest
import stamina
from stamina.instrumentation import get_on_retry_hooks

from looplab.lab import caught_leaks
from looplab.shop.partners import PaymentService, Supplier
from looplab.stages.outage import (
    Chain,
    ask,
    calls_to,
    charge,
    checkout,
    crowd,
    in_hand_after,
    show_crowds,
)

pytestmark = pytest.mark.anyio


async def test_each_service_asks_the_next_once_unless_it_is_told_how() -> None:
    async def twice(client: httpx.AsyncClient, path: str) -> object:
        await ask(client, path)
        return await ask(client, path)

    assert (await crowd(Chain(Supplier()), 3)).calls == 3
    assert (await crowd(Chain(Supplier(), phone=twice, warehouse=twice), 3)).calls == 12


async def test_an_answer_that_fails_at_the_end_is_no_answer_at_the_phone() -> None:
    supplier = Supplier()
    assert (await crowd(Chain(supplier), 3, failing=1)).answered == 0
    assert (await crowd(Chain(supplier), 3)).answered == 0
    assert (await crowd(Chain(supplier), 3, failing=0)).answered == 3


async def test_a_checkout_tells_what_the_customer_hears_and_leaves_nothing_behind() -> None:
    bank = PaymentService(failure_rate=1)
    with caught_leaks() as leaks:
        assert await checkout(bank, charge, "ada", patience=5) == "HTTPStatusError"
        bank.failure_rate = 0
        assert await checkout(bank, charge, "ada", "key", patience=5) == "paid"
    assert bank.calls == 1
    assert leaks.sentences == []


async def test_a_bad_status_is_an_error_of_one_call() -> None:
    with pytest.raises(httpx.HTTPStatusError):
        await ask(calls_to(Supplier()), "/nothing")


async def patiently(client: httpx.AsyncClient, path: str) -> object:
    caller = stamina.AsyncRetryingCaller(attempts=3, wait_initial=0.001, wait_jitter=0.01)
    return await caller(httpx.HTTPError, ask, client, path)


async def test_a_crowd_tells_how_far_apart_the_first_waits_are() -> None:
    chain, hooks = Chain(Supplier(), warehouse=patiently), get_on_retry_hooks()
    drawn = [(await crowd(chain, 3, failing=1, seed=7)).apart for _ in range(2)]
    assert 0 < drawn[0] <= 0.005
    assert drawn[1] == drawn[0]
    assert (await crowd(chain, 1)).apart == 0
    assert (await crowd(chain, 3, failing=0)).apart == 0
    assert get_on_retry_hooks() == hooks


async def test_a_crowd_without_a_seed_leaves_the_random_numbers_alone() -> None:
    random.seed(7)
    expected = random.random()
    random.seed(7)
    await crowd(Chain(Supplier()), 2)
    assert random.random() == expected


async def test_what_hangs_is_in_hand_and_has_ended_afterwards() -> None:
    supplier = Supplier(hang=True)
    with caught_leaks() as leaks:
        asking = ask(calls_to(supplier), "/stock/cup")
        assert await in_hand_after(0.05, asking, supplier) == 1
    assert supplier.in_flight == 0
    assert leaks.sentences == []


async def test_what_has_failed_is_not_in_hand_and_not_waited_for() -> None:
    supplier = Supplier(failure_rate=1)
    with caught_leaks() as leaks:
        async with asyncio.timeout(20):
            asking = ask(calls_to(supplier), "/stock/cup")
            assert await in_hand_after(60, asking, supplier) == 0
    assert leaks.sentences == []


def test_no_crowd_is_no_table() -> None:
    with pytest.raises(ValueError, match="crowds is empty"):
        show_crowds({})
