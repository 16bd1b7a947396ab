"""Cells of the lessons, run without a notebook: what lessons ship is attacked here."""

import ast
import asyncio
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from looplab.project import Project
from looplab.publishing.cells import definitions_of, imports_of, run_cell
from looplab.publishing.draft import tags
from looplab.publishing.notebooks import read_notebook


class Cells:
    """The cells of one lesson; ``names`` is what those that have run have set."""

    def __init__(self, lesson: str) -> None:
        notebook = read_notebook(Project.here().lesson(lesson).path)
        self._cells = {cell["id"]: cell for cell in notebook["cells"]}
        self.names: dict[str, Any] = {"__name__": "__main__"}

    async def run(self, *identities: str) -> dict[str, Any]:
        """Run cells of code one after another and return the names that are set by now.

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

    def source(self, identity: str) -> str:
        """Return a cell of code or of prose as it stands. Raises KeyError where there is none."""
        return self._cells[identity]["source"]

    def defined(self, identity: str, name: str) -> ast.AST:
        """Return a function or class that a cell defines, at any depth."""
        nodes = ast.walk(ast.parse(self.source(identity)))
        return next(node for node in nodes if getattr(node, "name", "") == name)

    def _source(self, identity: str) -> str:
        cell = self._cells[identity]
        return imports_of(cell["source"]) if "setup" in tags(cell) else cell["source"]


@pytest.fixture
def cells_of() -> Callable[[str], Cells]:
    """Return a function that opens a lesson by its number or name: ``02``, ``02_deeper``."""
    return Cells


@pytest.fixture
def bare() -> Callable[..., str]:
    """Return what gives a piece of code back without docstrings and hints, to compare it.

    So code that a module holds is compared with the same code in a cell. ``keep`` names arguments
    whose hints count.
    """

    def without(code: ast.AST, keep: Collection[str] = ()) -> str:
        for one in ast.walk(code):
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                one.body = one.body[1:] if ast.get_docstring(one) else one.body
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
                one.returns = None
                if one.body and ast.unparse(one.body[-1]) == "return None":
                    one.body.pop()
            if isinstance(one, ast.arg) and one.arg not in keep:
                one.annotation = None
        return ast.unparse(code)

    return without


@pytest.fixture
def losing_a_cancel(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a block in which one command of a client of Redis loses a cancel, once.

    So does redis-py on Python 3.11 now and then, on any Python here: the command waits until it is
    cancelled, keeps that to itself and answers. The block gives the list of commands that did it.
    """

    @contextmanager
    def losing(client: Any, command: str) -> Generator[list[str]]:
        send, lost = getattr(client, command), []

        async def sent(*words: Any, **named: Any) -> Any:
            if not lost:
                lost.append(command)
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
            return await send(*words, **named)

        with monkeypatch.context() as changes:
            changes.setattr(client, command, sent)
            yield lost

    return losing
