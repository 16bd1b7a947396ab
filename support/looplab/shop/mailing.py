"""Fifty people to write to, and a mailer that doesn't serve all of them well: lesson 03's stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

import httpx

from looplab.shop import Shop, open_shop
from looplab.shop.letter_book import make_letter_table
from looplab.shop.partners import Mailer, in_this_process

PEOPLE: Final = 50
REFUSED: Final = (6, 30, 43)
SLOW: Final = (3, 39)
NAMELESS: Final = 12
"""Which of the people, counted from 0, never told us a name: the thirteenth."""


@dataclass(frozen=True)
class Mailing:
    """A shop, the people in it and the mailer that they are written to by.

    Attributes:
        shop: a shop of fifty users, with the table of all letter books.
        mailer: refuses the letters to three of them and is slow for two.
        letters: a client of the mailer, in this process.
        address: addresses by user, in the order of the letters.
        names: names by user; one is empty.
    """

    shop: Shop
    mailer: Mailer
    letters: httpx.AsyncClient
    address: dict[UUID, str]
    names: dict[UUID, str]


async def open_mailing(*, latency: float, slow: float) -> Mailing:
    """Open the shop and its mailer, which takes ``latency`` seconds for a letter, or ``slow``.

    Close ``shop`` and ``letters`` in the end. Raises what `open_shop` and `Mailer` raise.
    """
    mailer = Mailer(latency=latency)
    shop = await open_shop(users=PEOPLE)
    await make_letter_table(shop)
    people = await shop.users.get_batch(0, PEOPLE)
    for number in REFUSED:
        mailer.fault(people[number].email, failure=True)
    for number in SLOW:
        mailer.fault(people[number].email, latency=slow)
    names = {user.id: user.name for user in people}
    names[people[NAMELESS].id] = ""
    return Mailing(
        shop=shop,
        mailer=mailer,
        letters=in_this_process(mailer, "http://mailer"),
        address={user.id: user.email for user in people},
        names=names,
    )
