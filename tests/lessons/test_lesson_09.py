"""Lesson 09's lock and fences, attacked as production would: on the fake and on a real Redis."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from looplab.exercises.taking import taken
from looplab.shop import open_shop
from looplab.shop.late_writer import two_holders
from looplab.shop.ledger import FENCE, open_ledger
from looplab.shop.redis import CourseRedis, open_redis

pytestmark = pytest.mark.anyio

PATTERN = ("setup", "pattern-commands", "pattern-lock", "pattern-holding")
SHIPPED = (*PATTERN, "ship-release")
HALF_AN_ANSWER = 0.05  # seconds
KEY = "lock:order:7"
SERVERS = ["the embedded fake", pytest.param("a Redis server", marks=pytest.mark.redis)]

Opens = Callable[[str], Any]


@pytest.fixture(params=SERVERS)
async def redis(request: pytest.FixtureRequest) -> AsyncGenerator[CourseRedis]:
    fake = request.param == "the embedded fake"
    url = "" if fake else request.getfixturevalue("redis_server")
    async with open_redis(url, name="attacked") as client:
        yield client


@pytest.fixture
async def holding(cells_of: Opens) -> Any:
    return (await cells_of("09").run(*SHIPPED))["holding"]


async def told(coroutine: Any) -> BaseException | None:
    """Return what a coroutine raises, a cancellation included."""
    task = asyncio.ensure_future(coroutine)
    await asyncio.wait({task}, timeout=10)
    assert task.done(), "it never ends"
    return asyncio.CancelledError() if task.cancelled() else task.exception()


async def is_free(redis: CourseRedis, key: str = KEY) -> bool:
    """Return whether the key goes within a second, which is far less than its lease."""
    for _ in range(100):
        if not await redis.exists(key):
            return True
        await asyncio.sleep(0.01)
    return False


async def cancelled_in(holding: Any, redis: CourseRedis, *, inside: str) -> None:
    """Cancel a holder while Redis's answer to its SET, or to its release, is on the way."""
    heard = asyncio.Event()

    async def holds() -> None:
        async with holding(redis, "order:7", lease=20.0):
            assert inside == "release", "it should not have come in"
            redis.answers_after = 2 * HALF_AN_ANSWER
            heard.set()

    if inside == "acquire":
        redis.answers_after = 2 * HALF_AN_ANSWER
        heard.set()
    task = asyncio.create_task(holds())
    await heard.wait()
    await asyncio.sleep(HALF_AN_ANSWER)
    task.cancel()
    assert isinstance(await told(task), asyncio.CancelledError)
    redis.answers_after = 0.0


@pytest.mark.parametrize("inside", ["acquire", "release"])
async def test_a_caller_that_is_cancelled_leaves_no_key(
    holding: Any, redis: CourseRedis, inside: str
) -> None:
    await cancelled_in(holding, redis, inside=inside)
    assert await is_free(redis)


async def test_a_release_is_sent_though_its_caller_is_cancelled_before(
    holding: Any, redis: CourseRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, send = asyncio.Event(), redis.eval

    async def eval_soon(*words: Any) -> Any:
        asked.set()
        await asyncio.sleep(HALF_AN_ANSWER)
        return await send(*words)

    async def holds() -> None:
        async with holding(redis, "order:7", lease=20.0):
            monkeypatch.setattr(redis, "eval", eval_soon)

    task = asyncio.create_task(holds())
    await asked.wait()
    task.cancel()
    assert isinstance(await told(task), asyncio.CancelledError)
    assert await is_free(redis)


async def test_the_block_s_own_cancellation_frees_the_lock(
    holding: Any, redis: CourseRedis
) -> None:
    inside = asyncio.Event()

    async def holds() -> None:
        async with holding(redis, "order:7", lease=20.0):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(holds())
    await inside.wait()
    task.cancel()
    assert isinstance(await told(task), asyncio.CancelledError)
    assert not await redis.exists(KEY)


async def test_a_waiter_that_gives_up_leaves_the_holder_its_lock(
    holding: Any, redis: CourseRedis
) -> None:
    async def waits() -> None:
        async with holding(redis, "order:7", patience=0.05):
            raise AssertionError("two are inside")

    async with holding(redis, "order:7") as lock:
        assert isinstance(await told(waits()), TimeoutError)
        assert await redis.get(KEY) == lock.token.encode()


async def test_a_waiter_gives_up_though_redis_py_loses_the_cancel(
    holding: Any, redis: CourseRedis, losing_a_cancel: Callable[..., Any]
) -> None:
    async with holding(redis, "order:7"):
        with losing_a_cancel(redis, "set") as lost:
            async with asyncio.timeout(5):
                with pytest.raises(TimeoutError):
                    async with holding(redis, "order:7", patience=0.05):
                        pytest.fail("two are inside")
        assert lost == ["set"]


async def test_who_is_late_hears_it_and_the_next_holder_keeps_its_lock(
    cells_of: Opens, redis: CourseRedis
) -> None:
    names = await cells_of("09").run(*SHIPPED)

    async def is_late() -> None:
        async with names["holding"](redis, "order:7"):
            await redis.set(KEY, "the next holder's")

    assert isinstance(await told(is_late()), names["LockLost"])
    assert await redis.get(KEY) == b"the next holder's"


async def test_an_error_of_the_block_comes_out_though_redis_is_away(
    holding: Any, redis: CourseRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*words: Any) -> None:
        raise RedisConnectionError("the server is away")

    async def fails() -> None:
        async with holding(redis, "order:7"):
            monkeypatch.setattr(redis, "eval", away)
            raise LookupError("no such order")

    assert isinstance(await told(fails()), LookupError)


async def test_a_silent_redis_keeps_a_release_for_one_lease_at_most(
    cells_of: Opens, redis: CourseRedis
) -> None:
    names = await cells_of("09").run(*SHIPPED)
    loop = asyncio.get_running_loop()
    ended = 0.0

    async def holds() -> None:
        nonlocal ended
        async with names["holding"](redis, "order:7", lease=0.2):
            redis.answers_after = 5.0
            ended = loop.time()

    assert isinstance(await told(holds()), names["LockLost"])
    assert loop.time() - ended < 2.5  # seconds, of the five that the answer takes
    redis.answers_after = 0.0
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        if "execute_command" in repr(task):
            task.cancel()


async def test_a_lease_has_milliseconds(holding: Any, redis: CourseRedis) -> None:
    for lease in (0.5, 1.9):
        async with holding(redis, "order:7", lease=lease):
            assert 0 < await redis.pttl(KEY) <= lease * 1000
            assert await redis.pttl(KEY) > lease * 1000 - 400


async def test_a_holder_that_was_killed_blocks_for_one_lease(
    cells_of: Opens, redis: CourseRedis
) -> None:
    names = await cells_of("09").run(*SHIPPED)
    await names["take"](names["DistributedLock"](redis, "order:7", timeout=0.1))
    async with names["holding"](redis, "order:7", patience=5.0):
        pass


@pytest.mark.parametrize("process", ["process_order", "process_in_one_update"])
async def test_no_payment_is_lost(cells_of: Opens, redis: CourseRedis, process: str) -> None:
    lesson = cells_of("09")
    async with open_shop() as shop:
        ledger = await open_ledger(shop)
        lesson.names |= {"redis": redis, "ledger": ledger}
        await lesson.run(*SHIPPED, "naive-process")
        await lesson.define("pattern-xray", "compare")
        assert await ledger.book_at_once(lesson.names[process], workers=5) == 5


@asynccontextmanager
async def far(server: str, delay: float) -> AsyncGenerator[Redis]:
    """Yield a client of a server whose bytes take ``delay`` seconds each way."""
    host, port = server.removeprefix("redis://").split("/")[0].split(":")

    async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            await asyncio.sleep(delay)
            sink.write(data)
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        both = carry(reader, back), carry(there, writer)
        await asyncio.gather(*both, return_exceptions=True)

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = Redis(port=proxy.sockets[0].getsockname()[1])
    try:
        yield client
    finally:
        await client.aclose()
        proxy.close()
        await asyncio.sleep(4 * delay)  # for what is still on its way


@pytest.mark.redis
async def test_across_a_network_no_moment_to_leave_keeps_the_lock(
    holding: Any, redis_server: str
) -> None:
    async with Redis.from_url(redis_server) as near, far(redis_server, 0.02) as client:
        kept = {}
        for deadline in (15, 25, 35, 55, 65, 75):  # milliseconds
            for _ in range(2):
                await client.ping()
            with suppress(TimeoutError):
                async with asyncio.timeout(deadline / 1000), holding(client, "order:7"):
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            kept[deadline] = await near.exists(KEY)
            await near.delete(KEY)
        assert not any(kept.values()), kept


@pytest.mark.parametrize(
    ("lesson", "cells"),
    [("09", ("exercise-solution",)), ("09_deeper", ("renew-loop", "renew-held"))],
)
async def test_a_renewal_that_failed_too_does_not_hide_the_block_s_own_error(
    cells_of: Opens, redis: CourseRedis, lesson: str, cells: tuple[str, ...]
) -> None:
    names = await cells_of(lesson).define("setup", *cells)

    async def fails_when_stopped() -> None:
        async with names["renewed"](redis, "order:7", 0.3):
            await redis.set("order:7", "another's", px=60_000)
            try:
                await asyncio.Event().wait()
            finally:
                raise LookupError("no such order")

    assert isinstance(await told(fails_when_stopped()), LookupError)


# ---------------------------------------------------------------- the second helping


@pytest.fixture
async def deeper(cells_of: Opens, redis: CourseRedis) -> AsyncGenerator[Any]:
    """The second helping's cells, over a Redis and a ledger."""
    lesson = cells_of("09_deeper")
    async with open_shop() as shop:
        lesson.names |= {"redis": redis, "ledger": await open_ledger(shop)}
        await lesson.run("setup")
        yield lesson


@pytest.mark.parametrize("last", ["late", "prompt"])
@pytest.mark.parametrize("fence", ["database-fence", "compare-set-late"])
async def test_a_late_writer_loses_nothing(
    deeper: Any, redis: CourseRedis, fence: str, last: Any
) -> None:
    names = await deeper.define(fence)
    begin, finish = names.get("begin", names.get("read")), names.get("finish")
    end = finish or names["set_if_same"]
    assert await two_holders(redis, names["ledger"], begin, end, last=last) == (1, 1)


async def test_the_shipped_fence_refuses_whoever_was_overtaken(
    deeper: Any, redis: CourseRedis
) -> None:
    names = await deeper.define("database-ship")
    ledger = names["ledger"]
    order_id = await ledger.new_order()
    late = asyncio.create_task(names["process_fenced"](order_id))
    overtaken = 0
    while not overtaken:  # somebody else begins as soon as it has its number
        overtaken = await ledger.write(order_id, FENCE == 1, fence=2)
        await asyncio.sleep(0)
    assert isinstance(await told(late), names["LateWriter"])
    assert not await redis.exists(f"order:{order_id}")


@pytest.mark.parametrize("inside", ["acquire", "release"])
async def test_taken_leaves_no_key_either(redis: CourseRedis, inside: str) -> None:
    await cancelled_in(taken, redis, inside=inside)
    assert await is_free(redis, "order:7")


async def test_a_renewed_block_is_stopped_when_its_lock_is_another_s(
    cells_of: Opens, redis: CourseRedis
) -> None:
    lesson = cells_of("09_deeper")
    await lesson.run("setup")
    names = await lesson.define("renew-loop", "renew-held")

    async def works() -> None:
        async with names["renewed"](redis, "order:7", 0.3):
            await redis.set("order:7", "another's", px=60_000)
            await asyncio.Event().wait()

    assert isinstance(await told(works()), names["LockNotOwnedError"])
    assert await redis.get("order:7") == b"another's"


async def test_a_fenced_lock_keeps_redis_pys_time_outs(cells_of: Opens, redis: CourseRedis) -> None:
    lesson = cells_of("09_deeper")
    names = await lesson.run("setup", "fence-script")
    for timeout, least, most in ((None, -1, -1), (0.5, 1, 500), (60, 50_000, 60_000)):
        lock = redis.lock("order:7", timeout=timeout, lock_class=names["FencedLock"])
        await lock.acquire()
        assert least <= await redis.pttl("order:7") <= most
        rival = redis.lock("order:7", blocking=False, lock_class=names["FencedLock"])
        assert not await rival.acquire()
        await lock.release()
