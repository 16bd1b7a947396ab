"""The README's picture follows what its lesson has saved."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from nbformat.v4 import new_output

from looplab.project import CourseError, Project
from looplab.publishing.notebooks import read_notebook, write_notebook
from looplab.publishing.readme import PICTURE, picture_faults, write_picture


@pytest.fixture
def save(write_lesson: Callable[..., Path]) -> Callable[[bytes], None]:
    """Return a function that saves a lesson 02 with a picture of these bytes."""

    def saved(picture: bytes) -> None:
        path = write_lesson("02_gather", pattern_xray="1")
        notebook = read_notebook(path)
        data = {"image/png": base64.b64encode(picture).decode(), "text/plain": "words"}
        notebook["cells"][1]["outputs"] = [new_output("display_data", data=data)]
        write_notebook(notebook, path)

    return saved


def test_the_picture_is_the_saved_one_until_the_lesson_is_saved_anew(
    project: Project, save: Callable[[bytes], None]
) -> None:
    save(b"first run")
    assert write_picture(project) == project.root / PICTURE
    assert (project.root / PICTURE).read_bytes() == b"first run"
    assert picture_faults(project) == []

    save(b"second run")
    assert picture_faults(project) == [
        ".github/gathered.png is not what 02_gather has saved: run `course refresh 02`"
    ]
    write_picture(project)
    assert picture_faults(project) == []


def test_a_lesson_without_its_picture_is_named(
    project: Project, write_lesson: Callable[..., Path]
) -> None:
    write_lesson("02_gather", pattern_xray="1")
    with pytest.raises(CourseError, match=r"02_gather has saved no picture under .*'pattern-xray'"):
        write_picture(project)
