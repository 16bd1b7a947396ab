"""A recording answers from the steps it holds: here from steps written by hand, in seconds."""

import asyncio

import pytest

from looplab.lab.recording import Recording
from looplab.lab.trace import TaskTrace

Step = tuple[float, float, str]


def trace(name: str, *steps: Step, parent: TaskTrace | None = None, **others: object) -> TaskTrace:
    made = TaskTrace(qualified=name, parent=parent, loop=0, ours=True, outcome="done")
    made.steps.extend(steps)
    for field, value in others.items():
        setattr(made, field, value)
    return made


def recording(*traces: TaskTrace, start: float = 0.0, end: float = 10.0, **others) -> Recording:
    return Recording(traces, title="by hand", start=start, end=end, held=0.5, **others)


@pytest.fixture
def family() -> Recording:
    """A parent with three children: first is cancelled, second overlaps it, third comes after."""
    parent = trace("parent", (100, 101, ""), (109, 110, ""))
    return recording(
        parent,
        trace("first", (101, 101.1, ""), (105, 105.1, ""), parent=parent, outcome="cancelled"),
        trace("second", (102, 102.1, ""), (108, 108.2, ""), parent=parent),
        trace(
            "third", (106, 107, ""), (107, 107.5, ""), parent=parent, outcome="failed",
            error="KeyError",
        ),
        start=100,
        end=110,
    )  # fmt: skip


def test_names_stand_a_parent_above_its_children(family: Recording) -> None:
    assert family.names == ["parent", "first", "second", "third"]
    assert [lane.depth for lane in family.tasks] == [0, 1, 1, 1]


def test_a_grandchild_stands_below_its_parent_even_if_it_was_made_last() -> None:
    root = trace("root", (0, 1, ""))
    left = trace("left", (1, 2, ""), parent=root)
    right = trace("right", (2, 3, ""), parent=root)
    below = trace("below", (3, 4, ""), parent=left)
    made = recording(root, left, right, below)
    assert made.names == ["root", "left", "below", "right"]
    assert [lane.depth for lane in made.tasks] == [0, 1, 2, 1]


def test_times_count_from_the_start(family: Recording) -> None:
    assert family.duration == 10
    first = family.tasks[1]
    assert (first.began, first.ended) == pytest.approx((1, 5.1))


def test_started_and_order_follow_first_and_last_steps(family: Recording) -> None:
    assert family.started == ["parent", "first", "second", "third"]
    assert family.order == ["first", "third", "second", "parent"]


def test_outcomes_are_told_apart(family: Recording) -> None:
    assert family.cancelled == ["first"]
    assert family.failed == [("third", "KeyError")]
    assert family.pending == []


def test_a_pending_task_is_not_in_the_order_of_endings() -> None:
    made = recording(trace("ends", (0, 1, "")), trace("stays", (0, 0.1, ""), outcome="pending"))
    assert made.order == ["ends"]
    assert made.pending == ["stays"]


def test_the_peak_counts_leaves_and_not_the_parent_that_waits_for_them(family: Recording) -> None:
    assert family.peak_in_flight() == 2


def test_the_peak_of_named_tasks(family: Recording) -> None:
    assert family.peak_in_flight("first") == 1
    assert family.peak_in_flight("first", "third") == 1
    assert family.peak_in_flight("first", "second", "third") == 2
    assert family.peak_in_flight("parent", "second") == 2


def test_a_task_that_ends_as_another_begins_is_not_in_flight_with_it() -> None:
    made = recording(trace("a", (0, 1, ""), (2, 3, "")), trace("b", (3, 4, ""), (5, 6, "")))
    assert made.peak_in_flight() == 1


def test_waits_are_named_after_the_awaited_coroutine() -> None:
    made = recording(
        trace("main", (0, 1, "get"), (2, 3, "get"), (4, 5, "put"), (6, 7, ""), (8, 9, ""))
    )
    assert made.waits("get") == [(1, 4)]
    assert made.waits("put") == [(5, 6)]
    assert made.waits("main") == [(7, 8)]


def test_another_call_of_the_same_function_is_another_wait() -> None:
    made = recording(trace("main", (0, 1, "get"), (2, 3, "get"), (4, 5, "get"), (6, 7, "")))
    again = recording(
        trace(
            "main",
            (0, 1, "get"),
            (2, 3, "get"),
            (4, 5, "get"),
            (6, 7, ""),
            log=[(0, 0), "get", (2, 0), "get"],
        )
    )
    assert made.waits("get") == [(1, 6)]
    assert again.waits("get") == [(1, 4), (5, 6)]
    assert again.peak_in_flight("get") == 1


def test_a_wait_lasts_as_long_as_the_call_whatever_it_awaits() -> None:
    made = recording(
        trace(
            "main", (0, 1, "get"), (2, 3, "helper"), (4, 5, "get"), (6, 7, ""), (8, 9, ""),
            log=[(0, 0), "get", (1, 1), "helper", (2, 1), (3, 0)],
        )
    )  # fmt: skip
    assert made.waits("get") == [(1, 6)]
    assert made.waits("helper") == [(3, 4)]
    assert made.peak_in_flight("get", "helper") == 1
    assert made.tasks[0].waits == {"get": [(1, 2), (5, 6)], "helper": [(3, 4)], "main": [(7, 8)]}


def test_a_function_that_calls_itself_is_one_wait() -> None:
    made = recording(
        trace(
            "main", (0, 1, "walk"), (2, 3, "walk"), (4, 5, ""),
            log=[(0, 0), "walk", "walk", (1, 1), (2, 0)],
        )
    )  # fmt: skip
    assert made.waits("walk") == [(1, 4)]
    assert made.peak_in_flight("walk") == 1


def test_a_call_that_has_not_ended_lasts_until_the_last_step() -> None:
    made = recording(
        trace("main", (0, 1, "get"), (2, 3, "get"), log=[(0, 0), "get"], outcome="pending")
    )
    assert made.waits("get") == [(1, 10)]


def test_a_pending_task_is_in_flight_until_the_end() -> None:
    made = recording(
        trace("hangs", (0, 1, "get"), outcome="pending"), trace("late", (8, 8.1, ""), (9, 9.1, ""))
    )
    assert made.peak_in_flight() == 2
    assert made.waits("get") == [(1, 10)]
    assert made.tasks[0].until == 10


def test_waits_of_one_name_in_several_tasks_overlap() -> None:
    tasks = [trace(f"t{n}", (n, n + 0.1, "get"), (n + 5, n + 5.1, "")) for n in range(3)]
    made = recording(*tasks)
    assert made.peak_in_flight("get") == 3
    assert len(made.waits("get")) == 3


def test_a_name_that_was_not_seen_is_refused_with_those_that_were(family: Recording) -> None:
    with pytest.raises(ValueError, match=r"name is 'fourth'.*first, parent, second, third"):
        family.peak_in_flight("fourth")
    with pytest.raises(ValueError, match="name is 'fourth'"):
        family.waits("fourth")


def test_the_longest_hold_says_how_long_and_holds_say_who(family: Recording) -> None:
    assert family.longest_hold == pytest.approx(1)
    assert [hold.name for hold in family.holds] == ["parent", "third", "third", "parent"]
    assert [hold.duration for hold in family.holds] == pytest.approx([1, 1, 0.5, 1])


def test_steps_below_the_threshold_are_no_holds() -> None:
    made = recording(trace("quick", (0, 0.4, ""), (1, 1.3, "")))
    assert made.holds == []
    assert made.longest_hold == pytest.approx(0.4)


def test_tasks_of_a_library_fold_away_but_their_steps_count() -> None:
    root = trace("root", (0, 1, ""), (8, 9, ""))
    library = trace("close", (1, 2, ""), parent=root, ours=False)
    below = trace("callback", (2, 3, ""), parent=library)
    made = recording(root, library, below)
    assert made.names == ["root", "callback"]
    assert [lane.depth for lane in made.tasks] == [0, 1]
    assert made.steps == 4
    assert made.longest_hold == 1


def test_a_library_task_that_runs_our_code_is_named_after_it() -> None:
    made = recording(trace("run_asgi", (0, 1, "handler"), ours=False, outermost="handler"))
    assert made.names == ["handler"]


def test_a_given_name_comes_first() -> None:
    assert recording(trace("f.<locals>.fetch", (0, 1, ""), given_name="ada")).names == ["ada"]
    assert recording(trace("f.<locals>.Users.fetch", (0, 1, ""))).names == ["fetch"]


def test_the_result_is_given_back_and_a_caught_error_is_raised() -> None:
    assert recording(trace("root", (0, 1, "")), result=42).result == 42
    failure = KeyError("missing")
    failed = recording(trace("root", (0, 1, "")), error=failure)
    assert failed.error is failure
    with pytest.raises(KeyError) as raised:
        _ = failed.result
    assert raised.value is failure


def test_a_caught_cancellation_is_raised_by_result_too() -> None:
    cancelled = recording(trace("root", (0, 1, "")), error=asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        _ = cancelled.result


def test_an_empty_recording_answers_too() -> None:
    empty = recording(end=0.0)
    assert (empty.names, empty.order, empty.holds) == ([], [], [])
    assert (empty.peak_in_flight(), empty.longest_hold, empty.steps) == (0, 0.0, 0)


def test_repr_tells_title_tasks_and_time(family: Recording) -> None:
    assert repr(family) == "<Recording 'by hand': 4 tasks, 10000 ms>"
