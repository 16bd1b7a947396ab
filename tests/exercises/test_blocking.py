"""The check of lesson 01, with right answers and wrong ones."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
from fastapi import FastAPI

from looplab.exercises.blocking import EXERCISE, check_blocking
from looplab.exercises.supplier import fetch_prices, prices_of, summarise, watched

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy

POOL = """
@asynccontextmanager
async def lifespan(app):
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as app.state.pool:
        yield

async def computed(prices):
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(report_app.state.pool, summarise, prices)
"""

WORKERS = """
class Workers:
    def __init__(self):
        self.pool = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))

    async def run(self, function, *args):
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *args)
"""

RIGHT: tuple[tuple[str, str], ...] = (
    (
        "a thread for the wait, and a pool of processes for the computing",
        f"""{POOL}
async def report(sku):
    prices = await asyncio.to_thread(fetch_prices, sku)
    return {{"sku": sku, "trend": await computed(prices)}}
""",
    ),
    (
        "a thread of AnyIO's for the wait",
        f"""{POOL}
async def report(sku):
    prices = await anyio.to_thread.run_sync(fetch_prices, sku)
    return {{"sku": sku, "trend": await computed(prices)}}
""",
    ),
    (
        "a def endpoint, whose thread waits for the process too",
        f"""{POOL}
def report(sku, request: Request):
    prices = fetch_prices(sku)
    return {{"sku": sku, "trend": request.app.state.pool.submit(summarise, prices).result()}}
""",
    ),
    (
        "def endpoints for the report and the ping",
        f"""{POOL}
def report(sku, request: Request):
    prices = fetch_prices(sku)
    return {{"sku": sku, "trend": request.app.state.pool.submit(summarise, prices).result()}}

def ping():
    return "pong"
""",
    ),
    (
        "pools of threads and of processes from the lifespan, in the request's state",
        """
@asynccontextmanager
async def lifespan(app):
    clean = multiprocessing.get_context("spawn")
    with ThreadPoolExecutor(8) as threads, ProcessPoolExecutor(2, clean) as workers:
        yield {"threads": threads, "workers": workers}

async def report(sku, request: Request):
    run = asyncio.get_running_loop().run_in_executor
    prices = await run(request.state.threads, fetch_prices, sku)
    return {"sku": sku, "trend": await run(request.state.workers, summarise, prices)}
""",
    ),
    (
        "a pool of threads that is made when it is first needed, and closed",
        f"""
@lru_cache
def threads():
    return ThreadPoolExecutor(4)
{POOL.replace("yield", "yield; threads().shutdown()")}
async def report(sku):
    loop = asyncio.get_running_loop()
    prices = await loop.run_in_executor(threads(), fetch_prices, sku)
    return {{"sku": sku, "trend": await computed(prices)}}
""",
    ),
    (
        "a worker process of AnyIO's for the computing",
        """
import anyio.to_process

async def report(sku):
    prices = await asyncio.to_thread(fetch_prices, sku)
    return {"sku": sku, "trend": await anyio.to_process.run_sync(summarise, prices)}
""",
    ),
    (
        "a limiter of three around the threads",
        f"""{POOL}
limiter = anyio.CapacityLimiter(3)

async def report(sku):
    prices = await anyio.to_thread.run_sync(fetch_prices, sku, limiter=limiter)
    return {{"sku": sku, "trend": await computed(prices)}}
""",
    ),
    (
        "a refusal of the supplier as a 502",
        f"""{POOL}
async def report(sku):
    try:
        prices = await asyncio.to_thread(fetch_prices, sku)
    except LookupError as error:
        raise HTTPException(502, str(error)) from error
    return {{"sku": sku, "trend": await computed(prices)}}
""",
    ),
    (
        "a class of workers, as the lesson has it",
        f"""{WORKERS}
@asynccontextmanager
async def lifespan(app):
    workers = Workers()
    with workers.pool:
        yield {{"workers": workers}}

async def report(sku, request: Request):
    prices = await asyncio.to_thread(fetch_prices, sku)
    return {{"sku": sku, "trend": await request.state.workers.run(summarise, prices)}}
""",
    ),
)

# Two kinds survive. A pool of one process serialises the reports, and the check does not see it:
# calls in another process leave no trace here, and from outside one slow worker looks like two on
# a busy machine. A thread that is made by hand for each report, and that a future waits for, passes
# too: it frees the loop, ends by itself, and costs what a request's own thread costs anywhere.
WRONG: tuple[tuple[str, str, str], ...] = (
    (
        "the stub",
        """
async def report(sku):
    return {"sku": sku, "trend": summarise(fetch_prices(sku))}
""",
        "untouched",
    ),
    (
        "sleep(0) before each call",
        """
async def report(sku):
    await asyncio.sleep(0)
    prices = fetch_prices(sku)
    await asyncio.sleep(0)
    return {"sku": sku, "trend": summarise(prices)}
""",
        "sleep-zero",
    ),
    (
        "summarise left on the loop",
        """
async def report(sku):
    return {"sku": sku, "trend": summarise(await asyncio.to_thread(fetch_prices, sku))}
""",
        "only-wait-moved",
    ),
    (
        "fetch_prices left on the loop",
        """
async def report(sku):
    return {"sku": sku, "trend": await asyncio.to_thread(summarise, fetch_prices(sku))}
""",
        "only-computing-moved",
    ),
    (
        "both in a task, which is no thread",
        """
async def both(sku):
    return summarise(fetch_prices(sku))

async def report(sku):
    return {"sku": sku, "trend": await asyncio.create_task(both(sku))}
""",
        "sleep-zero",
    ),
    (
        "a thread for each call",
        """
async def report(sku):
    prices = await asyncio.to_thread(fetch_prices, sku)
    return {"sku": sku, "trend": await asyncio.to_thread(summarise, prices)}
""",
        "computes-in-threads",
    ),
    (
        "one AnyIO thread for both calls",
        """
def both(sku):
    return {"sku": sku, "trend": summarise(fetch_prices(sku))}

async def report(sku):
    return await anyio.to_thread.run_sync(both, sku)
""",
        "computes-in-threads",
    ),
    (
        "a def endpoint, which FastAPI runs in a thread",
        """
def report(sku):
    return {"sku": sku, "trend": summarise(fetch_prices(sku))}
""",
        "computes-in-threads",
    ),
    (
        "a pool of threads from the lifespan for both",
        """
@asynccontextmanager
async def lifespan(app):
    with ThreadPoolExecutor(8) as app.state.pool:
        yield

async def report(sku, request: Request):
    run = partial(asyncio.get_running_loop().run_in_executor, request.app.state.pool)
    return {"sku": sku, "trend": await run(summarise, await run(fetch_prices, sku))}
""",
        "computes-in-threads",
    ),
    (
        "a pool of processes that nothing uses",
        f"""{POOL}
async def report(sku):
    prices = await asyncio.to_thread(fetch_prices, sku)
    return {{"sku": sku, "trend": await asyncio.to_thread(summarise, prices)}}
""",
        "computes-in-threads",
    ),
    (
        "AnyIO's worker processes for both",
        """
import anyio.to_process

async def report(sku):
    prices = await anyio.to_process.run_sync(fetch_prices, sku)
    return {"sku": sku, "trend": await anyio.to_process.run_sync(summarise, prices)}
""",
        "waits-in-a-process",
    ),
    (
        "a pool of processes for both",
        f"""{POOL}
async def report(sku):
    loop = asyncio.get_running_loop()
    prices = await loop.run_in_executor(report_app.state.pool, fetch_prices, sku)
    return {{"sku": sku, "trend": await computed(prices)}}
""",
        "waits-in-a-process",
    ),
    (
        "fetch_prices called for to_thread",
        """
async def report(sku):
    prices = await asyncio.to_thread(fetch_prices(sku))
    return {"sku": sku, "trend": await asyncio.to_thread(summarise, prices)}
""",
        "called-not-passed",
    ),
    (
        "summarise called for the executor",
        """
async def report(sku):
    prices = await asyncio.to_thread(fetch_prices, sku)
    loop = asyncio.get_running_loop()
    return {"sku": sku, "trend": await loop.run_in_executor(None, summarise(prices))}
""",
        "called-not-passed",
    ),
    (
        "a plain function awaited",
        """
async def report(sku):
    prices = await fetch_prices(sku)
    return {"sku": sku, "trend": summarise(prices)}
""",
        "awaited-a-plain-function",
    ),
    (
        "to_thread of fetch_prices not awaited",
        """
async def report(sku):
    prices = asyncio.to_thread(fetch_prices, sku)
    return {"sku": sku, "trend": await asyncio.to_thread(summarise, prices)}
""",
        "forgotten-await",
    ),
    (
        "to_thread of summarise not awaited",
        """
async def report(sku):
    prices = await asyncio.to_thread(fetch_prices, sku)
    return {"sku": sku, "trend": asyncio.to_thread(summarise, prices)}
""",
        "forgotten-await",
    ),
    (
        "a lock around both threads",
        """
lock = asyncio.Lock()

async def report(sku):
    async with lock:
        prices = await asyncio.to_thread(fetch_prices, sku)
        return {"sku": sku, "trend": await asyncio.to_thread(summarise, prices)}
""",
        "one-at-a-time",
    ),
    (
        "a semaphore of one around fetch_prices",
        """
turn = asyncio.Semaphore(1)

async def report(sku):
    async with turn:
        prices = await asyncio.to_thread(fetch_prices, sku)
    return {"sku": sku, "trend": await asyncio.to_thread(summarise, prices)}
""",
        "one-at-a-time",
    ),
    (
        "a lock of threads in a def endpoint",
        """
import threading
lock = threading.Lock()

def report(sku):
    with lock:
        return {"sku": sku, "trend": summarise(fetch_prices(sku))}
""",
        "one-at-a-time",
    ),
    (
        "a limiter of one for AnyIO's threads",
        """
limiter = anyio.CapacityLimiter(1)

def both(sku):
    return {"sku": sku, "trend": summarise(fetch_prices(sku))}

async def report(sku):
    return await anyio.to_thread.run_sync(both, sku, limiter=limiter)
""",
        "one-at-a-time",
    ),
    (
        "a pool of one thread for all",
        """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(1)

async def report(sku):
    loop = asyncio.get_running_loop()
    prices = await loop.run_in_executor(pool, fetch_prices, sku)
    return {"sku": sku, "trend": await loop.run_in_executor(pool, summarise, prices)}
""",
        "one-at-a-time",
    ),
    (
        "time.sleep in the report",
        """
async def report(sku):
    time.sleep(0.12)
    prices = await asyncio.to_thread(fetch_prices, sku)
    return {"sku": sku, "trend": await asyncio.to_thread(summarise, prices)}
""",
        "holds-the-loop",
    ),
    (
        "time.sleep in a task of the report",
        """
async def warm_up():
    time.sleep(0.12)

async def report(sku):
    async with asyncio.TaskGroup() as group:
        group.create_task(warm_up())
    prices = await asyncio.to_thread(fetch_prices, sku)
    return {"sku": sku, "trend": await asyncio.to_thread(summarise, prices)}
""",
        "holds-the-loop",
    ),
    (
        "a busy loop in the report",
        """
async def report(sku):
    until = time.thread_time() + 0.12
    while time.thread_time() < until:
        pass
    prices = await asyncio.to_thread(fetch_prices, sku)
    return {"sku": sku, "trend": await asyncio.to_thread(summarise, prices)}
""",
        "holds-the-loop",
    ),
    (
        "result() of a future that a thread has yet to fill",
        """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(8)

async def report(sku):
    prices = pool.submit(fetch_prices, sku).result()
    return {"sku": sku, "trend": pool.submit(summarise, prices).result()}
""",
        "holds-the-loop",
    ),
    (
        "a thread that the report joins",
        """
import threading

def work(sku, found):
    try:
        found.append(summarise(fetch_prices(sku)))
    except LookupError:
        found.append(None)

async def report(sku):
    found = []
    thread = threading.Thread(target=work, args=(sku, found))
    thread.start()
    thread.join()
    return {"sku": sku, "trend": found[0]}
""",
        "holds-the-loop",
    ),
    (
        "a ping that blocks 300 ms",
        """
def report(sku):
    return {"sku": sku, "trend": summarise(fetch_prices(sku))}

async def ping():
    time.sleep(0.3)
    return {"ok": True}
""",
        "holds-the-loop",
    ),
    (
        "a ping that asks the supplier on the loop",
        """
def report(sku):
    return {"sku": sku, "trend": summarise(fetch_prices(sku))}

async def ping():
    return {"ok": bool(fetch_prices("lamp-7"))}
""",
        "only-computing-moved",
    ),
    (
        "a ping that waits for the reports to end",
        """
under_way = set()

async def report(sku):
    under_way.add(sku)
    try:
        prices = await asyncio.to_thread(fetch_prices, sku)
        return {"sku": sku, "trend": await asyncio.to_thread(summarise, prices)}
    finally:
        under_way.discard(sku)

async def ping():
    while under_way:
        await asyncio.sleep(0.01)
    return {"ok": True}
""",
        "ping-waits",
    ),
    (
        "a ping in a pool of threads that the reports fill",
        """
limiter = anyio.CapacityLimiter(2)

def both(sku):
    return {"sku": sku, "trend": summarise(fetch_prices(sku))}

async def report(sku):
    return await anyio.to_thread.run_sync(both, sku, limiter=limiter)

async def ping():
    return await anyio.to_thread.run_sync(lambda: {"ok": True}, limiter=limiter)
""",
        "ping-waits",
    ),
    (
        "a pool of threads that is made when it is first needed, and never closed",
        f"""{POOL}
@lru_cache
def threads():
    return ThreadPoolExecutor(4)

async def report(sku):
    loop = asyncio.get_running_loop()
    prices = await loop.run_in_executor(threads(), fetch_prices, sku)
    return {{"sku": sku, "trend": await computed(prices)}}
""",
        "never-closed",
    ),
    (
        "workers at the top of the module, which nobody closes",
        f"""{WORKERS}
workers = Workers()

async def report(sku):
    prices = await asyncio.to_thread(fetch_prices, sku)
    return {{"sku": sku, "trend": await workers.run(summarise, prices)}}
""",
        "never-closed",
    ),
    (
        "workers from a lifespan that forgets them after its yield",
        f"""{WORKERS}
@asynccontextmanager
async def lifespan(app):
    yield {{"workers": Workers()}}

async def report(sku, request: Request):
    prices = await asyncio.to_thread(fetch_prices, sku)
    return {{"sku": sku, "trend": await request.state.workers.run(summarise, prices)}}
""",
        "never-closed",
    ),
    (
        "a pool of threads in each report, never shut down",
        """
from concurrent.futures import ThreadPoolExecutor
pools = []

async def report(sku):
    pools.append(ThreadPoolExecutor(2))
    run = partial(asyncio.get_running_loop().run_in_executor, pools[-1])
    return {"sku": sku, "trend": await run(summarise, await run(fetch_prices, sku))}
""",
        "pool-per-request",
    ),
    (
        "a pool of threads in each report, shut down",
        """
from concurrent.futures import ThreadPoolExecutor

async def report(sku):
    with ThreadPoolExecutor(2) as pool:
        run = partial(asyncio.get_running_loop().run_in_executor, pool)
        return {"sku": sku, "trend": await run(summarise, await run(fetch_prices, sku))}
""",
        "pool-per-request",
    ),
    (
        "a loop that asks whether the thread is done",
        """
async def report(sku):
    prices = await asyncio.to_thread(fetch_prices, sku)
    loop = asyncio.get_running_loop()
    trend = loop.run_in_executor(None, lambda: (time.sleep(0.1), summarise(prices))[1])
    while not trend.done():
        await asyncio.sleep(0)
    return {"sku": sku, "trend": trend.result()}
""",
        "polls",
    ),
    (
        "a copy of summarise on the loop",
        """
def my_summary(prices):
    smooth = list(prices)
    for _ in range(700):
        for day in range(1, len(smooth)):
            smooth[day] = (smooth[day - 1] + 3 * smooth[day]) // 4
    return {"lowest": min(smooth), "highest": max(smooth), "last": smooth[-1]}

async def report(sku):
    return {"sku": sku, "trend": my_summary(await asyncio.to_thread(fetch_prices, sku))}
""",
        "calls-changed",
    ),
    (
        "an answer without any call, made up beforehand",
        """
from looplab.exercises.supplier import prices_of
known = {
    sku: summarise(prices_of(sku)) for sku in ("clock-3", "lamp-7", "desk-2", "vase-5", "rug-11")
}

async def report(sku):
    return {"sku": sku, "trend": known[sku]}
""",
        "calls-changed",
    ),
    (
        "prices from a copy of the supplier's formula",
        """
async def fetch(sku):
    await asyncio.sleep(0.06)
    seed = sum(place * ord(letter) for place, letter in enumerate(sku, start=1))
    return [1_000 + (seed * 31 + day * 17) % 97 * 10 + day for day in range(365)]

async def report(sku):
    return {"sku": sku, "trend": await asyncio.to_thread(summarise, await fetch(sku))}
""",
        "calls-changed",
    ),
    (
        "a cache of reports",
        """
known = {}

async def report(sku):
    if sku not in known:
        prices = await asyncio.to_thread(fetch_prices, sku)
        known[sku] = await asyncio.to_thread(summarise, prices)
    return {"sku": sku, "trend": known[sku]}
""",
        "calls-changed",
    ),
    (
        "fetch_prices called twice, once to warm up",
        """
async def report(sku):
    await asyncio.to_thread(fetch_prices, sku)
    prices = await asyncio.to_thread(fetch_prices, sku)
    return {"sku": sku, "trend": await asyncio.to_thread(summarise, prices)}
""",
        "calls-changed",
    ),
    (
        "a refusal of the supplier answered with 200",
        """
async def report(sku):
    try:
        prices = await asyncio.to_thread(fetch_prices, sku)
    except Exception:
        return {"sku": sku, "trend": None}
    return {"sku": sku, "trend": await asyncio.to_thread(summarise, prices)}
""",
        "hides-a-failure",
    ),
    (
        "the summary dropped",
        """
async def report(sku):
    await asyncio.to_thread(fetch_prices, sku)
    return {"sku": sku, "trend": None}
""",
        "wrong-result",
    ),
    (
        "a variable that all requests share",
        """
last = {}

async def report(sku):
    last["sku"] = sku
    prices = await asyncio.to_thread(fetch_prices, sku)
    trend = await asyncio.to_thread(summarise, prices)
    return {"sku": last["sku"], "trend": trend}
""",
        "wrong-result",
    ),
    (
        "202, and the work left for later",
        """
async def report(sku, tasks: BackgroundTasks):
    tasks.add_task(lambda: summarise(fetch_prices(sku)))
    return {"sku": sku, "trend": "soon"}
""",
        "wrong-result",
    ),
    (
        "another status",
        """
async def report(sku):
    raise HTTPException(410, "gone")
""",
        "wrong-result",
    ),
    (
        "the report's route left out",
        """
report_app = FastAPI()

@report_app.get("/ping")
async def ping():
    return {"ok": True}
""",
        "wrong-result",
    ),
    (
        "the ping's route left out",
        """
report_app = FastAPI()

@report_app.get("/report/{sku}")
def report_on(sku: str):
    return {"sku": sku, "trend": summarise(fetch_prices(sku))}
""",
        "wrong-result",
    ),
    ("nothing written", "async def report(sku):\n    raise NotImplementedError", "not-written"),
    ("a bug", "async def report(sku):\n    return 1 // 0", "raised"),
    (
        "a loop inside the loop",
        """
async def report(sku):
    return asyncio.get_running_loop().run_until_complete(None)
""",
        "raised",
    ),
    ("an exit", "async def report(sku):\n    raise SystemExit(1)", "exits"),
    (
        "a report that cancels itself",
        """
async def report(sku):
    asyncio.current_task().cancel()
    await asyncio.sleep(0)
""",
        "cancels-itself",
    ),
    (
        "a task left running",
        """
kept = []

async def report(sku):
    kept.append(asyncio.create_task(asyncio.Event().wait()))
    prices = await asyncio.to_thread(fetch_prices, sku)
    return {"sku": sku, "trend": await asyncio.to_thread(summarise, prices)}
""",
        "left-running",
    ),
    (
        "a thread that waits for the loop that waits for it",
        """
async def prices_of(sku):
    return await asyncio.to_thread(fetch_prices, sku)

async def report(sku):
    loop = asyncio.get_running_loop()
    return asyncio.run_coroutine_threadsafe(prices_of(sku), loop).result()
""",
        "blocks-the-loop",
    ),
)

HEADER = """
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import lru_cache, partial
import asyncio, multiprocessing, time, anyio, anyio.to_thread
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request
"""
FOOTER = """
if "report_app" not in globals():
    report_app = FastAPI(lifespan=globals().get("lifespan"))
    report_app.get("/report/{sku}")(report)
    if "ping" not in globals():
        async def ping():
            return {"ok": True}
    report_app.get("/ping")(ping)
"""


@pytest.fixture
def app_of(written: Callable[[str, str], dict[str, Any]]) -> Callable[[str], FastAPI]:
    """Return the app of an answer; where it has only functions, the routes are put around them."""
    return lambda source: written("01", HEADER + source + FOOTER)["report_app"]


@pytest.mark.parametrize("source", [pytest.param(source, id=name) for name, source in RIGHT])
async def test_a_right_answer_passes_in_any_style(source, app_of) -> None:
    verdict = await check_blocking(app_of(source), limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


@pytest.mark.parametrize(
    ("source", "mistake"),
    [pytest.param(source, mistake, id=name) for name, source, mistake in WRONG],
)
async def test_a_wrong_answer_gets_its_own_hint(source, mistake, app_of, tried) -> None:
    verdict = await tried(lambda: check_blocking(app_of(source), limit=AMPLE), mistake)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message


SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Generator[None]:
    """A child of this process for the length of a test; the parameter is its command."""
    with subprocess.Popen(request.param) as process:
        yield
        process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="no program called sleep here: POSIX only")
@pytest.mark.parametrize(
    "child",
    [
        ["sleep", "60"],
        [sys.executable, "-c", f"from multiprocessing.forkserver import main; {SLEEP}"],
        [sys.executable, "-c", f"from multiprocessing.resource_tracker import main; {SLEEP}"],
    ],
    ids=["a program that is not Python", "the server that forks workers", "the tracker"],
    indirect=True,
)
@pytest.mark.usefixtures("child")
async def test_a_child_that_cannot_compute_excuses_no_report_without_calls(app_of) -> None:
    source = next(source for name, source, _ in WRONG if name.startswith("prices from a copy"))
    verdict = await check_blocking(app_of(source), limit=AMPLE)
    assert verdict.mistake == "calls-changed", verdict.message


UNCLOSED = [(name, source) for name, source, mistake in WRONG if mistake == "never-closed"]


@pytest.mark.parametrize("source", [pytest.param(source, id=name) for name, source in UNCLOSED])
async def test_pools_that_an_attempt_leaves_are_stopped_and_told_of_again(
    source, app_of, tried
) -> None:
    threads = set(threading.enumerate())
    app = app_of(source)
    for _ in range(2):
        verdict = await tried(lambda: check_blocking(app, limit=AMPLE), "never-closed")
        assert verdict.mistake == "never-closed", verdict.message
        assert _worker_processes() == []
    for thread in set(threading.enumerate()) - threads:
        if not thread.name.startswith("asyncio"):
            await asyncio.to_thread(thread.join, 5)
            assert not thread.is_alive(), thread.name


def _worker_processes() -> list[str]:
    children = psutil.Process().children(recursive=True)
    commands = [" ".join(child.cmdline()) for child in children]
    return [command for command in commands if "spawn_main" in command]


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    assert {mistake.name for mistake in EXERCISE.mistakes} <= {mistake for *_, mistake in WRONG}


async def test_an_endless_report_is_stopped(app_of) -> None:
    endless = app_of("async def report(sku):\n    while True: await asyncio.sleep(0)")
    assert (await check_blocking(endless, limit=0.5)).mistake == "never-ends"


async def report_called(sku: str) -> None:
    raise NotImplementedError


@pytest.mark.parametrize("given", [report_called, None, "app", 7])
async def test_something_else_than_an_app(given) -> None:
    verdict = await check_blocking(given, limit=AMPLE)
    assert verdict.mistake == "wrong-type"
    assert "write check_blocking(report_app)" in verdict.message


async def test_a_coroutine_in_place_of_an_app() -> None:
    assert (await check_blocking(report_called("x"))).mistake == "wrong-type"


async def test_a_startup_that_fails_is_told() -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        raise OSError("no such pool")
        yield

    verdict = await check_blocking(FastAPI(lifespan=lifespan), limit=AMPLE)
    assert verdict.mistake == "raised"
    assert "OSError: no such pool" in verdict.message


async def test_calls_know_whether_they_keep_a_loop_waiting() -> None:
    with watched() as calls:
        prices = await asyncio.to_thread(fetch_prices, "lamp-7")
        summarise(prices)
    fetch_prices("lamp-7")
    assert [(call.name, call.on_loop) for call in calls] == [
        ("fetch_prices", False),
        ("summarise", True),
    ]
    assert prices == prices_of("lamp-7")
    assert prices != prices_of("desk-2")


def test_the_supplier_refuses_what_it_does_not_know() -> None:
    with pytest.raises(LookupError, match="no prices for unknown-1"):
        fetch_prices("unknown-1")
