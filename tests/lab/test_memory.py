import asyncio
import threading
import tracemalloc

import pytest

from support.lab import memory as subject
from support.lab.memory import peak_memory

MB = 1_000_000
# Above this size the allocator asks the system for pages of its own, so resident memory shows it.
NEED = 100 * MB


def hold(size: int) -> None:
    block = bytearray(size)
    assert len(block) == size


@pytest.fixture(params=["resident", "sampled", "exact"])
def measure(request, monkeypatch):
    if request.param == "sampled":
        monkeypatch.setattr(subject, "_resident", subject._Sampled())
    return lambda: peak_memory(exact=request.param == "exact")


def hold_until_sampled(size: int) -> None:
    """Hold memory until a sampler, if there is one, has looked at it."""
    block = bytearray(b"x") * size
    meter = subject._resident
    if isinstance(meter, subject._Sampled) and meter.thread is not None:
        while meter.seen < meter.level() - size // 10:
            threading.Event().wait(0.001)
    del block


def test_the_peak_is_what_was_held_at_once_and_not_the_sum(measure):
    with measure() as memory:
        for _ in range(3):
            hold_until_sampled(NEED)
    assert 0.9 * NEED < memory.peak < 1.5 * NEED


def test_the_peak_can_be_read_after_the_memory_is_free_again(measure):
    with measure() as memory:
        hold_until_sampled(NEED)
    first = memory.peak
    hold_until_sampled(2 * NEED)
    assert memory.peak == first


def test_what_was_held_before_does_not_count(measure):
    before = bytearray(b"x") * NEED
    with measure() as memory:
        pass
    assert memory.peak < 0.1 * NEED
    del before


def test_nested_blocks_each_know_their_own_peak(measure):
    with measure() as outer:
        hold_until_sampled(2 * NEED)
        with measure() as inner:
            hold_until_sampled(NEED)
    assert 0.9 * NEED < inner.peak < 1.5 * NEED
    assert 1.8 * NEED < outer.peak < 2.5 * NEED


def test_an_inner_peak_counts_for_the_outer_block_too(measure):
    with measure() as outer, measure():
        hold_until_sampled(NEED)
    assert outer.peak > 0.9 * NEED


def test_an_error_in_the_block_passes_and_stops_everything(measure):
    threads = threading.active_count()

    def fails():
        with measure() as memory:
            measured.append(memory)
            hold_until_sampled(NEED)
            raise KeyError

    measured: list = []
    with pytest.raises(KeyError):
        fails()
    assert measured[0].peak > 0.9 * NEED
    assert not tracemalloc.is_tracing()
    assert threading.active_count() == threads


def test_memory_of_other_threads_counts(measure):
    with measure() as memory:
        thread = threading.Thread(target=hold_until_sampled, args=[NEED])
        thread.start()
        thread.join()
    assert memory.peak > 0.9 * NEED


def test_exact_counts_small_needs_the_same_each_time():
    def need():
        with peak_memory(exact=True) as memory:
            hold(50_000)
        return memory.peak

    need()
    first, second = need(), need()
    assert 50_000 <= first < 60_000
    assert abs(first - second) < 2_000


def test_a_tracer_that_runs_already_is_left_on():
    tracemalloc.start()
    try:
        with peak_memory(exact=True) as memory:
            hold(50_000)
        assert memory.peak >= 50_000
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


@pytest.mark.anyio
async def test_blocks_of_two_tasks_may_overlap_without_nesting():
    first_open, second_open, first_closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def first():
        with peak_memory(exact=True) as memory:
            first_open.set()
            await second_open.wait()
            hold(NEED)
        first_closed.set()
        return memory.peak

    async def second():
        await first_open.wait()
        with peak_memory(exact=True) as memory:
            second_open.set()
            await first_closed.wait()
        return memory.peak

    peaks = await asyncio.gather(first(), second())
    assert all(peak >= NEED for peak in peaks)
    assert not tracemalloc.is_tracing()
