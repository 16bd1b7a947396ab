"""The exercise of lesson 12: a bus whose handlers fail independently and whose failures are told.

Handlers are to run at the same time, because ``publish`` waits for them: one after another, a slow
one would hold up the others and the publisher. The lesson's own bus calls them in turn, since
nobody waits for its worker.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from looplab.exercises.checking import check, require_function
from looplab.exercises.error_text import leaves
from looplab.exercises.sandbox import Ran, Sandbox, blame, require_awaitable
from looplab.exercises.verdicts import Exercise, Mistake, Verdict, wrong
from looplab.lab.silent_failures import let_go
from looplab.lab.units import ms

EVENT = "user.created"
PATIENCE = 1_000  # milliseconds that handlers wait for each other, and the check for a cancellation
SLOW = 20  # milliseconds that a slow handler takes
LATE = 150  # milliseconds that the last to fail takes
TOGETHER = 30  # handlers that wait for each other
OTHER_EVENT = "order.paid"
EXAMPLE = "check_event_bus(ReportingBus)"

DATA = {"id": "7", "email": "ada@x.test"}

Handler = Callable[[Any], Any]

EXERCISE = Exercise(
    lesson="12",
    check="check_event_bus",
    stub="silent",
    task="Write a bus whose handlers fail independently and whose failures are reported.",
    usual_wrong_prediction=(
        "About 50 ms, as if each event had a worker of its own. A queue makes no handler quicker: "
        "one worker sends ten mails one after another, and only the answers no longer wait."
    ),
    mistakes=(
        Mistake(
            "silent",
            "leaves the stub as it is: gather collects the errors, and nobody reads them",
            "A handler failed, and nothing was reported. gather returns the errors among its "
            "outcomes: go through them, and call report(event_type, handler, error) for each.",
        ),
        Mistake(
            "failure-raised",
            "lets a handler's error out of publish",
            "A handler failed, and publish raised its error. The publisher can't fix a handler: "
            "report the error and raise nothing.",
        ),
        Mistake(
            "one-stops-the-others",
            "lets one failure cancel the other handlers, or never call them",
            "A handler failed, and another one didn't get to its end. Catch each handler's error "
            "inside its own task, so that a TaskGroup or a loop has nothing to stop at.",
        ),
        Mistake(
            "not-all-reported",
            "reports the first failure only",
            "Several handlers failed, and you reported only some. Look at every handler's outcome.",
        ),
        Mistake(
            "wrong-report",
            "reports something other than event, handler and error, or reports twice",
            "Report a failure once, as report(event_type, handler, error): the event's name, the "
            "handler that was subscribed, and the exception itself, as it was raised.",
        ),
        Mistake(
            "reports-success",
            "reports handlers that did not fail",
            "You reported a handler that ran to its end. What a handler returns doesn't matter: "
            "report what it raises, and nothing else.",
        ),
        Mistake(
            "not-called",
            "calls a handler twice, with other data or for another event, or never",
            "Call each handler of the event once, with the data, and no handler of another event.",
        ),
        Mistake(
            "subscribed-twice",
            "keeps handlers in a set or a dict, or takes out all of one when it unsubscribes once",
            "A handler had subscribed twice. Each subscription counts: call it twice for an event, "
            "report each failure, and let unsubscribing take one of the two out. A list keeps "
            "both; a set or a dict keeps one.",
        ),
        Mistake(
            "plain-function",
            "calls handlers outside the try, or awaits what a plain function returns",
            "A plain function among the handlers upset the others. It runs, and may fail, at the "
            "moment you call it, and it returns nothing to await. Call it where its error is "
            "caught, such as in a coroutine of your own around each handler, and await its result "
            "if inspect.isawaitable says so.",
        ),
        Mistake(
            "one-by-one",
            "awaits one handler after another",
            "The handlers run one after another, or a few at a time. A slow one then holds up the "
            "others and the publisher. Start all of them, then wait for all.",
        ),
        Mistake(
            "one-event-at-a-time",
            "puts a lock or a semaphore around publish",
            "Two events were published at once, and one waited for the other. A handler that "
            "publishes an event of its own would then wait for itself. Keep what a publish needs "
            "in local variables, and leave out the lock.",
        ),
        Mistake(
            "returns-early",
            "starts tasks and does not wait for all of them",
            "publish returned before its handlers had ended, or it gave up on one. Wait for all of "
            "them, however long they take.",
        ),
        Mistake(
            "cancelled-unreported",
            "looks for Exception only, or lets a handler's CancelledError out",
            "A handler raised CancelledError by itself, and that wasn't reported. It failed like "
            "the others. CancelledError is a BaseException, not an Exception.",
        ),
        Mistake(
            "cancellation-is-no-failure",
            "catches the publisher's cancellation, and reports it or goes on",
            "The publisher was cancelled, and the bus took that for a handler's failure. When "
            "publish itself is cancelled, let CancelledError through and report nothing.",
        ),
        Mistake(
            "handlers-survive",
            "uses asyncio.wait or shield, which leave the handlers running",
            "The publisher was cancelled, and its handlers run on although nobody waits for them. "
            "gather and TaskGroup cancel them too; asyncio.wait and shield don't.",
        ),
        Mistake(
            "skips-a-neighbour",
            "walks through the list of handlers while a handler changes it",
            "A handler unsubscribed itself while it was called, and the next one was skipped, or "
            "its failure wasn't reported. Go through a copy of the list.",
        ),
        Mistake(
            "still-called",
            "does not take the handler out when it unsubscribes",
            "A handler was called after it had been unsubscribed.",
        ),
        Mistake(
            "no-handlers",
            "fails when nobody has subscribed",
            "No handler had subscribed to this event, and publish failed. It has nothing to do "
            "then, and should return.",
        ),
    ),
)


async def check_event_bus(bus: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's bus of lesson 12, show one line, and return the verdict.

    ``bus`` is the class. It is called as ``bus(report)``; ``report(event_type, handler, error)`` is
    a plain function. The bus has ``subscribe(event_type, handler)``, ``unsubscribe`` with the same
    arguments, and ``await publish(event_type, data)``. It passes if

    - each handler of the event is called once for each subscription, with the data, whatever the
      others do and whatever it returns;
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

    def handler(
        self,
        name: str,
        *,
        error: BaseException | None = None,
        slow: float = 0,
        returns: object = None,
    ) -> Handler:
        """Return an async handler that notes its call, waits, fails if told to, notes its end."""

        async def handler(data: Any) -> object:
            self._note(name, data)
            await asyncio.sleep(slow)
            if error is not None:
                raise error
            self.ended.append(name)
            return returns

        handler.__name__ = handler.__qualname__ = name
        return handler

    def function(
        self, name: str, *, error: Exception | None = None, returns: object = None
    ) -> Handler:
        """Return a plain function that does the same."""

        def function(data: Any) -> object:
            self._note(name, data)
            if error is not None:
                raise error
            self.ended.append(name)
            return returns

        function.__name__ = function.__qualname__ = name
        return function

    def passes_on(self, name: str, *, error: Exception) -> Handler:
        """Return a plain function that returns the coroutine of an async handler that fails."""
        handler = self.handler(name, error=error)

        def passes_on(data: Any) -> Awaitable[object]:
            return handler(data)

        passes_on.__name__ = passes_on.__qualname__ = name
        return passes_on

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
            (came,) = (told[2] for told in self.reports if told[1] is handler)
            # asyncio makes a new CancelledError of a task's own
            if came is not error and not (type(came) is type(error) is asyncio.CancelledError):
                raise EXERCISE.wrong(
                    "wrong-report", f"{type(error).__name__} came as {type(came).__name__}"
                )


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
    await _judge_returned(stage)
    await _judge_overlap(stage)
    await _judge_two_events(stage)
    await _judge_nested(stage)
    await _judge_cancelled_handler(stage)
    await _judge_cancelled_publisher(stage)
    await _judge_unsubscribe(stage)
    await _judge_failure_after_unsubscribe(stage)
    await _judge_twice(stage)
    return (
        "Every handler ran, whatever the others did. Every failure was reported once, with its "
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
        bus.subscribe(OTHER_EVENT, elsewhere)
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
    """Let some handlers fail, of several kinds and one of them last of all."""
    seen = _Seen()
    errors: dict[str, Exception] = {
        "fails": LookupError("no such template"),
        "fails later": ValueError("no such address"),
        "fails by time": TimeoutError("the mailer is late"),
        "fails by connection": ConnectionError("the mailer is away"),
        "fails in a group": ExceptionGroup("two letters", [OSError("one"), KeyError("two")]),
    }
    failing = [
        (seen.handler(name, error=error, slow=place * ms(2)), error)
        for place, (name, error) in enumerate(errors.items())
    ]
    late = RuntimeError("the search engine has lost the user")
    last = seen.handler("fails last of all", error=late, slow=ms(LATE))
    slow = seen.handler("slow", slow=ms(SLOW))
    handlers = [handler for handler, _ in failing]
    ran = await stage.play(
        seen, seen.handler("before"), *handlers, slow, last, seen.handler("after")
    )
    stopped = sorted({"before", "slow", "after"} - set(seen.ended))
    raised = {id(each) for error in (*errors.values(), late) for each in (error, *leaves(error))}
    if ran.error is not None and any(id(one) in raised for one in leaves(ran.error)):
        let_go(ran.error)
        raise EXERCISE.wrong("one-stops-the-others" if stopped else "failure-raised")
    _result(ran)
    if stopped:
        raise EXERCISE.wrong("one-stops-the-others", f"look at {', '.join(stopped)}")
    missing = "not-all-reported" if seen.reports else "silent"
    seen.judge_reports([*failing, (last, late)], missing)
    for error in (*errors.values(), late):
        let_go(error)


async def _judge_returned(stage: _Stage) -> None:
    """Let handlers return something: whatever it is, they did not fail."""
    seen = _Seen()
    values = True, False, 0, "sent", [], {"sent": 1}, ValueError("returned, and not raised")
    handlers = [
        make(f"returns {value!r:.30}", returns=value)
        for value in values
        for make in (seen.handler, seen.function)
    ]
    ran = await stage.play(seen, *handlers)
    if isinstance(ran.error, ValueError):
        let_go(ran.error)
        raise EXERCISE.wrong("reports-success", "publish raised what a handler had returned")
    _result(ran)
    if seen.reports:
        raise EXERCISE.wrong("reports-success", f"it got {_listed(seen.reports[0])}")
    if len(seen.ended) != len(handlers):
        raise EXERCISE.wrong("not-called", "handlers that return something")


async def _judge_twice(stage: _Stage) -> None:
    """Subscribe one handler twice, and another that fails, and take one of each out again."""
    seen = _Seen()
    works, fails = seen.handler("works"), seen.handler("fails", error=KeyError("email"))
    told: list[tuple[int, int]] = []

    async def act(bus: Any) -> None:
        for leaving in (False, True):
            if leaving:
                bus.unsubscribe(EVENT, works)
                bus.unsubscribe(EVENT, fails)
            seen.called.clear()
            seen.reports.clear()
            await require_awaitable(bus.publish(EVENT, dict(DATA)))
            told.append((seen.called.count("works"), len(seen.reports)))

    ran = await stage.play(seen, works, fails, works, fails, act=act)
    if ran.error is not None and len(told) < 2:
        told_error = blame(ran.error)
        if not told or not isinstance(ran.error, LookupError | ValueError):
            raise told_error
        raise EXERCISE.wrong("subscribed-twice", f"then {type(ran.error).__name__}")
    _result(ran)
    for (calls, reports), due in zip(told, (2, 1), strict=True):
        if calls != due or reports != due:
            when = "" if due == 2 else "after one of the two was taken out, "
            raise EXERCISE.wrong(
                "subscribed-twice", f"{when}it was called {calls} times, reported {reports} times"
            )


async def _judge_functions(stage: _Stage) -> None:
    seen = _Seen()
    error = KeyError("email")
    fails = seen.function("fails", error=error)
    # The one that fails is called before a coroutine is made: none is forgotten on its account.
    names = ["plain", "one", "two"]
    late = ValueError("no such address")
    passed_on = seen.passes_on("passed on", error=late)
    ran = await stage.play(
        seen, seen.function("plain"), fails, seen.handler("one"), seen.handler("two"), passed_on
    )
    if ran.error is not None and isinstance(next(leaves(ran.error)), TypeError | KeyError):
        let_go(ran.error)
        raise EXERCISE.wrong("plain-function")
    _result(ran)
    if sorted(seen.ended) != sorted(names):
        raise EXERCISE.wrong("plain-function", f"ended: {', '.join(seen.ended) or 'none'}")
    if any(isinstance(told[-1], TypeError) for told in seen.reports if told):
        raise EXERCISE.wrong("plain-function", "it was reported though it did not fail")
    seen.judge_reports([(fails, error), (passed_on, late)], "plain-function")


async def _judge_overlap(stage: _Stage) -> None:
    """Let many handlers wait for each other: in turn, or a few at a time, they never meet."""
    meeting = _Meeting(TOGETHER)
    _result(await stage.play(_Seen(), *(meeting.handler() for _ in range(TOGETHER))))
    if meeting.met != TOGETHER:
        raise EXERCISE.wrong("one-by-one")


class _Meeting:
    """Where so many handlers wait for each other; ``met`` counts those who have met."""

    def __init__(self, size: int) -> None:
        self.met = 0
        self._barrier = asyncio.Barrier(size)

    def handler(self, error: Exception | None = None) -> Handler:
        """Return a handler that waits for the others, and then fails if told to."""

        async def meets(data: Any) -> None:
            try:
                async with asyncio.timeout(ms(PATIENCE)):
                    await self._barrier.wait()
            except (TimeoutError, asyncio.BrokenBarrierError):
                await self._barrier.abort()  # not all came, and those who come later need not wait
                return
            self.met += 1
            if error is not None:
                raise error

        return meets


async def _judge_two_events(stage: _Stage) -> None:
    """Publish two events at once whose handlers meet, and then fail."""
    seen, meeting = _Seen(), _Meeting(2)
    errors = {EVENT: KeyError("email"), OTHER_EVENT: ValueError("no such order")}
    handlers = {name: meeting.handler(error) for name, error in errors.items()}

    async def act(bus: Any) -> None:
        for name, handler in handlers.items():
            bus.subscribe(name, handler)
        await asyncio.gather(
            *(require_awaitable(bus.publish(name, dict(DATA))) for name in handlers)
        )

    _result(await stage.play(seen, act=act))
    if meeting.met != 2:
        raise EXERCISE.wrong("one-event-at-a-time")
    due = [(name, id(handlers[name]), id(errors[name])) for name in handlers]
    told = [(each[0], *map(id, each[1:])) for each in seen.reports]
    if sorted(told) != sorted(due):
        raise EXERCISE.wrong("wrong-report", "two events at once were mixed up")
    for error in errors.values():
        let_go(error)


async def _judge_nested(stage: _Stage) -> None:
    """Let a handler publish another event, and wait for it."""
    seen = _Seen()
    buses: list[Any] = []
    inner = seen.handler("inner")

    async def outer(data: Any) -> None:
        try:
            async with asyncio.timeout(ms(PATIENCE)):
                await require_awaitable(buses[0].publish(OTHER_EVENT, dict(DATA)))
        except TimeoutError:
            seen.called.append("waited for ever")

    async def act(bus: Any) -> None:
        buses.append(bus)
        bus.subscribe(OTHER_EVENT, inner)
        await require_awaitable(bus.publish(EVENT, dict(DATA)))

    _result(await stage.play(seen, outer, act=act))
    if seen.ended != ["inner"] or "waited for ever" in seen.called:
        raise EXERCISE.wrong("one-event-at-a-time", "one handler publishes another event")


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


async def _judge_failure_after_unsubscribe(stage: _Stage) -> None:
    """One handler unsubscribes itself while it is called, and the next one fails."""
    seen = _Seen()
    buses: list[Any] = []

    def once(data: Any) -> None:
        buses[0].unsubscribe(EVENT, once)

    async def act(bus: Any) -> None:
        buses.append(bus)
        await require_awaitable(bus.publish(EVENT, dict(DATA)))

    error = ConnectionError("the mailer is away")
    fails = seen.handler("fails", error=error)
    _result(await stage.play(seen, once, fails, act=act))
    seen.judge_reports([(fails, error)], missing="skips-a-neighbour")


def _listed(told: tuple[Any, ...]) -> str:
    return ", ".join(_word(one) for one in told) or "nothing"


def _word(one: Any) -> str:
    if isinstance(one, str):
        return repr(one)
    return getattr(one, "__name__", type(one).__name__)
