"""A partner that sells a number of calls in a time, as many contracts have it."""

import asyncio
from time import perf_counter

from looplab.shop import checks


class MeteredPartner:
    """Sells `most` calls in any `per` seconds, and refuses more with status 429.

    Attributes:
        begun: when each call arrived, refused ones too: seconds since the first.
        refused: how many calls were refused.
    """

    def __init__(self, *, most: int, per: float, latency: float = 0.0) -> None:
        """Make the partner, which takes `latency` seconds for each answer.

        Raises:
            TypeError, ValueError: `most` is no whole number from 1 up, or a time is no number of
                seconds.
        """
        self._most = checks.count("most", most, at_least=1)
        self._per = checks.seconds("per", per)
        self._latency = checks.seconds("latency", latency)
        self._first: float | None = None
        self._sold: list[float] = []
        self.begun: list[float] = []
        self.refused = 0

    async def call(self) -> int:
        """Return the status of one call: 200, or 429 if too many were sold lately."""
        now = perf_counter()
        self._first = now if self._first is None else self._first
        self.begun.append(now - self._first)
        lately = [sale for sale in self._sold if now - sale < self._per]
        sells = len(lately) < self._most
        if sells:
            self._sold.append(now)
        else:
            self.refused += 1
        await asyncio.sleep(self._latency)
        return 200 if sells else 429
