"""The reading site in a browser: by itself, on a phone, in the dark, and for everybody."""

import functools
import http.server
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from looplab.project import Lesson, Project
from looplab.publishing.guide import write_guide
from looplab.publishing.kept import give_back
from looplab.publishing.notebooks import read_notebook
from looplab.publishing.site import build_site
from looplab.publishing.site.dials import with_choices

pytestmark = pytest.mark.browser

DESK = {"width": 1280, "height": 720}
PHONE = {"width": 390, "height": 844}
PAGES = ["index", "symptoms", *(lesson.name for lesson in Project.here().lessons())]

# axe-core takes seconds for a lesson; what lessons hold is checked in JupyterLab, one by one.
LOOKED_AT = ["index", "symptoms", "02_gather"]

OpenPage = Callable[..., Page]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """The site of the course as it is saved, served on this machine; its address."""
    folder = tmp_path_factory.mktemp("site") / "site"
    build_site(Project.here(), folder)
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def open_page(browser: Browser, site: str) -> Generator[OpenPage]:
    """Return a function that opens a page; requests to other hosts are kept in ``strangers``."""
    contexts = []
    strangers: list[str] = []

    def opened(name: str, *, colours: str = "light", size: dict[str, int] = DESK) -> Page:
        context = browser.new_context(viewport=size, color_scheme=colours)  # ty: ignore
        contexts.append(context)
        context.on("request", lambda one: None if ours(one.url) else strangers.append(one.url))
        page = context.new_page()
        page.goto(f"{site}{name}.html")
        return page

    def ours(url: str) -> bool:
        return url.startswith((site, "data:"))

    yield opened
    for context in contexts:
        context.close()
    assert strangers == []


def test_the_pages_are_those_of_the_course(site: str, open_page: OpenPage) -> None:
    page = open_page("index")
    entries = page.locator(".bd-sidebar-primary a.reference.internal")
    targets = entries.evaluate_all("links => links.map(link => link.href)")
    assert [f"{site}{name}.html" for name in PAGES[2:]] == [
        target for target in targets if Path(target).stem in PAGES[2:]
    ]


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_nobody_is_kept_out(open_page: OpenPage, colours: str) -> None:
    page = open_page("index", colours=colours)
    found = []
    for name in LOOKED_AT:
        page.goto(page.url.rpartition("/")[0] + f"/{name}.html")
        page.wait_for_load_state("networkidle")
        for rule in Axe().run(page).response["violations"]:
            if rule["impact"] in ("serious", "critical"):
                found.append(f"{name}: {rule['id']}: {rule['nodes'][0]['html'][:200]}")
    assert found == []


def pictures_in(lesson: Lesson) -> int:
    """Return how many pictures the lesson's saved outputs hold, each choice of a dial included."""
    saved = read_notebook(lesson.path)
    give_back(saved, lesson.path)
    return sum("image/png" in output.get("data", {}) for output in with_choices(saved))


def test_every_picture_is_drawn_and_has_words(open_page: OpenPage) -> None:
    page = open_page("index")
    saved = {lesson.name: pictures_in(lesson) for lesson in Project.here().lessons()}
    drawn = 0
    for name in PAGES:
        page.goto(page.url.rpartition("/")[0] + f"/{name}.html")
        pictures = page.locator(".bd-article img")
        sizes = pictures.evaluate_all(
            "all => Promise.all(all.map(one => one.decode().then(() => one.naturalWidth)))"
        )
        assert 0 not in sizes, name
        alts = pictures.evaluate_all("all => all.map(one => one.alt.trim())")
        assert all(alts), f"{name} has a picture without words"
        assert len(sizes) == saved.get(name, len(sizes)), name
        drawn += len(sizes)
    assert drawn >= sum(saved.values()) > 0


def test_on_a_phone_no_page_scrolls_sideways(open_page: OpenPage) -> None:
    page = open_page("index", size=PHONE)
    wide = {}
    for name in PAGES:
        page.goto(page.url.rpartition("/")[0] + f"/{name}.html")
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > PHONE["width"]:
            wide[name] = width
    assert wide == {}


def test_on_a_phone_the_guide_does_not_scroll_sideways(browser: Browser, tmp_path: Path) -> None:
    write_guide(Project.here(), tmp_path / "guide.html")
    page = browser.new_page(viewport=PHONE)  # ty: ignore[invalid-argument-type]
    page.goto((tmp_path / "guide.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.close()


def background(page: Page) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_the_pages_follow_the_systems_light_or_dark(open_page: OpenPage) -> None:
    light, dark = open_page("index"), open_page("index", colours="dark")
    assert background(light) != background(dark)


def test_a_reader_may_choose_dark_and_it_stays(open_page: OpenPage) -> None:
    page = open_page("index")
    light = background(page)
    page.locator(".theme-switch-button:visible").click()
    page.locator(".theme-change-button[data-mode=dark]:visible").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    dark = background(page)
    assert dark != light
    page.goto(page.url.replace("index", "02_gather"))
    assert background(page) == dark


def test_search_finds_a_lesson(open_page: OpenPage) -> None:
    page = open_page("search")
    page.goto(f"{page.url}?q=TaskGroup")
    page.wait_for_selector("#search-results li a")
    found = page.locator("#search-results li a").evaluate_all("all => all.map(one => one.href)")
    assert any("02_gather.html" in target for target in found)


def test_solutions_are_folded_and_open_on_demand(open_page: OpenPage) -> None:
    page = open_page("02_gather")
    folded = page.locator(".tag_solution details, .cell.tag_hide-input.tag_solution details").first
    assert folded.get_attribute("open") is None
    folded.locator("summary").click()
    assert folded.get_attribute("open") is not None
