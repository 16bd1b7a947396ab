"""An app's lifespan: whether it has one of its own, and what a run of it has come to."""

import contextlib
import inspect
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any
from weakref import WeakValueDictionary

ASGIApp = Callable[..., Awaitable[None]]

# Whose router says by its type that an app has brought no lifespan: it starts and stops nothing.
_ROUTERS = (("starlette.routing", "Router"), ("fastapi", "APIRouter"))

AGAIN = (
    "This app's lifespan has run and ended before, and not every app can start again: what it "
    "closed then is closed still. Build a new app for each run, best in a function."
)

_ended: WeakValueDictionary[int, Any] = WeakValueDictionary()  # by id: routers have no hash


def has_lifespan(app: object) -> bool | None:
    """Return whether ``app`` has a lifespan of its own; None where that can't be told.

    It can be told of FastAPI and Starlette apps, and through layers of middleware around them that
    keep what they wrap as ``.app``. Of any other app nothing is known before it has run.
    """
    router = _innermost(app)
    context = getattr(router, "lifespan_context", None)
    if context is None:
        return None
    handlers = getattr(router, "on_startup", None) or getattr(router, "on_shutdown", None)
    return bool(handlers) or not _does_nothing(context)


def _innermost(app: object) -> object:
    """Return the router of the app inside all layers of middleware, or the last layer known."""
    seen: set[int] = set()
    while id(app) not in seen:
        seen.add(id(app))
        if hasattr(app, "lifespan_context"):
            return app
        app = getattr(app, "router", None) or getattr(app, "app", None) or app
    return app


def _no_lifespans() -> tuple[type, ...]:
    """Return what FastAPI and Starlette give an app without a lifespan, where they are in use.

    Neither is imported for this: an app of another framework may have neither beside it.
    """
    routers = (getattr(sys.modules.get(module), name, None) for module, name in _ROUTERS)
    return tuple(_default_lifespan(router) for router in routers if router is not None)


@lru_cache
def _default_lifespan(router: Callable[[], Any]) -> type:
    return type(router().lifespan_context)


def _does_nothing(context: object) -> bool:
    if isinstance(context, _no_lifespans()):
        return True
    # include_router() merges two lifespans into a function that closes over both of them.
    merged = inspect.unwrap(context) if inspect.isfunction(context) else None
    parts = inspect.getclosurevars(merged).nonlocals.values() if merged else ()
    return bool(parts) and all(map(_does_nothing, parts))


class LifespanRun:
    """An ASGI app that hands on to ``app`` and notes how its lifespan fares in this one run.

    ``started`` says whether the app has told that its startup is complete; ``failure`` is what it
    has raised instead of ending, if it has; ``again`` whether an earlier run has ended before this
    one began, in which case what the app raises carries a note that says so. ``refusal`` is what
    the app has said when it told that its startup had failed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.started = False
        self.failure: BaseException | None = None
        self.refusal = ""
        self._router = _innermost(app)
        self.again = _ended.get(id(self._router)) is self._router

    @property
    def hint(self) -> str:
        """A sentence on what a second run may lack, led by a space; empty in a first run."""
        return f" {AGAIN}" if self.again else ""

    @property
    def refused(self) -> bool:
        """Whether the app has failed to start though it is known to have a lifespan.

        The specification lets an app without a lifespan raise whatever it likes here.
        Source: https://asgi.readthedocs.io/en/latest/specs/lifespan.html
        """
        known = self.again or has_lifespan(self.app) is True
        return self.failure is not None and not self.started and known

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Callable, send: Callable
    ) -> None:
        try:
            if scope["type"] == "lifespan":
                await self._run(scope, receive, send)
            else:
                await self.app(scope, receive, send)
        except Exception as error:
            if self.again and AGAIN not in getattr(error, "__notes__", ()):
                error.add_note(AGAIN)
            raise

    async def _run(
        self, scope: MutableMapping[str, Any], receive: Callable, send: Callable
    ) -> None:
        async def told(message: MutableMapping[str, Any]) -> None:
            self.started = self.started or message["type"] == "lifespan.startup.complete"
            if message["type"] == "lifespan.startup.failed":
                self.refusal = str(message.get("message", "")).strip()
            await send(message)

        try:
            await self.app(scope, receive, told)
        except BaseException as error:
            self.failure = error
            raise
        finally:
            if self.started and has_lifespan(self.app) is not False:
                with contextlib.suppress(TypeError):  # no weak reference can be had to some
                    _ended[id(self._router)] = self._router
