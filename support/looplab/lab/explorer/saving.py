"""Recordings small enough to be saved in a notebook, beside the still picture of the same run."""

import base64
import json
import zlib
from typing import Any

from looplab.lab.explorer.data import VERSION, Data

MIME = "application/vnd.looplab.recording+json"
"""The type of a saved recording among the data of a notebook's output."""
MOST_KEPT = 12_000
"""A saved recording takes so many bytes at most, in base64."""
FEWER = (120, 60, 24, 12, 6)
"""So many of neighbouring lanes with one name are kept, if all of them take too much room."""
COARSER = (2_000, 1_000, 500, 250)
"""Steps closer together than the duration over this are then joined, unless they held the loop."""


def packed(data: Data) -> Data:
    """Return ``data`` deflated and in base64, as it is saved: a mapping that JSON can carry."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    squeezed = zlib.compress(text.encode(), 9)
    return {"version": VERSION, "packed": base64.b64encode(squeezed).decode()}


def unpacked(saved: Data) -> Data:
    """Return the data that :func:`packed` was given.

    Raises ValueError for what is no saved recording or was saved by a later version.
    """
    if not isinstance(saved, dict) or saved.get("version") != VERSION or "packed" not in saved:
        raise ValueError(f"saved is {_short(saved)}; it must be what packed() returns")
    try:
        return json.loads(zlib.decompress(base64.b64decode(saved["packed"])))
    except (TypeError, ValueError, zlib.error) as error:
        raise ValueError(f"saved is {_short(saved)}; its data can't be read: {error}") from error


def kept(data: Data, most: int = MOST_KEPT) -> Data:
    """Return ``data`` as it is saved, no more than ``most`` bytes; thinned where it takes more.

    Of many lanes of one name fewer are kept, and then short steps of a lane are joined. A panel of
    which something is missing says how many lanes in ``left_out``, and has ``joined`` where steps
    are. What holds the loop, fails, is cancelled or is marked stays. Raises ValueError when even
    that takes more room.
    """
    if most <= 0:
        raise ValueError(f"most is {most!r}; it must be above 0, in bytes")
    saved = packed(data)
    for lanes, parts in [*((few, 0) for few in FEWER), *((FEWER[-1], part) for part in COARSER)]:
        if len(saved["packed"]) <= most:
            return saved
        thin = {**data, "panels": [_thinned(panel, lanes, parts) for panel in data["panels"]]}
        saved = packed(thin)
    if len(saved["packed"]) > most:
        raise ValueError(
            f"the recording takes {len(saved['packed']):,} bytes though it was thinned; most is "
            f"{most:,}"
        )
    return saved


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _thinned(panel: Data, most: int, parts: int) -> Data:
    lanes: list[Data] = []
    together: list[Data] = []
    for lane in panel["lanes"]:
        if together and _kin(together[-1]) != _kin(lane):
            lanes += _sample(panel, together, most)
            together = []
        together.append(lane)
    lanes += _sample(panel, together, most)
    thin = {**panel, "lanes": lanes}
    missing = len(panel["lanes"]) - len(lanes)
    if missing:
        thin["left_out"] = missing
    if parts:
        longest = max((lane["until"] for lane in lanes), default=0)
        gap = max(longest, panel["end"]) // parts
        thin["lanes"] = [_joined(lane, gap, panel["held"]) for lane in lanes]
        thin["joined"] = gap
    return thin


def _kin(lane: Data) -> tuple[int, int, int]:
    return lane["name"], lane.get("depth", 0), lane.get("loop", 0)


def _sample(panel: Data, lanes: list[Data], most: int) -> list[Data]:
    """Return ``most`` lanes at most: those that tell something first, others evenly from all.

    The first of them stands for those that are left out: ``of`` is how many there were.
    """
    if len(lanes) <= most:
        return lanes
    telling = [place for place, lane in enumerate(lanes) if _tells(panel, lane)]
    chosen = set(_evenly(telling, most // 2))
    chosen |= set(_evenly(list(range(len(lanes))), most - len(chosen)))
    few = [lanes[place] for place in sorted(chosen)]
    return [{**few[0], "of": len(lanes)}, *few[1:]]


def _evenly(places: list[int], most: int) -> list[int]:
    if len(places) <= most:
        return places
    step = (len(places) - 1) / max(most - 1, 1)
    return [places[round(number * step)] for number in range(most)]


def _tells(panel: Data, lane: Data) -> bool:
    long = any(length >= panel["held"] for length in lane.get("steps", [])[1::2])
    return long or bool(lane.get("outcome") or lane.get("marks") or lane.get("below"))


def _joined(lane: Data, gap: int, held: int) -> Data:
    """Return ``lane`` with steps joined that follow one another within ``gap`` microseconds."""
    steps, spots = lane.get("steps", []), lane.get("spots", [])
    joined: list[int] = []
    kept_spots: list[int] = []
    for place in range(0, len(steps), 2):
        apart, length = steps[place], steps[place + 1]
        spot = spots[place // 2]
        short = joined and joined[-1] < held and length < held
        if short and apart + length + joined[-1] <= gap:
            joined[-1] += apart + length
            kept_spots[-1] = spot
        else:
            joined += (apart, length)
            kept_spots.append(spot)
    return {**lane, "steps": joined, "spots": kept_spots}
