"""Time several ways of doing one thing in one run, with the arithmetic beside the measurement."""

import gc
import inspect
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from statistics import median
from time import perf_counter
from typing import Any

from looplab.lab.answers import Answers
from looplab.lab.display import show_note, show_picture, show_table

Contender = Callable[[], Awaitable[Any]] | Callable[[], Any]


class Comparison:
    """Seconds that each contender took, round by round: ``samples[name][round]``.

    ``answers[name]`` tells of the HTTP responses among what it returned in these rounds.
    """

    def __init__(
        self,
        samples: Mapping[str, list[float]],
        ideal: Mapping[str, float],
        answers: Mapping[str, Answers] | None = None,
    ) -> None:
        self.samples = {name: list(taken) for name, taken in samples.items()}
        self.ideal = dict(ideal)
        self.answers = {name: (answers or {}).get(name, Answers()) for name in self.samples}

    @property
    def errors(self) -> dict[str, Counter[int | str]]:
        """By name, how many answers of the timed rounds were errors; empty where none was.

        An answer of 4xx or 5xx counts under its status, an exception that was returned and not
        raised (``return_exceptions=True``) under the name of its class: ``errors["naive"][503]``.
        """
        return {name: answers.errors for name, answers in self.answers.items()}

    def median(self, name: str) -> float:
        """Return the median time of ``name`` in seconds. Raises ValueError for an unknown name."""
        return median(self._of(name))

    def ratio(self, first: str, second: str) -> float:
        """Return how many times as long ``first`` took as ``second``, at their best.

        That is the ratio of their shortest times, as ``timeit`` advises: what else the machine did
        has only ever made a round longer.

        Raises ValueError for an unknown name.
        """
        return min(self._of(first)) / min(self._of(second))

    def of_ideal(self, name: str) -> float:
        """Return how many times its predicted bound ``name`` took.

        Raises ValueError for an unknown name, or one that had no ``ideal``.
        """
        self._of(name)
        if name not in self.ideal:
            raise ValueError(f"name is {name!r}; only {_listed(self.ideal)} had an ideal")
        return self.median(name) / self.ideal[name]

    def _of(self, name: str) -> list[float]:
        if name not in self.samples:
            raise ValueError(f"name is {name!r}; compared were {_listed(self.samples)}")
        return self.samples[name]

    def show(self) -> None:
        """Show a table (median, range, ratio of the best, predicted bound) and bars.

        Where answers were errors, the table has a column that counts them, a line marked with a
        cross names them, and the bar of a contender that returned some is red.
        """
        first = next(iter(self.samples))
        headers = ["", "median", "range", f"best, against {first}"]
        failing = [name for name, errors in self.errors.items() if errors]
        if self.ideal:
            headers.append("predicted bound")
        if failing:
            headers.append("errors")
        rows = []
        for name, taken in self.samples.items():
            row = [name, milliseconds(median(taken))]
            row.append(f"{milliseconds(min(taken))} to {milliseconds(max(taken))}")
            row.append(f"{self.ratio(name, first):.2f} times")
            if self.ideal:
                row.append(milliseconds(self.ideal[name]) if name in self.ideal else "")
            if failing:
                answers = self.answers[name]
                row.append(f"{answers.errors.total()} of {answers.total}" if answers.total else "")
            rows.append(row)
        show_table(headers, rows)
        for name in failing:
            show_note(f"{name}: {self.answers[name]}. Its time includes them.", kind="cross")
        self._show_bars()

    def _show_bars(self) -> None:
        from looplab.lab.charts import bars

        names = list(self.samples)
        medians = [self.median(name) * 1000 for name in names]
        figure = bars(
            names,
            medians,
            unit="milliseconds, median",
            bounds=[self.ideal[name] * 1000 if name in self.ideal else None for name in names],
            ranges=[(min(self._of(n)) * 1000, max(self._of(n)) * 1000) for n in names],
            labels=[milliseconds(value / 1000) for value in medians],
            failed=[bool(self.errors[name]) for name in names],
        )
        slowest = max(names, key=self.median)
        quickest = min(names, key=self.median)
        times = self.ratio(slowest, quickest)
        factor = f"{times:.3g}" if times < 999.5 else f"{times:,.0f}"
        summary = f"{slowest} takes {factor} times as long as {quickest}"
        rounds = len(self._of(slowest))
        failed = "".join(f" {name}: {self.answers[name]}." for name in names if self.errors[name])
        show_picture(
            figure,
            alt=f"Bars of the median times. {summary}.{failed}",
            summary=f"{summary}, best of {rounds} {'round' if rounds == 1 else 'rounds'}.{failed}",
        )

    def __repr__(self) -> str:
        shown = ", ".join(self._in_short(name) for name in self.samples)
        return f"<Comparison: {shown}>"

    def _in_short(self, name: str) -> str:
        failed = f" ({self.answers[name]})" if self.errors[name] else ""
        return f"{name} {milliseconds(self.median(name))}{failed}"


async def compare(
    contenders: Mapping[str, Contender],
    *,
    repeat: int = 5,
    ideal: Mapping[str, float] | None = None,
    warm_up: bool = True,
    show: bool = True,
) -> Comparison:
    """Time the contenders in interleaved rounds and show a table and bars.

    Args:
        contenders: by name, functions without arguments; an awaitable that one returns is awaited,
            a plain function runs as it is and so blocks the loop.
        repeat: rounds that are timed. In each, every contender runs once, in an order that turns
            from round to round.
        ideal: by name, the bound that arithmetic predicts, in seconds.
        warm_up: whether each runs once, untimed, before the first round.
        show: whether to show the table and the bars.

    Returns:
        The comparison, which answers ``ratio``, ``median``, ``of_ideal`` and ``errors``.

    Raises:
        ValueError: there is no contender, ``repeat`` is not a whole number from 1 up, or ``ideal``
            names no contender or is not above 0.
        TypeError: a contender cannot be called.
        Exception: what a contender raises.

    A quick error is no quick answer. So HTTP responses of 4xx and 5xx that a contender returns in a
    timed round are counted, alone or in lists, tuples, sets and dicts, and exceptions that it
    returns too: ``errors`` has them, and what is shown names them. Nothing is raised for them,
    since turning requests away may be just what is compared.

    The garbage collector rests while a contender runs, as in ``timeit``.
    """
    bounds = dict(ideal or {})
    _check(contenders, repeat, bounds)
    names = list(contenders)
    if warm_up:
        for name in names:
            await _run(contenders[name])
    samples: dict[str, list[float]] = {name: [] for name in names}
    answers = {name: Answers() for name in names}
    for turn in range(repeat):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            taken, outcome = await _timed(contenders[name])
            samples[name].append(taken)
            answers[name].count(outcome)
    comparison = Comparison(samples, bounds, answers)
    if show:
        comparison.show()
    return comparison


def _check(contenders: Mapping[str, Contender], repeat: int, ideal: Mapping[str, float]) -> None:
    if not isinstance(contenders, Mapping):
        raise TypeError(f"contenders is {contenders!r}; it must be functions by name, as a dict")
    if not contenders:
        raise ValueError("contenders is empty; give at least one function, by name")
    coroutines = {name: one for name, one in contenders.items() if inspect.iscoroutine(one)}
    for coroutine in coroutines.values():
        coroutine.close()
    for name, contender in contenders.items():
        if name in coroutines:
            raise TypeError(f"contender {name!r} is a coroutine; pass the function, without ()")
        if not callable(contender):
            raise TypeError(f"contender {name!r} is {contender!r}; it must be a function")
    if not (isinstance(repeat, int) and repeat >= 1):
        raise ValueError(f"repeat is {repeat!r}; it must be a whole number, 1 or more")
    for name, bound in ideal.items():
        if name not in contenders:
            raise ValueError(f"ideal names {name!r}; compared are {_listed(contenders)}")
        if not (math.isfinite(bound) and bound > 0):
            raise ValueError(f"ideal of {name!r} is {bound!r}; it must be above 0, in seconds")


async def _run(contender: Contender) -> Any:
    outcome = contender()
    return await outcome if inspect.isawaitable(outcome) else outcome


async def _timed(contender: Contender) -> tuple[float, Any]:
    """Return the seconds that one run took, and what it returned."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        began = perf_counter()
        outcome = await _run(contender)
        return perf_counter() - began, outcome
    finally:
        if was_on:
            gc.enable()


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in names)


def milliseconds(seconds: float) -> str:
    """Return ``seconds`` as text in milliseconds, with three figures where there are so many."""
    value = seconds * 1000
    if value >= 99.95:
        return f"{value:,.0f} ms"
    return f"{value:.1f} ms" if value >= 9.995 else f"{value:.2f} ms"
