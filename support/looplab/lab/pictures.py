"""The x-ray's picture: a lane per task, waiting light, running dark, a held loop red.

Below a bar stands what the task holds, hatched is what it queues for; marks show where it was
cancelled or timed out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from looplab.lab.cancels import CANCELLED, NEVER_STARTED, TIMED_OUT
from looplab.lab.colours import (
    AXIS_LINE,
    BRANCH,
    CARD,
    HATCHES,
    HELD,
    HELD_BAND,
    INK,
    MARKED,
    QUEUES,
    QUIET_INK,
    RULE,
    RUNNING,
    SPANS,
    TIMED_OUT_INK,
    WAITING,
)
from looplab.lab.lettering import cut, width_of
from looplab.lab.recording import Interval, Recording, holds, queues_for
from looplab.lab.rows import STRIP, Row, Spans, merged, rows_of
from looplab.lab.telling import duration, verb_of
from looplab.lab.words import SIZE, Tone, Word, add_moments, beside

WIDTH = 7.6
"""Inches; at 100 pixels an inch the width of a notebook's output."""
TITLE = 0.30
AXIS = 0.26
FOOT = 0.36
LEGEND_LINE = 0.2
ANSWER = 0.17
"""A strip below the lanes, where the time of the answer stands."""
MARGIN = 0.09
"""Between the picture's edge and the text at it."""
GAP = 0.17
"""Between a label and its lane."""
LABELS = 0.42
"""The share of the width that labels may take."""
RIGHT = 0.985
"""The lanes' right end, as a share of the width."""
INDENT = 0.13
DEEPEST_INDENT = 8
SHADES = 6
"""Steps closer together than pixels are drawn in so many shades, by the share of time they run."""
SECONDS_FROM = 5.0
"""Longer axes count in seconds instead of milliseconds."""
LEGEND_SIZE = 8.5
LEGEND_HANDLE = 0.40
"""Inches that an entry of the legend takes beside its words."""
POINTER = 0.045
"""So many inches above its bar stands a mark of a lesson."""
HATCH = "/////"
DOTTED = (0, (1, 1.6))
SOON = 0.06
"""A task that starts within so many inches of its making is not drawn as waiting for its start."""

HOURGLASS = Path([(-1, 1), (1, 1), (-1, -1), (1, -1), (-1, 1)], closed=True)
Handle = Patch | Line2D
Line = tuple[tuple[float, float], tuple[float, float]]
SYMBOLS: dict[str, tuple[str | Path, str]] = {
    CANCELLED: ("X", INK),
    NEVER_STARTED: ("X", INK),
    TIMED_OUT: (HOURGLASS, TIMED_OUT_INK),
}
OWN_SYMBOL = ("v", MARKED)
INKS: dict[Tone, str] = {
    "quiet": QUIET_INK,
    "held": "#a92a41",
    "failed": HELD,
    "light": "white",
    "mark": MARKED,
    "timed out": TIMED_OUT_INK,
}


def draw(recordings: Sequence[Recording]) -> Figure:
    """Return a figure with a panel per recording, all on one time axis."""
    panels = [rows_of(recording) for recording in recordings]
    every = [row for rows in panels for row in rows]
    for row in every:
        row.label = cut(row.label, LABELS * WIDTH - GAP - _label_left(row), _label_size(row))
    ends = (_label_left(row) + width_of(row.label, _label_size(row)) for row in every)
    left = (GAP + max(ends, default=MARGIN)) / WIDTH
    across = (RIGHT - left) * WIDTH
    end = max(
        max([recording.duration, *(lane.ended for lane in recording.lanes)])
        for recording in recordings
    )
    limit = max([end * 1.19, *(row.ends for row in every)]) or 1e-3
    wordings = [beside(rows, across, limit) for rows in panels]
    limit = max(wording.limit for wording in wordings)
    for wording, rows in zip(wordings, panels, strict=True):
        wording.limit = limit
        add_moments(rows, wording, across)
    palette = _palette(recordings)
    legend = _legend(every, palette, limit / across)
    heights = [TITLE + sum(row.height for row in rows) + ANSWER + AXIS for rows in panels]
    per_second, unit = (1.0, "seconds") if limit > SECONDS_FROM else (1000.0, "milliseconds")
    scale = _Scale(limit, per_second, across)
    axis = f"{unit} since the start"
    lines = _lines(legend, (0.99 - left) * WIDTH - width_of(axis, 9) - GAP)
    foot = FOOT + LEGEND_LINE * (len(lines) - 1)
    total = sum(heights) + foot
    figure = Figure(figsize=(WIDTH, total), dpi=100, facecolor=CARD)
    top = total
    for recording, rows, wording, height in zip(recordings, panels, wordings, heights, strict=True):
        lanes = height - TITLE - AXIS
        box = (left, (top - TITLE - lanes) / total, RIGHT - left, lanes / total)
        axes = figure.add_axes(box)
        _panel(axes, recording, rows, scale, lanes, palette)
        _say(axes, rows, wording.words, scale, recording.duration)
        figure.text(
            MARGIN / WIDTH, (top - 0.205) / total,
            cut(" ".join(recording.title.split()), WIDTH - 2 * MARGIN, 10, "bold"),
            color=INK, size=10, weight="bold", va="center", ha="left", parse_math=False,
        )  # fmt: skip
        top -= height
    figure.text(left, (foot - 0.19) / total, axis, color=INK, size=9, va="center", ha="left")
    for place, line in enumerate(lines):
        _legend_line(figure, line, (foot - 0.19 - place * LEGEND_LINE) / total)
    return figure


@dataclass(frozen=True)
class _Scale:
    """The time axis: ``limit`` seconds long, ``across`` inches; ``unit`` of its unit a second."""

    limit: float
    unit: float
    across: float

    @property
    def inch(self) -> float:
        """How many seconds an inch stands for."""
        return self.limit / self.across

    @property
    def pixel(self) -> float:
        """How many seconds a pixel of the saved picture stands for."""
        return self.inch / 200


def _palette(recordings: Sequence[Recording]) -> dict[str, int]:
    """Return the place of the colour of each thing that is held, by the name of its spans."""
    names: dict[str, None] = {}
    for recording in recordings:
        queues = {queues_for(name) for name in recording.watched}
        names |= dict.fromkeys(holds(name) for name in recording.watched)
        marked = (span.name for lane in recording.drawn for span in lane.marked_spans)
        names |= dict.fromkeys(sorted({name for name in marked if name not in queues}))
    return {name: place % len(SPANS) for place, name in enumerate(names)}


def _legend(rows: list[Row], palette: dict[str, int], inch: float) -> list[list[Handle]]:
    """Return what is to be explained, only what is drawn: what bars show, then the rest."""
    bars: list[Handle] = []
    if any(_waits_for_its_start(row, inch) for row in rows):
        bars.append(Line2D([], [], color=QUIET_INK, lw=1, ls=DOTTED, label="not yet started"))
    bars += [Patch(color=WAITING, label="waiting"), Patch(color=RUNNING, label="running")]
    if any(row.held for row in rows):
        bars.append(Patch(color=HELD, label="holding the loop"))
    others: list[Handle] = []
    queues = {holds(name): name for row in rows for name in row.queues}
    for name, place in palette.items():
        if name in queues:
            others.append(
                Patch(
                    facecolor=QUEUES[place], edgecolor=HATCHES[place], hatch=HATCH, linewidth=0,
                    label=queues_for(queues[name]),
                )
            )  # fmt: skip
        if any(name in row.holds for row in rows):
            others.append(Patch(color=SPANS[place], label=name))
    texts = {mark.text for row in rows for mark in row.marks}
    for text, (marker, colour) in SYMBOLS.items():
        if text in texts and text != NEVER_STARTED:  # the words beside the lane say that
            others.append(_symbol(marker, colour, text))
    if any(row.outcome == "pending" and len(row.running) for row in rows):
        others.append(_symbol(">", WAITING, "not ended", edge=RUNNING))
    for handle in others:
        handle.set_label(cut(str(handle.get_label()), WIDTH / 3, LEGEND_SIZE))
    return [bars, others]


def _symbol(marker: str | Path, colour: str, label: str, edge: str = CARD) -> Line2D:
    return Line2D(
        [], [], linestyle="", marker=marker, markersize=6.5, markerfacecolor=colour,
        markeredgecolor=edge, markeredgewidth=0.6, label=label,
    )  # fmt: skip


def _lines(legend: list[list[Handle]], beside: float) -> list[list[Handle]]:
    """Return the legend line by line; on the first, ``beside`` inches are free beside the axis's
    unit, so the first may be empty.

    What is no bar begins a line of its own unless all fits into the first.
    """
    bars, others = legend
    together = [*bars, *others]
    if sum(map(_wide, together)) <= beside:
        return [together]
    if sum(map(_wide, bars)) <= beside:
        return [bars, *_filled(others)]
    return [[], *_filled(together)]


def _filled(handles: list[Handle]) -> list[list[Handle]]:
    """Return lines of as many entries as the picture is wide for."""
    lines: list[list[Handle]] = [[]]
    for handle in handles:
        if sum(map(_wide, [*lines[-1], handle])) > WIDTH - 2 * MARGIN:
            lines.append([])
        lines[-1].append(handle)
    return lines


def _wide(handle: Handle) -> float:
    return width_of(str(handle.get_label()), LEGEND_SIZE) + LEGEND_HANDLE


def _legend_line(figure: Figure, handles: list[Handle], height: float) -> None:
    if not handles:
        return
    figure.add_artist(
        Legend(
            figure, handles, [str(handle.get_label()) for handle in handles], loc="center right",
            bbox_to_anchor=(0.99, height), bbox_transform=figure.transFigure, ncols=len(handles),
            frameon=False, fontsize=LEGEND_SIZE, labelcolor=INK, handlelength=1.3,
            handleheight=0.8, columnspacing=1.2, borderpad=0, borderaxespad=0,
        )
    )  # fmt: skip


def _panel(
    axes: Axes,
    recording: Recording,
    rows: list[Row],
    scale: _Scale,
    inches: float,
    palette: dict[str, int],
) -> None:
    limit = scale.limit * scale.unit
    axes.set_facecolor(CARD)
    axes.set_xlim(0, limit)
    ticks = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(0, limit)
    axes.set_xticks([tick for tick in ticks if 0 <= tick <= 0.98 * limit])
    axes.set_ylim(inches, 0)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0, labelsize=8.5, labelcolor=INK, pad=3)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(AXIS_LINE)
    top = 0.0
    extents: dict[int, tuple[float, float]] = {}
    for row in rows:
        row.centre = top + row.above + (row.height - row.above - row.strips * STRIP) / 2
        first, _ = extents.get(row.loop, (top, top))
        extents[row.loop] = (first, top + row.height)
        top += row.height
    bars = _Bars()
    for row in rows:
        for began, ended in row.held:
            first, last = extents[row.loop]
            bars.add([(began, ended)], (first, last - first), _Look(0.5, HELD_BAND))
    for row in rows:
        _lane(bars, row, scale, palette)
    bars.draw(axes, scale.unit)
    _symbols(axes, rows, scale)
    _labels(axes, rows)
    _answer(axes, recording, scale, inches)


def _bar(row: Row) -> tuple[float, float]:
    """Return the top and the height of the row's bar, in inches."""
    share = 0.82 if row.group > 1 else 0.62 if row.slim else 0.72
    height = (row.height - row.above - row.strips * STRIP) * share
    return row.centre - height / 2, height


class _Look(NamedTuple):
    level: float
    colour: str
    hatch: str = ""
    """The colour of hatching, if there is any."""


class _Bars:
    """Bars of all rows, kept by their look: one artist each instead of one a row, which is slow."""

    def __init__(self) -> None:
        self._corners: dict[_Look, list[tuple[float, float, float, float]]] = {}

    def add(self, spans: list[Interval], bar: tuple[float, float], look: _Look) -> None:
        """Add ``spans`` in seconds; ``bar`` is the top and the height in inches."""
        top, bottom = bar[0], bar[0] + bar[1]
        corners = self._corners.setdefault(look, [])
        corners.extend((began, ended, top, bottom) for began, ended in spans)

    def draw(self, axes: Axes, unit: float) -> None:
        """Draw them on an axis that counts ``unit`` of its unit a second."""
        for look, corners in self._corners.items():
            began, ended, top, bottom = np.array(corners, dtype=float).reshape(-1, 4).T
            left, right = began * unit, ended * unit
            points = [(left, top), (left, bottom), (right, bottom), (right, top)]
            axes.add_collection(
                PolyCollection(
                    list(np.stack([np.column_stack(point) for point in points], axis=1)),
                    facecolor=look.colour, linewidth=0, zorder=look.level,
                    hatch=HATCH if look.hatch else None, edgecolor=look.hatch or "none",
                ),
                autolim=False,
            )  # fmt: skip


def _lane(bars: _Bars, row: Row, scale: _Scale, palette: dict[str, int]) -> None:
    """Add the bars of one row."""
    if row.heading:
        return
    bar = _bar(row)
    pixel = scale.pixel
    few = len(row.waiting) <= 500
    bars.add(merged(row.waiting, 0.0 if few else pixel), bar, _Look(2.0, WAITING))
    for name, spans in row.queues.items():
        place = palette[holds(name)]
        bars.add(merged(spans, pixel), bar, _Look(2.2, QUEUES[place], HATCHES[place]))
    for place, (name, spans) in enumerate(row.holds.items()):
        strip = (bar[0] + bar[1] + 0.008 + place * STRIP, STRIP * 0.8)
        look = _Look(2.4, SPANS[palette[name]])
        bars.add(merged(spans, 2 * pixel), bar if row.group > 1 else strip, look)
    if _dense(row.running, pixel):
        clear = bool(row.queues or row.holds)  # what is below the shades is to be seen
        for spans, colour in _shaded(row.running, 2 * pixel, clear=clear):
            bars.add(spans, bar, _Look(3.0, colour))
    else:
        bars.add(merged(row.running, 2.2 * pixel), bar, _Look(3.0, RUNNING))
    bars.add(merged(row.held, 2.2 * pixel), bar, _Look(4.0, HELD))


def _lines_between(axes: Axes, lines: list[Line], **look: Any) -> None:
    """Draw lines from point to point as one artist."""
    if lines:
        nothing = (np.nan, np.nan)
        across, down = zip(*(p for line in lines for p in (*line, nothing)), strict=True)
        axes.plot(across, down, **look)


def _waits_for_its_start(row: Row, inch: float) -> bool:
    return row.began - row.made > SOON * inch


def _symbols(axes: Axes, rows: list[Row], scale: _Scale) -> None:
    """Draw what is no bar: who made whom, tasks before their start, open ends, marks and failures
    of thin lanes.

    Symbols of one kind and size are one artist, and so are lines: there may be many.
    """
    branches: list[Line] = []
    late: list[Line] = []
    thin: list[Line] = []
    points: dict[tuple[Any, str, str, float], list[tuple[float, float]]] = {}
    for row in rows:
        if row.heading or row.slim:
            continue
        top, thickness = _bar(row)
        size = min(max(thickness * 72, 4.5), 7.0)
        parent = row.spawned_by
        made, began = row.made * scale.unit, row.began * scale.unit
        if parent is not None and row.group == 1:
            branches.append(((made, parent.centre), (made, row.centre)))
        if _waits_for_its_start(row, scale.inch):
            (late if row.group == 1 else thin).append(((made, row.centre), (began, row.centre)))
        if row.outcome == "pending" and len(row.running):
            key = (">", WAITING, RUNNING, size)
            points.setdefault(key, []).append((row.until, row.centre))
        if row.outcome == "failed" and row.group > 1 and not row.timed_out:
            points.setdefault(("o", HELD, CARD, size), []).append((row.until, row.centre))
        for mark in row.marks:
            marker, colour = SYMBOLS.get(mark.text, OWN_SYMBOL)
            height = row.centre if mark.text in SYMBOLS or row.group > 1 else top - POINTER
            points.setdefault((marker, colour, CARD, size), []).append((mark.at, height))
    _lines_between(axes, branches, color=BRANCH, lw=0.6, zorder=1.5)
    _lines_between(axes, late, color=QUIET_INK, lw=1, ls=DOTTED, zorder=1.8)
    _lines_between(axes, thin, color=BRANCH, lw=0.6, ls=DOTTED, zorder=1.8)
    for (marker, colour, edge, size), places in points.items():
        across, down = zip(*places, strict=True)
        axes.plot(
            [at * scale.unit for at in across], down, linestyle="", marker=marker,
            markersize=size, markerfacecolor=colour, markeredgecolor=edge,
            markeredgewidth=0.6 if size > 5 else 0.3, zorder=5.5, clip_on=False,
        )  # fmt: skip


def _say(
    axes: Axes, rows: list[Row], words: dict[int, list[Word]], scale: _Scale, answered: float
) -> None:
    """Write the words of the rows; those that cross the answer's line cover it."""
    for row in rows:
        for word in words.get(id(row), []):
            begins = word.at + word.gap * scale.inch
            inside = word.where == "inside"
            height = _bar(row)[0] - 0.01 if word.where == "above" else row.centre
            crosses = not inside and begins <= answered <= word.at + word.width * scale.inch
            ground = {"facecolor": CARD, "edgecolor": "none", "pad": 0.6}
            axes.annotate(
                word.text, (word.at * scale.unit, height), xytext=(word.gap * 72, 0),
                textcoords="offset points", ha="center" if inside else "left",
                va="bottom" if word.where == "above" else "center_baseline", size=SIZE,
                color=INKS[word.tone], zorder=6, parse_math=False, bbox=ground if crosses else None,
            )  # fmt: skip


def _label_left(row: Row) -> float:
    """Return where the label begins, in inches from the left."""
    return MARGIN + INDENT * min(row.indent, DEEPEST_INDENT)


def _label_size(row: Row) -> float:
    return 8.5 if row.slim or row.heading else 9


def _labels(axes: Axes, rows: list[Row]) -> None:
    figure = axes.get_figure(root=True)
    assert figure is not None
    box = axes.get_position()
    bottom = axes.get_ylim()[0]
    for _, members in groupby(rows, key=lambda row: (row.label, row.group, row.indent)):
        together = list(members)
        grouped = together[0].group > 1
        for row in together[:1] if grouped else together:
            centre = (together[0].centre + together[-1].centre) / 2 if grouped else row.centre
            quiet = row.slim or row.heading
            figure.text(
                _label_left(row) / WIDTH,
                box.y0 + box.height * (1 - centre / bottom),
                row.label,
                ha="left",
                va="center",
                size=_label_size(row),
                color=QUIET_INK if quiet else INK,
                style="italic" if row.heading else "normal",
                parse_math=False,
            )


def _answer(axes: Axes, recording: Recording, scale: _Scale, inches: float) -> None:
    at = recording.duration * scale.unit
    axes.axvline(at, color=INK, linestyle=(0, (1, 2)), linewidth=1, zorder=5)
    words = f"{verb_of(recording)} after {duration(recording.duration)}"
    room = (scale.limit - recording.duration) / scale.inch
    right = recording.duration < 0.8 * scale.limit and width_of(words, 8) + GAP < room
    axes.annotate(
        words, (at, inches), zorder=6,
        xytext=(4 if right else -4, 3), textcoords="offset points", va="bottom",
        ha="left" if right else "right", size=8, color=QUIET_INK,
        bbox={"facecolor": CARD, "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
    )  # fmt: skip


def _dense(spans: Spans, pixel: float) -> bool:
    """Return whether steps follow one another so closely that widened ticks would lie."""
    if len(spans) < 50:
        return False
    both = np.asarray(spans, dtype=float)
    lengths = both[:, 1] - both[:, 0]
    covered = np.maximum(lengths, 2.2 * pixel).sum()
    whole = both[-1, 1] - both[0, 0]
    return bool(covered > 0.25 * whole and covered > 1.5 * lengths.sum())


def _shaded(spans: Spans, width: float, *, clear: bool = False) -> list[tuple[list[Interval], str]]:
    """Return bins ``width`` wide by colour: the darker, the larger the share of running in them.

    With ``clear`` what lies below shines through.
    """
    both = np.asarray(spans, dtype=float)
    running = np.concatenate(([0.0], np.cumsum(both[:, 1] - both[:, 0])))
    times = both.reshape(-1)
    totals = np.repeat(running, 2)[1:-1]
    first, last = times[0], times[-1]
    bins = np.linspace(first, last, max(int((last - first) / width), 1) + 1)
    shares = np.diff(np.interp(bins, times, totals)) / np.diff(bins)
    levels = np.ceil(np.clip(shares, 0, 1) * SHADES - 1e-9).astype(int)
    light, dark = np.array(to_rgb(WAITING)), np.array(to_rgb(RUNNING))
    found = []
    for level in range(1, SHADES + 1):
        chosen = np.flatnonzero(levels == level)
        if len(chosen):
            parts = list(zip(bins[chosen].tolist(), bins[chosen + 1].tolist(), strict=True))
            share = level / SHADES
            colour = to_hex(tuple(light + (dark - light) * share))
            if clear:
                colour = to_hex((*dark, share), keep_alpha=True)
            found.append((merged(parts, 0.0), colour))
    return found
