"""The last cell of each lesson: prove that it left nothing behind."""

import asyncio
import contextlib
import itertools
import sys
from collections.abc import Generator
from pathlib import Path

from looplab.lab.display import show_note
from looplab.lab.errors import LessonError
from looplab.lab.silent_failures import HeldFailures, SilentFailures, collect_garbage, listener
from looplab.lab.still_open import PATIENCE, Baseline

TURNS = 5  # loop turns in which finalisers of async generators and closing transports run
PAUSE = 0.02  # seconds between two looks
LOOKS = 10  # at least, however slow the machine is

_baseline: Baseline | None = None
_starts = 0

CHECKED = (
    "Nothing left behind: no pending task, thread, server, connection, open database, temporary "
    "file or child process; no lost exception, no coroutine never awaited, no resource unclosed."
)


class Leaked(LessonError, AssertionError):
    """A lesson left something behind; the message names each thing."""


def install(*, temporary: Path | None = None) -> None:
    """Begin to listen for failures, and take what is there now as the baseline.

    ``temporary`` is the directory in which new files count as left over. Call it again to begin
    anew: what an earlier run lost or left is forgotten, and is not told later.

    Raises RuntimeError outside a running event loop.
    """
    global _baseline, _starts
    loop = asyncio.get_running_loop()
    _forget_last_errors()
    listener.install()
    forgotten = SilentFailures()
    listener.books.append(forgotten)
    collect_garbage()
    held = HeldFailures.find()
    if _baseline is not None:
        held.without(listener.known).move_to(forgotten)
    listener.known.update([*held.failed, *held.unstarted])
    listener.books[:] = [SilentFailures()]
    _baseline = Baseline(loop, temporary)
    listener.disregard(_baseline.tasks)
    _starts += 1


def uninstall() -> None:
    """Stop listening, put back what was replaced, and forget the baseline."""
    global _baseline, _starts
    listener.uninstall()
    _baseline = None
    _starts = 0


def _forget_last_errors() -> None:
    """Drop the last error a cell raised: its frames hold what an earlier run left open."""
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        with contextlib.suppress(AttributeError):
            delattr(sys, name)


@contextlib.contextmanager
def caught_leaks() -> Generator[SilentFailures]:
    """Catch what the block loses on purpose; it neither counts against the lesson nor is printed.

    Yields :class:`~looplab.lab.silent_failures.SilentFailures`; its lists are complete when the
    block has ended.
    A task that has failed without being asked, and a coroutine made in the block and not started by
    its end, count although a variable still holds them; such a coroutine is closed.
    """
    alone = not listener.installed
    listener.install()
    try:
        collect_garbage()  # what was lost before counts as lost before
        before = HeldFailures.find()
        known = listener.known.copy()
        known.update([*before.failed, *before.unstarted])
        del before
        failures = SilentFailures()
        listener.books.append(failures)
        try:
            yield failures
        finally:
            listener.install()  # the block may have replaced a filter
            collect_garbage()
            HeldFailures.find().without(known).move_to(failures)
            listener.books[:] = [book for book in listener.books if book is not failures]
    finally:
        if alone:
            listener.uninstall()


async def nothing_left_behind() -> None:
    """Show a tick if nothing that came since the set-up is still there, or was lost.

    What is only finishing gets up to a second. Raises :class:`Leaked` naming each thing, and
    LessonError when the set-up cell has not run.
    """
    if _baseline is None:
        raise LessonError("Run the set-up cell first: it notes what was there before the lesson.")
    baseline = _baseline
    listener.install()
    collect_garbage()
    await settle_down(baseline)
    collect_garbage()
    HeldFailures.find().without(listener.known).move_to(listener.books[0])
    sentences = [
        *(thing.sentence for thing in baseline.still_open()),
        *listener.book.sentences,
    ]
    if sentences:
        raise Leaked(_report(sentences))
    show_note(CHECKED, kind="tick")


async def settle_down(baseline: Baseline) -> None:
    """Wait until nothing is left, or until each thing that is has had its time."""
    began = baseline.loop.time()
    for look in itertools.count(1):
        for _ in range(TURNS):
            await asyncio.sleep(0)
        left = [min(thing.patience, PATIENCE) for thing in baseline.still_open()]
        if not left or (look > LOOKS and max(left) <= baseline.loop.time() - began):
            return
        await asyncio.sleep(PAUSE)


def _report(sentences: list[str]) -> str:
    once = dict.fromkeys(sentences)
    lines = ["The lesson left something behind:", *(f"- {sentence}" for sentence in once)]
    if _starts > 1:
        lines.append("If an earlier run stopped half way, restart the kernel and run all cells.")
    return "\n".join(lines)
