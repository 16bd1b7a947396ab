import math
from typing import Any

import pytest

from looplab.kept import PREDICTION, REVEALED
from looplab.lab import display
from looplab.lab.errors import LessonError
from looplab.lab.predict import Prediction, predict


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    bundles: list[dict[str, Any]] = []

    def show(bundle: dict[str, Any], **_: Any) -> None:
        bundles.append(bundle)

    monkeypatch.setattr(display, "display", show)
    return bundles


@pytest.fixture
def guess(shown: list[dict[str, Any]]) -> Prediction:
    made = predict("gathered dashboard", between=(0, 400))
    shown.clear()
    return made


def test_a_box_is_shown_with_the_question(shown: list[dict[str, Any]]) -> None:
    prediction = predict("gathered dashboard", between=(0, 400))
    (bundle,) = shown
    expected = "Your prediction, please: gathered dashboard (0 to 400 ms)"
    assert bundle["text/plain"] == expected
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert prediction._box.placeholder == "0 to 400"


def test_nothing_said_is_told_and_no_error(guess: Prediction, shown: list[dict[str, Any]]) -> None:
    assert guess.guess is None
    guess.reveal(57, bound=50)
    lines = shown[0]["text/plain"].splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "gathered dashboard", "you said", "arithmetic says", "measured",
    ]  # fmt: skip
    assert "nothing yet" in lines[1]


def test_what_was_said_stands_beside_what_was_measured(
    guess: Prediction, shown: list[dict[str, Any]]
) -> None:
    guess._box.value = "100"
    guess.reveal(50)
    words = " ".join(shown[0]["text/plain"].split())
    assert words == (
        "gathered dashboard you said 100 ms measured 50 ms you were at 2.00 times the measurement"
    )


@pytest.mark.parametrize(
    ("typed", "number"),
    [
        ("100", 100), (" 99.5 ", 99.5), ("99,5", 99.5), ("1,500", 1500),
        ("12,345,678.5", 12345678.5), ("0,125", 0.125), ("100 ms", 100), ("1e3", 1000),
        ("", None), ("   ", None),
    ],
)  # fmt: skip
def test_what_can_be_typed(guess: Prediction, typed: str, number: float | None) -> None:
    guess._box.value = typed
    assert guess.guess == number


@pytest.mark.parametrize("typed", ["lots", "50-60", "nan", "inf", "100 seconds"])
def test_what_is_no_number_is_asked_for_again(guess: Prediction, typed: str) -> None:
    guess._box.value = typed
    with pytest.raises(LessonError, match=f"you answered '{typed}'; answer 'gathered dashboard'"):
        guess.reveal(50)


def test_an_answer_in_code(guess: Prediction) -> None:
    guess.answer(120)
    assert guess.guess == 120
    assert guess._box.value == "120"
    with pytest.raises(ValueError, match="number is nan; it must be finite, in ms"):
        guess.answer(math.nan)


def test_the_box_wins_over_an_earlier_answer(guess: Prediction) -> None:
    guess.answer(120)
    guess._box.value = "80"
    assert guess.guess == 80


def test_large_and_unitless_numbers_read_well(shown: list[dict[str, Any]]) -> None:
    prediction = predict("rows", between=(0, 10**6), unit="")
    prediction.reveal(999.7, bound=123456)
    words = shown[-1]["text/plain"]
    assert "1,000\n" in f"{words}\n"
    assert "123,456\n" in words


def test_a_measurement_of_nothing_is_no_division(guess: Prediction) -> None:
    guess.answer(1)
    guess.reveal(0)


@pytest.mark.parametrize(
    "wrong", [(400, 0), (1, 1), (0, math.inf), (math.nan, 1), (1,), (1, 2, 3), 5, ("a", "b")]
)
def test_a_wrong_range_is_named(wrong: Any) -> None:
    with pytest.raises(ValueError, match="it must be two finite numbers, the least first"):
        predict("x", between=wrong)


def test_an_empty_question_is_refused() -> None:
    with pytest.raises(ValueError, match="it must say what to predict"):
        predict(" ", between=(0, 1))


def test_a_question_is_text_not_markup(shown: list[dict[str, Any]]) -> None:
    prediction = predict("a < b", between=(0, 1))
    assert prediction.question == "a < b"
    assert "<a" not in shown[0]["text/plain"]


def test_question_and_measurement_are_there_for_programs(shown: list[dict[str, Any]]) -> None:
    prediction = predict("gathered dashboard", between=(0, 400))
    prediction.answer(100)
    prediction.reveal(57.25, bound=60)
    asked, answered = shown
    question = {"question": "gathered dashboard", "between": [0.0, 400.0], "unit": "ms"}
    assert asked[PREDICTION] == question
    assert answered[REVEALED] == question | {"measured": 57.25}
