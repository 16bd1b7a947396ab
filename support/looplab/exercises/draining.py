"""The exercise of lesson 06: a worker that drains its queue on shutdown, within a budget.

The budget is measured from both sides, after the worker has been at work for longer than that: an
item that ends shortly before the budget does has to be handled, one that hangs has to be cancelled
shortly after. What the loop has seen late is tried again with more time.

A handle that fails ends the worker with its error. Whether its item is tried again or set aside is
lesson 03's and 12's question.
"""

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from looplab.exercises.checking import check, require_function
from looplab.exercises.error_text import holds, raised_from
from looplab.exercises.late_loop import again_if_late
from looplab.exercises.sandbox import Sandbox, require_awaitable
from looplab.exercises.verdicts import Exercise, Mistake, Verdict, Wrong
from looplab.lab.silent_failures import let_go
from looplab.lab.units import ms

PATIENCE = 1_500  # milliseconds that something which should happen at once may take
AMPLE = 20_000  # milliseconds: a budget that no trial uses up
SHORT = 120  # milliseconds: a budget that is used up
MEASURED: Final = 250  # milliseconds: a budget that is measured
AGE: Final = 0.8  # of that: how long an item is in hand before stopping; the worker is older yet
HALF: Final = 0.5  # of that: how long the worker is idle, and when one more item comes
LAST: Final = 0.95  # of that: when the last one comes
EARLY: Final = 0.35  # of that: a budget which ends before began before stopping was set
NEARLY: Final = 0.9  # of that: when the item in hand ends
OVER: Final = 1.15  # budgets after which a handle that hangs should have been cancelled
RELEASED: Final = 2  # budgets after which it ends by itself
NOTICED: Final = 0.04  # of the budget: a loop that is later than this has not measured well
MOMENT = 20  # milliseconds in which a worker that does the wrong thing does it

EXERCISE = Exercise(
    lesson="06",
    check="check_worker",
    stub="deaf-while-idle",
    task="Write a worker that drains its queue on shutdown, within a budget, and returns the rest.",
    usual_wrong_prediction=(
        "That item 4 is still finished, because it was begun: the exception is raised at the "
        "await inside it. Many also expect that a cleanup which has begun will end; in a cancelled "
        "scope each of its awaits is cancelled, too."
    ),
    mistakes=(
        Mistake(
            "deaf-while-idle",
            "waits in queue.get() and looks at stopping between two items, as the stub does",
            "While the queue is empty, the worker sits in queue.get() and can't hear stopping. It "
            "has to wait for both at once: give the work a task of its own, and await the event "
            "beside it.",
        ),
        Mistake(
            "waits-for-the-job",
            "waits for its working task, which never ends, instead of for the queue",
            "The worker heard stopping, and everything was handled, and still it didn't return: it "
            "waits for something that never comes. The task that works never ends by itself. Wait "
            "for the queue to be drained, and then cancel the task.",
        ),
        Mistake(
            "forgets-task-done",
            "awaits queue.join() and does not mark what it has handled",
            "Every item is handled, but queue.join() still waits. It counts marks, not items: call "
            "queue.task_done() after each handle.",
        ),
        Mistake(
            "ends-when-idle",
            "ends when the queue is empty, without waiting for the next item",
            "The worker ended before stopping was set. An empty queue only means that nothing is "
            "there yet: more items come later.",
        ),
        Mistake(
            "cancels-item-in-hand",
            "cancels the working task as soon as stopping is set",
            "The item in hand was cancelled as soon as stopping was set. It may use the budget: "
            "let it go on until that is used up.",
        ),
        Mistake(
            "does-not-drain",
            "returns what is in the queue instead of handling it while there is budget",
            "Items came back although there was budget left for them. After stopping is set, go on "
            "with the queue, and return the rest only when the budget is used up.",
        ),
        Mistake(
            "drops-queue",
            "returns an empty list, whatever is left in the queue",
            "Some items were neither handled nor returned, so they are lost. Take what is still in "
            "the queue with get_nowait(), and return it.",
        ),
        Mistake(
            "loses-late-item",
            "takes what is in the queue once, and nothing that comes after that",
            "An item that came during the drain was neither handled nor returned. Its sender got "
            "no error and believes that it is safe. Look at the queue again after you have "
            "drained it, and when you collect the rest.",
        ),
        Mistake(
            "forgets-item-in-hand",
            "returns what is in the queue and forgets the item whose handle was cancelled",
            "The item that was in hand when the budget ran out is missing. Its handle was "
            "cancelled, so it was not handled: remember it, and return it first.",
        ),
        Mistake(
            "loses-item",
            "waits for the next item or the event, and drops the item when both have come",
            "An item that came in the same moment as stopping was neither handled nor returned. "
            "When you wait for two things, both can happen at once: look at the item first.",
        ),
        Mistake(
            "no-budget",
            "waits for the queue without a limit",
            "A handle that hangs keeps the worker for ever. The budget begins when stopping is "
            "set: put move_on_after(budget) around what you wait for then, and cancel handle.",
        ),
        Mistake(
            "budget-begins-early",
            "counts the budget from the worker's or the item's start",
            "The item in hand was cancelled right after stopping was set, because the budget had "
            "run out before. A worker that has been up for a day would drain nothing. Start the "
            "clock when stopping is set.",
        ),
        Mistake(
            "budget-cut-short",
            "uses a part of the budget, or a number of its own",
            "An item that would have ended within the budget was cancelled. Your operator chose "
            "how long a shutdown may take: use all of it before you give work up.",
        ),
        Mistake(
            "budget-stretched",
            "uses more than the budget, or a number of its own, or works on when it is used up",
            "The worker ended well after its budget was used up. By then Kubernetes has killed the "
            "process, and what the worker would have returned is lost. Cancel handle when the "
            "budget ends, and return.",
        ),
        Mistake(
            "budget-per-item",
            "gives each item the whole budget",
            "Together the items took longer than the budget. It is one budget for all of them: "
            "start it once, around the whole drain.",
        ),
        Mistake(
            "timeout-escapes",
            "lets the TimeoutError of the budget out",
            "When the budget ran out, a TimeoutError came out of the worker, and the items left "
            "over were lost with it. Catch it, and return them.",
        ),
        Mistake(
            "leaves-handle-running",
            "cancels the working task and does not wait for it, or does not cancel it",
            "The worker has returned, but handle still runs. cancel() only asks: wait until the "
            "task has ended. A TaskGroup does that on every way out.",
        ),
        Mistake(
            "error-swallowed",
            "catches what handle raises, all or of some kinds, and goes on",
            "handle raised an error, and nobody hears of it: the item is gone, and the service "
            "looks healthy. Let the error out of run_worker, alone or in a group. A TimeoutError "
            "can be handle's own, too: only a deadline that has expired() is the budget's end.",
        ),
        Mistake(
            "dies-unnoticed",
            "works in a task that nobody awaits before stopping is set",
            "handle raised an error, which ended the working task, and run_worker went on waiting. "
            "In production the queue fills up, and nothing is logged. A TaskGroup brings the "
            "error out at once; so does waiting for the task beside the event.",
        ),
        Mistake(
            "error-replaced",
            "raises another exception where handle has failed",
            "The error that came out is not the one that handle raised, so the log names the wrong "
            "cause. Let handle's own error out, alone or in a group.",
        ),
        Mistake(
            "swallows-cancel",
            "catches CancelledError and goes on or returns",
            "The worker was cancelled, but it did not end cancelled. Clean up in finally, and let "
            "CancelledError through.",
        ),
        Mistake(
            "many-at-once",
            "starts a task for each item",
            "Several items were handled at once. This worker takes one at a time.",
        ),
        Mistake(
            "wrong-order",
            "handles or returns the items in another order",
            "The items are out of order. Oldest first means: the one in hand, then those in the "
            "queue.",
        ),
        Mistake(
            "wrong-answer",
            "returns something else than the list of items that were not handled",
            "The worker should return a list: the items that were not handled.",
        ),
    ),
)


async def check_worker(run_worker: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's ``run_worker`` of lesson 06, show one line, and return the verdict.

    It is called as ``await run_worker(queue, handle, stopping, budget)`` with an ``asyncio.Queue``,
    an async function of one item, an ``asyncio.Event`` and seconds, and returns the items that were
    not handled as a list. It passes if

    - it handles items as they come, one at a time and in order, until ``stopping`` is set;
    - it then handles what is in hand and in the queue, and ends at once when there is nothing;
    - ``budget`` begins when ``stopping`` is set, and all of it is used if there is work for it;
    - when ``budget`` is used up it cancels ``handle``, waits until that has ended, and returns the
      rest, oldest first;
    - what comes during the drain is handled or returned as well;
    - an error of ``handle`` comes out at once, alone or in a group;
    - cancelled itself, it ends cancelled, with ``handle`` cancelled and nothing running.

    ``limit`` is how long the function may take in all, in seconds; 15 unless given. An endless loop
    that never awaits cannot be stopped: restart the kernel.
    """
    return await check(functools.partial(_judge, run_worker=run_worker), limit=limit)


async def _judge(sandbox: Sandbox, *, run_worker: Any) -> str:
    run_worker = require_function(run_worker, example="check_worker(run_worker)")
    shift_of = functools.partial(_Shift, run_worker)
    trials = (
        _items_come_and_stop,
        _queue_is_drained,
        _item_and_stop_together,
        _handle_hangs,
        _budget_is_shared,
        _cancelled,
        functools.partial(_cancelled, draining=True),
        functools.partial(_cancelled, idle=True),
        functools.partial(_handle_fails, draining=False),
        functools.partial(_handle_fails, draining=True),
    )
    await sandbox.run_each(trials, shift_of)
    await _judge_budget(sandbox, shift_of)
    return (
        "It drains in order, stops within its budget, loses nothing and leaves nothing running. "
        "You can deploy this worker."
    )


async def _judge_budget(sandbox: Sandbox, shift_of: "Begin") -> None:
    """Measure the budget, with more time if the loop was late."""

    async def judge(stretch: float) -> None:
        kept = functools.partial(_budget_is_kept, shift_of, MEASURED * stretch)
        (await sandbox.run(kept)).result()

    await again_if_late(judge, noticed=NOTICED * ms(MEASURED))


class _HandleError(TimeoutError, LookupError, ValueError, TypeError, RuntimeError, ArithmeticError):
    """What a failing handle raises: a narrow except that hides a bug catches it too."""


class _Queue(asyncio.Queue[Any]):
    """A queue that knows whether somebody waits in its ``join``."""

    joining = 0

    async def join(self) -> None:
        self.joining += 1
        try:
            await super().join()
        finally:
            self.joining -= 1


class _Stopping(asyncio.Event):
    """An event that knows whether somebody has noticed that it is set."""

    noticed = False

    def is_set(self) -> bool:
        self.noticed = super().is_set()
        return self.noticed

    async def wait(self) -> Literal[True]:
        await super().wait()
        self.noticed = True
        return True


@dataclass(slots=True)
class _Shift:
    """One run of the learner's worker, and what became of each item."""

    run_worker: Callable[..., Any]
    budget: float = AMPLE
    """In milliseconds, as are the other times of a shift."""
    takes: float = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """What ``handle`` waits for with each item; open unless a trial closes it."""
    queue: _Queue = field(default_factory=_Queue)
    stopping: _Stopping = field(default_factory=_Stopping)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever an item or the worker has come further."""
    gates: dict[Any, asyncio.Event] = field(default_factory=dict)
    """What ``handle`` waits for with single items, in place of ``gate``."""
    fails_at: Any = None
    """The item that ``handle`` fails with."""
    begun: list[Any] = field(default_factory=list)
    handled: list[Any] = field(default_factory=list)
    cut: list[Any] = field(default_factory=list)
    cut_at: dict[Any, float] = field(default_factory=dict)
    """When items were cancelled, by the loop's clock."""
    under_way: int = 0
    together: int = 0
    task: "asyncio.Task[Any]" = field(init=False)

    def begin(self, *items: Any, gated: bool = False, stopping: bool = False) -> None:
        """Start the worker with these items in the queue."""
        for item in items:
            self.queue.put_nowait(item)
        if not gated:
            self.gate.set()
        if stopping:
            self.stopping.set()
        self.task = asyncio.create_task(self._work())
        self.task.add_done_callback(lambda _: self.moved.set())

    async def _work(self) -> Any:
        budget = ms(self.budget)
        working = self.run_worker(self.queue, self._handle, self.stopping, budget)
        return await require_awaitable(working)

    async def _handle(self, item: Any) -> None:
        self.begun.append(item)
        self.under_way += 1
        self.together = max(self.together, self.under_way)
        self.moved.set()
        try:
            await self.gates.get(item, self.gate).wait()
            await asyncio.sleep(ms(self.takes))
            if self.fails_at is not None and item == self.fails_at:
                raise _HandleError(f"item {item} failed")
            self.handled.append(item)
        except asyncio.CancelledError:
            self.cut_at[item] = asyncio.get_running_loop().time()
            await asyncio.sleep(ms(2))  # a cleanup: the worker has to wait for it
            self.cut.append(item)
            raise
        finally:
            self.under_way -= 1
            self.moved.set()

    async def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> bool:
        """Wait for the condition, the worker's end or the end of patience.

        Returns whether the condition holds then.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ms(patience)):
                while not condition() and not self.task.done():
                    self.moved.clear()
                    await self.moved.wait()
        return condition()

    async def ends(self) -> bool:
        """Return whether the worker ends before patience does."""
        await asyncio.wait({self.task}, timeout=ms(PATIENCE))
        return self.task.done()

    def goes_on(self, detail: str = "") -> Wrong:
        """Return the mistake of a worker that goes on with nothing left to do."""
        if self.queue.empty() and not self.under_way:
            if self.queue.joining:
                return EXERCISE.wrong("forgets-task-done", detail)
            if self.stopping.noticed:
                return EXERCISE.wrong("waits-for-the-job", detail)
        return EXERCISE.wrong("deaf-while-idle", detail)

    def left(self) -> list[Any]:
        """Return what the worker, which has ended, has returned.

        Raises what it raised, and Wrong when it left a handle behind or returned no list.
        """
        if self.task.cancelled():
            raise asyncio.CancelledError
        if (error := self.task.exception()) is not None:
            if holds(error, TimeoutError):
                raise EXERCISE.wrong("timeout-escapes")
            raise error
        if self.under_way:
            raise EXERCISE.wrong("leaves-handle-running")
        left = self.task.result()
        if not isinstance(left, list):
            raise EXERCISE.wrong("wrong-answer", f"it returned {type(left).__name__}")
        return left

    def account(self, *items: Any, late: tuple[Any, ...] = ()) -> list[Any]:
        """Return what was left over, once every one of ``items`` is handled or left over.

        ``late`` are those of them, the last, that came after stopping. Raises Wrong when one of
        ``items`` is missing, or when they are out of order.
        """
        left = self.left()
        if self.together > 1:
            raise EXERCISE.wrong("many-at-once", f"{self.together} at once")
        found = self.handled + left
        if found == list(items):
            return left
        missing = [*(Counter(items) - Counter(found)).elements()]
        detail = f"handled {self.handled}, returned {left}"
        if missing and missing == self.cut:
            raise EXERCISE.wrong("forgets-item-in-hand", detail)
        if missing and missing == list(late[-len(missing) :]):
            raise EXERCISE.wrong("loses-late-item", detail)
        if missing:
            raise EXERCISE.wrong("drops-queue", detail)
        if Counter(found) == Counter(items):
            raise EXERCISE.wrong("wrong-order", detail)
        raise EXERCISE.wrong("wrong-answer", detail)


Begin = Callable[..., _Shift]


def _too_early(shift: _Shift) -> Wrong:
    """Return the mistake of a worker that has ended although nobody told it to.

    Raises what the worker raised, if it did.
    """
    shift.left()
    return EXERCISE.wrong("ends-when-idle")


async def _items_come_and_stop(shift_of: Begin) -> None:
    shift = shift_of()
    shift.begin()
    come: list[int] = []
    for item in (0, 1, 2):
        await shift.until(shift.task.done, MOMENT)
        if shift.task.done():
            raise _too_early(shift)
        come.append(item)
        shift.queue.put_nowait(item)
        if not await shift.until(lambda: shift.handled == come):
            if shift.task.done():
                raise _too_early(shift)
            raise EXERCISE.wrong("drops-queue", "an item came, and nothing was handled")
    await shift.until(shift.task.done, MOMENT)
    shift.stopping.set()
    if not await shift.ends():
        raise shift.goes_on()
    shift.account(*come)


async def _queue_is_drained(shift_of: Begin) -> None:
    shift = shift_of()
    shift.begin(0, 1, 1, gated=True)
    await shift.until(lambda: bool(shift.begun))
    shift.stopping.set()
    await shift.until(lambda: bool(shift.cut), MOMENT)
    if shift.cut:
        raise EXERCISE.wrong("cancels-item-in-hand")
    late = () if shift.task.done() else (2,)
    for item in late:
        shift.queue.put_nowait(item)
    shift.gate.set()
    if not await shift.ends():
        raise shift.goes_on("the queue was drained")
    left = shift.account(0, 1, 1, *late, late=late)
    if left and left != [*late]:  # what comes during the drain may be returned
        raise EXERCISE.wrong("does-not-drain", f"it returned {left}")


async def _item_and_stop_together(shift_of: Begin) -> None:
    shift = shift_of()
    shift.begin()
    await shift.until(shift.task.done, MOMENT)
    shift.queue.put_nowait(1)
    shift.stopping.set()
    if not await shift.ends():
        raise shift.goes_on("an item came with stopping")
    left = shift.left()
    if not shift.handled and not left and not shift.begun:
        raise EXERCISE.wrong("loses-item")
    if shift.account(1):
        raise EXERCISE.wrong("does-not-drain", f"it returned {left}")


async def _handle_hangs(shift_of: Begin) -> None:
    shift = shift_of(budget=SHORT)
    shift.begin(1, 2, 3, gated=True)
    await shift.until(lambda: bool(shift.begun))
    shift.stopping.set()
    if not await shift.ends():
        raise EXERCISE.wrong("no-budget")
    shift.account(1, 2, 3)


async def _budget_is_shared(shift_of: Begin) -> None:
    shift = shift_of(budget=SHORT, takes=0.8 * SHORT)
    shift.begin(1, 2, 3, stopping=True)
    if not await shift.ends():
        raise EXERCISE.wrong("no-budget", "each item ended, all of them took too long")
    shift.account(1, 2, 3)
    if len(shift.handled) > 1:
        raise EXERCISE.wrong("budget-per-item", f"{len(shift.handled)} items were handled")


async def _budget_is_kept(shift_of: Begin, budget: float) -> None:
    """Let a worker drain for a budget in milliseconds."""
    shift, loop = shift_of(budget=budget), asyncio.get_running_loop()
    done, held, hung, late = range(4)
    shift.gates = {held: asyncio.Event(), hung: asyncio.Event()}
    shift.begin(done)
    await shift.until(shift.task.done, HALF * budget)
    shift.queue.put_nowait(held)
    await shift.until(shift.task.done, AGE * budget)
    if shift.task.done():
        raise _too_early(shift)
    shift.queue.put_nowait(hung)
    came: list[int] = []

    def come_late() -> None:
        if not shift.task.done():
            came.append(late + len(came))
            shift.queue.put_nowait(came[-1])

    began = loop.time()
    shift.stopping.set()
    loop.call_later(ms(HALF * budget), come_late)
    loop.call_later(ms(LAST * budget), come_late)
    loop.call_later(ms(NEARLY * budget), shift.gates[held].set)
    loop.call_later(ms(RELEASED * budget), shift.gates[hung].set)
    await asyncio.wait({shift.task}, timeout=ms(RELEASED * budget + PATIENCE))
    took = (loop.time() - began) / ms(budget)
    if not shift.task.done() or hung in shift.handled:
        raise EXERCISE.wrong("no-budget")
    shift.left()
    if held in shift.cut:
        after = (shift.cut_at[held] - began) / ms(budget)
        name = "budget-begins-early" if after < EARLY else "budget-cut-short"
        raise EXERCISE.wrong(name, f"after {after:.2g} of the budget")
    if took > OVER:
        raise EXERCISE.wrong("budget-stretched", f"{took:.2g} budgets")
    shift.account(done, held, hung, *came, late=(*came,))


async def _handle_fails(shift_of: Begin, *, draining: bool) -> None:
    shift = shift_of(fails_at=1)
    shift.begin(0, 1, 2, gated=True)
    await shift.until(lambda: bool(shift.begun))
    if draining:
        shift.stopping.set()
        await shift.until(shift.task.done, MOMENT)
    shift.gate.set()
    await shift.until(lambda: 2 in shift.handled)
    if not shift.task.done() and 2 not in shift.handled:
        raise EXERCISE.wrong("dies-unnoticed")
    shift.stopping.set()
    ended = await shift.ends() and not shift.task.cancelled()
    error = shift.task.exception() if ended else None
    if error is None:
        raise EXERCISE.wrong("error-swallowed")
    if not holds(error, _HandleError):
        if replaced := raised_from(error, _HandleError):
            raise EXERCISE.wrong("error-replaced", type(replaced).__name__)
        raise error
    let_go(error)
    if 2 in shift.handled:
        raise EXERCISE.wrong("error-swallowed", "it came out when everything was handled")
    if shift.under_way:
        raise EXERCISE.wrong("leaves-handle-running")


async def _cancelled(shift_of: Begin, *, draining: bool = False, idle: bool = False) -> None:
    shift = shift_of()
    if idle:
        shift.begin()
        await shift.until(shift.task.done, MOMENT)
    else:
        shift.begin(1, 2, gated=True)
        await shift.until(lambda: bool(shift.begun))
    if draining:
        shift.stopping.set()
        await shift.until(shift.task.done, MOMENT)
    shift.task.cancel()
    if not await shift.ends():
        raise EXERCISE.wrong("swallows-cancel", "it runs on")
    if not shift.task.cancelled():
        if (error := shift.task.exception()) is not None:
            raise error
        raise EXERCISE.wrong("swallows-cancel", "it returned")
    if shift.under_way:
        raise EXERCISE.wrong("leaves-handle-running", "the worker was cancelled")
