"""The exercise of lesson 01: mend an endpoint that blocks the event loop in two places."""

import asyncio
import functools
import inspect
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.applications import Starlette

from support.exercises.checking import check
from support.exercises.error_text import leaves
from support.exercises.sandbox import Sandbox, blame
from support.exercises.supplier import WAIT, Call, prices_of, summarise, watched
from support.exercises.verdicts import Exercise, Mistake, Verdict, wrong
from support.lab.clients import in_process
from support.lab.recording import Recording
from support.lab.units import ms
from support.lab.xray import xray

SKUS = ("lamp-7", "desk-2", "vase-5", "rug-11")
ALONE = "clock-3"
ALONE_TIMES = 3
PART_OF_THE_WORK = 0.75  # a step that takes this share of the known work is the work

EXERCISE = Exercise(
    lesson="01",
    check="check_blocking",
    stub="untouched",
    task="Mend an endpoint that blocks the event loop in two places: one waits, one computes.",
    usual_wrong_prediction=(
        "That a blocking call slows its own request only: most predict one wait for twenty "
        "requests because the endpoint says async def, and it is twenty waits."
    ),
    mistakes=(
        Mistake(
            "untouched",
            "leaves the endpoint as it is, or changes what does not matter",
            "Not mended yet: fetch_prices and summarise both still run on the event loop, and a "
            "ping waits behind them. Move each to a thread or a process, and await it.",
        ),
        Mistake(
            "sleep-zero",
            "sprinkles await asyncio.sleep(0) between the two calls",
            "asyncio.sleep(0) lets others run for a moment between two blocks, and each block is "
            "as long as before. The calls themselves have to leave the event loop.",
        ),
        Mistake(
            "only-io-mended",
            "moves fetch_prices to a thread and leaves summarise on the loop",
            "The wait is off the event loop. Now summarise: it waits for nothing, but while it "
            "computes on the loop nobody else runs.",
        ),
        Mistake(
            "only-cpu-mended",
            "moves summarise to a thread or process and leaves fetch_prices on the loop",
            "The computing is off the event loop. Now fetch_prices: it sleeps in the loop's own "
            "thread, so everybody sleeps.",
        ),
        Mistake(
            "called-not-passed",
            "writes asyncio.to_thread(fetch_prices(sku)): calls it, then passes what it returned",
            "The parentheses call the function at once, on the event loop. Pass the function and "
            "its argument apart: asyncio.to_thread(fetch_prices, sku).",
        ),
        Mistake(
            "awaited-a-plain-function",
            "writes await fetch_prices(sku)",
            "await needs something to wait for, and a plain function returns its answer, having "
            "blocked already. Hand the function to a thread, and await the thread.",
        ),
        Mistake(
            "one-at-a-time",
            "puts a lock, a semaphore of one or a pool of one thread around the calls",
            "The loop is free, but only one report at a time asks the supplier. Let the waits of "
            "different requests overlap.",
        ),
        Mistake(
            "holds-the-loop",
            "blocks in code of their own: a copy of the function, time.sleep, a busy loop",
            "Something still holds the event loop, in code of your own: in each report one step "
            "takes as long as the work itself.",
        ),
        Mistake(
            "wrong-result",
            "drops or changes the work, shares a variable between requests, renames the route",
            "The answers are not what they were. Keep both calls and the answer's shape.",
        ),
    ),
)


async def check_blocking(app: Any, *, limit: float | None = None) -> Verdict:
    """Check the mended app of lesson 01, show one line, and return the verdict.

    The app answers ``GET /report/{sku}`` with ``{"sku": sku, "trend": summarise(prices)}`` and
    ``GET /ping`` with anything. It passes if four reports at once are right, none of the work runs
    on the event loop, the supplier is asked for several of them at once, and a ping sent behind
    them need not wait for them. ``def`` endpoints, threads and processes all do.

    ``limit`` is how long the app may take in all, in seconds; 15 unless given. An endless loop that
    never awaits cannot be stopped: restart the kernel.
    """
    return await check(functools.partial(_judge, app=app), limit=limit)


@dataclass(slots=True)
class _Visit:
    """What came of one visit to the app; ``clean`` once no request has failed."""

    alone: httpx.Response | None = None
    reports: dict[str, httpx.Response] = field(default_factory=dict)
    ping: httpx.Response | None = None
    error: BaseException | None = None


async def _judge(sandbox: Sandbox, *, app: Any) -> str:
    if not isinstance(app, Starlette):
        if inspect.iscoroutine(app):
            app.close()
        raise wrong("wrong-type", f"it got {type(app).__name__}; write check_blocking(report_app)")
    expected, computing = await asyncio.to_thread(_reference)
    visit = _Visit()
    with watched() as calls:
        ran = await sandbox.run(lambda: xray(_requests(app, visit), show=False))
    error = visit.error or ran.error
    if error is not None:
        raise _blame(error, calls)
    recording: Recording = ran.result()
    _judge_answers(visit, expected)
    _judge_calls(calls, recording)
    _judge_holds(recording, PART_OF_THE_WORK * min(ms(WAIT), computing))
    _judge_overlap(calls, recording)
    return (
        "Four reports at once, and a ping behind them is answered while they wait: neither the "
        "supplier nor the summary holds the event loop any more."
    )


async def _requests(app: Starlette, visit: _Visit) -> None:
    """Ask for a report three times, then for four at once with a ping behind them."""
    async with in_process(app) as client:
        for _ in range(ALONE_TIMES):
            alone = asyncio.create_task(client.get(f"/report/{ALONE}"), name="alone")
            await asyncio.wait({alone})
            visit.error = _error_of([alone])
            if visit.error is not None:
                return
            visit.alone = alone.result()
        reports = {
            sku: asyncio.create_task(client.get(f"/report/{sku}"), name=f"report {sku}")
            for sku in SKUS
        }
        ping = asyncio.create_task(client.get("/ping"), name="ping")
        await asyncio.wait([*reports.values(), ping])
        visit.error = _error_of([*reports.values(), ping])
        if visit.error is None:
            visit.reports = {sku: task.result() for sku, task in reports.items()}
            visit.ping = ping.result()


def _error_of(tasks: Iterable["asyncio.Task[Any]"]) -> BaseException | None:
    for task in tasks:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            return error
    return None


def _blame(error: BaseException, calls: list[Call]) -> Exception:
    leaf = next(leaves(error))
    if isinstance(leaf, TypeError):
        if "not callable" in str(leaf) and any(call.on_loop for call in calls):
            return EXERCISE.wrong("called-not-passed")
        # in the words of Python 3.11 to 3.13, and of 3.14 and later
        if "'await' expression" in str(leaf) or "can't be awaited" in str(leaf):
            return EXERCISE.wrong("awaited-a-plain-function")
    return blame(error)


@functools.cache
def _reference() -> tuple[dict[str, Any], float]:
    """Return the right answers by SKU, and the CPU seconds of the quickest summary."""
    answers: dict[str, Any] = {}
    quickest = float("inf")
    for sku in (ALONE, *SKUS):
        prices = prices_of(sku)
        began = time.thread_time()
        answers[sku] = {"sku": sku, "trend": summarise(prices)}
        quickest = min(quickest, time.thread_time() - began)
    return answers, quickest


def _judge_answers(visit: _Visit, expected: dict[str, Any]) -> None:
    answers = {ALONE: visit.alone, **visit.reports}
    for sku, response in answers.items():
        if response is None or response.status_code != 200:
            status = response.status_code if response is not None else "nothing"
            raise EXERCISE.wrong("wrong-result", f"GET /report/{sku} answered {status}")
        if _json(response) != expected[sku]:
            raise EXERCISE.wrong("wrong-result", f"GET /report/{sku}")
    if visit.ping is None or visit.ping.status_code != 200:
        raise EXERCISE.wrong("wrong-result", "GET /ping")


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _judge_calls(calls: list[Call], recording: Recording) -> None:
    fetched, summarised = (
        any(call.on_loop for call in _named(calls, name)) for name in ("fetch_prices", "summarise")
    )
    if fetched and summarised:
        steps = max(len(lane.steps) for lane in recording.lanes if lane.name == "alone")
        raise EXERCISE.wrong("untouched" if steps == 1 else "sleep-zero")
    if fetched:
        raise EXERCISE.wrong("only-cpu-mended")
    if summarised:
        raise EXERCISE.wrong("only-io-mended")


def _judge_holds(recording: Recording, long: float) -> None:
    """Find work on the loop that went by no known function.

    A busy machine stretches a step here and there, but not one in each of the reports, those that
    ran alone included.
    """
    if all(hold >= long for hold in _longest_steps(recording)):
        raise EXERCISE.wrong("holds-the-loop")


def _longest_steps(recording: Recording) -> list[float]:
    """Return the longest step of each report, the tasks that it made included, in seconds."""
    longest: list[float] = []
    report_depth = -1
    for lane in recording.lanes:
        if lane.name == "alone" or lane.name.startswith("report "):
            report_depth = lane.depth
            longest.append(0.0)
        elif lane.depth <= report_depth:
            report_depth = -1
        if report_depth >= 0:
            steps = max(ended - began for began, ended, _ in lane.steps)
            longest[-1] = max(longest[-1], steps)
    return longest


def _judge_overlap(calls: list[Call], recording: Recording) -> None:
    """Find reports that stand in a queue for the supplier.

    Reports can also follow one another because the machine is too busy to begin them in time. Then
    a report has not begun when the supplier answers the one before; in a queue it has.
    """
    began = [lane.steps[0] for lane in recording.lanes if lane.name.startswith("report ")]
    waiting = sorted(recording.start + ended for _, ended, _ in began)
    fetches = _named(calls, "fetch_prices")[-len(SKUS) :]
    if len(fetches) < len(SKUS) or _peak(fetches) > 1:
        return
    answered = sorted(call.ended for call in fetches)
    if all(since < before for since, before in zip(waiting[1:], answered, strict=False)):
        raise EXERCISE.wrong("one-at-a-time")


def _named(calls: list[Call], name: str) -> list[Call]:
    return [call for call in calls if call.name == name]


def _peak(calls: list[Call]) -> int:
    """Return how many of the calls were under way at once, at most."""
    return max(sum(other.began <= call.began < other.ended for other in calls) for call in calls)
