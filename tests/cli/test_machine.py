"""Each thing that a machine may lack is named in one sentence that says what to do."""

import socket
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from support.machine import (
    FIRST_PYTHON,
    FIRST_PYTHON_TOO_NEW,
    check_machine,
    check_pace,
    check_packages,
    check_port,
    check_python,
    check_temporary_directory,
)
from support.project import CourseError, Project


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("version", [(3, 11), (3, 13)])
def test_supported_pythons_pass(version: tuple[int, int]) -> None:
    check_python(version)


@pytest.mark.parametrize("version", [(3, 10), (3, 14), (2, 7), (4, 0)])
def test_other_pythons_are_named(version: tuple[int, int]) -> None:
    with pytest.raises(CourseError, match=rf"Python {version[0]}\.{version[1]}; .* 3\.11 to 3\.13"):
        check_python(version)


def test_the_supported_pythons_are_those_of_pyproject() -> None:
    text = (Project.here().root / "pyproject.toml").read_text(encoding="utf-8")
    first, too_new = (".".join(map(str, v)) for v in (FIRST_PYTHON, FIRST_PYTHON_TOO_NEW))
    assert tomllib.loads(text)["project"]["requires-python"] == f">={first},<{too_new}"


@pytest.mark.parametrize("pace", ["0", "-1", "fast", "nan", ""])
def test_a_pace_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, pace: str) -> None:
    monkeypatch.setenv("COURSE_PACE", pace)
    with pytest.raises(CourseError, match=f"COURSE_PACE is '{pace}'; it must be a number above 0"):
        check_pace()


def test_the_course_as_installed_has_its_packages() -> None:
    # another version than the pinned one is allowed here: a run may try the newest
    lines = check_packages(Project.here())
    assert [line for line in lines if "the course is tested with" not in line] == []


def test_a_missing_package_is_named_with_what_to_do(project: Project) -> None:
    _depend(project, '"typer", "no-such-package==1", "nor-this[extra]"')
    with pytest.raises(
        CourseError, match=r"no-such-package, nor-this are not installed: run .*pip install -e \."
    ):
        check_packages(project)


def test_another_version_is_advice_and_no_error(project: Project) -> None:
    _depend(project, '"typer==0.0.1"')
    (line,) = check_packages(project)
    assert line.startswith(f"typer is {metadata.version('typer')}; the course is tested with 0.0.1")


def test_a_temporary_directory_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_temporary_directory()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "gone"))
    with pytest.raises(CourseError, match=r"gone cannot be written to .* set TMPDIR"):
        check_temporary_directory()


def test_no_temporary_directory_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(CourseError, match=r"no temporary directory .* set TMPDIR"):
        check_temporary_directory()


@pytest.mark.parametrize("form", [["--port", "{}"], ["--port={}"], ["--ServerApp.port={}"]])
def test_a_port_in_use_is_named(taken: int, form: list[str]) -> None:
    arguments = ["--no-browser", *(part.format(taken) for part in form)]
    with pytest.raises(CourseError, match=f"Port {taken} is in use: choose another"):
        check_port(arguments)


@pytest.mark.parametrize(
    "arguments", [["--port", "http"], ["--port=70000"], ["--port"], ["--port=-1"]]
)
def test_a_port_that_is_none_is_named(arguments: list[str]) -> None:
    with pytest.raises(CourseError, match="a number from 0 to 65535"):
        check_port(arguments)


@pytest.mark.parametrize(
    "arguments", [[], ["--no-browser"], ["--port=0"], ["--ip", "--port-retries=3"]]
)
def test_without_a_fixed_port_jupyter_finds_one(arguments: list[str]) -> None:
    check_port(arguments)


def test_the_machine_is_checked_as_a_whole(project: Project, taken: int) -> None:
    assert check_machine(project, []) == []
    with pytest.raises(CourseError, match="in use"):
        check_machine(project, [f"--port={taken}"])


def test_the_python_of_this_run_is_checked(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 2, "final", 0))
    with pytest.raises(CourseError, match=r"This is Python 3\.10"):
        check_machine(project, [])


def _depend(project: Project, packages: str) -> None:
    text = f'[project]\nname = "tiny"\ndependencies = [{packages}]\n'
    (project.root / "pyproject.toml").write_text(text)
