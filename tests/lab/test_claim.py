import gc
from typing import Any

import pytest

from looplab.lab import display
from looplab.lab.claim import ClaimFailed, claim
from looplab.lab.errors import LessonError


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    bundles: list[dict[str, str]] = []
    monkeypatch.setattr(display, "display", lambda bundle, **_: bundles.append(bundle))
    return bundles


def test_a_claim_that_holds_is_shown_with_a_tick_and_its_figures(
    shown: list[dict[str, str]],
) -> None:
    claim("Six at once", True, peak=6, ratio=5.8312, took=1234.5, who="ada")
    (bundle,) = shown
    assert bundle["text/plain"] == "✓ Six at once (peak = 6, ratio = 5.83, took = 1,234, who = ada)"
    assert 'aria-label="Holds"' in bundle["text/html"]


def test_a_claim_without_figures_has_no_brackets(shown: list[dict[str, str]]) -> None:
    claim("Six at once", True)
    assert shown[0]["text/plain"] == "✓ Six at once"


def test_a_claim_that_does_not_hold_raises_with_the_figures(shown: list[dict[str, str]]) -> None:
    with pytest.raises(ClaimFailed, match=r"does not bear out: Six at once \(peak = 1\)"):
        claim("Six at once", False, peak=1)
    assert shown == []


def test_a_failed_claim_is_an_assertion_and_one_sentence_in_a_notebook() -> None:
    failed = ClaimFailed("this run does not bear out: x")
    assert isinstance(failed, AssertionError)
    assert isinstance(failed, LessonError)
    assert failed._render_traceback_() == ["ClaimFailed: this run does not bear out: x"]


@pytest.mark.parametrize("wrong", [1, 0, None, [True], "yes"])
def test_what_is_neither_true_nor_false_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="it must be True or False"):
        claim("Six at once", wrong)


def test_a_forgotten_await_is_refused_and_nothing_is_left_unawaited() -> None:
    async def holds() -> bool:
        return True

    wrong: Any = holds()
    with pytest.raises(TypeError, match=r"coroutine.*it must be True or False"):
        claim("Six at once", wrong)
    del wrong
    gc.collect()


@pytest.mark.parametrize("empty", ["", "  "])
def test_a_claim_says_something(empty: str) -> None:
    with pytest.raises(ValueError, match="it must say what is claimed"):
        claim(empty, True)


def test_figures_are_text_not_markup(shown: list[dict[str, str]]) -> None:
    claim("a < b", True, tag="<b>")
    assert "a &lt; b (tag = &lt;b&gt;)" in shown[0]["text/html"]
