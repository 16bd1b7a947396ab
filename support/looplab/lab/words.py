"""Where words stand in the lanes of an x-ray: never on a bar, never on one another.

Words on a lane's end stand right of its bar. Words on a moment in it stand above the bar, in a line
that the row is made higher for; how long the loop was held stands on the red bar where it fits.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from looplab.lab.lettering import cut, width_of
from looplab.lab.rows import Row, groups, own_marks
from looplab.lab.telling import duration

SIZE = 8
"""Points."""
LINE = 0.15
"""So many inches higher is a row with a line of words above its bar."""
EXTRA = 2.5
"""So many inches at most do such lines take in one recording's picture."""
LONGEST = 1.6
"""So many inches the words beside one lane may take."""
GAP = 0.06
"""Between a bar and the words beside it, or between words."""
SYMBOL = 0.07
"""So much of the mark or the arrow at a bar's end stands out."""
SPACING = 0.135
"""Between words that stand one below the other."""

Tone = Literal["quiet", "held", "failed", "light", "mark", "timed out"]


@dataclass
class Word:
    """A text in a row; ``at`` is in seconds, where it begins, and where its middle is if inside."""

    text: str
    at: float
    tone: Tone = "quiet"
    where: Literal["beside", "above", "inside"] = "beside"
    gap: float = 0.0
    """Inches between ``at`` and the text."""

    @property
    def width(self) -> float:
        """Inches, the gap before it included."""
        return self.gap + width_of(self.text, SIZE)


@dataclass
class Wording:
    """The words of all rows, and how long the time axis has to be for them."""

    words: dict[int, list[Word]]
    """By the row's ``id``."""
    limit: float
    """In seconds."""


def beside(rows: Iterable[Row], across: float, limit: float) -> Wording:
    """Return the words that stand right of the bars, on an axis ``across`` inches long.

    The axis is to last ``limit`` seconds at least, and longer where words need it.
    """
    words: dict[int, list[Word]] = {}
    for unit in groups(rows):
        if unit[0].group > 1:
            words |= _of_a_group(unit)
        elif unit[0].ending:
            row = unit[0]
            tone: Tone = "failed" if row.outcome == "failed" else "quiet"
            gap = GAP + _symbol(row)
            words[id(row)] = [Word(cut(row.ending, LONGEST, SIZE), row.ends, tone, gap=gap)]
    for word in (word for those in words.values() for word in those):
        limit = max(limit, word.at / (1 - (word.width + 0.02) / across))
    return Wording(words, limit)


def _symbol(row: Row) -> float:
    return SYMBOL if row.marks or row.outcome in ("pending", "failed") else 0.0


def _of_a_group(rows: list[Row]) -> dict[int, list[Word]]:
    """Return the notes on a group, each right of all the thin lanes that it is as high as."""
    height = rows[0].height
    reach = int(SPACING / 2 / height) + 1
    first, last = reach, max(len(rows) - 1 - reach, reach)
    notes = rows[0].notes[: int(len(rows) * height / SPACING)]
    apart = SPACING / height
    places: list[float] = []
    for note in notes:
        low = places[-1] + apart if places else first
        places.append(min(max(note.place, low), last))
    for place in range(len(places) - 2, -1, -1):
        places[place] = max(min(places[place], places[place + 1] - apart), 0)
    words: dict[int, list[Word]] = {}
    for note, place in zip(notes, places, strict=True):
        anchor = min(round(place), len(rows) - 1)
        near = rows[max(anchor - reach, 0) : anchor + reach + 1]
        tone: Tone = "failed" if note.fate == "failed" else "quiet"
        if note.fate == "timed out":
            tone = "timed out"
        word = Word(
            cut(note.text, LONGEST, SIZE), max(row.ends for row in near), tone, gap=GAP + SYMBOL
        )
        words.setdefault(id(rows[anchor]), []).append(word)
    return words


def add_moments(rows: Iterable[Row], wording: Wording, across: float) -> None:
    """Add how long the loop was held, and a lesson's own marks; make rows higher where needed."""
    inch = wording.limit / across
    room = EXTRA
    for row in sorted((row for row in rows if row.group == 1), key=_importance):
        above = _above(row, wording, inch, across)
        if above and room >= LINE:
            room -= LINE
            row.height += LINE
            row.above = LINE
            wording.words.setdefault(id(row), []).extend(above)


def _importance(row: Row) -> tuple[int, float]:
    longest = max((ended - began for began, ended in row.held), default=0.0)
    return (-len(own_marks(row)), -longest)


def _above(row: Row, wording: Wording, inch: float, across: float) -> list[Word]:
    """Return the words for the line above the bar, and put those elsewhere that fit there."""
    asked = [Word(mark.text, mark.at, "mark", "above", SYMBOL) for mark in own_marks(row)]
    for began, ended in sorted(row.held, key=lambda span: span[0] - span[1]):
        text = f"loop held {duration(ended - began)}"
        if (width_of(text, SIZE) + 0.1) * inch < ended - began:
            middle = (began + ended) / 2
            wording.words.setdefault(id(row), []).append(Word(text, middle, "light", "inside"))
        elif not _fits_beside(text, ended, row, wording, inch):
            asked.append(Word(text, began, "held", "above"))
    placed: list[tuple[float, float]] = []
    above = []
    for word in asked:
        word.text = cut(word.text, across / 2, SIZE)
        room = wording.limit - (word.width + 0.02) * inch
        if word.tone == "mark" and word.at > room:  # on the other side of its symbol
            room = word.at - (word.width + SYMBOL) * inch
        first = max(min(word.at, room), 0.0)
        last = first + word.width * inch
        if all(first >= b + GAP * inch or last <= a - GAP * inch for a, b in placed):
            placed.append((first, last))
            word.at = first
            above.append(word)
    return above


def _fits_beside(text: str, ended: float, row: Row, wording: Wording, inch: float) -> bool:
    """Put ``text`` right of a hold that the bar ends with, if there is room; return whether."""
    words = wording.words.setdefault(id(row), [])
    if row.ends - ended > 0.01 * inch or any(word.tone == "held" for word in words):
        return False
    new = Word(text, row.ends, "held", gap=GAP + _symbol(row))
    after = [word for word in words if word.where == "beside"]
    if row.ends + (new.width + sum(word.width for word in after) + 0.02) * inch > wording.limit:
        return False
    for word in after:
        word.at, word.gap = row.ends, new.width + GAP
    words.append(new)
    return True
