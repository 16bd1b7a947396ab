"""A trial of real waits on a busy machine: what a late loop has seen is tried again."""

from collections.abc import Awaitable, Callable
from typing import Final

from looplab.exercises.verdicts import Wrong
from looplab.lab.lag import loop_lag

TRIES: Final = 3


async def again_if_late(judge: Callable[[float], Awaitable[None]], *, noticed: float) -> None:
    """Await ``judge(1)``; what it finds while the loop is late, ``judge(2)`` has to find, or 4.

    Args:
        judge: runs the learner's code with every wait that many times as long, and raises Wrong for
            what it finds.
        noticed: how late the loop may be, in seconds of the first try, for a finding to count.

    Raises Wrong when a loop in time has seen the mistake, or three late ones have, and whatever
    else ``judge`` raises.
    """
    for turn in range(TRIES):
        stretch = 2**turn
        async with loop_lag() as lag:
            try:
                await judge(stretch)
            except Wrong as found:
                mistake = found
            else:
                return
        if lag.worst < noticed * stretch:
            break
    raise mistake
