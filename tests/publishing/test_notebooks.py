"""Cleaning, hashing and writing notebooks."""

import json
from pathlib import Path
from typing import Any

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from looplab.project import CourseError
from looplab.publishing.notebooks import (
    cleaned,
    cleared,
    notebook_text,
    read_notebook,
    sources_hash,
    write_notebook,
)

VIEW = "application/vnd.jupyter.widget-view+json"


def notebook(*outputs: NotebookNode, **metadata: Any) -> NotebookNode:
    cell = new_code_cell("x", id="one", outputs=list(outputs), execution_count=1)
    return new_notebook(cells=[new_markdown_cell("# Do", id="title"), cell], metadata=metadata)


def shown(*outputs: NotebookNode) -> list[NotebookNode]:
    return cleaned(notebook(*outputs))["cells"][1]["outputs"]


def test_a_widget_keeps_its_words_only() -> None:
    data = {VIEW: {"model_id": "a"}, "text/plain": "a dial from 1 to 40"}
    (output,) = shown(new_output("display_data", data=data))
    assert output["data"] == {"text/plain": "a dial from 1 to 40"}


def test_a_widget_without_words_leaves_no_output() -> None:
    assert shown(new_output("display_data", data={VIEW: {}})) == []


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("<Task at 0x7f3a5c001230>", "<Task at 0x…>"),
        ("/tmp/ipykernel_12/345.py:3: UserWarning", "<cell>:3: UserWarning"),
        ('File "/var/folders/x/ipykernel_1/2.py"', 'File "<cell>"'),
        ("0x7f3a5c001230 is a number", "0x7f3a5c001230 is a number"),
    ],
)
def test_addresses_and_kernel_files_go(raw: str, clean: str) -> None:
    stream = new_output("stream", name="stderr", text=raw)
    result = new_output("display_data", data={"text/plain": raw, "text/html": raw})
    first, second = shown(stream, result)
    assert first["text"] == clean
    assert set(second["data"].values()) == {clean}


def test_pieces_of_a_stream_are_joined_where_nothing_stands_between() -> None:
    def stream(name: str, text: str) -> NotebookNode:
        return new_output("stream", name=name, text=text)

    note = new_output("display_data", data={"text/plain": "a note"})
    outputs = shown(
        stream("stdout", "on"),
        stream("stdout", "e\n10%\r20%\r"),
        stream("stdout", "99%\n"),
        stream("stderr", "oops\r\n"),
        note,
        stream("stderr", "again"),
    )
    assert [output.get("text") for output in outputs] == ["one\n99%\n", "oops\n", None, "again"]


def test_a_long_line_is_cleaned_in_linear_time() -> None:
    (output,) = shown(new_output("stream", name="stdout", text="x" * 2_000_000 + "\r"))
    assert len(output["text"]) == 2_000_000


def test_pictures_keep_their_bytes_and_metadata() -> None:
    picture = new_output(
        "display_data",
        data={"image/png": "aGF0IDB4N2YzYTVj"},
        metadata={"image/png": {"alt": "six waits", "width": 760}},
    )
    assert shown(picture) == [picture]


def test_a_picture_is_saved_once_though_a_live_notebook_carries_it_as_html_too() -> None:
    html = '<img alt="six waits" src="data:image/png;base64,aGF0">'
    data = {"image/png": "aGF0", "text/html": html, "text/plain": "six waits"}
    metadata = {"image/png": {"alt": "six waits", "width": 760}}
    (output,) = shown(new_output("display_data", data=data, metadata=metadata))
    assert output["data"] == {"image/png": "aGF0", "text/plain": "six waits"}
    assert output["metadata"] == metadata


def test_the_live_picture_is_left_out_and_the_recording_behind_it_is_kept() -> None:
    html = (
        '<div class="looplab-xray" data-recording="aGF0"><img alt="six waits" '
        'src="data:image/png;base64,aGF0"></div><script>draw()</script>'
    )
    recording = {"application/vnd.looplab.recording+json": {"version": 1, "packed": "aGF0"}}
    data = {"image/png": "aGF0", "text/html": html, "text/plain": "six waits", **recording}
    (output,) = shown(new_output("display_data", data=data))
    assert output["data"] == {"image/png": "aGF0", "text/plain": "six waits", **recording}


def test_metadata_is_the_same_whoever_ran_it() -> None:
    one = cleaned(notebook(kernelspec={"name": "a", "display_name": "A"}, widgets={"state": {}}))
    other = cleaned(notebook(language_info={"name": "python", "version": "3.13.0"}))
    assert one["metadata"] == other["metadata"]
    assert one["metadata"]["course"] == {"sources": sources_hash(one)}


def test_cleaning_and_clearing_leave_the_original_alone() -> None:
    original = notebook(new_output("stream", name="stdout", text="at 0x7f3a5c001230"))
    before = json.dumps(original)
    assert cleared(original)["cells"][1]["outputs"] == []
    cleaned(original)
    assert json.dumps(original) == before


def test_the_hash_covers_sources_types_tags_and_order_and_nothing_else() -> None:
    base = notebook()
    same = notebook(new_output("stream", name="stdout", text="1"))
    same["cells"][1].update(execution_count=9, id="other")
    same["cells"][1]["metadata"]["slideshow"] = {"slide_type": "skip"}
    assert sources_hash(same) == sources_hash(base)
    different = [notebook() for _ in range(4)]
    different[0]["cells"][1]["source"] = "y"
    different[1]["cells"][1]["metadata"]["tags"] = ["claim"]
    different[2]["cells"].reverse()
    different[3]["cells"][1]["cell_type"] = "raw"
    assert len({sources_hash(one) for one in [base, *different]}) == 5


def test_writing_is_stable_and_ends_in_one_newline(tmp_path: Path) -> None:
    path = tmp_path / "one.ipynb"
    write_notebook(notebook(), path)
    first = path.read_text(encoding="utf-8")
    write_notebook(read_notebook(path), path)
    assert path.read_text(encoding="utf-8") == first == notebook_text(notebook())
    assert first.endswith("}\n")
    assert not first.endswith("\n\n")
    assert [item.name for item in tmp_path.iterdir()] == ["one.ipynb"]


def test_a_failed_write_keeps_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "one.ipynb"
    write_notebook(notebook(), path)
    before = path.read_bytes()

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CourseError, match="No space left on device"):
        write_notebook(notebook(author="x"), path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["one.ipynb"]


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match="cannot be written: No such file"):
        write_notebook(notebook(), tmp_path / "gone" / "one.ipynb")
    with pytest.raises(CourseError, match=r"one\.ipynb cannot be read: No such file"):
        read_notebook(tmp_path / "one.ipynb")
