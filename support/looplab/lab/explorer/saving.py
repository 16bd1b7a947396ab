"""Recordings small enough to be saved in a notebook, beside the still picture of the same run."""

import base64
import json
import zlib
from itertools import groupby
from typing import Any

from looplab.kept import PREFIX
from looplab.lab.explorer.data import VERSION, Data

MIME = f"{PREFIX}recording+json"
"""The type of a saved recording among the data of a notebook's output."""
MOST_KEPT = 12_000
"""A saved recording takes so many bytes at most, in base64."""
ALL = 10**9
STAGES = (
    (ALL, 0, ALL),
    *((lanes, 0, ALL) for lanes in (120, 60, 24, 12)),
    *((12, parts, ALL) for parts in (2_000, 1_000, 500, 250)),
    *((12, 250, whole) for whole in (200, 100, 50, 20)),
)
"""How a recording is thinned, little by little: so many of neighbouring lanes with one name, steps
joined that are closer than the whole time over that number, unless they held the loop or would
look as if they had, and so many lanes in all."""


def packed(data: Data, level: int = 6) -> Data:
    """Return ``data`` deflated and in base64, as it is saved: a mapping that JSON can carry.

    ``level`` is zlib's: the higher, the smaller and the slower, up to 9.
    """
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    squeezed = zlib.compress(text.encode(), level)
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


def kept(data: Data, most: int = MOST_KEPT) -> Data | None:
    """Return ``data`` as it is saved, no more than ``most`` bytes; thinned where it takes more.

    Of many lanes of one name fewer are kept; then short steps of a lane are joined; then only some
    lanes of all are left. A panel of which something is missing says how many lanes in
    ``left_out``, and how close to one another steps were joined in ``joined``, in microseconds.
    Lanes that held the loop, failed, were cancelled or marked are kept before others.

    Returns None when even that takes more room, and raises ValueError when ``most`` is not above 0.
    """
    if most <= 0:
        raise ValueError(f"most is {most!r}; it must be above 0, in bytes")
    for lanes, parts, whole in STAGES:
        thin = {**data, "panels": [_thinned(one, lanes, parts, whole) for one in data["panels"]]}
        steps = sum(
            len(lane.get("spots", ())) for panel in thin["panels"] for lane in panel["lanes"]
        )
        if steps > most:  # a step takes more than a byte
            continue
        saved = packed(thin, 9)
        if len(saved["packed"]) <= most:
            return saved
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _thinned(panel: Data, most: int, parts: int, whole: int) -> Data:
    lanes: list[Data] = []
    for _, neighbours in groupby(panel["lanes"], key=_kin):
        lanes += _sample(panel, list(neighbours), most)
    lanes = _sample(panel, lanes, whole)
    thin = {**panel, "lanes": lanes}
    missing = len(panel["lanes"]) - len(lanes)
    if missing:
        thin["left_out"] = missing
    if parts:
        longest = max((lane["until"] for lane in lanes), default=0)
        gap = min(max(longest, panel["end"]) // parts, max(panel["held"] - 1, 0))
        thin["lanes"] = [_joined(lane, gap) for lane in lanes]
        thin["joined"] = gap
    return _tidy(thin) if missing or parts else thin


def _tidy(panel: Data) -> Data:
    """Return ``panel`` with only those spots and names that its lanes still refer to."""
    lanes = panel["lanes"]
    spots = _Renumbered(panel["spots"], {spot for lane in lanes for spot in lane.get("spots", ())})
    used = {name for names, *_ in spots.kept for name in names}
    used |= {*panel["queues"], *panel["holds"]}
    for lane in lanes:
        used |= {lane["name"], *lane.get("turns", ())}
        used |= {mark[1] for mark in lane.get("marks", ())}
        used |= {span[0] for span in lane.get("spans", ())}
    names = _Renumbered(panel["names"], used)

    def tidied(lane: Data) -> Data:
        lane = {**lane, "name": names.now[lane["name"]]}
        if "spots" in lane:
            lane["spots"] = [spots.now[spot] for spot in lane["spots"]]
        if "turns" in lane:
            lane["turns"] = [names.now[name] for name in lane["turns"]]
        if "marks" in lane:
            lane["marks"] = [[at, names.now[name]] for at, name in lane["marks"]]
        if "spans" in lane:
            lane["spans"] = [[names.now[name], *times] for name, *times in lane["spans"]]
        return lane

    return {
        **panel,
        "names": names.kept,
        "spots": [[[names.now[name] for name in those], *rest] for those, *rest in spots.kept],
        "queues": [names.now[name] for name in panel["queues"]],
        "holds": [names.now[name] for name in panel["holds"]],
        "lanes": [tidied(lane) for lane in lanes],
    }


class _Renumbered:
    """What is still used of a list, and the place that each old place has become."""

    def __init__(self, items: list[Any], used: set[int]) -> None:
        places = sorted(used | {0}) if items else []
        self.kept = [items[place] for place in places]
        self.now = {place: number for number, place in enumerate(places)}


def _kin(lane: Data) -> tuple[int, int, int]:
    return lane["name"], lane.get("depth", 0), lane.get("loop", 0)


def _sample(panel: Data, lanes: list[Data], most: int) -> list[Data]:
    """Return ``most`` lanes at most: those that tell something first, others evenly from all.

    Where all have one name, ``of`` of the first is how many there were.
    """
    if len(lanes) <= most:
        return lanes
    telling = [place for place, lane in enumerate(lanes) if _tells(panel, lane)]
    chosen = set(_evenly(telling, most // 2))
    chosen |= set(_evenly(list(range(len(lanes))), most - len(chosen)))
    few = [lanes[place] for place in sorted(chosen)]
    if len({_kin(lane) for lane in few}) > 1:
        return few
    return [{**few[0], "of": len(lanes)}, *few[1:]]


def _evenly(places: list[int], most: int) -> list[int]:
    if len(places) <= most:
        return places
    step = (len(places) - 1) / max(most - 1, 1)
    return [places[round(number * step)] for number in range(most)]


def _tells(panel: Data, lane: Data) -> bool:
    long = any(length >= panel["held"] for length in lane.get("steps", [])[1::2])
    return long or bool(lane.get("outcome") or lane.get("marks") or lane.get("below"))


def _joined(lane: Data, gap: int) -> Data:
    """Return ``lane`` with steps joined that follow one another within ``gap`` microseconds."""
    steps, spots = lane.get("steps", []), lane.get("spots", [])
    joined: list[int] = []
    kept_spots: list[int] = []
    for place in range(0, len(steps), 2):
        apart, length = steps[place], steps[place + 1]
        spot = spots[place // 2]
        if joined and apart + length + joined[-1] <= gap:
            joined[-1] += apart + length
            kept_spots[-1] = spot
        else:
            joined += (apart, length)
            kept_spots.append(spot)
    return {**lane, "steps": joined, "spots": kept_spots}
