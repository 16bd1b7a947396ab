"""The Pythons that the course is tested with; a test holds every other place that says so to this.

An older one can't run it. A newer one may: pyproject.toml sets no upper bound, since a bound would
refuse a system's Python for no other reason than that nobody has tried it yet.
"""

OLDEST = (3, 11)
NEWEST = (3, 15)
TESTED = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
"""The range as one says it: ``3.11 to 3.15``."""


def too_old(version: tuple[int, ...]) -> bool:
    """Return whether the course cannot run on ``version``, which begins with major and minor."""
    return version[:2] < OLDEST


def untested(version: tuple[int, ...]) -> bool:
    """Return whether ``version``, which begins with major and minor, is newer than any tested."""
    return version[:2] > NEWEST
