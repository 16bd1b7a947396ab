"""How soon each dial of the course answers, at each of its buttons."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from looplab.project import Lesson, Project
from looplab.publishing.draft import tags
from looplab.publishing.notebooks import read_notebook

pytestmark = pytest.mark.benchmark

ANSWERS_WITHIN = (
    1.5  # seconds, of which two experiments take 1.0 and 1.1, at the ends of their scales
)
TURN_EACH = """\
import sys as _sys
import time as _time

_lines = []
for _name, _dial in _sys.modules["looplab.lab.dial"]._open.items():
    for _text, _value in _dial.buttons.options:
        _began = _time.perf_counter()
        await _dial.turn(_value)
        _lines.append(f"{_name}\\t{_text}\\t{_time.perf_counter() - _began}")
print("\\n".join(_lines))
"""


def with_dial(lesson: Lesson) -> bool:
    return any("dial" in tags(cell) for cell in read_notebook(lesson.path)["cells"])


LESSONS = [lesson for lesson in Project.here().lessons() if with_dial(lesson)]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.number)
def test_a_dial_answers_at_once(
    figures: Callable[[str], AbstractContextManager[Any]], lesson: Lesson
) -> None:
    notebook = read_notebook(lesson.path)
    last = max(place for place, cell in enumerate(notebook["cells"]) if "dial" in tags(cell))
    notebook["cells"][last + 1 :] = [new_code_cell(TURN_EACH)]
    folder = {"metadata": {"path": str(lesson.path.parent)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=folder).execute()
    (printed,) = notebook["cells"][-1]["outputs"]
    with figures(f"{lesson.number}: a turn takes") as table:
        for line in printed["text"].splitlines():
            name, button, seconds = line.split("\t")
            table.at_most(f"{name}: {button}", float(seconds), ANSWERS_WITHIN, "s")
