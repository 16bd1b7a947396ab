"""The exercise of lesson 09: a record that tells the truth, and a lock renewed while work runs.

The lock is judged on the embedded fake, also where REDIS_URL is set, by what stands under its key.
Any way of holding it will do; who holds a lock of another name holds none.
"""

import asyncio
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from support.exercises.checking import check, require_function
from support.exercises.error_text import leaves
from support.exercises.sandbox import Ran, Sandbox, blame
from support.exercises.verdicts import Exercise, Mistake, Verdict, wrong
from support.lab.silent_failures import let_go
from support.lab.units import ms
from support.shop.redis import CourseRedis, open_redis

WORK = 20  # milliseconds that a recorded block takes
LEASE = 150  # milliseconds, where it is to end before the work does
LONG_LEASE = 3_000  # milliseconds, where it is not
LEASES = 2.9  # how long the work under the lock takes, in leases
PATIENCE = 6  # how long a block goes on without its lock before it counts as never stopped
ROUNDS = 4  # tries on a machine that stood still; each has twice the lease
LOOKS = 15  # a lease; how often the check looks at the lock
GROWN = 3  # leases that a lock may have left at most
ENDLESS = 12  # renewals outside the block after which nothing but renewing goes on

OPERATION = "pack order 7"
LOCK = "order:7"
ANOTHERS = b"another's token"
EXAMPLE = "check_locks(record_operation, renewed_lock)"
RENEWING = ("SET", "EVAL", "EVALSHA", "EXPIRE", "PEXPIRE")

EXERCISE = Exercise(
    lesson="09",
    check="check_locks",
    stub="says-completed",
    task="Record how a block ended, truthfully; hold a lock for as long as a block works.",
    usual_wrong_prediction=(
        "That twenty workers under a lock take about as long as without one: the lock undoes the "
        "overlap, so they take twenty times as long as one."
    ),
    mistakes=(
        Mistake(
            "says-completed",
            "leaves the record as it is: finally says completed either way",
            "A block that failed is recorded as completed. finally runs either way: note the "
            "outcome before it, where you know it.",
        ),
        Mistake(
            "not-recorded",
            "appends behind the yield, or in except Exception only, so that some ends leave none",
            "A block ended and left no record. Append in finally, which runs however it ended.",
        ),
        Mistake(
            "cancelled-mislabelled",
            "starts from completed and catches Exception, or catches BaseException as a failure",
            "A cancelled block is recorded as something else. CancelledError is a BaseException "
            "and no Exception, so it needs an except of its own.",
        ),
        Mistake(
            "swallows",
            "catches what the block raises and does not raise it again",
            "What the block raised did not come out of it: whoever called goes on as if all had "
            "gone well. Raise it again.",
        ),
        Mistake(
            "wrong-record",
            "appends twice, or something else than (name, outcome, seconds)",
            "The record is not (name, outcome, seconds), once for each block.",
        ),
        Mistake(
            "not-a-manager",
            "forgets @asynccontextmanager, or returns something else",
            "async with cannot enter it: put @asynccontextmanager above a function that yields "
            "once.",
        ),
        Mistake(
            "not-locked",
            "takes no lock, or one of another name",
            "While the block works, nothing stands under the lock's name in Redis: take the lock "
            "called name before you yield.",
        ),
        Mistake(
            "never-renews",
            "leaves the lock as it is: it ends after one lease",
            "The record is right. The lock is gone while the block still works: it was never "
            "renewed. Run renew(lock) in a task beside the block.",
        ),
        Mistake(
            "renews-too-late",
            "renews once, or once a lease, which is when the lease is over",
            "The lock was renewed, and still it ended while the block worked. Renew well before "
            "the lease is over, a third of it say, and again and again.",
        ),
        Mistake(
            "lease-too-long",
            "takes a long lease or none, or adds to it with extend at each turn",
            "The lock has much more time left than a lease: if its holder died, everybody else "
            "would wait that long. Take timeout=lease, and start it anew instead of adding to it.",
        ),
        Mistake(
            "waits-for-renewing",
            "awaits renew before the yield, or leaves a TaskGroup without cancelling it",
            "renew goes on until it is cancelled, and your code waits for it to end: let it run in "
            "a task beside the block, and cancel that task when the block has ended.",
        ),
        Mistake(
            "keeps-renewing",
            "does not cancel the renewing task, or only where the block has ended well",
            "The block has ended, and a task still renews the lock: cancel it, however the block "
            "ended.",
        ),
        Mistake(
            "not-released",
            "releases behind the yield without finally, or not at all",
            "The block has ended, and the lock is still there: give it back, however it ended.",
        ),
        Mistake(
            "works-on",
            "renews in a task whose failure nobody looks at",
            "The lock became another's, and the block worked on without it: a task that fails "
            "stops nobody by itself. A TaskGroup cancels its block when one of its tasks fails.",
        ),
        Mistake(
            "loss-untold",
            "stops the block when the lock is lost, and raises nothing",
            "The lock became another's and the block was stopped, but nothing was raised: whoever "
            "called believes that the work is done. Let the error out.",
        ),
        Mistake(
            "opens-anothers",
            "deletes the key without comparing the token, or sets it again",
            "The lock had become another's, and it was taken from them. Compare the token first, "
            "as redis-py's Lock does.",
        ),
    ),
)


class _Failure(Exception):
    """What a block raises that is to fail."""


async def check_locks(
    record_operation: Any, renewed_lock: Any, *, limit: float | None = None
) -> Verdict:
    """Check both context managers of lesson 09, show one line, and return the verdict.

    ``async with record_operation(name, records):`` passes if it appends one ``(name, outcome,
    seconds)`` to ``records`` whether its block completes, fails or is cancelled, and lets out what
    was raised. ``async with renewed_lock(redis, name, lease):`` passes if

    - the key ``name`` holds one and the same token for as long as the block works, which is several
      leases of ``lease`` seconds, and never has much more than a lease left;
    - the block is cancelled and an error comes out when the key becomes another's, whose lock is
      left alone;
    - the lock is free and no task left when the block has completed, failed or been cancelled.

    ``limit`` is how long both may take in all, in seconds; 15 unless given. An endless loop that
    never awaits cannot be stopped: restart the kernel.
    """
    judge = functools.partial(_judge, record=record_operation, renewed=renewed_lock)
    return await check(judge, limit=limit)


async def _judge(sandbox: Sandbox, *, record: Any, renewed: Any) -> str:
    record, renewed = (require_function(one, example=EXAMPLE) for one in (record, renewed))
    await _judge_record(sandbox, record)
    async with open_redis("", name="exercise 09") as redis:
        try:
            await _judge_lock(sandbox, redis, renewed)
        finally:
            await sandbox.stop()
    return (
        "Three ends, three records. The lock outlives its lease while the block works, stops it "
        "when it is lost, and is free in the end."
    )


# ---------------------------------------------------------------- how a block ends


@dataclass(slots=True)
class _Block:
    """One block that ran inside a learner's context manager, and how it ended.

    ``came_out`` is what the context manager raised; a CancelledError where it was cancelled.
    """

    entered: bool = False
    came_out: BaseException | None = None


def _entered(manager: Any) -> Any:
    if not (hasattr(manager, "__aenter__") and hasattr(manager, "__aexit__")):
        if asyncio.iscoroutine(manager):
            manager.close()
        raise EXERCISE.wrong("not-a-manager", f"it returned {type(manager).__name__}")
    return manager


async def _run(sandbox: Sandbox, make: Callable[[], Any], end: str) -> tuple[_Block, Ran[Any]]:
    """Run a block that ends as ``end`` says inside the context manager that ``make`` returns."""
    block = _Block()
    working = asyncio.Event()

    async def works() -> None:
        async with _entered(make()):
            block.entered = True
            working.set()
            await asyncio.sleep(ms(WORK))
            if end == "failed":
                raise _Failure("the block fails")
            if end == "cancelled":
                await asyncio.Event().wait()

    async def ends() -> None:
        task = asyncio.create_task(works(), name="the block")
        if end == "cancelled":
            entering = asyncio.create_task(working.wait())
            await asyncio.wait({task, entering}, return_when=asyncio.FIRST_COMPLETED)
            entering.cancel()
            if block.entered:
                await asyncio.sleep(ms(WORK))
            task.cancel()
        await asyncio.wait({task})
        if task.cancelled():
            block.came_out = asyncio.CancelledError()
        else:
            block.came_out = task.exception()

    ran = await sandbox.run(ends)
    if ran.error is not None:
        raise blame(ran.error)
    if block.came_out is not None and (not block.entered or not _is_expected(block.came_out, end)):
        raise blame(block.came_out)
    return block, ran


def _is_expected(error: BaseException, end: str) -> bool:
    """Return whether ``error`` is what the block raised, alone or in groups."""
    kind = {"failed": _Failure, "cancelled": asyncio.CancelledError}.get(end)
    return kind is not None and all(isinstance(leaf, kind) for leaf in leaves(error))


# ---------------------------------------------------------------- the record


async def _judge_record(sandbox: Sandbox, record: Callable[..., Any]) -> None:
    for end in ("completed", "failed", "cancelled"):
        records: list[Any] = []
        began = asyncio.get_running_loop().time()
        block, ran = await _run(sandbox, functools.partial(record, OPERATION, records), end)
        took = asyncio.get_running_loop().time() - began
        if ran.left:
            raise wrong("left-running", ", ".join(ran.left))
        if end != "completed" and block.came_out is None:
            raise EXERCISE.wrong("swallows", f"from a block that {_has(end)}")
        if not records:
            raise EXERCISE.wrong("not-recorded", f"one that {_has(end)}")
        _judge_entry(records, end, took)


def _judge_entry(records: list[Any], end: str, took: float) -> None:
    entry, *more = records
    if more:
        raise EXERCISE.wrong("wrong-record", f"{len(records)} records of one block")
    if not (isinstance(entry, tuple | list) and len(entry) == 3):
        raise EXERCISE.wrong("wrong-record", f"it is {entry!r}")
    name, outcome, seconds = entry
    if outcome != end:
        if end == "failed" and outcome == "completed":
            raise EXERCISE.wrong("says-completed")
        if end == "cancelled" and outcome in ("completed", "failed"):
            raise EXERCISE.wrong("cancelled-mislabelled", f"as {outcome!r}")
        raise EXERCISE.wrong("wrong-record", f"one that {_has(end)} says {outcome!r}")
    if name != OPERATION:
        raise EXERCISE.wrong("wrong-record", f"its name is {name!r}")
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    # a timer of the loop may fire a moment early
    if not (number and 0.9 * ms(WORK) <= seconds <= took + 0.01):
        raise EXERCISE.wrong("wrong-record", f"its seconds are {seconds!r} of {took:.3f}")


def _has(end: str) -> str:
    return {"completed": "has completed", "failed": "has failed"}.get(end, "was cancelled")


# ---------------------------------------------------------------- the lock


async def _judge_lock(sandbox: Sandbox, redis: CourseRedis, renewed: Callable[..., Any]) -> None:
    lease = ms(LEASE)
    for left in reversed(range(ROUNDS)):
        if await _judge_renewal(sandbox, redis, renewed, lease, last=not left):
            break
        lease *= 2
    await _judge_loss(sandbox, redis, renewed, ms(LEASE))
    for end in ("failed", "cancelled"):
        make = functools.partial(renewed, redis, LOCK, ms(LONG_LEASE))
        block, ran = await _run(sandbox, make, end)
        if block.came_out is None:
            raise EXERCISE.wrong("swallows", f"from a block under the lock that {_has(end)}")
        await _judge_end(redis, ran, f"after a block that {_has(end)}")


@dataclass(slots=True)
class _Watch:
    """What the check saw of the lock from inside the block."""

    code: asyncio.Task[Any] | None = None  # the learner's
    inside: bool = False  # whether the block works
    endless: bool = False  # whether it was stopped because it did nothing but renew
    token: bytes | str | None = None
    held: bool = False
    stood_still: float = 0.0  # the longest time between two looks, in seconds
    longest_lease: float = 0.0  # that the lock had left, in seconds
    renewals: int = 0  # commands that may have renewed it


async def _judge_renewal(
    sandbox: Sandbox, redis: CourseRedis, renewed: Callable[..., Any], lease: float, *, last: bool
) -> bool:
    """Return whether the lock held; False asks for another round: the machine stood still."""
    watch, clock = _Watch(), asyncio.get_running_loop().time
    ended = clock()

    async def works() -> None:
        nonlocal ended
        watch.code = asyncio.current_task()
        async with _entered(renewed(redis, LOCK, lease)):
            watch.inside = True
            watch.token = await redis.get(LOCK)
            before = _renewals(redis)
            try:
                await _look_on(redis, lease, watch)
            finally:
                watch.renewals = _renewals(redis) - before
                watch.inside = False
                ended = clock()

    stopping = asyncio.create_task(_stop_if_endless(redis, lease, watch))
    try:
        ran = await sandbox.run(works)
    finally:
        stopping.cancel()
        await asyncio.wait({stopping})
    watch.stood_still = max(watch.stood_still, clock() - ended)
    again = watch.stood_still > lease / 2 and not last
    if watch.endless:
        if ran.error is not None:
            let_go(ran.error)
        raise EXERCISE.wrong("waits-for-renewing")
    if not watch.held:
        await redis.delete(LOCK)
        if watch.token is None:
            raise blame(ran.error) if ran.error is not None else EXERCISE.wrong("not-locked")
        if not watch.renewals:
            raise EXERCISE.wrong("never-renews")
        if again:
            return False
        raise EXERCISE.wrong("renews-too-late")
    if watch.longest_lease > GROWN * lease:
        left = "no end" if watch.longest_lease == math.inf else f"{watch.longest_lease:.2g} s"
        raise EXERCISE.wrong("lease-too-long", f"{left}, the lease being {lease:.2g} s")
    if ran.error is not None:
        if again:
            let_go(ran.error)
            await redis.delete(LOCK)
            return False
        raise blame(ran.error)
    await _judge_end(redis, ran, "after a block that has completed")
    return True


def _renewals(redis: CourseRedis) -> int:
    """Return how many commands were sent that may have renewed a lock."""
    return sum(redis.sent[name] for name in RENEWING)


async def _stop_if_endless(redis: CourseRedis, lease: float, watch: _Watch) -> None:
    """Cancel the learner's code when it renews again and again while no block works."""
    outside, before = 0, _renewals(redis)
    while outside < ENDLESS:
        await asyncio.sleep(lease / LOOKS)
        now = _renewals(redis)
        outside, before = (0 if watch.inside else outside + now - before), now
    watch.endless = True
    if watch.code is not None:
        watch.code.cancel()


async def _look_on(redis: CourseRedis, lease: float, watch: _Watch) -> None:
    """Look at the lock until the work is done or the lock is no longer what it was."""
    clock = asyncio.get_running_loop().time
    looked = clock()
    end = looked + LEASES * lease
    while looked < end:
        if watch.token is None or await redis.get(LOCK) != watch.token:
            return
        left = await redis.pttl(LOCK)
        watch.longest_lease = max(watch.longest_lease, math.inf if left == -1 else left / 1000)
        await asyncio.sleep(lease / LOOKS)
        watch.stood_still = max(watch.stood_still, clock() - looked)
        looked = clock()
    watch.held = await redis.get(LOCK) == watch.token


async def _judge_loss(
    sandbox: Sandbox, redis: CourseRedis, renewed: Callable[..., Any], lease: float
) -> None:
    """Give the lock to another while the block works."""
    stopped = False

    async def works() -> None:
        nonlocal stopped
        async with _entered(renewed(redis, LOCK, lease)):
            await redis.set(LOCK, ANOTHERS, px=60_000)
            try:
                await asyncio.sleep(PATIENCE * lease)
            except asyncio.CancelledError:
                stopped = True
                raise

    ran = await sandbox.run(works)
    kept = await redis.get(LOCK) == ANOTHERS
    await redis.delete(LOCK)
    if not stopped:
        raise EXERCISE.wrong("works-on")
    if not kept:
        raise EXERCISE.wrong("opens-anothers")
    if ran.left:
        raise EXERCISE.wrong("keeps-renewing", "after a lock that was lost")
    if ran.error is None:
        raise EXERCISE.wrong("loss-untold")
    if all(isinstance(leaf, asyncio.CancelledError) for leaf in leaves(ran.error)):
        raise blame(ran.error)
    let_go(ran.error)


async def _judge_end(redis: CourseRedis, ran: Ran[Any], when: str) -> None:
    if ran.left:
        raise EXERCISE.wrong("keeps-renewing", when)
    if await redis.get(LOCK) is not None:
        raise EXERCISE.wrong("not-released", when)
