"""`course xray`: what it prints, writes and exits with, and that it leaves nothing running."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from looplab.xray_command import BadUse, Order, asks_of

APP = """
import asyncio, os, sys, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from fastapi import FastAPI, Request

print("imported")
app = FastAPI()

@app.get("/quick")
async def quick():
    await asyncio.sleep(0.01)
    return os.environ.get("SHOP_NAME")

@app.get("/slow")
async def slow():
    time.sleep(0.3)

@app.post("/orders")
async def order(request: Request):
    body = await request.json()
    if body != {"sku": "tea"} or request.headers["x-from"] != "shell":
        raise ValueError(body)

pool = ThreadPoolExecutor()

@app.get("/thread")
async def thread():
    await asyncio.get_running_loop().run_in_executor(pool, time.sleep, 60)

@app.get("/child")
async def child():
    code = "import time; time.sleep(60)"
    app.state.child = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    return app.state.child.pid

def make():
    return app

@asynccontextmanager
async def fails(app):
    raise LookupError("no database")
    yield

broken = FastAPI(lifespan=fails)
"""
Ended = subprocess.CompletedProcess[str]
Run = Callable[..., Ended]
HELD = "--held=150"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `course xray` in a folder with an app; more of the environment by keyword."""
    (tmp_path / "teashop.py").write_text(APP)

    def xray(*words: str, **environment: str) -> Ended:
        return subprocess.run(
            [sys.executable, "-c", "from looplab.cli import app; app()", "xray", *words],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    return xray


def test_a_hold_is_exit_status_1_with_its_line_and_a_page_that_says_so(
    run: Run, tmp_path: Path
) -> None:
    ended = run("teashop:app", "GET", "/quick", "/slow", HELD, "--at-once", "2", "--json", "x.json")
    assert ended.returncode == 1, ended.stderr
    answers, held, page = ended.stdout.splitlines()
    assert answers.startswith("4 requests, 4 answered (4 × 200), the slowest after ")
    line = APP.splitlines().index("    time.sleep(0.3)") + 1
    assert held.endswith(f"by GET /slow, at teashop.py:{line} in slow.")
    assert page == "The page is xray.html."
    assert f"teashop.py:{line} in slow" in (tmp_path / "xray.html").read_text("utf-8")
    found = json.loads((tmp_path / "x.json").read_text("utf-8"))
    assert {hold["place"]["line"] for hold in found["holds"]} == {line}
    assert ended.stderr == "imported\n"


def test_nothing_held_is_exit_status_0_and_the_json_stands_alone_on_stdout(run: Run) -> None:
    ended = run(
        "teashop:make", "--factory", "/quick", HELD, "--json", "-", "--page", "page.html",
        SHOP_NAME="teashop",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["holds"] == []
    assert found["requests"][0]["status"] == 200
    assert "Nothing held the loop for 150 ms or more.\nThe page is page.html." in ended.stderr


def test_a_body_and_headers_are_sent_with_each_request_that_can_have_them(run: Run) -> None:
    ended = run(
        "teashop:app", "POST", "/orders", "/quick", "--json-body", '{"sku": "tea"}',
        "--header", "X-From: shell", "--times", "2", HELD,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.startswith("4 requests, 4 answered (4 × 200)")


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["teashop:nope"], 2, "has no attribute nope; an app there is "),
        (["teashup:app"], 2, "There is no module teashup in "),
        (["teashop.py:app"], 2, "write it as module:attribute, such as teashop:app."),
        (["teashop:app", "/", "--app-dir", "nowhere"], 2, "There is no folder "),
        (["teashop:app", "POST"], 2, "POST stands last; a path has to follow it"),
        (["teashop:app", "/", "--page", "no/x.html"], 2, "no/x.html can't be written"),
        (["teashop:app", "/", "--ours", "no_such"], 2, "--ours is 'no_such'"),
        (["teashop:broken", "/"], 3, "The app did not start: LookupError: no database."),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_no_page(
    run: Run, tmp_path: Path, words: list[str], status: int, told: str
) -> None:
    ended = run(*words)
    assert (ended.returncode, ended.stdout) == (status, "")
    *_, sentence = ended.stderr.splitlines()
    assert told in sentence
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "xray.html").exists()


def test_an_answer_of_400_and_above_is_told_and_exit_status_3_unless_any_will_do(run: Run) -> None:
    ended = run("teashop:app", "/nowhere", HELD)
    assert ended.returncode == 3
    assert "GET /nowhere: 404." in ended.stdout
    assert run("teashop:app", "/nowhere", HELD, "--any-status").returncode == 0


def test_a_request_that_hangs_in_a_thread_does_not_keep_the_command(run: Run) -> None:
    began = time.monotonic()
    ended = run("teashop:app", "/thread", HELD, "--within", "0.5", "--no-warm-up")
    assert ended.returncode == 3, ended.stdout
    assert "GET /thread: no answer within 0.5 s." in ended.stdout
    assert time.monotonic() - began < 50


def test_a_process_that_the_app_leaves_is_told_and_ended(run: Run) -> None:
    ended = run("teashop:app", "/child", HELD, "--no-warm-up", "--json", "-")
    (told,) = [one for one in json.loads(ended.stdout)["left_behind"] if "child process" in one]
    pid = int(told.split()[2])
    assert not psutil.pid_exists(pid)


class TestRequests:
    @staticmethod
    def order(*requests: str, **options: Any) -> Order:
        usual: dict[str, Any] = {
            "app": "a:b", "app_dir": Path(), "factory": False, "body": None, "json_body": None,
            "headers": [], "at_once": 1, "times": None, "within": 1, "held": 1, "ours": [],
            "warm_up": True, "any_status": False, "page": Path("x"), "json": None,
        }  # fmt: skip
        return Order(requests=requests, **(usual | options))

    @pytest.mark.parametrize(
        ("words", "names"),
        [
            ([], ["GET /"]),
            (["/a", "/b?c=d"], ["GET /a", "GET /b"]),
            (["post", "/a", "GET", "/a", "/b"], ["POST /a", "GET /a", "GET /b"]),
        ],
    )
    def test_a_method_belongs_to_the_path_after_it(
        self, words: list[str], names: list[str]
    ) -> None:
        assert [ask.name for ask in asks_of(self.order(*words))] == names

    @pytest.mark.parametrize(
        ("words", "options", "told"),
        [
            (["orders"], {}, "'orders' is neither a path"),
            (["GET", "POST", "/"], {}, "'POST' is neither a path"),
            (["/"], {"body": "x"}, "no request that has one"),
            (["POST", "/"], {"body": "x", "json_body": "1"}, "both given"),
            (["POST", "/"], {"json_body": "{"}, "--json-body is no JSON"),
            (["POST", "/"], {"body": "@nowhere"}, "The body @nowhere can't be read"),
            (["/"], {"headers": ["X-From"]}, "write it as 'Name: value'"),
        ],
    )
    def test_what_is_written_otherwise_is_one_sentence(
        self, words: list[str], options: dict[str, object], told: str
    ) -> None:
        with pytest.raises(BadUse) as caught:
            asks_of(self.order(*words, **options))
        assert told in str(caught.value)

    def test_a_body_is_read_from_a_file_and_sent_with_what_can_have_one(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "body").write_bytes(b'{"a": 1}')
        post, get = asks_of(self.order("POST", "/", "/", json_body=f"@{tmp_path / 'body'}"))
        assert (post.content, get.content) == (b'{"a": 1}', None)
        assert post.headers["content-type"] == "application/json"
