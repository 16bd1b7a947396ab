"""The course's Redis: the embedded fake and a real server keep the same promises."""

import asyncio
import functools
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import LockNotOwnedError, NoScriptError, ResponseError

from looplab.project import Project
from looplab.shop.redis import (
    URL_VARIABLE,
    RedisUnavailable,
    open_redis,
    redis_url,
    serve_redis,
)

pytestmark = pytest.mark.anyio

EVERYWHERE = ["embedded", "served", pytest.param("server", marks=pytest.mark.redis)]
REACHABLE = EVERYWHERE[1:]


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)


async def address_of(request: pytest.FixtureRequest) -> AsyncGenerator[str]:
    if request.param == "embedded":
        yield ""
    elif request.param == "served":
        async with serve_redis() as address:
            yield address
    else:
        yield request.getfixturevalue("redis_server")


@pytest.fixture(params=EVERYWHERE)
async def url(request: pytest.FixtureRequest) -> AsyncGenerator[str]:
    async for address in address_of(request):
        yield address


@pytest.fixture(params=REACHABLE)
async def reachable(request: pytest.FixtureRequest) -> AsyncGenerator[str]:
    async for address in address_of(request):
        yield address


async def test_values_leases_and_scripts(url: str) -> None:
    async with open_redis(url) as redis:
        assert redis.embedded == (url == "")
        assert await redis.set("a", "1", nx=True, px=60_000) is True
        assert await redis.set("a", "2", nx=True, px=60_000) is None
        assert 0 < await redis.pttl("a") <= 60_000
        assert await redis.get("a") == b"1"
        assert await redis.exists("a", "b") == 1
        read = "return redis.call('GET', KEYS[1]) .. ARGV[1]"
        assert await redis.eval(read, 1, "a", "!") == b"1!"
        with pytest.raises(ResponseError):
            await redis.set("c", "1", ex=0)
        with pytest.raises(NoScriptError):
            await redis.evalsha("0" * 40, 1, "a")
        assert await redis.incrby(b"n") == 1
        assert await redis.delete("a", "n") == 2


async def test_a_lease_ends(url: str) -> None:
    async with open_redis(url) as redis:
        await redis.set("a", "1", px=1)
        async with asyncio.timeout(30):
            while await redis.exists("a"):  # noqa: ASYNC110 (nothing tells of it)
                await asyncio.sleep(0.001)


async def test_the_locks_of_redis_py_work(url: str) -> None:
    async with open_redis(url) as redis:
        async with redis.lock("order:7", timeout=60) as lock:
            assert await redis.exists("order:7") == 1
            assert not await redis.lock("order:7", timeout=60).acquire(blocking=False)
            await lock.extend(60)
            assert await redis.pttl("order:7") > 60_000
        assert await redis.exists("order:7") == 0
        lock = redis.lock("order:7", timeout=60)
        await lock.acquire()
        await redis.set("order:7", "another's")
        with pytest.raises(LockNotOwnedError):
            await lock.release()
        assert await redis.get("order:7") == b"another's"


async def test_an_uncontended_lock_is_two_commands(url: str) -> None:
    async with open_redis(url) as redis:
        async with redis.lock("warm", timeout=60):
            pass
        redis.sent.clear()
        async with redis.lock("order:7", timeout=60):
            pass
        assert redis.sent == {"SET": 1, "EVALSHA": 1}


async def test_a_reader_that_has_gone_takes_nothing(reachable: str) -> None:
    stream = f"course:{uuid4().hex}"
    async with Redis.from_url(reachable) as redis:
        try:
            await redis.xgroup_create(stream, "workers", mkstream=True)
            places: Any = {stream: ">"}
            read = functools.partial(redis.xreadgroup, "workers", streams=places, block=5_000)
            gone = asyncio.ensure_future(read(consumername="gone"))
            await asyncio.sleep(0.2)  # nothing tells that the server has the command
            gone.cancel()
            await asyncio.wait({gone})
            await redis.xadd(stream, {"number": "1"})
            async with asyncio.timeout(30):
                assert await read(consumername="here")
        finally:
            await redis.delete(stream)


async def test_clients_see_keys_of_their_own_only(reachable: str) -> None:
    one = open_redis(reachable, name="one")
    other = open_redis(reachable, name="other")
    async with one, other, Redis.from_url(reachable) as plain:
        await plain.set("not the course's", "1")
        await one.set("a", "1")
        assert await other.exists("a") == 0
        assert await one.exists("not the course's") == 0
        assert await plain.get(f"{one.prefix}a") == b"1"
        await one.aclose()
        assert await plain.exists(f"{one.prefix}a") == 0
        assert await plain.get("not the course's") == b"1"
        await plain.delete("not the course's")


async def test_many_keys_are_deleted_when_the_client_closes(reachable: str) -> None:
    async with Redis.from_url(reachable) as plain:
        async with open_redis(reachable) as redis:
            for number in range(1_200):
                await redis.set(f"key {number}", "1")
            assert await plain.dbsize() == 1_200
        assert await plain.dbsize() == 0


async def test_a_client_that_is_given_a_prefix_leaves_the_keys_to_the_other(reachable: str) -> None:
    async with open_redis(reachable, name="one") as one:
        async with open_redis(reachable, prefix=one.prefix, name="two") as two:
            await two.set("a", "1")
        assert await one.get("a") == b"1"


async def test_opening_again_under_a_name_closes_the_first(url: str) -> None:
    first = await open_redis(url)
    await first.set("a", "1")
    second = await open_redis(url)
    assert await second.exists("a") == 0
    await second.aclose()
    await second.aclose()


async def test_two_embedded_fakes_share_nothing() -> None:
    async with open_redis(name="one") as one, open_redis(prefix=one.prefix, name="two") as two:
        await one.set("a", "1")
        assert await two.exists("a") == 0


@pytest.mark.parametrize("command", ["FLUSHDB", "FLUSHALL", "KEYS", "CONFIG GET", "SET", "EVAL"])
async def test_commands_that_would_pass_by_the_prefix_are_refused(command: str) -> None:
    async with open_redis() as redis:
        with pytest.raises(ValueError, match=f"{command} would not keep to the course's own keys"):
            await redis.execute_command(command)
        assert redis.sent.total() == 0


@pytest.mark.parametrize("way", ["pipeline", "pubsub", "monitor"])
async def test_ways_around_the_prefix_are_refused(way: str) -> None:
    async with open_redis() as redis:
        with pytest.raises(ValueError, match="would not keep to the course's own keys"):
            getattr(redis, way)()


@pytest.mark.parametrize("prefix", ["", "a*", "a b", "[a]"])
def test_a_prefix_that_could_match_others_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix="):
        open_redis(prefix=prefix)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("localhost:6379", "schemes"),
        ("http://localhost", "schemes"),
        ("redis://localhost:port", "Port"),
        ("redis://127.0.0.1:1/0", "onnect"),
        ("redis://ada:secret@127.0.0.1:1/0", "onnect"),
    ],
)
async def test_a_bad_address_is_told_in_one_sentence(
    address: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, address)
    with pytest.raises(RedisUnavailable) as caught:
        await open_redis()
    sentence = str(caught.value)
    assert told in sentence
    assert sentence.endswith("or unset REDIS_URL to use the embedded fake.")
    assert "\n" not in sentence
    assert "secret" not in sentence
    assert caught.value._render_traceback_() == [sentence]


@pytest.mark.redis
@pytest.mark.parametrize("address", ["{0}99", "redis://ada:secret@{1}/0"])
async def test_a_server_that_does_not_let_us_in_is_told_too(
    address: str, redis_server: str
) -> None:
    host = redis_server.removeprefix("redis://").removesuffix("/0")
    with pytest.raises(RedisUnavailable):
        await open_redis(address.format(redis_server.removesuffix("0"), host))


async def test_redis_url_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    assert redis_url() == ""
    async with serve_redis() as address:
        monkeypatch.setenv(URL_VARIABLE, f" {address} ")
        assert redis_url() == address
        async with open_redis() as redis, serve_redis() as served:
            assert not redis.embedded
            assert served == address
        async with open_redis("") as redis:
            assert redis.embedded


async def test_a_client_closes_quietly_when_its_server_has_gone() -> None:
    async with serve_redis() as address:
        redis = await open_redis(address)
        await redis.set("a", "1")
    await redis.aclose()


async def test_a_served_fake_ends_with_its_block() -> None:
    async with serve_redis() as address:
        pass
    with pytest.raises(RedisUnavailable):
        await open_redis(address)


async def test_an_answer_may_be_long_on_its_way() -> None:
    async with open_redis("", name="far", answers_after=0.05) as far:
        clock = asyncio.get_running_loop().time
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await far.set("a", "1")
        began = clock()
        assert await far.get("a") == b"1"  # it was carried out though nobody heard the answer
        assert clock() - began >= 0.045
        far.answers_after = 0.0
        assert await far.exists("a", "b") == 1
    with pytest.raises(ValueError, match="answers_after=-1"):
        open_redis("", answers_after=-1)


async def test_a_client_can_refuse_as_if_its_server_were_away() -> None:
    async with open_redis("", name="away") as away:
        await away.set("a", "1")
        away.sent.clear()
        away.refuses = True
        for command in (away.get("a"), away.eval("return 1", 1, "a")):
            with pytest.raises(RedisConnectionError, match="away"):
                await command
        assert not away.sent
        away.refuses = False
        assert await away.get("a") == b"1"
        away.refuses = True  # it closes all the same


@pytest.mark.redis
@pytest.mark.parametrize("number", ["09", "09_deeper"])
async def test_lesson_09_runs_on_a_real_server(
    redis_server: str, tmp_path: Path, number: str
) -> None:
    course = Project.here()
    lesson = course.lesson(number).path
    command = [sys.executable, "-m", "pytest", "-c", str(course.root / "pyproject.toml")]
    options = ["-p", "no:cacheprovider", "-q", "--basetemp", str(tmp_path / "run")]
    environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    async with Redis.from_url(redis_server) as plain:
        before = await plain.info("commandstats")
        ended = await asyncio.to_thread(
            subprocess.run,
            [*command, *options, str(lesson)],
            cwd=course.root,
            env=environment | {URL_VARIABLE: redis_server},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout
        assert "1 passed" in str(ended.stdout)
        after = await plain.info("commandstats")
        least = {"cmdstat_set": 30, "cmdstat_eval" if number == "09" else "cmdstat_evalsha": 30}
        for name, count in least.items():
            calls = [stats.get(name, {"calls": 0})["calls"] for stats in (before, after)]
            assert calls[1] - calls[0] > count, name
        assert await plain.dbsize() == 0
