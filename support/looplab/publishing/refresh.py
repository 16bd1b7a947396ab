"""Run lessons from top to bottom in a fresh kernel and save them with clean outputs."""

import asyncio
import os
import re
import signal
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from looplab.kept import ALL_CHOICES
from looplab.project import CourseError, Lesson, Project
from looplab.publishing.kept import MAX_BYTES as MAX_KEPT_BYTES
from looplab.publishing.kept import kept_text, taken_out, write_kept
from looplab.publishing.notebooks import (
    cleaned,
    cleared,
    notebook_text,
    read_notebook,
    write_notebook,
)
from looplab.publishing.saved import MAX_BYTES, notebook_faults

CELL_TIMEOUT = 60
MAX_LESSON_SECONDS = 20.0
MAX_CELL_SECONDS = 3.0

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(slots=True)
class Run:
    """One lesson's run: seconds by cell id, the size it was saved with, or why it was not saved."""

    lesson: Lesson
    seconds: float = 0.0
    cells: dict[str, float] = field(default_factory=dict)
    size: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def slowest(self) -> tuple[str, float]:
        """The id of the cell that took longest, and its seconds."""
        return max(self.cells.items(), key=lambda item: item[1], default=("-", 0.0))


def refresh(
    project: Project,
    wanted: list[str],
    *,
    console: Console | None = None,
    cell_timeout: int = CELL_TIMEOUT,
) -> list[Run]:
    """Run the lessons called ``wanted`` (all when empty) one at a time and save those that pass.

    Shows a progress bar and a table of seconds on ``console``. ``cell_timeout`` is in seconds.

    Raises CourseError, when all have run, if one failed: that one's file is left as it was. Ctrl-C
    raises it at once, with the kernel stopped.
    """
    console = console or Console(stderr=True)
    lessons = project.selection(wanted)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    runs = []
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        for lesson in lessons:
            runs.append(_refresh_one(lesson, progress, cell_timeout))
    console.print(_table(runs))
    failures = [f"{run.lesson.name}: {fault}" for run in runs for fault in run.faults]
    if failures:
        raise CourseError("\n".join([*failures, "What failed was not saved."]))
    return runs


def _refresh_one(lesson: Lesson, progress: Progress, cell_timeout: int) -> Run:
    run = Run(lesson)
    task = progress.add_task(lesson.name, total=None)
    try:
        notebook = cleared(read_notebook(lesson.path))
    except CourseError as error:
        run.faults.append(str(error))
        return run
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    progress.update(task, total=len(code))
    started = perf_counter()
    fault = _execute(notebook, lesson, run, progress, task, cell_timeout)
    run.seconds = perf_counter() - started
    if fault:
        run.faults.append(fault)
        return run
    clean = cleaned(notebook)
    run.faults += notebook_faults(clean)
    kept = taken_out(clean)
    run.size = len(notebook_text(clean).encode())
    kept_size = len(kept_text(kept).encode())
    for what, size, most in (
        ("", run.size, MAX_BYTES),
        (" kept for the site", kept_size, MAX_KEPT_BYTES),
    ):
        if size >= most:
            run.faults.append(f"{size / 1000:.0f} kB{what}; it must stay under {most // 1000} kB")
    if not run.faults:
        write_notebook(clean, lesson.path)
        write_kept(kept, lesson.path)
    return run


def _execute(
    notebook: NotebookNode,
    lesson: Lesson,
    run: Run,
    progress: Progress,
    task: Any,
    cell_timeout: int,
) -> str | None:
    """Execute ``notebook`` in place, noting seconds in ``run``; return what went wrong or None."""
    running: dict[str, Any] = {"id": "the first cell", "since": perf_counter()}

    def begin(cell: NotebookNode, cell_index: int) -> None:
        running.update(id=cell["id"], since=perf_counter())

    def end(cell: NotebookNode, **_: object) -> None:
        run.cells[cell["id"]] = perf_counter() - running["since"]
        progress.advance(task)

    interrupted = False

    def listen(notebook: NotebookNode) -> None:
        # nbclient takes Ctrl-C for a kernel that died, and the next lesson would start
        def stop() -> None:
            nonlocal interrupted
            interrupted = True
            for task in asyncio.all_tasks(loop):
                task.cancel()

        loop = asyncio.get_running_loop()
        # not on Windows, where event loops handle no signals
        with suppress(NotImplementedError):
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop)

    client = NotebookClient(
        notebook,
        timeout=cell_timeout,
        kernel_name="python3",
        kernel_manager_class=OwnKernelManager,
        resources={"metadata": {"path": str(lesson.path.parent)}},
        extra_arguments=["--log-level=ERROR"],
        record_timing=False,
        store_widget_state=False,
        on_notebook_start=listen,
        on_cell_execute=begin,
        on_cell_executed=end,
    )
    try:
        with _plain_environment() as environment:
            client.execute(env=environment)
    except CellExecutionError as error:
        reason = ANSI.sub("", error.evalue).strip().splitlines() or [""]
        return f"{running['id']} raised {error.ename}: {' '.join(reason[:3])}"
    except CellTimeoutError:
        return f"{running['id']} took more than {cell_timeout} s and was stopped"
    except (DeadKernelError, asyncio.CancelledError):
        if interrupted:
            raise CourseError(f"Stopped in {lesson.name}, which was not saved.") from None
        return f"the kernel died in {running['id']}"
    return None


class OwnKernelManager(AsyncKernelManager):
    """Starts kernels of the Python that runs this command, whatever kernels the user installed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **settings)


@contextmanager
def _plain_environment() -> Generator[dict[str, str], None, None]:
    """Yield an environment in which a run shows what it shows on every machine.

    No stretched waits, no start-up files or history of the user's own IPython; dials run every
    choice.
    """
    with tempfile.TemporaryDirectory(prefix="course-ipython-") as folder:
        environment = {**os.environ, "IPYTHONDIR": folder, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        environment.pop("COURSE_PACE", None)
        environment[ALL_CHOICES] = "1"
        yield environment


def _table(runs: list[Run]) -> Table:
    note = f"! over {MAX_LESSON_SECONDS:.0f} s a lesson or {MAX_CELL_SECONDS:.0f} s a cell"
    table = Table(box=SIMPLE, caption=note, caption_justify="left")
    for name in ("lesson", "cells", "seconds", "slowest cell", "seconds", "kB", ""):
        right = name in ("cells", "seconds", "kB")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for run in runs:
        name, seconds = run.slowest
        table.add_row(
            run.lesson.name,
            str(len(run.cells)),
            _marked(run.seconds, MAX_LESSON_SECONDS),
            name,
            _marked(seconds, MAX_CELL_SECONDS),
            f"{run.size / 1000:.0f}" if run.size else "-",
            "failed" if run.faults else "saved",
        )
    return table


def _marked(seconds: float, limit: float) -> Text:
    over = seconds > limit
    return Text(f"{seconds:.1f}{' !' if over else '  '}", style="red" if over else "")
