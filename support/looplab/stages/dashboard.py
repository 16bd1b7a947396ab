"""What fails beside the queries of lesson 02's dashboard."""

import asyncio
from typing import NoReturn

from fastapi import HTTPException

from looplab.lab import ms

CACHE = 10  # milliseconds: it is nearer than the database


async def find_user() -> NoReturn:
    """Ask a cache, which knows after 10 ms that there is no such user.

    Raises HTTPException, a 404, each time.
    """
    await asyncio.sleep(ms(CACHE))
    raise HTTPException(404, "no such user")
