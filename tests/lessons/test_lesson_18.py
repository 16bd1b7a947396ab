"""Lesson 18's suite against faults that the lesson doesn't show, and its fix under load."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from looplab.lab import in_process, xray
from looplab.project import Project
from looplab.publishing.cells import run_cell
from looplab.publishing.notebooks import read_notebook

pytestmark = pytest.mark.anyio

SHOP = ("setup", "shop-take", "shop-app", "compare-fix")
SUITE = ("naive-test", "pattern-fixtures", "pattern-test", "breaks-blocking-fixture")
FAULTS = """
async def refuses_everybody(db):
    return False


async def sells_two(db):
    taken = await db.execute("UPDATE stock SET cups = cups - 1 WHERE cups > -1")
    return taken.rowcount == 1


async def breaks_under_load(db):
    taken = await db.execute("UPDATE stock SET cups = cups - 1 WHERE cups > 0")
    if taken.rowcount == 0:
        raise ConnectionError("too many connections")
    return True


async def reads_a_file(db):
    with open(__file__) as settings:
        settings.read()
    return await take_first(db)


FAULTY = [refuses_everybody, sells_two, breaks_under_load, reads_a_file]
"""

YOUR_APP = """
import asyncio
import time
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException


@asynccontextmanager
async def lifespan(app):
    app.state.cups = 1
    yield


def make(fault=None):
    app = FastAPI(lifespan=lifespan)

    @app.post("/cups")
    async def buy():
        if fault:
            fault()
        if app.state.cups == 0:
            raise HTTPException(409, "sold out")
        app.state.cups -= 1

    @app.get("/menu")
    def menu():
        return ["tea"]

    return app


def block():
    time.sleep(0.01)


def lose_a_task():
    asyncio.create_task(asyncio.sleep(30))


app = make()
"""
WITH_A_FAULT = """

import main


@pytest.fixture
def shop():
    return main.make(main.{fault})
"""
READS_A_FILE = """

async def test_menu(client):
    with open(__file__) as menu:
        assert menu.read()
"""
READS_IN_A_FIXTURE = """

@pytest.fixture
def menu():
    with open(__file__) as file:
        return file.read()


async def test_fixture(client, menu):
    assert menu
"""
ASKS_THE_MENU = """

@pytest.fixture(autouse=True)
def no_blocking():
    yield  # pyleak reads source files when it reports a thread


async def test_thread(client):
    assert (await client.get("/menu")).json() == ["tea"]
"""


def printed() -> list[str]:
    """Return the blocks of code that the second helping prints for your own project."""
    notebook = read_notebook(Project.here().lesson("18_deeper").path)
    cells = [cell["source"] for cell in notebook["cells"] if cell["id"].startswith("project-")]
    return re.findall(r"```\w+\n(.*?)```", "\n".join(cells), flags=re.DOTALL)


def cell_of_the_lesson(identity: str) -> str:
    notebook = read_notebook(Project.here().lesson("18").path)
    return next(cell["source"] for cell in notebook["cells"] if cell["id"] == identity)


class YourProject:
    """An empty folder with an app, and what the second helping prints to copy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packages, settings, self.conftest, self.marks, self.allowing = printed()
        self.sale = "\n\n" + cell_of_the_lesson("pattern-test") + "\n"
        self.write("main.py", YOUR_APP)
        self.write("pyproject.toml", settings)
        self.write("conftest.py", self.conftest)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def run(self) -> dict[str, str]:
        """Run pytest, strictly, and return what it says of each file: "" for one that passed."""
        options = ("-q", "-rA", "--strict-markers", "-W", "error", "-p", "no:cacheprovider")
        no_notebooks = ("-p", "no:nbmake")  # it takes seconds to start, and isn't of your project
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *no_notebooks],
            cwd=self.folder,
            env={name: value for name, value in os.environ.items() if "PYTEST" not in name}
            | {"COLUMNS": "300"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        said = re.findall(r"^(?:PASSED|FAILED|ERROR) (\w+)\.py\S*(.*)", done.stdout, re.MULTILINE)
        assert said, done.stdout + done.stderr
        return dict(said)


@pytest.fixture
def your_project(tmp_path: Path) -> YourProject:
    return YourProject(tmp_path)


def test_what_is_printed_to_copy_works_in_an_empty_project(your_project: YourProject) -> None:
    marks = your_project.marks
    your_project.write("test_cups.py", marks + your_project.sale)
    your_project.write("test_file.py", marks + READS_IN_A_FIXTURE)
    own = your_project.conftest.partition("@pytest.fixture(autouse=True)")[0]
    your_project.write("conftest.py", own + your_project.allowing)
    your_project.write("test_menu.py", marks + READS_A_FILE)
    assert your_project.run() == {"test_cups": "", "test_file": "", "test_menu": ""}


def test_the_printed_suite_names_each_fault(your_project: YourProject) -> None:
    marks = your_project.marks
    for fault in ("block", "lose_a_task"):
        faulty = marks + WITH_A_FAULT.format(fault=fault) + your_project.sale
        your_project.write(f"test_{fault}.py", faulty)
    your_project.write("test_menu.py", marks + READS_A_FILE)
    your_project.write("test_cups.py", marks + your_project.sale)
    your_project.write("test_off.py", marks + ASKS_THE_MENU)
    threads = marks.replace("threads=False", "threads=True")
    your_project.write("test_threads.py", threads + ASKS_THE_MENU)
    said = your_project.run()
    assert [said["test_cups"], said["test_off"]] == ["", ""]
    assert "Blocking call to time.sleep" in said["test_block"]
    assert "TaskLeakError" in said["test_lose_a_task"]
    assert "Blocking call to io.TextIOWrapper.read" in said["test_menu"]
    assert "ThreadLeakError" in said["test_threads"]


def test_what_is_printed_to_copy_is_the_lessons_and_names_its_packages(
    your_project: YourProject,
) -> None:
    for cell in ("pattern-fixtures", "breaks-blocking-fixture"):
        assert cell_of_the_lesson(cell).strip() in your_project.conftest
    imported = re.findall(r"^(?:import|from) (\w+)", your_project.conftest, re.MULTILINE)
    needed = {name.replace("_", "-") for name in imported if name != "main"}
    named = your_project.packages.removeprefix("pip install ").split()
    assert set(named) == needed | {"pyleak"}  # which pytest finds by its entry point


async def test_an_override_is_cleared_also_when_the_request_raises(
    cells_of: Callable[[str], Any],
) -> None:
    cells = ("setup", "deadline-app", "deadline-endpoint", "deadline-hangs")
    names = await cells_of("18_deeper").run(*cells)

    async def fails() -> None:
        raise ConnectionError

    names["hang"] = fails
    with pytest.raises(ConnectionError):
        await names["ask_with"](1)
    assert names["app"].dependency_overrides == {}


async def test_ten_buyers_of_the_fixed_shop_get_one_cup_each_time(
    cells_of: Callable[[str], Any],
) -> None:
    names = await cells_of("18").define(*SHOP, "pattern-test")
    for _ in range(5):
        async with in_process(names["make_shop"](names["take_first"])) as client:
            assert await names["ten_at_once"](client) == [200] + [409] * 9


@pytest.mark.parametrize("take", ["take_cup", "take_first"])
async def test_a_cup_that_is_taken_stays_taken_when_the_process_dies(
    cells_of: Callable[[str], Any], take: str, tmp_path: Path
) -> None:
    names = await cells_of("18").define(*SHOP)
    names["CHECKING"] = 0
    async with aiosqlite.connect(tmp_path / "stock.db") as db:
        await db.execute("CREATE TABLE stock (cups INTEGER)")
        await db.execute("INSERT INTO stock VALUES (1)")
        await db.commit()
        assert await names[take](db)
        async with aiosqlite.connect(tmp_path / "stock.db") as another:
            found = await another.execute("SELECT cups FROM stock")
            assert await found.fetchone() == (0,)


async def test_all_ten_buyers_are_inside_at_the_same_time(cells_of: Callable[[str], Any]) -> None:
    names = await cells_of("18").define(*SHOP, "pattern-test")
    async with in_process(names["make_shop"](names["take_cup"])) as client:
        racing = await xray(names["ten_at_once"](client), show=False)
    assert racing.peak_in_flight("buy") == 10


async def test_ten_buyers_of_a_shop_that_hangs_are_given_up(
    cells_of: Callable[[str], Any],
) -> None:
    async def hangs(db: Any) -> bool:
        await asyncio.Event().wait()
        return True

    names = await cells_of("18").define(*SHOP, "pattern-test")
    names["PATIENCE"] = 0.05
    async with in_process(names["make_shop"](hangs)) as client:
        with pytest.raises(TimeoutError):
            await names["ten_at_once"](client)


async def test_the_suite_fails_for_each_of_four_other_faults(
    cells_of: Callable[[str], Any],
) -> None:
    lesson = cells_of("18")
    more = ("breaks-blocking", "breaks-leak", "breaks-leak-test", "ship-versions")
    names = await lesson.define(*SHOP, *SUITE, *more)
    await run_cell(FAULTS, names, "<faults>")

    parts = ["test_ten_buyers", "test_nothing_left", "every_shop", "anyio_backend", "client"]
    ran = await names["run_tests"](
        *(names[part] for part in parts),
        names["no_blocking"],
        show=False,
        VERSIONS=names["FAULTY"],
    )
    assert set(ran.caught) == {fault.__name__ for fault in names["FAULTY"]}


async def test_each_broken_version_fails_the_test_that_is_for_it(
    cells_of: Callable[[str], Any],
) -> None:
    more = ("breaks-blocking", "breaks-leak", "breaks-leak-test", "ship-versions")
    names = await cells_of("18").define(*SHOP, *SUITE, *more)
    names["receipts"] = []
    parts = ["test_ten_buyers", "test_nothing_left", "every_shop", "anyio_backend", "client"]
    ran = await names["run_tests"](*(names[part] for part in (*parts, "no_blocking")), show=False)
    assert len(ran.outcomes) == 8
    assert {test: told[:13] for test, told in ran.said.items()} == {
        "test_ten_buyers[take_cup]": "assert [200, ",
        "test_ten_buyers[take_blocking]": "BlockingError",
        "test_nothing_left[take_blocking]": "BlockingError",
        "test_nothing_left[take_and_mail]": "TaskLeakError",
    }


async def test_a_jumping_clock_waits_for_what_a_thread_sends(
    cells_of: Callable[[str], Any],
) -> None:
    lesson = cells_of("18_deeper")
    names = await lesson.define("setup", "clock-loop", "clock-selector")
    source = """
@pytest.mark.anyio
async def test_without_a_deadline_a_thread_is_waited_for():
    assert await asyncio.to_thread(sum, [1, 2]) == 3
"""
    await run_cell(source, names, "<thread>")
    test = names["test_without_a_deadline_a_thread_is_waited_for"]
    ran = await names["run_tests"](test, names["jumping_backend"], show=False)
    assert ran.passed == [test.__name__]


BOTH_MARKS = """
@pytest.mark.no_leaks(tasks=True, threads=False, blocking=False)
@pytest.mark.anyio
async def test_ten_buyers(client):
    assert await ten_at_once(client) == [200] + [409] * 9
"""


async def test_with_both_marks_the_test_with_ten_buyers_stops_every_broken_version(
    cells_of: Callable[[str], Any],
) -> None:
    more = ("breaks-blocking", "breaks-leak", "ship-versions")
    names = await cells_of("18").define(*SHOP, *SUITE, *more)
    names["receipts"] = []
    await run_cell(BOTH_MARKS, names, "<both marks>")
    parts = ["test_ten_buyers", "every_shop", "anyio_backend", "client", "no_blocking"]
    ran = await names["run_tests"](*(names[part] for part in parts), show=False)
    assert ran.caught == ["take_cup", "take_blocking", "take_and_mail"]
