"""Is this machine ready for the course? Each check says in one sentence what to do if not."""

import os
import re
import socket
import sys
import tempfile
import tomllib
from importlib import metadata

from support.project import CourseError, Project

FIRST_PYTHON = (3, 11)
FIRST_PYTHON_TOO_NEW = (3, 14)
INSTALL = (
    "run `python3 -m pip install -e .` in the course's folder, or start with `uv run course open`"
)

REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*])?\s*(?:==\s*(?P<version>[^\s;,]+))?"
)


def check_machine(project: Project, jupyter_arguments: list[str]) -> list[str]:
    """Return advice about what may trouble the course on this machine, one line each.

    Raises CourseError, saying what to do, when the course cannot run: a Python it does not
    support, a COURSE_PACE that is no number above 0, a missing package, no temporary directory to
    write to, or a port in use.
    """
    check_python(sys.version_info[:2])
    check_pace()
    advice = check_packages(project)
    check_temporary_directory()
    check_port(jupyter_arguments)
    return advice


def check_python(version: tuple[int, int]) -> None:
    """Raise CourseError when ``version`` (major, minor) is one that the course does not support."""
    if not FIRST_PYTHON <= version < FIRST_PYTHON_TOO_NEW:
        last = f"{FIRST_PYTHON_TOO_NEW[0]}.{FIRST_PYTHON_TOO_NEW[1] - 1}"
        raise CourseError(
            f"This is Python {version[0]}.{version[1]}; the course needs 3.11 to {last}: "
            "start with `python3 -m uv run course open`, which fetches one."
        )


def check_pace() -> None:
    """Raise CourseError when the environment sets a pace that is no number above 0."""
    if "COURSE_PACE" not in os.environ:
        return
    from support.lab.units import pace  # imports what `course open` does without

    try:
        pace()
    except ValueError as error:
        raise CourseError(f"{error}.") from None


def check_packages(project: Project) -> list[str]:
    """Return a line for each package whose version is not the one the course is tested with.

    The list of packages is that of pyproject.toml. Raises CourseError when some are missing.
    """
    text = (project.root / "pyproject.toml").read_text(encoding="utf-8")
    advice, missing = [], []
    for requirement in tomllib.loads(text)["project"]["dependencies"]:
        match = REQUIREMENT.match(requirement)
        if match is None:
            raise CourseError(
                f"pyproject.toml names a dependency {requirement!r} that has no name."
            )
        name, wanted = match["name"], match["version"]
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if wanted is not None and found != wanted:
            advice.append(f"{name} is {found}; the course is tested with {wanted}: {INSTALL}.")
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise CourseError(f"{', '.join(missing)} {verb} not installed: {INSTALL}.")
    return advice


def check_temporary_directory() -> None:
    """Raise CourseError when no file can be made in the temporary directory."""
    cure = "set TMPDIR to a folder that you can write to, and try again"
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError:
        raise CourseError(
            f"There is no temporary directory that can be written to: {cure}."
        ) from None
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"course")
    except OSError as error:
        reason = error.strerror or error
        raise CourseError(
            f"The temporary directory {folder} cannot be written to ({reason}): {cure}."
        ) from None


def check_port(jupyter_arguments: list[str]) -> None:
    """Raise CourseError when the arguments ask for a port that is in use or is none.

    Without one Jupyter takes the next free port by itself.
    """
    asked = _value_of(jupyter_arguments, ("--port", "--ServerApp.port"))
    if asked is None:
        return
    if not (asked.isascii() and asked.isdigit() and int(asked) <= 65535):
        raise CourseError(f"--port is {asked!r}; it must be a number from 0 to 65535.")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(asked)))
        except PermissionError:
            raise CourseError(
                f"Port {asked} needs more rights than you have: choose one above 1023 with --port."
            ) from None
        except OSError:
            raise CourseError(
                f"Port {asked} is in use: choose another with --port, or leave --port out and "
                "Jupyter takes a free one."
            ) from None


def _value_of(arguments: list[str], names: tuple[str, ...]) -> str | None:
    """Return the last value given to one of the options ``names``, or None."""
    value = None
    for place, argument in enumerate(arguments):
        name, equals, rest = argument.partition("=")
        if name in names:
            value = rest if equals else "".join(arguments[place + 1 : place + 2])
    return value
