"""The exercise of lesson 11: export users as JSON Lines, page by page, while rows are deleted.

Keyset pages are what the lesson teaches. A server-side cursor (``session.stream`` with
``yield_per``), or one session for all pages, survives the deletes too, and keeps a connection for
as long as the reader reads, which is for as long as the reader likes: it is refused.

The table has no index here that would order what the learner's statement does not.
"""

import asyncio
import contextlib
import functools
import gc
import inspect
import json
import math
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from sqlalchemy import event

from looplab.exercises.checking import check, require_function
from looplab.exercises.error_text import tell
from looplab.exercises.lending import lent_shop
from looplab.exercises.sandbox import Sandbox, blame
from looplab.exercises.verdicts import Exercise, Mistake, Verdict, Wrong, wrong
from looplab.lab.silent_failures import let_go
from looplab.lab.units import ms
from looplab.shop import Shop
from looplab.shop.models import User

USERS = 96
PAGE = 11  # eight full pages and one of eight
EVEN_PAGE = 12  # eight full pages
OTHER_PAGES = (2, 2 * USERS)  # fewer users than share one created_at, and more than there are
KEPT = 500  # milliseconds that a connection may take to come back once a page has been sent
LONGEST_LINE = 100_000  # characters
BREAKS_AFTER = 2  # pages, where the database is to fail
_User = tuple[UUID, str, str]

KEYS = frozenset({"id", "name", "email"})
EXAMPLE = "check_export(export_users)"
NAMES = (
    'Ada "Countess" Lovelace',
    "Björn\nÞórsdóttir",
    "back\\slash, comma; semicolon",
    "line\u2028separator",
    "Zoë 🧵\r\n",
    "{braces} '% s'",
)

EXERCISE = Exercise(
    lesson="11",
    check="check_export",
    stub="untouched",
    task="Export all users as JSON Lines with keyset pages, while exported rows are deleted.",
    usual_wrong_prediction=(
        "That streaming makes the whole download quicker: the first byte comes sooner and the "
        "memory stays flat, while the total time stays about the same."
    ),
    mistakes=(
        Mistake(
            "untouched",
            "leaves the stub as it is: not one user is yielded",
            "No user has been yielded yet. Start with the first page: one JSON object a line, all "
            "lines of the page in one chunk.",
        ),
        Mistake(
            "first-page-only",
            "yields the first page and ends",
            "The first page is right, and the rest is missing. Ask for the page behind the last "
            "user's (created_at, id) until a page comes back empty.",
        ),
        Mistake(
            "offset",
            "pages with OFFSET",
            "Users are skipped when rows that you have sent are deleted meanwhile: OFFSET counts "
            "rows that are no longer there. Remember the last user's key, and ask for what is "
            "greater.",
        ),
        Mistake(
            "key-with-ties",
            "compares created_at alone",
            "Several users share one created_at, and a page that ends among them loses the others. "
            "Compare the pair: tuple_(User.created_at, User.id) > (created_at, id).",
        ),
        Mistake(
            "order-with-ties",
            "orders by created_at alone, or by created_at and another column than id",
            "Several users share one created_at, and the database may return them in any order: "
            "an index hides that here and there, until it is dropped. Order by the same pair that "
            "the next page begins after, created_at and id.",
        ),
        Mistake(
            "skips-rows",
            "loses users for another reason, such as wanting both created_at and id to be greater",
            "Users are missing, whether or not anybody deletes. The next page begins behind the "
            "pair (created_at, id), compared as one key by tuple_.",
        ),
        Mistake(
            "repeats-rows",
            "uses >= where > is meant, or does not move the key on",
            "Users come twice. The next page begins behind the last user, not with them, by the "
            "same columns that you order by.",
        ),
        Mistake(
            "wrong-order",
            "orders by another key",
            "Every user comes once, and not in order: order by created_at, then by id.",
        ),
        Mistake(
            "last-page-lost",
            "ends at the first page that is not full, before yielding it",
            "The last page is missing: it is shorter than the others. Yield it, then end.",
        ),
        Mistake(
            "fails-at-the-end",
            "takes the last user of an empty page",
            "The export fails when there is no further user: a page can come back empty, because "
            "the last one was full or because there are no users at all.",
        ),
        Mistake(
            "empty-for-ever",
            "loops on when pages come back empty",
            "The export goes on for ever with empty pages: end when a page is empty.",
        ),
        Mistake(
            "loads-all",
            "fetches all rows before it yields the first, or keeps those that it has yielded",
            "More rows are in memory than a page needs. Fetch a page, yield it, let go of it, and "
            "fetch the next.",
        ),
        Mistake(
            "page-size-ignored",
            "writes a page size of its own into LIMIT, or joins pages",
            "A page has another size than page_size says, and whoever calls can no longer choose "
            "how much is in memory at once. Use page_size in LIMIT, and yield one page a chunk.",
        ),
        Mistake(
            "chunk-per-row",
            "yields each line by itself",
            "Each user travels in a chunk of their own, and each chunk has its price. Join the "
            "lines of a page and yield them at once.",
        ),
        Mistake(
            "too-many-statements",
            "sends a statement for each user",
            "The export sends far more statements than there are pages: one a page is enough.",
        ),
        Mistake(
            "lines-not-json",
            "builds the line with an f-string",
            "A line is no valid JSON. Names hold quotes, backslashes and line breaks: let "
            "json.dumps write the line.",
        ),
        Mistake(
            "newline-missing",
            "joins lines by a newline and leaves out the one behind the last",
            "Two users stand on one line: end every line of a page with a newline, the last too.",
        ),
        Mistake(
            "array-not-lines",
            "dumps a page as one list",
            "A line holds something else than one user. JSON Lines has one object a line.",
        ),
        Mistake(
            "wrong-fields",
            "leaves a field out, adds one, or changes a value",
            "A line is not what it should be: id, name and email, as they are in the table.",
        ),
        Mistake(
            "not-a-generator",
            "returns instead of yielding, or is a plain def",
            "The export is to be an async generator: async def, with yield inside.",
        ),
        Mistake(
            "wrong-chunk",
            "yields dicts or rows",
            "A chunk must be text or bytes, ready to be sent.",
        ),
        Mistake(
            "session-left-open",
            "opens a session without async with",
            "The reader went away, and the session stayed open with its connection. Open it with "
            "async with, inside the generator: then it closes however the export ends.",
        ),
        Mistake(
            "session-held",
            "holds one session around the loop, or a server-side cursor",
            "The reader had a page and was reading it, and the export kept a connection meanwhile: "
            "twenty readers who go for a coffee empty the pool for everybody. Open a session for "
            "one page, let it close, and yield the page after that.",
        ),
        Mistake(
            "hides-the-failure",
            "catches the database's error and ends, or yields it as a line",
            "The database failed in the middle, and the export ended as if that were all: the "
            "reader keeps half a file and takes it for the whole. Let the error out, so that the "
            "connection breaks off.",
        ),
    ),
)


async def check_export(export_users: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's ``export_users`` of lesson 11, show one line, and return the verdict.

    It is called as ``export_users(sessions, page_size)``, with the sessionmaker of a shop of the
    check's own, and yields text or bytes: a line of JSON with ``id``, ``name`` and ``email`` for
    each user, by ``created_at`` and ``id``. It passes if

    - each user comes once and in order, though the check deletes users as soon as they have come;
    - no more than two pages of rows have been fetched and not yielded, in about a statement a page;
    - a page has ``page_size`` users and travels in one chunk, whatever its names hold;
    - it also ends when the last page is full and when there are no users, and fails when the
      database does;
    - its connection is given back before the reader reads, at the end, and when the reader stops.

    ``limit`` is how long the export may take in all, in seconds; 15 unless given. An endless loop
    that never awaits cannot be stopped: restart the kernel.
    """
    return await check(functools.partial(_judge, export=export_users), limit=limit)


@dataclass(slots=True)
class _Reading:
    """What came out of one export.

    ``sizes`` are the users of each chunk that was not empty, ``held`` is the most rows fetched and
    not yielded by then, ``alive`` the most users in memory, and ``kept`` whether a connection was
    kept while the reader read.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    chunks: int = 0
    sizes: list[int] = field(default_factory=list)
    alive: int = 0
    kept: bool = False
    empty_chunks: int = 0
    held: int = 0
    statements: int = 0
    rest: str = ""
    fault: Exception | None = None
    error: BaseException | None = None


class _Reader:
    """Reads exports of one shop, and counts the rows that are fetched from its database."""

    def __init__(self, sandbox: Sandbox, shop: Shop, export: Callable[..., Any]) -> None:
        self.sandbox = sandbox
        self.shop = shop
        self.export = export
        self.fetched = 0
        event.listen(shop.engine.sync_engine, "connect", self._count_rows)

    def _count_rows(self, connection: Any, _record: object) -> None:
        def counted(_cursor: sqlite3.Cursor, row: Any) -> Any:
            self.fetched += 1
            return row

        connection.driver_connection.row_factory = counted

    async def read(
        self,
        page_size: int,
        *,
        deleting: bool = False,
        chunks: float = math.inf,
        breaks_after: int | None = None,
    ) -> _Reading:
        """Read the export to its end, or for so many chunks; delete each user that has come.

        The database fails ``breaks_after`` so many chunks.

        Raises Wrong for what cannot be read on; failures are kept in the reading.
        """
        reading = _Reading()
        self.fetched = 0
        self.shop.reset_counters()

        async def reads() -> None:
            pages = self._started(page_size)
            try:
                async for chunk in pages:
                    try:
                        await self._take(reading, chunk, deleting=deleting)
                        if reading.chunks == breaks_after:
                            await asyncio.to_thread(_rename, self.shop.path, "users", "away")
                    except Exception as fault:
                        reading.fault = fault
                    if reading.fault is not None or reading.chunks >= chunks:
                        break
            finally:
                if (close := getattr(pages, "aclose", None)) is not None:
                    await close()

        ran = await self.sandbox.run(reads)
        reading.statements = self.shop.statements
        if reading.fault is not None:
            raise reading.fault
        reading.error = ran.error
        if ran.error is None:
            ran.result()
        return reading

    def _started(self, page_size: int) -> AsyncIterator[Any]:
        pages = self.export(page_size)
        if inspect.iscoroutine(pages):
            pages.close()
        if not hasattr(pages, "__aiter__"):
            raise EXERCISE.wrong("not-a-generator")
        return pages

    async def _take(self, reading: _Reading, chunk: object, *, deleting: bool) -> None:
        if not isinstance(chunk, str | bytes):
            raise EXERCISE.wrong("wrong-chunk", f"it yielded {type(chunk).__name__}")
        reading.chunks += 1
        reading.held = max(reading.held, self.fetched - len(reading.rows))
        reading.empty_chunks = 0 if chunk else reading.empty_chunks + 1
        if reading.empty_chunks > 3:
            raise EXERCISE.wrong("empty-for-ever")
        if reading.chunks > 10 * USERS:
            raise wrong("never-ends", f"{reading.chunks} chunks for {USERS} users")
        await asyncio.sleep(0)
        *lines, reading.rest = (reading.rest + _text(chunk)).split("\n")
        if len(reading.rest) > LONGEST_LINE:
            raise EXERCISE.wrong("newline-missing", f"a line has over {LONGEST_LINE} characters")
        rows = [_row(line) for line in lines]
        reading.rows += rows
        if rows:
            reading.sizes.append(len(rows))
        if len(reading.sizes) == USERS // PAGE - 1:
            reading.alive = max(reading.alive, await asyncio.to_thread(_alive))
        reading.kept = reading.kept or await self._is_kept()
        if len(reading.rows) > 2 * USERS:
            raise EXERCISE.wrong("repeats-rows", "the export does not end")
        if deleting:
            await asyncio.to_thread(_delete, self.shop.path, [UUID(row["id"]) for row in rows])

    async def _is_kept(self) -> bool:
        """Return whether the export keeps a connection while the reader reads.

        One that fetches the next page meanwhile gets the time to do so.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ms(KEPT)):
                while self.shop.checked_out:  # noqa: ASYNC110 (a pool sets no event)
                    await asyncio.sleep(ms(1))
        return self.shop.checked_out > 0


def _alive() -> int:
    """Return how many users somebody keeps in memory.

    The sandbox keeps the tasks that the export has made, and they keep the pages they returned.
    """
    gc.collect()
    objects = gc.get_objects()
    done = [each for each in objects if isinstance(each, asyncio.Task) and each.done()]
    returned: set[int] = set()
    for task in done:
        if not task.cancelled() and task.exception() is None:
            result = task.result()
            returned.update(map(id, result if isinstance(result, list | tuple) else ()))
    return sum(type(each) is User and id(each) not in returned for each in objects)


def _text(chunk: str | bytes) -> str:
    try:
        return chunk if isinstance(chunk, str) else chunk.decode()
    except UnicodeDecodeError as error:
        raise EXERCISE.wrong("lines-not-json", f"it is not UTF-8: {error.reason}") from None


def _row(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        name = "newline-missing" if "}{" in line else "lines-not-json"
        raise EXERCISE.wrong(name, f"it begins {line[:30]!r}") from None
    if not isinstance(row, dict):
        raise EXERCISE.wrong("array-not-lines", f"it is a {type(row).__name__}")
    if row.keys() != KEYS:
        raise EXERCISE.wrong("wrong-fields", f"it has {', '.join(sorted(row))}")
    try:
        UUID(row["id"])
    except (ValueError, TypeError, AttributeError):
        raise EXERCISE.wrong("wrong-fields", "an id is no UUID") from None
    return row


async def _judge(sandbox: Sandbox, *, export: Any) -> str:
    export = require_function(export, example=EXAMPLE)
    lending = lent_shop(sandbox, name="exercise 11", users=USERS, products=0)
    async with lending as (shop, sessions):
        await asyncio.to_thread(_prepare, shop.path)
        expected = await asyncio.to_thread(_expected, shop.path)
        reader = _Reader(sandbox, shop, lambda page_size: export(sessions, page_size))
        reading = await reader.read(PAGE)
        _judge_rows(reading, expected, await asyncio.to_thread(_instants, shop.path))
        _judge_pages(reading)
        await _judge_deletes(reader, expected)
        await _judge_ends(reader, expected)
        await _judge_sizes(reader, expected)
        await _judge_early_close(reader)
        if reading.kept:
            raise EXERCISE.wrong("session-held")
        await _judge_failure(reader)
    return (
        "Every user once and in order while rows were deleted; a page at a time in memory, a chunk "
        "a page, and no connection kept while the reader reads or when the reader goes away."
    )


def _judge_rows(reading: _Reading, expected: list[_User], instants: dict[UUID, str]) -> None:
    if reading.error is not None:
        if len(reading.rows) == len(expected):
            raise _failed_at_the_end(reading.error)
        raise blame(reading.error)
    if reading.rest:
        raise EXERCISE.wrong("newline-missing", "the last line has no end")
    came = _users(reading)
    if came == expected:
        return
    ids = [user[0] for user in came]
    known = {user[0]: user for user in expected}
    if not came:
        raise EXERCISE.wrong("untouched")
    if any(known.get(user[0]) != user for user in came):
        raise EXERCISE.wrong("wrong-fields", "a value differs")
    if _ties_out_of_order(ids[:PAGE], instants):
        raise EXERCISE.wrong("order-with-ties")
    if len(set(ids)) < len(ids):
        raise EXERCISE.wrong("repeats-rows")
    if len(ids) == len(expected):
        raise EXERCISE.wrong("wrong-order")
    if came == expected[:PAGE]:
        raise EXERCISE.wrong("first-page-only")
    if came == expected[: USERS // PAGE * PAGE]:
        raise EXERCISE.wrong("last-page-lost")
    sent = {instants[one] for one in ids}
    only_ties = all(instants[one] in sent for one in known.keys() - set(ids))
    raise EXERCISE.wrong("key-with-ties" if only_ties else "skips-rows", _missed(came, expected))


def _ties_out_of_order(ids: list[UUID], instants: dict[UUID, str]) -> bool:
    """Return whether one page is in order but for those who share one created_at."""
    moments = [instants[one] for one in ids]
    pairs = pairwise(zip(moments, ids, strict=True))
    return moments == sorted(moments) and any(
        one[0] == another[0] and one[1].hex > another[1].hex for one, another in pairs
    )


def _judge_pages(reading: _Reading) -> None:
    pages = math.ceil(USERS / PAGE)
    full = set(reading.sizes[:-1])
    if len(reading.sizes) > 2 and len(full) == 1 and not full & {1, PAGE}:
        raise EXERCISE.wrong("page-size-ignored", f"{reading.sizes[0]} users in place of {PAGE}")
    if reading.statements > pages + 2:
        raise EXERCISE.wrong("too-many-statements", f"{reading.statements} for {pages} pages")
    if reading.held > 2 * PAGE + 1:
        raise EXERCISE.wrong("loads-all", f"{reading.held} rows for pages of {PAGE}")
    if reading.alive > 4 * PAGE:
        raise EXERCISE.wrong("loads-all", f"{reading.alive} users kept, most of them already sent")
    if reading.chunks > 2 * pages:
        raise EXERCISE.wrong("chunk-per-row", f"{reading.chunks} chunks for {pages} pages")
    _judge_page_size(reading, PAGE)


def _judge_page_size(reading: _Reading, size: int) -> None:
    due = [size] * (USERS // size) + [USERS % size] * (USERS % size > 0)
    if reading.sizes != due:
        differs = next(
            (came, wanted)
            for came, wanted in zip_longest(reading.sizes, due, fillvalue=0)
            if came != wanted
        )
        raise EXERCISE.wrong("page-size-ignored", "{} users in place of {}".format(*differs))


async def _judge_sizes(reader: _Reader, expected: list[_User]) -> None:
    for size in OTHER_PAGES:
        reading = await reader.read(size)
        if reading.error is not None:
            raise blame(reading.error)
        if _users(reading) != expected:
            detail = f"with pages of {size}, {_missed(_users(reading), expected)}"
            raise EXERCISE.wrong("skips-rows", detail)
        _judge_page_size(reading, size)


async def _judge_deletes(reader: _Reader, expected: list[_User]) -> None:
    reading = await reader.read(PAGE, deleting=True)
    if reading.error is not None:
        raise blame(reading.error)
    if (came := _users(reading)) != expected:
        raise EXERCISE.wrong("offset", _missed(came, expected))


async def _judge_ends(reader: _Reader, expected: list[_User]) -> None:
    """Read an export of an empty table, then one whose last page is full."""
    for users in ([], expected):
        reading = await reader.read(EVEN_PAGE)
        if reading.error is not None:
            raise _failed_at_the_end(reading.error)
        if _users(reading) != users or reading.rest:
            raise EXERCISE.wrong("fails-at-the-end", "users are missing, or something is added")
        if users:
            _judge_page_size(reading, EVEN_PAGE)
        await asyncio.to_thread(_restore, reader.shop.path)
    if reader.shop.checked_out:
        raise EXERCISE.wrong("session-left-open", "even at the end of the export")


def _failed_at_the_end(error: BaseException) -> Exception:
    if not isinstance(error, IndexError | AttributeError | TypeError | RuntimeError):
        return blame(error)
    told = tell(error)
    let_go(error)
    return EXERCISE.wrong("fails-at-the-end", told)


async def _judge_early_close(reader: _Reader) -> None:
    reading = await reader.read(PAGE, chunks=2)
    if reading.error is not None:
        raise blame(reading.error)
    if reader.shop.checked_out:
        raise EXERCISE.wrong("session-left-open")


async def _judge_failure(reader: _Reader) -> None:
    """Let the database fail in the middle of the export."""
    try:
        reading = await reader.read(PAGE, breaks_after=BREAKS_AFTER)
    except Wrong as found:
        raise EXERCISE.wrong("hides-the-failure", found.mistake.name) from None
    finally:
        await asyncio.to_thread(_rename, reader.shop.path, "away", "users")
    if reading.error is None:
        raise EXERCISE.wrong("hides-the-failure", f"after {len(reading.rows)} of {USERS} users")
    if not isinstance(reading.error, Exception):
        raise blame(reading.error)
    let_go(reading.error)
    if reader.shop.checked_out:
        raise EXERCISE.wrong("session-left-open", "after the database had failed")


def _missed(came: list[_User], expected: list[_User]) -> str:
    return f"{len(set(expected) - set(came))} of {len(expected)} users are missing"


def _users(reading: _Reading) -> list[_User]:
    return [(UUID(row["id"]), row["name"], row["email"]) for row in reading.rows]


def _prepare(path: Path) -> None:
    """Make a careless export fail, and keep a copy of all users.

    Ids are shuffled, so that they do not rise with created_at, and some names are hard to write.
    """
    with closing(sqlite3.connect(path)) as connection, connection:
        emails = connection.execute("SELECT email FROM users ORDER BY created_at, id").fetchall()
        connection.executemany(
            "UPDATE users SET id = ? WHERE email = ?",
            [(uuid5(NAMESPACE_URL, email).hex, email) for (email,) in emails],
        )
        connection.executemany(
            "UPDATE users SET name = ? WHERE email = ?",
            [(name, *emails[place * 7]) for place, name in enumerate(NAMES)],
        )
        connection.execute("CREATE TABLE kept_users AS SELECT * FROM users")
        connection.execute("DROP INDEX ix_users_created_at_id")


def _restore(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT OR IGNORE INTO users SELECT * FROM kept_users")


def _rename(path: Path, table: str, name: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"ALTER TABLE {table} RENAME TO {name}")


def _delete(path: Path, ids: Iterable[UUID]) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("DELETE FROM users WHERE id = ?", [(one.hex,) for one in ids])


def _expected(path: Path) -> list[_User]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT id, name, email FROM users ORDER BY created_at, id")
        return [(UUID(one), name, email) for one, name, email in rows]


def _instants(path: Path) -> dict[UUID, str]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT id, created_at FROM users")
        return {UUID(one): created_at for one, created_at in rows}
