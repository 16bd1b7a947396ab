"""The exercise of lesson 18: a test that tells a right service from wrong ones.

The learner writes the test, and the check breaks the service: it runs the test on services that are
right, each in its own way, and on services that are wrong. The test has to pass on the first and to
fail on the second, in time.
"""

import asyncio
import functools
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from fastapi import FastAPI, HTTPException
from httpx import ASGITransport, AsyncClient, Response

from looplab.exercises.checking import check, require_function
from looplab.exercises.error_text import leaves
from looplab.exercises.sandbox import Sandbox, blame, require_awaitable
from looplab.exercises.verdicts import Exercise, Mistake, Verdict
from looplab.lab.silent_failures import let_go
from looplab.lab.units import ms

CODES: Final = ("TEA", "CAKE")
SLOW: Final = 60  # milliseconds that a right service may take for an answer
WAITS: Final = 20  # milliseconds between a wrong service's look and its step
HANGS: Final = 2_500  # milliseconds after which a test that waits for a hanging service is given up

FAILED: Final = pytest.fail.Exception  # what pytest.fail() raises, which is no Exception

EXERCISE = Exercise(
    lesson="18",
    check="check_voucher_test",
    stub="misses-the-race",
    task="Write a test that passes on each right voucher service and fails on each wrong one.",
    usual_wrong_prediction=(
        "That one buyer gets the cup, since the code looks before it takes. All ten have looked "
        "before the first one takes it away: they overlap at each await."
    ),
    mistakes=(
        Mistake(
            "misses-the-race",
            "sends one request after another, as the stub does",
            "Your test passes on a service that gives one voucher to everybody who asks at the "
            "same time. Requests have to overlap: send several at once with gather.",
        ),
        Mistake(
            "misses-everything",
            "asserts nothing about the answers, or catches what assert raises",
            "Your test passes on a service that never looks whether a voucher is used up. Compare "
            "the status of the answers with what they must be, and let the AssertionError out.",
        ),
        Mistake(
            "misses-nobody",
            "asserts that at most one request succeeds",
            "Your test passes on a service that refuses everybody. Exactly one of those who ask "
            "at once must get the voucher.",
        ),
        Mistake(
            "misses-errors",
            "counts the answers with 200, and doesn't look at the others",
            "Your test passes on a service that answers 500 to those who come too late. Look at "
            "the other answers, too: each has to be a 409.",
        ),
        Mistake(
            "misses-other-code",
            "asks for one of the two vouchers only",
            "Your test passes on a service that has one lock for all vouchers: when TEA is used "
            "up, CAKE is refused. Ask for both.",
        ),
        Mistake(
            "mixes-the-codes",
            "compares the statuses of both vouchers in one list",
            "Your test passes on a service that gives TEA to two who ask, and CAKE to nobody. "
            "Together these are two 200 as well. Compare the statuses of each voucher separately.",
        ),
        Mistake(
            "never-fails",
            "has no time limit, or one beyond the check's patience, such as the lesson's PATIENCE",
            "One wrong service never answers, and your test waits with it, longer than the check "
            "does. Put a deadline of ms(2_000) or less around the waiting, and let it fail. "
            "PATIENCE from the lesson, 20 seconds, is too long here.",
        ),
        Mistake(
            "gives-up-early",
            "has a time limit that a right, slow service exceeds",
            "Your test fails on a right service that takes its time. A deadline in a test is for "
            "what hangs: give it many times what an answer takes.",
        ),
        Mistake(
            "expects-the-first",
            "asserts that the first of the requests wins",
            "Your test fails on a right service in which another request than the first one won. "
            "When they run at once, nobody promises an order: count, or sort, the statuses.",
        ),
        Mistake(
            "fails-the-right",
            "asserts something that isn't promised",
            "Your test fails on a right service. It may only assert what the task says: one 200 "
            "for each voucher, and 409 for everybody else.",
        ),
    ),
)

Redeem = Callable[[str, set[str]], Awaitable[None]]


async def check_voucher_test(test: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's test of lesson 18, show one line, and return the verdict.

    It is called as ``await test(client)`` with an httpx client of a service that has two vouchers,
    ``TEA`` and ``CAKE``, and answers ``POST /redeem/{code}``: 200 to the first who asks for a code,
    409 to all others. It passes if it returns on each right service, and raises on each wrong one
    within 2.5 s at the pace of the course.

    ``limit`` is how long the function may take in all, in seconds; 15 unless given.
    """
    return await check(functools.partial(_judge, test=test), limit=limit)


async def _judge(sandbox: Sandbox, *, test: Any) -> str:
    test = require_function(test, example="check_voucher_test(test_voucher)")
    for mistake, told, service in (
        ("fails-the-right", "one that answers at once", _right_at_once),
        ("fails-the-right", "one that takes 60 ms", _right_slow),
        ("expects-the-first", "one where the last to ask wins", _last_first()),
    ):
        await _passes(sandbox, test, service, mistake, told)
    for mistake, service in (
        ("misses-everything", _gives_always),
        ("misses-the-race", _looks_then_gives),
        ("misses-nobody", _gives_never),
        ("misses-errors", _fails_the_late),
        ("misses-other-code", _gives_one_in_all),
        ("mixes-the-codes", _gives_two_for_tea),
    ):
        if not await _fails(sandbox, test, service):
            raise EXERCISE.wrong(mistake)
    if not await _fails(sandbox, test, _hangs):
        raise EXERCISE.wrong("never-fails", "it passed on a service that never answers")
    return (
        "It passes on three right services and fails on seven wrong ones, each in time. Few "
        "tests in production could say that of themselves."
    )


async def _passes(
    sandbox: Sandbox, test: Callable[..., Any], redeem: Redeem, mistake: str, told: str
) -> None:
    """Return if the test passes on this right service. Raises Wrong, ``mistake``, if it doesn't."""
    statuses: list[int] = []
    error = await _error_of(sandbox, test, redeem, statuses)
    if error is None:
        return
    kinds = [type(leaf) for leaf in leaves(error)]
    if any(issubclass(kind, TimeoutError) for kind in kinds):
        let_go(error)
        raise EXERCISE.wrong("gives-up-early", told)
    if not any(issubclass(kind, (AssertionError, FAILED)) for kind in kinds):
        raise blame(error)
    let_go(error)
    if mistake == "fails-the-right":
        told += f": {_told(statuses)}"
    raise EXERCISE.wrong(mistake, told)


def _told(statuses: list[int]) -> str:
    """Return how often each status came, in words."""
    if not statuses:
        return "it was asked nothing"
    counts = Counter(statuses).items()
    return "it answered " + " and ".join(f"{status} ({times} times)" for status, times in counts)


async def _fails(sandbox: Sandbox, test: Callable[..., Any], redeem: Redeem) -> bool:
    """Return whether the test fails on this wrong service."""
    error = await _error_of(sandbox, test, redeem)
    if error is None:
        return False
    let_go(error)
    return True


async def _error_of(
    sandbox: Sandbox,
    test: Callable[..., Any],
    redeem: Redeem,
    statuses: list[int] | None = None,
) -> BaseException | None:
    """Return what the test raises on a service, None if it passes; ``statuses`` grows by what came.

    Raises Wrong when it does something else than that: hangs, exits, cancels itself, leaves a task.
    """

    came = [] if statuses is None else statuses

    async def note(answer: Response) -> None:
        came.append(answer.status_code)

    async def trial() -> BaseException | None:
        transport = ASGITransport(_service(redeem), raise_app_exceptions=False)
        hooks: dict[str, list[Callable[..., Any]]] = {"response": [note]}
        async with AsyncClient(
            transport=transport, base_url="http://vouchers", event_hooks=hooks
        ) as client:
            running = asyncio.ensure_future(require_awaitable(test(client)))
            done, _ = await asyncio.wait({running}, timeout=ms(HANGS))
            if not done:
                running.cancel()
                await asyncio.wait({running}, timeout=ms(WAITS))
                raise EXERCISE.wrong("never-fails")
            if running.cancelled():
                raise asyncio.CancelledError
            return running.exception()

    error = (await sandbox.run(trial)).result()
    if error is not None and not isinstance(error, (Exception, FAILED)):
        raise blame(error)
    return error


def _service(redeem: Redeem) -> FastAPI:
    app = FastAPI()
    used: set[str] = set()

    @app.post("/redeem/{code}")
    async def redeem_code(code: str) -> dict[str, str]:
        if code not in CODES:
            raise HTTPException(404, f"there is no voucher {code}")
        await redeem(code, used)
        return {"redeemed": code}

    return app


def _take(code: str, used: set[str]) -> None:
    if code in used:
        raise HTTPException(409, "used up")
    used.add(code)


async def _right_at_once(code: str, used: set[str]) -> None:
    _take(code, used)


async def _right_slow(code: str, used: set[str]) -> None:
    await asyncio.sleep(ms(SLOW))
    _take(code, used)


def _last_first() -> Redeem:
    """Return a service that lets requests gather for a while, and serves the last of them first."""
    waiting: list[asyncio.Event] = []

    def serve() -> None:
        for turn in reversed(waiting):
            turn.set()
        waiting.clear()

    async def redeem(code: str, used: set[str]) -> None:
        if not waiting:
            asyncio.get_running_loop().call_later(ms(SLOW), serve)
        waiting.append(turn := asyncio.Event())
        await turn.wait()
        _take(code, used)

    return redeem


async def _gives_always(code: str, used: set[str]) -> None:
    await asyncio.sleep(0)


async def _looks_then_gives(code: str, used: set[str]) -> None:
    if code in used:
        raise HTTPException(409, "used up")
    await asyncio.sleep(ms(WAITS))
    used.add(code)


async def _gives_never(code: str, used: set[str]) -> None:
    raise HTTPException(409, "used up")


async def _fails_the_late(code: str, used: set[str]) -> None:
    if code in used:
        raise RuntimeError("UNIQUE constraint failed: vouchers.code")
    used.add(code)


async def _gives_one_in_all(code: str, used: set[str]) -> None:
    _take("any", used)


async def _gives_two_for_tea(code: str, used: set[str]) -> None:
    if code == "CAKE":
        raise HTTPException(409, "used up")
    _take("TEA, once" if "TEA, once" not in used else "TEA, twice", used)


async def _hangs(code: str, used: set[str]) -> None:
    _take(code, used)
    await asyncio.Event().wait()
