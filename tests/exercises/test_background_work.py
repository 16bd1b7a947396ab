"""The check of lesson 15, with right answers in several styles and wrong ones."""

import textwrap
import time
from collections.abc import Callable
from typing import Any

import pytest

from looplab.exercises.background_work import EXERCISE, check_settle_again

pytestmark = pytest.mark.anyio

HEAD = "async def settle_again(order, bank, mailer, notes):\n"

RIGHT = {
    "a note for the letter, looked for first": """
        if await notes.has(f"{order.id}: mailed"):
            return
        await bank.charge(order, key=order.id)
        await mailer.send(order)
        await notes.write(f"{order.id}: mailed")
    """,
    "charge first, then look": """
        await bank.charge(order, key=f"charge-{order.id}")
        if not await notes.has("letter " + order.id):
            await mailer.send(order)
            await notes.write("letter " + order.id)
    """,
    "a note for each step": """
        for step in ("charged", "mailed"):
            note = f"{step} {order.id}"
            if await notes.has(note):
                continue
            if step == "charged":
                await bank.charge(order, key=order.id)
            else:
                await mailer.send(order)
            await notes.write(note)
    """,
    "functions of its own": """
        async def once(name, deed):
            if not await notes.has(f"{name}/{order.id}"):
                await deed()
                await notes.write(f"{name}/{order.id}")

        await once("charge", lambda: bank.charge(order, key=order.id))
        await once("letter", lambda: mailer.send(order))
    """,
    "a key by uuid5, and errors told and raised again": """
        import uuid

        key = str(uuid.uuid5(uuid.NAMESPACE_URL, str(order.id)))
        try:
            await bank.charge(order, key=key)
            if not await notes.has(key):
                await mailer.send(order)
                await notes.write(key)
        except Exception as error:
            raise RuntimeError("settling failed") from error
    """,
    "awaited in a group": """
        import asyncio

        async with asyncio.TaskGroup() as group:
            mailed = group.create_task(notes.has(order.id))
            group.create_task(bank.charge(order, key=order.id))
        if not mailed.result():
            await mailer.send(order)
            await notes.write(order.id)
    """,
}

WRONG = {
    "the stub": (
        "new-key",
        """
        import uuid
        await bank.charge(order, key=uuid.uuid4().hex)
        await mailer.send(order)
        """,
    ),
    "a new key, and a note for the charge": (
        "new-key",
        """
        import uuid
        if not await notes.has(f"{order.id}: charged"):
            await bank.charge(order, key=uuid.uuid4().hex)
            await notes.write(f"{order.id}: charged")
        if not await notes.has(f"{order.id}: mailed"):
            await mailer.send(order)
            await notes.write(f"{order.id}: mailed")
        """,
    ),
    "a key from the clock": (
        "new-key",
        """
        import time
        if await notes.has(order.id):
            return
        await bank.charge(order, key=f"at {time.perf_counter_ns()}")
        await mailer.send(order)
        await notes.write(order.id)
        """,
    ),
    "hash()": (
        "key-of-this-process",
        """
        if await notes.has(order.id):
            return
        await bank.charge(order, key=str(hash(order.id)))
        await mailer.send(order)
        await notes.write(order.id)
        """,
    ),
    "id()": (
        "key-of-this-process",
        """
        await bank.charge(order, key=f"{id(order)}")
        if not await notes.has(order.id):
            await mailer.send(order)
            await notes.write(order.id)
        """,
    ),
    "one key for all": (
        "shared-key",
        """
        await bank.charge(order, key="settle")
        if not await notes.has(order.id):
            await mailer.send(order)
            await notes.write(order.id)
        """,
    ),
    "the amount as key": (
        "shared-key",
        """
        await bank.charge(order, key=str(order.amount))
        if not await notes.has(order.id):
            await mailer.send(order)
            await notes.write(order.id)
        """,
    ),
    "a note before the charge": (
        "not-charged",
        """
        if await notes.has(order.id):
            return
        await notes.write(order.id)
        await bank.charge(order, key=order.id)
        await mailer.send(order)
        """,
    ),
    "no charge at all": ("not-charged", "await mailer.send(order)"),
    "a note before the letter": (
        "letter-lost",
        """
        await bank.charge(order, key=order.id)
        if not await notes.has(order.id):
            await notes.write(order.id)
            await mailer.send(order)
        """,
    ),
    "returns once it is charged": (
        "letter-lost",
        """
        if await notes.has(order.id):
            return
        await bank.charge(order, key=order.id)
        await notes.write(order.id)
        await mailer.send(order)
        """,
    ),
    "no letter": ("letter-lost", "await bank.charge(order, key=order.id)"),
    "no note": (
        "letter-again",
        """
        await bank.charge(order, key=order.id)
        await mailer.send(order)
        """,
    ),
    "a note that nobody looks for": (
        "letter-again",
        """
        await bank.charge(order, key=order.id)
        await mailer.send(order)
        await notes.write(order.id)
        """,
    ),
    "a note that another attempt can't find": (
        "letter-again",
        """
        note = f"{hash(order.id)} mailed"
        await bank.charge(order, key=order.id)
        if not await notes.has(note):
            await mailer.send(order)
            await notes.write(note)
        """,
    ),
    "one note for all orders, looked for before the charge": (
        "shared-note",
        """
        if await notes.has("mailed"):
            return
        await bank.charge(order, key=order.id)
        await mailer.send(order)
        await notes.write("mailed")
        """,
    ),
    "a note whatever becomes of the letter": (
        "letter-lost",
        """
        if await notes.has(order.id):
            return
        await bank.charge(order, key=order.id)
        try:
            await mailer.send(order)
        finally:
            await notes.write(order.id)
        """,
    ),
    "a note whatever becomes of the charge": (
        "not-charged",
        """
        if await notes.has(order.id):
            return
        try:
            await bank.charge(order, key=order.id)
            await mailer.send(order)
        finally:
            await notes.write(order.id)
        """,
    ),
    "one note for all orders": (
        "shared-note",
        """
        await bank.charge(order, key=order.id)
        if not await notes.has("mailed"):
            await mailer.send(order)
            await notes.write("mailed")
        """,
    ),
    "a set outside the job": (
        "remembers-in-memory",
        """
        if str(order.id) not in DONE:
            await bank.charge(order, key=order.id)
            await mailer.send(order)
            DONE.add(str(order.id))
        """,
    ),
    "the letter first": (
        "letter-first",
        """
        if not await notes.has(order.id):
            await mailer.send(order)
            await notes.write(order.id)
        await bank.charge(order, key=order.id)
        """,
    ),
    "both at once": (
        "letter-first",
        """
        import asyncio
        if not await notes.has(order.id):
            await asyncio.gather(mailer.send(order), bank.charge(order, key=order.id))
            await notes.write(order.id)
        """,
    ),
    "sends though the bank refuses": (
        "letter-first",
        """
        error = None
        try:
            await bank.charge(order, key=order.id)
        except Exception as raised:
            error = raised
        if not await notes.has(order.id):
            await mailer.send(order)
            await notes.write(order.id)
        if error:
            raise error
        """,
    ),
    "an error is dropped": (
        "error-swallowed",
        """
        try:
            await bank.charge(order, key=order.id)
            if not await notes.has(order.id):
                await mailer.send(order)
                await notes.write(order.id)
        except Exception:
            return
        """,
    ),
    "the mailer's error is dropped": (
        "error-swallowed",
        """
        import contextlib
        await bank.charge(order, key=order.id)
        if not await notes.has(order.id):
            with contextlib.suppress(LookupError):
                await mailer.send(order)
                await notes.write(order.id)
        """,
    ),
    "no key": ("wrong-call", "await bank.charge(order)"),
    "the number for the order": (
        "wrong-call",
        "await bank.charge(order.id, key=order.id)",
    ),
    "a loop that tries again": (
        "too-many-calls",
        """
        while True:
            try:
                await bank.charge(order, key=order.id)
                break
            except Exception:
                pass
        if not await notes.has(order.id):
            await mailer.send(order)
            await notes.write(order.id)
        """,
    ),
    "a call without await": (
        "forgotten-await",
        """
        bank.charge(order, key=order.id)
        """,
    ),
    "another error": ("raised", "raise KeyError('order')"),
    "an error raised from itself": (
        "raised",
        """
        try:
            await bank.charge(order, key=order.id)
            if not await notes.has(order.id):
                await mailer.send(order)
                await notes.write(order.id)
        except Exception:
            own = KeyError("order")
            raise own from own
        """,
    ),
    "calls wrongly, and again whenever it is cancelled": (
        "wrong-call",
        """
        while True:
            try:
                await bank.charge(order)
            except BaseException:
                pass
        """,
    ),
    "waits for ever": ("never-ends", "import asyncio\nawait asyncio.Event().wait()"),
    "swallows every cancellation": (
        "never-ends or blocks-the-loop",
        """
        import asyncio
        while True:
            try:
                await asyncio.sleep(3600)
            except BaseException:
                pass
        """,
    ),
    "blocks": ("blocks-the-loop", "import time\nwhile True:\n    time.sleep(0.01)"),
    "exits": ("exits", "raise SystemExit"),
}


def job_of(body: str) -> Callable[..., Any]:
    """Return the job that a learner wrote, whose body this is."""
    names: dict[str, Any] = {"DONE": set()}
    exec(HEAD + textwrap.indent(textwrap.dedent(body).strip(), "    "), names)
    return names["settle_again"]


@pytest.mark.parametrize("body", RIGHT.values(), ids=RIGHT)
async def test_a_right_answer_passes_in_any_style(body: str) -> None:
    verdict = await check_settle_again(job_of(body))
    assert verdict.passed, verdict.message


@pytest.mark.parametrize(("mistake", "body"), WRONG.values(), ids=WRONG)
async def test_a_wrong_answer_gets_its_own_hint_within_six_seconds(mistake: str, body: str) -> None:
    began = time.monotonic()
    verdict = await check_settle_again(job_of(body))
    assert not verdict.passed
    assert verdict.mistake in mistake.split(" or "), verdict.message
    assert time.monotonic() - began < 6


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("a note before the letter", "killed after notes.write"),
        ("a note before the charge", "killed after notes.write"),
    ],
)
async def test_the_verdict_says_at_which_call_the_job_was_killed(name: str, where: str) -> None:
    verdict = await check_settle_again(job_of(WRONG[name][1]))
    assert where in verdict.message
    assert "point" not in verdict.message


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    made = {one for mistake, _ in WRONG.values() for one in mistake.split(" or ")}
    assert {mistake.name for mistake in EXERCISE.mistakes} <= made


async def settle_without_waiting(order: Any, bank: Any, mailer: Any, notes: Any) -> None:
    """Do nothing; the check is given what it returns."""


@pytest.mark.parametrize(
    ("given", "mistake"),
    [
        (None, "wrong-type"),
        (settle_without_waiting(None, None, None, None), "called-instead-of-passed"),
        (lambda order, bank, mailer, notes: None, "not-async"),
    ],
)
async def test_what_is_no_job_is_refused(given: Any, mistake: str) -> None:
    assert (await check_settle_again(given)).mistake == mistake
