"""What is kept for the reading site: beside the notebook, of the same run, and never in it."""

import json
from pathlib import Path
from typing import Any

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

from looplab.kept import CHOICES, PREDICTION
from looplab.project import CourseError
from looplab.publishing.draft import Draft
from looplab.publishing.kept import (
    MAX_BYTES,
    give_back,
    kept_faults,
    missing_faults,
    path_beside,
    taken_out,
    write_kept,
)
from looplab.publishing.notebooks import cleaned, read_notebook, write_notebook
from looplab.publishing.saved import notebook_faults, saved_faults

QUESTION = {"question": "how long", "between": [0.0, 200.0], "unit": "ms"}


def dial(*texts: str) -> dict[str, Any]:
    """A dial's results, of which the first choice was shown; the others show these texts."""
    results = [[], *([{"data": {"text/plain": text}, "metadata": {}}] for text in texts)]
    choices = [str(place) for place in range(len(results))]
    return {"name": "n", "choices": choices, "start": 0, "shown": 0, "results": results}


def notebook_with(*datas: dict[str, Any]) -> NotebookNode:
    """A notebook of one cell, with an output for each of these data."""
    shown = [new_output("display_data", data={"text/plain": "seen", **data}) for data in datas]
    cell = new_code_cell("predict()", id="ask", execution_count=1, outputs=shown)
    return cleaned(new_notebook(cells=[cell]))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "02_gather.ipynb"


def save(notebook: NotebookNode, path: Path) -> None:
    """Save as `course refresh` does."""
    kept = taken_out(notebook)
    write_notebook(notebook, path)
    write_kept(kept, path)


def test_what_is_taken_out_comes_back_to_its_own_output(path: Path) -> None:
    save(notebook_with({}, {PREDICTION: QUESTION}), path)
    assert "vnd.looplab" not in path.read_text()
    assert saved_faults(path) == []

    notebook = read_notebook(path)
    give_back(notebook, path)
    first, second = (output["data"] for output in notebook["cells"][0]["outputs"])
    assert first == {"text/plain": "seen"}
    assert second == {"text/plain": "seen", PREDICTION: QUESTION}


def test_a_lesson_with_nothing_to_keep_leaves_no_file(path: Path) -> None:
    save(notebook_with({PREDICTION: QUESTION}), path)
    assert path_beside(path).exists()
    save(notebook_with({}), path)
    assert not path_beside(path).exists()
    notebook = read_notebook(path)
    give_back(notebook, path)
    assert kept_faults(notebook, path) == []


def test_other_choices_are_as_clean_as_saved_outputs(path: Path) -> None:
    results = dial("<object at 0x7f3a5c>", "fine")
    picture = {
        "image/png": "aGF0",
        "text/html": '<img src="data:image/png;base64,aGF0">',
    }
    results["results"][2][0]["data"] |= picture
    notebook = notebook_with({CHOICES: results})
    (kept,) = taken_out(notebook)["data"]
    _, first, second = kept["data"][CHOICES]["results"]
    assert first[0]["data"] == {"text/plain": "<object at 0x…>"}
    assert second[0]["data"] == {"text/plain": "fine", "image/png": "aGF0"}


def test_a_path_of_one_machine_is_found_in_every_choice() -> None:
    notebook = notebook_with({CHOICES: dial("fine", "/home/ada/course")})
    assert "an output of ask shows a path of one machine: /home/ada" in notebook_faults(notebook)


def test_what_another_run_left_is_stale_and_never_given_back(path: Path) -> None:
    save(notebook_with({PREDICTION: QUESTION}), path)
    write_notebook(notebook_with({}, {}), path)
    (fault,) = saved_faults(path)
    assert fault == "what is kept for the site is stale: it was made by another run"
    with pytest.raises(CourseError, match="02_gather: what is kept for the site is stale"):
        give_back(read_notebook(path), path)


def test_what_changed_sources_left_is_stale(path: Path) -> None:
    save(notebook_with({PREDICTION: QUESTION}), path)
    notebook = read_notebook(path)
    notebook["cells"][0]["source"] = "predict(2)"
    assert kept_faults(cleaned(notebook), path)[0].startswith("what is kept for the site is stale")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '"x"'])
def test_an_unreadable_file_is_a_fault_and_no_crash(path: Path, text: str) -> None:
    save(notebook_with({PREDICTION: QUESTION}), path)
    path_beside(path).write_text(text)
    (fault,) = saved_faults(path)
    assert fault.startswith("what is kept for the site cannot be read: ")


def test_too_much_is_named(path: Path) -> None:
    save(notebook_with({CHOICES: dial("x" * MAX_BYTES)}), path)
    (fault,) = saved_faults(path)
    assert fault.endswith("kB are kept for the site; it must be under 1,000 kB")


def test_a_lesson_that_asks_and_kept_nothing_is_named(draft: Draft) -> None:
    assert list(missing_faults(draft)) == [
        "nothing of predict-gather is kept for the site: run `course refresh`"
    ]
    file = path_beside(draft.lesson.path)
    file.parent.mkdir()
    file.write_text(json.dumps({}))
    assert list(missing_faults(draft)) == []


def test_a_second_helping_without_dial_needs_nothing_kept(deeper: Draft) -> None:
    assert list(missing_faults(deeper)) == []
