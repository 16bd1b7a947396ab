"""`course pin` writes one set of exact versions for pip and for uv."""

import stat
import sys
import tomllib
from pathlib import Path

import pytest

from looplab import pins
from looplab.project import CourseError, Project

PYPROJECT = """\
[project]
name = "tiny"
version = "0"
requires-python = ">=3.11"
dependencies = ["typer"]

[dependency-groups]
dev = []

[tool.uv]
# why
constraint-dependencies = [
    "typer==0.0.1",
]

[tool.other]
x = 1
"""
CHOSEN = "typer==0.29.2\nnumpy==2.4.6 ; python_full_version < '3.12'\n"
UV = """\
#!{python}
import pathlib, sys
folder = pathlib.Path.cwd()
(pathlib.Path({log!r})).write_text("\\n".join([
    *sys.argv[1:], "--", (folder / "pyproject.toml").read_text(),
    "--", (folder / "constraints.txt").read_text() if (folder / "constraints.txt").exists() else "",
]))
if {fails}:
    sys.exit("  x No solution found")
(folder / "constraints.txt").write_text({chosen!r})
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "asked"


def use_uv(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: Path, *, fails: bool = False
) -> None:
    """Let a program stand in for uv that notes what it was asked, and chooses CHOSEN."""
    program = tmp_path / "uv"
    program.write_text(UV.format(python=sys.executable, log=str(log), fails=fails, chosen=CHOSEN))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("UV", str(program))


needs_scripts = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows starts no program by its first line"
)


@needs_scripts
def test_what_uv_chose_is_written_for_pip_and_for_uv(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: Path
) -> None:
    (project.root / "pyproject.toml").write_text(PYPROJECT)
    (project.root / "constraints.txt").write_text("typer==0.0.1\n")
    use_uv(monkeypatch, tmp_path, log)
    assert pins.pin(project) == 2
    assert (project.root / "constraints.txt").read_text() == pins.HEADER + CHOSEN
    written = (project.root / "pyproject.toml").read_text()
    assert tomllib.loads(written)["tool"]["uv"]["constraint-dependencies"] == CHOSEN.splitlines()
    before, rest = PYPROJECT.split("constraint-dependencies")
    assert written.startswith(before)
    assert written.endswith(rest.partition("]\n")[2])

    command, read, kept = log.read_text().split("\n--\n")
    assert command.startswith("pip\ncompile\n")
    assert "--upgrade" not in command
    assert "--extra\nlessons\n--group\ndev\n" in command
    assert "constraint-dependencies" not in read, "uv would hold to the old versions"
    assert kept == "typer==0.0.1\n"
    assert pins.tested(project).keys() >= {"typer"}


@needs_scripts
def test_asked_for_the_newest_uv_keeps_none_of_the_old(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: Path
) -> None:
    (project.root / "pyproject.toml").write_text(PYPROJECT)
    use_uv(monkeypatch, tmp_path, log)
    pins.pin(project, upgrade=True)
    assert "\n--upgrade\n" in log.read_text().partition("\n--\n")[0]


@needs_scripts
def test_where_nothing_fits_uv_is_quoted_and_nothing_is_written(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: Path
) -> None:
    (project.root / "pyproject.toml").write_text(PYPROJECT)
    use_uv(monkeypatch, tmp_path, log, fails=True)
    with pytest.raises(CourseError, match=r"(?s)No versions .* fit.*No solution found"):
        pins.pin(project)
    assert (project.root / "pyproject.toml").read_text() == PYPROJECT
    assert not (project.root / "constraints.txt").exists()


def test_without_uv_it_says_how_to_have_one(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.root / "pyproject.toml").write_text(PYPROJECT)
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CourseError, match="python3 -m uv run course pin"):
        pins.pin(project)


def test_a_pyproject_without_the_list_is_left_alone(project: Project) -> None:
    before = (project.root / "pyproject.toml").read_text()
    with pytest.raises(CourseError, match="constraint-dependencies"):
        pins.pin(project)
    assert (project.root / "pyproject.toml").read_text() == before
