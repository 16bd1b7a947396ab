"""Rules on prose: it comes before code, avoids slippery words, and its links lead somewhere."""

import re
from collections.abc import Iterator

from looplab.publishing import markdown
from looplab.publishing.draft import Draft, headings
from looplab.publishing.rules.rule import Rule

PLACEHOLDER = re.compile(r"\bTODO\b")
SLIPPERY = re.compile(r"\b(simply|just)\b", re.IGNORECASE)
VAGUE_LINKS = frozenset({"here", "this", "link", "click here", "this link"})
ADDRESS = re.compile(r"[A-Za-z][\w+.-]*:")


def prose_first(draft: Draft) -> Iterator[str]:
    """Each code cell has prose above it, under the same heading."""
    told = False
    for cell in draft.cells:
        if cell["cell_type"] == "markdown":
            says = bool(markdown.prose_after_last_heading(cell["source"]))
            told = says if headings(cell) else told or says
        elif cell["cell_type"] == "code" and not told:
            yield f"{cell['id']} has no prose between its heading and itself"


def written(draft: Draft) -> Iterator[str]:
    """No sentence of the skeleton is left that somebody has to write."""
    for cell in draft.cells:
        if PLACEHOLDER.search(cell["source"]):
            yield f"{cell['id']} still says TODO"


def wording(draft: Draft) -> Iterator[str]:
    """No 'simply' and no 'just'; links say where they go."""
    for cell in draft.markdown:
        for match in SLIPPERY.finditer(markdown.prose(cell["source"])):
            yield f"{cell['id']} says {match[0]!r}"
        for link in markdown.links(cell["source"]):
            if link.picture and not link.text.strip():
                yield f"{cell['id']} shows a picture without alternative text"
            elif link.text.strip().lower() in VAGUE_LINKS:
                yield (
                    f"{cell['id']} has a link called {link.text!r}; its text must say where it goes"
                )


def relative_links(draft: Draft) -> Iterator[str]:
    """Links to files lead to files in this folder, links to headings to headings of this lesson."""
    anchors = {title.replace(" ", "-") for cell in draft.cells for title in headings(cell)}
    folder = draft.lesson.path.parent
    for cell in draft.markdown:
        for target in (link.target for link in markdown.links(cell["source"])):
            if ADDRESS.match(target):
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


RULES: tuple[Rule, ...] = (prose_first, written, wording, relative_links)
