"""The check of lesson 12, with right answers and wrong ones."""

import asyncio
import inspect
import textwrap
from typing import Any

import pytest

from looplab.exercises.event_bus import EXERCISE, check_event_bus

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy
PATIENCE = 6.0  # seconds, in which a wrong one is found, whatever it does


class Base:
    def __init__(self, report: Any) -> None:
        self.report = report
        self.handlers: dict[str, list[Any]] = {}

    def subscribe(self, event: str, handler: Any) -> None:
        self.handlers.setdefault(event, []).append(handler)

    def unsubscribe(self, event: str, handler: Any) -> None:
        self.handlers[event].remove(handler)

    def of(self, event: str) -> list[Any]:
        return list(self.handlers.get(event, ()))

    async def call(self, handler: Any, data: Any) -> None:
        if inspect.isawaitable(outcome := handler(data)):
            await outcome

    async def outcomes(self, event: str, data: Any) -> list[Any]:
        calls = [self.call(handler, data) for handler in self.of(event)]
        return await asyncio.gather(*calls, return_exceptions=True)


# ---------------------------------------------------------------- right answers


def bus_of(source: str) -> Any:
    """Run an answer's source, and return the bus that it defines."""
    names: dict[str, Any] = {"asyncio": asyncio, "inspect": inspect, "Base": Base}
    exec(compile(textwrap.dedent(source), "<answer>", "exec"), names)
    return names["ReportingBus"]


ANSWER = """
class ReportingBus(Base):
    {more}

    async def publish(self, event_type, data):
        async def call(handler):
            {call}

        handlers = {handlers}
        {outcomes}
        for handler, error in zip(handlers, outcomes, strict=True):
            {told}
                {report}
"""


def answer(
    more: str = "limit = 7",
    call: str = "if inspect.isawaitable(outcome := handler(data)):\n                await outcome",
    handlers: str = "self.of(event_type)",
    outcomes: str = "outcomes = await asyncio.gather(*map(call, handlers), return_exceptions=True)",
    told: str = "if isinstance(error, BaseException):",
    report: str = "self.report(event_type, handler, error)",
) -> str:
    """Return the course's own answer with one part of it changed."""
    return ANSWER.format(
        more=more, call=call, handlers=handlers, outcomes=outcomes, told=told, report=report
    )


RIGHT: tuple[tuple[str, str], ...] = (
    ("gather, and a look through its outcomes", answer()),
    (
        "a TaskGroup around calls that catch their own errors",
        """
        class ReportingBus(Base):
            async def guarded(self, event_type, handler, data):
                try:
                    if inspect.isawaitable(outcome := handler(data)):
                        await outcome
                except asyncio.CancelledError as error:
                    if asyncio.current_task().cancelling():
                        raise
                    self.report(event_type, handler, error)
                except Exception as error:
                    self.report(event_type, handler, error)

            async def publish(self, event_type, data):
                async with asyncio.TaskGroup() as tasks:
                    for handler in self.of(event_type):
                        tasks.create_task(self.guarded(event_type, handler, data))
        """,
    ),
    (
        "an AnyIO task group, and a CancelledError of the handler's own",
        """
        import anyio

        class ReportingBus(Base):
            async def publish(self, event_type, data):
                async def call(handler):
                    try:
                        if inspect.isawaitable(outcome := handler(data)):
                            await asyncio.ensure_future(outcome)
                    except asyncio.CancelledError as error:
                        if group.cancel_scope.cancel_called or asyncio.current_task().cancelling():
                            raise
                        self.report(event_type, handler, error)
                    except Exception as error:
                        self.report(event_type, handler, error)

                async with anyio.create_task_group() as group:
                    for handler in self.of(event_type):
                        group.start_soon(call, handler)
        """,
    ),
    (
        "tasks, waited for and cancelled by hand, and subscriptions as tuples",
        """
        class ReportingBus:
            def __init__(self, report):
                self.report, self.subscriptions = report, []

            def subscribe(self, event_type, handler):
                self.subscriptions.append((event_type, handler))

            def unsubscribe(self, event_type, handler):
                self.subscriptions.remove((event_type, handler))

            async def publish(self, event_type, data):
                async def call(handler):
                    outcome = handler(data)
                    if inspect.isawaitable(outcome):
                        await outcome

                handlers = [each for kind, each in self.subscriptions if kind == event_type]
                tasks = [asyncio.create_task(call(handler)) for handler in handlers]
                if not tasks:
                    return
                try:
                    await asyncio.wait(tasks)
                except asyncio.CancelledError:
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)
                    raise
                for task, handler in zip(tasks, handlers, strict=True):
                    if task.cancelled():
                        self.report(event_type, handler, asyncio.CancelledError())
                    elif error := task.exception():
                        self.report(event_type, handler, error)
        """,
    ),
)


@pytest.mark.parametrize("source", [each[1] for each in RIGHT], ids=[each[0] for each in RIGHT])
async def test_a_right_answer_passes_in_any_style(source: str) -> None:
    verdict = await check_event_bus(bus_of(source), limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


class Gathered(Base):
    async def publish(self, event: str, data: Any) -> None:
        handlers = self.of(event)
        outcomes = await self.outcomes(event, data)
        for handler, error in zip(handlers, outcomes, strict=True):
            if isinstance(error, BaseException):
                self.report(event, handler, error)


class Grouped(Base):
    """A TaskGroup around calls that catch their own errors."""

    async def guarded(self, event: str, handler: Any, data: Any) -> None:
        try:
            await self.call(handler, data)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            assert task is not None
            if task.cancelling():
                raise
            self.report(event, handler, error)
        except Exception as error:
            self.report(event, handler, error)

    async def publish(self, event: str, data: Any) -> None:
        async with asyncio.TaskGroup() as group:
            for handler in self.of(event):
                group.create_task(self.guarded(event, handler, data))


async def test_a_function_that_makes_the_bus_will_do() -> None:
    assert (await check_event_bus(lambda report: Gathered(report), limit=AMPLE)).passed


# ---------------------------------------------------------------- wrong answers


class Stub(Base):
    async def publish(self, event: str, data: Any) -> None:
        calls = [handler(data) for handler in self.handlers.get(event, [])]
        await asyncio.gather(*calls, return_exceptions=True)


class NotWritten(Base):
    async def publish(self, event: str, data: Any) -> None:
        raise NotImplementedError


class Raises(Gathered):
    async def publish(self, event: str, data: Any) -> None:
        outcomes = await self.outcomes(event, data)
        for error in outcomes:
            if isinstance(error, BaseException):
                raise error


class BareGroup(Base):
    async def publish(self, event: str, data: Any) -> None:
        async with asyncio.TaskGroup() as group:
            for handler in self.of(event):
                group.create_task(self.call(handler, data))


class StopsAtTheFirst(Base):
    async def publish(self, event: str, data: Any) -> None:
        for handler in self.of(event):
            try:
                await self.call(handler, data)
            except Exception as error:
                self.report(event, handler, error)
                return


class ReportsTheFirst(Gathered):
    async def publish(self, event: str, data: Any) -> None:
        handlers = self.of(event)
        for handler, error in zip(handlers, await self.outcomes(event, data), strict=True):
            if isinstance(error, BaseException):
                self.report(event, handler, error)
                return


class ReportsText(Gathered):
    async def publish(self, event: str, data: Any) -> None:
        handlers = self.of(event)
        for handler, error in zip(handlers, await self.outcomes(event, data), strict=True):
            if isinstance(error, BaseException):
                self.report(event, handler, str(error))


class ReportsItsOwnWrapper(Grouped):
    async def guarded(self, event: str, handler: Any, data: Any) -> None:
        try:
            await self.call(handler, data)
        except Exception as error:
            self.report(event, self.guarded, error)


class ReportsTwice(Grouped):
    async def guarded(self, event: str, handler: Any, data: Any) -> None:
        try:
            await self.call(handler, data)
        except Exception as error:
            self.report(event, handler, error)
            self.report(event, handler, error)


class ReportsEverybody(Gathered):
    async def publish(self, event: str, data: Any) -> None:
        handlers = self.of(event)
        for handler, outcome in zip(handlers, await self.outcomes(event, data), strict=True):
            self.report(event, handler, outcome)


class AllEvents(Gathered):
    def of(self, event: str) -> list[Any]:
        return [handler for handlers in self.handlers.values() for handler in handlers]


class OtherData(Gathered):
    async def call(self, handler: Any, data: Any) -> None:
        await super().call(handler, (data,))


class AwaitsWhatever(Gathered):
    async def call(self, handler: Any, data: Any) -> None:
        await handler(data)


class CallsOutside(Base):
    async def publish(self, event: str, data: Any) -> None:
        handlers = self.of(event)
        calls = [outcome for one in handlers if inspect.isawaitable(outcome := one(data))]
        waiting = [one for one in handlers if inspect.iscoroutinefunction(one)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        for handler, error in zip(waiting, outcomes, strict=True):
            if isinstance(error, BaseException):
                self.report(event, handler, error)


class OneByOne(Base):
    async def publish(self, event: str, data: Any) -> None:
        for handler in self.of(event):
            try:
                await self.call(handler, data)
            except Exception as error:
                self.report(event, handler, error)


class Forgets(Grouped):
    async def publish(self, event: str, data: Any) -> None:
        kept.extend(
            asyncio.create_task(self.guarded(event, handler, data)) for handler in self.of(event)
        )


class WaitsForOne(Grouped):
    async def publish(self, event: str, data: Any) -> None:
        tasks = [asyncio.create_task(self.guarded(event, one, data)) for one in self.of(event)]
        kept.extend(tasks)
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


kept: list[Any] = []


class ExceptionsOnly(Gathered):
    async def publish(self, event: str, data: Any) -> None:
        handlers = self.of(event)
        for handler, error in zip(handlers, await self.outcomes(event, data), strict=True):
            if isinstance(error, Exception):
                self.report(event, handler, error)


class LetsCancelledOut(Grouped):
    async def publish(self, event: str, data: Any) -> None:
        await asyncio.gather(*(self.guarded(event, one, data) for one in self.of(event)))

    async def guarded(self, event: str, handler: Any, data: Any) -> None:
        try:
            await self.call(handler, data)
        except Exception as error:
            self.report(event, handler, error)


class ReportsItsCancellation(Grouped):
    async def guarded(self, event: str, handler: Any, data: Any) -> None:
        try:
            await self.call(handler, data)
        except BaseException as error:
            self.report(event, handler, error)


class SwallowsItsCancellation(Grouped):
    async def publish(self, event: str, data: Any) -> None:
        try:
            await super().publish(event, data)
        except asyncio.CancelledError:
            return


class LeavesThemRunning(Grouped):
    async def publish(self, event: str, data: Any) -> None:
        tasks = [asyncio.create_task(self.guarded(event, one, data)) for one in self.of(event)]
        if tasks:
            await asyncio.wait(tasks)


class WalksTheList(Grouped):
    async def publish(self, event: str, data: Any) -> None:
        tasks = []
        for handler in self.handlers.get(event, []):
            tasks.append(asyncio.create_task(self.guarded(event, handler, data)))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)


class KeepsThem(Gathered):
    def unsubscribe(self, event: str, handler: Any) -> None:
        pass


class NeedsHandlers(Gathered):
    def of(self, event: str) -> list[Any]:
        return list(self.handlers[event])


class Plain(Base):
    def publish(self, event: str, data: Any) -> None:
        for handler in self.of(event):
            handler(data).close()


class AwaitsTheReport(Grouped):
    async def guarded(self, event: str, handler: Any, data: Any) -> None:
        try:
            await self.call(handler, data)
        except Exception as error:
            await self.report(event, handler, error)


class Exits(Base):
    async def publish(self, event: str, data: Any) -> None:
        raise SystemExit


class NoPublish:
    def __init__(self, report: Any) -> None:
        pass


IN_ONE_PART: list[tuple[str, Any]] = [
    ("silent", Stub),
    ("failure-raised", Raises),
    ("one-stops-the-others", BareGroup),
    ("one-stops-the-others", StopsAtTheFirst),
    ("not-all-reported", ReportsTheFirst),
    ("wrong-report", ReportsText),
    ("wrong-report", ReportsItsOwnWrapper),
    ("wrong-report", ReportsTwice),
    ("reports-success", ReportsEverybody),
    ("not-called", AllEvents),
    ("not-called", OtherData),
    ("plain-function", AwaitsWhatever),
    ("plain-function", CallsOutside),
    ("one-by-one", OneByOne),
    ("returns-early", Forgets),
    ("returns-early", WaitsForOne),
    ("cancelled-unreported", ExceptionsOnly),
    ("cancelled-unreported", LetsCancelledOut),
    ("cancellation-is-no-failure", ReportsItsCancellation),
    ("cancellation-is-no-failure", SwallowsItsCancellation),
    ("handlers-survive", LeavesThemRunning),
    ("skips-a-neighbour", WalksTheList),
    ("still-called", KeepsThem),
    ("no-handlers", NeedsHandlers),
    ("not-written", NotWritten),
    ("not-async", Plain),
    ("raised", AwaitsTheReport),
    ("raised", NoPublish),
    ("exits", Exits),
]


@pytest.mark.parametrize(("mistake", "bus"), IN_ONE_PART)
async def test_wrong_answers_get_their_hint(mistake: str, bus: Any) -> None:
    before = asyncio.all_tasks()
    verdict = await check_event_bus(bus, limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message
    kept.clear()
    assert asyncio.all_tasks() == before


GUARDED = """
class ReportingBus(Base):
    async def guarded(self, event_type, handler, data):
        try:
            if inspect.isawaitable(outcome := handler(data)):
                await outcome
        {catch}

    async def publish(self, event_type, data):
        await asyncio.gather(*(self.guarded(event_type, one, data) for one in self.of(event_type)))
"""


def guarded(catch: str) -> str:
    """Return an answer whose calls catch their own errors as told."""
    return GUARDED.format(catch=catch)


WRONG: tuple[tuple[str, str, str], ...] = (
    # who is called
    (
        "a handler that has subscribed twice is called once, from a set",
        answer(handlers="list(set(self.of(event_type)))"),
        "subscribed-twice",
    ),
    (
        "a handler that has subscribed twice is called once, from a dict",
        answer(handlers="list(dict.fromkeys(self.of(event_type)))"),
        "subscribed-twice",
    ),
    (
        "a second subscription is ignored",
        answer(
            more="def subscribe(self, event, handler):\n"
            "        if handler not in self.of(event):\n"
            "            super().subscribe(event, handler)"
        ),
        "subscribed-twice",
    ),
    (
        "outcomes are dealt out to a list that has changed meanwhile",
        answer(handlers="self.handlers.get(event_type, [])").replace("strict=True", "strict=False"),
        "skips-a-neighbour",
    ),
    (
        "outcomes of a changed list no longer fit, which is an error",
        answer(handlers="self.handlers.get(event_type, [])"),
        "raised",
    ),
    (
        "who unsubscribes once is taken out altogether",
        answer(
            more="def unsubscribe(self, event, handler):\n"
            "        self.handlers[event] = [h for h in self.of(event) if h is not handler]"
        ),
        "subscribed-twice",
    ),
    (
        "the failures of a handler that has subscribed twice are kept in a dict",
        answer(
            outcomes="found = await asyncio.gather(*map(call, handlers), return_exceptions=True)\n"
            "        failed = dict(zip(handlers, found, strict=True))\n"
            "        handlers, outcomes = list(failed), list(failed.values())"
        ),
        "subscribed-twice",
    ),
    (
        "the last to subscribe is the only one",
        answer(handlers="self.of(event_type)[-1:]"),
        "not-called",
    ),
    # what is told
    (
        "failures after the first moment are dropped",
        answer(
            outcomes="tasks = [asyncio.ensure_future(call(h)) for h in handlers]\n"
            "        done, late = await asyncio.wait(tasks, timeout=0.05) if tasks else ((), ())\n"
            "        for task in late:\n            task.cancel()\n"
            "        handlers = [h for h, t in zip(handlers, tasks) if t in done]\n"
            "        outcomes = [t.exception() for t in tasks if t in done]"
        ),
        "not-all-reported",
    ),
    (
        "failures after the first are dropped",
        answer(
            outcomes="tasks = [asyncio.ensure_future(call(h)) for h in handlers]\n"
            "        if tasks:\n"
            "            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)\n"
            "        first = [t for t in tasks if t.done()]\n"
            "        handlers = [h for h, t in zip(handlers, tasks) if t in first]\n"
            "        outcomes = [t.exception() for t in first]\n"
            "        await asyncio.gather(*tasks, return_exceptions=True)"
        ),
        "not-all-reported",
    ),
    (
        "each handler gets a tenth of a second",
        answer(
            call="async with asyncio.timeout(0.1):\n"
            "                if inspect.isawaitable(outcome := handler(data)):\n"
            "                    await outcome"
        ),
        "wrong-report",
    ),
    (
        "errors of two kinds are told, and the others are not",
        guarded(
            "except (ValueError, LookupError) as error:\n"
            "            self.report(event_type, handler, error)\n"
            "        except Exception:\n            pass"
        ),
        "not-all-reported",
    ),
    (
        "what is no ValueError comes out",
        guarded(
            "except (ValueError, LookupError) as error:\n"
            "            self.report(event_type, handler, error)"
        ),
        "one-stops-the-others or failure-raised",
    ),
    (
        "a late handler is told as no failure",
        guarded(
            "except TimeoutError:\n            pass\n"
            "        except Exception as error:\n"
            "            self.report(event_type, handler, error)"
        ),
        "not-all-reported",
    ),
    (
        "a group is told by its first error",
        answer(
            report="if isinstance(error, ExceptionGroup):\n"
            "                    error = error.exceptions[0]\n"
            "                self.report(event_type, handler, error)"
        ),
        "wrong-report",
    ),
    (
        "each error is told in a group, as except* has it",
        guarded("except* Exception as error:\n            self.report(event_type, handler, error)"),
        "wrong-report",
    ),
    (
        "an error is told by a copy",
        answer(report="self.report(event_type, handler, type(error)(*error.args))"),
        "wrong-report",
    ),
    (
        "the handler is told by its name",
        answer(report="self.report(event_type, handler.__name__, error)"),
        "wrong-report",
    ),
    (
        "what a handler returns is told unless it is None",
        answer(
            call="outcome = handler(data)\n"
            "            return await outcome if inspect.isawaitable(outcome) else outcome",
            told="if error is not None:",
        ),
        "reports-success",
    ),
    (
        "an exception that a handler returned is told as one that it raised",
        answer(
            call="outcome = handler(data)\n"
            "            return await outcome if inspect.isawaitable(outcome) else outcome"
        ),
        "reports-success",
    ),
    (
        "what a handler returns is an answer, and False is a failure",
        answer(
            call="outcome = handler(data)\n"
            "            outcome = await outcome if inspect.isawaitable(outcome) else outcome\n"
            "            return ValueError(outcome) if outcome is False else None"
        ),
        "reports-success",
    ),
    # plain functions
    (
        "only async def is awaited",
        answer(
            call="if inspect.iscoroutinefunction(handler):\n"
            "                await handler(data)\n"
            "            else:\n                handler(data)"
        ),
        "forgotten-await",
    ),
    (
        "plain functions are called before the others, outside the try",
        answer(
            outcomes="for handler in handlers:\n"
            "            if not inspect.iscoroutinefunction(handler):\n"
            "                handler(data)\n"
            "        outcomes = await asyncio.gather(\n"
            "            *map(call, handlers), return_exceptions=True\n        )"
        ),
        "plain-function",
    ),
    # at the same time
    (
        "ten handlers at a time",
        answer(
            call="async with gate:\n"
            "                if inspect.isawaitable(outcome := handler(data)):\n"
            "                    await outcome",
            handlers="self.of(event_type)\n        gate = asyncio.Semaphore(10)",
        ),
        "one-by-one",
    ),
    (
        "two handlers at a time, in pairs",
        answer(
            outcomes="outcomes = []\n"
            "        for start in range(0, len(handlers), 2):\n"
            "            pair = map(call, handlers[start : start + 2])\n"
            "            outcomes += await asyncio.gather(*pair, return_exceptions=True)"
        ),
        "one-by-one",
    ),
    (
        "a lock around publish",
        """
        class ReportingBus(Base):
            def __init__(self, report):
                super().__init__(report)
                self.lock = asyncio.Lock()

            async def publish(self, event_type, data):
                async with self.lock:
                    handlers, outcomes = self.of(event_type), await self.outcomes(event_type, data)
                for handler, error in zip(handlers, outcomes, strict=True):
                    if isinstance(error, BaseException):
                        self.report(event_type, handler, error)
        """,
        "one-event-at-a-time",
    ),
    (
        "the event is kept on self",
        answer(
            handlers="self.of(event_type)\n        self.event_type = event_type",
            report="self.report(self.event_type, handler, error)",
        ),
        "wrong-report",
    ),
    # cancellation
    (
        "a handler's CancelledError is told as no failure",
        answer(told="if isinstance(error, Exception):"),
        "cancelled-unreported",
    ),
    (
        "the publisher's cancellation is told as a failure",
        guarded(
            "except BaseException as error:\n            self.report(event_type, handler, error)"
        ),
        "cancellation-is-no-failure",
    ),
    (
        "handlers are shielded from the publisher's cancellation",
        answer(
            outcomes="outcomes = await asyncio.shield(\n"
            "            asyncio.gather(*map(call, handlers), return_exceptions=True)\n        )"
        ),
        "handlers-survive",
    ),
    (
        "an endless wait for nobody",
        answer(handlers="self.of(event_type)\n        await asyncio.Event().wait()"),
        "never-ends",
    ),
)

# What passes, though it is wrong: a bus that gives each handler five seconds, and reports one that
# needs longer as if it had raised TimeoutError. The check would have to wait as long as any bus
# may, at each run of every right answer; it waits for 150 ms, which finds a bus of little patience.
SURVIVES = answer(
    call="async with asyncio.timeout(5):\n"
    "                if inspect.isawaitable(outcome := handler(data)):\n"
    "                    await outcome"
)


@pytest.mark.parametrize(
    ("source", "mistake"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG]
)
async def test_a_wrong_answer_gets_its_own_hint(source: str, mistake: str) -> None:
    verdict = await check_event_bus(bus_of(source), limit=PATIENCE)
    assert not verdict.passed
    # where the machine stands still, the slow handler may have ended before another one fails
    assert verdict.mistake in mistake.split(" or "), verdict.message


async def test_one_wrong_answer_is_known_to_pass() -> None:
    assert (await check_event_bus(bus_of(SURVIVES), limit=AMPLE)).passed


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    named = [name for name, _ in IN_ONE_PART] + [mistake for *_, mistake in WRONG]
    made = {one for name in named for one in name.split(" or ")}
    assert {mistake.name for mistake in EXERCISE.mistakes} <= made


async def test_an_endless_publish_is_stopped() -> None:
    class Endless(Base):
        async def publish(self, event: str, data: Any) -> None:
            await asyncio.Event().wait()

    assert (await check_event_bus(Endless, limit=0.5)).mistake == "never-ends"


@pytest.mark.parametrize(
    ("given", "mistake"),
    [
        (Gathered(print), "wrong-type"),
        (None, "wrong-type"),
        ("ReportingBus", "wrong-type"),
        (Gathered(print).publish("user.created", {}), "called-instead-of-passed"),
    ],
)
async def test_what_is_no_bus_is_refused(given: Any, mistake: str) -> None:
    assert (await check_event_bus(given)).mistake == mistake


async def test_a_limit_must_be_a_time() -> None:
    with pytest.raises(ValueError, match="limit is 0"):
        await check_event_bus(Gathered, limit=0)
