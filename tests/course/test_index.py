"""What leads to the lessons names every one of them and no other."""

import re
import tomllib
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from looplab.project import Lesson, Project
from looplab.publishing.draft import Draft, linked_lessons
from looplab.publishing.index import duration, index_faults
from looplab.publishing.markdown import links, prose
from looplab.publishing.notebooks import read_notebook
from looplab.publishing.readme import PICTURE, picture_faults
from looplab.publishing.rules.wording import SLIPPERY
from looplab.pythons import NEWEST, OLDEST, TESTED

ROW = re.compile(
    r"^\|\s*\[[^\]]+\]\(notebooks/(?P<name>\w+)\.ipynb\)[^|]*\|(?P<rest>.*)\|\s*$", re.M
)
COMMANDS = (
    "python3 -m pip install uv && python3 -m uv run course open",
    "python3 -m pip install uv && python3 -m uv run pytest",
)
# Their next version may format or complain otherwise, so that everybody has to have the same.
ONE_VERSION = {"ruff", "ty"}


@pytest.fixture(scope="module")
def pyproject(course: Project) -> dict[str, Any]:
    return tomllib.loads((course.root / "pyproject.toml").read_text(encoding="utf-8"))


def direct(pyproject: dict[str, Any]) -> list[Requirement]:
    """Return what pyproject.toml names for those who run the course and who work on it."""
    project, groups = pyproject["project"], pyproject["dependency-groups"]
    named = [
        *project["dependencies"],
        *project["optional-dependencies"]["lessons"],
        *(entry for group, entries in groups.items() if group != "lessons" for entry in entries),
    ]
    return [Requirement(entry) for entry in named]


@pytest.fixture(scope="module")
def readme(course: Project) -> str:
    return (course.root / "README.md").read_text(encoding="utf-8")


def title_of(lesson: Lesson) -> str:
    return Draft(lesson, read_notebook(lesson.path)).title


def columns(readme: str) -> dict[str, list[str]]:
    """Return what follows each lesson in the README's table: what is seen, minutes, deeper."""
    rows = ROW.finditer(readme)
    return {match["name"]: [part.strip() for part in match["rest"].split("|")] for match in rows}


def test_the_readme_names_every_lesson_once_in_order_and_no_other(
    course: Project, readme: str
) -> None:
    lessons = [lesson.name for lesson in course.lessons() if not lesson.deeper]
    assert list(columns(readme)) == lessons
    assert len(ROW.findall(readme)) == len(lessons)


def test_the_readme_and_the_lesson_state_the_same_minutes_and_title(
    readme: str, lesson: Lesson
) -> None:
    draft = Draft(lesson, read_notebook(lesson.path))
    if lesson.deeper:
        *_, deeper = columns(readme)[lesson.other_helping.name]
        assert deeper == f"[deeper](notebooks/{lesson.path.name})"
        assert draft.title == f"{title_of(lesson.other_helping)}, deeper"
        return
    _, time, _ = columns(readme)[lesson.name]
    assert time == duration(draft)
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
    workflow = yaml.safe_load(text)
    test = workflow["jobs"]["test"]
    assert test["strategy"]["matrix"] == {
        "system": ["ubuntu-latest", "macos-latest", "windows-latest"],
        "python": [f"3.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1)],
    }
    assert test["steps"][-1]["run"] == COMMANDS[1]
    assert "cron:" in text


def test_the_workflow_tries_the_newest_packages_without_constraints_and_the_oldest(
    course: Project,
) -> None:
    path = course.root / ".github" / "workflows" / "course.yml"
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    newest = jobs["newest"]["steps"][-1]["run"]
    assert 'pip install -e ".[lessons]" --group dev && pytest' in newest
    assert "constraint" not in newest
    assert jobs["lowest"]["steps"][-1]["run"].endswith("bash .ci/lowest")
    (python,) = (s["with"]["python-version"] for s in jobs["lowest"]["steps"] if "with" in s)
    assert python == ".".join(map(str, OLDEST))


def test_ci_runs_the_commands_of_the_readme_and_each_of_its_parts(course: Project) -> None:
    script = (course.root / ".ci" / "run").read_text(encoding="utf-8")
    assert COMMANDS[1] in script
    parts = sorted(path.name for path in (course.root / ".ci").iterdir() if path.name != "run")
    assert parts
    assert [part for part in parts if f"bash .ci/{part}'" not in script] == []


def test_conda_installs_this_project_as_tested_and_names_nothing_else(course: Project) -> None:
    listed = yaml.safe_load((course.root / "environment.yml").read_text(encoding="utf-8"))
    assert listed["channels"] == ["conda-forge"]
    python, *others = listed["dependencies"]
    assert others == ["pip", {"pip": ["-c constraints.txt", "-e .[lessons]"]}]
    assert OLDEST <= tuple(map(int, python.removeprefix("python=").split("."))) <= NEWEST


class TestPythons:
    """Each place that says which Pythons the course supports says the same."""

    def test_pyproject(self, pyproject: dict[str, Any]) -> None:
        oldest = ".".join(map(str, OLDEST))
        assert pyproject["project"]["requires-python"] == f">={oldest}"
        named = [name.rpartition(" ")[2] for name in pyproject["project"]["classifiers"]]
        assert named == [f"3.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1)]
        assert pyproject["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
        assert pyproject["tool"]["ty"]["environment"]["python-version"] == oldest

    def test_the_readme(self, readme: str) -> None:
        said = re.findall(r"Python\s(\d\.\d+ to \d\.\d+)", readme)
        assert said
        assert set(said) == {TESTED}

    def test_what_uv_picks_is_within_them(self, course: Project) -> None:
        lines = (course.root / ".python-versions").read_text(encoding="utf-8").splitlines()
        (asked,) = [line for line in lines if not line.startswith("#")]
        chosen = SpecifierSet(asked)
        minors = [m for m in range(40) if chosen.contains(f"3.{m}")]
        assert minors == list(range(OLDEST[1], minors[-1] + 1))
        assert minors[-1] <= NEWEST[1]

    def test_the_scripts_that_run_one_of_them(self, course: Project) -> None:
        newer = (course.root / ".ci" / "python-3.14").read_text(encoding="utf-8")
        assert "\nversion=3.14\n" in newer
        lowest = (course.root / ".ci" / "lowest").read_text(encoding="utf-8")
        assert f"\nversion={'.'.join(map(str, OLDEST))}\n" in lowest


class TestVersions:
    """What is needed has a lowest version, and what is tested is exact and fits it."""

    def test_each_dependency_states_the_oldest_version_that_works_and_no_other_limit(
        self, pyproject: dict[str, Any]
    ) -> None:
        for requirement in direct(pyproject):
            operators = [limit.operator for limit in requirement.specifier]
            wanted = "==" if requirement.name in ONE_VERSION else ">="
            assert operators == [wanted], str(requirement)

    def test_the_notebooks_packages_are_an_extra_that_uv_installs_without_being_asked(
        self, pyproject: dict[str, Any]
    ) -> None:
        name = pyproject["project"]["name"]
        assert list(pyproject["project"]["optional-dependencies"]) == ["lessons"]
        assert pyproject["dependency-groups"]["lessons"] == [f"{name}[lessons]"]
        assert pyproject["tool"]["uv"]["default-groups"] == ["dev", "lessons"]

    def test_what_installs_the_course_without_uv_names_the_extra(self, course: Project) -> None:
        files = [*(course.root / ".ci").iterdir(), course.root / "README.md"]
        files += [course.root / "environment.yml", course.root / ".github/workflows/course.yml"]
        texts = {path.name: path.read_text(encoding="utf-8") for path in files}
        asked = {
            name: re.findall(r"(?<=-e )['\"]?((?:\.|course)(?:\[\w+\])?)(?=['\"` \n])", text)
            for name, text in texts.items()
        }
        assert {name for name, found in asked.items() if found} == set(texts)
        assert [
            (n, one) for n, found in asked.items() for one in found if "[lessons]" not in one
        ] == []

    def test_what_the_command_alone_needs_installs_beside_any_app(
        self, pyproject: dict[str, Any]
    ) -> None:
        alone = {
            entry.name: entry for entry in map(Requirement, pyproject["project"]["dependencies"])
        }
        assert set(alone) == {"anyio", "httpx", "psutil", "typer", "uvicorn"}
        assert alone["uvicorn"].specifier.contains("0.30.0")

    def test_uv_and_pip_are_given_the_same_versions(
        self, course: Project, pyproject: dict[str, Any]
    ) -> None:
        lines = (course.root / "constraints.txt").read_text(encoding="utf-8").splitlines()
        exact = [line for line in lines if not line.startswith("#")]
        assert pyproject["tool"]["uv"]["constraint-dependencies"] == exact
        assert exact == sorted(exact, key=lambda line: re.split(r"==", line)[0])
        assert [line for line in exact if "://" in line] == []

    @pytest.mark.parametrize("minor", range(OLDEST[1], NEWEST[1] + 1))
    def test_each_python_has_one_tested_version_of_each_dependency(
        self, course: Project, pyproject: dict[str, Any], minor: int
    ) -> None:
        lines = (course.root / "constraints.txt").read_text(encoding="utf-8").splitlines()
        here = {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.9"}
        tested: dict[str, Requirement] = {}
        for entry in (Requirement(line) for line in lines if not line.startswith("#")):
            (limit,) = entry.specifier
            assert limit.operator == "=="
            if entry.marker is None or entry.marker.evaluate(here):
                assert entry.name not in tested, f"{entry.name} has two versions on 3.{minor}"
                tested[entry.name] = entry
        for requirement in direct(pyproject):
            if requirement.marker is not None and not requirement.marker.evaluate(here):
                continue
            (limit,) = tested[requirement.name].specifier
            assert requirement.specifier.contains(limit.version), str(requirement)

    def test_git_knows_no_lock_file(self, course: Project) -> None:
        ignored = (course.root / ".gitignore").read_text(encoding="utf-8").splitlines()
        assert "uv.lock" in ignored
