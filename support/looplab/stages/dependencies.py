"""What lesson 16 sends to its apps, how it is watched, and the carrier that they ask."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import anyio.to_thread
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from looplab.lab import Recording, get, in_process, ms, post, serve, show_table, span, xray
from looplab.lab.compare import milliseconds
from looplab.shop import Shop
from looplab.shop.models import new_id

CARRIER = 200  # milliseconds that the carrier of `ask_carrier` takes


@dataclass(frozen=True, slots=True)
class Burst:
    """How requests that were sent at the same moment were answered.

    Attributes:
        answers: status and seconds since the sending, in the order in which they came.
    """

    answers: tuple[tuple[int, float], ...]

    @property
    def served(self) -> int:
        """How many were answered with 200."""
        return sum(status == 200 for status, _ in self.answers)

    @property
    def failed(self) -> int:
        """How many were answered with anything else."""
        return len(self.answers) - self.served

    @property
    def first_served(self) -> float:
        """When the first 200 came, in seconds; infinity when none did."""
        return min((late for status, late in self.answers if status == 200), default=float("inf"))

    @property
    def seconds(self) -> float:
        """When the last answer came."""
        return self.answers[-1][1]


async def burst(app: Starlette, path: str, requests: int) -> Burst:
    """Send ``requests`` GET requests for ``path`` to ``app`` at the same moment, in this process.

    One more goes ahead, which the app's first request would be slow without. An error that the app
    raises is an answer of 500.

    Raises:
        ValueError: ``requests`` is below 1.
    """
    if requests < 1:
        raise ValueError(f"requests is {requests!r}; it must be 1 or more")
    answers: list[tuple[int, float]] = []
    async with in_process(app, raise_errors=False) as client:
        await client.get(path)
        began = perf_counter()

        async def visit() -> None:
            answer = await client.get(path)
            answers.append((answer.status_code, perf_counter() - began))

        await asyncio.gather(*[visit() for _ in range(requests)])
    return Burst(tuple(answers))


async def at_once(app: Starlette, path: str, requests: int, method: str = "GET") -> list[int]:
    """Send ``requests`` requests for ``path`` at the same moment, each in a task of its name.

    Returns their statuses. An error that the app raises is an answer of 500.

    Raises:
        ValueError: ``method`` is neither GET nor POST.
    """
    methods = {"GET": get, "POST": post}
    if method not in methods:
        raise ValueError(f"method is {method!r}; it must be GET or POST")
    calls = [methods[method](app, path, raise_errors=False) for _ in range(requests)]
    return [answer.status_code for answer in await asyncio.gather(*calls)]


async def watch(app: Starlette, request: str, times: int = 1, **options: Any) -> Recording:
    """Return the x-ray of ``times`` requests, such as ``GET /orders``, sent at the same moment.

    Its result is the list of their statuses. ``options`` are those of ``xray``; the title is the
    request unless one is given.

    Raises:
        ValueError: the method is neither GET nor POST.
    """
    method, _, path = request.partition(" ")
    named: dict[str, Any] = {"title": request} | options
    return await xray(at_once(app, path, times, method), **named)


def thread_loans(recording: Recording) -> list[str]:
    """Return when the first task of ``recording`` asked for each thread that it borrowed, in order.

    That is "before the answer" or "after the answer". All are before it where the recording has no
    mark of the answer.
    """
    task = recording.tasks[0]
    answered = float("inf") if task.answered is None else task.answered
    asked = [began for name, spans in task.waits.items() if "thread" in name for began, _ in spans]
    return ["after the answer" if at > answered else "before the answer" for at in sorted(asked)]


async def ask_carrier() -> None:
    """Ask a carrier that takes 200 ms; an x-ray shows that as "with the carrier"."""
    with span("with the carrier"):
        await asyncio.sleep(ms(CARRIER))


def open_sessions(
    shop: Shop, *, connections: int
) -> Callable[[Any], AbstractAsyncContextManager[dict[str, Any]]]:
    """Return a lifespan that yields ``{"sessions": ...}``, a sessionmaker on the shop's database.

    Its engine has so many connections and no more, and is disposed of at the end.
    """

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncGenerator[dict[str, Any]]:
        engine = create_async_engine(shop.engine.url, pool_size=connections, max_overflow=0)
        try:
            yield {"sessions": async_sessionmaker(engine, expire_on_commit=False)}
        finally:
            await engine.dispose()

    return lifespan


async def put_orders(app: ASGIApp, orders: int) -> list[int]:
    """Serve ``app`` and PUT so many orders at once, each to ``/orders/ID`` with an id of its own.

    Returns their statuses. Raises what httpx raises.
    """
    async with serve(app) as server, server.client() as client:
        calls = [client.put(f"/orders/{new_id()}") for _ in range(orders)]
        return [answer.status_code for answer in await asyncio.gather(*calls)]


def show_bursts(bursts: dict[str, Burst]) -> None:
    """Show a table with a row for each burst: served, failed, and when the answers came."""
    rows = []
    for name, one in bursts.items():
        first = milliseconds(one.first_served) if one.served else "never"
        rows.append([name, str(one.served), str(one.failed), first, milliseconds(one.seconds)])
    show_table(["requests", "served", "failed", "first served", "last answer"], rows)


async def order_of_events(app: ASGIApp, path: str, events: list[str]) -> list[str]:
    """Send a GET request for ``path`` and note in ``events`` when its answer begins and ends.

    Returns ``events``, to which the app may have added its own. Raises what the app raises.
    """

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                events.append("answer begins")
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                events.append("answer ends")
            await send(message)

        await app(scope, receive, sending)

    await get(noting, path)
    return events


class Carrier:
    """A partner that answers once enough callers are inside; after that it answers at once.

    Attributes:
        price: what it answers.
        asked: how many have called so far.
        inside: how many callers wait for it.
        peak: how many waited at once, at most.
    """

    def __init__(self, *, answers_at: int, price: int = 490) -> None:
        """Make a carrier that answers when ``answers_at`` callers are inside.

        Raises:
            ValueError: ``answers_at`` is below 1.
        """
        if answers_at < 1:
            raise ValueError(f"answers_at is {answers_at!r}; it must be 1 or more")
        self.price = price
        self.asked = 0
        self.inside = 0
        self.peak = 0
        self._answers_at = answers_at
        self._answers = asyncio.Event()

    async def ask(self) -> int:
        """Wait until enough callers are inside, and return the price."""
        self.asked += 1
        self.inside += 1
        self.peak = max(self.peak, self.inside)
        if self.inside >= self._answers_at:
            self._answers.set()
        try:
            await self._answers.wait()
        finally:
            self.inside -= 1
        return self.price


@contextmanager
def threads_at_most(count: int) -> Generator[None]:
    """Let AnyIO lend ``count`` threads in place of forty, in this event loop, inside the block.

    Raises:
        ValueError: ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"count is {count!r}; it must be 1 or more")
    limiter = anyio.to_thread.current_default_thread_limiter()
    before = limiter.total_tokens
    limiter.total_tokens = count
    try:
        yield
    finally:
        limiter.total_tokens = before
