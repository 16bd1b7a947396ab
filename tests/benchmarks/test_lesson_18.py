"""What lesson 18's tests cost: waits that overlap, guards that watch, a clock that jumps."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

import httpx
import pytest
from blockbuster import blockbuster_ctx
from pyleak import no_task_leaks

from looplab.lab import compare, in_process

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

CELLS = ("setup", "shop-take", "shop-app", "pattern-test", "compare-fix")
ROUNDS = 9
BUYERS = 100
HOURS = 2_000


@pytest.fixture
def lesson(names_of: Any) -> dict[str, Any]:
    """Return the names that the lesson's cells define, and those of the second helping."""
    shown = names_of("18", CELLS, definitions_only=True)
    jumping = names_of("18_deeper", ("setup", "clock-loop", "clock-selector"))
    return shown | {"JumpingLoop": jumping["JumpingLoop"]}


@pytest.fixture
async def client(lesson: dict[str, Any]) -> AsyncGenerator[httpx.AsyncClient]:
    async with in_process(lesson["make_shop"](lesson["take_first"])) as client:
        yield client


async def test_ten_buyers_at_once_take_one_wait_for_the_partner(
    lesson: dict[str, Any], client: httpx.AsyncClient, figures: Any
) -> None:
    """The headline is bound by its waits: ten one after another would take ten of them."""
    wait = lesson["CHECKING"]
    timing = await compare(
        {"ten at once": partial(lesson["ten_at_once"], client)},
        repeat=ROUNDS,
        ideal={"ten at once": wait},
        show=False,
    )
    with figures(f"lesson 18, ten buyers, each with a wait of {wait * 1e3:.0f} ms") as table:
        table.at_most("ten at once, of one wait", timing.of_ideal("ten at once"), 1.3)
        table.only("overhead of a buyer", (timing.median("ten at once") - wait) / 10 * 1e3, "ms")


async def test_the_guards_cost_a_suite_little(
    lesson: dict[str, Any], client: httpx.AsyncClient, figures: Any
) -> None:
    """The buyers come one after another and wait for no partner, so all that counts is overhead."""
    lesson["take_first"].__globals__["CHECKING"] = 0

    async def unguarded() -> None:
        for _ in range(BUYERS):
            await client.post("/cups")

    async def with_blockbuster() -> None:
        with blockbuster_ctx():
            await unguarded()

    async def with_pyleak() -> None:
        async with no_task_leaks(action="raise"):
            await unguarded()

    ways = {"unguarded": unguarded, "blockbuster": with_blockbuster, "pyleak": with_pyleak}
    timing = await compare(ways, repeat=ROUNDS, show=False)
    with figures(f"lesson 18, {BUYERS} requests of a test, one after another") as table:
        table.only("unguarded, a request", timing.median("unguarded") / BUYERS * 1e3, "ms")
        for name in ("blockbuster", "pyleak"):
            table.at_most(f"{name}, of unguarded", timing.ratio(name, "unguarded"), 1.5)


async def test_an_hour_on_the_jumping_clock_costs_what_a_turn_of_the_loop_costs(
    lesson: dict[str, Any], figures: Any
) -> None:
    """The rival is a timer of an ordinary loop that is due at once."""

    async def sleeps(seconds: float) -> None:
        for _ in range(HOURS):
            await asyncio.sleep(seconds)

    def run(factory: Callable[[], asyncio.AbstractEventLoop], seconds: float) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(sleeps(seconds))

    async def hours() -> None:
        await asyncio.to_thread(run, lesson["JumpingLoop"], 3600)

    async def due_at_once() -> None:
        await asyncio.to_thread(run, asyncio.SelectorEventLoop, 1e-9)

    ways = {"hours that jump": hours, "timers due at once": due_at_once}
    timing = await compare(ways, repeat=ROUNDS, show=False)
    with figures(f"lesson 18, {HOURS:,} waits, one after another") as table:
        table.only("an hour", timing.median("hours that jump") / HOURS * 1e6, "µs")
        ratio = timing.ratio("hours that jump", "timers due at once")
        table.at_most("hours that jump, of timers due at once", ratio, 2)
