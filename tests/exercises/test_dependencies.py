"""The check of lesson 16, with right answers and wrong ones."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from looplab.exercises.dependencies import EXERCISE, check_dependencies
from looplab.lab.units import PACE_VARIABLE

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy

Written = Callable[[str, str], dict[str, Any]]


@pytest.fixture(autouse=True)
def half_the_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PACE_VARIABLE, "0.5")


SESSION = """
    async def get_session():
        async with sessions() as session:
            yield session
            await session.commit()
"""
USER = """
    async def get_user(db=database):
        return await db.scalar(select(User).order_by(User.id))
"""
ORDER = """
    async def order(db=database, user=Depends(get_user)):
        await db.commit()
        db.add(Order(user_id=user.id, total=await quote()))
"""
APP = """
    app = FastAPI()
    app.post("/orders", status_code=201)(order)
    return app
"""
SCOPED = """
    database = Depends(get_session, scope="function")
"""


def answer(
    session: str = SESSION,
    database: str = SCOPED,
    user: str = USER,
    order: str = ORDER,
    app: str = APP,
) -> str:
    """Return an answer with these parts in place of good ones."""
    return "def make_app(sessions, quote):" + session + database + user + order + app


def scoped(options: str) -> str:
    return f"\n    database = Depends(get_session{options})\n"


IN_ONE_PLACE = """
    async def order(db=Depends(get_session, scope="function"), user=Depends(get_user)):
        await db.commit()
        db.add(Order(user_id=user.id, total=await quote()))
"""

RIGHT = (
    ("a scope and an early commit", answer()),
    ("it closes before it asks", answer(order=ORDER.replace("db.commit()", "db.close()"))),
    (
        "it rolls back before it asks, and has kept the id",
        answer(
            order="""
    async def order(db=database, user=Depends(get_user)):
        user_id = user.id
        await db.rollback()
        db.add(Order(user_id=user_id, total=await quote()))
"""
        ),
    ),
    (
        "annotated, and as a decorator",
        """
def make_app(sessions, quote):
    app = FastAPI()

    async def get_session():
        async with sessions() as session:
            yield session
            await session.commit()

    Database = Annotated[AsyncSession, Depends(get_session, scope="function")]

    async def get_user(db: Database):
        return await db.scalar(select(User).order_by(User.id))

    @app.post("/orders", status_code=201)
    async def order(db: Database, user: Annotated[User, Depends(get_user)]):
        await db.commit()
        price = await quote()
        db.add(Order(user_id=user.id, total=price))

    return app
""",
    ),
    (
        "the endpoint commits twice, without a scope",
        answer(
            session=SESSION.replace("            await session.commit()\n", ""),
            database=scoped(""),
            order=ORDER + "        await db.commit()\n",
        ),
    ),
    (
        "the dependency asks, and lets go",
        answer(
            user=USER.replace("return", "user =")
            + "        await db.commit()\n        return user\n"
        ),
    ),
    (
        "no session in a dependency: two in turn",
        """
def make_app(sessions, quote):
    app = FastAPI()

    @app.post("/orders", status_code=201)
    async def order():
        async with sessions() as session:
            user = await session.scalar(select(User).order_by(User.id))
        price = await quote()
        async with sessions.begin() as session:
            session.add(Order(user_id=user.id, total=price))

    return app
""",
    ),
    (
        "the price comes from a dependency",
        """
def make_app(sessions, quote):
    async def get_session(price=Depends(quote)):
        async with sessions() as session:
            yield session
            await session.commit()

    database = Depends(get_session, scope="function")
    app = FastAPI()

    @app.post("/orders", status_code=201)
    async def order(db=database, price=Depends(quote)):
        user = await db.scalar(select(User).order_by(User.id))
        db.add(Order(user_id=user.id, total=price))

    return app
""",
    ),
    (
        "an error of the commit becomes a 503",
        answer(
            session="""
    async def get_session():
        async with sessions() as session:
            yield session
            try:
                await session.commit()
            except exc.SQLAlchemyError:
                raise HTTPException(503) from None
"""
        ),
    ),
    ("make_app is async", answer().replace("def make_app", "async def make_app", 1)),
)


@pytest.mark.parametrize(("name", "source"), RIGHT, ids=[name for name, _ in RIGHT])
async def test_a_right_answer_passes_in_any_style(name: str, source: str, written: Written) -> None:
    verdict = await check_dependencies(written("16", source)["make_app"], limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


WRONG: tuple[tuple[str, str, str], ...] = (
    # -- when it commits
    (
        "it is as it was",
        answer(database=scoped(""), order=ORDER.replace("        await db.commit()\n", "")),
        "told-too-soon",
    ),
    ("it lets go, and has no scope", answer(database=scoped("")), "told-too-soon"),
    (
        "its scope is the request's, written out",
        answer(database=scoped(', scope="request"')),
        "told-too-soon",
    ),
    (
        "a background task saves",
        answer(
            order="""
    async def save(user_id, total):
        async with sessions.begin() as session:
            session.add(Order(user_id=user_id, total=total))

    async def order(later: BackgroundTasks, db=database, user=Depends(get_user)):
        await db.commit()
        later.add_task(save, user.id, await quote())
"""
        ).replace("def make_app", "from fastapi import BackgroundTasks\ndef make_app", 1),
        "told-too-soon",
    ),
    (
        "nobody commits",
        answer(session=SESSION.replace("            await session.commit()\n", "")),
        "nothing-saved",
    ),
    (
        "it rolls back in the end",
        answer(session=SESSION.replace("commit", "rollback")),
        "nothing-saved",
    ),
    # -- what it holds
    (
        "it has the scope, and holds on",
        answer(order=ORDER.replace("        await db.commit()\n", "")),
        "holds-connection",
    ),
    (
        "it commits after it has asked",
        answer(
            order="""
    async def order(db=database, user=Depends(get_user)):
        db.add(Order(user_id=user.id, total=await quote()))
        await db.commit()
"""
        ),
        "holds-connection",
    ),
    (
        "it flushes in place of a commit",
        answer(order=ORDER.replace("db.commit()", "db.flush()")),
        "holds-connection",
    ),
    (
        "it reads again after it has let go",
        answer(
            order=ORDER.replace("        db.add", "        await db.refresh(user)\n        db.add")
        ),
        "holds-connection",
    ),
    # -- how many sessions
    (
        "the scope stands in one place of two",
        answer(database=scoped(""), order=IN_ONE_PLACE),
        "two-sessions",
    ),
    (
        "it turns the cache off",
        answer(database=scoped(', scope="function", use_cache=False')),
        "two-sessions",
    ),
    (
        "the user's query opens its own",
        answer(
            order="""
    async def order(db=database):
        async with sessions() as other:
            user = await other.scalar(select(User).order_by(User.id))
        db.add(Order(user_id=user.id, total=await quote()))
"""
        ),
        "two-sessions",
    ),
    # -- what fails
    (
        "it hides a commit that fails",
        answer(
            session="""
    async def get_session():
        async with sessions() as session:
            yield session
            try:
                await session.commit()
            except Exception:
                await session.rollback()
"""
        ),
        "hides-the-failure",
    ),
    (
        "it hides a carrier that fails",
        answer(
            order="""
    async def order(db=database, user=Depends(get_user)):
        await db.commit()
        try:
            price = await quote()
        except ConnectionError:
            return
        db.add(Order(user_id=user.id, total=price))
"""
        ),
        "hides-the-failure",
    ),
    (
        "it answers 409 to a carrier that fails",
        answer(
            order="""
    async def order(db=database, user=Depends(get_user)):
        await db.commit()
        try:
            price = await quote()
        except ConnectionError:
            raise HTTPException(409) from None
        db.add(Order(user_id=user.id, total=price))
"""
        ),
        "hides-the-failure",
    ),
    (
        "it saves before it has a price",
        answer(
            order="""
    async def order(db=database, user=Depends(get_user)):
        order = Order(user_id=user.id, total=0)
        db.add(order)
        await db.commit()
        order.total = await quote()
"""
        ),
        "saved-anyway",
    ),
    (
        "it never closes its session",
        answer(
            session="""
    async def get_session():
        session = sessions()
        yield session
        await session.commit()
""",
            order="""
    async def order(db=database, user=Depends(get_user)):
        await db.commit()
        price = await quote()
        db.add(Order(user_id=user.id, total=price))
        await db.flush()
""",
        ),
        "loses-connection",
    ),
    (
        "it rolls back, and reads the user again",
        answer(order=ORDER.replace("db.commit()", "db.rollback()")),
        "reads-expired",
    ),
    # -- one after another
    (
        "it lets one in at a time",
        answer(database=scoped(', scope="function", max_concurrency=1')),
        "in-single-file",
    ),
    (
        "it locks around the carrier",
        "import asyncio\n"
        + answer(
            order="""
    lock = asyncio.Lock()

    async def order(db=database, user=Depends(get_user)):
        await db.commit()
        async with lock:
            db.add(Order(user_id=user.id, total=await quote()))
"""
        ),
        "in-single-file",
    ),
    # -- what it does besides
    (
        "its total is another",
        answer(order=ORDER.replace("total=await quote()", "total=await quote() + 1")),
        "other-order",
    ),
    (
        "it takes another user",
        answer(user=USER.replace("User.id)", "User.id.desc())")),
        "other-order",
    ),
    (
        "it saves two orders",
        answer(order=ORDER + "        db.add(Order(user_id=user.id, total=490))\n"),
        "other-order",
    ),
    ("it answers 200", answer(app=APP.replace(", status_code=201", "")), "other-answer"),
    ("it answers more", answer(order=ORDER + '        return {"id": 1}\n'), "other-answer"),
    ("its path is another", answer(app=APP.replace('"/orders"', '"/order"')), "other-answer"),
    (
        "it asks twice",
        answer(order=ORDER.replace("        db.add", "        await quote()\n        db.add")),
        "asks-twice",
    ),
    (
        "it knows the price",
        answer(order=ORDER.replace("await quote()", "490")),
        "asks-twice",
    ),
    (
        "it returns a router",
        answer(app=APP.replace("FastAPI()", "APIRouter()")).replace(
            "def make_app", "from fastapi import APIRouter\ndef make_app", 1
        ),
        "no-app",
    ),
    # -- what any exercise may meet
    ("it returns nothing", answer(app=APP.replace("return app", "")), "not-written"),
    (
        "it is not written",
        "def make_app(sessions, quote):\n    raise NotImplementedError\n",
        "not-written",
    ),
    (
        "a longer life asks a shorter one",
        answer(user=USER.replace("return await", "yield await")),
        "raised",
    ),
    ("it misspells a name", answer(order=ORDER.replace("total=", "totl=")), "raised"),
    (
        "it forgets to await the carrier",
        answer(order=ORDER.replace("await quote()", "quote()")),
        "forgotten-await",
    ),
    (
        "it ends the program",
        answer(order=ORDER.replace("await db.commit()", "raise SystemExit")),
        "exits",
    ),
    (
        "it waits for ever",
        "import asyncio\n"
        + answer(order=ORDER.replace("await db.commit()", "await asyncio.Event().wait()")),
        "never-ends",
    ),
)


@pytest.mark.parametrize(("name", "source", "mistake"), WRONG, ids=[name for name, *_ in WRONG])
async def test_a_wrong_answer_gets_its_own_hint(
    name: str, source: str, mistake: str, written: Written
) -> None:
    limit = 2.0 if mistake == "never-ends" else AMPLE
    verdict = await check_dependencies(written("16", source)["make_app"], limit=limit)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    assert {mistake.name for mistake in EXERCISE.mistakes} <= {mistake for *_, mistake in WRONG}


@pytest.mark.parametrize("given", [8, {"app": 8}, None])
async def test_what_cannot_be_called_is_refused(given: Any) -> None:
    assert (await check_dependencies(given)).mistake == "wrong-type"


async def test_an_app_that_holds_the_loop_is_ended(written: Written) -> None:
    source = answer(order=ORDER.replace("await db.commit()", "\n        while True: pass"))
    began = asyncio.get_running_loop().time()
    verdict = await check_dependencies(written("16", source)["make_app"])
    assert verdict.mistake == "blocks-the-loop"
    assert asyncio.get_running_loop().time() - began < 12


@pytest.mark.parametrize("source", [answer(), answer(database=scoped(""))])
async def test_nothing_is_left_behind(source: str, written: Written) -> None:
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())

    await check_dependencies(written("16", source)["make_app"], limit=AMPLE)

    assert asyncio.all_tasks() == tasks
    for thread in set(threading.enumerate()) - threads:
        if "AnyIO" not in thread.name:
            thread.join(timeout=10)  # a closed connection's thread is on its way out
            assert not thread.is_alive()
