"""The reading site of a small course: whole, from what was saved, and never over other files."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from nbformat.v4 import new_markdown_cell, new_output

from looplab.kept import PREDICTION
from looplab.project import CourseError, Project
from looplab.publishing.kept import path_beside, taken_out, write_kept
from looplab.publishing.notebooks import cleaned, read_notebook, write_notebook
from looplab.publishing.site import MARK, build_site

README = """# Async patterns

What you will learn: [00](notebooks/00_start_here.ipynb).

## Ways in

For maintainers only.
"""
SYMPTOMS = "## From symptom to lesson\n\nSlow: [00 · Start here](00_start_here.ipynb)."
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def course(project: Project, write_lesson: Callable[..., Path]) -> Project:
    """A course of one lesson, with outputs as `course refresh` saves them."""
    path = write_lesson("00_start_here", look="1 + 1")
    notebook = read_notebook(path)
    title, look = notebook["cells"]
    notebook["cells"].append(type(title)({**title, "id": "symptoms", "source": SYMPTOMS}))
    note = new_markdown_cell("*Presenting?* Point at it.", id="presenting")
    note["metadata"]["slideshow"] = {"slide_type": "notes"}
    notebook["cells"].insert(1, note)
    look["execution_count"] = 1
    look["outputs"] = [
        new_output(
            "display_data",
            data={"image/png": PIXEL, "text/plain": "a pixel"},
            metadata={"image/png": {"alt": 'one "red" pixel', "width": 40}},
        )
    ]
    write_notebook(cleaned(notebook), path)
    (project.root / "README.md").write_text(README)
    return project


def test_pages_hold_the_saved_outputs_and_pictures_their_words(course: Project) -> None:
    target = course.root / "site"
    said = build_site(course, target)

    page = (target / "00_start_here.html").read_text()
    assert str(target) in said
    assert 'alt="one &quot;red&quot; pixel"' in page
    assert "data:image/png;base64," in page
    assert "Presenting?" not in page
    index = (target / "index.html").read_text()
    assert 'href="00_start_here.html"' in index
    assert "For maintainers only" not in index
    assert "From symptom to lesson" in (target / "symptoms.html").read_text()


def test_an_earlier_site_is_replaced_as_a_whole(course: Project) -> None:
    target = course.root / "site"
    target.mkdir()
    (target / MARK).touch()
    (target / "lesson_of_last_year.html").touch()
    build_site(course, target)
    assert not (target / "lesson_of_last_year.html").exists()


def test_other_files_are_never_replaced(course: Project) -> None:
    with pytest.raises(CourseError, match=r"output is .*notebooks; it must be a new folder"):
        build_site(course, course.notebooks)
    with pytest.raises(CourseError, match="it must be a folder, and it is a file"):
        build_site(course, course.root / "README.md")
    assert (course.root / "README.md").read_text() == README
    assert len(course.lessons()) == 1


def test_stale_outputs_are_named_and_nothing_is_built(course: Project) -> None:
    path = course.lesson("00").path
    path.write_text(path.read_text().replace("1 + 1", "1 + 2"))
    with pytest.raises(CourseError, match=r"00_start_here: stale.*(?s:.)*course refresh 00_start"):
        build_site(course, course.root / "site")
    assert not (course.root / "site").exists()


def test_a_link_that_leads_nowhere_is_named(course: Project) -> None:
    (course.root / "README.md").write_text(README.replace("00_start", "01_start"))
    with pytest.raises(CourseError, match=r"(?s)not whole.*01_start_here.ipynb"):
        build_site(course, course.root / "site")


def test_a_course_without_its_index_of_symptoms_is_named(course: Project) -> None:
    path = course.lesson("00").path
    notebook = read_notebook(path)
    del notebook["cells"][-1]
    write_notebook(cleaned(notebook), path)
    with pytest.raises(CourseError, match="00_start_here has no cell 'symptoms'"):
        build_site(course, course.root / "site")


def test_a_page_says_what_works_on_it_and_how_to_open_its_notebook(course: Project) -> None:
    build_site(course, course.root / "site")
    page = (course.root / "site" / "00_start_here.html").read_text()
    assert "What works on this page" in page
    assert "course open 00" in " ".join(re.sub(r"<[^>]+>", "", page).split())
    assert "prediction" not in page.partition("course-live")[2].partition("</div>")[0]


def test_a_page_is_never_made_of_two_runs(course: Project) -> None:
    path = course.lesson("00").path
    notebook = read_notebook(path)
    question = {"question": "how long", "between": [0, 1], "unit": "ms"}
    data = {"text/plain": "Your prediction, please", PREDICTION: question}
    notebook["cells"][2]["outputs"].append(new_output("display_data", data=data))
    kept = taken_out(notebook)
    write_notebook(notebook, path)
    write_kept(kept, path)
    build_site(course, course.root / "site")
    assert "course-prediction" in (course.root / "site" / "00_start_here.html").read_text()

    file = path_beside(path)
    file.write_text(file.read_text().replace('"outputs": "', '"outputs": "0'))
    with pytest.raises(CourseError, match=r"00_start_here: what is kept for the site is stale"):
        build_site(course, course.root / "elsewhere")
    assert not (course.root / "elsewhere").exists()
