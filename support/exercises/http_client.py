"""The exercise of lesson 08: one HTTP client for an app, made and closed in its lifespan."""

import asyncio
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from asgi_lifespan import LifespanManager
from fastapi import FastAPI

from support.exercises.checking import check, require_function
from support.exercises.error_text import leaves
from support.exercises.sandbox import Ran, Sandbox, blame
from support.exercises.verdicts import Exercise, Mistake, Verdict, wrong
from support.lab.clients import IN_PROCESS_URL, LoopbackServer, serve
from support.shop.partners import Supplier

IN_TURN = 6
AT_ONCE = 8
MEETING = 1.0  # seconds that requests at once get to meet at the supplier
STARTING = 5.0  # seconds that a lifespan gets to start, and to stop
SETTLING = 2.0  # seconds that the server gets to notice a closed connection
LOOKS = 400  # in each of those times

EXERCISE = Exercise(
    lesson="08",
    check="check_client",
    stub="client-per-call",
    task="Move an app's HTTP client from the endpoint into the lifespan.",
    usual_wrong_prediction=(
        "That a client per call costs a new connection and little else: most of it is reading "
        "certificates, which holds the loop, also for plain http."
    ),
    mistakes=(
        Mistake(
            "client-per-call",
            "makes a client in the endpoint or in a dependency, as the stub does",
            "Each request opened a connection of its own. Make one client when the app starts, "
            "and let all requests use it.",
        ),
        Mistake(
            "never-closed",
            "makes the client in the lifespan, or at import, and does not close it",
            "The app has stopped, and its connection to the supplier is still open. Close the "
            "client behind the lifespan's yield: async with does it.",
        ),
        Mistake(
            "closed-too-soon",
            "yields behind the async with block of the client",
            "The client was closed before the first request came. Yield inside its async with "
            "block, so that the app serves while it is open.",
        ),
        Mistake(
            "dead-on-the-second-start",
            "makes the client outside the lifespan and closes it in the lifespan",
            "The app works once; started again, it uses the client that its first stop closed. "
            "Make the client inside the lifespan, before its yield.",
        ),
        Mistake(
            "lifespan-not-passed",
            "writes a lifespan and forgets FastAPI(lifespan=...), or yields nothing",
            "The endpoint looks for a client that is not there. Is the lifespan passed to "
            "FastAPI(lifespan=...), and does it yield the client in a dict? Its items are found in "
            "request.state.",
        ),
        Mistake(
            "one-at-a-time",
            "guards the client with a lock, or allows it one connection",
            "Requests at once wait for each other: a client may be used by many tasks at once, "
            "and it has connections for them.",
        ),
        Mistake(
            "wrong-answer",
            "returns something else than the supplier's answer",
            "The endpoint does not answer what the supplier says.",
        ),
        Mistake(
            "does-not-start",
            "has a lifespan that raises or never yields",
            "The app does not start: its lifespan fails before its yield, never comes to it, or "
            "yields something else than a dict or nothing.",
        ),
        Mistake(
            "does-not-stop",
            "has a lifespan that raises or waits behind its yield",
            "The app does not stop: what stands behind its lifespan's yield raises an error, or "
            "waits for ever.",
        ),
    ),
)


@dataclass(slots=True)
class _Visit:
    """What one start of the app came to."""

    started: bool = False
    stopped: bool = False
    answers: list[httpx.Response] | None = None
    in_turn: int = 0
    """Connections that the supplier had accepted when the requests in turn were answered."""


async def check_client(make_app: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's ``make_app`` of lesson 08, show one line, and return the verdict.

    It is called as ``make_app(partner_url)`` with the address of a supplier on a real server on
    this machine, and returns a FastAPI app with ``GET /stock/{sku}``. The app is started, called
    and stopped twice. It passes if

    - it answers what the supplier answers, requests in turn over one connection and requests at
      once at the same time;
    - a second start works, and after each stop no connection is open.

    ``limit`` is how long the app may take in all, in seconds; 15 unless given.
    """
    return await check(functools.partial(_judge, make_app=make_app), limit=limit)


async def _judge(sandbox: Sandbox, *, make_app: Any) -> str:
    make_app = require_function(make_app, example="check_client(make_app)")
    supplier = Supplier()
    async with serve(supplier.app) as server:
        try:
            app = await _made(sandbox, make_app, server.url)
            await _judge_start(sandbox, app, server, supplier)
            await _judge_second_start(sandbox, app, server, supplier)
        finally:
            await sandbox.stop()
    return (
        f"{IN_TURN} requests in turn over one connection, {AT_ONCE} at once without waiting for "
        "each other, and nothing open after two starts and stops."
    )


async def _made(sandbox: Sandbox, make_app: Callable[[str], Any], url: str) -> FastAPI:
    async def make() -> Any:
        app = make_app(url)
        return await app if inspect.isawaitable(app) else app

    app = (await sandbox.run(make)).result()
    if app is None:
        raise wrong("not-written", "make_app returned None")
    if not isinstance(app, FastAPI):
        raise wrong("wrong-type", f"make_app returned {type(app).__name__}, not a FastAPI app")
    return app


async def _judge_start(
    sandbox: Sandbox, app: FastAPI, server: LoopbackServer, supplier: Supplier
) -> None:
    visit = _Visit()
    ran = await sandbox.run(lambda: _visited(app, visit, server, supplier))
    if ran.error is not None and _says_closed(ran.error):
        raise EXERCISE.wrong("closed-too-soon")
    _judge_ended(ran, visit)
    _judge_answers(visit)
    if visit.in_turn > 1:
        raise EXERCISE.wrong("client-per-call", f"{visit.in_turn} for {IN_TURN} requests")
    if supplier.peak_in_flight < AT_ONCE:
        raise EXERCISE.wrong("one-at-a-time", f"{supplier.peak_in_flight} of {AT_ONCE} at once")
    await _judge_closed(server)


async def _judge_second_start(
    sandbox: Sandbox, app: FastAPI, server: LoopbackServer, supplier: Supplier
) -> None:
    visit = _Visit()
    ran = await sandbox.run(lambda: _visited(app, visit, server, supplier))
    if ran.error is not None and _says_closed(ran.error):
        raise EXERCISE.wrong("dead-on-the-second-start")
    _judge_ended(ran, visit)
    _judge_answers(visit)
    await _judge_closed(server)


async def _visited(app: FastAPI, visit: _Visit, server: LoopbackServer, supplier: Supplier) -> None:
    """Start the app, ask it, and stop it."""
    before = server.connections
    manager = LifespanManager(app, startup_timeout=STARTING, shutdown_timeout=STARTING)
    async with manager:
        visit.started = True
        transport = httpx.ASGITransport(manager.app)
        async with httpx.AsyncClient(transport=transport, base_url=IN_PROCESS_URL) as client:
            visit.answers = [await client.get(f"/stock/A{number}") for number in range(IN_TURN)]
            visit.in_turn = server.connections - before
            visit.answers += await _all_at_once(client, supplier)
    visit.stopped = True


async def _all_at_once(client: httpx.AsyncClient, supplier: Supplier) -> list[httpx.Response]:
    """Ask while the supplier keeps each call waiting, until all have met there or time is up."""
    supplier.reset()
    supplier.hang = True
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(client.get(f"/stock/B{number}")) for number in range(AT_ONCE)]
        try:
            for _ in range(LOOKS):
                if supplier.peak_in_flight == AT_ONCE:
                    break
                await asyncio.sleep(MEETING / LOOKS)
        finally:
            supplier.hang = False
    return [call.result() for call in calls]


def _judge_ended(ran: Ran[Any], visit: _Visit) -> None:
    if ran.error is None:
        ran.result()
        return
    errors = list(leaves(ran.error))
    if any(isinstance(error, AttributeError | KeyError) for error in errors) and visit.started:
        raise EXERCISE.wrong("lifespan-not-passed", str(errors[0]).strip('"'))
    mistake = blame(ran.error)
    told = getattr(mistake, "detail", "")
    if getattr(getattr(mistake, "mistake", None), "name", "") != "raised":
        raise mistake
    if not visit.started:
        raise EXERCISE.wrong("does-not-start", told)
    if visit.answers is not None and len(visit.answers) == IN_TURN + AT_ONCE:
        raise EXERCISE.wrong("does-not-stop", told)
    raise mistake


def _judge_answers(visit: _Visit) -> None:
    for answer in visit.answers or []:
        if answer.status_code != 200:
            raise EXERCISE.wrong("wrong-answer", f"{answer.url.path}: {answer.status_code}")
        told = answer.json()
        if not isinstance(told, dict) or told.get("sku") != answer.url.path.rpartition("/")[2]:
            raise EXERCISE.wrong("wrong-answer", f"look at {answer.url.path}")


def _says_closed(error: BaseException) -> bool:
    return any("closed" in str(leaf) for leaf in leaves(error) if isinstance(leaf, RuntimeError))


async def _judge_closed(server: LoopbackServer) -> None:
    """Give the server a moment to see connections close, and count those that do not."""
    for _ in range(LOOKS):
        if not server.open_connections:
            return
        await asyncio.sleep(SETTLING / LOOKS)
    raise EXERCISE.wrong("never-closed", f"open connections: {server.open_connections}")
