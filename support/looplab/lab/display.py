"""What an experiment shows under a cell: tables, notes and pictures, each with words beside it."""

import base64
import html
import io
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

from looplab.lab.colours import ALL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["tick", "cross", "info", "hint"]

MARKS: dict[Kind, tuple[str, str, str]] = {
    "tick": ("✓", "#12805c", "Holds"),
    "cross": ("✗", "#c0344a", "Fails"),
    "info": ("i", "#2f6db3", "Note"),
    "hint": ("→", "#b25e09", "Hint"),
}
PIXELS_PER_INCH = 100
COLOURS_IN_A_PICTURE = 24
PICTURE_WIDTH = 760  # pixels


_collected: ContextVar[list[dict[str, Any]] | None] = ContextVar("_collected", default=None)


def display(bundle: dict[str, Any], *, metadata: dict[str, Any] | None = None) -> None:
    """Show a bundle under the cell that runs; nothing else in the lab needs IPython."""
    from IPython.display import display as show

    show(bundle, metadata=metadata or {}, raw=True)


@contextmanager
def collected() -> Generator[list[dict[str, Any]]]:
    """Collect what is shown in this block, as notebook outputs, instead of showing it.

    Only this task's output is collected: another task shows its own meanwhile.
    """
    outputs: list[dict[str, Any]] = []
    token = _collected.set(outputs)
    try:
        yield outputs
    finally:
        _collected.reset(token)


def _emit(data: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
    outputs = _collected.get()
    if outputs is None:
        display(data, metadata=metadata)
    else:
        output = {"output_type": "display_data", "data": data, "metadata": metadata or {}}
        outputs.append(output)


def show_collected(outputs: Sequence[Mapping[str, Any]]) -> None:
    """Show what :func:`collected` collected, in its order."""
    for output in outputs:
        _emit(output["data"], output["metadata"])


def _show(text: str, markup: str) -> None:
    _emit({"text/plain": text, "text/html": markup})


def show_note(text: str, *, kind: Kind) -> None:
    """Show one line with a mark in front: a tick, a cross, an i or an arrow.

    Raises ValueError when ``kind`` is none of ``tick``, ``cross``, ``info`` and ``hint``.
    """
    if kind not in MARKS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(MARKS)}")
    mark, colour, meaning = MARKS[kind]
    badge = (
        f'<span role="img" aria-label="{meaning}" style="display:inline-block;min-width:1.35em;'
        f"margin-right:.55em;padding:0 .2em;border-radius:.7em;background:{colour};color:#fff;"
        f'text-align:center;font-weight:700;line-height:1.35">{mark}</span>'
    )
    body = html.escape(text).replace("\n", "<br>")
    _show(f"{mark} {text}", f'<div style="padding:2px 0">{badge}{body}</div>')


def show_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    data: Mapping[str, Any] | None = None,
) -> None:
    """Show a table; the first column reads as row headings, the others align to the right.

    ``data`` goes along for programs, by MIME type, and no front end shows it.

    Raises ValueError when a row has more or fewer cells than there are headers.
    """
    for row in rows:
        if len(row) != len(headers):
            raise ValueError(f"row {list(row)!r} has {len(row)} cells; {len(headers)} are needed")
    plain, markup = _plain_table(headers, rows, caption), _html_table(headers, rows, caption)
    _emit({"text/plain": plain, "text/html": markup, **(data or {})})


def _plain_table(headers: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return "  ".join(aligned).rstrip()

    lines = [line(headers), *(line(row) for row in rows)]
    return "\n".join([caption, *lines] if caption else lines)


def _html_table(headers: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    def cell(tag: str, text: str, *, first: bool, scope: str = "") -> str:
        side = "left" if first else "right"
        attribute = f' scope="{scope}"' if scope else ""
        return f'<{tag}{attribute} style="text-align:{side}">{html.escape(text)}</{tag}>'

    head = "".join(
        cell("th", text, first=place == 0, scope="col") for place, text in enumerate(headers)
    )
    body = "".join(
        "<tr>"
        + "".join(
            cell("td" if place else "th", text, first=place == 0, scope="" if place else "row")
            for place, text in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    title = (
        f'<caption style="text-align:left;caption-side:top">{html.escape(caption)}</caption>'
        if caption
        else ""
    )
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def show_widget(widget: Any, text: str, *, data: Mapping[str, Any] | None = None) -> None:
    """Show a widget of ipywidgets; ``text`` stands in its place where there are no widgets.

    ``data`` goes along for programs, by MIME type, and no front end shows it.
    """
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    _emit({"text/plain": text, "application/vnd.jupyter.widget-view+json": view, **(data or {})})


def show_picture(
    figure: "Figure",
    *,
    alt: str,
    summary: str,
    width: int = PICTURE_WIDTH,
    live: Callable[[str], str] = str,
    beside: Mapping[str, Any] | None = None,
) -> None:
    """Show a matplotlib figure at twice its size, and ``summary`` in words below it.

    The output carries a PNG (``width`` in pixels and ``alt`` in its metadata) and the same PNG as
    an HTML image with its alternative text, which JupyterLab prefers and screen readers can read.
    ``live`` returns the HTML to show, given that image, which must be in it; ``beside`` is more
    data of the same output, by its type.

    Raises ValueError when ``alt`` or ``summary`` is empty or ``width`` is not above 0.
    """
    for name, text in (("alt", alt), ("summary", summary)):
        if not text.strip():
            raise ValueError(f"{name} is {text!r}; a picture needs words that say what it shows")
    if width <= 0:
        raise ValueError(f"width is {width!r}; it must be above 0, in pixels")
    encoded = base64.b64encode(_png(figure)).decode()
    markup = live(picture_markup(encoded, alt, width))
    _emit(
        {"image/png": encoded, "text/html": markup, "text/plain": alt, **(beside or {})},
        {"image/png": {"width": width, "alt": alt}},
    )
    show_summary(summary)


def picture_markup(encoded: str, alt: str, width: int) -> str:
    """Return a PNG in base64 as an HTML image, at most ``width`` pixels wide."""
    return (
        f'<img alt="{html.escape(alt, quote=True)}" width="{width}" '
        f'src="data:image/png;base64,{encoded}" '
        'style="max-width:100%;height:auto;border-radius:6px">'
    )


def show_summary(summary: str) -> None:
    """Show the words that stand under a picture and say what it shows."""
    _show(summary, f"<div><em>{html.escape(summary)}</em></div>")


def _png(figure: "Figure") -> bytes:
    """Return ``figure`` as a PNG with a palette: pictures of flat colours shrink to a third."""
    from PIL import Image, ImageColor

    raw = io.BytesIO()  # not compressed, since it is read again at once
    figure.savefig(raw, format="png", dpi=2 * PIXELS_PER_INCH, pil_kwargs={"compress_level": 0})
    small = io.BytesIO()
    with Image.open(raw) as image:
        colours = image.convert("RGB")
    found = colours.quantize(COLOURS_IN_A_PICTURE, method=Image.Quantize.MAXCOVERAGE)
    palette = Image.new("P", (1, 1))
    ours = [ImageColor.getrgb(colour)[:3] for colour in ALL]
    levels = iter(found.getpalette() or [])
    others = zip(levels, levels, levels, strict=True)
    # With our own colours in the palette none of them is given a neighbour's shade. Pillow matches
    # colours to four levels a channel, so a shade that close to one of ours would stand for it.
    kept = [shade for shade in others if all(_differ(shade, own) for own in ours)]
    palette.putpalette([channel for colour in [*ours, *kept] for channel in colour])
    flat = colours.quantize(palette=palette, dither=Image.Dither.NONE)
    flat.save(small, format="png", optimize=True)
    return small.getvalue()


def _differ(one: Sequence[int], other: Sequence[int]) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) >= 8
