"""What `course xray` does: an app's x-ray from a shell, a page of it, and an exit status."""

import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looplab.lab.clients import ServerDidNotStart
from looplab.lab.errors import LessonError
from looplab.lab.our_code import places_of
from looplab.lab.own_app import (
    WITHOUT_BODY,
    AppNotLoaded,
    AppReport,
    Ask,
    load_app,
    one_line,
    xray_app,
)

NOTHING, HOLD, BAD_USE, NOT_ANSWERED = 0, 1, 2, 3
"""Exit statuses: no hold; a hold; what was typed can't be done; the app did not start or answer."""
INTERRUPTED = 130
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY"})
LEFT_TO_END = 1.0
"""Seconds that processes which the app has left get to end by themselves."""


class BadUse(Exception):
    """What was typed can't be done; said in a sentence."""


@dataclass(frozen=True, slots=True)
class Order:
    """What was typed."""

    app: str
    requests: Sequence[str]
    app_dir: Path
    factory: bool
    body: str | None
    json_body: str | None
    headers: Sequence[str]
    at_once: int
    times: int | None
    within: float
    held: float
    """Milliseconds."""
    ours: Sequence[str]
    warm_up: bool
    any_status: bool
    page: Path
    json: str | None


def xray(order: Order, say: Callable[[str], object], tell: Callable[[str], object]) -> int:
    """X-ray an app, write what is asked for and return the exit status.

    Args:
        order: what was typed.
        say: prints a line of the outcome.
        tell: prints a sentence on what has gone wrong.

    What the app prints goes to stderr, so that stdout has nothing but the outcome.
    """
    if order.json == "-":
        say = tell
    try:
        with contextlib.redirect_stdout(sys.stderr):
            asks = asks_of(order)
            _check_targets(order)
            app = load_app(order.app, app_dir=order.app_dir, factory=order.factory)
            report = asyncio.run(_run(app, asks, order))
    except (BadUse, AppNotLoaded) as problem:
        tell(str(problem))
        return BAD_USE
    except ServerDidNotStart as problem:
        tell(f"The app did not start: {_reason(problem)}")
        return NOT_ANSWERED
    except KeyboardInterrupt:
        tell("Interrupted; the app was stopped.")
        return INTERRUPTED
    except LessonError as problem:
        tell(str(problem))
        return NOT_ANSWERED
    _write(order, report)
    from looplab.lab.app_page import summary

    for sentence in summary(report):
        say(sentence)
    say(f"The page is {order.page}.")
    return status_of(report, any_status=order.any_status)


def status_of(report: AppReport, *, any_status: bool = False) -> int:
    """Return the exit status that a report comes to; a hold outweighs a request that failed."""
    if report.holds:
        return HOLD
    failed = [reply for reply in report.failed if not (any_status and reply.status)]
    return NOT_ANSWERED if failed or not report.stopped else NOTHING


def end(status: int) -> None:
    """End this process with ``status``, with whatever the app has left in it.

    Processes that it has left are ended too. Returns only where nothing keeps the process from
    ending by itself.
    """
    _end_children()
    sys.stdout.flush()
    sys.stderr.flush()
    if threading.active_count() > 1:  # Python waits for a pool's threads, even daemonic ones
        os._exit(status)


def _end_children() -> None:
    import psutil

    children = psutil.Process().children(recursive=True)
    _, alive = psutil.wait_procs(children, timeout=LEFT_TO_END if children else 0)
    for child in alive:
        with contextlib.suppress(psutil.Error):
            child.kill()
    psutil.wait_procs(alive, timeout=LEFT_TO_END)


async def _run(app: Any, asks: list[Ask], order: Order) -> AppReport:
    return await xray_app(
        app,
        asks,
        at_once=order.at_once,
        times=order.times,
        within=order.within,
        held=order.held / 1000,
        ours=_ours(order),
        warm_up=order.warm_up,
    )


def _ours(order: Order) -> list[str]:
    """Return the packages that count as the app's own: those that were named, or the module's."""
    if order.ours:
        for name in order.ours:
            try:
                places_of(name)
            except ValueError as problem:
                raise BadUse(f"--ours is {name!r}: {problem}.") from None
        return list(order.ours)
    top = order.app.partition(":")[0].partition(".")[0]
    try:
        places_of(top)
    except ValueError:  # it has no file of its own, so its code is nobody's
        return []
    return [top]


def _reason(problem: ServerDidNotStart) -> str:
    cause = problem.__cause__
    if cause is not None and not isinstance(cause, SystemExit):
        return f"{one_line(cause)}."
    return str(problem).removeprefix("The server did not start: ")


# ---------------------------------------------------------------- what was typed


def asks_of(order: Order) -> list[Ask]:
    """Return the requests that were typed: each a path, a method before it unless that is GET.

    Raises BadUse when one is written otherwise, or a body has no request to go with.
    """
    headers = dict(_header(text) for text in order.headers)
    if order.body is not None and order.json_body is not None:
        raise BadUse("--body and --json-body are both given; a request has one body.")
    body: dict[str, Any] = {}
    if order.body is not None:
        body = {"content": _content(order.body)}
    elif order.json_body is not None:
        body = {"content": _content(order.json_body)}
        try:
            json.loads(body["content"])
        except ValueError as problem:
            raise BadUse(f"--json-body is no JSON: {problem}.") from None
        headers.setdefault("content-type", "application/json")
    asks = []
    for method, path in _pairs(order.requests):
        asks.append(Ask(method, path, headers=headers, **({} if method in WITHOUT_BODY else body)))
    if body and all(ask.method in WITHOUT_BODY for ask in asks):
        raise BadUse("There is a body, but no request that has one, such as POST /orders.")
    return asks


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    method = ""
    for word in words:
        if word.startswith("/"):
            pairs.append((method or "GET", word))
            method = ""
        elif method or word.upper() not in METHODS:
            raise BadUse(
                f"{word!r} is neither a path, which begins with /, nor a method before one; "
                "requests are written as GET /orders POST /orders."
            )
        else:
            method = word.upper()
    if method:
        raise BadUse(f"{method} stands last; a path has to follow it, as in {method} /orders.")
    return pairs or [("GET", "/")]


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or not value.isprintable():
        raise BadUse(f"--header is {text!r}; write it as 'Name: value'.")
    return name.strip().lower(), value.strip()


def _content(text: str) -> str | bytes:
    """Return a body, that of a file where ``@FILE`` names one, as curl has it."""
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_bytes()
    except OSError as problem:
        raise BadUse(f"The body {text} can't be read: {problem.strerror}.") from None


def _check_targets(order: Order) -> None:
    """Raise BadUse, before anything runs, where what is asked for can't be written."""
    for path in (order.page, *([Path(order.json)] if order.json not in (None, "-") else [])):
        folder = path.parent
        if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            raise BadUse(f"{path} can't be written: give a file in a folder that is there.")


def _write(order: Order, report: AppReport) -> None:
    order.page.write_text(report.page(), encoding="utf-8")
    if order.json is not None:
        text = json.dumps(report.as_json(), indent=2, ensure_ascii=False)
        if order.json == "-":
            print(text)  # noqa: T201
        else:
            Path(order.json).write_text(f"{text}\n", encoding="utf-8")
