import asyncio
import json
import sys
from textwrap import dedent
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from looplab.kept import ALL_CHOICES, CHOICES
from looplab.lab import display
from looplab.lab.dial import Dial, dial
from looplab.lab.display import show_note
from looplab.lab.errors import LessonError

pytestmark = pytest.mark.anyio


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    bundles: list[dict[str, Any]] = []
    monkeypatch.setattr(display, "display", lambda bundle, **_: bundles.append(bundle))
    return bundles


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[dial.__module__], "PATIENCE", 0)


class Experiment:
    """Runs that end when they are told to, and that note what became of them."""

    def __init__(self) -> None:
        self.began: list[Any] = []
        self.ended: list[Any] = []
        self.cancelled: list[Any] = []
        self.running = 0
        self.most_at_once = 0
        self.started = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, value: Any) -> None:
        self.began.append(value)
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        self.started.set()
        try:
            await self.go.wait()
            self.ended.append(value)
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # cleaning up takes a while
            await asyncio.sleep(0)
            self.cancelled.append(value)
            raise
        finally:
            self.running -= 1


def runs_left() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if "Dial._again" in repr(task)}


@pytest.fixture
async def experiment() -> Experiment:
    return Experiment()


@pytest.fixture
async def turned(experiment: Experiment, shown: list[dict[str, Any]]) -> Dial:
    experiment.go.set()
    made = await dial("branches", [1, 2, 3, 4], experiment)
    experiment.go.clear()
    experiment.started.clear()
    return made


async def test_the_first_run_comes_before_the_buttons(shown: list[dict[str, Any]]) -> None:
    seen = []

    async def run(value: int) -> None:
        seen.append((value, len(shown)))

    made = await dial("branches", [1, 2, 4], run, start=2)
    assert seen == [(2, 0)]
    (bundle,) = shown
    assert bundle["text/plain"] == "A dial: branches, 1 to 4. Run the cell to move it."
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == made.widget.model_id
    assert made.buttons.value == 2
    await made.close()


async def test_turning_the_dial_runs_again(turned: Dial, experiment: Experiment) -> None:
    turned.buttons.value = 3
    await experiment.started.wait()
    experiment.go.set()
    assert turned._task is not None
    await turned._task
    assert experiment.ended == [1, 3]
    assert turned.runs == 1
    await turned.close()


async def test_moved_back_and_forth_it_runs_once(turned: Dial, experiment: Experiment) -> None:
    experiment.go.set()
    for value in (2, 3, 4, 3, 2):
        turned.buttons.value = value
    assert turned._task is not None
    await turned._task
    assert experiment.ended == [1, 2]
    assert turned.runs == 1
    await turned.close()
    assert runs_left() == set()


async def test_moved_from_another_thread_it_runs_in_the_loop_it_was_made_in(
    turned: Dial, experiment: Experiment
) -> None:
    async def move(value: int) -> None:
        turned.buttons.value = value

    experiment.go.set()
    await asyncio.to_thread(asyncio.run, move(3))
    await asyncio.sleep(0)  # Python 3.14 doesn't suspend for a thread that has ended already
    assert turned._task is not None
    await turned._task
    assert experiment.ended == [1, 3]
    await turned.close()
    assert runs_left() == set()


async def test_a_run_in_progress_is_cancelled_and_cleans_up_before_the_next(
    turned: Dial, experiment: Experiment
) -> None:
    turned.buttons.value = 2
    await experiment.started.wait()
    for value in (3, 4, 3):
        turned.buttons.value = value
        await asyncio.sleep(0)
    experiment.go.set()
    assert turned._task is not None
    await turned._task
    assert experiment.cancelled == [2]
    assert experiment.began == [1, 2, 3]
    assert experiment.ended == [1, 3]
    assert experiment.most_at_once == 1
    await turned.close()
    assert runs_left() == set()


async def test_closing_ends_the_run_and_leaves_no_task(
    turned: Dial, experiment: Experiment
) -> None:
    turned.buttons.value = 2
    await experiment.started.wait()
    turned.buttons.value = 3
    await asyncio.sleep(0)
    await turned.close()
    assert experiment.cancelled == [2]
    assert experiment.running == 0
    assert turned.buttons.disabled
    assert runs_left() == set()


async def test_a_second_dial_of_the_same_name_closes_the_first(
    turned: Dial, experiment: Experiment
) -> None:
    turned.buttons.value = 2
    await experiment.started.wait()
    experiment.go.set()
    second = await dial("branches", [1, 2], experiment)
    assert turned.buttons.disabled
    assert not second.buttons.disabled
    await second.close()
    assert runs_left() == set()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LookupError("gone"), "branches = 2 ended with LookupError('gone')"),
        (LessonError("put a number in"), "put a number in"),
        (ExceptionGroup("two", [KeyError("a")]), "branches = 2 ended with ExceptionGroup"),
    ],
)
async def test_an_error_is_shown_and_not_raised(
    error: Exception, words: str, shown: list[dict[str, Any]]
) -> None:
    async def run(value: int) -> None:
        if value == 2:
            raise error

    made = await dial("branches", [1, 2], run)
    await made.turn(2)
    (output,) = made.output.outputs
    assert output["data"]["text/plain"].startswith(f"✗ {words}")
    assert made.runs == 1
    await made.turn(1)
    assert made.runs == 2
    assert made.output.outputs == ()
    await made.close()


async def test_an_error_of_the_first_run_is_raised(shown: list[dict[str, Any]]) -> None:
    async def run(value: int) -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await dial("broken", [1, 2], run)
    assert shown == []


async def test_wrong_arguments_are_refused() -> None:
    async def run(value: int) -> None: ...

    with pytest.raises(ValueError, match="choices is empty; a dial needs at least one value"):
        await dial("branches", [], run)
    with pytest.raises(ValueError, match=r"start is 5; it must be one of \[1, 2\]"):
        await dial("branches", [1, 2], run, start=5)


async def test_asked_for_all_choices_it_runs_each_once_and_shows_the_first(
    shown: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALL_CHOICES, "1")
    ran = []

    async def run(value: int) -> None:
        ran.append(value)
        show_note(f"run {value}", kind="info")

    made = await dial("branches", [1, 2, 4], run, start=2)
    assert ran == [2, 1, 4]
    note, bundle = shown
    assert note["text/plain"] == "i run 2"
    kept = json.loads(json.dumps(bundle[CHOICES]))
    texts = [[one["data"]["text/plain"] for one in result] for result in kept.pop("results")]
    assert texts == [["i run 1"], [], ["i run 4"]]
    assert kept == {"name": "branches", "choices": ["1", "2", "4"], "start": 1, "shown": 1}
    await made.close()


async def test_nobody_who_runs_a_lesson_waits_for_all_choices(
    shown: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ALL_CHOICES, raising=False)
    ran = []

    async def run(value: int) -> None:
        ran.append(value)

    made = await dial("branches", [1, 2, 4], run)
    assert ran == [1]
    assert CHOICES not in shown[0]
    await made.close()


CELLS = [
    """
    import asyncio, json
    from looplab.lab.dial import dial
    from looplab.lab.display import show_note
    began, seen = asyncio.Event(), []
    async def run(value):
        show_note(f"run {value}", kind="info")
        if value == 2:
            began.set()
            await asyncio.Event().wait()
        if value == 4:
            raise LookupError("gone")
        seen.append(value)
    turned = await dial("branches", [1, 2, 3, 4], run)
    def shown():
        return [output["data"]["text/plain"] for output in turned.output.outputs]
    """,
    """
    turned.buttons.value = 2
    await began.wait()
    cancelled = turned._task
    turned.buttons.value = 3
    await turned._task
    """,
    """
    print(json.dumps([seen, turned.runs, cancelled.cancelled(), shown()]))
    await turned.turn(4)
    """,
    """
    print(json.dumps([turned.runs, shown()]))
    await turned.close()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    print([task for task in left if "_again" in repr(task)])
    """,
]


def test_in_a_kernel_a_cancelled_run_shows_nothing_and_an_error_a_sentence() -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(dedent(cell).strip()) for cell in CELLS]
    )
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    texts = ["".join(output.get("text", "") for output in cell.outputs) for cell in notebook.cells]
    assert json.loads(texts[2].splitlines()[0]) == [[1, 3], 1, True, ["i run 3"]]
    shown, left = texts[3].splitlines()
    assert json.loads(shown) == [2, ["i run 4", "✗ branches = 4 ended with LookupError('gone')"]]
    assert left == "[]"
