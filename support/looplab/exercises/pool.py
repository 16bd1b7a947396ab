"""The exercise of lesson 07: choose the pool of a worker for a load and a latency target.

The check makes five engines, one for each of four workers and one for the worker that a deploy
starts beside them, and runs the load against a database that counts its connections. What can be
decided by counting is not timed: requests stand still on their connections until the check lets
them go on. Only the rush is played in real time, against the learner's own `pool_timeout`.
"""

import asyncio
import contextlib
import functools
import inspect
import math
import tempfile
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, event, make_url, text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool, StaticPool

from looplab.exercises.checking import check, require_function
from looplab.exercises.sandbox import Sandbox
from looplab.exercises.verdicts import Exercise, Mistake, Verdict, wrong
from looplab.lab.units import ms
from looplab.shop.pools import Seats

WORKERS: Final = 4
DEPLOYED: Final = 1  # workers that a deploy starts before an old one has stopped
SEATS: Final = 50  # connections that the database takes
RESERVED: Final = 3  # of these it keeps for superusers, as PostgreSQL does unless told otherwise
OPERATORS: Final = 2  # connections for psql and a migration
STEADY: Final = 5  # requests with the database at any time, a worker
RUSH: Final = 40  # requests at once in a rush, a worker
WAITS: Final = 5  # how many waits a request may take in a rush
ROUND_TRIP: Final = 50  # milliseconds
PATIENCE: Final = 1_000  # milliseconds that anybody waits for a connection when the database stalls
CROWD: Final = 60  # requests that show how many connections a pool takes
ROUNDS: Final = 3  # of the steady load, once its connections are open
SHORTEST_LIFE: Final = 60  # seconds that a connection of the daily load lives at least
TRIES: Final = 3  # of the rush: a machine that stands still sends away whom a pool would serve

EXAMPLE = "check_pool_settings(make_engine)"

EXERCISE = Exercise(
    lesson="07",
    check="check_pool_settings",
    stub="too-many-connections",
    task=(
        "Choose pool size, overflow and timeout for four workers, a deploy, a rush and a stalled "
        "database."
    ),
    usual_wrong_prediction=(
        "That a larger pool is always faster: 40 requests over 20 connections take two waits and "
        "over 40 take one, but four such workers ask for more connections than the database has."
    ),
    mistakes=(
        Mistake(
            "too-many-connections",
            "keeps the card's 20 + 10, or sizes one worker as if it had the database to itself",
            "The database refused connections: each of the four workers has a pool of its own, and "
            "three of the 50 are for superusers only. Divide what remains among the workers, "
            "overflow included: max_overflow is 10 unless you set it.",
        ),
        Mistake(
            "no-room-left",
            "divides all connections among the four workers",
            "The four workers fit, and nothing else does: the next deploy, or the psql session in "
            "which you look for the cause of a stall, is refused. Leave room for a fifth worker "
            "and two connections more.",
        ),
        Mistake(
            "engines-differ",
            "changes the settings from call to call",
            "The engines of the workers have different pools. Each worker gets the same share of "
            "the requests, so the smallest pool sheds them first: return the same settings at "
            "each call.",
        ),
        Mistake(
            "unlimited",
            "sets max_overflow=-1 or pool_size=0, or uses NullPool",
            "This pool has no limit: every request opens a connection, until the database refuses. "
            "Set pool_size above 0 and max_overflow to 0 or more.",
        ),
        Mistake(
            "too-few-connections",
            "sizes the pool for the five steady requests only",
            "A rush takes more than five waits: 40 requests come in groups as large as the pool "
            "and its overflow. Five groups have to hold all 40.",
        ),
        Mistake(
            "one-connection-for-all",
            "uses StaticPool, or hands the same connection to everybody",
            "All requests share one connection, and with it one transaction. Use the pool that "
            "create_async_engine takes by itself.",
        ),
        Mistake(
            "reconnects",
            "makes the pool smaller than the steady load, or recycles after seconds",
            "The five requests of every day open connections again and again: an overflow "
            "connection is closed when it comes back, and pool_recycle closes it by age. pool_size "
            "is what stays open.",
        ),
        Mistake(
            "callers-hang",
            "keeps pool_timeout=30, or sets None",
            "The database stalls, and after a second requests still wait for a connection: their "
            "clients have long gone. pool_timeout is the time after which they are told that the "
            "service is busy.",
        ),
        Mistake(
            "sheds-the-rush",
            "sets pool_timeout to 0 or to a few milliseconds",
            "A rush that the pool could have served was sent away: the last group waits while the "
            "others are served, and pool_timeout is shorter than that. Leave room.",
        ),
        Mistake(
            "no-engine",
            "returns a synchronous engine, a sessionmaker or a dict of settings",
            "The function should return the engine that create_async_engine makes.",
        ),
        Mistake(
            "another-database",
            "ignores the url",
            "The engine talks to another database than the check's: pass the url on to "
            "create_async_engine.",
        ),
        Mistake(
            "one-engine",
            "returns the same engine each time",
            "Each worker is a process and makes an engine of its own: return a new one at each "
            "call.",
        ),
    ),
)


async def check_pool_settings(make_engine: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's ``make_engine`` of lesson 07, show one line, and return the verdict.

    ``make_engine(url)`` returns an ``AsyncEngine``; it is called once for each of four workers and
    for the fifth that a deploy starts. Its argument may have any name. It passes if

    - the database, which takes 50 connections and keeps three for superusers, refuses none when all
      five workers are full, and has two left;
    - all engines have the same pool;
    - 40 requests at once in one worker, each with a statement of 50 ms, are all answered, in at
      most five groups;
    - five requests at once, again and again, open no connection after the first time;
    - while every connection is held, requests in line are told so within a second.

    ``limit`` is how long the engines may take in all, in seconds; 15 unless given. An endless loop
    that never awaits cannot be stopped: restart the kernel.
    """
    return await check(functools.partial(_judge, make=make_engine), limit=limit)


class _Worker:
    """One engine under load: what it opens, and how many hold a connection or were sent away."""

    def __init__(self, engine: AsyncEngine, pool: QueuePool, server: Seats) -> None:
        self.engine = engine
        self.pool = pool
        self.tries = 0
        self.opened = 0
        self.failed = 0
        self.asked = 0
        self.sent_away = 0
        self._holders: set[asyncio.Task[Any] | None] = set()
        self._changed = asyncio.Event()
        event.listen(engine.sync_engine, "do_connect", self._tries)
        server.watch(engine)
        event.listen(engine.sync_engine, "connect", self._opens)

    def _tries(self, *_: object) -> None:
        self.tries += 1

    def _opens(self, *_: object) -> None:
        self.opened += 1
        self._changed.set()

    async def request(self, wait: Callable[[], Any]) -> None:
        """Be a request whose statement takes as long as ``wait``."""
        self.asked += 1
        try:
            async with self.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
                self._holders.add(asyncio.current_task())
                self._changed.set()
                try:
                    await wait()
                finally:
                    self._holders.discard(asyncio.current_task())
        except PoolTimeout:
            self.sent_away += 1
        except ConnectionRefusedError:
            self.failed += 1
        except BaseException:
            self.failed += 1
            raise
        finally:
            self._changed.set()

    async def settled(self, requests: int) -> None:
        """Return when that many requests have asked, and each has what it can get for now."""
        # A request is in line after its first step, so what remains to wait for is opening.
        while (
            self.asked < requests
            or self.tries > self.opened + self.failed
            or self.pool.checkedout() > self.holding
        ):
            self._changed.clear()
            await self._changed.wait()

    @property
    def holding(self) -> int:
        """How many requests have a connection now."""
        return len(self._holders)

    def holds(self, request: asyncio.Task[None]) -> bool:
        """Return whether ``request`` has a connection now."""
        return request in self._holders

    @property
    def timeout(self) -> float | None:
        """The pool's timeout in seconds, None for one that never comes."""
        return self.pool.timeout()


@contextlib.asynccontextmanager
async def _standing_still(
    workers: list[_Worker], requests: int
) -> AsyncGenerator[list[asyncio.Task[None]]]:
    """Yield tasks, ``requests`` in each worker, whose statements do not end inside the block."""
    gate = asyncio.Event()
    for worker in workers:
        worker.asked = 0
    tasks = [
        asyncio.create_task(worker.request(gate.wait))
        for _ in range(requests)
        for worker in workers
    ]
    try:
        for worker in workers:
            await worker.settled(requests)
        yield tasks
    finally:
        gate.set()
        await asyncio.gather(*tasks)


async def _judge(sandbox: Sandbox, *, make: Any) -> str:
    make = require_function(make, example=EXAMPLE)
    engines: list[AsyncEngine] = []
    with tempfile.TemporaryDirectory(prefix="exercise-07-") as folder:
        path = Path(folder) / "shop.sqlite3"
        url = URL.create("sqlite+aiosqlite", database=str(path)).render_as_string()
        try:
            (await sandbox.run(lambda: _make_engines(make, url, engines))).result()
            server = Seats()
            workers = [_Worker(one, _queue_pool(one), server) for one in engines]
            _judge_settings([worker.pool for worker in workers])
            (await sandbox.run(lambda: _load(workers, server))).result()
        finally:
            await sandbox.stop()
            for engine in engines:
                await engine.dispose()
    return (
        f"{WORKERS} full workers fit into the database with room for a deploy and for psql, a rush "
        f"of {RUSH} takes {WAITS} waits at most, the daily load opens nothing anew, and a stalled "
        "database keeps nobody waiting."
    )


async def _make_engines(make: Callable[..., Any], url: str, engines: list[AsyncEngine]) -> None:
    for _ in range(WORKERS + DEPLOYED):
        engine = make(**{keyword: url}) if (keyword := _only_keyword(make)) else make(url)
        if inspect.isawaitable(engine):
            engine = await engine
        if engine is None:
            raise wrong("not-written", "make_engine returned None")
        if not isinstance(engine, AsyncEngine):
            raise EXERCISE.wrong("no-engine", f"it returned {type(engine).__name__}")
        if engine in engines:
            raise EXERCISE.wrong("one-engine")
        engines.append(engine)
        if engine.url.database != make_url(url).database:
            raise EXERCISE.wrong("another-database")


def _only_keyword(make: Callable[..., Any]) -> str | None:
    """Return the name of the url argument where it can be passed by name only."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # a callable without a signature takes it as it comes
        return None
    named = [
        one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty
    ]
    others = {one.kind for one in parameters} - {
        inspect.Parameter.KEYWORD_ONLY,
        inspect.Parameter.VAR_KEYWORD,
    }
    return named[0] if len(named) == 1 and not others else None


def _queue_pool(engine: AsyncEngine) -> QueuePool:
    pool = engine.pool
    if isinstance(pool, StaticPool):
        raise EXERCISE.wrong("one-connection-for-all")
    if not isinstance(pool, QueuePool):
        raise EXERCISE.wrong("unlimited", type(pool).__name__)
    return pool


def _judge_settings(pools: list[QueuePool]) -> None:
    """Find engines that differ, and connections that are closed by age within a minute."""
    # SQLAlchemy has no public names for the overflow and for the age.
    first, *others = [(one.size(), one._max_overflow, one.timeout()) for one in pools]
    for number, other in enumerate(others, start=2):
        if other != first:
            told = [f"{size} + {more}, {seconds} s" for size, more, seconds in (first, other)]
            raise EXERCISE.wrong("engines-differ", f"{told[0]}; the {number}. has {told[1]}")
    if any(0 <= one._recycle < SHORTEST_LIFE for one in pools):
        raise EXERCISE.wrong("reconnects", f"pool_recycle is {pools[0]._recycle}")


async def _load(workers: list[_Worker], server: Seats) -> None:
    first, *others = workers[:WORKERS]
    deployed = workers[WORKERS:]
    async with _standing_still([first], CROWD) as crowd:
        capacity = first.holding
        if capacity >= CROWD:
            raise EXERCISE.wrong("unlimited", f"{CROWD} requests opened {capacity} connections")
        groups = math.ceil(RUSH / capacity)
        if groups > WAITS:
            raise EXERCISE.wrong("too-few-connections", f"groups of {capacity} make {groups} waits")
        server.limit = SEATS - RESERVED
        each = f"({first.pool.size()} + {capacity - first.pool.size()})"
        of = f"of {SEATS} less {RESERVED}"
        async with _standing_still(others, CROWD) as more:
            if server.refused:
                detail = f"{WORKERS} × {each} are {WORKERS * capacity}, {of}"
                raise EXERCISE.wrong("too-many-connections", detail)
            async with _standing_still(deployed, CROWD) as most:
                if server.refused or server.taken + OPERATORS > server.limit:
                    count = WORKERS + DEPLOYED
                    detail = f"{count} × {each} are {count * capacity}, and {OPERATORS} more, {of}"
                    raise EXERCISE.wrong("no-room-left", detail)
                await _judge_line(workers, crowd + more + most)
    await _judge_steady(first)
    await _judge_rush(first)


async def _judge_line(workers: list[_Worker], requests: list[asyncio.Task[None]]) -> None:
    """Find those who wait for too long while no connection comes back."""
    line = [task for task in requests if not any(worker.holds(task) for worker in workers)]
    timeouts = [worker.timeout for worker in workers]
    # Whether a busy machine is late to tell them or nobody ever will, the setting decides.
    late = any(seconds is None or seconds > ms(PATIENCE) for seconds in timeouts)
    _, waiting = await asyncio.wait(line, timeout=ms(PATIENCE) if late else None)
    if waiting:
        raise EXERCISE.wrong("callers-hang", f"{len(waiting)} wait still")


async def _judge_rush(worker: _Worker) -> None:
    """Find a pool that sends away whom it could have served, each time that it is tried."""
    statement = functools.partial(asyncio.sleep, ms(ROUND_TRIP))
    for _ in range(TRIES):
        worker.sent_away = 0
        await asyncio.gather(*(worker.request(statement) for _ in range(RUSH)))
        if not worker.sent_away:
            return
    raise EXERCISE.wrong("sheds-the-rush", f"{worker.sent_away} of {RUSH} were sent away")


async def _judge_steady(worker: _Worker) -> None:
    opened: list[int] = []
    for _ in range(1 + ROUNDS):
        async with _standing_still([worker], STEADY):
            opened.append(worker.opened)
    if anew := opened[-1] - opened[0]:
        raise EXERCISE.wrong("reconnects", f"{anew} anew in {ROUNDS} rounds")
