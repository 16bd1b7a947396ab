"""The picture as HTML: a figure with its data, the still picture, and the script that draws."""

import html
import json
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

from looplab.lab.explorer.data import Data, data_of
from looplab.lab.explorer.saving import packed
from looplab.lab.recording import Recording

WITHOUT_SCRIPT = "This picture can be zoomed and read bar by bar where scripts may run."


def explorable(
    recording: Recording,
    against: Recording | Sequence[Recording] | None = None,
    *,
    title: str = "",
) -> str:
    """Return an HTML fragment in which a reader explores ``recording``.

    Args:
        recording: what to show.
        against: recordings to show above it, on the same time axis.
        title: the heading, instead of the recording's own.

    Returns:
        A ``<div>`` and a ``<script>``. They need no network, and there may be several in one
        page. Where no script runs, the picture in words is shown.

    Raises:
        TypeError: ``recording`` or ``against`` holds something that is no recording.
    """
    others = () if against is None else against
    above = [others] if isinstance(others, Recording) else list(others)
    data = data_of(*above, recording)
    if title:
        data["panels"][-1]["title"] = title
    return fragment_of(data)


def fragment_of(data: Data, *, still: str = "", assets: bool = True) -> str:
    """Return the HTML fragment that shows ``data``.

    Args:
        data: what :func:`data_of` returns, or what a notebook saved of it: see :func:`kept`.
        still: HTML that is shown where no script runs, and on paper; the picture in words if empty.
        assets: whether the script comes with it. A page of several pictures has :func:`script`
            once instead.

    Raises:
        ValueError: ``data`` is neither.
    """
    saved = data if "packed" in data else packed(data)
    if "packed" not in data and "panels" not in data:
        raise ValueError(f"data has {sorted(data)}; it must be what data_of() or kept() returns")
    words = still or _in_words(data)
    code = f"<script>{script()}</script>" if assets else ""
    return (
        f'<div class="looplab-xray" data-recording="{html.escape(saved["packed"], quote=True)}" '
        'data-lm-suppress-shortcuts="true" style="margin:0">'
        f'<div class="looplab-still" slot="still">{words}</div></div>{code}'
    )


def _in_words(data: Data) -> str:
    said = [panel["said"] for panel in data.get("panels", [])]
    return "".join(f"<p>{html.escape(one)}</p>" for one in [*said, WITHOUT_SCRIPT])


@lru_cache(maxsize=1)
def script() -> str:
    """Return the script that draws all pictures of its page, styles included."""
    style, code = (_without_indentation(name) for name in ("explorer.css", "explorer.js"))
    return f"((style) => {{\n{code}\n}})({json.dumps(style)});".replace("</", "<\\/")


def _without_indentation(name: str) -> str:
    """Return the lines of a file of this package without what only helps to read it."""
    text = (files("looplab.lab.explorer") / name).read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))
