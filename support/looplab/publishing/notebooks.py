"""Notebooks as files: read, cleaned, hashed and written the same way everywhere."""

import hashlib
import json
import os
import re
import tempfile
import warnings
from copy import deepcopy
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from looplab.kept import CHOICES
from looplab.project import CourseError

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE_INFO = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
INLINE_PICTURE = "data:image/png;base64,"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
PASSING_CELL_METADATA = ("execution", "ExecuteTime", "collapsed", "scrolled", "trusted")
PASSING_NOTEBOOK_METADATA = ("widgets", "execution", "signature", "toc-autonumbering")

# How a set-up cell ends its imports. What it says there follows the repository's public address, by
# `course links`, and has no part in what a lesson does.
MISSING = "except ModuleNotFoundError as missing:"
ENDING = re.compile(rf"^{MISSING}\n(?:    .*\n)*?    .*from None$", re.M)
AT_HOME = f'{MISSING}\n    raise SystemExit(f"{{missing}}. Start with: course open") from None'

ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,16}\b")
# the look-behind lets a match begin at a word's beginning only, so that a long word costs little
KERNEL_FILE = re.compile(r"(?<![^\s\"'(<>])[^\s\"'(<>]*ipykernel_\d+[/\\]\d+\.py")


def read_notebook(path: Path) -> NotebookNode:
    """Return the notebook at ``path``.

    Raises CourseError when the file cannot be read or is no notebook.
    """
    try:
        text = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return nbformat.reads(text, as_version=4)
    except OSError as error:
        raise CourseError(f"{path.name} cannot be read: {error.strerror or error}.") from None
    except Exception as error:
        # nbformat raises what a broken file happens to cause: KeyError, TypeError, its own errors
        raise CourseError(
            f"{path.name} is not a notebook that Jupyter can read ({error!r})."
        ) from None


def notebook_text(notebook: NotebookNode) -> str:
    """Return what is written to the file: JSON, keys sorted, one space deep, one newline last."""
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT).rstrip("\n") + "\n"


def write_notebook(notebook: NotebookNode, path: Path) -> None:
    """Write ``notebook`` to ``path`` whole or not at all: a reader never meets half a file.

    Raises CourseError when the folder cannot be written to.
    """
    write_text(notebook_text(notebook), path)


def write_text(text: str, path: Path) -> None:
    """Write ``text`` to ``path`` whole or not at all.

    Raises CourseError when the folder cannot be written to.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".tmp", dir=path.parent)
        draft = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            draft.chmod(0o644)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise CourseError(f"{path} cannot be written: {error.strerror or error}.") from None


def at_home(source: str) -> str:
    """Return a cell's source as it is where no public address of the repository is noted."""
    return ENDING.sub(lambda _: AT_HOME, source, count=1)


def sources_hash(notebook: NotebookNode) -> str:
    """Return the SHA-256 of what makes outputs: each cell's type, source and tags, in order."""
    parts = [
        [cell["cell_type"], at_home(cell["source"]), sorted(cell["metadata"].get("tags", []))]
        for cell in notebook["cells"]
    ]
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def recorded_hash(notebook: NotebookNode) -> str | None:
    """Return the hash that was recorded when the outputs, or a learner's copy, were made."""
    course = notebook["metadata"].get("course")
    return course.get("sources") if isinstance(course, dict) else None


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """Return a copy without what changes from run to run: times, widgets, addresses, versions."""
    clean = _with_plain_metadata(notebook)
    for cell in clean["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = _clean_outputs(cell["outputs"])
    return clean


def cleared(notebook: NotebookNode) -> NotebookNode:
    """Return a copy for a learner: no outputs, no counts, and the hash of the sources."""
    clear = _with_plain_metadata(notebook)
    for cell in clear["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = []
            cell["execution_count"] = None
    return clear


def _with_plain_metadata(notebook: NotebookNode) -> NotebookNode:
    copy = deepcopy(notebook)
    copy["nbformat"], copy["nbformat_minor"] = 4, 5
    for name in PASSING_NOTEBOOK_METADATA:
        copy["metadata"].pop(name, None)
    copy["metadata"]["kernelspec"] = dict(KERNELSPEC)
    copy["metadata"]["language_info"] = deepcopy(LANGUAGE_INFO)
    copy["metadata"]["course"] = {"sources": sources_hash(copy)}
    for cell in copy["cells"]:
        for name in PASSING_CELL_METADATA:
            cell["metadata"].pop(name, None)
    return copy


def _clean_outputs(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Return what of ``outputs`` is left to show, neighbouring pieces of one stream joined."""
    kept: list[NotebookNode] = []
    for output in outputs:
        before = kept[-1] if kept else None
        if output["output_type"] == "stream" and before and before.get("name") == output["name"]:
            before["text"] += output["text"]
        elif _clean_output(output):
            kept.append(output)
    for output in kept:
        if output["output_type"] == "stream":
            output["text"] = _steady(_as_on_a_terminal(output["text"]))
    return kept


def _as_on_a_terminal(text: str) -> str:
    """Return ``text`` with what a carriage return wrote over left out."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def _clean_output(output: NotebookNode) -> bool:
    """Clean the data of ``output`` in place; return whether it still shows anything."""
    if "data" not in output:
        return True
    output["data"].pop(WIDGET_VIEW, None)
    if "image/png" in output["data"] and INLINE_PICTURE in output["data"].get("text/html", ""):
        del output["data"]["text/html"]  # the same picture again, for screen readers while it lives
    for kind, value in output["data"].items():
        if kind.startswith("text/") and isinstance(value, str):
            output["data"][kind] = _steady(value)
    for results in output["data"].get(CHOICES, {}).get("results", []):
        results[:] = [one for one in results if _clean_output(one)]
    return bool(output["data"])


def _steady(text: str) -> str:
    return KERNEL_FILE.sub("<cell>", ADDRESS.sub("at 0x…", text))
