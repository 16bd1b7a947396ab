"""Lesson 14's headline beside its bound, and what the check-up's own watches cost an app."""

from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import httpx
import pytest

from looplab.lab import compare, in_process
from looplab.lab.own_app import Ask
from looplab.shop.teahouse import create_app
from looplab.stages.check_up import SIGNED_IN, OpenSupplier, connects, pool_watch

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

LABELS = 10
PRINTING = 0.08  # seconds
ROUNDS = 5


@pytest.fixture
async def supplier(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[None]:
    opened = await OpenSupplier.open()
    monkeypatch.setenv("TEAHOUSE_SUPPLIER", opened.url)
    monkeypatch.setenv("TEAHOUSE_PRINTING", str(PRINTING))
    yield
    await opened.close()


async def test_ten_labels_take_ten_printings(supplier: None, figures: Any, names_of: Any) -> None:
    label = Ask("GET", "/label/tea-1", headers=SIGNED_IN)
    lesson = names_of("14", ["setup", "compare-load"], label=label)
    loads = [await lesson["load"](LABELS) for _ in range(3)]
    last = min(max(sample.seconds for sample in met.samples) for met in loads)
    with figures("lesson 14: ten labels at once") as table:
        table.at_most("the last of them, of ten printings", last / LABELS / PRINTING, 1.2)


async def test_the_watches_cost_an_app_little(supplier: None, figures: Any) -> None:
    async def burst(client: httpx.AsyncClient, *, watched: bool) -> None:
        if watched:
            with pool_watch(), connects():
                await burst(client, watched=False)
            return
        for _ in range(100):
            await client.get("/teas")

    async with in_process(create_app()) as client:
        ways = {
            "bare": partial(burst, client, watched=False),
            "watched": partial(burst, client, watched=True),
        }
        timing = await compare(ways, repeat=ROUNDS, show=False)
    with figures("lesson 14: a list of teas") as table:
        table.at_most("with both watches", timing.ratio("watched", "bare"), 1.1)
