"""The Redis that the lessons speak to: an embedded fake, or the server that REDIS_URL names.

`open_redis` gives a redis-py client either way, so what runs on one runs on the other. The fake
(fakeredis) lives in this process, with Lua; only `serve_redis` makes it reachable for others.

A client keeps to keys of its own: each key is sent with a prefix in front, and what stands under
the prefix is deleted when the client closes. Nothing else on the server is read or touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
import socket
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import CoroutineType
from typing import Any, Final, NoReturn, Self
from uuid import uuid4

import redis.exceptions
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

URL_VARIABLE: Final = "REDIS_URL"
CONNECT_WITHIN: Final = 5.0  # seconds

# fmt: off
_FIRST_IS_KEY: Final = frozenset((
    "DECRBY", "EXPIRE", "GET", "GETDEL", "HGET", "HGETALL", "HSET", "INCRBY", "LLEN", "LPOP",
    "LPUSH", "LRANGE", "PERSIST", "PEXPIRE", "PTTL", "RPOP", "RPUSH", "SADD", "SET", "SMEMBERS",
    "SREM", "TTL", "TYPE", "ZADD", "ZRANGE", "ZREM", "ZSCORE",
))
# fmt: on
_ALL_ARE_KEYS: Final = frozenset(("DEL", "EXISTS", "MGET", "TOUCH", "UNLINK"))
_SCRIPTS: Final = frozenset(("EVAL", "EVALSHA"))
_KEYLESS: Final = frozenset(("ECHO", "INFO", "PING", "SCRIPT EXISTS", "SCRIPT LOAD", "TIME"))


class RedisUnavailable(ConnectionError):
    """No Redis could be reached under REDIS_URL. Jupyter shows one sentence and no traceback."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"{URL_VARIABLE} is {_without_password(url)!r}, and no Redis could be used there "
            f"({reason}): fix the address, or unset {URL_VARIABLE} to use the embedded fake."
        )

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class CourseRedis(Redis):
    """A `redis.asyncio.Redis` that keeps to keys of its own. `open_redis` makes one.

    It knows the commands that have one key, those that take keys only, scripts, and a few without
    keys. Others, pipelines and subscriptions would pass by the prefix, so it refuses them.

    Attributes:
        prefix: what stands in front of each key on the server.
        embedded: whether it speaks to a fake in this process.
        sent: how often each command was sent, by name; `sent.clear()` begins anew.
        answers_after: how long each answer is on its way back, in seconds. It may be changed: a
            Redis that falls silent answers after a minute.
        refuses: whether every command of its user raises redis-py's ConnectionError, as where the
            server is away; False at first, and it may be changed. Closing works all the same.
    """

    def __init__(
        self, address: str, *, prefix: str | None, name: str, answers_after: float = 0.0
    ) -> None:
        """Make the client that `open_redis` describes; an empty ``address`` is the fake."""
        super().__init__(connection_pool=_pool(address))
        self.auto_close_connection_pool = True
        self.prefix = prefix or f"course:{uuid4().hex}:"
        self.embedded = not address
        self.sent: Counter[str] = Counter()
        self._owns_keys = prefix is None
        self._address = address
        self._name = name
        self.answers_after = answers_after
        self.refuses = False

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._opened().__await__()

    async def __aenter__(self) -> Self:
        return await self._opened()

    async def __aexit__(self, exc_type: object, exc_value: object, traceback: object) -> None:
        await self.aclose()

    def execute_command(self, *args: Any, **options: Any) -> CoroutineType[Any, Any, Any]:
        """Return a coroutine that sends a command with its keys prefixed and returns the reply.

        Raises:
            ValueError: the client does not know which words of the command are keys.
            redis.exceptions.ConnectionError (when awaited): it `refuses`.
        """
        prefixed = self._prefixed(args)
        if self.refuses:
            return _refuse()
        self.sent[args[0]] += 1
        return super().execute_command(*prefixed, **options)

    async def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        """Return the answer to a command that was sent, when it has come all the way."""
        answer = await super().parse_response(connection, command_name, **options)
        if self.answers_after:
            await asyncio.sleep(self.answers_after)
        return answer

    def pipeline(self, *args: Any, **options: Any) -> NoReturn:
        """Raises ValueError: what a pipeline sends would not be prefixed."""
        raise _refused("a pipeline")

    def pubsub(self, **options: Any) -> NoReturn:
        """Raises ValueError: channels would not be prefixed."""
        raise _refused("a subscription")

    def monitor(self) -> NoReturn:
        """Raises ValueError: it would show what others send."""
        raise _refused("MONITOR")

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Delete the client's keys and close its connections; closing again does nothing.

        A client that was given its prefix leaves the keys to the one that made it.
        """
        if _open.get(self._name) is self:
            del _open[self._name]
        if self._owns_keys:
            self._owns_keys = False
            await delete_keys(super().execute_command, f"{self.prefix}*")
        await super().aclose(close_connection_pool)

    async def _opened(self) -> Self:
        before = _open.get(self._name)
        if before is not None and before is not self:
            await before.aclose()
        try:
            await super().execute_command("PING")
        except (redis.exceptions.RedisError, OSError) as error:
            self._owns_keys = False
            await super().aclose()
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise RedisUnavailable(self._address, reason) from None
        _open[self._name] = self
        return self

    def _prefixed(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        name, *rest = args
        if name in _KEYLESS:
            return args
        if name in _FIRST_IS_KEY and rest:
            return (name, self._key(rest[0]), *rest[1:])
        if name in _ALL_ARE_KEYS:
            return (name, *map(self._key, rest))
        if name in _SCRIPTS and len(rest) >= 2:
            script, count, *words = rest
            keys = int(count)
            return (name, script, count, *map(self._key, words[:keys]), *words[keys:])
        raise _refused(str(name))

    def _key(self, key: Any) -> Any:
        if isinstance(key, bytes):
            return self.prefix.encode() + key
        return f"{self.prefix}{key}"


_open: dict[str, CourseRedis] = {}


def open_redis(
    url: str | None = None,
    *,
    prefix: str | None = None,
    name: str = "redis",
    answers_after: float = 0.0,
) -> CourseRedis:
    """Open Redis: `redis = await open_redis()`, or `async with open_redis() as redis:`.

    The client sees no keys but its own, and finds none at first. It fails at once, without
    retries, when its server is lost. Opening again under the same `name` first closes the client
    that was open before, so a cell that opens one can run twice. One opened by `await` stays open
    until `await redis.aclose()`.

    Args:
        url: the server's address; unless given, what REDIS_URL says, and without that a fake
            embedded in this process, empty and alone.
        prefix: that of another client, whose keys this one is to share; it closes and deletes
            nothing that is the other's.
        name: what the client is known by in this process.
        answers_after: how long each answer is on its way back, in seconds, as from a server that is
            far away: the command has been carried out by then.

    Raises (when awaited or entered):
        RedisUnavailable: the address is none, or no Redis answers there that lets us in.
    Raises at once:
        ValueError: `prefix` is empty or holds more than letters, digits, ``:``, ``_`` and ``-``,
            or `answers_after` is below 0.
    """
    if prefix is not None and not re.fullmatch(r"[\w:-]+", prefix):
        raise ValueError(f"prefix={prefix!r}: must be letters, digits, ':', '_' and '-'")
    if not answers_after >= 0:
        raise ValueError(f"answers_after={answers_after!r}: must be 0 or more, in seconds")
    address = redis_url() if url is None else url
    return CourseRedis(address, prefix=prefix, name=name, answers_after=answers_after)


async def delete_keys(send: Callable[..., Awaitable[Any]], pattern: str) -> None:
    """Delete all keys that match ``pattern``; those of a server that is lost stay.

    ``send`` sends a command and returns its reply, as a redis-py client's ``execute_command`` does.
    """
    cursor: Any = None
    with contextlib.suppress(redis.exceptions.RedisError, OSError):
        while cursor != 0:
            cursor, keys = await send("SCAN", cursor or 0, "MATCH", pattern, "COUNT", 500)
            if keys:
                await send("DEL", *keys)


def redis_url() -> str:
    """Return the address that REDIS_URL holds; empty where it is not set."""
    return os.environ.get(URL_VARIABLE, "").strip()


@contextlib.asynccontextmanager
async def serve_redis() -> AsyncGenerator[str]:
    """Yield the address of a Redis that other processes can reach too.

    Where REDIS_URL is set, that is the address. Otherwise a fake of its own is served on a free
    loopback port by a thread, until the block ends.
    """
    if address := redis_url():
        yield address
        return
    from fakeredis import TcpFakeServer

    server = TcpFakeServer(("127.0.0.1", 0))
    server.RequestHandlerClass = _noticing(server.RequestHandlerClass)
    host, port = server.server_address[:2]
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="served fake Redis"
    )
    thread.start()
    try:
        yield f"redis://{host!s}:{port}/0"
    finally:
        await asyncio.to_thread(_stop, server, thread)


def _noticing(handler: Any) -> Any:
    """Return fakeredis's handler, whose blocking commands end when their client has gone.

    By itself one goes on, and so takes a job for nobody.
    """

    class Noticing(handler):
        def setup(self) -> None:
            super().setup()
            client = self.current_client.get_socket()
            wait = client._blocking

            def wait_for_a_client(seconds: float | None, look: Any, *more: Any) -> Any:
                def look_for_it(first: bool) -> Any:
                    if not first and self._client_has_gone():
                        raise ConnectionResetError
                    return look(first)

                return wait(seconds, look_for_it, *more)

            client._blocking = wait_for_a_client

        def _client_has_gone(self) -> bool:
            readable, _, _ = select.select([self.connection], [], [], 0)
            try:
                return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
            except ConnectionError:
                return True

    return Noticing


def _stop(server: Any, thread: threading.Thread) -> None:
    server.shutdown()
    thread.join()
    server.server_close()


def _pool(address: str) -> ConnectionPool:
    if not address:
        from fakeredis import FakeAsyncRedis, FakeServer

        return FakeAsyncRedis(server=FakeServer()).connection_pool
    try:
        return ConnectionPool.from_url(
            address,
            socket_connect_timeout=CONNECT_WITHIN,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise RedisUnavailable(address, " ".join(str(error).split()).rstrip(".")) from None


def _without_password(url: str) -> str:
    return re.sub(r"//[^/]*@", "//…@", url)


async def _refuse() -> NoReturn:
    raise redis.exceptions.ConnectionError("the server is away")


def _refused(what: str) -> ValueError:
    return ValueError(
        f"{what} would not keep to the course's own keys: open a redis.asyncio.Redis for it"
    )
