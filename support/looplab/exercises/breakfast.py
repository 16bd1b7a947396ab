"""The exercise of lesson 00: overlap the waits that do not need one another."""

import asyncio
import contextlib
import functools
from dataclasses import dataclass, field
from typing import Any

from looplab.exercises.checking import check, require_function
from looplab.exercises.error_text import holds
from looplab.exercises.sandbox import Sandbox
from looplab.exercises.verdicts import Exercise, Mistake, Verdict
from looplab.lab.units import ms

WAIT = 40  # milliseconds that a part takes
TOAST_AT_MOST = 1_000  # milliseconds; the toast is not done before the tea has begun, if it can be

EXERCISE = Exercise(
    lesson="00",
    check="check_breakfast",
    stub="in-turn",
    task="Make tea and toast; the tea needs the boiled water, the toast needs nothing.",
    usual_wrong_prediction=(
        "50 ms to the millisecond, or 150: the first forgets that starting and ending tasks is "
        "work too, the second takes a task for nothing more than a coroutine."
    ),
    mistakes=(
        Mistake(
            "in-turn",
            "awaits each part before the next one begins, as the stub does",
            "Breakfast is right, and its parts took turns. Toast needs no water, so it can wait at "
            "the same time: make a task of it, and start that task first.",
        ),
        Mistake(
            "cold-water",
            "starts the tea without the water, or hands it a task or a coroutine",
            "The tea was steeped in something that is not boiled water. steep_tea needs what "
            "boil_water returns, so await boil_water first.",
        ),
        Mistake(
            "toast-waits",
            "awaits the water, and starts the toast after that",
            "The toast waited for the water, which it doesn't need. Start its task before you "
            "await boil_water.",
        ),
        Mistake(
            "tea-waits",
            "awaits the toast before the tea, or before the water",
            "The tea waited for the toast, which it doesn't need. Await the water and the tea "
            "while the toast's task runs, and the toast last.",
        ),
        Mistake(
            "result-too-early",
            "asks the toast's task for its result inside the block, while it still runs",
            "You asked a task for its result before it had ended. Ask after the async with block, "
            "which ends when all its tasks have.",
        ),
        Mistake(
            "not-once",
            "leaves a part out, or makes it twice",
            "Each part has to be made once, no more and no less.",
        ),
        Mistake(
            "wrong-breakfast",
            "returns something else than the tea and the toast, or returns a task",
            "Breakfast is a pair: what steep_tea returned, then what toast_bread returned. A task "
            "holds its value in result().",
        ),
    ),
)


@dataclass(slots=True)
class _Kitchen:
    """The three parts, and when each began and ended, as a list of words in their order.

    The toast takes until the tea has begun, however busy the machine is. So the order tells whether
    the tea waits for the toast, and no clock has to.
    """

    events: list[str] = field(default_factory=list)
    tea_began: asyncio.Event = field(default_factory=asyncio.Event)
    water: object = field(default_factory=object)
    cold: str = ""

    async def boil_water(self) -> object:
        await self._part("water")
        return self.water

    async def steep_tea(self, water: object = None) -> str:
        if water is not self.water:
            self.cold = f"it got {type(water).__name__}"
            if asyncio.iscoroutine(water):
                water.close()
        elif "water ended" not in self.events:
            self.cold = "the water was not boiled yet"
        self.tea_began.set()
        await self._part("tea")
        return "tea"

    async def toast_bread(self) -> str:
        await self._part("toast", self.tea_began)
        return "toast"

    async def _part(self, name: str, until: asyncio.Event | None = None) -> None:
        self.events.append(f"{name} began")
        if until is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ms(TOAST_AT_MOST)):
                    await until.wait()
        await asyncio.sleep(ms(WAIT))
        self.events.append(f"{name} ended")

    def before(self, one: str, other: str) -> bool:
        """Return whether ``one`` happened before ``other``."""
        return self.events.index(one) < self.events.index(other)


async def check_breakfast(make_breakfast: Any, *, limit: float | None = None) -> Verdict:
    """Check breakfast, show one line, and return the verdict.

    ``make_breakfast(boil_water, steep_tea, toast_bread)`` calls each of the three once, gives
    ``steep_tea`` the water, and returns what ``steep_tea`` and ``toast_bread`` return. It passes if
    the toast begins before the water has boiled and the tea does not wait for the toast. ``limit``
    is as :func:`looplab.exercises.checking.check` has it.
    """
    return await check(functools.partial(_judge, make_breakfast=make_breakfast), limit=limit)


async def _judge(sandbox: Sandbox, *, make_breakfast: Any) -> str:
    act = require_function(make_breakfast, example="check_breakfast(make_breakfast)")
    kitchen = _Kitchen()
    parts = (kitchen.boil_water, kitchen.steep_tea, kitchen.toast_bread)
    ran = await sandbox.run(lambda: act(*parts))
    if kitchen.cold:
        raise EXERCISE.wrong("cold-water", kitchen.cold)
    if holds(ran.error, asyncio.InvalidStateError):
        raise EXERCISE.wrong("result-too-early")
    breakfast = ran.result()
    for part in ("water", "tea", "toast"):
        count = kitchen.events.count(f"{part} ended")
        if count != 1:
            raise EXERCISE.wrong("not-once", f"{part} was made {count} times")
    if not isinstance(breakfast, tuple | list) or list(breakfast) != ["tea", "toast"]:
        raise EXERCISE.wrong("wrong-breakfast", f"it returned {_shown(breakfast)}")
    if kitchen.before("tea ended", "toast began") or kitchen.before("toast ended", "water began"):
        raise EXERCISE.wrong("in-turn")
    if kitchen.before("water ended", "toast began"):
        raise EXERCISE.wrong("toast-waits")
    if kitchen.before("toast ended", "tea began"):
        raise EXERCISE.wrong("tea-waits")
    return (
        "The toast is under way while the water boils, and the tea waits for nothing but its "
        "water: breakfast takes two waits, not three."
    )


def _shown(value: object) -> str:
    """Return a value's type, and what is in it where it is a pair."""
    if isinstance(value, tuple | list):
        inside = ", ".join(type(one).__name__ for one in value)
        return f"a {type(value).__name__} of {inside or 'nothing'}"
    return type(value).__name__
