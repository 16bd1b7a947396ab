"""Lesson 12: what its bus, its worker and its relay do when things go wrong."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError, StatementError

from looplab.lab import caught_leaks, in_process, ms, serve
from looplab.shop import Shop, open_shop
from looplab.shop.models import OutboxMessage, utc_now
from looplab.shop.newcomers import (
    Effects,
    FlakySessions,
    Reports,
    calls,
    letter_in_hand,
    letters,
    newcomer,
    open_mailer,
    owe,
    owed,
    running,
    rush,
)
from looplab.shop.partners import Mailer

pytestmark = pytest.mark.anyio

EVENT = "user.created"
Names = SimpleNamespace


def quick(milliseconds: float) -> float:
    """Return a hundredth of what a lesson's ``ms`` would: its deadlines are too long for a test."""
    return milliseconds / 100_000


@pytest.fixture
async def reports() -> Reports:
    return Reports("shop")


@pytest.fixture
async def shop() -> AsyncGenerator[Shop]:
    async with open_shop(users=0, products=0) as shop:
        yield shop


@pytest.fixture
async def bus(cells_of: Any, reports: Reports, shop: Shop) -> Names:
    """Return what the lesson defines."""
    lesson = cells_of("12")
    await lesson.run("setup")
    lesson.names.update(log=logging.getLogger("shop"), shop=shop)
    await lesson.define("naive-bus", "pattern-bus", "pattern-worker", "breaks-silent-logging")
    await lesson.define("outbox", "practice-supervised", "practice-lifespan")
    lesson.names["ms"] = quick
    return SimpleNamespace(**lesson.names, all=lesson.names)


@pytest.fixture
async def post(cells_of: Any, reports: Reports, shop: Shop) -> AsyncGenerator[Names]:
    """Return what the second helping's relay defines, with a mailer that takes no time."""
    mailer, mail = open_mailer(latency=0)
    lesson = cells_of("12_deeper")
    await lesson.run("setup")
    lesson.names.update(log=logging.getLogger("shop"), shop=shop, mail=mail, mailer=mailer)
    await lesson.define("open-shop", "relay-obvious", "relay-claim", "relay-send", "relay-loop")
    lesson.names["ms"] = quick
    async with mail:
        yield SimpleNamespace(**lesson.names, all=lesson.names, lesson=lesson)


def subscribed(bus: Names, *handlers: Callable[[Any], Any]) -> Any:
    made = bus.LoggingEventBus()
    for handler in handlers:
        made.subscribe(EVENT, handler)
    return made


@asynccontextmanager
async def working(bus: Names, *handlers: Callable[[Any], Any]) -> AsyncGenerator[Any]:
    """Yield a queued bus whose supervised worker runs, and wait until it has nothing left."""
    queued = bus.QueuedEventBus(subscribed(bus, *handlers))
    async with running(bus.supervised(queued)):
        yield queued
        async with asyncio.timeout(5):
            await queued.queue.join()


# ---------------------------------------------------------------- the lesson's bus and worker


@pytest.fixture
async def signing_up(bus: Names, cells_of: Any) -> AsyncGenerator[Names]:
    """Return what the lesson defines, ``create_user`` and its handler too, and their mailer."""
    mailer, mail = open_mailer(latency=0.05)
    given = cells_of("12")
    given.names.update(bus.all, mail=mail, effects=Effects())
    await given.define("naive-handlers", "naive-service")
    async with mail:
        yield SimpleNamespace(**given.names, mailer=mailer)


async def test_the_cards_bus_sends_letters_side_by_side_and_a_worker_one_by_one(
    signing_up: Names,
) -> None:
    handlers, mailer = signing_up.AsyncEventBus(), signing_up.mailer
    handlers.subscribe(EVENT, signing_up.on_user_created)
    waiting = await rush(signing_up.create_user, handlers, mailer)
    queued = signing_up.QueuedEventBus(handlers)
    async with running(signing_up.work(queued)):
        quick = await rush(signing_up.create_user, queued, mailer)
    assert waiting.at_once > quick.at_once == 1
    assert quick.answered < quick.mailed
    assert waiting.mailed < quick.mailed


async def test_the_cards_bus_waits_for_the_slowest_handler(signing_up: Names) -> None:
    ended: list[str] = []

    async def slow(data: Any) -> None:
        await asyncio.sleep(0.05)
        ended.append("slow")

    async def quick(data: Any) -> None:
        ended.append("quick")

    handlers = signing_up.AsyncEventBus()
    handlers.subscribe(EVENT, slow)
    handlers.subscribe(EVENT, quick)
    await signing_up.create_user(newcomer("ada"), handlers)
    assert ended == ["quick", "slow"]


async def test_an_error_of_the_cards_handler_appears_nowhere(
    signing_up: Names, reports: Reports
) -> None:
    handlers = signing_up.AsyncEventBus()
    handlers.subscribe(EVENT, signing_up.on_user_created)
    signing_up.mailer.fault("dan@x.test", failure=True)
    with caught_leaks() as leaks:
        await signing_up.create_user(newcomer("dan"), handlers)
    assert reports.lines == leaks.sentences == []


async def test_a_full_queue_drops_and_says_so(bus: Names, reports: Reports) -> None:
    queued = bus.QueuedEventBus(subscribed(bus), size=1)
    for number in range(3):
        await queued.publish(EVENT, number)
    assert queued.queue.get_nowait() == (EVENT, 0)
    assert reports.lines == [f"{EVENT} dropped: the queue is full"] * 2


async def test_failing_and_hanging_handlers_cost_the_others_nothing(
    bus: Names, reports: Reports
) -> None:
    seen: list[int] = []

    async def fails(data: int) -> None:
        raise LookupError(data)

    async def hangs(data: int) -> None:
        await asyncio.Event().wait()

    def is_plain_and_fails(data: int) -> None:
        raise KeyError(data)

    async with working(bus, fails, hangs, is_plain_and_fails, seen.append) as queued:
        for number in range(3):
            await queued.publish(EVENT, number)
    assert seen == [0, 1, 2]
    assert Counter(reports.errors) == {LookupError: 3, TimeoutError: 3, KeyError: 3}
    assert f"{EVENT}: " in reports.lines[0]
    assert "fails failed" in reports.lines[0]


async def test_a_handler_that_unsubscribes_itself_skips_nobody(bus: Names) -> None:
    seen: list[str] = []
    made = bus.LoggingEventBus()

    async def once(data: Any) -> None:
        made._handlers[EVENT].remove(once)
        seen.append("once")

    made.subscribe(EVENT, once)
    made.subscribe(EVENT, seen.append)
    await made.publish(EVENT, "always")
    await made.publish(EVENT, "always")
    assert seen == ["once", "always", "always"]


async def test_a_cancellation_that_nobody_asked_for_starts_a_new_worker(
    bus: Names, reports: Reports
) -> None:
    seen: list[int] = []

    async def gives_up(data: int) -> None:
        if data == 0:
            raise asyncio.CancelledError

    async with working(bus, gives_up, seen.append) as queued:
        await queued.publish(EVENT, 0)
        await queued.publish(EVENT, 1)
    assert seen == [1]
    assert reports.errors == [asyncio.CancelledError]


async def test_a_bug_in_the_worker_is_logged_and_survived(bus: Names, reports: Reports) -> None:
    seen: list[int] = []
    async with working(bus, seen.append) as queued:
        for number in range(5):
            await queued.publish([EVENT], number)
            await queued.publish(EVENT, number)
    assert seen == [0, 1, 2, 3, 4]
    assert reports.errors == [TypeError] * 5


async def test_stopping_the_supervisor_stops_the_worker(bus: Names, reports: Reports) -> None:
    before = asyncio.all_tasks()
    queued = bus.QueuedEventBus(subscribed(bus))
    supervisor = asyncio.create_task(bus.supervised(queued))
    await asyncio.sleep(0.01)
    supervisor.cancel()
    await asyncio.wait([supervisor], timeout=5)
    assert supervisor.cancelled()
    assert asyncio.all_tasks() == before
    assert reports.lines == []


async def test_shutting_down_empties_the_queue(bus: Names, reports: Reports) -> None:
    seen: list[int] = []

    async def handler(data: int) -> None:
        await asyncio.sleep(0)
        seen.append(data)

    bus.all["ms"] = ms
    app = FastAPI(lifespan=bus.lifespan)
    app.state.bus = bus.QueuedEventBus(subscribed(bus, handler))
    async with in_process(app):
        for number in range(20):
            await app.state.bus.publish(EVENT, number)
    assert seen == list(range(20))
    assert reports.lines == []


async def test_shutting_down_gives_up_on_a_handler_that_hangs_and_counts_what_is_lost(
    bus: Names, reports: Reports
) -> None:
    bus.all["ms"] = lambda milliseconds: milliseconds / (1_000 if milliseconds > 1_000 else 50_000)
    app = FastAPI(lifespan=bus.lifespan)
    never = asyncio.Event()
    app.state.bus = bus.QueuedEventBus(subscribed(bus, lambda data: never.wait()))
    async with in_process(app):
        for number in range(3):
            await app.state.bus.publish(EVENT, number)
    assert reports.lines == ["lost: the event in hand, 2 more"]


async def test_shutting_down_does_not_wait_for_a_handler_that_ignores_its_cancellation(
    bus: Names,
) -> None:
    released = asyncio.Event()

    async def stubborn(data: Any) -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    app = FastAPI(lifespan=bus.lifespan)
    app.state.bus = bus.QueuedEventBus(subscribed(bus, stubborn))
    try:
        async with in_process(app):
            await app.state.bus.publish(EVENT, {})
            await asyncio.sleep(0.01)
    finally:
        released.set()
        await asyncio.sleep(0.01)


async def test_a_letter_that_cannot_be_written_leaves_no_user(bus: Names, shop: Shop) -> None:
    with pytest.raises(StatementError, match="not JSON serializable"):
        await bus.create_user_and_letter(newcomer("max"), {"date": utc_now()})
    assert await shop.users.count() == 0
    await bus.create_user_and_letter(newcomer("max"), {"to": "max@x.test"})
    assert (await shop.users.count(), await owed(shop.sessions)) == (1, ["max@x.test"])


async def test_a_real_mailer_sends_though_its_caller_was_cancelled() -> None:
    mailer = Mailer(latency=0.1)
    async with serve(mailer.app) as server, httpx.AsyncClient(base_url=server.url) as mail:
        request = asyncio.create_task(mail.post("/send", json={"to": "ivy@x.test"}))
        await letter_in_hand(mailer)
        request.cancel()
        await asyncio.wait([request])
        assert request.cancelled()
        await letters(mailer, 1)


# ---------------------------------------------------------------- the relay


async def test_a_relay_outlives_every_failure_of_its_database(
    post: Names, shop: Shop, reports: Reports
) -> None:
    addresses = [f"user-{number}@x.test" for number in range(6)]
    await owe(shop.sessions, addresses)
    flaky = FlakySessions(shop.sessions, [1, 2, 5, 8])
    async with running(post.relay(flaky, post.send)):
        await letters(post.mailer, 6)
    assert sorted(letter.to for letter in post.mailer.sent) == addresses
    assert reports.errors == [OperationalError] * 4


async def test_a_relay_outlives_a_cancellation_that_nobody_asked_for(
    post: Names, shop: Shop, reports: Reports
) -> None:
    await owe(shop.sessions, ["ada@x.test", "bob@x.test"])

    async def send(letter: OutboxMessage) -> None:
        if letter.payload["to"].startswith("ada"):
            raise asyncio.CancelledError
        await post.send(letter)

    async with running(post.relay(shop.sessions, send)):
        await until_owed(shop, ["ada@x.test"])
    assert reports.errors == [asyncio.CancelledError]


async def test_a_relay_that_is_stopped_in_the_middle_still_owes_the_letter(
    post: Names, shop: Shop
) -> None:
    post.all["ms"] = lambda milliseconds: 5.0
    await owe(shop.sessions, ["ada@x.test"])
    post.mailer.fault("ada@x.test", hang=True)
    before = asyncio.all_tasks()
    async with running(post.relay(shop.sessions, post.send)):
        await letter_in_hand(post.mailer)
    assert asyncio.all_tasks() == before
    assert await owed(shop.sessions) == ["ada@x.test"]
    assert await post.claim_letter(shop.sessions) is None  # its lease goes on
    post.mailer.faults.clear()


async def test_a_letter_that_hangs_gets_its_deadline_and_the_next_its_turn(
    post: Names, shop: Shop, reports: Reports
) -> None:
    await owe(shop.sessions, ["ada@x.test", "bob@x.test"])
    post.mailer.fault("ada@x.test", hang=True)
    async with running(post.relay(shop.sessions, post.send)):
        await letters(post.mailer, 1)
    assert reports.errors == [TimeoutError]
    post.mailer.faults.clear()


async def until_owed(shop: Shop, addresses: list[str]) -> None:
    """Return when the letters to these are the only ones that are not sent and marked."""
    async with asyncio.timeout(20):
        while await owed(shop.sessions) != addresses:  # noqa: ASYNC110 (a database has no event)
            await asyncio.sleep(0.01)


async def make_due(shop: Shop, **values: Any) -> None:
    async with shop.sessions.begin() as session:
        await session.execute(update(OutboxMessage).values(due_at=utc_now(), **values))


@pytest.mark.parametrize(("attempts", "seconds"), [(0, 20), (1, 40), (4, 320), (50, 3_600)])
async def test_a_refused_letter_waits_longer_each_time(
    post: Names, shop: Shop, attempts: int, seconds: float
) -> None:
    await owe(shop.sessions, ["ada@x.test"])
    await make_due(shop, attempts=attempts)
    post.mailer.failure_rate = 1.0
    began = utc_now()
    assert await post.send_next(shop.sessions, post.send)
    async with shop.sessions() as session:
        letter = (await session.scalars(select(OutboxMessage))).one()
    assert timedelta(seconds=seconds) <= letter.due_at - began < timedelta(seconds=seconds + 15)
    assert letter.attempts == attempts + 1


async def test_letters_that_keep_failing_do_not_hold_up_a_new_one(post: Names, shop: Shop) -> None:
    poison = [f"nobody-{number}@x.test" for number in range(15)]
    await owe(shop.sessions, [*poison, "new@x.test"])
    for address in poison:
        post.mailer.fault(address, failure=True)
    for _ in range(20):
        await post.send_next(shop.sessions, post.send)
    assert [letter.to for letter in post.mailer.sent] == ["new@x.test"]
    assert post.mailer.calls == 16


async def test_a_lease_that_ran_out_makes_the_letter_due_again(post: Names, shop: Shop) -> None:
    await owe(shop.sessions, ["ada@x.test"])
    first = await post.claim_letter(shop.sessions, lease=timedelta(0))
    again = await post.claim_letter(shop.sessions)
    assert first.id == again.id
    assert (first.attempts, again.attempts) == (1, 2)
    assert await post.claim_letter(shop.sessions) is None


async def test_two_relays_on_a_real_database_send_each_letter_once(
    post: Names, postgres_server: str
) -> None:
    addresses = [f"user-{number}@x.test" for number in range(40)]
    async with open_shop(
        users=0, products=0, name="postgres", database_url=postgres_server
    ) as shop:
        await owe(shop.sessions, addresses)
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(post.relay, shop.sessions, post.send)
            await letters(post.mailer, 40)
            await until_owed(shop, [])
            group.cancel_scope.cancel()
        async with shop.sessions() as session:
            most = await session.scalar(select(func.max(OutboxMessage.attempts)))
    assert sorted(letter.to for letter in post.mailer.sent) == sorted(addresses)
    assert most == 1


async def test_two_requests_with_one_key_at_once_send_one_letter(post: Names, shop: Shop) -> None:
    await post.lesson.run("relay-once")
    keys, keyed = post.all["keys"], post.all["keyed"]
    async with shop.engine.begin() as connection:
        await connection.run_sync(keys.metadata.create_all)
    post.mailer.latency = 0.02
    async with in_process(keyed) as client:
        key, letter = {"Idempotency-Key": "1"}, {"to": "kim@x.test"}
        both = [client.post("/send", json=letter, headers=key) for _ in range(2)]
        answers = await asyncio.gather(*both)
    assert [answer.status_code for answer in answers] == [202, 202]
    assert len(post.mailer.sent) == 1


async def test_the_obvious_relay_stops_at_its_first_failure(post: Names, shop: Shop) -> None:
    await owe(shop.sessions, ["ada@x.test", "bob@x.test"])
    post.mailer.fault("ada@x.test", failure=True)
    with pytest.raises(httpx.HTTPStatusError):
        await post.obvious_relay(shop.sessions, post.send)
    await calls(post.mailer, 1)
    assert post.mailer.sent == []
