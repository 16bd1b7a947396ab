"""Rules on a slide show: what each cell is in it, and how high a slide may be."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from nbformat import NotebookNode

from looplab.publishing import markdown
from looplab.publishing.draft import Draft, slide_type, tags
from looplab.publishing.rules.rule import Rule

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
TITLE_COLUMNS, TITLE_LINE = 38, 62  # a longer title takes another line
ROOM = 15  # for what the estimate leaves out


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
    blocks = markdown.blocks(cell["source"])
    return TEXT_FRAME + sum(map(_block_height, blocks)) + TEXT_GAP * (len(blocks) - 1)


def _block_height(block: markdown.Block) -> float:
    """Return the estimated height of a heading, a table, a list, code or a paragraph."""
    match block.kind:
        case "heading_open" if block.level == 1:
            lines = math.ceil(sum(map(len, block.lines)) / TITLE_COLUMNS)
            return HEADING_HEIGHTS[1] + TITLE_LINE * (lines - 1)
        case "heading_open":
            return HEADING_HEIGHTS.get(block.level, HEADING_HEIGHTS[3])
        case "table_open":
            return TABLE_ROW * len(block.lines) + TABLE_FRAME
        case "bullet_list_open" | "ordered_list_open":
            return LIST_LINE * sum(math.ceil(len(line) / TEXT_COLUMNS) for line in block.lines)
        case "fence" | "code_block":
            return CODE_LINE * len(block.lines) + CODE_FRAME
    return TEXT_LINE * math.ceil(sum(map(len, block.lines)) / TEXT_COLUMNS)


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


def slide_heights(draft: Draft) -> Iterator[str]:
    """No slide is taller than the screen of a projector, before its cells have run."""
    for slide in slide_show(draft):
        if slide.height + ROOM > SLIDE_HEIGHT:
            ids = ", ".join(cell["id"] for cell in slide.cells)
            yield (
                f"the slide of {ids} is {slide.height:.0f} pixels high; at most "
                f"{SLIDE_HEIGHT - ROOM} fit: begin a subslide in it"
            )


RULES: tuple[Rule, ...] = (slides, slide_heights)
