"""Who answers what, and who holds the loop: an x-ray of each kind of endpoint, served and called.

Each app is made by hand so that one thing happens in it. What blocks does so for ``LONG`` and is
looked for at ``HELD``: a machine that is busy makes steps longer, never shorter.
"""

import asyncio
import re
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import BackgroundTasks, Depends, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware
from websockets.asyncio.client import connect

from looplab.lab.announce import announced
from looplab.lab.clients import get, in_process, post, serve
from looplab.lab.recording import Lane, Recording
from looplab.lab.rows import rows_of
from looplab.lab.telling import describe
from looplab.lab.units import ms
from looplab.lab.xray import xray

pytestmark = pytest.mark.anyio

LONG, HELD = ms(60), ms(40)
UNTOLD = {"__call__", "dispatch", "coro", "run_asgi", "get", "wrap", "call_next"}
"""What tells a reader nothing; lanes and waits used to be called so."""
WAIT = 10
"""Seconds after which something that has to happen has not."""


@dataclass
class Shop:
    """An app with an endpoint of each kind; ``done`` tells that the work after an answer is."""

    app: FastAPI = field(default_factory=FastAPI)
    done: threading.Event = field(default_factory=threading.Event)


def a_shop() -> Shop:
    shop = Shop()
    app = shop.app

    @app.get("/blocking")
    async def blocking() -> None:
        time.sleep(LONG)  # noqa: ASYNC251

    @app.get("/threaded")
    def plain() -> None:
        time.sleep(LONG)

    @app.get("/awaits")
    async def awaits() -> None:
        await asyncio.sleep(0)

    async def current_user() -> None:
        await asyncio.sleep(0)

    @app.get("/private", dependencies=[Depends(current_user)])
    async def private() -> None:
        time.sleep(LONG)  # noqa: ASYNC251

    def session() -> Iterator[None]:
        yield

    @app.get("/session", dependencies=[Depends(session)])
    async def with_session() -> None:
        await asyncio.sleep(0)

    async def later() -> None:
        await asyncio.sleep(0)
        time.sleep(LONG)  # noqa: ASYNC251
        shop.done.set()

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> None:
        tasks.add_task(later)

    def later_in_a_thread() -> None:
        time.sleep(LONG)
        shop.done.set()

    @app.get("/background-thread")
    async def background_thread(tasks: BackgroundTasks) -> None:
        tasks.add_task(later_in_a_thread)

    @app.get("/rows")
    async def plain_rows() -> StreamingResponse:
        def rows() -> Iterator[str]:
            for _ in range(2):
                time.sleep(LONG / 2)
                yield "row"

        return StreamingResponse(rows())

    @app.get("/hasty-rows")
    async def hasty_rows() -> StreamingResponse:
        async def rows() -> AsyncIterator[str]:
            for _ in range(2):
                time.sleep(LONG)  # noqa: ASYNC251
                yield "row"

        return StreamingResponse(rows())

    @app.get("/users/{user}/orders/{order}")
    async def order(user: int, order: int) -> None:
        await asyncio.sleep(0)

    @app.get("/fails")
    async def fails() -> None:
        time.sleep(LONG)  # noqa: ASYNC251
        raise LookupError

    @app.websocket("/chat")
    async def chat(socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive_text()
        time.sleep(LONG)  # noqa: ASYNC251
        await socket.send_text("heard")
        await socket.close()

    return shop


Ask = Callable[..., Awaitable[Recording]]


async def served(app: Any, *paths: str, done: threading.Event | None = None) -> Recording:
    """X-ray a server on its own loop while a client asks for ``paths``, one after another."""
    async with serve(app) as server, server.client() as client:
        await client.get("/not-there")  # opens the connection and loads what loads late

        async def ask() -> None:
            for path in paths:
                await client.get(path)
            if done is not None:
                assert await asyncio.to_thread(done.wait, WAIT)

        return await xray(ask(), server=server, held=HELD, show=False)


async def called(app: Any, *paths: str, done: threading.Event | None = None) -> Recording:
    """X-ray a client that asks the app in this process for ``paths``, each in a task."""
    async with in_process(app, raise_errors=False) as client:
        await client.get("/not-there")

        async def ask() -> None:
            for path in paths:
                await asyncio.create_task(client.get(path))

        return await xray(ask(), held=HELD, show=False)


@pytest.fixture(params=[served, called], ids=["served", "in process"])
def ask(request: pytest.FixtureRequest) -> Ask:
    return request.param


def lane_of(recording: Recording, name: str) -> Lane:
    """Return the one drawn lane so called."""
    (lane,) = [lane for lane in recording.tasks if lane.name == name]
    return lane


def red(recording: Recording) -> set[str]:
    """Return the labels of the rows of the picture that have red in them."""
    return {row.label for row in rows_of(recording) if row.held}


def holds_after(recording: Recording, name: str, moment: float) -> bool:
    """Return whether the lane so called held the loop for ``LONG`` after ``moment``."""
    return any(
        hold.name == name and hold.duration >= LONG and hold.began > moment
        for hold in recording.holds
    )


def labels(recording: Recording) -> set[str]:
    return {row.label for row in rows_of(recording)}


# What holds the loop.


@pytest.mark.parametrize("path", ["/blocking", "/private", "/hasty-rows", "/fails"])
async def test_what_blocks_is_red_in_the_lane_of_its_request(ask: Ask, path: str) -> None:
    recording = await ask(a_shop().app, path)
    lane = lane_of(recording, f"GET {path}")
    assert lane.request == f"GET {path}"
    assert f"GET {path}" in red(recording)
    assert max(hold.duration for hold in recording.holds if hold.name == lane.name) >= LONG
    assert "longest" in describe(recording)
    longest = max(recording.holds, key=lambda hold: hold.duration)
    assert describe(recording).partition(" by ")[2].startswith(longest.name)
    assert not UNTOLD & labels(recording)


async def test_an_endpoint_that_only_awaits_has_its_lane_too(ask: Ask) -> None:
    recording = await ask(a_shop().app, "/awaits", "/private")
    assert {"GET /awaits", "GET /private"} <= set(recording.names)
    assert recording.waits("awaits")
    assert not (UNTOLD | {"current_user"}) & set(recording.names)


async def test_ids_are_left_out_as_in_the_labs_own_names(ask: Ask) -> None:
    recording = await ask(a_shop().app, "/users/7/orders/9?more=1")
    assert "GET /users/…/orders" in recording.names


async def test_a_mounted_app_answers_under_its_whole_path(ask: Ask) -> None:
    whole = FastAPI()
    whole.mount("/shop", a_shop().app)
    recording = await ask(whole, "/shop/blocking")
    assert "GET /shop/blocking" in red(recording)
    assert not UNTOLD & labels(recording)


# Threads.


async def test_a_def_endpoint_waits_for_a_thread_and_does_not_hold_the_loop(ask: Ask) -> None:
    recording = await ask(a_shop().app, "/threaded")
    lane = lane_of(recording, "GET /threaded")
    ((began, ended),) = lane.spans("thread: plain")
    assert ended - began >= LONG
    assert lane.began <= began <= ended <= lane.until
    assert "thread: plain" in labels(recording)
    free = max(after[0] - before[1] for before, after in pairwise(lane.steps))
    assert free >= LONG / 2  # the loop was others' meanwhile


async def test_a_plain_dependency_waits_for_a_thread(ask: Ask) -> None:
    recording = await ask(a_shop().app, "/session")
    waits = recording.waits("thread: session")
    assert len(waits) == 2  # one to begin it, one to end it
    assert "GET /session" in recording.names


async def test_a_plain_generator_waits_for_a_thread_for_each_of_its_chunks(ask: Ask) -> None:
    recording = await ask(a_shop().app, "/rows")
    assert "GET /rows" in recording.names
    assert "thread: rows" in labels(recording)
    waits = recording.waits("thread: rows")
    assert sum(ended - began for began, ended in waits) >= LONG
    assert not UNTOLD & labels(recording)


async def test_gathered_thread_calls_are_named_by_what_they_run() -> None:
    def report() -> None: ...
    def invoice(number: int) -> None: ...

    async def both() -> None:
        await asyncio.gather(asyncio.to_thread(report), asyncio.to_thread(invoice, 7))

    recording = await xray(both(), show=False)
    assert recording.names == ["both", "thread: report", "thread: invoice"]


# After the answer.


@pytest.mark.parametrize("path", ["/background", "/background-thread"])
async def test_the_lane_goes_on_after_the_answer_for_a_background_task(ask: Ask, path: str) -> None:
    shop = a_shop()
    recording = await ask(shop.app, path, done=shop.done)
    lane = lane_of(recording, f"GET {path}")
    assert lane.answered is not None
    assert lane.began < lane.answered
    assert lane.after_answer == lane.until - lane.answered >= LONG
    (row,) = [row for row in rows_of(recording) if row.label == lane.name]
    assert [mark.at for mark in row.marks if mark.text == "answered"] == [lane.answered]
    assert "1 going on after the answer" in describe(recording)
    if path == "/background":
        assert holds_after(recording, lane.name, lane.answered)
    else:
        ((began, _),) = lane.spans("thread: later_in_a_thread")
        assert began > lane.answered


async def test_an_endpoint_without_background_work_ends_with_its_answer(ask: Ask) -> None:
    recording = await ask(a_shop().app, "/blocking")
    lane = lane_of(recording, "GET /blocking")
    assert lane.answered is not None
    assert lane.began + LONG < lane.answered <= lane.until
    assert "after the answer" not in describe(recording)


async def test_a_stream_is_answered_with_its_last_chunk(ask: Ask) -> None:
    lane = lane_of(await ask(a_shop().app, "/hasty-rows"), "GET /hasty-rows")
    assert lane.answered is not None
    assert lane.began + 2 * LONG <= lane.answered <= lane.until


async def test_an_app_that_asks_another_one_afterwards_is_not_answered_by_it(ask: Ask) -> None:
    partner, app, done = a_shop().app, FastAPI(), threading.Event()

    async def ask_partner() -> None:
        time.sleep(LONG)  # noqa: ASYNC251
        async with in_process(partner) as client:
            await client.get("/awaits")
        done.set()

    @app.get("/awaits")
    async def awaits(tasks: BackgroundTasks) -> None:
        tasks.add_task(ask_partner)

    lane = lane_of(await ask(app, "/awaits", done=done), "GET /awaits")
    assert lane.answered is not None
    assert lane.until - lane.answered >= LONG


# Middleware.


class Timing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        return await call_next(request)


class Pure:
    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        await self.app(scope, receive, send)


@pytest.mark.parametrize("path", ["/blocking", "/private", "/hasty-rows"])
async def test_what_blocks_inside_the_base_class_is_red_in_a_lane_that_says_so(
    ask: Ask, path: str
) -> None:
    app = a_shop().app
    app.add_middleware(Timing)

    @app.middleware("http")
    async def with_header(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    recording = await ask(app, path)
    name = f"GET {path}"
    lanes = {lane.name: lane.depth for lane in recording.tasks if lane.request == name}
    outer, middle, inner = name, f"{name} inside with_header", f"{name} inside Timing"
    assert list(lanes) == [outer, middle, inner]
    assert lanes[outer] < lanes[middle] < lanes[inner]
    assert inner in red(recording)
    assert max(hold.duration for hold in recording.holds if hold.name == inner) >= LONG
    assert not UNTOLD & labels(recording)


async def test_the_moment_of_the_answer_is_known_behind_the_base_class(ask: Ask) -> None:
    shop = a_shop()
    shop.app.add_middleware(Timing)
    recording = await ask(shop.app, "/background", done=shop.done)
    lane = lane_of(recording, "GET /background")
    assert lane.answered is not None
    assert holds_after(recording, "GET /background inside Timing", lane.answered)


async def test_pure_asgi_layers_leave_the_lane_its_name(ask: Ask) -> None:
    recording = await ask(Pure(Pure(a_shop().app)), "/blocking", "/awaits")
    assert "GET /blocking" in red(recording)
    assert "GET /awaits" in recording.names
    assert not UNTOLD & labels(recording)


# WebSockets.


@pytest.mark.parametrize("layer", [None, Pure, Timing])
async def test_a_served_web_socket_has_a_lane(layer: Any) -> None:
    app: Any = a_shop().app
    async with serve(app if layer is None else layer(app), ws="websockets-sansio") as server:

        async def talk() -> str | bytes:
            async with connect(server.url.replace("http", "ws") + "/chat", proxy=None) as socket:
                await socket.send("hello")
                return await socket.recv()

        recording = await xray(talk(), server=server, held=HELD, show=False)
    assert recording.result == "heard"
    lane = lane_of(recording, "WS /chat")
    assert lane.loop == 1
    assert "WS /chat" in red(recording)
    assert max(hold.duration for hold in recording.holds if hold.name == "WS /chat") >= LONG
    assert not UNTOLD & labels(recording)


async def test_a_web_socket_that_is_called_in_process_has_a_lane() -> None:
    scope = {"type": "websocket", "path": "/chat", "headers": [], "query_string": b""}
    said = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}]
    heard: list[Any] = []

    async def receive() -> Any:
        return said.pop(0)

    async def send(message: Any) -> None:
        heard.append(message)

    async def talk() -> None:
        await asyncio.create_task(a_shop().app(scope, receive, send))

    recording = await xray(talk(), held=HELD, show=False)
    assert "heard" in [message.get("text") for message in heard]
    assert recording.names == ["talk", "WS /chat"]
    assert "WS /chat" in red(recording)


# Clients of all kinds.


async def test_gathered_calls_of_a_client_are_named_after_their_requests() -> None:
    async with in_process(a_shop().app) as client:

        async def page() -> None:
            await asyncio.gather(
                client.get("/awaits"),
                client.request("GET", "/threaded"),
                client.post("awaits", json={}),
                client.send(client.build_request("DELETE", "/users/7/orders/9")),
            )

        recording = await xray(page(), show=False)
    assert recording.names == [
        "page", "GET /awaits", "GET /threaded", "POST /awaits", "DELETE /users/…/orders",
    ]  # fmt: skip
    assert all(lane.answered is not None for lane in recording.tasks[1:])


async def test_a_client_with_a_transport_of_ones_own_has_the_same_lanes() -> None:
    transport = httpx.ASGITransport(app=a_shop().app)
    async with httpx.AsyncClient(transport=transport, base_url="http://own.test/") as client:

        async def page() -> None:
            await asyncio.gather(client.get("/awaits"), client.get("/blocking"))

        recording = await xray(page(), held=HELD, show=False)
    assert recording.names == ["page", "GET /awaits", "GET /blocking"]
    assert "GET /blocking" in red(recording)


async def test_the_labs_own_calls_have_the_same_lanes() -> None:
    app = a_shop().app

    async def page() -> None:
        await asyncio.gather(get(app, "/awaits"), post(app, "/awaits", json={}))

    recording = await xray(page(), show=False)
    assert recording.names == ["page", "GET /awaits", "POST /awaits"]
    assert [lane.request for lane in recording.tasks] == ["", "GET /awaits", "POST /awaits"]
    assert all(lane.answered is not None for lane in recording.tasks[1:])


async def test_one_call_that_is_x_rayed_titles_the_picture_too() -> None:
    async with in_process(a_shop().app) as client:
        recording = await xray(client.get("/awaits"), show=False)
    assert (recording.title, recording.names) == ("GET /awaits", ["GET /awaits"])
    # "answered after", unless a busy machine lets the request end much later than its answer
    assert re.match(r"GET /awaits: 1 task\b.* (answered|done) after", describe(recording))


async def test_a_coroutine_of_ours_keeps_its_name_whatever_it_asks_for() -> None:
    app = a_shop().app
    app.add_middleware(Timing)
    async with in_process(app) as client:

        async def visit() -> None:
            for path in ("/awaits", "/private"):
                await client.get(path)

        async def visits() -> None:
            await asyncio.gather(visit(), visit())

        recording = await xray(visits(), show=False)
    own = [lane.name for lane in recording.tasks if not lane.request]
    assert own == ["visits", "visit", "visit"]
    inside = {lane.name for lane in recording.tasks if lane.request}
    assert inside == {"GET /awaits inside Timing", "GET /private inside Timing"}


async def test_a_name_given_to_a_task_wins() -> None:
    async with in_process(a_shop().app) as client:

        async def page() -> None:
            await asyncio.create_task(client.get("/awaits"), name="ada")

        recording = await xray(page(), show=False)
    assert recording.names == ["page", "ada"]
    assert recording.tasks[1].request == "GET /awaits"


async def test_the_one_coroutine_that_a_named_task_waits_in_is_told() -> None:
    async def fetch_rate() -> None:
        await asyncio.sleep(0)

    async def prices() -> None:
        async with asyncio.TaskGroup() as group:
            for number in (1, 2):
                group.create_task(fetch_rate_of(), name=f"client {number}")

    async def fetch_rate_of() -> None:
        await fetch_rate()

    recording = await xray(prices(), show=False)
    assert [row.label for row in rows_of(recording)] == [
        "prices", "client 1", "fetch_rate", "client 2", "fetch_rate",
    ]  # fmt: skip


async def test_clients_over_a_socket_have_a_lane_and_so_has_the_server() -> None:
    async with serve(a_shop().app) as server, server.client() as client:

        async def page() -> None:
            await asyncio.gather(client.get("/awaits"), client.get("/threaded"))

        recording = await xray(page(), server=server, show=False)
    found = sorted((lane.loop, lane.name) for lane in recording.tasks)
    names = ["GET /awaits", "GET /threaded"]
    assert found == [*((0, name) for name in (*names, "page")), *((1, name) for name in names)]
    assert [lane.answered is not None for lane in recording.tasks if lane.loop] == [True, True]


async def test_a_server_that_the_lab_does_not_run_has_named_lanes_too() -> None:
    config = uvicorn.Config(
        a_shop().app, port=0, log_config=None, access_log=False, lifespan="off", ws="none"
    )
    server = uvicorn.Server(config)

    @asynccontextmanager
    async def running() -> AsyncGenerator[httpx.AsyncClient]:
        task = asyncio.create_task(server.serve(), name="server")
        async with asyncio.timeout(WAIT):
            while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
                await asyncio.sleep(ms(1))
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", trust_env=False
            ) as client:
                yield client
        finally:
            server.should_exit = True
            await task

    async def main() -> None:
        async with running() as client:
            await client.get("/blocking")

    recording = await xray(main(), held=HELD, show=False)
    lane = lane_of(recording, "GET /blocking")
    assert "GET /blocking" in red(recording)
    assert lane.answered is None  # nobody told


SERVER = """
async def handle(call, done):
    try:
        await call()
    finally:
        done()

def begin(loop, call, done):
    loop.call_soon(lambda: loop.create_task(handle(call, done)))
"""


async def test_a_server_whose_tasks_say_nothing_is_told_of_the_request_by_the_app() -> None:
    """What a server's function gets is not always a scope; the lab's apps tell who calls them."""
    names: dict[str, Any] = {}
    exec(compile(SERVER, asyncio.__file__.replace("asyncio", "someserver"), "exec"), names)
    app, ended = announced(a_shop().app), asyncio.Event()
    scope = {
        "type": "http", "method": "GET", "path": "/blocking", "headers": [], "query_string": b"",
    }  # fmt: skip

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None: ...

    async def main() -> None:
        loop = asyncio.get_running_loop()
        names["begin"](loop, lambda: app(scope, receive, send), ended.set)
        await ended.wait()

    recording = await xray(main(), held=HELD, show=False)
    lane = lane_of(recording, "GET /blocking")
    assert "GET /blocking" in red(recording)
    assert lane.answered is not None


async def test_eager_tasks_have_the_same_names() -> None:
    eager = getattr(asyncio, "eager_task_factory", None)
    if eager is None:
        pytest.skip("eager tasks came with Python 3.12")
    loop = asyncio.get_running_loop()
    loop.set_task_factory(eager)
    try:
        recording = await called(Timing(a_shop().app), "/blocking", "/threaded")
        assert loop.get_task_factory() is eager
    finally:
        loop.set_task_factory(None)
    assert recording.names == [
        "ask",
        "GET /blocking", "GET /blocking inside Timing",
        "GET /threaded", "GET /threaded inside Timing",
    ]  # fmt: skip
    assert "GET /blocking inside Timing" in red(recording)


# What a picture is like without the request: nothing of it is left behind.


async def test_an_app_answers_as_ever_without_an_x_ray_and_under_one(ask: Ask) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError
        seen.append((scope["path"], (await receive())["type"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        await send({"type": "http.response.body", "body": b"2"})

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://own.test"
    ) as client:
        assert (await client.get("/")).text == "12"
    assert (await get(app, "/plain")).text == "12"
    recording = await xray(get(app, "/x-rayed"), show=False)
    assert recording.result.text == "12"
    assert [path for path, kind in seen if kind == "http.request"] == ["/", "/plain", "/x-rayed"]
