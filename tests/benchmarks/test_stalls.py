"""Every lesson on a machine that stands still now and then, at each pace that is promised.

The kernel is stopped and let go on, at random: what a busy machine does to a process, only more
often. A claim that fails here rests on a moment that nobody can promise. `-k "04 and half"` runs
one; a lesson is to hold again and again, not once.
"""

import os
import random
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import pytest
from nbclient import NotebookClient

from looplab.lab.units import PACE_VARIABLE
from looplab.project import Lesson, Project
from looplab.publishing.notebooks import read_notebook

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no SIGSTOP here: POSIX only"),
]

APART = 1.0  # seconds between two stalls, on average
SHORTEST, LONGEST = 0.02, 0.15  # seconds that a stall lasts
PACES = {"half": "0.5", "one": "1", "four": "4"}
LESSONS = Project.here().lessons()


@contextmanager
def standing_still_at_times(client: NotebookClient) -> Generator[list[float]]:
    """Stop the client's kernel now and then while the block runs; yields how long, in seconds."""
    over, stalls, dice = threading.Event(), [], random.Random()

    def stand_still() -> None:
        while not over.wait(dice.expovariate(1 / APART)):
            kernel = getattr(getattr(client.km, "provisioner", None), "pid", None)
            if kernel is None:  # not started yet
                continue
            with suppress(ProcessLookupError):
                os.kill(kernel, signal.SIGSTOP)
                stalls.append(dice.uniform(SHORTEST, LONGEST))
                try:
                    over.wait(stalls[-1])
                finally:
                    os.kill(kernel, signal.SIGCONT)

    thread = threading.Thread(target=stand_still, name="stalls")
    thread.start()
    try:
        yield stalls
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.number)
def test_claims_hold_on_a_machine_that_stands_still(
    figures: Callable[[str], AbstractContextManager[Any]],
    monkeypatch: pytest.MonkeyPatch,
    lesson: Lesson,
    pace: str,
) -> None:
    monkeypatch.setenv(PACE_VARIABLE, PACES[pace])
    notebook = read_notebook(lesson.path)
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(lesson.path.parent)}},
    )
    with standing_still_at_times(client) as stalls:
        client.execute()
    with figures(f"{lesson.number} at pace {PACES[pace]}") as table:
        table.only("the kernel stood still", len(stalls))
        table.only("the longest time", max(stalls, default=0.0), "s")
    failed = [
        f"{cell['id']}: {output['ename']}: {output['evalue']}"
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if output["output_type"] == "error"
    ]
    assert failed == []
