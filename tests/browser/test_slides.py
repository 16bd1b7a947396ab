"""The slides of jupyterlab-rise: they fit a projector, and their cells run."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from looplab.project import Project
from looplab.publishing.draft import Draft
from looplab.publishing.notebooks import read_notebook
from looplab.publishing.rules.slides import ROOM, SLIDE_HEIGHT, slide_show

pytestmark = pytest.mark.browser

PATIENCE = 30_000  # milliseconds: the machine may be busy
PRESENT = ".reveal .slides section.present:not(.stack)"
SLIDE = f"""() => {{
    const slide = document.querySelector('{PRESENT}');
    const all = [...document.querySelectorAll('.reveal .slides section:not(.stack)')];
    return {{
        place: all.indexOf(slide),
        hidden: slide.querySelectorAll('.fragment:not(.visible)').length,
        height: slide.offsetHeight,
        wide: [...slide.querySelectorAll('.cm-scroller')]
            .filter(one => one.scrollWidth > one.clientWidth + 1).length,
    }};
}}"""


def tallest(drafts: list[Draft]) -> Draft:
    """Return the lesson whose tallest slide is the tallest of all, by the estimate."""
    return max(drafts, key=lambda draft: max(slide.height for slide in slide_show(draft)))


@pytest.fixture
def drafts() -> list[Draft]:
    return [Draft(lesson, read_notebook(lesson.path)) for lesson in Project.here().lessons()]


def walk(page: Page) -> dict[int, dict[str, Any]]:
    """Press the space bar through the show; return each slide as it is when all of it is shown."""
    seen: dict[int, dict[str, Any]] = {}
    before, still = None, 0
    while still < 5:
        slide = page.evaluate(SLIDE)
        if not slide["hidden"]:
            seen[slide["place"]] = slide
        here = (slide["place"], slide["hidden"])
        still = still + 1 if here == before else 0
        before = here
        page.keyboard.press("Space")
        page.wait_for_timeout(60)
    return seen


def go_on_until(page: Page, there: Locator) -> None:
    """Press the space bar until ``there`` is on the present slide."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not there.count():
        assert time.monotonic() < deadline, "the slide never came"
        page.keyboard.press("Space")
        page.wait_for_timeout(60)


def test_every_slide_fits_and_the_estimate_is_right(
    open_slides: Callable[[str], Page], drafts: list[Draft]
) -> None:
    draft = tallest(drafts)
    page = open_slides(draft.lesson.path.name)
    seen = walk(page)
    estimates = [slide.height for slide in slide_show(draft)]
    assert len(seen) == len(estimates)
    assert [slide for slide in seen.values() if slide["height"] > SLIDE_HEIGHT] == []
    assert [slide for slide in seen.values() if slide["wide"]] == []
    off = {
        place: (slide["height"], round(estimates[place]))
        for place, slide in seen.items()
        if slide["height"] > estimates[place] + ROOM
    }
    assert off == {}


def test_the_speaker_sees_the_notes_and_the_room_does_not(
    open_slides: Callable[[str], Page], drafts: list[Draft]
) -> None:
    draft = tallest([draft for draft in drafts if draft.notes])
    page = open_slides(draft.lesson.path.name)
    note = page.locator("aside.notes")
    expect(note).to_have_count(len(draft.notes))
    expect(note.first).to_be_hidden()
    with page.expect_popup() as opened:
        page.keyboard.press("s")  # here, on the first slide: RISE goes back to it
    page.bring_to_front()  # a page behind another one is slowed down by the browser
    go_on_until(page, page.locator(f"{PRESENT} aside.notes"))
    speaker = opened.value.locator(".speaker-controls-notes .value")
    deadline = time.monotonic() + PATIENCE / 1000
    while "Presenting?" not in (speaker.text_content() or ""):
        # The speaker's view takes seconds to load, and hears of slides that come after that.
        assert time.monotonic() < deadline, "the note never came"
        page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(500)
        go_on_until(page, page.locator(f"{PRESENT} aside.notes"))
        page.wait_for_timeout(500)
    opened.value.close()


def test_a_cell_runs_inside_its_slide(open_slides: Callable[[str], Page]) -> None:
    page = open_slides("00_start_here.ipynb")
    code = page.locator(f"{PRESENT} .jp-CodeCell .cm-content:visible")  # set-up starts folded
    go_on_until(page, code)
    code.first.click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text("print('this runs', 6 * 7)")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".jp-OutputArea-output", has_text="this runs 42")).to_be_attached(
        timeout=PATIENCE
    )
