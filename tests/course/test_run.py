"""The run itself: nbmake meets every notebook, and a lesson that lies or leaks turns it red."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from looplab.project import Project

SET_UP = "import asyncio\nfrom looplab.lab import claim, nothing_left_behind, start\nstart()"
LAST = "await nothing_left_behind()"
RED = {
    "a_false_claim": "claim('one is two', 1 == 2, one=1)",
    "a_leaked_task": "asyncio.create_task(asyncio.sleep(3600), name='forgotten')",
    "a_coroutine_never_awaited": "_ = asyncio.sleep(0)\ndel _",
}
TOLD = ("this run does not bear out: one is two", "forgotten", "never awaited")


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


def write_lesson(path: Path, *cells: str) -> None:
    """Write a lesson made of ``cells`` between a lesson's first cell and its last."""
    nodes = [
        new_code_cell(source, id=f"cell-{place}")
        for place, source in enumerate([SET_UP, *cells, LAST])
    ]
    nbformat.write(new_notebook(cells=nodes), path)


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


def test_a_lesson_that_lies_or_leaks_turns_the_run_red_and_an_honest_one_does_not(
    course: Project, tmp_path: Path
) -> None:
    write_lesson(tmp_path / "honest.ipynb", "claim('one is one', 1 == 1)")
    for name, cell in RED.items():
        write_lesson(tmp_path / f"{name}.ipynb", cell)
    ended = run_pytest(course, "--rootdir", str(tmp_path), str(tmp_path))
    assert ended.returncode == 1, ended.stdout
    assert "3 failed, 1 passed" in ended.stdout
    failed = re.findall(r"^FAILED \S*?(\w+)\.ipynb::", ended.stdout, re.MULTILINE)
    assert sorted(failed) == sorted(RED)
    for told in TOLD:
        assert told in ended.stdout
