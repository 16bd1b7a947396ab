"""The benchmarks, which run seldom, still fit the lessons whose cells they take."""

import ast
from pathlib import Path

import pytest

from support.project import Project
from support.publishing.draft import TOP_LEVEL_AWAIT
from support.publishing.notebooks import read_notebook

BENCHMARKS = sorted((Path(__file__).parents[1] / "benchmarks").glob("test_lesson_*.py"))


def bound(tree: ast.AST) -> set[str]:
    """Return the names that code binds, wherever in it."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
                names.add(name)
            case ast.Name(name, ast.Store()):
                names.add(name)
            case ast.alias(name, alias):
                names.add(alias or name)
    return names


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
    sources = {cell["id"]: cell["source"] for cell in read_notebook(lesson.path)["cells"]}
    cells = sources.keys() & words(tree)
    assert cells
    defined = set()
    for cell in cells:
        defined |= bound(compile(sources[cell], cell, "exec", TOP_LEVEL_AWAIT))
    keywords = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    assert taken(tree) - defined - given(tree) - keywords == set()
