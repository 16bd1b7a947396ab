"""The check of lesson 09, with right answers and wrong ones."""

import asyncio
import textwrap
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from time import perf_counter
from typing import Any
from uuid import uuid4

import pytest
from redis.exceptions import LockError, RedisError

from looplab.exercises.locks import EXERCISE, check_locks
from looplab.exercises.taking import renew, taken

pytestmark = pytest.mark.anyio

kept: list[Any] = []  # tasks that a wrong answer leaves running

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy

RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""


# ---------------------------------------------------------------- right answers


@asynccontextmanager
async def renewed(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    try:
        async with taken(redis, name, lease) as lock, asyncio.TaskGroup() as tasks:
            renewing = tasks.create_task(renew(lock))
            yield
            renewing.cancel()
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


def names_of(source: str) -> dict[str, Any]:
    """Run an answer's source; what it does not define is right."""
    names: dict[str, Any] = {
        "asyncio": asyncio,
        "asynccontextmanager": asynccontextmanager,
        "suppress": suppress,
        "perf_counter": perf_counter,
        "uuid4": uuid4,
        "LockError": LockError,
        "RedisError": RedisError,
        "RELEASE": RELEASE,
        "RENEW": RENEW,
        "taken": taken,
        "renew": renew,
        "renewed_lock": renewed,
    }
    exec(compile(textwrap.dedent(source), "<answer>", "exec"), names)
    return names


async def verdict_on(source: str, *, limit: float = AMPLE) -> Any:
    names = names_of(source)
    return await check_locks(names["renewed_lock"], limit=limit)


RIGHT: tuple[tuple[str, str], ...] = (
    ("functions, a TaskGroup and the lock that is given", ""),
    (
        "classes with __aenter__ and __aexit__",
        """
        class renewed_lock:
            def __init__(self, redis, name, lease):
                self.taken = taken(redis, name, lease)

            async def __aenter__(self):
                self.lock = await self.taken.__aenter__()
                self.group = asyncio.TaskGroup()
                await self.group.__aenter__()
                self.renewing = self.group.create_task(renew(self.lock))

            async def __aexit__(self, *raised):
                self.renewing.cancel()
                try:
                    await self.group.__aexit__(*raised)
                except ExceptionGroup as group:
                    error = group.exceptions[0]
                    await self.taken.__aexit__(type(error), error, error.__traceback__)
                    if error is raised[1]:
                        return False
                    raise error from None
                except BaseException as error:
                    await self.taken.__aexit__(type(error), error, error.__traceback__)
                    raise
                await self.taken.__aexit__(*raised)
        """,
    ),
    (
        "a token and two scripts by hand, the block cancelled by its own task",
        """
        @asynccontextmanager
        async def renewed_lock(redis, name, lease):
            token, px = uuid4().hex, int(lease * 1000)
            block, done, lost = asyncio.current_task(), asyncio.Event(), []

            async def renewing():
                try:
                    while not done.is_set():
                        async with asyncio.timeout(lease / 3):
                            if not await redis.eval(RENEW, 1, name, token, px):
                                raise LockError("the lock was lost")
                        with suppress(TimeoutError):
                            async with asyncio.timeout(lease / 4):
                                await done.wait()
                except Exception as error:
                    lost.append(error)
                    block.cancel()

            async def release():
                with suppress(Exception):
                    await redis.eval(RELEASE, 1, name, token)

            try:
                if not await redis.set(name, token, nx=True, px=px):
                    raise LockError("the lock is taken")
                task = asyncio.create_task(renewing())
                try:
                    yield
                except asyncio.CancelledError:
                    if not lost:
                        raise
                    block.uncancel()
                    raise lost[0] from None
                finally:
                    done.set()
                    await task
            finally:
                await asyncio.shield(asyncio.create_task(release()))
        """,
    ),
    (
        "an AnyIO task group",
        """
        import anyio

        @asynccontextmanager
        async def renewed_lock(redis, name, lease):
            async def renewing(lock):
                while True:
                    with anyio.fail_after(lease / 3):
                        await lock.reacquire()
                    await anyio.sleep(lease / 4)

            try:
                async with taken(redis, name, lease) as lock, anyio.create_task_group() as group:
                    group.start_soon(renewing, lock)
                    yield
                    group.cancel_scope.cancel()
            except ExceptionGroup as group:
                if len(group.exceptions) > 1:
                    raise
                raise group.exceptions[0]
        """,
    ),
    (
        "an exit stack, and extend in place of reacquire",
        """
        from contextlib import AsyncExitStack

        @asynccontextmanager
        async def renewed_lock(redis, name, lease):
            async def extending(lock):
                task = asyncio.current_task()
                while not task.cancelling():
                    await asyncio.sleep(lease / 4)
                    async with asyncio.timeout(lease / 4):
                        await lock.extend(lease, replace_ttl=True)

            try:
                async with AsyncExitStack() as stack:
                    lock = await stack.enter_async_context(taken(redis, name, lease))
                    group = await stack.enter_async_context(asyncio.TaskGroup())
                    task = group.create_task(extending(lock))
                    stack.callback(task.cancel)
                    yield
            except BaseExceptionGroup as group:
                raise group.exceptions[0]
        """,
    ),
)


@pytest.mark.parametrize("source", [each[1] for each in RIGHT], ids=[each[0] for each in RIGHT])
async def test_a_right_answer_passes_in_any_style(source: str, tried: Callable[..., Any]) -> None:
    verdict = await tried(lambda: verdict_on(source))
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

    verdict = await check_locks(held_up_on_the_way_out, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert leases[1] == 2 * leases[0]  # another round, with more room


async def test_the_check_uses_the_embedded_fake_whatever_redis_url_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    assert (await check_locks(renewed, limit=AMPLE)).passed


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


@asynccontextmanager
async def never_cancelled(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    async with redis.lock(name, timeout=lease) as lock:
        kept.append(asyncio.create_task(renew(lock)))
        yield


@asynccontextmanager
async def not_on_failure(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    lock = redis.lock(name, timeout=lease)
    await lock.acquire()
    try:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(renew(lock))
            yield
            task.cancel()
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
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
        with suppress(Exception):
            yield


async def not_a_manager(redis: Any, name: str, lease: float) -> None:
    return None


async def bare_generator(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    yield


def not_yet(redis: Any, name: str, lease: float) -> Any:
    raise NotImplementedError


@asynccontextmanager
async def wrong_arguments(name: str) -> AsyncGenerator[None]:
    yield


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
    ("not-a-manager", bare_generator),
    ("not-written", not_yet),
    ("raised", wrong_arguments),
]


@pytest.mark.parametrize(("mistake", "hold"), LOCKS)
async def test_wrong_locks_get_their_hint(
    mistake: str, hold: Any, tried: Callable[..., Any]
) -> None:
    verdict = await tried(lambda: check_locks(hold, limit=AMPLE), mistake)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message
    kept.clear()


BY_HAND = """
@asynccontextmanager
async def renewed_lock(redis, name, lease):
    token, px = {token}, {px}
    {take}

    async def renewing():
        task = asyncio.current_task()
        while not task.cancelling():
            await asyncio.sleep(lease / 3)
            async with asyncio.timeout(lease / 3):
                {renew}

    async def release():
        with suppress(Exception):
            {release}

    try:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(renewing())
            yield
            task.cancel()
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        await asyncio.shield(asyncio.create_task(release()))
"""
TAKE = """
    try:
        while not await redis.set(name, token, nx=True, px=px):
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        await asyncio.shield(redis.eval(RELEASE, 1, name, token))
        raise
"""


def by_hand(
    token: str = "uuid4().hex",
    px: str = "int(lease * 1000)",
    take: str = TAKE.strip(),
    renew: str = """if not await redis.eval(RENEW, 1, name, token, px):
                    raise LockError("the lock was lost")""",
    release: str = "await redis.eval(RELEASE, 1, name, token)",
) -> str:
    """Return a right answer with one part of it changed."""
    return BY_HAND.format(token=token, px=px, take=take, renew=renew, release=release)


GIVEN = """
@asynccontextmanager
async def renewed_lock(redis, name, lease):
    try:
        async with {taken} as lock, asyncio.TaskGroup() as tasks:
            renewing = tasks.create_task({renew})
            {block}
            renewing.cancel()
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
"""


def given(
    taken: str = "taken(redis, name, lease)", renew: str = "renew(lock)", block: str = "yield"
) -> str:
    """Return the course's own answer with one part of it changed."""
    return GIVEN.format(taken=taken, renew=renew, block=block)


WRONG: tuple[tuple[str, str, str], ...] = (
    # who gets the lock
    (
        "the key is set whether it is free or not",
        by_hand(take="await redis.set(name, token, px=px)"),
        "takes-anothers",
    ),
    (
        "the key is deleted before it is set",
        by_hand(take="await redis.delete(name)\n    await redis.set(name, token, nx=True, px=px)"),
        "takes-anothers",
    ),
    (
        "the key is read, and set in a second step",
        by_hand(
            take="while await redis.get(name) is not None:\n        await asyncio.sleep(0.01)\n"
            "    await redis.set(name, token, px=px)"
        ),
        "takes-anothers",
    ),
    (
        "the answer of a lock that does not wait is not looked at",
        """
        @asynccontextmanager
        async def renewed_lock(redis, name, lease):
            lock = redis.lock(name, timeout=lease)
            await lock.acquire(blocking=False)
            renewing = asyncio.create_task(renew(lock))
            try:
                yield
            finally:
                renewing.cancel()
                await lock.release()
        """,
        "takes-anothers",
    ),
    (
        "the wait for the lock ends after a lease, and the block begins",
        by_hand(
            take="waited = 0\n    while waited < 10 and not await redis.set(name, token, nx=True,"
            " px=px):\n        waited += 1\n        await asyncio.sleep(lease / 10)"
        ),
        "takes-anothers",
    ),
    (
        "who may not come in deletes the key all the same",
        by_hand(
            take="if not await redis.set(name, token, nx=True, px=px):\n"
            "        await redis.delete(name)\n        raise LockError('taken')"
        ),
        "opens-anothers",
    ),
    # tokens
    ("one token for all", by_hand(token="'locked'"), "same-token"),
    ("the token is the lock's name", by_hand(token="name + ':locked'"), "same-token"),
    (
        "the token is the process",
        by_hand(token="f'worker-{__import__(\"os\").getpid()}'"),
        "same-token",
    ),
    (
        "the tokens are counted from 1",
        "import itertools\nnumbers = itertools.count(1)\n" + by_hand(token="str(next(numbers))"),
        "same-token",
    ),
    (
        "the token is the name of the task",
        by_hand(token="'holder: ' + asyncio.current_task().get_name()"),
        "same-token",
    ),
    # leases
    ("the lease is 2.9 times as long", by_hand(px="int(lease * 2900)"), "lease-too-long"),
    ("the lease is 1.4 times as long", by_hand(px="int(lease * 1400)"), "lease-too-long"),
    ("the lease is half as long", by_hand(px="int(lease * 500)"), "lease-too-short"),
    ("the lease is a number of its own", by_hand(px="150"), "lease-too-short"),
    (
        "the lease is at least a second",
        by_hand(px="max(1000, int(lease * 1000))"),
        "lease-too-long",
    ),
    (
        "a renewal makes the lease twice as long",
        given(renew="double(lock)")
        + """
async def double(lock):
    while not asyncio.current_task().cancelling():
        async with asyncio.timeout(lock.timeout / 3):
            await lock.extend(2 * lock.timeout, replace_ttl=True)
        await asyncio.sleep(lock.timeout / 3)
""",
        "lease-too-long",
    ),
    (
        "a renewal comes when the lease is over",
        by_hand().replace("asyncio.sleep(lease / 3)", "asyncio.sleep(lease)"),
        "renews-too-late",
    ),
    # what is lost
    (
        "a renewal takes whatever stands there",
        by_hand(renew="await redis.set(name, token, px=px)"),
        "works-on",
    ),
    (
        "a renewal looks at no token",
        by_hand(renew="await redis.pexpire(name, px)"),
        "works-on",
    ),
    (
        "what has vanished is taken anew",
        by_hand(
            renew="if not await redis.eval(RENEW, 1, name, token, px):\n"
            "                    if not await redis.set(name, token, nx=True, px=px):\n"
            "                        raise LockError('lost')"
        ),
        "works-on",
    ),
    (
        "the loss comes out as a cancellation",
        """
        @asynccontextmanager
        async def renewed_lock(redis, name, lease):
            block = asyncio.current_task()

            async def renewing(lock):
                try:
                    await renew(lock)
                except (LockError, OSError):
                    block.cancel()

            async with taken(redis, name, lease) as lock:
                task = asyncio.create_task(renewing(lock))
                try:
                    yield
                finally:
                    task.cancel()
                    await asyncio.wait([task])
        """,
        "loss-untold",
    ),
    # a Redis that does not answer
    (
        "a renewal waits for ever",
        given(renew="for_ever(lock)")
        + """
async def for_ever(lock):
    while not asyncio.current_task().cancelling():
        await lock.reacquire()
        await asyncio.sleep(lock.timeout / 3)
""",
        "works-on-unheard",
    ),
    (
        "a renewal waits for a whole lease, and the lease has begun before it",
        given(renew="for_a_lease(lock)")
        + """
async def for_a_lease(lock):
    while not asyncio.current_task().cancelling():
        await asyncio.sleep(lock.timeout / 3)
        async with asyncio.timeout(lock.timeout):
            await lock.reacquire()
""",
        "works-on-unheard",
    ),
    (
        "whatever a renewal raises, it is tried again",
        given(renew="stubborn(lock)")
        + """
async def stubborn(lock):
    while not asyncio.current_task().cancelling():
        with suppress(RedisError, TimeoutError):
            async with asyncio.timeout(lock.timeout / 3):
                await lock.reacquire()
        await asyncio.sleep(lock.timeout / 3)
""",
        "works-on",
    ),
    (
        "a renewal that Redis refuses is logged and tried again",
        given(renew="stubborn(lock)")
        + """
async def stubborn(lock):
    while not asyncio.current_task().cancelling():
        try:
            async with asyncio.timeout(lock.timeout / 3):
                await lock.reacquire()
        except LockError:
            raise
        except RedisError as error:
            print("Redis:", error)
        await asyncio.sleep(lock.timeout / 3)
""",
        "works-on-unheard",
    ),
    # how the block's errors come out
    (
        "a block's error comes out in a group",
        """
        @asynccontextmanager
        async def renewed_lock(redis, name, lease):
            async with taken(redis, name, lease) as lock, asyncio.TaskGroup() as tasks:
                renewing = tasks.create_task(renew(lock))
                yield
                renewing.cancel()
        """,
        "wrapped",
    ),
    (
        "only what Redis raises is unwrapped",
        given().replace(
            "        raise group.exceptions[0] from None",
            "        if isinstance(group.exceptions[0], (RedisError, TimeoutError)):\n"
            "            raise group.exceptions[0] from None\n"
            "        raise",
        ),
        "wrapped",
    ),
    (
        "a lock error of the block's own is swallowed",
        given(block="with suppress(LockError):\n                yield"),
        "swallows",
    ),
    (
        "an HTTPException of the block becomes a RuntimeError",
        given(
            block="try:\n                yield\n            except Exception as error:\n"
            "                raise RuntimeError(str(error)) from error"
        ),
        "swallows",
    ),
    (
        "a cancellation comes out as a loss",
        """
        right = renewed_lock

        @asynccontextmanager
        async def renewed_lock(redis, name, lease):
            try:
                async with right(redis, name, lease):
                    yield
            except asyncio.CancelledError:
                raise LockError("stopped") from None
        """,
        "swallows",
    ),
    # a caller who leaves while Redis answers
    ("redis-py's own lock", given(taken="redis.lock(name, timeout=lease)"), "left-locked"),
    (
        "a token that is known only once Redis has answered",
        by_hand(
            take="while not await redis.set(name, token, nx=True, px=px):\n"
            "        await asyncio.sleep(0.01)"
        ),
        "left-locked",
    ),
    (
        "a release that goes with its caller",
        by_hand().replace("asyncio.shield(asyncio.create_task(release()))", "release()"),
        "left-locked",
    ),
)


@pytest.mark.parametrize(
    ("source", "mistake"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG]
)
async def test_a_wrong_answer_gets_its_own_hint(
    source: str, mistake: str, tried: Callable[..., Any]
) -> None:
    verdict = await tried(lambda: verdict_on(source), mistake)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message


async def test_the_answers_that_wrong_ones_change_are_right() -> None:
    for source in (by_hand(), given()):
        verdict = await verdict_on(source)
        assert verdict.passed, verdict.message


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    made = {name for name, _ in LOCKS} | {mistake for *_, mistake in WRONG}
    assert {mistake.name for mistake in EXERCISE.mistakes} <= made


# ---------------------------------------------------------------- bad arguments, endless waits


@asynccontextmanager
async def never_opens(redis: Any, name: str, lease: float) -> AsyncGenerator[None]:
    await asyncio.Event().wait()
    yield


async def test_an_answer_that_keeps_the_loop_ends_the_check_at_once() -> None:
    names = names_of(given(block="time.sleep(3)\n            yield"))
    names["time"] = time
    began = time.monotonic()
    verdict = await check_locks(names["renewed_lock"])
    assert verdict.mistake == "blocks-the-loop", verdict.message
    assert time.monotonic() - began < 6  # seconds


async def test_an_endless_wait_is_stopped() -> None:
    assert (await check_locks(never_opens, limit=0.5)).mistake == "never-ends"


@pytest.mark.parametrize("given", [None, 7, "renewed_lock", dict])
async def test_what_makes_no_context_manager_is_refused(given: Any) -> None:
    assert (await check_locks(given)).mistake == "wrong-type"


async def test_a_context_manager_that_was_made_already_is_refused() -> None:
    made = renewed(None, "pack", 1.0)
    assert (await check_locks(made)).mistake == "called-instead-of-passed"


async def test_nothing_is_left_behind() -> None:
    before = asyncio.all_tasks()
    await check_locks(never_cancelled, limit=AMPLE)
    kept.clear()
    assert asyncio.all_tasks() == before
