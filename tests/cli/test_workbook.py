"""The learner's copies: made once, never overwritten, restored on demand with the old one kept."""

import json
from pathlib import Path

import nbformat
import pytest

from looplab.project import CourseError, Project
from looplab.publishing.notebooks import read_notebook, recorded_hash, sources_hash
from looplab.workbook import fill_workbook, lab_arguments, reset_lesson


def edit(path: Path, source: str) -> None:
    """Save ``source`` in the code cell of the notebook at ``path``, as JupyterLab would."""
    notebook = read_notebook(path)
    notebook["cells"][1]["source"] = source
    nbformat.write(notebook, path)


def files(project: Project) -> list[str]:
    return sorted(path.name for path in project.workbook.iterdir())


def test_copies_have_no_outputs_counts_widgets_or_times(project: Project) -> None:
    before = (project.notebooks / "02_gather.ipynb").read_bytes()
    assert fill_workbook(project) == []
    assert files(project) == ["00_start_here.ipynb", "02_gather.ipynb", "11_streaming.ipynb"]
    copy = json.loads((project.workbook / "02_gather.ipynb").read_text())
    code = copy["cells"][1]
    assert (code["outputs"], code["execution_count"]) == ([], None)
    assert code["metadata"] == {"tags": ["setup"]}
    assert code["id"] == "answer"
    assert "widgets" not in copy["metadata"]
    assert copy["metadata"]["kernelspec"]["name"] == "python3"
    assert (project.notebooks / "02_gather.ipynb").read_bytes() == before


def test_an_existing_copy_is_never_overwritten_and_new_lessons_are_added(project: Project) -> None:
    fill_workbook(project)
    mine = project.workbook / "02_gather.ipynb"
    edit(mine, "my = 'work'")
    (project.workbook / "notes.txt").write_text("mine")
    (project.workbook / "11_streaming.ipynb").unlink()
    before = mine.read_bytes()
    assert fill_workbook(project) == []
    assert mine.read_bytes() == before
    assert files(project) == [
        "00_start_here.ipynb",
        "02_gather.ipynb",
        "11_streaming.ipynb",
        "notes.txt",
    ]


def test_a_newer_lesson_is_told_in_one_line_until_it_is_fetched(project: Project) -> None:
    fill_workbook(project)
    edit(project.workbook / "02_gather.ipynb", "my = 'work'")
    edit(project.notebooks / "02_gather.ipynb", "print('better')")
    (line,) = fill_workbook(project)
    assert line == (
        "A newer version of 02_gather is there: "
        "`course reset 02` fetches it and keeps yours beside it."
    )
    reset_lesson(project, "02")
    assert fill_workbook(project) == []


def test_outputs_alone_make_no_newer_version(project: Project) -> None:
    fill_workbook(project)
    path = project.notebooks / "02_gather.ipynb"
    notebook = read_notebook(path)
    notebook["cells"][1]["outputs"] = []
    nbformat.write(notebook, path)
    assert fill_workbook(project) == []


def test_a_copy_that_cannot_be_read_is_told_and_left_alone(project: Project) -> None:
    fill_workbook(project)
    broken = project.workbook / "02_gather.ipynb"
    broken.write_text("{ half a file")
    (line,) = fill_workbook(project)
    assert "02_gather.ipynb is not a notebook" in line
    assert "course reset 02" in line
    assert broken.read_text() == "{ half a file"
    assert reset_lesson(project, "02").mine == project.workbook / "02_gather.mine-1.ipynb"
    assert fill_workbook(project) == []


def test_reset_restores_the_lesson_and_keeps_every_earlier_version(project: Project) -> None:
    fill_workbook(project)
    copy = project.workbook / "02_gather.ipynb"
    published = copy.read_bytes()
    kept = []
    for work in ("first = 1", "second = 2"):
        edit(copy, work)
        mine = reset_lesson(project, "2").mine
        assert mine is not None
        kept.append(mine)
        assert copy.read_bytes() == published
    assert [path.name for path in kept] == ["02_gather.mine-1.ipynb", "02_gather.mine-2.ipynb"]
    assert [read_notebook(path)["cells"][1]["source"] for path in kept] == [
        "first = 1",
        "second = 2",
    ]


def test_a_kept_version_is_not_overwritten_when_an_earlier_one_is_gone(project: Project) -> None:
    fill_workbook(project)
    (project.workbook / "02_gather.mine-7.ipynb").write_text("precious")
    edit(project.workbook / "02_gather.ipynb", "third = 3")
    assert reset_lesson(project, "02").mine == project.workbook / "02_gather.mine-8.ipynb"
    assert (project.workbook / "02_gather.mine-7.ipynb").read_text() == "precious"


def test_reset_keeps_nothing_when_nothing_was_changed_or_there(project: Project) -> None:
    assert reset_lesson(project, "02").mine is None
    assert reset_lesson(project, "02").mine is None
    assert files(project) == ["02_gather.ipynb"]


def test_the_copy_records_the_hash_of_its_source(project: Project) -> None:
    fill_workbook(project)
    copy = read_notebook(project.workbook / "02_gather.ipynb")
    source = read_notebook(project.notebooks / "02_gather.ipynb")
    assert recorded_hash(copy) == sources_hash(source) == sources_hash(copy)


def test_a_workbook_that_cannot_be_made_is_one_sentence(project: Project) -> None:
    project.workbook.write_text("a file in the way")
    for act in (lambda: fill_workbook(project), lambda: reset_lesson(project, "02")):
        with pytest.raises(CourseError, match="workbook cannot be made"):
            act()


def test_lab_runs_in_the_workbook_without_news_and_as_root_too(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for identity, expected in ((0, True), (1000, False)):
        monkeypatch.setattr("os.geteuid", lambda identity=identity: identity, raising=False)
        arguments = lab_arguments(project, project.lesson("02"))
        assert ("--allow-root" in arguments) is expected
        assert f"--ServerApp.root_dir={project.workbook}" in arguments
        assert "--LabApp.default_url=/lab/tree/02_gather.ipynb" in arguments
