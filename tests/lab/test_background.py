"""What a background task does to the answer: it must wait for none, where that is asked for."""

import asyncio
import contextlib

import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse

from looplab.lab.clients import in_process

pytestmark = pytest.mark.anyio


class Shop:
    """An app whose orders are mailed after the answer, once ``post`` is set."""

    def __init__(self, error=None):
        self.events, self.post, self.mailing = [], asyncio.Event(), asyncio.Event()

        @contextlib.asynccontextmanager
        async def lifespan(app):
            yield {"name": "shop"}
            self.events.append("shut down")

        self.app = FastAPI(lifespan=lifespan)

        async def mail():
            self.mailing.set()
            try:
                await self.post.wait()
            except asyncio.CancelledError:
                self.events.append("mail cancelled")
                raise
            if error is not None:
                raise error
            self.events.append("mailed")

        @self.app.post("/orders/{order}")
        async def order(order: int, tasks: BackgroundTasks):
            tasks.add_task(mail)
            return order

        @self.app.get("/fails")
        async def fails():
            raise ZeroDivisionError

        @self.app.get("/hangs")
        async def hangs():
            await mail()

        @self.app.get("/stream")
        async def stream():
            async def chunks():
                for chunk in (b"a", b"b", b"c"):
                    yield chunk
                    await asyncio.sleep(0)

            return StreamingResponse(chunks())


async def test_by_default_the_answer_comes_after_the_background_task():
    shop = Shop()
    async with in_process(shop.app) as client:
        answer = asyncio.create_task(client.post("/orders/7"))
        await shop.mailing.wait()
        await asyncio.sleep(0)
        assert not answer.done()
        shop.post.set()
        assert (await answer).json() == 7
        assert shop.events == ["mailed"]


async def test_without_waiting_the_answer_comes_first_and_the_block_awaits_the_rest():
    shop = Shop()
    async with in_process(shop.app, wait_for_background=False) as client:
        assert (await client.post("/orders/7")).json() == 7
        assert shop.events == []
        shop.post.set()
    assert shop.events == ["mailed", "shut down"]


async def test_a_streamed_answer_is_complete():
    async with in_process(Shop().app, wait_for_background=False) as client:
        assert (await client.get("/stream")).text == "abc"


async def test_what_fails_before_the_answer_is_raised_in_the_caller():
    async with in_process(Shop().app, wait_for_background=False) as client:
        with pytest.raises(ZeroDivisionError):
            await client.get("/fails")


async def test_what_fails_before_the_answer_can_be_a_500():
    async with in_process(Shop().app, raise_errors=False, wait_for_background=False) as client:
        assert (await client.get("/fails")).status_code == 500


async def test_what_fails_after_the_answer_is_raised_when_the_block_ends():
    shop = Shop(error=LookupError("no such address"))
    answers = []

    async def order():
        async with in_process(shop.app, wait_for_background=False) as client:
            answers.append((await client.post("/orders/7")).status_code)
            shop.post.set()

    with pytest.raises(LookupError, match="no such address"):
        await order()
    assert answers == [200]
    assert shop.events == ["shut down"]


async def test_several_failures_come_as_a_group():
    shop = Shop(error=LookupError("no such address"))

    async def two_orders():
        async with in_process(shop.app, wait_for_background=False) as client:
            await asyncio.gather(client.post("/orders/7"), client.post("/orders/8"))
            shop.post.set()

    with pytest.raises(ExceptionGroup) as raised:
        await two_orders()
    assert [type(error) for error in raised.value.exceptions] == [LookupError] * 2


async def test_without_raise_errors_a_failure_after_the_answer_is_not_raised():
    shop = Shop(error=LookupError("no such address"))
    shop.post.set()
    options = {"raise_errors": False, "wait_for_background": False}
    async with in_process(shop.app, **options) as client:
        assert (await client.post("/orders/7")).status_code == 200


async def test_the_blocks_own_error_is_raised_alone():
    shop = Shop(error=LookupError("no such address"))

    async def order_and_fail():
        async with in_process(shop.app, wait_for_background=False) as client:
            await client.post("/orders/7")
            shop.post.set()
            raise KeyError

    with pytest.raises(KeyError) as raised:
        await order_and_fail()
    assert raised.value.__context__ is None


async def test_cancelling_a_caller_without_an_answer_cancels_the_call():
    shop = Shop()
    async with in_process(shop.app, wait_for_background=False) as client:
        caller = asyncio.create_task(client.get("/hangs"))
        await shop.mailing.wait()
        caller.cancel()
        done, _ = await asyncio.wait([caller], timeout=10)
        assert done, "the call goes on"
        assert caller.cancelled()
        assert shop.events == ["mail cancelled"]


async def test_cancelling_the_block_cancels_what_goes_on():
    shop, inside = Shop(), asyncio.Event()

    async def block():
        async with in_process(shop.app, wait_for_background=False) as client:
            await client.post("/orders/7")
            inside.set()

    task = asyncio.create_task(block())
    await inside.wait()
    await shop.mailing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert shop.events == ["mail cancelled", "shut down"]
