"""The tables that lead to the lessons are made from one file."""

from collections.abc import Callable

import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from looplab.project import CourseError, Project
from looplab.publishing.index import (
    FILE,
    Entry,
    Snippet,
    index_faults,
    read_index,
    write_index,
)
from looplab.publishing.notebooks import read_notebook, write_notebook

TABLE = """\
syllabi = ["One hour", "A day"]

[[lesson]]
name = "00_start_here"
see = "a loop"
learn = "to read a loop"
symptoms = ["You have never seen one"]
syllabi = { "One hour" = 20, "A day" = 25 }

[[lesson]]
name = "01_blocking"
see = "one call stop all"
learn = "to keep steps short"

[[card]]
names = "`run_in_executor`"
lesson = "01"
found = "holds with care: threads for waits"
"""
README = """\
# Course

## Lessons

| Lesson |
|---|
| old |

Words that stay.

## The card, snippet by snippet

| Snippet |
|---|
"""
MAP = "## Map of the course\n\n| a |\n|---|\n\nWords that stay."
HEADINGS = ("## From symptom to lesson", "## Syllabi")


@pytest.fixture
def course(project: Project) -> Project:
    """Two lessons, a README and a table for them."""
    (project.root / "support/looplab").mkdir(parents=True)
    (project.root / FILE).write_text(TABLE, encoding="utf-8")
    (project.root / "README.md").write_text(README, encoding="utf-8")
    tables = [new_markdown_cell(MAP, id="map")]
    tables += [
        new_markdown_cell(f"{h}\n\n| a |\n|---|", id=f"t{n}") for n, h in enumerate(HEADINGS)
    ]
    for name, title, cells in (("00_start_here", "Start", tables), ("01_blocking", "Stop", [])):
        opening = new_markdown_cell(f"# {title}: now\n\n20 minutes", id="title")
        notebook = new_notebook(cells=[opening, *cells])
        write_notebook(notebook, project.notebooks / f"{name}.ipynb")
    return project


@pytest.fixture
def changed(course: Project) -> Callable[[str, str], Project]:
    """Return a function that changes the table."""

    def change(old: str, new: str) -> Project:
        assert old in TABLE
        (course.root / FILE).write_text(TABLE.replace(old, new), encoding="utf-8")
        return course

    return change


def test_the_table_is_read(course: Project) -> None:
    index = read_index(course)
    assert index.entries[1] == Entry("01_blocking", "one call stop all", "to keep steps short")
    assert index.card == (Snippet("`run_in_executor`", "01", "holds with care: threads for waits"),)
    assert [(way.name, way.minutes, way.total) for way in index.syllabi] == [
        ("One hour", {"00": 20}, 20),
        ("A day", {"00": 25}, 25),
    ]


def test_tables_are_written_once_and_the_words_around_them_stay(course: Project) -> None:
    assert [line.split()[0] for line in index_faults(course)] == [
        "README.md",
        "00_start_here.ipynb",
    ]
    readme, lesson = course.root / "README.md", course.lesson("00").path
    assert write_index(course) == [readme, lesson]
    text = readme.read_text(encoding="utf-8")
    assert "| [00 · Start: now](notebooks/00_start_here.ipynb) | a loop | 20 | |\n" in text
    assert "| [01](notebooks/01_blocking.ipynb) | holds with care: threads for waits |\n" in text
    assert "| old |" not in text
    assert "\n\nWords that stay.\n\n## The card" in text
    cells = {cell["id"]: cell["source"] for cell in read_notebook(lesson)["cells"]}
    assert "| 00 · Start | to read a loop | | 20 |\n" in cells["map"]
    assert "| [01 · Stop](01_blocking.ipynb) | to keep steps short | | 20 |\n" in cells["map"]
    assert cells["map"].endswith("\n\nWords that stay.")
    assert cells["t0"].endswith("| You have never seen one | [00 · Start](00_start_here.ipynb) |")
    assert cells["t1"].splitlines()[-2:] == ["| 00 · Start | 20 | 25 |", "| Sum | 20 | 25 |"]
    assert write_index(course) == []
    assert index_faults(course) == []


def test_a_second_helping_stands_beside_its_lesson(changed: Callable[[str, str], Project]) -> None:
    table = (
        'learn = "to keep steps short"\ndeeper = "threads"\ndeeper_symptoms = ["Threads pile up"]'
    )
    project = changed('learn = "to keep steps short"', table)
    assert index_faults(project) == [
        "support/looplab/lessons.toml: lesson 01_blocking must have 'deeper' if there is a "
        "notebook 01_blocking_deeper.ipynb, and only then."
    ]
    notebook = new_notebook(cells=[new_markdown_cell("# Stop: now, deeper", id="title")])
    write_notebook(notebook, project.notebooks / "01_blocking_deeper.ipynb")
    write_index(project)
    readme = (project.root / "README.md").read_text(encoding="utf-8")
    deeper = "01_blocking_deeper.ipynb"
    assert f"| one call stop all | 20 | [deeper](notebooks/{deeper}) |\n" in readme
    cells = [cell["source"] for cell in read_notebook(project.lesson("00").path)["cells"]]
    assert f"| to keep steps short | [threads]({deeper}) | 20 |\n" in cells[1]
    assert cells[2].endswith(f"| Threads pile up | [01 · Stop, deeper]({deeper}) |")
    assert index_faults(project) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[[lesson]]", "[[lesson", "is not TOML"),
        ('name = "01_blocking"', 'name = "01_block"', "notebooks/ has 00_start_here, 01_blocking"),
        ('see = "one call stop all"', "", "lesson 01_blocking lacks 'see'"),
        (
            'see = "one call stop all"',
            "see = 1",
            "see of lesson 01_blocking is 1; it must be a str",
        ),
        ('learn = "to keep', 'lern = "to keep', "has 'lern'; known keys are name, see, learn"),
        ('"One hour" = 20', '"An hour" = 20', "'An hour' = 20; it must be whole minutes of"),
        ('"One hour" = 20', '"One hour" = 0', "'One hour' = 0; it must be whole minutes of"),
        ('lesson = "01"', 'lesson = "09"', "has lesson '09'; there is none"),
        ("holds with care:", "is fine:", "must begin with one of holds as printed"),
    ],
)
def test_a_fault_in_the_table_is_one_sentence(
    changed: Callable[[str, str], Project], old: str, new: str, said: str
) -> None:
    project = changed(old, new)
    with pytest.raises(CourseError) as caught:
        read_index(project)
    assert said in str(caught.value)
    assert index_faults(project) == [str(caught.value)]


def test_a_missing_table_heading_or_file_is_one_sentence(course: Project) -> None:
    (course.root / "README.md").write_text("## Lessons\n\nno table", encoding="utf-8")
    assert index_faults(course) == ["README.md has no table under '## Lessons'."]
    (course.root / FILE).unlink()
    (fault,) = index_faults(course)
    assert "lessons.toml cannot be read" in fault
