"""What lesson 01 runs beside one another."""

import asyncio

import anyio.to_thread
import pytest
from fastapi import FastAPI

from looplab.lab import in_process
from looplab.stages.beside import SlowSupplier, answers_to, in_own_loop, requests_to, watched

pytestmark = pytest.mark.anyio


@pytest.fixture
def app() -> FastAPI:
    """An app whose second endpoint answers once the first has been asked."""
    app, gate = FastAPI(), asyncio.Event()

    @app.get("/first")
    async def first() -> None:
        gate.set()

    @app.get("/second")
    async def second() -> None:
        await gate.wait()

    return app


async def test_answers_come_in_the_order_in_which_they_were_given(app) -> None:
    async with in_process(app) as client:
        answers = await answers_to(client, ["/second", "/first"])
    assert [answer.url.path for answer in answers] == ["/first", "/second"]


async def test_requests_are_answered_in_the_order_of_their_paths(app) -> None:
    answers = await requests_to(app, ["/second", "/first"])
    assert [answer.url.path for answer in answers] == ["/second", "/first"]


async def test_a_supplier_counts_the_threads_inside_it() -> None:
    supplier = SlowSupplier(0.05)
    await asyncio.gather(*[anyio.to_thread.run_sync(supplier.ask) for _ in range(3)])
    await supplier.is_empty()
    assert supplier.most_inside == 3


async def test_a_loop_of_its_own_is_another_loop() -> None:
    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert await in_own_loop(loop) is not asyncio.get_running_loop()


async def test_a_report_that_blocks_lets_the_timer_ring_once() -> None:
    async def blocks() -> int:
        return sum(range(1_000_000))

    result = await watched("blocks", blocks)
    assert result.recording.title == "blocks"
    assert len(result.recording.tasks) == 5
    assert result.lag > 0
