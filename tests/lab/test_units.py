import math

import pytest

from looplab.lab.units import PACE_VARIABLE, ms, pace


@pytest.fixture(autouse=True)
def at_no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PACE_VARIABLE, raising=False)


def test_milliseconds_become_seconds() -> None:
    assert ms(50) == pytest.approx(0.05)
    assert ms(0) == 0


def test_a_presenter_stretches_every_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PACE_VARIABLE, "4")
    assert pace() == 4
    assert ms(50) == pytest.approx(0.2)
    monkeypatch.setenv(PACE_VARIABLE, "0.5")
    assert ms(50) == pytest.approx(0.025)


@pytest.mark.parametrize("wrong", ["0", "-1", "fast", "", "nan", "inf"])
def test_a_wrong_pace_is_named(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv(PACE_VARIABLE, wrong)
    with pytest.raises(ValueError, match=f"COURSE_PACE is '{wrong}'; it must be a number above 0"):
        ms(50)


@pytest.mark.parametrize("wrong", [-1, math.nan, math.inf])
def test_a_wrong_wait_is_named(wrong: float) -> None:
    with pytest.raises(ValueError, match=f"milliseconds is {wrong!r}; it must be 0 or more"):
        ms(wrong)
