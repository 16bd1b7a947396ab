"""Markdown is read as a reader sees it: what stands in code is code."""

from looplab.publishing import markdown
from looplab.publishing.draft import linked_lessons
from looplab.publishing.markdown import Link

CODE = "`[b](y.ipynb)`\n\n```python\n# no heading\n[c](z.ipynb)\n```\n"


def test_links_and_pictures_are_read_outside_code_only() -> None:
    text = (
        f"[a `x`](x.ipynb) {CODE}\n<a href='https://w.org'>w</a> ![alt](p.png)\n\n<img src='q.png'>"
    )
    assert markdown.links(text) == [
        Link("x.ipynb", "a x"),
        Link("p.png", "alt", picture=True),
        Link("https://w.org", ""),
        Link("q.png", "", picture=True),
    ]


def test_a_link_to_a_notebook_names_its_lesson() -> None:
    text = "[a](notebooks/02_gather.ipynb#Predict) [b](https://x.org/y.ipynb) [c](README.md)"
    assert linked_lessons(text) == ["02_gather"]


def test_headings_are_read_by_level_and_not_in_code() -> None:
    text = f"# One `call`\n\n{CODE}\n## Two\ntext\n\n### Three ###\n"
    assert markdown.headings(text) == ["One `call`", "Two", "Three"]
    assert markdown.headings(text, 2) == ["Two"]


def test_prose_has_no_code_no_comments_and_no_targets() -> None:
    text = (
        "You wait. `just` <!-- simply --> <b>Look</b> at [it](just.md).\n"
        "```python\njust()\n```\n<!-- just\n\nsimply -->\n\nDone.\n\n"
        "| a | b |\n|---|---|\n| c | d |\n"
    )
    assert markdown.prose(text).split() == [
        *("You", "wait.", "Look", "at", "it.", "Done."),
        *("a", "b", "c", "d"),
    ]
    assert markdown.prose(text, tables=False).split()[-1] == "Done."


def test_prose_after_a_heading_is_told_from_prose_before_it() -> None:
    assert markdown.prose_after_last_heading("Words.\n\n## Title\n\n`code`\n") == ""
    assert markdown.prose_after_last_heading("Words.\n\n## Title\nMore.") == "More."
    assert markdown.prose_after_last_heading("Words.") == "Words."


def test_code_lines_are_those_of_blocks() -> None:
    assert markdown.code_lines(f"text `code`\n{CODE}\n\n    indented") == [
        "# no heading",
        "[c](z.ipynb)",
        "indented",
    ]


def test_bullets_are_counted_and_numbers_are_not() -> None:
    assert markdown.bullets("- a\n  - b\n\n* c\n\n1. d\n") == 3


def test_tables_are_seen_in_markdown_and_in_html() -> None:
    assert markdown.has_table("| a |\n|---|\n| b |")
    assert markdown.has_table("<table><tr><td>a</td></tr></table>")
    assert not markdown.has_table("```\n| a |\n|---|\n```\na | b")


def test_blocks_come_with_the_rows_that_a_reader_sees() -> None:
    text = (
        "## Title\nA [link](x.md) and\nmore.\n\n- one\n- `two`\n\n"
        "| a | b |\n|---|---|\n| c | d |\n\n```\nx\ny\n```\n"
    )
    assert [(one.kind, one.lines, one.level) for one in markdown.blocks(text)] == [
        ("heading_open", ("Title",), 2),
        ("paragraph_open", ("A link and more.",), 0),
        ("bullet_list_open", ("one", "two"), 0),
        ("table_open", ("a b", "c d"), 0),
        ("fence", ("x", "y"), 0),
    ]
