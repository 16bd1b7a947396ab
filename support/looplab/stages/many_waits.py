"""What lesson 00's dial shows: how long a crowd of tasks takes beside one wait."""

from collections.abc import Awaitable, Callable

from looplab.lab import compare, show_table

ROUNDS = 3


async def show_waits(crowd: Callable[[int], Awaitable[object]], tasks: int, wait: float) -> float:
    """Run ``crowd(tasks)`` three times, and show in a table how many waits it takes.

    Args:
        crowd: runs that many tasks, each of which waits once.
        tasks: how many.
        wait: how long one of them waits, in seconds.

    Returns:
        The median of the rounds, in waits. Raises what ``crowd`` raises.
    """
    taken = await compare({"at once": lambda: crowd(tasks)}, repeat=ROUNDS, show=False)
    waits = taken.median("at once") / wait
    row = [f"{tasks:,}", f"{tasks:,}", f"{waits:.2f}"]
    show_table(["tasks", "waits, in turn", "waits, at once"], [row])
    return waits
