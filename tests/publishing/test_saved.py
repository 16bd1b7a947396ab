"""What `course check` finds in a saved notebook without running it."""

import json
from pathlib import Path
from typing import Any

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from looplab.project import CourseError, Project
from looplab.publishing.check import check
from looplab.publishing.notebooks import cleaned, write_notebook
from looplab.publishing.saved import MAX_BYTES, saved_faults


@pytest.fixture
def sound() -> NotebookNode:
    cells = [
        new_markdown_cell("# Do", id="title"),
        new_code_cell("print(1)", id="one", execution_count=1, outputs=[_stream("1\n")]),
        new_code_cell("2", id="two", execution_count=2, outputs=[_result({"text/plain": "2"}, 2)]),
    ]
    return cleaned(new_notebook(cells=cells))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "02_gather.ipynb"


def _stream(text: str) -> NotebookNode:
    return new_output("stream", name="stdout", text=text)


def _result(data: dict[str, Any], count: int) -> NotebookNode:
    return new_output("execute_result", data=data, execution_count=count)


def faults(notebook: NotebookNode, path: Path) -> list[str]:
    write_notebook(notebook, path)
    return saved_faults(path)


def test_a_sound_notebook_has_no_fault(sound: NotebookNode, path: Path) -> None:
    assert faults(sound, path) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda nb: nb.cells[1].update(source="print(2)"), "stale: the sources changed"),
        (lambda nb: nb.cells[0].update(source="# Undo"), "stale: the sources changed"),
        (lambda nb: nb.cells[1].metadata.update(tags=["claim"]), "stale: the sources changed"),
        (lambda nb: nb.cells.reverse(), "stale: the sources changed"),
        (lambda nb: nb.metadata.pop("course"), "stale: no hash"),
        (lambda nb: nb.cells[2].update(execution_count=5), "out of order: the counts are 1, 5"),
        (lambda nb: nb.cells[2].update(execution_count=None), "the counts are 1, -"),
        (
            lambda nb: nb.cells[2].outputs[0].update(execution_count=7),
            "another count than its cell",
        ),
        (
            lambda nb: nb.cells[1].outputs.append(
                new_output("error", ename="ClaimFailed", evalue="no", traceback=[])
            ),
            "failing: one ends in ClaimFailed: no",
        ),
        (lambda nb: nb.metadata.update(widgets={}), "widget state is saved"),
        (
            lambda nb: (
                nb.cells[2].outputs[0].data.update({"application/vnd.jupyter.widget-view+json": {}})
            ),
            "a widget is saved in an output of two",
        ),
        (lambda nb: nb.cells[1].metadata.update(execution={}), "the metadata of one has execution"),
        (lambda nb: nb.metadata.update(execution={"allow_errors": True}), "metadata has execution"),
        (lambda nb: nb.metadata.kernelspec.update(name="conda"), "kernelspec is not the course's"),
        (lambda nb: nb.metadata.language_info.update(version="3.11"), "language_info is not"),
        (
            lambda nb: nb.cells[1].outputs.append(_stream("<T at 0x7f3a5c001230>")),
            "a memory address",
        ),
        (
            lambda nb: nb.cells[1].outputs.append(_stream("/home/ada/x")),
            "a path of one machine: /home",
        ),
        (
            lambda nb: nb.cells[1].outputs.append(_stream("/tmp/ipykernel_12/345.py:1")),
            "a kernel's temporary file",
        ),
        (lambda nb: nb.cells[1].outputs.append(_stream("x" * MAX_BYTES)), "too large: 301 kB"),
        (lambda nb: nb.cells[2].update(id="one"), "cell 3 repeats the id one"),
        (lambda nb: nb.update(nbformat_minor=4), "saved as format 4.4"),
        (lambda nb: nb.cells[1].update(colour="red"), "not a valid notebook"),
    ],
)
def test_each_fault_is_named(sound: NotebookNode, path: Path, change: Any, fault: str) -> None:
    change(sound)
    text = json.dumps(sound)
    path.write_text(text, encoding="utf-8")
    told = saved_faults(path)
    assert any(fault in line for line in told), told


def test_a_missing_id_is_named(sound: NotebookNode, path: Path) -> None:
    del sound["cells"][1]["id"]
    path.write_text(json.dumps(sound), encoding="utf-8")
    assert "cell 2 has no id" in saved_faults(path)


def test_a_picture_that_happens_to_spell_a_path_passes(sound: NotebookNode, path: Path) -> None:
    markup = '<img alt="x" src="data:image/png;base64,AA/tmp/home/BB==">'
    sound["cells"][2]["outputs"][0]["data"]["text/html"] = markup
    assert faults(sound, path) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 3}', '{"nbformat": 4}'])
def test_a_file_that_is_no_notebook_is_one_fault(path: Path, text: str) -> None:
    path.write_text(text)
    (fault,) = saved_faults(path)
    assert fault.startswith("02_gather.ipynb is not a notebook")


def test_check_tells_faults_of_both_kinds_by_lesson(project: Project, sound: NotebookNode) -> None:
    sound["cells"][1]["source"] = "print(2)"
    write_notebook(sound, project.notebooks / "02_gather.ipynb")
    (project.notebooks / "01_blocking.ipynb").write_text("{")
    with pytest.raises(CourseError) as caught:
        check(project, [])
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("01_blocking: 01_blocking.ipynb is not a notebook")
    assert "02_gather: stale: the sources changed after the outputs were made" in lines
    assert "02_gather: the section '## Take away' is missing" in lines
