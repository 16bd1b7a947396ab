"""Codespaces and Binder do what the README says, on a Python that the course is tested with."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from looplab.cli import app
from looplab.project import Project
from looplab.pythons import NEWEST, OLDEST

LEARN = "python3 -m pip install uv && python3 -m uv run course open"


@pytest.fixture(scope="module")
def container(course: Project) -> dict[str, Any]:
    path = course.root / ".devcontainer" / "devcontainer.json"
    return json.loads(path.read_text(encoding="utf-8"))


def is_tested(version: str) -> bool:
    major, minor = map(int, version.split("."))
    return OLDEST <= (major, minor) <= NEWEST


def test_a_codespace_is_made_by_the_readmes_command_and_opens_lesson_00(
    course: Project, container: dict[str, Any]
) -> None:
    assert LEARN in (course.root / "README.md").read_text(encoding="utf-8")
    assert container["postCreateCommand"] == LEARN.removesuffix("open") + "workbook"
    opened = container["customizations"]["codespaces"]["openFiles"]
    assert opened == [f"{course.workbook.name}/{course.lesson('00').path.name}"]


def test_a_codespace_has_a_tested_python_and_what_vs_code_needs_for_notebooks(
    container: dict[str, Any],
) -> None:
    image, _, python = container["image"].rpartition(":")
    assert image.endswith("/devcontainers/python")
    assert is_tested(python)
    code = container["customizations"]["vscode"]
    assert code["extensions"] == ["ms-python.python", "ms-toolsai.jupyter"]
    environment = "${containerWorkspaceFolder}/.venv/"  # where uv makes it
    assert code["settings"]["python.defaultInterpreterPath"].startswith(environment)


def test_binder_has_a_tested_python_and_installs_the_course_as_pip_users_do(
    course: Project,
) -> None:
    environment = yaml.safe_load((course.root / "environment.yml").read_text(encoding="utf-8"))
    python, pip, packages = environment["dependencies"]
    assert is_tested(python.partition("=")[2])
    assert (pip, packages["pip"][0]) == ("pip", "-c constraints.txt")
    assert packages["pip"][-1].startswith("-e .")
    # a folder of this name would hide environment.yml from Binder
    assert not [name for name in ("binder", ".binder") if (course.root / name).exists()]


@pytest.mark.skipif(sys.platform == "win32", reason="Binder runs it with bash")
def test_binder_fills_the_workbook_and_stops_where_that_fails(
    course: Project, tmp_path: Path
) -> None:
    script = course.root / "postBuild"
    assert os.access(script, os.X_OK)
    stub = tmp_path / "course"
    for code in (0, 3):
        stub.write_text(f'#!/bin/sh\necho "$@"\nexit {code}\n')
        stub.chmod(0o755)
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        ended = subprocess.run(
            ["bash", str(script)],
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ended.returncode, ended.stdout) == (code, "workbook\n")
    assert "workbook" in get_command(app).commands  # ty: ignore[missing-attribute]
