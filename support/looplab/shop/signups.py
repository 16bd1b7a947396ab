"""The shop's sign-ups as a process of its own, which a lesson starts, watches and kills.

Run as a module it creates a user for each address, in an existing shop's file, and mails them one
after another through a mailer elsewhere. What is still to be mailed it keeps in one of two places:
``queue``, an `asyncio.Queue` in its memory, or ``outbox``, rows written in the transaction that
creates the user. It prints an address when its user is committed, and ends by itself after
`LIFETIME`, so that no lesson can leave it behind for long.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Final, Literal, get_args
from urllib.parse import urlsplit

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from looplab.shop.database import Database
from looplab.shop.models import OutboxMessage, User, utc_now

Keep = Literal["queue", "outbox"]

LIFETIME: Final = 30.0
LOOK: Final = 0.005  # seconds between two looks into an empty outbox


class SignupsFailedError(RuntimeError):
    """The process ended before it had created every user; the message holds what it wrote."""


class SignupProcess:
    """A running process. `signing_up` makes one, and kills it when its block is left."""

    def __init__(self, process: subprocess.Popen[str], addresses: Sequence[str]) -> None:
        self._process = process
        self._addresses = list(addresses)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def users_created(self) -> list[str]:
        """Return the addresses whose users are committed, when that is all of them.

        Raises:
            SignupsFailedError: the process ended before.
        """
        created = await asyncio.to_thread(self._read)
        if created != self._addresses:
            raise SignupsFailedError(await asyncio.to_thread(self._last_words))
        return created

    async def kill(self) -> int:
        """Kill the process as the system does, without a word to it, and return its exit code.

        `Popen.kill` is SIGKILL, and TerminateProcess on Windows: no handler, `finally` or lifespan
        runs. Killing one that has ended does nothing.
        """
        self._process.kill()
        return await asyncio.to_thread(self._process.wait)

    def _read(self) -> list[str]:
        assert self._process.stdout is not None
        lines = (self._process.stdout.readline().strip() for _ in self._addresses)
        return [line for line in lines if line]

    def _last_words(self) -> str:
        self._process.kill()
        written = self._process.communicate()[1].strip()
        return written or f"the process ended with code {self._process.returncode}"


@asynccontextmanager
async def signing_up(
    path: Path, mailer_url: str, addresses: Sequence[str], *, keep: Keep
) -> AsyncGenerator[SignupProcess]:
    """Start a process that signs up `addresses` in the shop at `path`; yields a `SignupProcess`.

    Whatever happens in the block, the process has ended when it is left.

    Args:
        path: the file of a shop that is open in this process.
        mailer_url: a served `Mailer`, such as ``http://127.0.0.1:40123``.
        addresses: an address for each user to create.
        keep: where letters wait until they are sent: "queue" or "outbox".

    Raises:
        ValueError: `keep` is neither, or `addresses` is empty.
    """
    if keep not in get_args(Keep):
        raise ValueError(f"keep={keep!r}: must be one of {', '.join(get_args(Keep))}")
    if not addresses:
        raise ValueError("addresses is empty: give at least one")
    process = _start([str(path), mailer_url, keep, *addresses])
    try:
        yield SignupProcess(process, addresses)
    finally:
        process.kill()
        await asyncio.shield(asyncio.to_thread(process.communicate))


def _start(arguments: list[str]) -> subprocess.Popen[str]:
    # Not asyncio's own subprocesses: the event loop of a notebook on Windows starts none.
    return subprocess.Popen(
        [sys.executable, "-m", __name__, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class _Signups:
    """What runs in the process."""

    def __init__(
        self, sessions: async_sessionmaker[AsyncSession], mailer_url: str, keep: Keep
    ) -> None:
        self._sessions = sessions
        self._mailer = urlsplit(mailer_url).netloc
        self._keep = keep
        self._queue: asyncio.Queue[str] = asyncio.Queue()

    async def run(self, addresses: Sequence[str]) -> None:
        """Create the users, and mail them until somebody ends the process."""
        mailing = self._mail_from_queue if self._keep == "queue" else self._mail_from_outbox
        async with asyncio.TaskGroup() as group:
            group.create_task(mailing())
            for address in addresses:
                await self._create_user(address)
                print(address, flush=True)  # noqa: T201

    async def _create_user(self, address: str) -> None:
        async with self._sessions.begin() as session:
            session.add(User(name=address.partition("@")[0].title(), email=address))
            if self._keep == "outbox":
                session.add(OutboxMessage(event="user.created", payload={"to": address}))
        if self._keep == "queue":
            await self._queue.put(address)

    async def _mail_from_queue(self) -> None:
        while True:
            await self._send(await self._queue.get())

    async def _mail_from_outbox(self) -> None:
        waiting = select(OutboxMessage).where(OutboxMessage.published_at.is_(None))
        while True:
            async with self._sessions() as session:
                message = await session.scalar(waiting.order_by(OutboxMessage.id).limit(1))
            if message is None:
                await asyncio.sleep(LOOK)
                continue
            await self._send(message.payload["to"])
            mine = update(OutboxMessage).where(OutboxMessage.id == message.id)
            async with self._sessions.begin() as session:
                await session.execute(mine.values(published_at=utc_now()))

    async def _send(self, address: str) -> None:
        await asyncio.to_thread(self._post, json.dumps({"to": address, "subject": "Welcome"}))

    # Not httpx: importing it would take a third of the time in which the process starts.
    def _post(self, letter: str) -> None:
        headers = {"Content-Type": "application/json"}
        with closing(HTTPConnection(self._mailer, timeout=LIFETIME)) as connection:
            connection.request("POST", "/send", body=letter, headers=headers)
            status = connection.getresponse().status
        if status != HTTPStatus.ACCEPTED:
            raise RuntimeError(f"the mailer answered {status}")


async def _main(path: str, mailer_url: str, keep: Keep, *addresses: str) -> None:
    database = Database(Path(path))
    sessions = async_sessionmaker(database.engine, expire_on_commit=False)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(LIFETIME):
                await _Signups(sessions, mailer_url, keep).run(addresses)
    finally:
        await database.close()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))  # ty: ignore[invalid-argument-type]
