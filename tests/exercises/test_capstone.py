"""The check of lesson 13, with right answers and wrong ones."""

import asyncio
import textwrap
import time
from collections import defaultdict
from typing import Any

import pytest

from looplab.exercises.capstone import DIAGNOSES, EXERCISE, check_capstone
from looplab.exercises.capstone import RIGHT as RIGHT_WORD

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy
PATIENCE = 6.0  # seconds, in which a wrong one is found, whatever it does


class Untouched:
    def __init__(self, fetch: Any, keep: float, clock: Any = time.monotonic) -> None:
        self.fetch, self.keep, self.clock = fetch, keep, clock
        self.known: dict[str, tuple[float, float]] = {}
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.lock = asyncio.Lock()
        self.asking: dict[str, asyncio.Task[float]] = {}

    def fresh(self, currency: str) -> float | None:
        rate, until = self.known.get(currency, (None, 0))
        return rate if self.clock() < until else None

    async def ask(self, currency: str) -> float:
        rate = await self.fetch(currency)
        self.known[currency] = rate, self.clock() + self.keep
        return rate

    async def rate(self, currency: str) -> Any:
        known = self.fresh(currency)
        return await self.ask(currency) if known is None else known


class Locked(Untouched):
    async def rate(self, currency: str) -> Any:
        async with self.locks[currency]:
            known = self.fresh(currency)
            return await self.ask(currency) if known is None else known


class LookedTwice(Untouched):
    async def rate(self, currency: str) -> Any:
        known = self.fresh(currency)
        if known is None:
            async with self.locks[currency]:
                known = self.fresh(currency)
                if known is None:
                    known = await self.ask(currency)
        return known


class Shielded(Untouched):
    async def rate(self, currency: str) -> Any:
        known = self.fresh(currency)
        if known is not None:
            return known
        if currency not in self.asking:
            task = asyncio.create_task(self.ask(currency))
            task.add_done_callback(lambda _: self.asking.pop(currency))
            self.asking[currency] = task
        return await asyncio.shield(self.asking[currency])


class StaleIfError(Shielded):
    """Falls back on an old rate when there is one: a choice that the exercise leaves open."""

    async def ask(self, currency: str) -> float:
        try:
            return await super().ask(currency)
        except ConnectionError:
            if currency in self.known:
                return self.known[currency][0]
            raise


def rates_of(source: str) -> Any:
    """Run an answer's source, and return the cache that it defines."""
    names: dict[str, Any] = {
        "__name__": "__main__",
        "asyncio": asyncio,
        "time": time,
        "defaultdict": defaultdict,
    }
    exec(compile(textwrap.dedent(source), "<answer>", "exec"), names)
    return names["Rates"]


ANSWER = """
class Rates:
    def __init__(self, fetch, keep, clock=time.monotonic):
        self.fetch, self.keep, self.clock = fetch, keep, clock
        self.known, self.asking = {{}}, {{}}

    async def ask(self, currency):
        {begin}
        try:
            {call}
            self.known[currency] = rate, {until}
            return rate
        {end}

    async def rate(self, currency):
        rate, until = self.known.get(currency, (None, 0))
        if {fresh}:
            return rate
        if {first}:
            task = asyncio.create_task(self.ask(currency))
            self.asking[currency] = task
        {wait}
"""


def answer(
    begin: str = "rate = None",
    call: str = "rate = await self.fetch(currency)",
    until: str = "self.clock() + self.keep",
    end: str = "finally:\n            del self.asking[currency]",
    fresh: str = "rate is not None and self.clock() < until",
    first: str = "currency not in self.asking",
    wait: str = "return await asyncio.shield(self.asking[currency])",
) -> str:
    """Return the course's own answer with one part of it changed."""
    return ANSWER.format(
        begin=begin, call=call, until=until, end=end, fresh=fresh, first=first, wait=wait
    )


RIGHT: tuple[tuple[str, str], ...] = (
    ("one shielded task a currency", answer()),
    (
        "a shielded task that is taken out by a callback",
        """
        class Rates:
            def __init__(self, fetch, keep, clock=time.monotonic):
                self.fetch, self.keep, self.clock = fetch, keep, clock
                self.known, self.tasks = {}, {}

            async def rate(self, currency):
                rate, until = self.known.get(currency, (None, 0))
                if rate is not None and self.clock() < until:
                    return rate
                if (task := self.tasks.get(currency)) is None:
                    task = self.tasks[currency] = asyncio.ensure_future(self.fetch(currency))
                    task.add_done_callback(lambda task: self.end(currency, task))
                return await asyncio.shield(task)

            def end(self, currency, task):
                del self.tasks[currency]
                if not task.cancelled() and task.exception() is None:
                    self.known[currency] = task.result(), self.clock() + self.keep
        """,
    ),
    (
        "a future that a task fills, and a dataclass",
        """
        from dataclasses import dataclass, field
        from typing import Any

        @dataclass(slots=True)
        class Rates:
            fetch: Any
            keep: float
            clock: Any = time.monotonic
            known: dict = field(default_factory=dict)
            answers: dict = field(default_factory=dict)
            tasks: set = field(default_factory=set)

            async def fill(self, currency, answer):
                try:
                    rate = await self.fetch(currency)
                except Exception as error:
                    if not answer.done():
                        answer.set_exception(error)
                        answer.exception()
                else:
                    self.known[currency] = rate, self.clock()
                    if not answer.done():
                        answer.set_result(rate)
                finally:
                    del self.answers[currency]

            async def rate(self, currency):
                if currency in self.known:
                    rate, since = self.known[currency]
                    if self.clock() - since < self.keep:
                        return rate
                if currency not in self.answers:
                    self.answers[currency] = asyncio.get_running_loop().create_future()
                    task = asyncio.create_task(self.fill(currency, self.answers[currency]))
                    self.tasks.add(task)
                    task.add_done_callback(self.tasks.discard)
                return await asyncio.shield(self.answers[currency])
        """,
    ),
    (
        "a task that ends when the last visitor has left",
        """
        class Rates:
            def __init__(self, fetch, keep, clock=time.monotonic):
                self.fetch, self.keep, self.clock = fetch, keep, clock
                self.known, self.asking = {}, {}

            async def rate(self, currency):
                rate, until = self.known.get(currency, (None, 0))
                if rate is not None and self.clock() < until:
                    return rate
                if currency not in self.asking:
                    self.asking[currency] = [asyncio.create_task(self.fetch(currency)), 0]
                mine = self.asking[currency]
                mine[1] += 1
                try:
                    rate = await asyncio.shield(mine[0])
                    self.known[currency] = rate, self.clock() + self.keep
                    return rate
                finally:
                    mine[1] -= 1
                    if (not mine[1] or mine[0].done()) and self.asking.get(currency) is mine:
                        del self.asking[currency]
                        mine[0].cancel()
        """,
    ),
    (
        "a visitor who takes the task out when it has ended, and a task that does so too",
        answer(
            end="finally:\n            self.asking.pop(currency, None)",
            wait="task = self.asking[currency]\n        try:\n"
            "            return await asyncio.shield(task)\n"
            "        finally:\n            if task.done():\n"
            "                self.asking.pop(currency, None)",
        ),
    ),
    (
        "a task that notices which of its visitors wait by asyncio.wait",
        answer(
            wait="task = self.asking[currency]\n"
            "        await asyncio.wait([task])\n        return task.result()"
        ),
    ),
)


@pytest.mark.parametrize("source", [each[1] for each in RIGHT], ids=[each[0] for each in RIGHT])
async def test_a_right_answer_passes_in_any_style(source: str) -> None:
    verdict = await check_capstone(RIGHT_WORD, rates_of(source), limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


@pytest.mark.parametrize("rates", [Shielded, StaleIfError])
async def test_right_answers_pass(rates) -> None:
    verdict = await check_capstone(RIGHT_WORD, rates, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


async def test_a_diagnosis_may_be_written_in_other_letters() -> None:
    assert (await check_capstone("  Same  Question ", Shielded, limit=AMPLE)).passed


@pytest.mark.parametrize(("diagnosis", "mistake"), DIAGNOSES.items())
async def test_a_wrong_diagnosis_gets_its_hint_whatever_the_repair(diagnosis, mistake) -> None:
    verdict = await check_capstone(diagnosis, Locked, limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake)


@pytest.mark.parametrize("diagnosis", ["", "stampede!", None, 7])
async def test_no_diagnosis(diagnosis) -> None:
    assert (await check_capstone(diagnosis, Locked, limit=AMPLE)).mistake == "no-diagnosis"


class LooksTooLate(Untouched):
    async def rate(self, currency: str) -> Any:
        await self.ask(currency)
        return self.known[currency][0]


class InTurn(Untouched):
    async def rate(self, currency: str) -> Any:
        known = self.fresh(currency)
        if known is None:
            async with self.locks[currency]:
                known = await self.ask(currency)
        return known


class Bounded(Untouched):
    async def ask(self, currency: str) -> float:
        async with self.lock:
            return await super().ask(currency)


class OneLock(Untouched):
    async def rate(self, currency: str) -> Any:
        async with self.lock:
            known = self.fresh(currency)
            return await self.ask(currency) if known is None else known


class OneTask(Untouched):
    task: Any = None

    async def rate(self, currency: str) -> Any:
        if self.task is None:
            self.task = asyncio.create_task(self.ask(currency))
        return await asyncio.shield(self.task)


class GivesTheTask(Shielded):
    async def rate(self, currency: str) -> Any:
        await super().rate(currency)
        return None


class AsksAlways(Untouched):
    async def rate(self, currency: str) -> Any:
        if currency not in self.asking:
            task = asyncio.create_task(self.ask(currency))
            task.add_done_callback(lambda _: self.asking.pop(currency))
            self.asking[currency] = task
        return await asyncio.shield(self.asking[currency])


class ForEver(Locked):
    def fresh(self, currency: str) -> float | None:
        return self.known.get(currency, (None,))[0]


class OtherClock(Locked):
    def fresh(self, currency: str) -> float | None:
        rate, until = self.known.get(currency, (None, 0))
        return rate if time.monotonic() < until + 1e9 else None


class KeepsTheTask(Untouched):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.tasks: dict[str, tuple[asyncio.Task[float], float]] = {}

    async def rate(self, currency: str) -> Any:
        _, until = self.tasks.get(currency, (None, 0))
        if self.clock() >= until:
            task = asyncio.create_task(self.ask(currency))
            self.tasks[currency] = task, self.clock() + self.keep
        return await asyncio.shield(self.tasks[currency][0])


class Swallows(Locked):
    async def ask(self, currency: str) -> float:
        try:
            return await super().ask(currency)
        except ConnectionError:
            return 1.0


class Unshielded(Untouched):
    async def rate(self, currency: str) -> Any:
        known = self.fresh(currency)
        if known is not None:
            return known
        if currency not in self.asking:
            task = asyncio.create_task(self.ask(currency))
            task.add_done_callback(lambda _: self.asking.pop(currency))
            self.asking[currency] = task
        return await self.asking[currency]


class LeaderLeaves(Untouched):
    """The first to come asks, and the others wait for what it announces."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.announced: dict[str, asyncio.Event] = {}

    async def rate(self, currency: str) -> Any:
        known = self.fresh(currency)
        if known is None and currency in self.announced:
            await self.announced[currency].wait()
            return self.known[currency][0]
        if known is None:
            self.announced[currency] = asyncio.Event()
            try:
                known = await self.ask(currency)
            except ConnectionError:
                self.known[currency] = 0.0, 0.0
                raise
            self.announced.pop(currency).set()
        return known


class NotYet(Untouched):
    async def rate(self, currency: str) -> Any:
        raise NotImplementedError


class Divides(Untouched):
    async def rate(self, currency: str) -> Any:
        return 1 // 0


class Endless(Untouched):
    async def rate(self, currency: str) -> Any:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)


class LeavesATask(Locked):
    async def rate(self, currency: str) -> Any:
        left.append(asyncio.create_task(asyncio.Event().wait()))
        return await super().rate(currency)


left: list[Any] = []

IN_ONE_PART: list[tuple[str, type]] = [
    ("asks-after-a-failure", Locked),
    ("asks-after-a-failure", LookedTwice),
    ("stampede", Untouched),
    ("stampede", LooksTooLate),
    ("asks-in-turn", InTurn),
    ("asks-in-turn", Bounded),
    ("one-for-all", OneLock),
    ("wrong-rate", OneTask),
    ("wrong-rate", GivesTheTask),
    ("never-keeps", AsksAlways),
    ("kept-for-ever", ForEver),
    ("kept-for-ever", OtherClock),
    ("keeps-the-failure", KeepsTheTask),
    ("hides-the-failure", Swallows),
    ("one-leaves", Unshielded),
    ("not-written", NotYet),
    ("raised", Divides),
    ("left-running", LeavesATask),
]


@pytest.mark.parametrize(("mistake", "rates"), IN_ONE_PART)
async def test_wrong_repairs_get_their_hint(mistake, rates) -> None:
    verdict = await check_capstone(RIGHT_WORD, rates, limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message
    left.clear()


LOCKED = """
class Rates:
    def __init__(self, fetch, keep, clock=time.monotonic):
        self.fetch, self.keep, self.clock = fetch, keep, clock
        self.known, self.turns = {{}}, {turns}

    async def rate(self, currency):
        async with self.turns[currency]:
            rate, until = self.known.get(currency, (None, 0))
            if rate is None or self.clock() >= until:
                rate = await self.fetch(currency)
                self.known[currency] = rate, self.clock() + self.keep
            return rate
"""

WRONG: tuple[tuple[str, str, str], ...] = (
    # for how long
    (
        "a rate is kept 1.4 times as long",
        answer(until="self.clock() + 1.4 * self.keep"),
        "kept-for-ever",
    ),
    (
        "a rate is kept a tenth longer",
        answer(until="self.clock() + 1.1 * self.keep"),
        "kept-for-ever",
    ),
    (
        "a rate is kept a second longer",
        answer(until="self.clock() + self.keep + 1"),
        "kept-for-ever",
    ),
    (
        "a rate is kept three quarters of its time",
        answer(until="self.clock() + 0.75 * self.keep"),
        "never-keeps",
    ),
    (
        "a rate is kept a minute, whatever keep says",
        answer(until="self.clock() + 60"),
        "kept-for-ever",
    ),
    (
        "a rate is kept by the clock of the machine",
        answer(until="time.time() + self.keep"),
        "kept-for-ever",
    ),
    (
        "a rate is kept until it is asked for no more",
        answer(fresh="rate is not None and self.clock() < until + self.keep"),
        "kept-for-ever",
    ),
    (
        "one time for all currencies, of the last that was fetched",
        answer(
            until="self.clock() + self.keep\n"
            "            self.known = {c: (r, self.clock() + self.keep) "
            "for c, (r, _) in self.known.items()}"
        ),
        "kept-for-ever",
    ),
    (
        "all rates are forgotten when one is asked for",
        answer(begin="rate = None\n        self.known.clear()"),
        "never-keeps",
    ),
    ("a rate of 0 is no rate", answer(fresh="rate and self.clock() < until"), "never-keeps"),
    (
        "the last currency's rate is the only one that is kept",
        answer(
            until="self.clock() + self.keep\n            self.known = {currency: "
            "self.known[currency]}"
        ),
        "never-keeps",
    ),
    # a partner that fails
    (
        "a lock for each currency",
        LOCKED.format(turns="defaultdict(asyncio.Lock)"),
        "asks-after-a-failure",
    ),
    (
        "each waiter asks for themselves when the shared call has failed",
        answer(
            wait="try:\n            return await asyncio.shield(self.asking[currency])\n"
            "        except Exception:\n            return await self.fetch(currency)"
        ),
        "asks-after-a-failure",
    ),
    (
        "the shared call is tried three times",
        answer(
            call="for attempt in range(3):\n"
            "                try:\n"
            "                    rate = await self.fetch(currency)\n"
            "                    break\n"
            "                except Exception:\n"
            "                    if attempt == 2:\n"
            "                        raise"
        ),
        "asks-after-a-failure",
    ),
    (
        "waiters wait for an event, and the first to wake asks again",
        """
        class Rates:
            def __init__(self, fetch, keep, clock=time.monotonic):
                self.fetch, self.keep, self.clock = fetch, keep, clock
                self.known, self.events = {}, {}

            async def rate(self, currency):
                while True:
                    rate, until = self.known.get(currency, (None, 0))
                    if rate is not None and self.clock() < until:
                        return rate
                    if currency not in self.events:
                        break
                    await self.events[currency].wait()
                self.events[currency] = asyncio.Event()
                try:
                    rate = await self.fetch(currency)
                    self.known[currency] = rate, self.clock() + self.keep
                    return rate
                finally:
                    self.events.pop(currency).set()
        """,
        "asks-after-a-failure",
    ),
    (
        "a failure is kept for as long as a rate",
        answer(
            end="except Exception as error:\n"
            "            self.known[currency] = error, self.clock() + self.keep\n"
            "            raise\n"
            "        finally:\n            del self.asking[currency]",
            wait="rate = await asyncio.shield(self.asking[currency])\n        return rate",
        ),
        "wrong-rate",
    ),
    (
        "a failed task is kept",
        answer(
            end="finally:\n            if currency in self.known:\n"
            "                del self.asking[currency]"
        ),
        "keeps-the-failure",
    ),
    (
        "only a failed connection is let go of",
        answer(
            call="rate = await self.fetch(currency)\n            del self.asking[currency]",
            end="except ConnectionError:\n            del self.asking[currency]\n            raise",
        ),
        "keeps-the-failure",
    ),
    (
        "a failure becomes a rate of 1",
        answer(
            end="except Exception:\n            return 1.0\n"
            "        finally:\n            del self.asking[currency]"
        ),
        "hides-the-failure",
    ),
    (
        "a failure becomes another error",
        answer(
            end="except Exception as error:\n"
            "            raise RuntimeError('no rate') from error\n"
            "        finally:\n            del self.asking[currency]"
        ),
        "hides-the-failure",
    ),
    (
        "late is no failure, and there is no rate",
        answer(
            end="except TimeoutError:\n            return None\n"
            "        finally:\n            del self.asking[currency]"
        ),
        "hides-the-failure",
    ),
    # what is left
    (
        "an entry for each currency that was ever asked for",
        answer(begin="rate = None\n        self.known.setdefault(currency, (None, 0))"),
        "keeps-the-keys",
    ),
    (
        "a counter of all questions by currency",
        answer(begin="rate = None\n        self.asked[currency] += 1").replace(
            "self.known, self.asking = {}, {}",
            "self.known, self.asking = {}, {}\n        self.asked = defaultdict(int)",
        ),
        "keeps-the-keys",
    ),
    (
        "a lock for each currency around the shared task",
        answer(
            wait="async with self.turns[currency]:\n            pass\n"
            "        return await asyncio.shield(self.asking[currency])"
        ).replace(
            "self.known, self.asking = {}, {}",
            "self.known, self.asking = {}, {}\n        self.turns = defaultdict(asyncio.Lock)",
        ),
        "keeps-the-keys",
    ),
    # visitors who leave
    (
        "the shared task is not shielded",
        answer(wait="return await self.asking[currency]"),
        "one-leaves",
    ),
    (
        "a visitor who leaves waits for the answer all the same",
        answer(
            wait="task = self.asking[currency]\n        try:\n"
            "            return await asyncio.shield(task)\n"
            "        except asyncio.CancelledError:\n            await task\n            raise"
        ),
        "never-leaves",
    ),
    (
        "a visitor who leaves gets an error of another kind",
        answer(
            wait="try:\n            return await asyncio.shield(self.asking[currency])\n"
            "        except asyncio.CancelledError:\n"
            "            raise ConnectionError('gone') from None"
        ),
        "never-leaves",
    ),
    (
        "who comes after all have left waits for a cancelled task",
        answer(
            call="rate = await self.fetch(currency)\n            del self.asking[currency]",
            end="except Exception:\n            del self.asking[currency]\n            raise",
            wait="task = self.asking[currency]\n"
            "        task.visitors = getattr(task, 'visitors', 0) + 1\n"
            "        try:\n            return await asyncio.shield(task)\n"
            "        finally:\n            task.visitors -= 1\n"
            "            if not task.visitors:\n                task.cancel()",
        ),
        "one-leaves",
    ),
    (
        "each visitor takes the task out, though others still wait",
        answer(
            end="finally:\n            pass",
            wait="try:\n            return await asyncio.shield(self.asking[currency])\n"
            "        finally:\n            self.asking.pop(currency, None)",
        ),
        "forgets-the-call",
    ),
    (
        "a visitor who leaves takes the task out, and so does the task",
        answer(
            wait="try:\n            return await asyncio.shield(self.asking[currency])\n"
            "        except asyncio.CancelledError:\n"
            "            self.asking.pop(currency, None)\n            raise"
        ).replace("del self.asking[currency]", "self.asking.pop(currency, None)"),
        "forgets-the-call",
    ),
    (
        "each visitor takes out the task that they waited for, ended or not",
        answer(
            end="finally:\n            pass",
            wait="task = self.asking[currency]\n        try:\n"
            "            return await asyncio.shield(task)\n"
            "        finally:\n            if self.asking.get(currency) is task:\n"
            "                del self.asking[currency]",
        ),
        "forgets-the-call",
    ),
    (
        "each visitor deletes the task",
        answer(
            end="finally:\n            pass",
            wait="try:\n            return await asyncio.shield(self.asking[currency])\n"
            "        finally:\n            del self.asking[currency]",
        ),
        "removed-twice",
    ),
    (
        "each visitor deletes the task once it has its rate",
        answer(
            end="finally:\n            pass",
            wait="rate = await asyncio.shield(self.asking[currency])\n"
            "        del self.asking[currency]\n        return rate",
        ),
        "removed-twice",
    ),
    # one question for all
    (
        "one lock for all currencies",
        LOCKED.format(turns="defaultdict(lambda lock=asyncio.Lock(): lock)"),
        "one-for-all",
    ),
    (
        "two calls at once, at most",
        """
        class Rates:
            def __init__(self, fetch, keep, clock=time.monotonic):
                self.fetch, self.keep, self.clock = fetch, keep, clock
                self.known, self.gate = {}, asyncio.Semaphore(2)

            async def rate(self, currency):
                async with self.gate:
                    rate, until = self.known.get(currency, (None, 0))
                    if rate is None or self.clock() >= until:
                        rate = await self.fetch(currency)
                        self.known[currency] = rate, self.clock() + self.keep
                    return rate
        """,
        "stampede",
    ),
    (
        "the euro's rate for every currency",
        answer(
            first="'EUR' not in self.asking", wait="return await asyncio.shield(self.asking['EUR'])"
        )
        .replace("self.asking[currency] = task", "self.asking['EUR'] = task")
        .replace("del self.asking[currency]", "self.asking.clear()"),
        "wrong-rate",
    ),
)

# What passes, though it is wrong. Failures are noted in a list of the module, which the check does
# not find by looking at the cache: it follows what the object and its class hold, and the names of
# a notebook hold things of the whole lesson.
SURVIVES = "FAILED = []\n" + answer(
    end="except Exception:\n            FAILED.append(currency)\n            raise\n"
    "        finally:\n            del self.asking[currency]"
)


@pytest.mark.parametrize(
    ("source", "mistake"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG]
)
async def test_a_wrong_answer_gets_its_own_hint(source: str, mistake: str) -> None:
    verdict = await check_capstone(RIGHT_WORD, rates_of(source), limit=PATIENCE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message


async def test_one_wrong_answer_is_known_to_pass() -> None:
    assert (await check_capstone(RIGHT_WORD, rates_of(SURVIVES), limit=AMPLE)).passed


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    made = {name for name, _ in IN_ONE_PART} | {mistake for *_, mistake in WRONG}
    made |= {*DIAGNOSES.values(), "no-diagnosis"}
    assert {mistake.name for mistake in EXERCISE.mistakes} <= made


async def test_visitors_who_wait_for_one_who_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("looplab.exercises.capstone.PATIENCE", 50)

    class Followers(LeaderLeaves):
        async def ask(self, currency: str) -> float:
            try:
                return await super().ask(currency)
            except ConnectionError:
                self.announced.pop(currency).set()
                raise

        async def rate(self, currency: str) -> Any:
            rate = await super().rate(currency)
            if not rate:
                raise ConnectionError
            return rate

    assert (await check_capstone(RIGHT_WORD, Followers, limit=AMPLE)).mistake in {
        "one-leaves",
        "raised",
    }


async def test_an_answer_that_keeps_the_loop_ends_the_check_at_once() -> None:
    source = answer(call="time.sleep(3)\n            rate = await self.fetch(currency)")
    began = time.monotonic()
    verdict = await check_capstone(RIGHT_WORD, rates_of(source))
    assert verdict.mistake == "blocks-the-loop", verdict.message
    assert time.monotonic() - began < 6  # seconds; it took 21


async def test_an_endless_repair_is_stopped() -> None:
    assert (await check_capstone(RIGHT_WORD, Endless, limit=0.5)).mistake == "never-ends"


@pytest.mark.parametrize("given", [None, 7, Locked(None, 1)])
async def test_something_else_than_a_class(given) -> None:
    verdict = await check_capstone(RIGHT_WORD, given, limit=AMPLE)
    assert verdict.mistake == "wrong-type"
    assert "write check_capstone(diagnosis, Rates)" in verdict.message
