"""What lesson 09's exercise is given: a lock that a cancelled caller does not leave, and a renewal.

redis-py's own ``async with lock`` loses its token when the caller is cancelled between Redis's SET
and the answer to it, or on the way out: the key then stays until its lease ends, and nobody holds
it. Here the token is chosen first, so that there is always something to give the key back by.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from uuid import uuid4

from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import LockError, RedisError


@contextlib.asynccontextmanager
async def taken(redis: Redis, name: str, lease: float) -> AsyncGenerator[Lock]:
    """Wait for the lock ``name``, hold it for the block, and give it back however the block ends.

    Yields redis-py's Lock, whose lease is ``lease`` seconds. A cancellation that arrives while
    Redis answers ends the wait for the lock or delays the way out, for no longer than a lease; the
    key is given back in both cases.

    Raises LockNotOwnedError at the end of a block that raised nothing, when the lock had ended or
    was another's by then; what the block raises goes before that. Raises ValueError when ``lease``
    is not above 0.
    """
    if not lease > 0:
        raise ValueError(f"lease is {lease!r}; it must be above 0, in seconds")
    lock, token = redis.lock(name, timeout=lease), uuid4().hex
    try:
        await lock.acquire(token=token)
    except BaseException:
        lock.local.token = token.encode()
        await _give_back(lock, lease, quietly=True)
        raise
    try:
        yield lock
    except BaseException:
        await _give_back(lock, lease, quietly=True)
        raise
    await _give_back(lock, lease, quietly=False)


async def _give_back(lock: Lock, lease: float, *, quietly: bool) -> None:
    """Release the lock, whoever cancels meanwhile; without an answer the lease ends it anyway."""

    async def release() -> None:
        with contextlib.suppress(*(LockError, RedisError, TimeoutError) if quietly else ()):
            async with asyncio.timeout(lease):
                await lock.release()

    releasing = asyncio.create_task(release())
    try:
        await asyncio.shield(releasing)
    except asyncio.CancelledError:
        await asyncio.wait({releasing})
        raise


async def renew(lock: Lock) -> None:
    """Start the lease of ``lock`` anew every third of it, until cancelled.

    Raises LockNotOwnedError when the lock is no longer ours, TimeoutError when Redis gives no
    answer for a third of the lease, and what redis-py raises when Redis can't be reached. Raises
    LockError at once for a lock without a lease, or that is not held.
    """
    if lock.timeout is None:
        raise LockError("a lock without a lease can't be renewed")
    task = asyncio.current_task()
    # wait_for of Python 3.11, in redis-py, can lose a cancellation; the count of them stays
    while task is None or not task.cancelling():
        async with asyncio.timeout(lock.timeout / 3):
            await lock.reacquire()
        await asyncio.sleep(lock.timeout / 3)
