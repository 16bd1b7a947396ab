"""The check of lesson 11, with right answers and wrong ones."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import select, tuple_

from support.exercises.export import EXERCISE, check_export
from support.shop.models import User
from support.shop.repositories import UserRepository

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy

key_columns = tuple_(User.created_at, User.id)
IN_ORDER = select(User).order_by(User.created_at, User.id)


def as_line(user: Any) -> str:
    return json.dumps({"id": str(user.id), "name": user.name, "email": user.email}) + "\n"


def as_lines(page: Any) -> str:
    return "".join(map(as_line, page))


def key_of(user: User) -> Any:
    return user.created_at, user.id


async def pages(sessions: Any, size: int) -> AsyncIterator[list[User]]:
    """Yield right pages, for exporters that do something else wrong with them."""
    statement = IN_ORDER.limit(size)
    while True:
        async with sessions() as session:
            page = list((await session.scalars(statement)).all())
        if not page:
            return
        yield page
        statement = IN_ORDER.where(key_columns > key_of(page[-1])).limit(size)


async def session_per_page(sessions: Any, page_size: int) -> Any:
    async for page in pages(sessions, page_size):
        yield as_lines(page)


async def one_session(sessions: Any, page_size: int) -> Any:
    statement = IN_ORDER.limit(page_size)
    async with sessions() as session:
        while page := (await session.scalars(statement)).all():
            yield as_lines(page).encode()
            statement = IN_ORDER.where(key_columns > key_of(page[-1])).limit(page_size)


async def repository(sessions: Any, page_size: int) -> Any:
    users, last = UserRepository(sessions), None
    while page := await users.get_batch_after(last, page_size):
        yield as_lines(page)
        if len(page) < page_size:
            return
        last = key_of(page[-1])


async def columns_not_ascii(sessions: Any, page_size: int) -> Any:
    columns = select(User.id, User.name, User.email, User.created_at)
    columns = columns.order_by(User.created_at, User.id).limit(page_size)
    following = columns
    while True:
        async with sessions() as session:
            rows = (await session.execute(following)).all()
        lines = [
            json.dumps({"id": row.id.hex, "name": row.name, "email": row.email}, ensure_ascii=False)
            for row in rows
        ]
        yield "".join(line + "\n" for line in lines).encode()
        if len(rows) < page_size:
            return
        following = columns.where(key_columns > (rows[-1].created_at, rows[-1].id))


async def prefetching(sessions: Any, page_size: int) -> Any:
    source = aiter(pages(sessions, page_size))
    page: Any = await anext(source, None)
    while page is not None:
        following = asyncio.ensure_future(anext(source, None))
        try:
            yield as_lines(page)
            page = await following
        finally:
            following.cancel()
            await asyncio.wait([following])


async def server_side_cursor(sessions: Any, page_size: int) -> Any:
    async with sessions() as session:
        users = await session.stream_scalars(IN_ORDER.execution_options(yield_per=page_size))
        async for page in users.partitions():
            yield as_lines(page)


def plain_function_that_returns_one(sessions: Any, page_size: int) -> Any:
    return session_per_page(sessions, page_size)


@pytest.mark.parametrize(
    "export",
    [
        session_per_page,
        one_session,
        repository,
        columns_not_ascii,
        prefetching,
        server_side_cursor,
        plain_function_that_returns_one,
    ],
)
async def test_right_answers_pass(export) -> None:
    verdict = await check_export(export, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


async def untouched(sessions: Any, page_size: int) -> Any:
    yield ""


async def first_page(sessions: Any, page_size: int) -> Any:
    async for page in pages(sessions, page_size):
        yield as_lines(page)
        return


async def offset(sessions: Any, page_size: int) -> Any:
    users, start = UserRepository(sessions), 0
    while page := await users.get_batch(start, page_size):
        yield as_lines(page)
        start += page_size


async def offset_in_one_session(sessions: Any, page_size: int) -> Any:
    start = 0
    async with sessions() as session:
        statement = IN_ORDER.limit(page_size)
        while page := (await session.scalars(statement.offset(start))).all():
            yield as_lines(page)
            start += len(page)


async def key_by_subquery(sessions: Any, page_size: int) -> Any:
    """Look up where the last user stands, who may be gone by then."""
    statement = IN_ORDER.limit(page_size)
    while True:
        async with sessions() as session:
            page = (await session.scalars(statement)).all()
        if not page:
            return
        yield as_lines(page)
        last = select(User.created_at, User.id).where(User.id == page[-1].id)
        statement = IN_ORDER.where(key_columns > last.scalar_subquery()).limit(page_size)


def keyed(order: Any, after: Callable[[User], Any]) -> Callable[..., Any]:
    async def export(sessions: Any, page_size: int) -> Any:
        statement = order.limit(page_size)
        while True:
            async with sessions() as session:
                page = (await session.scalars(statement)).all()
            if not page:
                return
            yield as_lines(page)
            statement = order.where(after(page[-1])).limit(page_size)

    return export


created_alone = keyed(IN_ORDER, lambda last: User.created_at > last.created_at)
at_or_after = keyed(IN_ORDER, lambda last: key_columns >= key_of(last))
by_id = keyed(select(User).order_by(User.id), lambda last: User.id > last.id)
by_name = keyed(select(User).order_by(User.name), lambda last: User.name > last.name)
each_apart = keyed(IN_ORDER, lambda last: (User.created_at > last.created_at) & (User.id > last.id))
either = keyed(IN_ORDER, lambda last: (User.created_at > last.created_at) | (User.id > last.id))


async def key_never_moves(sessions: Any, page_size: int) -> Any:
    while page := await UserRepository(sessions).get_batch_after(None, page_size):
        yield as_lines(page)


async def full_pages_only(sessions: Any, page_size: int) -> Any:
    async for page in pages(sessions, page_size):
        if len(page) < page_size:
            return
        yield as_lines(page)


async def last_of_nothing(sessions: Any, page_size: int) -> Any:
    users, last = UserRepository(sessions), None
    while True:
        page = await users.get_batch_after(last, page_size)
        last = key_of(page[-1])
        yield as_lines(page)
        if len(page) < page_size:
            return


async def last_of_nothing_always(sessions: Any, page_size: int) -> Any:
    users, last = UserRepository(sessions), None
    while True:
        page = await users.get_batch_after(last, page_size)
        last = key_of(page[-1])
        yield as_lines(page)


async def stops_by_exception(sessions: Any, page_size: int) -> Any:
    async for page in pages(sessions, page_size):
        yield as_lines(page)
    raise StopAsyncIteration


async def empty_for_ever(sessions: Any, page_size: int) -> Any:
    users, last = UserRepository(sessions), None
    while True:
        page = await users.get_batch_after(last, page_size)
        if page:
            last = key_of(page[-1])
        yield as_lines(page)


async def silent_for_ever(sessions: Any, page_size: int) -> Any:
    users, last = UserRepository(sessions), None
    while True:
        if page := await users.get_batch_after(last, page_size):
            last = key_of(page[-1])
            yield as_lines(page)


async def load_all(sessions: Any, page_size: int) -> Any:
    async with sessions() as session:
        users = (await session.scalars(IN_ORDER)).all()
    for start in range(0, len(users), page_size):
        yield as_lines(users[start : start + page_size])


async def collect_all(sessions: Any, page_size: int) -> Any:
    yield "".join([as_lines(page) async for page in pages(sessions, page_size)])


async def chunk_per_row(sessions: Any, page_size: int) -> Any:
    async for page in pages(sessions, page_size):
        for user in page:
            yield as_line(user)


async def statement_per_row(sessions: Any, page_size: int) -> Any:
    users = UserRepository(sessions)
    async for page in pages(sessions, page_size):
        yield as_lines([await users.get_by_id(user.id) for user in page])


async def f_string(sessions: Any, page_size: int) -> Any:
    async for page in pages(sessions, page_size):
        yield "".join(
            f'{{"id": "{user.id}", "name": "{user.name}", "email": "{user.email}"}}\n'
            for user in page
        )


async def python_repr(sessions: Any, page_size: int) -> Any:
    async for page in pages(sessions, page_size):
        yield "".join(f"{json.loads(as_line(user))}\n" for user in page)


async def latin_1(sessions: Any, page_size: int) -> Any:
    async for page in pages(sessions, page_size):
        lines = [json.loads(as_line(user)) for user in page]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        yield text.encode("latin-1", errors="replace")


async def joined(sessions: Any, page_size: int) -> Any:
    async for page in pages(sessions, page_size):
        yield as_lines(page)[:-1]


async def no_last_newline(sessions: Any, page_size: int) -> Any:
    before = ""
    async for page in pages(sessions, page_size):
        yield before + as_lines(page)[:-1]
        before = "\n"


async def arrays(sessions: Any, page_size: int) -> Any:
    async for page in pages(sessions, page_size):
        yield json.dumps([json.loads(as_line(user)) for user in page]) + "\n"


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[..., Any]:
    async def export(sessions: Any, page_size: int) -> Any:
        async for page in pages(sessions, page_size):
            lines = [json.loads(as_line(user)) for user in page]
            for line in lines:
                change(line)
            yield "".join(json.dumps(line) + "\n" for line in lines)

    return export


short = changed(lambda line: line.pop("email"))
tidied = changed(lambda line: line.update(name=" ".join(line["name"].split())))
numbered = changed(lambda line: line.update(id=7))


async def returns_text(sessions: Any, page_size: int) -> Any:
    return "".join([as_lines(page) async for page in pages(sessions, page_size)])


def plain_generator(sessions: Any, page_size: int) -> Any:
    yield ""


async def rows(sessions: Any, page_size: int) -> Any:
    async for page in pages(sessions, page_size):
        yield page


async def session_open_when_left(sessions: Any, page_size: int) -> Any:
    statement = IN_ORDER.limit(page_size)
    session = sessions()
    while page := (await session.scalars(statement)).all():
        yield as_lines(page)
        statement = IN_ORDER.where(key_columns > key_of(page[-1])).limit(page_size)
    await session.close()


async def session_never_closed(sessions: Any, page_size: int) -> Any:
    session = sessions()
    statement = IN_ORDER.limit(page_size)
    while page := (await session.scalars(statement)).all():
        yield as_lines(page)
        statement = IN_ORDER.where(key_columns > key_of(page[-1])).limit(page_size)


async def swallows_the_close(sessions: Any, page_size: int) -> Any:
    async for page in pages(sessions, page_size):
        try:
            yield as_lines(page)
        except BaseException:
            yield "interrupted"


async def not_yet(sessions: Any, page_size: int) -> Any:
    raise NotImplementedError
    yield


async def divides(sessions: Any, page_size: int) -> Any:
    yield as_lines([]) * (1 // 0)


async def leaves(sessions: Any, page_size: int) -> Any:
    async for page in pages(sessions, page_size):
        yield as_lines(page)
        raise SystemExit


async def cancels(sessions: Any, page_size: int) -> Any:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)
    yield ""


async def forgets(sessions: Any, page_size: int) -> Any:
    yield as_lines(UserRepository(sessions).get_batch_after(None, page_size))


async def writes_in_the_background(sessions: Any, page_size: int) -> Any:
    async def counted() -> None:
        await asyncio.Event().wait()

    background.append(asyncio.create_task(counted()))
    async for page in pages(sessions, page_size):
        yield as_lines(page)


background: list[Any] = []

WRONG: list[tuple[str, Callable[..., Any]]] = [
    ("untouched", untouched),
    ("first-page-only", first_page),
    ("offset", offset),
    ("offset", offset_in_one_session),
    ("offset", key_by_subquery),
    ("key-with-ties", created_alone),
    ("skips-rows", each_apart),
    ("repeats-rows", either),
    ("repeats-rows", at_or_after),
    ("repeats-rows", key_never_moves),
    ("wrong-order", by_id),
    ("wrong-order", by_name),
    ("last-page-lost", full_pages_only),
    ("fails-at-the-end", last_of_nothing),
    ("fails-at-the-end", last_of_nothing_always),
    ("fails-at-the-end", stops_by_exception),
    ("empty-for-ever", empty_for_ever),
    ("loads-all", load_all),
    ("loads-all", collect_all),
    ("chunk-per-row", chunk_per_row),
    ("too-many-statements", statement_per_row),
    ("lines-not-json", f_string),
    ("lines-not-json", python_repr),
    ("lines-not-json", latin_1),
    ("newline-missing", joined),
    ("newline-missing", no_last_newline),
    ("array-not-lines", arrays),
    ("wrong-fields", short),
    ("wrong-fields", tidied),
    ("wrong-fields", numbered),
    ("not-a-generator", returns_text),
    ("not-a-generator", plain_generator),
    ("wrong-chunk", rows),
    ("session-left-open", session_open_when_left),
    ("session-left-open", session_never_closed),
    ("raised", swallows_the_close),
    ("not-written", not_yet),
    ("raised", divides),
    ("exits", leaves),
    ("cancels-itself", cancels),
    ("forgotten-await", forgets),
    ("left-running", writes_in_the_background),
]


@pytest.mark.parametrize(("mistake", "export"), WRONG)
async def test_wrong_answers_get_their_hint(mistake, export) -> None:
    verdict = await check_export(export, limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message
    background.clear()


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    assert {mistake.name for mistake in EXERCISE.mistakes} <= {name for name, _ in WRONG}


async def test_an_export_that_never_ends_is_stopped() -> None:
    assert (await check_export(silent_for_ever, limit=1)).mistake == "never-ends"


async def test_a_close_that_never_ends_is_stopped() -> None:
    async def clings(sessions: Any, page_size: int) -> Any:
        try:
            async for page in pages(sessions, page_size):
                yield as_lines(page)
        finally:
            await asyncio.Event().wait()

    assert (await check_export(clings, limit=1)).mistake == "never-ends"


@pytest.mark.parametrize("given", [None, 7, "export"])
async def test_something_else_than_a_function(given) -> None:
    assert (await check_export(given)).mistake == "wrong-type"


async def test_the_export_called_in_the_check_cell() -> None:
    verdict = await check_export(session_per_page(None, 10), limit=AMPLE)
    assert verdict.mistake == "called-instead-of-passed"


async def test_a_class_of_ones_own_that_iterates_passes() -> None:
    class Export:
        def __init__(self, sessions: Any, page_size: int) -> None:
            self.pages = session_per_page(sessions, page_size)

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> str:
            return await anext(self.pages)

        async def aclose(self) -> None:
            await self.pages.aclose()

    verdict = await check_export(
        lambda sessions, page_size: Export(sessions, page_size), limit=AMPLE
    )
    assert verdict.passed, verdict.message
