"""The load generator: who sends what when, and what the report says of it."""

import asyncio
import gc
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import StreamingResponse

from looplab.lab import LessonError, load_test, show_loads, xray
from looplab.lab.load import LoadNotDone, LoadReport, Sample, asgi_sender

pytestmark = pytest.mark.anyio


def report_of(
    *seconds: float, errors: int = 0, duration: float = 1.0, peak: int | None = None
) -> LoadReport[int]:
    samples = [
        Sample(place, each, "status 500" if place < errors else "")
        for place, each in enumerate(seconds)
    ]
    return LoadReport(1, tuple(samples), duration, 0.0, peak)


class Gate:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.arrived: list[Any] = []
        self.waiting: list[asyncio.Future[None]] = []

    async def send(self, request: Any) -> None:
        self.arrived.append(request)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(answer)
        await answer

    async def until(self, arrived: int) -> None:
        while len(self.arrived) < arrived:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_client_sends_its_next_request_when_the_last_is_answered() -> None:
    gate = Gate()
    load = asyncio.create_task(load_test(gate.send, "abcd", clients=2))
    await gate.until(2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert gate.arrived == ["a", "b"]
    gate.waiting[1].set_result(None)
    await gate.until(3)
    assert gate.arrived == ["a", "b", "c"]
    gate.waiting[2].set_result(None)
    await gate.until(4)
    gate.waiting[0].set_result(None)
    gate.waiting[3].set_result(None)
    report = await load
    assert [sample.request for sample in report.samples][:2] == ["b", "c"]
    assert report.clients == 2
    assert report.failed == 0
    assert report.errors == {}


async def test_more_clients_than_requests_send_each_once() -> None:
    sent: list[int] = []

    async def send(number: int) -> None:
        sent.append(number)

    report = await load_test(send, [1, 2, 3], clients=50)
    assert sorted(sent) == [1, 2, 3]
    assert len(report.samples) == 3


async def test_clients_have_names_in_an_xray() -> None:
    async def send(_: int) -> None:
        await asyncio.sleep(0.001)

    recording = await xray(load_test(send, range(4), clients=2), show=False)
    assert recording.names[1:] == ["client 1", "client 2"]
    assert recording.peak_in_flight("client 1", "client 2") == 2
    assert len(recording.result.samples) == 4


async def test_failures_are_counted_by_reason_and_the_load_goes_on() -> None:
    async def send(number: int) -> Any:
        if number == 1:
            raise OSError("no route")
        return SimpleNamespace(status_code={2: 500, 3: 404}.get(number, 200))

    report = await load_test(send, range(6), clients=1)
    assert report.errors == {"OSError": 1, "status 500": 1, "status 404": 1}
    assert report.failed == 3
    assert report.throughput == pytest.approx(3 / report.duration)
    assert [sample.error for sample in report.samples][:2] == ["", "OSError"]


async def test_an_answer_without_a_status_is_no_failure() -> None:
    async def send(number: int) -> Any:
        return SimpleNamespace(status_code="unknown") if number else None

    assert (await load_test(send, range(2), clients=1)).failed == 0


async def test_a_load_that_hangs_is_ended_and_says_how_far_it_came() -> None:
    ended: list[str] = []

    async def send(number: int) -> None:
        if number:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")

    with pytest.raises(LoadNotDone, match="1 of 2 requests") as raised:
        await load_test(send, range(2), clients=1, limit=0.05)
    assert isinstance(raised.value, LessonError)
    assert ended == ["cancelled"]


async def test_a_timeout_of_the_services_own_is_a_failure_not_the_limit() -> None:
    async def send(_: int) -> None:
        raise TimeoutError

    assert (await load_test(send, [1], clients=1)).errors == {"TimeoutError": 1}


async def test_cancelling_the_load_cancels_its_clients() -> None:
    gate = Gate()
    load = asyncio.create_task(load_test(gate.send, range(3), clients=3))
    await gate.until(3)
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    assert all(answer.cancelled() for answer in gate.waiting)
    assert gc.get_freeze_count() == 0


async def test_memory_counts_what_is_held_at_once() -> None:
    async def send(size: int) -> None:
        held = bytearray(size)
        await asyncio.sleep(0.001)
        del held

    report = await load_test(send, [1_000_000] * 4, clients=2, memory=True)
    assert report.peak is not None
    assert 2_000_000 <= report.peak < 3_000_000
    assert (await load_test(send, [1], clients=1)).peak is None


def test_percentiles_are_nearest_ranks() -> None:
    report = report_of(*range(1, 101))
    assert (report.p50, report.p95, report.p99) == (50, 95, 99)
    assert (report.percentile(100), report.percentile(0.1)) == (100, 1)
    assert report.mean == pytest.approx(50.5)
    few = report_of(3, 1, 2)
    assert (few.p50, few.p99) == (2, 3)


@pytest.mark.parametrize("percent", [0, -1, 100.5, float("nan")])
def test_a_percentile_out_of_range_is_refused(percent) -> None:
    with pytest.raises(ValueError, match="percent is"):
        report_of(1).percentile(percent)


async def nothing(_: Any) -> None: ...


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"requests": []}, "requests is empty"),
        ({"clients": 0}, "clients is 0"),
        ({"clients": 1.5}, "clients is 1.5"),
        ({"clients": True}, "clients is True"),
        ({"limit": 0}, "limit is 0"),
        ({"limit": float("inf")}, "limit is inf"),
    ],
)
async def test_bad_arguments_are_named(options, said) -> None:
    given: dict[str, Any] = {"requests": [1], "clients": 1, **options}
    with pytest.raises(ValueError, match=said):
        await load_test(nothing, given.pop("requests"), **given)


async def test_something_that_cannot_be_called_is_refused() -> None:
    not_a_function: Any = "send"
    with pytest.raises(TypeError, match="send is 'send'"):
        await load_test(not_a_function, [1], clients=1)


def test_a_table_of_loads(capsys) -> None:
    slow = report_of(0.1, 0.2, 0.3, 0.4, errors=1, duration=2.0)
    show_loads({"first": slow, "mended": report_of(0.01, duration=0.01)})
    shown = capsys.readouterr().out
    assert "first" in shown
    assert "2,000 ms" in shown
    assert "1.5" in shown
    assert "memory" not in shown
    show_loads({"first": slow, "counted": report_of(0.1, peak=3_000_000)})
    assert "3.0 MB" in capsys.readouterr().out
    with pytest.raises(ValueError, match="reports is empty"):
        show_loads({})


def test_a_report_tells_itself() -> None:
    told = repr(report_of(0.1, 0.2, errors=1))
    assert told == "<LoadReport: 2 requests of 1 clients in 1,000 ms, 1 failed>"


@pytest.mark.parametrize("layered", [False, True])
async def test_a_sender_tells_the_status_within_the_lifespan(layered: bool) -> None:
    running: list[FastAPI] = []

    @asynccontextmanager
    async def lifespan(app):
        running.append(app)
        yield
        running.clear()

    async def handed_on(request, call_next):
        request.state.seen = True
        return await call_next(request)

    app = FastAPI(lifespan=lifespan)
    if layered:
        app.add_middleware(BaseHTTPMiddleware, dispatch=handed_on)

    @app.post("/orders")
    async def order(request: Request) -> bytes:
        return await request.body()

    @app.get("/broken")
    async def broken() -> None:
        raise LookupError

    @app.get("/streamed")
    async def streamed() -> StreamingResponse:
        return StreamingResponse(iter("ab"), status_code=202)

    asked = [("POST", "/orders"), ("GET", "/broken"), ("GET", "/streamed"), ("GET", "/nowhere")]
    async with asyncio.timeout(30), asgi_sender(app) as send:
        assert running == [app]
        report = await load_test(send, asked, clients=1)
        assert (await send(("GET", "/streamed"))).status_code == 202
    assert running == []
    assert [sample.error for sample in report.samples] == ["", "status 500", "", "status 404"]
