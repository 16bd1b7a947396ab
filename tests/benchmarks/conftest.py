"""What all benchmarks share: a table of figures with their targets, shown and then asserted."""

import math
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from looplab.project import Project
from looplab.publishing.cells import definitions_of, imports_of
from looplab.publishing.notebooks import read_notebook


@dataclass
class Figures:
    """Figures of one subject, all from one run; each is shown, also when one misses its target."""

    subject: str
    lines: list[tuple[str, str, str, bool]] = field(default_factory=list)

    def at_most(self, figure: str, measured: float, target: float, unit: str = "times") -> None:
        """Add a figure that must not be above ``target``, both in ``unit``."""
        holds = math.isfinite(measured) and measured <= target
        shown = f"at most {target:.3g} {unit}"
        self.lines.append((figure, f"{measured:.3g} {unit}", shown, holds))

    def only(self, figure: str, measured: float, unit: str = "times") -> None:
        """Add a figure that has no target but helps to read the others."""
        self.lines.append((figure, f"{measured:.3g} {unit}", "", True))

    def table(self) -> str:
        """Return the lines as text: figure | measured | target."""
        heads = (self.subject, "measured", "target", "")
        rows = [heads, *((*line[:3], "" if line[3] else "  MISSED") for line in self.lines)]
        wide = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            f"{row[0]:<{wide[0]}} | {row[1]:>{wide[1]}} | {row[2]:<{wide[2]}}{row[3]}".rstrip()
            for row in rows
        )

    def missed(self) -> list[str]:
        """Return the figures that missed their targets."""
        return [f"{line[0]}: {line[1]}, {line[2]}" for line in self.lines if not line[3]]


@pytest.fixture
def figures(
    capsys: pytest.CaptureFixture[str],
) -> Callable[[str], AbstractContextManager[Figures]]:
    """Return a function that opens a table; leaving its block prints the table and asserts it."""

    @contextmanager
    def opened(subject: str) -> Generator[Figures]:
        table = Figures(subject)
        yield table
        with capsys.disabled():
            print(f"\n\n{table.table()}\n")  # noqa: T201
        assert table.lines, f"{subject} has no figures"
        assert table.missed() == []

    return opened


@pytest.fixture(scope="session")
def names_of() -> Callable[..., dict[str, Any]]:
    """Return a function that runs cells of a lesson by their ids and returns the names they set.

    Its keywords are names that are there before. Of the set-up cell only the imports run; with
    ``definitions_only``, of another cell only what defines functions, classes and constants.
    """

    def run(
        number: str, cells: Iterable[str], *, definitions_only: bool = False, **names: Any
    ) -> dict[str, Any]:
        notebook = read_notebook(Project.here().lesson(number).path)
        sources = {cell["id"]: cell["source"] for cell in notebook["cells"]}
        for cell in cells:
            source = sources[cell]
            if cell == "setup":
                source = imports_of(source)
            elif definitions_only:
                source = definitions_of(source)
            exec(source, names)
        return names

    return run
