"""The instructors' guide of the course as it is, and of one whose table is broken."""

from pathlib import Path

import pytest

from looplab.exercises.catalogue import EXERCISES
from looplab.exercises.verdicts import ANY_EXERCISE
from looplab.project import CourseError, Project
from looplab.publishing.draft import Draft, minutes
from looplab.publishing.guide import guide_text, write_guide
from looplab.publishing.index import read_index
from looplab.publishing.notebooks import read_notebook
from looplab.publishing.rules.slides import PRESENTING

MINUTES_AT_MOST = {
    "One hour": 60,
    "Half a day": 240,
    "A day": 480,
    "A second day": 480,
    "Half a day more": 240,
}


@pytest.fixture(scope="module")
def course() -> Project:
    return Project.here()


def test_each_syllabus_fits_its_name(course: Project) -> None:
    found = {way.name: way for way in read_index(course).syllabi}
    assert list(found) == list(MINUTES_AT_MOST)
    for name, way in found.items():
        assert way.total <= MINUTES_AT_MOST[name], name


def test_each_syllabus_gives_a_lesson_the_minutes_that_it_states(course: Project) -> None:
    stated = {
        lesson.number: minutes(Draft(lesson, read_notebook(lesson.path)))
        for lesson in course.lessons()
        if not lesson.deeper
    }
    for way in read_index(course).syllabi:
        assert way.minutes.keys() <= stated.keys(), way.name
        short = {
            number: given for number, given in way.minutes.items() if given < (stated[number] or 0)
        }
        assert short == {}, way.name


def test_the_guide_tells_every_lesson_prediction_and_mistake(course: Project) -> None:
    text = guide_text(course)
    for lesson in course.lessons():
        draft = Draft(lesson, read_notebook(lesson.path))
        assert (f"\n## {lesson.number} · {draft.title}\n" in text) != lesson.deeper
        told = f"**In the second helping**, `{lesson.name}`" in text
        assert told == lesson.deeper
    for exercise in EXERCISES.values():
        assert exercise.usual_wrong_prediction in text
        assert exercise.task in text
    hints = [m.hint for e in EXERCISES.values() for m in e.mistakes] + [
        m.hint for m in ANY_EXERCISE
    ]
    for lesson in course.lessons():
        for note in Draft(lesson, read_notebook(lesson.path)).notes:
            assert note["source"].removeprefix(PRESENTING) in text
    plain = text.replace("\\", "")
    assert [hint for hint in hints if hint.replace("\\", "") not in plain] == []


def test_the_page_holds_tables_and_asks_no_other_host(course: Project, tmp_path: Path) -> None:
    target = tmp_path / "new" / "guide.html"
    said = write_guide(course, target)
    page = target.read_text(encoding="utf-8")
    assert str(target) in said
    assert page.count("<table>") == len(EXERCISES) + 2
    assert "src=" not in page
    assert "@import" not in page


def test_a_folder_is_no_file_to_write_to(course: Project, tmp_path: Path) -> None:
    with pytest.raises(CourseError, match="it must be a file, and it is a folder"):
        write_guide(course, tmp_path)
