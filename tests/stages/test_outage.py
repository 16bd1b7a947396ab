"""The chain of services in front of a supplier, and what is counted there."""

import httpx
import pytest

from looplab.lab import caught_leaks
from looplab.shop.partners import PaymentService, Supplier
from looplab.stages.outage import Chain, ask, calls_to, charge, checkout, crowd, show_crowds

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


def test_no_crowd_is_no_table() -> None:
    with pytest.raises(ValueError, match="crowds is empty"):
        show_crowds({})
