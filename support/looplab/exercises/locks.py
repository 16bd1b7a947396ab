"""The exercise of lesson 09: a lock renewed while work runs.

The lock is judged on the embedded fake, also where REDIS_URL is set, by what stands under its key.
Any way of holding it will do; a lock of another name is none. The check's client suspends at each
command, and can keep an answer back, fall silent or refuse, which no real server does when asked.
"""

import asyncio
import contextlib
import contextvars
import functools
import math
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

import redis.exceptions
from fastapi import HTTPException

from looplab.exercises.checking import check, require_function
from looplab.exercises.error_text import leaves, tell
from looplab.exercises.sandbox import Ran, Sandbox, blame
from looplab.exercises.verdicts import Exercise, Mistake, Verdict, wrong
from looplab.lab.silent_failures import let_go
from looplab.lab.units import ms
from looplab.shop.redis import CourseRedis

WORK = 20  # milliseconds that a block takes
LEASE = 150  # milliseconds, where it is to end before the work does
LONG_LEASE = 3_000  # milliseconds, where it is not
LEASES = 2.9  # how long the work under the lock takes, in leases
PATIENCE = 6  # leases that a block goes on without its lock before it counts as never stopped
ROUNDS = 4  # tries on a machine that stood still; each has twice the lease
BLAMES = 3  # tries with a Redis that is silent; each has twice the lease
LOOKS = 15  # a lease; how often the check looks at the lock
MOST = 1.1  # leases that a lock may have left
LEAST = 0.7  # leases that it must have had left at some time
RIVALS = 1.5  # leases for which another worker holds the lock
ENDLESS = 12  # renewals outside the block after which nothing but renewing goes on
TURNS = 5  # of the loop, in which a cancellation arrives
GONE_WITHIN = 1_000  # milliseconds that a cancelled caller's lock gets to go
SHORTEST_TOKEN = 8  # characters; a number that is counted up is shorter

LOCK, OTHER_LOCK = "order:7", "order:8"
ANOTHERS = b"another's token"
EXAMPLE = "check_locks(renewed_lock)"
RENEWING = ("SET", "EVAL", "EVALSHA", "EXPIRE", "PEXPIRE")

EXERCISE = Exercise(
    lesson="09",
    check="check_locks",
    stub="never-renews",
    task="Hold a lock for as long as a block works, however short its lease is.",
    usual_wrong_prediction=(
        "That most of the twenty payments are booked, because two workers rarely meet. All twenty "
        "read 0, so all of them write 1."
    ),
    mistakes=(
        Mistake(
            "not-a-manager",
            "forgets @asynccontextmanager, or returns something else",
            "async with can't enter it. Put @asynccontextmanager above a function that yields "
            "once.",
        ),
        Mistake(
            "not-locked",
            "takes no lock, or one of another name",
            "While the block works, there is nothing under the lock's name in Redis. Take the lock "
            "called name before you yield.",
        ),
        Mistake(
            "takes-anothers",
            "writes the key without NX, deletes it first, or enters though acquire said no",
            "Another worker held the lock, and your block worked at the same time. Write the key "
            "only if it is free, in one command, SET with NX. If it isn't free, wait or raise. "
            "redis-py's Lock does all that.",
        ),
        Mistake(
            "same-token",
            "uses a constant, the lock's name, a process id or a counter as the token",
            "Two holders had the same token, or one that another process can have too. A worker "
            "that comes late could then release the next worker's lock. Make a new token each "
            "time, such as uuid4().hex.",
        ),
        Mistake(
            "never-renews",
            "leaves the lock as it is: it ends after one lease",
            "The lease ended while the block was still at work, because nothing renewed it. Run "
            "renew(lock) in a task beside the block.",
        ),
        Mistake(
            "renews-too-late",
            "renews once, or once a lease, which is when the lease is over",
            "The lock was renewed, and still it ended while the block worked. Renew it again and "
            "again, and well before the lease is over: every third of it, for example.",
        ),
        Mistake(
            "lease-too-long",
            "takes a long lease or none, or adds to it with extend at each turn",
            "The lock has more time left than one lease. If its holder died now, all other workers "
            "would wait that long. Take timeout=lease, and start it anew instead of adding to it.",
        ),
        Mistake(
            "lease-too-short",
            "takes a part of the lease, or a number of its own",
            "The lock never has a whole lease left. The lease was chosen to survive a pause of the "
            "process, and a shorter one doesn't. Take timeout=lease, also when you renew.",
        ),
        Mistake(
            "waits-for-renewing",
            "awaits renew before the yield, or leaves a TaskGroup without cancelling it",
            "renew goes on until it is cancelled, and your code waits for it to end. Let it run in "
            "a task beside the block, and cancel that task when the block has ended.",
        ),
        Mistake(
            "keeps-renewing",
            "does not cancel the renewing task, or only where the block has ended well",
            "The block has ended, and a task still renews the lock. Cancel it, however the block "
            "ended.",
        ),
        Mistake(
            "not-released",
            "releases behind the yield without finally, or not at all",
            "The block has ended, and the lock is still there. Release it, however the block "
            "ended.",
        ),
        Mistake(
            "swallows",
            "catches what the block raises and does not raise it again",
            "What the block raised did not come out as it was. The caller goes on as if all had "
            "gone well, or takes one failure for another. Raise it again.",
        ),
        Mistake(
            "wrapped",
            "lets a TaskGroup's ExceptionGroup out",
            "One error was raised, by the block or by renew, and your TaskGroup let it out in an "
            "ExceptionGroup. FastAPI answers an HTTPException in a group with 500, and no except "
            "of the caller matches. Catch the group, and raise the error that is in it.",
        ),
        Mistake(
            "works-on",
            "renews in a task whose failure nobody looks at",
            "The lock was lost, and the block worked on without it. A task that fails stops nobody "
            "by itself. A TaskGroup cancels its block when one of its tasks fails.",
        ),
        Mistake(
            "works-on-unheard",
            "waits for Redis without a deadline, or tries again and again",
            "Redis did not answer, the lease ended, and the block worked on. By then anybody could "
            "take the lock. Put asyncio.timeout(lease / 3) around each renewal, and let its error "
            "stop the block before the lease is over. renew(lock) does so.",
        ),
        Mistake(
            "loss-untold",
            "stops the block when the lock is lost, and raises nothing",
            "The lock was lost and the block was stopped, but nothing was raised. The caller "
            "believes that the work is done. Let the error out.",
        ),
        Mistake(
            "opens-anothers",
            "deletes the key without comparing the token, or sets it again",
            "Another worker held the lock, and your code took it away. Compare the token before "
            "you delete the key, as redis-py's Lock does.",
        ),
        Mistake(
            "left-locked",
            "is cancelled while it waits for Redis, and has no token yet or lets go of the release",
            "The caller was cancelled while Redis answered, and the key stayed, though no worker "
            "holds it. All others wait until its lease ends. Take the lock with taken(redis, name, "
            "lease). If you write it yourself, choose the token before you ask, and release by it "
            "in a shielded task.",
        ),
    ),
)


class _Failure(Exception):
    """What a block raises that is to fail, of no kind that anybody expects."""


# What blocks raise that are to fail: catching one kind only is not enough.
FAILURES: tuple[Callable[[], Exception], ...] = (
    lambda: _Failure("the block fails"),
    lambda: ValueError("no such amount"),
    lambda: LookupError("no such order"),
    lambda: TimeoutError("the partner is late"),
    lambda: ConnectionError("the partner is away"),
    lambda: HTTPException(409, "already packed"),
    lambda: redis.exceptions.LockError("the lock of something else"),
)


async def check_locks(renewed_lock: Any, *, limit: float | None = None) -> Verdict:
    """Check the context manager of lesson 09, show one line, and return the verdict.

    It may be a function or a class; what a call returns is entered by ``async with``.
    ``async with renewed_lock(redis, name, lease):`` passes if

    - it never works while another holds the key ``name``: it waits, or raises;
    - the key holds one token, new for each block, for as long as the block works, which is several
      leases of ``lease`` seconds, and never has more than a lease left;
    - the block is cancelled and an error comes out when the key becomes another's, whose lock is
      left alone, when it vanishes, and when Redis gives no answer for as long as the lease;
    - the lock is free and no task left when the block has completed, failed or been cancelled, also
      inside acquire and release, and what the block raised comes out as it is, in no group.

    ``limit`` is how long it may take in all, in seconds; 15 unless given. An endless loop that
    never awaits cannot be stopped: restart the kernel.
    """
    judge = functools.partial(_judge, renewed=renewed_lock)
    return await check(judge, limit=limit)


async def _judge(sandbox: Sandbox, *, renewed: Any) -> str:
    renewed = _require_maker(renewed)
    async with _Redis() as redis:
        try:
            await _judge_lock(_Stage(sandbox, redis, renewed))
        finally:
            redis.answer()
            await sandbox.stop()
    return (
        "The lock outlives its lease while the block works. When it is lost, the block is stopped "
        "and the caller hears of it. In the end the lock is free."
    )


def _require_maker(given: Any) -> Callable[..., Any]:
    """Return what makes context managers: a function, or a class that is one."""
    if isinstance(given, type):
        if not _is_manager(given):
            raise wrong("wrong-type", f"{given.__name__} has no __aenter__ and __aexit__")
        return given
    if _is_manager(given):
        raise wrong("called-instead-of-passed", f"write {EXAMPLE}")
    return require_function(given, example=EXAMPLE)


def _is_manager(given: object) -> bool:
    return hasattr(given, "__aenter__") and hasattr(given, "__aexit__")


# ---------------------------------------------------------------- how a block ends


@dataclass(slots=True)
class _Block:
    """One block that ran inside a learner's context manager, and how it ended.

    ``came_out`` is what the context manager raised; a CancelledError where it was cancelled.
    """

    entered: bool = False
    came_out: BaseException | None = None


Look = Callable[[], Any]
Make = Callable[[], Any]


def _entered(manager: Any) -> Any:
    if not _is_manager(manager):
        if asyncio.iscoroutine(manager):
            manager.close()
        raise EXERCISE.wrong("not-a-manager", f"it returned {type(manager).__name__}")
    return manager


async def _run(sandbox: Sandbox, make: Make, *, failure: Exception | None, look: Look) -> Ran[Any]:
    """Run a block that raises ``failure`` in the context manager that ``make`` returns.

    A block without a failure is cancelled. Raises Wrong unless what came out is what the block
    raised.
    """
    block = _Block()
    working = asyncio.Event()

    async def works() -> None:
        async with _entered(make()):
            block.entered = True
            await look()
            working.set()
            await asyncio.sleep(ms(WORK))
            if failure is not None:
                raise failure
            await asyncio.Event().wait()

    async def ends() -> None:
        task = asyncio.create_task(works(), name="the block")
        if failure is None:
            entering = asyncio.create_task(working.wait())
            await asyncio.wait({task, entering}, return_when=asyncio.FIRST_COMPLETED)
            entering.cancel()
            if block.entered:
                await asyncio.sleep(ms(WORK))
            task.cancel()
        await asyncio.wait({task})
        block.came_out = _error_of(task)

    ran = await sandbox.run(ends)
    if ran.error is not None:
        raise blame(ran.error)
    _judge_outcome(block, failure)
    return ran


def _judge_outcome(block: _Block, failure: Exception | None) -> None:
    """Require that what the block raised came out, as it was."""
    came_out = block.came_out
    if came_out is not None and not block.entered:
        raise blame(came_out)
    raised = "CancelledError" if failure is None else type(failure).__name__
    if came_out is None:
        if not block.entered:
            raise wrong("never-ends", "the block was never entered")
        raise EXERCISE.wrong("swallows", f"it raised {raised}, and nothing came out")
    as_it_was = came_out is failure or (failure is None and _is_cancelled(came_out))
    if as_it_was and not isinstance(came_out, BaseExceptionGroup):
        return
    inside = list(leaves(came_out))
    told = tell(came_out)
    let_go(came_out)
    if isinstance(came_out, BaseExceptionGroup) and all(
        leaf is failure or (failure is None and _is_cancelled(leaf)) for leaf in inside
    ):
        raise EXERCISE.wrong("wrapped", f"it raised {raised}")
    raise EXERCISE.wrong("swallows", f"it raised {raised}, and out came {told}")


def _is_cancelled(error: BaseException) -> bool:
    return isinstance(error, asyncio.CancelledError)


def _has(failure: Exception | None) -> str:
    return "was cancelled" if failure is None else f"has failed with {type(failure).__name__}"


# ---------------------------------------------------------------- the lock


class _Redis(CourseRedis):
    """The embedded fake as the learner's code meets it. Each command suspends.

    ``before`` and ``after`` are awaited around every command of the learner's; the check itself
    asks by :meth:`look`, which nothing holds up.
    """

    def __init__(self) -> None:
        super().__init__("", prefix=None, name="exercise 09")
        self.before: Look | None = None
        self.after: Look | None = None

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        await asyncio.sleep(0)
        if self.before is not None:
            await self.before()
        reply = await super().execute_command(*args, **options)
        await asyncio.sleep(0)
        if self.after is not None:
            await self.after()
        return reply

    async def look(self, *command: Any) -> Any:
        """Send a command of the check's own, and return the reply.

        It runs in a task of its own, and not the learner's: the wait_for of Python 3.11, in
        redis-py, may lose a cancellation that arrives with the reply.
        """
        asking = super().execute_command(*command)
        return await asyncio.shield(asyncio.create_task(asking, context=contextvars.Context()))

    def answer(self) -> None:
        """Answer again as a Redis does."""
        self.before = self.after = None


@dataclass
class _Stage:
    """Where scenes with the learner's lock are played."""

    sandbox: Sandbox
    redis: _Redis
    renewed: Callable[..., Any]
    tokens: list[bytes] = field(default_factory=list)

    async def holder(self, name: str = LOCK) -> bytes | None:
        """Return what stands under the lock's name."""
        token = await self.redis.look("GET", name)
        return token.encode() if isinstance(token, str) else token

    async def left(self, name: str = LOCK) -> float:
        """Return the seconds that the lock has left; infinity for one without an end."""
        milliseconds = await self.redis.look("PTTL", name)
        return math.inf if milliseconds == -1 else milliseconds / 1000

    async def give(self, name: str = LOCK) -> None:
        """Give the lock to another worker."""
        await self.redis.look("SET", name, ANOTHERS, "PX", 60_000)

    async def clear(self) -> None:
        """Let Redis answer again, and free both locks."""
        self.redis.answer()
        await self.redis.look("DEL", LOCK, OTHER_LOCK)

    def held(self, lease: float, name: str = LOCK) -> Any:
        """Return the learner's context manager."""
        return _entered(self.renewed(self.redis, name, lease))

    @contextlib.asynccontextmanager
    async def scene(self) -> AsyncGenerator[None]:
        """Leave both locks free and Redis answering, however the scene ends."""
        try:
            yield
        finally:
            await self.clear()


async def _judge_lock(stage: _Stage) -> None:
    lease = ms(LEASE)
    for left in reversed(range(ROUNDS)):
        async with stage.scene():
            if await _judge_renewal(stage, lease, last=not left):
                break
        lease *= 2
    for rival in (False, True):
        async with stage.scene():
            await _judge_rivals(stage, ms(LEASE), rival=rival)
    for vanishes in (False, True):
        async with stage.scene():
            await _judge_loss(stage, ms(LEASE), vanishes=vanishes)
    for refuses in (False, True):
        await _judge_silence(stage, refuses=refuses)
    for failure in (*(make() for make in FAILURES), None):
        async with stage.scene():
            await _judge_ends(stage, failure)
    _judge_tokens(stage.tokens)
    for inside in ("acquire", "release"):
        async with stage.scene():
            await _judge_cancelled_inside(stage, inside)


async def _judge_ends(stage: _Stage, failure: Exception | None) -> None:
    """Let a block under the lock raise ``failure``; None has it cancelled."""
    lease, left = ms(LONG_LEASE), []

    async def look() -> None:
        if (token := await stage.holder(OTHER_LOCK)) is None:
            raise EXERCISE.wrong("not-locked", f"its name was {OTHER_LOCK!r} this time")
        stage.tokens.append(token)
        left.append(await stage.left(OTHER_LOCK))

    try:
        make = functools.partial(stage.held, lease, OTHER_LOCK)
        ran = await _run(stage.sandbox, make, failure=failure, look=look)
    finally:
        if failure is not None:
            let_go(failure)
    _judge_lease(left[0], lease)
    await _judge_end(stage, ran, f"after a block that {_has(failure)}", OTHER_LOCK)


def _judge_tokens(tokens: list[bytes]) -> None:
    shortest = min(tokens, key=len)
    if len(set(tokens)) < len(tokens):
        raise EXERCISE.wrong("same-token", f"{tokens[-1]!r:.40}")
    if len(shortest) < SHORTEST_TOKEN:
        raise EXERCISE.wrong("same-token", f"{shortest!r} is short enough to come again")
    stems = [token.rstrip(b"0123456789") for token in tokens]
    if all(stem and stem == stems[0] for stem in stems):
        raise EXERCISE.wrong("same-token", f"{tokens[-1]!r:.40} counts up from 1")


def _judge_lease(left: float, lease: float) -> None:
    """Judge what a lock has left that was taken or renewed this moment."""
    if left > MOST * lease:
        told = "no end" if left == math.inf else f"{left:.2g} s"
        raise EXERCISE.wrong("lease-too-long", f"{told}, the lease being {lease:.2g} s")
    if left < LEAST * lease:
        raise EXERCISE.wrong("lease-too-short", f"{left:.2g} s, the lease being {lease:.2g} s")


@dataclass(slots=True)
class _Watch:
    """What the check saw of the lock from inside the block."""

    code: asyncio.Task[Any] | None = None  # the learner's
    inside: bool = False  # whether the block works
    endless: bool = False  # whether it was stopped because it did nothing but renew
    token: bytes | None = None
    held: bool = False
    stood_still: float = 0.0  # the longest time between two looks, in seconds
    longest_lease: float = 0.0  # that the lock had left, in seconds
    renewals: int = 0  # commands that may have renewed it


async def _judge_renewal(stage: _Stage, lease: float, *, last: bool) -> bool:
    """Return whether the lock held; False asks for another round: the machine stood still."""
    watch, clock = _Watch(), asyncio.get_running_loop().time
    ended = clock()

    async def works() -> None:
        nonlocal ended
        watch.code = asyncio.current_task()
        async with stage.held(lease):
            watch.inside = True
            watch.token = await stage.holder()
            before = _renewals(stage.redis)
            try:
                await _look_on(stage, lease, watch)
            finally:
                watch.renewals = _renewals(stage.redis) - before
                watch.inside = False
                ended = clock()

    stopping = asyncio.create_task(_stop_if_endless(stage.redis, lease, watch))
    try:
        ran = await stage.sandbox.run(works)
    finally:
        stopping.cancel()
        await asyncio.wait({stopping})
    watch.stood_still = max(watch.stood_still, clock() - ended)
    again = watch.stood_still > lease / 2 and not last
    if watch.endless:
        if ran.error is not None:
            let_go(ran.error)
        raise EXERCISE.wrong("waits-for-renewing")
    if watch.longest_lease > MOST * lease:
        _judge_lease(watch.longest_lease, lease)
    if not watch.held:
        if watch.token is None:
            raise blame(ran.error) if ran.error is not None else EXERCISE.wrong("not-locked")
        if not watch.renewals:
            raise EXERCISE.wrong("never-renews")
        if again:
            return False
        raise EXERCISE.wrong("renews-too-late")
    if ran.error is not None:
        if again:
            let_go(ran.error)
            return False
        raise blame(ran.error)
    if watch.longest_lease < LEAST * lease and again:
        return False
    _judge_lease(watch.longest_lease, lease)
    await _judge_end(stage, ran, "after a block that has completed")
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


async def _look_on(stage: _Stage, lease: float, watch: _Watch) -> None:
    """Look at the lock until the work is done or the lock is no longer what it was."""
    clock = asyncio.get_running_loop().time
    looked = clock()
    end = looked + LEASES * lease
    while looked < end:
        if watch.token is None or await stage.holder() != watch.token:
            await asyncio.sleep(lease / 2)  # a renewal that comes too late is counted too
            return
        watch.longest_lease = max(watch.longest_lease, await stage.left())
        await asyncio.sleep(lease / LOOKS)
        watch.stood_still = max(watch.stood_still, clock() - looked)
        looked = clock()
    watch.held = await stage.holder() == watch.token


async def _judge_rivals(stage: _Stage, lease: float, *, rival: bool) -> None:
    """Let two blocks want the lock at once, that is free or, for a while, a third worker's."""
    inside = peak = entered = 0
    early = kept = False
    errors: list[BaseException] = []

    async def works() -> None:
        nonlocal inside, peak, entered, early
        async with stage.held(lease):
            inside, entered = inside + 1, entered + 1
            peak = max(peak, inside)
            early = early or (rival and not kept)
            try:
                await asyncio.sleep(ms(WORK))
            finally:
                inside -= 1

    async def both() -> None:
        nonlocal kept
        tasks = {asyncio.create_task(works(), name="the block") for _ in range(2)}
        if rival:
            await asyncio.wait(tasks, timeout=RIVALS * lease)
            kept = await stage.holder() == ANOTHERS
            await stage.redis.look("DEL", LOCK)
        await asyncio.wait(tasks)
        errors.extend(error for task in tasks if (error := _error_of(task)) is not None)

    if rival:
        await stage.give()
    ran = await stage.sandbox.run(both)
    if early:
        raise EXERCISE.wrong("takes-anothers")
    if peak > 1:
        raise EXERCISE.wrong("takes-anothers", "two of your own blocks, who came at once")
    if rival and not kept:
        raise EXERCISE.wrong("opens-anothers", "by a block that had to wait")
    if ran.error is not None:
        raise blame(ran.error)
    if not entered and not (rival and errors):  # who raises instead of waiting may not come in
        raise blame(errors[0]) if errors else wrong("never-ends", "nobody got the lock")
    for error in errors:
        if not isinstance(error, Exception) or isinstance(error, NotImplementedError):
            raise blame(error)
        let_go(error)
    await _judge_end(stage, ran, "after two blocks that came at once")


def _error_of(task: "asyncio.Task[Any]") -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()


async def _judge_loss(stage: _Stage, lease: float, *, vanishes: bool) -> None:
    """Take the lock away while the block works: it vanishes, or becomes another's."""
    stopped = False
    anew: list[bytes] = []

    async def works() -> None:
        nonlocal stopped
        async with stage.held(lease):
            try:
                await (stage.clear() if vanishes else stage.give())
                for _ in range(PATIENCE * LOOKS):
                    await asyncio.sleep(lease / LOOKS)
                    if vanishes and (token := await stage.holder()) is not None:
                        anew.append(token)
                        return
            except asyncio.CancelledError:
                stopped = True
                raise

    ran = await stage.sandbox.run(works)
    kept = vanishes or await stage.holder() == ANOTHERS
    if anew:
        raise EXERCISE.wrong("works-on", "it had vanished, and was taken anew under the block")
    if not stopped:
        if ran.error is not None and not isinstance(ran.error, Exception):
            raise blame(ran.error)
        raise EXERCISE.wrong("works-on", "it had vanished" if vanishes else "it was another's")
    if not kept:
        raise EXERCISE.wrong("opens-anothers")
    if ran.left:
        raise EXERCISE.wrong("keeps-renewing", "after a lock that was lost")
    _judge_told(ran, "after a lock that was lost")


def _judge_told(ran: Ran[Any], when: str) -> None:
    """Require that an error came out of a block that was stopped, and alone."""
    error = ran.error
    if error is None:
        raise EXERCISE.wrong("loss-untold", when)
    if all(_is_cancelled(leaf) for leaf in leaves(error)):
        raise EXERCISE.wrong("loss-untold", f"{when}: CancelledError says that the caller left")
    if not isinstance(error, Exception) and not isinstance(error, BaseExceptionGroup):
        raise blame(error)
    told = tell(error)
    let_go(error)
    if isinstance(error, BaseExceptionGroup):
        raise EXERCISE.wrong("wrapped", f"{when}: {told}")


async def _judge_silence(stage: _Stage, *, refuses: bool) -> None:
    """Let Redis fall silent, or refuse, while a block works under the lock."""
    lease, outlived = ms(LEASE), False
    for _ in range(BLAMES):
        async with stage.scene():
            outlived = await _works_past_its_lease(stage, lease, refuses=refuses)
        if not outlived:
            return
        lease *= 2  # the machine may have stood still, or the code be slow
    told = "it refused each command" if refuses else "it was silent"
    raise EXERCISE.wrong("works-on-unheard", told)


async def _works_past_its_lease(stage: _Stage, lease: float, *, refuses: bool) -> bool:
    """Return whether the block was still at work when its lock had ended in Redis."""
    outlived = stopped = False

    async def unheard() -> None:
        if refuses:
            raise redis.exceptions.ConnectionError("the connection was closed by the server")
        await asyncio.Event().wait()

    async def works() -> None:
        nonlocal outlived, stopped
        async with stage.held(lease):
            stage.redis.before = unheard
            try:
                await _until_free(stage, None, lease / LOOKS)
                outlived = True
            except asyncio.CancelledError:
                stopped = True
                raise
            finally:
                stage.redis.answer()

    ran = await stage.sandbox.run(works)
    when = "after a Redis that refused" if refuses else "after a silent Redis"
    if stopped:
        if ran.left:
            raise EXERCISE.wrong("keeps-renewing", when)
        _judge_told(ran, when)
    elif ran.error is not None:
        if not outlived or not isinstance(ran.error, Exception):
            raise blame(ran.error)
        let_go(ran.error)
    return outlived


async def _judge_cancelled_inside(stage: _Stage, inside: str) -> None:
    """Cancel the caller while Redis answers: its SET was heard, or its release was not."""
    reached, goes_on, began = asyncio.Event(), asyncio.Event(), False

    async def held_up() -> None:
        if inside == "release" or (not began and await stage.holder() is not None):
            reached.set()
            await goes_on.wait()

    async def works() -> None:
        nonlocal began
        async with stage.held(ms(LONG_LEASE)):
            began = True
            if inside == "release":
                stage.redis.before = held_up

    async def leaves_early() -> None:
        task = asyncio.create_task(works(), name="the block")
        arriving = asyncio.create_task(reached.wait())
        await asyncio.wait({task, arriving}, return_when=asyncio.FIRST_COMPLETED)
        arriving.cancel()
        task.cancel()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        stage.redis.answer()
        goes_on.set()
        await asyncio.wait({task})
        if (error := _error_of(task)) is not None:
            let_go(error)
        await _until_free(stage, ms(GONE_WITHIN), ms(WORK))

    if inside == "acquire":
        stage.redis.after = held_up
    ran = await stage.sandbox.run(leaves_early)
    if ran.error is not None:
        raise blame(ran.error)
    if ran.left:
        raise EXERCISE.wrong("keeps-renewing", f"after a caller who was cancelled in {inside}")
    if await stage.holder() is not None:
        raise EXERCISE.wrong("left-locked", f"in {inside}")


async def _until_free(stage: _Stage, within: float | None, every: float) -> None:
    """Look at the lock until it is free, or until its time to become so is up; in seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            while await stage.holder() is not None:  # noqa: ASYNC110 (a key sets no event)
                await asyncio.sleep(every)


async def _judge_end(stage: _Stage, ran: Ran[Any], when: str, name: str = LOCK) -> None:
    if ran.left:
        raise EXERCISE.wrong("keeps-renewing", when)
    if await stage.holder(name) is not None:
        raise EXERCISE.wrong("not-released", when)
