"""A sentence about a run that stands only while the run bears it out."""

import inspect

from looplab.lab.display import show_note
from looplab.lab.errors import LessonError


class ClaimFailed(LessonError, AssertionError):
    """A claim did not hold; the message gives the sentence and the figures that were measured."""


def claim(sentence: str, condition: bool, **figures: object) -> None:
    """Show ``sentence`` with a tick if ``condition`` is true, and raise if it is not.

    ``figures`` are what was measured: shown behind the sentence, and in the error.

    Raises:
        ClaimFailed: ``condition`` is false.
        TypeError: ``condition`` is not a bool, so that a list, a coroutine or a forgotten
            comparison cannot pass for true.
        ValueError: ``sentence`` is empty.
    """
    if not sentence.strip():
        raise ValueError(f"sentence is {sentence!r}; it must say what is claimed")
    if not isinstance(condition, bool):
        if inspect.iscoroutine(condition):
            condition.close()
        kind = type(condition).__name__
        raise TypeError(f"condition is {condition!r} ({kind}); it must be True or False")
    shown = ", ".join(f"{name} = {_text(value)}" for name, value in figures.items())
    line = f"{sentence} ({shown})" if shown else sentence
    if not condition:
        raise ClaimFailed(f"this run does not bear out: {line}")
    show_note(line, kind="tick")


def _text(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"
