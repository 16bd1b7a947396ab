"""Stages that open in one cell of a lesson, close whole, and let nothing be lost meanwhile."""

from __future__ import annotations

import asyncio
from typing import Self

import httpx
import pytest
import redis.asyncio

from looplab.shop.redis import URL_VARIABLE
from looplab.stages.back_office import BackOffice
from looplab.stages.child import Child, kill_each
from looplab.stages.fleet import Fleet
from looplab.stages.stage import Stage

pytestmark = pytest.mark.anyio


class Noting(Stage):
    """Notes what closes, and fails where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.closed: list[str] = []

    async def _close(self, name: str, *, fails: bool = False) -> None:
        self.closed.append(name)
        if fails:
            raise ConnectionError(name)

    def _half(self) -> None:
        """Be called when the first of two things is open."""

    @classmethod
    async def open(cls, *, fails: bool = False) -> Self:
        noting = cls()
        async with noting._opening() as stack:
            stack.push_async_callback(noting._close, "first")
            noting._half()
            stack.push_async_callback(noting._close, "second", fails=fails)
        return noting


async def test_a_stage_closes_what_was_opened_before_what_fails_to_close() -> None:
    stage = await Noting.open(fails=True)
    with pytest.raises(ConnectionError, match="second"):
        await stage.close()
    assert stage.closed == ["second", "first"]
    await stage.close()
    assert stage.closed == ["second", "first"]


async def test_opening_a_stage_closes_the_one_that_was_open_and_no_other_kind() -> None:
    class Another(Noting):
        """A stage of its own."""

    another, first = await Another.open(), await Noting.open()
    second = await Noting.open()
    assert (first.closed, second.closed, another.closed) == (["second", "first"], [], [])
    await first.close()  # long closed, so the second one stays the one that is open
    third = await Noting.open()
    assert second.closed == ["second", "first"]
    await third.close()
    await another.close()


async def test_a_stage_that_cannot_open_closes_what_it_had_opened() -> None:
    opened: list[Noting] = []

    class Broken(Noting):
        """Fails while it opens."""

        def _half(self) -> None:
            opened.append(self)
            raise LookupError

    with pytest.raises(LookupError):
        await Broken.open()
    assert opened[0].closed == ["first"]


class Stubborn(Child):
    """A process whose end raises."""

    async def kill(self) -> None:
        await super().kill()
        raise OSError("no such process")


async def test_each_child_is_killed_though_killing_another_one_fails() -> None:
    waits = ["-c", "input()"]
    children = [Stubborn(waits), Child(waits), Stubborn(waits)]
    with pytest.raises(OSError, match="no such process"):
        await kill_each(children)
    assert not any(child.alive for child in children)


async def test_a_fleet_closes_whole_though_an_order_that_it_held_has_failed() -> None:
    async def fails() -> None:
        raise httpx.ConnectError("the worker is gone")

    fleet = await Fleet.open()
    fleet._held.append(asyncio.create_task(fails()))
    await fleet.close()
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{fleet.partner_server.url}/price")


async def test_a_worker_that_ended_is_reaped_when_its_cell_runs_again() -> None:
    fleet = await Fleet.open()
    try:
        fleet.start("A", lease=77)
        ended = fleet.workers["A"]
        ended._process.kill()
        await ended.ended()
        fleet.start("A")
        await fleet.ready("A")
        assert fleet.workers["A"] is not ended
        assert fleet.workers["A"].lease == ended.lease >= 77
        assert ended._process.stdout is not None
        assert ended._process.stdout.closed
    finally:
        await fleet.close()


async def test_a_stage_deletes_its_own_keys_and_no_others(
    redis_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, redis_server)
    async with redis.asyncio.Redis.from_url(redis_server) as client:
        fleet, office = await Fleet.open(), await BackOffice.open(given_up_after=1, workers=0)
        own = [f"{fleet.prefix}:{number}" for number in range(600)]
        for key in (*own, f"autoclaim:{office.queue}", "somebody:else"):
            await client.set(key, "1")
        await fleet.close()
        await office.close()
        assert [key async for key in client.scan_iter()] == [b"somebody:else"]
        await client.delete("somebody:else")
