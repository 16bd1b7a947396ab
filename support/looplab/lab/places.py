"""Where in the reader's code a task was suspended: file and line, looked up after the run.

While it records, the x-ray keeps the offset in the bytecode only, which costs next to nothing; a
code object knows which line each of its offsets belongs to.
"""

import linecache
import sys
from bisect import bisect
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import NamedTuple

from looplab.lab.recording import Lane
from looplab.lab.trace import Call, Label

KEPT_PARTS = 3
"""So many of the last parts of a path are shown where it is in no package and no folder below."""


class Place(NamedTuple):
    """A line of the reader's code. ``file`` is as a reader would call it, such as ``shop/pages.py``
    or ``In [3]`` for a notebook's cell."""

    file: str
    line: int
    text: str = ""
    """What is written there, without indentation; empty where the source can't be read."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Spot(NamedTuple):
    """What a task was suspended in: names from the outside in, and the line of the innermost.

    ``place`` is None where the innermost is not the reader's. Empty names mean that the task was
    in no coroutine but its own.
    """

    names: tuple[str, ...]
    place: Place | None


NOWHERE = Spot((), None)


def spots_of(lane: Lane) -> list[Spot]:
    """Return for each step of ``lane`` what it left the task suspended in.

    The last step of a task that has ended left it in nothing: no names and no place.
    """
    spots: list[Spot] = []
    stack: list[Call] = []
    calls = iter(lane.calls)
    call = next(calls, None)
    points = lane.points
    known: dict[tuple[str, int], Spot] = {}  # for as long as the stack stays as it is
    for number, (_, _, label) in enumerate(lane.steps):
        while stack and stack[-1].last is not None and stack[-1].last <= number:
            stack.pop()
            known = {}
        while call is not None and call.first <= number:
            if call.last is None or call.last > number:
                stack.append(call)
                known = {}
            call = next(calls, None)
        point = points[number] if number < len(points) else -1
        spot = known.get((label, point))
        if spot is None:
            spot = known[label, point] = _spot(lane.name, stack, label, point)
        spots.append(spot)
    if spots and lane.outcome != "pending":
        spots[-1] = NOWHERE
    return spots


def _spot(lane: str, stack: list[Call], label: str, point: int) -> Spot:
    names = tuple(call.name for call in stack)
    if label and (not names or names[-1] != label) and label != lane:
        names = (*names, label)
    within = (label, *(call.name for call in reversed(stack)))
    owner = next((name for name in within if isinstance(name, Label)), None)
    if owner is None:
        return Spot(names, None)
    return Spot(names, _place(owner.code, point if owner is label else -1))


@lru_cache(maxsize=4096)
def _place(code: CodeType, point: int) -> Place:
    line = line_at(code, point)
    text = linecache.getline(code.co_filename, line).strip()
    return Place(shown_file(code.co_filename), line, text)


def line_at(code: CodeType, offset: int) -> int:
    """Return the line of ``code`` that the instruction at ``offset`` belongs to.

    That is the line of its ``def`` for an offset below 0.
    """
    if offset < 0:
        return code.co_firstlineno
    starts, lines = _lines(code)
    return lines[max(bisect(starts, offset) - 1, 0)]


@lru_cache(maxsize=512)
def _lines(code: CodeType) -> tuple[list[int], list[int]]:
    starts, lines = [], []
    line = code.co_firstlineno
    for start, _, found in code.co_lines():
        line = found or line
        starts.append(start)
        lines.append(line)
    return starts, lines


def shown_file(path: str) -> str:
    """Return what a reader calls the file at ``path``, without folders of this machine.

    A notebook's cell is ``In [3]``; a file below the working folder or in a package is named from
    there, such as ``shop/pages.py``; of any other the last parts are kept.
    """
    cell = _cell_of(path)
    if cell:
        return cell
    file = Path(path)
    top = file.parent
    while (top / "__init__.py").exists() and top.parent != top:
        top = top.parent
    if top != file.parent:
        return file.relative_to(top).as_posix()
    for folder in (Path.cwd(), *(Path(one) for one in sys.path if one)):
        if file.is_relative_to(folder) and folder != folder.parent:
            return file.relative_to(folder).as_posix()
    return "/".join(file.parts[-KEPT_PARTS:])


def _cell_of(path: str) -> str:
    if "IPython" not in sys.modules:
        return ""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    compiler = getattr(shell, "compile", None)
    name: Callable[[str], tuple[str, str] | None] | None
    name = getattr(compiler, "format_code_name", None)
    told = None if name is None else name(path)
    if told is None:
        return ""
    _, shown = told
    return shown.replace("In[", "In [")
