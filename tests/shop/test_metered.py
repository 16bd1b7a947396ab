"""A partner that sells a number of calls in a time."""

import asyncio

import pytest

from looplab.shop.metered import MeteredPartner

pytestmark = pytest.mark.anyio


async def test_it_sells_so_many_and_refuses_more() -> None:
    partner = MeteredPartner(most=2, per=60.0)
    assert [await partner.call() for _ in range(4)] == [200, 200, 429, 429]
    assert partner.refused == 2
    assert len(partner.begun) == 4
    assert partner.begun[0] == 0.0


async def test_what_was_sold_long_ago_counts_no_more() -> None:
    partner = MeteredPartner(most=1, per=0.02)
    assert await partner.call() == 200
    await asyncio.sleep(0.03)
    assert await partner.call() == 200


async def test_what_was_refused_does_not_count() -> None:
    partner = MeteredPartner(most=1, per=0.05)
    assert await partner.call() == 200
    for _ in range(10):
        await asyncio.sleep(0.01)
        await partner.call()
    assert partner.refused < 10, "else each refusal would put off the next sale"


async def test_an_answer_takes_its_time_and_many_wait_at_once() -> None:
    loop = asyncio.get_running_loop()
    partner = MeteredPartner(most=1, per=60.0, latency=0.3)
    began = loop.time()
    statuses = await asyncio.gather(*[partner.call() for _ in range(20)])
    assert 0.3 <= loop.time() - began < 20 * 0.3
    assert statuses.count(200) == 1


@pytest.mark.parametrize(
    ("numbers", "error"),
    [
        ({"most": 0, "per": 1.0}, ValueError),
        ({"most": 1.5, "per": 1.0}, TypeError),
        ({"most": 1, "per": -1.0}, ValueError),
        ({"most": 1, "per": 1.0, "latency": "5 ms"}, TypeError),
    ],
)
def test_bad_numbers_are_refused(numbers: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        MeteredPartner(**numbers)
