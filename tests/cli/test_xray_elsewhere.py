"""`course xray` from the wheel, beside apps of other frameworks and of the oldest versions.

Each environment holds the base installation only, and is made from the package index by uv.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from looplab.project import Project
from looplab.pythons import OLDEST

FASTAPI = """
import time
from contextlib import asynccontextmanager
from fastapi import FastAPI

@asynccontextmanager
async def lifespan(app):
    yield {"ready": True}

app = FastAPI(lifespan=lifespan)

@app.get("/slow")
async def slow():
    time.sleep(0.3)

@app.get("/thread")
def thread():
    return "thread"
"""
STARLETTE = """
import time
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

class Timing(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        return await call_next(request)

async def slow(request):
    time.sleep(0.3)
    return PlainTextResponse("slow")

def thread(request):
    return PlainTextResponse("thread")

app = Starlette(
    routes=[Route("/slow", slow), Route("/thread", thread)], middleware=[Middleware(Timing)]
)
"""
LITESTAR = """
import time
from litestar import Litestar, get

@get("/slow")
async def slow() -> str:
    time.sleep(0.3)
    return "slow"

@get("/thread", sync_to_thread=True)
def thread() -> str:
    return "thread"

async def started(app: Litestar) -> None:
    app.state.ready = True

app = Litestar([slow, thread], on_startup=[started])
"""
APPS = {"a_fastapi": FASTAPI, "a_starlette": STARLETTE, "a_litestar": LITESTAR}
LANES = {"a_starlette": "GET /slow inside Timing"}
UNREACHABLE = ("dns error", "error sending request", "Connection refused", "operation timed out")


@dataclass(frozen=True)
class Installed:
    """An environment that the wheel is installed into, and a folder with the apps."""

    course: Path
    folder: Path
    environment: dict[str, str]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `course` there, outside of the checkout."""
        return subprocess.run(
            [str(self.course), *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )


@pytest.fixture(scope="module")
def uv(missing: Callable[[str], None]) -> Callable[..., str]:
    """Run uv and return what it prints; skip where there is none, or no index to be reached."""
    program = os.environ.get("UV") or shutil.which("uv")
    if program is None:
        missing("no uv on the PATH")

    def run(*words: str, cwd: Path) -> str:
        ended = subprocess.run(
            [str(program), *words], cwd=cwd, capture_output=True, text=True, check=False
        )
        if ended.returncode != 0 and any(sign in ended.stderr for sign in UNREACHABLE):
            missing("the package index can't be reached")
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    return run


@pytest.fixture(scope="module")
def wheel(uv: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--quiet", "--wheel", "--out-dir", str(folder), cwd=Project.here().root)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def install(
    uv: Callable[..., str], wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Installed]:
    """Make an environment for a Python, with the wheel and other packages."""

    def make(python: str, *packages: str) -> Installed:
        folder = tmp_path_factory.mktemp("elsewhere")
        uv("venv", "--quiet", "--python", python, "--no-python-downloads", ".venv", cwd=folder)
        uv("pip", "install", "--quiet", "--python", ".venv", str(wheel), *packages, cwd=folder)
        for name, source in APPS.items():
            (folder / f"{name}.py").write_text(source)
        programs = folder / ".venv" / ("Scripts" if sys.platform == "win32" else "bin")
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
        }
        return Installed(programs / "course", folder, environment)

    return make


@pytest.fixture(scope="module")
def newest(install: Callable[..., Installed]) -> Installed:
    return install(sys.executable, "fastapi", "litestar")


@pytest.fixture(scope="module")
def lowest(
    install: Callable[..., Installed], uv: Callable[..., str], missing: Callable[[str], None]
) -> Installed:
    version = ".".join(map(str, OLDEST))
    words = ("python", "find", "--system", "--no-python-downloads", version)
    try:
        python = uv(*words, cwd=Path(sys.prefix))
    except AssertionError:
        missing(f"there is no Python {version}")
        raise
    text = (Project.here().root / "pyproject.toml").read_text(encoding="utf-8")
    needed = map(Requirement, tomllib.loads(text)["project"]["dependencies"])
    pins = [f"{one.name}=={next(iter(one.specifier)).version}" for one in needed]
    # the first FastAPI that Starlette 0.41 fits
    return install(python, *pins, "fastapi==0.115.3", "starlette==0.41.0")


def check(installed: Installed, app: str) -> dict:
    """Hold that the x-ray of an app tells its hold by line, and return the JSON."""
    ended = installed.run(
        "xray", f"{app}:app", "/slow", "GET", "/thread", "--held=150", "--at-once=2", "--json=-",
        f"--page={app}.html",
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    found = json.loads(ended.stdout)
    line = APPS[app].splitlines().index("    time.sleep(0.3)") + 1
    placed = [one for one in found["holds"] if one["place"]]  # a busy machine's own have none
    places = {(one["name"], one["place"]["file"], one["place"]["line"]) for one in placed}
    assert places == {(LANES.get(app, "GET /slow"), f"{app}.py", line)}
    assert {one["status"] for one in found["requests"]} == {200}
    assert found["left_behind"] == []
    if app != "a_litestar":  # which asks the loop's own pool, whose work the x-ray can't name
        assert any(one["name"] == "thread: thread" for one in found["waits"])
    page = (installed.folder / f"{app}.html").read_text(encoding="utf-8")
    assert "<script>" in page
    assert f"{app}.py:{line} in slow" in page
    return found


@pytest.mark.parametrize("app", APPS)
def test_the_newest_of_each_framework_is_xrayed_without_the_notebooks_packages(
    newest: Installed, app: str
) -> None:
    versions = check(newest, app)["versions"]
    assert versions["python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")


@pytest.mark.parametrize("app", ["a_fastapi", "a_starlette"])
def test_the_oldest_versions_on_the_oldest_python_are_xrayed_alike(
    lowest: Installed, app: str
) -> None:
    versions = check(lowest, app)["versions"]
    assert versions["python"].startswith(".".join(map(str, OLDEST)))
    assert (versions["starlette"], versions["uvicorn"]) == ("0.41.0", "0.30.0")


def test_without_the_extra_the_other_commands_say_in_a_sentence_what_to_install(
    newest: Installed,
) -> None:
    ended = newest.run("open")
    assert (ended.returncode, ended.stdout) == (1, "")
    (sentence,) = ended.stderr.splitlines()
    assert sentence.startswith("The notebooks need the package ")
    assert '-e ".[lessons]"' in sentence
    assert newest.run("--version").returncode == 0
    assert newest.run("xray", "--help").returncode == 0


def test_the_wheel_is_whole_and_brings_no_settings_of_jupyter(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    folder = Project.here().root / "support"
    wanted = {
        path.relative_to(folder).as_posix()
        for path in (folder / "looplab").rglob("*")
        if path.is_file()
        and path.suffix in (".py", ".css", ".js", ".toml")
        and path.parent.name not in ("kernel_config", "jupyter_config")
    }
    assert wanted - names == set()
    assert [name for name in names if "etc/" in name] == []
