import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest
from IPython.core.compilerop import CachingCompiler
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from looplab.lab import session
from looplab.lab.errors import LessonError
from looplab.lab.session import finish, start
from looplab.pythons import NEWEST, TESTED

KERNEL_SECONDS = 60
# IPython 7, which Colab has, does not tell a cell's number
A_CELL = "Cell In[" if hasattr(CachingCompiler, "format_code_name") else "a cell, line "


# ---------------------------------------------------------------- without a kernel


@pytest.fixture
async def begun(monkeypatch, tmp_path):
    """A process whose temporary directory is tmp_path; what start() changed is put back."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    finish()


@pytest.mark.anyio
class TestStart:
    async def test_it_gives_the_process_a_temporary_directory_of_its_own(self, begun):
        start()
        own = Path(tempfile.gettempdir())
        assert own.parent == begun
        assert own.name.startswith(f"fastapi-async-course-{os.getpid()}-")
        assert exists(own)
        finish()
        assert not exists(own)
        assert tempfile.tempdir is None

    @pytest.mark.parametrize("pace", ["0", "-1", "fast", "nan", ""])
    async def test_a_pace_that_is_none_is_named(self, begun, monkeypatch, pace):
        monkeypatch.setenv("COURSE_PACE", pace)
        with pytest.raises(LessonError, match=f"COURSE_PACE is '{pace}'; it must be a number"):
            start()
        assert list(begun.iterdir()) == []

    async def test_a_second_start_keeps_the_directory_and_forgives_what_is_in_it(self, begun):
        from looplab.lab.hygiene import nothing_left_behind

        start()
        own = tempfile.gettempdir()
        handle, _ = tempfile.mkstemp("export.csv")  # left by a run that stopped half way
        os.close(handle)
        start()
        assert tempfile.gettempdir() == own
        assert "export.csv" not in str(await report_of(nothing_left_behind))

    async def test_a_directory_that_somebody_removed_is_made_again(self, begun, monkeypatch):
        monkeypatch.setenv("TMPDIR", str(begun))
        start()
        os.rmdir(tempfile.gettempdir())
        start()
        assert Path(tempfile.gettempdir()).parent == begun
        assert exists(Path(tempfile.gettempdir()))

    @pytest.mark.parametrize("name", ["mkdtemp", "write"])
    async def test_a_directory_that_cannot_be_written_is_told_with_the_cure(
        self, begun, monkeypatch, name
    ):
        def refuse(*args, **options):
            raise OSError(30, "Read-only file system", str(begun))

        if name == "mkdtemp":
            monkeypatch.setattr(tempfile, "mkdtemp", refuse)
        else:
            monkeypatch.setattr(Path, "write_bytes", refuse)
        with pytest.raises(LessonError, match=r"Read-only.*set TMPDIR"):
            start()

    @pytest.mark.parametrize("version", [(3, 10), (2, 7)])
    async def test_a_python_too_old_is_told_in_one_sentence(self, begun, monkeypatch, version):
        monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
        with pytest.raises(LessonError, match=rf"needs {re.escape(TESTED)}: open") as caught:
            start()
        assert f"Python {version[0]}.{version[1]};" in str(caught.value)

    async def test_a_python_newer_than_any_tested_is_let_in(self, begun, monkeypatch):
        major, minor = NEWEST
        monkeypatch.setattr(sys, "version_info", (major, minor + 1, 0, "final", 0))
        start()

    async def test_another_thread_than_the_main_one_is_refused(self, begun):
        async def elsewhere():
            start()

        with pytest.raises(LessonError, match="course open"):
            await asyncio.to_thread(lambda: asyncio.run(elsewhere()))

    @pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs POSIX signals")
    async def test_the_loop_has_a_signal_handler_so_that_any_signal_wakes_it(self, begun):
        start()
        assert asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)


def test_without_a_loop_it_says_where_a_lesson_runs():
    with pytest.raises(LessonError, match="running event loop"):
        start()


def exists(folder: Path) -> bool:
    return folder.is_dir()


async def report_of(check):
    try:
        await check()
    except LessonError as error:
        return error
    return None


def test_importing_it_imports_nothing_heavy():
    code = (
        "import sys, importlib.util as u, types\n"
        "package = types.ModuleType('looplab.lab'); package.__path__ = [sys.argv[1]]\n"
        "sys.modules['looplab.lab'] = package\n"
        "import looplab.lab.session\n"
        "heavy = {'psutil', 'httpx', 'fastapi', 'matplotlib', 'IPython', 'sqlalchemy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    folder = str(Path(session.__file__).parent)
    found = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


# ---------------------------------------------------------------- in a real kernel


@dataclass
class Reply:
    status: str
    text: str = ""
    errors: list[str] = field(default_factory=list)


class Kernel:
    """A kernel such as JupyterLab's: run a cell, read what it shows."""

    def __init__(self):
        for tries_left in (2, 1, 0):
            try:
                self.manager, self.client = start_new_kernel(kernel_name="python3")
                break
            except RuntimeError:  # another process took a port that jupyter_client had chosen
                if not tries_left:
                    raise

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel()

    def run(self, code: str) -> Reply:
        reply = Reply("")

        def take(message):
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                reply.text += content["text"]
            elif kind in ("display_data", "execute_result"):
                reply.text += content["data"]["text/plain"]
            elif kind == "error":
                reply.errors.append("\n".join(content["traceback"]))

        # a kernel that stops on an error may still be refusing requests when the next one comes
        answer = self.client.execute_interactive(
            code, output_hook=take, timeout=KERNEL_SECONDS, stop_on_error=False
        )
        reply.status = answer["content"]["status"]
        return reply


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernel")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("TMPDIR", str(folder))
        kernel = Kernel()
    try:
        ready = kernel.run(
            "import asyncio, sys, tempfile, threading, os\n"
            "from looplab.lab.session import start, finish\n"
            "from looplab.lab.hygiene import caught_leaks, nothing_left_behind\n"
            "async def fails(): raise ValueError('lost')\n"
        )
        assert ready.status == "ok", ready
        yield kernel
    finally:
        kernel.close()


@pytest.fixture
def lesson(kernel):
    assert kernel.run("start()").status == "ok"
    return kernel


class TestKernel:
    def test_a_lesson_that_leaves_nothing_passes_twice_in_one_kernel(self, lesson):
        for _ in range(2):
            lesson.run("start()")
            lesson.run("await asyncio.gather(fails(), return_exceptions=True)")
            lesson.run("await asyncio.to_thread(int)")
            reply = lesson.run("await nothing_left_behind()")
            assert (reply.status, reply.errors) == ("ok", [])
            assert reply.text.startswith("✓ Nothing left behind")

    @pytest.mark.parametrize(
        ("leak", "told", "cure"),
        [
            (
                "async def worker():\n    await asyncio.Event().wait()\n"
                "t = asyncio.create_task(worker(), name='mailer')",
                f"task mailer (worker) is still pending, waiting in {A_CELL}",
                "t.cancel()",
            ),
            (
                "t = asyncio.create_task(fails(), name='mailer'); await asyncio.wait([t])",
                "task mailer (fails) failed with ValueError('lost')",
                "",
            ),
            (
                "await asyncio.wait([asyncio.create_task(fails())]); None",
                "failed with ValueError('lost')",
                "",
            ),
            ("fails()", "coroutine fails was never awaited", ""),
            ("held = fails()", "coroutine fails was never awaited", ""),
            (
                "e = threading.Event(); t = threading.Thread(target=e.wait, name='poller')\n"
                "t.start()",
                "thread poller is still running",
                "e.set(); t.join()",
            ),
            (
                "s = await asyncio.start_server(lambda r, w: None, '127.0.0.1', 0)",
                "a server is still listening on 127.0.0.1:",
                "s.close(); await s.wait_closed()",
            ),
            (
                "import aiosqlite; c = await aiosqlite.connect(':memory:')",
                "an aiosqlite connection is still open",
                "await c.close()",
            ),
            (
                "import sqlite3; c = sqlite3.connect(tempfile.gettempdir() + '/shop.db')\n"
                "c.execute('create table t (a)')",
                "shop.db is still open",
                "c.close(); os.remove(tempfile.gettempdir() + '/shop.db')",
            ),
            (
                "path = tempfile.mkstemp('.csv')[1]",
                ".csv is still in",
                "os.remove(path)",
            ),
            (
                "import subprocess; p = subprocess.Popen([sys.executable, '-c', 'input()'],"
                " stdin=subprocess.PIPE)",
                "child process",
                "p.communicate(b'\\n')",
            ),
            (
                "loop = asyncio.get_running_loop()\n"
                "loop.set_task_factory(lambda l, c, **k: asyncio.Task(c, loop=l, **k))",
                "task factory",
                "loop.set_task_factory(None)",
            ),
            (
                "import socket; cycle = [socket.socket()]; cycle.append(cycle); del cycle",
                "ResourceWarning: unclosed <socket",
                "",
            ),
        ],
    )
    def test_each_kind_of_leak_is_named_in_one_message_and_gone_once_cured(
        self, lesson, leak, told, cure
    ):
        assert lesson.run(leak).status == "ok"
        reply = lesson.run("await nothing_left_behind()")
        assert reply.status == "error"
        (message,) = reply.errors
        assert message.startswith("Leaked: The lesson left something behind")
        assert told in message
        assert "Traceback" not in message
        if cure:
            assert lesson.run(cure).status == "ok"
        assert lesson.run("start()").status == "ok"
        reply = lesson.run("await nothing_left_behind()")
        assert (reply.status, reply.errors) == ("ok", [])

    def test_what_is_caught_on_purpose_is_collected_and_not_printed(self, lesson):
        reply = lesson.run(
            "with caught_leaks() as leaks:\n"
            "    task = asyncio.create_task(fails()); await asyncio.wait([task])\n"
            "    del task\n"
            "    held = fails()\n"
            "    fails()\n"
            "print(len(leaks.lost_exceptions), leaks.never_awaited)"
        )
        assert reply.text.strip() == "1 ['fails', 'fails']"
        assert lesson.run("await nothing_left_behind()").status == "ok"

    def test_an_error_in_a_cell_does_not_make_the_next_run_fail(self, lesson):
        failed = lesson.run(
            "async def use():\n    import aiosqlite\n"
            "    connection = await aiosqlite.connect(':memory:')\n    1 / 0\n"
            "await use()"
        )
        assert failed.status == "error"
        assert lesson.run("start()").status == "ok"
        reply = lesson.run("await nothing_left_behind()")
        assert (reply.status, reply.errors) == ("ok", [])

    @pytest.mark.parametrize(
        "code",
        ["shop", "print(shop)", "await shop.any_user()", "[shop for _ in 'a']", "x = {shop: 1}"],
    )
    def test_a_name_that_a_cell_lacks_is_one_sentence_and_still_an_error(self, lesson, code):
        reply = lesson.run(code)
        assert reply.status == "error"
        assert reply.errors == [
            "NameError: `shop` is not defined yet: run the cells above this one first "
            "(menu Run > Run All Above Selected Cell)."
        ]

    def test_a_misspelt_name_gets_a_guess(self, lesson):
        (message,) = lesson.run("pritn(1)").errors
        assert message.endswith("Or did you mean `print`?")

    @pytest.mark.parametrize(
        "code",
        [
            "def f():\n    return shop\nf()",
            "async def f():\n    return shop\nawait f()",
            "raise NameError('of my own')",
            "def f():\n    print(x); x = 1\nf()",
            "exec('shop', {})",
        ],
    )
    def test_other_name_errors_keep_their_traceback(self, lesson, code):
        reply = lesson.run(code)
        assert reply.status == "error"
        (message,) = reply.errors
        assert "Traceback" in message
        assert "run the cells above" not in message

    def test_a_lesson_error_reads_as_its_sentence_also_under_an_exception_group(self, lesson):
        reply = lesson.run(
            "from looplab.lab.errors import LessonError\n"
            "try:\n    raise ExceptionGroup('two', [ValueError()])\n"
            "except* ValueError:\n    raise LessonError('Mind the gap.')"
        )
        assert reply.errors == ["LessonError: Mind the gap."]
        assert reply.text == ""

    def test_the_sentence_needs_no_set_up_cell_and_can_be_taken_back(self, kernel):
        # The environment's own config gives the sentence already; here it stands aside.
        kernel.run("from looplab.kernel import *")
        kernel.run("unload_ipython_extension(get_ipython())")
        assert "Traceback" in kernel.run("shop").errors[0]
        for _ in range(2):
            kernel.run("load_ipython_extension(get_ipython())")
        assert "run the cells above" in kernel.run("shop").errors[0]
        kernel.run("unload_ipython_extension(get_ipython())")
        assert "Traceback" in kernel.run("shop").errors[0]

    def test_a_set_up_that_finds_something_wrong_is_one_sentence(self, lesson):
        reply = lesson.run(
            "real = tempfile.mkdtemp\n"
            "def refuse(*a, **k): raise OSError(28, 'No space left on device')\n"
            "finish(); tempfile.mkdtemp = refuse\n"
            "try:\n    start()\nfinally:\n    tempfile.mkdtemp = real"
        )
        (message,) = reply.errors
        assert message.startswith("LessonError: The temporary directory cannot be written")
        assert "set TMPDIR" in message

    @pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
    def test_an_interrupt_ends_a_cell_that_only_awaits(self, lesson):
        printed = threading.Event()
        message = lesson.client.execute("print('waiting', flush=True)\nawait asyncio.sleep(3600)")
        while not printed.is_set():
            news = lesson.client.get_iopub_msg(timeout=KERNEL_SECONDS)
            if news["msg_type"] == "stream" and "waiting" in news["content"]["text"]:
                printed.set()
        lesson.manager.interrupt_kernel()
        reply = lesson.client.get_shell_msg(timeout=KERNEL_SECONDS)
        assert reply["parent_header"]["msg_id"] == message
        assert reply["content"]["status"] == "error"
        assert reply["content"]["ename"] in ("CancelledError", "KeyboardInterrupt")
        while (news := lesson.client.get_iopub_msg(timeout=KERNEL_SECONDS))["content"].get(
            "execution_state"
        ) != "idle":
            pass


def test_the_private_directory_goes_with_the_kernel(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    kernel = Kernel()
    try:
        kernel.run("from looplab.lab.session import start; start()")
        (own,) = tmp_path.glob("fastapi-async-course-*")
        assert own.is_dir()
    finally:
        kernel.close()
    assert list(tmp_path.glob("fastapi-async-course-*")) == []


# ---------------------------------------------------------------- a whole notebook


def a_notebook(*cells: str):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


SET_UP = (
    "import asyncio\nfrom looplab.lab.session import start\n"
    "from looplab.lab.hygiene import nothing_left_behind\nstart()"
)
LAST = "await nothing_left_behind()"


class TestNotebook:
    def test_a_clean_lesson_passes_and_passes_again_in_the_same_kernel(self):
        notebook = a_notebook(SET_UP, "await asyncio.sleep(0)\nasyncio.current_task()", LAST)
        client = NotebookClient(notebook, kernel_name="python3", timeout=KERNEL_SECONDS)
        with client.setup_kernel():
            for _ in range(2):
                for place, cell in enumerate(notebook.cells):
                    client.execute_cell(cell, place)
        assert "Nothing left behind" in str(notebook.cells[-1].outputs)

    @pytest.mark.parametrize(
        ("cell", "told"),
        [
            ("shop", "run the cells above this one first"),
            ("task = asyncio.create_task(asyncio.sleep(3600), name='mailer')", "mailer"),
            ("asyncio.sleep(0)", "never awaited"),
        ],
    )
    def test_a_lesson_that_errs_or_leaks_fails_with_an_error_output(self, cell, told):
        notebook = a_notebook(SET_UP, cell, LAST)
        with pytest.raises(CellExecutionError, match=told):
            NotebookClient(notebook, kernel_name="python3", timeout=KERNEL_SECONDS).execute()
        outputs = [output for cell in notebook.cells for output in cell.outputs]
        (error,) = [output for output in outputs if output.output_type == "error"]
        assert told in "".join(error.traceback)
