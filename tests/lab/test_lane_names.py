"""What a library's coroutine says about the request it is for, and a wait about its thread."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import anyio.to_process
import httpx
import pytest

from looplab.lab.lane_names import is_elsewhere, is_request, request_in, request_of, work_of
from looplab.lab.our_code import is_ours

AN_ID = "7d3ea1c6-1d5f-4b0a-9c0e-2f1f6a8b9c0d"


@contextmanager
def unstarted(coroutine: Any) -> Generator[Any]:
    """Close a coroutine that is only looked at."""
    try:
        yield coroutine
    finally:
        coroutine.close()


def http(path: str, method: str = "GET") -> dict[str, Any]:
    return {"type": "http", "method": method, "path": path}


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        (http("/orders"), "GET /orders"),
        (http("/orders/7", "DELETE"), "DELETE /orders"),
        (http(f"/users/{AN_ID}/orders/7"), "GET /users/…/orders"),
        (http(f"/users/{AN_ID.replace('-', '')}"), "GET /users"),
        (http("/"), "GET /"),
        (http("/stock/SKU-7"), "GET /stock/SKU-7"),
        ({"type": "websocket", "path": "/chat/7"}, "WS /chat"),
        ({"type": "lifespan"}, ""),
        ({"type": "http"}, ""),
        ({"path": "/orders"}, ""),
        ("/orders", ""),
        (None, ""),
    ],
)
def test_a_scope_is_named_by_its_method_and_path(scope: Any, name: str) -> None:
    assert request_in(scope) == name


@pytest.mark.parametrize(
    ("name", "whether"),
    [("GET /orders", True), ("WS /", True), ("orders", False), ("get /x", False), ("A/B", False)],
)
def test_a_request_is_told_from_other_names(name: str, whether: bool) -> None:
    assert is_request(name) is whether


class Cycle:
    """What uvicorn has for each request and each WebSocket."""

    def __init__(self, scope: Any) -> None:
        self.scope = scope

    async def run_asgi(self, app: Any) -> None: ...


async def app(scope: Any, receive: Any, send: Any) -> None: ...


class Layer:
    """A middleware that runs the rest of the app in a task, by a function inside its own."""

    def __init__(self, dispatch: Any = None) -> None:
        self.dispatch_func = dispatch

    def rest_of(self, scope: Any) -> Coroutine[Any, Any, Any]:
        async def coro() -> Any:
            return self, scope

        return coro()


async def with_header() -> None: ...


@pytest.mark.parametrize(
    ("coroutine", "request_and_inside"),
    [
        (lambda: Cycle(http("/orders")).run_asgi(None), ("GET /orders", "")),
        (lambda: Cycle({"type": "websocket", "path": "/chat"}).run_asgi(None), ("WS /chat", "")),
        (lambda: Cycle({"type": "lifespan"}).run_asgi(None), ("", "")),
        (lambda: app(http("/orders"), None, None), ("GET /orders", "")),
        (lambda: Layer().rest_of(http("/orders")), ("GET /orders", "Layer")),
        (lambda: Layer(with_header).rest_of(http("/orders")), ("GET /orders", "with_header")),
        (lambda: Layer(Layer().rest_of).rest_of(http("/orders")), ("GET /orders", "Layer")),
        (lambda: asyncio.sleep(0), ("", "")),
    ],
)
def test_a_task_of_a_server_or_a_middleware_is_told_by_its_scope(
    coroutine: Callable[[], Any], request_and_inside: tuple[str, str]
) -> None:
    with unstarted(coroutine()) as made:
        assert request_of(made) == request_and_inside


def client(base_url: str = "") -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=base_url, verify=False, trust_env=False)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: client().get("/orders?page=2"), "GET /orders"),
        (lambda: client("http://shop.test").get("orders"), "GET /orders"),
        (lambda: client("http://shop.test/api/").get("orders/7"), "GET /api/orders"),
        (lambda: client("http://shop.test/api").post("/orders"), "POST /api/orders"),
        (lambda: client("http://shop.test/api").put("http://x.test/orders"), "PUT /orders"),
        (lambda: client().patch(httpx.URL("http://x.test/a%20b")), "PATCH /a b"),
        (lambda: client().request("options", "http://x.test"), "OPTIONS /"),
        (lambda: client().send(httpx.Request("HEAD", "http://x.test/orders")), "HEAD /orders"),
        (lambda: client().get("http://[broken"), ""),
        (lambda: client().request(7, "/orders"), ""),  # ty: ignore[invalid-argument-type]
        (lambda: client().aclose(), ""),
    ],
)
def test_a_clients_call_is_told_by_its_method_and_url(call: Callable[[], Any], name: str) -> None:
    with unstarted(call()) as made:
        assert request_of(made) == (name, "")


def test_what_a_property_raises_does_not_reach_the_x_ray() -> None:
    class Broken:
        @property
        def scope(self) -> Any:
            raise ZeroDivisionError

        async def run(self) -> None: ...

    with unstarted(Broken().run()) as made:
        assert request_of(made) == ("", "")


def test_what_is_no_coroutine_or_has_ended_says_nothing() -> None:
    ended = app(http("/orders"), None, None)
    ended.close()
    assert request_of(ended) == ("", "")
    assert request_of(None) == ("", "")


# Threads.


def report(number: int = 0) -> None: ...


def rows() -> Generator[int]:
    yield 1


class Printer:
    def page(self) -> None: ...

    def __call__(self) -> None: ...


@contextmanager
def session() -> Generator[None]:
    yield


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ((report,), "report"),
        ((report, 7), "report"),
        ((partial(partial(report), 7),), "report"),
        ((next, rows()), "rows"),
        ((Printer().page,), "page"),
        ((Printer(),), "Printer"),
        ((Printer,), "Printer"),
        ((session().__enter__,), "session"),
        ((partial(print, 7, report),), "report"),
        ((sorted, [3, 1]), "sorted"),
        (([].append, 1), "append"),
        ((lambda: None,), "<lambda>"),
    ],
)
def test_a_wait_for_a_thread_is_named_by_what_of_ours_it_runs(
    given: tuple[Any, ...], name: str
) -> None:
    with unstarted(asyncio.to_thread(*given)) as made:
        assert work_of(made, is_ours)[0] == f"thread: {name}"
    with unstarted(anyio.to_thread.run_sync(*given)) as made:
        assert work_of(made, is_ours)[0] == f"thread: {name}"
    with unstarted(anyio.to_process.run_sync(*given)) as made:
        assert work_of(made, is_ours)[0] == f"process: {name}"


def test_a_librarys_work_in_a_thread_is_told_from_ours() -> None:
    with unstarted(asyncio.to_thread(report)) as made:
        assert work_of(made, is_ours)[1] is True
    with unstarted(asyncio.to_thread(sorted, [])) as made:
        assert work_of(made, is_ours)[1] is False


def test_what_is_no_function_leaves_the_place() -> None:
    wrong: Any = 5
    with unstarted(asyncio.to_thread(wrong)) as made:
        assert work_of(made, is_ours) == ("thread", False)


@pytest.mark.parametrize(
    ("name", "whether"),
    [("thread: report", True), ("process: report", True), ("thread", True), ("report", False)],
)
def test_a_wait_for_a_thread_is_told_from_others(name: str, whether: bool) -> None:
    assert is_elsewhere(name) is whether
