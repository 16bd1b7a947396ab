"""The first call of every lesson: check the place it runs in, and prepare it.

Importing this module is cheap: what :func:`start` needs is imported when it is called.
"""

import asyncio
import atexit
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from looplab import kernel
from looplab.lab.errors import LessonError
from looplab.lab.units import pace
from looplab.pythons import TESTED, too_old

_temporary: Path | None = None


def start() -> None:
    """Prepare this kernel for a lesson; the first call of each set-up cell.

    Checks Python's version, the pace, the event loop and the temporary directory; gives the kernel
    a temporary directory of its own, removed when it exits; lets an interrupt reach a cell that
    only awaits; keeps the machine's proxies out of calls to 127.0.0.1; and notes what is there, for
    ``nothing_left_behind()``. Call it again at will: each call begins anew.

    Raises LessonError, with what to do, when a check fails.
    """
    _check_python(sys.version_info[:2])
    _check_pace()
    loop = _notebook_loop()
    temporary = _private_directory()
    _let_interrupts_wake(loop)
    from looplab.lab import (
        charts,  # noqa: F401 - so that the first picture takes no longer than others
        clients,
        hygiene,
    )

    clients.reach_loopback_directly()
    hygiene.install(temporary=temporary)
    shell = _shell()
    if shell is not None:
        kernel.tell(shell, NameError, LessonError)


def finish() -> None:
    """Undo :func:`start`: stop listening, remove the private directory. For tests."""
    from looplab.lab import hygiene

    hygiene.uninstall()
    if hasattr(signal, "SIGUSR1"):
        with contextlib.suppress(RuntimeError):  # no loop runs, so none has the handler
            asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)
    shell = _shell()
    if shell is not None:
        kernel.unload_ipython_extension(shell)
    if _temporary is not None:
        _remove(_temporary, os.getpid())


def _check_python(version: tuple[int, ...]) -> None:
    if too_old(version):
        raise LessonError(
            f"This kernel runs Python {version[0]}.{version[1]}; the course needs {TESTED}: "
            "open the lesson with `course open`."
        )


def _check_pace() -> None:
    try:
        pace()
    except ValueError as error:
        raise LessonError(f"{error}: set it right and restart the kernel.") from None


def _notebook_loop() -> asyncio.AbstractEventLoop:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    if loop is None or threading.current_thread() is not threading.main_thread():
        raise LessonError(
            "A lesson needs a notebook's running event loop: open it with `course open`."
        )
    return loop


def _let_interrupts_wake(loop: asyncio.AbstractEventLoop) -> None:
    """Make a signal wake the loop; without a handler of its own it sleeps on until it is due."""
    if hasattr(signal, "SIGUSR1"):
        with contextlib.suppress(NotImplementedError):  # a loop without signals, as on Windows
            loop.add_signal_handler(signal.SIGUSR1, lambda: None)


# ---------------------------------------------------------------- the temporary directory


def _private_directory() -> Path:
    """Return this process's own temporary directory, making it the default for new files."""
    global _temporary
    if _temporary is None or not _temporary.is_dir():
        try:
            if _temporary is not None:  # somebody removed it: begin again at the system's
                tempfile.tempdir = None
            made = Path(tempfile.mkdtemp(prefix=f"fastapi-async-course-{os.getpid()}-"))
        except OSError as error:
            raise _unwritable(error) from error
        _temporary = made
        atexit.register(_remove, made, os.getpid())
    probe = _temporary / "probe"
    try:
        probe.write_bytes(b"written")
        probe.unlink()
    except OSError as error:
        raise _unwritable(error) from error
    tempfile.tempdir = str(_temporary)
    return _temporary


def _unwritable(error: OSError) -> LessonError:
    return LessonError(
        f"The temporary directory cannot be written ({error}): set TMPDIR to a directory that "
        "can, and restart the kernel."
    )


def _remove(folder: Path, owner: int) -> None:
    """Remove the private directory, in the process that made it and in no fork of it."""
    global _temporary
    if os.getpid() != owner:
        return
    shutil.rmtree(folder, ignore_errors=True)
    if tempfile.tempdir == str(folder):
        tempfile.tempdir = None
    if _temporary == folder:
        _temporary = None


# ---------------------------------------------------------------- the kernel


def _shell() -> Any:
    if "IPython" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython

    return get_ipython()
