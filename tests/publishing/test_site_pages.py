"""How saved outputs are laid out for a page, before Sphinx sees them."""

import html
import json
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

from looplab.kept import CHOICES, PREDICTION, REVEALED
from looplab.publishing.site.dials import lay_out, with_choices
from looplab.publishing.site.outputs import can_be_explored, markup_of
from looplab.publishing.site.predictions import ask

PIXEL = "iVBORw0KGgo="
QUESTION = {"question": 'is "a" < b', "between": [0.0, 1.0], "unit": "ms"}


def shown(markup: str, **data: Any) -> NotebookNode:
    return new_output("display_data", data={"text/html": markup, "text/plain": markup, **data})


def dial(name: str, *, start: int, count: int) -> NotebookNode:
    """The output of a dial with choices 1 and 2, whose first run left ``count`` outputs."""
    results = [[{"data": {"text/html": f"<b>{name} {one}</b>"}, "metadata": {}}] for one in "12"]
    results[start] = []
    told = {"name": name, "choices": ["1", "2"], "start": start, "shown": count}
    return shown("A dial", **{CHOICES: told | {"results": results}})


def notebook(*outputs: NotebookNode) -> NotebookNode:
    return new_notebook(cells=[new_code_cell("1", outputs=list(outputs))])


def test_what_the_first_run_showed_is_one_of_the_results_and_stands_nowhere_else() -> None:
    made = notebook(shown("before"), shown("one"), shown("two"), dial("n", start=1, count=2))
    assert lay_out(made) == [2]
    before, laid_out = made["cells"][0]["outputs"]
    assert before["data"]["text/html"] == "before"
    markup = laid_out["data"]["text/html"]
    first, second = markup.split('data-choice="2"')
    assert "<b>n 1</b>" in first
    assert "data-start" not in first
    assert second.startswith(" data-start>")
    assert "<div>one</div>\n<div>two</div>" in second


def test_two_dials_of_one_cell_keep_apart() -> None:
    made = notebook(
        shown("x"), dial("m", start=0, count=1), shown("y"), dial("n", start=0, count=1)
    )
    assert lay_out(made) == [2, 2]
    first, second = (one["data"]["text/html"] for one in made["cells"][0]["outputs"])
    assert ("x</div>" in first, "y</div>" in first) == (True, False)
    assert ("x</div>" in second, "y</div>" in second) == (False, True)


def test_a_dial_whose_first_run_showed_nothing_takes_nothing() -> None:
    made = notebook(shown("before"), dial("n", start=0, count=0))
    assert lay_out(made) == [2]
    assert [one["data"]["text/html"][:6] for one in made["cells"][0]["outputs"]] == [
        "before",
        "<div c",
    ]


def test_names_and_choices_are_text_not_markup() -> None:
    made = notebook(dial('<i> & "n"', start=0, count=0))
    lay_out(made)
    markup = made["cells"][0]["outputs"][0]["data"]["text/html"]
    assert 'data-name="&lt;i&gt; &amp; &quot;n&quot;"' in markup


def test_outputs_of_other_choices_count_as_outputs() -> None:
    made = notebook(shown("before"), dial("n", start=0, count=1))
    assert len(list(with_choices(made))) == 3


def test_a_question_and_its_answer_carry_their_values_as_text() -> None:
    answer = QUESTION | {"measured": 0.5}
    made = notebook(
        shown("Your prediction, please: a < b", **{PREDICTION: QUESTION}),
        shown("<table></table>", **{REVEALED: answer}),
    )
    assert ask(made) == 1
    asked, answered = (one["data"]["text/html"] for one in made["cells"][0]["outputs"])
    assert asked.endswith("<p>Your prediction, please: a &lt; b</p></div>")
    assert answered.endswith("<table></table></div>")
    for markup, values in ((asked, QUESTION), (answered, answer)):
        told = markup.partition('data-told="')[2].partition('"')[0]
        assert json.loads(html.unescape(told)) == values


def test_a_saved_output_is_shown_by_the_best_of_its_forms() -> None:
    told = {"image/png": {"alt": 'six "waits"', "width": 40}}
    picture = {"data": {"image/png": f"{PIXEL}\n", "text/plain": "words"}, "metadata": told}
    assert f'alt="six &quot;waits&quot;" width="40" src="data:image/png;base64,{PIXEL}"' in (
        markup_of(picture)
    )
    assert not can_be_explored(picture)
    assert markup_of({"data": {"text/plain": "a < b"}}) == "<pre>a &lt; b</pre>"
    assert markup_of({"output_type": "stream", "text": "a < b"}) == "<pre>a &lt; b</pre>"
    assert markup_of(shown("<i>x</i>")) == "<i>x</i>"
