"""The learner's own copy of the lessons, and JupyterLab opened on it."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from looplab.machine import check_machine
from looplab.project import CourseError, Lesson, Project
from looplab.publishing.notebooks import (
    cleared,
    notebook_text,
    read_notebook,
    recorded_hash,
    sources_hash,
    write_notebook,
)

FIRST_LESSON = "00"
SECONDS_TO_END = 15.0
ENDINGS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


@dataclass(frozen=True, slots=True)
class Kept:
    """What `reset` did: the fresh ``copy``, and where the learner's own went (``mine``), if any."""

    copy: Path
    mine: Path | None


def open_workbook(
    project: Project,
    wanted: str | None,
    jupyter_arguments: list[str],
    say: Callable[[str], None],
) -> int:
    """Check the machine, bring the workbook up to date and run JupyterLab on a lesson of it.

    ``wanted`` is a lesson's number or name, the first lesson when None; ``jupyter_arguments`` go to
    `jupyter lab`. ``say`` gets a line for each thing worth knowing first. Blocks while JupyterLab
    runs and returns its exit code.

    Raises CourseError when the machine, the lesson's name or the folder does not allow it.
    """
    for advice in check_machine(project, jupyter_arguments):
        say(advice)
    lesson = project.lesson(wanted or FIRST_LESSON)
    for line in fill_workbook(project):
        say(line)
    command = [sys.executable, "-m", "jupyterlab", *lab_arguments(project, lesson)]
    return _run([*command, *jupyter_arguments], cwd=project.workbook)


def fill_workbook(project: Project) -> list[str]:
    """Copy each lesson that the workbook lacks, with outputs cleared; leave every other file alone.

    Returns a line for each lesson of which a newer version exists than the learner's copy, and for
    each copy that cannot be read.

    Raises CourseError when the workbook cannot be written to or a lesson cannot be read.
    """
    lines = []
    for lesson in project.selection([]):
        copy = _copy_of(project, lesson)
        fresh = cleared(read_notebook(lesson.path))
        if not copy.exists():
            write_notebook(fresh, copy)
            continue
        wanted = lesson.name if lesson.deeper else lesson.number
        cure = f"`course reset {wanted}` fetches it and keeps yours beside it."
        try:
            mine = read_notebook(copy)
        except CourseError as error:
            lines.append(f"{error} The lesson as published is still there: {cure}")
            continue
        if sources_hash(fresh) not in (recorded_hash(mine), sources_hash(mine)):
            lines.append(f"A newer version of {lesson.name} is there: {cure}")
    return lines


def reset_lesson(project: Project, wanted: str) -> Kept:
    """Put the lesson as published into the workbook; keep the learner's version under a free name.

    Raises CourseError when there is no such lesson or the workbook cannot be written to.
    """
    lesson = project.lesson(wanted)
    fresh = cleared(read_notebook(lesson.path))
    copy = _copy_of(project, lesson)
    mine = _keep(copy, notebook_text(fresh))
    write_notebook(fresh, copy)
    return Kept(copy, mine)


def lab_arguments(project: Project, lesson: Lesson) -> list[str]:
    """Return the arguments for a JupyterLab that shows ``lesson`` from the workbook.

    It asks no other host for news, and ends at once when it is told to.
    """
    arguments = [
        f"--ServerApp.root_dir={project.workbook}",
        f"--LabApp.default_url=/lab/tree/{lesson.path.name}",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
        "--ServerApp.answer_yes=True",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--allow-root")
    return arguments


def _copy_of(project: Project, lesson: Lesson) -> Path:
    try:
        project.workbook.mkdir(exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise CourseError(f"{project.workbook} cannot be made: {reason}.") from None
    return project.workbook / lesson.path.name


def _keep(copy: Path, published: str) -> Path | None:
    """Move ``copy`` beside itself and return its new place; None when there is nothing to keep."""
    try:
        if not copy.exists() or copy.read_text(encoding="utf-8", errors="replace") == published:
            return None
        pattern = re.compile(re.escape(copy.stem) + r"\.mine-(\d+)\.ipynb")
        taken = [
            int(match[1])
            for path in copy.parent.iterdir()
            if (match := pattern.fullmatch(path.name))
        ]
        mine = copy.with_name(f"{copy.stem}.mine-{max(taken, default=0) + 1}.ipynb")
        copy.rename(mine)
    except OSError as error:
        raise CourseError(f"{copy.name} cannot be kept: {error.strerror or error}.") from None
    return mine


def _run(command: list[str], cwd: Path) -> int:
    """Run ``command`` and return its exit code; when this process is told to end, end it first.

    JupyterLab stops well when it is told once, and may hang when it is told twice. So on POSIX it
    runs in a process group of its own, out of a terminal's reach, and hears of Ctrl-C from here.
    """
    # the kernels of this environment come before those that the learner installed for other work
    environment = {**os.environ, "JUPYTER_PREFER_ENV_PATH": "1"}
    child: subprocess.Popen[bytes] | None = None
    last_resort: threading.Timer | None = None

    def end(signum: int, frame: FrameType | None) -> None:
        nonlocal last_resort
        if child is None or last_resort is not None:
            return
        if sys.platform != "win32" or signum != signal.SIGINT:
            child.terminate()
        last_resort = threading.Timer(SECONDS_TO_END, child.kill)
        last_resort.daemon = True
        last_resort.start()

    before = {number: signal.signal(number, end) for number in ENDINGS}
    try:
        child = subprocess.Popen(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, process_group=0
        )
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if last_resort is not None:
            last_resort.cancel()
    return code if last_resort is None else 0
