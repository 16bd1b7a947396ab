"""What leads to the lessons names every one of them and no other."""

import re
import tomllib

import pytest

from support.project import Lesson, Project
from support.publishing.draft import Draft, linked_lessons, minutes
from support.publishing.index import index_faults
from support.publishing.markdown import links, prose
from support.publishing.notebooks import read_notebook
from support.publishing.readme import PICTURE, picture_faults
from support.publishing.rules.wording import SLIPPERY

ROW = re.compile(
    r"^\|\s*\[[^\]]+\]\(notebooks/(?P<name>\w+)\.ipynb\)[^|]*\|(?P<rest>.*)\|\s*$", re.M
)
COMMANDS = (
    "python3 -m pip install uv && python3 -m uv run course open",
    "python3 -m pip install uv && python3 -m uv run pytest",
)


@pytest.fixture(scope="module")
def readme(course: Project) -> str:
    return (course.root / "README.md").read_text(encoding="utf-8")


def stated(readme: str) -> dict[str, int]:
    """Return the minutes that the README's table states, by lesson."""
    rows = {match["name"]: re.findall(r"\b\d+\b", match["rest"]) for match in ROW.finditer(readme)}
    return {name: int(numbers[-1]) for name, numbers in rows.items()}


def test_the_readme_names_every_lesson_once_in_order_and_no_other(
    course: Project, readme: str
) -> None:
    assert list(stated(readme)) == [lesson.name for lesson in course.lessons()]
    assert len(ROW.findall(readme)) == len(course.lessons())


def test_the_readme_and_the_lesson_state_the_same_minutes_and_title(
    readme: str, lesson: Lesson
) -> None:
    draft = Draft(lesson, read_notebook(lesson.path))
    assert stated(readme).get(lesson.name) == minutes(draft)
    assert f"[{lesson.number} · {draft.title}](notebooks/{lesson.path.name})" in readme


def test_the_readme_shows_the_two_commands_first(readme: str) -> None:
    first_screen = "\n".join(readme.splitlines()[:30])
    assert [command for command in COMMANDS if command not in first_screen] == []


def test_the_readme_links_to_files_that_exist(course: Project, readme: str) -> None:
    relative = [link.target.partition("#")[0] for link in links(readme) if "://" not in link.target]
    assert [target for target in relative if target and not (course.root / target).exists()] == []


def test_the_readme_speaks_like_the_lessons(readme: str) -> None:
    assert SLIPPERY.findall(prose(readme)) == []


def test_the_map_in_lesson_00_names_every_lesson_and_no_other(course: Project) -> None:
    first = course.lesson("00")
    section = Draft(first, read_notebook(first.path)).section("Map of the course")
    assert section is not None
    text = "\n".join(cell["source"] for cell in section.cells if cell["cell_type"] == "markdown")
    named = linked_lessons(text)
    assert sorted({first.name, *named}) == [lesson.name for lesson in course.lessons()]
    assert len(named) == len(set(named)), "a lesson is named twice in the map"


def test_the_tables_that_lead_to_lessons_say_what_lessons_toml_says(course: Project) -> None:
    assert index_faults(course) == []


def test_the_readme_shows_the_picture_that_its_lesson_has_saved(
    course: Project, readme: str
) -> None:
    assert f"]({PICTURE.as_posix()})" in readme
    assert picture_faults(course) == []


def test_the_workflow_runs_the_readmes_command_on_each_system_and_python(course: Project) -> None:
    text = (course.root / ".github" / "workflows" / "course.yml").read_text(encoding="utf-8")
    project = tomllib.loads((course.root / "pyproject.toml").read_text(encoding="utf-8"))
    oldest, newest = re.findall(r"3\.(\d+)", project["project"]["requires-python"])
    pythons = ", ".join(f'"3.{minor}"' for minor in range(int(oldest), int(newest)))
    assert f"python: [{pythons}]" in text
    assert "system: [ubuntu-latest, macos-latest, windows-latest]" in text
    assert f"run: {COMMANDS[1]}\n" in text
    assert "cron:" in text


def test_ci_runs_the_commands_of_the_readme(course: Project) -> None:
    script = (course.root / ".ci" / "run").read_text(encoding="utf-8")
    assert COMMANDS[1] in script


def test_conda_installs_this_project_and_names_nothing_else(course: Project) -> None:
    text = (course.root / "environment.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^\s*- (.+?):?$", text, re.MULTILINE)
    assert listed == ["conda-forge", "python=3.11", "pip", "pip", "-e ."]


def test_direct_dependencies_are_pinned_exactly(course: Project) -> None:
    project = tomllib.loads((course.root / "pyproject.toml").read_text(encoding="utf-8"))
    named = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(entry for group in project["dependency-groups"].values() for entry in group),
    ]
    assert [entry for entry in named if not re.fullmatch(r"[\w.-]+(\[\w+])?==[\w.]+", entry)] == []
