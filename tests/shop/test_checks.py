import math

import pytest
from sqlalchemy.pool import NullPool

from looplab.shop import checks


@pytest.mark.parametrize("value", [0, 1, 0.02])
def test_seconds_returns_a_float(value):
    result = checks.seconds("wait", value)
    assert result == value
    assert isinstance(result, float)


@pytest.mark.parametrize("value", [-1, -0.001, math.inf, math.nan])
def test_seconds_out_of_range_names_the_argument_the_value_and_what_is_allowed(value):
    with pytest.raises(ValueError, match=r"^wait=.*: must be a finite number of seconds, 0 or"):
        checks.seconds("wait", value)


@pytest.mark.parametrize("value", ["1", None, True])
def test_seconds_of_another_type(value):
    with pytest.raises(TypeError, match=r"^wait=.*must be a number of seconds"):
        checks.seconds("wait", value)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_share_outside_zero_to_one(value):
    with pytest.raises(ValueError, match=r"^rate=.*must be a number from 0 to 1"):
        checks.share("rate", value)


def test_share_within_zero_to_one():
    assert [checks.share("rate", value) for value in (0, 0.5, 1)] == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("value", "limits", "allowed"),
    [
        (-1, {}, "a whole number, 0 or more"),
        (0, {"at_least": 1}, "a whole number, 1 or more"),
        (9, {"at_least": 1, "at_most": 8}, "a whole number from 1 to 8"),
    ],
)
def test_count_outside_its_limits(value, limits, allowed):
    with pytest.raises(ValueError, match=f"^size={value}: must be {allowed}$"):
        checks.count("size", value, **limits)


@pytest.mark.parametrize("value", [1.0, "1", True, None])
def test_count_of_another_type(value):
    with pytest.raises(TypeError, match=r"^size=.*must be a whole number"):
        checks.count("size", value)


@pytest.mark.parametrize("value", [0, 1, "yes", None])
def test_flag_of_another_type(value):
    with pytest.raises(TypeError, match=r"^wal=.*must be True or False"):
        checks.flag("wal", value)


def test_pool_class():
    assert checks.pool_class("poolclass", NullPool) is NullPool
    assert checks.pool_class("poolclass", None) is None
    with pytest.raises(TypeError, match=r"^poolclass='NullPool': must be a subclass"):
        checks.pool_class("poolclass", "NullPool")
    with pytest.raises(TypeError, match=r"^poolclass=.*must be a subclass"):
        checks.pool_class("poolclass", int)
