"""Predictions: the page asks, and what was measured is covered until the reader has answered.

The page's script makes the form, and finds what to cover between the question and the table that
answers it. Without it the question is a sentence, and the table says what was measured.
"""

import html
import json
from typing import Any

from nbformat import NotebookNode

from looplab.kept import PREDICTION, REVEALED
from looplab.publishing.saved import outputs


def ask(notebook: NotebookNode) -> int:
    """Make the questions and answers in the outputs of ``notebook`` such as the script looks for.

    Returns how many predictions the page asks for.
    """
    asked = 0
    for _, output in outputs(notebook):
        data = output.get("data", {})
        if question := data.pop(PREDICTION, None):
            asked += 1
            words = f"<p>{html.escape(data['text/plain'])}</p>"
            data["text/html"] = _marked("course-prediction", question, words)
        if answer := data.pop(REVEALED, None):
            data["text/html"] = _marked("course-revealed", answer, data["text/html"])
    return asked


def _marked(kind: str, told: dict[str, Any], inside: str) -> str:
    values = html.escape(json.dumps(told), quote=True)
    return f'<div class="{kind}" data-told="{values}">{inside}</div>'
