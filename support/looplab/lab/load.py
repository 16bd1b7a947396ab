"""A bounded load: so many clients, so many requests, and what each of them met."""

import asyncio
import gc
import math
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from looplab.lab.answers import FIRST_ERROR, status_of
from looplab.lab.compare import milliseconds
from looplab.lab.display import show_table
from looplab.lab.errors import LessonError
from looplab.lab.memory import peak_memory
from looplab.lab.units import ms

if TYPE_CHECKING:
    from starlette.applications import Starlette

T = TypeVar("T")

LIMIT = 30_000  # milliseconds


class LoadNotDone(LessonError):
    """A load had not ended when its time was up."""


@dataclass(frozen=True, slots=True)
class Sample(Generic[T]):
    """One request of a load: how many ``seconds`` it took, and its ``error``, "" if it had none."""

    request: T
    seconds: float
    error: str


@dataclass(frozen=True, slots=True)
class LoadReport(Generic[T]):
    """What a load met. Times are in seconds.

    Attributes:
        clients: how many sent requests, each one at a time.
        samples: every request, in the order in which they ended.
        duration: from the first request to the last answer.
        cpu: processor time of the whole process meanwhile, the clients' own included.
        peak: the most memory that the process held above its start, in bytes; None if not counted.
    """

    clients: int
    samples: tuple[Sample[T], ...]
    duration: float
    cpu: float
    peak: int | None = None

    @property
    def errors(self) -> dict[str, int]:
        """How many requests failed, by reason: ``status 500``, or the exception's type."""
        return dict(Counter(sample.error for sample in self.samples if sample.error))

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return sum(self.errors.values())

    @property
    def throughput(self) -> float:
        """Requests answered without error, per second of the load."""
        return (len(self.samples) - self.failed) / self.duration

    @property
    def mean(self) -> float:
        """What a request took in the mean, failed ones included."""
        return sum(sample.seconds for sample in self.samples) / len(self.samples)

    def percentile(self, percent: float) -> float:
        """Return the time within which ``percent`` in a hundred requests ended, failed or not.

        The nearest rank: one of the measured times, the longest of all at 100. Of n requests, any
        percentile above 100 - 100 / n is the longest: a p99 needs more than a hundred to differ.

        Raises ValueError when ``percent`` is not above 0 and at most 100.
        """
        if not 0 < percent <= 100:
            raise ValueError(f"percent is {percent!r}; it must be above 0 and at most 100")
        times = sorted(sample.seconds for sample in self.samples)
        return times[math.ceil(percent / 100 * len(times)) - 1]

    @property
    def p50(self) -> float:
        """The time that half of the requests took at most."""
        return self.percentile(50)

    @property
    def p95(self) -> float:
        """The time that 95 in a hundred requests took at most."""
        return self.percentile(95)

    @property
    def p99(self) -> float:
        """The time that 99 in a hundred requests took at most."""
        return self.percentile(99)

    def __repr__(self) -> str:
        count = len(self.samples)
        return (
            f"<LoadReport: {count} requests of {self.clients} clients in "
            f"{milliseconds(self.duration)}, {self.failed} failed>"
        )


async def load_test(
    send: Callable[[T], Awaitable[Any]],
    requests: Sequence[T],
    *,
    clients: int,
    limit: float | None = None,
    memory: bool = False,
) -> LoadReport[T]:
    """Send every request once, from ``clients`` clients at once, and report what they met.

    The loop is closed: a client sends its next request when it has the answer to the last, so no
    more than ``clients`` are ever under way, and a slow service is asked less often. Requests are
    handed out in their order. Each client is a task called ``client 1`` and so on.

    A request has failed when ``send`` raises an exception, or returns something whose
    ``status_code`` is 400 or above. The load goes on. What was there before the load is kept out of
    garbage collections meanwhile: a collection costs what the load itself has made, no more.

    Args:
        send: an async function of one request; what it returns is looked at and dropped.
        requests: what to send.
        clients: how many, 1 or more.
        limit: how long the load may take in all, in seconds; 30 s, at the pace of the course,
            unless given.
        memory: whether to count memory, byte by byte: it makes everything two to four times
            slower, see `peak_memory`.

    Raises:
        ValueError: there is no request, ``clients`` is not a whole number from 1 up, or ``limit``
            is not above 0.
        TypeError: ``send`` cannot be called.
        LoadNotDone: the time was up; what was under way has been cancelled.
    """
    time_limit = ms(LIMIT) if limit is None else limit
    _check(send, requests, clients, time_limit)
    samples: list[Sample[T]] = []
    waiting = iter(requests)
    counting = peak_memory(exact=True) if memory else nullcontext()
    with counting as counted, _old_objects_at_rest():
        began, worked = perf_counter(), process_time()
        try:
            async with asyncio.timeout(time_limit) as deadline, asyncio.TaskGroup() as group:
                for number in range(1, min(clients, len(requests)) + 1):
                    one = _client(send, waiting, samples)
                    group.create_task(one, name=f"client {number}")
        except TimeoutError:
            if not deadline.expired():
                raise
            raise LoadNotDone(
                f"The load was not done after {time_limit:.3g} s: {len(samples)} of "
                f"{len(requests)} requests had ended. Something hangs, or limit is too short."
            ) from None
        duration, cpu = perf_counter() - began, process_time() - worked
    peak = None if counted is None else counted.peak
    return LoadReport(clients, tuple(samples), duration, cpu, peak)


async def _client(
    send: Callable[[T], Awaitable[Any]], waiting: Iterator[T], samples: list[Sample[T]]
) -> None:
    for request in waiting:
        began = perf_counter()
        try:
            error = _failure(await send(request))
        except Exception as raised:
            error = type(raised).__name__
        samples.append(Sample(request, perf_counter() - began, error))


def _failure(answer: Any) -> str:
    status = status_of(answer)
    return f"status {status}" if status is not None and status >= FIRST_ERROR else ""


@contextmanager
def _old_objects_at_rest() -> Generator[None]:
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _check(send: Any, requests: Any, clients: Any, limit: Any) -> None:
    if not callable(send):
        raise TypeError(f"send is {send!r}; it must be an async function of one request")
    if not len(requests):
        raise ValueError("requests is empty; give at least one request to send")
    if isinstance(clients, bool) or not (isinstance(clients, int) and clients >= 1):
        raise ValueError(f"clients is {clients!r}; it must be a whole number, 1 or more")
    if not (math.isfinite(limit) and limit > 0):
        raise ValueError(f"limit is {limit!r}; it must be above 0, in seconds")


@dataclass(slots=True)
class Answer:
    """What `asgi_sender` keeps of an answer: 500 where the app raised before it had begun one."""

    status_code: int = 500


@asynccontextmanager
async def asgi_sender(
    app: "Starlette",
) -> AsyncGenerator[Callable[[tuple[str, str]], Awaitable[Answer]]]:
    """Run ``app`` in this process, with its lifespan around it, and yield ``send``, for a load.

    ``await send(("GET", "/home"))`` answers with an object that has a ``status_code``, and nothing
    else. A load generator shares the processor with what it measures here, so this one calls the
    app itself: it makes no request and response objects, as an httpx client would. The request has
    no body. What the app raises while it answers is dropped, as a server does.
    """

    async def send(asked: tuple[str, str]) -> Answer:
        answer = Answer()
        with suppress(Exception):
            await _call(app, *asked, answer)
        return answer

    async with app.router.lifespan_context(app):
        yield send


async def _call(app: "Starlette", method: str, path: str, answer: Answer) -> None:
    unread, answered = True, asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal unread
        if unread:
            unread = False
            return {"type": "http.request", "body": b"", "more_body": False}
        await answered.wait()
        return {"type": "http.disconnect"}

    async def respond(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status_code = message["status"]
        elif not message.get("more_body"):
            answered.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"shop.test")],
        "client": ("127.0.0.1", 1),
        "server": ("shop.test", 80),
        "state": {},
    }
    await app(scope, receive, respond)


def show_loads(reports: Mapping[str, LoadReport[Any]]) -> None:
    """Show a table of loads by name: time, answers a second, percentiles, errors.

    Where memory was counted, a column more: the peak, in megabytes.

    Raises ValueError when there is none to show.
    """
    if not reports:
        raise ValueError("reports is empty; give at least one report, by name")
    headers = ["", "took", "answers/s", "p50", "p95", "p99", "errors"]
    rows = [
        [
            name,
            milliseconds(report.duration),
            f"{report.throughput:.3g}",
            *(milliseconds(report.percentile(percent)) for percent in (50, 95, 99)),
            str(report.failed),
        ]
        for name, report in reports.items()
    ]
    peaks = [report.peak for report in reports.values()]
    if any(peak is not None for peak in peaks):
        headers.append("peak memory")
        for row, peak in zip(rows, peaks, strict=True):
            row.append("" if peak is None else f"{peak / 1e6:.1f} MB")
    show_table(headers, rows)
