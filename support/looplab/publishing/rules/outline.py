"""Rules on what stands where: title, sections, prediction, breaks, exercise, take-away."""

import ast
import builtins
import re
from collections.abc import Iterator
from itertools import pairwise

from nbformat import NotebookNode

from looplab.publishing import markdown
from looplab.publishing.draft import (
    PREVIEW,
    YOUR_TITLE,
    Draft,
    bound_names,
    called_names,
    exercise_minutes,
    fits,
    headings,
    linked_lessons,
    minutes,
    parsed,
    tags,
)
from looplab.publishing.rules.rule import Rule

# Before the first section stand the preview at the beginning of a line, bullets, 'NN minutes' and a
# table of prerequisites that links to lessons; in a second helping a link to its lesson.
DEEPER_TITLE = ", deeper"
MAX_BULLETS = 3
LAST_OF_THE_CARD = "13"  # the lessons that follow it go beyond the card
NO_VERB = re.compile(r"(the|an?|how|why|what|when)\b|\w+ing\b", re.IGNORECASE)
ITALIC_LINE = re.compile(r"([*_])(?![*_ ]).+(?<![*_ ])\1")


def title_and_hook(draft: Draft) -> Iterator[str]:
    """One level-1 heading with a verb, an italic line under it, and where the lesson comes from."""
    if sum(len(headings(cell, level=1)) for cell in draft.cells) != 1:
        yield "there must be one level-1 heading, in the first cell"
    if not draft.title:
        yield "the first cell must hold the level-1 heading"
        return
    lines = [line.strip() for line in draft.cells[0]["source"].splitlines() if line.strip()]
    if NO_VERB.match(draft.title):
        yield f"the title {draft.title!r} must be a verb phrase, such as 'Never block the loop'"
    if len(lines) < 2 or not ITALIC_LINE.fullmatch(lines[1]):
        yield "a hook in italics must stand on a line of its own under the title"
    if draft.lesson.deeper:
        if not draft.title.endswith(DEEPER_TITLE):
            yield f"the title {draft.title!r} must be its lesson's, with {DEEPER_TITLE!r} behind it"
        return
    if draft.lesson.number == "00":
        return
    if draft.lesson.number > LAST_OF_THE_CARD:
        if not any(line.startswith("From practice:") for line in lines):
            yield "the first cell must have a line 'From practice: ...' that says who asks for this"
        return
    if not any(line.startswith("From the card:") for line in lines):
        yield "the first cell must have a line 'From the card: ...' that names the snippets"
    elif not markdown.code_lines(draft.opening):
        yield "the opening must show the card's own snippet, a few lines"


def skeleton(draft: Draft) -> Iterator[str]:
    """The sections stand in the skeleton's order, none missing."""
    named = [name for name in draft.skeleton if name != YOUR_TITLE]
    order = []
    for section in draft.sections:
        name = next((name for name in named if fits(section.title, name)), YOUR_TITLE)
        if not order or order[-1] != name:
            order.append(name)
    for name in named:
        if name not in order:
            colon = ": ..." if name == "What breaks" else ""
            yield f"the section '## {name}{colon}' is missing"
    present = [name for name in order if name != YOUR_TITLE]
    expected = [name for name in named if name in present]
    deduped = [
        name for name, before in zip(present, ["", *present], strict=False) if name != before
    ]
    if deduped != expected:
        yield f"the sections stand as {', '.join(deduped)}; the order is {', '.join(expected)}"
    for before, after in _around_your_titles(draft.skeleton):
        if (before, after) in pairwise(order):
            yield f"between '## {before}' and '## {after}' a section of your own is missing"
    last = draft.skeleton[-1]
    if order and order[-1] != last:
        yield f"the last section must be '## {last}'"


def _around_your_titles(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [
        (names[place - 1], names[place + 1])
        for place, name in enumerate(names)
        if name == YOUR_TITLE
    ]


def opening(draft: Draft) -> Iterator[str]:
    """The preview has a few bullets, minutes, and a table of prerequisites."""
    text = draft.opening
    if draft.lesson.deeper:
        if draft.lesson.other_helping.name not in linked_lessons(text):
            yield f"the opening must link to the lesson, {draft.lesson.other_helping.path.name}"
        return
    if not re.search(rf"^{re.escape(PREVIEW)}", text, re.MULTILINE):
        yield f"before the first section a line must begin with {PREVIEW}"
    bullets = markdown.bullets(text)
    if not 1 <= bullets <= MAX_BULLETS:
        yield f"the opening has {bullets} bullets; it must have 1 to {MAX_BULLETS}"
    if minutes(draft) is None:
        yield "the opening must state the time as 'NN minutes'"
    elif draft.section("Exercise") and exercise_minutes(draft) is None:
        yield "the opening must state 'NN for the exercise', which comes on top of the minutes"
    if not markdown.has_table(text):
        yield "the opening must hold the prerequisites as a table"
    if draft.lesson.number != "00" and not linked_lessons(text):
        yield "the prerequisites must link to a lesson"


def set_up(draft: Draft) -> Iterator[str]:
    """One set-up cell, the first code cell, which calls `start()`."""
    tagged = [cell for cell in draft.code if "setup" in tags(cell)]
    if len(tagged) != 1 or tagged[0] is not draft.code[0]:
        yield "the first code cell, and no other, must have the tag setup"
        return
    section = draft.section("Set-up")
    if section is not None and tagged[0] not in section.cells:
        yield "the cell with the tag setup must stand under '## Set-up'"
    if "start()" not in tagged[0]["source"]:
        yield "the set-up cell must call start()"
    if not _starts_folded(tagged[0]):
        yield f"{tagged[0]['id']} is the set-up; set jupyter.source_hidden in it"


def _starts_folded(cell: NotebookNode) -> bool:
    return bool(cell["metadata"].get("jupyter", {}).get("source_hidden"))


def prediction(draft: Draft) -> Iterator[str]:
    """A prediction is asked for under "Predict" and revealed later."""
    section = draft.section("Predict")
    if section is None:
        return
    asked = [cell for cell in section.cells if "predict" in called_names(cell)]
    if not asked:
        yield "no cell under '## Predict' calls predict(...)"
        return
    rest = draft.cells[draft.cells.index(asked[0]) + 1 :]
    if not any("reveal" in called_names(cell) for cell in rest):
        yield "no cell after the prediction calls its reveal(...)"


def breaks(draft: Draft) -> Iterator[str]:
    """Each failure is reproduced under a heading of its own, with a claim on its outcome."""
    for section in draft.sections:
        if fits(section.title, "What breaks") and not any(
            "claim" in tags(c) for c in section.cells
        ):
            yield f"'## {section.title}' claims nothing"


def exercise(draft: Draft) -> Iterator[str]:
    """Stub, check and solution follow one another, with a hint; the solution starts collapsed."""
    order = ("exercise", "check", "solution")
    places = {tag: [n for n, cell in enumerate(draft.cells) if tag in tags(cell)] for tag in order}
    firsts = [places[tag][0] for tag in order if places[tag]]
    if firsts != sorted(firsts):
        yield "the cells tagged exercise, check and solution must stand in this order"
    section = draft.section("Exercise")
    if section is not None and "hint" not in "\n".join(section.markdown).lower():
        yield "'## Exercise' gives no hint"
    for place in places["solution"]:
        if not _starts_folded(draft.cells[place]):
            yield f"{draft.cells[place]['id']} is a solution; set jupyter.source_hidden in it"


def take_away(draft: Draft) -> Iterator[str]:
    """The last section links to documentation; the last code cell proves that nothing is left."""
    name = draft.skeleton[-1]
    section = draft.section(name)
    if section is not None:
        text = "\n\n".join(section.markdown)
        if not any(link.target.startswith("https://") for link in markdown.links(text)):
            yield f"'## {name}' must link to primary documentation"
        other = draft.lesson.other_helping
        if (
            not draft.lesson.deeper
            and other.path.exists()
            and other.name not in linked_lessons(text)
        ):
            yield f"'## {name}' must link to the second helping, {other.path.name}"
    if not draft.code or "nothing_left_behind" not in called_names(draft.code[-1]):
        yield "the last code cell must call nothing_left_behind()"


def sections_stand_alone(draft: Draft) -> Iterator[str]:
    """Each section of a second helping needs the set-up and nothing of another section."""
    if not draft.lesson.deeper:
        return
    bound = {
        section.title: {
            name
            for cell in section.cells
            if cell["cell_type"] == "code"
            for name in bound_names(parsed(cell))
        }
        for section in draft.sections
    }
    shared = bound.get("Set-up", set()) | set(dir(builtins))
    elsewhere = set().union(*bound.values())
    for section in draft.sections:
        for cell in section.cells:
            if cell["cell_type"] != "code" or "hygiene" in tags(cell):
                continue
            used = {
                node.id
                for node in ast.walk(parsed(cell))
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
            }
            for name in sorted((used - bound[section.title] - shared) & elsewhere):
                yield f"{cell['id']} needs {name!r} of another section; each must stand alone"


RULES: tuple[Rule, ...] = (
    title_and_hook,
    skeleton,
    opening,
    set_up,
    prediction,
    breaks,
    exercise,
    take_away,
    sections_stand_alone,
)
