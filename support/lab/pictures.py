"""The x-ray's picture: a lane per task, waiting light, running dark, a held loop red."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from support.lab.recording import Interval, Lane, Recording

WAITING = "#c9dbf0"
RUNNING = "#1f4e79"
HELD = "#d1435b"
HELD_BAND = "#fbe4e8"
INK = "#1c2733"
QUIET_INK = "#54616f"
RULE = "#e3e8ee"
CARD = "#ffffff"

WIDTH = 7.6
"""Inches; at 100 pixels an inch the width of a notebook's output."""
ROW = 0.215
SLIM_ROW = 0.185
TITLE = 0.30
AXIS = 0.26
FOOT = 0.36
ANSWER = 0.17
"""A strip below the lanes, where the time of the answer stands."""
CHARACTER = 0.073
INDENT = 0.13
LONGEST_NAME = 26
GROUP_FROM = 6
"""So many neighbours of one name share one label and thin lanes."""
GROUP_DRAWN = 120
"""So many lanes of a group are drawn at most; the label tells how many there were."""
SECONDS_FROM = 5.0
"""Longer axes count in seconds instead of milliseconds."""

SERVER_HEADING = "the server's loop"


@dataclass
class Row:
    """One line of the picture; times in seconds since the recording began."""

    label: str
    height: float
    waiting: list[Interval] = field(default_factory=list)
    running: list[Interval] = field(default_factory=list)
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
    centre: float = 0.0


def draw(recordings: Sequence[Recording]) -> Figure:
    """Return a figure with a panel per recording, all on one time axis."""
    panels = [_rows(recording) for recording in recordings]
    heights = [TITLE + sum(row.height for row in rows) + ANSWER + AXIS for rows in panels]
    total = sum(heights) + FOOT
    figure = Figure(figsize=(WIDTH, total), dpi=100, facecolor=CARD)
    labels = (CHARACTER * len(row.label) + INDENT * row.indent for rows in panels for row in rows)
    left = min(0.28 + max(labels, default=0.0), 0.42 * WIDTH) / WIDTH
    end = max(
        (max([recording.duration, *(lane.ended for lane in recording.lanes)]))
        for recording in recordings
    )
    limit = end * 1.19 or 1e-3
    scale, unit = (1.0, "seconds") if limit > SECONDS_FROM else (1000.0, "milliseconds")
    top = total
    for recording, rows, height in zip(recordings, panels, heights, strict=True):
        lanes = height - TITLE - AXIS
        bottom = top - TITLE - lanes
        box = (left, bottom / total, 0.985 - left, lanes / total)
        axes = figure.add_axes(box)
        _panel(axes, recording, rows, limit, scale, lanes)
        figure.text(
            0.012, (top - 0.205) / total, recording.title, color=INK, size=10, weight="bold",
            va="center", ha="left",
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
    axes.set_ylim(inches, 0)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0, labelsize=8.5, labelcolor=INK, pad=3)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#8d99a6")
    pixel = limit / (axes.get_position().width * WIDTH * 200)
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
        _lane(axes, row, scale, pixel, limit)
    _labels(axes, rows)
    _answer(axes, recording, scale, limit, inches)


def _lane(axes: Axes, row: Row, scale: float, pixel: float, limit: float) -> None:
    if row.heading:
        return
    share = 0.72 if not row.slim else 0.62
    if row.group > 1:
        share = 0.82
    bar = (row.centre - row.height * share / 2, row.height * share)
    parent = row.spawned_by
    if parent is not None and row.group == 1 and (row.waiting or row.running):
        began = min(span[0] for span in row.waiting + row.running) * scale
        axes.plot([began, began], [parent.centre, row.centre], color="#9fb0c3", lw=0.6, zorder=1.5)
    for spans, colour, level, widen in (
        (row.waiting, WAITING, 2, 0.0),
        (row.running, RUNNING, 3, 2.2 * pixel),
        (row.held, HELD, 4, 2.2 * pixel),
    ):
        merged = _merged(spans, widen)
        if merged:
            axes.broken_barh(
                [(began * scale, (ended - began) * scale) for began, ended in merged], bar,
                facecolor=colour, linewidth=0, zorder=level,
            )  # fmt: skip
    if row.group == 1:
        for began, ended in row.held:
            _hold_label(axes, row, began, ended, scale, limit)
    if row.ending and row.group == 1:
        axes.annotate(
            row.ending, (row.ending_at * scale, row.centre), xytext=(4, 0),
            textcoords="offset points", va="center", ha="left", size=8,
            color=HELD if row.failed else QUIET_INK, zorder=6,
        )  # fmt: skip


def _hold_label(
    axes: Axes, row: Row, began: float, ended: float, scale: float, limit: float
) -> None:
    text = f"loop held {_time(ended - began)}"
    inside = (ended - began) / limit > 0.17
    middle = (began + ended) / 2
    axes.annotate(
        text,
        ((middle if inside else ended) * scale, row.centre),
        xytext=(0 if inside else 4, 0),
        textcoords="offset points",
        va="center_baseline",
        ha="center" if inside else "left",
        size=8,
        color="white" if inside else "#a92a41",
        zorder=6,
    )


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
                0.012 + INDENT * row.indent / WIDTH,
                box.y0 + box.height * (1 - centre / bottom),
                row.label,
                ha="left",
                va="center",
                size=8.5 if quiet else 9,
                color=QUIET_INK if quiet else INK,
                style="italic" if row.heading else "normal",
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


def _merged(spans: list[Interval], widen: float) -> list[Interval]:
    """Return ``spans`` at least ``widen`` wide, those that touch joined: no more than pixels."""
    if not spans:
        return []
    edges = np.asarray(sorted(spans), dtype=float)
    began = edges[:, 0]
    ended = np.maximum.accumulate(np.maximum(edges[:, 1], began + widen))
    opens = np.empty(len(began), dtype=bool)
    opens[0] = True
    opens[1:] = began[1:] > ended[:-1]
    firsts = np.flatnonzero(opens)
    lasts = np.append(firsts[1:] - 1, len(began) - 1)
    return list(zip(began[firsts].tolist(), ended[lasts].tolist(), strict=True))


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
            drawn = together[:GROUP_DRAWN]
            height = min(0.12, max(0.018, 2.4 / len(drawn)))
            label = f"{_cut(name)} × {len(together)}"
            rows.extend(_row(recording, lane, label, height, group=len(together)) for lane in drawn)
            continue
        for lane in together:
            row = _row(recording, lane, _cut(name), ROW)
            row.spawned_by = parent
            rows.append(row)
            below = _waits_in_turn(recording, lane)
            rows.extend(below)
        parents.append((depth, row))
    return rows


def _row(recording: Recording, lane: Lane, label: str, height: float, *, group: int = 1) -> Row:
    until = recording.duration if lane.outcome == "pending" else lane.ended
    held = [(b, e) for b, e, _ in lane.steps if e - b >= recording.held]
    endings = {"cancelled": "cancelled", "failed": lane.error, "pending": "not ended"}
    return Row(
        label=label,
        height=height,
        indent=lane.depth,
        waiting=[(lane.began, max(until, lane.ended))],
        running=[(b, e) for b, e, _ in lane.steps],
        held=held,
        ending=endings.get(lane.outcome, ""),
        ending_at=max(until, lane.ended),
        failed=lane.outcome == "failed",
        loop=lane.loop,
        group=group,
    )


def _waits_in_turn(recording: Recording, lane: Lane) -> list[Row]:
    """Return a row per coroutine that the task waits in, where it waits in more than one."""
    named = {name: spans for name, spans in lane.waits.items() if name != lane.name}
    if len(lane.waits) < 2 or not named:
        return []
    rows = []
    steps = [(b, e) for b, e, _ in lane.steps if e - b < recording.held]
    for name, spans in named.items():
        touching = [
            (b, e) for b, e in steps if any(b <= last and e >= first for first, last in spans)
        ] if len(spans) * len(steps) < 200_000 else []  # fmt: skip
        rows.append(
            Row(
                label=_cut(name),
                height=SLIM_ROW,
                indent=lane.depth + 1,
                waiting=list(spans),
                running=touching,
                slim=True,
                loop=lane.loop,
            )
        )
    return rows


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= SECONDS_FROM else f"{seconds * 1000:.0f} ms"


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
