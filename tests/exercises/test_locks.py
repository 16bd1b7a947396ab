"""The check of lesson 09, with right answers and wrong ones."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from time import perf_counter
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio.lock import Lock
from redis.exceptions import LockError

from support.exercises.locks import EXERCISE, check_locks

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy

RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""


async def renew(lock: Lock) -> None:
    task = asyncio.current_task()
    assert lock.timeout is not None
    assert task is not None
    while not task.cancelling():  # wait_for of Python 3.11, in redis-py, can lose a cancellation
        await lock.reacquire()
        await asyncio.sleep(lock.timeout / 3)


# ---------------------------------------------------------------- right answers


@asynccontextmanager
async def recorded(name: str, records: list[Any]) -> AsyncGenerator[None]:
    start, outcome = perf_counter(), "failed"
    try:
        yield
        outcome = "completed"
    except asyncio.CancelledError:
        outcome = "cancelled"
        raise
    finally:
        records.append((name, outcome, perf_counter() - start))


class RecordedByClass:
    def __init__(self, name: str, records: list[Any]) -> None:
        self.name, self.records = name, records

    async def __aenter__(self) -> None:
        self.start = perf_counter()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        outcome = "completed" if kind is None else "failed"
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            outcome = "cancelled"
        self.records.append([self.name, outcome, perf_counter() - self.start])


def recorded_by_class(name: str, records: list[Any]) -> RecordedByClass:
    return RecordedByClass(name, records)


@asynccontextmanager
async def renewed(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    lock = redis.lock(name, timeout=lease)
    async with lock, asyncio.TaskGroup() as group:
        renewing = group.create_task(renew(lock))
        yield
        renewing.cancel()


@asynccontextmanager
async def renewed_by_hand(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    """Keep a token, and cancel the block when a renewal fails; no TaskGroup, no Lock."""
    token, px = uuid4().hex, int(lease * 1000)
    block, done, lost = asyncio.current_task(), asyncio.Event(), False
    assert block is not None

    async def renewing() -> None:
        nonlocal lost
        while not done.is_set():
            if not await redis.eval(RENEW, 1, name, token, px):
                lost = True
                block.cancel()
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(lease / 4):
                    await done.wait()

    if not await redis.set(name, token, nx=True, px=px):
        raise RuntimeError("the lock is taken")
    task = asyncio.create_task(renewing())
    try:
        yield
    except asyncio.CancelledError:
        if not lost:
            raise
        block.uncancel()
        raise RuntimeError("the lock was lost") from None
    finally:
        done.set()
        await task
        await redis.eval(RELEASE, 1, name, token)


@pytest.mark.parametrize(
    ("record", "hold"), [(recorded, renewed), (recorded_by_class, renewed_by_hand)]
)
async def test_right_answers_pass(record: Any, hold: Any) -> None:
    verdict = await check_locks(record, hold, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


async def test_a_machine_that_stands_still_is_not_taken_for_a_lock_that_ends() -> None:
    leases: list[float] = []

    @asynccontextmanager
    async def held_up_on_the_way_out(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
        leases.append(lease)
        async with renewed(redis, name, lease):
            yield
            if len(leases) == 1:
                time.sleep(1.2 * lease)  # noqa: ASYNC251 (stands for a machine that does)

    verdict = await check_locks(recorded, held_up_on_the_way_out, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert leases[1] == 2 * leases[0]  # another round, with more room


async def test_the_check_uses_the_embedded_fake_whatever_redis_url_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    assert (await check_locks(recorded, renewed, limit=AMPLE)).passed


# ---------------------------------------------------------------- wrong records


@asynccontextmanager
async def always_completed(name: str, records: list[Any]) -> AsyncGenerator[None]:
    start = perf_counter()
    try:
        yield
    finally:
        records.append((name, "completed", perf_counter() - start))


@asynccontextmanager
async def without_finally(name: str, records: list[Any]) -> AsyncGenerator[None]:
    start = perf_counter()
    yield
    records.append((name, "completed", perf_counter() - start))


@asynccontextmanager
async def exceptions_only(name: str, records: list[Any]) -> AsyncGenerator[None]:
    start = perf_counter()
    try:
        yield
    except Exception:
        records.append((name, "failed", perf_counter() - start))
        raise
    else:
        records.append((name, "completed", perf_counter() - start))


@asynccontextmanager
async def cancelled_is_completed(name: str, records: list[Any]) -> AsyncGenerator[None]:
    start, outcome = perf_counter(), "completed"
    try:
        yield
    except Exception:
        outcome = "failed"
        raise
    finally:
        records.append((name, outcome, perf_counter() - start))


@asynccontextmanager
async def cancelled_is_failed(name: str, records: list[Any]) -> AsyncGenerator[None]:
    start, outcome = perf_counter(), "completed"
    try:
        yield
    except BaseException:
        outcome = "failed"
        raise
    finally:
        records.append((name, outcome, perf_counter() - start))


@asynccontextmanager
async def swallows_failures(name: str, records: list[Any]) -> AsyncGenerator[None]:
    start, outcome = perf_counter(), "failed"
    with suppress(Exception):
        yield
        outcome = "completed"
    records.append((name, outcome, perf_counter() - start))


@asynccontextmanager
async def swallows_cancellation(name: str, records: list[Any]) -> AsyncGenerator[None]:
    start, outcome = perf_counter(), "failed"
    try:
        yield
        outcome = "completed"
    except asyncio.CancelledError:
        outcome = "cancelled"
    finally:
        records.append((name, outcome, perf_counter() - start))


@asynccontextmanager
async def twice(name: str, records: list[Any]) -> AsyncGenerator[None]:
    async with recorded(name, records), recorded(name, records):
        yield


@asynccontextmanager
async def in_milliseconds(name: str, records: list[Any]) -> AsyncGenerator[None]:
    try:
        async with recorded(name, records):
            yield
    finally:
        name, outcome, seconds = records.pop()
        records.append((name, outcome, seconds * 1000))


@asynccontextmanager
async def a_line_of_text(name: str, records: list[Any]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        records.append(f"{name} completed")


async def bare_generator(name: str, records: list[Any]) -> AsyncGenerator[None]:
    yield


async def a_coroutine(name: str, records: list[Any]) -> None:
    records.append((name, "completed", 0.0))


def not_yet(name: str, records: list[Any]) -> Any:
    raise NotImplementedError


@asynccontextmanager
async def wrong_arguments(name: str) -> AsyncGenerator[None]:
    yield


RECORDS: list[tuple[str, Callable[..., Any]]] = [
    ("says-completed", always_completed),
    ("not-recorded", without_finally),
    ("not-recorded", exceptions_only),
    ("cancelled-mislabelled", cancelled_is_completed),
    ("cancelled-mislabelled", cancelled_is_failed),
    ("swallows", swallows_failures),
    ("swallows", swallows_cancellation),
    ("wrong-record", twice),
    ("wrong-record", in_milliseconds),
    ("wrong-record", a_line_of_text),
    ("not-a-manager", bare_generator),
    ("not-a-manager", a_coroutine),
    ("not-written", not_yet),
    ("raised", wrong_arguments),
]


@pytest.mark.parametrize(("mistake", "record"), RECORDS)
async def test_wrong_records_get_their_hint(mistake: str, record: Any) -> None:
    verdict = await check_locks(record, renewed, limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message


# ---------------------------------------------------------------- wrong locks


@asynccontextmanager
async def no_lock(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    yield


@asynccontextmanager
async def another_name(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    async with renewed(redis, f"lock:{name}", lease):
        yield


@asynccontextmanager
async def plain_lock(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    async with redis.lock(name, timeout=lease):
        yield


@asynccontextmanager
async def renewed_once(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    async with redis.lock(name, timeout=lease) as lock, asyncio.TaskGroup() as group:

        async def once() -> None:
            await asyncio.sleep(lease / 2)
            await lock.reacquire()

        group.create_task(once())
        yield


@asynccontextmanager
async def an_hour(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    async with redis.lock(name, timeout=3600):
        yield


@asynccontextmanager
async def without_an_end(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    async with redis.lock(name):
        yield


@asynccontextmanager
async def extended(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    async with redis.lock(name, timeout=lease) as lock, asyncio.TaskGroup() as group:

        async def extending() -> None:
            while not task.cancelling():
                await lock.extend(lease)
                await asyncio.sleep(lease / 3)

        task = group.create_task(extending())
        yield
        task.cancel()


@asynccontextmanager
async def renewed_first(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    async with redis.lock(name, timeout=lease) as lock:
        await renew(lock)
        yield


@asynccontextmanager
async def without_a_cancel(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    async with redis.lock(name, timeout=lease) as lock, asyncio.TaskGroup() as group:
        group.create_task(renew(lock))
        yield


kept: list[Any] = []


@asynccontextmanager
async def never_cancelled(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    async with redis.lock(name, timeout=lease) as lock:
        kept.append(asyncio.create_task(renew(lock)))
        yield


@asynccontextmanager
async def not_on_failure(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    lock = redis.lock(name, timeout=lease)
    await lock.acquire()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(renew(lock))
        yield
        task.cancel()
    await lock.release()


@asynccontextmanager
async def unwatched(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    async with redis.lock(name, timeout=lease) as lock:
        task = asyncio.create_task(renew(lock))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, LockError):
                await task


@asynccontextmanager
async def quiet_about_loss(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    with suppress(LockError):
        async with renewed(redis, name, lease):
            yield


@asynccontextmanager
async def deletes(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    lock = redis.lock(name, timeout=lease)
    await lock.acquire()
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(renew(lock))
            yield
            task.cancel()
    finally:
        await redis.delete(name)


@asynccontextmanager
async def swallows_under_the_lock(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    async with renewed(redis, name, lease):
        with suppress(ValueError, ArithmeticError, Exception):
            yield


async def not_a_manager(redis: Any, name: str, lease: float) -> None:
    return None


LOCKS: list[tuple[str, Callable[..., Any]]] = [
    ("not-locked", no_lock),
    ("not-locked", another_name),
    ("never-renews", plain_lock),
    ("renews-too-late", renewed_once),
    ("lease-too-long", an_hour),
    ("lease-too-long", without_an_end),
    ("lease-too-long", extended),
    ("waits-for-renewing", renewed_first),
    ("waits-for-renewing", without_a_cancel),
    ("keeps-renewing", never_cancelled),
    ("not-released", not_on_failure),
    ("works-on", unwatched),
    ("loss-untold", quiet_about_loss),
    ("opens-anothers", deletes),
    ("swallows", swallows_under_the_lock),
    ("not-a-manager", not_a_manager),
]


@pytest.mark.parametrize(("mistake", "hold"), LOCKS)
async def test_wrong_locks_get_their_hint(mistake: str, hold: Any) -> None:
    verdict = await check_locks(recorded, hold, limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message
    kept.clear()


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    made = {name for name, _ in RECORDS + LOCKS}
    assert {mistake.name for mistake in EXERCISE.mistakes} <= made


# ---------------------------------------------------------------- bad arguments, endless waits


@asynccontextmanager
async def never_opens(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    await asyncio.Event().wait()
    yield


async def test_an_endless_wait_is_stopped() -> None:
    assert (await check_locks(recorded, never_opens, limit=0.5)).mistake == "never-ends"


@pytest.mark.parametrize("given", [None, 7, RecordedByClass])
async def test_what_is_no_function_is_refused(given: Any) -> None:
    assert (await check_locks(given, renewed)).mistake == "wrong-type"
    assert (await check_locks(recorded, given)).mistake == "wrong-type"


async def test_nothing_is_left_behind() -> None:
    before = asyncio.all_tasks()
    await check_locks(recorded, never_cancelled, limit=AMPLE)
    kept.clear()
    assert asyncio.all_tasks() == before
