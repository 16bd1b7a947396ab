"""The run itself: nbmake meets every notebook, and a lesson that lies or leaks turns it red."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from support.project import Project

SET_UP = "import asyncio\nfrom support.lab import claim, nothing_left_behind, start\nstart()"
LAST = "await nothing_left_behind()"


def run_pytest(course: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest with the course's own settings in another process."""
    command = [sys.executable, "-m", "pytest", "-c", str(course.root / "pyproject.toml")]
    environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    return subprocess.run(
        [*command, "-p", "no:cacheprovider", *arguments],
        cwd=course.root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def run_lesson(course: Project, path: Path, *cells: str) -> subprocess.CompletedProcess[str]:
    """Run a lesson made of ``cells`` between a lesson's first cell and its last."""
    nodes = [
        new_code_cell(source, id=f"cell-{place}")
        for place, source in enumerate([SET_UP, *cells, LAST])
    ]
    nbformat.write(new_notebook(cells=nodes), path)
    return run_pytest(course, "--rootdir", str(path.parent), str(path))


def test_nbmake_collects_every_notebook_and_plain_pytest_runs_it(course: Project) -> None:
    listed = run_pytest(course, "--collect-only", "-q", "notebooks").stdout.splitlines()
    collected = sorted(line.partition("::")[0] for line in listed if ".ipynb::" in line)
    assert collected == [f"notebooks/{lesson.path.name}" for lesson in course.lessons()]
    assert len(collected) == len(list(course.notebooks.glob("*.ipynb")))


def test_plain_pytest_runs_the_tests_and_the_notebooks_and_no_workbook(
    course: Project, pytestconfig: pytest.Config
) -> None:
    assert pytestconfig.getini("testpaths") == ["tests", "notebooks"]
    assert pytestconfig.getoption("nbmake")
    assert "workbook" in pytestconfig.getini("norecursedirs")


def test_an_honest_lesson_is_green(course: Project, tmp_path: Path) -> None:
    ended = run_lesson(course, tmp_path / "honest.ipynb", "claim('one is one', 1 == 1)")
    assert ended.returncode == 0, ended.stdout
    assert "1 passed" in ended.stdout


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("claim('one is two', 1 == 2, one=1)", "this run does not bear out: one is two"),
        ("asyncio.create_task(asyncio.sleep(3600), name='forgotten')", "forgotten"),
        ("_ = asyncio.sleep(0)\ndel _", "never awaited"),
    ],
    ids=["a false claim", "a leaked task", "a coroutine never awaited"],
)
def test_a_lesson_turns_the_run_red(course: Project, tmp_path: Path, cell: str, told: str) -> None:
    ended = run_lesson(course, tmp_path / "red.ipynb", cell)
    assert ended.returncode == 1, ended.stdout
    assert told in ended.stdout
    assert "1 failed" in ended.stdout
