"""The kernel of a notebook outlives hostile answers and the stop button."""

import os
from collections.abc import Generator

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

from looplab.project import Project

KERNEL_SECONDS = 120

needs_posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

SET_UP = """
import asyncio, signal, sys, time, anyio
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from looplab.exercises.row_import import check_import
from looplab.exercises.supplier import summarise
from looplab.exercises.supplier import prices_of
from looplab.lab import start
start()
print("ready", flush=True)
"""
HOSTILE = {
    "loop.stop": "asyncio.get_running_loop().stop()",
    "call_soon(loop.stop)": "asyncio.get_running_loop().call_soon(asyncio.get_running_loop().stop)",
    "all tasks": "[task.cancel() for task in asyncio.all_tasks()]",
    "exit": "exit()",
    "sleep": "time.sleep(30)",
    "spin": "while True: pass",
    "stdout": "sys.stdout.close()",
    "patch": "asyncio.sleep = asyncio.wait = None",
    "flood": "while True: print('x' * 10_000)",
}
BUSY_POOL = """
async def summary(pool):
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(pool, summarise, prices_of("lamp-7"))


with process_pool() as pool:
    await summary(pool)
    working = [asyncio.create_task(summary(pool)) for _ in range(20)]
    print("working", flush=True)
    await asyncio.sleep(3600)
"""


WITH_WORKER_PROCESSES = """
import anyio.to_process
from fastapi import FastAPI
from looplab.exercises.blocking import check_blocking
from looplab.exercises.supplier import fetch_prices

app = FastAPI()


@app.get("/report/{sku}")
async def report_on(sku: str):
    prices = await asyncio.to_thread(fetch_prices, sku)
    return {"sku": sku, "trend": await anyio.to_process.run_sync(summarise, prices)}


@app.get("/ping")
async def ping():
    return {"ok": True}


await check_blocking(app, limit=60)
"""


def cell_of(lesson: str, identity: str) -> str:
    cells = nbformat.read(Project.here().lesson(lesson).path, as_version=4)["cells"]
    return next(cell["source"] for cell in cells if cell["id"] == identity)


class Kernel:
    """A kernel as a notebook has it."""

    def __init__(self) -> None:
        self.manager, self._client = start_new_kernel(kernel_name="python3")

    def run(self, source: str, *, interrupt_at: str = "") -> str:
        """Run a cell, stop it once it shows ``interrupt_at``, and return what it showed as text."""
        request = self._client.execute(source, stop_on_error=False)
        shown = ""
        while True:
            message = self._client.get_iopub_msg(timeout=KERNEL_SECONDS)
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            if content.get("execution_state") == "idle":
                break
            new = content.get("text") or content.get("data", {}).get("text/plain", "")
            shown += new + "".join(content.get("traceback", ()))
            if interrupt_at and interrupt_at in new:
                self.manager.interrupt_kernel()
        assert self.manager.is_alive()
        return shown

    def close(self) -> None:
        self._client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel() -> Generator[Kernel]:
    kernel = Kernel()
    try:
        assert "ready" in kernel.run(SET_UP)
        yield kernel
    finally:
        kernel.close()


@needs_posix
def test_a_kernel_outlives_hostile_answers_and_checks_the_next_one(kernel) -> None:
    for name, line in HOSTILE.items():
        shown = kernel.run(
            f"async def import_rows(rows, add, keep, limit):\n    {line}\n"
            "await check_import(import_rows)"
        )
        assert "→" in shown, f"{name}: {shown}"
        assert "Traceback" not in shown, f"{name}: {shown}"
    stub = (
        "async def import_rows(rows, add, keep, limit):\n    raise NotImplementedError\n"
        "await check_import(import_rows)"
    )
    assert "Nothing to check yet" in kernel.run(stub)


@needs_posix
def test_the_stop_button_ends_a_check_that_waits(kernel) -> None:
    shown = kernel.run(
        "async def import_rows(rows, add, keep, limit):\n"
        "    print('waiting', flush=True)\n"
        "    await asyncio.sleep(3600)\n"
        "await check_import(import_rows, limit=3600)",
        interrupt_at="waiting",
    )
    assert "CancelledError" in shown or "KeyboardInterrupt" in shown


@needs_posix
def test_the_stop_button_leaves_the_kernel_of_lesson_01_alive(kernel) -> None:
    """An interrupt reaches the pool's workers too, and came back as a KeyboardInterrupt."""
    kernel.run(cell_of("01", "ship-pool"))
    for _ in range(3):
        kernel.run(BUSY_POOL, interrupt_at="working")
        assert "still 4" in kernel.run("print('still', 2 + 2, flush=True)")


def test_anyios_worker_processes_pass_the_check_of_lesson_01_in_a_kernel(kernel) -> None:
    """AnyIO finds no main task there, and would end its workers with the first request."""
    shown = kernel.run(WITH_WORKER_PROCESSES)
    assert "✓ Four reports run at once" in shown, shown
