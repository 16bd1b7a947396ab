"""Each house rule passes a sound lesson and names what breaks it."""

from collections.abc import Callable
from typing import Any

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from looplab.project import Lesson
from looplab.publishing.draft import Draft, exercise_minutes, minutes
from looplab.publishing.rules import RULES, structure_faults
from looplab.publishing.rules.cells import LIMITS
from looplab.publishing.rules.outline import title_and_hook
from looplab.publishing.rules.slides import cell_height, slide_show

Change = Callable[[Draft], Any]


def cell(draft: Draft, identity: str) -> NotebookNode:
    return next(cell for cell in draft.cells if cell["id"] == identity)


def source(identity: str, old: str, new: str) -> Change:
    def change(draft: Draft) -> None:
        assert old in cell(draft, identity)["source"]
        cell(draft, identity)["source"] = cell(draft, identity)["source"].replace(old, new)

    return change


def metadata(identity: str, **values: Any) -> Change:
    return lambda draft: cell(draft, identity)["metadata"].update(values)


def without(*identities: str) -> Change:
    def change(draft: Draft) -> None:
        draft.cells[:] = [cell for cell in draft.cells if cell["id"] not in identities]

    return change


def swapped(one: str, other: str) -> Change:
    def change(draft: Draft) -> None:
        places = [draft.cells.index(cell(draft, identity)) for identity in (one, other)]
        first, second = places
        draft.cells[first], draft.cells[second] = draft.cells[second], draft.cells[first]

    return change


def picture(
    draft: Draft, *, alt: str, markup: str = "", words: str = "Six waits end to end."
) -> None:
    data = {"image/png": "iVBORw0KGgo="} | ({"text/html": markup} if markup else {})
    outputs = [new_output("display_data", data=data, metadata={"image/png": {"alt": alt}})]
    if words:
        outputs.append(new_output("display_data", data={"text/plain": words}))
    cell(draft, "run-one-by-one")["outputs"] = outputs


def inserted(identity: str, cells: list[NotebookNode], slide_type: str) -> Change:
    """Return a change that puts ``cells`` behind the cell called ``identity``."""

    def change(draft: Draft) -> None:
        place = draft.cells.index(cell(draft, identity)) + 1
        for one in cells:
            one["metadata"]["slideshow"] = {"slide_type": slide_type}
        draft.cells[place:place] = cells

    return change


def copies_of(identity: str, count: int) -> Change:
    extras = [new_code_cell("extra = 1", id=f"extra-{number}") for number in range(count)]
    return inserted(identity, extras, slide_type="-")


def notes_after(identity: str, count: int) -> Change:
    text = "*Presenting?* Point at it."
    notes = [new_markdown_cell(text, id=f"presenting-{number}") for number in range(count)]
    return inserted(identity, notes, slide_type="notes")


def test_a_sound_lesson_breaks_no_rule(draft: Draft) -> None:
    assert structure_faults(draft) == []
    assert (minutes(draft), exercise_minutes(draft)) == (30, 15)


def test_a_sound_second_helping_breaks_no_rule(deeper: Draft) -> None:
    assert structure_faults(deeper) == []


CARD = "```python\nawait asyncio.gather(user, orders)\n```"
BROKEN: list[tuple[str, Change, str]] = [
    ("title_and_hook", source("title", "# Fetch", "# Fetching"), "must be a verb phrase"),
    (
        "title_and_hook",
        source("title", "*Six questions, one wait.*", "Six questions."),
        "hook in ital",
    ),
    ("title_and_hook", source("title", "From the card", "On the card"), "From the card: ..."),
    ("title_and_hook", source("title", CARD, ""), "must show the card's own snippet"),
    ("title_and_hook", source("title", "# Fetch", "Fetch"), "must hold the level-1 heading"),
    ("title_and_hook", source("take-away", "## Take", "# Again\n## Take"), "one level-1 heading"),
    ("skeleton", source("predict-title", "## Predict", "### Predict"), "'## Predict' is missing"),
    (
        "skeleton",
        source("one-session", "What breaks:", "What breaks"),
        "'## What breaks: ...' is miss",
    ),
    ("skeleton", swapped("one-session", "practice-title"), "the sections stand as"),
    ("skeleton", without("all-at-once"), "between '## Predict' and '## Compare'"),
    ("skeleton", without("one-by-one"), "between '## Set-up' and '## Predict'"),
    (
        "skeleton",
        source("take-away", "## Take away", "## Take away\n## More"),
        "the last section must",
    ),
    ("opening", source("you-will-see", "- another", "- a\n- b\n- c"), "has 4 bullets"),
    (
        "opening",
        source("you-will-see", "**You will be able to**", "See"),
        "must begin with **You will be able to**",
    ),
    ("opening", source("you-will-see", "30 minutes", "half an hour"), "must state the time"),
    ("opening", source("you-will-see", ", and 15 for", " with"), "'NN for the exercise'"),
    ("opening", source("you-will-see", "|---|---|", ""), "prerequisites as a table"),
    (
        "opening",
        source("you-will-see", "(01_blocking.ipynb)", "(https://x.org)"),
        "must link to a les",
    ),
    ("set_up", metadata("set-up", tags=[]), "the first code cell, and no other"),
    ("set_up", metadata("run-select", tags=["setup"]), "the first code cell, and no other"),
    ("set_up", source("set-up", "start()", "begin()"), "must call start()"),
    ("set_up", metadata("set-up", jupyter={}), "set-up is the set-up; set jupyter.source_hidden"),
    ("prediction", source("predict-gather", "predict(", "print("), "calls predict"),
    ("prediction", source("reveal-guess", "guess.reveal(fast)", "fast"), "calls its reveal"),
    (
        "breaks",
        without("claim-one-session"),
        "'## What breaks: two branches, one session' claims noth",
    ),
    ("exercise", swapped("check-page", "solve-page"), "must stand in this order"),
    ("exercise", source("exercise-title", "Hint:", "Advice:"), "gives no hint"),
    ("exercise", metadata("solve-page", jupyter={}), "solve-page is a solution"),
    (
        "take_away",
        source("take-away", "(https://docs.python.org", "(#Predict"),
        "primary documentation",
    ),
    (
        "take_away",
        source("nothing-left", "nothing_left_behind()", "shop.aclose()"),
        "last code cell",
    ),
    (
        "known_tags",
        metadata("run-select", tags=["raises-exception"]),
        "unknown tags: raises-exception",
    ),
    ("known_tags", without("check-page"), "no code cell has the tag check"),
    ("known_tags", metadata("claim-one-session", tags=[]), "lacks the tag claim"),
    ("known_tags", metadata("run-select", tags=["dial"]), "run-select must have the tag dial if"),
    ("known_tags", metadata("run-select", tags=["claim"]), "claims nothing"),
    (
        "identities",
        lambda draft: cell(draft, "run-select").update(id="8f14e45f"),
        "'8f14e45f' must",
    ),
    (
        "identities",
        lambda draft: cell(draft, "run-select").update(id="Run_select"),
        "'Run_select' must",
    ),
    ("identities", lambda draft: cell(draft, "run-select").update(id="12"), "'12' must"),
    ("slides", metadata("run-select", slideshow={}), "slide_type is None"),
    ("slides", metadata("run-select", slideshow={"slide_type": "page"}), "slide_type is 'page'"),
    ("slides", metadata("title", slideshow={"slide_type": "-"}), "must be 'slide'"),
    (
        "slides",
        metadata("practice-title", slideshow={"slide_type": "notes"}),
        "practice-title: a speaker's note must be prose that begins with '*Presenting?* '",
    ),
    ("slides", metadata("set-up", slideshow={"slide_type": "skip"}), "needs the set-up too"),
    ("slides", notes_after("practice-title", 3), "there are 3 speaker's notes; at most 2 are"),
    (
        "slide_heights",
        source("run-select", "one = 1", "\n".join(["one = 1"] * 40)),
        "the slide of practice-title, run-select is",
    ),
    (
        "sizes",
        copies_of("run-select", LIMITS.cells[1] - 22),
        f"there are {LIMITS.cells[1] + 1} cells",
    ),
    (
        "sizes",
        without("turn-the-dial", "run-select", "run-one-by-one", "check-page"),
        "are 19 cells",
    ),
    (
        "sizes",
        source("run-select", "one = 1", "one = 1\n" * 16),
        "has 16 lines of code; at most 15",
    ),
    (
        "sizes",
        source("solve-page", "page = 1", "page = 1\n" * (LIMITS.folded_lines + 1)),
        f"has {LIMITS.folded_lines + 1} lines of code; at most",
    ),
    ("sizes", source("run-select", "one = 1", " "), "is an empty code cell"),
    ("sizes", source("run-select", "one = 1", "one = " + "1" * 75), "a line of 81 characters"),
    (
        "sizes",
        source("one-by-one", "Each", f"```python\n{'x' * 81}\n```\nEach"),
        "a line of 81 charact",
    ),
    ("sizes", source("one-by-one", "Each", "word " * 1800), "words of prose"),
    (
        "prose_first",
        source("one-by-one", "\nEach waits its turn.", ""),
        "run-one-by-one has no prose",
    ),
    ("written", source("one-by-one", "Each waits", "TODO: each waits"), "still says TODO"),
    ("wording", source("one-by-one", "Each waits", "Each just waits"), "one-by-one says 'just'"),
    ("wording", source("one-by-one", "Each waits", "Simply, each waits"), "says 'Simply'"),
    ("wording", source("take-away", "[Again]", "[here]"), "a link called 'here'"),
    (
        "wording",
        source("one-by-one", "Each", "![](01_blocking.ipynb) Each"),
        "without alternative text",
    ),
    ("relative_links", source("take-away", "#Predict", "03_keep.ipynb"), "there is no such file"),
    ("relative_links", source("take-away", "#Predict", "#predict"), "no heading is called so"),
    (
        "relative_links",
        source("take-away", "#Predict", "../README.md"),
        "outside the lessons' folder",
    ),
    (
        "relative_links",
        source("take-away", "[Again]", '<a href="gone.png">x</a>[Again]'),
        "gone.png",
    ),
    ("pictures", lambda draft: picture(draft, alt=""), "a picture without alternative text"),
    (
        "pictures",
        lambda draft: picture(draft, alt="x", markup="<img src='y'>"),
        "HTML picture without",
    ),
    ("pictures", lambda draft: picture(draft, alt="x", words=""), "without a summary in words"),
    ("plain_python", source("run-select", "one = 1", "%timeit one"), "is not plain Python"),
]


BROKEN_DEEPER: list[tuple[str, Change, str]] = [
    ("title_and_hook", source("title", ", deeper", ""), "must be its lesson's, with ', deeper'"),
    ("opening", source("title", "02_gather", "01_blocking"), "must link to the lesson, 02_gather"),
    ("known_tags", metadata("fill-pool", tags=["predict"]), "has no cell tagged predict"),
    ("known_tags", without("claim-select"), "no code cell has the tag claim"),
    ("skeleton", source("sources", "## Sources", "## More"), "'## Sources' is missing"),
    ("take_away", source("sources", "(https://", "(#"), "'## Sources' must link to primary"),
    ("sizes", source("fill-pool", "held", "held = 1\n" * 15 + "held"), "has 16 lines of code"),
    (
        "sections_stand_alone",
        source("fill-pool", "= shop", "= select([shop])"),
        "fill-pool needs 'select' of another section",
    ),
]


def told_by(rule: str, draft: Draft) -> list[str]:
    (broken,) = [function for function in RULES if function.__name__ == rule]
    return list(broken(Draft(draft.lesson, draft.notebook)))


def test_a_lesson_beyond_the_card_says_who_asks_for_it(draft: Draft) -> None:
    beyond = Draft(Lesson(draft.lesson.path.with_name("14_gather.ipynb")), draft.notebook)
    title = beyond.notebook.cells[0]
    title.source = title.source.partition("From the card")[0]
    assert [fault for fault in title_and_hook(beyond) if "cell" in fault] == [
        "the first cell must have a line 'From practice: ...' that says who asks for this"
    ]
    title.source += "From practice: a page that asks for six things."
    assert list(title_and_hook(beyond)) == []


@pytest.mark.parametrize(("rule", "change", "fault"), BROKEN)
def test_a_broken_rule_is_named(draft: Draft, rule: str, change: Change, fault: str) -> None:
    change(draft)
    told = told_by(rule, draft)
    assert any(fault in line for line in told), told


@pytest.mark.parametrize(("rule", "change", "fault"), BROKEN_DEEPER)
def test_a_second_helpings_broken_rule_is_named(
    deeper: Draft, rule: str, change: Change, fault: str
) -> None:
    change(deeper)
    told = told_by(rule, deeper)
    assert any(fault in line for line in told), told


def test_a_lesson_leads_to_its_second_helping(draft: Draft, deeper: Draft) -> None:
    assert told_by("take_away", draft) == [
        "'## Take away' must link to the second helping, 02_gather_deeper.ipynb"
    ]
    source("take-away", "[Again](#Predict)", "[More](02_gather_deeper.ipynb)")(draft)
    assert told_by("take_away", draft) == []


def test_every_rule_is_shown_to_catch_something() -> None:
    shown = {rule for rule, _, _ in (*BROKEN, *BROKEN_DEEPER)}
    assert {rule.__name__ for rule in RULES} == shown


def test_the_middle_of_the_code_cells_is_bounded(draft: Draft) -> None:
    for code in draft.code:
        code["source"] = "\n".join(["x = 1"] * 7)
    assert any("the median code cell has 7 lines" in line for line in structure_faults(draft))


def test_a_slide_counts_what_it_shows_and_not_what_is_skipped(draft: Draft) -> None:
    slide = next(one for one in slide_show(draft) if one.cells[0]["id"] == "set-up-title")
    assert [one["id"] for one in slide.cells] == ["set-up-title", "set-up"]
    assert slide.height == sum(cell_height(one) for one in slide.cells) > 0

    cell(draft, "set-up")["metadata"]["slideshow"]["slide_type"] = "skip"
    slide = next(one for one in slide_show(draft) if one.cells[0]["id"] == "set-up-title")
    assert [one["id"] for one in slide.cells] == ["set-up-title"]


def test_top_level_await_is_plain_python(draft: Draft) -> None:
    cell(draft, "run-select")["source"] = "async with shop:\n    one = await shop.one()"
    assert structure_faults(draft) == []


def test_a_picture_with_words_passes(draft: Draft) -> None:
    picture(draft, alt="One lane", markup='<img alt="One lane" src="data:image/png;base64,aa">')
    assert structure_faults(draft) == []


def test_lesson_00_needs_no_break_and_nothing_to_ship_but_a_map(draft: Draft) -> None:
    sections = "\n".join(
        f"## {title}\nWords."
        for title in ("Map of the course", "From symptom to lesson", "Syllabi")
    )
    take_away = draft.cells.index(cell(draft, "take-away"))
    draft.cells.insert(take_away, cell(draft, "practice-title"))
    del draft.cells[draft.cells.index(cell(draft, "practice-title"))]
    cell(draft, "practice-title")["source"] = sections
    without("one-session", "claim-one-session", "run-select", "title")(draft)
    cell(draft, "run-one-by-one").update(source='claim("x", True)')
    metadata("run-one-by-one", tags=["claim"])(draft)
    start = Draft(Lesson(draft.lesson.path.with_name("00_start_here.ipynb")), draft.notebook)
    skeleton = {rule.__name__: list(rule(start)) for rule in RULES}
    assert skeleton["skeleton"] == skeleton["known_tags"] == skeleton["breaks"] == []
    without("practice-title")(draft)
    told = structure_faults(Draft(start.lesson, draft.notebook))
    assert "the section '## Map of the course' is missing" in told
