"""Tell an x-ray of the requests that an app answers, and when each answer had been sent."""

from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any

from looplab.lab.lane_names import request_in
from looplab.lab.trace import TaskTrace, traces_of_current_task

ASGIApp = Callable[..., Awaitable[None]]
Message = MutableMapping[str, Any]


def announced(app: ASGIApp) -> ASGIApp:
    """Return an ASGI app that answers as ``app`` does and tells the x-ray of the current task.

    The moment of the answer is when the server or client has taken the response's last message.
    Without an x-ray, ``app`` is called as it is.
    """

    async def announcing(scope: Message, receive: Callable, send: Callable) -> None:
        traces = traces_of_current_task()
        if traces:
            request = request_in(scope)
            traces = [trace for trace in traces if _takes(trace, request)]
        if not traces:
            await app(scope, receive, send)
            return

        async def timed(message: Message) -> None:
            await send(message)
            if _is_last(message):
                answered = perf_counter()
                for trace in traces:
                    trace.answered = answered

        for trace in traces:
            trace.answering = True
        try:
            await app(scope, receive, timed)
        finally:
            for trace in traces:
                trace.answering = False

    return announcing


def _takes(trace: TaskTrace, request: str) -> bool:
    """Return whether the task of ``trace`` is there for ``request``, and for no other.

    A library's task that nobody made or named for something else is: it takes the request's name.
    """
    if not request or trace.answering:  # an app may ask another one meanwhile
        return False
    if trace.library and trace.parent is None:
        trace.request = request
    return trace.request == request


def _is_last(message: Message) -> bool:
    kind = message["type"]
    if kind == "http.response.body":
        return not message.get("more_body", False)
    return kind == "http.response.pathsend"
