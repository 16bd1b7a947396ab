"""What the picture shows, as numbers and names that JSON can carry.

Times are whole microseconds since a recording began. Names, files and what tasks waited in are
kept once each, and lanes refer to them by their places in those lists.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from looplab.lab.places import NOWHERE, Spot, spots_of
from looplab.lab.recording import Interval, Lane, Recording, holds, queues_for
from looplab.lab.telling import describe, verb_of

VERSION = 1

Data = dict[str, Any]


def data_of(*recordings: Recording) -> Data:
    """Return what the picture of ``recordings``, one above another on one time axis, shows.

    The result has ``version`` and ``panels``, a mapping per recording:

    - ``title``; ``said``, the picture in words; ``end``, when the answer was there, and ``verb``,
      what to call that; ``held``, from when on a step held the loop
    - ``queues`` and ``holds``: for each lock that was watched, the names of its two kinds of spans
    - ``names`` and ``files``: lists of text that numbers below refer to
    - ``spots``: what tasks were suspended in, each ``[names, file, line, text]`` with the names of
      coroutines from the outside in; ``file`` is -1 where the innermost is not the reader's
    - ``lanes``: a mapping per drawn task, from the top, with ``name``, ``depth``, ``loop``,
      ``outcome``, ``error``, ``made``, ``until`` and

      - ``steps``: for each step the time since the last one ended (the first: since the beginning),
        and its length
      - ``spots``: for each step what it left the task suspended in
      - ``turns``: names of the coroutines that get a line of their own below the lane
      - ``marks``: pairs of time and name; ``spans``: name, beginning and length, for each thing
        that was held or queued for; ``below``: holds of tasks that fold into this one, as ``steps``
      - ``answered``: when its answer was sent, where it went on after that

      What is empty, or 0, is left out.

    Raises ValueError when there is no recording, and TypeError for something that is none.
    """
    if not recordings:
        raise ValueError("recordings is empty; give at least one recording to show")
    for one in recordings:
        if not isinstance(one, Recording):
            raise TypeError(f"recordings holds {one!r}; each must be a recording, as xray() gives")
    return {"version": VERSION, "panels": [_panel(recording) for recording in recordings]}


class _Listed:
    """A list without repetitions, and the place of each thing in it."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._places: dict[Any, int] = {}

    def place(self, item: Any) -> int:
        place = self._places.get(item)
        if place is None:
            place = self._places[item] = len(self.items)
            self.items.append(item)
        return place


class _Tables:
    def __init__(self) -> None:
        self.names = _Listed()
        self.files = _Listed()
        self.spots = _Listed()
        self._seen: dict[int, tuple[Spot, int]] = {}  # a spot's id stays its own while it lives

    def spot(self, spot: Spot) -> int:
        seen = self._seen.get(id(spot))
        if seen is None:
            seen = self._seen[id(spot)] = spot, self._place(spot)
        return seen[1]

    def _place(self, spot: Spot) -> int:
        names = tuple(self.names.place(str(name)) for name in spot.names)
        if spot.place is None:
            return self.spots.place((names, -1, 0, ""))
        file, line, text = spot.place
        return self.spots.place((names, self.files.place(file), line, text))


def _panel(recording: Recording) -> Data:
    tables = _Tables()
    tables.spot(NOWHERE)
    lanes = [_lane(recording, lane, tables) for lane in recording.drawn]
    return {
        "title": " ".join(recording.title.split()),
        "said": describe(recording),
        "end": _micro(recording.duration),
        "verb": verb_of(recording),
        "held": _micro(recording.held),
        "queues": [tables.names.place(queues_for(name)) for name in recording.watched],
        "holds": [tables.names.place(holds(name)) for name in recording.watched],
        "names": tables.names.items,
        "files": tables.files.items,
        "spots": [[list(names), *others] for names, *others in tables.spots.items],
        "lanes": lanes,
    }


def _lane(recording: Recording, lane: Lane, tables: _Tables) -> Data:
    late = lane.answered is not None and lane.after_answer >= recording.held
    said = {
        "depth": lane.depth,
        "loop": lane.loop,
        "outcome": "" if lane.outcome == "done" else lane.outcome,
        "error": lane.error,
        "made": max(_micro(lane.made), 0),
        "steps": _deltas((began, ended) for began, ended, _ in lane.steps),
        "spots": [tables.spot(spot) for spot in spots_of(lane)],
        "turns": [tables.names.place(name) for name in lane.turns] if recording.unfold else [],
        "marks": [[_micro(mark.at), tables.names.place(mark.text)] for mark in lane.marks],
        "spans": [
            [tables.names.place(span.name), _micro(span.began), _micro(span.ended - span.began)]
            for span in lane.marked_spans
        ],
        "below": _deltas(lane.holds_below),
        "answered": _micro(lane.answered) if late and lane.answered is not None else 0,
    }
    told = {name: value for name, value in said.items() if value}
    return {"name": tables.names.place(lane.name), "until": _micro(lane.until), **told}


def _deltas(spans: Iterable[Interval] | Sequence[Interval]) -> list[int]:
    """Return for each span the microseconds since the one before ended, and its length."""
    deltas: list[int] = []
    before = 0
    for began, ended in spans:
        first, last = _micro(began), _micro(ended)
        deltas += (first - before, last - first)
        before = last
    return deltas


def _micro(seconds: float) -> int:
    return round(seconds * 1_000_000)
