"""The picture of an x-ray in a browser: explored by pointer and keyboard, in light and dark."""

import re
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, CDPSession, Locator, Page, expect

from looplab.lab.cancels import CANCELLED, TIMED_OUT
from looplab.lab.explorer import data_of, explorable, fragment_of, kept, script
from looplab.lab.recording import Recording
from looplab.lab.trace import Label, Stretch, TaskTrace

pytestmark = pytest.mark.browser

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJg"
    "gg=="
)
STILL = f'<img alt="the still picture" width="40" src="data:image/png;base64,{PIXEL}">'


def ask() -> None:
    """Stands for a coroutine of the reader's."""


def label(name: str) -> Label:
    made = Label(name)
    made.code = ask.__code__
    return made


def trace(
    name: str, *steps: tuple[float, float, str], parent: TaskTrace | None = None, **others: object
) -> TaskTrace:
    made = TaskTrace(qualified=name, parent=parent, loop=0, ours=True, outcome="done")
    made.steps.extend(steps)
    made.made = steps[0][0] if steps else 0.0
    for field, value in others.items():
        setattr(made, field, value)
    return made


def shop(title: str = "A page of the shop", length: float = 0.2) -> Recording:
    """A page that waits twice, a hold of 40 ms, a lock that is queued for, and a cancelled task."""
    page = trace(
        "page", (0, 0.001, label("ask")), (0.1, 0.101, label("ask")), (length - 0.001, length, ""),
        log=[(0, 0), label("ask")], points=[-1, -1],
    )  # fmt: skip
    sign = trace("sign", (0.02, 0.06, ""), (0.09, 0.091, ""), parent=page, made=0.005)
    owner = trace("owner", (0.001, 0.002, ""), (0.08, 0.081, ""), parent=page)
    owner.stretches.append(Stretch("holds lock", 0.002, 0.08))
    queue = trace("queue", (0.003, 0.004, ""), (0.081, 0.082, ""), parent=page)
    queue.stretches.append(Stretch("queues for lock", 0.004, 0.08))
    late = trace(
        "late", (0.004, 0.005, ""), (0.12, 0.121, ""), parent=page, outcome="cancelled",
        marks=[(0.12, CANCELLED)],
    )  # fmt: skip
    many = [
        trace("item", (0.01, 0.011, ""), (0.1 + n / 1000, 0.101 + n / 1000, ""), parent=page)
        for n in range(8)
    ]
    many[3].marks.append((0.102, TIMED_OUT))
    traces = [page, sign, owner, queue, late, *many]
    return Recording(traces, title=title, start=0, end=length, held=0.01, watched=["lock"])


OpenPage = Callable[..., Page]
ANY_NUMBER = re.compile(r"\d+")
TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
PATIENCE = 10_000  # milliseconds


@pytest.fixture
def open_html(browser: Browser, tmp_path: Path) -> Generator[OpenPage]:
    """Return a function that opens HTML from a file; nothing may be fetched or complained of."""
    contexts = []
    complaints: list[str] = []

    def opened(body: str, *, head: str = "", attributes: str = "", **options: object) -> Page:
        page_of = f"<!doctype html><html lang=en><meta charset=utf-8><title>A page</title>{head}"
        file = tmp_path / "page.html"
        file.write_text(f"{page_of}<body {attributes}><main>{body}</main></body></html>", "utf-8")
        settings = {"viewport": {"width": 1000, "height": 900}, "reduced_motion": "reduce"}
        context = browser.new_context(**{**settings, **options})  # ty: ignore
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("console", lambda one: complaints.append(one.text))
        page.on("pageerror", lambda one: complaints.append(str(one)))
        page.on("request", lambda one: asked(one.url, file))
        page.goto(file.as_uri())
        return page

    def asked(url: str, file: Path) -> None:
        if not url.startswith(("data:", "blob:")) and url != file.as_uri():
            complaints.append(url)

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def picture(page: Page, number: int = 0) -> Locator:
    """Return a picture of the page once it is drawn."""
    host = page.locator(".looplab-xray").nth(number)
    expect(host).to_have_attribute("data-drawn", ANY_NUMBER)
    return host


def shown_time(host: Locator) -> float:
    """Return which share of the whole time is looked at: 1 unless zoomed."""
    host.page.evaluate(TWO_FRAMES)
    window = host.locator(".window")
    if not window.is_visible():
        return 1.0
    return window.bounding_box()["width"] / host.locator(".overview").bounding_box()["width"]  # ty: ignore


def shown_from(host: Locator) -> float:
    """Return where in the whole time the part begins that is looked at: 0 unless zoomed."""
    host.page.evaluate(TWO_FRAMES)
    window, whole = host.locator(".window").bounding_box(), host.locator(".overview").bounding_box()
    assert window is not None
    assert whole is not None
    return (window["x"] - whole["x"]) / whole["width"]


def colours_in(host: Locator) -> set[tuple[int, ...]]:
    """Return the opaque colours of the lanes' canvas."""
    pixels = host.locator(".plot canvas").evaluate("""canvas => {
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        const seen = new Set();
        for (let at = 0; at < data.length; at += 4) {
            if (data[at + 3] === 255) seen.add(`${data[at]},${data[at + 1]},${data[at + 2]}`);
        }
        return [...seen];
    }""")
    return {tuple(map(int, one.split(","))) for one in pixels}


def lane(host: Locator, name: str) -> Locator:
    heading = host.page.get_by_role("rowheader", name=name, exact=True)
    return host.get_by_role("row").filter(has=heading)


def point_at(host: Locator, name: str, milliseconds: float, whole: float = 228.0) -> tuple:
    """Return where the page shows a lane at a time, in pixels."""
    lane(host, name).first.scroll_into_view_if_needed()
    box = host.locator(".plot canvas").bounding_box()
    row = lane(host, name).first.bounding_box()
    assert box is not None
    assert row is not None
    return box["x"] + milliseconds / whole * box["width"], row["y"] + 13


def test_the_still_picture_stays_where_no_script_runs(open_html: OpenPage) -> None:
    page = open_html(fragment_of(data_of(shop()), still=STILL), java_script_enabled=False)
    expect(page.get_by_alt_text("the still picture")).to_be_visible()


def test_the_still_picture_gives_way_on_the_screen_and_returns_on_paper(
    open_html: OpenPage,
) -> None:
    page = open_html(fragment_of(data_of(shop()), still=STILL))
    host = picture(page)
    expect(page.get_by_alt_text("the still picture")).to_be_hidden()
    expect(host.get_by_role("treegrid")).to_be_visible()
    page.emulate_media(media="print")
    expect(page.get_by_alt_text("the still picture")).to_be_visible()
    expect(host.get_by_role("treegrid")).to_be_hidden()


def test_data_that_cannot_be_read_leaves_the_still_picture(
    browser: Browser, tmp_path: Path
) -> None:
    broken = fragment_of({"version": 1, "packed": "AAAA"}, still=STILL)
    page = browser.new_page()
    page.set_content(broken)
    expect(page.locator(".looplab-xray")).to_have_attribute("data-state", "failed")
    expect(page.get_by_alt_text("the still picture")).to_be_visible()
    page.close()


def test_pointing_at_a_bar_tells_name_start_length_chain_and_line(open_html: OpenPage) -> None:
    host = picture(open_html(explorable(shop())))
    card = host.locator(".card")
    host.page.mouse.move(*point_at(host, "page", 50))
    expect(card).to_contain_text("waits 99 ms in ask")
    expect(card).to_contain_text("from 1 ms to 100 ms")
    expect(card).to_contain_text("page → ask")
    expect(card).to_contain_text(f"test_explorer.py:{ask.__code__.co_firstlineno}")
    expect(card).to_contain_text("def ask() -> None:")
    expect(card).to_contain_text("the loop was held for 40 ms of that")
    host.page.mouse.move(*point_at(host, "sign", 40))
    expect(card).to_contain_text("holds the loop for 40 ms")
    host.page.mouse.move(*point_at(host, "queue", 40))
    expect(card).to_contain_text("queues for lock for 76 ms")
    host.page.mouse.move(*point_at(host, "late", 120))
    expect(card).to_contain_text(CANCELLED)
    host.page.mouse.move(5, 5)
    expect(card).to_be_hidden()


def test_a_picture_that_is_shown_scaled_as_on_a_slide_is_pointed_at_just_so(
    open_html: OpenPage,
) -> None:
    scaled = f'<div style="transform: scale(0.5); transform-origin: 0 0">{explorable(shop())}</div>'
    host = picture(open_html(scaled))
    box = host.locator(".plot canvas").bounding_box()
    row = lane(host, "sign").bounding_box()
    assert box is not None
    assert row is not None
    host.page.mouse.move(box["x"] + 40 / 228 * box["width"], row["y"] + row["height"] / 2)
    expect(host.locator(".card")).to_contain_text("holds the loop for 40 ms")


def test_a_scaled_picture_moves_along_with_the_pointer_that_drags_it(open_html: OpenPage) -> None:
    scaled = f'<div style="transform: scale(0.5); transform-origin: 0 0">{explorable(shop())}</div>'
    host = picture(open_html(scaled))
    host.get_by_role("button", name="Zoom in").click()
    before, box = shown_from(host), host.locator(".plot canvas").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + 10
    host.page.mouse.move(x, y)
    host.page.mouse.down()
    host.page.mouse.move(x + box["width"] / 4, y, steps=4)
    host.page.mouse.up()
    assert before - shown_from(host) == pytest.approx(0.5 / 4, abs=0.01)


def test_what_is_told_is_built_once_and_follows_the_pointer_along_its_bar(
    open_html: OpenPage,
) -> None:
    host = picture(open_html(explorable(shop())))
    card = host.locator(".card")
    host.page.mouse.move(*point_at(host, "page", 30))
    expect(card).to_contain_text("waits 99 ms in ask")
    was_at = card.bounding_box()
    card.evaluate("card => { card.firstChild.dataset.first = 'yes'; }")
    host.page.mouse.move(*point_at(host, "page", 70))
    assert card.locator("[data-first]").count() == 1
    moved_to = card.bounding_box()
    assert was_at is not None
    assert moved_to is not None
    assert moved_to["x"] > was_at["x"] + 50
    host.page.mouse.move(*point_at(host, "sign", 40))
    expect(card).to_contain_text("holds the loop for 40 ms")
    host.page.mouse.move(5, 5)
    expect(card).to_be_hidden()
    host.page.mouse.move(*point_at(host, "sign", 40))
    expect(card).to_be_visible()
    lane(host, "page").focus()  # hides what is told, which comes back with the pointer
    expect(card).to_be_hidden()
    host.page.mouse.move(*point_at(host, "sign", 41))
    expect(card).to_contain_text("holds the loop for 40 ms")


def test_a_click_pins_what_is_told_until_it_is_unpinned(open_html: OpenPage) -> None:
    host = picture(open_html(explorable(shop())))
    card = host.locator(".card")
    host.page.mouse.click(*point_at(host, "sign", 40))
    host.page.mouse.move(*point_at(host, "page", 50))
    expect(card).to_contain_text("holds the loop for 40 ms")
    host.get_by_role("button", name="Unpin").click()
    expect(card).to_be_hidden()


def test_the_time_axis_zooms_by_wheel_and_button_and_pans_by_dragging(
    open_html: OpenPage,
) -> None:
    host = picture(open_html(explorable(shop())))
    page = host.page
    assert shown_time(host) == 1.0
    host.get_by_role("button", name="Zoom in").click()
    assert shown_time(host) == pytest.approx(0.5, abs=0.02)
    page.mouse.move(*point_at(host, "page", 114))
    page.keyboard.down("Control")
    page.mouse.wheel(0, -60)
    page.keyboard.up("Control")
    page.wait_for_timeout(100)
    assert shown_time(host) == pytest.approx(0.5 * 0.698, abs=0.02)
    before = host.locator(".window").bounding_box()
    page.mouse.down()
    page.mouse.move(300, 200, steps=4)
    page.mouse.up()
    after = host.locator(".window").bounding_box()
    assert before is not None
    assert after is not None
    assert after["x"] > before["x"] + 5
    host.get_by_role("button", name="The whole time").click()
    assert shown_time(host) == 1.0


def touch(session: CDPSession, kind: str, *fingers: tuple[float, float, int]) -> None:
    points = [{"x": x, "y": y, "id": number} for x, y, number in fingers]
    session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})


@pytest.mark.parametrize("stays", [1, 2])
def test_a_pinch_zooms_and_stays_when_one_finger_leaves_before_the_other(
    open_html: OpenPage, stays: int
) -> None:
    host = picture(open_html(explorable(shop()), has_touch=True))
    session = host.page.context.new_cdp_session(host.page)
    x, y = point_at(host, "page", 114)
    first, second = (x - 50, y, 1), (x + 50, y, 2)
    touch(session, "Start", first)
    touch(session, "Start", first, second)
    for apart in (70, 90, 110, 150):
        first, second = (x - apart, y, 1), (x + apart, y, 2)
        touch(session, "Move", first, second)
    pinched, began = shown_time(host), shown_from(host)
    assert pinched == pytest.approx(1 / 3, abs=0.03)
    remaining, leaves = (first, second) if stays == 1 else (second, first)
    touch(session, "End", leaves)
    to_the_left = [(remaining[0] - gone, y, stays) for gone in (12, 30)]
    for moved in to_the_left:
        touch(session, "Move", moved)
    assert shown_time(host) == pytest.approx(pinched, abs=0.01)
    box = host.locator(".plot canvas").bounding_box()
    assert box is not None
    assert shown_from(host) - began == pytest.approx(30 / box["width"] * pinched, abs=0.012)
    touch(session, "End")
    assert shown_time(host) == pytest.approx(pinched, abs=0.01)
    expect(host.locator(".card")).to_be_hidden()


def test_lanes_are_hidden_and_shown_again(open_html: OpenPage) -> None:
    host = picture(open_html(explorable(shop())))
    row = lane(host, "owner")
    row.hover(position={"x": 20, "y": 13})
    row.get_by_role("button", name="Hide owner").click()
    expect(row).to_have_count(0)
    host.get_by_role("button", name="Show 1 hidden").click()
    expect(row).to_have_count(1)
    expect(host.get_by_role("button", name="hidden")).to_have_count(0)


def test_showing_all_lanes_again_leaves_the_keyboard_on_the_first(open_html: OpenPage) -> None:
    host = picture(open_html(explorable(shop())))
    lane(host, "page").focus()
    host.page.keyboard.press("Delete")
    expect(lane(host, "page")).to_have_count(0)
    host.get_by_role("button", name="Show 1 hidden").press("Enter")
    expect(lane(host, "page")).to_be_focused()


def test_the_keyboard_reaches_lanes_bars_and_everything_else(open_html: OpenPage) -> None:
    host = picture(open_html(explorable(shop())))
    page, card, said = host.page, host.locator(".card"), host.get_by_role("status")
    lane(host, "page").focus()
    page.keyboard.press("ArrowDown")
    expect(lane(host, "sign")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(card).to_contain_text("made, not started for 15 ms")
    page.keyboard.press("ArrowRight")
    expect(card).to_contain_text("holds the loop for 40 ms")
    expect(said).to_contain_text("sign: holds the loop for 40 ms, from 20 ms to 60 ms")
    expect(lane(host, "sign").get_by_role("gridcell")).to_be_focused()
    page.keyboard.press("Enter")
    expect(host.get_by_role("button", name="Unpin")).to_be_visible()
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()
    page.keyboard.press("+")
    assert shown_time(host) == pytest.approx(0.5, abs=0.02)
    page.keyboard.press("-")
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert shown_time(host) == pytest.approx(0.25, abs=0.02)
    page.keyboard.press("Home")
    assert shown_time(host) == 1.0
    page.keyboard.press("Escape")
    expect(lane(host, "sign")).to_be_focused()
    page.keyboard.press("Delete")
    expect(lane(host, "sign")).to_have_count(0)
    expect(lane(host, "owner")).to_be_focused()
    page.keyboard.press("n")
    expect(card).to_contain_text("holds the loop for 40 ms")  # what is hidden comes back for it
    expect(lane(host, "sign")).to_have_count(1)


def twins() -> Recording:
    """Two lanes alike: they hold two locks for the same time, and are marked twice at one time."""
    root = trace("root", (0, 0.001, ""), (0.099, 0.1, ""))
    lanes = []
    for name in ("left", "right"):
        one = trace(name, (0.01, 0.011, ""), (0.08, 0.081, ""), parent=root)
        one.marks += [(0.05, "half way"), (0.05, "saved")]
        one.stretches += [Stretch("holds disk", 0.02, 0.03), Stretch("holds net", 0.02, 0.03)]
        lanes.append(one)
    watched = ["disk", "net"]
    return Recording([root, *lanes], title="t", start=0, end=0.1, held=0.02, watched=watched)


def test_enter_pins_the_bar_of_this_lane_though_the_lane_above_has_one_at_the_same_time(
    open_html: OpenPage,
) -> None:
    host = picture(open_html(explorable(twins())))
    card, press = host.locator(".card"), host.page.keyboard.press
    lane(host, "left").focus()
    press("ArrowRight")
    press("Enter")
    expect(card.locator(".aside")).to_have_text("left")
    lane(host, "right").focus()
    press("ArrowRight")
    press("Enter")
    expect(host.get_by_role("button", name="Unpin")).to_be_visible()
    expect(card.locator(".aside")).to_have_text("right")
    press("Enter")
    expect(card).to_be_hidden()


@pytest.mark.parametrize(("first", "second"), [("holds disk", "holds net"), ("half way", "saved")])
def test_enter_pins_what_begins_and_ends_with_what_was_pinned(
    open_html: OpenPage, first: str, second: str
) -> None:
    host = picture(open_html(explorable(twins())))
    card, press = host.locator(".card"), host.page.keyboard.press
    lane(host, "left").focus()
    for _ in range(10):
        press("ArrowRight")
        if first in (card.text_content() or ""):
            break
    press("Enter")
    expect(card).to_contain_text(first)
    press("ArrowRight")
    press("Enter")
    expect(host.get_by_role("button", name="Unpin")).to_be_visible()
    expect(card).to_contain_text(second)


def test_a_group_of_one_name_opens_into_its_lanes(open_html: OpenPage) -> None:
    host = picture(open_html(explorable(shop())))
    group = host.get_by_role("row", name="item × 8")
    expect(group).to_have_attribute("aria-expanded", "false")
    expect(group).to_contain_text("8 tasks, 1 timed out")
    group.focus()
    host.page.keyboard.press("Enter")
    expect(group).to_have_attribute("aria-expanded", "true")
    expect(lane(host, "item 8")).to_have_count(1)
    host.page.keyboard.press("Enter")
    expect(lane(host, "item 8")).to_have_count(0)


def test_tables_say_in_words_what_lanes_and_holds_there_are(open_html: OpenPage) -> None:
    host = picture(open_html(explorable(shop())))
    host.get_by_text("The picture in words and tables").click()
    holds = host.get_by_role("table", name="What held the loop: A page of the shop")
    expect(holds.get_by_role("row").nth(1)).to_contain_text("sign20 ms40 ms")
    expect(
        host.get_by_role("table", name="Lanes: A page of the shop").get_by_role("row")
    ).to_have_count(14)


def test_two_runs_share_a_time_axis(open_html: OpenPage) -> None:
    slow, quick = shop("slow", 0.4), shop("quick", 0.2)
    host = picture(open_html(explorable(quick, slow)))
    expect(host.get_by_role("rowheader", name="slow", exact=True)).to_be_visible()
    expect(host.get_by_role("rowheader", name="quick", exact=True)).to_have_count(1)
    host.page.mouse.move(*point_at(host, "page", 399.5, 456))
    expect(host.locator(".card")).to_contain_text("to 400 ms")


def test_several_pictures_in_one_page_keep_out_of_each_others_way(open_html: OpenPage) -> None:
    data = kept(data_of(shop("one")))
    assert data is not None
    parts = [fragment_of(data, assets=False), explorable(shop("two")), explorable(shop("three"))]
    page = open_html("".join(parts) + f"<script>{script()}</script>")
    hosts = [picture(page, number) for number in range(3)]
    hosts[1].get_by_role("button", name="Zoom in").click()
    assert [shown_time(host) for host in hosts] == pytest.approx([1, 0.5, 1], abs=0.02)


GROUND = """getComputedStyle(
    document.querySelector('.looplab-xray').shadowRoot.querySelector('.live')).backgroundColor"""
THEMES = {
    "the system's": ("", {"color_scheme": "dark"}),
    "JupyterLab's": ('data-jp-theme-light="false"', {}),
    "VS Code's": ('class="vscode-dark"', {}),
    "the site's": ('data-theme="dark"', {}),
}


@pytest.mark.parametrize("whose", THEMES)
def test_it_is_dark_where_the_page_is(open_html: OpenPage, whose: str) -> None:
    attributes, options = THEMES[whose]
    page = open_html(explorable(shop()), attributes=attributes, **options)
    picture(page)
    dark = page.evaluate(GROUND)
    assert dark == "rgb(18, 24, 31)"
    page.emulate_media(color_scheme="light")
    page.evaluate("document.body.dataset.jpThemeLight = 'true'")
    page.wait_for_function(f"{GROUND} === 'rgb(255, 255, 255)'")


def test_a_change_of_the_page_that_is_none_of_light_and_dark_draws_nothing(
    open_html: OpenPage,
) -> None:
    page = open_html(explorable(shop()))
    host = picture(page)
    page.evaluate(TWO_FRAMES)
    drawn = host.get_attribute("data-drawn")
    page.evaluate("document.body.classList.add('busy')")
    page.evaluate(TWO_FRAMES)
    assert host.get_attribute("data-drawn") == drawn
    page.evaluate("document.body.classList.add('dark')")
    page.wait_for_function(f"{GROUND} === 'rgb(18, 24, 31)'")


# Counts who waits for a change of the page, or of the system's colours.
COUNT_WATCHES = """<script>
window.watching = 0;
const seen = new WeakSet(), watch = MutationObserver.prototype, media = MediaQueryList.prototype;
const { observe, disconnect } = watch, { addEventListener, removeEventListener } = media;
watch.observe = function (...all) {
    if (!seen.has(this)) { seen.add(this); window.watching++; }
    return observe.apply(this, all);
};
watch.disconnect = function () {
    if (seen.delete(this)) window.watching--;
    return disconnect.call(this);
};
media.addEventListener = function (...all) {
    window.watching++;
    return addEventListener.apply(this, all);
};
media.removeEventListener = function (...all) {
    window.watching--;
    return removeEventListener.apply(this, all);
};
</script>"""
CLEAR_THE_OUTPUT = """() => {
    const host = document.querySelector('.looplab-xray');
    window.cleared = new WeakRef(host);
    host.parentElement.replaceChildren();
}"""


def test_a_picture_that_was_cleared_is_not_kept_and_watches_nothing(open_html: OpenPage) -> None:
    page = open_html(explorable(shop()), head=COUNT_WATCHES)
    page.wait_for_function("document.querySelector('.looplab-xray').dataset.drawn")
    page.evaluate(TWO_FRAMES)
    watching = page.evaluate("window.watching")
    assert watching >= 2
    page.evaluate(CLEAR_THE_OUTPUT)
    page.evaluate(TWO_FRAMES)
    page.context.new_cdp_session(page).send("HeapProfiler.collectGarbage")
    assert page.evaluate("window.cleared.deref() === undefined")
    page.evaluate("document.body.classList.add('dark')")
    page.evaluate(TWO_FRAMES)
    assert page.evaluate("window.watching") == watching - 2


def test_a_picture_that_comes_back_to_the_page_has_the_colours_of_now(open_html: OpenPage) -> None:
    """As JupyterLab does with cells that leave the window and come back."""
    page = open_html(explorable(shop()))
    picture(page)
    page.evaluate("""() => {
        window.away = document.querySelector('.looplab-xray');
        window.away.remove();
        document.body.classList.add('dark');
    }""")
    page.evaluate(TWO_FRAMES)
    page.evaluate("document.querySelector('main').append(window.away)")
    page.wait_for_function(f"{GROUND} === 'rgb(18, 24, 31)'")
    page.evaluate(TWO_FRAMES)
    assert (166, 208, 255) in colours_in(picture(page))  # a step that runs, in the dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_out(open_html: OpenPage, scheme: str) -> None:
    page = open_html(explorable(shop(), shop("before")), color_scheme=scheme)
    host = picture(page)
    host.get_by_text("The picture in words and tables").click()
    host.get_by_text("Keys", exact=True).click()
    page.mouse.click(*point_at(host, "page", 150, 228))
    expect(host.get_by_role("button", name="Unpin")).to_be_visible()
    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]}
    found = Axe().run(page, context=".looplab-xray", options=options)
    told = [f"{one['id']}: {one['nodes'][0]['html'][:160]}" for one in found.response["violations"]]
    assert told == []


def test_it_works_in_a_frame_that_may_only_run_scripts(open_html: OpenPage) -> None:
    """As VS Code and Colab show each output."""
    inner = explorable(shop()).replace("&", "&amp;").replace('"', "&quot;")
    page = open_html(
        f'<iframe sandbox="allow-scripts" width=900 height=600 srcdoc="{inner}"></iframe>'
    )
    frame = page.frame_locator("iframe")
    host = frame.locator(".looplab-xray")
    expect(host).to_have_attribute("data-state", "ready")
    host.get_by_role("button", name="Next time").click()
    expect(host.locator(".card")).to_contain_text("holds the loop for 40 ms")


def test_a_phone_shows_it_without_scrolling_sideways(open_html: OpenPage) -> None:
    page = open_html(
        explorable(shop()), head='<meta name=viewport content="width=device-width">',
        viewport={"width": 390, "height": 800}, has_touch=True,
    )  # fmt: skip
    picture(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_words_from_the_recording_are_text_and_never_markup(open_html: OpenPage) -> None:
    name = "</script><img src=x onerror=alert(1)>"
    run = Recording([trace(name, (0, 0.02, ""))], title=name, start=0, end=0.02, held=0.01)
    host = picture(open_html(explorable(run)))
    expect(host.locator("img")).to_have_count(0)
    expect(host.get_by_role("rowheader")).to_have_text(name)
