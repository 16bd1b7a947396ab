"""A bad moment of lesson 08's supplier."""

from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

from looplab.stages.seats import after_a_bad_moment

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_calls_that_nobody_hurries_cost_no_seat(library: ModuleType) -> None:
    numbers = []

    async def patient(client: Any, number: int) -> None:
        numbers.append(number)
        if number < 10:
            await client.get(f"/stock/{number}")

    assert await after_a_bad_moment(library, patient) == {"Response": 10}
    assert numbers == 4 * list(range(40))


async def test_what_a_hurried_call_raises_comes_out() -> None:
    async def fails(client: Any, number: int) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await after_a_bad_moment(httpx2, fails)
