import asyncio
import base64
import io
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from looplab.lab import display
from looplab.lab.display import collected, show_note, show_picture, show_table, show_widget


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, str], dict[str, Any]]]:
    calls: list[tuple[dict[str, str], dict[str, Any]]] = []
    monkeypatch.setattr(display, "display", lambda bundle, **rest: calls.append((bundle, rest)))
    return calls


@pytest.mark.parametrize(
    ("kind", "plain", "meaning"),
    [
        ("tick", "✓ so", "Holds"),
        ("cross", "✗ so", "Fails"),
        ("info", "i so", "Note"),
        ("hint", "→ so", "Hint"),
    ],
)
def test_a_note_has_a_mark_that_screen_readers_can_say(
    shown: list, kind: Any, plain: str, meaning: str
) -> None:
    show_note("so", kind=kind)
    ((bundle, _),) = shown
    assert bundle["text/plain"] == plain
    assert f'aria-label="{meaning}"' in bundle["text/html"]


def test_a_note_is_text_not_markup(shown: list) -> None:
    show_note("<script>\nnext", kind="info")
    assert "&lt;script&gt;<br>next" in shown[0][0]["text/html"]


def test_a_note_of_another_kind_is_refused() -> None:
    wrong: Any = "warning"
    with pytest.raises(ValueError, match="kind is 'warning'; it must be one of tick, cross"):
        show_note("so", kind=wrong)


def test_a_table_in_words_is_aligned(shown: list) -> None:
    show_table(["", "median"], [["one by one", "300 ms"], ["gather", "50 ms"]], caption="Times")
    assert shown[0][0]["text/plain"].splitlines() == [
        "Times",
        "            median",
        "one by one  300 ms",
        "gather       50 ms",
    ]


def test_a_table_in_html_has_headings_for_rows_and_columns(shown: list) -> None:
    show_table(["what", "took"], [["a & b", "1 ms"]], caption="Times")
    markup = shown[0][0]["text/html"]
    assert markup.count('scope="col"') == 2
    assert markup.count('scope="row"') == 1
    assert "a &amp; b" in markup
    assert "<caption" in markup


def test_a_table_without_rows_or_caption(shown: list) -> None:
    show_table(["what", "took"], [])
    assert shown[0][0]["text/plain"] == "what  took"
    assert "<caption" not in shown[0][0]["text/html"]


def test_a_ragged_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"row \['a'\] has 1 cells; 2 are needed"):
        show_table(["what", "took"], [["a"]])


def figure() -> Figure:
    made = Figure(figsize=(7.6, 2), dpi=100)
    made.add_subplot().plot([1, 2, 3])
    return made


def test_a_picture_is_shown_at_twice_its_size_with_words(shown: list) -> None:
    show_picture(figure(), alt='A line that "rises"', summary="It rises.")
    (bundle, rest), (words, _) = shown
    assert rest == {"metadata": {"image/png": {"width": 760, "alt": 'A line that "rises"'}}}
    with Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))) as image:
        assert image.size == (1520, 400)
    assert 'alt="A line that &quot;rises&quot;"' in bundle["text/html"]
    assert 'width="760"' in bundle["text/html"]
    assert bundle["image/png"] in bundle["text/html"]
    assert bundle["text/plain"] == 'A line that "rises"'
    assert words["text/plain"] == "It rises."
    assert "<em>It rises.</em>" in words["text/html"]


@pytest.mark.parametrize("missing", ["alt", "summary"])
def test_a_picture_needs_words(missing: str) -> None:
    words: dict[str, Any] = {"alt": "x", "summary": "x", missing: " "}
    with pytest.raises(ValueError, match=f"{missing} is ' '; a picture needs words"):
        show_picture(figure(), **words)


def test_a_picture_needs_a_width() -> None:
    with pytest.raises(ValueError, match="width is 0; it must be above 0, in pixels"):
        show_picture(figure(), alt="x", summary="x", width=0)


async def _shows_in_turn(name: str, own: asyncio.Event, other: asyncio.Event) -> list[str]:
    with collected() as outputs:
        show_note(f"{name} 1", kind="info")
        other.set()
        await own.wait()
        show_note(f"{name} 2", kind="info")
        return [output["data"]["text/plain"] for output in outputs]


@pytest.mark.anyio
async def test_what_a_task_shows_is_collected_for_it_alone(shown: list) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    lists = await asyncio.gather(
        _shows_in_turn("a", first, second), _shows_in_turn("b", second, first)
    )
    assert lists == [["i a 1", "i a 2"], ["i b 1", "i b 2"]]
    assert shown == []
    show_note("after", kind="info")
    assert len(shown) == 1


def test_collected_outputs_are_those_of_a_notebook(shown: list) -> None:
    with collected() as outputs:
        show_picture(figure(), alt="a line", summary="It rises.")
    picture, words = outputs
    assert picture["output_type"] == words["output_type"] == "display_data"
    assert picture["metadata"] == {"image/png": {"width": 760, "alt": "a line"}}
    assert shown == []


def test_a_widget_is_shown_with_words_for_those_who_have_none_and_is_collected(
    shown: list,
) -> None:
    widget = SimpleNamespace(model_id="7")
    show_widget(widget, "A box.", data={"application/x": {}})
    ((bundle, _),) = shown
    assert bundle["text/plain"] == "A box."
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == "7"
    assert bundle["application/x"] == {}
    with collected() as outputs:
        show_widget(widget, "Another box.")
    assert [output["data"]["text/plain"] for output in outputs] == ["Another box."]
    assert len(shown) == 1
