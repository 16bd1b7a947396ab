"""Ask for a number before a run, and put it beside the measurement after it."""

import math
import re
from typing import Any

from looplab.kept import PREDICTION, REVEALED
from looplab.lab.display import show_table, show_widget
from looplab.lab.errors import LessonError

_asked: dict[str, "Prediction"] = {}


class Prediction:
    """A question, and the learner's answer once there is one."""

    def __init__(self, question: str, between: tuple[float, float], unit: str) -> None:
        self.question = question
        self.between = between
        self.unit = unit
        self._guess: float | None = None
        self._box: Any = None

    @property
    def guess(self) -> float | None:
        """The number that the learner entered, in ``unit``; None before there is one."""
        typed = self._box.value if self._box is not None else ""
        if not typed.strip():
            return self._guess
        number = _number(typed, self.unit)
        if not math.isfinite(number):
            raise LessonError(f"you answered {typed!r}; answer {self.question!r} with a number")
        return number

    def answer(self, number: float) -> None:
        """Answer in code instead of in the box, in ``unit``. Raises ValueError if not finite."""
        if not math.isfinite(number):
            raise ValueError(
                f"number is {number!r}; it must be finite, in {self.unit or 'numbers'}"
            )
        self._guess = float(number)
        if self._box is not None:
            self._box.value = f"{number:g}"

    def reveal(self, measured: float, *, bound: float | None = None) -> None:
        """Show the prediction, what arithmetic says (``bound``) and ``measured``, all in ``unit``.

        Raises LessonError when what the learner typed is not a number.
        """
        guess = self.guess
        rows = [["you said", self._said(guess)]]
        if bound is not None:
            rows.append(["arithmetic says", self._text(bound)])
        rows.append(["measured", self._text(measured)])
        if guess is not None and measured:
            rows.append(["you were at", f"{guess / measured:.2f} times the measurement"])
        answer = self.asked | {"measured": float(measured)}
        show_table([self.question, ""], rows, data={REVEALED: answer})

    @property
    def asked(self) -> dict[str, Any]:
        """The question for programs, as JSON; see :data:`looplab.kept.PREDICTION`."""
        between = [float(bound) for bound in self.between]
        return {"question": self.question, "between": between, "unit": self.unit}

    def _said(self, guess: float | None) -> str:
        if guess is None:
            return "nothing yet"
        least, most = self.between
        if least <= guess <= most:
            return self._text(guess)
        return f"{self._text(guess)}, where {self._text(least)} to {self._text(most)} was asked for"

    def _text(self, number: float) -> str:
        text = f"{number:.3g}" if abs(number) < 999.5 else f"{number:,.0f}"
        return f"{text} {self.unit}".strip()

    def __repr__(self) -> str:
        return f"Your prediction, please: {self.question}"


def _number(typed: str, unit: str) -> float:
    """Return the number in ``typed``: 1.5, 1,5, 1,500 or 1.5 ms; nan if there is none."""
    text = typed.strip().removesuffix(unit).strip()
    if re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+(\.\d*)?", text):
        text = text.replace(",", "")
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return math.nan


def predict(question: str, *, between: tuple[float, float], unit: str = "ms") -> Prediction:
    """Show a box for the learner's prediction and return it; nothing waits for the answer.

    Asked again, as when the cell is run twice, a question keeps the answer that it had.

    Args:
        question: what is asked, unit aside.
        between: the least and the greatest answer that can be meant; shown as a help.
        unit: the unit of the answer; empty for a bare number.

    Raises:
        ValueError: ``question`` is empty, or ``between`` is not two finite numbers in order.
    """
    if not question.strip():
        raise ValueError(f"question is {question!r}; it must say what to predict")
    if not _in_order(between):
        raise ValueError(f"between is {between!r}; it must be two finite numbers, the least first")
    prediction = Prediction(question, between, unit)
    before = _asked.get(question)
    prediction._box = _box(prediction, typed=before._box.value if before else "")
    _asked[question] = prediction
    return prediction


def _in_order(between: Any) -> bool:
    try:
        least, most = between
        return math.isfinite(least) and math.isfinite(most) and least < most
    except (TypeError, ValueError):
        return False


def _box(prediction: Prediction, *, typed: str) -> Any:
    import ipywidgets

    least, most = prediction.between
    unit = f" ({prediction.unit})" if prediction.unit else ""
    box = ipywidgets.Text(
        value=typed,
        description=f"Predict: {prediction.question}?{unit}",
        placeholder=f"{least:g} to {most:g}",
        style={"description_width": "initial"},
        layout=ipywidgets.Layout(width="auto", max_width="46em"),
    )
    box.add_class("course-prediction")
    asked_for = f"{least:g} to {most:g} {prediction.unit}".rstrip()
    show_widget(box, f"{prediction!r} ({asked_for})", data={PREDICTION: prediction.asked})
    return box
