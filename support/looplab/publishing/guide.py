"""The instructors' guide: what a workshop is made of, on one page that prints.

Each fact is kept once: minutes and questions in the lessons, the syllabi in
`support/looplab/lessons.toml`, the usual wrong prediction and the usual mistakes with the checkers
whose hints they are.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from markdown_it import MarkdownIt

from looplab.exercises.verdicts import ANY_EXERCISE, Exercise, Mistake
from looplab.project import CourseError, Project
from looplab.publishing.draft import Draft, exercise_minutes, minutes
from looplab.publishing.index import Index, heading, read_index, syllabi_table
from looplab.publishing.notebooks import read_notebook
from looplab.publishing.rules.slides import PRESENTING

SYLLABI = "Syllabi"

INTRODUCTION = """\
A lesson is presented from JupyterLab. `course` stands for `python3 -m uv run course` here, or for
itself in an activated environment.

1. Open the lesson: `course open 02`.
2. Start the slides with the "Render as Reveal Slideshow" button in the notebook's toolbar, then the
   full-screen button in the toolbar of the slides. Zoom as a browser does.
3. On the title slide, before you click anywhere, S opens the speaker's view in a window of its own.
   It takes some seconds, and shows a note with the picture that each lesson turns on.
4. The space bar goes on. To run a cell, click into it and press Ctrl+Enter, which stays on the
   slide; Shift+Enter also goes on to the next cell. Escape gives the space bar back.
5. Run every cell of a lesson in order, from the first: later ones need it. Dials do not render in
   slides; each stands behind a static result.

`COURSE_PACE` stretches every wait of the lessons: `COURSE_PACE=4 course open` makes 50 ms last
200 ms, long enough to be seen from the last row. It is 1 unless set, and claims hold at 0.5 to 4.

Let the room answer each prediction before you run on. What follows says, lesson by lesson, what it
tends to answer and why that is wrong; then what learners tend to write in the exercise, and what
the check says to each. The check says it to them too.
"""

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Instructors' guide: async patterns for FastAPI</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; }}
body {{ padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; margin: 1rem 0; }}
th, td {{ border: 1px solid #8888; padding: .3rem .5rem; text-align: left; vertical-align: top; }}
th, td {{ overflow-wrap: anywhere; }}
h2 {{ margin-top: 2.5rem; }}
code {{ overflow-wrap: anywhere; }}
@media print {{
  body {{ font-size: 10pt; margin: 0; max-width: none; }}
  h2 {{ break-before: page; }}
  tr, li {{ break-inside: avoid; }}
}}
</style>
</head>
<body>
<main>
{body}</main>
</body>
</html>
"""


def guide_text(project: Project) -> str:
    """Return the guide as Markdown."""
    from looplab.exercises.catalogue import EXERCISES  # imports every checker: not for each verb

    drafts = [Draft(lesson, read_notebook(lesson.path)) for lesson in project.lessons()]
    return "\n".join(
        [
            "# Instructors' guide",
            "",
            INTRODUCTION,
            *_syllabi_lines(read_index(project), drafts),
            *_lesson_lines(drafts, EXERCISES),
            "## In any exercise",
            "",
            *_mistake_lines(ANY_EXERCISE),
            "",
        ]
    )


def _syllabi_lines(index: Index, drafts: list[Draft]) -> Iterator[str]:
    yield f"## {SYLLABI}"
    yield ""
    yield from syllabi_table(index, {draft.lesson.name: draft for draft in drafts})
    yield ""
    yield "In minutes. Where a lesson has more than it states, the rest is for its exercise;"
    yield "what is missing is for reading at home."
    yield ""


def _lesson_lines(drafts: list[Draft], exercises: dict[str, Exercise]) -> Iterator[str]:
    deeper = {draft.lesson.number: draft for draft in drafts if draft.lesson.deeper}
    for draft in drafts:
        if draft.lesson.deeper:
            continue
        yield f"## {heading(draft)}"
        yield ""
        more = exercise_minutes(draft)
        yield f"{minutes(draft)} minutes" + (f", and {more} for the exercise." if more else ".")
        yield ""
        yield from _questions(draft)
        yield from _notes(draft)
        exercise = exercises.get(draft.lesson.number)
        if exercise is not None:
            yield from _exercise_lines(exercise)
        if draft.lesson.number in deeper:
            yield from _deeper_lines(deeper[draft.lesson.number])


def _deeper_lines(draft: Draft) -> Iterator[str]:
    """Yield what the second helping holds: the answers to what a room asks beyond the lesson."""
    yield f"**In the second helping**, `{draft.lesson.name}`, each section by itself:"
    yield ""
    for section in draft.sections:
        if section.title not in draft.skeleton:
            yield f"- {_cell(section.title)}"
    yield ""
    yield from _notes(draft)


def _notes(draft: Draft) -> Iterator[str]:
    """Yield what the lesson's notes for the speaker say."""
    for note in draft.notes:
        yield f"**While you show it:** {note['source'].removeprefix(PRESENTING)}"
        yield ""


def _questions(draft: Draft) -> Iterator[str]:
    """Yield what the lesson asks learners to predict."""
    asked = re.findall(r"\bpredict\(\s*\"([^\"]+)\"", "\n".join(c["source"] for c in draft.code))
    for question in asked:
        yield f"**It asks to predict:** {question}."
        yield ""


def _exercise_lines(exercise: Exercise) -> Iterator[str]:
    yield f"**The usual wrong prediction.** {exercise.usual_wrong_prediction}"
    yield ""
    yield f"**The exercise.** {exercise.task}"
    yield ""
    yield from _mistake_lines(exercise.mistakes)
    yield ""


def _mistake_lines(mistakes: Iterable[Mistake]) -> Iterator[str]:
    yield "| A learner who | What to say |"
    yield "|---|---|"
    for mistake in mistakes:
        yield f"| {_cell(mistake.looks_like)} | {_cell(mistake.hint)} |"


def _cell(text: str) -> str:
    """Return text for a table's cell; what looks like markup stays text."""
    return re.sub(r"([|*<>])", r"\\\1", text)


def write_guide(project: Project, target: Path) -> str:
    """Write the guide as a page into the file ``target`` and return a line about it.

    Raises CourseError when ``target`` is a folder.
    """
    if target.is_dir():
        raise CourseError(f"output is {target}; it must be a file, and it is a folder.")
    body = MarkdownIt("commonmark").enable("table").render(guide_text(project))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(PAGE.format(body=body), encoding="utf-8")
    return f"The guide is in {target}; a browser prints it."
