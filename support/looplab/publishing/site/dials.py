"""Dials: each choice's result, one shown at a time by the page's script, all of them without it."""

import html
from collections.abc import Iterator
from typing import Any

from nbformat import NotebookNode

from looplab.kept import CHOICES
from looplab.publishing.saved import outputs
from looplab.publishing.site.outputs import markup_of


def with_choices(notebook: NotebookNode) -> Iterator[NotebookNode]:
    """Yield each output of ``notebook``, and those that its dials' other choices left."""
    for _, output in outputs(notebook):
        yield output
        for result in output.get("data", {}).get(CHOICES, {}).get("results", []):
            yield from result


def lay_out(notebook: NotebookNode) -> list[int]:
    """Put each dial's kept results in place of its first one; return how many each dial has."""
    counts = []
    for cell in notebook["cells"]:
        laid_out: list[NotebookNode] = []
        for output in cell.get("outputs", []):
            told = output.get("data", {}).pop(CHOICES, None)
            if told:
                counts.append(len(told["choices"]))
                first = len(laid_out) - told["shown"]
                results = list(told["results"])
                results[told["start"]] = laid_out[first:]
                del laid_out[first:]
                output["data"] = {"text/html": _dial(told, results)}
            laid_out.append(output)
        if "outputs" in cell:
            cell["outputs"] = laid_out
    return counts


def _dial(told: dict[str, Any], results: list[list[Any]]) -> str:
    name = html.escape(told["name"], quote=True)
    parts = []
    for place, (choice, result) in enumerate(zip(told["choices"], results, strict=True)):
        started = " data-start" if place == told["start"] else ""
        text = html.escape(choice, quote=True)
        inside = "\n".join(f"<div>{markup_of(output)}</div>" for output in result)
        parts.append(
            f'<div class="course-choice" data-choice="{text}"{started}>'
            f'<p class="course-choice-name">{name}: {text}</p>{inside}</div>'
        )
    return f'<div class="course-dial" data-name="{name}">{"".join(parts)}</div>'
