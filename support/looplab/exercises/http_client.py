"""The exercise of lesson 08: an app with two partners, a client for each, made in its lifespan.

The supplier and the market run on real servers on this machine, set a cookie with each answer, and
note those that come back. The app is started and stopped seven times: on a good day, on a day
on which the supplier fails, on one on which the market does, in a rush while the supplier hangs,
with waits that add up to more than a second, once to be stopped by an error, and once in another
event loop. Two more apps get a partner each that cannot be reached.
"""

import asyncio
import contextlib
import functools
import inspect
import math
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any
from urllib.parse import quote

import httpx
from asgi_lifespan import LifespanManager
from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse, StreamingResponse

from looplab.exercises.checking import check, require_function
from looplab.exercises.error_text import holds, leaves, one_line
from looplab.exercises.sandbox import Ran, Sandbox, blame
from looplab.exercises.verdicts import Exercise, Mistake, Verdict, wrong
from looplab.lab.clients import HOST, IN_PROCESS_URL, LoopbackServer, serve
from looplab.lab.units import ms
from looplab.shop.partners import Supplier

IN_TURN = 6
AT_ONCE = 8
MOST = 10  # calls that may be with the supplier at once
RUSH = 25  # requests at once while it hangs
RUSHES = 2  # of them: in one of nine, no seat is lost by who may lose them
LONGER = 10  # looks for one call more, once the most are there
TRIES = 2  # of the requests at once: on a machine that stands still they miss each other
MEETING = 0.5  # seconds that requests at once get to meet at the supplier
SLOW = 600  # milliseconds that a supplier may take; it is given up on after 1000
BUSY = 100  # milliseconds that it takes in another loop, so that requests meet there
TICK = 20  # milliseconds between two looks whether a supplier that hangs has been given up on
PATIENCE = 75  # such looks; a machine that stops everything stops them as well
LONG = 700  # milliseconds, of which two, one after another, are more than a second
DRIP = 600  # milliseconds between two pieces of an answer
PIECES = 3  # of that answer
ODD_SKU = "A?price=0"
DOTS = "%2E%2E"  # the SKU that is a step up in a path
SKU_OF_BOTH = "both"  # the SKU for which one partner waits until the other is asked
DRIPPING = "dripping"  # the SKU whose answer comes in pieces
CLOSED = "closed"  # the SKU for which the market answers with a page of HTML
CONTENDED = 15  # requests at once in another loop, so that some queue for a slot
BABBLING = "maintenance"  # the SKU whose answer is a page of HTML
STARTING = 5.0  # seconds that a lifespan gets to start, and to stop
SOON = 0.6  # seconds in which a request fails that has nothing to wait for
CANCELLING = 20  # looks, a tick apart, for a call to be cancelled; if not, it goes on for 45
SETTLING = 1.0  # seconds that the server gets to notice a closed connection
LOOKS = 400  # in each of those times

EXERCISE = Exercise(
    lesson="08",
    check="check_client",
    stub="one-after-another",
    task=(
        "Give an app a second partner, which may fail or hang without taking anything from the "
        "first: clients, slots, a deadline, an answer without it."
    ),
    usual_wrong_prediction=(
        "That a client per call costs a new connection and little else: most of it is reading "
        "certificates, which holds the loop, also for plain http."
    ),
    mistakes=(
        Mistake(
            "one-after-another",
            "asks the market when the supplier has answered, or before, as the stub does",
            "One partner was asked when the other had answered, so their times add up. Neither "
            "needs the other's answer: start both, then wait for both.",
        ),
        Mistake(
            "market-needed",
            "lets a failure of the market out, or answers an error for it",
            "The market failed, and so did the request, though the supplier had answered. "
            "Whatever is wrong with the market, answer with what the supplier says, and None for "
            '"elsewhere".',
        ),
        Mistake(
            "market-starves-supplier",
            "has one set of slots for both, or keeps the supplier's while the market is asked",
            "The market hung, and some of many requests had no answer after a second, though the "
            "supplier was well. They queued for something that others kept while the market was "
            "asked: a slot, or a connection of the same client. Or they waited for a slot of the "
            "market's, and their deadline doesn't cover that wait.",
        ),
        Mistake(
            "waits-for-market",
            "waits for the market when the supplier has failed",
            "The supplier had failed, and the request went on waiting for the market: there was "
            "nothing left to wait for. Answer 502 at once, and cancel the other call.",
        ),
        Mistake(
            "market-goes-on",
            "lets the market's call go on when the supplier has failed, as gather does",
            "The supplier had failed, the request was answered, and the market was still being "
            "asked: gather leaves the others alone when one fails. Cancel that call, in a finally "
            "for example, or let a TaskGroup do it.",
        ),
        Mistake(
            "group-let-out",
            "lets the TaskGroup's ExceptionGroup out",
            "The supplier failed, and your endpoint answered 500. A TaskGroup wraps what its tasks "
            "raise in an ExceptionGroup, and FastAPI knows the HTTPException inside, but not the "
            "group. Catch it with except* HTTPException, and raise the exception that is in it.",
        ),
        Mistake(
            "wrong-elsewhere",
            'has no "elsewhere", or not what the market says',
            'The answer is what the supplier says and one item more: "elsewhere" is what the '
            "market says, or None if it failed or sent no JSON.",
        ),
        Mistake(
            "client-per-call",
            "makes a client in the endpoint or in a dependency",
            "Each request opened a connection of its own. Make a partner's client when the app "
            "starts, and let all requests use it.",
        ),
        Mistake(
            "never-closed",
            "makes the client in the lifespan, or at import, and does not close it",
            "The app has stopped, and a connection to a partner is still open. Close each "
            "client after the lifespan's yield: async with does it.",
        ),
        Mistake(
            "closed-too-soon",
            "yields after the async with block of the client",
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
            "too-many-at-once",
            "has no semaphore, a new one for each request, or one of another size",
            "More than ten calls were with a partner at once. Put a semaphore in front of its "
            "calls, one that all requests share.",
        ),
        Mistake(
            "waits-without-end",
            "starts the deadline after the wait for a slot, or has none around it",
            "The supplier hung, and requests that waited for a slot still had no answer well after "
            "a second. The second begins when a request comes: look which of its waits your "
            "deadline covers.",
        ),
        Mistake(
            "waits-add-up",
            "has time-outs for parts of a request, and no deadline around all of them",
            "Some requests had no answer within a second, although no wait of theirs was as long "
            "as that. A client's time-outs bound one wait each: for a connection, then for each "
            "piece of the answer. Put one deadline of ms(1_000) around all that a request waits "
            "for.",
        ),
        Mistake(
            "seats-lost",
            "lets calls queue inside httpx under a deadline, or keeps a slot that timed out",
            "After a bad moment of the supplier, ten calls at once are not possible any more. "
            "Either a slot is never given back, or calls that timed out while they queued inside "
            "httpx, or in the moment they started, took connections with them; httpx2 has that "
            "fixed.",
        ),
        Mistake(
            "bound-to-one-loop",
            "makes the semaphore outside the lifespan: at import, or in make_app",
            "The app works in one event loop. Started again in another, it failed the requests "
            "that had to queue: what they queue for belongs to the first loop. Make the slots "
            "where you make the client.",
        ),
        Mistake(
            "left-open-on-error",
            "closes the client after the yield, without async with or finally",
            "The app was stopped by an error, and a connection to a partner is still open: "
            "what follows a plain yield is skipped then. Put the yield into async with, or "
            "into try, and close the client in finally.",
        ),
        Mistake(
            "cookies-shared",
            "shares the client with its cookie jar",
            "A cookie that the supplier set for one request was sent with another: in production "
            "that is Ada's session in Bob's call. A client keeps cookies in its jar; give a client "
            "for all one whose policy takes none.",
        ),
        Mistake(
            "sku-cut",
            "puts the sku into the path as it is",
            "A SKU with a question mark did not reach the supplier whole: the rest of it became a "
            "query, so that a caller writes the request to your partner. Encode it: "
            'quote(sku, safe="").',
        ),
        Mistake(
            "sku-climbs",
            "encodes the sku and lets .. through",
            "A request for the SKU .. left /stock/: quote leaves dots alone, and the client reads "
            "/stock/.. as /. So a caller chooses what your partner is asked. Refuse such a SKU, "
            'for example with Annotated[str, Path(pattern=r"^\\w")].',
        ),
        Mistake(
            "no-timeout",
            "sets timeout=None, or leaves more than a second",
            "The supplier said nothing, and the app was still waiting well after a second: when a "
            "partner hangs, so do all your requests. Put a deadline of ms(1_000) around the call, "
            "and answer 504 when it fires.",
        ),
        Mistake(
            "gives-up-too-soon",
            "sets a timeout far below a second",
            "A supplier that answers within the second was given up on: a slow day would become an "
            "outage. Wait for it for a second.",
        ),
        Mistake(
            "failure-as-answer",
            "returns what the supplier says, whatever its status",
            "The supplier answered 503, and the app answered 200: callers and monitoring take the "
            "error for stock. Call raise_for_status(), and answer 502 to the library's HTTPError.",
        ),
        Mistake(
            "no-json",
            "lets out what json() raises for a body that isn't JSON",
            "The supplier answered 200 with a page of HTML, as a proxy in front of it does during "
            "maintenance, and your app called that a bug of its own. A body that can't be read is "
            "a failure of the supplier, so answer 502. Ask what json() raises then.",
        ),
        Mistake(
            "wrong-status",
            "lets the client's errors out, or maps them to another status",
            "A failure of the supplier got another status than it should have: callers and alerts "
            "tell your bugs (500) from a partner that failed (502) and one that is late (504). "
            "Let out what the lesson's ask raises. In code of your own, catch time-outs first "
            "(TimeoutError, and the library's TimeoutException), then its HTTPError.",
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
            "has a lifespan that raises or waits after its yield",
            "The app does not stop: what follows its lifespan's yield raises an error, or "
            "waits for ever.",
        ),
    ),
)


ASGIApp = Callable[..., Awaitable[None]]


@dataclass(slots=True)
class _Visit:
    """What one start of the app came to."""

    started: bool = False
    served: bool = False
    """Whether all that was asked of it was answered."""
    answers: list[httpx.Response] = field(default_factory=list)
    peak: int = 0
    """Requests that were with the supplier at the same time."""
    statuses: dict[str, int | None] = field(default_factory=dict)
    """Statuses by what the supplier did; None is no answer at all."""
    grouped: bool = False
    """Whether an ExceptionGroup came out that FastAPI would have known the exceptions of."""


@dataclass(slots=True)
class _Watched:
    """A partner's app, which sets a cookie with each answer; ``cookies`` are those it got.

    For the SKU ``babbling`` it answers with a page that is no JSON, and it sends its answer for
    ``dripping`` in pieces. ``strayed`` are the paths of requests that were for no stock.
    """

    app: ASGIApp
    babbling: str
    dripping: str | None = None
    cookies: list[str] = field(default_factory=list)
    strayed: list[str] = field(default_factory=list)

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Callable, send: Callable
    ) -> None:
        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"set-cookie", b"session=ada; Path=/")]
            await send(message)

        if scope["type"] == "http":
            self.cookies += [
                value.decode() for name, value in scope["headers"] if name == b"cookie"
            ]
            if not scope["path"].startswith("/stock/"):
                self.strayed.append(scope["path"])
            if scope["path"] == f"/stock/{self.dripping}":
                await StreamingResponse(_drips())(scope, receive, sending)
                return
            if scope["path"] == f"/stock/{self.babbling}":
                await HTMLResponse("<h1>We will be back soon</h1>")(scope, receive, sending)
                return
        await self.app(scope, receive, sending)


async def _drips() -> AsyncGenerator[str]:
    yield "{"
    for _ in range(PIECES):
        await asyncio.sleep(ms(DRIP))
        yield " "
    yield "}"


class _Failure(Exception):
    """What stops the app in the end."""


async def check_client(make_app: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's ``make_app`` of lesson 08, show one line, and return the verdict.

    It is called as ``make_app(supplier_url, market_url)`` with the addresses of two partners on
    real servers on this machine, and returns a FastAPI app with ``GET /stock/{sku}``. The app is
    started, called and stopped seven times, once by an error and the last time in another event
    loop. It passes if

    - it answers what the supplier answers, with what the market answers as ``"elsewhere"``, and
      asks both at the same time; requests in turn over one connection to each, and requests at
      once at the same time;
    - a sku reaches the partners whole, one that is a step up in a path does not reach them, and no
      cookie of their answers comes back to them;
    - a supplier that fails, cannot be reached or sends no JSON is a 502, one that says nothing
      for a second a 504, and neither waits for the market;
    - a market that does so is None for ``"elsewhere"``, within the same second, however many
      requests meet it;
    - in a rush, no more than ten calls are with a partner that hangs, each request has an answer
      after a second, and ten at once are possible afterwards;
    - nobody is answered later than that where each wait is shorter and two are longer;
    - a second start works, in another loop too, and after each stop no connection is open.

    Connections that an app leaves open are closed.

    ``limit`` is how long the app may take in all, in seconds; 15 unless given.
    """
    return await check(functools.partial(_judge, make_app=make_app), limit=limit)


@dataclass(slots=True)
class _Partner:
    """A partner of the app: its knobs, what came to it, and the server that it runs on."""

    knobs: Supplier
    watched: _Watched
    server: LoopbackServer

    def judge_what_travelled(self) -> None:
        """Raise Wrong for a request that left the partner's stock, or brought a cookie back."""
        if strayed := self.watched.strayed:
            raise EXERCISE.wrong("sku-climbs", f"the {self.knobs.name} was asked for {strayed[0]}")
        if self.watched.cookies:
            raise EXERCISE.wrong("cookies-shared", self.watched.cookies[0])


@contextlib.asynccontextmanager
async def _partner(name: str, babbling: str, dripping: str | None) -> AsyncGenerator[_Partner]:
    knobs = Supplier(name)
    watched = _Watched(knobs.app, babbling, dripping)
    async with serve(watched) as server:
        yield _Partner(knobs, watched, server)


async def _judge(sandbox: Sandbox, *, make_app: Any) -> str:
    make_app = require_function(make_app, example="check_client(make_app)")
    async with (
        _partner("supplier", BABBLING, DRIPPING) as supplier,
        _partner("market", CLOSED, None) as market,
        _connections_closed(),
    ):
        try:
            app = await _made(sandbox, make_app, supplier.server.url, market.server.url)
            await _judge_good_day(sandbox, app, supplier, market)
            await _judge_bad_day(sandbox, app, supplier, market)
            supplier.judge_what_travelled()
            market.judge_what_travelled()
            await _judge_bad_market(sandbox, app, supplier.knobs, market.knobs)
            await _judge_rush(sandbox, app, supplier.knobs)
            await _judge_sum_of_waits(sandbox, app, supplier.knobs)
            await _judge_stop_by_error(sandbox, app, supplier, market)
            await _judge_another_loop(sandbox, app, supplier.knobs)
            await _judge_unreachable(sandbox, make_app, supplier.server.url)
        finally:
            supplier.knobs.hang = market.knobs.hang = False
            await sandbox.stop()
    return (
        f"{IN_TURN} requests in turn over one connection to each partner, {AT_ONCE} at once "
        f"without waiting for each other, {MOST} at most, each answered in a second, with the "
        "market or without it, nothing open after seven starts and stops."
    )


async def _made(sandbox: Sandbox, make_app: Callable[..., Any], *urls: str) -> FastAPI:
    async def make() -> Any:
        app = make_app(*urls)
        return await app if inspect.isawaitable(app) else app

    app = (await sandbox.run(make)).result()
    if app is None:
        raise wrong("not-written", "make_app returned None")
    if not isinstance(app, FastAPI):
        raise wrong("wrong-type", f"make_app returned {type(app).__name__}, not a FastAPI app")
    return app


async def _judge_good_day(
    sandbox: Sandbox, app: FastAPI, supplier: _Partner, market: _Partner
) -> None:
    visit = _Visit()
    partners = (supplier, market)
    before = [partner.server.connections for partner in partners]

    async def asked(client: httpx.AsyncClient) -> None:
        visit.answers = [await client.get(f"/stock/A{number}") for number in range(IN_TURN)]
        for answer in visit.answers:
            _judge_answer(answer, answer.url.path)
        for partner, earlier in zip(partners, before, strict=True):
            in_turn = partner.server.connections - earlier
            if in_turn > 1:
                told = f"{in_turn} to the {partner.knobs.name} for {IN_TURN} requests"
                raise EXERCISE.wrong("client-per-call", told)
        for waiting, asked in (partners, partners[::-1]):
            visit.answers.append(await _asked_while(client, waiting.knobs, asked.knobs))
        for _ in range(TRIES):
            at_once = await _all_at_once(client, supplier.knobs)
            visit.peak = supplier.knobs.peak_in_flight
            if visit.peak == AT_ONCE and all(answer.is_success for answer in at_once):
                break
        visit.answers += at_once

    ran = await sandbox.run(lambda: _visited(app, visit, asked))
    if ran.error is not None and _says_closed(ran.error):
        raise EXERCISE.wrong("closed-too-soon")
    _judge_ended(ran, visit)
    if visit.peak < AT_ONCE:
        raise EXERCISE.wrong("one-at-a-time", f"{visit.peak} of {AT_ONCE} at once")
    for answer in visit.answers:
        _judge_answer(answer, answer.url.path)
    await _judge_closed("never-closed", *partners)


async def _asked_while(
    client: httpx.AsyncClient, waiting: Supplier, asked: Supplier
) -> httpx.Response:
    """Return the answer of an app that asks a partner while the other doesn't answer.

    Raises Wrong when it doesn't.
    """
    for _ in range(TRIES):
        asked.reset()
        waiting.hang = True
        call = asyncio.create_task(client.get(f"/stock/{SKU_OF_BOTH}"))
        try:
            both = await _happens(lambda: asked.calls > 0, LOOKS, MEETING / LOOKS)
        finally:
            waiting.hang = False
        answer = await call
        if both and answer.is_success:
            return answer
    if both:
        return answer
    raise EXERCISE.wrong("one-after-another", f"the {asked.name} came second")


async def _judge_bad_day(
    sandbox: Sandbox, app: FastAPI, supplier: _Partner, market: _Partner
) -> None:
    """Start the app again, with a supplier that is late, fails and hangs."""
    visit = _Visit()
    supplier.knobs.fault("slow", latency=ms(SLOW))
    supplier.knobs.fault("failing", failure=True)
    supplier.knobs.fault("hanging", hang=True)

    async def asked(client: httpx.AsyncClient) -> None:
        visit.answers = [await client.get("/stock/A")]
        visit.answers.append(await client.get(f"/stock/{quote(ODD_SKU, safe='')}"))
        async with asyncio.TaskGroup() as group:
            for sku in ("slow", "failing", "hanging", BABBLING, DOTS):
                group.create_task(_status_of(client, sku, visit))

    ran = await sandbox.run(lambda: _visited(app, visit, asked))
    if ran.error is not None and _says_closed(ran.error):
        raise EXERCISE.wrong("dead-on-the-second-start")
    _judge_ended(ran, visit)
    first, odd = visit.answers
    _judge_answer(first, first.url.path)
    told = odd.json() if odd.is_success else {}
    if told.get("sku") != ODD_SKU or _elsewhere(told).get("sku") != ODD_SKU:
        raise EXERCISE.wrong("sku-cut", f"asked for {ODD_SKU}")
    if visit.statuses["hanging"] is None:
        raise EXERCISE.wrong("no-timeout")
    if visit.statuses["slow"] != 200:
        raise EXERCISE.wrong("gives-up-too-soon", f"the answer was {visit.statuses['slow']}")
    if visit.statuses["failing"] == 200:
        raise EXERCISE.wrong("failure-as-answer")
    if visit.grouped:
        raise EXERCISE.wrong("group-let-out")
    _judge_status("a supplier that fails", visit.statuses["failing"], 502)
    _judge_status("a supplier that says nothing", visit.statuses["hanging"], 504)
    if visit.statuses[BABBLING] != 502:
        raise EXERCISE.wrong("no-json", f"the answer was {visit.statuses[BABBLING]}")
    await _judge_closed("never-closed", supplier, market)


async def _judge_bad_market(
    sandbox: Sandbox, app: FastAPI, supplier: Supplier, market: Supplier
) -> None:
    """Start the app again, with a market that fails, babbles and hangs, alone and for many."""
    visit = _Visit()
    market.fault("failing-there", failure=True)
    # not before the market has been asked, too
    supplier.fault("failing-here", latency=ms(BUSY), failure=True)
    market.fault("failing-here", hang=True)
    took, goes_on = math.inf, False

    async def asked(client: httpx.AsyncClient) -> None:
        nonlocal took, goes_on
        visit.answers = [await client.get(f"/stock/{sku}") for sku in ("failing-there", CLOSED)]
        market.reset()
        market.hang = True
        try:
            for _ in range(TRIES):
                async with asyncio.TaskGroup() as group:
                    for number in range(2 * MOST):
                        group.create_task(_status_of(client, f"F{number}", visit))
                if set(visit.statuses.values()) == {200}:
                    break
            visit.peak = market.peak_in_flight
        finally:
            market.hang = False
        refused = _Visit()
        for _ in range(TRIES):
            began = perf_counter()
            await _status_of(client, "failing-here", refused)
            took = min(took, perf_counter() - began)
            goes_on = not await _happens(lambda: not market.in_flight, CANCELLING, ms(TICK))

    _judge_ended(await sandbox.run(lambda: _visited(app, visit, asked)), visit)
    for answer, what in zip(visit.answers, ("failed", "sent no JSON"), strict=True):
        if answer.status_code != 200:
            raise EXERCISE.wrong("market-needed", f"it {what}: {answer.status_code}")
        if answer.json().get("elsewhere", "") is not None:
            raise EXERCISE.wrong("wrong-elsewhere", f"the market {what}")
    if took > SOON:
        raise EXERCISE.wrong("waits-for-market", f"{took:.2g} s")
    if goes_on:
        raise EXERCISE.wrong("market-goes-on")
    if visit.peak > MOST:
        raise EXERCISE.wrong("too-many-at-once", f"{visit.peak} at the market")
    answered = sum(status == 200 for status in visit.statuses.values())
    if not answered:
        raise EXERCISE.wrong("market-needed", "it said nothing for a second")
    if answered < 2 * MOST:
        told = f"{answered} of {2 * MOST} requests were answered"
        raise EXERCISE.wrong("market-starves-supplier", told)


async def _judge_rush(sandbox: Sandbox, app: FastAPI, supplier: Supplier) -> None:
    """Start the app again, and let many requests meet a supplier that hangs, then a healthy one."""
    visit = _Visit()

    async def asked(client: httpx.AsyncClient) -> None:
        await client.get("/stock/A")
        for rush in range(RUSHES):
            supplier.reset()
            supplier.hang = True
            async with asyncio.TaskGroup() as group:
                for number in range(RUSH):
                    group.create_task(_status_of(client, f"C{rush}-{number}", visit))
                visit.peak = max(visit.peak, await _crowd_at(supplier))
            supplier.hang = False
            for _ in range(TRIES):
                visit.answers = await _all_at_once(client, supplier, MOST)
                if supplier.peak_in_flight == MOST and all(one.is_success for one in visit.answers):
                    break
            else:
                return

    _judge_ended(await sandbox.run(lambda: _visited(app, visit, asked)), visit)
    if visit.peak > MOST:
        raise EXERCISE.wrong("too-many-at-once", f"{visit.peak} of {RUSH} requests")
    if None in visit.statuses.values():
        raise EXERCISE.wrong("waits-without-end")
    if supplier.peak_in_flight < MOST or not all(one.is_success for one in visit.answers):
        raise EXERCISE.wrong("seats-lost", f"{supplier.peak_in_flight} of {MOST} at once")
    for status in visit.statuses.values():
        _judge_status("a request that has waited for a second", status, 504)


async def _crowd_at(supplier: Supplier) -> int:
    """Return how many calls come to a supplier that hangs, before any of them is given up on."""
    tick = ms(TICK) / 2
    await _happens(lambda: supplier.peak_in_flight >= MOST, PATIENCE, tick)
    await _happens(lambda: False, LONGER, tick)
    return supplier.peak_in_flight


async def _judge_sum_of_waits(sandbox: Sandbox, app: FastAPI, supplier: Supplier) -> None:
    """Start the app again, with waits that are shorter than a second each, and longer together.

    Twenty calls come at once, and each keeps its slot for long: the second ten would be answered
    too late. One more gets its answer in pieces.
    """
    visit = _Visit()
    supplier.latency = ms(LONG)
    dripped, second = None, 2 * MOST

    async def asked(client: httpx.AsyncClient) -> None:
        nonlocal dripped, second
        for _ in range(TRIES):
            async with asyncio.TaskGroup() as group:
                for sku in (DRIPPING, *(f"E{number}" for number in range(2 * MOST))):
                    group.create_task(_status_of(client, sku, visit))
            dripped = visit.statuses.pop(DRIPPING)
            # None stands for an answer that was longer in coming than anybody looked.
            second = sum(status in {200, None} for status in visit.statuses.values()) - MOST
            if dripped == 504 and second <= 0:
                break

    ran = await sandbox.run(lambda: _visited(app, visit, asked))
    supplier.latency = 0
    _judge_ended(ran, visit)
    if second > 0:
        told = f"{2 * MOST} calls of {LONG} ms, {MOST} at once: the second {MOST} were answered too"
        raise EXERCISE.wrong("waits-add-up", told)
    if dripped in {200, None}:
        raise EXERCISE.wrong("waits-add-up", f"the supplier sent a piece each {DRIP} ms")
    _judge_status("a supplier that sends its answer in pieces", dripped, 504)


async def _judge_stop_by_error(
    sandbox: Sandbox, app: FastAPI, supplier: _Partner, market: _Partner
) -> None:
    visit = _Visit()

    async def asked(client: httpx.AsyncClient) -> None:
        visit.answers = [await client.get("/stock/A")]
        raise _Failure

    async def visited() -> None:
        with contextlib.suppress(_Failure):
            await _visited(app, visit, asked)

    ran = await sandbox.run(visited)
    visit.served = bool(visit.answers)
    _judge_ended(ran, visit)
    await _judge_closed("left-open-on-error", supplier, market)


async def _judge_another_loop(sandbox: Sandbox, app: FastAPI, supplier: Supplier) -> None:
    """Start the app in a loop of its own, in a thread, with more requests than it has slots."""
    visit = _Visit()
    supplier.latency = ms(BUSY)

    async def asked(client: httpx.AsyncClient) -> None:
        for _ in range(TRIES):
            async with asyncio.TaskGroup() as group:
                for number in range(CONTENDED):
                    group.create_task(_status_of(client, f"D{number}", visit))
            if set(visit.statuses.values()) == {200}:
                break

    def in_its_own_loop() -> None:
        with asyncio.Runner() as runner:
            runner.run(asyncio.wait_for(_visited(app, visit, asked), sandbox.patience))

    ran = await sandbox.run(lambda: asyncio.to_thread(in_its_own_loop))
    supplier.latency = 0
    # A machine that stands still makes some late, but fails none.
    answered = sum(status == 200 for status in visit.statuses.values())
    failed = any(status not in {200, 504} for status in visit.statuses.values())
    if failed or (ran.error is not None and _says_other_loop(ran.error)):
        raise EXERCISE.wrong("bound-to-one-loop", f"{answered} of {CONTENDED} were answered")
    _judge_ended(ran, visit)


async def _judge_unreachable(
    sandbox: Sandbox, make_app: Callable[..., Any], reachable: str
) -> None:
    """Make two more apps, each with one partner that cannot be reached."""
    statuses = []
    with socket.socket() as taken:  # bound and not listening: nobody else gets it, none answers
        taken.bind((HOST, 0))
        nobody = f"http://{HOST}:{taken.getsockname()[1]}"
        for urls in ((nobody, reachable), (reachable, nobody)):
            visit = _Visit()
            app = await _made(sandbox, make_app, *urls)
            asked = functools.partial(_status_of, sku="A", visit=visit)
            ran = await sandbox.run(functools.partial(_visited, app, visit, asked))
            _judge_ended(ran, visit)
            statuses.append(visit.statuses["A"])
    _judge_status("a supplier that cannot be reached", statuses[0], 502)
    if statuses[1] != 200:
        raise EXERCISE.wrong("market-needed", f"it could not be reached: {statuses[1]}")


async def _visited(
    app: FastAPI, visit: _Visit, ask: Callable[[httpx.AsyncClient], Awaitable[None]]
) -> None:
    """Start the app, ask it, and stop it; an error of ``ask`` cancels its lifespan."""
    manager = LifespanManager(
        _with_own_state(app), startup_timeout=STARTING, shutdown_timeout=STARTING
    )
    async with manager:
        visit.started = True
        transport = httpx.ASGITransport(manager.app)
        async with httpx.AsyncClient(transport=transport, base_url=IN_PROCESS_URL) as client:
            await ask(client)
        visit.served = True


def _with_own_state(app: FastAPI) -> ASGIApp:
    """Give each request a copy of the lifespan's state, as servers do and the manager does not."""

    async def own_state(scope: MutableMapping[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] != "lifespan":
            scope["state"] = dict(scope["state"])
        await app(scope, receive, send)

    return own_state


async def _status_of(client: httpx.AsyncClient, sku: str, visit: _Visit) -> None:
    """Note the status of the app's answer: 500 where it raises, None where none comes."""
    asking = asyncio.create_task(client.get(f"/stock/{sku}"))
    for _ in range(PATIENCE):
        await asyncio.wait({asking}, timeout=ms(TICK))
        if asking.done():
            break
    asking.cancel()
    await asyncio.wait({asking})
    visit.statuses[sku] = None
    if not asking.cancelled():
        error = asking.exception()
        visit.grouped |= isinstance(error, ExceptionGroup) and holds(error, HTTPException)
        visit.statuses[sku] = asking.result().status_code if error is None else 500


async def _all_at_once(
    client: httpx.AsyncClient, supplier: Supplier, number: int = AT_ONCE
) -> list[httpx.Response]:
    """Ask while the supplier keeps each call waiting, until all have met there or time is up."""
    supplier.reset()
    supplier.hang = True
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(client.get(f"/stock/B{n}")) for n in range(number)]
        try:
            await _happens(lambda: supplier.peak_in_flight >= number, LOOKS, MEETING / LOOKS)
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
    if visit.served:
        raise EXERCISE.wrong("does-not-stop", told)
    raise mistake


def _judge_answer(answer: httpx.Response, path: str) -> None:
    if answer.status_code != 200:
        raise EXERCISE.wrong("wrong-answer", f"{path}: {answer.status_code}")
    told = answer.json()
    sku = path.rpartition("/")[2]
    if not isinstance(told, dict) or told.get("sku") != sku:
        raise EXERCISE.wrong("wrong-answer", f"look at {path}")
    if _elsewhere(told).get("sku") != sku:
        raise EXERCISE.wrong("wrong-elsewhere", f"{path}: {one_line(repr(told.get('elsewhere')))}")


def _elsewhere(told: dict[str, Any]) -> dict[str, Any]:
    """Return what an answer says of the market, or nothing where that is no dict."""
    found = told.get("elsewhere")
    return found if isinstance(found, dict) else {}


def _judge_status(what: str, status: int | None, expected: int) -> None:
    if status != expected:
        raise EXERCISE.wrong("wrong-status", f"{what}: {status}, where {expected} is due")


def _says_closed(error: BaseException) -> bool:
    return any("closed" in str(leaf) for leaf in leaves(error) if isinstance(leaf, RuntimeError))


def _says_other_loop(error: BaseException) -> bool:
    errors = [leaf for leaf in leaves(error) if isinstance(leaf, RuntimeError)]
    return any("different event loop" in str(error) for error in errors)


@contextlib.asynccontextmanager
async def _connections_closed() -> AsyncGenerator[None]:
    """Close what the block has opened with the loop's ``create_connection`` and left open.

    A client that nobody closes keeps its connections when their server has gone, and then what
    looks for leaks finds those of an earlier attempt.
    """
    loop = asyncio.get_running_loop()
    create: Any = loop.create_connection
    opened: list[asyncio.Transport] = []

    @functools.wraps(create)
    async def noted(*args: Any, **options: Any) -> Any:
        transport, protocol = await create(*args, **options)
        opened.append(transport)
        return transport, protocol

    setattr(loop, "create_connection", noted)  # noqa: B010
    try:
        yield
    finally:
        vars(loop).pop("create_connection", None)
        for transport in opened:
            transport.abort()
        await asyncio.sleep(0)  # the loop closes their sockets in its next turn
        await asyncio.sleep(0)


async def _judge_closed(mistake: str, *partners: _Partner) -> None:
    """Give the servers a moment to see connections close, and count those that do not."""

    def still_open() -> int:
        return sum(partner.server.open_connections for partner in partners)

    if not await _happens(lambda: not still_open(), LOOKS, SETTLING / LOOKS):
        raise EXERCISE.wrong(mistake, f"open connections: {still_open()}")


async def _happens(condition: Callable[[], bool], looks: int, between: float) -> bool:
    """Return whether ``condition()`` comes true within so many looks, ``between`` seconds apart.

    Looks are counted, not seconds: a machine that stops everything stops them as well.
    """
    for _ in range(looks):
        if condition():
            return True
        await asyncio.sleep(between)
    return condition()
