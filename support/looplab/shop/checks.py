"""Checks of arguments: each names the argument, its value and what is allowed."""

from __future__ import annotations

import math

from sqlalchemy.pool import Pool


def seconds(name: str, value: object) -> float:
    """Return `value` as a float if it is a finite number of seconds, zero or more.

    Raises:
        TypeError: it is not a number.
        ValueError: it is negative, infinite or NaN.
    """
    number = _number(name, value, "a number of seconds")
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{name}={value!r}: must be a finite number of seconds, 0 or more")
    return number


def share(name: str, value: object) -> float:
    """Return `value` as a float if it lies between 0 and 1.

    Raises:
        TypeError: it is not a number.
        ValueError: it lies outside 0 to 1.
    """
    number = _number(name, value, "a number from 0 to 1")
    if not 0 <= number <= 1:
        raise ValueError(f"{name}={value!r}: must be a number from 0 to 1")
    return number


def count(name: str, value: object, *, at_least: int = 0, at_most: int | None = None) -> int:
    """Return `value` if it is a whole number within the limits.

    Raises:
        TypeError: it is not a whole number.
        ValueError: it lies outside the limits.
    """
    allowed = f"a whole number, {at_least} or more"
    if at_most is not None:
        allowed = f"a whole number from {at_least} to {at_most}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}={value!r}: must be {allowed}")
    if value < at_least or (at_most is not None and value > at_most):
        raise ValueError(f"{name}={value!r}: must be {allowed}")
    return value


def flag(name: str, value: object) -> bool:
    """Return `value` if it is True or False.

    Raises:
        TypeError: it is neither.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: must be True or False")
    return value


def pool_class(name: str, value: object) -> type[Pool] | None:
    """Return `value` if it is a subclass of SQLAlchemy's `Pool`, or None.

    Raises:
        TypeError: it is neither.
    """
    if value is None or (isinstance(value, type) and issubclass(value, Pool)):
        return value
    raise TypeError(f"{name}={value!r}: must be a subclass of sqlalchemy.pool.Pool, or None")


def _number(name: str, value: object, allowed: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}={value!r}: must be {allowed}")
    return float(value)
