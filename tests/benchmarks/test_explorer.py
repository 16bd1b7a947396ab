"""How long the explorable picture of 5,000 lanes and 100,000 steps takes to draw and to zoom.

Measured in chromium, in the page: the first draw from the moment its script runs, unpacking
included, the shortest of some loads, since other work on the machine can only add to it; a zoom
from the key to the end of the frame in which it is drawn; a move of the pointer along one bar, with
the layout of what is told of it, the best of some hundreds of moves. Lanes of one name are one
group of thin lanes, lanes of different names are rows of which those in sight are drawn.
"""

import random
from pathlib import Path
from statistics import median
from time import thread_time
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from looplab.lab.explorer import data_of, fragment_of, kept
from looplab.lab.recording import Recording
from looplab.lab.trace import TaskTrace

pytestmark = pytest.mark.benchmark

LANES = 5_000
STEPS = 20
LOADS = 5
LABELS = ("load", "save", "ask")
NOTE_THE_DRAW = """
window.began = NaN;
new MutationObserver(() => {
    const host = document.querySelector('.looplab-xray');
    if (host?.dataset.state && isNaN(window.began)) window.began = performance.now();
    if (host?.dataset.drawn) window.drawn ??= performance.now();
}).observe(document, { subtree: true, childList: true, attributes: true });
"""
PRESS = """async (key) => {
    const root = document.querySelector('.looplab-xray').shadowRoot;
    const began = performance.now();
    root.querySelector('[role=row]').dispatchEvent(
        new KeyboardEvent('keydown', { key, bubbles: true, composed: true }));
    await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    return performance.now() - began;
}"""

# Along the first lane, which waits in one place nearly all the time.
MOVE = """() => {
    const root = document.querySelector('.looplab-xray').shadowRoot;
    const canvas = root.querySelector('.plot canvas'), card = root.querySelector('.card');
    const { left, top, width } = canvas.getBoundingClientRect();
    const times = [];
    for (let batch = 0; batch < 20; batch++) {
        const began = performance.now();
        for (let step = 0; step < 20; step++) {
            const clientX = left + width * (0.2 + step / 50), clientY = top + 13;
            canvas.dispatchEvent(new PointerEvent('pointermove', { clientX, clientY }));
            card.offsetWidth;
        }
        times.push((performance.now() - began) / 20);
    }
    if (card.hidden) throw new Error('nothing was told');
    return Math.min(...times);
}"""


def crowd(names: int) -> Recording:
    """Return a run of many lanes with ``names`` different names, some of which hold the loop."""
    chance = random.Random(names)
    root = TaskTrace(qualified="load_test", parent=None, loop=0, ours=True, outcome="done")
    root.steps += [(0.0, 0.001, ""), (9.9, 10.0, "")]
    traces = [root]
    for number in range(LANES):
        now = chance.random() * 5
        one = TaskTrace(
            qualified=f"task {number % names}", parent=root, loop=0, ours=True, outcome="done",
            made=now - 0.01,
        )  # fmt: skip
        for step in range(STEPS):
            length = 0.03 if step == 3 and number % 500 == 0 else chance.random() * 0.002
            one.steps.append((now, now + length, chance.choice(LABELS)))
            now += length + chance.random() * 0.2
        traces.append(one)
    return Recording(traces, title="many", start=0.0, end=10.0, held=0.01, unfold=False)


@pytest.mark.parametrize("names", [1, LANES])
def test_5000_lanes_and_100000_steps(
    names: int, figures: Any, chromium: str, tmp_path: Path
) -> None:
    recording = crowd(names)
    assert recording.steps == LANES * STEPS + 2
    begun = thread_time()
    data = data_of(recording)
    made = thread_time()
    fragment = fragment_of(data)
    packed = thread_time()
    saved = kept(data)
    assert saved is not None
    thinned = thread_time()
    file = tmp_path / "many.html"
    file.write_text(f"<!doctype html><meta charset=utf-8><body>{fragment}", encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        first, zooms, moves = [], [], []
        for _ in range(LOADS):
            page = browser.new_page(viewport={"width": 1000, "height": 900})
            page.emulate_media(reduced_motion="reduce")
            page.add_init_script(NOTE_THE_DRAW)
            page.goto(file.as_uri())
            page.wait_for_function("window.drawn")
            first.append(page.evaluate("window.drawn - window.began"))
            moves.append(page.evaluate(MOVE))
            zooms += zoomed(page)
            page.close()
        browser.close()
    with figures(f"{LANES:,} lanes, {LANES * STEPS:,} steps, {names:,} names") as table:
        table.at_most("first draw", min(first), 1000, "ms")
        table.at_most("a zoom", median(zooms), 100, "ms")
        table.at_most("a move of the pointer", min(moves), 0.5, "ms")
        table.only("first draw, the slowest", max(first), "ms")
        table.only("the slowest zoom", max(zooms), "ms")
        table.only("making the data", made - begun, "s")
        table.only("packing it", packed - made, "s")
        table.only("thinning it to be saved", thinned - packed, "s")
        table.only("live", len(fragment) / 1000, "kB")
        table.only("saved", len(saved["packed"]) / 1000, "kB")


def zoomed(page: Page) -> list[float]:
    """Return what each of some zooms took, in milliseconds."""
    before = page.evaluate("document.querySelector('.looplab-xray').dataset.drawn")
    taken = [page.evaluate(PRESS, key) for key in "+++--+++++"]
    assert page.evaluate("document.querySelector('.looplab-xray').dataset.drawn") != before
    return taken
