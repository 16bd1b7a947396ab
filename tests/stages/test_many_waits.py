"""What lesson 00's dial shows."""

import asyncio
from typing import Any

import pytest

from looplab.stages.many_waits import show_waits

pytestmark = pytest.mark.anyio

WAIT = 0.02  # seconds


async def at_once(tasks: int) -> None:
    await asyncio.gather(*[asyncio.sleep(WAIT) for _ in range(tasks)])


async def in_turn(tasks: int) -> None:
    for _ in range(tasks):
        await asyncio.sleep(WAIT)


async def test_a_crowd_is_told_in_waits(capsys: Any) -> None:
    assert await show_waits(in_turn, 6, WAIT) >= 6
    assert 1 <= await show_waits(at_once, 6, WAIT) < 6
    assert "waits, at once" in capsys.readouterr().out


async def test_what_the_crowd_raises_comes_out() -> None:
    async def fails(_tasks: int) -> None:
        raise LookupError("nobody")

    with pytest.raises(LookupError, match="nobody"):
        await show_waits(fails, 1, WAIT)
