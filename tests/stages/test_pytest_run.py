"""Tests in a lesson's cells, run by pytest in a process of its own."""

import asyncio
from typing import Any

import psutil
import pytest

from looplab.lab.errors import LessonError
from looplab.publishing.cells import run_cell
from looplab.stages.pytest_run import Ran, run_tests, source_of

pytestmark = pytest.mark.anyio


async def cell(source: str, name: str = "<cell>") -> dict[str, Any]:
    """Return the names that a notebook's cell sets."""
    names: dict[str, Any] = {"__name__": "__main__"}
    await run_cell(source, names, name)
    return names


SHOP = """
import asyncio as waiting
from collections import Counter

import pytest

PRICES = [250, "cents"]
CHECKS = 3

class Till:
    def __init__(self):
        self.sold = Counter()

def sell(till, what):
    till.sold[what] += CHECKS

SELLERS = [sell, None]

@pytest.fixture
def till():
    return Till()

def test_sell(till):
    sell(till, PRICES[1])
    assert SELLERS[0] is sell
    assert till.sold == {"cents": 3}
"""


async def test_a_test_takes_along_what_it_uses_and_nothing_else() -> None:
    names = await cell(SHOP)
    source = source_of([names["test_sell"], names["till"]])
    found: dict[str, Any] = {}
    exec(source, found)
    assert {"PRICES", "CHECKS", "Till", "sell", "SELLERS", "till", "test_sell", "Counter"} <= set(
        found
    )
    assert "waiting" not in found
    assert source.count("def sell(") == 1


async def test_a_name_can_mean_something_else_in_the_file() -> None:
    own = """
def give(till, what):
    till.sold[what] = 3

def test_give(till):
    sell(till, "cents")
"""
    names = await cell(SHOP + own)
    source = source_of([names["test_give"]], {"sell": names["give"]})
    assert "def sell(" not in source
    assert "sell = give" in source


@pytest.mark.parametrize(
    "test",
    [
        "def test_it(shop):\n    assert shop\n",
        "def test_it():\n    shop = 3\n    assert shop\n",
        "def test_it():\n    with open('x') as shop:\n        assert shop\n",
        "def test_it():\n    assert [shop for shop in range(3)]\n",
    ],
)
async def test_what_a_test_calls_its_own_is_not_looked_up(test: str) -> None:
    names = await cell("class Shop:\n    pass\n\nshop = Shop()\n\n" + test)
    assert "Shop" not in source_of([names["test_it"]])


async def test_what_cannot_be_written_into_a_file_is_said() -> None:
    source = "from fastapi import FastAPI\napp = FastAPI()\n\ndef test_it():\n    assert app\n"
    names = await cell(source)
    with pytest.raises(LessonError, match="app is a FastAPI; a test can use functions"):
        source_of([names["test_it"]])


DRAWS = """
import random
from os import getpid
from random import random as draw, uniform

def test_draws():
    assert 0 <= draw() < 1
    assert 2 <= uniform(2, 3) <= 3
    assert random.random() < 1
    assert getpid()
"""


async def test_a_function_that_tells_no_module_is_imported_all_the_same() -> None:
    report = await ran(DRAWS, "test_draws")
    assert report.passed == ["test_draws"]
    assert "from random import random as draw" in report.source


async def test_a_function_that_no_module_has_is_said() -> None:
    source = (
        "import random\n\ndraw = random.Random(3).random\n\ndef test_it():\n    assert draw()\n"
    )
    names = await cell(source)
    with pytest.raises(LessonError, match="no module has it by its name"):
        source_of([names["test_it"]])


OUTCOMES = """
import pytest

@pytest.fixture
def broken():
    raise ConnectionError("no database")

def test_good():
    pass

def test_bad():
    assert 1 == 2

def test_unlucky(broken):
    pass
"""


async def ran(source: str, *names: str, **options: Any) -> Ran:
    """Run the named functions of a cell with pytest."""
    found = await cell(source)
    return await run_tests(*(found[name] for name in names), show=False, **options)


async def test_each_outcome_is_told_with_what_pytest_says() -> None:
    report = await ran(OUTCOMES, "test_good", "test_bad", "test_unlucky", "broken")
    assert report.outcomes == {
        "test_good": "passed",
        "test_bad": "failed",
        "test_unlucky": "error",
    }
    assert report.passed == ["test_good"]
    assert report.failed == ["test_bad", "test_unlucky"]
    assert report.said["test_bad"] == "assert 1 == 2"
    assert "no database" in report.said["test_unlucky"]


VARIANTS = """
import pytest

@pytest.mark.parametrize("number", [3, 1, 2])
def test_odd(number):
    assert number % 2

@pytest.mark.parametrize("number", [2, 1, 4])
def test_small(number):
    assert number < 2

def test_bad():
    assert 1 == 2
"""


async def test_what_is_caught_are_the_parameters_with_which_a_test_fails() -> None:
    report = await ran(VARIANTS, "test_odd", "test_small", "test_bad")
    assert report.caught == ["2", "4"]
    assert "test_bad" in report.failed


SLEEPERS = """
import time

def test_one():
    time.sleep(0.03)

def test_two():
    time.sleep(0.03)
"""


async def test_the_seconds_of_all_tests_are_added_up() -> None:
    report = await ran(SLEEPERS, "test_one", "test_two")
    assert 0.06 <= report.seconds < 60


async def test_a_file_without_a_test_is_said() -> None:
    with pytest.raises(LessonError, match="pytest found no test to run"):
        await ran("def helper():\n    pass\n", "helper")


async def test_a_run_that_hangs_is_ended_with_its_process() -> None:
    source = "import time\n\ndef test_hangs():\n    time.sleep(600)\n"
    with pytest.raises(LessonError, match=r"weren't over in 0\.5 s"):
        await ran(source, "test_hangs", within=0.5)
    assert [child for child in psutil.Process().children() if "pytest" in child.cmdline()] == []


async def test_a_loop_that_starts_no_processes_runs_tests_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuses(*_: Any, **__: Any) -> Any:
        raise NotImplementedError  # as a notebook's loop on Windows does

    monkeypatch.setattr(asyncio.get_running_loop(), "subprocess_exec", refuses)
    report = await ran("def test_good():\n    pass\n", "test_good")
    assert report.passed == ["test_good"]


async def test_a_cancelled_run_leaves_no_process() -> None:
    source = "import time\n\ndef test_hangs():\n    time.sleep(600)\n"
    running = asyncio.create_task(ran(source, "test_hangs"))
    await asyncio.sleep(0.3)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    assert [child for child in psutil.Process().children() if "pytest" in child.cmdline()] == []
