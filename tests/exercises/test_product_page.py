"""The check of lesson 02, with right answers and wrong ones."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from fastapi import HTTPException
from sqlalchemy import select

from looplab.exercises.product_page import EXERCISE, QUESTIONS, Catalogue, check_product_page
from looplab.shop import open_shop
from looplab.shop.models import Product

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy

# What most answers share: the four questions, and the page that a TaskGroup makes of them.
HEADER = """
import asyncio, anyio
from fastapi import HTTPException
from looplab.exercises.product_page import Catalogue

QUESTIONS = ("product", "bought_with", "recent_buyers", "sold")

def asked(shelf, product_id):
    return [getattr(shelf, question)(product_id) for question in QUESTIONS]

def page_of(answers):
    return dict(zip(QUESTIONS, answers, strict=True))

async def grouped(product_id, sessions):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in asked(Catalogue(sessions), product_id)]
    return page_of(task.result() for task in tasks)

async def group_unwrapped(product_id, sessions):
    try:
        return await grouped(product_id, sessions)
    except* HTTPException as failed:
        raise failed.exceptions[0] from None
"""

RIGHT: tuple[tuple[str, str], ...] = (
    (
        "a TaskGroup, unwrapped by except*",
        """
product_page = group_unwrapped
""",
    ),
    (
        "gather, whose tasks are cancelled and awaited when one fails",
        """
async def product_page(product_id, sessions):
    tasks = [asyncio.create_task(one) for one in asked(Catalogue(sessions), product_id)]
    try:
        return page_of(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
""",
    ),
    (
        "asyncio.wait for the first failure, with a finally that ends the others",
        """
async def product_page(product_id, sessions):
    tasks = [asyncio.create_task(one) for one in asked(Catalogue(sessions), product_id)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        return page_of(task.result() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
""",
    ),
    (
        "an AnyIO task group",
        """
async def product_page(product_id, sessions):
    shelf, page = Catalogue(sessions), {}

    async def ask(question):
        page[question] = await getattr(shelf, question)(product_id)

    try:
        async with anyio.create_task_group() as group:
            for question in QUESTIONS:
                group.start_soon(ask, question)
    except* HTTPException as failed:
        raise failed.exceptions[0] from None
    return page
""",
    ),
    (
        "a failing database as a 503",
        """
async def product_page(product_id, sessions):
    try:
        return await group_unwrapped(product_id, sessions)
    except* HTTPException as failed:
        raise failed.exceptions[0] from None
    except* Exception as failed:
        raise HTTPException(503, "try again later") from failed
""",
    ),
    (
        "a missing product returned as a response, not raised",
        """
from fastapi.responses import JSONResponse

async def product_page(product_id, sessions):
    try:
        return await group_unwrapped(product_id, sessions)
    except* HTTPException as failed:
        error = failed.exceptions[0]
    return JSONResponse({"detail": error.detail}, error.status_code)
""",
    ),
    (
        "one combined statement, which waits once",
        """
from sqlalchemy import func, select
from looplab.shop.models import Order, OrderItem, Product, User

async def product_page(product_id, sessions):
    mine = select(OrderItem.order_id).where(OrderItem.product_id == product_id)
    others = (
        select(Product.name)
        .join(OrderItem, OrderItem.product_id == Product.id)
        .where(OrderItem.order_id.in_(mine), Product.id != product_id)
        .group_by(Product.id)
        .order_by(func.count().desc(), Product.id)
        .limit(3)
        .subquery()
    )
    buyers = (
        select(User.name)
        .join(Order, Order.user_id == User.id)
        .where(Order.id.in_(mine))
        .group_by(User.id)
        .order_by(func.max(Order.created_at).desc(), User.id)
        .limit(3)
        .subquery()
    )
    sold = select(func.sum(OrderItem.quantity)).where(OrderItem.product_id == product_id)
    statement = select(
        Product.name,
        Product.price,
        select(func.group_concat(others.c.name, "|")).scalar_subquery(),
        select(func.group_concat(buyers.c.name, "|")).scalar_subquery(),
        sold.scalar_subquery(),
    ).where(Product.id == product_id)
    async with sessions() as session:
        row = (await session.execute(statement)).one_or_none()
    if row is None:
        raise HTTPException(404, "no such product")
    name, price, names, people, count = row
    product = {"name": name, "price": price}
    return page_of([product, names.split("|"), people.split("|"), count])
""",
    ),
)

WRONG: tuple[tuple[str, str, str], ...] = (
    (
        "a TaskGroup whose group is searched for the 404",
        """
async def product_page(product_id, sessions):
    try:
        return await grouped(product_id, sessions)
    except ExceptionGroup as group:
        for error in group.exceptions:
            if isinstance(error, HTTPException):
                raise error from None
        raise
""",
        "drops-the-others",
    ),
    (
        "the first error of the group, whatever else is in it",
        """
async def product_page(product_id, sessions):
    try:
        return await grouped(product_id, sessions)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
""",
        "drops-the-others",
    ),
    (
        "one question after another",
        """
async def product_page(product_id, sessions):
    return page_of([await one for one in asked(Catalogue(sessions), product_id)])
""",
        "one-by-one",
    ),
    (
        "four tasks on one session",
        """
async def product_page(product_id, sessions):
    async with sessions() as session:
        return await group_unwrapped(product_id, session)
""",
        "shared-session",
    ),
    (
        "the product first, then the other three",
        """
async def product_page(product_id, sessions):
    shelf = Catalogue(sessions)
    product = await shelf.product(product_id)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(getattr(shelf, one)(product_id)) for one in QUESTIONS[1:]]
    return page_of([product, *(task.result() for task in tasks)])
""",
        "product-first",
    ),
    (
        "two questions and two more",
        """
async def product_page(product_id, sessions):
    shelf = Catalogue(sessions)
    pair = await asyncio.gather(shelf.product(product_id), shelf.bought_with(product_id))
    rest = await asyncio.gather(shelf.recent_buyers(product_id), shelf.sold(product_id))
    return page_of([*pair, *rest])
""",
        "not-all-at-once",
    ),
    (
        "the TaskGroup's group let out",
        """
product_page = grouped
""",
        "group-becomes-500",
    ),
    (
        "gather, whose other questions run on",
        """
async def product_page(product_id, sessions):
    return page_of(await asyncio.gather(*asked(Catalogue(sessions), product_id)))
""",
        "siblings-left-running",
    ),
    (
        "shield around each",
        """
async def product_page(product_id, sessions):
    tasks = [asyncio.create_task(one) for one in asked(Catalogue(sessions), product_id)]
    return page_of([await asyncio.shield(task) for task in tasks])
""",
        "siblings-left-running",
    ),
    (
        "gather, whose tasks are cancelled and not awaited",
        """
async def product_page(product_id, sessions):
    tasks = [asyncio.create_task(one) for one in asked(Catalogue(sessions), product_id)]
    try:
        return page_of(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
""",
        "siblings-left-running",
    ),
    (
        "gather with return_exceptions, which waits for all",
        """
async def product_page(product_id, sessions):
    answers = await asyncio.gather(*asked(Catalogue(sessions), product_id), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return page_of(answers)
""",
        "waits-for-siblings",
    ),
    (
        "a page without a product",
        """
async def product_page(product_id, sessions):
    try:
        return await group_unwrapped(product_id, sessions)
    except HTTPException:
        return page_of([None, [], [], 0])
""",
        "swallowed-404",
    ),
    (
        "each error as a 404",
        """
async def product_page(product_id, sessions):
    try:
        return await grouped(product_id, sessions)
    except* Exception:
        raise HTTPException(404) from None
""",
        "every-error-becomes-404",
    ),
    (
        "400 for a missing product",
        """
async def product_page(product_id, sessions):
    try:
        return await group_unwrapped(product_id, sessions)
    except HTTPException:
        raise HTTPException(400) from None
""",
        "wrong-404",
    ),
    (
        "tasks in the answer",
        """
async def product_page(product_id, sessions):
    return page_of(asyncio.create_task(one) for one in asked(Catalogue(sessions), product_id))
""",
        "task-in-the-answer",
    ),
    (
        "methods in the answer",
        """
async def product_page(product_id, sessions):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in asked(Catalogue(sessions), product_id)]
    return page_of(task.result for task in tasks)
""",
        "task-in-the-answer",
    ),
    (
        "result() inside the group",
        """
async def product_page(product_id, sessions):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in asked(Catalogue(sessions), product_id)]
        return page_of(task.result() for task in tasks)
""",
        "result-too-early",
    ),
    (
        "coroutines in the answer",
        """
async def product_page(product_id, sessions):
    return page_of(asked(Catalogue(sessions), product_id))
""",
        "forgotten-await",
    ),
    (
        "tasks started and forgotten",
        """
kept = []

async def product_page(product_id, sessions):
    kept.extend(asyncio.create_task(one) for one in asked(Catalogue(sessions), product_id))
    return page_of([None] * 4)
""",
        "left-running",
    ),
    (
        "a key left out",
        """
async def product_page(product_id, sessions):
    page = await group_unwrapped(product_id, sessions)
    del page["sold"]
    return page
""",
        "wrong-answer",
    ),
    (
        "a key too many",
        """
async def product_page(product_id, sessions):
    return {**await group_unwrapped(product_id, sessions), "id": str(product_id)}
""",
        "wrong-answer",
    ),
    (
        "two answers crossed",
        """
async def product_page(product_id, sessions):
    page = await group_unwrapped(product_id, sessions)
    page["bought_with"], page["recent_buyers"] = page["recent_buyers"], page["bought_with"]
    return page
""",
        "wrong-answer",
    ),
    (
        "a list",
        """
async def product_page(product_id, sessions):
    return list((await group_unwrapped(product_id, sessions)).values())
""",
        "wrong-answer",
    ),
    (
        "what JSON cannot hold",
        """
async def product_page(product_id, sessions):
    return {**await group_unwrapped(product_id, sessions), "sold": object()}
""",
        "wrong-answer",
    ),
    (
        "a session that stays open",
        """
kept = []

async def product_page(product_id, sessions):
    session = sessions()
    await session.connection()
    kept.append(session)
    return await group_unwrapped(product_id, sessions)
""",
        "connection-kept",
    ),
    (
        "nothing returned",
        """
async def product_page(product_id, sessions):
    await group_unwrapped(product_id, sessions)
""",
        "not-written",
    ),
    (
        "nothing written",
        """
async def product_page(product_id, sessions):
    raise NotImplementedError
""",
        "not-written",
    ),
    (
        "another signature",
        """
async def product_page(product_id):
    return {}
""",
        "raised",
    ),
    (
        "a bug in a group",
        """
async def product_page(product_id, sessions):
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(int, "seven"))
""",
        "raised",
    ),
    (
        "an exit",
        """
async def product_page(product_id, sessions):
    raise SystemExit
""",
        "exits",
    ),
    (
        "a page that cancels itself",
        """
async def product_page(product_id, sessions):
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)
""",
        "cancels-itself",
    ),
    (
        "def in place of async def",
        """
def product_page(product_id, sessions):
    return {}
""",
        "not-async",
    ),
    (
        "an async generator",
        """
async def product_page(product_id, sessions):
    yield {}
""",
        "not-async",
    ),
    (
        "[] for a question that fails",
        """
async def product_page(product_id, sessions):
    shelf = Catalogue(sessions)

    async def ask(question, otherwise):
        try:
            return await getattr(shelf, question)(product_id)
        except Exception:
            return otherwise

    try:
        async with asyncio.TaskGroup() as group:
            product = group.create_task(shelf.product(product_id))
            others = [group.create_task(ask(q, o)) for q, o in zip(QUESTIONS[1:], ([], [], 0))]
    except* HTTPException as failed:
        raise failed.exceptions[0] from None
    return page_of([product.result(), *(task.result() for task in others)])
""",
        "hides-a-failure",
    ),
    (
        "[] for a question that the database fails",
        """
from sqlalchemy.exc import SQLAlchemyError

async def product_page(product_id, sessions):
    shelf = Catalogue(sessions)

    async def ask(question, otherwise):
        try:
            return await getattr(shelf, question)(product_id)
        except SQLAlchemyError:
            return otherwise

    try:
        async with asyncio.TaskGroup() as group:
            product = group.create_task(shelf.product(product_id))
            others = [group.create_task(ask(q, o)) for q, o in zip(QUESTIONS[1:], ([], [], 0))]
    except* HTTPException as failed:
        raise failed.exceptions[0] from None
    return page_of([product.result(), *(task.result() for task in others)])
""",
        "hides-a-failure",
    ),
    (
        "[] for a question that times out",
        """
async def product_page(product_id, sessions):
    shelf = Catalogue(sessions)

    async def ask(question, otherwise):
        try:
            return await getattr(shelf, question)(product_id)
        except TimeoutError:
            return otherwise

    try:
        async with asyncio.TaskGroup() as group:
            product = group.create_task(shelf.product(product_id))
            others = [group.create_task(ask(q, o)) for q, o in zip(QUESTIONS[1:], ([], [], 0))]
    except* HTTPException as failed:
        raise failed.exceptions[0] from None
    return page_of([product.result(), *(task.result() for task in others)])
""",
        "hides-a-failure",
    ),
    (
        "[] for a question with a bug",
        """
async def product_page(product_id, sessions):
    shelf = Catalogue(sessions)

    async def ask(question, otherwise):
        try:
            return await getattr(shelf, question)(product_id)
        except (LookupError, ValueError):
            return otherwise

    try:
        async with asyncio.TaskGroup() as group:
            product = group.create_task(shelf.product(product_id))
            others = [group.create_task(ask(q, o)) for q, o in zip(QUESTIONS[1:], ([], [], 0))]
    except* HTTPException as failed:
        raise failed.exceptions[0] from None
    return page_of([product.result(), *(task.result() for task in others)])
""",
        "hides-a-failure",
    ),
    (
        "None for whatever failed, by return_exceptions",
        """
async def product_page(product_id, sessions):
    tasks = [asyncio.create_task(one) for one in asked(Catalogue(sessions), product_id)]
    try:
        product = await tasks[0]
        await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    return page_of([product, *(None if isinstance(a, Exception) else a for a in answers[1:])])
""",
        "hides-a-failure",
    ),
    (
        "a 200 that names its error",
        """
async def product_page(product_id, sessions):
    try:
        return await group_unwrapped(product_id, sessions)
    except* HTTPException as failed:
        raise failed.exceptions[0] from None
    except* Exception as failed:
        error = repr(failed)
    return {"error": error}
""",
        "hides-a-failure",
    ),
    (
        "yesterday's page when a question fails",
        """
pages = {}

async def product_page(product_id, sessions):
    try:
        pages[product_id] = await group_unwrapped(product_id, sessions)
    except* HTTPException as failed:
        raise failed.exceptions[0] from None
    except* Exception:
        pass
    return pages[product_id]
""",
        "hides-a-failure",
    ),
    (
        "each HTTPException as a 404",
        """
async def product_page(product_id, sessions):
    try:
        return await grouped(product_id, sessions)
    except* HTTPException:
        raise HTTPException(404, "no such product") from None
""",
        "every-error-becomes-404",
    ),
    (
        "400 when the database fails",
        """
async def product_page(product_id, sessions):
    try:
        return await group_unwrapped(product_id, sessions)
    except* HTTPException as failed:
        raise failed.exceptions[0] from None
    except* Exception as failed:
        raise HTTPException(400, "bad request") from failed
""",
        "failure-blamed-on-the-caller",
    ),
    (
        "500 for a missing product, by an except of its own",
        """
async def product_page(product_id, sessions):
    try:
        return await group_unwrapped(product_id, sessions)
    except HTTPException as error:
        raise HTTPException(500, "page failed") from error
""",
        "wrong-404",
    ),
    (
        "204 for a missing product",
        """
from fastapi import Response

async def product_page(product_id, sessions):
    try:
        return await group_unwrapped(product_id, sessions)
    except HTTPException:
        return Response(status_code=204)
""",
        "wrong-404",
    ),
    (
        "asyncio.wait, which passes no cancellation on",
        """
async def product_page(product_id, sessions):
    tasks = [asyncio.create_task(one) for one in asked(Catalogue(sessions), product_id)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending)
    for task in done:
        task.result()
    return page_of(task.result() for task in tasks)
""",
        "cancelled-leaves-running",
    ),
    (
        "gather of tasks that a shield protects",
        """
async def product_page(product_id, sessions):
    page = asyncio.create_task(group_unwrapped(product_id, sessions))
    return await asyncio.shield(page)
""",
        "cancelled-leaves-running",
    ),
    (
        "a cancellation swallowed",
        """
async def product_page(product_id, sessions):
    try:
        return await group_unwrapped(product_id, sessions)
    except asyncio.CancelledError:
        return page_of([None, [], [], 0])
""",
        "survives-cancellation",
    ),
    (
        "a cancellation as a 503",
        """
async def product_page(product_id, sessions):
    try:
        return await group_unwrapped(product_id, sessions)
    except HTTPException:
        raise
    except BaseException as error:
        raise HTTPException(503, "try again later") from error
""",
        "survives-cancellation",
    ),
    (
        "each question asked twice, to be sure",
        """
async def product_page(product_id, sessions):
    await group_unwrapped(product_id, sessions)
    return await group_unwrapped(product_id, sessions)
""",
        "asked-twice",
    ),
    (
        "two sessions for four questions",
        """
async def product_page(product_id, sessions):
    async with sessions() as one, sessions() as other:
        asking = [
            Catalogue(one).product(product_id),
            Catalogue(one).bought_with(product_id),
            Catalogue(other).recent_buyers(product_id),
            Catalogue(other).sold(product_id),
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in asking]
    return page_of(task.result() for task in tasks)
""",
        "shared-session",
    ),
    (
        "one session for all requests",
        """
kept = []

async def product_page(product_id, sessions):
    if not kept:
        kept.append(sessions())
    return await group_unwrapped(product_id, kept[0])
""",
        "shared-session",
    ),
    (
        "a semaphore of two around four questions",
        """
async def product_page(product_id, sessions):
    two = asyncio.Semaphore(2)

    async def limited(question):
        async with two:
            return await question

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(limited(q)) for q in asked(Catalogue(sessions), product_id)]
    return page_of(task.result() for task in tasks)
""",
        "not-all-at-once",
    ),
    (
        "time.sleep before the questions",
        """
import time

async def product_page(product_id, sessions):
    time.sleep(3)
    return await group_unwrapped(product_id, sessions)
""",
        "blocks-the-loop",
    ),
)


@pytest.fixture
def page_of(written: Callable[[str, str], dict[str, Any]]) -> Callable[[str], Any]:
    """Return ``product_page`` as an answer has it."""
    return lambda source: written("02", HEADER + source)["product_page"]


@pytest.mark.parametrize("source", [pytest.param(source, id=name) for name, source in RIGHT])
async def test_a_right_answer_passes_in_any_style(source, page_of) -> None:
    verdict = await check_product_page(page_of(source), limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


@pytest.mark.parametrize(
    ("source", "mistake"),
    [pytest.param(source, mistake, id=name) for name, source, mistake in WRONG],
)
async def test_a_wrong_answer_gets_its_own_hint(source, mistake, page_of) -> None:
    verdict = await check_product_page(page_of(source), limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    assert {mistake.name for mistake in EXERCISE.mistakes} <= {mistake for *_, mistake in WRONG}


async def test_an_endless_page_is_stopped() -> None:
    async def endless(product_id: UUID, sessions: Any) -> Any:
        async with sessions() as session:
            while True:
                await session.execute(select(1))

    assert (await check_product_page(endless, limit=0.5)).mistake == "never-ends"


async def test_the_page_called_in_the_check_cell() -> None:
    async def page(product_id: UUID, sessions: Any) -> Any:
        raise NotImplementedError

    verdict = await check_product_page(page(UUID(int=0), None))
    assert verdict.mistake == "called-instead-of-passed"


async def test_the_catalogue_answers_each_question_with_one_statement() -> None:
    async with open_shop(users=60, products=30, name="catalogue") as shop:
        async with shop.session() as session:
            product_id = await session.scalar(select(Product.id).order_by(Product.name))
            assert product_id is not None
        for question in QUESTIONS:
            shop.reset_counters()
            assert await getattr(Catalogue(shop.sessions), question)(product_id)
            assert shop.statements == 1
        with pytest.raises(HTTPException) as missing:
            await Catalogue(shop.sessions).product(UUID(int=0))
        assert missing.value.status_code == 404
