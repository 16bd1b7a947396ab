"""The verbs, as typed: one sentence on stderr and exit code 1 when something is amiss."""

import subprocess
import sys
import tomllib
from typing import Any

import pytest
from typer.testing import CliRunner

from looplab import workbook
from looplab.cli import app
from looplab.project import Project
from looplab.pythons import TESTED

runner = CliRunner()


@pytest.fixture
def course(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(Project, "here", classmethod(lambda cls: project))
    return project


@pytest.fixture
def started(course: Project, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have started JupyterLab."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> int:
        commands.append(command)
        return 0

    monkeypatch.setattr(workbook, "_run", run)
    return commands


def test_open_copies_the_lessons_and_starts_on_lesson_00(
    course: Project, started: list[list[str]]
) -> None:
    result = runner.invoke(app, ["open"])
    assert (result.exit_code, result.output) == (0, "")
    ((python, flag, module, *arguments),) = started
    assert [python, flag, module] == [sys.executable, "-m", "jupyterlab"]
    assert "--LabApp.default_url=/lab/tree/00_start_here.ipynb" in arguments
    assert len(list(course.workbook.glob("*.ipynb"))) == 3


@pytest.mark.parametrize(
    ("typed", "lesson", "passed_on"),
    [
        (["2", "--", "--no-browser", "--port", "0"], "02_gather", ["--no-browser", "--port", "0"]),
        (["--", "--no-browser"], "00_start_here", ["--no-browser"]),
        (["02_gather", "--"], "02_gather", []),
        (["--", "--", "x"], "00_start_here", ["--", "x"]),
    ],
)
def test_what_follows_two_dashes_goes_to_jupyter(
    started: list[list[str]], typed: list[str], lesson: str, passed_on: list[str]
) -> None:
    assert runner.invoke(app, ["open", *typed]).exit_code == 0
    (command,) = started
    assert f"--LabApp.default_url=/lab/tree/{lesson}.ipynb" in command
    own = 3 + len(workbook.lab_arguments(Project.here(), Project.here().lesson(lesson)))
    assert command[own:] == passed_on


def test_an_option_of_jupyter_without_two_dashes_is_told_where_it_belongs(
    course: Project,
) -> None:
    result = runner.invoke(app, ["open", "--port", "8890"])
    assert result.exit_code == 2
    said = " ".join(result.output.replace("│", " ").split())
    assert "--port is no option of `course open`" in said
    assert "course open -- --port" in said


def test_open_tells_of_a_newer_lesson_and_starts_all_the_same(
    course: Project, started: list[list[str]]
) -> None:
    runner.invoke(app, ["open"])
    path = course.notebooks / "11_streaming.ipynb"
    path.write_text(path.read_text().replace("6 * 7", "7 * 6"))
    result = runner.invoke(app, ["open"])
    assert "`course reset 11`" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert len(started) == 2


@pytest.mark.parametrize("verb", ["open", "reset", "refresh", "check"])
def test_an_unknown_lesson_is_one_sentence_and_exit_code_1(
    course: Project, started: list[list[str]], verb: str
) -> None:
    result = runner.invoke(app, [verb, "7"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        "There is no lesson '7'; there are 00_start_here, 02_gather, 11_streaming.\n"
    )
    assert started == []


def test_a_wrong_port_stops_before_anything_is_copied(
    course: Project, started: list[list[str]]
) -> None:
    result = runner.invoke(app, ["open", "--", "--port", "web"])
    assert result.exit_code == 1
    assert result.stderr == "--port is 'web'; it must be a number from 0 to 65535.\n"
    assert not course.workbook.exists()
    assert started == []


def test_the_exit_code_of_jupyter_is_passed_on(
    course: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workbook, "_run", lambda command, **_: 3)
    assert runner.invoke(app, ["open"]).exit_code == 3


def test_reset_says_what_it_did(course: Project) -> None:
    assert runner.invoke(app, ["reset", "2"]).output == "02_gather.ipynb is as published.\n"
    (course.workbook / "02_gather.ipynb").write_text("mine")
    assert runner.invoke(app, ["reset", "2"]).output == (
        "02_gather.ipynb is as published.\nYour version is kept as 02_gather.mine-1.ipynb.\n"
    )


def test_check_names_each_fault_on_stderr_and_exits_with_1(course: Project) -> None:
    result = runner.invoke(app, ["check", "2"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "02_gather: stale: no hash of the sources is recorded\n" in result.stderr
    assert "02_gather: out of order: the counts are 3\n" in result.stderr
    assert "11_streaming" not in result.stderr


def test_new_and_index_say_what_is_wrong_in_one_sentence(course: Project) -> None:
    result = runner.invoke(app, ["new", "Retry storm"])
    assert result.exit_code == 1
    assert result.stderr.startswith("name is 'Retry storm'; it must be small letters")
    result = runner.invoke(app, ["index"])
    assert result.exit_code == 1
    assert result.stderr == "README.md cannot be read: No such file or directory.\n"


def test_workbook_copies_the_lessons_and_starts_nothing(
    course: Project, started: list[list[str]]
) -> None:
    result = runner.invoke(app, ["workbook"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "The lessons stand in workbook/; begin with 00_start_here.ipynb.\n"
    assert len(list(course.workbook.glob("*.ipynb"))) == 3
    assert started == []


def test_links_says_in_one_sentence_what_it_lacks(course: Project) -> None:
    for typed, sentence in [
        ([], "No address of a repository is noted yet: `course links OWNER/NAME` notes one.\n"),
        (["ada"], "The address is 'ada'; it must be a repository on GitHub, such as OWNER/NAME"),
        (["ada/x"], "pyproject.toml has no [tool.course] that begins with `repository`.\n"),
    ]:
        result = runner.invoke(app, ["links", *typed])
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(sentence)


def test_the_version_is_that_of_pyproject() -> None:
    text = (Project.here().root / "pyproject.toml").read_text(encoding="utf-8")
    assert (
        runner.invoke(app, ["--version"]).output == f"{tomllib.loads(text)['project']['version']}\n"
    )


def test_a_python_too_old_is_one_sentence_before_anything_is_imported() -> None:
    older = (
        "import sys; sys.version_info = (3, 10, 2); sys.modules['typer'] = None; import looplab.cli"
    )
    ended = subprocess.run(
        [sys.executable, "-c", older], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
    assert ended.stderr.startswith(f"This is Python 3.10; the course needs {TESTED}: start with")


@pytest.mark.parametrize("package", ["typer", "nbformat", "packaging"])
def test_a_missing_package_is_one_sentence(package: str) -> None:
    blocked = f"import sys; sys.modules[{package!r}] = None; from looplab.cli import app; app()"
    ended = subprocess.run(
        [sys.executable, "-c", blocked, "open"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert f"the package {package}" in ended.stderr or f"The package {package}" in ended.stderr
    assert (
        'not installed: run `python3 -m pip install -c constraints.txt -e ".[lessons]"`'
        in ended.stderr
    )
    assert len(ended.stderr.splitlines()) == 1
