"""The letter book: what became of each letter of a campaign, in the shop's database."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol
from uuid import UUID

from sqlalchemy import Column, MetaData, String, Table, Uuid, select, update
from sqlalchemy.dialects import postgresql, sqlite

from looplab.shop import Shop

UNKNOWN: Final = "unknown"
REFUSED: Final = "refused"
WRONG: Final = "wrong"


class WrongLetter(Exception):
    """A letter was wrong, by what its outcome says. It's in the book, and may be sent again."""


_letters = Table(
    "letters",
    MetaData(),
    Column("campaign", String(80), primary_key=True),
    Column("user_id", Uuid, primary_key=True),
    Column("status", String(16), nullable=False),
    Column("reason", String(200), nullable=False),
)


class Outcome(Protocol):
    """How one letter ended."""

    @property
    def user_id(self) -> UUID:
        """Whose letter it is."""
        ...

    @property
    def status(self) -> str:
        """One word: the book knows "refused", "unknown" and "wrong"; any other is an end."""
        ...

    @property
    def reason(self) -> str:
        """Why; empty where there is nothing to say."""
        ...


class LetterBook:
    """The letters of one campaign, a row each. Each call is one statement, committed at once.

    Its table must be there: see `make_letter_table`.

    So it holds after a crash, for several processes, and for two that announce the same thing at
    the same time: the primary key (campaign, user) lets one of them begin a letter.
    """

    def __init__(self, shop: Shop, campaign: str) -> None:
        self._shop = shop
        self._campaign = campaign
        self._turn = asyncio.Lock()  # SQLite has one writer; those in line do not try at random

    async def begin(self, user_id: UUID) -> bool:
        """Note the letter as unknown, and return True, if it may be sent now.

        It may if it has never begun, or was refused or wrong. In all other cases return False.
        """
        insert = _inserts[self._shop.engine.dialect.name]
        row = insert(_letters).values(
            campaign=self._campaign, user_id=user_id, status=UNKNOWN, reason=""
        )
        claim = row.on_conflict_do_update(
            index_elements=[_letters.c.campaign, _letters.c.user_id],
            set_={"status": UNKNOWN, "reason": ""},
            where=_letters.c.status.in_([REFUSED, WRONG]),
        )
        return await self._write(claim) == 1

    async def keep(self, outcome: Outcome) -> None:
        """Note how the letter ended.

        Raises LookupError for one that has not begun, and WrongLetter, with the outcome's reason,
        once it has noted one that was wrong: that is a bug of the sender's.
        """
        row = update(_letters).where(
            _letters.c.campaign == self._campaign, _letters.c.user_id == outcome.user_id
        )
        if not await self._write(row.values(status=outcome.status, reason=outcome.reason)):
            raise LookupError(f"user_id={outcome.user_id!r}: this letter has not begun")
        if outcome.status == WRONG:
            raise WrongLetter(outcome.reason)

    async def statuses(self) -> dict[UUID, str]:
        """Return the status of each letter that has begun."""
        rows = select(_letters.c.user_id, _letters.c.status)
        async with self._shop.session() as session:
            found = await session.execute(rows.where(_letters.c.campaign == self._campaign))
            return {row.user_id: row.status for row in found}

    async def _write(self, statement: Any) -> int:
        async with self._turn, self._shop.engine.begin() as db:
            return (await db.execute(statement)).rowcount


_inserts: Mapping[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


async def make_letter_table(shop: Shop) -> None:
    """Make the table of all books if it is not there: once, before anybody opens one."""
    async with shop.engine.begin() as db:
        await db.run_sync(_letters.metadata.create_all)
