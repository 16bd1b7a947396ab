"""The exercise of lesson 05: a search that gives three sources one budget to share.

The sources are the check's own, so that each answers, hangs or fails when the check wants it to.
Only the budget is a real wait. A deadline for each source is accepted where all of them start at
once and each may use the whole budget: that comes to the same.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from support.exercises.checking import check, require_function
from support.exercises.error_text import leaves
from support.exercises.sandbox import Ran, Sandbox, require_awaitable
from support.exercises.verdicts import Exercise, Mistake, Verdict, wrong
from support.lab.silent_failures import let_go
from support.lab.units import ms

BUDGET = 300  # milliseconds, where a source hangs
AMPLE = 10_000  # milliseconds, where none does
LATE = 0.7  # of the budget: when the slow source answers
TRIES = 3  # of that, each with twice the budget: a machine that stands still is late as well
PATIENCE = 1.5  # budgets after which the source that hangs answers after all
TOO_LONG = 4  # budgets after which the search is over time, whatever it did meanwhile
QUERY = "blue lamp"
DATABASE, ENGINE, API = SOURCES = ("database", "elasticsearch", "external_api")
HITS = {name: [f"{QUERY} of {name}"] for name in SOURCES}

EXERCISE = Exercise(
    lesson="05",
    check="check_search",
    stub="one-by-one",
    task="Search three sources within one budget; say what was found, what is missing, and why.",
    usual_wrong_prediction=(
        "That a deadline stops what it gives up on: it cancels a coroutine, and a statement, a "
        "thread or the other side goes on working."
    ),
    mistakes=(
        Mistake(
            "one-by-one",
            "awaits the sources one after another, as the stub does",
            "The answers are right, and the waits add up: each source is asked when the one before "
            "has answered. Start all three, then wait for them together.",
        ),
        Mistake(
            "no-budget",
            "waits for a source that hangs, or begins a new budget for each wait",
            "A source hung, and the search was still waiting when its budget had passed one and a "
            "half times. Put one asyncio.timeout(budget) around all of it.",
        ),
        Mistake(
            "budget-split",
            "gives each source a part of the budget, or returns with the first answers",
            "A source that would have answered well within the budget was given up on. The budget "
            "is for all of them together: each may use all of it.",
        ),
        Mistake(
            "all-or-nothing",
            "lets the deadline's TimeoutError out",
            "The budget ran out, and the search raised TimeoutError: what two sources had found is "
            "lost. Keep each answer when it comes, and return what there is.",
        ),
        Mistake(
            "late-as-empty",
            "returns an empty list, or None, for a source that did not answer",
            "A source that did not answer stands among what was found, as if it had found nothing. "
            "It belongs to what is missing.",
        ),
        Mistake(
            "late-left-running",
            "returns without cancelling the late source, or without waiting until it has ended",
            "The search returned while a source was still being asked. Cancel what is late and "
            "wait until it has ended: leaving asyncio.timeout or a TaskGroup does both.",
        ),
        Mistake(
            "failure-loses-all",
            "lets SourceUnavailable out",
            "One source was down, and the answers of the others are lost. Catch SourceUnavailable "
            "beside each source.",
        ),
        Mistake(
            "inner-timeout-taken-for-deadline",
            "takes a source's own TimeoutError for the deadline, or lets it out",
            "A source gave up by itself with TimeoutError, long before the budget ran out: that is "
            '"failed", and the others go on. Catch it inside the deadline, beside that source, or '
            "ask the deadline whether it has expired().",
        ),
        Mistake(
            "bug-hidden",
            "catches every exception",
            "A source had a bug, a KeyError, and the search reported it as if the source were "
            "down. Catch what you expect, SourceUnavailable and TimeoutError, and no more.",
        ),
        Mistake(
            "bug-leaves-running",
            "lets the bug out while other sources are still asked, as gather does",
            "The bug came out while another source was still being asked. A TaskGroup cancels the "
            "others and waits until they have ended.",
        ),
        Mistake(
            "wrong-reason",
            'gives another reason than "late" and "failed", or the one for the other',
            "What is missing is right, and its reason is not.",
        ),
        Mistake(
            "wrong-answer",
            "returns something else than found and missing, or other contents",
            "The search is to return two dicts: what was found, by source, and what is missing.",
        ),
    ),
)


class SourceUnavailable(Exception):
    """A source cannot be asked at present."""


Answer = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class _Round:
    """One search: how its sources behave, and what the check saw of them."""

    behaviour: dict[str, Answer]
    budget: float
    released: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    most_at_once: int = 0
    left: list[str] = field(default_factory=list)
    outlasted: bool = False
    took: float = 0.0

    @property
    def sources(self) -> dict[str, Callable[[str], Awaitable[list[str]]]]:
        """The async functions that are handed to the learner's code."""
        return {name: self._source(name) for name in SOURCES}

    def _source(self, name: str) -> Callable[[str], Awaitable[list[str]]]:
        async def source(query: str) -> list[str]:
            self.asked.append((name, query))
            self.running.append(name)
            self.most_at_once = max(self.most_at_once, len(self.running))
            try:
                await self.behaviour[name]()
                return list(HITS[name])
            finally:
                self.running.remove(name)

        return source

    async def hang(self) -> None:
        """Wait for the check to lose patience.

        A search that gave up at its budget has cancelled this, however late the loop gets to it.
        """
        await self.released.wait()
        self.outlasted = True


def _after(seconds: float, error: Exception | None = None) -> Answer:
    async def answer() -> None:
        await asyncio.sleep(seconds)
        if error is not None:
            raise error

    return answer


async def check_search(search_sources: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's search of lesson 05, show one line, and return the verdict.

    It is called as ``await search_sources(query, sources, budget)``: ``sources`` are three async
    functions by name, ``budget`` is in seconds. It returns ``(found, missing)``: lists by source,
    and ``"late"`` or ``"failed"`` by source. It passes if

    - the sources are asked at the same time, and each may use the whole budget;
    - it answers when the budget has run out, with what has come, and nothing of it runs on;
    - :class:`SourceUnavailable` and a source's own ``TimeoutError`` cost that source only;
    - any other error comes out.

    ``limit`` is how long the function may take in all, in seconds; 15 unless given. An endless loop
    that never awaits cannot be stopped: restart the kernel.
    """
    return await check(functools.partial(_judge, search=search_sources), limit=limit)


async def _judge(sandbox: Sandbox, *, search: Any) -> str:
    search = require_function(search, example="check_search(search_sources)")
    await _judge_good_day(sandbox, search)
    await _judge_hung_source(sandbox, search)
    await _judge_failures(sandbox, search)
    await _judge_bug(sandbox, search)
    return (
        "One budget for all three: what comes in time is found, what does not is named, and "
        "nothing runs on."
    )


async def _run(sandbox: Sandbox, search: Callable[..., Any], round_: _Round) -> Ran[Any]:
    loop = asyncio.get_running_loop()
    release = loop.call_later(PATIENCE * round_.budget, round_.released.set)
    began = loop.time()

    async def searched() -> Any:
        try:
            return await require_awaitable(search(QUERY, round_.sources, round_.budget))
        finally:
            # Seen now, not later: a source that was cancelled and not awaited ends by itself.
            release.cancel()
            round_.left = sorted(round_.running)
            round_.took = loop.time() - began

    try:
        return await sandbox.run(searched)
    finally:
        release.cancel()


async def _judge_good_day(sandbox: Sandbox, search: Callable[..., Any]) -> None:
    quick = _after(ms(10))
    round_ = _Round(dict.fromkeys(SOURCES, quick), ms(AMPLE))
    ran = await _run(sandbox, search, round_)
    if round_.left and ran.error is None:
        raise wrong("left-running", ", ".join(round_.left))
    _compare(ran.result(), HITS, {})
    if any(query != QUERY for _, query in round_.asked):
        raise EXERCISE.wrong("wrong-answer", "the sources were asked something else")
    if round_.most_at_once < len(SOURCES):
        raise EXERCISE.wrong("one-by-one", f"{round_.most_at_once} at once")


async def _judge_hung_source(sandbox: Sandbox, search: Callable[..., Any]) -> None:
    for turn in range(TRIES):
        if await _slow_source_came(sandbox, search, ms(BUDGET) * 2**turn):
            return
    raise EXERCISE.wrong("budget-split")


async def _slow_source_came(sandbox: Sandbox, search: Callable[..., Any], budget: float) -> bool:
    """Return whether a source that answers within the budget, in seconds, was found."""
    round_ = _Round({}, budget)
    slow = _after(LATE * round_.budget)
    round_.behaviour = {DATABASE: _after(0), ENGINE: slow, API: round_.hang}
    ran = await _run(sandbox, search, round_)
    if round_.outlasted or round_.took > TOO_LONG * round_.budget:
        raise EXERCISE.wrong("no-budget")
    if _has(ran.error, TimeoutError):
        _let_go_and_raise(ran, "all-or-nothing")
    if round_.left and ran.error is None:
        raise EXERCISE.wrong("late-left-running", ", ".join(round_.left))
    found, missing = _two_dicts(ran.result())
    if API in found:
        raise EXERCISE.wrong("late-as-empty")
    if ENGINE not in found:
        return False
    _compare((found, missing), {name: HITS[name] for name in (DATABASE, ENGINE)}, {API: "late"})
    return True


async def _judge_failures(sandbox: Sandbox, search: Callable[..., Any]) -> None:
    round_ = _Round({}, ms(AMPLE))
    round_.behaviour = {
        DATABASE: _after(ms(30)),
        ENGINE: _after(0, SourceUnavailable("the engine is down")),
        API: _after(ms(10), TimeoutError()),
    }
    ran = await _run(sandbox, search, round_)
    if _has(ran.error, SourceUnavailable):
        _let_go_and_raise(ran, "failure-loses-all")
    if _has(ran.error, TimeoutError):
        _let_go_and_raise(ran, "inner-timeout-taken-for-deadline")
    found, missing = _two_dicts(ran.result())
    if DATABASE not in found or missing.get(API) == "late":
        raise EXERCISE.wrong("inner-timeout-taken-for-deadline")
    expected = {ENGINE: "failed", API: "failed"}
    _compare((found, missing), {DATABASE: HITS[DATABASE]}, expected)


async def _judge_bug(sandbox: Sandbox, search: Callable[..., Any]) -> None:
    round_ = _Round({}, ms(BUDGET))
    bug = _after(0, KeyError("name"))
    round_.behaviour = {DATABASE: bug, ENGINE: _after(ms(10)), API: round_.hang}
    ran = await _run(sandbox, search, round_)
    if ran.error is None:
        raise EXERCISE.wrong("bug-hidden")
    if not _has(ran.error, KeyError):
        ran.result()
    let_go(ran.error)
    if round_.left:
        raise EXERCISE.wrong("bug-leaves-running", ", ".join(round_.left))


def _has(error: BaseException | None, kind: type[Exception]) -> bool:
    return error is not None and any(isinstance(leaf, kind) for leaf in leaves(error))


def _let_go_and_raise(ran: Ran[Any], mistake: str) -> NoReturn:
    if ran.error is not None:
        let_go(ran.error)
    raise EXERCISE.wrong(mistake)


def _two_dicts(answer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    match answer:
        case None:
            raise wrong("not-written", "search_sources returned None")
        case (dict() as found, dict() as missing):
            return found, missing
        case (first, second):
            told = f"it returned {type(first).__name__} and {type(second).__name__}"
            raise EXERCISE.wrong("wrong-answer", told)
    raise EXERCISE.wrong("wrong-answer", f"it returned {type(answer).__name__}")


def _compare(answer: Any, expected: dict[str, Any], lacking: dict[str, str]) -> None:
    found, missing = _two_dicts(answer)
    for name in SOURCES:
        if name in found and found[name] != expected.get(name):
            raise EXERCISE.wrong("wrong-answer", f"look at found[{name!r}]")
    if found.keys() != expected.keys() or missing.keys() != lacking.keys():
        told = f"found {sorted(map(str, found))}, missing {sorted(map(str, missing))}"
        raise EXERCISE.wrong("wrong-answer", told)
    for name, reason in lacking.items():
        if missing[name] != reason:
            raise EXERCISE.wrong("wrong-reason", f"{name} is {reason!r}")
