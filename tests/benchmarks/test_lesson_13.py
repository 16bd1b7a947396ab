"""How much more lesson 13's mended service serves than the first one, on the lesson's own cells."""

import ast
import inspect
from collections.abc import AsyncGenerator
from statistics import median
from typing import Any

import nbformat
import pytest

from looplab.lab import LoadReport
from looplab.lab.display import collected
from looplab.project import Project

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

ROUNDS = 3
LAST_A_ROUND = 3  # they are short, so one that is disturbed is not to decide
REQUESTS = 144  # six times the lesson's: a new service's first requests open its connections
FIRST, LAST = "setup", "repair-less"
SKIPPED = {"predict-ceilings", "naive-xray"}
MENDED = (
    "OneClient InThread Gathered LetGo Sized Deadline Limited KeepSucceeded Queued Reserve AskLess"
)


@pytest.fixture
async def lesson() -> AsyncGenerator[dict[str, Any]]:
    """Yield the names that the lesson's cells define; `repair` only notes, and runs no load."""
    notebook = nbformat.read(Project.here().lesson("13").path, as_version=4)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    places = {cell["id"]: place for place, cell in enumerate(cells)}
    names: dict[str, Any] = {}
    for cell in cells[places[FIRST] : places[LAST] + 1]:
        if cell["id"] in SKIPPED:
            continue
        tree = ast.parse(cell["source"].removesuffix("start()"))
        # Definitions and what they need; what a cell measures, shows and claims stays out.
        tree.body = [node for node in tree.body if _is_wanted(node)]
        code = compile(tree, cell["id"], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        value = eval(code, names)
        if inspect.iscoroutine(value):
            await value
    try:
        yield names
    finally:
        await names["town"].aclose()
        for shop in (names["small"], names["sized"]):
            await shop.close()


def _is_wanted(node: ast.stmt) -> bool:
    called = {
        call.func.id
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    }
    defines = isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Try)
    measures = {"claim", "measure", "repair", "lost_sales", "show_loads", "watch"}
    uses = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
    results = {"first", "freed", "together", "loop_freed", "gathered", "needs", "least"}
    return defines or not (called & measures or uses & results)


async def test_the_mended_service_serves_ten_times_as_much(
    lesson: dict[str, Any], figures: Any
) -> None:
    repairs = [lesson[name] for name in MENDED.split()]
    lesson["LOAD"] = lesson["storefront"].visits(REQUESTS)
    first: list[LoadReport[Any]] = []
    last: list[LoadReport[Any]] = []
    with collected():
        await lesson["measure"](*repairs)  # fills SQLAlchemy's caches
        for _ in range(ROUNDS):
            first.append(await lesson["measure"]())
            last += [await lesson["measure"](*repairs) for _ in range(LAST_A_ROUND)]
    before = median(report.throughput for report in first)
    times = median(report.throughput for report in last) / before
    done = median(report.duration for report in last)
    work = median(report.cpu for report in last)
    ms = lesson["ms"]
    requests = len(last[0].samples)
    bound = requests * 3 / 4 * ms(20) / 4  # the supplier's, as in the lesson
    with figures(f"lesson 13, {requests} requests of {last[0].clients} clients") as table:
        table.only("first state", median(report.duration for report in first) * 1000, "ms")
        table.only("all repairs", done * 1000, "ms")
        table.only("all repairs, of what arithmetic allows", done / bound)
        table.only("the processor's work in it, clients and partners too", work * 1000, "ms")
        table.only("work a request", work / requests * 1000, "ms")
        table.only("first state, errors", max(report.failed for report in first), "requests")
        table.at_most("all repairs, errors", max(report.failed for report in last), 0, "requests")
        table.only("throughput, of the first state", times)
        table.at_most("throughput of the first state, of all repairs", 1 / times, 1 / 10)
