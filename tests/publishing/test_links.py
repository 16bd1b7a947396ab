"""One address, and all links and set-up cells follow it."""

import ast
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from looplab.kept import PREDICTION
from looplab.project import CourseError, Lesson, Project
from looplab.publishing.draft import Draft
from looplab.publishing.kept import kept_faults, taken_out, write_kept
from looplab.publishing.links import (
    Repository,
    badges,
    link_faults,
    note,
    noted,
    parse,
    set_up_ending,
    without_badges,
    write_links,
)
from looplab.publishing.notebooks import read_notebook, recorded_hash, sources_hash, write_notebook
from looplab.publishing.rules.cells import LIMITS, sizes

README = "# Async patterns\n\nNotebooks that run.\n"
SET_UP = f"try:\n    import asyncio\n{set_up_ending(None)}\nstart = 1"
PLACE = '\n[tool.course]\nrepository = ""\n'


@pytest.fixture
def course(project: Project, write_lesson: Callable[..., Path]) -> Project:
    """Two lessons with a set-up cell, as they are saved; a README, and no address yet."""
    for name in ("00_start_here", "02_gather"):
        path = write_lesson(name, setup=SET_UP, more="1")
        notebook = read_notebook(path)
        notebook["cells"][1]["metadata"]["tags"] = ["setup"]
        notebook["metadata"]["course"] = {"sources": sources_hash(notebook)}
        write_notebook(notebook, path)
    (project.root / "README.md").write_text(README)
    pyproject = project.root / "pyproject.toml"
    pyproject.write_text(pyproject.read_text() + PLACE)
    return project


def set_up(project: Project, lesson: str) -> str:
    return read_notebook(project.lesson(lesson).path)["cells"][1]["source"]


@pytest.mark.parametrize(
    "address",
    [
        "ada/async-course",
        " ada/async-course ",
        "https://github.com/ada/async-course",
        "https://github.com/ada/async-course.git",
        "https://github.com/ada/async-course/",
        "github.com/ada/async-course",
        "git@github.com:ada/async-course.git",
    ],
)
def test_an_address_is_taken_as_a_browser_or_git_writes_it(address: str) -> None:
    assert parse(address) == Repository("ada", "async-course")


@pytest.mark.parametrize(
    "address",
    ["", "ada", "ada/", "/course", "ada/a/b", "-ada/x", "https://example.org/ada/x", "ada/x y"],
)
def test_what_is_no_repository_on_github_is_refused_by_name(course: Project, address: str) -> None:
    before = (course.root / "pyproject.toml").read_text()
    with pytest.raises(
        CourseError, match=r"must be a repository on GitHub, such as OWNER/NAME"
    ) as e:
        note(course, address)
    assert str(e.value).startswith(f"The address is {address!r}; ")
    assert (course.root / "pyproject.toml").read_text() == before


def test_without_an_address_nothing_is_wrong_and_nothing_can_be_written(course: Project) -> None:
    assert noted(course) is None
    assert link_faults(course) == []
    for ask in (badges, write_links):
        with pytest.raises(CourseError, match="`course links OWNER/NAME` notes one"):
            ask(course)


def test_the_address_reaches_the_readme_and_each_set_up_cell_and_changes_with_it(
    course: Project,
) -> None:
    for address in ("ada/async-course", "grace/" + "a-course-with-a-rather-long-name" * 2):
        note(course, address)
        assert [fault.partition(" ")[0] for fault in link_faults(course)] == [
            "README.md",
            "00_start_here.ipynb",
            "02_gather.ipynb",
        ]
        assert len(write_links(course)) == 3
        assert link_faults(course) == []
        assert write_links(course) == []

        text = (course.root / "README.md").read_text()
        assert text == README.replace("\n\n", f"\n\n{badges(course)}\n\n")
        assert text.count("[![") == text.count(f"{address}/HEAD") + 3 == 4
        for lesson in ("00", "02"):
            notebook = read_notebook(course.lesson(lesson).path)
            assert recorded_hash(notebook) == sources_hash(notebook)
            lines = set_up(course, lesson).splitlines()
            assert [line for line in lines if len(line) > 80 and "//" not in line] == []
            assert set_up(course, lesson).endswith("    ) from None\nstart = 1")


def test_a_page_that_has_to_do_without_a_network_leaves_the_badges_out(course: Project) -> None:
    assert without_badges(README) == README
    note(course, "ada/async-course")
    write_links(course)
    assert without_badges((course.root / "README.md").read_text()) == README


def test_a_lesson_that_was_changed_and_not_run_stays_stale(course: Project) -> None:
    path = course.lesson("02").path
    notebook = read_notebook(path)
    notebook["cells"][2]["source"] = "2"
    nbformat.write(notebook, path)
    note(course, "ada/async-course")
    write_links(course)
    notebook = read_notebook(path)
    assert recorded_hash(notebook) != sources_hash(notebook)


def test_what_is_kept_for_the_site_stays_its_lessons(course: Project) -> None:
    path = course.lesson("02").path
    notebook = read_notebook(path)
    shown = new_output("display_data", data={"text/plain": "asked", PREDICTION: {}})
    notebook["cells"][2]["outputs"] = [shown]
    kept = taken_out(notebook)
    write_notebook(notebook, path)
    write_kept(kept, path)
    note(course, "ada/async-course")
    assert path in write_links(course)
    assert kept_faults(read_notebook(path), path) == []


@pytest.mark.parametrize("address", ["", "ada/" + "a-course-with-a-rather-long-name" * 2])
def test_what_a_set_up_cell_says_of_the_address_does_not_count_as_its_length(address: str) -> None:
    repository = parse(address) if address else None
    imports = "\n".join(f"    import module_{number}" for number in range(LIMITS.folded_lines - 3))
    cell = new_code_cell(f"try:\n{imports}\n{set_up_ending(repository)}", id="setup")
    cell["metadata"]["tags"] = ["setup"]
    told = list(sizes(Draft(Lesson(Path("02_gather.ipynb")), new_notebook(cells=[cell]))))
    assert [fault for fault in told if fault.startswith("setup has")] == []


def test_where_the_course_is_missing_the_cell_says_what_to_type_there() -> None:
    """Run the cell without the course, as Colab does, and read what it exits with."""
    for repository in (Repository("ada", "async-course"), Repository("grace", "long-name" * 7)):
        cell = f"try:\n    import the_course_that_is_missing\n{set_up_ending(repository)}\n"
        ast.parse(cell)
        with pytest.raises(SystemExit) as exited:
            exec(cell, {})
        first, second = str(exited.value).splitlines()
        assert first == (
            "No module named 'the_course_that_is_missing'. Start with: course open. "
            "On Colab, run this first:"
        )
        assert second == f"%pip install -q git+https://github.com/{repository}"


def test_a_lesson_without_such_a_set_up_cell_is_named(
    course: Project, write_lesson: Callable[..., Path]
) -> None:
    write_lesson("03_more", setup="import asyncio")
    note(course, "ada/async-course")
    with pytest.raises(CourseError, match="03_more has no set-up cell whose imports end by"):
        write_links(course)
    assert set_up(course, "02") == SET_UP, "nothing is written unless all of it can be"


def test_a_pyproject_without_the_place_is_told(project: Project) -> None:
    with pytest.raises(CourseError, match=r"pyproject.toml has no \[tool.course\]"):
        note(project, "ada/async-course")
