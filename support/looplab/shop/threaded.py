"""A shop's database as `def` code meets it: a blocking engine, with a pool and round trips."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Engine, create_engine, event

from looplab.shop import Shop, checks
from looplab.shop.counting import POOL_TIMEOUT


def threaded_engine(
    shop: Shop, *, size: int, round_trip: float = 0.0, pool_timeout: float = POOL_TIMEOUT
) -> Engine:
    """Return a blocking engine on the file of ``shop``, with a pool of ``size`` connections.

    Each statement, and the BEGIN and the COMMIT or ROLLBACK around it, waits ``round_trip`` seconds
    in the thread that sends it, as the shop's own engine does (see `looplab.shop.database`). A
    caller that finds no free connection blocks its thread for ``pool_timeout`` seconds at most;
    then the pool raises `sqlalchemy.exc.TimeoutError`. Dispose the engine before the shop closes.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range.
        EmbeddedOnlyError: the shop is on a server.
    """
    wait = checks.seconds("round_trip", round_trip)
    engine = create_engine(
        f"sqlite:///{shop.path}",
        pool_size=checks.count("size", size, at_least=1),
        max_overflow=0,
        pool_timeout=checks.seconds("pool_timeout", pool_timeout),
    )

    def trip(*_: Any) -> None:
        time.sleep(wait)

    for moment in ("begin", "before_cursor_execute", "commit", "rollback"):
        event.listen(engine, moment, trip)
    return engine
