"""The letter book of lesson 03."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from uuid import UUID

import pytest

from looplab.shop import Shop, open_shop
from looplab.shop.letter_book import LetterBook, WrongLetter, make_letter_table

pytestmark = pytest.mark.anyio
ADA = UUID(int=1)
BOB = UUID(int=2)


@dataclass(frozen=True)
class Ended:
    user_id: UUID
    status: str
    reason: str = ""


@pytest.fixture
async def shop() -> AsyncGenerator[Shop]:
    async with open_shop(users=0, products=0, name="letters") as opened:
        await make_letter_table(opened)
        yield opened


async def test_a_letter_begins_unknown_and_ends(shop: Shop) -> None:
    book = LetterBook(shop, "june")
    assert await book.begin(ADA)
    assert await book.statuses() == {ADA: "unknown"}
    await book.keep(Ended(ADA, "sent"))
    assert await book.statuses() == {ADA: "sent"}


@pytest.mark.parametrize(
    ("status", "again"), [("sent", False), ("unknown", False), ("refused", True)]
)
async def test_only_a_refused_letter_begins_again(shop: Shop, status: str, again: bool) -> None:
    book = LetterBook(shop, "june")
    await book.begin(ADA)
    await book.keep(Ended(ADA, status))
    assert await book.begin(ADA) is again
    assert await book.begin(ADA) is False


async def test_campaigns_are_apart_and_outlive_their_book(shop: Shop) -> None:
    await LetterBook(shop, "june").begin(ADA)
    assert await LetterBook(shop, "july").begin(ADA)
    assert not await LetterBook(shop, "june").begin(ADA)


async def test_of_many_that_begin_one_letter_at_once_one_may(shop: Shop) -> None:
    books = [LetterBook(shop, "june") for _ in range(5)]
    may = await asyncio.gather(*(book.begin(BOB) for book in books))
    assert sorted(may) == [False] * 4 + [True]


async def test_a_letter_that_has_not_begun_is_named(shop: Shop) -> None:
    book = LetterBook(shop, "june")
    with pytest.raises(LookupError, match="has not begun"):
        await book.keep(Ended(ADA, "sent"))


async def test_a_wrong_letter_is_raised_once_it_is_in_the_book_and_begins_again(shop: Shop) -> None:
    book = LetterBook(shop, "june")
    await book.begin(ADA)
    with pytest.raises(WrongLetter, match="status 422"):
        await book.keep(Ended(ADA, "wrong", "status 422"))
    assert await book.statuses() == {ADA: "wrong"}
    assert await book.begin(ADA)


@pytest.mark.postgres
async def test_a_server_keeps_the_same_book(postgres_server: str) -> None:
    async with open_shop(users=0, products=0, database_url=postgres_server) as shop:
        await make_letter_table(shop)
        books = [LetterBook(shop, "june") for _ in range(5)]
        may = await asyncio.gather(*(book.begin(BOB) for book in books))
        assert sorted(may) == [False] * 4 + [True]
        await books[0].keep(Ended(BOB, "refused"))
        assert await books[1].begin(BOB)
        assert await books[1].statuses() == {BOB: "unknown"}
