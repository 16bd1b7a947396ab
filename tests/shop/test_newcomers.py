"""People who sign up, their letters, and a database that is away."""

import asyncio
import logging

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from looplab.lab import compare
from looplab.shop import newcomers, open_shop
from looplab.shop.buses import three_buses
from looplab.shop.models import OutboxMessage
from looplab.shop.newcomers import Effects, FlakySessions, Reports, newcomer

pytestmark = pytest.mark.anyio


async def test_a_newcomer_leaves_effects_that_can_be_reset() -> None:
    effects = Effects()
    assert newcomer("ada").email == "ada@x.test"
    await effects.create_default_settings("7")
    await effects.add_to_search({"email": "ada@x.test"})
    assert (len(effects.settings), effects.indexed) == (1, ["ada@x.test"])
    effects.reset()
    assert (effects.settings, effects.indexed) == ({}, [])


def test_reports_keep_one_line_a_record() -> None:
    reports = Reports("shop.test")
    log = logging.getLogger("shop.test")
    log.error("%s is full", "the queue")
    try:
        raise LookupError("no such\ntemplate")
    except LookupError:
        log.exception("it failed")
    try:
        raise asyncio.CancelledError
    except asyncio.CancelledError:
        log.exception("it ended")
    assert reports.lines == [
        "the queue is full",
        "it failed: LookupError: no such",
        "it ended: CancelledError",
    ]
    assert reports.errors == [LookupError, asyncio.CancelledError]
    reports.clear()
    assert reports.lines == reports.errors == []


async def test_a_rush_counts_answers_and_letters() -> None:
    mailer, mail = newcomers.open_mailer(latency=0.01)

    async def create_user(person: newcomers.UserCreate, bus: str) -> None:
        await mail.post("/send", json={"to": person.email, "subject": bus})

    async with mail:
        rush = await newcomers.rush(create_user, "hello", mailer, people=3)
    assert 0.01 <= rush.answered <= rush.mailed
    assert {letter.subject for letter in mailer.sent} == {"hello"}
    assert (len(mailer.sent), rush.at_once) == (3, 3)
    assert rush.row("three")[::3] == ["three", "3"]


async def test_a_worker_runs_until_the_queue_is_empty() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    done: list[int] = []

    async def work() -> None:
        while True:
            done.append(await queue.get())
            queue.task_done()

    async def ask() -> None:
        queue.put_nowait(1)
        queue.put_nowait(2)

    before = asyncio.all_tasks()
    await newcomers.with_worker(work(), ask(), queue)
    assert done == [1, 2]
    assert asyncio.all_tasks() == before


async def test_what_is_owed_is_what_nobody_has_published() -> None:
    async with open_shop(users=0, products=0) as shop:
        await newcomers.owe(shop.sessions, ["ada@x.test", "bob@x.test"])
        assert await newcomers.owed(shop.sessions) == ["ada@x.test", "bob@x.test"]
        await newcomers.owe_many(shop.sessions, 50)
        owed = await newcomers.owed(shop.sessions)
        assert (len(owed), owed[0]) == (50, "user-1@x.test")
        async with shop.session() as session:
            row = (await session.scalars(select(OutboxMessage).limit(1))).one()
            waiting = select(func.count()).where(OutboxMessage.due_at <= row.created_at)
            assert await session.scalar(waiting) == 50


async def test_flaky_sessions_fail_where_they_are_told_to() -> None:
    async with open_shop(users=0, products=0) as shop:
        flaky = FlakySessions(shop.sessions, [1, 3])
        with pytest.raises(OperationalError, match="the database is away"):
            flaky()
        async with flaky.begin() as session:
            assert await session.scalar(select(1)) == 1
        with pytest.raises(OperationalError):
            flaky.begin()


async def test_a_wait_for_letters_says_when_none_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newcomers, "PATIENCE", 0.01)
    mailer, mail = newcomers.open_mailer(latency=0)
    async with mail:
        assert not await newcomers.letters(mailer, 1)
        assert not await newcomers.calls(mailer, 1)
        assert not await newcomers.letter_in_hand(mailer)
        await mail.post("/send", json={"to": "ada@x.test"})
    assert await newcomers.letters(mailer, 1)


async def test_three_buses_deal_with_every_event() -> None:
    async with three_buses(events=5) as ways:
        timing = await compare(ways, repeat=2, show=False)
    assert list(timing.samples) == ["queue", "pyee", "blinker"]
