"""A cell run in a kernel that no set-up cell has prepared."""

import subprocess
import sys
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient


def errors(*sources: str) -> list[list[Any]]:
    """Run cells in a fresh kernel; return the tracebacks that each of them shows."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    NotebookClient(notebook, kernel_name="python3", allow_errors=True).execute()
    return [
        [one["traceback"] for one in cell["outputs"] if one["output_type"] == "error"]
        for cell in notebook.cells
    ]


def test_a_cell_run_before_the_set_up_cell_gets_one_sentence_and_other_errors_their_traceback() -> (
    None
):
    early, zero, started, late, division = errors(
        "await shop.warm()",
        "1 / 0",
        "from looplab.lab.session import start; start()",
        "await shop.warm()",
        "1 / 0",
    )
    assert started == []
    for shown in (early, late):
        (traceback,) = shown
        assert len(traceback) == 1
        assert "`shop` is not defined yet: run the cells above" in traceback[0]
    for shown in (zero, division):
        (traceback,) = shown
        assert any("ZeroDivisionError" in line for line in traceback)
        assert len(traceback) > 1


@pytest.mark.parametrize("heavy", ["fastapi", "matplotlib", "sqlalchemy", "httpx"])
def test_a_kernel_starts_without_importing_the_course(heavy: str) -> None:
    program = f"import sys, looplab.kernel; sys.exit({heavy!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
