"""A lesson of the reading site in a browser: it asks, its dial moves, its folds open.

The pages are those of two small lessons that `course refresh` ran, opened from files as somebody
would who got the site as a folder; one test opens them from a server.
"""

import functools
import http.server
import io
import re
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect
from rich.console import Console

from looplab.project import Project
from looplab.publishing.refresh import refresh
from looplab.publishing.site import build_site

pytestmark = pytest.mark.browser

DESK = {"width": 1280, "height": 720}
PHONE = {"width": 390, "height": 844}
LESSON, TWO_QUESTIONS = "00_start_here", "01_blocking"

OpenPage = Callable[..., Page]

PREDICT = """\
from looplab.lab import dial, predict, show_note, show_table
guess = predict("how long it takes", between=(0, 1500))"""
XRAY = """\
import asyncio
from looplab.lab import ms, xray


async def branches(count):
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(asyncio.sleep(ms(20)), name="branch")


_ = await xray(branches(2), title="two branches")"""
DIAL = """\
async def run(value):
    rows = [[f"{value:,}", "a rather long cell of a table " * 3]]
    show_table(["branches", "found"], rows)
    await xray(branches(min(value, 12)), title=f"{value} branches")
    show_note(f"{value} at once", kind="tick")


_ = await dial("branches", [1, 10, 1000], run, start=10)"""
BOTH = """\
from looplab.lab import predict
first = predict("the first", between=(0, 10), unit="")
second = predict("the second", between=(0, 10), unit="")
never = predict("what nothing answers", between=(0, 10), unit="")"""


def code(identity: str, source: str, *tags: str) -> nbformat.NotebookNode:
    cell = new_code_cell(source, id=identity)
    cell["metadata"]["tags"] = list(tags)
    return cell


def text(identity: str, source: str) -> nbformat.NotebookNode:
    return new_markdown_cell(source, id=identity)


HINT = "<details><summary>Hint</summary>\n\nSo.\n\n</details>"
LESSONS = {
    LESSON: [
        text("title", "# Start here\n\nA hook, and [a later place](#deeper-down)."),
        code("picture", XRAY),
        text("predict-prose", "## Predict\n\nHow long?"),
        code("predict", PREDICT),
        text("after", "Covered, in the section of the question."),
        text("pattern-prose", "## The pattern\n\nCovered.\n\n### Deeper down\n\nStill covered."),
        code("measure", "print('57 ms')"),
        text("compare-prose", "## Compare\n\nCovered."),
        code("compare", "guess.reveal(57, bound=50)"),
        code("dial", DIAL, "dial"),
        text("exercise-prose", f"## Exercise\n\n{HINT}"),
        code("stub", "def answer():\n    return 41", "exercise"),
        code("check", "show_note('It is one short.', kind='hint')", "check"),
        code("solution", "def solved():\n    return 42\n\n\nsolved()", "solution"),
        text("symptoms", "## From symptom to lesson\n\nSlow: [00](00_start_here.ipynb)."),
    ],
    TWO_QUESTIONS: [
        text("title", "# Never block\n\nA hook."),
        text("predict-prose", "## Predict\n\nTwo."),
        code("predict", BOTH),
        text("one-prose", "## One\n\nCovered."),
        code("one", "first.reveal(2)"),
        text("two-prose", "## Two\n\nCovered."),
        code("two", "second.reveal(0)"),
        text("last", "## Last\n\nNever covered."),
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the two lessons; ask for it before ``browser``, whose loop keeps nbclient out."""
    root = tmp_path_factory.mktemp("course")
    (root / "notebooks").mkdir()
    (root / "pyproject.toml").write_text('[project]\nname = "tiny"\n')
    (root / "README.md").write_text("# Async patterns\n\nRead.\n\n## Ways in\n")
    for name, cells in LESSONS.items():
        nbformat.write(new_notebook(cells=cells), root / "notebooks" / f"{name}.ipynb")
    refresh(Project(root), [], console=Console(file=io.StringIO()))
    build_site(Project(root), root / "site")
    return root / "site"


@pytest.fixture
def open_page(folder: Path, browser: Browser) -> Generator[OpenPage]:
    """Return a function that opens a lesson from its file; its errors fail the test."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def opened(name: str = LESSON, *, context: BrowserContext | None = None, at: str = "",
               **options: object) -> Page:  # fmt: skip
        if context is None:
            context = browser.new_context(**{"viewport": DESK, **options})  # ty: ignore
            contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda one: None if local(one.url) else errors.append(one.url))
        page.goto((folder / f"{name}.html").as_uri() + at)
        return page

    def local(url: str) -> bool:
        return url.startswith((folder.as_uri(), "data:", "blob:"))

    yield opened
    for context in contexts:
        context.close()
    assert errors == []


def heading(page: Page, name: str) -> Locator:
    return page.get_by_role("heading", name=name, include_hidden=True)


def choice(page: Page, value: str) -> Locator:
    """Return the text that the dial's run with ``value`` left, which comes after a badge."""
    return page.locator(f".course-choice[data-choice='{value}']").get_by_text(f"{value} at once")


def question(page: Page, name: str = "Predict: how long it takes?") -> Locator:
    return page.get_by_role("textbox", name=name)


def answer_rows(page: Page, place: int = 0) -> list[str]:
    """Return the rows of the table that answers a question, a text each."""
    rows = page.locator(".course-revealed").nth(place).locator("tbody tr")
    return [" ".join(words.split()) for words in rows.all_inner_texts()]


def test_what_follows_is_covered_until_the_reader_answers(open_page: OpenPage) -> None:
    page = open_page()
    covered = [heading(page, name) for name in ("The pattern", "Deeper down", "Compare")]
    covered.append(page.get_by_text("Covered, in the section of the question."))
    covered.append(page.get_by_text("57 ms"))
    for part in covered:
        assert not part.first.evaluate("one => one.checkVisibility({contentVisibilityAuto: true})")
    expect(heading(page, "Exercise")).to_be_visible()
    expect(page.get_by_text("up to “Compare”, opens with your answer")).to_be_visible()

    question(page).fill("100")
    question(page).press("Enter")
    for part in covered:
        assert part.first.evaluate("one => one.checkVisibility({contentVisibilityAuto: true})")
    expect(page.get_by_role("status").first).to_contain_text("You said 100 ms.")
    assert answer_rows(page) == [
        "you said 100 ms",
        "arithmetic says 50 ms",
        "measured 57 ms",
        "you were at 1.75 times the measurement",
    ]
    page.get_by_role("link", name="go to the measurement").click()
    expect(page.locator(".course-revealed")).to_be_in_viewport()


def is_covered(page: Page) -> bool:
    return page.locator(".course-covered").count() > 0


def test_a_reader_may_look_without_a_guess_and_be_asked_again(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_role("button", name="Show me").click()
    assert not is_covered(page)
    assert answer_rows(page)[0] == "you said nothing yet"
    expect(page.get_by_role("status").first).to_contain_text("Shown without a guess.")
    page.get_by_role("button", name="Ask me again").click()
    assert is_covered(page)
    expect(question(page)).to_be_focused()


def test_who_is_asked_again_and_again_is_listened_to_once(open_page: OpenPage) -> None:
    page = open_page()
    for _ in range(3):
        page.get_by_role("button", name="Show me").click()
        page.get_by_role("button", name="Ask me again").click()
    session = page.context.new_cdp_session(page)
    first = {"expression": "document.querySelector('.course-covered')"}
    covered = session.send("Runtime.evaluate", first)["result"]["objectId"]
    found = session.send("DOMDebugger.getEventListeners", {"objectId": covered})["listeners"]
    assert [one["type"] for one in found] == ["beforematch"]
    page.evaluate(
        "document.querySelector('.course-covered').dispatchEvent(new Event('beforematch'))"
    )
    assert not is_covered(page)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("100", "100 ms"), (" 99.5 ", "99.5 ms"), ("99,5", "99.5 ms"), ("1,500", "1,500 ms"),
        ("0,125", "0.125 ms"), ("100 ms", "100 ms"), ("1e3", "1,000 ms"), ("999.7", "1,000 ms"),
        ("2000", "2,000 ms, where 0 ms to 1,500 ms was asked for"),
    ],
)  # fmt: skip
def test_a_number_is_read_as_the_notebook_reads_it(
    open_page: OpenPage, typed: str, words: str
) -> None:
    page = open_page()
    question(page).fill(typed)
    question(page).press("Enter")
    assert answer_rows(page)[0] == f"you said {words}"


@pytest.mark.parametrize("typed", ["", "lots", "50-60", "nan", "Infinity", "0x10", "100 seconds"])
def test_what_is_no_number_uncovers_nothing_and_says_why(open_page: OpenPage, typed: str) -> None:
    page = open_page()
    question(page).fill(typed)
    question(page).press("Enter")
    assert is_covered(page)
    expect(page.get_by_role("status").first).to_contain_text("number, such as 750.")
    expect(question(page)).to_have_attribute("aria-invalid", "true")
    expect(question(page)).to_be_focused()


def test_a_guess_is_remembered_on_this_page_and_no_other(open_page: OpenPage) -> None:
    page = open_page()
    question(page).fill("100")
    question(page).press("Enter")
    again = open_page(context=page.context)
    assert not is_covered(again)
    assert answer_rows(again)[0] == "you said 100 ms"
    again.get_by_role("button", name="Ask me again").click()
    assert is_covered(open_page(context=page.context))
    assert is_covered(open_page(TWO_QUESTIONS, context=page.context))


def test_several_questions_open_together(open_page: OpenPage) -> None:
    page = open_page(TWO_QUESTIONS)
    question(page, "Predict: the first?").fill("3")
    question(page, "Predict: the first?").press("Enter")
    assert is_covered(page)
    expect(page.get_by_role("status").first).to_contain_text("Answer the other question, too.")
    expect(heading(page, "Last")).to_be_visible()
    question(page, "Predict: the second?").fill("4")
    question(page, "Predict: the second?").press("Enter")
    assert not is_covered(page)
    times = "you were at 1.50 times the measurement"
    assert answer_rows(page, 0) == ["you said 3", "measured 2", times]
    assert answer_rows(page, 1) == ["you said 4", "measured 0"]


def test_a_question_that_nothing_answers_covers_nothing(open_page: OpenPage) -> None:
    page = open_page(TWO_QUESTIONS)
    question(page, "Predict: what nothing answers?").fill("7")
    question(page, "Predict: what nothing answers?").press("Enter")
    expect(page.get_by_role("status").nth(2)).to_have_text("You said 7.")
    assert is_covered(page)


@pytest.mark.parametrize("way", ["typed", "linked"])
def test_a_link_to_a_covered_heading_uncovers_it(open_page: OpenPage, way: str) -> None:
    page = open_page(at="#deeper-down" if way == "typed" else "")
    if way == "linked":
        page.get_by_role("link", name="a later place").click()
    expect(heading(page, "Deeper down")).to_be_in_viewport()
    assert not is_covered(page)
    expect(page.get_by_role("status").first).to_contain_text("Shown without a guess.")


def test_the_keyboard_alone_answers_turns_and_opens(open_page: OpenPage) -> None:
    page = open_page()
    question(page).focus()
    page.keyboard.type("100")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="That is my guess")).to_be_focused()
    page.keyboard.press("Enter")
    assert not is_covered(page)

    page.get_by_role("radio", name="10", exact=True).focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="1000")).to_be_checked()
    expect(choice(page, "1000")).to_be_visible()

    solution = page.locator(".tag_solution details")
    solution.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("return 42")).to_be_visible()


def test_a_dial_moves_through_the_kept_results(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_role("button", name="Show me").click()
    group = page.get_by_role("group", name="branches")
    assert [one.input_value() for one in group.get_by_role("radio").all()] == ["1", "10", "1000"]
    expect(group.get_by_role("radio", name="10", exact=True)).to_be_checked()
    for chosen in ("1", "1000", "10"):
        group.get_by_role("radio", name=chosen, exact=True).check()
        for value in ("1", "10", "1000"):
            expect(choice(page, value)).to_be_visible(visible=value == chosen)
        said = page.locator(".course-dial > [role=status]")
        expect(said).to_have_text(f"The result for branches {chosen} is shown.")


def drawn(page: Page, within: str, *, at_least: float = 0) -> float:
    """Return how wide the picture to explore is drawn, once it is, and has found its width."""
    picture = page.locator(f"{within} .looplab-xray")
    expect(picture).to_have_attribute("data-state", "ready")
    for _ in range(100):
        canvas = picture.locator("canvas").last.bounding_box()
        if canvas is not None and canvas["width"] >= at_least:
            break
        page.wait_for_timeout(50)
    assert canvas is not None
    return canvas["width"]


def test_a_picture_can_be_explored_where_it_was_covered_and_under_each_choice(
    open_page: OpenPage,
) -> None:
    page = open_page()
    wide = drawn(page, ".bd-article section > .cell:not(.tag_dial)")
    assert wide > 300
    page.get_by_role("button", name="Show me").click()
    for chosen in ("10", "1", "1000"):
        page.get_by_role("radio", name=chosen, exact=True).check()
        within = f".course-choice[data-choice='{chosen}']"
        expect(page.locator(f"{within} .looplab-xray")).to_contain_text(f"{chosen} branches")
        assert drawn(page, within, at_least=0.8 * wide) >= 0.8 * wide


def test_without_scripts_the_still_picture_is_shown_and_has_words(open_page: OpenPage) -> None:
    page = open_page(java_script_enabled=False)
    pictures = page.locator(".looplab-xray img")
    assert pictures.count() == 4
    for picture in pictures.all():
        expect(picture).to_be_visible()
        expect(picture).to_have_attribute("alt", re.compile("A lane per task over time. "))


def test_the_top_of_a_page_says_what_works_there(open_page: OpenPage) -> None:
    live = open_page().locator(".course-live")
    expect(live).to_contain_text(
        "You can make a prediction, move a dial through 3 results, explore 4 pictures and open the "
        "hint and the solution of the exercise."
    )
    expect(live).to_contain_text("open the notebook: course open 00")


def test_hint_and_solution_are_folded_and_the_stub_is_not(open_page: OpenPage) -> None:
    page = open_page()
    expect(page.get_by_text("return 41")).to_be_visible()
    expect(page.get_by_text("return 42")).to_be_hidden()
    expect(page.get_by_text("So.", exact=True)).to_be_hidden()
    page.get_by_text("Hint", exact=True).click()
    expect(page.get_by_text("So.", exact=True)).to_be_visible()
    page.get_by_text("Show a solution").click()
    expect(page.get_by_text("return 42")).to_be_visible()
    expect(page.get_by_text("Hide the solution")).to_be_visible()
    fold = page.locator(".tag_solution summary")
    assert fold.get_attribute("aria-label") is None  # it would speak over what the fold says


def test_the_check_says_that_it_needs_the_notebook(open_page: OpenPage) -> None:
    check = open_page().locator(".tag_check")
    expect(check).to_contain_text("It is one short.")
    expect(check).to_contain_text("open the notebook with course open 00")


def test_without_scripts_everything_is_there_to_read(open_page: OpenPage) -> None:
    page = open_page(java_script_enabled=False)
    asked = page.get_by_text("Your prediction, please: how long it takes (0 to 1500 ms)")
    expect(asked).to_be_visible()
    expect(heading(page, "The pattern")).to_be_visible()
    for words in ("57 ms", "branches: 1000"):
        expect(page.get_by_text(words, exact=True).first).to_be_visible()
    for value in ("1", "10", "1000"):
        expect(choice(page, value)).to_be_visible()
    assert answer_rows(page)[0] == "you said nothing yet"


def test_on_paper_everything_is_there(open_page: OpenPage) -> None:
    page = open_page()
    page.emulate_media(media="print")
    parts = [choice(page, value) for value in ("1", "10", "1000")]
    parts += [page.get_by_text(words, exact=True).first for words in ("57 ms", "branches: 1000")]
    for part in [*parts, heading(page, "The pattern")]:
        assert part.evaluate("one => one.checkVisibility({contentVisibilityAuto: true})")
        assert part.bounding_box() is not None
    for words in ("return 42", "So."):
        inside = page.get_by_text(words).first.bounding_box()
        assert inside is not None, words
        assert inside["height"] > 0, words
    expect(page.get_by_role("button", name="Show me")).to_be_hidden()


AT_REST = "Promise.allSettled(document.getAnimations().map(one => one.finished))"


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("typed", [None, "lots", "5"], ids=["asked", "wrong", "answered"])
def test_nobody_is_kept_out(open_page: OpenPage, typed: str | None, colours: str) -> None:
    page = open_page(color_scheme=colours)
    if typed is not None:
        question(page).fill(typed)
        question(page).press("Enter")
        page.get_by_text("Hint", exact=True).click()
        page.get_by_text("Show a solution").click()
    page.evaluate(AT_REST)  # what fades in has no contrast yet
    found = [
        f"{rule['id']}: {node['html'][:200]}"
        for rule in Axe().run(page).response["violations"]
        for node in rule["nodes"]
        if rule["impact"] in ("serious", "critical")
    ]
    assert found == []


@pytest.mark.parametrize("name", [LESSON, TWO_QUESTIONS])
def test_on_a_phone_no_page_scrolls_sideways(open_page: OpenPage, name: str) -> None:
    page = open_page(name, viewport=PHONE)
    page.get_by_role("button", name="Show me").first.click()
    for turned in page.get_by_role("radio").all():
        turned.check()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_a_server_may_serve_it(folder: Path, browser: Browser) -> None:
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/{LESSON}.html")
        question(page).fill("100")
        question(page).press("Enter")
        assert answer_rows(page)[0] == "you said 100 ms"
        page.close()
        server.shutdown()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass
