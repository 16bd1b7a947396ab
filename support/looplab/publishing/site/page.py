"""A lesson's page: the saved notebook, laid out for somebody who reads it without a kernel."""

from dataclasses import dataclass

from nbformat import NotebookNode
from nbformat.v4 import new_output

from looplab.project import DEEPER, Lesson
from looplab.publishing.draft import slide_type, tags
from looplab.publishing.kept import give_back
from looplab.publishing.notebooks import read_notebook
from looplab.publishing.saved import outputs
from looplab.publishing.site import dials, predictions
from looplab.publishing.site.outputs import can_be_explored, markup_of

FOLDED = {"setup": "hide-input", "solution": "hide-cell", "hygiene": "hide-input"}
PROMPTS = {"solution": ("Show a solution", "Hide the solution")}


@dataclass(frozen=True, slots=True)
class Live:
    """What a page does by itself, and whether it has an exercise, which needs a kernel."""

    predictions: int
    dials: tuple[int, ...]
    """How many results each dial has."""
    pictures: int
    """How many pictures can be explored."""
    exercise: bool


def page_of(lesson: Lesson) -> NotebookNode:
    """Return the saved notebook of ``lesson`` as its page is made from it.

    Raises CourseError when what is kept for the page belongs to another run.
    """
    notebook = read_notebook(lesson.path)
    give_back(notebook, lesson.path)
    notebook["cells"] = [cell for cell in notebook["cells"] if slide_type(cell) != "notes"]
    asked = predictions.ask(notebook)
    pictures = sum(can_be_explored(output) for output in dials.with_choices(notebook))
    turned = tuple(dials.lay_out(notebook))
    for _, output in outputs(notebook):
        if "image/png" in output.get("data", {}):
            output["data"] = {"text/html": markup_of(output)}
    checks = [cell for cell in notebook["cells"] if "check" in tags(cell)]
    for cell in checks:
        cell["outputs"].append(_needs_a_kernel(lesson))
    _fold(notebook)
    live = Live(asked, turned, pictures, exercise=bool(checks))
    title = notebook["cells"][0]
    heading, _, rest = title["source"].partition("\n")
    title["source"] = f"{heading}\n\n{_what_is_live(lesson, live)}\n{rest}"
    return notebook


def _fold(notebook: NotebookNode) -> None:
    for cell in notebook["cells"]:
        for tag, fold in FOLDED.items():
            if tag in tags(cell) and fold not in tags(cell):
                cell["metadata"]["tags"] = [*tags(cell), fold]
            if tag in tags(cell) and tag in PROMPTS:
                show, hide = PROMPTS[tag]
                prompts = {"code_prompt_show": show, "code_prompt_hide": hide}
                cell["metadata"]["mystnb"] = prompts


def _needs_a_kernel(lesson: Lesson) -> NotebookNode:
    said = (
        "This is what the check says of the code above as it stands. It can't run on this page: to "
        f"have your own version checked, open the notebook with "
        f"<code>course open {_short(lesson)}</code>."
    )
    markup = f'<p class="course-needs-notebook">{said}</p>'
    return new_output("display_data", data={"text/html": markup})


def _what_is_live(lesson: Lesson, live: Live) -> str:
    here = []
    if live.predictions:
        predictions = "a prediction" if live.predictions == 1 else f"{live.predictions} predictions"
        here.append(f"make {predictions}")
    here += [f"move a dial through {count} results" for count in live.dials]
    if live.pictures:
        pictures = "a picture" if live.pictures == 1 else f"{live.pictures} pictures"
        here.append(f"explore {pictures}")
    if live.exercise:
        here.append("open the hint and the solution of the exercise")
    works = f"You can {_listed(here)}. " if here else ""
    check = ", or to have your exercise checked" if live.exercise else ""
    return (
        "```{admonition} What works on this page\n:class: note course-live\n"
        f"{works}All outputs come from one run, which was saved. To run and change the code{check},"
        f" open the notebook: `course open {_short(lesson)}`.\n```"
    )


def _short(lesson: Lesson) -> str:
    return f"{lesson.number}{DEEPER}" if lesson.deeper else lesson.number


def _listed(parts: list[str]) -> str:
    *others, last = parts
    return f"{', '.join(others)} and {last}" if others else last
