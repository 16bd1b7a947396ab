"""The check of lesson 07, with right answers and wrong ones."""

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from looplab.exercises.pool import EXERCISE, check_pool_settings
from looplab.lab.units import PACE_VARIABLE

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy

Make = Callable[..., Any]
Written = Callable[[str, str], dict[str, Any]]


@pytest.fixture(autouse=True)
def half_the_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    # A statement of the rush takes 25 ms, and half a second is too long to stand in line.
    monkeypatch.setenv(PACE_VARIABLE, "0.5")


def engine(source: str = "url", **settings: Any) -> str:
    """Return an answer with these settings in place of good ones; 'left out' leaves one out."""
    chosen = {"pool_size": 6, "max_overflow": 3, "pool_timeout": 0.45} | settings
    passed = ", ".join(f"{name}={value!r}" for name, value in chosen.items() if value != "left out")
    return f"def make_engine(url):\n    return create_async_engine({source}, {passed})\n"


GOOD = engine()

RIGHT = (
    ("six and three", GOOD),
    ("eight without an overflow", engine(pool_size=8, max_overflow=0)),
    ("five and three, with a ping", engine(pool_size=5, pool_pre_ping=True)),
    ("nine, recycled after half an hour", engine(pool_size=9, max_overflow=0, pool_recycle=1800)),
    ("a url by another name", GOOD.replace("url", "database_url")),
    (
        "a url by keyword only",
        GOOD.replace("make_engine(url)", "make_engine(*, address)").replace(
            "engine(url", "engine(address"
        ),
    ),
    (
        "an async function",
        "async def make_engine(url):\n    await asyncio.sleep(0)\n"
        "    return create_async_engine(url, pool_size=8, max_overflow=1, pool_timeout=0.45)\n",
    ),
    (
        "a class with __call__ and its own settings",
        """
class Engines:
    settings = {"pool_size": 7, "max_overflow": 1, "pool_timeout": 0.45}

    def __call__(self, url):
        return create_async_engine(url=url, **self.settings)

make_engine = Engines()
""",
    ),
)


@pytest.mark.parametrize(("name", "source"), RIGHT, ids=[name for name, _ in RIGHT])
async def test_a_right_answer_passes_in_any_style(name: str, source: str, written: Written) -> None:
    verdict = await check_pool_settings(written("07", source)["make_engine"], limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


async def test_a_machine_that_stands_still_is_not_taken_for_a_pool_that_sheds() -> None:
    returned: list[str] = []

    def make(url: str) -> AsyncEngine:
        made = create_async_engine(url, pool_size=8, max_overflow=0, pool_timeout=0.45)

        @event.listens_for(made.sync_engine, "checkin")
        def stand_still(connection: Any, record: Any) -> None:
            returned.append(url)
            if len(returned) == 61:  # 40 when all were full, 20 of every day; the rush has begun
                time.sleep(0.6)

        return made

    verdict = await check_pool_settings(make, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert len(returned) > 2 * 40 + 4 * 5  # a second rush


def from_call_to_call(then: str) -> str:
    """Return an answer whose later engines have other settings than the first."""
    return f"""
made = []

def make_engine(url):
    settings = dict(pool_size=6, max_overflow=3, pool_timeout=0.45)
    if made:
        settings.update({then})
    made.append(url)
    return create_async_engine(url, **settings)
"""


WRONG: tuple[tuple[str, str, str], ...] = (
    # -- how many
    (
        "it keeps the card's numbers",
        engine(pool_size=20, max_overflow=10, pool_timeout=30),
        "too-many-connections",
    ),
    (
        "it forgets the overflow that nobody set",
        engine(max_overflow="left out"),
        "too-many-connections",
    ),
    ("it takes all 50 for the four workers", engine(pool_size=10), "too-many-connections"),
    ("it takes 48 of the 47", engine(pool_size=9), "too-many-connections"),
    ("it divides 44 among the four workers", engine(pool_size=8), "no-room-left"),
    ("it divides 40 among the four workers", engine(pool_size=8, max_overflow=2), "no-room-left"),
    ("its pool is ten and nothing is left", engine(pool_size=10, max_overflow=0), "no-room-left"),
    ("its overflow has no limit", engine(max_overflow=-1), "unlimited"),
    ("its pool has no limit", engine(pool_size=0), "unlimited"),
    (
        "it has no pool",
        "from sqlalchemy.pool import NullPool\n"
        "def make_engine(url):\n    return create_async_engine(url, poolclass=NullPool)\n",
        "unlimited",
    ),
    (
        "it takes seven, which makes six groups",
        engine(pool_size=7, max_overflow=0),
        "too-few-connections",
    ),
    ("it takes the steady five", engine(pool_size=5, max_overflow=0), "too-few-connections"),
    ("it takes one", engine(pool_size=1, max_overflow=0), "too-few-connections"),
    (
        "all share one connection",
        "from sqlalchemy.pool import StaticPool\n"
        "def make_engine(url):\n    return create_async_engine(url, poolclass=StaticPool)\n",
        "one-connection-for-all",
    ),
    # -- the steady load
    ("it keeps four open for a load of five", engine(pool_size=4, max_overflow=4), "reconnects"),
    ("it keeps one open", engine(pool_size=1, max_overflow=8), "reconnects"),
    ("it recycles at once", engine(pool_recycle=0), "reconnects"),
    ("it recycles after five seconds", engine(pool_recycle=5), "reconnects"),
    # -- how long
    ("it keeps SQLAlchemy's 30 s", engine(pool_timeout="left out"), "callers-hang"),
    ("it waits for two seconds", engine(pool_timeout=2), "callers-hang"),
    ("it takes the timeout for milliseconds", engine(pool_timeout=500), "callers-hang"),
    ("it has no timeout", engine(pool_timeout=None), "callers-hang"),
    ("it sends away at once", engine(pool_timeout=0), "sheds-the-rush"),
    ("it sends away after 20 ms", engine(pool_timeout=0.02), "sheds-the-rush"),
    # -- later engines
    ("later pools are tiny", from_call_to_call("pool_size=1, max_overflow=0"), "engines-differ"),
    ("later pools are large", from_call_to_call("max_overflow=30"), "engines-differ"),
    ("later pools wait for ever", from_call_to_call("pool_timeout=None"), "engines-differ"),
    (
        "it shrinks with every call",
        """
sizes = [6, 5, 4, 3, 2]

def make_engine(url):
    return create_async_engine(url, pool_size=sizes.pop(0), max_overflow=3, pool_timeout=0.45)
""",
        "engines-differ",
    ),
    (
        "it returns the same engine each time",
        """
engines = {}

def make_engine(url):
    if url not in engines:
        engines[url] = create_async_engine(url, pool_size=6, max_overflow=3, pool_timeout=0.45)
    return engines[url]
""",
        "one-engine",
    ),
    # -- what it returns
    (
        "its engine is synchronous",
        "from sqlalchemy import create_engine\n"
        'def make_engine(url):\n    return create_engine("sqlite://")\n',
        "no-engine",
    ),
    (
        "it returns a sessionmaker",
        "from sqlalchemy.ext.asyncio import async_sessionmaker\n"
        "def make_engine(url):\n    return async_sessionmaker(create_async_engine(url))\n",
        "no-engine",
    ),
    (
        "it returns the settings alone",
        "def make_engine(url):\n    return dict(pool_size=6, max_overflow=3, pool_timeout=0.45)\n",
        "no-engine",
    ),
    (
        "it asks another database",
        engine('"sqlite+aiosqlite:///elsewhere.sqlite3"'),
        "another-database",
    ),
    (
        "its database is in memory",
        'def make_engine(url):\n    return create_async_engine("sqlite+aiosqlite://")\n',
        "another-database",
    ),
    # -- what any exercise may meet
    ("it returns nothing", GOOD.replace("return ", ""), "not-written"),
    ("it is not written", "def make_engine(url):\n    raise NotImplementedError\n", "not-written"),
    ("it misspells a setting", engine(pool_sise=6), "raised"),
    ("it takes no url", "def make_engine():\n    return None\n", "raised"),
    (
        "its connections fail",
        """
from sqlalchemy import event

def make_engine(url):
    made = create_async_engine(url, pool_size=6, max_overflow=3, pool_timeout=0.45)

    @event.listens_for(made.sync_engine, "connect")
    def check_out(connection, record):
        raise KeyError("password")

    return made
""",
        "raised",
    ),
    ("it ends the program", "def make_engine(url):\n    raise SystemExit\n", "exits"),
)


@pytest.mark.parametrize(("name", "source", "mistake"), WRONG, ids=[name for name, *_ in WRONG])
async def test_a_wrong_answer_gets_its_own_hint(
    name: str, source: str, mistake: str, written: Written
) -> None:
    verdict = await check_pool_settings(written("07", source)["make_engine"], limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message


async def test_an_overflow_that_nobody_set_is_named(written: Written) -> None:
    make = written("07", engine(pool_size=10, max_overflow="left out"))["make_engine"]
    verdict = await check_pool_settings(make, limit=AMPLE)
    assert verdict.mistake == "too-many-connections"
    assert "4 × (10 + 10) are 80" in verdict.message


async def test_the_room_that_a_deploy_needs_is_counted(written: Written) -> None:
    make = written("07", engine(pool_size=8, max_overflow=2))["make_engine"]
    verdict = await check_pool_settings(make, limit=AMPLE)
    assert "5 × (8 + 2) are 50, and 2 more, of 50 less 3" in verdict.message


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    assert {mistake.name for mistake in EXERCISE.mistakes} <= {mistake for *_, mistake in WRONG}


@pytest.mark.parametrize("given", [8, {"pool_size": 8}, None])
async def test_what_cannot_be_called_is_refused(given: Any) -> None:
    assert (await check_pool_settings(given)).mistake == "wrong-type"


async def test_the_engine_made_in_the_check_cell() -> None:
    verdict = await check_pool_settings(endless_function("sqlite+aiosqlite://"))
    assert verdict.mistake == "called-instead-of-passed"


async def endless_function(url: str) -> AsyncEngine:
    return await asyncio.get_running_loop().create_future()


def endless_connection(url: str) -> AsyncEngine:
    async def connect(*args: Any, **options: Any) -> Any:
        await asyncio.Event().wait()

    return create_async_engine(url, pool_size=6, max_overflow=3, async_creator=connect)


@pytest.mark.parametrize("make", [endless_function, endless_connection])
async def test_an_endless_wait_is_stopped(make: Make) -> None:
    assert (await check_pool_settings(make, limit=0.3)).mistake == "never-ends"


@pytest.mark.parametrize("source", [GOOD, engine(max_overflow=20)])
async def test_nothing_is_left_behind(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: Written
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())

    await check_pool_settings(written("07", source)["make_engine"], limit=AMPLE)

    assert asyncio.all_tasks() == tasks
    for thread in set(threading.enumerate()) - threads:
        thread.join(timeout=10)  # a closed connection's thread is on its way out
        assert not thread.is_alive()
    assert os.listdir(tmp_path) == []
