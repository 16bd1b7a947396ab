"""What lesson 10 wraps its layers around, what it asks, and the order in which things happened."""

import asyncio
import logging
from collections.abc import AsyncIterable
from typing import Any

import httpx
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from starlette.types import ASGIApp

from looplab.lab import Recording, mark, ms, serve, until, xray
from looplab.shop import Shop, open_shop
from looplab.shop.log_lines import note_log
from looplab.shop.noting import noting_sessions

events: list[str] = []
"""What has happened since the last `ask`, in its order: lines of the log, and what is noted."""

opened: list[AsyncSession] = []
"""Sessions that the card's layer has opened, kept so that the lesson can close them again."""

reports = FastAPI()
"""An app whose `/report` streams five lines; each takes it 20 ms."""


@reports.get("/report", response_class=StreamingResponse)
async def report() -> AsyncIterable[str]:
    """Send each line as soon as it is there."""
    for number in range(5):
        await asyncio.sleep(ms(20))
        yield f"line {number}\n"
    noted("body ended")


def noted(text: str, shown: str | None = None) -> None:
    """Add a line to `events`, and mark the moment in the picture by it or by ``shown``."""
    mark(shown or text)
    events.append(text)


def logging_to_events() -> logging.Logger:
    """Return a logger whose messages go to `events` alone; pictures mark them as "logged"."""
    return note_log("shop.middleware", lambda line: noted(line, "logged"))


async def open_noting_shop() -> tuple[Shop, async_sessionmaker[Any]]:
    """Open a shop 7 ms away, its pool warm, and return it and a maker of its sessions.

    Each session notes when it has closed. Close the shop in the end.
    """
    shop = await open_shop(round_trip=ms(7))
    await shop.warm()
    await ask(reports, "/report", "to warm up")
    return shop, noting_sessions(shop.engine, noted)


async def ask(app: ASGIApp, path: str, title: str) -> Recording:
    """Send one request to ``app`` on a real server and return the x-ray of it, not drawn yet.

    It ends when the app has done what comes after the answer, too. Its result is the answer.
    `events` begin anew.
    """
    events.clear()
    async with serve(app) as server, server.client() as client:

        async def reader() -> httpx.Response:
            answer = await client.get(path)
            await until(lambda: not server.running_requests)
            return answer

        return await xray(reader(), server=server, title=title, show=False)
