"""Three ways to hand events to handlers, for lesson 12 to compare: a queue, pyee and blinker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from blinker import Signal
from pyee.asyncio import AsyncIOEventEmitter

from looplab.shop.newcomers import running

EVENT = "user.created"


def _handler() -> Callable[[Any], Awaitable[None]]:
    async def handler(data: Any) -> None:
        pass

    return handler


@asynccontextmanager
async def three_buses(
    *, events: int, handlers: int = 3
) -> AsyncGenerator[dict[str, Callable[[], Awaitable[None]]]]:
    """Yield, by name, functions that publish so many events and wait until all are dealt with.

    Each event goes to so many handlers, which wait for nothing. The queue has one worker, which
    calls them in turn.
    """
    called = [_handler() for _ in range(handlers)]
    queue: asyncio.Queue[int] = asyncio.Queue()
    emitter, signal = AsyncIOEventEmitter(), Signal()
    for handler in called:
        emitter.on(EVENT, handler)
        signal.connect(handler)

    async def worker() -> None:
        while True:
            number = await queue.get()
            for handler in called:
                await handler(number)
            queue.task_done()

    async def through_queue() -> None:
        for number in range(events):
            queue.put_nowait(number)
        await queue.join()

    async def through_pyee() -> None:
        for number in range(events):
            emitter.emit(EVENT, number)
        await emitter.wait_for_complete()

    async def through_blinker() -> None:
        for number in range(events):
            await signal.send_async(number)

    async with running(worker()):
        yield {"queue": through_queue, "pyee": through_pyee, "blinker": through_blinker}
