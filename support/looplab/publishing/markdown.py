"""What a piece of Markdown says: its headings, links, prose and code, as markdown-it reads it.

A heading inside a fence is no heading, and a link inside code leads nowhere: the parser knows, so
that no rule has to.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from html.parser import HTMLParser

from markdown_it import MarkdownIt
from markdown_it.token import Token

_READER = MarkdownIt("commonmark").enable("table")
_HTML_TARGETS = {"a": "href", "img": "src"}
_CODE_BLOCKS = {"fence", "code_block"}


@dataclass(frozen=True, slots=True)
class Link:
    """A link or a picture: where it leads, and the text or alternative text that it shows."""

    target: str
    text: str
    picture: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """A top-level block; ``lines`` are its rows of text as a reader sees them.

    ``kind`` is that of markdown-it's token: ``heading_open``, ``paragraph_open``, ``table_open``,
    ``bullet_list_open``, ``fence`` and so on. ``level`` is a heading's, and 0 for the others.
    """

    kind: str
    lines: tuple[str, ...]
    level: int = 0


@lru_cache(maxsize=4096)
def _tokens(markdown: str) -> tuple[Token, ...]:
    return tuple(_READER.parse(markdown))


def headings(markdown: str, level: int | None = None) -> list[str]:
    """Return the headings as they are written, of one level or of all."""
    tokens = _tokens(markdown)
    return [
        tokens[place + 1].content
        for place, token in enumerate(tokens)
        if token.type == "heading_open" and level in (None, int(token.tag[1:]))
    ]


def links(markdown: str) -> list[Link]:
    """Return links and pictures, those written in HTML last, code left out."""
    found = list(_links(_inline(_tokens(markdown))))
    reader = _HtmlLinks()
    for token in _everything(_tokens(markdown)):
        if token.type in ("html_block", "html_inline"):
            reader.feed(token.content)
    return found + reader.found


def prose(markdown: str, *, tables: bool = True) -> str:
    """Return the words, a block a line: without code, comments, HTML tags and targets of links.

    Without ``tables``, what stands in them is left out too.
    """
    return "\n".join(text for _, text in _paragraphs(markdown, tables=tables))


def prose_after_last_heading(markdown: str) -> str:
    """Return the prose that follows the last heading; all of it where there is no heading."""
    told: list[str] = []
    for in_heading, text in _paragraphs(markdown):
        if in_heading:
            told.clear()
        else:
            told.append(text)
    return "\n".join(told).strip()


def code_lines(markdown: str) -> list[str]:
    """Return the lines that stand in blocks of code."""
    blocks = (token.content for token in _everything(_tokens(markdown)) if _is_code(token))
    return [line for block in blocks for line in block.splitlines()]


def has_table(markdown: str) -> bool:
    """Return whether there is a table, in Markdown or in HTML."""
    return any(
        token.type == "table_open"
        or (token.type.startswith("html") and "<table" in token.content.lower())
        for token in _everything(_tokens(markdown))
    )


def bullets(markdown: str) -> int:
    """Return how many bullets there are, those inside other lists included."""
    return sum(
        token.type == "list_item_open" and token.markup in ("-", "*", "+")
        for token in _tokens(markdown)
    )


def blocks(markdown: str) -> list[Block]:
    """Return the top-level blocks in order."""
    found: list[Block] = []
    inside: list[Token] = []
    opening: Token | None = None
    for token in _tokens(markdown):
        if token.level == 0 and token.nesting == 1:
            opening, inside = token, []
        elif token.level == 0 and token.nesting == -1 and opening is not None:
            level = int(opening.tag[1:]) if opening.type == "heading_open" else 0
            found.append(Block(opening.type, tuple(_rows(inside)), level))
            opening = None
        elif opening is None:
            found.append(Block(token.type, tuple(token.content.splitlines())))
        else:
            inside.append(token)
    return found


def _rows(tokens: Iterable[Token]) -> Iterator[str]:
    """Yield a row of a table, a paragraph, or a line of code, one after another."""
    row: list[str] | None = None
    for token in tokens:
        if token.type == "tr_open":
            row = []
        elif token.type == "tr_close":
            yield " ".join(row or ())
            row = None
        elif token.type == "inline":
            text = _shown(token)
            if row is None:
                yield text
            else:
                row.append(text)
        elif _is_code(token):
            yield from token.content.splitlines()


def _paragraphs(markdown: str, *, tables: bool = True) -> Iterator[tuple[bool, str]]:
    """Yield each block of text, with whether it is a heading."""
    in_table = in_heading = False
    for token in _tokens(markdown):
        if token.type in ("table_open", "table_close"):
            in_table = token.nesting == 1
        elif token.type in ("heading_open", "heading_close"):
            in_heading = token.nesting == 1
        elif token.type == "inline" and (tables or not in_table):
            yield in_heading, _words(token)


def _words(inline: Token) -> str:
    """Return the text of a block without its code."""
    parts = []
    for token in inline.children or ():
        if token.type == "text":
            parts.append(token.content)
        elif token.type == "image":
            parts.append(f" {_words(token)} ")
        elif token.type in ("softbreak", "hardbreak"):
            parts.append("\n")
        elif token.type in ("code_inline", "html_inline"):
            parts.append(" ")
    return "".join(parts)


def _shown(inline: Token) -> str:
    """Return the text of a block as it is set, code included, on one line."""
    kinds = ("text", "code_inline")
    return "".join(
        token.content if token.type in kinds else " " if token.type.endswith("break") else ""
        for token in inline.children or ()
    )


def _links(tokens: Iterable[Token]) -> Iterator[Link]:
    for inline in tokens:
        children = inline.children or []
        for place, token in enumerate(children):
            if token.type == "image":
                yield Link(str(token.attrs.get("src", "")), _words(token), picture=True)
            elif token.type == "link_open":
                yield Link(str(token.attrs.get("href", "")), _text_of_link(children[place + 1 :]))


def _text_of_link(following: Iterable[Token]) -> str:
    text = []
    for token in following:
        if token.type == "link_close":
            break
        text.append(token.content)
    return "".join(text)


def _inline(tokens: Iterable[Token]) -> Iterator[Token]:
    return (token for token in tokens if token.type == "inline")


def _everything(tokens: Iterable[Token]) -> Iterator[Token]:
    """Yield all tokens, with what stands inside a block of text."""
    for token in tokens:
        yield token
        yield from token.children or ()


def _is_code(token: Token) -> bool:
    return token.type in _CODE_BLOCKS


class _HtmlLinks(HTMLParser):
    """Gathers where the links and pictures of raw HTML lead."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Link] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        target = values.get(_HTML_TARGETS.get(tag, ""))
        if target:
            self.found.append(Link(target, values.get("alt") or "", picture=tag == "img"))
