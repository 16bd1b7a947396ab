"""The export of lesson 06 and of its second helping: ten items, a cleanup, and a log of both.

What the lesson teaches stands in its cells: a test holds `clean_up`, `process_with_cancellation`
and `as_printed` against them.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from anyio import move_on_after
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from looplab.lab import Recording, leave_early, mark, ms, span

log: list[Any] = []
"""A line for each step of every export: "item begun", "item done", "cleanup begun", ..."""
ITEMS = [{"id": number} for number in range(1, 11)]


async def process_item(item: dict[str, int]) -> str:
    """Stand for a call to a partner, which takes 40 ms."""
    log.append("item begun")
    await asyncio.sleep(ms(40))
    log.append("item done")
    mark(str(item["id"]))
    return f"item {item['id']}\n"


def three_done() -> bool:
    """Return whether three items are done."""
    return log.count("item done") >= 3


async def cleanup_resources() -> None:
    """Stand for telling the partner that the export is over, which takes 20 ms."""
    log.append("cleanup begun")
    with span("cleanup"):
        await asyncio.sleep(ms(20))
    log.append("cleanup done")


async def clean_up() -> None:
    """Clean up, shielded and limited, as the lesson ships it."""
    with move_on_after(ms(500), shield=True):
        await cleanup_resources()


async def process_with_cancellation(items: Sequence[dict[str, int]]) -> AsyncGenerator[str]:
    """Yield each item's result; the lesson's generator, which cleans up on every way out."""
    try:
        for item in items:
            yield await process_item(item)
    finally:
        await clean_up()


async def as_printed(items: Sequence[dict[str, int]]) -> AsyncGenerator[str]:
    """Yield each item's result; the card's generator, without the check that never fires."""
    for item in items:
        try:
            yield await process_item(item)
        except asyncio.CancelledError:
            await cleanup_resources()
            raise


async def process_all(items: Sequence[dict[str, int]] = ITEMS) -> list[str]:
    """Return all results of the lesson's generator, which is closed at the end."""
    async with aclosing(process_with_cancellation(items)) as results:
        return [result async for result in results]


def steps() -> list[Any]:
    """Return the lines of the log that are not about items."""
    return [line for line in log if not str(line).startswith("item")]


def export_app(process: Callable[[Sequence[dict[str, int]]], AsyncGenerator[str]]) -> FastAPI:
    """Return an app whose `/export` streams what the generator ``process`` makes of the items."""
    app = FastAPI()

    @app.get("/export")
    async def export() -> StreamingResponse:
        return StreamingResponse(process(ITEMS))

    return app


async def visit(app: FastAPI, title: str) -> tuple[Recording, list[Any]]:
    """Have a client leave `/export` after three items; the log begins anew.

    Returns the x-ray of the visit, not drawn yet, and the log's lines.
    """
    log.clear()
    seen = await leave_early(app, "/export", when=three_done, title=title)
    return seen, list(log)
