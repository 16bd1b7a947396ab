"""How a check runs: the learner's code in a sandbox, a judge beside it, one line in the end."""

import asyncio
import gc
import inspect
import re
import warnings
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any

from looplab.exercises.sandbox import Sandbox
from looplab.exercises.verdicts import Verdict, Wrong, wrong
from looplab.lab.display import show_note
from looplab.lab.units import ms

LIMIT = 15_000  # milliseconds that all runs of a check may take together
PATIENCE = 4_500  # milliseconds that one of them may take

# A coroutine that never ran says nothing new beside one of these.
TELLS_ALL = frozenset(
    {
        "never-ends",
        "left-running",
        "cancels-itself",
        "exits",
        "blocks-the-loop",
        "runs-away",
        "reaches-too-far",
    }
)

NEVER_AWAITED = r"coroutine '(?P<name>.*)' was never awaited"
_never_awaited = re.compile(NEVER_AWAITED).match

Judge = Callable[[Sandbox], Awaitable[str]]


async def check(judge: Judge, *, limit: float | None = None) -> Verdict:
    """Run ``judge`` with a sandbox, show what it finds as one line, and return it.

    ``judge`` returns the line for work that passes and raises :class:`Wrong` for work that does
    not. ``limit`` is how long the learner's code may take in all, in seconds. Unless it is given,
    that is 15 s, and 4.5 s for each run on the sandbox, at the pace of the course.

    Nothing that the learner's code does raises here; see :mod:`looplab.exercises.sandbox` and
    :mod:`looplab.exercises.watchdog` for the little that cannot be survived. A fault of the judge's
    own does raise.
    """
    with _new_garbage_only(), warnings.catch_warnings(record=True) as heard:
        # The learner's code is the judge's to criticise, not SQLAlchemy's or a process pool's; only
        # a coroutine that was never awaited is told by nothing but a warning.
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", NEVER_AWAITED, RuntimeWarning)
        verdict = await _verdict(judge, _sandbox(limit))
        gc.collect()
    forgotten = [found["name"] for one in heard if (found := _never_awaited(str(one.message)))]
    if forgotten and verdict.mistake not in TELLS_ALL:
        told = wrong("forgotten-await", _once_each(forgotten))
        verdict = Verdict(False, told.message, told.mistake.name)
    show_note(verdict.message, kind="tick" if verdict.passed else "hint")
    return verdict


@contextmanager
def _new_garbage_only() -> Generator[None]:
    """Keep objects from before out of collections inside the block.

    What was lost before is not told as the learner's, and collecting takes milliseconds.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _sandbox(limit: float | None) -> Sandbox:
    if limit is None:
        return Sandbox(ms(LIMIT), patience=ms(PATIENCE))
    return Sandbox(limit)


async def _verdict(judge: Judge, sandbox: Sandbox) -> Verdict:
    try:
        async with sandbox:
            verdict = Verdict(True, await judge(sandbox))
    except Wrong as found:
        verdict = _missed(found)
    except Exception:
        if sandbox.offence is None:
            raise
        verdict = _missed(sandbox.offence)
    # What went too far is told first: it may be the cause of whatever else was found.
    return verdict if sandbox.offence is None else _missed(sandbox.offence)


def _missed(found: Wrong) -> Verdict:
    return Verdict(False, found.message, found.mistake.name)


def _once_each(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in names))


def require_function(given: object, *, example: str) -> Callable[..., Any]:
    """Return ``given`` if it can be called; ``example`` is the call that the learner should write.

    Raises Wrong for the rest. A coroutine, a task or a generator is closed, so that it is not
    reported as forgotten.
    """
    if inspect.iscoroutine(given) or isinstance(given, asyncio.Future):
        (given.close if inspect.iscoroutine(given) else given.cancel)()
        raise wrong("called-instead-of-passed", f"write {example}")
    if inspect.isasyncgen(given) or inspect.isgenerator(given):
        raise wrong("called-instead-of-passed", f"write {example}")
    if isinstance(given, type) or not callable(given):
        name = given.__name__ if isinstance(given, type) else type(given).__name__
        raise wrong("wrong-type", f"it got {name}; write {example}")
    return given
