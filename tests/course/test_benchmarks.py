"""The benchmarks, which run seldom, still fit the lessons whose cells they take."""

import ast
from pathlib import Path

import pytest

from looplab.project import Project
from looplab.publishing.draft import bound_names, parsed
from looplab.publishing.notebooks import read_notebook

# Lesson 20's workers run a module; tests/lessons holds it equal to the lesson's cells.
IN_WORKERS = ("test_lesson_20",)
BENCHMARKS = [
    path
    for path in sorted((Path(__file__).parents[1] / "benchmarks").glob("test_lesson_*.py"))
    if path.stem not in IN_WORKERS
]


def keys(tree: ast.AST) -> dict[ast.Subscript, str]:
    """Return the places that look something up by a word, x["word"], with their words."""
    return {
        node: word.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript)
        and isinstance(word := node.slice, ast.Constant)
        and isinstance(word.value, str)
    }


def taken(tree: ast.AST) -> set[str]:
    """Return the names of a lesson that a benchmark takes: lesson["name"]."""
    return {
        word
        for node, word in keys(tree).items()
        if isinstance(node.ctx, ast.Load)
        and isinstance(node.value, ast.Name)
        and node.value.id == "lesson"
    }


def given(tree: ast.AST) -> set[str]:
    """Return the names that a benchmark adds to a lesson's by itself."""
    return {word for node, word in keys(tree).items() if isinstance(node.ctx, ast.Store)}


def words(tree: ast.AST) -> set[str]:
    """Return the strings of a benchmark that are no such words; cells' ids are among them."""
    within = {node.slice for node in keys(tree)}
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in within
    }


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_takes_what_its_cells_define(course: Project, path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lesson = course.lesson(path.stem[-2:])
    helpings = [one for one in (lesson, lesson.other_helping) if one.path.exists()]
    cells = [cell for one in helpings for cell in read_notebook(one.path)["cells"]]
    used = [cell for cell in cells if cell["cell_type"] == "code" and cell["id"] in words(tree)]
    assert used
    defined = set().union(*(bound_names(parsed(cell)) for cell in used))
    keywords = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    assert taken(tree) - defined - given(tree) - keywords == set()
