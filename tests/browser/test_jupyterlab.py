"""What a learner does in JupyterLab: predict, turn a dial, write, interrupt, begin again."""

from collections.abc import Callable
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Locator, Page, expect

from looplab.project import Project

pytestmark = pytest.mark.browser

PATIENCE = 30_000  # milliseconds: the machine may be busy
LONG = 600  # seconds that a cell waits unless it is interrupted

RUN_ALL = "window.jupyterapp.commands.execute('notebook:run-all-cells')"
RUN = "window.jupyterapp.commands.execute('notebook:run-cell')"
INTERRUPT = "window.jupyterapp.commands.execute('notebook:interrupt-kernel')"
RESTART_AND_RUN_ALL = "window.jupyterapp.commands.execute('notebook:restart-run-all')"
SELECT = """async (id) => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = notebook.widgets.findIndex(cell => cell.model.id === id);
    await notebook.scrollToItem(notebook.activeCellIndex, 'start');
    notebook.mode = 'command';
    notebook.activeCell.node.focus();
}"""
ERRORS = """() => window.jupyterapp.shell.currentWidget.content.widgets
    .filter(cell => cell.model.type === 'code')
    .flatMap(cell => cell.model.outputs.toJSON())
    .filter(output => output.output_type === 'error').map(output => output.ename)"""
COUNTS = """() => window.jupyterapp.shell.currentWidget.content.widgets
    .filter(cell => cell.model.type === 'code').map(cell => cell.model.executionCount)"""


def cell(page: Page, identity: str) -> Locator:
    """Select a cell by its id and return it."""
    page.evaluate(SELECT, identity)
    return page.locator(".jp-Cell.jp-mod-active")


def rewrite(page: Page, identity: str, source: str) -> None:
    """Type a new source over a cell's own, as a learner would, and run the cell."""
    cell(page, identity).locator(".cm-content").click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(source)
    page.evaluate(RUN)


def source_of(number: str, identity: str) -> str:
    notebook = nbformat.read(Project.here().lesson(number).path, as_version=4)
    return next(one["source"] for one in notebook.cells if one["id"] == identity)


def ids_by_tag(number: str) -> dict[str, str]:
    notebook = nbformat.read(Project.here().lesson(number).path, as_version=4)
    return {tag: one["id"] for one in notebook.cells for tag in one["metadata"].get("tags", [])}


def test_a_learner_turns_a_dial(open_lesson: Callable[[str], Page]) -> None:
    page = open_lesson("02_gather_deeper.ipynb")
    page.evaluate(RUN_ALL)
    assert page.evaluate(ERRORS) == []

    dial = page.locator(".course-dial")
    dial.get_by_role("radio", name="10").focus()
    page.keyboard.press("Space")
    expect(dial.get_by_role("rowheader", name="10 ms")).to_be_visible(timeout=PATIENCE)
    for choice in ("0", "20", "10", "0"):  # back and forth: the last one counts
        dial.get_by_role("radio", name=choice, exact=True).check()
    expect(dial.get_by_role("rowheader", name="0 ms", exact=True)).to_be_visible(timeout=PATIENCE)
    expect(dial.get_by_role("table")).to_have_count(1)


def test_a_learner_predicts_and_solves_the_exercise(
    open_lesson: Callable[[str], Page],
) -> None:
    page = open_lesson("02_gather.ipynb")
    page.evaluate(RUN_ALL)
    assert page.evaluate(ERRORS) == []

    box = page.locator(".course-prediction input")
    box.fill("75")
    box.press("Tab")
    cell(page, "setup")  # the lesson's end has closed it
    page.evaluate(RUN)
    shown = cell(page, "compare-claims")
    page.evaluate(RUN)
    expect(shown.get_by_role("row", name="you said 75 ms")).to_be_visible(timeout=PATIENCE)
    expect(shown.get_by_role("rowheader", name="measured")).to_be_visible()

    exercise, check = ids_by_tag("02")["exercise"], ids_by_tag("02")["check"]
    solution = source_of("02", ids_by_tag("02")["solution"]).partition("\n\n\n")[0]
    right = solution.replace("def gathered_page(", "def product_page(")
    assert right != solution
    for source, mark, said in (
        (right.replace("except* HTTPException", "except* KeyError"), "Hint", "500"),
        (right, "Holds", "a 404 that waits for no other answer"),
    ):
        rewrite(page, exercise, source)
        shown = cell(page, check)
        page.evaluate(RUN)
        expect(shown.locator(f'[aria-label="{mark}"]')).to_be_visible(timeout=PATIENCE)
        expect(shown.locator(".jp-OutputArea")).to_contain_text(said)


ACTIVE = "window.jupyterapp.shell.currentWidget.content.activeCell.model.id"
CELLS = "window.jupyterapp.shell.currentWidget.content.widgets.length"


def test_a_learner_explores_an_x_ray_and_the_notebook_leaves_its_keys_alone(
    open_lesson: Callable[[str], Page],
) -> None:
    page = open_lesson("00_start_here.ipynb")
    page.evaluate(RUN_ALL)
    assert page.evaluate(ERRORS) == []

    shown = cell(page, "together-xray").locator(".looplab-xray")
    expect(shown).to_have_attribute("data-state", "ready", timeout=PATIENCE)
    expect(shown.locator("xpath=.//img")).to_be_hidden()
    rows = shown.get_by_role("row")
    active, cells = page.evaluate(ACTIVE), page.evaluate(CELLS)
    rows.first.focus()
    for key in ("ArrowDown", "d", "d", "ArrowDown", "ArrowUp", "a", "b"):
        page.keyboard.press(key)
    expect(rows.nth(1)).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")  # would begin to edit the cell
    expect(shown.locator(".card")).to_contain_text("ms")
    expect(shown.get_by_role("button", name="Unpin")).to_be_visible()
    page.keyboard.press("+")
    expect(shown.locator(".window")).to_be_visible()
    assert (page.evaluate(ACTIVE), page.evaluate(CELLS)) == (active, cells)


def test_the_keyboard_runs_a_lesson_an_interrupt_ends_a_wait_and_a_restart_begins_again(
    open_lesson: Callable[[str], Page],
) -> None:
    page = open_lesson("00_start_here.ipynb")
    cell(page, "title")
    total = len(page.evaluate(COUNTS))
    expected = list(range(1, total + 1))
    for _ in range(page.locator(".jp-Notebook-cell").count() - 1):
        page.keyboard.press("Shift+Enter")
    page.keyboard.press("Control+Enter")  # the other would add a cell below the last
    wait_until(page, COUNTS, expected)
    assert page.evaluate(ERRORS) == []

    cell(page, "hygiene")
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    page.keyboard.insert_text(f"import asyncio\n\nprint('here')\nawait asyncio.sleep({LONG})")
    page.evaluate("() => { window.waiting = " + RUN + ".finally(() => { window.ended = true; }); }")
    expect(page.locator(".jp-Cell.jp-mod-active .jp-OutputArea")).to_contain_text("here")
    page.evaluate(INTERRUPT)
    page.wait_for_function("window.ended", timeout=PATIENCE)
    assert page.evaluate(ERRORS) in (["KeyboardInterrupt"], ["CancelledError"])
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    page.keyboard.press("d")

    page.evaluate(f"() => {{ window.again = {RESTART_AND_RUN_ALL}; }}")
    page.locator(".jp-Dialog .jp-mod-accept").click()
    page.evaluate("window.again")
    wait_until(page, COUNTS, expected)
    assert page.evaluate(ERRORS) == []


def wait_until(page: Page, script: str, expected: Any) -> None:
    page.wait_for_function(
        f"expected => JSON.stringify(({script})()) === JSON.stringify(expected)",
        arg=expected,
        timeout=2 * PATIENCE,
    )
