"""JupyterLab itself, started by `course open` as a person would, and ended by a signal."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import httpx
import pytest

from looplab.project import Project

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="sends signals to a process group, which Windows has not"
)

COURSE = "import sys; from pathlib import Path; from looplab.project import Project; \
root = Path(sys.argv.pop(1)); Project.here = classmethod(lambda cls: Project(root)); \
from looplab.cli import app; app()"


NEWS_SETTINGS = "/lab/api/settings/@jupyterlab/apputils-extension:notification"


@contextmanager
def opened(
    project: Project, *arguments: str
) -> Generator[tuple[subprocess.Popen[str], str], None, None]:
    """Yield the process of `course open` and the address that it printed."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", COURSE, str(project.root), "open", *arguments]
    environment = {**os.environ, "JUPYTER_CONFIG_DIR": str(project.root / "config")}
    process = subprocess.Popen(
        [*command, "--", "--no-browser", f"--port={port}"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        process_group=0,
    )
    assert process.stderr is not None
    try:
        told = []
        for line in process.stderr:
            told.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+/\S+token=\w+", line):
                yield process, found[0]
                break
        else:
            pytest.fail(f"JupyterLab ended without an address:\n{''.join(told)}")
    finally:
        process.terminate()
        process.stderr.read()
        process.wait(timeout=30)
        process.stderr.close()


def press_ctrl_c(process: subprocess.Popen[str]) -> None:
    """Interrupt the whole group, as a terminal does."""
    os.killpg(process.pid, signal.SIGINT)


def interrupt_alone(process: subprocess.Popen[str]) -> None:
    """Interrupt `course` and not JupyterLab, as a program that supervises it does."""
    process.send_signal(signal.SIGINT)


@pytest.mark.parametrize("interrupt", [press_ctrl_c, interrupt_alone])
def test_the_lesson_is_served_without_news_and_ctrl_c_ends_it(
    project: Project, interrupt: Callable[[subprocess.Popen[str]], None]
) -> None:
    with opened(project, "2") as (process, address):
        assert "/lab/tree/02_gather.ipynb?token=" in address
        page = httpx.get(address, follow_redirects=True, timeout=30)
        assert page.status_code == 200
        assert '"news": {"disabled": true}' in page.text
        token = address.partition("token=")[2]
        contents = httpx.get(httpx.URL(address).join("/api/contents"), params={"token": token})
        names = {entry["name"] for entry in contents.json()["content"]}
        assert names == {"00_start_here.ipynb", "02_gather.ipynb", "11_streaming.ipynb"}
        asks = httpx.get(httpx.URL(address).join(NEWS_SETTINGS), params={"token": token}).json()
        assert asks["schema"]["properties"]["fetchNews"]["default"] == "false"
        interrupt(process)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
        assert process.wait(timeout=30) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)


def test_a_termination_reaches_jupyter(project: Project) -> None:
    with opened(project) as (process, address):
        assert "/lab/tree/00_start_here.ipynb?token=" in address
        process.terminate()
        assert process.stderr is not None
        process.stderr.read()
        assert process.wait(timeout=30) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)
