"""The exercise of lesson 13: a fault that the course has not shown, told and mended.

A cache of exchange rates whose entry expires sends every visitor of that moment to the partner with
the same question: a cache stampede. The learner names the fault, then mends the cache.
"""

import asyncio
import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

from support.exercises.checking import check
from support.exercises.sandbox import Sandbox
from support.exercises.verdicts import Exercise, Mistake, Verdict, wrong
from support.lab.units import ms

KEEP = 60.0  # seconds on the check's own clock, which stands still until the check moves it
VISITORS = 6
PATIENCE = 3_000  # milliseconds that visitors get to come back once all calls are answered
TURNS = 50  # of the loop, in which visitors get as far as they can

RIGHT = "same question"
DIAGNOSES = {
    "blocked loop": "blocked-loop",
    "one after another": "one-after-another",
    "full pool": "full-pool",
    "no deadline": "no-deadline",
    "no limit": "no-limit",
}

EXERCISE = Exercise(
    lesson="13",
    check="check_capstone",
    stub="no-diagnosis",
    task="Find one more fault by the x-ray alone, a cache stampede, and mend the cache.",
    usual_wrong_prediction=(
        "That each repair buys something: most predict half of the load's time from gathering six "
        "questions, and it is none while the middleware holds one session for all of them."
    ),
    mistakes=(
        Mistake(
            "no-diagnosis",
            "leaves the diagnosis empty, or writes another word",
            "Name the fault first: set diagnosis to one of the six texts above. Look at how many "
            "waits have one name, and when they begin.",
        ),
        Mistake(
            "blocked-loop",
            "takes the waits for a held loop",
            "A held loop is a dark or red step; these lanes are light. The loop is free while all "
            "of them wait.",
        ),
        Mistake(
            "one-after-another",
            "looks for waits in a row",
            "Waits in a row stand end to end. These begin together and end together.",
        ),
        Mistake(
            "full-pool",
            "takes the waits for a queue",
            "Whoever waits for a seat is let in as others leave, so the ends are staggered. Here "
            "nobody waits for anybody: all ask at once.",
        ),
        Mistake(
            "no-deadline",
            "takes the partner to be late",
            "No wait is longer than the partner needs for one answer. A deadline would end good "
            "answers; it is their number that is wrong.",
        ),
        Mistake(
            "no-limit",
            "sees the burst and wants to bound it",
            "A limit makes the burst longer and keeps every call of it. Ask what the calls have "
            "in common.",
        ),
        Mistake(
            "stampede",
            "leaves the cache as it is, or looks again after asking",
            "The diagnosis is right. Not mended yet: everybody who finds the rate expired asks, "
            "because nobody can see that somebody is asking already.",
        ),
        Mistake(
            "asks-in-turn",
            "puts a lock around the call, and looks into the cache before it",
            "The visitors take turns now, and each still asks: whoever has waited for the lock has "
            "to look into the cache again before asking.",
        ),
        Mistake(
            "one-for-all",
            "guards every currency with the same lock or the same task",
            "A visitor who wants dollars waits until the euro's rate has come. Give each currency "
            "a lock or a task of its own.",
        ),
        Mistake(
            "wrong-rate",
            "mixes currencies up, or returns None or a task in place of the rate",
            "A visitor got something else than the rate of the currency asked for.",
        ),
        Mistake(
            "never-keeps",
            "asks again although the rate is young",
            "The rate is asked for again before it has expired: keep it for keep seconds.",
        ),
        Mistake(
            "kept-for-ever",
            "keeps a rate, or the task that fetched it, beyond its time",
            "The rate has expired on the clock that was given, and the old one is still returned.",
        ),
        Mistake(
            "keeps-the-failure",
            "keeps the failed task or its error",
            "The partner failed once, and is well again, but nobody asks it any more: what has "
            "failed must not be kept.",
        ),
        Mistake(
            "hides-the-failure",
            "catches the error and returns something else",
            "The partner failed, there was no rate to fall back on, and the visitor was not told: "
            "let the error out.",
        ),
        Mistake(
            "one-leaves",
            "shares a task that a leaving visitor cancels, or lets the one who asks leave others "
            "waiting",
            "One visitor left, and others lost their answer with them. Cancelling a visitor must "
            "not cancel what the others wait for: see asyncio.shield, or take turns.",
        ),
    ),
)


async def check_capstone(diagnosis: Any, rates: Any, *, limit: float | None = None) -> Verdict:
    """Check the diagnosis and the repair of lesson 13, show one line, and return the verdict.

    ``diagnosis`` is a text. ``rates`` is a class: ``rates(fetch, keep, clock)`` makes a cache whose
    ``await rate(currency)`` answers with what ``await fetch(currency)`` returned at most ``keep``
    seconds ago by ``clock()``. It passes if visitors who come at once share one call for each
    currency, and neither a failure nor a visitor who leaves is anybody else's trouble. Shared tasks
    and locks both do.

    ``limit`` is how long the learner's code may take in all, in seconds; 15 unless given.
    """
    return await check(functools.partial(_judge, diagnosis=diagnosis, rates=rates), limit=limit)


async def _judge(sandbox: Sandbox, *, diagnosis: Any, rates: Any) -> str:
    said = " ".join(diagnosis.lower().split()) if isinstance(diagnosis, str) else ""
    if said in DIAGNOSES:
        raise EXERCISE.wrong(DIAGNOSES[said])
    if said != RIGHT:
        raise EXERCISE.wrong("no-diagnosis")
    if not isinstance(rates, type):
        name = type(rates).__name__
        raise wrong("wrong-type", f"it got {name}; write check_capstone(diagnosis, Rates)")
    for scene in (_all_at_once, _later, _failure, _leaving):
        ran = await sandbox.run(lambda scene=scene: scene(rates))
        ran.result()
    return (
        "It is one question asked by all: a cache stampede. Now each currency is asked for once, "
        "and neither a failure nor a visitor who leaves troubles the others."
    )


class _Partner:
    """Answers when the check lets it; ``calls`` lists the currencies in the order of asking."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.under_way: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.waiting: list[asyncio.Future[None]] = []
        self.failing = False
        self.rise = 0.0

    async def fetch(self, currency: str) -> float:
        rate = self.rate_of(currency)
        self.calls.append(currency)
        self.under_way[currency] += 1
        self.peak[currency] = max(self.peak[currency], self.under_way[currency])
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(answer)
        try:
            await answer
        finally:
            self.under_way[currency] -= 1
        if self.failing:
            raise ConnectionError("the partner is away")
        return rate

    def rate_of(self, currency: str) -> float:
        return 1.0 + len(currency) + ord(currency[0]) / 100 + self.rise

    def answer(self) -> None:
        for waiting in self.waiting:
            if not waiting.done():
                waiting.set_result(None)
        self.waiting.clear()


class _Scene:
    """A cache, its partner, a clock that is moved by hand, and visitors."""

    def __init__(self, rates: Callable[..., Any]) -> None:
        self.now = 1_000.0
        self.partner = _Partner()
        self.cache = rates(self.partner.fetch, KEEP, lambda: self.now)

    def visit(self, *currencies: str) -> "list[asyncio.Task[Any]]":
        return [asyncio.create_task(self._ask(currency)) for currency in currencies]

    async def _ask(self, currency: str) -> Any:
        return await self.cache.rate(currency)

    async def settle(self) -> None:
        """Let everybody get as far as they can without an answer of the partner."""
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def served(self, visitors: "list[asyncio.Task[Any]]") -> bool:
        """Answer every call until all visitors are back; return whether they came back at all."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + ms(PATIENCE)
        while not all(visitor.done() for visitor in visitors):
            self.partner.answer()
            if loop.time() > give_up:
                return False
            await asyncio.sleep(0)
        return True


async def _gone(visitors: "list[asyncio.Task[Any]]") -> None:
    for visitor in visitors:
        visitor.cancel()
    await asyncio.wait(visitors)


def _require_rates(
    visitors: "list[asyncio.Task[Any]]", currencies: list[str], partner: _Partner
) -> None:
    for visitor, currency in zip(visitors, currencies, strict=True):
        rate = visitor.result()
        if rate != partner.rate_of(currency):
            raise EXERCISE.wrong("wrong-rate", f"{currency}: {type(rate).__name__} {rate!r:.40}")


async def _serve_all(scene: _Scene, currencies: list[str]) -> None:
    visitors = scene.visit(*currencies)
    try:
        if not await scene.served(visitors):
            raise wrong("never-ends", "a visitor got no answer")
        _require_rates(visitors, currencies, scene.partner)
    finally:
        await _gone(visitors)


async def _all_at_once(rates: Callable[..., Any]) -> None:
    """Six visitors want euros at once and one wants dollars; then one more comes."""
    scene = _Scene(rates)
    partner = scene.partner
    currencies = ["EUR"] * VISITORS + ["USD"]
    visitors = scene.visit(*currencies)
    await scene.settle()
    together = set(partner.calls)
    try:
        if not await scene.served(visitors):
            raise wrong("never-ends", "a visitor got no answer")
        _require_rates(visitors, currencies, partner)
    finally:
        await _gone(visitors)
    if partner.peak["EUR"] > 1:
        raise EXERCISE.wrong("stampede", f"{partner.peak['EUR']} calls for EUR at once")
    calls = partner.calls.count("EUR")
    if calls > 1:
        raise EXERCISE.wrong("asks-in-turn", f"{calls} calls for EUR, one after another")
    if "USD" not in together:
        raise EXERCISE.wrong("one-for-all")


async def _later(rates: Callable[..., Any]) -> None:
    """The rate is young, then it expires, and the partner has another one by then."""
    scene = _Scene(rates)
    partner = scene.partner
    await _serve_all(scene, ["EUR"])
    scene.now += KEEP / 2
    await _serve_all(scene, ["EUR"])
    if len(partner.calls) > 1:
        raise EXERCISE.wrong("never-keeps")
    scene.now += KEEP
    old, partner.rise = partner.rate_of("EUR"), 0.25
    visitors = scene.visit(*["EUR"] * VISITORS)
    try:
        if not await scene.served(visitors):
            raise wrong("never-ends", "a visitor got no answer after the rate had expired")
        if any(visitor.result() == old for visitor in visitors):
            raise EXERCISE.wrong("kept-for-ever")
        _require_rates(visitors, ["EUR"] * VISITORS, partner)
    finally:
        await _gone(visitors)
    if partner.peak["EUR"] > 1:
        raise EXERCISE.wrong("stampede", "after a rate had expired")
    if len(partner.calls) > 2:
        raise EXERCISE.wrong("asks-in-turn", "after a rate had expired")


async def _failure(rates: Callable[..., Any]) -> None:
    """The partner fails while two wait, and is well again for the next."""
    scene = _Scene(rates)
    scene.partner.failing = True
    visitors = scene.visit("EUR", "EUR")
    try:
        if not await scene.served(visitors):
            raise wrong("never-ends", "a visitor got no answer when the partner failed")
        for visitor in visitors:
            if visitor.cancelled() or not isinstance(visitor.exception(), ConnectionError):
                raise EXERCISE.wrong("hides-the-failure")
    finally:
        await _gone(visitors)
    scene.partner.failing = False
    asked = len(scene.partner.calls)
    try:
        await _serve_all(scene, ["EUR"])
    except ConnectionError:
        raise EXERCISE.wrong("keeps-the-failure") from None
    if len(scene.partner.calls) == asked:
        raise EXERCISE.wrong("keeps-the-failure")


async def _leaving(rates: Callable[..., Any]) -> None:
    """Of four visitors the first leaves, and then the third; the others stay."""
    for leaver in (0, 2):
        scene = _Scene(rates)
        visitors = scene.visit(*["EUR"] * 4)
        await scene.settle()
        visitors[leaver].cancel()
        await scene.settle()
        staying = [one for place, one in enumerate(visitors) if place != leaver]
        try:
            back = await scene.served(staying)
            if not back or any(one.cancelled() for one in staying):
                raise EXERCISE.wrong("one-leaves")
            _require_rates(staying, ["EUR"] * 3, scene.partner)
        finally:
            await _gone(visitors)
