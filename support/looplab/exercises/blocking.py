"""The exercise of lesson 01: fix an endpoint that blocks the event loop in two places."""

import asyncio
import functools
import inspect
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakSet

import httpx
import psutil
from starlette.applications import Starlette

from looplab.exercises.checking import check
from looplab.exercises.error_text import leaves
from looplab.exercises.sandbox import Sandbox, blame
from looplab.exercises.supplier import REFUSED, WAIT, Call, prices_of, summarise, watched
from looplab.exercises.verdicts import Exercise, Mistake, Verdict, wrong
from looplab.lab.clients import in_process
from looplab.lab.recording import Recording
from looplab.lab.trace import Step
from looplab.lab.units import ms
from looplab.lab.xray import xray

SKUS = ("lamp-7", "desk-2", "vase-5", "rug-11")
ALONE = "clock-3"
ALONE_TIMES = 3
UNKNOWN = f"{REFUSED}1"
ROUNDS = 3  # of reports with a ping behind them, at most: one in which it comes first is enough
PART_OF_THE_WORK = 0.75  # a step that takes this share of the known work is the work
POLLING = 200  # steps of one task in one report; an honest one takes some twenty
POOLS = 4  # made while seven reports run; one that is made when it is first needed is fine
ENDING = 3.0  # seconds that worker processes get to end by themselves, when their pool is stopped

EXERCISE = Exercise(
    lesson="01",
    check="check_blocking",
    stub="untouched",
    task=(
        "Fix an endpoint that blocks the event loop in two places, one that waits and one that "
        "computes, and choose where each of them runs."
    ),
    usual_wrong_prediction=(
        "Most predict one wait for the twenty requests, because the endpoint says async def; it is "
        "twenty waits, since a blocking call holds up everybody and not only its own request."
    ),
    mistakes=(
        Mistake(
            "untouched",
            "leaves the endpoint as it is, or changes what does not matter",
            "fetch_prices and summarise both still run on the event loop, and a ping waits until "
            "they are done. Decide for each of them where it should run instead.",
        ),
        Mistake(
            "sleep-zero",
            "sprinkles await asyncio.sleep(0) between the two calls",
            "Between the two calls others get a turn now, but each call blocks the loop for as "
            "long as before. The calls themselves have to leave the event loop.",
        ),
        Mistake(
            "only-wait-moved",
            "moves fetch_prices off the loop and leaves summarise on it",
            "The wait has left the event loop. Now look at summarise: it waits for nothing, but "
            "while it computes on the loop, nobody else can run.",
        ),
        Mistake(
            "only-computing-moved",
            "moves summarise off the loop and leaves fetch_prices on it",
            "The computing has left the event loop. Now look at fetch_prices: it waits in the "
            "loop's own thread, and everybody waits with it.",
        ),
        Mistake(
            "computes-in-threads",
            "runs summarise in a thread of this process: to_thread, a def endpoint, a pool",
            "Pings are answered, and reports overlap. But summarise computes in a thread of this "
            "process, where it shares one GIL with every request. Look up in the table where a "
            "call belongs that computes in Python.",
        ),
        Mistake(
            "waits-in-a-process",
            "runs fetch_prices in a worker process",
            "Pings are answered, and reports overlap. But fetch_prices waits in a worker process, "
            "which can compute nothing meanwhile. What waits needs something cheaper.",
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
            "fetch_prices is a plain function: it has blocked, and returned its answer, before "
            "await sees anything. Let something else run it, and await that.",
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
            "Some code of your own still holds the event loop, for as long as the work takes. Look "
            "for time.sleep, for result() of a future that isn't done yet, and for a loop that "
            "computes.",
        ),
        Mistake(
            "ping-waits",
            "lets the ping pass through what the reports queue in: a lock, a semaphore, a pool",
            "The loop is free, but the ping is answered only after a report: it queues for "
            "something that the reports hold. Keep the ping out of your lock or pool.",
        ),
        Mistake(
            "pool-per-request",
            "makes a pool of threads or processes in the endpoint, with or without a shutdown",
            "Each report makes a pool of its own and pays for its start, and a hundred requests "
            "make a hundred pools. Make one pool when the app starts, in its lifespan.",
        ),
        Mistake(
            "never-closed",
            "makes the pool at the top of the module, or when it is first needed: nobody closes it",
            "The app has stopped, and its pool still runs: nobody closes it. A pool belongs to the "
            "lifespan, which makes it before its yield and closes it after.",
        ),
        Mistake(
            "polls",
            "asks whether a future is done in a loop with await asyncio.sleep(0) inside",
            "Your code asks again and again whether the work is done, and the loop spins at full "
            "speed. Await the future itself: it wakes you when it's done.",
        ),
        Mistake(
            "calls-changed",
            "makes the answer up, caches it, copies a function, or calls one twice",
            "Each report has to call fetch_prices once and summarise once. A cache or a copy "
            "doesn't know what the supplier says now, and a second call costs the supplier twice.",
        ),
        Mistake(
            "hides-a-failure",
            "catches what fetch_prices raises and answers 200",
            "The supplier refused, and your report answered 200 as if it hadn't. Its reader takes "
            "that for prices. Let the error through, or answer with a status that tells of it.",
        ),
        Mistake(
            "wrong-result",
            "drops or changes the work, shares a variable between requests, renames the route",
            "The answers are not what they were. Keep both calls and the answer's shape.",
        ),
    ),
)


async def check_blocking(app: Any, *, limit: float | None = None) -> Verdict:
    """Check the fixed app of lesson 01, show one line, and return the verdict.

    The app answers ``GET /report/{sku}`` with ``{"sku": sku, "trend": summarise(prices)}`` and
    ``GET /ping`` with anything. It passes if

    - four reports at once are right, and each calls both functions once;
    - neither the work nor anything else runs long on the event loop, and nothing polls;
    - the supplier is asked for several reports at once, by no more than a few pools;
    - a ping sent after the reports need not wait for them;
    - a report whose supplier refuses does not answer 200;
    - no pool that it used is open when it has stopped;
    - the supplier is asked from this process, and what computes is in another one.

    Threads and processes of any kind do. Pools and worker processes that the app leaves are ended.
    ``limit`` is how long the app may take in all,
    in seconds; unless given, as :func:`looplab.exercises.checking.check` has it.
    """
    return await check(functools.partial(_judge, app=app), limit=limit)


@dataclass(slots=True)
class _Visit:
    """What came of one visit to the app.

    ``calls`` are those of the requests that are to succeed, which ``asked`` counts the reports of.
    ``first`` is the name of the request that was answered first of those that ran at once,
    ``pools`` how many pools were made during the requests, ``processes`` whether the app has
    any, and ``used`` the pools that were given work.
    """

    alone: httpx.Response | None = None
    reports: dict[str, httpx.Response] = field(default_factory=dict)
    pings: list[httpx.Response] = field(default_factory=list)
    refused: httpx.Response | None = None
    error: BaseException | None = None
    calls: list[Call] = field(default_factory=list)
    asked: int = 0
    first: str = ""
    pools: int = 0
    processes: bool = False
    used: set[Executor] = field(default_factory=set)


async def _judge(sandbox: Sandbox, *, app: Any) -> str:
    if not isinstance(app, Starlette):
        if inspect.iscoroutine(app):
            app.close()
        raise wrong("wrong-type", f"it got {type(app).__name__}; write check_blocking(report_app)")
    expected, computing = await asyncio.to_thread(_reference)
    visit = _Visit()
    before = {child.pid for child, _ in _children()}
    unclosed = 0
    try:
        with watched() as calls, _uses_noted(visit.used):
            ran = await sandbox.run(lambda: xray(_requests(app, visit, calls), show=False))
    finally:
        await _spare_the_loops_own(visit.used)
        stopped_before = bool(visit.used & set(_stopped))
        unclosed = await asyncio.to_thread(_end_pools, visit.used, before)
    error = visit.error or ran.error
    if error is not None:
        if stopped_before and "after shutdown" in str(next(leaves(error))):
            raise EXERCISE.wrong("never-closed", "this check stopped it when it ran before")
        raise _blame(error, calls)
    recording: Recording = ran.result()
    _judge_answers(visit, expected)
    _judge_calls(calls, recording)
    if visit.pools >= POOLS:
        raise EXERCISE.wrong("pool-per-request", f"{visit.pools} pools in {visit.asked} reports")
    _judge_counts(visit, recording)
    _judge_holds(recording, PART_OF_THE_WORK * min(ms(WAIT), computing))
    if all(max(len(steps) for steps in tasks) > POLLING for tasks in _tasks(recording, "alone")):
        raise EXERCISE.wrong("polls")
    _judge_overlap(visit.calls, recording)
    if visit.first != "ping":
        raise EXERCISE.wrong("ping-waits")
    if visit.refused is not None and visit.refused.status_code == 200:
        raise EXERCISE.wrong("hides-a-failure", f"GET /report/{UNKNOWN}")
    _judge_places(visit)
    if unclosed:
        raise EXERCISE.wrong("never-closed")
    return (
        "Four reports run at once, and a ping is answered meanwhile. The waits share this process, "
        "the computing has left it, and the event loop is free."
    )


async def _requests(app: Starlette, visit: _Visit, calls: list[Call]) -> None:
    """Ask for a report and a ping three times, then for four reports at once and a ping behind.

    Last, ask for a report that the supplier refuses.
    """
    async with in_process(app) as client:
        with _pools_counted(visit):
            for path in (f"/report/{ALONE}", "/ping") * ALONE_TIMES:
                name = "ping" if path == "/ping" else "alone"
                alone = asyncio.create_task(client.get(path), name=name)
                await asyncio.wait({alone})
                visit.error = _error_of([alone])
                if visit.error is not None:
                    return
                if name == "ping":
                    visit.pings.append(alone.result())
                else:
                    visit.alone = alone.result()
                    visit.asked += 1
            for _ in range(ROUNDS):
                await _all_at_once(client, visit)
                if visit.error is not None:
                    return
                if visit.first == "ping":
                    break
        visit.calls = list(calls)
        visit.processes = await asyncio.to_thread(_has_worker_processes)
        refused = asyncio.create_task(client.get(f"/report/{UNKNOWN}"), name="refused")
        await asyncio.wait({refused})
        if _error_of([refused]) is None:
            visit.refused = refused.result()


async def _all_at_once(client: httpx.AsyncClient, visit: _Visit) -> None:
    reports = {
        sku: asyncio.create_task(client.get(f"/report/{sku}"), name=f"report {sku}") for sku in SKUS
    }
    ping = asyncio.create_task(client.get("/ping"), name="ping")
    tasks = [*reports.values(), ping]
    ended: list[str] = []
    for task in tasks:
        task.add_done_callback(lambda task: ended.append(task.get_name()))
    await asyncio.wait(tasks)
    visit.error = _error_of(tasks)
    if visit.error is None:
        visit.first = ended[0]
        visit.asked += len(reports)
        visit.reports = {sku: task.result() for sku, task in reports.items()}
        visit.pings.append(ping.result())


@contextmanager
def _pools_counted(visit: _Visit) -> Generator[None]:
    """Count the pools of threads and of processes that are made inside the block."""
    kinds = (ThreadPoolExecutor, ProcessPoolExecutor)
    originals = [(kind, kind.__init__) for kind in kinds]

    def counted(make: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(make)
        def made(self: Any, *args: Any, **options: Any) -> None:
            visit.pools += 1
            make(self, *args, **options)

        return made

    for kind, make in originals:
        setattr(kind, "__init__", counted(make))  # noqa: B010
    try:
        yield
    finally:
        for kind, make in originals:
            setattr(kind, "__init__", make)  # noqa: B010


# The pools that now take note of the work that a learner's app gives them, and the pools that a
# check has stopped because the app had not.
_noting: ContextVar[set[Executor] | None] = ContextVar("_noting", default=None)
_stopped: "WeakSet[Executor]" = WeakSet()


@contextmanager
def _uses_noted(used: set[Executor]) -> Generator[None]:
    """Put into ``used`` each pool that gets work from the code in the block, or from its tasks."""
    kinds = (ThreadPoolExecutor, ProcessPoolExecutor)
    originals = [(kind, kind.submit) for kind in kinds]

    def noted(submit: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(submit)
        def submitted(self: Executor, /, *args: Any, **options: Any) -> Any:
            noting = _noting.get()
            if noting is not None:
                noting.add(self)
            return submit(self, *args, **options)

        return submitted

    for kind, submit in originals:
        setattr(kind, "submit", noted(submit))  # noqa: B010
    token = _noting.set(used)
    try:
        yield
    finally:
        _noting.reset(token)
        for kind, submit in originals:
            setattr(kind, "submit", submit)  # noqa: B010


async def _spare_the_loops_own(used: set[Executor]) -> None:
    """Take the loop's default pool out of ``used``: it outlives every app."""
    own: set[Executor] = set()
    with _uses_noted(own):
        await asyncio.to_thread(int)
    used -= own


def _end_pools(used: set[Executor], before: set[int]) -> int:
    """Stop the pools in ``used`` and the worker processes that are not in ``before``.

    Returns how many of the pools were open until now. AnyIO's worker processes end as well: it
    keeps them as long as the loop runs.
    """
    unclosed = [pool for pool in used if _is_open(pool)]
    for pool in unclosed:
        pool.shutdown(wait=False, cancel_futures=True)
        _stopped.add(pool)
    _end_anyio_processes()
    left = [child for child in _workers() if child.pid not in before]
    _, alive = psutil.wait_procs(left, timeout=ENDING)
    for child in alive:
        with suppress(psutil.Error):
            child.kill()
    psutil.wait_procs(alive, timeout=ENDING)
    return len(unclosed)


def _is_open(pool: Executor) -> bool:
    """Return whether the pool was not shut down; one whose workers died may still be open."""
    try:
        pool.submit(int).cancel()
    except BrokenExecutor:
        return True
    except RuntimeError:
        return False
    return True


def _has_worker_processes() -> bool:
    """Return whether this process has children that can compute for it."""
    return next(_workers(), None) is not None


def _workers() -> Generator[psutil.Process]:
    """Yield the children of this process, and theirs, that can compute for it.

    What serves multiprocessing itself cannot, and it stays once it has been used: the tracker of
    resources, and the server that forks workers, which is the default from Python 3.14 on. Nor can
    a program that is not Python, such as a Redis server.
    """
    own = psutil.Process().pid
    for child, command in _children():
        with suppress(psutil.Error):
            serves = "resource_tracker" in command or (
                "multiprocessing.forkserver" in command and child.ppid() == own
            )
            if not serves and "python" in Path(child.exe()).name.lower():
                yield child


def _end_anyio_processes() -> None:
    """End the worker processes of AnyIO, which keeps them as long as the loop runs."""
    for child, command in _children():
        if "anyio.to_process" in command:
            with suppress(psutil.Error):
                child.kill()


def _children() -> Generator[tuple[psutil.Process, str]]:
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # one that has ended meanwhile
            yield child, " ".join(child.cmdline())


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
    if any(ping.status_code != 200 for ping in visit.pings):
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
        raise EXERCISE.wrong("only-computing-moved")
    if summarised:
        raise EXERCISE.wrong("only-wait-moved")


def _judge_counts(visit: _Visit, recording: Recording) -> None:
    """Find reports that are answered without both calls, or with more of them.

    Calls in other processes cannot be counted. A report still cannot end before the supplier has
    answered it.
    """
    for name in ("fetch_prices", "summarise"):
        seen = len(_named(visit.calls, name))
        if seen != visit.asked and (seen or not visit.processes):
            raise EXERCISE.wrong(
                "calls-changed", f"{name} ran {seen} times in {visit.asked} reports"
            )
    quickest = min(lane.ended - lane.began for lane in recording.lanes if _is_report(lane.name))
    if quickest < ms(WAIT):
        raise EXERCISE.wrong("calls-changed", "a report came before the supplier can answer")


def _judge_places(visit: _Visit) -> None:
    """Find computing in this process, and waiting in another one."""
    if _named(visit.calls, "summarise"):
        raise EXERCISE.wrong("computes-in-threads")
    if not _named(visit.calls, "fetch_prices"):
        raise EXERCISE.wrong("waits-in-a-process")


def _judge_holds(recording: Recording, long: float) -> None:
    """Find work on the loop that went by no known function.

    A busy machine stretches a step here and there, but not one in each of the reports, or in each
    of the pings.
    """
    for names, where in (("alone", "report"), "GET /report"), (("ping",), "GET /ping"):
        longest = [
            max(ended - began for steps in tasks for began, ended, _ in steps)
            for tasks in _tasks(recording, *names)
        ]
        if all(hold >= long for hold in longest):
            raise EXERCISE.wrong("holds-the-loop", where)


def _is_report(name: str) -> bool:
    return name == "alone" or name.startswith("report ")


def _tasks(recording: Recording, *names: str) -> list[list[tuple[Step, ...]]]:
    """Return, for each request whose task's name begins so, the steps of each of its tasks.

    The request's own task comes first, and then those that it has made.
    """
    found: list[list[tuple[Step, ...]]] = []
    depth = -1
    for lane in recording.lanes:
        if lane.name.startswith(names):
            depth = lane.depth
            found.append([])
        elif lane.depth <= depth:
            depth = -1
        if depth >= 0:
            found[-1].append(lane.steps)
    return found


def _judge_overlap(calls: list[Call], recording: Recording) -> None:
    """Find reports that stand in a queue for the supplier.

    Reports can also follow one another because the machine is too busy to begin them in time. Then
    a report has not begun when the supplier answers the one before; in a queue it has.
    """
    began = [lane.steps[0] for lane in recording.lanes if lane.name.startswith("report ")]
    began = began[-len(SKUS) :]
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
