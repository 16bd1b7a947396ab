"""A new lesson's skeleton keeps the house rules, runs, and says what is to be written."""

import os
import shutil
import sys
from pathlib import Path
from subprocess import run

import pytest

from looplab.project import CourseError, Project
from looplab.publishing.draft import Draft
from looplab.publishing.index import FILE, index_faults, read_index
from looplab.publishing.new import new_lesson
from looplab.publishing.notebooks import read_notebook
from looplab.publishing.rules import structure_faults
from looplab.publishing.saved import saved_faults

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(tmp_path: Path) -> Project:
    """The course as it is, without the lessons' outputs, in a folder of its own."""
    kept = ("support", "notebooks", "tests", "README.md", "pyproject.toml")
    for name in kept:
        source, target = ROOT / name, tmp_path / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return Project(tmp_path)


def test_the_skeleton_keeps_every_rule_but_says_what_is_to_be_written(copy: Project) -> None:
    before = len([lesson for lesson in copy.lessons() if not lesson.deeper])
    written = new_lesson(copy, "caching")

    lesson = copy.lesson(f"{before:02}")
    assert [path.relative_to(copy.root).as_posix() for path in written] == [
        f"notebooks/{before:02}_caching.ipynb",
        "support/looplab/exercises/caching.py",
        "tests/exercises/test_caching.py",
        FILE.as_posix(),
        "README.md",
        "notebooks/00_start_here.ipynb",
    ]
    assert read_index(copy).entries[-1].name == lesson.name
    assert index_faults(copy) == []
    notebook = read_notebook(lesson.path)
    faults = structure_faults(Draft(lesson, notebook))
    assert faults
    assert [fault for fault in faults if "still says TODO" not in fault] == []
    for cell in notebook["cells"]:
        cell["source"] = cell["source"].replace("TODO", "Wait")
    assert structure_faults(Draft(lesson, notebook)) == []
    assert any("count" in fault for fault in saved_faults(lesson.path))


def test_the_skeleton_runs_and_its_test_passes(copy: Project) -> None:
    notebook, _, test, *_ = new_lesson(copy, "caching")
    for one, passed in ((test, "2 passed"), (notebook, "1 passed")):
        ended = run(
            [sys.executable, "-m", "pytest", "-q", "-n0", "--rootdir", str(copy.root), str(one)],
            cwd=copy.root,
            env=os.environ | {"PYTHONPATH": str(copy.root / "support")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout[-3000:]
        assert passed in ended.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Retries", "must be small letters"),
        ("retry-storm", "must be small letters"),
        ("14_", "must be small letters"),
        ("", "must be small letters"),
        ("02_caching", "02 is 02_gather"),
    ],
)
def test_a_name_that_is_none_or_taken_is_refused(copy: Project, name: str, said: str) -> None:
    before = sorted(copy.root.rglob("*"))
    with pytest.raises(CourseError, match=said):
        new_lesson(copy, name)
    assert sorted(copy.root.rglob("*")) == before


def test_a_file_that_is_there_is_never_overwritten(copy: Project) -> None:
    with pytest.raises(CourseError, match=r"support/looplab/exercises/locks\.py is there already"):
        new_lesson(copy, "locks")
    assert (copy.root / "support/looplab/exercises/locks.py").read_text() == (
        ROOT / "support/looplab/exercises/locks.py"
    ).read_text()
