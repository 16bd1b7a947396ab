"""The check of lesson 12, with right answers and wrong ones."""

import asyncio
import inspect
from typing import Any

import pytest

from support.exercises.event_bus import EXERCISE, check_event_bus

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy


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


class Waited(Base):
    """Tasks, waited for and cancelled by hand."""

    async def publish(self, event: str, data: Any) -> None:
        tasks = {asyncio.ensure_future(self.call(one, data)): one for one in self.of(event)}
        if not tasks:
            return
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        for task, handler in tasks.items():
            try:
                task.result()
            except (Exception, asyncio.CancelledError) as error:
                self.report(event, handler, error)


@pytest.mark.parametrize("bus", [Gathered, Grouped, Waited])
async def test_right_answers_pass(bus: Any) -> None:
    verdict = await check_event_bus(bus, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


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


WRONG: list[tuple[str, Any]] = [
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


@pytest.mark.parametrize(("mistake", "bus"), WRONG)
async def test_wrong_answers_get_their_hint(mistake: str, bus: Any) -> None:
    before = asyncio.all_tasks()
    verdict = await check_event_bus(bus, limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message
    kept.clear()
    assert asyncio.all_tasks() == before


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    assert {mistake.name for mistake in EXERCISE.mistakes} <= {name for name, _ in WRONG}


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
