"""Which versions of its packages the course needs, and which it is tested with.

pyproject.toml names the packages and the oldest version of each that works: those that `course
xray` runs on, loosely, and under the extra ``lessons`` those that the notebooks need. The exact
versions of a tested set, of these packages and of all that they need, stand in constraints.txt for
pip, and in pyproject.toml's ``[tool.uv] constraint-dependencies`` for ``uv run``, which reads no
such file. `course pin` writes both from one resolution.
"""

import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from looplab.project import CourseError, Project
from looplab.pythons import OLDEST

HEADER = """\
# Exact versions that the course is tested with, for pip:
#     pip install -c constraints.txt -e ".[lessons]"
# Written by `course pin`, which writes the same into pyproject.toml for uv; don't edit.
"""
EXTRA = "lessons"
"""What the notebooks need, by its name in pyproject.toml."""
UV_LIST = re.compile(r"^constraint-dependencies = \[\n(?:.*\n)*?\]\n", re.MULTILINE)


def needed(project: Project) -> list[Requirement]:
    """Return the packages that pyproject.toml says the course needs on this Python and system.

    Raises CourseError, naming the line, when one is not written as pip understands it.
    """
    named = tomllib.loads(_pyproject(project))["project"]
    listed = [*named["dependencies"], *named.get("optional-dependencies", {}).get(EXTRA, [])]
    return [found for found in map(_requirement, listed) if _holds_here(found)]


def tested(project: Project) -> dict[str, Version]:
    """Return the versions of constraints.txt for this Python and system, by package.

    It is empty where a project has no such file.
    """
    path = project.root / "constraints.txt"
    if not path.is_file():
        return {}
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    found = [_requirement(line) for line in lines if line]
    return {
        entry.name: Version(next(iter(entry.specifier)).version)
        for entry in found
        if _holds_here(entry)
    }


def pin(project: Project, *, upgrade: bool = False) -> int:
    """Choose an exact version of each package and write them down for pip and for uv.

    Args:
        project: whose pyproject.toml and constraints.txt are written.
        upgrade: take the newest versions; without it, those written down stay where they still fit.

    Returns:
        How many lines were written; a package has several where Pythons need different versions.

    Raises:
        CourseError: there is no uv, or no set of versions fits; with uv's own words.
    """
    text = _pyproject(project)
    if UV_LIST.search(text) is None:
        raise CourseError("pyproject.toml has no list [tool.uv] constraint-dependencies to fill.")
    current = project.root / "constraints.txt"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # uv would hold to the list that is to be replaced
        (folder / "pyproject.toml").write_text(UV_LIST.sub("", text), encoding="utf-8")
        chosen = folder / "constraints.txt"
        if current.is_file():
            shutil.copyfile(current, chosen)
        command = [
            _uv(), "pip", "compile", "--quiet", "--universal", "--no-header", "--no-annotate",
            "--python-version", ".".join(map(str, OLDEST)), "--extra", EXTRA, "--group", "dev",
            "--output-file", chosen.name, *(["--upgrade"] if upgrade else []), "pyproject.toml",
        ]  # fmt: skip
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            raise CourseError(f"No versions were found that fit:\n{ended.stderr.strip()}")
        lines = chosen.read_text(encoding="utf-8").splitlines()
    current.write_text(HEADER + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    rows = "".join(f'    "{line}",\n' for line in lines)
    filled = UV_LIST.sub(lambda _: f"constraint-dependencies = [\n{rows}]\n", text)
    (project.root / "pyproject.toml").write_text(filled, encoding="utf-8")
    return len(lines)


def _pyproject(project: Project) -> str:
    return (project.root / "pyproject.toml").read_text(encoding="utf-8")


def _requirement(line: str) -> Requirement:
    try:
        return Requirement(line)
    except InvalidRequirement as error:
        raise CourseError(f"{line!r} names no package as pip understands it: {error}.") from None


def _holds_here(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate()


def _uv() -> str:
    """Return the uv that runs this command, or one that is on the PATH."""
    program = os.environ.get("UV") or shutil.which("uv")
    if program is None:
        raise CourseError("`course pin` needs uv: type python3 -m uv run course pin")
    return program
