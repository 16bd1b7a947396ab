"""Lessons are found by number, name or file, and a wrong name is answered with what there is."""

from pathlib import Path

import pytest

import looplab.project
from looplab.project import CourseError, Project


def test_lessons_stand_in_order_and_other_notebooks_are_not_lessons(project: Project) -> None:
    (project.notebooks / "Untitled.ipynb").write_text("{}")
    (project.notebooks / "02_gather.mine-1.ipynb").write_text("{}")
    assert [lesson.name for lesson in project.lessons()] == [
        "00_start_here",
        "02_gather",
        "11_streaming",
    ]


@pytest.mark.parametrize(
    "wanted", ["2", "02", "02_gather", "02_gather.ipynb", "notebooks/02_gather.ipynb", " 02 "]
)
def test_a_lesson_answers_to_number_name_and_file(project: Project, wanted: str) -> None:
    assert project.lesson(wanted).name == "02_gather"


@pytest.mark.parametrize("wanted", ["3", "", "gather", "²", "1"])
def test_an_unknown_lesson_is_answered_with_those_there_are(project: Project, wanted: str) -> None:
    with pytest.raises(CourseError, match="00_start_here, 02_gather, 11_streaming"):
        project.lesson(wanted)


def test_a_selection_is_ordered_and_names_each_lesson_once(project: Project) -> None:
    assert [lesson.number for lesson in project.selection(["11", "0", "11_streaming"])] == [
        "00",
        "11",
    ]
    assert len(project.selection([])) == 3


def test_a_second_helping_follows_its_lesson_and_answers_to_its_name(project: Project) -> None:
    (project.notebooks / "02_gather_deeper.ipynb").write_text("{}")
    names = [lesson.name for lesson in project.lessons()]
    assert names == ["00_start_here", "02_gather", "02_gather_deeper", "11_streaming"]
    assert project.lesson("02").name == "02_gather"
    for wanted in ("2_deeper", "02_deeper", "02_gather_deeper"):
        lesson = project.lesson(wanted)
        assert (lesson.name, lesson.number, lesson.deeper) == ("02_gather_deeper", "02", True)
        assert lesson.other_helping == project.lesson("02")
        assert lesson.other_helping.other_helping == lesson
    for wanted in ("11_deeper", "_deeper"):
        with pytest.raises(CourseError, match="there are 00_start_here, 02_gather, 11_streaming"):
            project.lesson(wanted)


def test_a_number_selects_both_helpings_and_a_name_one(project: Project) -> None:
    (project.notebooks / "02_gather_deeper.ipynb").write_text("{}")
    chosen = [
        [lesson.name for lesson in project.selection(wanted)]
        for wanted in (["2"], ["02_gather"], ["2_deeper"], ["02_gather", "2", "0"])
    ]
    both = ["02_gather", "02_gather_deeper"]
    assert chosen == [both, both[:1], both[1:], ["00_start_here", *both]]


def test_a_course_without_lessons_says_so(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    for ask in (lambda: Project(tmp_path).selection([]), lambda: Project(tmp_path).lesson("0")):
        with pytest.raises(CourseError, match="no lesson in"):
            ask()


def test_this_checkout_is_found() -> None:
    assert (Project.here().root / "support/looplab/project.py").samefile(looplab.project.__file__)


def test_an_installation_without_notebooks_says_how_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looplab.project, "__file__", str(tmp_path / "support/looplab/project.py"))
    with pytest.raises(
        CourseError, match=r'no notebooks folder .* -c constraints\.txt -e "\.\[lessons\]"'
    ):
        Project.here()
