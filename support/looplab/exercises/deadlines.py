"""The exercise of lesson 05: a page of two steps that have one budget between them.

Both steps are the check's own, so that each answers, hangs or fails when the check wants it to.
Only the budget is a real wait, and it is measured from both sides: an extra that answers shortly
before its end has to be found, one that hangs has to be given up on shortly after it. What a loop
has seen late is tried again with more time. Any way to keep the budget is accepted: one deadline
around both steps, or a second one for what the first step has left.

A page that asks an extra again when it has failed is accepted too: within a budget, that is a
choice.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from looplab.exercises.checking import check, require_function
from looplab.exercises.error_text import holds, leaves
from looplab.exercises.late_loop import again_if_late
from looplab.exercises.sandbox import Ran, Sandbox, blame, require_awaitable
from looplab.exercises.verdicts import Exercise, Mistake, Verdict, Wrong, wrong
from looplab.lab.silent_failures import let_go
from looplab.lab.units import ms
from looplab.shop.sources import ExternalServiceError

BUDGETS: Final = (250, 400)  # milliseconds, where something hangs; no fixed time suits both
AMPLE: Final = 10_000  # milliseconds, where nothing does
LATE: Final = 0.9  # of the budget: when the slow extra answers
FIRST: Final = (0.6, 0.2)  # of the budget: what the search takes; halves of it suit neither
OVER: Final = 1.12  # budgets after which a page should have given up
PATIENCE: Final = 2  # budgets after which what hangs answers after all
NOTICED: Final = 0.04  # of the budget: a loop that is later than this has not measured well
TICK: Final = 20  # milliseconds between two looks at whether anything is asked
STILL: Final = 50  # so many looks without anything that is asked: the page waits for nothing

QUERY: Final = "blue lamp"
SEARCH: Final = "search"
EXTRAS: Final = ("prices", "reviews", "stock")
OTHERS: Final = ("pictures", "related", "shipping")

EXERCISE = Exercise(
    lesson="05",
    check="check_page",
    stub="one-by-one",
    task=(
        "Build a page in two steps within one budget: the products or an error, then what the "
        "extras add in the time that is left, and what is missing and why."
    ),
    usual_wrong_prediction=(
        "That two of three sources arrive. One deadline around all of them cancels the wait for "
        "all of them, and answers that were there are lost with it."
    ),
    mistakes=(
        Mistake(
            "one-by-one",
            "awaits the extras one after another, as the stub does",
            "The page is right, and its waits add up: each extra is asked when the one before has "
            "answered. They all need the products and nothing of each other, so start them "
            "together.",
        ),
        Mistake(
            "no-budget",
            "waits for an extra that hangs",
            "An extra hung, and the page was still waiting after twice its budget. In production "
            "each such request keeps its connections, until none is left. Put a deadline around "
            "this wait too.",
        ),
        Mistake(
            "search-without-budget",
            "gives the extras a deadline and the search none",
            "The search hung, and the page was still waiting after twice its budget. The first "
            "step needs a deadline as well.",
        ),
        Mistake(
            "budget-stretched",
            "begins a new budget for the second step, or works on when it has run out",
            "The page ended well after its budget had run out, and by then the caller has given "
            "up. The second step has what the first one left, so the budget has to begin before "
            "the search does.",
        ),
        Mistake(
            "budget-split",
            "gives each step a part of the budget, or returns with the first answers",
            "Something was given up on that would have been in time. A quick search leaves more to "
            "the extras and a slow one less, so don't fix in advance what each step may take.",
        ),
        Mistake(
            "waits-out-budget",
            "sleeps for the budget and then looks what has come",
            "Everything had been answered, and the page went on waiting. Every request would take "
            "the whole budget, on good days too. Wait for the answers, and use the budget as a "
            "limit.",
        ),
        Mistake(
            "all-or-nothing",
            "lets the deadline's TimeoutError out although there are products",
            "The budget ran out on an extra, and the page raised TimeoutError. It had its products "
            "and one extra by then, and a reader would have been glad of them. Return what there "
            "is.",
        ),
        Mistake(
            "page-without-products",
            "returns a page although the search was late",
            "The search did not answer in time, and the page was returned without products. "
            "Nobody can tell that from a shop that sells nothing. Raise TimeoutError when the "
            "budget runs out before the products are there.",
        ),
        Mistake(
            "goes-on-without-products",
            "catches the search's time-out and fails later, on products that are not there",
            "The search did not answer in time, and your page went on until another error came "
            "out. Without products there is nothing to go on with: let the TimeoutError out.",
        ),
        Mistake(
            "search-failure-hidden",
            "returns a page although the search failed, or raises something else",
            "The search failed with ExternalServiceError, and that did not come out. A page "
            "without products is no page: let the error of the search through.",
        ),
        Mistake(
            "late-as-empty",
            "returns an empty list, or None, for an extra that did not answer",
            "An extra that did not answer stands in found, as if it had found nothing. It belongs "
            "in missing.",
        ),
        Mistake(
            "failed-as-empty",
            "returns an empty list, or None, for an extra that failed",
            "An extra that failed stands in found, as if it had found nothing. That way nobody "
            "learns of an outage. It belongs in missing.",
        ),
        Mistake(
            "empty-as-missing",
            "tests the answers for their truth",
            "An extra answered that it has nothing to show, and the page reports it as missing or "
            "leaves it out. An empty list is an answer too, so keep it in found.",
        ),
        Mistake(
            "no-products-as-late",
            "tests the products for their truth when the budget runs out",
            "The search found no products, which is an answer, and the page raised TimeoutError "
            "when an extra was late. Tell an empty list from a search that has not answered.",
        ),
        Mistake(
            "late-left-running",
            "returns without cancelling the late extra, or without waiting until it has ended",
            "The page was returned while an extra was still being asked. Cancel what is late and "
            "wait until it has ended: leaving asyncio.timeout or a TaskGroup does both.",
        ),
        Mistake(
            "failure-loses-all",
            "lets an extra's ExternalServiceError out",
            "One extra was down, and the products and the other extras are lost. Catch "
            "ExternalServiceError for each extra.",
        ),
        Mistake(
            "inner-timeout-taken-for-deadline",
            "takes an extra's own TimeoutError for the deadline, or lets it out",
            "An extra gave up by itself with TimeoutError, long before the budget ran out. That is "
            '"failed", and the others go on. Catch it inside the deadline, for that extra, or ask '
            "the deadline whether it has expired().",
        ),
        Mistake(
            "bug-hidden",
            "catches every exception, or some kinds that only a bug raises",
            "An extra had a bug, an ordinary KeyError or ValueError, and the page reported it as "
            "if the extra were down. Catch what you expect, ExternalServiceError and TimeoutError, "
            "and no more.",
        ),
        Mistake(
            "bug-leaves-running",
            "lets the bug out while other extras are still asked, as gather does",
            "The bug came out while another extra was still being asked. A TaskGroup cancels the "
            "others and waits until they have ended.",
        ),
        Mistake(
            "left-on-cancel",
            "makes tasks with create_task and does not end them when it is cancelled itself",
            "The page was cancelled, as when its client leaves, and something was still being "
            "asked. asyncio.wait and shield leave their tasks alone then: cancel and await them in "
            "a finally, or use a TaskGroup.",
        ),
        Mistake(
            "swallows-cancel",
            "catches CancelledError or BaseException and returns or goes on",
            "The page was cancelled and did not end cancelled, so a deadline around it could not "
            "stop it. Your own deadline raises TimeoutError; let CancelledError through.",
        ),
        Mistake(
            "names-hard-coded",
            "asks the extras by names that it saw once, or keeps what an earlier page found",
            "The page looks for extras that it was not given, or answers with them. Another page "
            "has other extras: take the names from the dict that is passed in, and begin each page "
            "with new dicts.",
        ),
        Mistake(
            "wrong-reason",
            'gives another reason than "late" and "failed", or mixes the two up',
            "What is missing is right, and its reason is not.",
        ),
        Mistake(
            "wrong-answer",
            "returns something else than products, found and missing, or other contents",
            "The page is to return three things: the list of products, a dict of what the extras "
            "found, and a dict of what is missing.",
        ),
    ),
)

Answer = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class _Round:
    """One page: how the search and its extras behave, and what the check saw of them."""

    budget: float
    """In seconds."""
    searching: Answer | None
    """How the search behaves; None hangs, so that no extra is asked."""
    behaviour: dict[str, Answer] = field(default_factory=dict)
    products: list[str] = field(default_factory=lambda: ["lamp", "blue lamp"])
    shown: dict[str, list[str]] = field(default_factory=dict)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    all_asked: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    most_at_once: int = 0
    left: list[str] = field(default_factory=list)
    outlasted: bool = False
    took: float = 0.0

    def set(self, behaviour: dict[str, Answer]) -> None:
        """Say how the extras behave; the last one that is named has nothing to show."""
        self.behaviour = behaviour
        self.shown = {name: [f"{name} of {QUERY}"] for name in behaviour}
        self.shown[list(behaviour)[-1]] = []

    @property
    def search(self) -> Callable[[str], Awaitable[list[str]]]:
        """The first step, as it is handed to the learner's code."""
        return self._step(SEARCH, self.searching or self.hang, self.products)

    @property
    def extras(self) -> dict[str, Callable[[list[str]], Awaitable[list[str]]]]:
        """The second step's functions, as they are handed to the learner's code."""
        return {
            name: self._step(name, answer, self.shown[name])
            for name, answer in self.behaviour.items()
        }

    @property
    def last_asked(self) -> int:
        """How many calls there are when all has begun that will."""
        return 1 if self.searching is None else 1 + len(self.behaviour)

    def _step(
        self, name: str, answer: Answer, returned: list[str]
    ) -> Callable[[Any], Awaitable[list[str]]]:
        async def step(about: Any) -> list[str]:
            self.asked.append((name, list(about) if isinstance(about, list) else about))
            self.running.append(name)
            self.most_at_once = max(self.most_at_once, len(self.running))
            if len(self.asked) == self.last_asked:
                self.all_asked.set()
            try:
                await answer()
                return list(returned)
            finally:
                self.running.remove(name)

        return step

    async def hang(self) -> None:
        """Wait for the check to lose patience; a cancellation takes a moment, as in life."""
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(ms(2))
            raise
        self.outlasted = True

    async def waits_for_nothing(self) -> None:
        """Return when nothing has been asked for many looks.

        Looks are counted, not time: a machine that stops everything stops them as well.
        """
        looks = 0
        while looks < STILL:
            await asyncio.sleep(ms(TICK))
            looks = 0 if self.running else looks + 1


def _after(seconds: float, error: Exception | None = None) -> Answer:
    async def answer() -> None:
        await asyncio.sleep(seconds)
        if error is not None:
            raise error

    return answer


class _Bug(KeyError, ValueError, TypeError, RuntimeError, ArithmeticError):
    """A fault in an extra's code, which any except that is too wide catches."""


async def check_page(product_page: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's page of lesson 05, show one line, and return the verdict.

    It is called as ``await product_page(query, search, extras, budget)``: ``search`` is an async
    function of the query, ``extras`` are three async functions of the products by name, ``budget``
    is in seconds. It returns ``(products, found, missing)``: a list, lists by extra, and ``"late"``
    or ``"failed"`` by extra. It passes if

    - the extras are asked at the same time, with the products, and have the time that is left;
    - it answers when all have answered or the budget has run out, with what has come, and nothing
      of it runs on;
    - it raises ``TimeoutError`` when the budget runs out before there are products, and lets the
      search's own error out;
    - :class:`ExternalServiceError` and an extra's own ``TimeoutError`` cost that extra only;
    - any other error comes out;
    - cancelled itself, it ends cancelled, with nothing being asked.

    ``limit`` is how long the function may take in all, in seconds; 15 unless given. An endless loop
    that never awaits cannot be stopped: restart the kernel.
    """
    return await check(functools.partial(_judge, page=product_page), limit=limit)


Page = Callable[..., Any]


async def _judge(sandbox: Sandbox, *, page: Any) -> str:
    page = require_function(page, example="check_page(product_page)")
    await _judge_good_day(sandbox, page)
    for budget, first, names in zip(BUDGETS, FIRST, (OTHERS[::-1], EXTRAS), strict=True):
        hung = functools.partial(_judge_hung_extra, first=first, names=names)
        await _in_time(hung, sandbox, page, budget)
    await _in_time(_judge_hung_search, sandbox, page, BUDGETS[0])
    await _judge_failed_search(sandbox, page)
    await _in_time(_judge_nothing_found, sandbox, page, BUDGETS[0])
    await _judge_failures(sandbox, page)
    await _in_time(_judge_bug, sandbox, page, BUDGETS[0])
    await _judge_cancelled(sandbox, page)
    return (
        "One budget for both steps: a page has its products or there is none, what comes in time "
        "is shown, what does not is named, and nothing runs on."
    )


async def _run(sandbox: Sandbox, page: Page, round_: _Round, *, cancel: bool = False) -> Ran[Any]:
    """Build the page until it has ended, or waits for nothing.

    With ``cancel`` it is cancelled once all is asked that will be.
    """
    loop = asyncio.get_running_loop()
    release = loop.call_later(PATIENCE * round_.budget, round_.released.set)
    began = loop.time()

    async def building() -> Any:
        try:
            call = page(QUERY, round_.search, round_.extras, round_.budget)
            return await require_awaitable(call)
        finally:
            # Seen now, not later: an extra that was cancelled and not awaited ends by itself.
            round_.left = sorted(round_.running)
            round_.took = loop.time() - began

    async def built() -> Any:
        task = asyncio.create_task(building())
        waiting = asyncio.create_task(round_.waits_for_nothing())
        try:
            if cancel:
                asked = asyncio.create_task(round_.all_asked.wait())
                await asyncio.wait({task, asked, waiting}, return_when=asyncio.FIRST_COMPLETED)
                asked.cancel()
                task.cancel()
                # What hangs answers soon, so that a page which goes on ends.
                loop.call_later(ms(TICK * STILL), round_.released.set)
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            waiting.cancel()
        if len({name for name, _ in round_.asked}) == round_.last_asked:
            raise EXERCISE.wrong("waits-out-budget")
        raise wrong("never-ends", "nothing was being asked")

    try:
        ran = await sandbox.run(built)
    finally:
        release.cancel()
        round_.released.set()
    if isinstance(ran.error, Wrong):
        raise ran.error
    known = {repr(name) for name in {*EXTRAS, *OTHERS} - round_.behaviour.keys()}
    errors = [] if ran.error is None else leaves(ran.error)
    if any(isinstance(leaf, KeyError) and str(leaf) in known for leaf in errors):
        _let_go_and_raise(ran, "names-hard-coded")
    return ran


async def _judge_good_day(sandbox: Sandbox, page: Page) -> None:
    round_ = _Round(ms(AMPLE), _after(ms(10)))
    round_.set(dict.fromkeys(EXTRAS, _after(ms(10))))
    ran = await _run(sandbox, page, round_)
    if round_.left and ran.error is None:
        raise wrong("left-running", ", ".join(round_.left))
    products, found, missing = _three(ran.result())
    if round_.shown.keys() - found.keys() == {EXTRAS[-1]}:
        raise EXERCISE.wrong("empty-as-missing")
    _compare((products, found, missing), round_, round_.shown, {})
    if (SEARCH, QUERY) not in round_.asked:
        raise EXERCISE.wrong("wrong-answer", "the search was asked something else")
    if any(about != round_.products for name, about in round_.asked if name != SEARCH):
        raise EXERCISE.wrong("wrong-answer", "the extras were not given the products")
    if len(round_.asked) > round_.last_asked:
        raise EXERCISE.wrong("wrong-answer", "something was asked twice, though it had answered")
    if round_.most_at_once < len(EXTRAS):
        raise EXERCISE.wrong("one-by-one", f"{round_.most_at_once} at once")


async def _in_time(
    judge: Callable[..., Awaitable[None]], sandbox: Sandbox, page: Page, budget: float
) -> None:
    """Judge a page that has a budget to keep, in milliseconds."""

    async def judged(stretch: float) -> None:
        await judge(sandbox, page, ms(budget * stretch))

    await again_if_late(judged, noticed=NOTICED * ms(budget))


async def _judge_hung_extra(
    sandbox: Sandbox, page: Page, budget: float, *, first: float, names: tuple[str, ...]
) -> None:
    quick, slow, hangs = sorted(names)
    round_ = _Round(budget, _after(first * budget))
    ways = {quick: _after(0), slow: _after((LATE - first) * budget), hangs: round_.hang}
    round_.set({name: ways[name] for name in names})
    ran = await _run(sandbox, page, round_)
    if round_.outlasted:
        raise EXERCISE.wrong("no-budget")
    if ran.error is not None and holds(ran.error, TimeoutError):
        # Given up on the search, or on the extras before the budget had run out.
        early = len(round_.asked) == 1
        _let_go_and_raise(ran, "budget-split" if early else "all-or-nothing")
    if ran.error is None:
        if round_.took > OVER * round_.budget:
            raise _stretched(round_)
        if round_.left:
            raise EXERCISE.wrong("late-left-running", ", ".join(round_.left))
    products, found, missing = _three(ran.result())
    _judge_names(found, missing, (quick, slow, hangs))
    if len(round_.asked) == 1:
        raise EXERCISE.wrong("budget-split", "the search had not ended")
    if hangs in found:
        raise EXERCISE.wrong("late-as-empty")
    if slow not in found:
        raise EXERCISE.wrong("budget-split")
    expected = {name: round_.shown[name] for name in (slow, quick)}
    _compare((products, found, missing), round_, expected, {hangs: "late"})


async def _judge_hung_search(sandbox: Sandbox, page: Page, budget: float) -> None:
    round_ = _Round(budget, None)
    round_.set(dict.fromkeys(EXTRAS, _after(0)))
    ran = await _run(sandbox, page, round_)
    if round_.outlasted:
        _let_go_and_raise(ran, "search-without-budget")
    if ran.error is None:
        raise EXERCISE.wrong("page-without-products")
    if not holds(ran.error, TimeoutError):
        fault = blame(ran.error)
        if isinstance(fault, Wrong) and fault.mistake.name == "raised":
            raise EXERCISE.wrong("goes-on-without-products", fault.detail)
        raise fault
    let_go(ran.error)
    if round_.took > OVER * round_.budget:
        raise _stretched(round_)
    if round_.left:
        raise EXERCISE.wrong("late-left-running", SEARCH)


def _stretched(round_: _Round) -> Wrong:
    return EXERCISE.wrong("budget-stretched", f"{round_.took / round_.budget:.2g} budgets")


async def _judge_failed_search(sandbox: Sandbox, page: Page) -> None:
    round_ = _Round(ms(AMPLE), _after(0, ExternalServiceError("search", "status 503")))
    round_.set(dict.fromkeys(EXTRAS, _after(0)))
    ran = await _run(sandbox, page, round_)
    if not holds(ran.error, ExternalServiceError):
        if ran.error is not None:
            let_go(ran.error)
        raise EXERCISE.wrong("search-failure-hidden")
    if ran.error is not None:
        let_go(ran.error)


async def _judge_nothing_found(sandbox: Sandbox, page: Page, budget: float) -> None:
    """No products and a late extra: that is a page, with a late extra."""
    round_ = _Round(budget, _after(0), products=[])
    good, other, hangs = EXTRAS
    round_.set({good: _after(0), other: _after(0), hangs: round_.hang})
    ran = await _run(sandbox, page, round_)
    if holds(ran.error, TimeoutError):
        _let_go_and_raise(ran, "no-products-as-late")
    products, found, missing = _three(ran.result())
    if len(round_.asked) == 1 and not found and products == []:
        return  # nothing to show for nothing: a choice
    expected = {name: round_.shown[name] for name in (good, other)}
    _compare((products, found, missing), round_, expected, {hangs: "late"})


async def _judge_failures(sandbox: Sandbox, page: Page) -> None:
    good, down, gives_up = OTHERS
    round_ = _Round(ms(AMPLE), _after(0))
    round_.set(
        {
            good: _after(ms(30)),
            down: _after(0, ExternalServiceError(down, "status 503")),
            gives_up: _after(ms(10), TimeoutError()),
        }
    )
    ran = await _run(sandbox, page, round_)
    if holds(ran.error, ExternalServiceError):
        _let_go_and_raise(ran, "failure-loses-all")
    if holds(ran.error, TimeoutError):
        _let_go_and_raise(ran, "inner-timeout-taken-for-deadline")
    products, found, missing = _three(ran.result())
    if as_found := {down, gives_up} & found.keys():
        raise EXERCISE.wrong("failed-as-empty", ", ".join(sorted(as_found)))
    if good not in found or missing.get(gives_up) == "late":
        raise EXERCISE.wrong("inner-timeout-taken-for-deadline")
    expected = {down: "failed", gives_up: "failed"}
    _compare((products, found, missing), round_, {good: round_.shown[good]}, expected)


async def _judge_bug(sandbox: Sandbox, page: Page, budget: float) -> None:
    buggy, good, hangs = EXTRAS
    round_ = _Round(budget, _after(0))
    round_.set({buggy: _after(0, _Bug("name")), good: _after(ms(10)), hangs: round_.hang})
    ran = await _run(sandbox, page, round_)
    if ran.error is None:
        raise EXERCISE.wrong("bug-hidden")
    if not holds(ran.error, _Bug):
        ran.result()
    let_go(ran.error)
    if round_.left:
        raise EXERCISE.wrong("bug-leaves-running", ", ".join(round_.left))


async def _judge_cancelled(sandbox: Sandbox, page: Page) -> None:
    """Cancel a page twice: while its extras are asked, and while its search is."""
    for searching in (_after(0), None):
        round_ = _Round(ms(AMPLE), searching)
        round_.set(dict.fromkeys(EXTRAS, round_.hang))
        ran = await _run(sandbox, page, round_, cancel=True)
        if round_.outlasted or ran.error is None or holds(ran.error, TimeoutError):
            _let_go_and_raise(ran, "swallows-cancel")
        if not isinstance(ran.error, asyncio.CancelledError):
            raise blame(ran.error)
        if round_.left or ran.left:
            raise EXERCISE.wrong("left-on-cancel", ", ".join(round_.left or ran.left))


def _let_go_and_raise(ran: Ran[Any], mistake: str) -> NoReturn:
    if ran.error is not None:
        let_go(ran.error)
    raise EXERCISE.wrong(mistake)


def _three(answer: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    match answer:
        case None:
            raise wrong("not-written", "product_page returned None")
        case (products, dict() as found, dict() as missing):
            return products, found, missing
        case tuple():
            told = f"it returned {', '.join(type(each).__name__ for each in answer) or 'nothing'}"
            raise EXERCISE.wrong("wrong-answer", told)
    raise EXERCISE.wrong("wrong-answer", f"it returned {type(answer).__name__}")


def _judge_names(found: dict[str, Any], missing: dict[str, Any], names: tuple[str, ...]) -> None:
    """Find extras in the answer that were another page's."""
    if others := (found.keys() | missing.keys()) & ({*EXTRAS, *OTHERS} - {*names}):
        raise EXERCISE.wrong("names-hard-coded", ", ".join(sorted(others)))


def _compare(
    answer: tuple[Any, dict[str, Any], dict[str, Any]],
    round_: _Round,
    expected: dict[str, Any],
    lacking: dict[str, str],
) -> None:
    products, found, missing = answer
    _judge_names(found, missing, (*expected, *lacking))
    if products != round_.products:
        raise EXERCISE.wrong("wrong-answer", "look at the products")
    for name in expected:
        if name in found and found[name] != expected[name]:
            raise EXERCISE.wrong("wrong-answer", f"look at found[{name!r}]")
    if found.keys() != expected.keys() or missing.keys() != lacking.keys():
        told = f"found {sorted(map(str, found))}, missing {sorted(map(str, missing))}"
        raise EXERCISE.wrong("wrong-answer", told)
    for name, reason in lacking.items():
        if missing[name] != reason:
            raise EXERCISE.wrong("wrong-reason", f"{name} is {reason!r}")
