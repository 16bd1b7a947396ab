"""Whatever was recorded, no word in the picture stands on a bar or on another word."""

import itertools
import random
from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from looplab.lab.cancels import CANCELLED, TIMED_OUT
from looplab.lab.colours import HELD
from looplab.lab.pictures import draw
from looplab.lab.recording import Recording
from looplab.lab.trace import Stretch, TaskTrace

Step = tuple[float, float, str]
ENDINGS = [
    ("done", ""), ("done", ""), ("cancelled", ""), ("pending", ""), ("failed", "KeyError"),
    ("failed", "AnExceptionWithAnExceedinglyLongName"),
]  # fmt: skip
TOUCH = 2.0
"""Pixels of the saved picture by which boxes may share an edge: extents are rounded up."""


def trace(name: str, *steps: Step, **others: object) -> TaskTrace:
    made = TaskTrace(qualified=name, parent=None, loop=0, ours=True, outcome="done")
    made.steps.extend(steps)
    for field, value in others.items():
        setattr(made, field, value)
    return made


def bars(figure: Figure) -> Iterator[tuple[str, Bbox]]:
    """Yield the colour and the extent in pixels of every bar in a lane."""
    for axes in figure.axes:
        for bar in axes.collections:
            if isinstance(bar, PolyCollection) and bar.get_zorder() >= 2:
                colours = np.asarray(bar.get_facecolor())
                for path in bar.get_paths():
                    corners = axes.transData.transform(np.asarray(path.vertices))
                    low, high = corners.min(axis=0), corners.max(axis=0)
                    yield to_hex(colours[0]), Bbox([low, high])


def texts(figure: Figure) -> Iterator[tuple[str, Bbox]]:
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_visible() and text.get_text().strip():
            yield text.get_text(), Text.get_window_extent(text)


def collisions(figure: Figure) -> list[str]:
    """Return the words that stand on a bar, unless wholly on a red one, or on other words."""
    figure.set_dpi(200)
    figure.draw_without_rendering()
    words = list(texts(figure))
    drawn = list(bars(figure))
    edges = np.array([box.extents for _, box in drawn]).reshape(-1, 4)
    found = []
    for text, box in words:
        inside = [bar for colour, bar in drawn if colour == HELD and _within(box, bar)]
        across = np.minimum(box.x1, edges[:, 2]) - np.maximum(box.x0, edges[:, 0])
        down = np.minimum(box.y1, edges[:, 3]) - np.maximum(box.y0, edges[:, 1])
        if not inside and np.any((across > TOUCH) & (down > TOUCH)):
            found.append(f"{text!r} stands on a bar")
    for (one, first), (other, second) in itertools.combinations(words, 2):
        shared = Bbox.intersection(first, second)
        if shared is not None and min(shared.width, shared.height) > TOUCH:
            found.append(f"{one!r} and {other!r} overlap")
    return found


def _within(box: Bbox, bar: Bbox) -> bool:
    return box.x0 >= bar.x0 and box.x1 <= bar.x1


def invented(seed: int) -> Recording:
    """Return a recording of a few lanes and perhaps a group, with whatever may befall a task."""
    dice = random.Random(seed)
    end = 10 ** dice.uniform(-3, 1)
    traces: list[TaskTrace] = []

    def befalls(name: str) -> TaskTrace:
        times = sorted(dice.uniform(0, end) for _ in range(2 * dice.randint(1, 7)))
        if dice.random() < 0.7:  # most steps are short
            times = [at for began in times[::2] for at in (began, began + end / 1000)]
        outcome, error = dice.choice(ENDINGS)
        pairs = zip(times[::2], times[1::2], strict=True)
        made = trace(name, *((a, b, "") for a, b in pairs), outcome=outcome, error=error)
        if dice.random() < 0.1:
            made.steps.clear()
            made.outcome = "pending"
        made.made = dice.choice([None, dice.uniform(0, times[0])])
        made.marks = [
            (dice.choice(times), dice.choice([CANCELLED, TIMED_OUT, "retries", "x" * 90]))
            for _ in range(dice.choice([0, 0, 1, 4]))
        ]
        made.stretches = [
            Stretch(dice.choice(["holds slot", "queues for slot", "lease"]), *sorted(span))
            for _ in range(dice.choice([0, 0, 1, 3]))
            if (span := [dice.uniform(0, end), dice.uniform(0, end)])
        ]
        if made.stretches and dice.random() < 0.2:
            made.stretches[-1].ended = None
        return made

    for place in range(dice.randint(1, 6)):
        traces.append(befalls(f"task {place}"))
    if dice.random() < 0.5:
        traces.extend(befalls("branch") for _ in range(dice.choice([6, 20, 150])))
    held = end / dice.choice([5, 50])
    return Recording(traces, title="Invented", start=0, end=end, held=held, watched=["slot"])


@pytest.mark.parametrize("seed", range(40))
def test_no_word_stands_on_a_bar_or_on_another_word(seed: int) -> None:
    assert collisions(draw([invented(seed)])) == []


def test_panels_of_one_picture_have_no_word_on_a_bar_either() -> None:
    assert collisions(draw([invented(seed) for seed in (1, 2, 3)])) == []
