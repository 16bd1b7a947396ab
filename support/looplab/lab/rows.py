"""The rows of an x-ray's picture: a lane each, or thin lanes under one label for many of a name."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

import numpy as np

from looplab.lab.cancels import CANCELLED, NEVER_STARTED, TIMED_OUT
from looplab.lab.recording import Interval, Lane, Mark, Recording, Span, queues_for

ROW = 0.215
"""Heights are inches."""
SLIM_ROW = 0.185
STRIP = 0.05
"""Below a bar: what the task holds meanwhile."""
PANEL = 9.0
"""Lanes of one recording stand so many inches high at most; a line says how many are left out."""
GROUP_FROM = 6
"""So many neighbours of one name share one label and thin lanes."""
GROUP_DRAWN = 120
"""So many lanes of a group are drawn at most; the label tells how many there were."""

SERVER_HEADING = "the server's loop"

Spans = Sequence[Interval] | np.ndarray
"""Beginnings and ends in order; an array of two columns where there may be many."""
Fate = Literal["failed", "cancelled", "timed out", "pending", "not started"]


@dataclass(frozen=True)
class Note:
    """Words on a group, beside its lane number ``place`` from the top."""

    text: str
    fate: Fate
    place: int


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
    outcome: str = ""
    made: float = 0.0
    began: float = 0.0
    until: float = 0.0
    slim: bool = False
    heading: bool = False
    spawned_by: "Row | None" = None
    loop: int = 0
    group: int = 1
    stands_for: int = 0
    marks: tuple[Mark, ...] = ()
    queues: dict[str, list[Interval]] = field(default_factory=dict)
    """When it queues, by what for."""
    holds: dict[str, list[Interval]] = field(default_factory=dict)
    """When it holds something, or is in a ``span()``, by its name."""
    notes: list[Note] = field(default_factory=list)
    """Of a group's first row."""
    above: float = 0.0
    """How much of the height is for words above the bar."""
    centre: float = 0.0
    """Where the bar is, in inches from the lanes' top."""

    @property
    def ends(self) -> float:
        """When nothing more is drawn: it may hold something longer than it lives."""
        spans = [spans[-1][1] for spans in self.holds.values()]
        return max([self.until, *spans, *(spans[-1][1] for spans in self.queues.values())])

    @property
    def timed_out(self) -> bool:
        """Whether a time-out expired in it."""
        return any(mark.text == TIMED_OUT for mark in self.marks)

    @property
    def strips(self) -> int:
        """How many strips stand below its bar; thin lanes are coloured instead."""
        return len(self.holds) if self.group == 1 else 0


def rows_of(recording: Recording) -> list[Row]:
    """Return the rows of a recording's picture, no more than fit into one."""
    return _fitting(_rows(recording))


def groups(rows: Iterable[Row]) -> list[list[Row]]:
    """Return the rows of each group together, every other row by itself."""
    return [list(members) for _, members in groupby(rows, key=_unit)]


def _unit(row: Row) -> tuple[str, int]:
    """Return a key that the lanes of a group share and that no other row has."""
    return (row.label, row.indent) if row.group > 1 else ("", id(row))


def _fitting(rows: list[Row]) -> list[Row]:
    """Return the rows that fit, those that tell most before others, and a line on the rest."""
    if sum(row.height for row in rows) <= PANEL:
        return rows
    units = groups(rows)

    def rank(place: int) -> tuple[bool, bool, int]:
        unit = units[place]
        return (not any(row.held for row in unit), not any(map(_tells, unit)), place)

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


def _tells(row: Row) -> bool:
    return bool(row.ending or row.marks)


def _sample(recording: Recording, lanes: list[Lane]) -> list[Lane]:
    """Return ``GROUP_DRAWN`` lanes at most: those that held the loop, did not end well or were
    marked, others evenly from all.
    """
    if len(lanes) <= GROUP_DRAWN:
        return lanes
    telling = [
        place
        for place, lane in enumerate(lanes)
        if lane.outcome != "done"
        or lane.marks
        or any(e - b >= recording.held for b, e, _ in lane.steps)
    ]
    if len(telling) > GROUP_DRAWN // 2:
        chosen = np.linspace(0, len(telling) - 1, GROUP_DRAWN // 2).astype(int)
        telling = [telling[place] for place in chosen.tolist()]
    others = np.linspace(0, len(lanes) - 1, GROUP_DRAWN - len(telling)).astype(int).tolist()
    return [lanes[place] for place in sorted({*telling, *others})]


def _rows(recording: Recording) -> list[Row]:
    rows: list[Row] = []
    parents: list[tuple[int, Row]] = []
    lanes = recording.drawn
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
            thin = [_row(recording, lane, label, height, group=len(together)) for lane in drawn]
            thin[0].notes = _notes(together, drawn)
            thin[-1].stands_for = len(together)
            rows.extend(thin)
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
    steps = edges(lane.steps)
    held = steps[steps[:, 1] - steps[:, 0] >= recording.held]
    row = Row(
        label=label,
        height=height,
        indent=lane.depth,
        waiting=[(lane.began, lane.until)] if lane.steps else [],
        running=steps,
        held=sorted([*((began, ended) for began, ended in held.tolist()), *lane.holds_below]),
        ending=_ending(lane),
        outcome=lane.outcome,
        made=max(lane.made, 0.0),
        began=lane.began,
        until=lane.until,
        loop=lane.loop,
        group=group,
        marks=(*lane.marks, *_answer(recording, lane)),
    )
    queues = {queues_for(name): name for name in recording.watched}
    for name, spans in _by_name(lane.marked_spans):
        if name in queues:
            row.queues[queues[name]] = spans
        else:
            row.holds[name] = spans
    row.height += row.strips * STRIP
    return row


def _answer(recording: Recording, lane: Lane) -> list[Mark]:
    """Return where the answer was sent, in a lane that goes on after it, as background tasks do."""
    if lane.answered is None or lane.after_answer < recording.held:
        return []
    return [Mark(lane.name, lane.answered, "answered")]


def _ending(lane: Lane) -> str:
    if not lane.steps:
        return "not started"
    if any(mark.text == NEVER_STARTED for mark in lane.marks):
        return "cancelled before it started"
    endings = {"cancelled": "cancelled", "failed": lane.error, "pending": "not ended"}
    return endings.get(lane.outcome, "")


def _by_name(spans: Iterable[Span]) -> Iterable[tuple[str, list[Interval]]]:
    found: dict[str, list[Interval]] = {}
    for span in spans:
        found.setdefault(span.name, []).append((span.began, span.ended))
    for name, intervals in found.items():
        yield name, merged(sorted(intervals), 0.0)


def _notes(lanes: list[Lane], drawn: list[Lane]) -> list[Note]:
    """Return what befell lanes of a group: how many they were, beside the first of them."""
    late = [lane for lane in lanes if any(mark.text == TIMED_OUT for mark in lane.marks)]
    said = {id(lane) for lane in late if lane.error == "TimeoutError"}
    failed = [one for one in lanes if one.outcome == "failed" and id(one) not in said]
    errors = [name for name, _ in Counter(lane.error for lane in failed).most_common()]
    befell: list[tuple[Fate, str, list[Lane]]] = [
        ("timed out", "timed out", late),
        ("failed", f"failed: {', '.join(errors)}", failed),
        ("cancelled", "cancelled", [lane for lane in lanes if lane.outcome == "cancelled"]),
        ("pending", "not ended", [one for one in lanes if one.outcome == "pending" and one.steps]),
        ("not started", "not started", [lane for lane in lanes if not lane.steps]),
    ]
    notes = []
    for fate, words, those in befell:
        if those:
            places = {id(lane): place for place, lane in enumerate(drawn)}
            place = next((places[id(lane)] for lane in those if id(lane) in places), 0)
            notes.append(Note(f"{len(those):,} {words}", fate, place))
    return sorted(notes, key=lambda note: note.place)


def edges(spans: Sequence[Sequence[Any]]) -> np.ndarray:
    """Return beginnings and ends as an array of two columns, quicker than ``numpy.array``."""
    began = np.array([span[0] for span in spans], dtype=float)
    return np.column_stack((began, np.array([span[1] for span in spans], dtype=float)))


def merged(spans: Spans, widen: float) -> list[Interval]:
    """Return ``spans`` at least ``widen`` wide, those that touch joined: no more than pixels."""
    if not len(spans):
        return []
    both = np.asarray(spans, dtype=float)
    began = both[:, 0]
    ended = np.maximum.accumulate(np.maximum(both[:, 1], began + widen))
    opens = np.empty(len(began), dtype=bool)
    opens[0] = True
    opens[1:] = began[1:] > ended[:-1]
    firsts = np.flatnonzero(opens)
    lasts = np.append(firsts[1:] - 1, len(began) - 1)
    return list(zip(began[firsts].tolist(), ended[lasts].tolist(), strict=True))


def _waits_in_turn(recording: Recording, lane: Lane) -> list[Row]:
    """Return a row per coroutine that the task waits in and that its name does not tell."""
    rows = []
    steps = edges(lane.steps)
    steps = steps[steps[:, 1] - steps[:, 0] < recording.held]
    for name, spans in lane.turns.items():
        both = edges(spans)
        # A wait begins as a step ends and ends as one begins, so a step touches it if it lies
        # between the last wait that begins no later than its end and that one's end.
        place = np.searchsorted(both[:, 0], steps[:, 1], side="right") - 1
        near = (place >= 0) & (both[np.maximum(place, 0), 1] >= steps[:, 0])
        rows.append(
            Row(
                label=name,
                height=SLIM_ROW,
                indent=lane.depth + 1,
                waiting=both,
                running=steps[near],
                slim=True,
                loop=lane.loop,
            )
        )
    return rows


def own_marks(row: Row) -> list[Mark]:
    """Return the marks of ``row`` that a lesson wrote: their words are to be shown."""
    return [mark for mark in row.marks if mark.text not in (CANCELLED, TIMED_OUT, NEVER_STARTED)]
