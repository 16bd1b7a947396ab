"""One call for all who ask the same thing at once. Lesson 13 builds it, lesson 19 uses it."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any

log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())  # as a library does: the app decides who hears it


class SingleFlight:
    """Hands the same task to all who ask for the same key while it runs.

    Attributes:
        flights: the tasks under way, by key.
    """

    def __init__(self) -> None:
        self.flights: dict[Hashable, asyncio.Task[Any]] = {}

    def join(
        self, key: Hashable, work: Callable[[Any], Coroutine[Any, Any, Any]]
    ) -> asyncio.Task[Any]:
        """Return the task that works for ``key``; if there is none, start ``work(key)``.

        Await it under `asyncio.shield`, so that one who leaves doesn't end it for the others. A
        task that fails is logged as a warning, also if nobody awaits it; the next who joins starts
        another.
        """
        if key not in self.flights:
            flight = asyncio.create_task(work(key), name=f"flight {key}")
            self.flights[key] = flight
            flight.add_done_callback(partial(self._landed, key))
        return self.flights[key]

    def _landed(self, key: Hashable, flight: asyncio.Task[Any]) -> None:
        del self.flights[key]
        if not flight.cancelled() and (error := flight.exception()) is not None:
            log.warning("no news of %s: %r", key, error)

    async def close(self) -> None:
        """Cancel what is under way, and return when it has ended: for the end of a lifespan."""
        flights = list(self.flights.values())
        for flight in flights:
            flight.cancel()
        if flights:
            await asyncio.wait(flights)
