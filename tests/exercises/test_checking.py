"""Whatever a learner's code does, a check says one line about it and goes on."""

import asyncio
import contextlib
import gc
import sys
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from IPython.core.formatters import DisplayFormatter

from looplab.exercises import checking
from looplab.exercises.checking import check, require_function
from looplab.exercises.sandbox import Sandbox
from looplab.exercises.verdicts import Verdict

pytestmark = pytest.mark.anyio

LIMIT = 20.0
SHORT = 0.3


async def verdict_on(act: Callable[[], Any], limit: float = LIMIT) -> Verdict:
    async def judge(sandbox: Sandbox) -> str:
        (await sandbox.run(act)).result()
        return "fine"

    return await check(judge, limit=limit)


@pytest.fixture(autouse=True)
async def nothing_stays():
    """A check leaves no task and the loop's own task factory; pytest sees to warnings."""
    loop = asyncio.get_running_loop()
    factory = loop.get_task_factory()
    before = asyncio.all_tasks()
    yield
    left = [repr(task) for task in asyncio.all_tasks() - before]
    assert [task for task in left if "TestRunner" not in task] == []
    assert loop.get_task_factory() is factory


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raises(error: BaseException) -> Callable[[], Any]:
    async def learners() -> None:
        raise error

    return learners


async def fine() -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("not so"), "(ValueError: not so, in learners, line "),
        (ValueError("first\nsecond   third"), "(ValueError: first second third, in learners"),
        (ValueError("x" * 10_000), "xxx…, in learners"),
        (TimeoutError(), "(TimeoutError, in learners"),
        (AssertionError(), "(AssertionError, in learners"),
        (Unspeakable(), "(Unspeakable, in learners"),
        (
            ExceptionGroup("all", [ValueError("one"), ExceptionGroup("inner", [KeyError("two")])]),
            "(ExceptionGroup with ValueError: one and 1 more, in learners",
        ),
        (BaseExceptionGroup("all", [GeneratorExit("x")]), "with GeneratorExit: x"),
        (GeneratorExit("gone"), "GeneratorExit: gone"),
        (StopAsyncIteration("early"), "StopAsyncIteration: early"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
async def test_an_exception_is_named_with_its_place_in_one_line(error, words) -> None:
    verdict = await verdict_on(raises(error))
    assert (verdict.passed, verdict.mistake) == (False, "raised")
    assert words in verdict.message
    assert "\n" not in verdict.message
    assert len(verdict.message) < 400


async def test_the_place_is_the_learners_line_and_not_a_librarys() -> None:
    async def learners() -> None:
        async with asyncio.timeout(None), asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(int, "seven"))

    verdict = await verdict_on(learners)
    assert "ValueError: invalid literal" in verdict.message
    assert "in learners, line" in verdict.message


async def stopped(kind: type[BaseException]) -> None:
    raise kind("bye")


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("how", ["here", "in a task", "in a group", "in a thread", "sync"])
async def test_ending_the_program_ends_the_run_only(kind, how) -> None:
    def outright() -> None:
        raise kind("bye")

    async def learners() -> None:
        match how:
            case "here":
                await stopped(kind)
            case "in a task":
                await asyncio.create_task(stopped(kind))
            case "in a group":
                async with asyncio.TaskGroup() as group:
                    group.create_task(stopped(kind))
                    group.create_task(asyncio.sleep(60))
            case "in a thread":
                await asyncio.to_thread(outright)
            case "sync":
                outright()

    verdict = await verdict_on(outright if how == "sync" else learners)
    assert verdict.mistake == "exits"
    assert f"{kind.__name__}: bye" in verdict.message


async def test_exit_as_a_learner_writes_it() -> None:
    async def learners() -> None:
        sys.exit()

    assert (await verdict_on(learners)).mistake == "exits"


async def test_a_lost_task_that_exits_does_no_harm() -> None:
    async def learners() -> None:
        task = asyncio.create_task(stopped(SystemExit))
        await asyncio.wait({task})

    assert (await verdict_on(learners)).passed


async def test_not_implemented_is_not_written_yet() -> None:
    assert (await verdict_on(raises(NotImplementedError()))).mistake == "not-written"


async def stubborn() -> None:
    while True:
        with contextlib.suppress(BaseException):
            await asyncio.sleep(0.01)


async def spinning() -> None:
    while True:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def forever() -> None:
    await asyncio.Event().wait()


async def multiplying() -> None:
    try:
        await forever()
    finally:
        while True:
            await asyncio.create_task(multiplying())


@pytest.mark.parametrize("endless", [spinning, forever, stubborn, multiplying])
async def test_what_never_ends_is_stopped(endless) -> None:
    verdict = await verdict_on(endless, SHORT)
    assert verdict.mistake == "never-ends"
    assert f"{SHORT} s were not enough" in verdict.message


STUBBORN = """
import asyncio
from looplab.exercises.checking import check

async def stubborn():
    while True:
        try:
            await asyncio.sleep(3600)
        except BaseException:
            pass

async def judge(sandbox):
    (await sandbox.run(stubborn)).result()
    return "fine"

print(asyncio.run(check(judge, limit=0.3)).mistake)
"""


async def test_what_refused_to_be_stopped_does_not_keep_the_process_from_ending() -> None:
    with anyio.fail_after(30):
        told = await anyio.run_process([sys.executable, "-c", STUBBORN])
    assert told.stdout.split()[-1] == b"never-ends"
    assert told.stderr == b""


async def test_a_retry_that_catches_everything_is_stopped() -> None:
    async def retry() -> None:
        while True:
            try:
                async with asyncio.timeout(0.01), asyncio.TaskGroup() as group:
                    group.create_task(stubborn())
                    group.create_task(forever())
            except BaseException:
                await asyncio.sleep(0)

    assert (await verdict_on(retry, SHORT)).mistake == "never-ends"


@pytest.mark.parametrize("endless", [spinning, forever, stubborn])
async def test_a_task_left_running_is_named_and_stopped(endless) -> None:
    kept: list[Any] = []

    async def learners() -> None:
        kept.append(asyncio.create_task(endless()))
        await asyncio.sleep(0)

    verdict = await verdict_on(learners)
    assert verdict.mistake == "left-running"
    assert endless.__name__ in verdict.message
    assert kept[0].done()


async def test_a_librarys_coroutine_left_running_is_named_too() -> None:
    async def learners() -> None:
        asyncio.create_task(asyncio.Event().wait())  # noqa: RUF006

    verdict = await verdict_on(learners)
    assert verdict.mistake == "left-running"
    assert verdict.message.endswith("(wait)")


async def test_a_task_that_was_told_to_end_is_not_left_running() -> None:
    async def slow_to_end() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.01)

    async def learners() -> None:
        task = asyncio.create_task(slow_to_end())
        await asyncio.sleep(0)
        task.cancel()

    assert (await verdict_on(learners)).passed


async def test_a_task_cancelled_before_its_first_step_is_no_forgotten_coroutine() -> None:
    async def learners() -> None:
        asyncio.create_task(fine()).cancel()

    assert (await verdict_on(learners)).passed


async def test_a_task_that_failed_unasked_is_not_reported_by_the_loop() -> None:
    async def learners() -> None:
        await asyncio.wait({asyncio.create_task(raises(ValueError("lost"))())})

    assert (await verdict_on(learners)).passed


async def cancels_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


@pytest.mark.parametrize("act", [cancels_itself, raises(asyncio.CancelledError())])
async def test_cancelling_itself_does_not_cancel_the_check(act) -> None:
    verdict = await verdict_on(act)
    assert verdict.mistake == "cancels-itself"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("value", [None, 7, "text", [], lambda: None])
async def test_an_answer_that_cannot_be_awaited(value) -> None:
    assert (await verdict_on(lambda: value)).mistake == "not-async"


async def test_a_forgotten_await_is_told_before_what_it_caused() -> None:
    async def learners() -> None:
        len(fine())  # ty: ignore[invalid-argument-type]

    verdict = await verdict_on(learners)
    assert verdict.mistake == "forgotten-await"
    assert verdict.message.endswith("(fine)")


async def test_a_forgotten_await_that_causes_nothing() -> None:
    async def learners() -> None:
        fine()  # ty: ignore[unused-awaitable]

    assert (await verdict_on(learners)).mistake == "forgotten-await"


async def test_what_was_lost_before_is_not_the_learners() -> None:
    gc.disable()
    try:
        lost: list[Any] = [fine()]
        lost.append(lost)
        del lost

        assert (await verdict_on(fine)).passed
        with pytest.warns(RuntimeWarning, match="fine"):
            gc.collect()
    finally:
        gc.enable()


async def test_a_function_is_required() -> None:
    async def pages():
        yield ""

    for given, mistake in [
        (fine, None),
        (fine(), "called-instead-of-passed"),
        (asyncio.ensure_future(asyncio.sleep(0)), "called-instead-of-passed"),
        (pages(), "called-instead-of-passed"),
        (7, "wrong-type"),
        (None, "wrong-type"),
        (dict, "wrong-type"),
    ]:

        async def judge(sandbox: Sandbox, given: Any = given) -> str:
            require_function(given, example="check_it(fine)")
            return "fine"

        verdict = await check(judge)
        assert verdict.mistake == mistake
        assert mistake is None or "write check_it(fine)" in verdict.message
    await asyncio.sleep(0)


async def test_the_callers_cancellation_stops_the_code_and_passes_on() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def learners() -> None:
        began.set()
        try:
            await forever()
        finally:
            ended.set()

    checking = asyncio.create_task(verdict_on(learners))
    await began.wait()
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await checking
    assert ended.is_set()


async def test_a_fault_of_the_judge_raises() -> None:
    async def judge(sandbox: Sandbox) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await check(judge)


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
async def test_a_limit_without_sense_is_refused(limit) -> None:
    with pytest.raises(ValueError, match=f"limit is {limit!r}"):
        await verdict_on(fine, limit)


async def test_tasks_of_others_are_left_alone() -> None:
    release = asyncio.Event()
    other = asyncio.create_task(release.wait())
    assert (await verdict_on(fine)).passed
    assert not other.done()
    release.set()
    await other


async def test_a_verdict_is_shown_as_one_line_and_once(monkeypatch) -> None:
    shown: list[tuple[str, str]] = []
    monkeypatch.setattr(checking, "show_note", lambda text, *, kind: shown.append((text, kind)))

    passed = await verdict_on(fine)
    failed = await verdict_on(raises(ValueError("a\nb")))

    assert shown == [("fine", "tick"), (failed.message, "hint")]
    assert not any("\n" in text for text, _ in shown)
    assert DisplayFormatter().format(passed) == ({}, {})
