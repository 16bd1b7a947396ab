"""Rules on cells: their tags, ids, sizes, code and pictures."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from looplab.publishing import markdown
from looplab.publishing.draft import TOP_LEVEL_AWAIT, Draft, called_names, tags
from looplab.publishing.notebooks import at_home
from looplab.publishing.rules.rule import Rule
from looplab.publishing.saved import outputs

KNOWN_TAGS = frozenset(
    {"setup", "predict", "claim", "dial", "exercise", "check", "solution", "hygiene", "hide-input"}
)
REQUIRED_TAGS: tuple[str, ...] = ("setup", "claim", "exercise", "check", "solution")
REQUIRED_OF_DEEPER: tuple[str, ...] = ("setup", "claim")
NEVER_IN_DEEPER: tuple[str, ...] = ("predict", "exercise", "check", "solution")
FOLDED = {"setup", "solution"}


@dataclass(frozen=True, slots=True)
class Limits:
    """Ceilings for the rare cell, never targets; ``cells`` without speaker's notes.

    ``folded_lines`` is for cells that start folded, set-up and solution; ``median`` is of the lines
    of code cells.
    """

    cells: tuple[int, int]
    lines: int
    folded_lines: int
    median: float
    words: int


# Below what a reader can take in, which is 40 cells, a median of 6 lines and 1,800 words: a lesson
# that stands at a limit is too full, and every lesson stood there before there was room under it.
LIMITS = Limits(cells=(20, 38), lines=15, folded_lines=28, median=5.5, words=1_700)
LIMITS_OF_DEEPER = Limits(cells=(6, 60), lines=15, folded_lines=25, median=8, words=2_400)
MAX_COLUMNS = 80

IDENTITY = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
RANDOM_IDENTITY = re.compile(r"[0-9a-f]{8}")
WORD = re.compile(r"\w(?:[\w'.-]*\w)?")
IMAGE_ALT = re.compile(r"<img\b[^>]*\balt=\"[^\"]+\"", re.IGNORECASE)


def known_tags(draft: Draft) -> Iterator[str]:
    """Tags are known, required ones are there, and `claim` stands where claim is called."""
    for cell in draft.cells:
        if unknown := sorted(set(tags(cell)) - KNOWN_TAGS):
            yield f"{cell['id']} has unknown tags: {', '.join(unknown)}"
    used = {tag for cell in draft.code for tag in tags(cell)}
    for tag in REQUIRED_OF_DEEPER if draft.lesson.deeper else REQUIRED_TAGS:
        if tag not in used:
            yield f"no code cell has the tag {tag}"
    if draft.lesson.deeper and (wrong := used.intersection(NEVER_IN_DEEPER)):
        yield f"a second helping has no cell tagged {', '.join(sorted(wrong))}"
    for cell in draft.code:
        proves = called_names(cell) & {"claim", "nothing_left_behind"}
        if "claim" in tags(cell) and not proves:
            yield f"{cell['id']} has the tag claim and claims nothing"
        elif "claim" in proves and "claim" not in tags(cell):
            yield f"{cell['id']} claims something and lacks the tag claim"
        if ("dial" in tags(cell)) != ("dial" in called_names(cell)):
            yield f"{cell['id']} must have the tag dial if it shows a dial, and only then"


def identities(draft: Draft) -> Iterator[str]:
    """Ids are words that a person chose."""
    for cell in draft.cells:
        identity = cell.get("id", "")
        if not IDENTITY.fullmatch(identity) or RANDOM_IDENTITY.fullmatch(identity):
            yield f"the id {identity!r} must be words with hyphens, such as predict-gather"


def sizes(draft: Draft) -> Iterator[str]:
    """Cells, lines and words stay within bounds."""
    limits = limits_of(draft)
    low, high = limits.cells
    count = len(draft.cells) - len(draft.notes)
    if not low <= count <= high:
        yield f"there are {count} cells; there must be {low} to {high}"
    lengths = [len(at_home(cell["source"]).splitlines()) for cell in draft.code]
    for cell, length in zip(draft.code, lengths, strict=True):
        most = limits.folded_lines if FOLDED.intersection(tags(cell)) else limits.lines
        if length > most:
            yield f"{cell['id']} has {length} lines of code; at most {most} are allowed"
        if not cell["source"].strip():
            yield f"{cell['id']} is an empty code cell"
    middle = median(lengths) if lengths else 0
    if middle > limits.median:
        yield f"the median code cell has {middle:g} lines; at most {limits.median:g} are allowed"
    for cell in draft.cells:
        text, is_prose = cell["source"], cell["cell_type"] == "markdown"
        lines = markdown.code_lines(text) if is_prose else at_home(text).splitlines()
        for line in lines:
            if len(line) > MAX_COLUMNS:
                yield f"{cell['id']} has a line of {len(line)} characters: {line[:40]}..."
    told = (markdown.prose(cell["source"], tables=False) for cell in draft.markdown)
    count = sum(len(WORD.findall(text)) for text in told)
    if count >= limits.words:
        yield f"there are {count} words of prose; there must be fewer than {limits.words}"


def limits_of(draft: Draft) -> Limits:
    """Return the ceilings for a lesson, or for a second helping."""
    return LIMITS_OF_DEEPER if draft.lesson.deeper else LIMITS


def pictures(draft: Draft) -> Iterator[str]:
    """Each picture in an output has alternative text, and a summary in words behind it."""
    for cell, output in outputs(draft.notebook):
        kinds = [kind for kind in output.get("data", {}) if kind.startswith("image/")]
        markup = str(output.get("data", {}).get("text/html", ""))
        if not kinds and "<img" not in markup:
            continue
        described = any(
            str(output["metadata"].get(kind, {}).get("alt", "")).strip() for kind in kinds
        )
        if not described and not IMAGE_ALT.search(markup):
            yield f"{cell['id']} shows a picture without alternative text"
        if markup.count("<img") > len(IMAGE_ALT.findall(markup)):
            yield f"{cell['id']} shows an HTML picture without alternative text"
        place = next(n for n, other in enumerate(cell["outputs"]) if other is output)
        following = cell["outputs"][place + 1 : place + 2]
        words = str(following[0].get("data", {}).get("text/plain", "")) if following else ""
        if len(words.split()) < 3 or any(k.startswith("image/") for k in following[0]["data"]):
            yield f"{cell['id']} shows a picture without a summary in words below it"


def plain_python(draft: Draft) -> Iterator[str]:
    """Cells are Python that every tool reads: no magics, no shell."""
    for cell in draft.code:
        try:
            compile(cell["source"], cell["id"], "exec", TOP_LEVEL_AWAIT)
        except SyntaxError as error:
            yield f"{cell['id']} is not plain Python: {error.msg} (line {error.lineno})"


RULES: tuple[Rule, ...] = (known_tags, identities, sizes, pictures, plain_python)
