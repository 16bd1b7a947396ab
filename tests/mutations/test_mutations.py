"""Breaking what a claim speaks of turns its lesson red: `pytest -m mutation`, before each release.

Each file beside this one, `lesson_04.toml`, is a table of ways to break a lesson.
"""

import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from looplab.lab.units import PACE_VARIABLE
from looplab.project import Lesson, Project
from looplab.publishing.draft import TOP_LEVEL_AWAIT
from looplab.publishing.notebooks import read_notebook

COURSE = Project.here()
LEAST = 2  # of each lesson


@dataclass(frozen=True, slots=True)
class Mutation:
    """What makes a lesson untrue: ``old`` becomes ``new`` in ``cell``, and ``claim`` fails.

    ``lesson`` is a number, 04, or that of a second helping, 04_deeper. ``why`` says what is broken.
    """

    lesson: str
    why: str
    cell: str
    old: str
    new: str
    claim: str

    @property
    def target(self) -> Lesson:
        """The notebook that it breaks."""
        return COURSE.lesson(self.lesson)

    def applied(self) -> NotebookNode:
        """Return the notebook with the change made.

        Raises LookupError when the cell is not there, and when ``old`` is not in it exactly once.
        """
        notebook = read_notebook(self.target.path)
        cell = next((cell for cell in notebook["cells"] if cell["id"] == self.cell), None)
        if cell is None:
            raise LookupError(f"{self.target.name} has no cell {self.cell!r}")
        if (count := cell["source"].count(self.old)) != 1:
            raise LookupError(f"{self.old!r} is {count} times in {self.cell}, {self.target.name}")
        cell["source"] = cell["source"].replace(self.old, self.new)
        return notebook


def _all() -> list[Mutation]:
    files = sorted(Path(__file__).parent.glob("lesson_*.toml"))
    tables = [tomllib.loads(file.read_text(encoding="utf-8")) for file in files]
    return [Mutation(**row) for table in tables for row in table["mutation"]]


MUTATIONS = _all()
each = pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda row: f"{row.lesson}-{row.why}")


@each
def test_a_mutation_still_fits_its_lesson(mutation: Mutation) -> None:
    changed = mutation.applied()
    code = {c["id"]: c["source"] for c in changed["cells"] if c["cell_type"] == "code"}
    assert any(mutation.claim in source for source in code.values())
    assert mutation.old != mutation.new
    compile(code[mutation.cell], mutation.cell, "exec", flags=TOP_LEVEL_AWAIT)


@pytest.mark.mutation
@each
def test_the_claim_fails(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PACE_VARIABLE, "0.5")
    folder = {"metadata": {"path": str(mutation.target.path.parent)}}
    notebook = mutation.applied()
    client = NotebookClient(notebook, timeout=60, kernel_name="python3", resources=folder)
    with pytest.raises(CellExecutionError) as caught:
        client.execute()
    assert f"this run does not bear out: {mutation.claim}" in caught.value.evalue


def test_every_lesson_has_mutations() -> None:
    had = Counter(mutation.target.number for mutation in MUTATIONS)
    lessons = [lesson for lesson in COURSE.lessons() if not lesson.deeper]
    assert [lesson.name for lesson in lessons if had[lesson.number] < LEAST] == []


def test_tables_hold_only_mutations_of_their_lesson() -> None:
    for path in Path(__file__).parent.glob("lesson_*.toml"):
        rows = tomllib.loads(path.read_text(encoding="utf-8"))["mutation"]
        assert {Mutation(**row).target.number for row in rows} == {path.stem[-2:]}
