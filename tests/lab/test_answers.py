from typing import Any

import httpx
import pytest
from fastapi import HTTPException
from starlette.responses import JSONResponse

from looplab.lab.answers import Answers

BUSY = httpx.Response(503)
FINE = httpx.Response(200)


class Httpx2Response:
    """What httpx2 answers with: another class, with the same attribute."""

    status_code = 429


def counted(*outcomes: object) -> Answers:
    answers = Answers()
    for outcome in outcomes:
        answers.count(outcome)
    return answers


@pytest.mark.parametrize(
    ("outcome", "total", "errors"),
    [
        (FINE, 1, {}),
        (httpx.Response(399), 1, {}),
        (httpx.Response(400), 1, {400: 1}),
        (httpx.Response(599), 1, {599: 1}),
        (JSONResponse({}, status_code=404), 1, {404: 1}),
        (Httpx2Response(), 1, {429: 1}),
        ([FINE, BUSY, BUSY], 3, {503: 2}),
        ((FINE, BUSY), 2, {503: 1}),
        ({"home": FINE, "search": BUSY}, 2, {503: 1}),
        ([[FINE], {"deep": (BUSY, {"deeper": [BUSY]})}], 3, {503: 2}),
        ([FINE, httpx.ReadTimeout("late"), BUSY], 3, {"ReadTimeout": 1, 503: 1}),
        ([HTTPException(404), ExceptionGroup("two", [ValueError()])],
         2, {"HTTPException": 1, "ExceptionGroup": 1}),
        (None, 0, {}),
        ("500", 0, {}),
        ([500, 503, {"status": 500}], 0, {}),
        (type("Named", (), {"status_code": "500"})(), 0, {}),
    ],
)  # fmt: skip
def test_responses_and_returned_exceptions_are_found_wherever_they_are(
    outcome: object, total: int, errors: dict[Any, int]
) -> None:
    answers = counted(outcome)
    assert (answers.total, dict(answers.errors)) == (total, errors)


def test_a_list_that_holds_itself_is_searched_once() -> None:
    round_trip: list[object] = [BUSY]
    round_trip.append(round_trip)
    assert counted(round_trip).errors == {503: 1}


def test_the_same_response_twice_is_two_answers() -> None:
    assert counted([BUSY, BUSY]).total == 2


@pytest.mark.parametrize(
    ("outcomes", "sentence"),
    [
        ([FINE, FINE], "none of 2 answers was an error"),
        ([BUSY], "1 of 1 answers was 503"),
        ([FINE] * 17 + [httpx.Response(500)] * 3, "3 of 20 answers were 500"),
        ([BUSY, httpx.ReadError("cut"), BUSY, FINE], "2 of 4 answers were 503 and 1 was ReadError"),
    ],
)
def test_the_sentence_counts_the_errors_by_kind(outcomes: list[object], sentence: str) -> None:
    assert str(counted(*outcomes)) == sentence
