import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest
import redis
from xdist.scheduler import LoadScopeScheduling

REQUIRE_ALL = "COURSE_REQUIRE_ALL"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return 2 for a run of everything, and 0, which is this process, for a part or a benchmark."""
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return 2 if everything and config.option.markexpr.strip() == "not benchmark" else 0


class OneAtATime(LoadScopeScheduling):
    """Keeps all lessons on one worker, since they time things, and all browser tests on one."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if path.endswith(".ipynb"):
            return "lessons"
        return "browser" if path.startswith("tests/browser/") else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneAtATime:
    """Return who hands the tests of a whole run to its workers."""
    return OneAtATime(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the browser's tests after the others, beside the lessons: both mostly wait."""
    items.sort(key=lambda item: (item.path.suffix == ".ipynb", "browser" in item.path.parts))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def missing() -> Callable[[str], None]:
    """Skip the test for want of a program, or fail it where COURSE_REQUIRE_ALL is set, as in CI."""

    def say(what: str) -> None:
        if os.environ.get(REQUIRE_ALL):
            pytest.fail(f"{what}, and {REQUIRE_ALL} is set")
        pytest.skip(what)

    return say


@pytest.fixture(scope="session")
def redis_server(
    missing: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Generator[str]:
    """A Redis server on a free loopback port, for as long as the tests run; its address."""
    program = shutil.which("redis-server")
    if program is None:
        missing("no redis-server on the PATH")
    folder = tmp_path_factory.mktemp("redis")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        str(program), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", folder,
    ]  # fmt: skip
    log = folder / "redis.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            deadline = time.monotonic() + 30
            while server.poll() is None and time.monotonic() < deadline:
                try:
                    with redis.Redis(port=port) as client:
                        client.ping()
                except redis.ConnectionError:
                    time.sleep(0.05)
                else:
                    break
            else:
                pytest.fail(f"redis-server did not start: {log.read_text()[-2000:]}")
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
