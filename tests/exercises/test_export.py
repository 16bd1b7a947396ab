"""The check of lesson 11, with right answers and wrong ones."""

import asyncio
import json
import textwrap
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import select, tuple_

from looplab.exercises.export import EXERCISE, check_export
from looplab.shop.models import User
from looplab.shop.repositories import UserRepository

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy
PATIENCE = 6.0  # seconds, in which a wrong one is found, whatever it does

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


async def server_side_cursor(sessions: Any, page_size: int) -> Any:
    async with sessions() as session:
        users = await session.stream_scalars(IN_ORDER.execution_options(yield_per=page_size))
        async for page in users.partitions():
            yield as_lines(page)


def plain_function_that_returns_one(sessions: Any, page_size: int) -> Any:
    return session_per_page(sessions, page_size)


def export_of(source: str) -> Any:
    """Run an answer's source, and return the export that it defines."""
    names: dict[str, Any] = {
        "asyncio": asyncio,
        "json": json,
        "select": select,
        "tuple_": tuple_,
        "User": User,
        "UserRepository": UserRepository,
        "users": IN_ORDER,
        "key": key_columns,
        "json_line": as_line,
        "pages": pages,
    }
    exec(compile(textwrap.dedent(source), "<answer>", "exec"), names)
    return names["export_users"]


ANSWER = """
async def export_users(sessions, page_size):
    {before}
    following = {first}.limit({size})
    while True:
        async with sessions() as session:
            page = (await session.scalars(following)).all()
        if not page:
            return
        {each}
        yield "".join(json_line(user) for user in page)
        following = {first}.where({after}).limit({size})
"""


def answer(
    before: str = "sent = 0",
    first: str = "users",
    size: str = "page_size",
    each: str = "sent += len(page)",
    after: str = "key > (page[-1].created_at, page[-1].id)",
) -> str:
    """Return the course's own answer with one part of it changed."""
    return ANSWER.format(before=before, first=first, size=size, each=each, after=after)


RIGHT: tuple[tuple[str, str], ...] = (
    ("a session a page", answer()),
    (
        "the repository, which ends at a page that is not full",
        """
        async def export_users(sessions, page_size):
            repository, last = UserRepository(sessions), None
            while page := await repository.get_batch_after(last, page_size):
                yield "".join(map(json_line, page)).encode()
                if len(page) < page_size:
                    return
                last = page[-1].created_at, page[-1].id
        """,
    ),
    (
        "one session that gives its connection back before each page",
        """
        async def export_users(sessions, page_size):
            following = users.limit(page_size)
            async with sessions() as session:
                while page := (await session.scalars(following)).all():
                    await session.commit()
                    yield "".join(map(json_line, page))
                    following = users.where(
                        key > (page[-1].created_at, page[-1].id)
                    ).limit(page_size)
        """,
    ),
    (
        "a class that iterates",
        """
        class export_pages:
            def __init__(self, sessions, page_size):
                self.sessions, self.size, self.last = sessions, page_size, None

            def __aiter__(self):
                return self

            async def __anext__(self):
                page = await UserRepository(self.sessions).get_batch_after(self.last, self.size)
                if not page:
                    raise StopAsyncIteration
                self.last = page[-1].created_at, page[-1].id
                return "".join(map(json_line, page))


        def export_users(sessions, page_size):
            return export_pages(sessions, page_size)
        """,
    ),
    (
        "a task that fetches the next page while the reader reads",
        """
        async def export_users(sessions, page_size):
            source = aiter(pages(sessions, page_size))
            page = await anext(source, None)
            while page is not None:
                following = asyncio.ensure_future(anext(source, None))
                try:
                    yield "".join(map(json_line, page))
                    page = await following
                finally:
                    following.cancel()
                    await asyncio.wait([following])
        """,
    ),
    (
        "the pair written out as two conditions",
        answer(
            after="(User.created_at > page[-1].created_at) | "
            "((User.created_at == page[-1].created_at) & (User.id > page[-1].id))"
        ),
    ),
    (
        "one more row than the page needs, to know whether there is a next",
        """
        async def export_users(sessions, page_size):
            following = users.limit(page_size + 1)
            more = True
            while more:
                async with sessions() as session:
                    found = (await session.scalars(following)).all()
                page, more = found[:page_size], len(found) > page_size
                if page:
                    yield "".join(map(json_line, page))
                    after = key > (page[-1].created_at, page[-1].id)
                    following = users.where(after).limit(page_size + 1)
        """,
    ),
)


@pytest.mark.parametrize("source", [each[1] for each in RIGHT], ids=[each[0] for each in RIGHT])
async def test_a_right_answer_passes_in_any_style(source: str) -> None:
    verdict = await check_export(export_of(source), limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


@pytest.mark.parametrize("export", [columns_not_ascii, plain_function_that_returns_one])
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

IN_ONE_PART: list[tuple[str, Callable[..., Any]]] = [
    ("session-held", one_session),
    ("session-held", server_side_cursor),
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


@pytest.mark.parametrize(("mistake", "export"), IN_ONE_PART)
async def test_wrong_answers_get_their_hint(mistake, export) -> None:
    verdict = await check_export(export, limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message
    background.clear()


IN_TURN = """
async def export_users(sessions, page_size):
    async for page in pages(sessions, {size}):
        {chunks}
"""


def in_turn(chunks: str, size: str = "page_size") -> str:
    """Return an answer that gets right pages and does something else wrong with them."""
    return IN_TURN.format(chunks=chunks, size=size)


WRONG: tuple[tuple[str, str, str], ...] = (
    # the page size
    ("pages of ten, whatever page_size says", answer(size="10"), "page-size-ignored"),
    ("pages of a thousand", answer(size="1000"), "loads-all"),
    ("pages of eleven at most", answer(size="min(page_size, 11)"), "page-size-ignored"),
    ("pages of ten at least", answer(size="max(page_size, 10)"), "page-size-ignored"),
    ("pages of one more", answer(size="page_size + 1"), "page-size-ignored"),
    ("pages of half the size", answer(size="page_size // 2 + 1"), "page-size-ignored"),
    (
        "two pages a chunk",
        """
        async def export_users(sessions, page_size):
            waiting = []
            async for page in pages(sessions, page_size):
                waiting += page
                if len(waiting) >= 2 * page_size:
                    yield "".join(map(json_line, waiting))
                    waiting = []
            if waiting:
                yield "".join(map(json_line, waiting))
        """,
        "page-size-ignored",
    ),
    (
        "the first page is larger than the others",
        """
        async def export_users(sessions, page_size):
            before = []
            async for page in pages(sessions, page_size):
                if before is not None and not before:
                    before = page
                    continue
                yield "".join(map(json_line, (before or []) + page))
                before = None
            if before:
                yield "".join(map(json_line, before))
        """,
        "page-size-ignored",
    ),
    # the order
    (
        "ordered by created_at alone",
        answer(first="select(User).order_by(User.created_at)"),
        "order-with-ties",
    ),
    (
        "ordered by created_at and name",
        answer(first="select(User).order_by(User.created_at, User.name)"),
        "order-with-ties",
    ),
    (
        "ordered by created_at, and by id the other way",
        answer(
            first="select(User).order_by(User.created_at, User.id.desc())",
            after="(User.created_at > page[-1].created_at) | "
            "((User.created_at == page[-1].created_at) & (User.id < page[-1].id))",
        ),
        "order-with-ties",
    ),
    (
        "ordered by created_at alone, and paged by OFFSET",
        """
        async def export_users(sessions, page_size):
            start, in_time = 0, select(User).order_by(User.created_at)
            while True:
                async with sessions() as session:
                    page = (await session.scalars(in_time.offset(start).limit(page_size))).all()
                if not page:
                    return
                yield "".join(map(json_line, page))
                start += len(page)
        """,
        "order-with-ties",
    ),
    ("not ordered at all", answer(first="select(User)"), "order-with-ties"),
    (
        "newest first",
        answer(
            first="select(User).order_by(User.created_at.desc(), User.id.desc())",
            after="key < (page[-1].created_at, page[-1].id)",
        ),
        "wrong-order",
    ),
    (
        "ties larger than a page",
        answer(after="User.created_at > page[-1].created_at"),
        "key-with-ties",
    ),
    # the connection
    (
        "one session around the loop",
        """
        async def export_users(sessions, page_size):
            following = users.limit(page_size)
            async with sessions() as session:
                while page := (await session.scalars(following)).all():
                    yield "".join(map(json_line, page))
                    following = users.where(
                        key > (page[-1].created_at, page[-1].id)
                    ).limit(page_size)
        """,
        "session-held",
    ),
    (
        "the page is sent inside its session",
        """
        async def export_users(sessions, page_size):
            following, page = users.limit(page_size), [None]
            while page:
                async with sessions() as session:
                    page = (await session.scalars(following)).all()
                    if page:
                        yield "".join(map(json_line, page))
                        following = users.where(
                            key > (page[-1].created_at, page[-1].id)
                        ).limit(page_size)
        """,
        "session-held",
    ),
    (
        "a server-side cursor",
        """
        async def export_users(sessions, page_size):
            async with sessions() as session:
                found = await session.stream_scalars(users.execution_options(yield_per=page_size))
                async for page in found.partitions():
                    yield "".join(map(json_line, page))
        """,
        "session-held",
    ),
    (
        "a session that nobody closes",
        """
        async def export_users(sessions, page_size):
            session, following = sessions(), users.limit(page_size)
            while page := (await session.scalars(following)).all():
                yield "".join(map(json_line, page))
                following = users.where(
                    key > (page[-1].created_at, page[-1].id)
                ).limit(page_size)
        """,
        "session-left-open",
    ),
    # memory
    (
        "all pages are kept until the end",
        in_turn("kept.extend(page)\n        yield ''.join(map(json_line, page))").replace(
            "    async for", "    kept = []\n    async for"
        ),
        "loads-all",
    ),
    (
        "all rows are fetched for each page",
        """
        async def export_users(sessions, page_size):
            last = None
            while True:
                async with sessions() as session:
                    found = (await session.scalars(users)).all()
                page = [
                    each for each in found if last is None or (each.created_at, each.id) > last
                ][:page_size]
                if not page:
                    return
                yield "".join(map(json_line, page))
                last = page[-1].created_at, page[-1].id
        """,
        "loads-all",
    ),
    # a database that fails
    (
        "the database's error ends the export",
        """
        async def export_users(sessions, page_size):
            try:
                async for page in pages(sessions, page_size):
                    yield "".join(map(json_line, page))
            except Exception:
                return
        """,
        "hides-the-failure",
    ),
    (
        "the database's error becomes a line",
        """
        async def export_users(sessions, page_size):
            try:
                async for page in pages(sessions, page_size):
                    yield "".join(map(json_line, page))
            except Exception as error:
                yield json.dumps({"error": str(error)}) + "\\n"
        """,
        "hides-the-failure",
    ),
    # lines
    (
        "names lose the space around them",
        in_turn(
            "yield ''.join(json.dumps({'id': str(u.id), 'name': u.name.strip(), "
            "'email': u.email}) + '\\n' for u in page)"
        ),
        "wrong-fields",
    ),
    (
        "names are cut at a line break",
        in_turn(
            "yield ''.join(json.dumps({'id': str(u.id), 'name': (u.name.splitlines() or [''])[0], "
            "'email': u.email}) + '\\n' for u in page)"
        ),
        "wrong-fields",
    ),
    # what does not end
    (
        "text without a line's end, again and again",
        "async def export_users(sessions, page_size):\n    while True:\n        yield '{' * 1000",
        "newline-missing",
    ),
    (
        "one letter a chunk",
        "async def export_users(sessions, page_size):\n    while True:\n        yield '{'",
        "never-ends",
    ),
    (
        "a page again and again",
        """
        async def export_users(sessions, page_size):
            page = await UserRepository(sessions).get_batch_after(None, page_size)
            while True:
                yield "".join(map(json_line, page))
        """,
        "repeats-rows",
    ),
    (
        "nothing, again and again",
        "async def export_users(sessions, page_size):\n    while True:\n        yield ''",
        "empty-for-ever",
    ),
)

# What passes, though it is wrong. This export keeps the text of every page it has sent, in a list
# that it never reads. By all that can be counted from outside it holds a page at a time: the rows
# are let go of, and 96 lines of text are lost in the memory of the process. With so many users that
# the text showed, the check would take half a minute.
SURVIVES = in_turn(
    "text = ''.join(map(json_line, page))\n        kept.append(text)\n        yield text"
).replace("    async for", "    kept = []\n    async for")


@pytest.mark.parametrize(
    ("source", "mistake"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG]
)
async def test_a_wrong_answer_gets_its_own_hint(source: str, mistake: str) -> None:
    verdict = await check_export(export_of(source), limit=PATIENCE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message


async def test_one_wrong_answer_is_known_to_pass() -> None:
    assert (await check_export(export_of(SURVIVES), limit=AMPLE)).passed


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    made = {name for name, _ in IN_ONE_PART} | {mistake for *_, mistake in WRONG}
    assert {mistake.name for mistake in EXERCISE.mistakes} <= made


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
