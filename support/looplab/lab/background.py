"""Let a client in this process have its answer before the app's background tasks are done."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any

ASGIApp = Callable[..., Awaitable[None]]

SERVER_ERROR = 500  # this and what is above it


class AnswersFirst:
    """An ASGI app whose call returns as soon as the answer is complete, and not when ``app`` does.

    httpx's ASGITransport returns a response when the app's call returns, so this is all it takes.
    What ``app`` still does then, such as background tasks, goes on in its own task; only after an
    answer of 5xx it is awaited, since Starlette sends that before it raises the error. Leaving
    ``async with AnswersFirst(app) as answering`` awaits all of it and, with ``raise_errors``,
    raises what it raised: one error as it is, several as an ExceptionGroup. Where the block itself
    fails, its error is raised alone.
    """

    def __init__(self, app: ASGIApp, *, raise_errors: bool = True) -> None:
        self._app = app
        self._raise_errors = raise_errors
        self._tasks: list[asyncio.Task[None]] = []

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Callable, send: Callable
    ) -> None:
        answered = failed = False
        news = asyncio.Event()

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal answered, failed
            await send(message)
            if message["type"] == "http.response.start":
                failed = message["status"] >= SERVER_ERROR
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                answered = not failed
                news.set()

        async def call() -> None:
            try:
                await self._app(scope, receive, noted)
            finally:
                news.set()

        task = asyncio.create_task(call(), name=f"{scope['method']} {scope['path']}")
        try:
            await news.wait()
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        if answered:
            self._tasks.append(task)
        else:
            await task

    async def __aenter__(self) -> "AnswersFirst":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if error is None and self._raise_errors and errors:
            raise errors[0] if len(errors) == 1 else ExceptionGroup("background tasks", errors)
