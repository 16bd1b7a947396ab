"""Two holders of one lock, of which the first comes back late: its lease is over when it writes.

Everything happens in one order, step by step, so that an experiment shows what a lock, a fence or a
condition makes of it. Nothing here waits for anything but Redis and the ledger.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple
from uuid import UUID

from looplab.shop.ledger import Ledger
from looplab.shop.redis import CourseRedis


class Books(NamedTuple):
    """``told`` is how many writers were told that they booked, ``booked`` how many payments stand.

    A payment is lost where ``told`` is more than ``booked``.
    """

    told: int
    booked: int


async def two_holders(
    redis: CourseRedis,
    ledger: Ledger,
    begin: Callable[[UUID], Awaitable[Any]],
    finish: Callable[[UUID, Any], Awaitable[bool]],
    *,
    last: Literal["late", "prompt"],
) -> Books:
    """Let a late holder and a prompt one book on a new order.

    The late one begins, its lease ends, the prompt one begins, and then both finish; ``last`` says
    who does so last. ``begin(order_id)`` takes the lock ``order:<id>`` and returns what it has
    read; ``finish(order_id, read)`` writes, and returns whether it was allowed to.

    Raises ValueError when ``last`` is something else, and what ``begin`` and ``finish`` raise.
    """
    if last not in ("late", "prompt"):
        raise ValueError(f"last={last!r}: must be 'late' or 'prompt'")
    order_id = await ledger.new_order()
    lock = f"order:{order_id}"
    late = await begin(order_id)
    await redis.delete(lock)  # the lease of the late one ends
    prompt = await begin(order_id)
    written = [await finish(order_id, read) for read in _in_order(late, prompt, last)]
    await redis.delete(lock)
    return Books(told=sum(written), booked=await ledger.paid(order_id))


def _in_order(late: Any, prompt: Any, last: str) -> tuple[Any, Any]:
    return (prompt, late) if last == "late" else (late, prompt)
