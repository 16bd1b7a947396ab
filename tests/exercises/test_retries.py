"""The check of lesson 19, with right answers in several styles and wrong ones."""

import textwrap
import time
from collections.abc import Callable
from typing import Any

import pytest

from looplab.exercises.retries import EXERCISE, check_pay

pytestmark = pytest.mark.anyio

HEAD = """
import asyncio
import random
from contextlib import suppress
from uuid import uuid4

import stamina

KEPT = {}
CALLER = stamina.AsyncRetryingCaller(
    attempts=3, wait_initial=0.02, wait_jitter=0.1, wait_max=0.2
)
PASSING = (ConnectionError, TimeoutError)


async def pay(order, charge, budget):
"""

OWN_LOOP = """
for attempt in (1, 2, 3):
    try:
        async with asyncio.timeout(0.3):
            return await charge(order, key=order.id)
    except (ConnectionError, TimeoutError):
        if attempt == 3 or not budget.spend():
            raise
    await asyncio.sleep(random.uniform(0.03, 0.12))
"""

STAMINA = """
def worth_it(error):
    return isinstance(error, PASSING) and budget.spend()

async def attempt():
    async with asyncio.timeout(0.3):
        return await charge(order, key=order.id)

return await CALLER(worth_it, attempt)
"""

RIGHT = {
    "stamina": STAMINA,
    "a loop of its own": OWN_LOOP,
    "a key drawn once": """
        key = uuid4().hex
        for attempt in range(3):
            if attempt:
                await asyncio.sleep(0.02 * 2**attempt + random.random() * 0.1)
            try:
                return await asyncio.wait_for(charge(order, key=key), 0.25)
            except PASSING as error:
                last = error
                if attempt < 2 and not budget.spend():
                    break
        raise last
    """,
    "stamina's context": """
        def worth_it(error):
            return isinstance(error, OSError) and budget.spend()

        async for attempt in stamina.retry_context(
            worth_it, attempts=3, wait_initial=0.02, wait_jitter=0.1, wait_max=0.19
        ):
            with attempt:
                async with asyncio.timeout(0.3):
                    return await charge(order, key=f"pay {order.id}")
    """,
    "recursion": """
        async def go(left):
            try:
                async with asyncio.timeout(0.28):
                    return await charge(order, key=order.id)
            except PASSING:
                if left == 0 or not budget.spend():
                    raise
            await asyncio.sleep(random.uniform(0.02, 0.2))
            return await go(left - 1)

        return await go(2)
    """,
    "a deadline outside as well": """
        async def attempt():
            async with asyncio.timeout(0.3):
                return await charge(order, key=order.id)

        async with asyncio.timeout(2):
            return await CALLER(
                lambda e: isinstance(e, PASSING) and budget.spend(), attempt
            )
    """,
    "an error of its own, raised from the last": """
        for attempt in (1, 2, 3):
            try:
                async with asyncio.timeout(0.3):
                    return await charge(order, key=order.id)
            except PASSING as error:
                if attempt == 3 or not budget.spend():
                    raise RuntimeError("not paid") from error
            await asyncio.sleep(random.uniform(0.03, 0.12))
    """,
}


def but(old: str, new: str, whole: str = OWN_LOOP) -> str:
    """Return a right answer with one place changed."""
    assert whole.count(old) == 1
    return whole.replace(old, new)


WRONG = {
    "the stub": (
        "new-key",
        """
        for _ in range(2):
            with suppress(Exception):
                return await charge(order, key=uuid4().hex)
        return await charge(order, key=uuid4().hex)
        """,
    ),
    "a key inside the attempt": (
        "new-key",
        but(
            "return await charge(order, key=order.id)",
            "return await charge(order, key=uuid4().hex)",
            STAMINA,
        ),
    ),
    "a key with the number of the attempt": (
        "new-key",
        but("key=order.id", 'key=f"{order.id}-{attempt}"'),
    ),
    "one key for all": ("shared-key", but("key=order.id", 'key="checkout"')),
    "no return": ("no-receipt", but("return await charge", "receipt = await charge")),
    "another receipt": (
        "no-receipt",
        but(
            "return await charge(order, key=order.id)",
            "await charge(order, key=order.id); return True",
        ),
    ),
    "every exception is retried": (
        "retries-declined",
        but("except (ConnectionError, TimeoutError):", "except Exception:"),
    ),
    "stamina on Exception": (
        "retries-declined",
        but("isinstance(error, PASSING) and ", "isinstance(error, Exception) and ", STAMINA),
    ),
    "declined is returned": (
        "error-swallowed",
        but(
            "    except (ConnectionError",
            "    except ValueError:\n        return None\n    except (ConnectionError",
        ),
    ),
    "the budget is asked first": (
        "budget-wasted",
        "budget.spend()\n" + but(" or not budget.spend()", ""),
    ),
    "the budget is asked for what is final": (
        "budget-wasted",
        but(
            "isinstance(error, PASSING) and budget.spend()",
            "budget.spend() and isinstance(error, PASSING)",
            STAMINA,
        ),
    ),
    "the budget is never asked": ("ignores-budget", but(" or not budget.spend()", "")),
    "the budget's answer is ignored": (
        "ignores-budget",
        but("if attempt == 3 or not budget.spend():", "budget.spend()\n        if attempt == 3:"),
    ),
    "the budget is asked after the retry": (
        "ignores-budget",
        but(
            "if attempt == 3 or not budget.spend():",
            "if attempt == 3 or (attempt == 2 and not budget.spend()):",
        ),
    ),
    "an empty budget returns": (
        "error-swallowed",
        but(
            "        if attempt == 3 or not budget.spend():\n            raise",
            "        if not budget.spend():\n            return None\n"
            "        if attempt == 3:\n            raise",
        ),
    ),
    "the last error is lost": (
        "error-swallowed",
        but(
            "        if attempt == 3 or not budget.spend():\n            raise",
            "        if attempt == 3:\n            return None\n"
            "        if not budget.spend():\n            raise",
        ),
    ),
    "only what is down is retried": (
        "gives-up-early",
        but("(ConnectionError, TimeoutError)", "ConnectionError"),
    ),
    "only what is late is retried": (
        "gives-up-early",
        but("(ConnectionError, TimeoutError)", "TimeoutError"),
    ),
    "two attempts": (
        "gives-up-early",
        but("(1, 2, 3)", "(1, 3)"),
    ),
    "one time-out for all": (
        "gives-up-early",
        """
        async def attempt():
            return await charge(order, key=order.id)

        async with asyncio.timeout(0.5):
            return await CALLER(
                lambda e: isinstance(e, PASSING) and budget.spend(), attempt
            )
        """,
    ),
    "four attempts": (
        "too-many-attempts",
        but("(1, 2, 3)", "(1, 2, 2.5, 3)"),
    ),
    "until it works": (
        "too-many-attempts",
        """
        for attempt in range(9):
            try:
                async with asyncio.timeout(0.3):
                    return await charge(order, key=order.id)
            except PASSING:
                if not budget.spend():
                    raise
            await asyncio.sleep(random.uniform(0.03, 0.12))
        raise ConnectionError
        """,
    ),
    "no time-out": (
        "hangs",
        but("async with asyncio.timeout(0.3):", "if True:"),
    ),
    "stamina's timeout": (
        "hangs",
        """
        caller = stamina.AsyncRetryingCaller(
            attempts=3, timeout=0.9, wait_initial=0.02, wait_jitter=0.1, wait_max=0.2
        )

        def worth_it(error):
            return isinstance(error, PASSING) and budget.spend()

        return await caller(worth_it, charge, order, key=order.id)
        """,
    ),
    "a long time-out": ("attempt-too-long", but("timeout(0.3)", "timeout(1.5)")),
    "a short time-out": ("too-impatient", but("timeout(0.3)", "timeout(0.01)")),
    "no wait": (
        "no-wait",
        but("await asyncio.sleep(random.uniform(0.03, 0.12))", "pass"),
    ),
    "a wait of nothing": (
        "no-wait",
        but("random.uniform(0.03, 0.12)", "0"),
    ),
    "full jitter from nothing": (
        "no-wait",
        but("random.uniform(0.03, 0.12)", "random.uniform(0, 0.1)"),
    ),
    "long waits": (
        "waits-too-long",
        but("random.uniform(0.03, 0.12)", "0.6 + random.random() / 10"),
    ),
    "a fixed wait": ("no-jitter", but("random.uniform(0.03, 0.12)", "0.1")),
    "back-off without jitter": (
        "no-jitter",
        but("random.uniform(0.03, 0.12)", "0.03 * 2**attempt"),
    ),
    "wait_max cuts the jitter off": (
        "no-jitter",
        """
        def worth_it(error):
            return isinstance(error, PASSING) and budget.spend()

        async def attempt():
            async with asyncio.timeout(0.3):
                return await charge(order, key=order.id)

        caller = stamina.AsyncRetryingCaller(
            attempts=3, wait_initial=0.1, wait_jitter=0.1, wait_max=0.1
        )
        return await caller(worth_it, attempt)
        """,
    ),
    "jitter drawn once": (
        "no-jitter",
        but("random.uniform(0.03, 0.12)", 'KEPT.setdefault("wait", random.uniform(0.03, 0.12))'),
    ),
    "cancellation is caught": (
        "goes-on-cancelled",
        but(
            "except (ConnectionError, TimeoutError):",
            "except (ConnectionError, TimeoutError, asyncio.CancelledError):",
        ),
    ),
    "cancellation ends quietly": (
        "goes-on-cancelled",
        but(
            "    except (ConnectionError",
            "    except asyncio.CancelledError:\n        return None\n    except (ConnectionError",
        ),
    ),
    "no key": ("wrong-call", but("charge(order, key=order.id)", "charge(order)")),
    "the number in place of the order": (
        "wrong-call",
        but("charge(order, key", "charge(order.id, key"),
    ),
    "a call without await": ("forgotten-await", "charge(order, key=order.id)"),
    "a bug": ("raised", "raise KeyError('order')"),
    "waits for ever": ("never-ends", "await asyncio.Event().wait()"),
    "blocks": ("blocks-the-loop", "import time\nwhile True:\n    time.sleep(0.01)"),
    "exits": ("exits", "raise SystemExit"),
}


def pay_of(body: str) -> Callable[..., Any]:
    """Return what a learner wrote, whose body this is."""
    names: dict[str, Any] = {}
    exec(HEAD + textwrap.indent(textwrap.dedent(body).strip(), "    "), names)
    return names["pay"]


@pytest.mark.parametrize("body", RIGHT.values(), ids=RIGHT)
async def test_a_right_answer_passes_in_any_style(body: str) -> None:
    verdict = await check_pay(pay_of(body))
    assert verdict.passed, verdict.message


@pytest.mark.parametrize(("mistake", "body"), WRONG.values(), ids=WRONG)
async def test_a_wrong_answer_gets_its_own_hint_within_six_seconds(mistake: str, body: str) -> None:
    began = time.monotonic()
    verdict = await check_pay(pay_of(body))
    assert not verdict.passed
    assert verdict.mistake == mistake, verdict.message
    assert time.monotonic() - began < 6


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    made = {mistake for mistake, _ in WRONG.values()}
    assert {mistake.name for mistake in EXERCISE.mistakes} <= made


async def pay_without_waiting(order: Any, charge: Any, budget: Any) -> None:
    """Do nothing; the check is given what it returns."""


@pytest.mark.parametrize(
    ("given", "mistake"),
    [
        (None, "wrong-type"),
        (pay_without_waiting(None, None, None), "called-instead-of-passed"),
        (lambda order, charge, budget: None, "not-async"),
    ],
)
async def test_what_is_no_payment_is_refused(given: Any, mistake: str) -> None:
    assert (await check_pay(given)).mistake == mistake
