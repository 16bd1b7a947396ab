"""`course refresh` in real kernels: what passes is saved clean, what fails is left alone."""

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from looplab.kept import CHOICES, PREDICTION, REVEALED
from looplab.project import CourseError, Project
from looplab.publishing.kept import give_back, path_beside
from looplab.publishing.notebooks import read_notebook
from looplab.publishing.refresh import refresh
from looplab.publishing.saved import saved_faults

WriteLesson = Callable[..., Path]


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_lesson_is_saved_clean_and_the_same_twice(
    project: Project, write_lesson: WriteLesson
) -> None:
    path = write_lesson(
        streams="import sys\nprint(1, flush=True)\nprint(2)\nprint('oops', file=sys.stderr)",
        warn="import warnings\nwarnings.warn('careful')",
        address="object()",
        widget="import ipywidgets\nipywidgets.IntSlider(3)",
        folder="from pathlib import Path\nPath.cwd().name",
        awaits="import asyncio\nawait asyncio.sleep(0, 'done')",
    )
    console = quiet()
    (run,) = refresh(project, [], console=console)
    assert saved_faults(path) == []
    saved = path.read_bytes()
    assert run.size == len(saved)
    code = [cell for cell in read_notebook(path)["cells"] if cell["cell_type"] == "code"]
    outputs = {cell["id"]: cell["outputs"] for cell in code}
    assert [cell["execution_count"] for cell in code] == [1, 2, 3, 4, 5, 6]
    streams = {output["name"]: output["text"] for output in outputs["streams"]}
    assert (len(outputs["streams"]), streams) == (2, {"stdout": "1\n2\n", "stderr": "oops\n"})
    assert outputs["warn"][0]["text"].startswith("<cell>:2: UserWarning: careful")
    assert outputs["address"][0]["data"]["text/plain"] == "<object at 0x…>"
    assert outputs["widget"][0]["data"] == {"text/plain": "IntSlider(value=3)"}
    assert outputs["folder"][0]["data"]["text/plain"] == "'notebooks'"
    assert outputs["awaits"][0]["data"]["text/plain"] == "'done'"
    assert set(run.cells) == set(outputs)
    assert run.slowest[1] == max(run.cells.values()) <= run.seconds
    assert run.slowest[0] in shown(console)
    refresh(project, ["02"], console=quiet())
    assert path.read_bytes() == saved
    assert not re.search(rb"20\d\d-\d\d-\d\dT", saved)


def test_a_failing_lesson_is_named_not_saved_and_the_others_are(
    project: Project, write_lesson: WriteLesson
) -> None:
    bad = write_lesson("01_blocking", fine="1", breaks="1 / 0", never="print('never')")
    good = write_lesson("02_gather", fine="1")
    before = bad.read_bytes()
    console = quiet()
    with pytest.raises(CourseError) as caught:
        refresh(project, [], console=console)
    assert str(caught.value).splitlines() == [
        "01_blocking: breaks raised ZeroDivisionError: division by zero",
        "What failed was not saved.",
    ]
    assert bad.read_bytes() == before
    assert saved_faults(good) == []
    assert re.search(r"01_blocking.*failed", shown(console))
    assert re.search(r"02_gather.*saved", shown(console))


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (
            "import asyncio\nawait asyncio.Event().wait()",
            "stuck took more than 1 s and was stopped",
        ),
        ("import os\nos._exit(1)", "the kernel died in stuck"),
        ("print('x' * 300_000)", "kB; it must stay under 300 kB"),
        ("print('/home/ada/course')", "an output of stuck shows a path of one machine: /home/ada"),
    ],
)
def test_what_cannot_be_published_is_not_saved(
    project: Project, write_lesson: WriteLesson, source: str, fault: str
) -> None:
    path = write_lesson(stuck=source)
    before = path.read_bytes()
    with pytest.raises(CourseError, match=re.escape(fault)):
        refresh(project, [], console=quiet(), cell_timeout=1)
    assert path.read_bytes() == before


def test_a_run_knows_nothing_of_the_presenter_and_runs_this_python(
    project: Project, write_lesson: WriteLesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COURSE_PACE", "4")
    path = write_lesson(
        pace="import os\nprint(os.environ.get('COURSE_PACE'))",
        python=f"import sys\nprint(sys.prefix == {sys.prefix!r})",
    )
    refresh(project, [], console=quiet())
    texts = [cell["outputs"][0]["text"] for cell in read_notebook(path)["cells"][1:]]
    assert texts == ["None\n", "True\n"]


@pytest.mark.skipif(sys.platform == "win32", reason="the kernel sends a POSIX signal")
def test_ctrl_c_stops_the_run_and_its_kernel(project: Project, write_lesson: WriteLesson) -> None:
    interrupt = (
        "import asyncio, os, signal\nfrom pathlib import Path\n"
        "Path('kernel').write_text(str(os.getpid()))\n"
        "os.kill(os.getppid(), signal.SIGINT)\nawait asyncio.Event().wait()"
    )
    path = write_lesson("01_blocking", waits=interrupt)
    after = write_lesson("02_gather", fine="1")
    before = path.read_bytes(), after.read_bytes()
    with pytest.raises(CourseError, match="Stopped in 01_blocking, which was not saved"):
        refresh(project, [], console=quiet())
    assert (path.read_bytes(), after.read_bytes()) == before
    assert not psutil.pid_exists(int((project.notebooks / "kernel").read_text()))


def test_an_unreadable_lesson_is_named_and_the_others_run(
    project: Project, write_lesson: WriteLesson
) -> None:
    (project.notebooks / "01_blocking.ipynb").write_text("{")
    good = write_lesson("02_gather", fine="1")
    with pytest.raises(CourseError, match=r"01_blocking: 01_blocking\.ipynb is not a notebook"):
        refresh(project, [], console=quiet())
    assert json.loads(good.read_text())["cells"][1]["execution_count"] == 1


ASKS = "from looplab.lab import predict\nguess = predict('how long', between=(0, 200))"
TURNS = """\
from looplab.lab import dial, show_note
async def run(value):
    show_note(f"{value} times", kind="info")
_ = await dial("times", [1, 2, 4], run, start=2)"""


def test_each_choice_of_a_dial_and_each_measurement_is_kept_beside_the_notebook(
    project: Project, write_lesson: WriteLesson
) -> None:
    path = write_lesson(asks=ASKS, answers="guess.reveal(57)", turns=TURNS)
    refresh(project, [], console=quiet())
    assert saved_faults(path) == []
    assert "4 times" not in path.read_text()

    notebook = read_notebook(path)
    give_back(notebook, path)
    _, asks, answers, turns = notebook["cells"]
    assert asks["outputs"][0]["data"][PREDICTION]["between"] == [0, 200]
    assert answers["outputs"][0]["data"][REVEALED]["measured"] == 57
    shown, last = turns["outputs"]
    assert shown["data"]["text/plain"] == "i 2 times"
    kept = last["data"][CHOICES]
    assert (kept["choices"], kept["start"], kept["shown"]) == (["1", "2", "4"], 1, 1)
    texts = [[one["data"]["text/plain"] for one in result] for result in kept["results"]]
    assert texts == [["i 1 times"], [], ["i 4 times"]]


def test_a_choice_that_fails_fails_the_lesson(project: Project, write_lesson: WriteLesson) -> None:
    path = write_lesson(turns=TURNS.replace("    show", "    1 / (value - 4)\n    show"))
    with pytest.raises(CourseError, match="turns raised ZeroDivisionError"):
        refresh(project, [], console=quiet())
    assert not path_beside(path).exists()


def test_a_choice_that_shows_a_path_of_this_machine_is_not_saved(
    project: Project, write_lesson: WriteLesson
) -> None:
    path = write_lesson(turns=TURNS.replace("{value} times", "/home/ada/{value}"))
    before = path.read_bytes()
    with pytest.raises(CourseError, match="an output of turns shows a path of one machine"):
        refresh(project, [], console=quiet())
    assert (path.read_bytes(), path_beside(path).exists()) == (before, False)
