"""Waits, in one unit and at one pace."""

import math
import os

PACE_VARIABLE = "COURSE_PACE"


def pace() -> float:
    """Return the factor that stretches every wait of the course; 1 unless COURSE_PACE says else.

    Raises ValueError when COURSE_PACE is not a finite number above 0.
    """
    text = os.environ.get(PACE_VARIABLE, "1")
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(
            f"{PACE_VARIABLE} is {text!r}; it must be a number above 0, such as 0.5 or 4"
        )
    return factor


def ms(milliseconds: float) -> float:
    """Return ``milliseconds`` in seconds, stretched by :func:`pace`.

    Raises ValueError when ``milliseconds`` is negative or not finite.
    """
    if not (math.isfinite(milliseconds) and milliseconds >= 0):
        raise ValueError(f"milliseconds is {milliseconds!r}; it must be 0 or more, and finite")
    return milliseconds / 1000 * pace()
