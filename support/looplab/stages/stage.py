"""What a lesson opens in one cell and uses in others: one is open at a time, and closes whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager


class Stage:
    """The base of a stage: opening one closes the one that was open before.

    So a cell that opens a stage may run twice. A subclass has a class method that opens it, and
    there enters everything within :meth:`_opening`.
    """

    def __init__(self) -> None:
        """Make one that has nothing open yet."""
        self._stack = AsyncExitStack()

    @asynccontextmanager
    async def _opening(self) -> AsyncGenerator[AsyncExitStack]:
        """Yield the stack on which to put what is opened, and what is done on closing.

        The stage is open when the block has ended. If the block fails, what was put there is closed
        at once.
        """
        before = _open.get(type(self))
        if before is not None:
            await before.close()
        async with AsyncExitStack() as stack:
            yield stack
            self._stack = stack.pop_all()
        _open[type(self)] = self

    async def close(self) -> None:
        """Close what was opened, last first and all of it even where something fails.

        Closing again does nothing. Raises what failed last.
        """
        if _open.get(type(self)) is self:
            del _open[type(self)]
        await self._stack.aclose()


_open: dict[type[Stage], Stage] = {}
