"""A lesson as it stands in its file, and what the house rules, the guide and the site ask of it."""

import ast
import re
from dataclasses import dataclass
from functools import cached_property

from nbformat import NotebookNode

from looplab.project import Lesson
from looplab.publishing import markdown

YOUR_TITLE = "(a title of your own)"
PREVIEW = "**You will be able to**"

# Level-2 headings, in this order. "Predict" may be "## Predict" or "## Predict: how long?";
# "What breaks" needs its colon and comes once for each failure. Other headings may stand between.
SKELETON: tuple[str, ...] = (
    "Set-up",
    YOUR_TITLE,
    "Predict",
    YOUR_TITLE,
    "Compare",
    "What breaks",
    "Ship it",
    "Exercise",
    "Take away",
)
# A second helping is looked up, not read through: sections of any order, each alone.
SKELETON_OF_DEEPER: tuple[str, ...] = ("Set-up", YOUR_TITLE, "Sources")
# Lesson 00 shows the instruments: nothing breaks, nothing is shipped.
SKELETON_OF: dict[str, tuple[str, ...]] = {
    "00": (
        "Set-up",
        "Predict",
        "Compare",
        "Exercise",
        "Map of the course",
        "From symptom to lesson",
        "Syllabi",
        "Take away",
    ),
}

MINUTES = re.compile(r"\b(\d+) minutes\b")
EXERCISE_MINUTES = re.compile(r"\b(\d+)(?: more)?(?: minutes)? for the exercise\b")
TOP_LEVEL_AWAIT = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


@dataclass(frozen=True, slots=True)
class Section:
    """A level-2 heading and the cells under it, its own first."""

    title: str
    cells: tuple[NotebookNode, ...]

    @property
    def markdown(self) -> list[str]:
        """The sources of its markdown cells."""
        return [cell["source"] for cell in self.cells if cell["cell_type"] == "markdown"]


@dataclass(frozen=True)
class Draft:
    """A lesson as it stands, with what the rules ask about it."""

    lesson: Lesson
    notebook: NotebookNode

    @property
    def cells(self) -> list[NotebookNode]:
        return self.notebook["cells"]

    @cached_property
    def code(self) -> list[NotebookNode]:
        return [cell for cell in self.cells if cell["cell_type"] == "code"]

    @cached_property
    def markdown(self) -> list[NotebookNode]:
        return [cell for cell in self.cells if cell["cell_type"] == "markdown"]

    @property
    def title(self) -> str:
        """The level-1 heading, which the first cell begins with; empty where there is none."""
        found = headings(self.cells[0], level=1) if self.cells else []
        return found[0] if found else ""

    @cached_property
    def notes(self) -> list[NotebookNode]:
        """What only the speaker's view of the slides shows."""
        return [cell for cell in self.cells if slide_type(cell) == "notes"]

    @cached_property
    def sections(self) -> list[Section]:
        """The sections in order; a cell with several level-2 headings belongs to the last."""
        found: list[tuple[str, list[NotebookNode]]] = []
        for cell in self.cells:
            titles = headings(cell, level=2)
            found += [(title, [cell]) for title in titles]
            if not titles and found:
                found[-1][1].append(cell)
        return [Section(title, tuple(cells)) for title, cells in found]

    @cached_property
    def opening(self) -> str:
        """The markdown before the first level-2 heading."""
        parts = []
        for cell in self.cells:
            if headings(cell, level=2):
                break
            if cell["cell_type"] == "markdown":
                parts.append(cell["source"])
        return "\n\n".join(parts)

    @cached_property
    def skeleton(self) -> tuple[str, ...]:
        if self.lesson.deeper:
            return SKELETON_OF_DEEPER
        return SKELETON_OF.get(self.lesson.number, SKELETON)

    def section(self, name: str) -> Section | None:
        """Return the first section that the skeleton calls ``name``."""
        return next((part for part in self.sections if fits(part.title, name)), None)


def fits(title: str, name: str) -> bool:
    """Return whether a heading ``title`` is the one that the skeleton calls ``name``."""
    return (title == name and name != "What breaks") or title.startswith(f"{name}: ")


def headings(cell: NotebookNode, level: int | None = None) -> list[str]:
    """Return the headings of a markdown cell, of one level or of all; none of a code cell."""
    return markdown.headings(cell["source"], level) if cell["cell_type"] == "markdown" else []


def tags(cell: NotebookNode) -> list[str]:
    """Return the cell's tags."""
    return list(cell["metadata"].get("tags", []))


def slide_type(cell: NotebookNode) -> str | None:
    """Return what the cell is in a slide show; None where it does not say."""
    return cell["metadata"].get("slideshow", {}).get("slide_type")


def linked_lessons(text: str) -> list[str]:
    """Return the names of the notebooks that Markdown links to, in order."""
    targets = (link.target.partition("#")[0] for link in markdown.links(text))
    return [
        target.rpartition("/")[2].removesuffix(".ipynb")
        for target in targets
        if "://" not in target and target.endswith(".ipynb")
    ]


def minutes(draft: Draft) -> int | None:
    """Return the minutes that the lesson states before its first section."""
    match = MINUTES.search(draft.opening)
    return int(match[1]) if match else None


def exercise_minutes(draft: Draft) -> int | None:
    """Return the minutes that the exercise takes, where the opening states them by themselves."""
    match = EXERCISE_MINUTES.search(draft.opening)
    return int(match[1]) if match else None


def bound_names(tree: ast.AST) -> set[str]:
    """Return the names that code binds, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
                names.add(name)
            case ast.Name(name, ast.Store() | ast.Del()):
                names.add(name)
            case ast.alias(name, alias):
                names.add(alias or name.partition(".")[0])
            case ast.arg(name) | ast.ExceptHandler(_, str(name)):
                names.add(name)
    return names


def parsed(cell: NotebookNode) -> ast.AST:
    """Return the tree of a code cell; an empty one where it is no Python."""
    try:
        return compile(cell["source"], cell["id"], "exec", TOP_LEVEL_AWAIT)
    except SyntaxError:
        return ast.Module([], [])  # a rule of its own says so


def called_names(cell: NotebookNode) -> set[str]:
    """Return what a code cell calls: ``claim`` for ``claim(...)``, ``reveal`` for ``x.reveal``."""
    names = set()
    for node in ast.walk(parsed(cell)):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                names.add(node.func.id)
            elif isinstance(node.func, ast.Attribute):
                names.add(node.func.attr)
    return names
