"""The README's picture: an x-ray as the last run of a lesson saved it."""

import base64
from pathlib import Path

from looplab.project import CourseError, Project
from looplab.publishing.notebooks import read_notebook

LESSON, CELL = "02", "pattern-xray"
PICTURE = Path(".github") / "gathered.png"


def write_picture(project: Project) -> Path:
    """Write the picture that the lesson has saved to the file that the README shows; return it.

    Raises CourseError when the lesson's cell has saved no picture.
    """
    target = project.root / PICTURE
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(saved_picture(project))
    return target


def picture_faults(project: Project) -> list[str]:
    """Return a line if the README's picture is not the one that the lesson has saved."""
    path = project.root / PICTURE
    if path.is_file() and path.read_bytes() == saved_picture(project):
        return []
    name = project.lesson(LESSON).name
    return [f"{PICTURE.as_posix()} is not what {name} has saved: run `course refresh {LESSON}`"]


def saved_picture(project: Project) -> bytes:
    """Return the PNG that the lesson's cell has saved. Raises CourseError when there is none."""
    lesson = project.lesson(LESSON)
    for cell in read_notebook(lesson.path)["cells"]:
        for output in cell.get("outputs", []) if cell["id"] == CELL else []:
            if "image/png" in output.get("data", {}):
                return base64.b64decode(output["data"]["image/png"])
    raise CourseError(f"{lesson.name} has saved no picture under its cell {CELL!r}.")
