"""One load several times over, so that what a change bought can be told apart from noise."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

from looplab.lab.compare import milliseconds
from looplab.lab.display import show_table
from looplab.lab.load import LoadReport, load_test

T = TypeVar("T")

ROUNDS = 3
DOUBT = "can't tell"
"""What is said of rounds that chance alone may have made differ."""
HEADERS = ("", "took", "least to most", "errors a run", "against the line above")


@dataclass(frozen=True, slots=True)
class Rounds:
    """Runs of one load against one state of a service. Times are in seconds.

    Attributes:
        reports: the runs, in their order; at least one.

    Raises ValueError when there is none.
    """

    reports: tuple[LoadReport[Any], ...]

    def __post_init__(self) -> None:
        if not self.reports:
            raise ValueError("reports is empty; give the report of one run or more")

    @property
    def durations(self) -> list[float]:
        """How long each run took, shortest first."""
        return sorted(report.duration for report in self.reports)

    @property
    def took(self) -> float:
        """How long a run took, the median of all."""
        return median(self.durations)

    @property
    def least(self) -> float:
        """How long the shortest run took."""
        return self.durations[0]

    @property
    def most(self) -> float:
        """How long the longest run took."""
        return self.durations[-1]

    @property
    def failed(self) -> int:
        """How many requests failed in the run in which most did."""
        return max(report.failed for report in self.reports)

    def against(self, before: "Rounds") -> str:
        """Return "quicker" or "slower" than ``before``, or "can't tell".

        It is quicker when each of its runs took less time than each of the runs before, and slower
        when each took more. Of three runs and three, chance alone would say "quicker" once in
        twenty: that is one of the 20 ways to choose which three of six come first.
        """
        if self.most < before.least:
            return "quicker"
        return "slower" if self.least > before.most else DOUBT


async def load_rounds(
    send: Callable[[T], Awaitable[Any]],
    requests: Sequence[T],
    *,
    clients: int,
    rounds: int = ROUNDS,
) -> Rounds:
    """Run one load ``rounds`` times, as :func:`looplab.lab.load_test` does, and return all reports.

    Raises ValueError when ``rounds`` is not a whole number from 1 up, and what `load_test` raises.
    """
    if isinstance(rounds, bool) or not (isinstance(rounds, int) and rounds >= 1):
        raise ValueError(f"rounds is {rounds!r}; it must be a whole number, 1 or more")
    return Rounds(tuple([await load_test(send, requests, clients=clients) for _ in range(rounds)]))


def show_rounds(states: Mapping[str, Rounds], *, only: str | None = None) -> None:
    """Show a line for each state of a service, by name, and how it compares with the one above.

    ``only`` is the name of a state: then that line alone is shown, below the one above it.

    Raises ValueError when there is none to show, and KeyError when ``only`` is no state's name.
    """
    if not states:
        raise ValueError("states is empty; give at least one state, by name")
    names = list(states)
    if only is not None:
        if only not in states:
            raise KeyError(f"only is {only!r}; the states are {', '.join(names)}")
        place = names.index(only)
        names = names[max(place - 1, 0) : place + 1]
    rows = []
    above: Rounds | None = None
    for name in names:
        state = states[name]
        verdict = "" if above is None else state.against(above)
        span = f"{milliseconds(state.least)} to {milliseconds(state.most)}"
        rows.append([name, milliseconds(state.took), span, str(state.failed), verdict])
        above = state
    show_table(HEADERS, rows)
