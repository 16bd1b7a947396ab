"""Tell an exception in one line, whatever it is and however it behaves."""

import traceback
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, UnionType

from looplab.lab.trace import is_ours

LONGEST = 160
SUPPORT_FOLDER = str(Path(__file__).parent.parent)


def one_line(text: str) -> str:
    """Return ``text`` on one line of at most ``LONGEST`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def tell(error: BaseException) -> str:
    """Return the exception's type, its words and where the learner's code raised it, in one line.

    A group is told by the first exception in it. An exception without words is told by its type.
    """
    leaf, *others = leaves(error)
    words = _words(leaf)
    told = f"{type(leaf).__name__}: {words}" if words else type(leaf).__name__
    if isinstance(error, BaseExceptionGroup):
        more = f" and {len(others)} more" if others else ""
        told = f"{type(error).__name__} with {told}{more}"
    place = _place(leaf) or _place(error)
    return one_line(told) + (f", {place}" if place else "")


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group and in the groups in it; any other as it is."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def holds(error: BaseException | None, kind: type[BaseException] | UnionType) -> bool:
    """Return whether ``error`` is of that kind, or a group with one in it; None is neither."""
    return error is not None and any(isinstance(leaf, kind) for leaf in leaves(error))


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in ``error`` and those that they were raised from, each once.

    What was raised from nothing, but while another one was handled, is followed by that one. Of a
    group come the exceptions in it, not the group.
    """
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if any(one is other for other in seen):
            continue
        seen.append(one)
        behind = one.__cause__ or one.__context__
        if behind is not None:
            waiting.insert(0, behind)
        if isinstance(one, BaseExceptionGroup):
            waiting[:0] = one.exceptions
        else:
            yield one


def raised_from(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    """Return the exception in ``error`` that was raised while one of ``kind`` was handled.

    It may stand in a group; None when there is none.
    """
    for leaf in leaves(error):
        if any(isinstance(one, kind) for one in chain(leaf) if one is not leaf):
            return leaf
    return None


def _is_learners(code: CodeType) -> bool:
    """Return whether ``code`` was written by the learner: by no library, and not by the course."""
    return is_ours(code) and not code.co_filename.startswith(SUPPORT_FOLDER)


def _words(error: BaseException) -> str:
    try:
        return one_line(str(error))
    except BaseException:
        return ""


def _place(error: BaseException) -> str:
    frames = [
        (frame.f_code, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if _is_learners(frame.f_code)
    ]
    if not frames:
        return ""
    code, line = frames[-1]
    top_level = code.co_name == "<module>" or code.co_name.startswith("<cell line")  # IPython 7
    return f"in line {line}" if top_level else f"in {code.co_name}, line {line}"
