"""The cells of the exercises, read from the notebooks."""

import ast
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

Run = Callable[[str], Awaitable[Any]]


def notebook_cell(lesson: str, tag: str) -> str:
    """Return the source of the one cell of the lesson that has the tag."""
    cells = [
        cell["source"]
        for path in sorted(NOTEBOOKS.glob(f"{lesson}_*.ipynb"))
        if not path.stem.endswith("_deeper")
        for cell in nbformat.read(path, as_version=4)["cells"]
        if tag in cell["metadata"].get("tags", ())
    ]
    assert len(cells) == 1, f"lesson {lesson} has {len(cells)} cells tagged {tag}"
    return cells[0]


async def run_cell(source: str, names: dict[str, Any], file: str = "<cell>") -> Any:
    """Run a cell as a notebook does, awaits included; return the value of its last expression."""
    body = ast.parse(source).body
    value = None
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    await _run(compile(ast.Module(body, []), file, "exec", flags=FLAGS), names)
    if isinstance(last, ast.Expr):
        value = await _run(compile(ast.Expression(last.value), file, "eval", flags=FLAGS), names)
    return value


async def _run(code: Any, names: dict[str, Any]) -> Any:
    value = eval(code, names)
    if code.co_flags & inspect.CO_COROUTINE:
        value = await value
    return value


def imports_of(source: str) -> str:
    """Return the import statements of a cell: a lesson's set-up does more than import."""
    imports = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    return "\n".join(map(ast.unparse, imports))


@pytest.fixture
def in_lesson() -> Callable[[str], Awaitable[SimpleNamespace]]:
    """Open a lesson: ``run(tag)`` runs that cell, and ``names`` holds what cells have set."""

    async def opened(lesson: str) -> SimpleNamespace:
        names: dict[str, Any] = {}
        await run_cell(imports_of(notebook_cell(lesson, "setup")), names)

        async def run(tag: str) -> Any:
            return await run_cell(notebook_cell(lesson, tag), names, f"<{tag} of {lesson}>")

        return SimpleNamespace(run=run, names=names)

    return opened


@pytest.fixture
def source_of() -> Callable[[str, str], str]:
    """Return the source of a lesson's cell by its tag."""
    return notebook_cell


@pytest.fixture
def written() -> Callable[[str, str], dict[str, Any]]:
    """Return the names that an answer sets, given its lesson and the source that a learner wrote.

    The answer has the imports of its lesson's set-up cell, as in the notebook; what else it needs
    it imports itself.
    """

    def names(lesson: str, source: str) -> dict[str, Any]:
        found: dict[str, Any] = {"__name__": "__main__"}
        exec(imports_of(notebook_cell(lesson, "setup")), found)
        exec(compile(source, "<answer>", "exec"), found)
        return found

    return names
