"""The exercise of lesson 16: an order service whose session is open neither too long nor twice."""

import asyncio
import contextlib
import functools
import inspect
import sqlite3
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import event, select
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from looplab.exercises.checking import check, require_function
from looplab.exercises.lending import lent_shop
from looplab.exercises.sandbox import Sandbox, blame
from looplab.exercises.verdicts import Exercise, Mistake, Verdict
from looplab.lab.clients import in_process
from looplab.lab.departures import until
from looplab.lab.units import ms
from looplab.shop import Shop
from looplab.shop.models import Order, User

PRICE = 490
TOGETHER = 4  # orders that must be with the carrier at the same time
CARRIER = 20  # milliseconds that the carrier takes
PATIENCE = 2_000  # milliseconds in which the orders must have come together

EXERCISE = Exercise(
    lesson="16",
    check="check_dependencies",
    stub="told-too-soon",
    task="Fix an order service, so that a client reads 201 only for an order that is saved, and no "
    "request holds a connection while it waits for a partner, or two sessions at a time.",
    usual_wrong_prediction="Sixty, or nearly: forty threads and five connections look like a queue "
    "that is served in turn. But a request that has its connection queues for a thread again, "
    "after all those that wait in theirs for a connection.",
    mistakes=(
        Mistake(
            "told-too-soon",
            "commits in the exit code of a dependency without a scope, or in a background task",
            "A client read 201 before its order was in the database: should the commit fail then, "
            "nobody can tell it. Commit before the answer: the lesson shows two places for that.",
        ),
        Mistake(
            "holds-connection",
            "asks the carrier inside the transaction that the user's query has begun",
            "A request held a connection while it waited for the carrier, so a slow carrier makes "
            "the whole service slow. End the transaction before you ask; the session can begin "
            "another.",
        ),
        Mistake(
            "two-sessions",
            "changes the scope in one place of two, turns the cache off, or opens one by hand",
            "A request had two sessions open at a time, and may need two connections. FastAPI "
            "reuses a value only where function and scope are the same: ask for the session in the "
            "same words everywhere.",
        ),
        Mistake(
            "nothing-saved",
            "drops the commit, or rolls back after it has added the order",
            "A client read 201, and its order never came to the database: something must commit.",
        ),
        Mistake(
            "hides-the-failure",
            "catches the error of the commit or of the carrier, and answers 201 all the same",
            "Something failed, and the client read of success. Let the error out, or raise an "
            "HTTPException of 500 or more.",
        ),
        Mistake(
            "saved-anyway",
            "commits the order before it has a price, or commits in a finally",
            "The request failed, and yet an order is in the database. Add the order when you have "
            "its price, and commit only when all went well.",
        ),
        Mistake(
            "loses-connection",
            "makes a session without async with, and doesn't close it when the endpoint raises",
            "A connection didn't come back when the request had ended: with each one the pool gets "
            "smaller. Close the session in every case, best by async with.",
        ),
        Mistake(
            "reads-expired",
            "rolls back to give the connection back, and reads user.id afterwards",
            "A rollback forgets what was read, whatever expire_on_commit says, and user.id would "
            "have to ask the database again. A commit gives the connection back too, and forgets "
            "nothing here.",
        ),
        Mistake(
            "in-single-file",
            "puts a lock or max_concurrency around the request",
            "Orders waited for one another, although none held a connection: let all of them ask "
            "the carrier at the same time.",
        ),
        Mistake(
            "other-order",
            "saves another user, total or number of orders than before",
            "What is saved has changed: one order, of the user that was looked up, for the price "
            "that quote returned.",
        ),
        Mistake(
            "other-answer",
            "changes the status, the body or the path",
            "The answer has changed: POST /orders answers 201 with nothing in it.",
        ),
        Mistake(
            "asks-twice",
            "calls quote more than once, or not at all",
            "Each order asks the carrier once.",
        ),
        Mistake(
            "no-app",
            "returns a router, a function or nothing",
            "make_app must return the FastAPI app.",
        ),
    ),
)


async def check_dependencies(make_app: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's ``make_app`` of lesson 16, show one line, and return the verdict.

    It is called as ``make_app(sessions, quote)`` and returns a FastAPI app with ``POST /orders``.
    It passes if an order is in the database when the answer of 201 begins, no connection is in use
    while ``quote`` is awaited, no request has two sessions open at a time, orders ask the carrier
    side by side, and a commit or a quote that fails ends in 500 or more with nothing saved and no
    connection lost.

    ``limit`` is how long the app may take in all, in seconds; 15 unless given.
    """
    return await check(functools.partial(_judge, make_app=make_app), limit=limit)


@dataclass(slots=True)
class _Answer:
    """What a client was told, and what was true at that moment."""

    status: int = 0
    body: bytes = b""
    saved: int = 0
    """Orders that were in the database when the answer began."""
    error: BaseException | None = None
    """What the app raised in the end."""


@dataclass(slots=True)
class _Carrier:
    """What ``quote`` does, and what it sees."""

    shop: Shop
    fails: bool = False
    together: int = 1
    asked: int = 0
    held: int = 0
    """Connections in use once all that should come together were inside."""
    _gathered: asyncio.Event = field(default_factory=asyncio.Event)

    async def quote(self) -> int:
        """Return the price, once as many as should come together have come."""
        self.asked += 1
        if self.asked >= self.together:
            self.held = self.shop.checked_out
            self._gathered.set()
        async with asyncio.timeout(ms(PATIENCE)):
            await self._gathered.wait()
        await asyncio.sleep(ms(CARRIER))
        if self.fails:
            raise ConnectionError("the carrier hung up")
        return PRICE


class _Sessions:
    """A sessionmaker for the learner, and how many of its sessions were open at a time."""

    def __init__(self, lent: async_sessionmaker[AsyncSession]) -> None:
        counts = self
        base: Any = lent.class_

        class Counted(base):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options)
                counts._open.add(id(self))
                counts.peak = max(counts.peak, len(counts._open))

            async def close(self) -> None:
                counts._open.discard(id(self))
                await super().close()

        self.peak = 0
        self._open: set[int] = set()
        self.make = async_sessionmaker(class_=Counted, **lent.kw)

    def start_anew(self) -> None:
        """Count from nothing, for the next request."""
        self.peak = 0
        self._open.clear()


class _Commits:
    """Lets commits of what was written fail, while ``failing`` is set."""

    def __init__(self, shop: Shop) -> None:
        self.failing = False
        engine = shop.engine.sync_engine
        event.listen(engine, "begin", self._begin)
        event.listen(engine, "before_cursor_execute", self._execute)
        event.listen(engine, "commit", self._commit)

    def _begin(self, connection: Any) -> None:
        connection.info["wrote"] = False

    def _execute(self, connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        connection.info["wrote"] |= statement.lstrip().upper().startswith("INSERT")

    def _commit(self, connection: Any) -> None:
        if self.failing and connection.info.get("wrote"):
            connection.connection.rollback()  # as SQLite does when a commit fails
            raise sqlite3.OperationalError("disk is full")


@dataclass(slots=True)
class _Trial:
    """The learner's app on the shop of the check."""

    make_app: Callable[..., Any]
    shop: Shop
    sessions: _Sessions
    user: Any

    async def order(self, carrier: _Carrier) -> _Answer:
        """Send one order, and tell what came of it."""
        (answer,) = await self.orders(carrier, 1)
        return answer

    async def orders(self, carrier: _Carrier, count: int) -> list[_Answer]:
        """Send ``count`` orders at the same moment, to an app that asks ``carrier``."""
        self.sessions.start_anew()
        app = self.make_app(self.sessions.make, carrier.quote)
        if inspect.isawaitable(app):
            app = await app
        if app is None:
            raise NotImplementedError
        if not callable(getattr(app, "build_middleware_stack", None)):
            raise EXERCISE.wrong("no-app", f"it returned {type(app).__name__}")
        return await asyncio.gather(*[_post(app, self.shop.path) for _ in range(count)])


async def _post(app: ASGIApp, path: Path) -> _Answer:
    """Send an order to ``app`` in this process; note what is saved when the answer begins."""
    answer = _Answer()

    async def noted(scope: Scope, receive: Receive, send: Send) -> None:
        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.saved = len(_saved(path))
            elif message["type"] == "http.response.body":
                answer.body += message.get("body", b"")
            await send(message)

        await app(scope, receive, note)

    try:
        async with in_process(noted, lifespan=False) as client:
            await client.post("/orders")
    except Exception as error:
        cause = getattr(error, "orig", error)  # SQLAlchemy may wrap it
        expired = isinstance(cause, MissingGreenlet)
        answer.error = EXERCISE.wrong("reads-expired") if expired else error
    return answer


def _saved(path: Path) -> list[tuple[str, int]]:
    """Return user and total of each order that is committed, as another client would see them."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT user_id, total FROM orders").fetchall()
    return [(str(user).replace("-", ""), total) for user, total in rows]


async def _judge(sandbox: Sandbox, *, make_app: Any) -> str:
    make_app = require_function(make_app, example="check_dependencies(make_app)")
    # A query that an expired object can't make leaves a coroutine, which is none of the learner's.
    warnings.filterwarnings("ignore", r"coroutine '.*\bcursor' was never awaited", RuntimeWarning)
    async with lent_shop(sandbox, name="the check's orders", users=3, products=0) as (shop, lent):
        async with shop.session() as session:
            user = await session.scalar(select(User.id).order_by(User.id))
        await _remove_orders(shop)
        commits = _Commits(shop)
        trial = _Trial(make_app, shop, _Sessions(lent), user)
        await _judge_one(sandbox, trial)
        await _judge_failures(sandbox, trial, commits)
        await _judge_many(sandbox, trial)
    return (
        "A client reads 201 when its order is saved and not before, the carrier is asked without a "
        "connection, and what fails leaves nothing behind."
    )


async def _remove_orders(shop: Shop) -> None:
    async with shop.session() as session:
        for order in await session.scalars(select(Order)):
            await session.delete(order)
        await session.commit()


async def _judge_one(sandbox: Sandbox, trial: _Trial) -> None:
    carrier = _Carrier(trial.shop)
    answer: _Answer = (await sandbox.run(lambda: trial.order(carrier))).result()
    if answer.status >= 500 or not answer.status:
        raise blame(answer.error or RuntimeError(f"the app answered {answer.status or 'nothing'}"))
    if answer.status != 201 or answer.body not in (b"null", b""):
        told = answer.body.decode(errors="replace")[:60]
        raise EXERCISE.wrong("other-answer", f"it answered {answer.status}, {told}")
    if carrier.asked != 1:
        raise EXERCISE.wrong("asks-twice", f"it was asked {carrier.asked} times")
    saved = _saved(trial.shop.path)
    if not saved:
        raise EXERCISE.wrong("nothing-saved")
    if saved != [(trial.user.hex, PRICE)]:
        raise EXERCISE.wrong("other-order", _told(saved, trial.user.hex))
    if trial.sessions.peak > 1:
        raise EXERCISE.wrong("two-sessions", f"{trial.sessions.peak} at a time")
    if not answer.saved:
        raise EXERCISE.wrong("told-too-soon")
    if carrier.held:
        raise EXERCISE.wrong("holds-connection")
    await _judge_loan(trial)


def _told(saved: list[tuple[str, int]], user: str) -> str:
    if len(saved) != 1:
        return f"{len(saved)} orders for one request"
    (whose, total), *_ = saved
    return "another user" if whose != user else f"a total of {total} for a price of {PRICE}"


async def _judge_failures(sandbox: Sandbox, trial: _Trial, commits: _Commits) -> None:
    before = len(_saved(trial.shop.path))
    commits.failing = True
    ran = await sandbox.run(lambda: trial.order(_Carrier(trial.shop)))
    commits.failing = False
    _judge_failure(ran.result(), "the commit", len(_saved(trial.shop.path)) - before)
    await _judge_loan(trial)
    ran = await sandbox.run(lambda: trial.order(_Carrier(trial.shop, fails=True)))
    _judge_failure(ran.result(), "quote", len(_saved(trial.shop.path)) - before)
    await _judge_loan(trial)


def _judge_failure(answer: _Answer, what: str, saved: int) -> None:
    if answer.status and answer.status < 500:
        raise EXERCISE.wrong("hides-the-failure", f"{what} failed, and it read {answer.status}")
    if saved:
        raise EXERCISE.wrong("saved-anyway", f"{what} failed")


async def _judge_many(sandbox: Sandbox, trial: _Trial) -> None:
    carrier = _Carrier(trial.shop, together=TOGETHER)
    answers: list[_Answer] = (await sandbox.run(lambda: trial.orders(carrier, TOGETHER))).result()
    if carrier.asked < TOGETHER or any(isinstance(one.error, TimeoutError) for one in answers):
        raise EXERCISE.wrong("in-single-file", f"{carrier.asked} of {TOGETHER} came to the carrier")
    if carrier.held:
        raise EXERCISE.wrong("holds-connection", f"{carrier.held} of {TOGETHER} held one")
    if {answer.status for answer in answers} != {201}:
        raise EXERCISE.wrong("other-answer", f"{TOGETHER} at once, and not each was a 201")


async def _judge_loan(trial: _Trial) -> None:
    """Find a connection that is still lent; one that is on its way back gets time to arrive."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ms(300)):
            await until(lambda: not trial.shop.checked_out)
    if trial.shop.checked_out:
        raise EXERCISE.wrong("loses-connection")
