"""The exercise of lesson 20: replace the workers of a service one by one, and lose nothing.

The workers are played: each knows when it is ready, and the world counts who is alive and who is
ready after each step. A fault is kept as soon as it happens, and the call never comes back, so that
no `except` of the learner's can hide it. What goes wrong while the loop is late is tried again.
"""

import asyncio
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

from looplab.exercises.checking import check, require_function
from looplab.exercises.cut_off import CutOff
from looplab.exercises.error_text import holds, leaves
from looplab.exercises.sandbox import Sandbox, require_awaitable
from looplab.exercises.verdicts import Exercise, Mistake, Verdict, Wrong
from looplab.lab.lag import loop_lag
from looplab.lab.silent_failures import let_go
from looplab.lab.units import ms

EXAMPLE: Final = "check_roll(roll)"
PATIENCE: Final = 2_500  # milliseconds that one deployment may take
QUICK: Final = 0.02  # seconds until a new worker is ready
SLOW: Final = 0.1
NEVER: Final = float("inf")
SEEN_AFTER: Final = 0.01  # seconds until the balancer has seen that a worker drains
NOTICED: Final = 0.02  # seconds; a loop that is later may have used up what a worker had left
TRIES: Final = 3
MOST_QUESTIONS: Final = 400  # to one worker; a loop without a pause asks thousands of times

EXERCISE = Exercise(
    lesson="20",
    check="check_roll",
    stub="too-many-processes",
    task="Replace the workers of a service one at a time, and keep the old ones if the new fail.",
    usual_wrong_prediction=(
        "Five, since three workers with five slots are five above the partner's ten. But a refused "
        "order frees its slot at once, and the next order in that worker is refused as well, while "
        "the partner is busy with the first ten."
    ),
    mistakes=(
        Mistake(
            "too-many-processes",
            "starts all new workers before an old one stops",
            "Too many processes were alive, and the database refused the connections of the last "
            "one. There is room for one more than at the start: when one new worker is ready, "
            "an old one can go, and that makes room for the next.",
        ),
        Mistake(
            "old-first",
            "drains or stops an old worker before a new one has been started",
            "An old worker was taken away before there was a new one, so fewer were ready than at "
            "the start. There is room for one more process: use it first.",
        ),
        Mistake(
            "not-waited",
            "drains or stops the old worker while the new one isn't ready",
            "An old worker was taken away while the new one was still starting, so fewer were "
            "ready than at the start. Some workers take longer than others: ask is_ready() until "
            "it returns True.",
        ),
        Mistake(
            "not-drained",
            "stops a worker that hasn't drained, or before drain() has returned",
            "A worker was stopped while the balancer still sent to it, and requests were lost. "
            "Await drain() to its end, and then stop.",
        ),
        Mistake(
            "never-gives-up",
            "waits for a worker that never gets ready",
            "The new version was broken, and its worker never became ready. The deployment still "
            "waits for it. Bound the wait: 300 ms.",
        ),
        Mistake(
            "gave-up-too-soon",
            "gives up on a worker that needs 100 ms, or asks only once",
            "A new worker needed 100 ms to start, and the deployment gave up on it. It may take "
            "300 ms: ask again until then.",
        ),
        Mistake(
            "wrong-error",
            "lets the TimeoutError out, or raises another error",
            "The new version was broken, and another error came out than the RuntimeError that was "
            "asked for. Catch the time-out and raise RuntimeError in its place.",
        ),
        Mistake(
            "error-swallowed",
            "returns as if all were well when the new version is broken",
            "The new version was broken, and the deployment returned as if all were well. Raise "
            "RuntimeError, so that somebody hears of it.",
        ),
        Mistake(
            "broken-left-running",
            "doesn't stop the worker that never got ready",
            "The worker that never became ready is still running. It holds connections, and the "
            "next deployment has no room: stop it before you raise.",
        ),
        Mistake(
            "others-stopped",
            "stops workers that serve, after a broken one",
            "The new version's worker was broken, and workers that served well, old or new, were "
            "taken away for it. Stop only the one that never became ready.",
        ),
        Mistake(
            "tried-again",
            "starts another worker after a broken one",
            "After a worker of the broken version another one was started. The version is the "
            "same, so is the fault: raise, and let somebody look.",
        ),
        Mistake(
            "old-left",
            "leaves an old worker running in the end",
            "The deployment has ended, and an old worker still runs. Two versions answer now, and "
            "one process too many is alive. Each old worker drains and stops.",
        ),
        Mistake(
            "not-returned",
            "returns something else than the list of the new workers",
            "The deployment has to return the list of the new workers, each once.",
        ),
        Mistake(
            "asks-without-pause",
            "asks is_ready() in a loop without a pause",
            "A worker was asked hundreds of times whether it was ready, without a pause. It needs "
            "its time to start: sleep for 10 ms between two questions.",
        ),
        Mistake(
            "start-error-hidden",
            "catches what start_new raises, or turns it into another error",
            "start_new() raised OSError, since the machine had no memory left, and that error did "
            "not come out. RuntimeError stands for a version that is broken; let others pass.",
        ),
        Mistake(
            "used-after-stop",
            "stops a worker twice, or talks to one that has stopped",
            "A worker was called that had stopped before. Each is drained once and stopped once.",
        ),
    ),
)


async def check_roll(roll: Any) -> Verdict:
    """Roll out versions that start at once, slowly and never; show what was found and return it.

    ``roll(old, start_new)`` is an ``async def``. Nothing that it does raises here.
    """
    return await check(functools.partial(_judge, roll=roll))


async def _judge(sandbox: Sandbox, *, roll: Any) -> str:
    act = require_function(roll, example=EXAMPLE)
    trials = (_all_goes_well, _one_is_slow, _the_second_is_broken, _none_can_start)
    for trial in trials:
        await _judge_one(sandbox, functools.partial(trial, act))
    return (
        "Every worker was replaced, as many were ready as before at any time, with one process "
        "more at most. A broken version was noticed by you alone."
    )


async def _judge_one(sandbox: Sandbox, trial: Callable[[], Any]) -> None:
    """Run a deployment; what soon went wrong while the loop was late is tried again."""
    began = perf_counter()
    for turn in range(TRIES):
        async with loop_lag() as lag:
            ran = await sandbox.run(trial)
        soon = perf_counter() - began < ms(PATIENCE)
        if ran.error is None or lag.worst < NOTICED or not soon or turn == TRIES - 1:
            ran.result()
            return


class _NoMemoryError(OSError):
    """What start_new raises when the machine is full."""


@dataclass(eq=False, slots=True)
class _World:
    """The machine: who is alive, and what went wrong first.

    ``starts`` are the seconds after which each new worker is ready.
    """

    workers: int
    starts: Sequence[float]
    memory: bool = True
    old: list["_Worker"] = field(default_factory=list)
    new: list["_Worker"] = field(default_factory=list)
    cut: CutOff = field(default_factory=CutOff)

    def __post_init__(self) -> None:
        self.old = [_Worker(self, f"old {i + 1}", 0.0) for i in range(self.workers)]

    async def start_new(self) -> "_Worker":
        if self.broken():
            await self.blame("tried-again")
        if not self.memory:
            raise _NoMemoryError("cannot allocate memory")
        if sum(one.alive for one in (*self.old, *self.new)) > self.workers:
            await self.blame("too-many-processes", f"{self.workers} at the start")
        if len(self.new) == len(self.starts):
            await self.blame("tried-again", "more workers than there were old ones")
        number = len(self.new)
        worker = _Worker(self, f"new {number + 1}", self.starts[number])
        self.new.append(worker)
        await asyncio.sleep(0)
        return worker

    def broken(self) -> bool:
        """Return whether a worker that never gets ready has been stopped."""
        return any(one.after == NEVER and not one.alive for one in self.new)

    async def require_ready(self, taken: "_Worker") -> None:
        """End the deployment when fewer are ready than at the start, since one was taken away."""
        if sum(one.serves() for one in (*self.old, *self.new)) >= self.workers:
            return
        starting = any(one.alive and not one.serves() and not one.drains for one in self.new)
        rolled_back = taken in self.new and any(one.after == NEVER for one in self.new)
        if self.broken() or rolled_back:
            await self.blame("others-stopped")
        await self.blame("not-waited" if starting else "old-first")

    async def blame(self, name: str, detail: str = "") -> None:
        """End the deployment with a mistake, whatever the learner's code catches."""
        await self.cut.here(EXERCISE.wrong(name, detail))


class _Worker:
    """A worker as the learner's code sees it. Only the four calls are for that."""

    def __init__(self, world: _World, name: str, after: float) -> None:
        self._world, self._name = world, name
        self.after = after
        self.alive, self.drains, self.drained = True, False, False
        self.questions = 0
        self._began = perf_counter()

    def __repr__(self) -> str:
        return f"<worker {self._name}>"

    def serves(self) -> bool:
        grown = perf_counter() - self._began >= self.after
        return self.alive and grown and not self.drains

    async def is_ready(self) -> bool:
        await self._require_alive()
        self.questions += 1
        if self.questions > MOST_QUESTIONS:
            await self._world.blame("asks-without-pause")
        await asyncio.sleep(0)
        return self.serves()

    async def drain(self) -> None:
        await self._require_alive()
        self.drains = True
        if self.after != NEVER:
            await self._world.require_ready(self)
        await asyncio.sleep(SEEN_AFTER)
        self.drained = True

    async def stop(self) -> None:
        await self._require_alive()
        served = self.serves()
        self.alive = False
        await self._world.require_ready(self)
        if served or (self.drains and not self.drained):
            await self._world.blame("not-drained", self._name)
        await asyncio.sleep(0)

    async def _require_alive(self) -> None:
        if not self.alive:
            await self._world.blame("used-after-stop", self._name)


async def _deployed(roll: Callable[..., Any], world: _World) -> Any:
    """Run a deployment and return what it returned.

    Raises Wrong for what it did against the rules, and what it raised.
    """

    async def work() -> Any:
        return await require_awaitable(roll([*world.old], world.start_new))

    late = EXERCISE.wrong("never-gives-up") if NEVER in world.starts else None
    return await world.cut.run(work, patience=ms(PATIENCE), late=late)


async def _goes_well(roll: Callable[..., Any], starts: Sequence[float]) -> None:
    world = _World(len(starts), starts)
    try:
        returned = await _deployed(roll, world)
    except (RuntimeError, TimeoutError) as error:
        if len(world.new) == len(starts) or not any(one.questions for one in world.new):
            raise
        let_go(error)
        raise EXERCISE.wrong("gave-up-too-soon") from None
    left = [repr(one) for one in world.old if one.alive]
    if left or len(world.new) < len(starts):
        raise EXERCISE.wrong("old-left", ", ".join(left))
    if not isinstance(returned, list) or returned != world.new:
        raise EXERCISE.wrong("not-returned", f"it returned {returned!r}")


async def _all_goes_well(roll: Callable[..., Any]) -> None:
    await _goes_well(roll, (QUICK, QUICK, QUICK))


async def _one_is_slow(roll: Callable[..., Any]) -> None:
    await _goes_well(roll, (QUICK, SLOW, QUICK, QUICK))


async def _the_second_is_broken(roll: Callable[..., Any]) -> None:
    world = _World(3, (QUICK, NEVER, QUICK))
    try:
        await _deployed(roll, world)
    except Exception as error:
        if isinstance(error, Wrong):
            raise
        if not any(type(leaf) is RuntimeError for leaf in leaves(error)):
            told = type(error).__name__
            let_go(error)
            raise EXERCISE.wrong("wrong-error", f"it raised {told}") from None
        let_go(error)
    else:
        raise EXERCISE.wrong("error-swallowed")
    if any(one.alive for one in world.new if one.after == NEVER):
        raise EXERCISE.wrong("broken-left-running")
    if sum(one.serves() for one in (*world.old, *world.new)) != world.workers:
        raise EXERCISE.wrong("others-stopped")


async def _none_can_start(roll: Callable[..., Any]) -> None:
    world = _World(2, (QUICK, QUICK), memory=False)
    try:
        await _deployed(roll, world)
    except Exception as error:
        if isinstance(error, Wrong):
            raise
        hidden = not holds(error, _NoMemoryError)
        let_go(error)
        if hidden:
            raise EXERCISE.wrong("start-error-hidden") from None
    else:
        raise EXERCISE.wrong("start-error-hidden", "it returned")
