"""A recording that begins in the middle, and one that ends while the loop is held."""

import asyncio
import threading
import time

import pytest

from looplab.lab.recording import Recording
from looplab.lab.trace import Recorder, TaskTrace, attach, detach
from looplab.lab.units import ms

pytestmark = pytest.mark.anyio


def a_trace() -> TaskTrace:
    """Return a task that waited in ``outer`` alone, then in ``inner`` twice, and ended."""
    return TaskTrace(
        qualified="work",
        parent=None,
        loop=0,
        ours=True,
        made=0.0,
        steps=[(1.0, 1.1, "outer"), (2.0, 2.1, "inner"), (3.0, 3.1, "inner"), (4.0, 4.1, "")],
        log=[(0, 0), "outer", (1, 1), "inner", (2, 1), "inner"],
        points=[10, 20, 30],
        outcome="done",
        marks=[(0.5, "early"), (3.5, "late")],
    )


def calls(trace: TaskTrace) -> list[tuple[str, int, int | None]]:
    return [(call.name, call.first, call.last) for call in trace.calls()]


def test_what_a_task_did_before_is_left_out_and_what_it_waits_in_is_kept() -> None:
    trace = a_trace()
    assert calls(trace) == [("outer", 0, 3), ("inner", 1, 2), ("inner", 2, 3)]
    assert trace.begin_at(2.5)
    assert trace.steps == [(2.5, 2.5, "inner"), (3.0, 3.1, "inner"), (4.0, 4.1, "")]
    assert calls(trace) == [("outer", 0, 2), ("inner", 0, 1), ("inner", 1, 2)]
    assert trace.points == [20, 30]
    assert trace.made == 2.5
    assert trace.marks == [(3.5, "late")]
    lane = Recording([trace], title="", start=2.5, end=4.1, held=1.0).tasks[0]
    assert lane.waits == {"inner": [(0.0, pytest.approx(0.5)), pytest.approx((0.6, 1.5))]}


def test_a_step_that_is_under_way_at_the_beginning_counts_from_there() -> None:
    trace = a_trace()
    assert trace.begin_at(2.05)
    assert trace.steps[:2] == [(2.05, 2.05, "outer"), (2.05, 2.1, "inner")]


def test_before_its_first_step_nothing_changes() -> None:
    trace = a_trace()
    assert trace.begin_at(0.5)
    assert trace.steps == a_trace().steps
    assert calls(trace) == calls(a_trace())


def test_of_a_task_that_has_ended_before_nothing_is_left() -> None:
    assert not a_trace().begin_at(5.0)


def test_a_task_that_only_waits_is_kept() -> None:
    trace = a_trace()
    trace.outcome = "pending"
    assert trace.begin_at(5.0)
    assert trace.steps == [(5.0, 5.0, "")]


async def test_the_step_that_a_thread_is_in_is_noted_though_it_has_not_ended() -> None:
    recorder = Recorder(everything=True)
    seen: list[tuple[float, float, str]] = []
    held = threading.Event()

    async def stuck() -> None:
        await asyncio.sleep(0)
        held.set()
        time.sleep(ms(1_000))  # noqa: ASYNC251

    ident = threading.get_ident()

    def look() -> None:
        held.wait(10)
        time.sleep(ms(100))
        recorder.note_running(ident)
        recorder.stop()
        seen.extend(recorder.traces[-1].steps)

    thread = threading.Thread(target=look)
    loop = attach(recorder)
    thread.start()
    await asyncio.create_task(stuck())
    detach(recorder, loop)
    thread.join()
    began, ended, _ = seen[-1]
    assert ms(90) < ended - began < ms(990)
