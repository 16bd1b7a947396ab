"""What a learner and an author meet: the stub, the check, the solution, and the records."""

import ast
import re
from importlib import import_module

import pytest

from looplab.exercises.catalogue import EXERCISES
from looplab.exercises.verdicts import ANY_EXERCISE, Verdict
from looplab.publishing.rules.cells import LIMITS, MAX_COLUMNS

pytestmark = pytest.mark.anyio

LESSONS = sorted(EXERCISES)
SHIPPED = {"08": ("ship-client", "ship-ask", "ship-sku")}  # cells that an exercise goes on from


@pytest.mark.parametrize("lesson", LESSONS)
async def test_the_stub_runs_and_its_check_says_what_is_missing(lesson, in_lesson) -> None:
    notebook = await in_lesson(lesson)
    await notebook.run(*SHIPPED.get(lesson, ()), "exercise")

    verdict = await notebook.run("check")

    assert isinstance(verdict, Verdict)
    assert (verdict.passed, verdict.mistake) == (False, EXERCISES[lesson].stub)


@pytest.mark.parametrize("lesson", LESSONS)
async def test_the_solution_passes_its_check_and_keeps_the_learners_work(lesson, in_lesson) -> None:
    notebook = await in_lesson(lesson)
    await notebook.run(*SHIPPED.get(lesson, ()), "exercise")
    before = dict(notebook.names)

    await notebook.run("solution")  # claims that it passes

    assert {name: notebook.names[name] for name in before} == before
    assert any(isinstance(value, Verdict) and value.passed for value in notebook.names.values())


@pytest.mark.parametrize("lesson", LESSONS)
@pytest.mark.parametrize("tag", ["exercise", "check", "solution"])
def test_cells_fit_a_slide(lesson, tag, source_of) -> None:
    lines = source_of(lesson, tag).splitlines()
    assert len(lines) <= LIMITS.folded_lines
    assert max(map(len, lines)) <= MAX_COLUMNS


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


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_check_is_in_the_module_that_its_lesson_imports_it_from(lesson, source_of) -> None:
    check = EXERCISES[lesson].check
    (module,) = [
        import_module(str(node.module))
        for node in ast.walk(ast.parse(source_of(lesson, "setup")))
        if isinstance(node, ast.ImportFrom) and check in {name.name for name in node.names}
    ]
    assert module.EXERCISE is EXERCISES[lesson]
    assert callable(getattr(module, check))


def test_an_unknown_mistake_is_named() -> None:
    with pytest.raises(LookupError, match="no-such-thing"):
        EXERCISES["01"].wrong("no-such-thing")
