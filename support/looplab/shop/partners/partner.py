"""A service with knobs: what every partner of the shop is made of."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Final, TypedDict

import httpx
from fastapi import FastAPI, HTTPException, Request

from looplab.shop import checks

DEGRADATION: Final = 2.0


class Knobs(TypedDict, total=False):
    """The knobs of a `Partner`, where they are described."""

    latency: float
    jitter: float
    failure_rate: float
    failure_status: int
    hang: bool
    degrade_above: int | None
    degradation: float
    seed: int


@dataclass(frozen=True)
class Fault:
    """What befalls the calls about one subject, in place of the partner's own knobs.

    Attributes:
        latency: seconds; None keeps the partner's latency and jitter.
        failure: every such call fails.
        hang: no such call is answered.
    """

    latency: float | None = None
    failure: bool = False
    hang: bool = False

    def __post_init__(self) -> None:
        if self.latency is not None:
            checks.seconds("latency", self.latency)
        checks.flag("failure", self.failure)
        checks.flag("hang", self.hang)


class Partner:
    """A service with knobs and counters. Knobs may be set at any time, also while calls are made.

    Attributes:
        name: what it is called in its error messages.
        app: the FastAPI app.
        faults: `Fault`s by subject: what a call is about (an address, an index, an order, a SKU).
    """

    def __init__(
        self,
        name: str,
        *,
        latency: float = 0.0,
        jitter: float = 0.0,
        failure_rate: float = 0.0,
        failure_status: int = 503,
        hang: bool = False,
        degrade_above: int | None = None,
        degradation: float = DEGRADATION,
        seed: int = 0,
    ) -> None:
        """Make the service; the knobs are described at the properties of the same names.

        Raises:
            TypeError, ValueError: a knob is of the wrong type or out of range.
        """
        self.name = name
        self.faults: dict[str, Fault] = {}
        self._lock = threading.Lock()
        self._hanging: dict[asyncio.Timeout, asyncio.AbstractEventLoop] = {}
        self._seed = checks.count("seed", seed)
        self._random = random.Random(self._seed)
        self._in_flight = 0
        self.latency = latency
        self.jitter = jitter
        self.failure_rate = failure_rate
        self.failure_status = failure_status
        self.hang = hang
        self.degrade_above = degrade_above
        self.degradation = degradation
        self.reset()
        self.app = FastAPI(title=name, lifespan=self._lifespan)

    @property
    def latency(self) -> float:
        """Seconds before each answer."""
        return self._latency

    @latency.setter
    def latency(self, value: float) -> None:
        self._latency = checks.seconds("latency", value)

    @property
    def jitter(self) -> float:
        """Up to this many seconds more, drawn evenly for each call."""
        return self._jitter

    @jitter.setter
    def jitter(self, value: float) -> None:
        self._jitter = checks.seconds("jitter", value)

    @property
    def failure_rate(self) -> float:
        """The share of calls, 0 to 1, that fail (after their latency)."""
        return self._failure_rate

    @failure_rate.setter
    def failure_rate(self, value: float) -> None:
        self._failure_rate = checks.share("failure_rate", value)

    @property
    def failure_status(self) -> int:
        """The HTTP status of a failure, 400 to 599."""
        return self._failure_status

    @failure_status.setter
    def failure_status(self, value: int) -> None:
        self._failure_status = checks.count("failure_status", value, at_least=400, at_most=599)

    @property
    def hang(self) -> bool:
        """Whether calls are not answered at all; setting it to False answers those that hang."""
        return self._hang

    @hang.setter
    def hang(self, value: bool) -> None:
        self._hang = checks.flag("hang", value)
        if not value:
            self.release()

    @property
    def degrade_above(self) -> int | None:
        """How many calls at once are served at full speed; None is any number.

        A call that arrives as the n-th in flight, n above this, takes
        `(n / degrade_above) ** degradation` times as long.
        """
        return self._degrade_above

    @degrade_above.setter
    def degrade_above(self, value: int | None) -> None:
        if value is not None:
            checks.count("degrade_above", value, at_least=1)
        self._degrade_above = value

    @property
    def degradation(self) -> float:
        """The exponent of `degrade_above`: at 1 throughput stays level, above 1 it falls."""
        return self._degradation

    @degradation.setter
    def degradation(self, value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"degradation={value!r}: must be a number from 0 to 10")
        if not 0 <= value <= 10:
            raise ValueError(f"degradation={value!r}: must be a number from 0 to 10")
        self._degradation = float(value)

    @property
    def calls(self) -> int:
        """Calls that have arrived since the last reset."""
        return sum(self._calls_by_path.values())

    @property
    def calls_by_path(self) -> dict[str, int]:
        """Calls that have arrived since the last reset, by path."""
        return dict(self._calls_by_path)

    @property
    def arrivals(self) -> list[float]:
        """When each call arrived since the last reset, by `time.perf_counter()`, in order."""
        return list(self._arrivals)

    @property
    def in_flight(self) -> int:
        """Calls that have arrived and are not answered yet."""
        return self._in_flight

    @property
    def peak_in_flight(self) -> int:
        """The most calls in flight at once since the last reset."""
        return self._peak_in_flight

    @property
    def failures(self) -> int:
        """Calls failed by a knob or a fault since the last reset."""
        return self._failures

    @property
    def abandoned(self) -> int:
        """Calls that were cancelled, or whose caller left while they hung, since the last reset."""
        return self._abandoned

    def reset(self) -> None:
        """Count from 0 again and start the random sequence anew; knobs and faults stay."""
        with self._lock:
            self._calls_by_path: Counter[str] = Counter()
            self._arrivals: list[float] = []
            self._peak_in_flight = self._in_flight
            self._failures = 0
            self._abandoned = 0
            self._random.seed(self._seed)

    def fault(
        self,
        subject: str,
        *,
        latency: float | None = None,
        failure: bool = False,
        hang: bool = False,
    ) -> None:
        """Make calls about `subject` slow, failing or hanging: `mailer.fault("a@b.c", hang=True)`.

        A later fault takes the place of the earlier one; `faults.clear()` ends them all.

        Raises:
            TypeError, ValueError: `latency` is not a number of seconds, or a flag is not a bool.
        """
        self.faults[subject] = Fault(latency=latency, failure=failure, hang=hang)

    def release(self) -> None:
        """Answer the calls that hang now. May be called from any thread."""
        for limit, loop in list(self._hanging.items()):
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._release, limit, loop)

    def _release(self, limit: asyncio.Timeout, loop: asyncio.AbstractEventLoop) -> None:
        if limit in self._hanging:
            limit.reschedule(loop.time())

    @asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncGenerator[None]:
        yield
        self.release()

    @contextmanager
    def _call(self, request: Request, subject: str) -> Generator[Call]:
        fault = self.faults.get(subject, Fault())
        with self._lock:
            self._calls_by_path[request.url.path] += 1
            self._arrivals.append(perf_counter())
            self._in_flight += 1
            self._peak_in_flight = max(self._peak_in_flight, self._in_flight)
            # Both are drawn for every call, so that one knob does not shift what another does.
            lateness, luck = self._random.random(), self._random.random()
            delay = self._delay(lateness, self._in_flight)
        call = Call(
            partner=self,
            request=request,
            delay=delay if fault.latency is None else fault.latency,
            fails=fault.failure or luck < self._failure_rate,
            hangs=fault.hang or self._hang,
        )
        try:
            yield call
        except (asyncio.CancelledError, _CallerLeftError):
            with self._lock:
                self._abandoned += 1
            raise
        finally:
            with self._lock:
                self._in_flight -= 1

    def latency_at(self, in_flight: int) -> float:
        """Return the seconds that a call takes with `in_flight` under way, jitter aside."""
        return self._latency * self._slowed(in_flight)

    def _slowed(self, in_flight: int) -> float:
        if self._degrade_above is None or in_flight <= self._degrade_above:
            return 1.0
        return (in_flight / self._degrade_above) ** self._degradation

    def _delay(self, lateness: float, in_flight: int) -> float:
        return (self._latency + self._jitter * lateness) * self._slowed(in_flight)

    def _failure(self) -> HTTPException:
        with self._lock:
            self._failures += 1
        return HTTPException(self._failure_status, f"{self.name} is unavailable")


def in_this_process(partner: Partner, url: str = "http://partner") -> httpx.AsyncClient:
    """Return a client that calls the partner's app without a socket. It holds nothing open.

    Paths are relative to `url`, which errors name too.
    """
    return httpx.AsyncClient(transport=httpx.ASGITransport(partner.app), base_url=url)


class _CallerLeftError(HTTPException):
    """Nobody reads this answer; 499 is what nginx logs for it."""

    def __init__(self) -> None:
        super().__init__(499, "the caller left")


@dataclass(frozen=True)
class Call:
    """One call that has arrived: await `wait()`, then `check()`, then answer it."""

    partner: Partner
    request: Request
    delay: float
    fails: bool
    hangs: bool

    # Not a coroutine, so that a wait is seen under the endpoint's own name.
    def wait(self) -> Awaitable[None]:
        """Return what to await before answering."""
        return hang(self) if self.hangs else asyncio.sleep(self.delay)

    def check(self) -> None:
        """Raise `HTTPException` with the partner's `failure_status` if this call is to fail."""
        if self.fails:
            raise self.partner._failure()


async def hang(call: Call) -> None:
    """Return when the partner is released.

    Raises:
        HTTPException: the caller has left, so that nobody reads the answer (a real server only;
            in process, leaving is cancellation).
    """
    hanging = call.partner._hanging
    try:
        async with asyncio.timeout(None) as limit:
            hanging[limit] = asyncio.get_running_loop()
            try:
                while (await call.request.receive())["type"] != "http.disconnect":
                    pass
            finally:
                del hanging[limit]
    except TimeoutError:
        return
    raise _CallerLeftError
