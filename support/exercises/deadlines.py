"""The exercise of lesson 05: a search that gives three sources one budget to share.

The sources are the check's own, so that each answers, hangs or fails when the check wants it to.
Only the budget is a real wait, and it is measured from both sides: a source that answers shortly
before its end has to be found, one that hangs has to be given up on shortly after it. What a loop
has seen late is tried again with more time. A deadline for each source is accepted where all of
them start at once and each may use the whole budget: that comes to the same.

A search that asks a source again when it has failed is accepted too: within a budget, that is a
choice.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from support.exercises.checking import check, require_function
from support.exercises.error_text import leaves
from support.exercises.sandbox import Ran, Sandbox, blame, require_awaitable
from support.exercises.verdicts import Exercise, Mistake, Verdict, Wrong, wrong
from support.lab.lag import loop_lag
from support.lab.silent_failures import let_go
from support.lab.units import ms

BUDGETS: Final = (250, 400)  # milliseconds, where a source hangs; no fixed time suits both
AMPLE: Final = 10_000  # milliseconds, where none does
LATE: Final = 0.9  # of the budget: when the slow source answers
OVER: Final = 1.15  # budgets after which a search should have given up
PATIENCE: Final = 2  # budgets after which the source that hangs answers after all
NOTICED: Final = 0.04  # of the budget: a loop that is later than this has not measured well
TRIES: Final = 3  # each with twice the budget, as long as the loop was late
TICK: Final = 20  # milliseconds between two looks at whether anything is asked
STILL: Final = 50  # so many looks without a source that is asked: the search waits for nothing

QUERY: Final = "blue lamp"
SOURCES: Final = ("database", "elasticsearch", "external_api")
OTHERS: Final = ("reviews", "suppliers", "warehouse")

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
            "A source hung, and the search was still waiting when its budget had passed twice: in "
            "production each such request holds its connections until they run out. Put one "
            "asyncio.timeout(budget) around all of it.",
        ),
        Mistake(
            "budget-stretched",
            "waits for more than the budget, or works on when it has run out",
            "The search ended well after its budget had run out, so whoever called it has given up "
            "by then. The budget is the caller's to choose: put one asyncio.timeout(budget) around "
            "all of it, and return when it has run out.",
        ),
        Mistake(
            "budget-split",
            "gives each source a part of the budget, or returns with the first answers",
            "A source that would have answered within the budget was given up on: its results are "
            "missing for no reason. The budget is for all of them together, and each may use all "
            "of it.",
        ),
        Mistake(
            "waits-out-budget",
            "sleeps for the budget and then looks what has come",
            "All sources had answered, and the search went on waiting: every request would take "
            "the whole budget, also on a good day. Wait for the answers, at most as long as the "
            "budget.",
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
            "failed-as-empty",
            "returns an empty list, or None, for a source that failed",
            "A source that failed stands among what was found, as if it had found nothing: nobody "
            "learns of an outage that way. It belongs to what is missing.",
        ),
        Mistake(
            "empty-as-missing",
            "tests the hits for their truth",
            "A source answered that it has no hits, and the search reports it as missing or "
            "leaves it out. An empty list is an answer too: note it in found.",
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
            "catches every exception, or some kinds that only a bug raises",
            "A source had a bug, an ordinary KeyError or ValueError, and the search reported it as "
            "if the source were down. Catch what you expect, SourceUnavailable and TimeoutError, "
            "and no more.",
        ),
        Mistake(
            "bug-leaves-running",
            "lets the bug out while other sources are still asked, as gather does",
            "The bug came out while another source was still being asked. A TaskGroup cancels the "
            "others and waits until they have ended.",
        ),
        Mistake(
            "left-on-cancel",
            "makes tasks with create_task and does not end them when it is cancelled itself",
            "The search was cancelled, as when its client leaves, and its sources were still being "
            "asked. asyncio.wait leaves its tasks alone then: cancel and await them in a finally, "
            "or ask in a TaskGroup.",
        ),
        Mistake(
            "swallows-cancel",
            "catches CancelledError or BaseException and returns or goes on",
            "The search was cancelled and did not end cancelled: a deadline around it could not "
            "stop it. Your own deadline raises TimeoutError; let CancelledError through.",
        ),
        Mistake(
            "names-hard-coded",
            "asks the sources by names that it saw once, or keeps what an earlier search found",
            "The search looks for sources that it was not given, or answers with them. Another "
            "service calls its sources something else: take the names from the dict that is passed "
            "in, and begin each search with new dicts.",
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
    """One search: how its sources behave, by name, and what the check saw of them."""

    budget: float
    """In seconds."""
    behaviour: dict[str, Answer] = field(default_factory=dict)
    hits: dict[str, list[str]] = field(default_factory=dict)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    all_asked: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    most_at_once: int = 0
    left: list[str] = field(default_factory=list)
    outlasted: bool = False
    took: float = 0.0
    lag: float = 0.0

    def set(self, behaviour: dict[str, Answer]) -> None:
        """Say how the sources behave; the last one that is named finds nothing."""
        self.behaviour = behaviour
        self.hits = {name: [f"{QUERY} of {name}"] for name in behaviour}
        self.hits[list(behaviour)[-1]] = []

    @property
    def sources(self) -> dict[str, Callable[[str], Awaitable[list[str]]]]:
        """The async functions that are handed to the learner's code."""
        return {name: self._source(name) for name in self.behaviour}

    def _source(self, name: str) -> Callable[[str], Awaitable[list[str]]]:
        async def source(query: str) -> list[str]:
            self.asked.append((name, query))
            self.running.append(name)
            self.most_at_once = max(self.most_at_once, len(self.running))
            if len(self.asked) == len(self.behaviour):
                self.all_asked.set()
            try:
                await self.behaviour[name]()
                return list(self.hits[name])
            finally:
                self.running.remove(name)

        return source

    async def hang(self) -> None:
        """Wait for the check to lose patience; a cancellation takes a moment, as in life."""
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(ms(2))
            raise
        self.outlasted = True

    async def waits_for_nothing(self) -> None:
        """Return when no source has been asked for many looks.

        Looks are counted, not time: a machine that stops everything stops them as well.
        """
        looks = 0
        while looks < STILL:
            await asyncio.sleep(ms(TICK))
            looks = 0 if self.running else looks + 1

    @property
    def found(self) -> dict[str, list[str]]:
        """What a search finds when every source answers."""
        return dict(self.hits)


def _after(seconds: float, error: Exception | None = None) -> Answer:
    async def answer() -> None:
        await asyncio.sleep(seconds)
        if error is not None:
            raise error

    return answer


class _Bug(KeyError, ValueError, TypeError, RuntimeError, ArithmeticError):
    """A fault in a source's code, which any except that is too wide catches."""


async def check_search(search_sources: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's search of lesson 05, show one line, and return the verdict.

    It is called as ``await search_sources(query, sources, budget)``: ``sources`` are three async
    functions by name, ``budget`` is in seconds. It returns ``(found, missing)``: lists by source,
    and ``"late"`` or ``"failed"`` by source. It passes if

    - the sources are asked at the same time, and each may use the whole budget;
    - it answers when all have answered or the budget has run out, with what has come, and nothing
      of it runs on;
    - :class:`SourceUnavailable` and a source's own ``TimeoutError`` cost that source only;
    - any other error comes out;
    - cancelled itself, it ends cancelled, with no source being asked.

    ``limit`` is how long the function may take in all, in seconds; 15 unless given. An endless loop
    that never awaits cannot be stopped: restart the kernel.
    """
    return await check(functools.partial(_judge, search=search_sources), limit=limit)


Search = Callable[..., Any]


async def _judge(sandbox: Sandbox, *, search: Any) -> str:
    search = require_function(search, example="check_search(search_sources)")
    await _judge_good_day(sandbox, search)
    await _judge_hung_source(sandbox, search, ms(BUDGETS[0]), OTHERS[::-1])
    await _judge_hung_source(sandbox, search, ms(BUDGETS[1]), SOURCES)
    await _judge_failures(sandbox, search)
    await _judge_bug(sandbox, search)
    await _judge_cancelled(sandbox, search)
    return (
        "One budget for all three: what comes in time is found, what does not is named, and "
        "nothing runs on."
    )


async def _run(
    sandbox: Sandbox, search: Search, round_: _Round, *, cancel: bool = False
) -> Ran[Any]:
    """Run the search until it has ended, or waits for nothing.

    With ``cancel`` it is cancelled once every source is asked.
    """
    loop = asyncio.get_running_loop()
    release = loop.call_later(PATIENCE * round_.budget, round_.released.set)
    began = loop.time()

    async def searching() -> Any:
        try:
            return await require_awaitable(search(QUERY, round_.sources, round_.budget))
        finally:
            # Seen now, not later: a source that was cancelled and not awaited ends by itself.
            round_.left = sorted(round_.running)
            round_.took = loop.time() - began

    async def searched() -> Any:
        task = asyncio.create_task(searching())
        waiting = asyncio.create_task(round_.waits_for_nothing())
        try:
            if cancel:
                asked = asyncio.create_task(round_.all_asked.wait())
                await asyncio.wait({task, asked, waiting}, return_when=asyncio.FIRST_COMPLETED)
                asked.cancel()
                task.cancel()
                # A source that hangs answers soon, so that a search which goes on ends.
                loop.call_later(ms(TICK * STILL), round_.released.set)
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            waiting.cancel()
        if len({name for name, _ in round_.asked}) == len(round_.behaviour):
            raise EXERCISE.wrong("waits-out-budget")
        raise wrong("never-ends", "no source was being asked")

    try:
        async with loop_lag() as lag:
            ran = await sandbox.run(searched)
        round_.lag = lag.worst
    finally:
        release.cancel()
        round_.released.set()
    if isinstance(ran.error, Wrong):
        raise ran.error
    known = {repr(name) for name in {*SOURCES, *OTHERS} - round_.behaviour.keys()}
    if any(isinstance(leaf, KeyError) and str(leaf) in known for leaf in _leaves(ran.error)):
        _let_go_and_raise(ran, "names-hard-coded")
    return ran


async def _judge_good_day(sandbox: Sandbox, search: Search) -> None:
    round_ = _Round(ms(AMPLE))
    round_.set(dict.fromkeys(SOURCES, _after(ms(10))))
    ran = await _run(sandbox, search, round_)
    if round_.left and ran.error is None:
        raise wrong("left-running", ", ".join(round_.left))
    found, missing = _two_dicts(ran.result())
    if round_.found.keys() - found.keys() == {SOURCES[-1]}:
        raise EXERCISE.wrong("empty-as-missing")
    _compare((found, missing), round_.found, {})
    if any(query != QUERY for _, query in round_.asked):
        raise EXERCISE.wrong("wrong-answer", "the sources were asked something else")
    if len(round_.asked) > len(SOURCES):
        raise EXERCISE.wrong("wrong-answer", "a source was asked twice, though it had answered")
    if round_.most_at_once < len(SOURCES):
        raise EXERCISE.wrong("one-by-one", f"{round_.most_at_once} at once")


async def _judge_hung_source(
    sandbox: Sandbox, search: Search, budget: float, names: tuple[str, ...]
) -> None:
    """Find a search that ends too soon or too late; ``budget`` is in seconds.

    What a loop has measured late is tried again, with more time.
    """
    for turn in range(TRIES):
        round_ = _Round(budget * 2**turn)
        mistake = await _mistake_with_hung_source(sandbox, search, round_, names)
        if mistake is None:
            return
        if round_.lag < NOTICED * round_.budget or turn == TRIES - 1:
            raise mistake


async def _mistake_with_hung_source(
    sandbox: Sandbox, search: Search, round_: _Round, names: tuple[str, ...]
) -> Wrong | None:
    """Return a mistake that a late loop may have made; raises Wrong for any other."""
    quick, slow, hangs = sorted(names)
    ways = {quick: _after(0), slow: _after(LATE * round_.budget), hangs: round_.hang}
    round_.set({name: ways[name] for name in names})
    ran = await _run(sandbox, search, round_)
    if round_.outlasted:
        return EXERCISE.wrong("no-budget")
    if _has(ran.error, TimeoutError):
        _let_go_and_raise(ran, "all-or-nothing")
    if round_.took > OVER * round_.budget and ran.error is None:
        return EXERCISE.wrong("budget-stretched", f"{round_.took / round_.budget:.2g} budgets")
    if round_.left and ran.error is None:
        raise EXERCISE.wrong("late-left-running", ", ".join(round_.left))
    found, missing = _two_dicts(ran.result())
    _judge_names(found, missing, names)
    if hangs in found:
        raise EXERCISE.wrong("late-as-empty")
    if slow not in found:
        return EXERCISE.wrong("budget-split")
    expected = {name: round_.found[name] for name in (slow, quick)}
    _compare((found, missing), expected, {hangs: "late"})
    return None


async def _judge_failures(sandbox: Sandbox, search: Search) -> None:
    good, down, gives_up = OTHERS
    round_ = _Round(ms(AMPLE))
    round_.set(
        {
            good: _after(ms(30)),
            down: _after(0, SourceUnavailable("the source is down")),
            gives_up: _after(ms(10), TimeoutError()),
        }
    )
    ran = await _run(sandbox, search, round_)
    if _has(ran.error, SourceUnavailable):
        _let_go_and_raise(ran, "failure-loses-all")
    if _has(ran.error, TimeoutError):
        _let_go_and_raise(ran, "inner-timeout-taken-for-deadline")
    found, missing = _two_dicts(ran.result())
    if as_found := {down, gives_up} & found.keys():
        raise EXERCISE.wrong("failed-as-empty", ", ".join(sorted(as_found)))
    if good not in found or missing.get(gives_up) == "late":
        raise EXERCISE.wrong("inner-timeout-taken-for-deadline")
    expected = {down: "failed", gives_up: "failed"}
    _compare((found, missing), {good: round_.found[good]}, expected)


async def _judge_bug(sandbox: Sandbox, search: Search) -> None:
    buggy, good, hangs = SOURCES
    round_ = _Round(ms(BUDGETS[0]))
    round_.set({buggy: _after(0, _Bug("name")), good: _after(ms(10)), hangs: round_.hang})
    ran = await _run(sandbox, search, round_)
    if ran.error is None:
        raise EXERCISE.wrong("bug-hidden")
    if not _has(ran.error, _Bug):
        ran.result()
    let_go(ran.error)
    if round_.left:
        raise EXERCISE.wrong("bug-leaves-running", ", ".join(round_.left))


async def _judge_cancelled(sandbox: Sandbox, search: Search) -> None:
    round_ = _Round(ms(AMPLE))
    round_.set(dict.fromkeys(SOURCES, round_.hang))
    ran = await _run(sandbox, search, round_, cancel=True)
    if round_.outlasted or ran.error is None:
        raise EXERCISE.wrong("swallows-cancel")
    if not isinstance(ran.error, asyncio.CancelledError):
        raise blame(ran.error)
    if round_.left or ran.left:
        raise EXERCISE.wrong("left-on-cancel", ", ".join(round_.left or ran.left))


def _leaves(error: BaseException | None) -> list[BaseException]:
    return [] if error is None else list(leaves(error))


def _has(error: BaseException | None, kind: type[Exception]) -> bool:
    return any(isinstance(leaf, kind) for leaf in _leaves(error))


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


def _judge_names(found: dict[str, Any], missing: dict[str, Any], names: tuple[str, ...]) -> None:
    """Find sources in the answer that were another search's."""
    if others := (found.keys() | missing.keys()) & ({*SOURCES, *OTHERS} - {*names}):
        raise EXERCISE.wrong("names-hard-coded", ", ".join(sorted(others)))


def _compare(answer: Any, expected: dict[str, Any], lacking: dict[str, str]) -> None:
    found, missing = _two_dicts(answer)
    _judge_names(found, missing, (*expected, *lacking))
    for name in expected:
        if name in found and found[name] != expected[name]:
            raise EXERCISE.wrong("wrong-answer", f"look at found[{name!r}]")
    if found.keys() != expected.keys() or missing.keys() != lacking.keys():
        told = f"found {sorted(map(str, found))}, missing {sorted(map(str, missing))}"
        raise EXERCISE.wrong("wrong-answer", told)
    for name, reason in lacking.items():
        if missing[name] != reason:
            raise EXERCISE.wrong("wrong-reason", f"{name} is {reason!r}")
