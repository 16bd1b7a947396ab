"""The check of lesson 20 tells right answers from wrong ones."""

import pytest

from looplab.exercises.processes import check_processes

pytestmark = pytest.mark.anyio


async def right():
    return 42


async def another_number():
    return 41


async def test_a_right_answer_passes() -> None:
    assert (await check_processes(right)).passed


@pytest.mark.parametrize(("answer", "mistake"), [(another_number, "not-the-answer")])
async def test_a_wrong_answer_gets_its_own_hint(answer, mistake) -> None:
    verdict = await check_processes(answer)
    assert (verdict.passed, verdict.mistake) == (False, mistake)
