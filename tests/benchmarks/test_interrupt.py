"""How soon an interrupt ends a cell that waits, in a lesson's kernel."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from statistics import median
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

pytestmark = pytest.mark.benchmark

ENDS_WITHIN = 2.0  # seconds
ROUNDS = 5
SET_UP = "import asyncio; from looplab.lab import start; start()"
CELLS = {
    "a cell that only awaits": "print('here'); await asyncio.sleep(600)",
    "a cell whose tasks await": (
        "print('here'); await asyncio.gather(*(asyncio.sleep(600) for _ in range(100)))"
    ),
    "a cell that blocks": "import time; print('here'); time.sleep(600)",
}


def seconds_to_end(manager: Any, client: Any, cell: str) -> float:
    client.execute(cell, stop_on_error=False)
    while client.get_iopub_msg(timeout=30)["msg_type"] != "stream":
        pass
    began = time.perf_counter()
    manager.interrupt_kernel()
    reply = client.get_shell_msg(timeout=30)
    took = time.perf_counter() - began
    assert reply["content"]["ename"] in ("KeyboardInterrupt", "CancelledError")
    return took


@pytest.mark.parametrize("name", CELLS)
def test_an_interrupt_ends_a_wait(
    figures: Callable[[str], AbstractContextManager[Any]], name: str
) -> None:
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        client.execute_interactive(SET_UP)
        taken = [seconds_to_end(manager, client, CELLS[name]) for _ in range(ROUNDS)]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    with figures(f"an interrupt of {name}") as table:
        table.at_most("it ends after", max(taken), ENDS_WITHIN, "s")
        table.only("median", median(taken), "s")
