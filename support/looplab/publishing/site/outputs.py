"""Saved outputs as HTML."""

import html
from collections.abc import Mapping
from typing import Any

from looplab.lab.display import PICTURE_WIDTH, picture_markup
from looplab.lab.explorer import MIME as RECORDING
from looplab.lab.explorer import fragment_of


def markup_of(output: Mapping[str, Any]) -> str:
    """Return what ``output`` shows, as HTML; a picture has its words as alternative text.

    A picture whose recording is there can be explored, once the page has the explorer's script.
    """
    data = output.get("data", {})
    if "image/png" in data:
        return _picture(data, output.get("metadata", {}).get("image/png", {}))
    if "text/html" in data:
        return data["text/html"]
    text = data.get("text/plain", output.get("text", ""))
    return f"<pre>{html.escape(text)}</pre>"


def can_be_explored(output: Mapping[str, Any]) -> bool:
    """Return whether ``output`` is a picture whose recording is there."""
    return "image/png" in output.get("data", {}) and RECORDING in output["data"]


def _picture(data: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    encoded = "".join(data["image/png"].split())
    words, width = str(told.get("alt", "")), told.get("width", PICTURE_WIDTH)
    still = picture_markup(encoded, words, width)
    if RECORDING not in data:
        return still
    return fragment_of(data[RECORDING], still=still, assets=False)
