"""The report of an app's x-ray as a page of HTML, and as what the json module can write."""

import html
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from looplab.lab.explorer import explorable
from looplab.lab.own_app import AppReport, HeldAt, Reply
from looplab.lab.places import shown_file
from looplab.lab.stacks import SourceLine
from looplab.lab.telling import times_of

WAITS_SHOWN = 40
"""Rows of the table of waits; the JSON has all."""
TOLD_FROM = 0.1
"""A smaller share of a hold is not told in the table."""
SCHEMA = 1
"""Goes up when a field changes its meaning or is gone."""

STYLE = """
.xray-report{color-scheme:light;font:15px/1.5 system-ui,sans-serif;color:#1c2733;background:#fff}
.xray-report h1{font-size:1.5em;margin:.2em 0}
.xray-report h2{font-size:1.15em;margin:1.6em 0 .4em}
.xray-report p{margin:.4em 0;max-width:46em}
.xray-report .xray-scroll{overflow-x:auto}
.xray-report table{border-collapse:collapse;font-size:.93em}
.xray-report caption{text-align:left;color:#54616f;padding:.2em 0}
.xray-report th,.xray-report td{padding:.25em .9em .25em 0;border-bottom:1px solid #e3e8ee;
text-align:left;vertical-align:top}
.xray-report .n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.xray-report code{font:.93em ui-monospace,monospace;overflow-wrap:anywhere}
.xray-report .held{color:#a92a41;font-weight:600}
.xray-report .quiet{color:#54616f}
"""


def page(report: AppReport) -> str:
    """Return a whole page; it loads nothing, from nowhere."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>X-ray: {html.escape(report.title)}</title>"
        "<style>body{margin:0 auto;padding:1em 1.5em 3em;max-width:72em;background:#fff}</style>"
        f"</head><body><main>{fragment(report)}</main></body></html>\n"
    )


def fragment(report: AppReport) -> str:
    """Return the report as a part of a page, with its own style."""
    parts = [
        f"<h1>X-ray: {html.escape(report.title)}</h1>",
        *(f"<p>{sentence}</p>" for sentence in map(html.escape, summary(report))),
        _picture(report),
        _answers(report),
        _holds(report),
        _waits(report),
        _peaks(report),
        _left_behind(report),
        _versions(report),
    ]
    return f'<style>{STYLE}</style><div class="xray-report">{"".join(parts)}</div>'


def summary(report: AppReport) -> list[str]:
    """Return what was found in a few sentences: the answers, the holds, and what was left."""
    replies = report.replies
    slowest = max(reply.seconds for reply in replies)
    statuses = Counter(reply.status for reply in replies if reply.status)
    answered = sum(statuses.values())
    told = ", ".join(f"{number} × {status}" for status, number in sorted(statuses.items()))
    sentences = [
        f"{_count(len(replies), 'request')}, {answered} answered"
        + (f" ({told})" if told else "")
        + f", the slowest after {milliseconds(slowest)}."
    ]
    sentences += [f"{failure}." for failure in failures(report)]
    limit = milliseconds(report.recording.held)
    if report.holds:
        longest = max(report.holds, key=lambda hold: hold.duration)
        where = f", at {where_of(longest)}" if longest.place else ""
        sentences.append(
            f"The loop was held {times_of(len(report.holds))} for {limit} or more, "
            f"{milliseconds(longest.duration)} at the longest, by {longest.name}{where}."
        )
    else:
        sentences.append(f"Nothing held the loop for {limit} or more.")
    if report.left_behind:
        first, *others = report.left_behind
        verb = "were left behind, the first of them" if others else "was left behind"
        things = _count(len(report.left_behind), "thing")
        sentences.append(f"After the shutdown {things} {verb}: {first}.")
    if not report.stopped:
        sentences.append("The server's thread did not stop: a call in the app blocks it.")
    return sentences


def failures(report: AppReport) -> list[str]:
    """Return a clause for each kind of request that failed, such as ``GET /x: 404 (2 of 2)``."""
    every = Counter(reply.name for reply in report.replies)
    kinds = Counter((reply.name, reply.error or str(reply.status)) for reply in report.failed)
    return [
        f"{name}: {what}" + (f" ({number} of {every[name]})" if every[name] > 1 else "")
        for (name, what), number in kinds.items()
    ]


def where_of(hold: HeldAt) -> str:
    """Return file, line and function of a hold, or "" where they were not seen."""
    return "" if hold.place is None else _line(hold.place)


def milliseconds(seconds: float) -> str:
    """Return a time such as ``4.2 ms``, ``106 ms`` or ``12.3 s``."""
    if seconds >= 10:
        return f"{seconds:.1f} s"
    return f"{1000 * seconds:,.0f} ms" if seconds >= 0.0095 else f"{1000 * seconds:.2g} ms"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _line(place: SourceLine) -> str:
    return f"{shown_file(place.file)}:{place.line} in {place.function}"


# ---------------------------------------------------------------- the parts of the page


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{html.escape(heading)}</h2>{body}</section>"


def _table(caption: str, headers: Sequence[str], rows: Iterable[Sequence[str]], texts: int) -> str:
    """Return a table whose first ``texts`` columns are words, the others figures, cells HTML."""
    kinds = ["" if place < texts else ' class="n"' for place in range(len(headers))]
    head = "".join(
        f'<th scope="col"{kind}>{html.escape(text)}</th>'
        for text, kind in zip(headers, kinds, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for row in rows
    )
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="xray-scroll"><table>{title}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _picture(report: AppReport) -> str:
    return _section("Picture", explorable(report.recording))


def _answers(report: AppReport) -> str:
    kinds: dict[tuple[str, str], list[Reply]] = {}
    for reply in report.replies:
        kinds.setdefault((reply.name, reply.error or str(reply.status)), []).append(reply)
    rows = []
    for (name, what), replies in kinds.items():
        times = [reply.seconds for reply in replies]
        bad = "" if replies[0].ok else ' class="held"'
        rows.append(
            (
                f"<code>{html.escape(name)}</code>",
                f"<span{bad}>{html.escape(what)}</span>",
                f"{len(replies):,}",
                *map(milliseconds, (min(times), median(times), max(times))),
            )
        )
    table = _table("", ("Request", "Answer", "Times", "Fastest", "Median", "Slowest"), rows, 2)
    raised = "".join(f"<li><code>{html.escape(error)}</code></li>" for error in report.errors)
    return _section(
        "Requests", table + (f"<p>The app raised meanwhile:</p><ul>{raised}</ul>" if raised else "")
    )


def _holds(report: AppReport) -> str:
    limit = milliseconds(report.recording.held)
    if not report.holds:
        return _section("Holds", f"<p>No step took {limit} or more.</p>")
    kinds: dict[tuple[str, SourceLine | None], list[HeldAt]] = {}
    for hold in report.holds:
        kinds.setdefault((hold.name, hold.place), []).append(hold)
    rows = []
    for (name, place), holds in sorted(
        kinds.items(), key=lambda item: -max(hold.duration for hold in item[1])
    ):
        lengths = [hold.duration for hold in holds]
        rows.append(
            (
                f"<code>{html.escape(name)}</code>",
                _where(place, holds[0]),
                f"{len(holds):,}",
                milliseconds(sum(lengths)),
                f'<span class="held">{milliseconds(max(lengths))}</span>',
            )
        )
    caption = f"Steps that took {limit} or more: until each ended, nothing else could run."
    headers = ("Held by", "Where it mostly stood", "Times", "Total", "Longest")
    return _section("Holds", _table(caption, headers, rows, 2))


def _where(place: SourceLine | None, hold: HeldAt) -> str:
    if place is None:
        return '<span class="quiet">not seen: a call in C, or the machine was busy</span>'
    lines = [f"<code>{html.escape(_line(place))}</code>"]
    if hold.others:
        lines[0] += f' <span class="quiet">{hold.share:.0%} of the time</span>'
    if place.source:
        lines.append(f"<code>{html.escape(place.source)}</code>")
    if hold.inside is not None and hold.inside != place:
        lines.append(f'<span class="quiet">in {html.escape(_line(hold.inside))}</span>')
    lines += [
        f'<span class="quiet">called from {html.escape(_line(caller))}</span>'
        for caller in reversed(hold.callers)
    ]
    lines += [
        f'<span class="quiet">and {share:.0%} {html.escape(_line(other))}</span>'
        for other, share in hold.others
        if share >= TOLD_FROM
    ]
    return "<br>".join(lines)


def _waits(report: AppReport) -> str:
    shown = report.waits[:WAITS_SHOWN]
    if not shown:
        return _section("Waits", "<p>No task waited.</p>")
    rows = [
        (
            f"<code>{html.escape(one.name)}</code>"
            if one.name != one.lane
            else '<span class="quiet">in no function of yours</span>',
            f"<code>{html.escape(one.lane)}</code>",
            f"{one.count:,}",
            milliseconds(one.total),
            milliseconds(one.longest),
        )
        for one in shown
    ]
    rest = len(report.waits) - len(shown)
    caption = "By the innermost function of yours that a task was suspended in." + (
        f" {rest} more are in the JSON." if rest else ""
    )
    headers = ("Waiting in", "For", "Times", "Total", "Longest")
    return _section("Waits", _table(caption, headers, rows, 2))


def _peaks(report: AppReport) -> str:
    names = ", ".join(
        f"{name} × {number}" if number > 1 else name
        for name, number in sorted(report.thread_names.items())
    )
    rows = [
        ("Connections from clients", "", f"{report.peak_clients:,}"),
        ("Connections that the app opened to others", "", f"{report.peak_connections:,}"),
        ("Threads besides the loop's", html.escape(names), f"{report.peak_threads:,}"),
    ]
    return _section("At peak", _table("", ("What", "Which", "At once"), rows, 2))


def _left_behind(report: AppReport) -> str:
    if not report.left_behind:
        return _section(
            "Left behind", "<p>Nothing: no task, thread, connection, file or process.</p>"
        )
    items = "".join(f"<li>{html.escape(one)}</li>" for one in report.left_behind)
    return _section("Left behind", f"<p>Still there after the shutdown:</p><ul>{items}</ul>")


def _versions(report: AppReport) -> str:
    told = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return f'<p class="quiet">{html.escape(told)}</p>'


# ---------------------------------------------------------------- for programs


def as_json(report: AppReport) -> dict[str, Any]:
    """Return what the json module can write; every time is in milliseconds."""
    recording = report.recording
    return {
        "schema": SCHEMA,
        "title": report.title,
        "held_ms": _ms(recording.held),
        "duration_ms": _ms(recording.duration),
        "longest_hold_ms": _ms(report.longest_hold),
        "requests": [
            {
                "name": reply.name,
                "status": reply.status or None,
                "error": reply.error or None,
                "began_ms": _ms(reply.began),
                "duration_ms": _ms(reply.seconds),
            }
            for reply in report.replies
        ],
        "holds": [
            {
                "name": hold.name,
                "began_ms": _ms(hold.began),
                "duration_ms": _ms(hold.duration),
                "place": _place(hold.place),
                "callers": [_place(caller) for caller in hold.callers],
                "inside": _place(hold.inside),
                "share": round(hold.share, 3),
                "others": [
                    {"place": _place(other), "share": round(share, 3)}
                    for other, share in hold.others
                ],
            }
            for hold in report.holds
        ],
        "waits": [
            {
                "name": one.name,
                "lane": one.lane,
                "count": one.count,
                "total_ms": _ms(one.total),
                "longest_ms": _ms(one.longest),
            }
            for one in report.waits
        ],
        "peak_clients": report.peak_clients,
        "peak_connections": report.peak_connections,
        "peak_threads": report.peak_threads,
        "thread_names": dict(report.thread_names),
        "left_behind": list(report.left_behind),
        "errors": list(report.errors),
        "stopped": report.stopped,
        "versions": dict(report.versions),
    }


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


def _place(place: SourceLine | None) -> dict[str, Any] | None:
    if place is None:
        return None
    return {
        "file": shown_file(place.file),
        "line": place.line,
        "function": place.function,
        "source": place.source,
    }
