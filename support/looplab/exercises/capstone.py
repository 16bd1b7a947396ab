"""The exercise of lesson 13: a fault that the course has not shown, found and fixed.

A cache of exchange rates whose entry expires sends every visitor of that moment to the partner with
the same question: a cache stampede. The learner names the fault, then fixes the cache.
"""

import asyncio
import functools
import gc
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

from looplab.exercises.checking import check
from looplab.exercises.sandbox import Sandbox
from looplab.exercises.verdicts import Exercise, Mistake, Verdict, wrong
from looplab.lab.units import ms

# Seconds that a rate is kept, on a clock that stands still until the check moves it.
KEEPS = (60.0, 7.0)
MOMENT = 0.01  # of that time, before and after its end
VISITORS = 6
WORTHLESS = "ZWD"  # a currency whose rate is 0
UNKNOWN = 200  # currencies that no partner knows
REMAINS = 20  # entries that a cache may hold once it has asked for those
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
    task="Find one more fault by its x-ray, a cache stampede, and fix the cache.",
    usual_wrong_prediction=(
        "That gathering six questions makes the load a good deal shorter. It doesn't while the "
        "middleware holds one session for each request: the questions queue for that session, and "
        "the two connections are needed for as long as before."
    ),
    mistakes=(
        Mistake(
            "no-diagnosis",
            "leaves the diagnosis empty, or writes another word",
            "Look at the marks in the picture: what does each visitor ask for, and when? Then set "
            "diagnosis to one of the six texts above.",
        ),
        Mistake(
            "blocked-loop",
            "takes the waits for a blocked loop",
            "A blocked loop shows as a dark or red step, and these lanes are light. The loop is "
            "free while everybody waits.",
        ),
        Mistake(
            "one-after-another",
            "looks for waits in a row",
            "Waits in a row stand end to end. These begin together and end together.",
        ),
        Mistake(
            "full-pool",
            "takes the waits for a queue",
            "In a queue, one gets in when another leaves, so their ends are staggered. Here all "
            "ask at the same moment, and nobody waits for anybody.",
        ),
        Mistake(
            "no-deadline",
            "takes the partner to be late",
            "No wait is longer than the partner needs for one answer. A deadline would end good "
            "answers. It's their number that is wrong.",
        ),
        Mistake(
            "no-limit",
            "sees the burst and wants to limit it",
            "A limit makes the burst longer and keeps every call of it. Ask yourself what the "
            "calls have in common.",
        ),
        Mistake(
            "stampede",
            "leaves the cache as it is, or looks again after asking",
            "The diagnosis is right. The fault is still there: everybody who finds the rate "
            "expired asks for it, because nobody can see that a question is already under way.",
        ),
        Mistake(
            "asks-in-turn",
            "puts a lock around the call, and looks into the cache before it",
            "The visitors take turns now, and each still asks. If you wait for a lock, look into "
            "the cache again once you have it: somebody may have filled it meanwhile.",
        ),
        Mistake(
            "one-for-all",
            "guards every currency with the same lock or the same task",
            "A visitor who wants dollars waits until the euro's rate has come. Give each currency "
            "a task of its own.",
        ),
        Mistake(
            "wrong-rate",
            "mixes currencies up, or returns None or a task in place of the rate",
            "A visitor got something other than the rate of the currency they asked for.",
        ),
        Mistake(
            "never-keeps",
            "asks again although the rate is young, shares one expiry, or takes 0 for no rate",
            "The rate is asked for again before it has expired. Keep each currency's rate for "
            "keep seconds, whatever it is and whatever the others do.",
        ),
        Mistake(
            "kept-for-ever",
            "keeps a rate, or the task that fetched it, beyond its time",
            "The rate has expired by the clock that was given, and the old one is still returned. "
            "A rate is good for keep seconds and no longer.",
        ),
        Mistake(
            "asks-after-a-failure",
            "takes turns by a lock, or lets each waiter try again when a call has failed",
            "The partner failed, and everybody who had waited asked it again. That gives a partner "
            "in trouble the burst it complained about. Let all who wait share one task, and its "
            "failure too.",
        ),
        Mistake(
            "keeps-the-keys",
            "keeps a lock, a task or an entry for each currency that was ever asked for",
            "The cache still holds something for currencies that nobody knows. Anybody can ask for "
            "more of them until the memory is full. When a question has ended, remove what belongs "
            "to it, also when it has failed.",
        ),
        Mistake(
            "keeps-the-failure",
            "keeps the failed task or its error",
            "The partner failed once and is well again, but nobody asks it any more. Don't keep "
            "what has failed.",
        ),
        Mistake(
            "hides-the-failure",
            "catches the error and returns something else",
            "The partner failed, there was no rate to fall back on, and the visitor wasn't told. "
            "Let the error out.",
        ),
        Mistake(
            "one-leaves",
            "shares a task that a leaving visitor cancels, or lets the one who asks leave others "
            "waiting",
            "One visitor left, and others lost their answer. Cancelling a visitor must not cancel "
            "what the others wait for: see asyncio.shield.",
        ),
        Mistake(
            "forgets-the-call",
            "lets a visitor who leaves remove the shared task while it is still under way",
            "A visitor left, and the next one asked again although the call was still under way. "
            "Others may still be waiting for it. Let the task remove itself when it has ended.",
        ),
        Mistake(
            "removed-twice",
            "lets each visitor delete the shared task, so that all but the first get a KeyError",
            "One visitor got the rate, and another got a KeyError. If each visitor deletes the "
            "shared task, only the first finds it. Let the task remove itself when it has ended.",
        ),
        Mistake(
            "never-leaves",
            "catches the visitor's own cancellation and waits on",
            "A visitor left, and their request went on waiting for the partner. A deadline around "
            "it would end nothing. Let CancelledError through; shield keeps the shared task alive.",
        ),
    ),
)


async def check_capstone(diagnosis: Any, rates: Any, *, limit: float | None = None) -> Verdict:
    """Check the diagnosis and the fix of lesson 13, show one line, and return the verdict.

    ``diagnosis`` is a text. ``rates`` is a class: ``rates(fetch, keep, clock)`` makes a cache whose
    ``await rate(currency)`` answers with what ``await fetch(currency)`` returned at most ``keep``
    seconds ago by ``clock()``. It passes if visitors share one call for each currency, and its
    failure, for as long as it is under way, if neither a failure nor a visitor who leaves is
    trouble for those who come later, and if questions that have failed leave nothing behind. A lock
    for each currency does not do: those who take turns ask a failing partner one after another.

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
    scenes: list[Callable[[], Any]] = [
        functools.partial(_all_at_once, rates),
        *(functools.partial(_later, rates, keep) for keep in KEEPS),
        functools.partial(_one_by_one, rates),
        *(functools.partial(_leaving, rates, leavers) for leavers in LEAVERS),
        *(functools.partial(_failure, rates, error) for error in FAILURES),
        functools.partial(_unknown, rates),
    ]
    for scene in scenes:
        (await sandbox.run(scene)).result()
    return (
        "Everybody asked the same question: a cache stampede. Now each currency is asked for once, "
        "and neither a failure nor a visitor who leaves costs the others anything."
    )


# What a partner may raise: catching one kind only is not enough.
FAILURES: tuple[type[Exception], ...] = (ConnectionError, TimeoutError, ValueError)

# Which of four visitors leave before the partner has answered.
LEAVERS = ((0,), (2,), (0, 1, 2), (0, 1, 2, 3))


class _Partner:
    """Answers when the check lets it; ``calls`` lists the currencies in the order of asking.

    It raises ``failing`` if that is set. ``rise`` is what it adds to every rate.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.under_way: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.waiting: list[asyncio.Future[None]] = []
        self.failing: type[Exception] | None = None
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
        if self.failing is not None:
            raise self.failing("the partner is in trouble")
        return rate

    def rate_of(self, currency: str) -> float:
        if currency == WORTHLESS:
            return 0.0
        return 1.0 + len(currency) + ord(currency[0]) / 100 + self.rise

    def answer(self) -> None:
        for waiting in self.waiting:
            if not waiting.done():
                waiting.set_result(None)
        self.waiting.clear()


class _Scene:
    """A cache, its partner, a clock that is moved by hand, and visitors."""

    def __init__(self, rates: Callable[..., Any], keep: float = KEEPS[0]) -> None:
        self.now = 1_000.0
        self.partner = _Partner()
        self.cache = rates(self.partner.fetch, keep, lambda: self.now)

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


def _require_one_removal(visitors: "list[asyncio.Task[Any]]", partner: _Partner) -> None:
    """Refuse a KeyError of those who shared one call with somebody who got the rate of it."""
    if partner.peak["EUR"] > 1 or any(visitor.cancelled() for visitor in visitors):
        return
    ends = [visitor.exception() for visitor in visitors]
    lost = sum(isinstance(end, KeyError) for end in ends)
    if lost and None in ends:
        raise EXERCISE.wrong("removed-twice", f"{lost} of {len(visitors)} visitors")


async def _serve_all(scene: _Scene, currencies: list[str], when: str = "") -> None:
    visitors = scene.visit(*currencies)
    try:
        if not await scene.served(visitors):
            raise wrong("never-ends", f"a visitor got no answer{when}")
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
        _require_one_removal(visitors[:VISITORS], partner)
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


async def _later(rates: Callable[..., Any], keep: float) -> None:
    """The rate is young until its time is up, and the partner has another one by then."""
    scene = _Scene(rates, keep)
    partner = scene.partner
    await _serve_all(scene, ["EUR"])
    for age in (0.5, 1 - MOMENT):
        scene.now = 1_000.0 + age * keep
        await _serve_all(scene, ["EUR"])
        if len(partner.calls) > 1:
            raise EXERCISE.wrong("never-keeps", f"after {age:.0%} of {keep:.0f} s")
    scene.now = 1_000.0 + (1 + MOMENT) * keep
    old, partner.rise = partner.rate_of("EUR"), 0.25
    visitors = scene.visit(*["EUR"] * VISITORS)
    try:
        if not await scene.served(visitors):
            raise wrong("never-ends", "a visitor got no answer after the rate had expired")
        if any(not visitor.cancelled() and visitor.result() == old for visitor in visitors):
            raise EXERCISE.wrong("kept-for-ever", f"after {1 + MOMENT:.0%} of {keep:.0f} s")
        _require_rates(visitors, ["EUR"] * VISITORS, partner)
    finally:
        await _gone(visitors)
    if partner.peak["EUR"] > 1:
        raise EXERCISE.wrong("stampede", "after a rate had expired")
    if len(partner.calls) > 2:
        raise EXERCISE.wrong("asks-in-turn", "after a rate had expired")


async def _one_by_one(rates: Callable[..., Any]) -> None:
    """Three currencies are asked for at different times, one of them is worth nothing."""
    scene, keep = _Scene(rates), KEEPS[0]
    partner = scene.partner
    currencies = ["EUR", WORTHLESS, "USD"]
    for place, currency in enumerate(currencies):
        scene.now = 1_000.0 + place * keep / 4
        await _serve_all(scene, [currency])
    await _serve_all(scene, currencies)
    if len(partner.calls) > len(currencies):
        again = partner.calls[len(currencies)]
        worth = f", whose rate is {partner.rate_of(again):g}" if again == WORTHLESS else ""
        raise EXERCISE.wrong("never-keeps", f"{again}{worth}, when others were asked for")
    partner.rise = 0.25
    scene.now = 1_000.0 + (1 + MOMENT) * keep  # the first one is old, and the others are young
    visitors = scene.visit("EUR", "USD")
    try:
        if not await scene.served(visitors):
            raise wrong("never-ends", "a visitor got no answer after a rate had expired")
        euro, dollar = (visitor.result() for visitor in visitors)
    finally:
        await _gone(visitors)
    if euro != partner.rate_of("EUR"):
        raise EXERCISE.wrong("kept-for-ever", "it was kept as long as another currency's")
    if dollar != partner.rate_of("USD") - partner.rise:
        raise EXERCISE.wrong("never-keeps", "it expired together with another currency's")


async def _failure(rates: Callable[..., Any], error: type[Exception]) -> None:
    """The partner fails while some wait, and is well again for the next."""
    scene = _Scene(rates)
    partner = scene.partner
    partner.failing = error
    visitors = scene.visit(*["EUR"] * VISITORS)
    try:
        if not await scene.served(visitors):
            raise wrong("never-ends", "a visitor got no answer when the partner failed")
        for visitor in visitors:
            if visitor.cancelled() or not isinstance(visitor.exception(), error):
                raise EXERCISE.wrong("hides-the-failure", f"it was a {error.__name__}")
    finally:
        await _gone(visitors)
    asked = len(partner.calls)
    if asked > 1:
        raise EXERCISE.wrong("asks-after-a-failure", f"{asked} calls for {VISITORS} visitors")
    partner.failing = None
    try:
        await _serve_all(scene, ["EUR"], " once the partner was well again")
    except error:
        raise EXERCISE.wrong("keeps-the-failure") from None
    if len(partner.calls) == asked:
        raise EXERCISE.wrong("keeps-the-failure")


async def _leaving(rates: Callable[..., Any], leavers: tuple[int, ...]) -> None:
    """Some of four visitors leave before the partner has answered, and one more comes."""
    scene = _Scene(rates)
    visitors = scene.visit(*["EUR"] * 4)
    await scene.settle()
    for leaver in leavers:
        visitors[leaver].cancel()
    await scene.settle()
    stubborn = [visitors[leaver] for leaver in leavers if not visitors[leaver].done()]
    staying = [one for place, one in enumerate(visitors) if place not in leavers]
    try:
        if stubborn:
            raise EXERCISE.wrong("never-leaves")
        if not all(visitors[leaver].cancelled() for leaver in leavers):
            raise EXERCISE.wrong("never-leaves", "they left, and something else came out")
        staying += scene.visit("EUR")
        visitors += staying[-1:]
        await scene.settle()
        if scene.partner.peak["EUR"] > 1:
            raise EXERCISE.wrong("forgets-the-call", f"{scene.partner.peak['EUR']} calls at once")
        back = await scene.served(staying)
        if not back or any(one.cancelled() for one in staying):
            who = "all, and one who came later" if len(leavers) == 4 else f"{len(leavers)} of four"
            raise EXERCISE.wrong("one-leaves", f"{who}")
        _require_rates(staying, ["EUR"] * len(staying), scene.partner)
    finally:
        await _gone(visitors)


async def _unknown(rates: Callable[..., Any]) -> None:
    """Ask for many currencies that no partner knows."""
    scene = _Scene(rates)
    scene.partner.failing = LookupError
    visitors = scene.visit(*(f"X{number:03}" for number in range(UNKNOWN)))
    try:
        if not await scene.served(visitors):
            raise wrong("never-ends", "a visitor got no answer for an unknown currency")
    finally:
        await _gone(visitors)
    await scene.settle()
    del visitors
    gc.collect()
    held = max((len(each) for each in _containers(scene.cache)), default=0)
    if held > REMAINS:
        raise EXERCISE.wrong("keeps-the-keys", f"{held} entries after {UNKNOWN} failures")


CONTAINERS = (dict, list, set, deque, defaultdict, OrderedDict)


def _containers(cache: object) -> Iterator[Any]:
    """Yield the containers that a cache, its class or an object of theirs keeps."""
    seen: set[int] = set()
    following = [(cache, 0)]
    while following:
        thing, depth = following.pop()
        if id(thing) in seen or depth > 4 or isinstance(thing, asyncio.Future | _Partner | _Scene):
            continue
        seen.add(id(thing))
        if isinstance(thing, CONTAINERS):
            yield thing
        if isinstance(thing, type):
            kept = [each for each in vars(thing).values() if isinstance(each, CONTAINERS)]
        elif isinstance(thing, CONTAINERS):
            kept = _referents(thing)
        elif depth == 0 or type(thing).__module__ != "builtins":
            kept = [*_referents(thing), type(thing)]
        else:
            kept = []
        following += [(each, depth + 1) for each in kept]


def _referents(thing: object) -> list[object]:
    """Return what a container or an object keeps, also in slots, but for what can be called."""
    return [each for each in gc.get_referents(thing) if not callable(each)]
