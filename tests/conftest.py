import gc
import itertools
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from jupyter_client.connect import LocalPortCache
from xdist.scheduler import LoadScopeScheduling

CHROMIUM = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
REQUIRE_ALL = "COURSE_REQUIRE_ALL"
START_WITHIN = 60
POLITE = 5
KERNEL_PORTS = range(20_000, 32_000)  # below those that Linux, macOS and Windows give by themselves
WORKERS = 5
USUAL = "not benchmark and not mutation"


def pytest_configure(config: pytest.Config) -> None:
    """Give kernels ports that no connection takes, and each worker ports that no other has.

    jupyter_client lets the system choose, closes the port again, and the kernel opens it a moment
    later. Meanwhile one of the thousands of connections that tests make may have it. No fixture
    could do this: a notebook that nbmake runs asks for none.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = range(KERNEL_PORTS.start + worker % WORKERS, KERNEL_PORTS.stop, WORKERS)
    ports = itertools.cycle(random.sample(share, len(share)))
    patched = pytest.MonkeyPatch()
    patched.setattr(
        LocalPortCache,
        "find_available_port",
        lambda _, ip: next(port for port in ports if _is_free(ip, port)),
    )
    config.add_cleanup(patched.undo)


def _is_free(ip: str, port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind((ip, port))
        except OSError:
            return False
    return True


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return five for a run of everything, and 0, which is this process, for a part or a benchmark.

    Five keep two cores busy, since most tests wait.
    """
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return WORKERS if everything and config.option.markexpr.strip() == USUAL else 0


class OneAtATime(LoadScopeScheduling):
    """Keeps all lessons on one worker, since they time things, and all browser tests on one.

    `@pytest.mark.xdist_group` would say it, but does nothing under pytest 9.2: see pytest-xdist's
    issue 1386.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if path.endswith(".ipynb"):
            return "lessons"
        return "browser" if path.startswith("tests/browser/") else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneAtATime:
    """Return who hands the tests of a whole run to its workers."""
    return OneAtATime(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the browser's tests and the lessons, side by side: both are long and mostly wait.

    The others are short, and fill all workers to the end.
    """
    items.sort(key=lambda item: (item.path.suffix != ".ipynb", "browser" not in item.path.parts))


@pytest.fixture(scope="session", autouse=True)
def lessons_first() -> None:
    """Let the lessons' kernels have the processor first, where they and other tests run at once.

    Lessons time things; five workers on two cores would have each of them wait for the others. A
    worker that has begun with other tests stays polite, and so do the processes that it starts.
    """
    at_once = "PYTEST_XDIST_WORKER" in os.environ
    if at_once and hasattr(os, "nice") and os.nice(0) < POLITE:
        os.nice(POLITE)


@pytest.fixture(scope="module", autouse=True)
def new_garbage_only(request: pytest.FixtureRequest) -> None:
    """Keep what was there before a file of tests out of collections, of which many tests need some.

    In a whole run that is thousands of tests and modules, and each collection took half a second.
    The check of an exercise takes it back when it ends, but collects only what is new by itself.
    """
    if "exercises" not in request.path.parts and not gc.get_freeze_count():
        gc.collect()
        gc.freeze()


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
def chromium(missing: Callable[[str], None]) -> str:
    """The path of the browser: the one without windows, which needs less, where there is one."""
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if found is None:
        missing("no chromium on the PATH")
    return str(found)


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[None]]:
    """Return a function that runs a server for the length of a block, and ends it after that.

    It takes the command, the file for what it prints, a function that returns whether the server
    answers, and more of the environment.
    """

    @contextmanager
    def run(
        command: Sequence[str], log: Path, answers: Callable[[], bool], **environment: str
    ) -> Generator[None]:
        with log.open("wb") as output:
            server = subprocess.Popen(
                command,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            try:
                deadline = time.monotonic() + START_WITHIN
                while not answers():
                    if server.poll() is not None or time.monotonic() > deadline:
                        pytest.fail(f"{command} did not start: {log.read_text()[-2000:]}")
                    time.sleep(0.05)
                yield
            finally:
                server.terminate()
                try:
                    server.wait(20)
                except subprocess.TimeoutExpired:
                    server.kill()
                    server.wait()

    return run


@pytest.fixture(scope="session")
def redis_server(
    missing: Callable[[str], None],
    serving: Callable[..., AbstractContextManager[None]],
    free_tcp_port_factory: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[str]:
    """A Redis server on a free loopback port, for as long as the tests run; its address."""
    program = shutil.which("redis-server")
    if program is None:
        missing("no redis-server on the PATH")
    folder = tmp_path_factory.mktemp("redis")
    port = free_tcp_port_factory()

    def answers() -> bool:
        try:
            with redis.Redis(port=port) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    command = [
        str(program), "--bind", "127.0.0.1", "--port", str(port), "--save", "",
        "--dir", str(folder),
    ]  # fmt: skip
    with serving(command, folder / "redis.log", answers):
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="session")
def postgres_server(
    missing: Callable[[str], None], free_tcp_port_factory: Callable[[], int]
) -> Generator[str]:
    """A PostgreSQL server's URL: DATABASE_URL, or a cluster of the tests' own on loopback."""
    if url := os.environ.get("DATABASE_URL"):
        yield url
        return
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, default=None)
    control = shutil.which("pg_ctl", path=str(programs) if programs else None)
    if control is None:
        missing("no PostgreSQL server is installed")
    # As root it refuses to run, and no other user may look into pytest's own directories.
    owner: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            owner = {"user": "postgres", "group": "postgres", "extra_groups": ["postgres"]}
            shutil.chown(folder, "postgres", "postgres")
        port, data = free_tcp_port_factory(), f"{folder}/data"

        def run(*arguments: str) -> None:
            ended = subprocess.run(
                [str(control), "--silent", f"--pgdata={data}", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=folder,
                timeout=START_WITHIN,
                check=False,
                **owner,
            )
            assert ended.returncode == 0, ended.stdout

        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": folder,
            "fsync": "off",
            "max_connections": 60,
        }
        run("initdb", "--options=--username=postgres --auth=trust --locale=C --encoding=UTF8")
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        run("start", "--wait", f"--log={folder}/log", f"--options={options}")
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            run("stop", "--wait", "--mode=fast")


def _version(programs: Path) -> float:
    return float(programs.parent.name)
