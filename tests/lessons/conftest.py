"""Cells of the lessons, run without a notebook: what lessons ship is attacked here."""

import ast
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from support.project import Project
from support.publishing.draft import TOP_LEVEL_AWAIT, tags
from support.publishing.notebooks import read_notebook

FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


class Cells:
    """The code cells of one lesson; ``names`` is what those that have run have set."""

    def __init__(self, lesson: str) -> None:
        notebook = read_notebook(Project.here().lesson(lesson).path)
        self._cells = {cell["id"]: cell for cell in notebook["cells"] if cell.cell_type == "code"}
        self.names: dict[str, Any] = {"__name__": "__main__"}

    async def run(self, *identities: str) -> dict[str, Any]:
        """Run cells one after another and return the names that are set by now.

        Of the set-up cell only the imports run. Raises KeyError when the lesson has no such cell.
        """
        for identity in identities:
            cell = self._cells[identity]
            source = cell["source"]
            if "setup" in tags(cell):
                source = imports_of(source)
            value = eval(compile(source, f"<{identity}>", "exec", flags=FLAGS), self.names)
            if inspect.iscoroutine(value):
                await value
        return self.names

    async def define(self, *identities: str) -> dict[str, Any]:
        """Run only what cells import and define, classes and functions, and return the names."""
        for identity in identities:
            cell = self._cells[identity]
            source = imports_of(cell["source"]) if "setup" in tags(cell) else cell["source"]
            tree = compile(source, identity, "exec", TOP_LEVEL_AWAIT)
            kept = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef
            body: list[ast.stmt] = [n for n in tree.body if isinstance(n, kept | ast.ClassDef)]
            exec(compile(ast.Module(body, []), f"<{identity}>", "exec"), self.names)
        return self.names


def imports_of(source: str) -> str:
    """Return the import statements of a cell."""
    kinds = (ast.Import, ast.ImportFrom)
    return "\n".join(ast.unparse(n) for n in ast.walk(ast.parse(source)) if isinstance(n, kinds))


@pytest.fixture
def cells_of() -> Callable[[str], Cells]:
    """Return a function that opens a lesson by its number or name: ``02``, ``02_deeper``."""
    return Cells
