"""The exercise of lesson 02: a product page from four questions that do not depend on each other.

Waiting for the product first and asking the other three afterwards is not accepted, though teams do
it where most ids are missing: it saves three statements on a missing page and costs each good page
a second round trip. The check says so. One combined statement is accepted: it waits once.
"""

import asyncio
import functools
import inspect
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import httpx
from fastapi import FastAPI, HTTPException
from sqlalchemy.exc import InvalidRequestError, OperationalError

from looplab.exercises.checking import check, require_function
from looplab.exercises.error_text import holds
from looplab.exercises.lending import lent_shop
from looplab.exercises.sandbox import Sandbox, blame, require_awaitable
from looplab.exercises.verdicts import Exercise, Mistake, Verdict, wrong
from looplab.lab.clients import IN_PROCESS_URL
from looplab.lab.silent_failures import let_go
from looplab.lab.trace import is_ours, short_name
from looplab.lab.units import ms
from looplab.shop import Shop
from looplab.shop.repositories import OrderRepository, ProductRepository, Sessions, UserRepository
from looplab.shop.seed import seeded_products

T = TypeVar("T")

ROUND_TRIP = 30  # milliseconds
PATIENCE = 2_500  # milliseconds that slow questions last once the page's answer is known
QUESTIONS = ("product", "bought_with", "recent_buyers", "sold")
MISSING = UUID("00000000-0000-4000-8000-000000000404")
NO_SUCH_PRODUCT = "no such product"

EXERCISE = Exercise(
    lesson="02",
    check="check_product_page",
    stub="one-by-one",
    task="Fetch a product page from four questions at once; a missing product stays a 404.",
    usual_wrong_prediction=(
        "That gathering makes each query faster, so that six take less than one takes alone; or "
        "that the page takes as long as before, because a database answers one query at a time."
    ),
    mistakes=(
        Mistake(
            "one-by-one",
            "awaits the four questions one after another, as the stub does",
            "The page is right, and it waits four times, because each question begins only when "
            "the question before it is answered. Start all four, then wait for them together.",
        ),
        Mistake(
            "shared-session",
            "starts four tasks that share one AsyncSession",
            "Your questions run at the same time, but on one session. A session has one "
            "connection, so they take turns on it or fail. Give Catalogue the sessionmaker: then "
            "each question opens a session of its own.",
        ),
        Mistake(
            "product-first",
            "awaits the product, then asks the other three at once",
            "The page waits twice, because the other three questions begin only when the product "
            "is there. That's a fair choice where most ids are missing. Here a good page should "
            "wait once, so start all four.",
        ),
        Mistake(
            "not-all-at-once",
            "starts two or three together and the rest later",
            "Some of the questions still wait for others. All four are independent: start all of "
            "them before you wait for any.",
        ),
        Mistake(
            "group-becomes-500",
            "lets the TaskGroup's ExceptionGroup out of the endpoint",
            "A missing product answers 500. The TaskGroup wraps the 404 in an ExceptionGroup, and "
            "FastAPI doesn't look inside. Catch it with except*, and raise the HTTPException that "
            "it holds.",
        ),
        Mistake(
            "siblings-left-running",
            "uses gather, which raises the 404 and lets the other branches run on, or cancels them "
            "and does not wait until they have ended",
            "The page has ended and other questions still run, each on a connection. gather "
            "doesn't stop them, and cancel() only asks them to stop. A TaskGroup cancels them and "
            "waits until they have ended.",
        ),
        Mistake(
            "waits-for-siblings",
            "gathers with return_exceptions=True and raises the 404 when all have answered",
            "The 404 is known as soon as the product is missing, yet the page waits for the other "
            "three answers first. Cancel those questions: a TaskGroup does it for you.",
        ),
        Mistake(
            "swallowed-404",
            "catches the HTTPException and returns a page without a product",
            "A missing product answers 200, so the client can't tell that it isn't there. Let the "
            "404 through.",
        ),
        Mistake(
            "every-error-becomes-404",
            "catches every exception and raises 404",
            "A question failed, and the page answered 404. Nobody will look for that failure, "
            "since a 404 is ordinary. Let only the 404 that product raises come out as one.",
        ),
        Mistake(
            "hides-a-failure",
            "catches what a question raises and puts [] or None in its place",
            "A question failed, and the page answered 200 all the same. Its reader takes an empty "
            "list for the truth, and no alarm rings. Let the error through: only the 404 is an "
            "answer.",
        ),
        Mistake(
            "drops-the-others",
            "takes the 404 out of the group with except, and drops what else is in it",
            "Two questions failed, and your page raised the 404 alone: the bug beside it is in no "
            "log. With except* only the 404 is taken out, and the others come out with it.",
        ),
        Mistake(
            "failure-blamed-on-the-caller",
            "answers 400 or 422 when a question fails",
            "A question failed, and the page answered with a status that blames its client. A "
            "failure on this side is a 500 or a 503, so leave it to FastAPI.",
        ),
        Mistake(
            "cancelled-leaves-running",
            "starts tasks and waits by asyncio.wait or shield, which do not pass a cancellation on",
            "The page was cancelled from outside, as a deadline does, and its questions run on, "
            "each on a connection. A TaskGroup passes the cancellation on and waits until its "
            "tasks have ended. With asyncio.wait you have to do both yourself, in a finally.",
        ),
        Mistake(
            "survives-cancellation",
            "catches CancelledError or BaseException and returns",
            "The page was cancelled from outside and didn't end as cancelled, so a deadline around "
            "it has no effect. Let CancelledError through once your tasks have ended.",
        ),
        Mistake(
            "asked-twice",
            "asks a question again: a retry, a forgotten line, a loop over all of them",
            "A question was asked more than once for one page, which gives the database more to "
            "do. Ask each once.",
        ),
        Mistake(
            "wrong-404",
            "answers a missing product with another status or another error",
            "A missing product does not answer 404.",
        ),
        Mistake(
            "task-in-the-answer",
            "makes tasks and returns them, or their methods, without awaiting",
            "The answer holds tasks in place of what they return. Await them, or ask each for its "
            "result() once the group has ended.",
        ),
        Mistake(
            "result-too-early",
            "asks a task for its result() inside the TaskGroup, before it has ended",
            "A task was asked for its result before it had one. The group waits for its tasks at "
            "the end of its block, so read the results after that block.",
        ),
        Mistake(
            "wrong-answer",
            "returns other keys or other values",
            "The page doesn't hold what the four questions answer.",
        ),
        Mistake(
            "connection-kept",
            "opens a session and does not close it",
            "A connection is still checked out after the page has been answered. Open sessions "
            "with async with, or leave them to Catalogue.",
        ),
    ),
)


@dataclass(slots=True)
class _Watch:
    """What the check sees of the questions of one request, and how it makes them behave."""

    began: list[str] = field(default_factory=list)
    under_way: list[str] = field(default_factory=list)
    together: set[str] = field(default_factory=set)
    peak: int = 0
    all_began: asyncio.Event = field(default_factory=asyncio.Event)
    slow: asyncio.Event | None = None
    quick: str = "product"
    failing: str = ""
    failure: Exception | None = None
    cleanup: Exception | None = None
    """What ``bought_with`` raises when it is cancelled: a bug in what it does on its way out."""


_watch: ContextVar[_Watch | None] = ContextVar("_watch", default=None)


class Catalogue:
    """What the shop knows about a product: four questions, each of one statement.

    Give it a sessionmaker, and each question opens a session of its own; give it one session, and
    all of them share it.
    """

    def __init__(self, sessions: Sessions) -> None:
        """Raises TypeError when ``sessions`` is neither a sessionmaker nor a session."""
        self._products = ProductRepository(sessions)
        self._users = UserRepository(sessions)
        self._orders = OrderRepository(sessions)

    async def product(self, product_id: UUID) -> dict[str, Any]:
        """Return the product's name and price in cents.

        Raises HTTPException with status 404 when there is no such product.
        """
        async with _watched("product"):
            product = await self._products.get_by_id(product_id)
            if product is None:
                raise HTTPException(404, NO_SUCH_PRODUCT)
            return {"name": product.name, "price": product.price}

    async def bought_with(self, product_id: UUID) -> list[str]:
        """Return the names of the products that are bought with this one most often."""
        async with _watched("bought_with"):
            products = await self._products.get_bought_with(product_id, limit=3)
            return [product.name for product in products]

    async def recent_buyers(self, product_id: UUID) -> list[str]:
        """Return the names of those who bought it last."""
        async with _watched("recent_buyers"):
            users = await self._users.get_recent_buyers(product_id, limit=3)
            return [user.name for user in users]

    async def sold(self, product_id: UUID) -> int:
        """Return how many of it have been sold."""
        async with _watched("sold"):
            return await self._orders.count_sold(product_id)


@asynccontextmanager
async def _watched(question: str) -> AsyncGenerator[None]:
    watch = _watch.get()
    if watch is None:
        yield
        return
    watch.began.append(question)
    watch.under_way.append(question)
    watch.peak = max(watch.peak, len(watch.under_way))
    if set(watch.began) == set(QUESTIONS):
        watch.all_began.set()
    if len(watch.under_way) > 1:
        watch.together.update(watch.under_way)
    try:
        yield
        if question == watch.failing and watch.failure is not None:
            raise watch.failure
        if watch.slow is not None and question != watch.quick:
            await watch.slow.wait()
    except asyncio.CancelledError:
        if question == "bought_with" and watch.cleanup is not None:
            raise watch.cleanup from None
        raise
    finally:
        watch.under_way.remove(question)


async def check_product_page(product_page: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's ``product_page`` of lesson 02, show one line, and return the verdict.

    It is called as ``await product_page(product_id, sessions)`` from an endpoint of a FastAPI app
    in this process, with the sessionmaker of a shop of the check's own, and returns a dict with
    the keys ``product``, ``bought_with``, ``recent_buyers`` and ``sold``. It passes if

    - the answer is what the four questions of :class:`Catalogue` answer;
    - all its statements are under way at once, each on a connection of its own;
    - a missing product answers 404 without waiting for the other answers, with nothing left running
      and no connection checked out;
    - any other failure of a question answers with a status of 500 or above;
    - a page that is cancelled ends as cancelled, and leaves nothing running.

    ``limit`` is how long the function may take in all, in seconds; unless given, as
    :func:`looplab.exercises.checking.check` has it.
    """
    return await check(functools.partial(_judge, page=product_page), limit=limit)


@dataclass(slots=True)
class _Answer:
    """What one request came to. ``error`` is what the learner's function raised."""

    response: httpx.Response | None = None
    value: Any = None
    error: BaseException | None = None
    after_patience: bool = False
    left: list[str] = field(default_factory=list)


async def _judge(sandbox: Sandbox, *, page: Any) -> str:
    page = require_function(page, example="check_product_page(product_page)")
    lending = lent_shop(sandbox, name="exercise 02", users=60, products=30)
    async with lending as (shop, sessions):
        product_id = seeded_products(1)[0].id
        expected = await _expected(shop, product_id)
        await shop.warm()
        shop.round_trip = ms(ROUND_TRIP)
        asker = _Asker(sandbox, shop, lambda product_id: page(product_id, sessions))
        await _judge_page(asker, product_id, expected)
        await _judge_missing(asker)
        for question, failure in _failures():
            await _judge_failure(asker, product_id, question, failure)
        await _judge_cancellation(asker, product_id)
        await _judge_bug_beside(asker)
    return (
        "Four questions and one wait. A missing product is a 404 that waits for no other answer, "
        "any other failure stays a failure, and nothing runs on once the page has ended."
    )


async def _expected(shop: Shop, product_id: UUID) -> dict[str, Any]:
    catalogue = Catalogue(shop.sessions)
    return {question: await getattr(catalogue, question)(product_id) for question in QUESTIONS}


async def _judge_page(asker: "_Asker", product_id: UUID, expected: dict[str, Any]) -> None:
    watch, shop = _Watch(), asker.shop
    shop.reset_counters()
    answer = await asker.ask(product_id, watch)
    statements, connections = shop.statements, shop.peak_checked_out
    if answer.error is not None:
        if watch.together and holds(answer.error, InvalidRequestError):
            raise EXERCISE.wrong("shared-session")
        if holds(answer.error, asyncio.InvalidStateError):
            raise EXERCISE.wrong("result-too-early")
        raise blame(answer.error)
    if _holds_tasks(answer.value):
        raise EXERCISE.wrong("task-in-the-answer")
    if answer.left:
        raise wrong("left-running", ", ".join(answer.left))
    if answer.value is None:
        raise wrong("not-written", "product_page returned None")
    if answer.response is None or answer.response.status_code != 200:
        status = answer.response.status_code if answer.response is not None else "nothing"
        raise EXERCISE.wrong("wrong-answer", f"it answered {status}")
    _compare(answer.response.json(), expected)
    if twice := [question for question, times in Counter(watch.began).items() if times > 1]:
        raise EXERCISE.wrong("asked-twice", ", ".join(twice))
    if connections < statements:
        raise _too_slow(watch, connections)
    if shop.checked_out:
        raise EXERCISE.wrong("connection-kept")


def _compare(page: Any, expected: dict[str, Any]) -> None:
    if not isinstance(page, dict):
        raise EXERCISE.wrong("wrong-answer", f"it is no dict but {type(page).__name__}")
    for question, value in expected.items():
        if question not in page:
            raise EXERCISE.wrong("wrong-answer", f"{question!r} is missing")
        if page[question] != value:
            raise EXERCISE.wrong("wrong-answer", f"look at {question!r}")
    if extra := page.keys() - expected.keys():
        raise EXERCISE.wrong("wrong-answer", f"{min(extra)!r} was not asked for")


def _too_slow(watch: _Watch, connections: int) -> Exception:
    if watch.peak > connections:
        return EXERCISE.wrong("shared-session", f"{watch.peak} questions, {connections} at work")
    if connections == 1:
        return EXERCISE.wrong("one-by-one")
    if watch.began[0] == "product" and watch.together == set(QUESTIONS) - {"product"}:
        return EXERCISE.wrong("product-first")
    return EXERCISE.wrong("not-all-at-once", f"{connections} at once")


async def _judge_missing(asker: "_Asker") -> None:
    """Ask for a missing product, the other questions being slow."""
    answer = await asker.ask(MISSING, _Watch(slow=asyncio.Event()))
    status = answer.response.status_code if answer.response is not None else 0
    if isinstance(answer.error, BaseExceptionGroup):
        if holds(answer.error, HTTPException):
            raise EXERCISE.wrong("group-becomes-500")
        raise blame(answer.error)
    if answer.error is not None and not isinstance(answer.error, HTTPException):
        raise blame(answer.error)
    if status == 200:
        raise EXERCISE.wrong("swallowed-404")
    if status != 404:
        raise EXERCISE.wrong("wrong-404", f"it answers {status}")
    if answer.left:
        raise EXERCISE.wrong("siblings-left-running", ", ".join(answer.left))
    if answer.after_patience:
        raise EXERCISE.wrong("waits-for-siblings")
    if asker.shop.checked_out:
        raise EXERCISE.wrong("connection-kept")


async def _judge_bug_beside(asker: "_Asker") -> None:
    """Ask for a missing product while a bug hits another question: a group of two errors.

    Who takes the 404 out of a group and drops the rest hides the bug. Other ways, such as gather,
    have only one error in hand.
    """
    answer = await asker.ask(MISSING, _Watch(slow=asyncio.Event(), cleanup=KeyError("a bug")))
    dropped = answer.error.__context__ if isinstance(answer.error, HTTPException) else None
    if isinstance(dropped, BaseExceptionGroup):
        if holds(dropped, KeyError):
            raise EXERCISE.wrong("drops-the-others", "bought_with raised a KeyError, too")
        let_go(dropped)


def _failures() -> list[tuple[str, Exception]]:
    """Return questions, each with an error that it is to fail with: two for each question."""
    failures: list[Exception] = [
        RuntimeError("the database is away"),
        OperationalError("SELECT", {}, OSError("the database is away")),
        TimeoutError("the database is slow"),
        KeyError("a bug"),
        OSError("the network is away"),
        HTTPException(503, "the database is away"),
        type(f"Database{secrets.token_hex(3).title()}Error", (Exception,), {})("unheard of"),
        ValueError("a bug"),
    ]
    return list(zip(QUESTIONS * 2, failures, strict=True))


async def _judge_failure(
    asker: "_Asker", product_id: UUID, question: str, failure: Exception
) -> None:
    """Let a question fail with an error that says nothing about the product."""
    watch = _Watch(failing=question, failure=failure)
    answer = await asker.ask(product_id, watch)
    if question not in watch.began:
        return  # it is asked in a statement of the learner's own
    status = answer.response.status_code if answer.response is not None else 0
    told = f"{question} raised {type(failure).__name__}"
    if status == 404:
        raise EXERCISE.wrong("every-error-becomes-404", told)
    if 200 <= status < 300:
        raise EXERCISE.wrong("hides-a-failure", told)
    if 300 <= status < 500:
        raise EXERCISE.wrong("failure-blamed-on-the-caller", f"{told}, and it answered {status}")
    if answer.left:
        raise EXERCISE.wrong("siblings-left-running", ", ".join(answer.left))
    if asker.shop.checked_out:
        raise EXERCISE.wrong("connection-kept")


async def _judge_cancellation(asker: "_Asker", product_id: UUID) -> None:
    """Cancel the page while all four questions are under way."""
    outcome = await asker.cancel(product_id, _Watch(slow=asyncio.Event(), quick=""))
    if outcome.left:
        raise EXERCISE.wrong("cancelled-leaves-running", ", ".join(outcome.left))
    if outcome.value is not None:
        raise EXERCISE.wrong("survives-cancellation")
    if asker.shop.checked_out:
        raise EXERCISE.wrong("connection-kept")


@dataclass(slots=True)
class _Asker:
    """Asks an app in this process, which serves the learner's ``page``."""

    sandbox: Sandbox
    shop: Shop
    page: Callable[[UUID], Any]

    async def ask(self, product_id: UUID, watch: _Watch) -> _Answer:
        """Ask for the product; nothing of the request runs any more when this returns."""
        answer = _Answer()

        async def answered(product_id: UUID) -> Any:
            before = asyncio.all_tasks()
            try:
                answer.value = await require_awaitable(self.page(product_id))
            except BaseException as error:
                answer.error = error
                raise
            finally:
                # Seen now, not later: a task that was cancelled and not awaited ends by itself.
                answer.left = _questions_running(asyncio.all_tasks() - before)
                answer.after_patience = watch.slow is not None and watch.slow.is_set()
            return answer.value

        # FastAPI keeps endpoints in caches, so the endpoint must not keep this request.
        answering = [answered]
        app = FastAPI()

        @app.get("/products/{product_id}")
        async def endpoint(product_id: UUID) -> Any:
            return await answering[0](product_id)

        async def request() -> httpx.Response:
            _watch.set(watch)
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=IN_PROCESS_URL) as client:
                return await client.get(f"/products/{product_id}")

        opening = _open_later(watch.slow)
        try:
            ran = await self.sandbox.run(request)
        finally:
            answering.clear()
            if opening is not None:
                opening.cancel()
        answer.response = ran.value
        answer.left = answer.left or ran.left
        if ran.error is not None:
            answer.error = ran.error
        return answer

    async def cancel(self, product_id: UUID, watch: _Watch) -> _Answer:
        """Call the page and cancel it; its ``value`` is None if it ended as cancelled.

        A page that has answered before the questions are under way is not cancelled.
        """
        answer = _Answer()

        async def cancelled() -> None:
            _watch.set(watch)
            before = asyncio.all_tasks()
            page = asyncio.ensure_future(require_awaitable(self.page(product_id)))
            began = asyncio.ensure_future(watch.all_began.wait())
            await asyncio.wait({page, began}, timeout=ms(PATIENCE), return_when="FIRST_COMPLETED")
            began.cancel()
            await asyncio.wait({began})
            if page.done():
                return  # what came of it is judged elsewhere
            page.cancel()
            await asyncio.wait({page}, timeout=ms(PATIENCE))
            answer.left = _questions_running(asyncio.all_tasks() - before - {page})
            answer.value = None if page.cancelled() else page

        ran = await self.sandbox.run(cancelled)
        if ran.error is not None:
            raise blame(ran.error)
        answer.left = answer.left or ran.left
        return answer


def _questions_running(tasks: set[asyncio.Task[Any]]) -> list[str]:
    """Return the names of those of ``tasks`` that run the learner's code or the catalogue's."""
    coroutines = [task.get_coro() for task in tasks]
    codes = [getattr(coroutine, "cr_code", None) for coroutine in coroutines]
    return sorted(short_name(code.co_qualname) for code in codes if code and is_ours(code))


def _open_later(slow: asyncio.Event | None) -> asyncio.TimerHandle | None:
    if slow is None:
        return None
    return asyncio.get_running_loop().call_later(ms(PATIENCE), slow.set)


def _holds_tasks(value: Any) -> bool:
    values = value.values() if isinstance(value, dict) else [value]
    return any(isinstance(one, asyncio.Future) or inspect.isroutine(one) for one in values)
