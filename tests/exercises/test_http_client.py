"""The check of lesson 08, with right answers and wrong ones."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request

from support.exercises.http_client import EXERCISE, check_client

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy


def stock_app(ask: Callable[..., Any], **options: Any) -> FastAPI:
    """Return an app whose endpoint answers ``await ask(request, path)``."""
    app = FastAPI(**options)

    @app.get("/stock/{sku}")
    async def stock(sku: str, request: Request) -> Any:
        return await ask(request, f"/stock/{sku}")

    return app


async def ask_state(request: Request, path: str) -> Any:
    return (await request.state.client.get(path)).json()


def in_lifespan(url: str, **options: Any) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        async with httpx.AsyncClient(base_url=url, **options) as client:
            yield {"client": client}

    return stock_app(ask_state, lifespan=lifespan)


def on_the_app(url: str) -> FastAPI:
    """A second style: the client is an attribute of the app, and a dependency hands it out."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        app.state.client = httpx.AsyncClient(base_url=url)
        try:
            yield
        finally:
            await app.state.client.aclose()

    app = FastAPI(lifespan=lifespan)

    def partner(request: Request) -> httpx.AsyncClient:
        return request.app.state.client

    @app.get("/stock/{sku}")
    async def stock(sku: str, client: httpx.AsyncClient = Depends(partner)) -> Any:  # noqa: B008
        return (await client.get(f"/stock/{sku}")).json()

    return app


@pytest.mark.parametrize("make_app", [in_lifespan, on_the_app])
async def test_right_answers_pass(make_app) -> None:
    verdict = await check_client(make_app, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


def per_call(url: str) -> FastAPI:
    async def ask(request: Request, path: str) -> Any:
        async with httpx.AsyncClient(base_url=url) as client:
            return (await client.get(path)).json()

    return stock_app(ask)


opened: list[httpx.AsyncClient] = []


@pytest.fixture
async def closing_what_was_opened() -> AsyncGenerator[None]:
    yield
    while opened:
        await opened.pop().aclose()


def never_closed(url: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        opened.append(httpx.AsyncClient(base_url=url))
        yield {"client": opened[-1]}

    return stock_app(ask_state, lifespan=lifespan)


def made_with_the_app(url: str) -> FastAPI:
    client = httpx.AsyncClient(base_url=url)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        yield {"client": client}
        await client.aclose()

    return stock_app(ask_state, lifespan=lifespan)


def yields_behind_the_block(url: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        async with httpx.AsyncClient(base_url=url) as client:
            pass
        yield {"client": client}

    return stock_app(ask_state, lifespan=lifespan)


def yields_the_client_itself(url: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[Any]:
        async with httpx.AsyncClient(base_url=url) as client:
            yield client

    return stock_app(ask_state, lifespan=lifespan)


def lifespan_not_passed(url: str) -> FastAPI:
    return stock_app(ask_state)


def one_connection(url: str) -> FastAPI:
    return in_lifespan(url, limits=httpx.Limits(max_connections=1))


def behind_a_lock(url: str) -> FastAPI:
    lock = asyncio.Lock()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        async with httpx.AsyncClient(base_url=url) as client:
            yield {"client": client}

    async def ask(request: Request, path: str) -> Any:
        async with lock:
            return await ask_state(request, path)

    return stock_app(ask, lifespan=lifespan)


def the_status_alone(url: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        async with httpx.AsyncClient(base_url=url) as client:
            yield {"client": client}

    async def ask(request: Request, path: str) -> Any:
        return {"status": (await request.state.client.get(path)).status_code}

    return stock_app(ask, lifespan=lifespan)


def raises_at_the_start(url: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        raise ValueError("no supplier")
        yield

    return stock_app(ask_state, lifespan=lifespan)


def raises_at_the_end(url: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        async with httpx.AsyncClient(base_url=url) as client:
            yield {"client": client}
        raise ValueError("cannot stop")

    return stock_app(ask_state, lifespan=lifespan)


@pytest.mark.usefixtures("closing_what_was_opened")
@pytest.mark.parametrize(
    ("make_app", "mistake"),
    [
        (per_call, "client-per-call"),
        (never_closed, "never-closed"),
        (yields_behind_the_block, "closed-too-soon"),
        (yields_the_client_itself, "does-not-start"),
        (made_with_the_app, "dead-on-the-second-start"),
        (lifespan_not_passed, "lifespan-not-passed"),
        (one_connection, "one-at-a-time"),
        (behind_a_lock, "one-at-a-time"),
        (the_status_alone, "wrong-answer"),
        (raises_at_the_start, "does-not-start"),
        (raises_at_the_end, "does-not-stop"),
    ],
)
async def test_wrong_answers_get_their_hint(make_app, mistake) -> None:
    verdict = await check_client(make_app)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message
    hint = next(known.hint for known in EXERCISE.mistakes if known.name == mistake)
    assert verdict.message.startswith(hint)


def unwritten(url: str) -> FastAPI:
    raise NotImplementedError


def nothing(url: str) -> None:
    return None


def no_app(url: str) -> str:
    return url


@pytest.mark.parametrize(
    ("make_app", "mistake"),
    [
        (unwritten, "not-written"),
        (nothing, "not-written"),
        (no_app, "wrong-type"),
        (FastAPI(), "wrong-answer"),
    ],
)
async def test_what_any_exercise_may_meet(make_app, mistake) -> None:
    given = (lambda url: make_app) if isinstance(make_app, FastAPI) else make_app
    verdict = await check_client(given)
    assert (verdict.passed, verdict.mistake) == (False, mistake)


async def test_an_endpoint_that_never_answers_is_stopped() -> None:
    async def ask(request: Request, path: str) -> Any:
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    verdict = await check_client(lambda url: stock_app(ask), limit=0.5)
    assert verdict.mistake == "never-ends"
    assert asyncio.all_tasks() == before
