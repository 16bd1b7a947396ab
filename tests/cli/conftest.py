"""A small course in a temporary folder."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from looplab.project import Project

PYPROJECT = '[project]\nname = "tiny"\ndependencies = ["typer", "sqlalchemy[asyncio]"]\n'


def write_lesson(path: Path, source: str = "print(6 * 7)") -> None:
    """Write a lesson as an author's JupyterLab might leave it: with outputs, counts and widgets."""
    cell = new_code_cell(
        source,
        id="answer",
        execution_count=3,
        metadata={"tags": ["setup"], "execution": {"iopub.status.busy": "2026-01-01"}},
        outputs=[new_output("stream", name="stdout", text="42\n")],
    )
    notebook = new_notebook(
        cells=[new_markdown_cell(f"# Read {path.stem}", id="title"), cell],
        metadata={
            "widgets": {"state": {}},
            "kernelspec": {"name": "other", "display_name": "Other"},
        },
    )
    nbformat.write(notebook, path)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = tmp_path / "course"
    (root / "notebooks").mkdir(parents=True)
    (root / "pyproject.toml").write_text(PYPROJECT)
    for name in ("00_start_here", "02_gather", "11_streaming"):
        write_lesson(root / "notebooks" / f"{name}.ipynb")
    return Project(root)
