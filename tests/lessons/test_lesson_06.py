"""What lesson 06 ships, attacked: errors, hangs, a slow reader, a shutdown, a layer in between."""

import ast
import asyncio
import inspect
import textwrap
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from anyio import create_task_group
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware

from looplab.lab import caught_leaks, leave, ms, serve, until
from looplab.lab.units import PACE_VARIABLE
from looplab.project import Project
from looplab.publishing.notebooks import read_notebook
from looplab.stages import exports

pytestmark = pytest.mark.anyio

SHIPPED = ("pattern-generator", "breaks-shield", "ship-app", "ship-job", "ship-lifespan")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PACE_VARIABLE, "0.25")


@pytest.fixture
async def lesson(cells_of: Callable[[str], Any]) -> dict[str, Any]:
    names = await cells_of("06").run("setup", *SHIPPED)
    names["log"].clear()
    return names


@pytest.fixture
async def deeper(cells_of: Callable[[str], Any]) -> dict[str, Any]:
    cells = cells_of("06_deeper")
    await cells.run("setup", "work-finish", "listen-watch", "card-watch", "card-fixed")
    exports.log.clear()
    return cells.names


async def test_cleanup_ends_when_an_item_fails(lesson: dict[str, Any]) -> None:
    log, process_item = lesson["log"], lesson["process_item"]

    async def fails_at_three(item: Any) -> Any:
        if item["id"] == 3:
            raise LookupError("no such item")
        return await process_item(item)

    lesson["process_item"] = fails_at_three
    async with serve(lesson["app"]) as server, server.client() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/export")
    assert log.count("item done") == 2
    assert log[-2:] == ["cleanup begun", "cleanup done"]


async def test_a_cleanup_that_hangs_is_given_up(lesson: dict[str, Any]) -> None:
    async def hangs() -> None:
        lesson["log"].append("cleanup begun")
        await asyncio.sleep(60)

    lesson["cleanup_resources"] = hangs
    async with asyncio.timeout(5), serve(lesson["app"]) as server, server.client() as client:
        await leave(server, client, "/export", when=lesson["three_done"])
    assert lesson["log"][-1] == "cleanup begun"


async def test_who_reads_all_gets_all_and_cleanup_runs_once(lesson: dict[str, Any]) -> None:
    async with serve(lesson["app"]) as server, server.client() as client:
        answer = await client.get("/export")
    assert answer.text.splitlines() == [f"item {number}" for number in range(1, 11)]
    assert lesson["log"].count("cleanup done") == 1


@pytest.mark.parametrize("layer", [None, BaseHTTPMiddleware, GZipMiddleware])
async def test_the_export_stops_alone_and_behind_a_layer(
    lesson: dict[str, Any], layer: Any
) -> None:
    async def pass_on(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    options = {"dispatch": pass_on} if layer is BaseHTTPMiddleware else {}
    app = lesson["app"] if layer is None else layer(lesson["app"], **options)
    log = lesson["log"]
    async with serve(app) as server, server.client() as client:
        await leave(server, client, "/export", when=lesson["three_done"])
    assert log.count("item done") < 10
    assert log.count("cleanup done") == 1


def wide(process: Callable[[Any], AsyncIterator[str]]) -> Callable[[Any], AsyncGenerator[str]]:
    async def widened(items: Any) -> AsyncGenerator[str]:
        try:
            async for result in process(items):
                yield result.ljust(16_000_000)
        except BaseException as error:
            exports.log.append(type(error).__name__)
            raise

    return widened


async def leave_unread(app: FastAPI) -> list[str]:
    """Return the log of a client that left a server which waits to send."""
    exports.log.clear()
    async with serve(app) as server, server.client() as client:
        async with client.stream("GET", "/export"):
            await until(lambda: exports.log.count("item done") == 2)
        await until(lambda: not server.running_requests)
    return exports.log


async def test_where_the_cancel_of_a_slow_reader_arrives() -> None:
    async def one(items: Any) -> AsyncIterator[str]:
        for item in items:
            yield await exports.process_item(item)

    plain, yielding = FastAPI(), FastAPI()

    @plain.get("/export")
    async def respond() -> StreamingResponse:
        return StreamingResponse(wide(one)(exports.ITEMS))

    @yielding.get("/export", response_class=StreamingResponse)
    async def respond_by_yield() -> AsyncIterator[str]:
        async for result in wide(one)(exports.ITEMS):
            yield result

    assert "CancelledError" in await leave_unread(plain)  # uvicorn wakes the sender first
    assert "GeneratorExit" in await leave_unread(yielding)


async def test_behind_a_slow_reader_a_shutdown_cleans_up_before_the_session_closes(
    lesson: dict[str, Any],
) -> None:
    log, process_item = lesson["log"], lesson["process_item"]

    async def wide_item(item: Any) -> str:
        return (await process_item(item)).ljust(16_000_000)

    async def session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            log.append("session closed")

    lesson["process_item"] = wide_item
    app = FastAPI(dependencies=[Depends(session)])
    app.get("/export")(lesson["export"])
    async with serve(app, timeout_graceful_shutdown=ms(20)) as server:
        client = server.client()
        request = client.build_request("GET", "/export")
        unread = await client.send(request, stream=True)
        await until(lambda: log.count("item done") == 2)
    await unread.aclose()
    await client.aclose()
    assert log.index("cleanup begun") < log.index("session closed")


async def shut_down(lesson: dict[str, Any], when: Callable[[], bool]) -> list[str]:
    async with asyncio.timeout(10), serve(FastAPI(lifespan=lesson["lifespan"])):
        await until(when)
    return lesson["log"]


async def test_a_job_that_dies_early_is_reported_and_the_database_is_closed(
    lesson: dict[str, Any],
) -> None:
    async def dies(stopping: Any) -> None:
        raise LookupError("no such partner")

    lesson["nightly_export"] = dies
    log = await shut_down(lesson, lambda: bool(lesson["log"]))
    assert log == ["the job died: LookupError('no such partner')", "database closed"]


async def test_a_job_that_does_not_listen_is_cancelled(lesson: dict[str, Any]) -> None:
    async def deaf(stopping: Any) -> None:
        lesson["log"].append("at work")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            lesson["log"].append("cancelled")
            raise

    lesson["nightly_export"] = deaf
    log = await shut_down(lesson, lambda: bool(lesson["log"]))
    assert log == ["at work", "cancelled", "database closed"]


async def test_a_job_that_hangs_in_its_cleanup_holds_nothing_up(lesson: dict[str, Any]) -> None:
    async def hangs(stopping: Any) -> None:
        lesson["log"].append("at work")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(60)

    lesson["nightly_export"] = hangs
    log = await shut_down(lesson, lambda: bool(lesson["log"]))
    assert log == ["at work", "database closed"]


async def test_the_database_is_closed_when_the_lifespan_itself_is_cancelled(
    lesson: dict[str, Any],
) -> None:
    async with asyncio.TaskGroup() as group:

        async def live() -> None:
            async with lesson["lifespan"](None):
                await asyncio.sleep(60)

        living = group.create_task(live())
        await until(lambda: "item begun" in lesson["log"])
        living.cancel()
    assert lesson["log"][-2:] == ["export ended", "database closed"]


@pytest.mark.parametrize("layer", ["none", "base class", "gzip"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_endpoint_that_listens_hears_its_client_leave(
    deeper: dict[str, Any], layer: str, method: str
) -> None:
    class Body(BaseModel):
        number: int = 0

    app = FastAPI()
    unless_client_leaves = deeper["unless_client_leaves"]

    @app.get("/export")
    async def get_all(request: Request) -> Any:
        return await unless_client_leaves(request, exports.process_all())

    @app.post("/export")
    async def post_all(request: Request, body: Body) -> Any:
        return await unless_client_leaves(request, exports.process_all())

    async def pass_on(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    if layer == "base class":
        app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    if layer == "gzip":
        app.add_middleware(GZipMiddleware)
    body = {"number": 1} if method == "POST" else None
    async with serve(app) as server:
        async with server.client() as client:
            calling = asyncio.create_task(client.request(method, "/export", json=body))
            await until(exports.three_done)
            calling.cancel()
            await asyncio.wait({calling})
        await until(lambda: not server.running_requests)
        assert exports.log.count("item done") < 10
        assert exports.log.count("cleanup done") == 1
        async with server.client() as client:
            stays = await client.request(method, "/export", json=body)
        assert len(stays.json()) == 10
    assert server.errors == []


async def test_an_error_of_the_job_reaches_the_client_as_itself(deeper: dict[str, Any]) -> None:
    app = FastAPI()

    async def missing() -> None:
        raise HTTPException(404)

    @app.get("/export")
    async def export(request: Request) -> Any:
        return await deeper["unless_client_leaves"](request, missing())

    async with serve(app) as server, server.client() as client:
        assert (await client.get("/export")).status_code == 404


async def test_finish_returns_the_result_and_raises_the_error(deeper: dict[str, Any]) -> None:
    finish = deeper["finish"]
    assert await finish(asyncio.sleep(0, "receipt"), within=1) == "receipt"

    async def fails() -> None:
        raise LookupError("no partner")

    with pytest.raises(LookupError):
        await finish(fails(), within=1)


async def test_a_scope_cuts_off_an_unshielded_cleanup_and_a_group_does_not(
    deeper: dict[str, Any],
) -> None:
    """What AnyIO's version of the graceful shutdown would cost."""

    async def with_anyio(coroutine: Any, stopping: asyncio.Event) -> None:
        async def watch() -> None:
            await stopping.wait()
            group.cancel_scope.cancel()

        async with create_task_group() as group:
            group.start_soon(watch)
            await coroutine
            group.cancel_scope.cancel()

    async def unshielded() -> None:
        async for _ in exports.as_printed(exports.ITEMS):
            pass

    ended = []
    for run in (deeper["run_with_graceful_shutdown"], with_anyio):
        exports.log.clear()
        stopping = asyncio.Event()
        running = asyncio.create_task(run(unshielded(), stopping))
        await until(lambda: "item done" in exports.log)
        stopping.set()
        await asyncio.wait({running})
        ended.append((type(running.exception()).__name__, exports.log.count("cleanup done")))
    assert ended == [("Stopped", 1), ("NoneType", 0)]


async def test_a_failing_job_comes_out_of_the_graceful_shutdown_as_itself(
    deeper: dict[str, Any],
) -> None:
    async def fails() -> None:
        raise LookupError("no partner")

    with pytest.raises(LookupError):
        await deeper["run_with_graceful_shutdown"](fails(), asyncio.Event())


async def fetch(queue: asyncio.Queue[str]) -> None:
    await queue.put("first page")
    raise LookupError("the partner has no second page")


async def test_a_yield_in_a_task_group_loses_the_error() -> None:
    async def prefetched() -> AsyncIterator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            group.create_task(fetch(queue))
            while True:
                yield await queue.get()

    async def reader() -> None:
        async for _ in prefetched():
            await asyncio.sleep(ms(200))

    with caught_leaks() as leaks:
        reading = asyncio.create_task(reader())
        await asyncio.wait({reading})
        await asyncio.sleep(ms(40))
    assert reading.cancelled()
    assert len(leaks.lost_exceptions) == 1


async def test_a_context_manager_around_a_task_group_tells_the_reason() -> None:
    @asynccontextmanager
    async def prefetching() -> AsyncGenerator[asyncio.Queue[str]]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            group.create_task(fetch(queue))
            yield queue

    with pytest.raises(ExceptionGroup) as caught:
        async with prefetching():
            await asyncio.sleep(ms(200))
    assert isinstance(caught.value.exceptions[0], LookupError)


def test_the_second_helping_studies_the_lessons_own_code(bare: Callable[..., str]) -> None:
    notebook = read_notebook(Project.here().lesson("06").path)
    taught = {
        node.name: bare(node)
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
        for node in ast.parse(cell["source"]).body
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)
    }
    for name in ("clean_up", "as_printed", "process_with_cancellation"):
        (copied,) = ast.parse(textwrap.dedent(inspect.getsource(getattr(exports, name)))).body
        assert isinstance(copied, ast.AsyncFunctionDef | ast.FunctionDef)
        assert bare(copied) == taught[name]
