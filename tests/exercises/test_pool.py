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
from sqlalchemy import create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool, StaticPool

from support.exercises.pool import EXERCISE, check_pool_settings
from support.lab.units import PACE_VARIABLE

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy

Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def half_the_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    # A statement of the rush takes 25 ms, and half a second is too long to stand in line.
    monkeypatch.setenv(PACE_VARIABLE, "0.5")


def with_settings(**settings: Any) -> Make:
    return lambda url: create_async_engine(url, **settings)


async def made_asynchronously(url: str) -> AsyncEngine:
    await asyncio.sleep(0)
    return create_async_engine(url, pool_size=10, max_overflow=0, pool_timeout=0.45)


@pytest.mark.parametrize(
    "make",
    [
        with_settings(pool_size=8, max_overflow=2, pool_timeout=0.45),
        with_settings(pool_size=5, max_overflow=3, pool_timeout=0.45, pool_pre_ping=True),
        made_asynchronously,
    ],
    ids=["eight and two", "five and three, with a ping", "ten, in an async function"],
)
async def test_right_answers_pass(make: Make) -> None:
    verdict = await check_pool_settings(make, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


async def test_a_machine_that_stands_still_is_not_taken_for_a_pool_that_sheds() -> None:
    returned: list[str] = []

    def make(url: str) -> AsyncEngine:
        engine = create_async_engine(url, pool_size=10, max_overflow=0, pool_timeout=0.45)

        @event.listens_for(engine.sync_engine, "checkin")
        def stand_still(connection: Any, record: Any) -> None:
            returned.append(url)
            if len(returned) == 41:  # forty when the workers were full; the rush has just begun
                time.sleep(0.6)

        return engine

    verdict = await check_pool_settings(make, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert len(returned) > 2 * 40 + 4 * 5  # a second rush


def of_another_database(url: str) -> AsyncEngine:
    return create_async_engine("sqlite+aiosqlite:///elsewhere.sqlite3", pool_size=8)


def of_one_database_in_memory(url: str) -> AsyncEngine:
    return create_async_engine("sqlite+aiosqlite://")


def the_same_each_time() -> Make:
    engines: dict[str, AsyncEngine] = {}

    def make(url: str) -> AsyncEngine:
        return engines.setdefault("one", create_async_engine(url, pool_size=8, max_overflow=2))

    return make


def a_sessionmaker(url: str) -> Any:
    return async_sessionmaker(create_async_engine(url, pool_size=8))


def settings_alone(url: str) -> Any:
    return {"pool_size": 8, "max_overflow": 2, "pool_timeout": 0.5}


def nothing(url: str) -> None:
    create_async_engine(url, pool_size=8)


def not_yet(url: str) -> Any:
    raise NotImplementedError


def a_misspelt_setting(url: str) -> Any:
    return create_async_engine(url, pool_sise=8)


def without_the_url() -> Any:
    return None


def leaves(url: str) -> Any:
    raise SystemExit


def a_connection_that_fails(url: str) -> AsyncEngine:
    engine = create_async_engine(url, pool_size=8, max_overflow=2, pool_timeout=0.45)

    @event.listens_for(engine.sync_engine, "connect")
    def check_out(connection: Any, record: Any) -> None:
        raise KeyError("password")

    return engine


def small(**settings: Any) -> Make:
    return with_settings(**{"pool_size": 8, "max_overflow": 2, "pool_timeout": 0.45} | settings)


WRONG: list[tuple[str, Make]] = [
    ("too-many-connections", with_settings(pool_size=20, max_overflow=10, pool_timeout=30)),
    ("too-many-connections", small(max_overflow=3)),
    ("unlimited", small(max_overflow=-1)),
    ("unlimited", small(pool_size=0)),
    ("unlimited", with_settings(poolclass=NullPool)),
    ("too-few-connections", small(pool_size=5)),
    ("one-connection-for-all", with_settings(poolclass=StaticPool)),
    ("reconnects", small(pool_size=4, max_overflow=6)),
    ("callers-hang", small(pool_timeout=30)),
    ("callers-hang", small(pool_timeout=None)),
    ("sheds-the-rush", small(pool_timeout=0)),
    ("sheds-the-rush", small(pool_timeout=0.02)),
    ("no-engine", lambda url: create_engine("sqlite://")),
    ("no-engine", a_sessionmaker),
    ("no-engine", settings_alone),
    ("another-database", of_another_database),
    ("another-database", of_one_database_in_memory),
    ("one-engine", the_same_each_time()),
    ("not-written", nothing),
    ("not-written", not_yet),
    ("raised", a_misspelt_setting),
    ("raised", without_the_url),
    ("raised", a_connection_that_fails),
    ("exits", leaves),
]


@pytest.mark.parametrize(("mistake", "make"), WRONG)
async def test_wrong_answers_get_their_hint(mistake: str, make: Make) -> None:
    verdict = await check_pool_settings(make, limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message


async def test_an_overflow_that_nobody_set_is_named() -> None:
    verdict = await check_pool_settings(with_settings(pool_size=10, pool_timeout=0.45), limit=AMPLE)
    assert verdict.mistake == "too-many-connections"
    assert "4 × (10 + 10) are 80" in verdict.message


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    assert {mistake.name for mistake in EXERCISE.mistakes} <= {name for name, _ in WRONG}


@pytest.mark.parametrize("given", [8, {"pool_size": 8}, None])
async def test_what_cannot_be_called_is_refused(given: Any) -> None:
    assert (await check_pool_settings(given)).mistake == "wrong-type"


async def test_the_engine_made_in_the_check_cell() -> None:
    verdict = await check_pool_settings(made_asynchronously("sqlite+aiosqlite://"))
    assert verdict.mistake == "called-instead-of-passed"


async def endless_function(url: str) -> AsyncEngine:
    return await asyncio.get_running_loop().create_future()


def endless_connection(url: str) -> AsyncEngine:
    async def connect(*args: Any, **options: Any) -> Any:
        await asyncio.Event().wait()

    return create_async_engine(url, pool_size=8, max_overflow=2, async_creator=connect)


@pytest.mark.parametrize("make", [endless_function, endless_connection])
async def test_an_endless_wait_is_stopped(make: Make) -> None:
    assert (await check_pool_settings(make, limit=0.3)).mistake == "never-ends"


@pytest.mark.parametrize("settings", [{}, {"max_overflow": 20}])
async def test_nothing_is_left_behind(
    settings: dict[str, Any], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())

    await check_pool_settings(small(**settings), limit=AMPLE)

    assert asyncio.all_tasks() == tasks
    for thread in set(threading.enumerate()) - threads:
        thread.join(timeout=10)  # a closed connection's thread is on its way out
        assert not thread.is_alive()
    assert os.listdir(tmp_path) == []
