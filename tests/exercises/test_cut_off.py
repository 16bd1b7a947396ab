"""Runs that the judge ends from within a call that the learner's code makes."""

import asyncio
from typing import Any

import pytest

from looplab.exercises.cut_off import CutOff, WasCutOff
from looplab.exercises.verdicts import Wrong, wrong

pytestmark = pytest.mark.anyio

PATIENCE = 30.0


async def test_what_the_code_returns_and_raises_comes_out() -> None:
    async def returns() -> int:
        return 3

    async def fails() -> None:
        raise LookupError

    assert await CutOff().run(returns, patience=PATIENCE) == 3
    with pytest.raises(LookupError):
        await CutOff().run(fails, patience=PATIENCE)


@pytest.mark.parametrize(("fault", "kind"), [(None, WasCutOff), (wrong("raised"), Wrong)])
async def test_code_that_is_cut_off_gets_no_answer_and_hides_nothing(
    fault: Wrong | None, kind: type[Exception]
) -> None:
    cut, heard = CutOff(), []

    async def hides() -> str:
        try:
            await cut.here(fault)
            heard.append("came back")
        except BaseException as error:
            heard.append(type(error).__name__)
        return "all is well"

    with pytest.raises(kind):
        await cut.run(hides, patience=PATIENCE)
    assert heard == ["CancelledError"]


async def test_the_first_fault_counts() -> None:
    cut, first = CutOff(), wrong("raised", "first")

    async def errs_twice() -> None:
        try:
            await cut.here(first)
        finally:
            await cut.here(wrong("raised", "second"))

    with pytest.raises(Wrong) as caught:
        await cut.run(errs_twice, patience=PATIENCE)
    assert caught.value is first


async def test_a_fault_is_told_even_of_code_that_does_not_end() -> None:
    cut, fault, ends = CutOff(), wrong("raised"), asyncio.Event()
    left: list[Any] = []

    async def goes_on() -> None:
        left.append(asyncio.current_task())
        while not ends.is_set():
            try:
                await cut.here(fault)
            except asyncio.CancelledError:
                continue

    with pytest.raises(Wrong):
        await cut.run(goes_on, patience=PATIENCE)
    ends.set()
    left[0].cancel()
    await asyncio.wait(left)


async def test_code_that_takes_too_long_is_cut_off_where_that_is_a_mistake() -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    late = wrong("never-ends")
    with pytest.raises(Wrong) as caught:
        await CutOff().run(never, patience=0.01, late=late)
    assert caught.value is late
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await CutOff().run(never, patience=0.01)
