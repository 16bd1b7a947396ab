"""What surrounds the course on its way from one person to another: changelog, hooks, templates."""

import re
import tomllib
from datetime import date
from typing import Any

import pytest
import yaml
from pre_commit.clientlib import load_config

from looplab.project import Project

ENTRY = re.compile(r"^## \[(?P<version>[^\]]+)\] - (?P<date>\S+)$", re.MULTILINE)
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


class TestChangelog:
    @pytest.fixture
    def changelog(self, course: Project) -> str:
        return (course.root / "CHANGELOG.md").read_text(encoding="utf-8")

    def test_its_first_entry_is_the_version_of_pyproject(
        self, course: Project, changelog: str
    ) -> None:
        text = (course.root / "pyproject.toml").read_text(encoding="utf-8")
        first = ENTRY.search(changelog)
        assert first is not None
        assert first["version"] == tomllib.loads(text)["project"]["version"]

    def test_its_entries_go_back_in_time_and_have_dates(self, changelog: str) -> None:
        found = [(match["version"], match["date"]) for match in ENTRY.finditer(changelog)]
        versions = [tuple(map(int, version.split("."))) for version, _ in found]
        assert versions == sorted(set(versions), reverse=True)
        dates = [date.fromisoformat(day) for _, day in found if day != "Unreleased"]
        assert dates == sorted(dates, reverse=True)
        assert "Unreleased" not in [day for _, day in found[1:]]

    def test_each_entry_sorts_its_changes_by_the_kinds_of_keep_a_changelog(
        self, changelog: str
    ) -> None:
        assert len(ENTRY.findall(changelog)) == len(re.findall(r"^## ", changelog, re.MULTILINE))
        for body in ENTRY.split(changelog)[3::3]:
            kinds = re.findall(r"^### (.+)$", body, re.MULTILINE)
            assert kinds
            assert set(kinds) <= KINDS
            assert all(
                part.strip().startswith("- ")
                for part in re.split(r"^### .+$", body, flags=re.M)[1:]
            )


class TestHooks:
    @pytest.fixture
    def hooks(self, course: Project) -> dict[str, dict[str, Any]]:
        """Each hook by its command without ``uv run``; what pre-commit refuses is an error."""
        (repository,) = load_config(str(course.root / ".pre-commit-config.yaml"))["repos"]
        assert repository["repo"] == "local", "a hook from elsewhere has a version of its own"
        return {hook["entry"].removeprefix("uv run "): hook for hook in repository["hooks"]}

    def test_they_run_each_check_of_ci_word_for_word_and_nothing_else(
        self, course: Project, hooks: dict[str, dict[str, Any]]
    ) -> None:
        script = (course.root / ".ci" / "run").read_text(encoding="utf-8")
        steps = re.findall(r"^step 'python3 -m uv run ([^&']+)'$", script, re.MULTILINE)
        assert list(hooks) == steps
        assert len(steps) == 4

    def test_they_take_the_tested_versions_of_the_project(
        self, hooks: dict[str, dict[str, Any]]
    ) -> None:
        for hook in hooks.values():
            assert hook["entry"].startswith("uv run ")
            assert hook["additional_dependencies"] == ["uv"]
            assert not hook["pass_filenames"]

    def test_a_lesson_that_changes_is_checked_by_those_that_read_lessons(
        self, hooks: dict[str, dict[str, Any]]
    ) -> None:
        assert re.search(hooks["course check"]["files"], "notebooks/02_gather.ipynb")
        assert "jupyter" in hooks["ruff check"]["types_or"]
        assert "jupyter" in hooks["ruff format --check"]["types_or"]


class TestIssueTemplates:
    @pytest.fixture
    def forms(self, course: Project) -> dict[str, dict[str, Any]]:
        folder = course.root / ".github" / "ISSUE_TEMPLATE"
        paths = [path for path in folder.glob("*.yml") if path.stem != "config"]
        return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths}

    def test_there_is_one_for_a_claim_and_one_for_a_sentence(
        self, forms: dict[str, dict[str, Any]]
    ) -> None:
        assert {form["name"] for form in forms.values()} == {
            "A claim failed here",
            "A sentence confused me",
        }

    def test_they_are_forms_that_github_accepts(self, forms: dict[str, dict[str, Any]]) -> None:
        for form in forms.values():
            assert set(form) <= {"name", "description", "title", "labels", "body"}
            assert {"name", "description", "body"} <= set(form)
            asked = [part for part in form["body"] if part["type"] != "markdown"]
            assert asked
            assert {part["type"] for part in asked} <= {
                "input",
                "textarea",
                "dropdown",
                "checkboxes",
            }
            names = [part["id"] for part in asked]
            assert len(names) == len(set(names))
            assert all(part["attributes"]["label"] for part in asked)

    def test_they_ask_for_lesson_python_system_and_output(
        self, forms: dict[str, dict[str, Any]]
    ) -> None:
        for form in forms.values():
            parts = {part["id"]: part for part in form["body"] if part["type"] != "markdown"}
            labels = " ".join(part["attributes"]["label"] for part in parts.values()).lower()
            assert [
                word for word in ("lesson", "python", "system", "output") if word not in labels
            ] == []
            assert parts["lesson"]["validations"]["required"]
        claim = {part.get("id"): part for part in forms["claim-failed"]["body"]}
        for word in ("lesson", "python", "system", "output"):
            assert claim[word]["validations"]["required"], word
