"""A lesson as a learner meets it: in JupyterLab, in a browser."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

RUN_ALL = """async () => {
    await window.jupyterapp.commands.execute('notebook:run-all-cells');
    const cells = window.jupyterapp.shell.currentWidget.content.model.cells;
    const found = [];
    for (const cell of cells) {
        if (cell.type !== 'code') continue;
        found.push({ id: cell.id, count: cell.executionCount, outputs: cell.outputs.toJSON() });
    }
    return found;
}"""
SHOW = """async (id) => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    const index = notebook.widgets.findIndex(cell => cell.model.id === id);
    notebook.activeCellIndex = index;
    await notebook.scrollToItem(index, 'start');
}"""
LOADED = "image => image.complete && image.naturalWidth > 0"


@pytest.fixture
def lesson(open_lesson: Callable[[str], Page]) -> Page:
    return open_lesson("02_gather.ipynb")


def outputs(cells: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for cell in cells for one in cell["outputs"] if one["output_type"] == kind]


def shown(cells: list[dict[str, Any]], kind: str) -> list[str]:
    data = [one["data"] for one in outputs(cells, "display_data") if kind in one["data"]]
    return [one[kind] if isinstance(one[kind], str) else "".join(one[kind]) for one in data]


def test_lesson_02_runs_shows_its_pictures_and_turns_its_dial(lesson: Page) -> None:
    cells = lesson.evaluate(RUN_ALL)

    assert outputs(cells, "error") == []
    assert [one for one in outputs(cells, "stream") if one["name"] == "stderr"] == []
    assert [cell["count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(text.startswith("✓") for text in shown(cells, "text/plain")) >= 20
    assert len(shown(cells, "image/png")) >= 6

    lesson.evaluate(SHOW, "pattern-xray")
    picture = lesson.get_by_alt_text("gathered: six waits at once").first
    picture.wait_for()
    assert picture.evaluate(LOADED)

    lesson.evaluate(SHOW, "dial-turn")
    dial = lesson.locator(".course-dial")
    dial.wait_for()
    assert "50 ms" not in dial.inner_text()
    dial.get_by_role("slider").focus()
    lesson.keyboard.press("ArrowRight")
    dial.get_by_role("rowheader", name="50 ms").wait_for(timeout=15_000)
    assert lesson.locator(".course-dial .jp-RenderedText[data-mime-type*=error]").count() == 0
