"""A chain of services in front of a supplier that may be down, for lesson 19."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import httpx
from fastapi import FastAPI, HTTPException
from stamina.instrumentation import RetryDetails, get_on_retry_hooks, set_on_retry_hooks

from looplab.lab import mark, serve, show_table, until
from looplab.shop import checks
from looplab.shop.partners import Partner, PaymentService
from looplab.shop.partners.partner import in_this_process

Ask = Callable[[httpx.AsyncClient, str], Awaitable[Any]]


def note_retries() -> list[RetryDetails]:
    """Return a list that gets the details of each retry that stamina schedules from now on.

    It takes the place of stamina's own hooks, which log and count, until
    ``stamina.instrumentation.set_on_retry_hooks(None)`` brings those back.
    """
    noted: list[RetryDetails] = []

    def note(details: RetryDetails) -> None:
        noted.append(details)

    set_on_retry_hooks([note])
    return noted


def calls_to(supplier: Partner) -> httpx.AsyncClient:
    """Return a client of the supplier that marks each call on the lane of its task.

    It calls the supplier in this process and holds nothing open. httpx's own time-outs have no
    effect in it.
    """

    async def note(_request: httpx.Request) -> None:
        mark("asks")

    client = in_this_process(supplier, "http://supplier")
    client.event_hooks = {"request": [note]}
    return client


async def ask(client: httpx.AsyncClient, path: str) -> Any:
    """Return the JSON of one GET. Raises `httpx.HTTPError`, for a bad status too."""
    answer = await client.get(path)
    answer.raise_for_status()
    return answer.json()


class Chain:
    """A phone's app, the shop, the warehouse and a supplier, each of which asks the next by HTTP.

    Shop and warehouse are apps of their own, called in this process. Each answers 503 when the
    service that it asks gives no good answer.

    Attributes:
        supplier: the partner at the end.
    """

    def __init__(
        self, supplier: Partner, *, phone: Ask = ask, shop: Ask = ask, warehouse: Ask = ask
    ) -> None:
        """Make the chain; each service asks the next by ``await ask(client, path)``, once."""
        self.supplier = supplier
        self._ask = phone
        behind_shop = _client_of(_service(warehouse, calls_to(supplier)), "http://warehouse")
        self._client = _client_of(_service(shop, behind_shop), "http://shop")

    async def visit(self, sku: str) -> bool:
        """Ask for the stock of ``sku`` on the phone; return whether an answer came."""
        try:
            await self._ask(self._client, f"/stock/{sku}")
        except (httpx.HTTPError, TimeoutError):
            return False
        return True


def _service(ask: Ask, client: httpx.AsyncClient) -> FastAPI:
    app = FastAPI()

    @app.get("/stock/{sku}")
    async def stock(sku: str) -> Any:
        try:
            return await ask(client, f"/stock/{sku}")
        except (httpx.HTTPError, TimeoutError):
            raise HTTPException(503, "the next service gives no answer") from None

    # Starlette does this in the first request, which would look busier than it is.
    app.middleware_stack = app.build_middleware_stack()
    return app


def _client_of(app: FastAPI, url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=url)


class Crowd(NamedTuple):
    """What became of visitors who came at once.

    Attributes:
        visitors: how many came.
        answered: how many had an answer in the end.
        calls: how many calls arrived at the supplier.
        at_once: how many of them were under way at once, at most.
        apart: the seconds between the two first waits, as stamina drew them, that are closest; 0.0
            when fewer than two visitors waited.
    """

    visitors: int
    answered: int
    calls: int
    at_once: int
    apart: float


async def crowd(
    chain: Chain, visitors: int, *, failing: float | None = None, seed: int | None = None
) -> Crowd:
    """Let so many visitors come at once, each asking for a SKU of its own; count at the supplier.

    ``failing`` is the share of calls, 0 to 1, that fail at the supplier from now on; None leaves
    that as it is. With a ``seed``, jitter is drawn alike each time. The supplier counts from 0.
    stamina's own hooks rest meanwhile.

    Raises TypeError or ValueError when ``visitors`` is no whole number from 1 up, or ``failing`` no
    share.
    """
    checks.count("visitors", visitors, at_least=1)
    if failing is not None:
        chain.supplier.failure_rate = failing
    if seed is not None:
        random.seed(seed)
    chain.supplier.reset()
    hooks = get_on_retry_hooks()
    retries = note_retries()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(chain.visit(f"cup-{number}"), name=f"visitor {number}")
                for number in range(1, visitors + 1)
            ]
    finally:
        set_on_retry_hooks(hooks)
    answered = sum(task.result() for task in tasks)
    supplier = chain.supplier
    return Crowd(visitors, answered, supplier.calls, supplier.peak_in_flight, _apart(retries))


def _apart(retries: list[RetryDetails]) -> float:
    first = sorted(retry.wait_for for retry in retries if retry.retry_num == 1)
    return min((after - before for before, after in pairwise(first)), default=0.0)


async def in_hand_after(seconds: float, asking: Coroutine[Any, Any, Any], supplier: Partner) -> int:
    """Start ``asking``; return how many calls the supplier has in hand after so many seconds.

    Then what still goes on is cancelled, and has ended when this returns.
    """
    task = asyncio.ensure_future(asking)
    await asyncio.wait({task}, timeout=seconds)
    in_hand = supplier.in_flight
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return in_hand


def show_crowds(crowds: Mapping[str, Crowd]) -> None:
    """Show a table of crowds by name: visitors, calls at the supplier, most at once, answers.

    Raises ValueError when there is none to show.
    """
    if not crowds:
        raise ValueError("crowds is empty; give at least one crowd, by name")
    headers = ["", "visitors", "calls at the supplier", "most at once", "answered"]
    rows = [
        [name, *(str(n) for n in (one.visitors, one.calls, one.at_once, one.answered))]
        for name, one in crowds.items()
    ]
    show_table(headers, rows)


async def charge(client: httpx.AsyncClient, order_id: str, key: str | None = None) -> Any:
    """Ask a payment service to charge an order, with an idempotency key if there is one.

    Raises `httpx.HTTPError` when no answer comes in time, or a bad one.
    """
    order = {"order_id": order_id, "amount": 1_999}
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = await client.post("/charges", json=order, headers=headers)
    answer.raise_for_status()
    return answer.json()


async def checkout(
    bank: PaymentService, pay: Callable[..., Awaitable[Any]], *given: Any, patience: float
) -> str:
    """Serve the bank, await ``pay(client, *given)``, and return what the customer hears.

    That is "paid", or the name of the `httpx.HTTPError` that came out. The client waits for
    ``patience`` seconds for each answer. When this returns, the bank has ended its work; it counts
    from 0 before.
    """
    bank.reset()
    async with serve(bank.app) as server, server.client(timeout=patience) as client:
        try:
            await pay(client, *given)
        except httpx.HTTPError as error:
            heard = type(error).__name__
        else:
            heard = "paid"
        await until(lambda: bank.in_flight == 0)
    return heard
