"""What lesson 01 calls: a function that waits for a supplier, and one that computes.

The worker functions stand in a module of their own, free of heavy imports, because a process pool
imports it in each of its processes.
"""

import asyncio
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

WAIT = 60  # milliseconds that the supplier takes to answer
DAYS = 365
REFUSED = "unknown-"  # how the SKUs begin that the supplier has no prices for
ROUNDS = 700  # of smoothing: some 60 ms of pure Python


@dataclass(slots=True)
class Call:
    """One call of a function here. Times are readings of ``time.perf_counter``, in seconds.

    ``on_loop`` says whether it ran in a thread whose event loop it kept waiting meanwhile.
    """

    name: str
    on_loop: bool
    began: float
    ended: float = float("inf")


_watched: list[list[Call]] = []


@contextmanager
def watched() -> Generator[list[Call]]:
    """Yield a list that fills with the calls that begin inside the block, in this process."""
    calls: list[Call] = []
    _watched.append(calls)
    try:
        yield calls
    finally:
        _watched[:] = [other for other in _watched if other is not calls]


def fetch_prices(sku: str) -> list[int]:
    """Ask the supplier for a year of prices, in cents, and block until the answer is there.

    Raises LookupError for a SKU that begins with "unknown-": the supplier has no prices for it.
    """
    with _noted("fetch_prices"):
        # As looplab.lab.units has it; importing the lab takes a worker process a second.
        time.sleep(WAIT / 1000 * float(os.environ.get("COURSE_PACE", "1")))
        if sku.startswith(REFUSED):
            raise LookupError(f"the supplier has no prices for {sku}")
        return prices_of(sku)


def prices_of(sku: str) -> list[int]:
    """Return what :func:`fetch_prices` answers, at once."""
    seed = sum(place * ord(letter) for place, letter in enumerate(sku, start=1))
    return [1_000 + (seed * 31 + day * 17) % 97 * 10 + day for day in range(DAYS)]


def summarise(prices: list[int]) -> dict[str, int]:
    """Return the lowest, the highest and the last of the smoothed prices, in cents.

    Pure Python, and slow: it smooths the prices 700 times.
    """
    with _noted("summarise"):
        smooth = list(prices)
        for _ in range(ROUNDS):
            for day in range(1, len(smooth)):
                smooth[day] = (smooth[day - 1] + 3 * smooth[day]) // 4
        return {"lowest": min(smooth), "highest": max(smooth), "last": smooth[-1]}


PRICES = prices_of("lamp-7")
"""What the lesson summarises, so that nothing is asked for."""


@contextmanager
def _noted(name: str) -> Generator[None]:
    watching = list(_watched)
    call = Call(name, _keeps_a_loop_waiting(), time.perf_counter())
    for calls in watching:
        calls.append(call)
    try:
        yield
    finally:
        call.ended = time.perf_counter()


def _keeps_a_loop_waiting() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
