"""What a late loop has seen is tried again with more time; what a loop in time has seen counts."""

import time

import pytest

from looplab.exercises.late_loop import TRIES, again_if_late
from looplab.exercises.verdicts import Wrong, wrong

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds that no loop is late by
LATE = 0.05  # seconds that the loop is held, far more than is noticed


def hold() -> None:
    """Keep the loop, as a busy machine would."""
    time.sleep(LATE)


async def test_what_a_loop_in_time_has_seen_counts_at_once() -> None:
    stretches = []

    async def judge(stretch: float) -> None:
        stretches.append(stretch)
        raise wrong("never-ends", "")

    with pytest.raises(Wrong):
        await again_if_late(judge, noticed=AMPLE)
    assert stretches == [1]


@pytest.mark.parametrize("late", [0, 1, 2])
async def test_what_a_late_loop_has_seen_is_tried_again_with_twice_the_time(late: int) -> None:
    stretches = []

    async def judge(stretch: float) -> None:
        stretches.append(stretch)
        if len(stretches) <= late:
            hold()
            raise wrong("never-ends", "")

    await again_if_late(judge, noticed=LATE / 10)
    assert stretches == [1, 2, 4][: late + 1]


async def test_what_is_seen_each_time_is_told_in_the_end() -> None:
    stretches = []

    async def judge(stretch: float) -> None:
        stretches.append(stretch)
        hold()
        raise wrong("never-ends", str(stretch))

    with pytest.raises(Wrong) as raised:
        await again_if_late(judge, noticed=LATE / 10)
    assert raised.value.detail == "4"
    assert len(stretches) == TRIES


async def test_any_other_error_is_passed_on_at_once() -> None:
    stretches = []

    async def judge(stretch: float) -> None:
        stretches.append(stretch)
        hold()
        raise ValueError("a fault of the check")

    with pytest.raises(ValueError, match="a fault of the check"):
        await again_if_late(judge, noticed=LATE / 10)
    assert stretches == [1]
