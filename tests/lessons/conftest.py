"""Cells of the lessons, run without a notebook: what lessons ship is attacked here."""

from collections.abc import Callable
from typing import Any

import pytest

from looplab.project import Project
from looplab.publishing.cells import definitions_of, imports_of, run_cell
from looplab.publishing.draft import tags
from looplab.publishing.notebooks import read_notebook


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
            await run_cell(self._source(identity), self.names, f"<{identity}>")
        return self.names

    async def define(self, *identities: str) -> dict[str, Any]:
        """Run only what cells import and define, without what they run, and return the names."""
        for identity in identities:
            definitions = definitions_of(self._source(identity))
            await run_cell(definitions, self.names, f"<{identity}>")
        return self.names

    def _source(self, identity: str) -> str:
        cell = self._cells[identity]
        return imports_of(cell["source"]) if "setup" in tags(cell) else cell["source"]


@pytest.fixture
def cells_of() -> Callable[[str], Cells]:
    """Return a function that opens a lesson by its number or name: ``02``, ``02_deeper``."""
    return Cells
