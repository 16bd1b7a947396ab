# ruff: noqa: ASYNC110 (other processes and threads set no event)
"""Lesson 20's stage: worker processes of one service, the partner and the Redis that they share."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, Final, Self
from uuid import uuid4

import httpx
import redis.asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from looplab.lab import Recording, ms, serve, show_table, span, until, xray
from looplab.lab.clients import LoopbackServer
from looplab.shop.redis import delete_keys, serve_redis
from looplab.stages import checkout
from looplab.stages.child import Child, kill_each
from looplab.stages.stage import Stage

STARTS_WITHIN: Final = 60.0  # seconds, on a busy machine
ENDS_WITHIN: Final = 20.0
TAKES: Final = 200  # milliseconds for a charge
LOOKS_EVERY: Final = 400  # milliseconds between two looks of the balancer
DRAINS: Final = 1_200  # milliseconds that a worker is not ready before it stops


@dataclass(slots=True)
class _Batch:
    """Charges that end together; ``asked_at`` is when the last of them was asked for."""

    asked_at: float = 0.0
    done: bool = False


class Partner:
    """A partner who takes charges in 200 ms each, and answers 429 to those above his limit.

    In batches, all that he has in hand are done when nobody has asked for another one for 200 ms:
    then those that come together are in hand together, however long a busy machine needs to send
    them. Who asks after that is in the next batch.

    Attributes:
        limit: how many charges he takes at once.
        at_once: how many he has in hand now.
        most: the most he was asked for at once, refused ones included.
        refused: how many he has refused.
        cents: the lamp's price.
        asked: how often he was asked for it.
        in_batches: whether he works in batches.
        slow: while true, a charge isn't done until `slow` is false again.
    """

    def __init__(self, limit: int = 10) -> None:
        """Take charges; `limit` of them at once."""
        self.limit, self.cents, self.slow = limit, 1_999, False
        self.in_batches, self._batch = False, _Batch()
        self.at_once = self.most = self.refused = self.asked = 0
        self.app = Starlette(
            routes=[
                Route("/charges", self._charge, methods=["POST"]),
                Route("/price", self._tell, methods=["GET"]),
                Route("/price", self._change, methods=["PUT"]),
            ]
        )

    def reset(self) -> None:
        """Count anew."""
        self.most, self.refused, self.asked = self.at_once, 0, 0

    async def _charge(self, request: Request) -> Response:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            if self.at_once > self.limit:
                self.refused += 1
                return Response(status_code=429)
            with span(f"for worker {request.headers['X-Worker']}"):
                await (self._batched() if self.in_batches else asyncio.sleep(ms(TAKES)))
                while self.slow and not await request.is_disconnected():
                    await asyncio.sleep(ms(20))
            return Response(status_code=201)
        finally:
            self.at_once -= 1

    async def _batched(self) -> None:
        batch = self._batch
        batch.asked_at = perf_counter()
        while not batch.done:
            await asyncio.sleep(max(batch.asked_at + ms(TAKES) - perf_counter(), 0))
            if not batch.done and perf_counter() >= batch.asked_at + ms(TAKES):
                batch.done, self._batch = True, _Batch()

    async def _tell(self, request: Request) -> Response:
        self.asked += 1
        return JSONResponse(self.cents)

    async def _change(self, request: Request) -> Response:
        self.cents = await request.json()
        return Response(status_code=204)


@dataclass(frozen=True, slots=True)
class Rush:
    """How many requests at once went.

    Attributes:
        statuses: how often each status came; 0 stands for a connection that failed.
        most: the most charges that the partner was asked for at once.
        refused: how many of them he refused.
        seconds: how long it took, from the first request to the last answer.
    """

    statuses: Counter[int]
    most: int
    refused: int
    seconds: float


def show_rushes(rushes: Mapping[str, Rush]) -> None:
    """Show a table of rushes by name."""
    rows = [
        [name, str(one.most), str(one.refused), str(one.statuses[200])]
        for name, one in rushes.items()
    ]
    show_table(["", "calls at once", "refused by the partner", "orders taken"], rows)


@dataclass(slots=True)
class Load:
    """What became of orders that came one after another.

    Attributes:
        statuses: how often each status came; 0 stands for a connection that failed.
        looks: how often the balancer has looked at all workers.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    looks: int = 0

    async def looked(self) -> None:
        """Wait until the balancer has looked once more."""
        before = self.looks
        await until(lambda: self.looks > before)

    @property
    def lost(self) -> int:
        """How many had no answer, or one that wasn't 200."""
        return self.statuses.total() - self.statuses[200]


def show_statuses(load: Load) -> None:
    """Show a table of how often each status came."""
    rows = [[str(status), str(times)] for status, times in sorted(load.statuses.items())]
    show_table(["status", "orders"], rows)


class Worker(Child):
    """A worker process of its own, which answers on its own loopback port."""

    def __init__(
        self,
        name: str,
        arguments: Iterable[str],
        *,
        pause: float = 0.0,
        lease: float = checkout.limits["lease"],
    ) -> None:
        """Start the process. Don't wait for it: `address` does.

        Told to stop, it is not ready for `pause` seconds before it does; by 0 it stops at once.
        A slot that it shares is leased for `lease` seconds.
        """
        super().__init__(["-m", checkout.__name__, str(pause), name, *arguments, str(lease)])
        self.name, self.pause, self.lease, self.warm = name, pause, lease, False
        self._address = ""

    async def address(self) -> str:
        """Return where the worker answers, as soon as it listens.

        Raises WorkerFailed when the process ended before it did.
        """
        if not self._address:
            self._address = f"http://127.0.0.1:{int(await self.hear())}"
        return self._address

    def terminate(self) -> None:
        """Ask the process to stop: by SIGTERM, as systemd and Kubernetes do, where there is one."""
        if sys.platform == "win32":
            self.tell(checkout.STOP)
        else:
            self.signal(signal.SIGTERM)

    async def ended(self) -> None:
        """Wait until the process has ended. Raises TimeoutError when it takes 20 s."""
        async with asyncio.timeout(ENDS_WITHIN):
            await until(lambda: not self.alive)


class Fleet(Stage):
    """Worker processes by name, and what they share: a partner and a Redis.

    `await Fleet.open()` opens one, and closes the one that was open before, so that a cell may run
    twice.

    Attributes:
        partner: who charges the orders.
        partner_server: where he is served; `xray(server=...)` draws his lanes.
        redis: a client of the Redis that all workers share.
        prefix: what the fleet's keys in Redis begin with.
        workers: the worker processes by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.partner = Partner()
        self.prefix = f"course:{uuid4().hex}"
        self.workers: dict[str, Worker] = {}
        self._arguments: list[str] = []
        self._held: list[asyncio.Task[Any]] = []
        self.partner_server: LoopbackServer
        self.redis: Any

    @classmethod
    async def open(cls) -> Self:
        """Open one without workers. Raises what `serve` raises when a server can't start."""
        fleet = cls()
        async with fleet._opening() as stack:
            address = await stack.enter_async_context(serve_redis())
            client = redis.asyncio.Redis.from_url(address, decode_responses=True)
            fleet.redis = await stack.enter_async_context(client)
            stack.push_async_callback(delete_keys, client.execute_command, f"{fleet.prefix}*")
            fleet.partner_server = await stack.enter_async_context(serve(fleet.partner.app))
            stack.push_async_callback(fleet._stop_work)
            fleet._arguments = [fleet.partner_server.url, address, fleet.prefix]
        return fleet

    async def _stop_work(self) -> None:
        self.partner.slow = False
        try:
            await kill_each(self.workers.values())
        finally:
            self.workers.clear()
            await self._held_ended()

    async def _held_ended(self) -> None:
        """Wait until the orders that `hold` sent have ended, and let go of what they raised."""
        await asyncio.gather(*self._held, return_exceptions=True)
        self._held.clear()

    def start(
        self, *names: str, drains: bool = False, lease: float = checkout.limits["lease"]
    ) -> None:
        """Start workers of these names, and don't wait for them.

        Those that drain stop as `DrainingServer` does, the others as uvicorn does. Their slots are
        leased for `lease` seconds. A worker that was started before stays as it is, so that a cell
        may run twice; `ready` starts one again that has ended.
        """
        pause = ms(DRAINS) if drains else 0.0
        lease = max(lease, ms(lease * 1_000))  # a slow course has slow charges
        for name in names:
            if name not in self.workers:
                self.workers[name] = Worker(name, self._arguments, pause=pause, lease=lease)

    async def ready(self, *names: str) -> None:
        """Wait until all these workers say that they are ready, and are warm.

        One that has ended is started again, as a supervisor would, so that a cell may run twice.
        A worker is warm when it has charged five orders at once, so that its connections are open.
        Raises WorkerFailed when one of them ended, TimeoutError when it takes 60 s.
        """
        async with asyncio.timeout(STARTS_WITHIN), _client() as client:
            for name in names:
                await self._revive(name)
                address = await self.workers[name].address()
                while (await client.get(f"{address}/ready")).status_code != 200:
                    await asyncio.sleep(ms(20))
            cold = [name for name in names if not self.workers[name].warm]
            await asyncio.gather(*(self._warm(client, self.workers[name]) for name in cold))

    async def _revive(self, name: str) -> None:
        ended = self.workers[name]
        if not ended.alive:
            await ended.kill()
            self.workers[name] = Worker(name, self._arguments, pause=ended.pause, lease=ended.lease)

    async def _warm(self, client: httpx.AsyncClient, worker: Worker) -> None:
        address = await worker.address()
        paths = ["/orders/semaphore", "/orders/shared"] * 5
        await asyncio.gather(*(_post(client, address, path) for path in paths))
        worker.warm = True

    async def rush(self, orders: int, path: str, *names: str, in_batches: bool = True) -> Rush:
        """Send so many orders at once to `path`, to these workers in turn, and wait for all.

        The partner works in batches meanwhile, or charge by charge without `in_batches`. The
        clients run in a thread, so that an x-ray shows the partner's side alone. They are
        connected before the rush begins.
        """
        await self.ready(*names)
        addresses = [await self.workers[name].address() for name in names]
        self.partner.reset()
        rushing = partial(_rush, orders, path, addresses)
        self.partner.in_batches = in_batches
        try:
            statuses, seconds = await asyncio.to_thread(lambda: asyncio.run(rushing()))
        finally:
            self.partner.in_batches = False
        return Rush(statuses, self.partner.most, self.partner.refused, seconds)

    async def xray(
        self,
        orders: int,
        path: str,
        *names: str,
        title: str,
        against: Recording | Sequence[Recording] = (),
        show: bool = True,
    ) -> Recording:
        """Record a `rush` as the partner sees it, a lane for each charge, and draw it.

        The arguments are those of `rush` and of `looplab.lab.xray`; the result is the Rush. No
        start of a worker is recorded: they are waited for before.
        """
        await self.ready(*names)
        return await xray(
            self.rush(orders, path, *names),
            server=self.partner_server,
            title=title,
            against=against,
            held=ms(100),
            unfold=False,
            show=show,
        )

    async def hold(self, name: str, orders: int, *paths: str) -> None:
        """Send so many orders to each of these paths of a worker; return when the partner has all.

        They stay there until the worker is killed. A counter that counts nobody alive is deleted
        before, so that a cell may run twice.
        """
        await self.ready(name)
        if not self.partner.at_once:
            await self.redis.delete(f"{self.prefix}:counter")
        self.partner.slow = True
        address = await self.workers[name].address()
        for path in paths:
            reached = self.partner.at_once + orders
            self._held.append(asyncio.create_task(_rush(orders, path, [address])))
            async with asyncio.timeout(STARTS_WITHIN):
                await until(lambda reached=reached: self.partner.at_once >= reached)

    async def kill(self, name: str) -> None:
        """Kill a worker, as `Worker.kill` does; return when the partner has dropped its orders."""
        await self.workers[name].kill()
        await self._held_ended()
        self.partner.slow = False
        async with asyncio.timeout(ENDS_WITHIN):
            await until(lambda: not self.partner.at_once)

    async def stop(self, name: str) -> None:
        """Tell a worker to stop, and return when its process has ended."""
        self.workers[name].terminate()
        await self.workers[name].ended()

    async def stop_under_load(self, name: str, *, beside: str) -> Load:
        """Stop a worker while orders come to it and to the one beside it, and return the load.

        The balancer has looked once before the worker is told to stop, and once after it has ended.
        """
        async with self.steady(name, beside) as load:
            await load.looked()
            await self.stop(name)
            await load.looked()
        return load

    async def each(self, method: str, path: str, *names: str) -> list[int]:
        """Ask these workers one after another and return what they answer, a number or None.

        Raises httpx.HTTPStatusError when one of them answers with an error.
        """
        await self.ready(*names)
        async with _client() as client:
            answers = []
            for name in names:
                address = await self.workers[name].address()
                answer = await client.request(method, address + path)
                answers.append(answer.raise_for_status().json())
        return answers

    @asynccontextmanager
    async def steady(self, *names: str) -> AsyncGenerator[Load]:
        """Send an order every 40 ms while the block runs, to those workers that are ready.

        A balancer deals them out in turn, and asks each worker every 400 ms whether it is ready.
        When the block has ended, requests under way are waited for.
        """
        await self.ready(*names)
        load, ready = Load(), set(names)
        addresses = {name: await self.workers[name].address() for name in names}
        async with _client() as client, asyncio.TaskGroup() as group:
            looking = group.create_task(_look(client, addresses, ready, load))
            sending = group.create_task(_send(client, addresses, ready, load))
            try:
                yield load
            finally:
                sending.cancel()
                await asyncio.wait({sending})
                looking.cancel()


def _client() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(trust_env=False, verify=False, timeout=STARTS_WITHIN, limits=limits)


async def _post(client: httpx.AsyncClient, address: str, path: str) -> int:
    try:
        return (await client.post(address + path)).status_code
    except httpx.TransportError:
        return 0


async def _rush(orders: int, path: str, addresses: list[str]) -> tuple[Counter[int], float]:
    dealt = list(itertools.islice(itertools.cycle(addresses), orders))
    async with _client() as client:
        await asyncio.gather(*(client.get(f"{address}/ready") for address in dealt))
        began = perf_counter()
        statuses = await asyncio.gather(*(_post(client, one, path) for one in dealt))
        return Counter(statuses), perf_counter() - began


async def _look(
    client: httpx.AsyncClient, addresses: dict[str, str], ready: set[str], load: Load
) -> None:
    while True:
        load.looks += 1
        await asyncio.sleep(ms(LOOKS_EVERY))
        for name, address in addresses.items():
            try:
                says = (await client.get(f"{address}/ready")).status_code == 200
            except httpx.TransportError:
                says = False
            (ready.add if says else ready.discard)(name)


async def _send(
    client: httpx.AsyncClient, addresses: dict[str, str], ready: set[str], load: Load
) -> None:
    async def one(name: str) -> None:
        load.statuses[await _post(client, addresses[name], "/orders/semaphore")] += 1

    async with asyncio.TaskGroup() as group:
        try:
            for turn in itertools.count():
                able = sorted(ready)
                if able:
                    group.create_task(one(able[turn % len(able)]))
                await asyncio.sleep(ms(40))
        except asyncio.CancelledError:
            return
