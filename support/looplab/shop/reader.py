"""A reader of lesson 11's exports: it keeps nothing, and notes what came when."""

import time
from dataclasses import dataclass, field

import httpx

PATH = "/export/users"


@dataclass(slots=True)
class Download:
    """What a reader saw of one export. Times are seconds since it asked.

    ``first_row`` is when something came after the header line, ``total`` when all was read, and
    ``work`` the processor time of this process until then. ``kind`` is the media type, and ``name``
    what the file is to be called, as the headers say. ``sizes`` are the bytes of the chunks.
    ``lines`` counts line ends. ``error`` is what the client raised, ``None`` for a whole response.
    """

    status: int = 0
    kind: str = ""
    name: str = ""
    first_row: float = 0.0
    total: float = 0.0
    work: float = 0.0
    lines: int = 0
    sizes: list[int] = field(default_factory=list)
    error: httpx.HTTPError | None = None


async def download(client: httpx.AsyncClient, path: str = PATH) -> Download:
    """Read ``path`` to its end and return what was seen; an error of the client's is kept in it."""
    seen = Download()
    began, worked = time.perf_counter(), time.process_time()
    try:
        async with client.stream("GET", path) as response:
            seen.status = response.status_code
            seen.kind = response.headers.get("Content-Type", "")
            seen.name = response.headers.get("Content-Disposition", "")
            async for chunk in response.aiter_raw():
                seen.sizes.append(len(chunk))
                seen.lines += chunk.count(b"\n")
                if not seen.first_row and seen.lines > 1:
                    seen.first_row = time.perf_counter() - began
    except httpx.HTTPError as error:
        seen.error = error
    seen.total, seen.work = time.perf_counter() - began, time.process_time() - worked
    return seen
