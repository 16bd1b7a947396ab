"""What is still there: tasks, threads, sockets, files and processes, each in words.

A baseline says what was there before a lesson began; what came since and has not gone is left over.
"""

import asyncio
import linecache
import multiprocessing
import os
import queue
import sys
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from looplab.lab.our_code import is_ours
from looplab.lab.silent_failures import describe_task

KERNEL_PACKAGES = {"ipykernel", "IPython", "tornado", "zmq", "jupyter_client", "comm", "debugpy"}
TASK_HOSTS = KERNEL_PACKAGES
# Kept by ipykernel, matplotlib and multiprocessing for as long as the process lives.
KEPT_NAMES = ("ipykernel_", "matplotlib-", "pymp-")
DATABASE_SUFFIXES = (".db", ".sqlite", ".sqlite3", "-wal", "-shm", "-journal")

PATIENCE = 1.0  # seconds for what ends by itself: a thread on its way out, a socket being closed
PATIENCE_WITH_A_TASK = 0.25  # seconds for a lesson's own task that nobody has cancelled

Address = tuple[str, str, str]


@dataclass(frozen=True)
class StillOpen:
    """One thing left over: a sentence, and how many seconds it may take to go by itself."""

    sentence: str
    patience: float = PATIENCE


class Baseline:
    """What is there now; :meth:`still_open` tells later what has come and not gone."""

    def __init__(self, loop: asyncio.AbstractEventLoop, temporary: Path | None) -> None:
        self.loop = loop
        self.temporary = temporary
        self.tasks = weakref.WeakSet(asyncio.all_tasks(loop))
        self.threads = weakref.WeakSet(threading.enumerate())
        self.sockets = set(_sockets())
        self.served = {local for local, _, status in self.sockets if status == psutil.CONN_LISTEN}
        self.databases = set(_open_files(temporary))
        self.children = {child.pid for child in _children()}
        self.files = set(_names(temporary))
        self.task_factory = loop.get_task_factory()
        self.exception_handler = loop.get_exception_handler()

    def still_open(self) -> Iterator[StillOpen]:
        """Yield what is there now and was not there then."""
        yield from self._tasks()
        yield from self._threads()
        yield from self._sockets()
        for path in _open_files(self.temporary):
            if path not in self.databases:
                yield StillOpen(f"the file {path} is still open: close it, or dispose its engine")
        for child in _children():
            if child.pid not in self.children:
                yield StillOpen(f"child process {child.pid} ({_command(child)}) is still there")
        for name in _names(self.temporary):
            if name not in self.files:
                yield StillOpen(f"temporary file {name} is still in {self.temporary}")
        factory, handler = self.loop.get_task_factory(), self.loop.get_exception_handler()
        if factory is not self.task_factory:
            yield StillOpen(f"the loop still has a task factory of the lesson: {factory!r}")
        if handler is not self.exception_handler:
            yield StillOpen(
                f"the loop still has an exception handler of the lesson: {handler!r}; "
                "what failed meanwhile went unheard"
            )

    def _tasks(self) -> Iterator[StillOpen]:
        current = asyncio.current_task()
        for task in asyncio.all_tasks(self.loop):
            if task is current or task in self.tasks or _package(task) in TASK_HOSTS:
                continue
            outermost = _frames(task.get_coro())[:1]
            own = any(is_ours(frame.f_code) for frame in outermost) and not task.cancelling()
            yield StillOpen(sentence_on(task), PATIENCE_WITH_A_TASK if own else PATIENCE)

    def _threads(self) -> Iterator[StillOpen]:
        frames = sys._current_frames()
        for thread in threading.enumerate():
            frame = frames.get(thread.ident or 0)
            if (
                thread is threading.current_thread()
                or thread in self.threads
                or _belongs_to_kernel(thread)
                or _is_idle_worker(thread, frame, self.loop)
            ):
                continue
            if "_connection_worker_thread" in thread.name:
                sentence = (
                    f"an aiosqlite connection is still open ({thread.name} serves it): "
                    "close it, or dispose its engine"
                )
            else:
                doing = f", in {_place(frame)}" if frame is not None else ""
                sentence = f"thread {thread.name} is still running{doing}"
            yield StillOpen(sentence)

    def _sockets(self) -> Iterator[StillOpen]:
        sockets = _sockets()
        listening = {local for local, _, status in sockets if status == psutil.CONN_LISTEN}
        for address in sockets:
            local, remote, status = address
            if address in self.sockets or local in self.served:
                continue
            if status == psutil.CONN_LISTEN:
                yield StillOpen(f"a server is still listening on {local}")
            elif remote and local not in listening:
                yield StillOpen(f"a connection from {local} to {remote} is still open ({status})")
            elif not remote and status == psutil.CONN_NONE:
                yield StillOpen(f"a datagram socket is still bound to {local}")


# ---------------------------------------------------------------- tasks


def _frames(awaited: Any) -> list[FrameType]:
    """Return the frames of a suspended coroutine, from the outermost to the innermost."""
    frames = []
    while awaited is not None:
        frame = _first(awaited, "cr_frame", "gi_frame", "ag_frame")
        if frame is not None:
            frames.append(frame)
        awaited = _first(awaited, "cr_await", "gi_yieldfrom", "ag_await")
    return frames


def _first(thing: Any, *names: str) -> Any:
    """Return the first of these attributes that ``thing`` has and that is not None."""
    values = (getattr(thing, name, None) for name in names)
    return next((value for value in values if value is not None), None)


def sentence_on(task: "asyncio.Task[Any]") -> str:
    """Return that ``task`` is pending, and where; to be called in its loop's thread."""
    return f"{describe_task(task)} is still pending, waiting {_where(task)}"


def _where(task: "asyncio.Task[Any]") -> str:
    frames = _frames(task.get_coro())
    own = [frame for frame in frames if is_ours(frame.f_code)]
    for frame in reversed(own or frames):
        return f"in {_place(frame)}"
    return "for a result"


def _place(frame: FrameType) -> str:
    """Return where a frame stands, in a learner's words: ``Cell In[3], line 2, worker``."""
    if not is_ours(frame.f_code):
        return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}"
    file, line = frame.f_code.co_filename, frame.f_lineno
    source = linecache.getline(file, line).strip()
    name = file
    if "IPython" in sys.modules:
        from IPython.core.getipython import get_ipython

        shell = get_ipython()
        if shell is not None and (naming := getattr(shell.compile, "format_code_name", None)):
            name = " ".join(naming(file) or (file,))
        elif Path(file).parent.name.startswith("ipykernel_"):  # IPython 7 numbers no cells
            name = "a cell"
    return f"{name}, line {line}, {frame.f_code.co_name}" + (f": {source}" if source else "")


def _package(task: "asyncio.Task[Any]") -> str:
    for frame in _frames(task.get_coro())[:1]:
        return frame.f_globals.get("__name__", "").partition(".")[0]
    return ""


# ---------------------------------------------------------------- threads


def _belongs_to_kernel(thread: threading.Thread) -> bool:
    return (
        type(thread).__module__.partition(".")[0] in KERNEL_PACKAGES
        or getattr(thread, "pydev_do_not_trace", False)
        or getattr(thread, "is_pydev_daemon_thread", False)
    )


def _is_idle_worker(
    thread: threading.Thread, frame: FrameType | None, loop: asyncio.AbstractEventLoop
) -> bool:
    """Return whether ``thread`` waits for work in the loop's own pool (asyncio's or AnyIO's)."""
    if frame is None:
        return False
    pool = getattr(getattr(loop, "_default_executor", None), "_threads", ())
    if thread in pool:
        return frame.f_code.co_name == "_worker"
    if type(thread).__module__ == "anyio._backends._asyncio":
        if getattr(thread, "loop", None) is not loop:
            return False
        inner: FrameType | None = None
        outer: FrameType | None = frame
        while outer is not None and outer.f_code is not type(thread).run.__code__:
            inner, outer = outer, outer.f_back
        return inner is not None and inner.f_code is queue.Queue.get.__code__
    return False


# ---------------------------------------------------------------- the process


def _text(address: Any) -> str:
    return f"{address.ip}:{address.port}" if address else ""


def _sockets() -> list[Address]:
    """Return ``(local, remote, status)`` of each internet socket in use."""
    process = psutil.Process()
    # psutil 5, which Colab's kernels hold loaded, knows it by its older name
    name = "net_connections" if hasattr(process, "net_connections") else "connections"
    return [
        (_text(found.laddr), _text(found.raddr), found.status)
        for found in getattr(process, name)(kind="inet")
        if found.laddr
    ]


def _open_files(temporary: Path | None) -> Iterator[str]:
    """Yield open SQLite databases, and every open file in the lesson's temporary directory."""
    for path in _open_paths():
        inside = temporary is not None and _is_inside(path, temporary)
        if inside or path.removesuffix(" (deleted)").endswith(DATABASE_SUFFIXES):
            yield path


def _open_paths() -> set[str]:
    paths = {found.path for found in psutil.Process().open_files()}
    if sys.platform == "linux":  # psutil leaves out files that were deleted while open
        for descriptor in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{descriptor}")
            except OSError:
                continue
            if target.endswith(" (deleted)"):
                paths.add(target)
    return paths


def _is_inside(path: str, folder: Path) -> bool:
    return any(
        os.path.normcase(path).startswith(os.path.normcase(f"{root}{os.sep}"))
        for root in {str(folder), str(folder.resolve())}
    )


def _children() -> list[psutil.Process]:
    """Return this process's children, without the helpers that multiprocessing keeps to the end."""
    if "multiprocessing.process" in sys.modules:
        multiprocessing.active_children()  # collects those that have ended
    kept = {
        getattr(getattr(module, holder, None), number, None)
        for name, holder, number in (
            ("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
            ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
        )
        if (module := sys.modules.get(name)) is not None
    }
    return [child for child in psutil.Process().children() if child.pid not in kept]


def _command(child: psutil.Process) -> str:
    try:
        if child.status() == psutil.STATUS_ZOMBIE:
            return "ended, but nobody has waited for it"
        return " ".join(child.cmdline()[:3]) or child.name()
    except psutil.Error:
        return "just ended"


def _names(folder: Path | None) -> list[str]:
    if folder is None or not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(KEPT_NAMES))
