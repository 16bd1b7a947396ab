"""What saved outputs hold for the reading site alone, in a file beside the notebook.

A dial's other results would make a notebook several times as large for those who run it and have
no use for them. So `course refresh` takes them out of the outputs into ``notebooks/.kept``, and
the site gives them back to the outputs that they were taken from.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbformat import NotebookNode, from_dict

from looplab.kept import PREFIX
from looplab.project import CourseError
from looplab.publishing.draft import Draft, called_names
from looplab.publishing.notebooks import recorded_hash, write_text

FOLDER = ".kept"
MAX_BYTES = 1_000_000
LEAVE_SOMETHING = {"predict", "dial"}

Kept = dict[str, Any]


def path_beside(notebook: Path) -> Path:
    """Return where what belongs to the notebook at this path is kept."""
    return notebook.parent / FOLDER / f"{notebook.stem}.json"


def taken_out(notebook: NotebookNode) -> Kept:
    """Take what is for the site alone out of a clean ``notebook`` and return it, as JSON.

    ``sources`` and ``outputs`` are the hashes of what it belongs to; ``data`` has the id of a cell,
    the place of its output and the output's data by MIME type, for each output.
    """
    found = []
    for cell in notebook["cells"]:
        for place, output in enumerate(cell.get("outputs", [])):
            data = output.get("data", {})
            ours = {kind: data.pop(kind) for kind in sorted(data) if kind.startswith(PREFIX)}
            if ours:
                found.append({"cell": cell["id"], "output": place, "data": ours})
    return {"sources": recorded_hash(notebook), "outputs": _outputs_hash(notebook), "data": found}


def write_kept(kept: Kept, notebook: Path) -> None:
    """Keep what was taken out of the notebook at this path; no file is left if it is nothing.

    Raises CourseError when the folder cannot be written to.
    """
    path = path_beside(notebook)
    if kept["data"]:
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise CourseError(f"{path.parent} cannot be made: {error.strerror or error}.") from None
        write_text(kept_text(kept), path)
    else:
        path.unlink(missing_ok=True)


def kept_text(kept: Kept) -> str:
    """Return what is written to the file."""
    return json.dumps(kept, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def give_back(notebook: NotebookNode, path: Path) -> None:
    """Put what is kept for the notebook at ``path`` back into the outputs of ``notebook``.

    Raises CourseError when it belongs to another run.
    """
    file = path_beside(path)
    if not file.exists():
        return
    if faults := kept_faults(notebook, path):
        raise CourseError("\n".join(f"{path.stem}: {fault}" for fault in faults))
    cells = {cell["id"]: cell for cell in notebook["cells"]}
    for one in _read(file)["data"]:
        cells[one["cell"]]["outputs"][one["output"]]["data"].update(from_dict(one["data"]))


def kept_faults(notebook: NotebookNode, path: Path) -> list[str]:
    """Return what is wrong with what is kept for the notebook at ``path``, if anything is kept."""
    file = path_beside(path)
    if not file.exists():
        return []
    try:
        kept = _read(file)
        belongs = kept["sources"], kept["outputs"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"what is kept for the site cannot be read: {error!r}"]
    if belongs != (recorded_hash(notebook), _outputs_hash(notebook)):
        return ["what is kept for the site is stale: it was made by another run"]
    if (size := file.stat().st_size) >= MAX_BYTES:
        return [f"{size / 1000:.0f} kB are kept for the site; it must be under 1,000 kB"]
    return []


def missing_faults(draft: Draft) -> Iterator[str]:
    """Yield a line if the lesson asks for a prediction or has a dial, and nothing is kept."""
    leaving = [cell["id"] for cell in draft.code if called_names(cell) & LEAVE_SOMETHING]
    if leaving and not path_beside(draft.lesson.path).exists():
        yield f"nothing of {leaving[0]} is kept for the site: run `course refresh`"


def _read(file: Path) -> Kept:
    return json.loads(file.read_text(encoding="utf-8"))


def _outputs_hash(notebook: NotebookNode) -> str:
    every = [[cell["id"], cell.get("outputs", [])] for cell in notebook["cells"]]
    text = json.dumps(every, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
