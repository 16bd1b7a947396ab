"""The x-ray's picture: a lane per task, waiting light, running dark, a held loop red."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from support.lab.colours import CARD, HELD, HELD_BAND, INK, QUIET_INK, RULE, RUNNING, WAITING
from support.lab.lettering import cut, width_of
from support.lab.recording import Interval, Lane, Recording

WIDTH = 7.6
"""Inches; at 100 pixels an inch the width of a notebook's output."""
ROW = 0.215
SLIM_ROW = 0.185
TITLE = 0.30
AXIS = 0.26
FOOT = 0.36
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
LONGEST_ENDING = 1.6
"""So many inches the name of an exception may take beside its lane."""
INDENT = 0.13
DEEPEST_INDENT = 8
PANEL = 9.0
"""Lanes of one recording stand so many inches high at most; a line says how many are left out."""
GROUP_FROM = 6
"""So many neighbours of one name share one label and thin lanes."""
GROUP_DRAWN = 120
"""So many lanes of a group are drawn at most; the label tells how many there were."""
SHADES = 6
"""Steps closer together than pixels are drawn in so many shades, by the share of time they run."""
SECONDS_FROM = 5.0
"""Longer axes count in seconds instead of milliseconds."""

SERVER_HEADING = "the server's loop"


Spans = Sequence[Interval] | np.ndarray
"""Beginnings and ends in order; an array of two columns where there may be many."""


@dataclass
class Row:
    """One line of the picture; times in seconds since the recording began."""

    label: str
    height: float
    waiting: Spans = field(default_factory=list)
    running: Spans = field(default_factory=list)
    held: list[Interval] = field(default_factory=list)
    indent: int = 0
    ending: str = ""
    ending_at: float = 0.0
    failed: bool = False
    slim: bool = False
    heading: bool = False
    spawned_by: "Row | None" = None
    loop: int = 0
    group: int = 1
    stands_for: int = 0
    centre: float = 0.0


def draw(recordings: Sequence[Recording]) -> Figure:
    """Return a figure with a panel per recording, all on one time axis."""
    panels = [_fitting(_rows(recording)) for recording in recordings]
    heights = [TITLE + sum(row.height for row in rows) + ANSWER + AXIS for rows in panels]
    total = sum(heights) + FOOT
    figure = Figure(figsize=(WIDTH, total), dpi=100, facecolor=CARD)
    for row in (row for rows in panels for row in rows):
        row.label = cut(row.label, LABELS * WIDTH - GAP - _label_left(row), _label_size(row))
    ends = (
        _label_left(row) + width_of(row.label, _label_size(row)) for rows in panels for row in rows
    )
    left = (GAP + max(ends, default=MARGIN)) / WIDTH
    end = max(
        (max([recording.duration, *(lane.ended for lane in recording.lanes)]))
        for recording in recordings
    )
    limit = end * 1.19 or 1e-3
    across = (RIGHT - left) * WIDTH
    for row in (row for rows in panels for row in rows if row.ending and row.group == 1):
        row.ending = cut(row.ending, LONGEST_ENDING, 8)
        limit = max(limit, row.ending_at / (1 - _beside(row.ending) / across))
    scale, unit = (1.0, "seconds") if limit > SECONDS_FROM else (1000.0, "milliseconds")
    top = total
    for recording, rows, height in zip(recordings, panels, heights, strict=True):
        lanes = height - TITLE - AXIS
        bottom = top - TITLE - lanes
        box = (left, bottom / total, RIGHT - left, lanes / total)
        axes = figure.add_axes(box)
        _panel(axes, recording, rows, limit, scale, lanes)
        figure.text(
            MARGIN / WIDTH, (top - 0.205) / total,
            cut(" ".join(recording.title.split()), WIDTH - 2 * MARGIN, 10, "bold"),
            color=INK, size=10, weight="bold", va="center", ha="left", parse_math=False,
        )  # fmt: skip
        top -= height
    _foot(figure, f"{unit} since the start", left, total, panels)
    return figure


def _foot(
    figure: Figure, unit: str, left: float, total: float, panels: Iterable[list[Row]]
) -> None:
    handles = [Patch(color=WAITING, label="waiting"), Patch(color=RUNNING, label="running")]
    if any(row.held for rows in panels for row in rows):
        handles.append(Patch(color=HELD, label="holding the loop"))
    figure.text(left, 0.17 / total, unit, color=INK, size=9, va="center", ha="left")
    figure.legend(
        handles=handles, loc="center right", bbox_to_anchor=(0.99, 0.17 / total), ncols=3,
        frameon=False, fontsize=8.5, labelcolor=INK, handlelength=1.3, handleheight=0.8,
        columnspacing=1.2, borderpad=0, borderaxespad=0,
    )  # fmt: skip


def _panel(
    axes: Axes, recording: Recording, rows: list[Row], limit: float, scale: float, inches: float
) -> None:
    axes.set_facecolor(CARD)
    axes.set_xlim(0, limit * scale)
    ticks = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(0, limit * scale)
    axes.set_xticks([tick for tick in ticks if 0 <= tick <= 0.98 * limit * scale])
    axes.set_ylim(inches, 0)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0, labelsize=8.5, labelcolor=INK, pad=3)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#8d99a6")
    across = axes.get_position().width * WIDTH
    top = 0.0
    extents: dict[int, tuple[float, float]] = {}
    for row in rows:
        row.centre = top + row.height / 2
        first, _ = extents.get(row.loop, (top, top))
        extents[row.loop] = (first, top + row.height)
        top += row.height
    for row in rows:
        for began, ended in row.held:
            first, last = extents[row.loop]
            axes.fill_between(
                [began * scale, ended * scale],
                first,
                last,
                color=HELD_BAND,
                linewidth=0,
                zorder=0.5,
            )
    for row in rows:
        _lane(axes, row, scale, limit, across)
    _labels(axes, rows)
    _answer(axes, recording, scale, limit, inches)


def _lane(axes: Axes, row: Row, scale: float, limit: float, across: float) -> None:
    """Draw one row of an axis that is ``limit`` seconds and ``across`` inches long."""
    if row.heading:
        return
    share = 0.72 if not row.slim else 0.62
    if row.group > 1:
        share = 0.82
    bar = (row.centre - row.height * share / 2, row.height * share)
    parent = row.spawned_by
    if parent is not None and row.group == 1 and len(row.waiting):
        began = row.waiting[0][0] * scale
        axes.plot([began, began], [parent.centre, row.centre], color="#9fb0c3", lw=0.6, zorder=1.5)
    pixel = limit / (across * 200)
    layers = [(_merged(row.waiting, pixel if len(row.waiting) > 500 else 0.0), WAITING, 2.0)]
    if _dense(row.running, pixel):
        layers.extend((spans, colour, 3.0) for spans, colour in _shaded(row.running, 2 * pixel))
    else:
        layers.append((_merged(row.running, 2.2 * pixel), RUNNING, 3.0))
    layers.append((_merged(row.held, 2.2 * pixel), HELD, 4.0))
    for spans, colour, level in layers:
        if spans:
            axes.broken_barh(
                [(began * scale, (ended - began) * scale) for began, ended in spans], bar,
                facecolor=colour, linewidth=0, zorder=level,
            )  # fmt: skip
    if row.group == 1:
        _words(axes, row, scale, limit / across, limit)


def _words(axes: Axes, row: Row, scale: float, inch: float, limit: float) -> None:
    """Write beside the bars what was held and how the task ended, where there is room.

    The longest hold comes first. ``inch`` is how many seconds an inch of the axis stands for.
    """
    beside: list[tuple[float, float, str]] = []
    for began, ended in sorted(row.held, key=lambda span: span[0] - span[1]):
        text = f"loop held {_time(ended - began)}"
        wide = _beside(text) * inch
        if wide < ended - began:
            _write(axes, row, text, (began + ended) / 2 * scale, "center", "white")
            continue
        later = min((first for first, _ in row.held if first >= ended), default=limit)
        free = all(ended + wide <= first or last <= ended for first, last, _ in beside)
        if free and ended + wide <= later:
            beside.append((ended, ended + wide, text))
    if row.ending:
        at = max([row.ending_at, *(last for _, last, _ in beside)])
        if at + _beside(row.ending) * inch > limit:
            at = row.ending_at
            beside = [place for place in beside if place[1] <= at]
        _write(axes, row, row.ending, at * scale, "left", HELD if row.failed else QUIET_INK)
    for at, _, text in beside:
        _write(axes, row, text, at * scale, "left", "#a92a41")


def _beside(text: str) -> float:
    """Return the inches that ``text`` needs beside a bar, the gap before it included."""
    return width_of(text, 8) + 0.1


def _write(axes: Axes, row: Row, text: str, at: float, side: str, colour: str) -> None:
    axes.annotate(
        text, (at, row.centre), xytext=(4 if side == "left" else 0, 0),
        textcoords="offset points", va="center_baseline", ha=side, size=8, color=colour, zorder=6,
        parse_math=False,
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


def _answer(axes: Axes, recording: Recording, scale: float, limit: float, inches: float) -> None:
    at = recording.duration * scale
    axes.axvline(at, color=INK, linestyle=(0, (1, 2)), linewidth=1, zorder=5)
    early = recording.duration < 0.8 * limit
    axes.annotate(
        f"{_verb(recording)} after {_time(recording.duration)}", (at, inches), zorder=6,
        xytext=(4 if early else -4, 3), textcoords="offset points", va="bottom",
        ha="left" if early else "right", size=8, color=QUIET_INK,
        bbox={"facecolor": CARD, "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
    )  # fmt: skip


def _verb(recording: Recording) -> str:
    root = recording.lanes[0].name if recording.lanes else ""
    if recording.error is not None:
        return "failed"
    return "answered" if "/" in root else "done"


def _merged(spans: Spans, widen: float) -> list[Interval]:
    """Return ``spans`` at least ``widen`` wide, those that touch joined: no more than pixels."""
    if not len(spans):
        return []
    edges = np.asarray(spans, dtype=float)
    began = edges[:, 0]
    ended = np.maximum.accumulate(np.maximum(edges[:, 1], began + widen))
    opens = np.empty(len(began), dtype=bool)
    opens[0] = True
    opens[1:] = began[1:] > ended[:-1]
    firsts = np.flatnonzero(opens)
    lasts = np.append(firsts[1:] - 1, len(began) - 1)
    return list(zip(began[firsts].tolist(), ended[lasts].tolist(), strict=True))


def _dense(spans: Spans, pixel: float) -> bool:
    """Return whether steps follow one another so closely that widened ticks would lie."""
    if len(spans) < 50:
        return False
    edges = np.asarray(spans, dtype=float)
    lengths = edges[:, 1] - edges[:, 0]
    covered = np.maximum(lengths, 2.2 * pixel).sum()
    whole = edges[-1, 1] - edges[0, 0]
    return bool(covered > 0.25 * whole and covered > 1.5 * lengths.sum())


def _shaded(spans: Spans, width: float) -> list[tuple[list[Interval], str]]:
    """Return bins ``width`` wide by colour: the darker, the larger the share of running in them."""
    edges = np.asarray(spans, dtype=float)
    running = np.concatenate(([0.0], np.cumsum(edges[:, 1] - edges[:, 0])))
    times = edges.reshape(-1)
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
            colour = to_hex(tuple(light + (dark - light) * level / SHADES))
            found.append((_merged(parts, 0.0), colour))
    return found


def _unit(row: Row) -> tuple[str, int]:
    """Return a key that the lanes of a group share and that no other row has."""
    return (row.label, row.indent) if row.group > 1 else ("", id(row))


def _fitting(rows: list[Row]) -> list[Row]:
    """Return the rows that fit, those that tell most before others, and a line on the rest."""
    units = [list(unit) for _, unit in groupby(rows, key=_unit)]
    if sum(row.height for row in rows) <= PANEL:
        return rows

    def rank(place: int) -> tuple[bool, bool, int]:
        unit = units[place]
        return (not any(row.held for row in unit), not any(row.ending for row in unit), place)

    room = PANEL - SLIM_ROW
    kept: set[int] = set()
    for place in sorted(range(len(units)), key=rank):
        room -= sum(row.height for row in units[place])
        if room < 0:
            break
        kept.add(place)
    shown = [row for place, unit in enumerate(units) if place in kept for row in unit]
    seen = {id(row) for row in shown}
    for row in shown:
        if row.spawned_by is not None and id(row.spawned_by) not in seen:
            row.spawned_by = None
    left_out = sum(row.stands_for for row in rows) - sum(row.stands_for for row in shown)
    if left_out:
        shown.append(
            Row(f"and {left_out:,} tasks more", SLIM_ROW, heading=True, loop=shown[-1].loop)
        )
    return shown


def _sample(recording: Recording, lanes: list[Lane]) -> list[Lane]:
    """Return ``GROUP_DRAWN`` lanes at most: those that held the loop or did not end well, others
    evenly from all.
    """
    if len(lanes) <= GROUP_DRAWN:
        return lanes
    telling = [
        place
        for place, lane in enumerate(lanes)
        if lane.outcome != "done" or any(e - b >= recording.held for b, e, _ in lane.steps)
    ][: GROUP_DRAWN // 2]
    others = np.linspace(0, len(lanes) - 1, GROUP_DRAWN - len(telling)).astype(int).tolist()
    return [lanes[place] for place in sorted({*telling, *others})]


def _rows(recording: Recording) -> list[Row]:
    rows: list[Row] = []
    parents: list[tuple[int, Row]] = []
    lanes = recording.tasks
    loops = {lane.loop for lane in lanes}
    for (name, depth, loop), members in groupby(
        lanes, key=lambda lane: (lane.name, lane.depth, lane.loop)
    ):
        if len(loops) > 1 and loop and not any(row.loop == loop for row in rows):
            rows.append(Row(SERVER_HEADING, SLIM_ROW, heading=True, loop=loop))
        together = list(members)
        parents = [(level, row) for level, row in parents if level < depth]
        parent = parents[-1][1] if parents and parents[-1][1].loop == loop else None
        if len(together) >= GROUP_FROM:
            drawn = _sample(recording, together)
            height = min(0.12, max(0.018, 2.4 / len(drawn)))
            label = f"{name} × {len(together):,}"
            rows.extend(_row(recording, lane, label, height, group=len(together)) for lane in drawn)
            rows[-1].stands_for = len(together)
            continue
        for lane in together:
            row = _row(recording, lane, name, ROW)
            row.stands_for = 1
            row.spawned_by = parent
            rows.append(row)
            if recording.unfold:
                rows.extend(_waits_in_turn(recording, lane))
        parents.append((depth, row))
    return rows


def _row(recording: Recording, lane: Lane, label: str, height: float, *, group: int = 1) -> Row:
    steps = _edges(lane.steps)
    held = steps[steps[:, 1] - steps[:, 0] >= recording.held]
    endings = {"cancelled": "cancelled", "failed": lane.error, "pending": "not ended"}
    return Row(
        label=label,
        height=height,
        indent=lane.depth,
        waiting=[(lane.began, lane.until)],
        running=steps,
        held=sorted([*((began, ended) for began, ended in held.tolist()), *lane.holds_below]),
        ending=endings.get(lane.outcome, ""),
        ending_at=lane.until,
        failed=lane.outcome == "failed",
        loop=lane.loop,
        group=group,
    )


def _edges(spans: Sequence[Sequence[Any]]) -> np.ndarray:
    """Return beginnings and ends as an array of two columns, quicker than ``numpy.array``."""
    began = np.array([span[0] for span in spans], dtype=float)
    return np.column_stack((began, np.array([span[1] for span in spans], dtype=float)))


def _waits_in_turn(recording: Recording, lane: Lane) -> list[Row]:
    """Return a row per coroutine that the task waits in and that its name does not tell."""
    rows = []
    steps = _edges(lane.steps)
    steps = steps[steps[:, 1] - steps[:, 0] < recording.held]
    for name, spans in lane.turns.items():
        edges = _edges(spans)
        # A wait begins as a step ends and ends as one begins, so a step touches it if it lies
        # between the last wait that begins no later than its end and that one's end.
        place = np.searchsorted(edges[:, 0], steps[:, 1], side="right") - 1
        near = (place >= 0) & (edges[np.maximum(place, 0), 1] >= steps[:, 0])
        rows.append(
            Row(
                label=name,
                height=SLIM_ROW,
                indent=lane.depth + 1,
                waiting=edges,
                running=steps[near],
                slim=True,
                loop=lane.loop,
            )
        )
    return rows


def _time(seconds: float) -> str:
    if seconds >= SECONDS_FROM:
        return f"{seconds:.1f} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.0f} ms" if milliseconds >= 9.5 else f"{milliseconds:.2g} ms"


def describe(recording: Recording) -> str:
    """Return in one sentence what the picture of ``recording`` shows."""
    lanes = recording.tasks
    parts = [f"{len(lanes)} {'task' if len(lanes) == 1 else 'tasks'}"]
    if len(lanes) == 1:
        turns = [name for name in lanes[0].waits if name != lanes[0].name]
        if len(turns) > 1:
            parts.append(f"waiting in turn in {_listed(turns)}")
    else:
        parts.append(f"at most {recording.peak_in_flight()} in flight")
    holds = recording.holds
    if holds:
        longest = max(holds, key=lambda hold: hold.duration)
        times = "once" if len(holds) == 1 else f"{len(holds)} times"
        parts.append(f"loop held {times}, longest {_time(longest.duration)} by {longest.name}")
    parts.extend(
        f"{len(names)} {word}"
        for word, names in (
            ("cancelled", recording.cancelled),
            ("failed", recording.failed),
            ("not ended", recording.pending),
        )
        if names
    )
    parts.append(f"{_verb(recording)} after {_time(recording.duration)}")
    return f"{recording.title}: {', '.join(parts)}."


def _listed(names: list[str]) -> str:
    shown = names if len(names) <= 6 else [*names[:5], f"{len(names) - 5} more"]
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
