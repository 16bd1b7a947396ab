"""A run of a learner's code that the judge can end from within a call that the code makes.

The call never comes back, so no `except` of the learner's can hide why it was ended.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from looplab.exercises.verdicts import Wrong
from looplab.lab.units import ms

ROUND = 20  # milliseconds between two cancels of code that has been cut off
ROUNDS = 10  # how often code with a fault is cancelled; what goes on then is the sandbox's to end


class WasCutOff(Exception):
    """The code was cut off without a fault. The judge raises it, never what the code calls."""


class CutOff:
    """Ends a run from within a call; one object for one run.

    Attributes:
        fault: the first mistake that the run was cut off for.
    """

    def __init__(self) -> None:
        """Make one for a run that is to begin."""
        self.fault: Wrong | None = None
        self._happened = asyncio.Event()

    @property
    def happened(self) -> bool:
        """Whether the run has been cut off."""
        return self._happened.is_set()

    async def here(self, fault: Wrong | None = None) -> None:
        """Cut the run off, for ``fault`` if there is one; never returns."""
        self.fault = self.fault or fault
        self._happened.set()
        await asyncio.Event().wait()

    async def run(
        self, act: Callable[[], Awaitable[Any]], *, patience: float, late: Wrong | None = None
    ) -> Any:
        """Await ``act()`` in a task and return what that returns, unless it is cut off.

        Args:
            act: runs the code.
            patience: seconds after which it is cut off for ``late``.
            late: the mistake of code that takes longer; unless given, such code is the sandbox's to
                end.

        Raises Wrong when it was cut off for a fault, WasCutOff when it was for none, and what
        ``act`` raises.
        """

        async def awaited() -> Any:
            return await act()

        working = asyncio.create_task(awaited())
        ending = asyncio.create_task(self._happened.wait())
        try:
            await asyncio.wait(
                {working, ending}, timeout=patience, return_when=asyncio.FIRST_COMPLETED
            )
            if late is not None and not (self.happened or working.done()):
                self.fault = late
                self._happened.set()
            if not self.happened:
                return await working
        finally:
            ending.cancel()
            await self._end(working)
        raise self.fault or WasCutOff

    async def _end(self, working: asyncio.Task[Any]) -> None:
        rounds = 0
        while not (working.done() or (self.fault is not None and rounds == ROUNDS)):
            rounds += 1
            working.cancel()
            await asyncio.wait({working}, timeout=ms(ROUND))
        if self.happened and working.done() and not working.cancelled():
            working.exception()  # nobody asks how a run ended that was cut off
