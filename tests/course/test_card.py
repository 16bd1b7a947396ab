"""Every public name of the card that the course answers stands in the code of its lesson."""

import ast
import re

import pytest

from looplab.project import Project
from looplab.publishing.index import read_index
from looplab.publishing.notebooks import read_notebook

NAMES = 38
"""Public names on the card, counted once by hand."""
WORDS = re.compile(r"`(\w+)`")


@pytest.fixture
def card(course: Project) -> dict[str, list[str]]:
    """The public names of the card by the number of their lesson; best practices are no names."""
    names: dict[str, list[str]] = {}
    for row in read_index(course).card:
        if not row.names.startswith("best practice"):
            names.setdefault(row.lesson, []).extend(WORDS.findall(row.names))
    return names


def defined_in(course: Project, lesson: str) -> set[str]:
    """Return the names that the lesson's code cells define: classes, functions and variables."""
    notebook = read_notebook(course.lesson(lesson).path)
    found: set[str] = set()
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        for node in ast.walk(ast.parse(cell["source"])):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    return found


def test_each_lesson_defines_the_cards_names(course: Project, card: dict[str, list[str]]) -> None:
    missing = {
        number: sorted(set(names) - defined_in(course, number)) for number, names in card.items()
    }
    assert {number: names for number, names in missing.items() if names} == {}


def test_the_table_holds_the_whole_card(card: dict[str, list[str]], course: Project) -> None:
    told = [row.names for row in read_index(course).card]
    practices = [name for name in told if name.startswith("best practice")]
    assert len(practices) == 8
    assert sum(map(len, card.values())) == NAMES
