"""Ways to compute beside an event loop: what lesson 01 measures, here and on other Pythons.

``python -m looplab.stages.parallel FILE`` measures the Python that runs it, and keeps the result in
FILE under the build's name; without FILE it prints it. It needs the standard library alone, so that
it runs on a Python for which packages are missing. The course's own file is ``parallel.json``
beside this module, made on Python 3.14 with a GIL and on a free-threaded one::

    PYTHONPATH=support python3.14 -m looplab.stages.parallel support/looplab/stages/parallel.json
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from concurrent import futures
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

KEPT = Path(__file__).with_suffix(".json")
WORKERS = 2
REPORTS = 4
ROUNDS = 2
ROUNDS_TO_KEEP = 8  # more, since what is kept should look the same on a busy machine
STUBBORN = 10.0  # seconds for which a thread may keep the GIL while wakes are counted
WORK = "looplab.exercises.supplier"  # by name: it belongs to a part that stages don't know of

Job = Callable[[], object]
Pool = Callable[[], futures.Executor]


@dataclass(frozen=True, slots=True)
class Beside:
    """What four reports did to the loop that had them made. Times are in seconds.

    Attributes:
        started: until the first report of each worker was there, its start included.
        gain: how many times as fast four reports are made as in turn, in the middle round.
        took: until all four were there, in the quickest round.
        wakes: how often the loop woke meanwhile, at most; no thread had to give up its GIL.
    """

    started: float
    gain: float
    took: float
    wakes: int

    @property
    def woken(self) -> bool:
        """Whether the loop woke much oftener than four finished reports alone would wake it."""
        return self.wakes > 3 * REPORTS


@dataclass(frozen=True, slots=True)
class Build:
    """A Python: its ``version``, whether it has a GIL, and how many ``processors`` it ran on."""

    version: str
    gil: bool
    processors: int

    @property
    def name(self) -> str:
        """Such as "Python 3.14.0, free-threaded"."""
        return f"Python {self.version}, {'with a GIL' if self.gil else 'free-threaded'}"


def this_build() -> Build:
    """Return what runs this. A free-threaded Python may have switched its GIL on again."""
    asked = getattr(sys, "_is_gil_enabled", None)
    processors = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    return Build(platform.python_version(), asked is None or asked(), processors)


def pools() -> dict[str, Pool]:
    """Return what makes a pool of two workers, by kind: those that this Python has."""
    found: dict[str, Pool] = {
        "threads": lambda: futures.ThreadPoolExecutor(WORKERS),
        "processes": lambda: futures.ProcessPoolExecutor(WORKERS, get_context("spawn")),
    }
    if sys.version_info >= (3, 14):
        found["interpreters"] = lambda: futures.InterpreterPoolExecutor(WORKERS)
    return found


async def beside(make: Pool, job: Job, rounds: int = ROUNDS) -> Beside:
    """Have ``job`` done four times in a new pool, beside this loop, and tell what that did to it.

    While it counts, a thread keeps its GIL until it waits for something or is done, and not only
    for the usual 5 ms. So the loop wakes if it needs no GIL that a report holds. Raises what the
    job raises.
    """
    loop = asyncio.get_running_loop()
    usual = sys.getswitchinterval()
    alone, took, wakes = [], [], []
    with make() as pool:
        began = perf_counter()
        await asyncio.gather(*[loop.run_in_executor(pool, job) for _ in range(WORKERS)])
        started = perf_counter() - began
        for _ in range(rounds):
            began = perf_counter()
            await loop.run_in_executor(pool, job)
            alone.append(perf_counter() - began)
            sys.setswitchinterval(STUBBORN)
            try:
                began = perf_counter()
                reports = [loop.run_in_executor(pool, job) for _ in range(REPORTS)]
                wakes.append(await _wakes_until(asyncio.gather(*reports)))
                took.append(perf_counter() - began)
            finally:
                sys.setswitchinterval(usual)
    gains = [REPORTS * one / four for one, four in zip(alone, took, strict=True)]
    return Beside(started, median(gains), min(took), max(wakes))


async def _wakes_until(reports: asyncio.Future[Any]) -> int:
    wakes = 0
    while not reports.done():
        await asyncio.sleep(0.001)
        wakes += 1
    await reports
    return wakes


async def beside_each(job: Job, rounds: int = ROUNDS) -> dict[str, Beside]:
    """Measure every kind of pool that this Python has, one after another."""
    return {kind: await beside(make, job, rounds) for kind, make in pools().items()}


def kept(path: Path = KEPT) -> dict[Build, dict[str, Beside]]:
    """Return what other Pythons have measured."""
    return {
        Build(**one["build"]): {kind: Beside(**it) for kind, it in one["beside"].items()}
        for one in json.loads(path.read_text(encoding="utf-8"))
    }


def as_kept(found: Mapping[Build, Mapping[str, Beside]]) -> str:
    """Return the text of the file that :func:`kept` reads."""
    rows = [
        {"build": asdict(build), "beside": {kind: asdict(it) for kind, it in each.items()}}
        for build, each in sorted(found.items(), key=lambda one: one[0].name)
    ]
    return json.dumps(rows, indent=1) + "\n"


def show(build: Build, measured: Mapping[str, Beside]) -> None:
    """Show a table of what each kind of pool did to the loop, under the name of the Python."""
    from looplab.lab import show_table  # measuring does without the packages that it needs
    from looplab.lab.compare import milliseconds

    rows = [
        [
            kind,
            milliseconds(one.started),
            milliseconds(one.took),
            f"{one.gain:.1f} times",
            f"{one.wakes} times",
        ]
        for kind, one in measured.items()
    ]
    show_table([build.name, "first reports", "four reports", "as fast", "the loop woke"], rows)


def main(arguments: list[str]) -> None:
    """Measure this Python; keep it in the file that is named, in place of one of its kind."""
    supplier = import_module(WORK)
    build = this_build()
    job = partial(supplier.summarise, supplier.PRICES)
    measured = asyncio.run(beside_each(job, ROUNDS_TO_KEEP))
    path = Path(arguments[0]) if arguments else None
    before = kept(path) if path and path.exists() else {}
    others = {one: it for one, it in before.items() if one.gil != build.gil}
    text = as_kept({**others, build: measured})
    if path:
        path.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main(sys.argv[1:])
