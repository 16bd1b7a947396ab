"""Every lesson as it is saved: sound outputs, and the house rules kept."""

import pytest

from looplab.project import LESSON_NAME, Lesson, Project
from looplab.publishing.check import check, lesson_faults
from looplab.publishing.draft import Draft
from looplab.publishing.notebooks import notebook_text, read_notebook
from looplab.publishing.rules import RULES
from looplab.publishing.rules.rule import Rule
from looplab.publishing.saved import saved_faults


def test_what_is_saved_is_sound(lesson: Lesson) -> None:
    assert saved_faults(lesson.path) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rule_is_kept(lesson: Lesson, rule: Rule) -> None:
    assert list(rule(Draft(lesson, read_notebook(lesson.path)))) == []


def test_the_file_is_written_as_the_course_writes_it(lesson: Lesson) -> None:
    text = lesson.path.read_text(encoding="utf-8")
    assert text == notebook_text(read_notebook(lesson.path)), "run `course refresh` on it"


def test_course_check_says_the_same(course: Project, lesson: Lesson) -> None:
    assert lesson_faults(lesson) == []
    assert check(course, [lesson.name]) == "1 lesson is sound."


def test_every_notebook_is_a_lesson_and_numbers_are_used_once(course: Project) -> None:
    names = sorted(path.stem for path in course.notebooks.glob("*.ipynb"))
    assert [name for name in names if not LESSON_NAME.fullmatch(name)] == []
    assert names == [lesson.name for lesson in course.lessons()]
    numbers = [lesson.number for lesson in course.lessons() if not lesson.deeper]
    assert len(numbers) == len(set(numbers))
    alone = [
        lesson.name
        for lesson in course.lessons()
        if lesson.deeper and not lesson.other_helping.path.exists()
    ]
    assert alone == []
