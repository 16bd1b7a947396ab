"""What lesson 14 measures an app by, beside its x-ray: the pools, the connections, one table."""

import logging
import math
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any, Self

from sqlalchemy import event
from sqlalchemy.pool import Pool

from looplab.lab import ms, serve
from looplab.lab.app_page import milliseconds, where_of
from looplab.lab.errors import LessonError
from looplab.lab.own_app import AppReport, Ask, asks_of, load_app
from looplab.shop.partners.services import Supplier
from looplab.shop.teahouse import TOKEN, create_app
from looplab.stages.stage import Stage

HANGING = "tea-hangs"
"""The SKU about which the supplier never answers."""
SIGNED_IN = {"Authorization": f"Bearer {TOKEN}"}
"""The headers by which the teahouse lets a request in."""
HEADINGS = (
    "request",
    "answers",
    "slowest",
    "longest hold",
    "tasks at once",
    "connects",
    "usual loan",
    "left behind",
)


# ---------------------------------------------------------------- the pools of a process


@dataclass
class PoolWatch:
    """What was lent by SQLAlchemy's pools, all of the process together.

    Attributes:
        loans: when each loan began, by `perf_counter`, and how many seconds it took; one that is
            still out when the watch ends counts as far as the watch goes.
    """

    loans: list[tuple[float, float]] = field(default_factory=list)
    _out: dict[int, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def usual_loan(self, *, since: float = -math.inf) -> float | None:
        """Return the loan in the middle of those that began ``since`` then, in seconds.

        None where nothing was lent.
        """
        lengths = [seconds for began, seconds in self.loans if began >= since]
        return median(lengths) if lengths else None

    def _lent(self, _connection: Any, record: Any, _proxy: Any) -> None:
        with self._lock:
            self._out[id(record)] = perf_counter()

    def _returned(self, _connection: Any, record: Any) -> None:
        with self._lock:
            began = self._out.pop(id(record), None)
            if began is not None:
                self.loans.append((began, perf_counter() - began))

    def _end(self) -> None:
        with self._lock:
            for began in self._out.values():
                self.loans.append((began, perf_counter() - began))


@contextmanager
def pool_watch() -> Generator[PoolWatch]:
    """Watch every SQLAlchemy pool of this process inside the block; yields a :class:`PoolWatch`.

    It needs no engine: events of the class ``Pool`` come from pools that exist already and from
    those to come, in any thread. A pool of another library, such as asyncpg's, is not seen.
    """
    watch = PoolWatch()
    event.listen(Pool, "checkout", watch._lent)
    event.listen(Pool, "checkin", watch._returned)
    try:
        yield watch
    finally:
        event.remove(Pool, "checkout", watch._lent)
        event.remove(Pool, "checkin", watch._returned)
        watch._end()


# ---------------------------------------------------------------- the connections that it opens


class Connects(logging.Handler):
    """Counts the connections that httpx's clients begin to open, in other threads than its own.

    Attributes:
        count: how many.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.count = 0
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record of httpcore's that says so."""
        if record.thread != self._thread and record.getMessage().startswith("connect_tcp.started"):
            self.count += 1


@contextmanager
def connects() -> Generator[Connects]:
    """Count the connections that httpx's clients in other threads begin, inside the block.

    An app that is served runs in a thread of its own, so its connections count and those of the
    client that asks it don't. httpx tells of them in its log, at DEBUG; other libraries are not
    seen.
    """
    logger = logging.getLogger("httpcore.connection")
    level, propagate = logger.level, logger.propagate
    counted = Connects()
    logger.addHandler(counted)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield counted
    finally:
        logger.removeHandler(counted)
        logger.setLevel(level)
        logger.propagate = propagate


# ---------------------------------------------------------------- a table of what was found


def row_of(report: AppReport, pool: PoolWatch, opened: Connects) -> list[str]:
    """Return the cells of one row under :data:`HEADINGS`.

    Loans count from the start of the recording; connections from the start of the app.
    """
    statuses: dict[str, int] = {}
    for reply in report.replies:
        told = str(reply.status or "none")
        statuses[told] = statuses.get(told, 0) + 1
    longest = max(report.holds, key=lambda hold: hold.duration, default=None)
    loan = pool.usual_loan(since=report.recording.start)
    held = ""
    if longest is not None:
        held = f"{milliseconds(longest.duration)}, {where_of(longest) or 'not seen where'}"
    return [
        ", ".join(dict.fromkeys(reply.name for reply in report.replies)),
        ", ".join(f"{number} × {status}" for status, number in sorted(statuses.items())),
        milliseconds(max(reply.seconds for reply in report.replies)),
        held,
        str(report.recording.peak_in_flight()),
        str(opened.count),
        "" if loan is None else milliseconds(loan),
        str(len(report.left_behind) or ""),
    ]


# ---------------------------------------------------------------- the app, and what it talks to


def chosen(path: str, *, factory: bool = False) -> Callable[[], Any]:
    """Return a function that gives the app at an import path, the teahouse for an empty one.

    The teahouse is made anew at each call; an app of yours too where ``factory`` says that the path
    leads to a function that makes it.

    Raises LessonError in a sentence where there is no app at ``path``.
    """
    if not isinstance(path, str):
        raise LessonError(f"APP is {path!r}; it is text such as 'shop.main:app', or empty")
    if not path.strip():
        return create_app
    found = load_app(path.strip(), factory=factory)
    return (lambda: load_app(path.strip(), factory=True)) if factory else (lambda: found)


def asked(requests: object) -> list[Ask]:
    """Return requests such as ``"GET /orders"`` as a list of :class:`Ask`; one may stand alone.

    Raises LessonError in a sentence where one of them is written otherwise.
    """
    if not isinstance(requests, str | Ask | list | tuple) or not requests:
        raise LessonError(f"REQUESTS is {requests!r}; it is a list such as ['GET /orders']")
    try:
        return asks_of(requests)
    except ValueError as error:
        raise LessonError(
            f"REQUESTS has one that is no request, as 'GET /orders': {error}"
        ) from None


class OpenSupplier(Stage):
    """A supplier on a server of its own; it never answers about :data:`HANGING`."""

    def __init__(self) -> None:
        super().__init__()
        self.partner = Supplier(latency=ms(60))
        self.partner.fault(HANGING, hang=True)
        self.url = ""

    @classmethod
    async def open(cls) -> Self:
        """Start one, in place of one that was started before; `close` stops its server."""
        supplier = cls()
        async with supplier._opening() as stack:
            server = await stack.enter_async_context(serve(supplier.partner.app))
            supplier.url = server.url
        return supplier
