import threading
import tracemalloc

import pytest

from looplab.lab import memory as subject
from looplab.lab.memory import peak_memory

MB = 1_000_000
# Above this size the allocator asks the system for pages of its own, so resident memory shows it.
NEED = 100 * MB


def hold(size: int) -> None:
    block = bytearray(size)
    assert len(block) == size


@pytest.fixture(params=["marked", "sampled", "exact"])
def measure(request, monkeypatch):
    """Measure in each way; return a function that opens a block."""
    if request.param == "marked" and subject._of_the_process is not subject._marked:
        pytest.skip("only Linux keeps a peak that can be reset")
    if request.param == "sampled":
        monkeypatch.setattr(subject, "_of_the_process", subject._sampled)
    return lambda: peak_memory(exact=request.param == "exact")


@pytest.fixture
def hold_until_seen(monkeypatch):
    """Return a function that holds memory until a sampler, if there is one, has looked at it."""
    resident, looks = subject._resident, []

    def look():
        level = resident()
        looks.append(level)
        return level

    monkeypatch.setattr(subject, "_resident", look)

    def hold_until_seen(size):
        block = bytearray(b"x") * size
        if any(thread.name == "peak memory sampler" for thread in threading.enumerate()):
            seen = len(looks) + 1  # the look that is under way may have begun before
            while len(looks) <= seen:
                threading.Event().wait(0.001)
        del block

    return hold_until_seen


def test_the_peak_is_what_was_held_at_once_and_not_the_sum(measure, hold_until_seen):
    with measure() as memory:
        for _ in range(3):
            hold_until_seen(NEED)
    assert 0.9 * NEED < memory.peak < 1.5 * NEED


def test_the_peak_can_be_read_after_the_memory_is_free_again(measure, hold_until_seen):
    with measure() as memory:
        hold_until_seen(NEED)
    first = memory.peak
    hold_until_seen(2 * NEED)
    assert memory.peak == first


def test_what_was_held_before_does_not_count_nor_a_peak_before(measure):
    hold(2 * NEED)
    before = bytearray(b"x") * NEED
    with measure() as memory:
        pass
    assert memory.peak < 0.1 * NEED
    del before


def test_a_second_block_is_refused_while_one_is_open(measure, hold_until_seen):
    with measure() as memory:
        for exact in (False, True):
            with pytest.raises(RuntimeError, match="one block at a time"), peak_memory(exact=exact):
                pytest.fail("it must not open")
        hold_until_seen(NEED)
    assert memory.peak > 0.9 * NEED
    with measure():
        pass


def test_an_error_in_the_block_passes_and_stops_everything(measure, hold_until_seen):
    threads = threading.active_count()

    def fails():
        with measure() as memory:
            measured.append(memory)
            hold_until_seen(NEED)
            raise KeyError

    measured: list = []
    with pytest.raises(KeyError):
        fails()
    assert measured[0].peak > 0.9 * NEED
    assert not tracemalloc.is_tracing()
    assert threading.active_count() == threads


def test_memory_of_other_threads_counts(measure, hold_until_seen):
    with measure() as memory:
        thread = threading.Thread(target=hold_until_seen, args=[NEED])
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
        hold(NEED)
        with peak_memory(exact=True) as memory:
            hold(50_000)
        assert 50_000 <= memory.peak < 60_000
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()
