"""Each thing that a machine may lack is named in one sentence that says what to do."""

import socket
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from looplab.machine import (
    check_machine,
    check_pace,
    check_packages,
    check_port,
    check_python,
    check_temporary_directory,
)
from looplab.project import CourseError, Project
from looplab.pythons import NEWEST, OLDEST, TESTED


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("version", [OLDEST, (3, 13), NEWEST])
def test_tested_pythons_pass_without_a_word(version: tuple[int, int]) -> None:
    assert check_python(version) == []


@pytest.mark.parametrize("version", [(3, 10), (2, 7)])
def test_a_python_too_old_is_named_with_what_to_do(version: tuple[int, int]) -> None:
    with pytest.raises(CourseError) as caught:
        check_python(version)
    assert str(caught.value) == (
        f"This is Python {version[0]}.{version[1]}; the course needs {TESTED}: start with "
        "`python3 -m uv run course open`, which fetches one."
    )


@pytest.mark.parametrize("version", [(NEWEST[0], NEWEST[1] + 1), (4, 0)])
def test_a_python_newer_than_any_tested_is_advice_and_no_error(version: tuple[int, int]) -> None:
    (line,) = check_python(version)
    assert line.startswith(f"This is Python {version[0]}.{version[1]}; the course is tested with ")


@pytest.mark.parametrize("pace", ["0", "-1", "fast", "nan", ""])
def test_a_pace_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, pace: str) -> None:
    monkeypatch.setenv("COURSE_PACE", pace)
    with pytest.raises(CourseError, match=f"COURSE_PACE is '{pace}'; it must be a number above 0"):
        check_pace()


def test_the_course_as_installed_has_its_packages() -> None:
    # other versions than the tested ones are allowed here: a run may try the oldest or the newest
    lines = check_packages(Project.here())
    assert [line for line in lines if "that the course is tested with" not in line] == []


def test_a_missing_package_is_named_with_what_to_do(project: Project) -> None:
    _depend(project, '"typer", "no-such-package==1", "nor-this[extra]"')
    with pytest.raises(
        CourseError,
        match=r'no-such-package, nor-this are not installed: run .* -e "\.\[lessons\]"',
    ):
        check_packages(project)


def test_versions_that_the_course_cannot_run_on_are_named_with_what_to_do(
    project: Project,
) -> None:
    _depend(project, '"typer>=900", "rich<1", "packaging"')
    with pytest.raises(CourseError) as caught:
        check_packages(project)
    assert str(caught.value).startswith(
        f"typer is {metadata.version('typer')}, and the course needs >=900; "
        f"rich is {metadata.version('rich')}, and the course needs <1: run "
    )


def test_a_package_that_another_python_needs_is_not_asked_for(project: Project) -> None:
    _depend(project, '"typer", "no-such-package; python_version < \'3.11\'"')
    assert check_packages(project) == []


def test_other_versions_than_the_tested_ones_are_one_line_of_advice(project: Project) -> None:
    _depend(project, '"typer", "rich", "packaging"')
    rich = metadata.version("rich")
    constraints = f"# tested\ntyper==0.0.1\nrich=={rich}\nnever-asked-for==1\n"
    (project.root / "constraints.txt").write_text(constraints)
    (line,) = check_packages(project)
    assert line.startswith(
        "Not the versions that the course is tested with: "
        f"typer {metadata.version('typer')} (0.0.1). For those, run `"
    )


def test_the_tested_version_is_that_for_this_python(project: Project) -> None:
    _depend(project, '"rich"')
    here = ".".join(map(str, sys.version_info[:3]))
    constraints = (
        f"rich=={metadata.version('rich')} ; python_full_version == '{here}'\n"
        f"rich==0.0.1 ; python_full_version != '{here}'\n"
    )
    (project.root / "constraints.txt").write_text(constraints)
    assert check_packages(project) == []


def test_a_dependency_that_is_none_is_named(project: Project) -> None:
    _depend(project, '"typer =>= 1"')
    with pytest.raises(CourseError, match="'typer =>= 1' names no package"):
        check_packages(project)


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
