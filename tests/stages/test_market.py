"""Lesson 05's sources, and the table of what came from them."""

import pytest

from looplab.lab import xray
from looplab.stages.market import open_market, show_arrivals

pytestmark = pytest.mark.anyio


async def test_all_sources_answer_and_a_healed_partner_does_so_again() -> None:
    market = await open_market()
    usual = market.api.latency
    market.api.latency, market.engine.hang = 60.0, True
    market.api.fault("products", failure=True)
    market.heal()
    assert (market.api.latency, market.engine.hang, market.api.faults) == (usual, False, {})
    for source in market.sources.values():
        assert len(await source("blue lamp")) > 0
    await market.shop.close()


async def test_a_source_that_found_nothing_and_a_search_that_failed_did_not_come_in(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def finds() -> dict[str, list[str]]:
        return {"database": ["lamp"], "elasticsearch": ["lamp"], "external_api": []}

    async def fails() -> None:
        raise KeyError

    searches = {
        "each": await xray(finds(), show=False),
        "all": await xray(fails(), show=False, catch=KeyError),
    }
    assert show_arrivals(searches) == {"each": 2, "all": 0}
    shown = capsys.readouterr().out
    assert "2 of 3" in shown
    assert "0 of 3" in shown
