"""People who sign up and what that leads to: what lesson 12 needs beside its event bus."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import httpx
from pydantic import BaseModel
from sqlalchemy import delete, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from looplab.shop.log_lines import only_handler
from looplab.shop.models import OutboxMessage, utc_now
from looplab.shop.partners import Mailer, in_this_process

PATIENCE: Final = 20.0  # seconds in which a wait for letters gives up
LOOK: Final = 0.001  # seconds between two looks at a mailer


class UserCreate(BaseModel):
    """What somebody who signs up sends."""

    name: str
    email: str


def newcomer(name: str) -> UserCreate:
    """Return somebody of that name, who reads mail at ``name@x.test``."""
    return UserCreate(name=name, email=f"{name}@x.test")


def open_mailer(*, latency: float) -> tuple[Mailer, httpx.AsyncClient]:
    """Return a mailer in this process, which takes so many seconds, and a client that reaches it.

    Close the client in the end.
    """
    mailer = Mailer(latency=latency)
    return mailer, in_this_process(mailer, "http://mail.test")


class Effects:
    """Two more tables that a sign-up changes: `settings` by user id, and `indexed`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Empty both."""
        self.settings: dict[str, dict[str, bool]] = {}
        self.indexed: list[str] = []

    async def create_default_settings(self, user_id: str) -> None:
        """Write the settings of a user."""
        self.settings[user_id] = {"newsletter": False}

    async def add_to_search(self, user_data: Mapping[str, Any]) -> None:
        """Make a user's address findable: a handler."""
        self.indexed.append(user_data["email"])


class Reports(logging.Handler):
    """The records of one log, kept to be looked at; they go nowhere else.

    Args:
        name: the logger's name. A second object for the same logger takes the place of the first.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        only_handler(name, self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record."""
        self.records.append(record)

    @property
    def lines(self) -> list[str]:
        """Each record in a line: its message, and behind a colon the exception that it holds."""
        return [_line(record) for record in self.records]

    @property
    def errors(self) -> list[type[BaseException]]:
        """The types of the exceptions that the records hold."""
        return [type(error) for error in map(_error, self.records) if error is not None]

    def clear(self) -> None:
        """Forget all records."""
        self.records.clear()


def _error(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None


def _line(record: logging.LogRecord) -> str:
    error = _error(record)
    told = "" if error is None else f": {type(error).__name__}: {error}".rstrip(": ")
    return record.getMessage() + told.partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Rush:
    """Many requests in one moment, each with a letter. Times are in seconds since the first.

    Attributes:
        answered: when the last of them had its answer.
        mailed: when the mailer had taken the last letter.
        at_once: the most letters that the mailer had in hand at a time.
    """

    answered: float
    mailed: float
    at_once: int

    def row(self, name: str) -> list[str]:
        """Return a row of a table: its name, when answered, when mailed, letters at once."""
        times = (f"{seconds * 1000:.0f} ms" for seconds in (self.answered, self.mailed))
        return [name, *times, str(self.at_once)]


async def rush(
    create_user: Callable[[UserCreate, Any], Awaitable[Any]],
    bus: Any,
    mailer: Mailer,
    *,
    people: int = 10,
) -> Rush:
    """Let so many people sign up at once and wait until each has a letter.

    Args:
        create_user: is called with a `UserCreate` and ``bus`` for each.
        bus: what the events are published to.
        mailer: what the letters reach in the end; its counters start from 0.
        people: how many.
    """
    mailer.reset()
    crowd = [newcomer(f"person-{number}") for number in range(people)]
    began = perf_counter()
    await asyncio.gather(*(create_user(person, bus) for person in crowd))
    answered = perf_counter() - began
    await letters(mailer, people)
    return Rush(answered, perf_counter() - began, mailer.peak_in_flight)


@asynccontextmanager
async def running(worker: Coroutine[Any, Any, None]) -> AsyncGenerator[asyncio.Task[None]]:
    """Run a worker that never ends as a task, yield that, and stop it when the block ends."""
    task = asyncio.create_task(worker, name="worker")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def with_worker(
    worker: Coroutine[Any, Any, None], request: Coroutine[Any, Any, Any], queue: asyncio.Queue[Any]
) -> None:
    """Run a request as a task beside a worker, and wait until the worker has emptied the queue."""
    async with running(worker):
        await asyncio.create_task(request)
        await queue.join()


async def owe(
    sessions: async_sessionmaker[AsyncSession],
    addresses: Sequence[str],
    mailer: Mailer | None = None,
) -> None:
    """Begin anew: empty the outbox, write a letter to each address into it, reset the mailer."""
    if mailer is not None:
        mailer.reset()
    letters = [{"to": address, "subject": "Welcome"} for address in addresses]
    async with sessions.begin() as session:
        await session.execute(delete(OutboxMessage))
        session.add_all(OutboxMessage(event="mail", payload=letter) for letter in letters)


async def owe_many(sessions: async_sessionmaker[AsyncSession], count: int) -> None:
    """Empty the outbox, then write so many letters into it by one statement."""
    await owe(sessions, [])
    rows = text(
        "INSERT INTO outbox_messages (event, payload, created_at, due_at, attempts) "
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers "
        "WHERE n < :count) "
        """SELECT 'mail', '{"to": "user-' || n || '@x.test"}', :now, :now, 0 FROM numbers"""
    )
    now = utc_now().isoformat(" ", "microseconds")
    async with sessions.begin() as session:
        await session.execute(rows, {"count": count, "now": now})


class FlakySessions:
    """A session maker whose database is away for some of the transactions that it is asked for.

    Args:
        sessions: makes the others.
        away: numbers of the transactions that fail; the first is 1.
    """

    def __init__(self, sessions: async_sessionmaker[AsyncSession], away: Sequence[int]) -> None:
        self._sessions = sessions
        self._away = frozenset(away)
        self._asked = 0

    def begin(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Return a transaction; raises OperationalError when the database is away."""
        self._asked += 1
        if self._asked in self._away:
            raise OperationalError("BEGIN", {}, ConnectionError("the database is away"))
        return self._sessions.begin()

    def __call__(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Do as `begin`: sessions that only read are asked for so."""
        return self.begin()


async def owed(sessions: async_sessionmaker[AsyncSession]) -> list[str]:
    """Return the addresses of the letters in the outbox that nobody has sent, oldest first."""
    waiting = select(OutboxMessage.payload).where(OutboxMessage.published_at.is_(None))
    async with sessions() as session:
        payloads = await session.scalars(waiting.order_by(OutboxMessage.id))
        return [payload["to"] for payload in payloads]


async def letters(mailer: Mailer, count: int) -> bool:
    """Wait until the mailer has taken so many letters; returns False if it did not in 20 s."""
    return await _until(lambda: len(mailer.sent) >= count)


async def calls(mailer: Mailer, count: int) -> bool:
    """Wait until so many letters have come to the mailer; returns False if they did not in 20 s."""
    return await _until(lambda: mailer.calls >= count)


async def letter_in_hand(mailer: Mailer) -> bool:
    """Wait until a letter is at the mailer, not yet taken; returns False if none came in 20 s."""
    return await _until(lambda: mailer.in_flight > 0)


async def cancelled_while_mailing(request: Coroutine[Any, Any, Any], mailer: Mailer) -> None:
    """Run a request as a task, and cancel it once a letter is at the mailer."""
    task = asyncio.create_task(request)
    await letter_in_hand(mailer)
    task.cancel()
    await asyncio.wait([task])


async def _until(reached: Callable[[], bool]) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while not reached():  # noqa: ASYNC110 (a partner has no event)
                await asyncio.sleep(LOOK)
    return reached()
