"""Runs of one load, and whether two states of a service can be told apart."""

from itertools import combinations
from typing import Any

import pytest

from looplab.lab import LoadReport, Rounds, load_rounds, show_rounds
from looplab.lab.display import collected
from looplab.lab.load import Sample

pytestmark = pytest.mark.anyio


def rounds(*durations: float, errors: int = 0) -> Rounds:
    samples = tuple(Sample(number, 0.1, "status 500") for number in range(errors))
    return Rounds(tuple(LoadReport(1, samples, each, 0.0) for each in durations))


def test_rounds_know_their_median_their_range_and_the_worst_run() -> None:
    state = Rounds((*rounds(0.3, 0.1).reports, *rounds(0.2, errors=2).reports))
    assert (state.took, state.least, state.most, state.failed) == (0.2, 0.1, 0.3, 2)
    with pytest.raises(ValueError, match="reports is empty"):
        Rounds(())


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ((0.1, 0.2, 0.29), "quicker"),
        ((0.1, 0.2, 0.3), "can't tell"),
        ((0.1, 0.2, 0.35), "can't tell"),
        ((0.35, 0.36, 0.4), "can't tell"),
        ((0.51, 0.6, 0.52), "slower"),
    ],
)
def test_states_are_told_apart_when_their_ranges_are_apart(after: Any, said: str) -> None:
    assert rounds(*after).against(rounds(0.5, 0.3, 0.4)) == said


def test_chance_alone_says_quicker_once_in_twenty() -> None:
    ways = list(combinations(range(6), 3))
    quicker = 0
    for after in ways:
        before = [place for place in range(6) if place not in after]
        quicker += rounds(*after).against(rounds(*before)) == "quicker"
    assert (quicker, len(ways)) == (1, 20)


async def test_a_load_is_run_three_times() -> None:
    sent: list[int] = []

    async def send(number: int) -> None:
        sent.append(number)

    state = await load_rounds(send, [1, 2], clients=1)
    assert sent == [1, 2] * 3
    assert len(state.reports) == 3
    assert len((await load_rounds(send, [1], clients=1, rounds=1)).reports) == 1
    refused: list[Any] = [0, True, 1.5]
    for wrong in refused:
        with pytest.raises(ValueError, match=f"rounds is {wrong!r}"):
            await load_rounds(send, [1], clients=1, rounds=wrong)


def table_of(states: dict[str, Rounds], only: str | None = None) -> list[str]:
    with collected() as outputs:
        show_rounds(states, only=only)
    return outputs[0]["data"]["text/plain"].splitlines()


def test_a_table_compares_each_state_with_the_one_above() -> None:
    states = {"first": rounds(0.5, errors=1), "second": rounds(0.2), "third": rounds(0.2)}
    _, first, second, third = table_of(states)
    assert "500 ms to 500 ms" in first
    assert first.split()[-1] == "1"
    assert second.endswith("quicker")
    assert third.endswith("can't tell")
    assert [line.split()[0] for line in table_of(states, only="third")[1:]] == ["second", "third"]
    assert [line.split()[0] for line in table_of(states, only="first")[1:]] == ["first"]


def test_a_table_needs_states() -> None:
    with pytest.raises(ValueError, match="states is empty"):
        show_rounds({})
    with pytest.raises(KeyError, match="only is 'none'; the states are first"):
        show_rounds({"first": rounds(1)}, only="none")
