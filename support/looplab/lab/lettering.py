"""How much room text takes in a picture."""

from bisect import bisect
from functools import lru_cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path


@lru_cache(maxsize=4096)
def width_of(text: str, size: float, weight: str = "normal") -> float:
    """Return how wide ``text`` is drawn, in inches, at ``size`` points."""
    font = FontProperties(size=size, weight=weight)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def cut(text: str, room: float, size: float, weight: str = "normal") -> str:
    """Return ``text``, or as much of it as fits into ``room`` inches and an ellipsis."""
    if width_of(text, size, weight) <= room:
        return text
    shortened = [f"{text[:end].rstrip()}…" for end in range(len(text))]
    fitting = bisect(shortened, room, key=lambda short: width_of(short, size, weight))
    return shortened[max(fitting - 1, 0)]
