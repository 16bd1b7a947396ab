"""What a lane is called: after the request that its task answers or sends, or its thread's work.

A task that a server or a client library makes runs that library's code: ``run_asgi`` or ``get``.
Its arguments say what for, so they are read as the task is made. ASGI hands a request over as a
mapping, the *scope*, with its type, method and path:
https://asgi.readthedocs.io/en/latest/specs/www.html#http-connection-scope
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from types import CodeType, CoroutineType, FunctionType, GeneratorType, MethodType
from typing import Any
from urllib.parse import unquote, urlsplit

import anyio.to_process
import anyio.to_thread

from looplab.lab.our_code import short_name

METHODS = frozenset({"get", "post", "put", "patch", "delete", "head", "options"})

ELSEWHERE: dict[CodeType, str] = {
    asyncio.to_thread.__code__: "thread",
    anyio.to_thread.run_sync.__code__: "thread",
    anyio.to_process.run_sync.__code__: "process",
}
"""Coroutines that wait for a function to be run elsewhere: their code, and where it is run."""

_ID = re.compile(r"\d+|[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_REQUEST = re.compile(r"[A-Z]+ /.*")


@lru_cache(maxsize=1024)
def without_ids(path: str) -> str:
    """Return ``path`` without its query and the ids at its end; ids within it become ``…``.

    An id is a number, a UUID, or one without hyphens: ``/users/7/orders/9`` is ``/users/…/orders``.
    """
    segments = path.partition("?")[0].strip("/").split("/")
    while segments and _ID.fullmatch(segments[-1]):
        segments.pop()
    return "/" + "/".join("…" if _ID.fullmatch(part) else part for part in segments)


def request_in(scope: Any) -> str:
    """Return ``GET /path`` or ``WS /path`` for the scope of a request, and "" for anything else."""
    if not isinstance(scope, dict):
        return ""
    kind, path = scope.get("type"), scope.get("path")
    if kind not in ("http", "websocket") or not isinstance(path, str):
        return ""
    return f"{scope.get('method', 'GET') if kind == 'http' else 'WS'} {without_ids(path)}"


def is_request(name: str) -> bool:
    """Return whether ``name`` is a method and a path, as the lab's ``get`` names its coroutine."""
    return _REQUEST.fullmatch(name) is not None


def is_elsewhere(name: str) -> bool:
    """Return whether ``name`` is that of a wait for a thread or a process, by :func:`work_of`."""
    return name.partition(":")[0] in set(ELSEWHERE.values())


def request_of(coroutine: Any) -> tuple[str, str]:
    """Return the request that a library's coroutine stands for, and the middleware it runs in.

    Both are empty where there is none. The coroutine must not have ended. A request is told by

    - an ASGI scope among its arguments, or in the ``scope`` of what it is a method of, as in
      uvicorn's ``RequestResponseCycle.run_asgi``: a server's task;
    - an ASGI scope in the function around it: the task in which a middleware, Starlette's
      ``BaseHTTPMiddleware`` for one, runs the rest of the app;
    - its name and a URL, or a request that has both: a call of httpx's ``AsyncClient`` and its kin.
    """
    if not isinstance(coroutine, CoroutineType) or coroutine.cr_frame is None:
        return "", ""
    names = coroutine.cr_frame.f_locals
    owner = names.get("self")
    within = request_in(names.get("scope"))
    if within and "scope" in coroutine.cr_code.co_freevars:
        return within, _middleware(owner)
    answered = within or request_in(_attribute(owner, "scope"))
    return answered or _sent(coroutine.__name__, owner, names), ""


def _attribute(owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name, None)
    except Exception:  # a property of somebody else's that fails
        return None


def _middleware(layer: Any) -> str:
    """Return what a reader calls a layer: its class, or the function given to the base class."""
    dispatch = _attribute(layer, "dispatch_func")
    if isinstance(dispatch, FunctionType):
        return short_name(dispatch.__qualname__)
    return "" if layer is None else type(layer).__name__


def _sent(name: str, client: Any, names: Mapping[str, Any]) -> str:
    """Return the request that a client's method called ``name`` sends, or "" if it does none."""
    request = names.get("request")
    if request is not None:
        method, url, base = _attribute(request, "method"), _attribute(request, "url"), None
    else:
        method = name if name in METHODS else names.get("method")
        url, base = names.get("url"), _attribute(client, "base_url")
    if not isinstance(method, str) or not method.isalpha() or url is None:
        return ""
    path = _path(str(url), "" if base is None else str(base))
    return path and f"{method.upper()} {path}"


@lru_cache(maxsize=1024)
def _path(url: str, base_url: str) -> str:
    """Return the path of ``url``, which begins below ``base_url`` unless it is a whole address.

    Without ids; "" for what the client will refuse.
    """
    try:
        parts = urlsplit(url)
        before = "" if parts.scheme else urlsplit(base_url).path
    except ValueError:
        return ""
    return without_ids(unquote(f"{before.rstrip('/')}/{parts.path.lstrip('/')}"))


def work_of(coroutine: Any, is_ours: Callable[[CodeType], bool]) -> tuple[str, bool]:
    """Return what a coroutine of ``ELSEWHERE`` waits for, and whether by ``is_ours`` that is ours.

    Such as ``thread: make_report``. Named is the first function of ours among the one that it was
    given and the arguments; failing that, the one that it was given. A ``def`` endpoint of FastAPI,
    a plain generator in a response and a plain dependency each reach their thread by a function of
    the library, and are its arguments.
    """
    where = ELSEWHERE[coroutine.cr_code]
    names = {} if coroutine.cr_frame is None else coroutine.cr_frame.f_locals
    functions = list(_functions((names.get("func"), *names.get("args", ()))))
    own = [name for code, name in functions if code is not None and is_ours(code)]
    name = next(iter(own or [name for _, name in functions]), "")
    return f"{where}: {name}" if name else where, bool(own)


def _functions(values: Iterable[Any]) -> Iterable[tuple[CodeType | None, str]]:
    """Yield code and name of each function in ``values``, those inside partials included.

    Looks at types only: nothing of somebody else's is called.
    """
    for value in values:
        if isinstance(value, partial):
            yield from _functions((value.func, *value.args, *value.keywords.values()))
        elif isinstance(value, MethodType):
            inside = getattr(
                value.__self__, "__dict__", {}
            )  # a context manager's has its generator
            yield from _functions((value.__func__, inside.get("gen")))
        elif isinstance(value, FunctionType):
            yield value.__code__, short_name(value.__qualname__)
        elif isinstance(value, GeneratorType):
            yield value.gi_code, short_name(value.gi_code.co_qualname)
        elif callable(value):
            called = None if isinstance(value, type) else type(value).__call__
            if isinstance(called, FunctionType):
                yield called.__code__, type(value).__name__
            else:
                yield None, short_name(getattr(value, "__qualname__", type(value).__qualname__))
