"""A row of buttons that runs a bounded experiment again.

Radio buttons, not a slider: ipywidgets gives a slider's handle no name that can be read aloud.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from looplab.kept import ALL_CHOICES, CHOICES
from looplab.lab.display import collected, show_collected, show_note, show_widget
from looplab.lab.errors import LessonError

PATIENCE = 0.15
"""Seconds that a dial waits for the hand to come to rest before it runs."""


class Dial:
    """The buttons, the output under them and the run in progress, if there is one."""

    def __init__(
        self, name: str, choices: Sequence[Any], run: Callable[[Any], Awaitable[Any]], start: Any
    ) -> None:
        import ipywidgets

        self._run = run
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()
        self.runs = 0
        """How many runs were finished."""
        self.buttons = ipywidgets.RadioButtons(
            options=[(str(choice), choice) for choice in choices],
            value=start,
            description=name,
            orientation="horizontal",
            style={"description_width": "initial"},
            layout=ipywidgets.Layout(width="auto"),
        )
        self.output = ipywidgets.Output()
        self.buttons.observe(self._moved, names="value")
        self.widget = ipywidgets.VBox([self.buttons, self.output])
        self.widget.add_class("course-dial")

    def _moved(self, change: Any) -> None:
        if asyncio._get_running_loop() is self._loop:
            self.turn(change["new"])
        else:  # JupyterLab may send what a widget says to a subshell: a thread with its own loop
            self._loop.call_soon_threadsafe(self.turn, change["new"])

    def turn(self, value: Any) -> "asyncio.Task[None]":
        """Start a run with ``value`` and cancel the one before; return the task that runs it.

        Call it in the loop in which the dial was made.
        """
        if self._task is not None:
            self._task.cancel()
        self._task = self._loop.create_task(self._again(value))
        self._tasks.add(self._task)
        self._task.add_done_callback(self._tasks.discard)
        return self._task

    async def _again(self, value: Any) -> None:
        async with self._one_at_a_time:  # the run before may still be cleaning up
            await asyncio.sleep(PATIENCE)
            # An Output widget loses what a task shows once the message that started it is handled,
            # so the outputs are collected here and given to it in one piece.
            with collected() as outputs:
                try:
                    await self._run(value)
                except LessonError as error:
                    show_note(str(error), kind="cross")
                except Exception as error:
                    said = f"{self.buttons.description} = {value} ended with {error!r}"
                    show_note(said, kind="cross")
            self.output.outputs = tuple(outputs)
            self.runs += 1

    def _ipython_display_(self) -> None:
        """Show nothing more when a dial is the last value of a cell: it is there already."""

    async def close(self) -> None:
        """Cancel the run in progress and wait until every run has ended."""
        self.buttons.disabled = True
        for task in self._tasks:
            if not task.cancelling():  # a second time would break into its clean-up
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


_open: dict[str, Dial] = {}


async def dial(
    name: str, choices: Sequence[Any], run: Callable[[Any], Awaitable[Any]], *, start: Any = None
) -> Dial:
    """Run an experiment once and show its result, then buttons that run it again.

    Args:
        name: what the buttons set, shown beside them. A second dial of one name closes the first.
        choices: a value for each button, in order.
        run: an async function of one of them, which shows what it finds with the lab's instruments;
            bounded to a second or so.
        start: the value of the first run; the first of ``choices`` unless given.

    Returns:
        The dial. Turning it cancels the run in progress and starts another.

    Under `course refresh` every choice runs, ``start`` first, and what the others show is kept for
    the reading site; see :data:`looplab.kept.CHOICES`.

    Raises:
        ValueError: ``choices`` is empty or ``start`` is none of them.
        Exception: what the first run raises, and under `course refresh` what any run raises.
    """
    values = list(choices)
    if not values:
        raise ValueError("choices is empty; a dial needs at least one value")
    first = values[0] if start is None else start
    if first not in values:
        raise ValueError(f"start is {start!r}; it must be one of {values!r}")
    if name in _open:
        await _open.pop(name).close()
    kept: dict[str, Any] = {}
    if os.environ.get(ALL_CHOICES):
        kept[CHOICES] = await _all_choices(name, values, run, values.index(first))
    else:
        await run(first)
    turned = _open[name] = Dial(name, values, run, first)
    told = f"A dial: {name}, {values[0]} to {values[-1]}. Run the cell to move it."
    show_widget(turned.widget, told, data=kept)
    return turned


async def _all_choices(
    name: str, values: list[Any], run: Callable[[Any], Awaitable[Any]], start: int
) -> dict[str, Any]:
    """Run every choice, show what the run of ``start`` shows, and return what the others show."""
    with collected() as first:
        await run(values[start])
    show_collected(first)
    results: list[list[dict[str, Any]]] = []
    for place, value in enumerate(values):
        with collected() as outputs:
            if place != start:
                await run(value)
        results.append([{key: one[key] for key in ("data", "metadata")} for one in outputs])
    return {
        "name": name,
        "choices": [str(value) for value in values],
        "start": start,
        "shown": len(first),
        "results": results,
    }
