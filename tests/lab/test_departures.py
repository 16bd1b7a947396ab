"""A client that leaves a real server early, and the wait for what another thread does."""

import asyncio

import pytest
from fastapi import FastAPI

from looplab.lab import leave, leave_early, serve, until

pytestmark = pytest.mark.anyio


class Waiting:
    """An app whose endpoint waits until it is told to go on."""

    def __init__(self) -> None:
        self.begun = self.ended = 0
        self.go_on = False
        self.app = FastAPI()
        self.app.get("/wait")(self.wait)

    async def wait(self) -> str:
        self.begun += 1
        await until(lambda: self.go_on)
        self.ended += 1
        return "done"


async def test_the_server_has_done_with_a_request_whose_client_left() -> None:
    waiting = Waiting()

    def begun() -> bool:
        asyncio.get_running_loop().call_later(0.05, setattr, waiting, "go_on", True)
        return bool(waiting.begun)

    async with serve(waiting.app) as server, server.client() as client:
        await leave(server, client, "/wait", when=begun)
        assert (waiting.ended, server.running_requests) == (1, 0)


async def test_a_request_that_runs_is_counted() -> None:
    waiting = Waiting()
    async with serve(waiting.app) as server, server.client() as client:
        calling = asyncio.create_task(client.get("/wait"))
        await until(lambda: waiting.begun == 1)
        assert server.running_requests == 1
        waiting.go_on = True
        assert (await calling).json() == "done"


async def test_an_answer_that_comes_first_ends_the_visit() -> None:
    waiting = Waiting()
    waiting.go_on = True
    async with asyncio.timeout(10), serve(waiting.app) as server, server.client() as client:
        await leave(server, client, "/wait", when=lambda: False)


async def test_a_visit_is_drawn_with_both_sides() -> None:
    waiting = Waiting()

    def begun() -> bool:
        waiting.go_on = bool(waiting.begun)
        return waiting.go_on

    seen = await leave_early(waiting.app, "/wait", when=begun, title="a visit")
    assert seen.title == "a visit"
    assert seen.names == ["leave", "client", "GET /wait"]


async def test_what_a_condition_raises_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        await until(lambda: bool(1 / 0))


async def test_a_wait_that_is_cancelled_asks_no_more() -> None:
    asked = 0

    def never() -> bool:
        nonlocal asked
        asked += 1
        return False

    waiting = asyncio.create_task(until(never))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    before = asked
    await asyncio.sleep(0.05)
    assert asked == before
