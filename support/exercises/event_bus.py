"""The exercise of lesson 12: a bus whose handlers fail independently, and whose failures are told.

Handlers are to run at the same time, because ``publish`` waits for them: one after another, one
that is slow would hold up the others and the publisher. The lesson's own bus calls them in turn,
since nobody waits for its worker.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from support.exercises.checking import check, require_function
from support.exercises.error_text import leaves
from support.exercises.sandbox import Ran, Sandbox, blame, require_awaitable
from support.exercises.verdicts import Exercise, Mistake, Verdict, wrong
from support.lab.silent_failures import let_go
from support.lab.units import ms

EVENT = "user.created"
PATIENCE = 1_000  # milliseconds that handlers wait for each other, and the check for a cancellation
SLOW = 20  # milliseconds that a slow handler takes
EXAMPLE = "check_event_bus(ReportingBus)"

DATA = {"id": "7", "email": "ada@x.test"}

Handler = Callable[[Any], Any]

EXERCISE = Exercise(
    lesson="12",
    check="check_event_bus",
    stub="silent",
    task="Write a bus whose handlers fail independently and whose failures are reported.",
    usual_wrong_prediction=(
        "That a queue makes the handlers quicker: the mail takes as long as before, and only the "
        "answer no longer waits for it."
    ),
    mistakes=(
        Mistake(
            "silent",
            "leaves the stub as it is: gather collects the errors, and nobody reads them",
            "A handler failed, and nobody was told. gather hands the errors over in its result: "
            "look through it, and call report(event_type, handler, error) for each.",
        ),
        Mistake(
            "failure-raised",
            "lets a handler's error out of publish",
            "A handler failed, and publish raised its error. Who publishes cannot mend a handler: "
            "report the error, and raise nothing.",
        ),
        Mistake(
            "one-stops-the-others",
            "lets one failure cancel the other handlers, or never call them",
            "A handler failed, and another one did not get to its end. Catch each handler's error "
            "inside its own task: then there is nothing for a TaskGroup or a loop to stop at.",
        ),
        Mistake(
            "not-all-reported",
            "reports the first failure only",
            "Two handlers failed, and not both were reported. Look at every handler's outcome.",
        ),
        Mistake(
            "wrong-report",
            "reports something else than event, handler and error, or reports twice",
            "A failure is reported once, as report(event_type, handler, error): the event's name, "
            "the handler that was subscribed, and the exception itself.",
        ),
        Mistake(
            "reports-success",
            "reports handlers that did not fail",
            "A handler was reported that did not fail. Report exceptions only.",
        ),
        Mistake(
            "not-called",
            "calls a handler twice, with other data or for another event, or never",
            "Each handler of an event is to be called once, with the data, and no other handler.",
        ),
        Mistake(
            "plain-function",
            "calls handlers outside the try, or awaits what a plain function returns",
            "A plain function among the handlers upset the others. It runs, and may fail, as soon "
            "as it is called, and returns nothing to await. Call it where its error is caught, "
            "such as in a coroutine of your own around each handler, and await its result if "
            "inspect.isawaitable says so.",
        ),
        Mistake(
            "one-by-one",
            "awaits one handler after another",
            "The handlers run one after another, so a slow one holds up the others and whoever "
            "publishes. Start all of them, then wait for all.",
        ),
        Mistake(
            "returns-early",
            "starts tasks and does not wait for all of them",
            "publish returned before its handlers had ended. Wait for all of them.",
        ),
        Mistake(
            "cancelled-unreported",
            "looks for Exception only, or lets a handler's CancelledError out",
            "A handler ended in CancelledError by itself, and that was not reported. It failed "
            "too, and CancelledError is a BaseException, not an Exception.",
        ),
        Mistake(
            "cancellation-is-no-failure",
            "catches the publisher's cancellation, and reports it or goes on",
            "The publisher was cancelled, and the bus took it for a failure of the handler. Let "
            "CancelledError through when it is publish itself that is cancelled, and report "
            "nothing.",
        ),
        Mistake(
            "handlers-survive",
            "uses asyncio.wait or shield, which leave the handlers running",
            "The publisher was cancelled, and its handlers run on with nobody to wait for them. "
            "gather and TaskGroup hand the cancellation on.",
        ),
        Mistake(
            "skips-a-neighbour",
            "walks through the list of handlers while a handler changes it",
            "A handler unsubscribed itself when it was called, and another one was skipped. Go "
            "through a copy of the list.",
        ),
        Mistake(
            "still-called",
            "does not take the handler out when it unsubscribes",
            "A handler was called after it had been unsubscribed.",
        ),
        Mistake(
            "no-handlers",
            "fails when nobody has subscribed",
            "An event that nobody has subscribed to is no error: publish has nothing to do.",
        ),
    ),
)


async def check_event_bus(bus: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's bus of lesson 12, show one line, and return the verdict.

    ``bus`` is the class. It is called as ``bus(report)``; ``report(event_type, handler, error)`` is
    a plain function. The bus has ``subscribe(event_type, handler)``, ``unsubscribe`` with the same
    arguments, and ``await publish(event_type, data)``. It passes if

    - each handler of the event is called once with the data, whatever the others do;
    - ``publish`` returns when all have ended, having let them run at the same time;
    - every failure is reported once and raised nowhere, a handler's own CancelledError included;
    - handlers may be plain functions, and may unsubscribe themselves;
    - the publisher's cancellation reaches the handlers and is not reported.

    ``limit`` is how long the bus may take in all, in seconds; 15 unless given. An endless loop that
    never awaits cannot be stopped: restart the kernel.
    """
    return await check(functools.partial(_judge, bus=bus), limit=limit)


@dataclass
class _Seen:
    """What one bus did: calls and ends of handlers by name, and what was reported."""

    called: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    reports: list[tuple[Any, ...]] = field(default_factory=list)
    error: BaseException | None = None

    def report(self, *told: Any, **named: Any) -> None:
        self.reports.append((*told, *named.values()))

    def handler(self, name: str, *, error: BaseException | None = None, slow: float = 0) -> Handler:
        """Return an async handler that notes its call, waits, fails if told to, notes its end."""

        async def handler(data: Any) -> None:
            self._note(name, data)
            if slow:
                await asyncio.sleep(slow)
            if error is not None:
                raise error
            self.ended.append(name)

        handler.__name__ = handler.__qualname__ = name
        return handler

    def function(self, name: str, *, error: Exception | None = None) -> Handler:
        """Return a plain function that does the same."""

        def function(data: Any) -> None:
            self._note(name, data)
            if error is not None:
                raise error
            self.ended.append(name)

        function.__name__ = function.__qualname__ = name
        return function

    def _note(self, name: str, data: Any) -> None:
        self.called.append(name if data == DATA else f"{name} with other data")

    def judge_reports(self, expected: list[tuple[Handler, BaseException]], missing: str) -> None:
        """Raise Wrong unless exactly these failures were reported."""
        for told in self.reports:
            if len(told) != 3 or told[0] != EVENT or not isinstance(told[2], BaseException):
                raise EXERCISE.wrong("wrong-report", f"it got {_listed(told)}")
            if not any(told[1] is handler for handler, _ in expected):
                name = getattr(told[1], "__name__", repr(told[1]))
                raise EXERCISE.wrong("wrong-report", f"the handler it got is {name}")
        for handler, error in expected:
            times = sum(told[1] is handler for told in self.reports)
            if times == 0:
                raise EXERCISE.wrong(missing)
            if times > 1:
                raise EXERCISE.wrong("wrong-report", "the same failure came twice")
            told_errors = [told[2] for told in self.reports if told[1] is handler]
            if type(told_errors[0]) is not type(error):
                raise EXERCISE.wrong("wrong-report", f"the error was {type(error).__name__}")


Act = Callable[[Any], Awaitable[Any]]


class _Stage:
    """Where scenes are played: each with a bus of its own, on the sandbox."""

    def __init__(self, sandbox: Sandbox, make: Callable[..., Any]) -> None:
        self._sandbox = sandbox
        self._make = make

    async def play(self, seen: _Seen, *handlers: Handler, act: Act | None = None) -> Ran[Any]:
        """Subscribe the handlers and publish once, or do as ``act`` says with the bus."""

        async def publish(bus: Any) -> None:
            await require_awaitable(bus.publish(EVENT, dict(DATA)))

        async def scene() -> None:
            bus = self._make(seen.report)
            for handler in handlers:
                bus.subscribe(EVENT, handler)
            await (act or publish)(bus)

        return await self._sandbox.run(scene)


async def _judge(sandbox: Sandbox, *, bus: Any) -> str:
    stage = _Stage(sandbox, _require_class(bus))
    await _judge_calls(stage)
    await _judge_nobody(stage)
    await _judge_failures(stage)
    await _judge_functions(stage)
    await _judge_overlap(stage)
    await _judge_cancelled_handler(stage)
    await _judge_cancelled_publisher(stage)
    await _judge_unsubscribe(stage)
    return (
        "Every handler ran, whatever the others did; every failure was reported once, with its "
        "event and its handler."
    )


def _require_class(bus: Any) -> Callable[..., Any]:
    if hasattr(bus, "publish") and not isinstance(bus, type):
        raise wrong("wrong-type", f"pass the class, not a bus that is made: write {EXAMPLE}")
    return bus if isinstance(bus, type) else require_function(bus, example=EXAMPLE)


def _result(ran: Ran[Any], *, stray: str = "returns-early") -> None:
    """Raise Wrong when a run failed, or left a task running."""
    if ran.error is not None:
        raise blame(ran.error)
    if ran.left:
        raise EXERCISE.wrong(stray, ", ".join(ran.left))


async def _judge_calls(stage: _Stage) -> None:
    seen = _Seen()
    elsewhere = seen.handler("another event's handler")

    async def act(bus: Any) -> None:
        bus.subscribe("order.paid", elsewhere)
        await require_awaitable(bus.publish(EVENT, dict(DATA)))

    _result(await stage.play(seen, seen.handler("one"), seen.handler("two", slow=ms(1)), act=act))
    if sorted(seen.called) != ["one", "two"]:
        raise EXERCISE.wrong("not-called", f"called: {', '.join(seen.called) or 'none'}")
    if sorted(seen.ended) != ["one", "two"]:
        raise EXERCISE.wrong("returns-early")
    if seen.reports:
        raise EXERCISE.wrong("reports-success", f"it got {_listed(seen.reports[0])}")


async def _judge_nobody(stage: _Stage) -> None:
    ran = await stage.play(_Seen())
    if isinstance(ran.error, LookupError | TypeError | ValueError):
        raise EXERCISE.wrong("no-handlers", type(ran.error).__name__)
    _result(ran)


async def _judge_failures(stage: _Stage) -> None:
    seen = _Seen()
    lookup, value = LookupError("no such template"), ValueError("no such address")
    fails, fails_late = (
        seen.handler("fails", error=lookup),
        seen.handler("fails late", error=value, slow=ms(2)),
    )
    slow = seen.handler("slow", slow=ms(SLOW))
    ran = await stage.play(
        seen, seen.handler("before"), fails, slow, fails_late, seen.handler("after")
    )
    stopped = sorted({"before", "slow", "after"} - set(seen.ended))
    if ran.error is not None and any(one in (lookup, value) for one in leaves(ran.error)):
        let_go(ran.error)
        raise EXERCISE.wrong("one-stops-the-others" if stopped else "failure-raised")
    _result(ran)
    if stopped:
        raise EXERCISE.wrong("one-stops-the-others", f"look at {', '.join(stopped)}")
    missing = "not-all-reported" if seen.reports else "silent"
    seen.judge_reports([(fails, lookup), (fails_late, value)], missing)


async def _judge_functions(stage: _Stage) -> None:
    seen = _Seen()
    error = KeyError("email")
    fails = seen.function("fails", error=error)
    # The one that fails is called before a coroutine is made: none is forgotten on its account.
    names = ["plain", "one", "two"]
    ran = await stage.play(
        seen, seen.function("plain"), fails, seen.handler("one"), seen.handler("two")
    )
    if ran.error is not None and isinstance(next(leaves(ran.error)), TypeError | KeyError):
        let_go(ran.error)
        raise EXERCISE.wrong("plain-function")
    _result(ran)
    if sorted(seen.ended) != sorted(names):
        raise EXERCISE.wrong("plain-function", f"ended: {', '.join(seen.ended) or 'none'}")
    if any(isinstance(told[-1], TypeError) for told in seen.reports if told):
        raise EXERCISE.wrong("plain-function", "it was reported though it did not fail")
    seen.judge_reports([(fails, error)], "plain-function")


async def _judge_overlap(stage: _Stage) -> None:
    """Let two handlers wait for each other: in turn they never meet."""
    seen, met = _Seen(), []
    here = asyncio.Event(), asyncio.Event()

    def waiting(mine: asyncio.Event, other: asyncio.Event) -> Handler:
        async def handler(data: Any) -> None:
            mine.set()
            try:
                async with asyncio.timeout(ms(PATIENCE)):
                    await other.wait()
            except TimeoutError:
                return
            met.append(mine)

        return handler

    _result(await stage.play(seen, waiting(*here), waiting(*reversed(here))))
    if len(met) != 2:
        raise EXERCISE.wrong("one-by-one")


async def _judge_cancelled_handler(stage: _Stage) -> None:
    seen = _Seen()
    error = asyncio.CancelledError("gives up")
    gives_up = seen.handler("gives up", error=error, slow=ms(1))
    ran = await stage.play(seen, gives_up, seen.handler("slow", slow=ms(SLOW)))
    if isinstance(ran.error, asyncio.CancelledError) or seen.ended != ["slow"]:
        raise EXERCISE.wrong("cancelled-unreported", "and it ended publish" * bool(ran.error))
    _result(ran)
    seen.judge_reports([(gives_up, error)], "cancelled-unreported")


async def _judge_cancelled_publisher(stage: _Stage) -> None:
    seen = _Seen()
    began = asyncio.Event()
    survived = returned = False

    async def waits(data: Any) -> None:
        began.set()
        try:
            await asyncio.sleep(ms(PATIENCE))
        except asyncio.CancelledError:
            seen.ended.append("cancelled")
            raise

    async def act(bus: Any) -> None:
        nonlocal survived, returned
        task = asyncio.ensure_future(bus.publish(EVENT, dict(DATA)))
        await began.wait()
        task.cancel()
        await asyncio.wait([task])
        # The handlers, cancelled with the publisher, get the turns that it takes them to end.
        for _ in range(5):
            await asyncio.sleep(0)
        survived = not seen.ended
        returned = not task.cancelled() and task.exception() is None

    ran = await stage.play(seen, waits, act=act)
    if survived:
        raise EXERCISE.wrong("handlers-survive")
    _result(ran, stray="handlers-survive")
    if seen.reports or returned:
        detail = "it was reported" if seen.reports else "publish returned as if nothing was"
        raise EXERCISE.wrong("cancellation-is-no-failure", detail)


async def _judge_unsubscribe(stage: _Stage) -> None:
    seen = _Seen()
    buses: list[Any] = []

    def once(data: Any) -> None:
        buses[0].unsubscribe(EVENT, once)
        seen.called.append("once")

    async def once_too(data: Any) -> None:
        buses[0].unsubscribe(EVENT, once_too)
        seen.called.append("once too")

    async def act(bus: Any) -> None:
        buses.append(bus)
        for _ in range(2):
            await require_awaitable(bus.publish(EVENT, dict(DATA)))
            seen.called.append("|")

    handlers = once, seen.handler("one"), once_too, seen.handler("two")
    ran = await stage.play(seen, *handlers, act=act)
    _result(ran)
    if seen.reports:
        raise EXERCISE.wrong("skips-a-neighbour", f"it was reported: {_listed(seen.reports[0])}")
    end = seen.called.index("|")
    first, second = seen.called[:end], seen.called[end + 1 : -1]
    if sorted(first) != ["once", "once too", "one", "two"]:
        raise EXERCISE.wrong("skips-a-neighbour", f"called: {', '.join(first)}")
    if sorted(second) != ["one", "two"]:
        raise EXERCISE.wrong("still-called", f"called again: {', '.join(second)}")


def _listed(told: tuple[Any, ...]) -> str:
    return ", ".join(_word(one) for one in told) or "nothing"


def _word(one: Any) -> str:
    if isinstance(one, str):
        return repr(one)
    return getattr(one, "__name__", type(one).__name__)
