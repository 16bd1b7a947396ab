"""The house rules for a lesson: what stands where, how long, under which names.

`SKELETON`, `REQUIRED_TAGS` and the constants below are the rules; each function in `RULES` yields
what breaks one of them.
"""

import ast
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import Protocol

from nbformat import NotebookNode

from support.project import Lesson
from support.publishing.saved import outputs

YOUR_TITLE = "(a title of your own)"

# Level-2 headings, in this order. "Predict" may be "## Predict" or "## Predict: how long?";
# "What breaks" needs its colon and comes once for each failure. Other headings may stand between.
SKELETON: tuple[str, ...] = (
    "Set-up",
    YOUR_TITLE,
    "Predict",
    YOUR_TITLE,
    "Compare",
    "What breaks",
    "In practice",
    "Exercise",
    "Take away",
)
# Lesson 00 shows the instruments: nothing breaks, nothing is shipped, nothing is asked.
SKELETON_OF: dict[str, tuple[str, ...]] = {
    "00": (
        "Set-up",
        "Predict",
        "Compare",
        "Map of the course",
        "From symptom to lesson",
        "Three syllabi",
        "Take away",
    ),
}

KNOWN_TAGS = frozenset(
    {"setup", "predict", "claim", "dial", "exercise", "check", "solution", "hygiene", "hide-input"}
)
REQUIRED_TAGS: tuple[str, ...] = ("setup", "claim", "exercise", "check", "solution")
REQUIRED_TAGS_OF: dict[str, tuple[str, ...]] = {"00": ("setup", "claim")}

# Before the first section: this at the beginning of a line, bullets, 'NN minutes' and a table of
# prerequisites that links to lessons.
YOU_WILL_SEE = "**You will see**"

SLIDE_TYPES = frozenset({"slide", "subslide", "fragment", "skip", "notes", "-"})
# How a speaker's note begins: learners read it too, in the notebook.
PRESENTING = "*Presenting?* "
MAX_NOTES = 2
# What a slide of jupyterlab-rise holds at 1280x720 before its cells have run, in pixels. Measured
# there; tests/browser holds the estimate against the real thing.
SLIDE_HEIGHT = 720
CODE_LINE, CODE_FRAME = 18.3, 20
TEXT_LINE, TEXT_FRAME, TEXT_GAP, TEXT_COLUMNS = 18.4, 37, 20, 170
LIST_LINE, TABLE_ROW, TABLE_FRAME = 22.6, 20.4, 3
HEADING_HEIGHTS = {1: 76, 2: 36, 3: 36}
ROOM = 15  # for what the estimate leaves out

CELLS = (20, 60)  # speaker's notes not counted
MAX_CODE_LINES = 25
MEDIAN_CODE_LINES = 10
MAX_COLUMNS = 80
MAX_WORDS = 1_800
MAX_BULLETS = 3

IDENTITY = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
RANDOM_IDENTITY = re.compile(r"[0-9a-f]{8}")
SLIPPERY = re.compile(r"\b(simply|just)\b", re.IGNORECASE)
NO_VERB = re.compile(r"(the|an?|how|why|what|when)\b|\w+ing\b", re.IGNORECASE)
MINUTES = re.compile(r"\b(\d+) minutes\b")

FENCED = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)\s*$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
HTML_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
HTML_TAG = re.compile(r"</?[A-Za-z][^>]*>")
HEADING = re.compile(r"^(#{1,6}) +(.+?)\s*$", re.MULTILINE)
MARKDOWN_LINK = re.compile(r"(!?)\[([^\]]*)\]\(\s*<?([^)\s>]+)>?[^)]*\)")
HTML_LINK = re.compile(r"<(?:a|img)\b[^>]*?\b(?:href|src)\s*=\s*[\"']([^\"']+)", re.IGNORECASE)
TABLE_RULE = re.compile(r"^\s*\|(?:\s*:?-+:?\s*\|)+\s*$", re.MULTILINE)
WORD = re.compile(r"\w(?:[\w'.-]*\w)?")
IMAGE_ALT = re.compile(r"<img\b[^>]*\balt=\"[^\"]+\"", re.IGNORECASE)
VAGUE_LINKS = frozenset({"here", "this", "link", "click here", "this link"})

TOP_LEVEL_AWAIT = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


@dataclass(frozen=True, slots=True)
class Section:
    """A level-2 heading and the cells under it, its own first."""

    title: str
    cells: tuple[NotebookNode, ...]


@dataclass(frozen=True)
class Draft:
    """A lesson as it stands, with what the rules ask about it."""

    lesson: Lesson
    notebook: NotebookNode

    @property
    def cells(self) -> list[NotebookNode]:
        return self.notebook["cells"]

    @cached_property
    def code(self) -> list[NotebookNode]:
        return [cell for cell in self.cells if cell["cell_type"] == "code"]

    @cached_property
    def markdown(self) -> list[NotebookNode]:
        return [cell for cell in self.cells if cell["cell_type"] == "markdown"]

    @property
    def title(self) -> str:
        """The level-1 heading, which the first cell begins with; empty where there is none."""
        found = headings(self.cells[0], level=1) if self.cells else []
        return found[0] if found else ""

    @cached_property
    def notes(self) -> list[NotebookNode]:
        """What only the speaker's view of the slides shows."""
        return [cell for cell in self.cells if slide_type(cell) == "notes"]

    @cached_property
    def sections(self) -> list[Section]:
        """The sections in order; a cell with several level-2 headings belongs to the last."""
        found: list[tuple[str, list[NotebookNode]]] = []
        for cell in self.cells:
            titles = headings(cell, level=2)
            found += [(title, [cell]) for title in titles]
            if not titles and found:
                found[-1][1].append(cell)
        return [Section(title, tuple(cells)) for title, cells in found]

    @cached_property
    def opening(self) -> str:
        """The markdown before the first level-2 heading."""
        parts = []
        for cell in self.cells:
            if headings(cell, level=2):
                break
            if cell["cell_type"] == "markdown":
                parts.append(cell["source"])
        return "\n".join(parts)

    @cached_property
    def skeleton(self) -> tuple[str, ...]:
        return SKELETON_OF.get(self.lesson.number, SKELETON)

    def section(self, name: str) -> Section | None:
        """Return the first section that the skeleton calls ``name``."""
        return next((part for part in self.sections if fits(part.title, name)), None)


class Rule(Protocol):
    """A function that yields a line for each thing in a draft that breaks one house rule."""

    __name__: str

    def __call__(self, draft: Draft, /) -> Iterator[str]: ...


def structure_faults(draft: Draft) -> list[str]:
    """Return every house rule that ``draft`` breaks, a line each."""
    return [fault for rule in RULES for fault in rule(draft)]


def fits(title: str, name: str) -> bool:
    """Return whether a heading ``title`` is the one that the skeleton calls ``name``."""
    return (title == name and name != "What breaks") or title.startswith(f"{name}: ")


def tags(cell: NotebookNode) -> list[str]:
    """Return the cell's tags."""
    return list(cell["metadata"].get("tags", []))


def prose(markdown: str) -> str:
    """Return ``markdown`` without code, comments and HTML tags."""
    for pattern in (FENCED, CODE_SPAN, HTML_COMMENT, HTML_TAG):
        markdown = pattern.sub(" ", markdown)
    return markdown


def headings(cell: NotebookNode, level: int | None = None) -> list[str]:
    """Return the headings of a markdown cell, of one level or of all."""
    if cell["cell_type"] != "markdown":
        return []
    found = HEADING.findall(FENCED.sub("", cell["source"]))
    return [title for marks, title in found if level in (None, len(marks))]


def slide_type(cell: NotebookNode) -> str | None:
    """Return what the cell is in a slide show; None where it does not say."""
    return cell["metadata"].get("slideshow", {}).get("slide_type")


def links(markdown: str) -> list[str]:
    """Return the targets of the links and pictures in ``markdown``, code left out."""
    text = CODE_SPAN.sub(" ", FENCED.sub("", markdown))
    return [target for _, _, target in MARKDOWN_LINK.findall(text)] + HTML_LINK.findall(text)


def linked_lessons(markdown: str) -> list[str]:
    """Return the names of the notebooks that ``markdown`` links to, in order."""
    names = (target.partition("#")[0] for target in links(markdown) if "://" not in target)
    return [
        re.split("/", name)[-1].removesuffix(".ipynb") for name in names if name.endswith(".ipynb")
    ]


def minutes(draft: Draft) -> int | None:
    """Return the minutes that the lesson states before its first section."""
    match = MINUTES.search(draft.opening)
    return int(match[1]) if match else None


def called_names(cell: NotebookNode) -> set[str]:
    """Return what a code cell calls: ``claim`` for ``claim(...)``, ``reveal`` for ``x.reveal``."""
    names = set()
    for node in ast.walk(_parsed(cell["source"])):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                names.add(node.func.id)
            elif isinstance(node.func, ast.Attribute):
                names.add(node.func.attr)
    return names


def title_and_hook(draft: Draft) -> Iterator[str]:
    """One level-1 heading with a verb, an italic line under it, and the card's snippets."""
    if sum(len(headings(cell, level=1)) for cell in draft.cells) != 1:
        yield "there must be one level-1 heading, in the first cell"
    if not draft.title:
        yield "the first cell must hold the level-1 heading"
        return
    lines = [line.strip() for line in draft.cells[0]["source"].splitlines() if line.strip()]
    if NO_VERB.match(draft.title):
        yield f"the title {draft.title!r} must be a verb phrase, such as 'Never block the loop'"
    if len(lines) < 2 or not re.fullmatch(r"([*_])(?![*_ ]).+(?<![*_ ])\1", lines[1]):
        yield "a hook in italics must stand on a line of its own under the title"
    if draft.lesson.number != "00" and not any(line.startswith("From the card:") for line in lines):
        yield "the first cell must have a line 'From the card: ...' that names the snippets"


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
    if order and order[-1] != "Take away":
        yield "the last section must be '## Take away'"


def opening(draft: Draft) -> Iterator[str]:
    """ "You will see" has a few bullets, minutes, and a table of prerequisites."""
    text = draft.opening
    if not re.search(rf"^{re.escape(YOU_WILL_SEE)}", text, re.MULTILINE):
        yield f"before the first section a line must begin with {YOU_WILL_SEE}"
    bullets = re.findall(r"^\s*[-*+] ", text, re.MULTILINE)
    if not 1 <= len(bullets) <= MAX_BULLETS:
        yield f"the opening has {len(bullets)} bullets; it must have 1 to {MAX_BULLETS}"
    if minutes(draft) is None:
        yield "the opening must state the time as 'NN minutes'"
    if not TABLE_RULE.search(text) and "<table" not in text.lower():
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
    places = {
        tag: [n for n, cell in enumerate(draft.cells) if tag in tags(cell)] for tag in KNOWN_TAGS
    }
    firsts = [places[tag][0] for tag in ("exercise", "check", "solution") if places[tag]]
    if firsts != sorted(firsts):
        yield "the cells tagged exercise, check and solution must stand in this order"
    section = draft.section("Exercise")
    if section is not None and "hint" not in "\n".join(_markdown_of(section)).lower():
        yield "'## Exercise' gives no hint"
    for place in places["solution"]:
        if not draft.cells[place]["metadata"].get("jupyter", {}).get("source_hidden"):
            yield f"{draft.cells[place]['id']} is a solution; set jupyter.source_hidden in it"


def take_away(draft: Draft) -> Iterator[str]:
    """ "Take away" links to documentation; the last code cell proves that nothing is left."""
    section = draft.section("Take away")
    if section is not None:
        targets = [target for text in _markdown_of(section) for target in links(text)]
        if not any(target.startswith("https://") for target in targets):
            yield "'## Take away' must link to primary documentation"
    if not draft.code or "nothing_left_behind" not in called_names(draft.code[-1]):
        yield "the last code cell must call nothing_left_behind()"


def known_tags(draft: Draft) -> Iterator[str]:
    """Tags are known, required ones are there, and `claim` stands where claim is called."""
    for cell in draft.cells:
        if unknown := sorted(set(tags(cell)) - KNOWN_TAGS):
            yield f"{cell['id']} has unknown tags: {', '.join(unknown)}"
    used = {tag for cell in draft.code for tag in tags(cell)}
    for tag in REQUIRED_TAGS_OF.get(draft.lesson.number, REQUIRED_TAGS):
        if tag not in used:
            yield f"no code cell has the tag {tag}"
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


def slides(draft: Draft) -> Iterator[str]:
    """Each cell says what it is in a slide show, and the first begins a slide."""
    for cell in draft.cells:
        kind = slide_type(cell)
        if kind not in SLIDE_TYPES:
            allowed = ", ".join(sorted(SLIDE_TYPES))
            yield f"{cell['id']}: slideshow.slide_type is {kind!r}; it must be one of {allowed}"
        elif cell is draft.cells[0] and kind != "slide":
            yield f"{cell['id']}: the first cell's slide_type must be 'slide'"
        elif kind == "skip" and "setup" in tags(cell):
            yield f"{cell['id']}: a slide show needs the set-up too; it must not be skipped"
        elif kind == "notes" and not cell["source"].startswith(PRESENTING):
            yield f"{cell['id']}: a speaker's note must be prose that begins with {PRESENTING!r}"
    if len(draft.notes) > MAX_NOTES:
        yield f"there are {len(draft.notes)} speaker's notes; at most {MAX_NOTES} are read"


def sizes(draft: Draft) -> Iterator[str]:
    """Cells, lines and words stay within bounds."""
    low, high = CELLS
    count = len(draft.cells) - len(draft.notes)
    if not low <= count <= high:
        yield f"there are {count} cells; there must be {low} to {high}"
    lengths = [len(cell["source"].splitlines()) for cell in draft.code]
    for cell, length in zip(draft.code, lengths, strict=True):
        if length > MAX_CODE_LINES:
            yield f"{cell['id']} has {length} lines of code; at most {MAX_CODE_LINES} are allowed"
        if not cell["source"].strip():
            yield f"{cell['id']} is an empty code cell"
    middle = median(lengths) if lengths else 0
    if middle > MEDIAN_CODE_LINES:
        yield f"the median code cell has {middle:g} lines; at most {MEDIAN_CODE_LINES} are allowed"
    for cell in draft.cells:
        text = cell["source"]
        if cell["cell_type"] == "markdown":
            text = "\n".join(match[0] for match in FENCED.finditer(text))
        for line in text.splitlines():
            if len(line) > MAX_COLUMNS:
                yield f"{cell['id']} has a line of {len(line)} characters: {line[:40]}..."
    count = sum(len(WORD.findall(_without_tables(prose(c["source"])))) for c in draft.markdown)
    if count >= MAX_WORDS:
        yield f"there are {count} words of prose; there must be fewer than {MAX_WORDS}"


def prose_first(draft: Draft) -> Iterator[str]:
    """Each code cell has prose above it, under the same heading."""
    told = False
    for cell in draft.cells:
        if cell["cell_type"] == "markdown":
            text = prose(cell["source"])
            after_heading = HEADING.split(text)[-1]
            told = (
                bool(after_heading.strip()) if HEADING.search(text) else told or bool(text.strip())
            )
        elif cell["cell_type"] == "code" and not told:
            yield f"{cell['id']} has no prose between its heading and itself"


def wording(draft: Draft) -> Iterator[str]:
    """No 'simply' and no 'just'; links say where they go."""
    for cell in draft.markdown:
        for match in SLIPPERY.finditer(prose(cell["source"])):
            yield f"{cell['id']} says {match[0]!r}"
        for picture, text, _ in MARKDOWN_LINK.findall(
            CODE_SPAN.sub(" ", FENCED.sub("", cell["source"]))
        ):
            if picture and not text.strip():
                yield f"{cell['id']} shows a picture without alternative text"
            elif text.strip().lower() in VAGUE_LINKS:
                yield f"{cell['id']} has a link called {text!r}; its text must say where it goes"


def relative_links(draft: Draft) -> Iterator[str]:
    """Links to files lead to files in this folder, links to headings to headings of this lesson."""
    anchors = {title.replace(" ", "-") for cell in draft.cells for title in headings(cell)}
    folder = draft.lesson.path.parent
    for cell in draft.markdown:
        for target in links(cell["source"]):
            if re.match(r"[A-Za-z][\w+.-]*:", target):
                continue
            file, _, anchor = target.partition("#")
            if not file:
                if anchor not in anchors:
                    yield f"{cell['id']} links to #{anchor}; no heading is called so"
            elif "/" in file.removeprefix("./") and not (folder / file).resolve().is_relative_to(
                folder.resolve()
            ):
                yield f"{cell['id']} links to {target}, outside the lessons' folder"
            elif not (folder / file).is_file():
                yield f"{cell['id']} links to {target}; there is no such file"


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


@dataclass(frozen=True, slots=True)
class Slide:
    """The cells that one slide shows at last, fragments included."""

    cells: tuple[NotebookNode, ...]

    @property
    def height(self) -> float:
        """Its estimated height in pixels, before its cells have run."""
        return sum(map(cell_height, self.cells))


def slide_show(draft: Draft) -> list[Slide]:
    """Return the slides in order; what is skipped or only noted is on none."""
    shown: list[list[NotebookNode]] = []
    for cell in draft.cells:
        kind = slide_type(cell)
        if kind in ("slide", "subslide") or not shown:
            shown.append([])
        if kind not in ("skip", "notes"):
            shown[-1].append(cell)
    return [Slide(tuple(cells)) for cells in shown]


def cell_height(cell: NotebookNode) -> float:
    """Return the estimated height of a cell on a slide, in pixels, without outputs."""
    if cell["cell_type"] != "markdown":
        return CODE_LINE * len(cell["source"].splitlines()) + CODE_FRAME
    blocks = []
    for block in re.split(r"\n\s*\n", MARKDOWN_LINK.sub(r"\2", cell["source"].strip())):
        lines = block.splitlines()
        if heading := HEADING.match(block):
            blocks.append(HEADING_HEIGHTS.get(len(heading[1]), HEADING_HEIGHTS[3]))
            del lines[0]
        if lines:
            blocks.append(_text_height(lines))
    return TEXT_FRAME + sum(blocks) + TEXT_GAP * (len(blocks) - 1)


def _text_height(lines: list[str]) -> float:
    """Return the estimated height of a table, a list or a paragraph."""
    if lines[0].startswith("|"):
        return TABLE_ROW * (len(lines) - 1) + TABLE_FRAME
    if re.match(r"[-*] |\d+\. ", lines[0]):
        return LIST_LINE * sum(math.ceil(len(line) / TEXT_COLUMNS) for line in lines)
    return TEXT_LINE * math.ceil(sum(map(len, lines)) / TEXT_COLUMNS)


def slide_heights(draft: Draft) -> Iterator[str]:
    """No slide is taller than the screen of a projector, before its cells have run."""
    for slide in slide_show(draft):
        if slide.height + ROOM > SLIDE_HEIGHT:
            ids = ", ".join(cell["id"] for cell in slide.cells)
            yield (
                f"the slide of {ids} is {slide.height:.0f} pixels high; at most "
                f"{SLIDE_HEIGHT - ROOM} fit: begin a subslide in it"
            )


RULES: tuple[Rule, ...] = (
    title_and_hook,
    skeleton,
    opening,
    set_up,
    prediction,
    breaks,
    exercise,
    take_away,
    known_tags,
    identities,
    slides,
    slide_heights,
    sizes,
    prose_first,
    wording,
    relative_links,
    pictures,
    plain_python,
)


def _markdown_of(section: Section) -> list[str]:
    return [cell["source"] for cell in section.cells if cell["cell_type"] == "markdown"]


def _parsed(source: str) -> ast.AST:
    try:
        return compile(source, "cell", "exec", TOP_LEVEL_AWAIT)
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


def _without_tables(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("|"))


def _around_your_titles(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [
        (names[place - 1], names[place + 1])
        for place, name in enumerate(names)
        if name == YOUR_TITLE
    ]
