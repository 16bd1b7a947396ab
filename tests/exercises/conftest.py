"""The cells of the exercises, read from the notebooks."""

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from looplab.exercises.verdicts import Verdict
from looplab.lab.units import PACE_VARIABLE
from looplab.project import Project
from looplab.publishing.cells import imports_of, run_cell
from looplab.publishing.draft import tags
from looplab.publishing.notebooks import read_notebook


def notebook_cell(lesson: str, tag: str) -> str:
    """Return the source of the one cell of the lesson that has the tag, or that id."""
    notebook = read_notebook(Project.here().lesson(lesson).path)
    cells = [cell["source"] for cell in notebook["cells"] if tag in {cell["id"], *tags(cell)}]
    assert len(cells) == 1, f"lesson {lesson} has {len(cells)} cells tagged {tag}"
    return cells[0]


@pytest.fixture
def in_lesson() -> Callable[[str], Awaitable[SimpleNamespace]]:
    """Open a lesson: ``run(tag)`` runs that cell, and ``names`` holds what cells have set.

    ``run`` takes several, by tag or id, and returns what the last of them does.
    """

    async def opened(lesson: str) -> SimpleNamespace:
        names: dict[str, Any] = {}
        await run_cell(imports_of(notebook_cell(lesson, "setup")), names)

        async def run(*which: str) -> Any:
            for one in which:
                last = await run_cell(notebook_cell(lesson, one), names, f"<{one} of {lesson}>")
            return last

        return SimpleNamespace(run=run, names=names)

    return opened


Tried = Callable[..., Awaitable[Verdict]]


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Tried:
    """Return what checks an answer up to three times, each at half the speed of the one before.

    A machine that is busy with much else can end a lease under a right answer, hide the mistake of
    a wrong one, or show another one first. So the check is done again until it tells ``mistake``,
    or none where that is None; the last verdict is returned. ``pace`` is that of the first time.
    """

    async def judged(
        check: Callable[[], Awaitable[Verdict]], mistake: str | None = None, *, pace: float = 1.0
    ) -> Verdict:
        for factor in (1, 2, 4):
            monkeypatch.setenv(PACE_VARIABLE, str(pace * factor))
            verdict = await check()
            if verdict.mistake == mistake:
                break
        return verdict

    return judged


@pytest.fixture
def source_of() -> Callable[[str, str], str]:
    """Return the source of a lesson's cell by its tag."""
    return notebook_cell


@pytest.fixture
def written() -> Callable[[str, str], dict[str, Any]]:
    """Return the names that an answer sets, given its lesson and the source that a learner wrote.

    The answer has the imports of its lesson's set-up cell, as in the notebook; what else it needs
    it imports itself.
    """

    def names(lesson: str, source: str) -> dict[str, Any]:
        found: dict[str, Any] = {"__name__": "__main__"}
        exec(imports_of(notebook_cell(lesson, "setup")), found)
        exec(compile(source, "<answer>", "exec"), found)
        return found

    return names
