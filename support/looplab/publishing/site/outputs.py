"""Saved outputs as HTML."""

import html
from collections.abc import Mapping
from typing import Any

from looplab.lab.display import PICTURE_WIDTH, picture_markup


def markup_of(output: Mapping[str, Any]) -> str:
    """Return what ``output`` shows, as HTML; its picture has its words as alternative text."""
    data = output.get("data", {})
    if "image/png" in data:
        return _picture(data, output.get("metadata", {}).get("image/png", {}))
    if "text/html" in data:
        return data["text/html"]
    text = data.get("text/plain", output.get("text", ""))
    return f"<pre>{html.escape(text)}</pre>"


def _picture(data: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    encoded = "".join(data["image/png"].split())
    words, width = str(told.get("alt", "")), told.get("width", PICTURE_WIDTH)
    return picture_markup(encoded, words, width)
