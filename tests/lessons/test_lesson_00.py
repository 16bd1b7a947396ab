"""What lesson 00 says without a claim on screen."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from looplab.lab import compare, in_process, serve, xray

pytestmark = pytest.mark.anyio


async def test_two_tasks_count_no_faster_than_one_after_the_other(cells_of: Any) -> None:
    names = await cells_of("00").define("setup", "faster")

    async def in_turn() -> None:
        await names["count"]()
        await names["count"]()

    ways = {"two tasks": names["count_twice"], "in turn": in_turn}
    samples = (await compare(ways, repeat=9, show=False)).samples
    ratios = [
        turn / two for turn, two in zip(samples["in turn"], samples["two tasks"], strict=True)
    ]
    # it would be 2 in nearly all rounds, and a core that is alone for a moment counts twice as fast
    assert sorted(ratios)[2] < 1.5


async def test_a_count_is_a_single_step_and_the_second_waits_for_the_first(cells_of: Any) -> None:
    names = await cells_of("00").define("setup", "faster")
    working = await xray(names["count_twice"](), show=False)
    first, second = working.tasks[1:]
    assert [len(first.steps), len(second.steps)] == [1, 1]
    assert second.began >= first.ended


async def test_tasks_start_in_the_order_of_the_code(cells_of: Any) -> None:
    names = await cells_of("00").define("setup", "in-turn", "together")
    recording = await xray(names["together"](), show=False)
    assert recording.started[1:] == ["boil_water", "toast_bread", "warm_milk"]


async def test_a_thousand_tasks_take_more_than_one_wait(cells_of: Any) -> None:
    names = await cells_of("00").define("setup", "in-turn", "dial")
    one = await compare({"one": lambda: names["crowd"](1)}, repeat=5, show=False)
    many = await compare({"many": lambda: names["crowd"](1_000)}, repeat=5, show=False)
    assert many.median("many") > one.median("one")


async def test_in_process_a_response_is_collected_whole_and_timeouts_are_ignored() -> None:
    app = FastAPI()

    async def drops():
        for _ in range(3):
            yield "drop"
            await asyncio.sleep(0.02)

    @app.get("/tap")
    async def tap() -> StreamingResponse:
        return StreamingResponse(drops())

    async def chunks(client: httpx.AsyncClient) -> int:
        async with client.stream("GET", "/tap", timeout=5) as response:
            return len([chunk async for chunk in response.aiter_raw()])

    impatient = httpx.Timeout(5, read=0.005)
    async with in_process(app) as near:
        assert await chunks(near) == 1
        assert (await near.get("/tap", timeout=impatient)).status_code == 200
    async with serve(app) as server, server.client() as far:
        assert await chunks(far) == 3
        with pytest.raises(httpx.ReadTimeout):
            await far.get("/tap", timeout=impatient)
