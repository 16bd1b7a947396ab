"""Every fault that shows without executing a lesson."""

from looplab.project import CourseError, Lesson, Project
from looplab.publishing.draft import Draft
from looplab.publishing.index import index_faults
from looplab.publishing.kept import missing_faults
from looplab.publishing.links import link_faults
from looplab.publishing.notebooks import read_notebook
from looplab.publishing.rules import structure_faults
from looplab.publishing.saved import saved_faults


def check(project: Project, wanted: list[str]) -> str:
    """Return a line that says how many of the lessons called ``wanted`` (all when empty) are sound.

    When ``wanted`` is empty, the tables and links that lead to the lessons are checked too.

    Raises CourseError, a line for each fault, when one is not.
    """
    lessons = project.selection(wanted)
    faults = [f"{lesson.name}: {fault}" for lesson in lessons for fault in lesson_faults(lesson)]
    if not wanted:
        faults += index_faults(project) + link_faults(project)
    if faults:
        raise CourseError("\n".join(faults))
    return f"{len(lessons)} {'lesson is' if len(lessons) == 1 else 'lessons are'} sound."


def lesson_faults(lesson: Lesson) -> list[str]:
    """Return what is wrong with ``lesson``: with what was saved first, then with its structure."""
    faults = saved_faults(lesson.path)
    try:
        notebook = read_notebook(lesson.path)
    except CourseError:
        return faults
    draft = Draft(lesson, notebook)
    return [*faults, *missing_faults(draft), *structure_faults(draft)]
