"""Lesson 03's mailer on a real server, which goes on with a letter when its caller has gone."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from looplab.lab import serve, until
from looplab.shop.mailing import SLOW, Mailing


@asynccontextmanager
async def mailer_on_a_server(
    mailing: Mailing, *, slow: float | None = None, **options: Any
) -> AsyncGenerator[httpx.AsyncClient]:
    """Serve the mailer of ``mailing`` on this machine, and yield a client of it.

    Args:
        mailing: the people and their mailer, which goes on counting from where it stands.
        slow: seconds that the slow addresses take within the block. As much time passes at its end,
            so that every letter that had left has arrived, also where its sender was cancelled.
            Without it they take what they took before.
        options: those of the client, such as ``timeout``.

    Raises what `serve` raises, and ValueError when ``slow`` is negative.
    """
    mailer = mailing.mailer
    before = dict(mailer.faults)
    if slow is not None:
        addresses = list(mailing.address.values())
        for number in SLOW:
            mailer.fault(addresses[number], latency=slow)
    try:
        async with serve(mailer.app) as server, server.client(**options) as client:
            yield client
            await asyncio.sleep(slow or 0)
            await until(lambda: mailer.in_flight == 0)
    finally:
        mailer.faults.clear()
        mailer.faults.update(before)
