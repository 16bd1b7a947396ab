"""The check of lesson 13, with right answers and wrong ones."""

import asyncio
import time
from collections import defaultdict
from typing import Any

import pytest

from support.exercises.capstone import DIAGNOSES, EXERCISE, RIGHT, check_capstone

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy


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


class StaleIfError(Locked):
    """Falls back on an old rate when there is one: a choice that the exercise leaves open."""

    async def ask(self, currency: str) -> float:
        try:
            return await super().ask(currency)
        except ConnectionError:
            if currency in self.known:
                return self.known[currency][0]
            raise


@pytest.mark.parametrize("rates", [Locked, LookedTwice, Shielded, StaleIfError])
async def test_right_answers_pass(rates) -> None:
    verdict = await check_capstone(RIGHT, rates, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


async def test_a_diagnosis_may_be_written_in_other_letters() -> None:
    assert (await check_capstone("  Same  Question ", Locked, limit=AMPLE)).passed


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

WRONG: list[tuple[str, type]] = [
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


@pytest.mark.parametrize(("mistake", "rates"), WRONG)
async def test_wrong_repairs_get_their_hint(mistake, rates) -> None:
    verdict = await check_capstone(RIGHT, rates, limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message
    left.clear()


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    made = {name for name, _ in WRONG} | set(DIAGNOSES.values()) | {"no-diagnosis"}
    assert {mistake.name for mistake in EXERCISE.mistakes} <= made


async def test_visitors_who_wait_for_one_who_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.exercises.capstone.PATIENCE", 50)

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

    assert (await check_capstone(RIGHT, Followers, limit=AMPLE)).mistake in {
        "one-leaves",
        "raised",
    }


async def test_an_endless_repair_is_stopped() -> None:
    assert (await check_capstone(RIGHT, Endless, limit=0.5)).mistake == "never-ends"


@pytest.mark.parametrize("given", [None, 7, Locked(None, 1)])
async def test_something_else_than_a_class(given) -> None:
    verdict = await check_capstone(RIGHT, given, limit=AMPLE)
    assert verdict.mistake == "wrong-type"
    assert "write check_capstone(diagnosis, Rates)" in verdict.message
