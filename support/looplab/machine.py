"""Is this machine ready for the course? Each check says in one sentence what to do if not."""

import os
import socket
import sys
import tempfile
from importlib import metadata

from packaging.version import Version

from looplab import pins
from looplab.project import INSTALL, CourseError, Project
from looplab.pythons import TESTED, too_old, untested


def check_machine(project: Project, jupyter_arguments: list[str]) -> list[str]:
    """Return advice about what may trouble the course on this machine, one line each.

    Raises CourseError, saying what to do, when the course cannot run: a Python too old for it, a
    COURSE_PACE that is no number above 0, a package that is missing or too old, no temporary
    directory to write to, or a port in use.
    """
    advice = check_python(sys.version_info[:2])
    check_pace()
    advice += check_packages(project)
    check_temporary_directory()
    check_port(jupyter_arguments)
    return advice


def check_python(version: tuple[int, ...]) -> list[str]:
    """Return a line of advice when ``version`` (major, minor) is newer than any tested, else none.

    Raises CourseError when it is too old for the course.
    """
    here = f"This is Python {version[0]}.{version[1]}; the course"
    if too_old(version):
        raise CourseError(
            f"{here} needs {TESTED}: start with `python3 -m uv run course open`, which fetches one."
        )
    if untested(version):
        return [f"{here} is tested with {TESTED}, and may or may not run on a newer one."]
    return []


def check_pace() -> None:
    """Raise CourseError when the environment sets a pace that is no number above 0."""
    if "COURSE_PACE" not in os.environ:
        return
    from looplab.lab.units import pace  # imports what `course open` does without

    try:
        pace()
    except ValueError as error:
        raise CourseError(f"{error}.") from None


def check_packages(project: Project) -> list[str]:
    """Return a line naming the packages whose versions are not those the course is tested with.

    What is needed stands in pyproject.toml, what is tested in constraints.txt. Raises CourseError
    when packages are missing, or of a version that the course cannot run on.
    """
    tested = pins.tested(project)
    missing, unfit, other = [], [], []
    for requirement in pins.needed(project):
        name = requirement.name
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            unfit.append(f"{name} is {found}, and the course needs {requirement.specifier}")
        elif name in tested and tested[name] != Version(found):
            other.append(f"{name} {found} ({tested[name]})")
    if missing:
        names = list(dict.fromkeys(missing))  # one may be named beside the extra and in it
        verb = "is" if len(names) == 1 else "are"
        raise CourseError(f"{', '.join(names)} {verb} not installed: {INSTALL}.")
    if unfit:
        raise CourseError(f"{'; '.join(unfit)}: {INSTALL}.")
    if other:
        listed = ", ".join(dict.fromkeys(other))
        return [f"Not the versions that the course is tested with: {listed}. For those, {INSTALL}."]
    return []


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
