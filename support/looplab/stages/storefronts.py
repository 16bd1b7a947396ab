"""Where lesson 13 tries its storefront: one load, three times, x-rays, bursts and downloads."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from time import perf_counter
from typing import Any, Self
from uuid import UUID

from fastapi import FastAPI

from looplab.lab import (
    LoadReport,
    Recording,
    Rounds,
    load_rounds,
    load_test,
    mark,
    ms,
    serve,
    show_picture,
    show_rounds,
    xray,
)
from looplab.lab.charts import waterfall
from looplab.lab.load import asgi_sender
from looplab.lab.rounds import DOUBT
from looplab.shop import Shop, storefront
from looplab.shop.partners import Supplier
from looplab.shop.storefront import Partners

Parts = Mapping[str, Any]
Visit = tuple[str, str]


class Storefronts:
    """Runs storefronts that differ in their parts under the same load.

    Attributes:
        visits: the load, each visit a method and a path.
        states: the rounds of each state that was measured, by name, in the order of measuring.
    """

    def __init__(
        self,
        partners: Partners,
        visits: Sequence[Visit],
        clients: int,
        about: Mapping[str, UUID],
    ) -> None:
        self.visits = tuple(visits)
        self.clients = clients
        self.states: dict[str, Rounds] = {}
        self._partners = partners
        self._about = about

    @classmethod
    async def of(cls, shop: Shop, partners: Partners, *, visits: int, clients: int) -> Self:
        """Return one whose load is so many ``visits`` of so many ``clients``.

        Every storefront is for the user of ``shop`` with the most orders and its first product, so
        both have to be in every shop that is a part.
        """
        product = (await shop.products.get_featured(1))[0]
        about = {"user_id": await shop.any_user(), "product_id": product.id}
        return cls(partners, storefront.visits(visits), clients, about)

    @asynccontextmanager
    async def running(self, parts: Parts, *, url: str | None = None) -> AsyncGenerator[Any]:
        """Run the storefront that ``parts`` make, in this process; yield what sends a visit to it.

        The partners run on a server beside it, unless ``url`` says that they are elsewhere.
        ``parts`` are arguments of :func:`looplab.shop.storefront.storefront`. Raises TypeError when
        one is missing or unknown.
        """
        async with serve(self._partners.app) as server:
            app = storefront.storefront(**parts, **self._about, url=url or server.url)
            async with asgi_sender(app) as send:
                yield send

    async def measure(self, name: str, parts: Parts) -> Rounds:
        """Run the load three times, show this state below the one before, and return the runs."""
        async with self.running(parts) as send:
            self.states[name] = await load_rounds(send, self.visits, clients=self.clients)
        show_rounds(self.states, only=name)
        return self.states[name]

    async def burst(
        self, parts: Parts, visits: Sequence[Visit], *, url: str | None = None
    ) -> LoadReport[Visit]:
        """Send all ``visits`` at once to the storefront that ``parts`` make, and return the report.

        ``url`` is where the partners are; on a server beside it unless given. The visits are sent
        once before, uncounted: the first calls of a client open its connections.
        """
        async with self.running(parts, url=url) as send:
            await load_test(send, visits, clients=len(visits))
            return await load_test(send, visits, clients=len(visits))

    async def watch(
        self, title: str, parts: Parts, visits: Sequence[Visit], **options: Any
    ) -> Recording:
        """Return the x-ray of ``visits``, all sent at once; ``options`` are those of `xray`.

        They are sent once before, unrecorded: the first call of a client opens its connection.
        """
        async with self.running(parts) as send:
            await load_test(send, visits, clients=len(visits))
            load = load_test(send, visits, clients=len(visits))
            return await xray(load, title=title, **options)

    def show_waterfall(self, *, bound: float) -> None:
        """Show what each state took off the load's time, pale where that can't be told from noise.

        ``bound`` is the least that the last state can take, in seconds. Raises ValueError when
        fewer than two states were measured.
        """
        states = list(self.states.values())
        verdicts = ["", *(after.against(before) for before, after in pairwise(states))]
        times = [1000 * state.took for state in states]
        if len(times) < 2:
            raise ValueError(f"{len(times)} states were measured; measure two or more")
        doubted = [name for name, said in zip(self.states, verdicts, strict=True) if said == DOUBT]
        faster = states[0].took / states[-1].took
        summary = (
            f"From {times[0]:,.0f} ms to {times[-1]:,.0f} ms, {faster:.1f} times as quick. "
            f"Not told from noise: {', '.join(doubted) or 'none'}."
        )
        show_picture(
            waterfall(
                list(self.states),
                times,
                unit=f"milliseconds for {len(self.visits)} requests",
                bound=1000 * bound,
                labels=[f"{time:,.0f} ms" for time in times],
                ranges=[(1000 * state.least, 1000 * state.most) for state in states],
                doubtful=[said == DOUBT for said in verdicts],
            ),
            alt=f"A waterfall of the load's time, a bar for each repair. {summary}",
            summary=summary,
        )


def fraud_score(user_id: UUID) -> None:
    """Score a user, as a library does that isn't async: it holds its thread for 60 ms."""
    time.sleep(ms(60))


async def fetch_rate(currency: str) -> float:
    """Return the rate of a currency, after a mark in the x-ray and the partner's 40 ms."""
    mark(f"asks for {currency}")
    await asyncio.sleep(ms(40))
    return 1.08


async def answered_after_bursts(library: Any, *, pool: float, slots: asyncio.Semaphore) -> int:
    """Return how many of ten calls to a healthy supplier get an answer, after a bad moment.

    ``library`` is ``httpx`` or ``httpx2``. Its client has ten connections, and lets a call queue
    for one ``pool`` seconds. In the bad moment the supplier takes 500 ms, and four times forty
    calls at once have a deadline of 100 ms each. Every call goes through ``slots``.
    """
    supplier = Supplier(latency=ms(500))
    limits = library.Limits(max_connections=10)
    timeout = library.Timeout(ms(5_000), pool=pool)

    async def call(client: Any, deadline: float) -> int:
        with suppress(TimeoutError, library.HTTPError):
            async with asyncio.timeout(deadline), slots:
                await client.get("/stock/A")
                return 1
        return 0

    async with (
        serve(supplier.app) as server,
        library.AsyncClient(base_url=server.url, limits=limits, timeout=timeout) as client,
    ):
        for _ in range(4):
            await asyncio.gather(*[call(client, ms(100)) for _ in range(40)])
        supplier.latency = 0
        return sum(await asyncio.gather(*[call(client, ms(5_000)) for _ in range(10)]))


async def download(app: FastAPI, path: str, *, lines: int) -> LoadReport[str]:
    """Download ``path`` of ``app`` from a real server, chunk by chunk, and count memory meanwhile.

    The download has failed unless the body has so many ``lines``.
    """

    async def read(path: str) -> None:
        seen = 0
        async with client.stream("GET", path) as response:
            async for chunk in response.aiter_raw():
                seen += chunk.count(b"\n")
        if seen != lines:
            raise EOFError(f"{path} sent {seen} lines of {lines}")

    async with serve(app) as server, server.client() as client:
        return await load_test(read, [path], clients=1, memory=True)


async def waits_of_arrivals(
    send: Callable[[int], Awaitable[Any]], count: int, *, rate: float
) -> list[float]:
    """Send ``count`` requests that arrive ``rate`` a second, whatever becomes of those before.

    Returns how many seconds each took from its arrival on, in the order of arrival. Raises what
    ``send`` raises, and ValueError when ``rate`` is not above 0.
    """
    if not rate > 0:
        raise ValueError(f"rate is {rate!r}; it must be above 0, in requests a second")
    start = perf_counter()

    async def arrive(number: int) -> float:
        arrival = start + number / rate
        await asyncio.sleep(max(arrival - perf_counter(), 0))
        await send(number)
        return perf_counter() - arrival

    return await asyncio.gather(*[arrive(number) for number in range(count)])
