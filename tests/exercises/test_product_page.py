"""The check of lesson 02, with right answers and wrong ones."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from fastapi import HTTPException
from sqlalchemy import func, select

from support.exercises.product_page import (
    EXERCISE,
    NO_SUCH_PRODUCT,
    QUESTIONS,
    Catalogue,
    check_product_page,
)
from support.shop import open_shop
from support.shop.models import Order, OrderItem, Product, User

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy


def asked(shelf: Catalogue, product_id: UUID) -> list[Any]:
    return [getattr(shelf, question)(product_id) for question in QUESTIONS]


def page_of(answers: Any) -> dict[str, Any]:
    return dict(zip(QUESTIONS, answers, strict=True))


async def grouped(product_id: UUID, sessions: Any) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in asked(Catalogue(sessions), product_id)]
    return page_of(task.result() for task in tasks)


async def group_unwrapped(product_id: UUID, sessions: Any) -> Any:
    try:
        return await grouped(product_id, sessions)
    except* HTTPException as failed:
        raise failed.exceptions[0] from None


async def gather_cancelling(product_id: UUID, sessions: Any) -> Any:
    tasks = [asyncio.create_task(one) for one in asked(Catalogue(sessions), product_id)]
    try:
        return page_of(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def gather_cancelling_unawaited(product_id: UUID, sessions: Any) -> Any:
    tasks = [asyncio.create_task(one) for one in asked(Catalogue(sessions), product_id)]
    try:
        return page_of(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def first_failure(product_id: UUID, sessions: Any) -> Any:
    tasks = [asyncio.create_task(one) for one in asked(Catalogue(sessions), product_id)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending)
    for task in done:
        task.result()
    return page_of(task.result() for task in tasks)


async def one_statement(product_id: UUID, sessions: Any) -> Any:
    """Ask once: what the lesson ships where one SELECT can answer everything."""
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
        raise HTTPException(404, NO_SUCH_PRODUCT)
    name, price, names, people, count = row
    product = {"name": name, "price": price}
    return page_of([product, names.split("|"), people.split("|"), count])


@pytest.mark.parametrize(
    "page",
    [
        group_unwrapped,
        gather_cancelling,
        first_failure,
    ],
)
async def test_right_answers_pass(page) -> None:
    verdict = await check_product_page(page, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


async def test_one_combined_statement_passes_but_for_the_failure_of_a_question() -> None:
    verdict = await check_product_page(one_statement, limit=AMPLE)
    assert verdict.passed, verdict.message


async def one_by_one(product_id: UUID, sessions: Any) -> Any:
    return page_of([await one for one in asked(Catalogue(sessions), product_id)])


async def shared_session(product_id: UUID, sessions: Any) -> Any:
    async with sessions() as session:
        return await group_unwrapped(product_id, session)


async def product_first(product_id: UUID, sessions: Any) -> Any:
    shelf = Catalogue(sessions)
    product = await shelf.product(product_id)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(getattr(shelf, one)(product_id)) for one in QUESTIONS[1:]]
    return page_of([product, *(task.result() for task in tasks)])


async def two_and_two(product_id: UUID, sessions: Any) -> Any:
    shelf = Catalogue(sessions)
    pair = await asyncio.gather(shelf.product(product_id), shelf.bought_with(product_id))
    rest = await asyncio.gather(shelf.recent_buyers(product_id), shelf.sold(product_id))
    return page_of([*pair, *rest])


async def gathered(product_id: UUID, sessions: Any) -> Any:
    return page_of(await asyncio.gather(*asked(Catalogue(sessions), product_id)))


async def gathered_in_full(product_id: UUID, sessions: Any) -> Any:
    answers = await asyncio.gather(*asked(Catalogue(sessions), product_id), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return page_of(answers)


async def shielded(product_id: UUID, sessions: Any) -> Any:
    tasks = [asyncio.create_task(one) for one in asked(Catalogue(sessions), product_id)]
    return page_of([await asyncio.shield(task) for task in tasks])


async def swallowed(product_id: UUID, sessions: Any) -> Any:
    try:
        return await group_unwrapped(product_id, sessions)
    except HTTPException:
        return page_of([None, [], [], 0])


async def everything_is_404(product_id: UUID, sessions: Any) -> Any:
    try:
        return await grouped(product_id, sessions)
    except* Exception:
        raise HTTPException(404) from None


async def wrong_status(product_id: UUID, sessions: Any) -> Any:
    try:
        return await group_unwrapped(product_id, sessions)
    except HTTPException:
        raise HTTPException(400) from None


async def tasks_returned(product_id: UUID, sessions: Any) -> Any:
    return page_of(asyncio.create_task(one) for one in asked(Catalogue(sessions), product_id))


async def methods_returned(product_id: UUID, sessions: Any) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in asked(Catalogue(sessions), product_id)]
    return page_of(task.result for task in tasks)


async def too_early(product_id: UUID, sessions: Any) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in asked(Catalogue(sessions), product_id)]
        return page_of(task.result() for task in tasks)


async def not_awaited(product_id: UUID, sessions: Any) -> Any:
    return page_of(asked(Catalogue(sessions), product_id))


async def started_and_forgotten(product_id: UUID, sessions: Any) -> Any:
    kept.extend(asyncio.create_task(one) for one in asked(Catalogue(sessions), product_id))
    return page_of([None] * 4)


kept: list[Any] = []


async def a_key_short(product_id: UUID, sessions: Any) -> Any:
    page = await group_unwrapped(product_id, sessions)
    del page["sold"]
    return page


async def a_key_long(product_id: UUID, sessions: Any) -> Any:
    return {**await group_unwrapped(product_id, sessions), "id": str(product_id)}


async def crossed(product_id: UUID, sessions: Any) -> Any:
    page = await group_unwrapped(product_id, sessions)
    page["bought_with"], page["recent_buyers"] = page["recent_buyers"], page["bought_with"]
    return page


async def a_list(product_id: UUID, sessions: Any) -> Any:
    return list((await group_unwrapped(product_id, sessions)).values())


async def unserialisable(product_id: UUID, sessions: Any) -> Any:
    return {**await group_unwrapped(product_id, sessions), "sold": object()}


async def keeps_a_session(product_id: UUID, sessions: Any) -> Any:
    session = sessions()
    await session.connection()
    kept.append(session)
    return await group_unwrapped(product_id, sessions)


async def nothing(product_id: UUID, sessions: Any) -> Any:
    await group_unwrapped(product_id, sessions)


async def not_yet(product_id: UUID, sessions: Any) -> Any:
    raise NotImplementedError


async def wrong_arguments(product_id: UUID) -> Any:
    return {}


async def bare_group_fault(product_id: UUID, sessions: Any) -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(int, "seven"))


async def leaves(product_id: UUID, sessions: Any) -> Any:
    raise SystemExit


async def cancels(product_id: UUID, sessions: Any) -> Any:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


def plain(product_id: UUID, sessions: Any) -> Any:
    return {}


async def generator(product_id: UUID, sessions: Any) -> Any:
    yield {}


WRONG: list[tuple[str, Callable[..., Any]]] = [
    ("one-by-one", one_by_one),
    ("shared-session", shared_session),
    ("product-first", product_first),
    ("not-all-at-once", two_and_two),
    ("group-becomes-500", grouped),
    ("siblings-left-running", gathered),
    ("siblings-left-running", shielded),
    ("siblings-left-running", gather_cancelling_unawaited),
    ("waits-for-siblings", gathered_in_full),
    ("swallowed-404", swallowed),
    ("every-error-becomes-404", everything_is_404),
    ("wrong-404", wrong_status),
    ("task-in-the-answer", tasks_returned),
    ("task-in-the-answer", methods_returned),
    ("result-too-early", too_early),
    ("forgotten-await", not_awaited),
    ("left-running", started_and_forgotten),
    ("wrong-answer", a_key_short),
    ("wrong-answer", a_key_long),
    ("wrong-answer", crossed),
    ("wrong-answer", a_list),
    ("wrong-answer", unserialisable),
    ("connection-kept", keeps_a_session),
    ("not-written", nothing),
    ("not-written", not_yet),
    ("raised", wrong_arguments),
    ("raised", bare_group_fault),
    ("exits", leaves),
    ("cancels-itself", cancels),
    ("not-async", plain),
    ("not-async", generator),
]


@pytest.mark.parametrize(("mistake", "page"), WRONG)
async def test_wrong_answers_get_their_hint(mistake, page) -> None:
    verdict = await check_product_page(page, limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message
    kept.clear()


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    assert {mistake.name for mistake in EXERCISE.mistakes} <= {name for name, _ in WRONG}


async def test_an_endless_page_is_stopped() -> None:
    async def endless(product_id: UUID, sessions: Any) -> Any:
        async with sessions() as session:
            while True:
                await session.execute(select(1))

    assert (await check_product_page(endless, limit=0.5)).mistake == "never-ends"


async def test_the_page_called_in_the_check_cell() -> None:
    verdict = await check_product_page(one_by_one(UUID(int=0), None))
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
