"""Where a thread stood: the line that it was seen in, most often first."""

import asyncio
import json
import threading
import time
from types import CodeType
from typing import Any

import pytest

from looplab.lab.our_code import is_ours
from looplab.lab.stacks import StackSampler
from looplab.lab.trace import Recorder, attach, detach
from looplab.lab.units import ms

pytestmark = pytest.mark.anyio
STAYS = ms(150)


def stay() -> None:
    time.sleep(STAYS)


class Slow:
    """An object whose making into text takes its time."""


def slowly(_: Any) -> str:
    time.sleep(STAYS)
    return "slow"


def nobody(_: CodeType) -> bool:
    return False


async def watched(work: Any, ours: Any = is_ours) -> tuple[StackSampler, float, float]:
    """Return what a sampler has seen of ``work`` in a step of a traced task, and its time."""
    recorder = Recorder(everything=True)
    loop = attach(recorder)

    async def step() -> None:
        work()

    ident = threading.get_ident()
    with StackSampler(ident, interval=ms(5), is_ours=ours) as sampler:
        await asyncio.sleep(ms(20))
        began = time.perf_counter()
        await asyncio.create_task(step())
        ended = time.perf_counter()
        await asyncio.sleep(ms(20))
    detach(recorder, loop)
    assert not sampler.thread.is_alive()
    return sampler, began, ended


async def test_the_line_and_its_callers_are_seen() -> None:
    sampler, began, ended = await watched(stay)
    (stack, share), *_ = sampler.between(began, ended)
    assert share > 0.5
    assert stack.innermost is not None
    assert stack.innermost.source == "time.sleep(STAYS)"
    assert [place.function for place in stack.ours] == ["step", "stay"]
    assert [place.function for place in stack.callers] == ["step"]
    assert stack.inside is None


async def test_an_idle_loop_is_not_noted() -> None:
    sampler, began, ended = await watched(stay)
    assert sampler.between(0, began) == []
    assert sampler.between(ended, ended + 60) == []


async def test_a_library_below_ours_is_told_beside_it() -> None:
    sampler, began, ended = await watched(lambda: json.dumps(Slow(), default=slowly))
    (stack, _), *_ = sampler.between(began, ended)
    assert [place.function for place in stack.ours][-1] == "slowly"
    assert stack.inside is None, "what is called by a library is below it"


async def test_where_nothing_is_ours_the_libraries_on_the_way_are_told() -> None:
    sampler, began, ended = await watched(lambda: json.dumps(Slow(), default=slowly), nobody)
    (stack, _), *_ = sampler.between(began, ended)
    assert stack.ours == ()
    assert stack.inside is not None
    assert stack.inside.function == "slowly"
    assert "json" in {place.file.split("/")[-2] for place in stack.callers}


async def test_several_functions_have_a_share_each() -> None:
    def both() -> None:
        stay()
        slowly(None)

    sampler, began, ended = await watched(both)
    found = {
        stack.innermost.function: share
        for stack, share in sampler.between(began, ended)
        if stack.innermost
    }
    assert {"stay", "slowly"} <= found.keys()
    assert sum(found.values()) == pytest.approx(1)
    assert found["stay"] > 0.2
    assert found["slowly"] > 0.2
