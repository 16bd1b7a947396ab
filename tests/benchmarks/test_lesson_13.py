"""How much sooner lesson 13's repaired service is done with its load, on the lesson's own cells."""

import timeit
from statistics import median
from typing import Any

import pytest

from looplab.lab import ms
from looplab.lab.display import collected
from looplab.shop import storefront
from looplab.shop.newcomers import Reports
from looplab.stages.storefronts import Storefronts

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

VISITS, CLIENTS = 24, 4  # thrice the lesson's load, so that opening connections is a small part
CELLS = (
    *("setup", "naive-partners", "naive-home"),
    *("repair-client", "repair-thread", "repair-gather", "breaks-down-fixed"),
)


@pytest.fixture
def lesson(names_of: Any) -> dict[str, Any]:
    """Return the names that the lesson's cells define."""
    Reports("shop")  # nobody reads what the repaired service logs here
    return names_of("13", CELLS, definitions_only=True, log=storefront.log)


async def test_the_repaired_service_is_done_three_times_as_soon(
    lesson: dict[str, Any], figures: Any
) -> None:
    small = await storefront.open_stocked(2, ms(10), patience=ms(30_000))
    large = await storefront.open_stocked(24, ms(10), patience=ms(800))
    service = await Storefronts.of(
        small, storefront.Partners(latency=ms(20)), visits=VISITS, clients=CLIENTS
    )
    as_it_is = {
        "shop": small,
        "middleware": storefront.AsyncResourceMiddleware,
        "partners": lesson["ClientPerCall"],
        "ask": lesson["one_by_one"],
        "recommend": lesson["recommend"],
        "check_fraud": lesson["check_fraud"],
    }
    repaired = {
        "shop": large,
        "middleware": storefront.LendSessions,
        "partners": lesson["OneClient"],
        "ask": lesson["all_at_once"],
        "recommend": lesson["recommend_or_nothing"],
        "check_fraud": lesson["check_fraud_in_thread"],
    }
    try:
        with collected():
            await service.measure("warm", repaired)  # fills SQLAlchemy's caches
            first = await service.measure("as it is", as_it_is)
            last = await service.measure("repaired", repaired)
            held = repaired | {"shop": small, "middleware": as_it_is["middleware"]}
            on_two = await service.measure("two seats", held)
            lent_on_two = await service.measure("two seats, let go", repaired | {"shop": small})
    finally:
        await small.close()
        await large.close()
    work = median(report.cpu for report in last.reports)
    eights = VISITS / 8  # of each eight, one page is without recommendations: 30 + 100 ms
    bound = eights * ms(5 * 50 + 130 + 2 * 110) / CLIENTS
    with figures(f"lesson 13, {VISITS} requests of {CLIENTS} clients") as table:
        table.only("as it is", first.took * 1000, "ms")
        table.only("repaired", last.took * 1000, "ms")
        table.only("repaired, of what arithmetic allows", last.took / bound)
        table.only("the processor's work in it, clients and partners too", work * 1000, "ms")
        table.only("work a request", work / VISITS * 1000, "ms")
        table.only("as it is, errors", first.failed, "requests")
        table.at_most("repaired, errors", last.failed, 0, "requests")
        gain = on_two.took / lent_on_two.took  # the lesson says that there is none
        table.at_most("two seats, of the same with sessions let go", gain, 1.25)
        # OpenSSL 3.0 takes 20 ms to build a client, 3.6 takes 5: then there is less to gain
        building = timeit.repeat(lambda: lesson["OneClient"]("http://partner"), number=1)
        table.only("building a client", min(building) * 1000, "ms")
        table.at_most("repaired, of as it is", last.took / first.took, 1 / 3)
