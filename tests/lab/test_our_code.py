"""Whose code it is: the learner's is drawn, a library's is not, and `ours` names exceptions."""

import asyncio
import importlib
import json
import sys
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from looplab.lab import our_code
from looplab.lab.clients import in_process
from looplab.lab.our_code import folder, is_ours, places_of, short_name
from looplab.lab.xray import xray

pytestmark = pytest.mark.anyio

SOURCE = """
import asyncio
from fastapi import FastAPI

app = FastAPI()

async def load_rows():
    await asyncio.sleep(0)

async def tidy_up():
    await asyncio.shield(load_rows())

@app.get("/rows")
async def rows():
    await load_rows()
    await asyncio.create_task(tidy_up())
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """A folder where packages are installed, with ``course_shop.web`` and ``course_single``."""
    package = tmp_path / "course_shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "web.py").write_text(SOURCE)
    (tmp_path / "course_single.py").write_text(SOURCE)
    (tmp_path / "course_single_too.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    libraries = (*our_code.LIBRARY_FOLDERS, folder(tmp_path))
    monkeypatch.setattr(our_code, "LIBRARY_FOLDERS", libraries)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("course_")]:
        del sys.modules[name]


async def names_seen(module: ModuleType, **options: Any) -> tuple[list[str], set[str]]:
    async with in_process(module.app) as client:
        recording = await xray(client.get("/rows"), show=False, **options)
    return recording.names, {name for lane in recording.tasks for name in lane.waits}


@pytest.mark.parametrize(
    ("module", "ours"),
    [
        ("course_shop.web", "course_shop"),
        ("course_shop.web", "course_shop.web"),
        ("course_shop.web", ["json", "course_shop"]),
        ("course_single", "course_single"),
    ],
)
async def test_an_installed_app_is_drawn_when_it_is_named(
    installed: Path, module: str, ours: Any
) -> None:
    app = importlib.import_module(module)
    assert await names_seen(app) == (["GET /rows"], {"GET /rows"})
    names, waits = await names_seen(app, ours=ours)
    assert names == ["GET /rows", "tidy_up", "load_rows"]
    assert {"load_rows", "tidy_up"} <= waits


async def test_an_installed_app_is_drawn_when_its_module_is_given(installed: Path) -> None:
    app = importlib.import_module("course_shop.web")
    package = importlib.import_module("course_shop")
    for ours in (app, package, [package]):
        assert (await names_seen(app, ours=ours))[0] == ["GET /rows", "tidy_up", "load_rows"]
    other = importlib.import_module("course_single_too")
    assert (await names_seen(other, ours=[app, "course_single"]))[0] == ["GET /rows"]


def test_a_package_that_is_linked_to_is_found_by_both_its_paths(installed: Path) -> None:
    (installed / "course_link").symlink_to(installed / "course_shop", target_is_directory=True)
    importlib.invalidate_caches()
    places = places_of("course_link")
    assert places == (folder(installed / "course_link"), folder(installed / "course_shop"))


@pytest.mark.parametrize(
    ("ours", "error", "words"),
    [
        (5, TypeError, "ours is 5; it must be a module, the name of one such as 'shop', or a list"),
        ([json, 5], TypeError, "and 5 is neither"),
        (Path("shop"), TypeError, "it must be a module"),
        ("not_there", ValueError, "ours names 'not_there'; no package or module of that name"),
        ("not_there.web", ValueError, "ours names 'not_there.web'"),
        ("json.not_there", ValueError, "ours names 'json.not_there'"),
        (["json", ""], ValueError, "ours names ''"),
        ("./shop", ValueError, "ours names './shop'"),
        ("sys", ValueError, "ours names 'sys', which has no Python file"),
        (sys, ValueError, "ours names 'sys', which has no Python file"),
    ],
)
async def test_what_names_no_code_is_refused_before_anything_runs(
    ours: Any, error: type[Exception], words: str
) -> None:
    ran = []

    async def runs() -> None:
        ran.append(True)

    with pytest.raises(error, match=words):
        await xray(runs(), ours=ours, show=False)
    assert ran == []
    assert asyncio.get_running_loop().get_task_factory() is None


def test_a_library_is_ours_only_where_it_is_named() -> None:
    code = httpx.AsyncClient.get.__code__
    assert not is_ours(code)
    assert is_ours(code, places_of("httpx"))
    assert not is_ours(code, places_of("starlette"))


@pytest.mark.parametrize(
    ("qualified", "short"),
    [
        ("Timing.__call__", "Timing"),
        ("main.<locals>.Timing.__call__", "Timing"),
        ("Timing.dispatch", "Timing.dispatch"),
        ("dispatch", "dispatch"),
        ("__call__", "__call__"),
    ],
)
def test_methods_that_say_nothing_alone_are_named_with_their_class(
    qualified: str, short: str
) -> None:
    assert short_name(qualified) == short
