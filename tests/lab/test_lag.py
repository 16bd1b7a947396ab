import asyncio
import threading
import time

import pytest

from looplab.lab.lag import loop_lag

pytestmark = pytest.mark.anyio

HOLD = 0.1


def hold():
    time.sleep(HOLD)


async def beats(lag, number):
    while len(lag.samples) < number:  # noqa: ASYNC110 (the timer under test sets no event)
        await asyncio.sleep(0)


async def test_a_hold_shows_as_the_worst_sample_and_not_in_the_median():
    async with loop_lag(0.001) as lag:
        await beats(lag, 20)
        hold()
        await beats(lag, len(lag.samples) + 20)
    assert lag.worst >= 0.9 * HOLD
    assert lag.median < lag.worst / 2
    assert sum(late >= 0.9 * HOLD for _, late in lag.samples) >= 1


async def test_samples_are_in_order_and_the_late_one_stands_after_the_hold():
    async with loop_lag(0.001) as lag:
        await beats(lag, 3)
        hold()
        await beats(lag, len(lag.samples) + 3)
    times = [at for at, _ in lag.samples]
    assert times == sorted(times)
    at, late = max(lag.samples, key=lambda sample: sample[1])
    assert at >= late


async def test_a_hold_that_lasts_to_the_end_of_the_block_counts():
    async with loop_lag(0.001) as lag:
        hold()
        assert lag.worst >= 0.9 * HOLD, "also while the block is still open"
    assert lag.worst >= 0.9 * HOLD
    assert lag.samples[-1][1] == lag.worst


async def test_waiting_is_not_lag():
    finished = asyncio.Event()
    asyncio.get_running_loop().call_later(HOLD, finished.set)
    async with loop_lag(0.001) as lag:
        await finished.wait()
    assert lag.median < HOLD / 4


async def test_a_block_shorter_than_the_interval_has_one_sample_without_lag():
    async with loop_lag(60) as lag:
        pass
    assert [late for _, late in lag.samples] == [0.0]
    assert lag.worst == lag.median == 0.0


@pytest.mark.parametrize("ending", [ValueError, asyncio.CancelledError])
async def test_the_heartbeat_stops_however_the_block_ends(ending):
    async def measured():
        async with loop_lag(0.001) as lag:
            lags.append(lag)
            raise ending

    lags: list = []
    with pytest.raises(ending):
        await measured()
    count = len(lags[0].samples)
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, stop.set)
    await stop.wait()
    assert len(lags[0].samples) == count


async def test_it_makes_no_task():
    before = asyncio.all_tasks()
    async with loop_lag(0.001) as lag:
        await beats(lag, 3)
        assert asyncio.all_tasks() == before


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
async def test_an_interval_that_is_no_time_is_refused(interval):
    with pytest.raises(ValueError, match="interval is"):
        async with loop_lag(interval):
            pass


class LoopThread:
    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        return self.loop

    def __exit__(self, *exc):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


async def test_another_threads_loop_is_measured_from_here():
    with LoopThread() as loop:
        async with loop_lag(0.001, loop=loop) as lag:
            await beats(lag, 5)
            held = asyncio.Event()
            here = asyncio.get_running_loop()

            def hold_and_tell():
                time.sleep(HOLD)
                here.call_soon_threadsafe(held.set)

            loop.call_soon_threadsafe(hold_and_tell)
            await held.wait()
            await beats(lag, len(lag.samples) + 5)
    assert lag.worst >= 0.9 * HOLD


async def test_another_loop_that_is_held_from_start_to_end_does_not_hold_this_one():
    with LoopThread() as loop:
        release = threading.Event()
        loop.call_soon_threadsafe(release.wait)
        async with loop_lag(0.001, loop=loop) as lag:
            await asyncio.sleep(HOLD)
        assert lag.worst >= 0.9 * HOLD
        release.set()


async def test_another_loop_that_closes_meanwhile_does_no_harm():
    thread = LoopThread()
    loop = thread.__enter__()
    async with loop_lag(0.001, loop=loop) as lag:
        await beats(lag, 3)
        thread.__exit__()
    assert lag.samples


async def test_a_closed_loop_is_refused():
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        async with loop_lag(loop=loop):
            pass
