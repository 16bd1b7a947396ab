"""What is wrong with a notebook as it was saved, told without executing it."""

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from looplab.kept import CHOICES
from looplab.project import CourseError
from looplab.publishing.kept import kept_faults
from looplab.publishing.notebooks import (
    ADDRESS,
    KERNEL_FILE,
    KERNELSPEC,
    LANGUAGE_INFO,
    PASSING_CELL_METADATA,
    PASSING_NOTEBOOK_METADATA,
    WIDGET_VIEW,
    read_notebook,
    recorded_hash,
    sources_hash,
)

MAX_BYTES = 300_000
MACHINE_PATH = re.compile(r"(?:/home/|/Users/|/root/|/tmp/|/var/folders/|[A-Z]:\\Users\\)[\w.-]+")
DATA_URL = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]+")


def saved_faults(path: Path) -> list[str]:
    """Return what is wrong with the notebook saved at ``path``, a line each; none when it is sound.

    Stale means that the sources changed after the outputs were made; out of order, that the counts
    are not 1..n from the top.
    """
    try:
        notebook = read_notebook(path)
    except CourseError as error:
        return [str(error)]
    raw = json.loads(path.read_text(encoding="utf-8"))
    size = path.stat().st_size
    faults = list(_without_ids(raw))
    if not faults:
        faults += _invalid(notebook)
    faults += notebook_faults(notebook)
    faults += kept_faults(notebook, path)
    if size >= MAX_BYTES:
        faults.append(f"too large: {size / 1000:.0f} kB; it must stay under {MAX_BYTES // 1000} kB")
    return faults


def notebook_faults(notebook: NotebookNode) -> list[str]:
    """Return what is wrong with the outputs and metadata that ``notebook`` would be saved with."""
    return [
        *_stale(notebook),
        *_out_of_order(notebook),
        *_failing(notebook),
        *_widgets(notebook),
        *_passing(notebook),
    ]


def _without_ids(raw: dict[str, Any]) -> Iterator[str]:
    if (raw.get("nbformat"), raw.get("nbformat_minor")) != (4, 5):
        yield f"saved as format {raw.get('nbformat')}.{raw.get('nbformat_minor')}; it must be 4.5"
    ids = [cell.get("id") for cell in raw.get("cells", [])]
    for place, identity in enumerate(ids, start=1):
        if not identity:
            yield f"cell {place} has no id"
        elif identity in ids[: place - 1]:
            yield f"cell {place} repeats the id {identity}"


def _invalid(notebook: NotebookNode) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            nbformat.validate(notebook)
    except Exception as error:
        # warnings included: what a later nbformat refuses should be fixed now
        yield f"not a valid notebook: {str(error).splitlines()[0]}"


def _stale(notebook: NotebookNode) -> Iterator[str]:
    recorded = recorded_hash(notebook)
    if recorded is None:
        yield "stale: no hash of the sources is recorded"
    elif recorded != sources_hash(notebook):
        yield "stale: the sources changed after the outputs were made"


def _out_of_order(notebook: NotebookNode) -> Iterator[str]:
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in code]
    if counts != list(range(1, len(code) + 1)):
        shown = ", ".join("-" if count is None else str(count) for count in counts)
        yield f"out of order: the counts are {shown}"
    for cell in code:
        for output in cell["outputs"]:
            if output.get("execution_count", cell["execution_count"]) != cell["execution_count"]:
                yield f"out of order: an output of {cell['id']} has another count than its cell"


def _failing(notebook: NotebookNode) -> Iterator[str]:
    for cell, output in outputs(notebook):
        if output["output_type"] == "error":
            yield f"failing: {cell['id']} ends in {output['ename']}: {output['evalue']}"


def _widgets(notebook: NotebookNode) -> Iterator[str]:
    if "widgets" in notebook["metadata"]:
        yield "widget state is saved"
    for cell, output in outputs(notebook):
        if WIDGET_VIEW in output.get("data", {}):
            yield f"a widget is saved in an output of {cell['id']}"


def _passing(notebook: NotebookNode) -> Iterator[str]:
    """Yield what differs from run to run or from machine to machine."""
    for name in PASSING_NOTEBOOK_METADATA:
        if name in notebook["metadata"] and name != "widgets":
            yield f"the notebook's metadata has {name}"
    if notebook["metadata"].get("kernelspec") != KERNELSPEC:
        yield "the kernelspec is not the course's"
    if notebook["metadata"].get("language_info") != LANGUAGE_INFO:
        yield "the language_info is not the course's"
    for cell in notebook["cells"]:
        for name in PASSING_CELL_METADATA:
            if name in cell["metadata"]:
                yield f"the metadata of {cell['id']} has {name}"
    for cell, output in outputs(notebook):
        text = readable_text(output)
        for what, pattern in (
            ("a memory address", ADDRESS),
            ("a kernel's temporary file", KERNEL_FILE),
            ("a path of one machine", MACHINE_PATH),
        ):
            if match := pattern.search(text):
                yield f"an output of {cell['id']} shows {what}: {match[0]}"


def outputs(notebook: NotebookNode) -> Iterator[tuple[NotebookNode, NotebookNode]]:
    """Yield each output of ``notebook`` behind its cell."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            for output in cell["outputs"]:
                yield cell, output


def readable_text(output: NotebookNode) -> str:
    """Return what a reader may read in ``output``: streams and text, without encoded pictures."""
    if output.get("output_type") == "stream":
        return output["text"]
    parts = [
        value
        for kind, value in output.get("data", {}).items()
        if kind.startswith("text/") and isinstance(value, str)
    ]
    for results in output.get("data", {}).get(CHOICES, {}).get("results", []):
        parts += map(readable_text, results)
    return DATA_URL.sub("", "\n".join(parts))
