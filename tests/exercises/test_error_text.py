"""What an exception of a learner's holds, and what it came from."""

import pytest

from looplab.exercises.error_text import chain, holds, raised_from


def raised(error: Exception, *, cause: Exception | None = None) -> Exception:
    """Return ``error`` with a cause, as ``raise error from cause`` leaves it."""
    error.__cause__ = cause
    return error


def while_handling(error: Exception, context: Exception) -> Exception:
    """Return ``error`` as raising it in an ``except`` leaves it."""
    error.__context__ = context
    return error


@pytest.mark.parametrize(
    ("error", "held"),
    [
        (None, False),
        (ValueError(), False),
        (TimeoutError(), True),
        (ExceptionGroup("outer", [ValueError(), ExceptionGroup("inner", [TimeoutError()])]), True),
        (while_handling(ValueError(), TimeoutError()), False),
    ],
)
def test_a_kind_is_held_by_itself_and_by_groups(error: Exception | None, held: bool) -> None:
    assert holds(error, TimeoutError) is held
    assert holds(error, TimeoutError | KeyError) is held


def test_a_chain_follows_causes_contexts_and_groups_and_names_each_once() -> None:
    lost = ConnectionError("lost")
    late = while_handling(TimeoutError("late"), lost)
    one, other = raised(ValueError("one"), cause=late), raised(KeyError("other"), cause=lost)
    group = ExceptionGroup("both", [one, ExceptionGroup("inner", [other])])
    assert list(chain(group)) == [one, late, lost, other]


def test_a_chain_tells_what_a_group_was_raised_from() -> None:
    lost = ConnectionError("lost")
    own = ValueError("own")
    assert list(chain(raised(ExceptionGroup("group", [own]), cause=lost))) == [own, lost]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_chain_that_goes_in_a_circle_has_an_end(length: int) -> None:
    errors = [ValueError(number) for number in range(length)]
    for place, error in enumerate(errors):
        error.__cause__ = errors[(place + 1) % length]
    assert list(chain(errors[0])) == errors
    assert raised_from(errors[0], KeyError) is None


def test_an_error_is_not_raised_from_itself_but_from_a_group_that_holds_its_kind() -> None:
    late = TimeoutError("late")
    assert raised_from(late, TimeoutError) is None
    other = while_handling(ValueError("other"), ExceptionGroup("group", [late]))
    assert raised_from(ExceptionGroup("outer", [KeyError(), other]), TimeoutError) is other
