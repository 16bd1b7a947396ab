"""Lesson 14: the teahouse has its faults where the exercise says, and nowhere else."""

import asyncio
import re
import sys
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from looplab.exercises.service_faults import CLIENT, DEADLINE, FAN_OUT, LOAN, TASK, TRUE
from looplab.lab.own_app import xray_app
from looplab.lab.units import PACE_VARIABLE, ms
from looplab.shop.teahouse import TEAS
from looplab.stages.check_up import HEADINGS, OpenSupplier

pytestmark = pytest.mark.anyio

SOME = ["/teas", "/stock", "/offer", "/parcel", "/delivery", "/prices", "/visit", "/invoice"]
WITH_SKU = {"/stock", "/offer", "/parcel", "/delivery", "/invoice"}
REQUESTS = 10 + 1  # and one unrecorded


@pytest.fixture
async def check_up(
    cells_of: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncGenerator[Any]:
    """The lesson's check-up on a teahouse, as ``await check_up(paths)``: a row of each path.

    It runs at half the waits, or at the pace that the test asks for.
    """
    monkeypatch.setenv(PACE_VARIABLE, getattr(request, "param", "0.5"))
    supplier = await OpenSupplier.open()
    monkeypatch.setenv("TEAHOUSE_SUPPLIER", supplier.url)
    monkeypatch.setenv("TEAHOUSE_PRINTING", "0.02")
    monkeypatch.setenv("TEAHOUSE_PATIENCE", "5")
    lesson = cells_of("14")
    names = await lesson.define("setup", "ship-check-up")
    rows: list[list[list[str]]] = []
    names["show_table"] = lambda _headings, found: rows.append(found)

    async def run(paths: list[str], tea: str = "tea-1") -> dict[str, dict[str, str]]:
        asked = [f"{path}/{tea}" if path in WITH_SKU else path for path in paths]
        rows.clear()
        await names["check_up"](names["create_app"], asked)
        return {
            path: dict(zip(HEADINGS, row, strict=True))
            for path, row in zip(paths, rows[0], strict=True)
        }

    yield run
    await supplier.close()


def seconds(cell: str) -> float:
    number, unit = cell.replace(",", "").split()
    return float(number) / {"ms": 1000, "s": 1}[unit]


async def test_only_one_endpoint_connects_for_each_request(check_up: Any) -> None:
    found = await check_up(["/stock", "/offer", "/delivery"])
    opened = {path: int(row["connects"]) for path, row in found.items()}
    assert opened.pop(TRUE[CLIENT]) >= REQUESTS
    assert all(0 < count <= 4 for count in opened.values()), opened


async def test_a_shared_client_connects_for_each_call_too_when_nobody_answers(
    check_up: Any,
) -> None:
    found = await check_up(["/offer"], tea="tea-hangs")
    assert int(found["/offer"]["connects"]) == REQUESTS


@pytest.mark.parametrize("check_up", ["3"], indirect=True)  # a busy machine makes any loan longer
async def test_only_one_endpoint_keeps_its_loan_while_it_asks_the_supplier(check_up: Any) -> None:
    found = await check_up(["/teas", "/offer", "/parcel"])
    loans = {path: seconds(row["usual loan"]) for path, row in found.items()}
    longest = loans.pop(TRUE[LOAN])
    assert longest >= ms(60)
    assert max(loans.values()) < longest, loans


async def test_only_one_endpoint_leaves_tasks_and_another_has_many_at_once(check_up: Any) -> None:
    found = await check_up(["/visit", "/prices", "/offer", "/invoice"])
    left = {path: row["left behind"] for path, row in found.items()}
    assert left.pop(TRUE[TASK]) == str(REQUESTS)
    assert set(left.values()) == {""}
    tasks = {path: int(row["tasks at once"]) for path, row in found.items()}
    assert tasks.pop(TRUE[FAN_OUT]) >= len(TEAS)
    assert max(tasks.values()) < len(TEAS), tasks


async def test_only_one_endpoint_never_answers_when_the_supplier_hangs(
    check_up: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAHOUSE_PATIENCE", "0.05")
    found = await check_up(["/delivery", "/offer"], tea="tea-hangs")
    assert "none" in found[TRUE[DEADLINE]]["answers"]
    assert "200" not in found[TRUE[DEADLINE]]["answers"]
    assert "504" in found["/offer"]["answers"]


async def test_the_invoice_prints_in_a_thread(check_up: Any) -> None:
    found = await check_up(["/invoice"])
    assert "print_out" not in found["/invoice"]["longest hold"]


async def test_an_app_that_starts_only_once_answers_a_list_of_requests(cells_of: Any) -> None:
    supplier = await OpenSupplier.open()
    lesson = cells_of("14_deeper")
    names = await lesson.define("setup", "once-imports", "once-app")
    names["supplier"] = supplier
    report = await xray_app(names["make_once"](), ["/stock", "/stock"], times=2)
    assert [reply.status for reply in report.replies] == [200] * 4
    await supplier.close()


async def test_the_check_up_of_an_app_that_only_hangs_comes_to_an_end(cells_of: Any) -> None:
    lesson = cells_of("14")
    names = await lesson.define("setup", "ship-check-up")
    rows: list[list[list[str]]] = []
    names["show_table"] = lambda _headings, found: rows.append(found)

    async def hangs(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan here")
        await asyncio.sleep(3600)

    async with asyncio.timeout(60):
        await names["check_up"](lambda: hangs, ["/"])
    assert rows[0][0][HEADINGS.index("answers")] == "10 × none"


async def test_the_check_up_waits_two_seconds_for_an_answer_and_no_longer(
    cells_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PACE_VARIABLE, "0.25")  # so that two seconds are half a second
    names = await cells_of("14").define("setup", "ship-check-up")
    names["show_table"] = lambda _headings, found: None

    async def late_for_a_while(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan here")
        await asyncio.sleep(ms(5_000) if scope["path"] == "/late" else ms(200))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    late, in_time = await names["check_up"](lambda: late_for_a_while, ["/late", "/in-time"])
    assert [reply.error for reply in late.replies] == ["no answer within 0.5 s"] * 10
    assert [reply.status for reply in in_time.replies] == [204] * 10


@pytest.mark.skipif(sys.version_info < (3, 14), reason="pstree needs Python 3.14")
async def test_pstree_prints_the_tree_that_the_lesson_shows(cells_of: Any) -> None:
    lesson = cells_of("14_deeper")
    names = await lesson.run("setup", "pstree-patient", "pstree-look")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", names["HANGS"])
    try:
        said = await asyncio.to_thread(names["look_into"], process, seconds=60)
    finally:
        process.kill()
        await process.wait()
    shown = lesson.source("pstree-after").partition("```\n")[2].partition("```")[0]
    assert _bare_tree(said) == _bare_tree(shown)


def _bare_tree(text: str) -> list[str]:
    """Return a tree's lines; of Python's own files only the names, without folders and lines."""
    lines = [re.sub(r"\S*/asyncio/(\w+\.py):\d+", r"\1", line) for line in text.splitlines()]
    return [line.rstrip() for line in lines if line.strip()]
