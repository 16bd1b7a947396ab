"""Every lesson in JupyterLab, as it is saved, can be read in light and in dark; some run there.

That every lesson runs is nbmake's to say, in the kernel that JupyterLab starts too.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from looplab.project import Project

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
KEEP = "COURSE_KEEP_PICTURES"  # set, it keeps pictures of all lessons in both themes
KEPT = ROOT / "test-results"  # not committed
COURSE = Project.here()
LESSONS = [lesson.path.name for lesson in COURSE.lessons()]
# The instruments and a dial, a real server, and the lesson with most pictures.
RUN_THERE = [COURSE.lesson(number).path.name for number in ("00", "04", "08", "13")]
OURS = ".jp-OutputArea-output, .jp-RenderedMarkdown"

RUN_ALL = "window.jupyterapp.commands.execute('notebook:run-all-cells')"
CELLS = """() => {
    const cells = window.jupyterapp.shell.currentWidget.content.widgets;
    return cells.filter(cell => cell.model.type === 'code').map(cell => ({
        id: cell.model.id,
        tags: cell.model.getMetadata('tags') ?? [],
        count: cell.model.executionCount,
        hidden: cell.inputHidden,
        outputs: cell.model.outputs.toJSON(),
    }));
}"""
# For each picture: its words, and in how many colours it is drawn, counted up to ENOUGH.
PICTURES = """async (images, enough) => Promise.all(images.map(async image => {
    await image.decode();
    const canvas = document.createElement('canvas');
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const pixels = new Uint32Array(
        context.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
    const colours = new Set();
    for (const pixel of pixels) if (colours.add(pixel).size >= enough) break;
    return { words: image.alt.trim(), colours: colours.size };
}))"""
ENOUGH = 4  # colours of a picture; an empty frame has fewer
THEMES = ("JupyterLab Light", "JupyterLab Dark")
OF_THEMES = ["color-contrast", "link-in-text-block"]  # axe's rules that look at colours
THEME = """async (theme) => {
    await window.jupyterapp.commands.execute('apputils:change-theme', { theme });
}"""
SPLASH = "#jupyterlab-splash"  # lies over the page while a theme is loaded
# Scrolls the notebook there; returns how much of it is seen at once, and its height, in pixels.
SCROLL_TO = """(top) => {
    const panel = document.querySelector('.jp-WindowedPanel-outer');
    panel.scrollTo({ top, behavior: 'instant' });
    return [panel.clientHeight, panel.scrollHeight];
}"""
LAID_OUT = "height => document.querySelector('.jp-WindowedPanel-outer').clientHeight > 0.9 * height"
SHEET = 4_000  # pixels; chromium draws no more than some 16,000 of a page


@pytest.mark.parametrize("name", RUN_THERE)
def test_a_lesson_runs(open_lesson: Callable[[str], Page], name: str) -> None:
    page = open_lesson(name)
    page.evaluate(RUN_ALL)

    cells = page.evaluate(CELLS)
    outputs = [(cell["id"], one) for cell in cells for one in cell["outputs"]]
    failed = [(at, one) for at, one in outputs if one["output_type"] == "error"]
    assert [(at, one["ename"], one["evalue"]) for at, one in failed] == []
    assert [(at, one["text"]) for at, one in outputs if one.get("name") == "stderr"] == []
    assert [cell["count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert [cell["id"] for cell in cells if "claim" in cell["tags"] and not ticks(cell)] == []
    assert [one for one in drawn_pictures(page, outputs) if not one["words"]] == []
    for theme in THEMES:
        change_theme(page, theme)
        assert serious_violations(page, theme) == []


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_can_be_read(open_to_read: Callable[[str], Page], name: str) -> None:
    page = open_to_read(name)

    cells = page.evaluate(CELLS)
    outputs = [(cell["id"], one) for cell in cells for one in cell["outputs"]]
    assert outputs
    assert [cell["id"] for cell in cells if "solution" in cell["tags"] and not cell["hidden"]] == []
    assert drawn_pictures(page, outputs) or "deeper" in name

    for theme in THEMES:
        change_theme(page, theme)
        if os.environ.get(KEEP):
            keep_pictures_of(page, f"{Path(name).stem}-{theme.split()[1].lower()}")
        # JupyterLab gives a saved picture no alternative text: its words stand below it.
        assert serious_violations(page, theme, without=("image-alt",)) == []


def change_theme(page: Page, theme: str) -> None:
    """Change JupyterLab's theme, and wait until nothing lies over the page any more."""
    page.evaluate(THEME, theme)
    expect(page.locator(SPLASH)).to_have_count(0)


def drawn_pictures(page: Page, outputs: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the words and colours of each picture; fail where a PNG shows but a frame."""
    pictures = page.locator(".jp-OutputArea-output img").evaluate_all(PICTURES, ENOUGH)
    assert len(pictures) == sum("image/png" in one.get("data", {}) for _, one in outputs)
    assert [one for one in pictures if one["colours"] < ENOUGH] == []
    return pictures


def ticks(cell: dict[str, Any]) -> int:
    """Return how many claims the cell has ticked."""
    shown = [one.get("data", {}).get("text/plain", "") for one in cell["outputs"]]
    return sum("".join(text).startswith("✓") for text in shown)


def keep_pictures_of(page: Page, name: str) -> None:
    """Save the whole notebook, in sheets, for who wants to look at it after the run."""
    size = page.viewport_size
    assert size is not None
    KEPT.mkdir(exist_ok=True)
    page.set_viewport_size({"width": size["width"], "height": SHEET})
    page.wait_for_function(LAID_OUT, arg=SHEET)
    seen, height = page.evaluate(SCROLL_TO, 0)
    for number in range(math.ceil(height / seen)):
        page.evaluate(SCROLL_TO, number * seen)
        page.locator(".jp-NotebookPanel").screenshot(
            path=KEPT / f"{name}-{number + 1}.jpg", type="jpeg", quality=80
        )
    page.set_viewport_size(size)


def serious_violations(page: Page, theme: str, *, without: tuple[str, ...] = ()) -> list[str]:
    """Return what axe-core finds serious in the outputs and the prose, a line each.

    Of the second theme it judges what a theme can change. ``without`` names rules that are not
    looked at.
    """
    context = {"include": [[one] for one in OURS.split(", ")]}
    options: dict[str, Any] = {"rules": {name: {"enabled": False} for name in without}}
    if theme != THEMES[0]:
        options = {"runOnly": {"type": "rule", "values": OF_THEMES}}
    found = Axe().run(page, context=context, options=options)
    return [
        f"{rule['id']} ({len(rule['nodes'])}): {rule['nodes'][0]['html'][:200]}"
        for rule in found.response["violations"]
        if rule["impact"] in ("serious", "critical")
    ]
