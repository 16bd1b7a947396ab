"""A new lesson's skeleton: its notebook, its checker with a test, and its row in the table.

The notebook stands in the order of the house rules and runs; each sentence that an author has to
write begins with TODO, which `course check` does not let pass.
"""

import re
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from looplab.project import LESSON_NAME, CourseError, Lesson, Project
from looplab.publishing.index import FILE, add_lesson, write_index
from looplab.publishing.notebooks import cleaned, write_notebook

WORD = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

SNIPPET = """\
```python
# TODO: the few lines that everybody writes first; or drop them
```"""

OPENING = """\
**You will be able to**

- TODO: what a reader will be able to do, without telling the results

**25 minutes**, and 15 for the exercise.

| Before | Why |
|---|---|
| [00 · Start here](00_start_here.ipynb) | TODO: each idea that this lesson uses |"""

SET_UP = """\
import asyncio

from looplab.exercises.{word} import check_{word}
from looplab.lab import claim, compare, ms, nothing_left_behind, predict, start
from looplab.lab import xray

start()"""

NAIVE = """\
async def ask():
    await asyncio.sleep(ms(50))


async def one_by_one():
    for _ in range(3):
        await ask()"""

PATTERN = """\
async def at_once():
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(ask())"""

BREAK = """\
async def refused():
    raise ConnectionError("TODO: the real failure")


caught = None
try:
    await refused()
except ConnectionError as error:
    caught = error"""

STUB = """\
async def {word}():
    raise NotImplementedError"""

SOLUTION = """\
async def my_{word}():
    return 42


verdict = await check_{word}(my_{word})
claim("The solution passes its check", verdict.passed)"""

CHECKER = '''\
"""The exercise of lesson {number}: TODO."""

import functools
from typing import Any

from looplab.exercises.checking import check, require_function
from looplab.exercises.sandbox import Sandbox
from looplab.exercises.verdicts import Exercise, Mistake, Verdict

EXERCISE = Exercise(
    lesson="{number}",
    check="check_{word}",
    stub="not-written",
    task="TODO: what the learner writes, in one sentence.",
    usual_wrong_prediction="TODO: what learners tend to predict, and why it is wrong.",
    mistakes=(
        Mistake(
            "not-the-answer",
            "TODO: what a learner did who makes this mistake",
            "TODO: what happens in production then, and what to change.",
        ),
    ),
)


async def check_{word}(answer: Any) -> Verdict:
    """Run ``answer``, show in one line what was found, and return the verdict.

    Nothing that the learner's code does raises.
    """
    return await check(functools.partial(_judge, answer=answer))


async def _judge(sandbox: Sandbox, *, answer: Any) -> str:
    act = require_function(answer, example="check_{word}({word})")
    ran = await sandbox.run(act)
    if ran.result() != 42:
        raise EXERCISE.wrong("not-the-answer", f"it returned {{ran.value!r}}")
    return "TODO: what the answer does right."
'''

TEST = '''\
"""The check of lesson {number} tells right answers from wrong ones."""

import pytest

from looplab.exercises.{word} import check_{word}

pytestmark = pytest.mark.anyio


async def right():
    return 42


async def another_number():
    return 41


async def test_a_right_answer_passes() -> None:
    assert (await check_{word}(right)).passed


@pytest.mark.parametrize(("answer", "mistake"), [(another_number, "not-the-answer")])
async def test_a_wrong_answer_gets_its_own_hint(answer, mistake) -> None:
    verdict = await check_{word}(answer)
    assert (verdict.passed, verdict.mistake) == (False, mistake)
'''


def new_lesson(project: Project, name: str) -> list[Path]:
    """Write the skeleton of a lesson called ``name`` and return the files that are new or changed.

    ``name`` is a word such as ``caching``, which gets the next number, or ``21_caching``.

    Raises CourseError when the name is none, when the number or one of the files is taken, and when
    the table cannot be read.
    """
    lesson = _named(project, name)
    word = lesson.name[3:]
    checker = project.root / "support/looplab/exercises" / f"{word}.py"
    test = project.root / "tests" / "exercises" / f"test_{word}.py"
    for path in (lesson.path, checker, test):
        if path.exists():
            raise CourseError(f"{path.relative_to(project.root)} is there already.")
    names = {"number": lesson.number, "word": word}
    write_notebook(cleaned(_notebook(names)), lesson.path)
    checker.write_text(CHECKER.format(**names), encoding="utf-8")
    test.write_text(TEST.format(**names), encoding="utf-8")
    add_lesson(project, lesson, see="TODO: what a reader sees", learn="TODO: what a reader learns")
    changed = write_index(project)
    return [lesson.path, checker, test, project.root / FILE, *changed]


def _named(project: Project, name: str) -> Lesson:
    taken = {lesson.number: lesson for lesson in project.lessons()}
    if WORD.fullmatch(name):
        name = f"{max(map(int, taken), default=-1) + 1:02}_{name}"
    if not (LESSON_NAME.fullmatch(name) and WORD.fullmatch(name[3:])):
        raise CourseError(
            f"name is {name!r}; it must be small letters, digits and underscores, such as caching "
            "or 21_caching."
        )
    if name[:2] in taken:
        raise CourseError(f"name is {name!r}; {name[:2]} is {taken[name[:2]].name}.")
    return Lesson(project.notebooks / f"{name}.ipynb")


def _notebook(names: dict[str, str]) -> NotebookNode:
    word = names["word"]
    told = word.replace("_", " ")
    cells = (
        ("title", "slide", f"# TODO: {told}\n*TODO: a wrong belief, or a symptom.*\n\n"
         f"From practice: TODO: who asks for this, and when.\n\n{SNIPPET}"),
        ("you-will-see", "-", OPENING),
        ("set-up-title", "slide", "## Set-up\nTODO: what stands where in this experiment."),
        ("set-up", "setup", SET_UP.format(**names)),
        ("one-by-one", "slide", "## TODO: the naive version\nTODO: where to look."),
        ("define-one-by-one", "code", NAIVE),
        ("xray-one-by-one", "code", 'slow = await xray(one_by_one(), title="one by one")'),
        ("predict-title", "slide", "## Predict\nTODO: what to reason from, then the question."),
        ("predict-at-once", "predict",
         'guess = predict("milliseconds at once", between=(0, 400))'),
        ("at-once", "slide", "## TODO: the pattern\nTODO: where to look."),
        ("define-at-once", "code", PATTERN),
        ("xray-at-once", "code",
         'fast = await xray(at_once(), title="at once", against=slow)'),
        ("claim-at-once", "claim",
         'claim("All three wait at the same time", fast.peak_in_flight("ask") == 3)'),
        ("compare-title", "slide", "## Compare\nTODO: the bound, beside what was measured."),
        ("compare", "code",
         'times = await compare(\n    {"one by one": one_by_one, "at once": at_once}, repeat=3\n)'),
        ("reveal-guess", "code", "guess.reveal(fast.duration * 1000)"),
        ("claim-compare", "claim",
         'claim("At once takes less than half", times.ratio("one by one", "at once") > 2)'),
        ("break-title", "slide", "## What breaks: TODO\nTODO: the failure, and why it matters."),
        ("break", "code", BREAK),
        ("claim-break", "claim",
         'claim("The call is refused", isinstance(caught, ConnectionError))'),
        ("ship-title", "slide", "## Ship it\nTODO: the version to copy, line by line."),
        ("ship", "code", "await at_once()"),
        ("exercise-title", "slide",
         "## Exercise: TODO\nTODO: the task.\n\n**Hint:** TODO."),
        ("exercise", "exercise", STUB.format(**names)),
        ("check", "check", f"await check_{word}({word})"),
        ("solution-title", "-", "TODO: what a good answer does."),
        ("solution", "solution", SOLUTION.format(**names)),
        ("take-away", "slide", "## Take away\n**TODO: one sentence.**\n\n"
         "- Python: [Coroutines and tasks](https://docs.python.org/3/library/asyncio-task.html)"),
        ("hygiene-prose", "skip", "Last, proof that the lesson left nothing behind."),
        ("hygiene", "hygiene", "await nothing_left_behind()"),
    )  # fmt: skip
    return new_notebook(cells=[_cell(*parts) for parts in cells])


def _cell(identity: str, kind: str, source: str) -> NotebookNode:
    """Return a cell: of Markdown where ``kind`` is a type of slide, of code where it is a tag."""
    if kind in ("slide", "-", "skip"):
        cell = new_markdown_cell(source, id=identity)
        cell["metadata"]["slideshow"] = {"slide_type": kind}
        return cell
    cell = new_code_cell(source, id=identity)
    tags = {"code": [], "hygiene": ["claim", "hygiene"], "solution": ["claim", "solution"]}
    cell["metadata"]["tags"] = tags.get(kind, [kind])
    cell["metadata"]["slideshow"] = {"slide_type": "skip" if kind == "hygiene" else "-"}
    if kind in ("setup", "solution"):
        cell["metadata"]["jupyter"] = {"source_hidden": True}
    return cell
