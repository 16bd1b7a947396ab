"""What a layer of lesson 10 costs: the lesson's own timing middleware, and layers that do nothing.

In processor time, the quickest of many rounds: what else the machine does only ever adds.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.middleware.base import BaseHTTPMiddleware

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

CALLS = 20
ROUNDS = 150
LAYERS = 5
QUERY = 20_000  # microseconds
CELLS = ("setup", "setup-layers", "setup-layers-asgi", "cost-hello")

App = Callable[..., Any]


@pytest.fixture
def lesson(names_of: Any) -> dict[str, Any]:
    """Return the names that the lesson's cells define, with a logger that keeps nothing."""
    logger = logging.Logger("benchmark", logging.INFO)
    logger.addHandler(logging.NullHandler())
    return names_of("10_deeper", CELLS, logger=logger)


class BaseThrough(BaseHTTPMiddleware):
    async def dispatch(self, request: Any, call_next: Any) -> Any:
        return await call_next(request)


class PureThrough:
    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def passed(message: Any) -> None:
            await send(message)

        await self.app(scope, receive, passed)


def wrapped(kind: Callable[[App], App], count: int, app: App) -> App:
    for _ in range(count):
        app = kind(app)
    return app


async def taken(app: App) -> float:
    """Return the processor time of one call, in microseconds."""
    began = time.process_time()
    for _ in range(CALLS):
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
        await app(scope, None, drop)
    return (time.process_time() - began) / CALLS * 1e6


async def drop(message: Any) -> None:
    pass


async def quickest(apps: dict[str, App]) -> dict[str, float]:
    found = dict.fromkeys(apps, float("inf"))
    for _ in range(ROUNDS):
        for name, app in apps.items():
            found[name] = min(found[name], await taken(app))
    return found


async def test_a_layer_of_pure_asgi_costs_a_quarter_at_most(
    lesson: dict[str, Any], figures: Any
) -> None:
    hello = lesson["hello"]
    kinds = {
        "pure": lesson["ASGITimingMiddleware"],
        "base": lesson["TimingMiddleware"],
        "pure, passing on": PureThrough,
        "base, passing on": BaseThrough,
    }
    apps = {name: wrapped(kind, LAYERS, hello) for name, kind in kinds.items()}
    cost = await quickest({"none": hello, **apps})
    layer = {name: (cost[name] - cost["none"]) / LAYERS for name in kinds}
    with figures("lesson 10, one layer of middleware") as table:
        table.at_most(
            "timing: pure ASGI, of BaseHTTPMiddleware", layer["pure"] / layer["base"], 0.25
        )
        through = layer["pure, passing on"] / layer["base, passing on"]
        table.at_most("passing on: pure ASGI, of BaseHTTPMiddleware", through, 0.25)
        table.only("timing, pure ASGI", layer["pure"], "µs")
        table.only("timing, BaseHTTPMiddleware", layer["base"], "µs")
        share = LAYERS * layer["base"] / QUERY
        table.only("five layers of BaseHTTPMiddleware, of a query of 20 ms", share)
