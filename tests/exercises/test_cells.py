"""What a learner and an author meet: the stub, the check, the solution, and the records."""

import re

import pytest

from support.exercises import ANY_EXERCISE, EXERCISES, Verdict

pytestmark = pytest.mark.anyio

UNTOUCHED = {
    "01": "untouched",
    "02": "one-by-one",
    "03": "false-is-saved",
    "04": "one-by-one",
    "05": "one-by-one",
    "06": "deaf-while-idle",
    "07": "too-many-connections",
    "08": "client-per-call",
    "09": "says-completed",
    "10": "untouched",
    "11": "untouched",
    "12": "silent",
    "13": "no-diagnosis",
}
LESSONS = sorted(EXERCISES)


def test_every_exercise_has_a_stub_here() -> None:
    assert sorted(UNTOUCHED) == LESSONS


@pytest.mark.parametrize("lesson", LESSONS)
async def test_the_stub_runs_and_its_check_says_what_is_missing(lesson, in_lesson) -> None:
    notebook = await in_lesson(lesson)
    await notebook.run("exercise")

    verdict = await notebook.run("check")

    assert isinstance(verdict, Verdict)
    assert (verdict.passed, verdict.mistake) == (False, UNTOUCHED[lesson])


@pytest.mark.parametrize("lesson", LESSONS)
async def test_the_solution_passes_its_check_and_keeps_the_learners_work(lesson, in_lesson) -> None:
    notebook = await in_lesson(lesson)
    await notebook.run("exercise")
    before = dict(notebook.names)

    await notebook.run("solution")  # claims that it passes

    assert {name: notebook.names[name] for name in before} == before
    assert any(isinstance(value, Verdict) and value.passed for value in notebook.names.values())


@pytest.mark.parametrize("lesson", LESSONS)
@pytest.mark.parametrize("tag", ["exercise", "check", "solution"])
def test_cells_fit_a_slide(lesson, tag, source_of) -> None:
    lines = source_of(lesson, tag).splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("lesson", LESSONS)
def test_mistakes_are_records_that_a_guide_can_print(lesson) -> None:
    exercise = EXERCISES[lesson]
    mistakes = [*exercise.mistakes, *ANY_EXERCISE]
    for mistake in mistakes:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", mistake.name)
        assert mistake.hint.endswith(".")
        assert "\n" not in mistake.hint + mistake.looks_like
        assert not re.search(r"\b(simply|just)\b", mistake.hint + mistake.looks_like)
    for values in zip(*((m.name, m.looks_like, m.hint) for m in mistakes), strict=True):
        assert len(set(values)) == len(mistakes)
    assert exercise.usual_wrong_prediction.endswith(".")
    assert (
        exercise.check
        == getattr(__import__("support.exercises").exercises, exercise.check).__name__
    )


def test_an_unknown_mistake_is_named() -> None:
    with pytest.raises(LookupError, match="no-such-thing"):
        EXERCISES["01"].wrong("no-such-thing")
