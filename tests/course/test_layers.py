"""Which part of the course may know of which: CONTRIBUTING.md says so."""

import ast
from pathlib import Path

import pytest

from looplab.project import Project

LAB, SHOP, STAGES = "looplab.lab", "looplab.shop", "looplab.stages"
EXERCISES, PUBLISHING = "looplab.exercises", "looplab.publishing"
PARTS = {
    "support/looplab/lab": {SHOP, STAGES, EXERCISES, PUBLISHING},
    "support/looplab/shop": {LAB, STAGES, EXERCISES, PUBLISHING},
    "support/looplab/stages": {EXERCISES, PUBLISHING},
    "support/looplab/exercises": {STAGES, PUBLISHING},
    "support/looplab": {"notebooks"},
}


def imported(path: Path) -> set[str]:
    """Return the full names of the modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names):
                found |= {one.name for one in names}
            case ast.ImportFrom(module, names, 0):
                found |= {f"{module}.{one.name}" for one in names}
            case ast.ImportFrom():
                raise AssertionError(f"{path} has an import relative to itself")
    return found


@pytest.mark.parametrize("part", PARTS)
def test_a_part_imports_nothing_that_it_must_not_know_of(course: Project, part: str) -> None:
    files = sorted((course.root / part).rglob("*.py"))
    assert files
    outside = tuple(f"{one}." for one in PARTS[part])
    assert {
        (str(path.relative_to(course.root)), name)
        for path in files
        for name in imported(path)
        if f"{name}.".startswith(outside)
    } == set()


def test_an_import_is_seen_wherever_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "import os.path\nfrom looplab import shop\n"
        "def late():\n    from looplab.lab.units import ms as milliseconds\n"
    )
    assert imported(path) == {"os.path", "looplab.shop", "looplab.lab.units.ms"}
