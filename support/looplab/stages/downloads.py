"""What lesson 11 measures: exports that a real server sends, and rows that move meanwhile."""

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from looplab.lab import Recording, ms, peak_memory, serve, show_table, until, xray
from looplab.shop import open_shop
from looplab.shop.reader import PATH, Download, download

Endpoint = Callable[..., Any]
NextPage = Callable[[Any, int, Any], Awaitable[Sequence[Any]]]

PATIENCE = 60  # seconds
HELD = 100  # milliseconds: a longer step is red
USERS = 3_000
PAGES = 3
LEAVE = 10


@dataclass(frozen=True, slots=True)
class Measured:
    """One export, as its server and its reader saw it.

    Attributes:
        recording: the x-ray of the reader and of the server.
        download: what the reader saw.
        memory: by how much the whole process grew meanwhile, at most, in bytes.
    """

    recording: Recording
    download: Download
    memory: int

    @property
    def longest_step(self) -> float:
        """How long the longest single step kept its loop, in seconds."""
        return self.recording.longest_hold


async def measured(export: Endpoint | FastAPI, title: str, *, rounds: int = 1) -> Measured:
    """Serve ``export``, read it to its end, and return what that took.

    An endpoint is served as ``GET /export/users`` of an app of its own; an app has that path. Of
    several rounds the one with the shortest longest step is returned: what else the machine does
    has only ever made a step longer.

    Raises ValueError when ``rounds`` is below 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; measure at least once")
    app = export if isinstance(export, FastAPI) else _app_of(export)
    runs = [await _round(app, title) for _ in range(rounds)]
    return min(runs, key=lambda run: run.longest_step)


async def _round(app: FastAPI, title: str) -> Measured:
    async with serve(app) as server, server.client(timeout=PATIENCE) as client:

        async def reader() -> Download:
            got = await download(client)
            # the request ends a moment after its reader has the last byte
            await until(lambda: not server.running_requests)
            return got

        with peak_memory() as memory:
            recording = await xray(reader(), title=title, server=server, held=ms(HELD), show=False)
    return Measured(recording, recording.result, memory.peak)


async def read_stream(rows: Callable[[], AsyncIterable[str]]) -> Download:
    """Serve what the generator yields as a stream, and return what a reader sees of it."""

    async def stream() -> StreamingResponse:
        return StreamingResponse(rows(), media_type="text/csv")

    async with serve(_app_of(stream)) as server, server.client(timeout=PATIENCE) as client:
        return await download(client)


def _app_of(endpoint: Endpoint) -> FastAPI:
    app = FastAPI()
    app.get(PATH)(endpoint)
    return app


def show_downloads(exports: Mapping[str, Measured]) -> None:
    """Show a table of exports, by the names of its columns: first row, memory, and whole time."""
    runs = exports.values()
    rows = [
        ["first row, ms", *[f"{run.download.first_row * 1e3:,.0f}" for run in runs]],
        ["memory, MB", *[f"{run.memory / 1e6:,.0f}" for run in runs]],
        ["whole download, ms", *[f"{run.download.total * 1e3:,.0f}" for run in runs]],
    ]
    show_table(["100,000 users", *exports], rows)


async def rows_missing(next_page: NextPage) -> int:
    """Read 3,000 users in three pages of 1,000; return how many of them are on no page.

    After the first page its first ten users are deleted. ``next_page(sessions, sent, after)`` is
    told how many users were sent, and the ``created_at`` and ``id`` of the last of them, or None.
    """
    sent: list[Any] = []
    after = None
    async with open_shop(users=USERS, products=0, name="moving") as moving:
        for number in range(PAGES):
            page = await next_page(moving.sessions, len(sent), after)
            sent += [user.id for user in page]
            after = (page[-1].created_at, page[-1].id)
            if number == 0:
                for user in page[:LEAVE]:
                    await moving.users.delete(user.id)
    return USERS - len(set(sent))
