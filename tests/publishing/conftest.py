"""Small lessons in a temporary folder, and one that keeps every house rule."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from looplab.project import Lesson, Project
from looplab.publishing.draft import Draft

WriteLesson = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "tiny"\ndependencies = []\n')
    return Project(tmp_path)


@pytest.fixture
def write_lesson(project: Project) -> WriteLesson:
    """Return a function that writes a lesson; each keyword is a code cell's id and source."""

    def write(name: str = "02_gather", /, **cells: str) -> Path:
        nodes = [
            new_code_cell(source, id=identity.replace("_", "-"))
            for identity, source in cells.items()
        ]
        path = project.notebooks / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=[new_markdown_cell("# Do", id="title"), *nodes]), path)
        return path

    return write


# A lesson that keeps every house rule: (id, kind or tag, source). Tests break one rule at a time.
SOUND: tuple[tuple[str, str, str], ...] = (
    (
        "title",
        "markdown",
        "# Fetch independent results together\n*Six questions, one wait.*\n\n"
        "From the card: `DashboardService`.\n\n```python\nawait asyncio.gather(user, orders)\n```",
    ),
    (
        "you-will-see",
        "markdown",
        "**You will be able to**\n\n- one thing\n- another\n\n"
        "**30 minutes**, and 15 for the exercise.\n\n"
        "| Before | Why |\n|---|---|\n| [01 · Never block the loop](01_blocking.ipynb) | tasks |",
    ),
    ("set-up-title", "markdown", "## Set-up\nThe shop is 50 ms away."),
    ("set-up", "setup", "from looplab.lab import start\n\nstart()"),
    ("one-by-one", "markdown", "## One question after another\nEach waits its turn."),
    ("run-one-by-one", "code", "slow = 6"),
    ("predict-title", "markdown", "## Predict\nHow long at best?"),
    ("predict-gather", "predict", 'guess = predict("gathered", between=(0, 400))'),
    ("all-at-once", "markdown", "## All at once\nLook at the picture."),
    ("run-all-at-once", "code", "fast = 1"),
    ("compare-title", "markdown", "## Compare\nYour guess beside the run."),
    ("reveal-guess", "code", "guess.reveal(fast)"),
    ("turn-the-dial", "dial", "dial(run)"),
    ("one-session", "markdown", "## What breaks: two branches, one session\nThey take turns."),
    ("claim-one-session", "claim", 'claim("the branches take turns", True)'),
    ("practice-title", "markdown", "## Ship it\nOne SELECT where possible."),
    ("run-select", "code", "one = 1"),
    ("exercise-title", "markdown", "## Exercise: a product page\nHint: open a session a branch."),
    ("exercise-page", "exercise", "page = None"),
    ("check-page", "check", "check(page)"),
    ("solve-page", "solution", "page = 1"),
    (
        "take-away",
        "markdown",
        "## Take away\nGather what is independent. [asyncio's tasks]"
        "(https://docs.python.org/3/library/asyncio-task.html). [Again](#Predict).",
    ),
    ("nothing-left", "hygiene", "await nothing_left_behind()"),
)


# A second helping that keeps every house rule.
SOUND_DEEPER: tuple[tuple[str, str, str], ...] = (
    (
        "title",
        "markdown",
        "# Fetch independent results together, deeper\n*What else hurts.*\n\n"
        "What [the lesson](02_gather.ipynb) has no room for.",
    ),
    ("set-up-title", "markdown", "## Set-up\nRun it first."),
    ("set-up", "setup", "from looplab.lab import start\n\nstart()\nshop = 1"),
    ("one-select", "markdown", "## One SELECT instead of three\nIt is quicker."),
    ("define-select", "code", "def select(rows):\n    return [row + shop for row in rows]"),
    ("claim-select", "claim", 'claim("one is enough", select([1]) == [2])'),
    ("pool", "markdown", "## A fan-out larger than the pool\nIt waits."),
    ("fill-pool", "code", "held = shop"),
    (
        "sources",
        "markdown",
        "## Sources\n[asyncio's tasks](https://docs.python.org/3/library/asyncio-task.html).",
    ),
    ("nothing-left", "hygiene", "await nothing_left_behind()"),
)


def _cell(identity: str, kind: str, source: str) -> NotebookNode:
    if kind == "markdown":
        cell = new_markdown_cell(source, id=identity)
    else:
        cell = new_code_cell(source, id=identity)
        if kind != "code":
            cell["metadata"]["tags"] = [kind]
        if kind in ("setup", "solution"):
            cell["metadata"]["jupyter"] = {"source_hidden": True}
    begins = identity == "title" or source.startswith("## ")
    cell["metadata"]["slideshow"] = {"slide_type": "slide" if begins else "-"}
    return cell


@pytest.fixture
def draft(project: Project) -> Draft:
    """A lesson 02 that keeps every house rule."""
    (project.notebooks / "01_blocking.ipynb").write_text("{}")
    notebook = new_notebook(cells=[_cell(*parts) for parts in deepcopy(SOUND)])
    return Draft(Lesson(project.notebooks / "02_gather.ipynb"), notebook)


@pytest.fixture
def deeper(draft: Draft) -> Draft:
    """The second helping of that lesson, both in their files."""
    nbformat.write(draft.notebook, draft.lesson.path)
    lesson = draft.lesson.other_helping
    notebook = new_notebook(cells=[_cell(*parts) for parts in deepcopy(SOUND_DEEPER)])
    nbformat.write(notebook, lesson.path)
    return Draft(lesson, notebook)
