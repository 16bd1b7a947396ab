"""An app of a reader's own: found by its import path, served, and told what held its loop."""

import asyncio
import inspect
import json
import logging
import re
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, Request

from looplab.lab import clients
from looplab.lab.clients import ServerDidNotStart
from looplab.lab.own_app import AppNotLoaded, AppReport, Ask, load_app, xray_app
from looplab.lab.units import ms

pytestmark = pytest.mark.anyio

LONG, HELD = ms(150), ms(60)
"""What blocks does so for LONG and is looked for at HELD: a busy machine makes no step shorter."""


def line_of(function: Any, text: str) -> int:
    """Return the line in this file of the one line of ``function`` that has ``text``."""
    lines, first = inspect.getsourcelines(function)
    (found,) = [first + place for place, line in enumerate(lines) if text in line]
    return found


def deep_down() -> None:
    time.sleep(LONG)


async def load() -> None:
    await asyncio.sleep(ms(20))


async def sweep() -> None:
    while True:
        await asyncio.sleep(ms(10))
        time.sleep(LONG)  # noqa: ASYNC251


async def after() -> None:
    await asyncio.sleep(ms(100))
    time.sleep(LONG)  # noqa: ASYNC251


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()

    @app.get("/orders")
    async def orders() -> str:
        await load()
        await load()
        return "orders"

    @app.get("/report")
    async def report() -> str:
        deep_down()
        return "report"

    @app.get("/plain")
    def plain() -> str:
        time.sleep(LONG)
        return "plain"

    @app.post("/orders")
    async def order(request: Request) -> dict[str, Any]:
        return {"got": await request.json(), "from": request.headers.get("x-from")}

    @app.get("/later")
    async def later(tasks: BackgroundTasks) -> str:
        tasks.add_task(after)
        return "soon"

    @app.get("/hangs")
    async def hangs() -> None:
        await asyncio.Event().wait()

    @app.get("/broken")
    async def broken() -> None:
        raise LookupError("no such order")

    return app


async def placed(app: FastAPI, path: str | list[str]) -> AppReport:
    """Return a report whose holds have their places: a starved machine looks for them too late."""
    for _ in range(3):
        report = await xray_app(app, path, held=HELD)
        if all(hold.place for hold in report.holds):
            break
    return report


class TestHolds:
    async def test_a_hold_is_told_with_its_line_and_who_called_it(self, app: FastAPI) -> None:
        report = await placed(app, ["/orders", "/report"])
        (hold,) = report.holds
        assert hold.name == "GET /report"
        assert hold.duration >= LONG
        assert report.longest_hold == hold.duration
        assert hold.place is not None
        assert (hold.place.file, hold.place.function) == (__file__, "deep_down")
        assert hold.place.line == line_of(deep_down, "time.sleep")
        assert hold.place.source == "time.sleep(LONG)"
        assert [caller.function for caller in hold.callers] == ["report"]

    async def test_work_in_a_thread_holds_nothing_and_is_told_as_a_wait(self, app: FastAPI) -> None:
        report = await xray_app(app, "/plain", held=HELD)
        assert report.holds == ()
        waits = {one.name: one for one in report.waits}
        assert waits["thread: plain"].longest >= LONG * 0.9
        assert report.thread_names == {"AnyIO worker thread": 1}
        assert report.peak_threads == 1

    async def test_a_task_that_the_app_has_made_at_its_start_is_seen_too(self) -> None:
        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
            task = asyncio.create_task(sweep(), name="sweeper")
            yield
            task.cancel()

        app = FastAPI(lifespan=lifespan)

        @app.get("/")
        async def home() -> str:
            await asyncio.sleep(2 * LONG)
            return "home"

        report = await xray_app(app, "/", held=HELD)
        assert {hold.name for hold in report.holds} == {"sweeper"}
        assert all(hold.began >= 0 for hold in report.holds)
        assert {hold.place.line for hold in report.holds if hold.place} == {
            line_of(sweep, "time.sleep")
        }
        assert report.left_behind == ()

    async def test_what_a_background_task_holds_counts_though_the_answer_was_sent(
        self, app: FastAPI
    ) -> None:
        report = await placed(app, "/later")
        (hold,) = report.holds
        assert hold.place is not None
        assert hold.place.line == line_of(after, "time.sleep")
        assert len(report.replies) == 1

    async def test_the_first_time_is_not_recorded_unless_asked_for(self) -> None:
        app, calls = FastAPI(), []

        @app.get("/")
        async def home() -> int:
            calls.append(1)
            if len(calls) == 1:
                time.sleep(LONG)  # noqa: ASYNC251 - as an import in the first request
            return len(calls)

        report = await xray_app(app, "/", held=HELD)
        assert (report.holds, len(calls)) == ((), 2)
        calls.clear()
        report = await xray_app(app, "/", held=HELD, warm_up=False)
        assert (len(report.holds), len(calls)) == (1, 1)

    async def test_a_loop_that_is_held_to_the_end_is_told_and_its_thread_is_left(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("LIFESPAN_SHUTDOWN", "FORCED"):
            monkeypatch.setattr(clients, name, ms(50))
        app, free = FastAPI(), threading.Event()

        @app.get("/")
        async def stuck() -> None:
            free.wait(30)

        try:
            report = await xray_app(app, "/", within=ms(300), held=HELD, warm_up=False)
        finally:
            free.set()
        assert not report.stopped
        (hold,) = report.holds
        assert hold.place is not None
        assert [hold.callers[-1].function if hold.callers else hold.place.function] == ["stuck"]
        assert report.replies[0].error == "no answer within 0.3 s"
        assert any("loopback server is still running" in one for one in report.left_behind)


class TestReplies:
    async def test_waits_are_told_by_name_and_how_many_there_were(self, app: FastAPI) -> None:
        report = await xray_app(app, "/orders", at_once=3, times=2, held=HELD)
        (waits,) = [one for one in report.waits if one.name == "load"]
        assert (waits.lane, waits.count) == ("GET /orders", 4)
        assert waits.total >= 4 * ms(19)
        assert waits.longest <= waits.total
        assert [reply.status for reply in report.replies] == [200, 200]
        assert 1 <= report.peak_clients <= 3

    async def test_requests_are_at_most_so_many_at_once_and_take_turns(self, app: FastAPI) -> None:
        report = await xray_app(app, ["/orders", Ask("GET", "/plain")], at_once=2, held=HELD)
        assert [reply.name for reply in report.replies] == ["GET /orders", "GET /plain"] * 2
        assert report.recording.peak_in_flight("GET /orders", "GET /plain") <= 2
        assert report.title == "GET /orders, GET /plain × 2"

    async def test_body_and_headers_are_sent_and_a_post_is_sent_once(self) -> None:
        app, got = FastAPI(), []

        @app.post("/orders")
        async def order(request: Request) -> None:
            got.append((await request.json(), request.headers["x-from"]))

        ask = Ask("POST", "/orders", json={"sku": "tea"}, headers={"X-From": "shell"})
        report = await xray_app(app, ask, held=HELD)
        assert got == [({"sku": "tea"}, "shell")]
        assert report.failed == ()

    async def test_a_path_that_is_not_there_and_an_error_of_the_app_are_told(
        self, app: FastAPI
    ) -> None:
        report = await xray_app(app, ["/nowhere", "/broken"], held=HELD)
        assert [(one.name, one.status) for one in report.failed] == [
            ("GET /nowhere", 404),
            ("GET /broken", 500),
        ]
        assert report.errors == ("LookupError: no such order",)

    async def test_a_request_that_hangs_ends_in_time_and_nothing_is_left(
        self, app: FastAPI
    ) -> None:
        report = await xray_app(app, "/hangs", within=ms(300), warm_up=False, held=HELD)
        (reply,) = report.replies
        assert (reply.status, reply.error) == (0, "no answer within 0.3 s")
        assert report.left_behind == ()
        assert report.stopped

    async def test_the_client_stays_out_of_the_apps_log(
        self, app: FastAPI, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            await xray_app(app, "/orders", held=HELD)
            logging.getLogger("httpx").info("HTTP Request: GET https://partner.example/")
        assert [record.getMessage() for record in caplog.records if record.name == "httpx"] == [
            "HTTP Request: GET https://partner.example/"
        ]
        assert logging.getLogger("httpx").filters == []


class TestLeftBehind:
    async def test_a_task_that_the_app_does_not_cancel_is_named_with_its_line(self) -> None:
        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
            app.state.task = asyncio.create_task(asyncio.Event().wait(), name="forgotten")
            yield

        report = await xray_app(FastAPI(lifespan=lifespan), "/docs", held=HELD)
        (told,) = report.left_behind
        assert told.startswith("task forgotten")

    async def test_a_thread_and_a_failure_at_the_shutdown_are_named(self) -> None:
        free = threading.Event()

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
            threading.Thread(target=free.wait, args=(30,), name="poller", daemon=True).start()
            yield
            raise OSError("disk full")

        try:
            report = await xray_app(FastAPI(lifespan=lifespan), "/docs", held=HELD)
        finally:
            free.set()
        told = " | ".join(report.left_behind)
        assert "thread poller is still running" in told
        assert "the app's shutdown failed: OSError: disk full" in told
        assert report.thread_names["poller"] == 1


class TestRefusals:
    async def test_a_start_that_fails_is_raised_with_its_cause(self) -> None:
        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
            raise LookupError("no database")
            yield

        with pytest.raises(ServerDidNotStart) as caught:
            await xray_app(FastAPI(lifespan=lifespan), "/")
        assert isinstance(caught.value.__cause__, LookupError)

    @pytest.mark.parametrize(
        ("requests", "options", "told"),
        [
            ([], {}, "requests is empty"),
            ("orders", {}, "path is 'orders'; it must be text that begins with /"),
            ("get /orders", {}, "method is 'get'"),
            ([7], {}, "requests has 7"),
            ("/", {"at_once": 0}, "at_once is 0; it must be a whole number from 1 on"),
            ("/", {"times": 1.5}, "times is 1.5"),
            ("/", {"within": 0}, "within is 0; it must be a number above 0, in seconds"),
            ("/", {"held": float("nan")}, "held is nan"),
            ("/", {"ours": "no_such_package"}, "ours names 'no_such_package'"),
        ],
    )
    async def test_a_bad_argument_is_named(
        self, app: FastAPI, requests: Any, options: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(ValueError, match=re.escape(told)):
            await xray_app(app, requests, **options)

    def test_a_request_has_one_body(self) -> None:
        with pytest.raises(ValueError, match="json and content are both given"):
            Ask("POST", "/", json={}, content="x")


class TestReport:
    async def test_the_page_needs_nothing_else_and_says_what_was_found(self, app: FastAPI) -> None:
        report = await xray_app(app, ["/report", "/nowhere"], held=HELD, title="<Shop> & co")
        page = report.page()
        assert page.startswith("<!doctype html>")
        assert "&lt;Shop&gt; &amp; co" in page
        assert "<Shop>" not in page
        assert not re.search(r"""(?:src|href)=["']?(?!["']?(?:data:|#))|@import|url\(http""", page)
        line = line_of(deep_down, "time.sleep")
        assert f"{Path(__file__).name}:{line} in deep_down" in page
        assert "GET /nowhere: 404." in page
        assert report._repr_html_() in page

    async def test_the_json_has_each_time_in_milliseconds(self, app: FastAPI) -> None:
        report = await xray_app(app, ["/report", "/nowhere"], held=HELD)
        found = json.loads(json.dumps(report.as_json()))
        assert found["schema"] == 1
        assert found["held_ms"] == 60
        assert found["longest_hold_ms"] == pytest.approx(1000 * report.longest_hold, abs=0.01)
        assert [one["status"] for one in found["requests"]] == [200, 404]
        place = found["holds"][0]["place"]
        assert (place["function"], place["source"]) == ("deep_down", "time.sleep(LONG)")
        assert place["line"] == line_of(deep_down, "time.sleep")
        assert {"python", "uvicorn", "fastapi"} <= found["versions"].keys()


MODULE = """
from fastapi import FastAPI
app = FastAPI()
number = 7
def create_app(): return app
def failing(): raise LookupError("no settings")
async def later(): return app
def takes(one): return app
class Inside: app = app
"""


class TestLoading:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        monkeypatch.setattr(sys, "path", [*sys.path])
        package = tmp_path / "teashop"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "main.py").write_text(MODULE)
        (package / "broken.py").write_text("x = 1\nraise RuntimeError('no key')\n")
        (package / "missing.py").write_text("import no_such_library\n")
        (package / "wrong.py").write_text("x = (\n")
        (package / "leaves.py").write_text("raise SystemExit('usage: ...')\n")
        yield tmp_path
        for name in [name for name in sys.modules if name.partition(".")[0] == "teashop"]:
            del sys.modules[name]

    @pytest.mark.parametrize(
        ("path", "factory"),
        [
            ("teashop.main:app", False),
            ("teashop.main:Inside.app", False),
            ("teashop.main:create_app", True),
        ],
    )
    def test_an_app_is_found_as_uvicorn_finds_it(
        self, folder: Path, path: str, factory: bool
    ) -> None:
        app = load_app(path, app_dir=folder, factory=factory)
        assert isinstance(app, FastAPI)
        assert sys.path[0] == str(folder.resolve())

    @pytest.mark.parametrize(
        ("path", "factory", "told"),
        [
            ("teashop.main", False, "write it as module:attribute, such as teashop.main:app"),
            ("teashop/main.py:app", False, "such as teashop.main:app"),
            ("teashop.nowhere:app", False, "There is no module teashop.nowhere in "),
            ("coffeeshop:app", False, "There is no module coffeeshop in "),
            ("teashop.main:application", False, "no attribute application; an app there is app."),
            ("teashop.main:number", False, "is no ASGI app: int can't be called"),
            ("teashop.main:create_app", False, "is a function; if it makes the app, say so by --f"),
            ("teashop.main:takes", False, "does not take scope, receive and send"),
            ("teashop.main:number", True, "is no factory: int can't be called"),
            ("teashop.main:failing", True, "failed: LookupError: no settings (teashop/main.py, li"),
            ("teashop.main:later", True, "is an async function; a factory has to be a plain one"),
            (
                "teashop.broken:app",
                False,
                "failed: RuntimeError: no key (teashop/broken.py",
            ),
            ("teashop.missing:app", False, "No module named 'no_such_library' (teashop/missing.py"),
            ("teashop.wrong:app", False, "SyntaxError"),
            ("teashop.leaves:app", False, "failed: SystemExit: usage: ..."),
        ],
    )
    def test_what_is_no_app_is_one_sentence(
        self, folder: Path, path: str, factory: bool, told: str
    ) -> None:
        with pytest.raises(AppNotLoaded) as caught:
            load_app(path, app_dir=folder, factory=factory)
        assert told in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1

    def test_a_folder_that_is_not_there_is_named(self, folder: Path) -> None:
        with pytest.raises(AppNotLoaded, match=r"There is no folder .*nowhere"):
            load_app("teashop.main:app", app_dir=folder / "nowhere")
