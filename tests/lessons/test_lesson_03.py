"""What lesson 03 ships, attacked: a bug, an outage, a hanging address, a cancellation, a double."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI, Response

from looplab.lab import serve
from looplab.shop.letter_book import LetterBook
from looplab.shop.mailing import NAMELESS, PEOPLE, REFUSED, SLOW, Mailing, open_mailing

pytestmark = pytest.mark.anyio

SHIPPED = (
    "setup",
    "greet",
    "outcome",
    "expected",
    "send-letter",
    "breaks-lost",
    "keep-one",
    "ship",
)


@pytest.fixture
async def mailing() -> AsyncGenerator[Mailing]:
    opened = await open_mailing(latency=0.01, slow=0.05)
    yield opened
    await opened.letters.aclose()
    await opened.shop.close()


@pytest.fixture
async def lesson(cells_of: Callable[[str], Any], mailing: Mailing) -> dict[str, Any]:
    """The names of the shipped cells, with everybody's address; all have a name."""
    cells = cells_of("03")
    cells.names |= {
        "address": mailing.address,
        "names": {**mailing.names, everyone(mailing)[NAMELESS]: "Ada"},
        "everyone": everyone(mailing),
        "shop": mailing.shop,
        "letters": mailing.letters,
    }
    return await cells.run(*SHIPPED)


def everyone(mailing: Mailing) -> list[UUID]:
    return list(mailing.address)


def left(mailing: Mailing) -> Counter[str]:
    """How many letters each address got."""
    return Counter(mail.to for mail in mailing.mailer.sent)


def answers(status: int) -> httpx.AsyncClient:
    """Return a client of a mailer that answers every letter with ``status``."""
    app = FastAPI()

    @app.post("/send")
    async def send() -> Response:
        return Response(status_code=status, headers={"location": "/elsewhere"})

    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://mailer")


@pytest.mark.parametrize(
    ("status", "ends"),
    [(202, "sent"), (429, "refused"), (503, "refused"), (500, "unknown"), (504, "unknown")],
)
async def test_a_status_becomes_an_outcome(lesson, mailing, status, ends) -> None:
    async with answers(status) as client:
        outcome = await lesson["send_letter"](client, everyone(mailing)[0], "Hello.")
    assert outcome.status == ends
    assert "mailer" not in outcome.reason


@pytest.mark.parametrize("status", [302, 401, 404, 422])
async def test_a_request_of_ours_that_is_wrong_is_raised_and_sent_again_when_it_is_mended(
    lesson, mailing, status
) -> None:
    users = everyone(mailing)
    book = LetterBook(mailing.shop, "june")
    async with answers(status) as client:
        with pytest.raises(ExceptionGroup) as caught:
            await lesson["send_notifications"](client, book, users, "Hello.")
    assert {repr(error) for error in caught.value.exceptions} == {f"WrongLetter('status {status}')"}
    assert len(caught.value.exceptions) == len(users)
    assert set((await book.statuses()).values()) == {"wrong"}
    await lesson["send_notifications"](mailing.letters, book, users, "Hello.")
    assert Counter((await book.statuses()).values()) == {"sent": 47, "refused": 3}


def test_one_letter_after_another_waits_as_long_as_the_lesson_says(
    cells_of: Callable[[str], Any],
) -> None:
    lesson = cells_of("03")
    opened = re.search(
        r"open_mailing\(latency=ms\((\d+)\), slow=ms\((\d+)\)\)", lesson.source("setup")
    )
    assert opened is not None
    usual, slow = map(int, opened.groups())
    waits = (PEOPLE - len(SLOW)) * usual + len(SLOW) * slow
    assert f"{waits:,} ms" in lesson.source("compare-prose")


async def test_a_mailer_that_is_down_has_refused(lesson, mailing, free_tcp_port) -> None:
    url = f"http://127.0.0.1:{free_tcp_port}"
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        outcome = await lesson["send_letter"](client, everyone(mailing)[0], "Hello.")
    assert (outcome.status, outcome.reason) == ("refused", "ConnectError")


async def test_a_connection_that_ends_without_an_answer_leaves_it_unknown(lesson, mailing) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
            outcome = await lesson["send_letter"](client, everyone(mailing)[0], "Hello.")
    assert outcome.status == "unknown"


async def test_a_wrong_address_of_the_mailer_is_a_bug(lesson, mailing) -> None:
    async with httpx.AsyncClient(base_url="mailto:mailer") as client:
        with pytest.raises(httpx.UnsupportedProtocol):
            await lesson["send_letter"](client, everyone(mailing)[0], "Hello.")


async def test_a_letter_that_hangs_is_unknown_and_not_sent_again(lesson, mailing) -> None:
    some = everyone(mailing)[:12]
    hanging = some[3]
    mailing.mailer.fault(mailing.address[hanging], hang=True)
    book = LetterBook(mailing.shop, "june")
    async with serve(mailing.mailer.app) as server, server.client(timeout=0.5) as client:
        await lesson["send_notifications"](client, book, some, "Hello.")
        assert (await book.statuses())[hanging] == "unknown"
        mailing.mailer.faults.clear()
        await lesson["send_notifications"](client, book, some, "Hello.")
    assert (await book.statuses())[hanging] == "unknown"
    assert left(mailing)[mailing.address[hanging]] == 0
    assert set(left(mailing).values()) == {1}


async def test_a_bug_leaves_every_other_outcome_and_a_second_run_doubles_none(
    lesson, mailing
) -> None:
    users = everyone(mailing)
    nameless = users[NAMELESS]
    lesson["names"][nameless] = ""
    book = LetterBook(mailing.shop, "june")
    with pytest.raises(ExceptionGroup) as caught:
        await lesson["send_notifications"](mailing.letters, book, users, "hello.")
    assert [type(error) for error in caught.value.exceptions] == [UnboundLocalError]
    assert Counter((await book.statuses()).values()) == {"sent": 46, "refused": 3}
    lesson["names"][nameless] = "Ada"
    mailing.mailer.faults.clear()
    await lesson["send_notifications"](mailing.letters, book, users, "hello.")
    assert set(left(mailing).values()) == {1}
    assert Counter((await book.statuses()).values()) == {"sent": 50}


async def test_the_broken_version_doubles_every_letter_that_had_left(lesson, mailing) -> None:
    users = everyone(mailing)
    lesson["names"][users[NAMELESS]] = ""
    async with serve(mailing.mailer.app) as server, server.client() as client:
        with pytest.raises(ExceptionGroup):
            await lesson["send_in_group"](client, users, "hello.")
    first = left(mailing)
    assert len(first) >= 3
    lesson["names"][users[NAMELESS]] = "Ada"
    await lesson["send_in_group"](mailing.letters, users, "hello.")
    assert {address for address, letters in left(mailing).items() if letters == 2} == set(first)


async def test_a_cancelled_run_is_recorded_and_can_be_run_again(lesson, mailing) -> None:
    users = everyone(mailing)
    book = LetterBook(mailing.shop, "june")
    async with serve(mailing.mailer.app) as server, server.client() as client:
        running = asyncio.create_task(lesson["send_notifications"](client, book, users, "Hello."))
        while len(await book.statuses()) < 15:
            assert not running.done()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        statuses = Counter((await book.statuses()).values())
        assert 0 < statuses["unknown"] <= 10
        assert statuses.total() < 50
        mailing.mailer.faults.clear()
        await lesson["send_notifications"](client, book, users, "Hello.")
    assert max(left(mailing).values()) == 1
    after = Counter((await book.statuses()).values())
    assert after == {"sent": 50 - statuses["unknown"], "unknown": statuses["unknown"]}


async def test_of_two_runs_at_once_each_address_gets_one_letter(lesson, mailing) -> None:
    users = everyone(mailing)
    books = [LetterBook(mailing.shop, "june") for _ in range(2)]
    runs = [lesson["send_notifications"](mailing.letters, book, users, "Hi.") for book in books]
    await asyncio.gather(*runs)
    assert set(left(mailing).values()) == {1}
    assert len(left(mailing)) == 47


async def test_two_campaigns_share_the_slots(lesson, mailing) -> None:
    some = everyone(mailing)[8:20]
    mailing.mailer.latency = 0.2
    books = [LetterBook(mailing.shop, campaign) for campaign in ("june", "july")]
    runs = [lesson["send_notifications"](mailing.letters, book, some, "Hi.") for book in books]
    await asyncio.gather(*runs)
    assert mailing.mailer.peak_in_flight == 10
    assert set(left(mailing).values()) == {2}


async def test_no_letter_leaves_that_the_book_does_not_name(lesson, mailing) -> None:
    book = LetterBook(mailing.shop, "june")
    said = []
    send_letter = lesson["send_letter"]

    async def look_and_send(client: Any, user_id: UUID, message: str) -> Any:
        said.append((await book.statuses()).get(user_id))
        return await send_letter(client, user_id, message)

    lesson["send_letter"] = look_and_send
    await lesson["send_notifications"](mailing.letters, book, everyone(mailing)[8:20], "Hello.")
    assert said == ["unknown"] * 12


class Unwritable(LetterBook):
    """A book that cannot be written for one user."""

    def __init__(self, *given: Any, method: str, user_id: UUID) -> None:
        super().__init__(*given)
        self.method, self.user_id = method, user_id

    async def begin(self, user_id: UUID) -> bool:
        if self.method == "begin" and user_id == self.user_id:
            raise OSError("the database is away")
        return await super().begin(user_id)

    async def keep(self, outcome: Any) -> None:
        if self.method == "keep" and outcome.user_id == self.user_id:
            raise OSError("the database is away")
        await super().keep(outcome)


@pytest.mark.parametrize(
    ("method", "letters", "status"), [("begin", 0, None), ("keep", 1, "unknown")]
)
async def test_a_book_that_cannot_be_written_is_raised_and_tells_no_lie(
    lesson, mailing, method, letters, status
) -> None:
    some = everyone(mailing)[8:20]
    book = Unwritable(mailing.shop, "june", method=method, user_id=some[4])
    with pytest.raises(ExceptionGroup) as caught:
        await lesson["send_notifications"](mailing.letters, book, some, "Hello.")
    assert [type(error) for error in caught.value.exceptions] == [OSError]
    assert left(mailing)[mailing.address[some[4]]] == letters
    statuses = await book.statuses()
    assert statuses.get(some[4]) == status
    assert len(left(mailing)) == 11 + letters


async def test_a_letter_that_is_cancelled_from_inside_stays_unknown(lesson, mailing) -> None:
    some = everyone(mailing)[8:20]
    sign_in = asyncio.create_task(asyncio.sleep(60))
    send_letter = lesson["send_letter"]

    async def send_signed_in(client: Any, user_id: UUID, message: str) -> Any:
        if user_id == some[2]:
            sign_in.cancel()
            await sign_in
        return await send_letter(client, user_id, message)

    lesson["send_letter"] = send_signed_in
    book = LetterBook(mailing.shop, "june")
    await lesson["send_notifications"](mailing.letters, book, some, "Hello.")
    assert Counter((await book.statuses()).values()) == {"sent": 11, "unknown": 1}


async def test_the_cards_report_names_the_refused_in_order(cells_of, mailing) -> None:
    cells = cells_of("03")
    cells.names |= {"address": mailing.address, "letters": mailing.letters}
    names = await cells.run("setup", "send-one", "pattern-service")
    report = await names["send_notifications_safe"](everyone(mailing), "Hello.")
    assert [one["user_id"] for one in report["failed"]] == [everyone(mailing)[n] for n in REFUSED]
    assert mailing.mailer.peak_in_flight == 50
    assert "http://mailer" in report["failed"][0]["error"]
