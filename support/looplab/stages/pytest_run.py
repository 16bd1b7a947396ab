"""Tests that stand in the cells of a lesson, run by pytest in a process of their own.

A notebook's loop runs already, and pytest needs one that it can start and stop. So the functions of
the cells become a file, with what they use from other cells and the imports that they need, and
pytest runs that file as it would run any other.
"""

import ast
import asyncio
import builtins
import inspect
import linecache
import os
import re
import subprocess
import symtable
import sys
import tempfile
import textwrap
import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from looplab.lab.display import show_table
from looplab.lab.errors import LessonError

PLUGINS = ("anyio.pytest_plugin", "pyleak.pytest_plugin")
INI = """\
[pytest]
markers =
    no_leaks: fails a test that leaves a task behind (pyleak)
"""
WITHIN = 30.0
"""Seconds that a run of pytest may take."""
CONSTANTS = (bool, int, float, str, bytes, type(None))


@dataclass(frozen=True, slots=True)
class Ran:
    """What pytest reported of one run."""

    outcomes: dict[str, str]
    """``passed``, ``failed`` or ``error`` (of a fixture) by the name of the test."""
    said: dict[str, str]
    """The first line of what a test failed with, by its name; nothing for those that passed."""
    seconds: float
    """How long the tests took, without starting Python and pytest."""
    source: str
    """The file that pytest ran."""

    @property
    def passed(self) -> list[str]:
        """The names of the tests that passed, in their order."""
        return [name for name, outcome in self.outcomes.items() if outcome == "passed"]

    @property
    def failed(self) -> list[str]:
        """The names of the tests that did not pass, in their order."""
        return [name for name, outcome in self.outcomes.items() if outcome != "passed"]

    @property
    def caught(self) -> list[str]:
        """The parameters with which a test did not pass, each once, in their order.

        A parameter is what stands in brackets behind a test's name: ``late`` of ``test_it[late]``.
        """
        behind = [name.partition("[")[2].removesuffix("]") for name in self.failed]
        return list(dict.fromkeys(parameter for parameter in behind if parameter))


async def run_tests(
    *parts: Any,
    options: Sequence[str] = (),
    within: float = WITHIN,
    show: bool = True,
    **others: Any,
) -> Ran:
    """Run tests with pytest in a process of its own, show a table and return what it reported.

    Args:
        parts: the tests and fixtures, functions of the notebook's cells. What they use is found
            and goes into the file too, as far as it is a function, a class, a module or a plain
            value such as a number.
        options: for pytest's command line, such as ``["-W", "error"]``.
        within: seconds after which the run is ended.
        show: whether to show the table.
        others: what names of the notebook shall mean in this file instead.

    Raises LessonError when a part can't be written into a file, when pytest finds no test in it,
    and when the run isn't over in time.
    """
    source = source_of(parts, others)
    with tempfile.TemporaryDirectory(prefix="looplab-tests-") as folder:
        (Path(folder) / "pytest.ini").write_text(INI, encoding="utf-8")
        (Path(folder) / "test_cells.py").write_text(source, encoding="utf-8")
        printed = await _pytest(Path(folder), options, within)
        report = Path(folder) / "report.xml"
        found = _read(report) if report.is_file() else None
    if found is None or not found[0]:
        raise LessonError(f"pytest found no test to run:\n{printed[-2000:]}")
    outcomes, said, seconds = found
    ran = Ran(outcomes, said, seconds, source)
    if show:
        show_table(
            ("test", "outcome", "what pytest says"),
            [(name, outcome, said.get(name, "")) for name, outcome in outcomes.items()],
        )
    return ran


def source_of(parts: Iterable[Any], others: dict[str, Any] | None = None) -> str:
    """Return a Python file that holds ``parts`` and what they use, each once, in order of need.

    ``others`` are what names shall mean instead. Raises LessonError when something can't be
    written into a file.
    """
    file = _File(others or {})
    for part in parts:
        file.add(getattr(part, "__name__", repr(part)), part)
    imports = sorted(set(file.imports), key=lambda line: (line.startswith("from"), line))
    return "\n".join(imports) + "\n\n\n" + "\n\n\n".join(file.bodies) + "\n"


class _File:
    """A file that grows: each thing stands behind what it uses."""

    def __init__(self, others: dict[str, Any]) -> None:
        self.others = others
        self.imports: list[str] = []
        self.bodies: list[str] = []
        self.known: set[str] = set()

    def add(self, name: str, value: Any) -> None:
        """Write what ``name`` means into the file, unless it is there already."""
        if name in self.known:
            return
        self.known.add(name)
        plain = inspect.unwrap(value) if callable(value) else value
        if isinstance(value, types.ModuleType):
            self.imports.append(_import(value.__name__, name))
        elif isinstance(value, CONSTANTS):
            self.bodies.append(f"{name} = {value!r}")
        elif isinstance(value, (list, tuple)):
            self.bodies.append(f"{name} = [{', '.join(map(self._told, value))}]")
        elif callable(plain) and hasattr(plain, "__name__") and plain.__module__ != "__main__":
            self._import_from(name, plain)
        elif isinstance(plain, (types.FunctionType, type)):
            self._write(name, plain)
        else:
            raise LessonError(
                f"{name} is a {type(value).__name__}; a test can use functions, classes, modules "
                "and plain values of the cells. Make it in a function or a fixture."
            )

    def _told(self, value: Any) -> str:
        """Return how an element of a list is written, and write what it names into the file."""
        if isinstance(value, CONSTANTS):
            return repr(value)
        name = getattr(value, "__name__", "")
        self.add(name or repr(value), value)
        return name

    def _import_from(self, name: str, value: Any) -> None:
        own = getattr(value, "__qualname__", value.__name__)
        module = value.__module__
        if module is None:  # of a method of a hidden object, as random.random is
            own, module = value.__name__, _holder_of(value)
        if module is None:
            raise LessonError(f"{name} is {value!r}, and no module has it by its name.")
        if not own.isidentifier() or not hasattr(sys.modules.get(module), own):
            own = name
        alias = "" if own == name else f" as {name}"
        self.imports.append(f"from {module} import {own}{alias}")

    def _write(self, name: str, value: Any) -> None:
        try:
            source = _source(value)
        except (OSError, TypeError) as error:
            raise LessonError(f"{name} has no source that can be read: {error}.") from error
        around = _globals(value)
        meanings = around | self.others
        for used in _names(source):
            if used != value.__name__ and used in meanings:
                self.add(used, meanings[used])
        self.bodies.append(source.strip("\n"))
        if name != value.__name__:
            self.bodies.append(f"{name} = {value.__name__}")


def _source(value: Any) -> str:
    """Return the source of a function or a class.

    Python finds a class by its module's file, which a notebook's cell has none of; so it is looked
    up where its methods stand. Raises OSError or TypeError when there is no source.
    """
    if not isinstance(value, type):
        return textwrap.dedent(inspect.getsource(value))
    for method in vars(value).values():
        if isinstance(method, types.FunctionType):
            lines = "".join(linecache.getlines(method.__code__.co_filename))
            for node in ast.walk(ast.parse(lines)):
                if isinstance(node, ast.ClassDef) and node.name == value.__name__:
                    return ast.get_source_segment(lines, node) or ""
    raise OSError("it has no method whose source is known")


def _holder_of(value: Any) -> str | None:
    """Return a module that holds ``value`` by the name that it has itself; None if none does."""
    for name, module in list(sys.modules.items()):
        if name != "__main__" and getattr(module, "__dict__", {}).get(value.__name__) is value:
            return name
    return None


def _globals(value: Any) -> dict[str, Any]:
    """Return what names mean where a function or a class stands."""
    if isinstance(value, types.FunctionType):
        return value.__globals__
    methods = [one for one in vars(value).values() if isinstance(one, types.FunctionType)]
    return methods[0].__globals__ if methods else {}


def _import(module: str, name: str) -> str:
    return f"import {module}" if module == name else f"import {module} as {name}"


def _names(source: str) -> list[str]:
    """Return the names that a source reads and that mean something outside of it, in order."""
    found: list[str] = []
    tables = [symtable.symtable(source, "<cell>", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        top = table.get_type() == "module"
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (symbol.is_global() or top):
                found.append(symbol.get_name())
    return sorted(name for name in set(found) if not hasattr(builtins, name))


async def _pytest(folder: Path, options: Sequence[str], within: float) -> str:
    """Run pytest on the folder and return what it printed."""
    plugins = [part for plugin in PLUGINS for part in ("-p", plugin)]
    command = [
        *(sys.executable, "-m", "pytest", "-q", "--tb=line", "-p", "no:cacheprovider"),
        *plugins,
        *options,
        *("--rootdir", str(folder), f"--junitxml={folder / 'report.xml'}", str(folder)),
    ]
    process = _started(command, folder)
    reading = asyncio.create_task(asyncio.to_thread(process.communicate))
    try:
        async with asyncio.timeout(within):
            printed, _ = await asyncio.shield(reading)
    except TimeoutError:
        told = f"The tests weren't over in {within:g} s, so the run was ended."
        raise LessonError(told) from None
    finally:
        process.kill()
        await asyncio.wait({reading})
    return printed.decode(errors="replace")


def _started(command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    # Not asyncio's own subprocesses: the event loop of a notebook on Windows starts none.
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _read(report: Path) -> tuple[dict[str, str], dict[str, str], float]:
    """Return outcomes and messages by test, and the seconds that all of them took together."""
    outcomes: dict[str, str] = {}
    said: dict[str, str] = {}
    seconds = 0.0
    for case in ElementTree.parse(report).iter("testcase"):
        if not case.get("classname"):
            continue  # the file itself, which could not be imported
        name = case.get("name", "")
        seconds += float(case.get("time", 0))
        trouble = next((part for part in case if part.tag in ("failure", "error")), None)
        if trouble is None:
            outcomes.setdefault(name, "passed")
        elif outcomes.get(name) != "failed":
            outcomes[name] = "failed" if trouble.tag == "failure" else "error"
            said[name] = _first_line(trouble.get("message", ""))
    return outcomes, said, seconds


def _first_line(message: str) -> str:
    line = message.partition("\n")[0].partition(" [single exception")[0].strip()
    line = re.sub(r" at 0x[0-9a-f]+", "", line)
    return line.rpartition("blockbuster.blockbuster.")[2].removeprefix("AssertionError: ")
