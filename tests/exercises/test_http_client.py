"""The check of lesson 08, with right answers and wrong ones."""

import asyncio
import inspect
import json
import textwrap
import time
from collections.abc import Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import quote

import httpx2
import psutil
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from looplab.exercises.http_client import EXERCISE, check_client
from looplab.lab.units import ms

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy
AT_MOST = 6.0  # seconds that any answer may keep the check, on a machine with room

Written = Callable[[str, str], dict[str, Any]]


def changed(source: str, *edits: tuple[str, str]) -> str:
    """Return the source with each edit made, each in one place."""
    for old, new in edits:
        assert source.count(old) == 1, f"{old!r} is there {source.count(old)} times"
        source = source.replace(old, new)
    return source


# Answers as far as the supplier goes; `with_market` adds what the market says, rightly.

LIFESPAN = r"""
def make_app(partner_url):
    @asynccontextmanager
    async def lifespan(app):
        jar = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        async with httpx.AsyncClient(timeout=ms(1_000), cookies=jar) as client:
            yield {"client": client, "slots": asyncio.Semaphore(10)}

    app = FastAPI(lifespan=lifespan)

    @app.get("/stock/{sku}")
    async def stock(sku: Annotated[str, Path(pattern=r"^\w")], request: Request):
        url = f"{partner_url}/stock/{quote(sku, safe='')}"
        try:
            async with asyncio.timeout(ms(1_000)), request.state.slots:
                answer = await request.state.client.get(url)
            return answer.raise_for_status().json()
        except (TimeoutError, httpx.TimeoutException):
            raise HTTPException(504) from None
        except (httpx.HTTPError, ValueError):
            raise HTTPException(502) from None

    return app
"""

ON_THE_APP = """
from typing import Annotated
from fastapi import Depends

def make_app(url):
    @asynccontextmanager
    async def life(service):
        service.state.slots = asyncio.Semaphore(10)
        service.state.partner = httpx.AsyncClient(
            base_url=url,
            timeout=httpx.Timeout(ms(1_000)),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )
        try:
            yield
        finally:
            await service.state.partner.aclose()

    def partner(request: Request):
        return request.app.state.partner

    service = FastAPI(lifespan=life)

    @service.get("/stock/{sku}")
    async def stock(sku: str, client: Annotated[httpx.AsyncClient, Depends(partner)]):
        if sku in {".", ".."}:
            raise HTTPException(404)
        deadline = asyncio.get_running_loop().time() + ms(1_000)
        try:
            async with asyncio.timeout_at(deadline):
                async with service.state.slots:
                    answer = await client.get("/stock/" + quote(sku, safe=""))
        except (TimeoutError, httpx.TimeoutException) as late:
            raise HTTPException(504, "late") from late
        except httpx.TransportError as down:
            raise HTTPException(502, "down") from down
        if answer.status_code != 200:
            raise HTTPException(502, "failed")
        try:
            return answer.json()
        except ValueError as babble:
            raise HTTPException(502, "babbled") from babble

    return service
"""

# Whole answers.

ASK = r"""
from types import SimpleNamespace

@asynccontextmanager
async def partner_at(url):
    jar = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    async with httpx2.AsyncClient(base_url=url, cookies=jar) as client:
        yield SimpleNamespace(client=client, slots=asyncio.Semaphore(10))

async def ask(partner, path):
    try:
        async with asyncio.timeout(ms(1_000)), partner.slots:
            answer = await partner.client.get(path)
            return answer.raise_for_status().json()
    except (TimeoutError, httpx2.TimeoutException):
        raise HTTPException(504) from None
    except (httpx2.HTTPError, ValueError):
        raise HTTPException(502) from None

async def ask_or_none(partner, path):
    try:
        return await ask(partner, path)
    except HTTPException:
        return None
"""

TWO_CLIENTS = "async with partner_at(supplier_url) as supplier, partner_at(market_url) as market:"

IN_THE_GROUP = """        try:
            async with asyncio.TaskGroup() as group:
                found = group.create_task(ask(request.state.supplier, path))
                more = group.create_task(ask_or_none(request.state.market, path))
        except* HTTPException as failed:
            raise failed.exceptions[0] from None
        return found.result() | {"elsewhere": more.result()}
"""

GROUPED = (
    ASK
    + f"""
def make_app(supplier_url, market_url):
    @asynccontextmanager
    async def lifespan(app):
        {TWO_CLIENTS}
            yield {{"supplier": supplier, "market": market}}

    app = FastAPI(lifespan=lifespan)

    @app.get("/stock/{{sku}}")
    async def stock(sku: Annotated[str, Path(pattern=r"^\\w")], request: Request):
        path = f"/stock/{{quote(sku, safe='')}}"
{IN_THE_GROUP}
    return app
"""
)

BESIDE = changed(
    GROUPED,
    (
        IN_THE_GROUP,
        """        more = asyncio.create_task(ask_or_none(request.state.market, path))
        try:
            found = await ask(request.state.supplier, path)
            return {**found, "elsewhere": await more}
        finally:
            more.cancel()
""",
    ),
)

GATHERED = changed(
    GROUPED,
    (
        IN_THE_GROUP,
        """        calls = [
            asyncio.ensure_future(ask(request.state.supplier, path)),
            asyncio.ensure_future(ask_or_none(request.state.market, path)),
        ]
        try:
            found, more = await asyncio.gather(*calls)
        except HTTPException:
            calls[1].cancel()
            await asyncio.wait(calls)
            raise
        return found | {"elsewhere": more}
""",
    ),
)

# One client would do for both, were it not for the pool: httpx2's has a hundred seats for both.
ONE_CLIENT = changed(
    GROUPED,
    (
        TWO_CLIENTS,
        "async with partner_at(supplier_url) as supplier:\n"
        "            market = SimpleNamespace(client=supplier.client, slots=asyncio.Semaphore(10))",
    ),
    (
        "ask_or_none(request.state.market, path)",
        "ask_or_none(request.state.market, market_url + path)",
    ),
)

SUCCESSOR = LIFESPAN.replace("httpx.", "httpx2.")

WAIT_FOR = changed(
    LIFESPAN,
    (
        """            async with asyncio.timeout(ms(1_000)), request.state.slots:
                answer = await request.state.client.get(url)
""",
        """            async def limited():
                async with request.state.slots:
                    return await request.state.client.get(url)

            answer = await asyncio.wait_for(limited(), ms(1_000))
""",
    ),
)

POOL = changed(
    LIFESPAN.replace("httpx.", "httpx2."),
    ("cookies=jar)", "cookies=jar, limits=httpx2.Limits(max_connections=10))"),
    (", request.state.slots:", ":"),
)

CLASS = """
class Partner:
    def __init__(self, url):
        self.url = url

    async def __aenter__(self):
        jar = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        self.client = httpx.AsyncClient(base_url=self.url, timeout=ms(1_000), cookies=jar)
        self.slots = asyncio.BoundedSemaphore(10)
        return self

    async def __aexit__(self, *error):
        await self.client.aclose()

    async def stock(self, sku):
        if not sku[0].isalnum():
            raise HTTPException(422)
        try:
            async with asyncio.timeout(ms(1_000)):
                async with self.slots:
                    answer = await self.client.get(f"/stock/{quote(sku, safe='')}")
            return answer.raise_for_status().json()
        except (httpx.HTTPError, TimeoutError, ValueError) as error:
            late = isinstance(error, httpx.TimeoutException | TimeoutError)
            raise HTTPException(504 if late else 502) from error


def make_app(partner_url):
    @asynccontextmanager
    async def lifespan(app):
        async with Partner(partner_url) as partner:
            yield {"partner": partner}

    app = FastAPI(lifespan=lifespan)

    @app.get("/stock/{sku}")
    async def stock(sku: str, request: Request):
        return await request.state.partner.stock(sku)

    return app
"""

HANDLERS = r"""
from contextlib import AsyncExitStack
from fastapi.responses import JSONResponse

async def make_app(partner_url):
    @asynccontextmanager
    async def lifespan(app):
        async with AsyncExitStack() as stack:
            transport = httpx.AsyncHTTPTransport()
            client = httpx.AsyncClient(transport=transport, timeout=ms(1_000))
            app.state.client = await stack.enter_async_context(client)
            app.state.queue = asyncio.Queue()
            for slot in range(10):
                app.state.queue.put_nowait(slot)
            client.event_hooks["request"].append(without_cookies)
            yield

    async def without_cookies(request):
        request.headers.pop("cookie", None)

    app = FastAPI(lifespan=lifespan)

    @app.exception_handler(TimeoutError)
    async def too_late(request, error):
        return JSONResponse({"detail": "late"}, 504)

    @app.exception_handler(ValueError)
    @app.exception_handler(httpx.HTTPError)
    async def failed(request, error):
        late = isinstance(error, httpx.TimeoutException)
        return JSONResponse({"detail": "supplier"}, 504 if late else 502)

    @app.get("/stock/{sku}")
    async def stock(sku: Annotated[str, Path(pattern=r"^[^.]")]):
        url = httpx.URL(partner_url).copy_with(raw_path=f"/stock/{quote(sku, safe='')}".encode())
        async with asyncio.timeout(ms(1_000)):
            slot = await app.state.queue.get()
            try:
                return (await app.state.client.get(url)).raise_for_status().json()
            finally:
                app.state.queue.put_nowait(slot)

    return app
"""

RIGHT_BUT_FOR_THE_MARKET = (
    ("the lifespan's state", LIFESPAN),
    ("an attribute of the app, a dependency, a finally", ON_THE_APP),
    ("httpx2", SUCCESSOR),
    ("wait_for around the slot and the call", WAIT_FOR),
    ("httpx2 and a pool of ten", POOL),
    ("a class with __aenter__", CLASS),
    ("exception handlers, an exit stack, an async make_app", HANDLERS),
)


RIGHT = (
    ("a group, and the first of its errors", GROUPED),
    ("a task that a finally cancels", BESIDE),
    ("gather, and the other is cancelled", GATHERED),
    ("one client with slots for each partner", ONE_CLIENT),
)


class Market:
    """An ASGI app around another: asks the market beside it, and adds what that says, rightly."""

    def __init__(self, app: Any, *, url: str) -> None:
        self.app = app
        self.url = url

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            jar = CookieJar(DefaultCookiePolicy(allowed_domains=()))
            async with httpx2.AsyncClient(base_url=self.url, cookies=jar) as self.client:
                self.slots = asyncio.Semaphore(10)

                async def close_first(message: Any) -> None:
                    if message["type"] == "lifespan.shutdown.complete":
                        await self.client.aclose()  # what comes after this may be cancelled
                    await send(message)

                await self.app(scope, receive, close_first)
            return
        sent: list[Any] = []

        async def keep(message: Any) -> None:
            sent.append(message)

        more = asyncio.create_task(self.says(scope["path"].removeprefix("/stock/")))
        try:
            await self.app(scope, receive, keep)
            if sent[0]["status"] == 200:
                found = json.loads(b"".join(part.get("body", b"") for part in sent[1:]))
                if isinstance(found, dict):
                    found["elsewhere"] = await more
                await JSONResponse(found)(scope, receive, send)
                return
        finally:
            more.cancel()
        for message in sent:
            await send(message)

    async def says(self, sku: str) -> Any:
        """Return what the market says of a sku, or None."""
        if sku.startswith("."):
            return None
        try:
            async with asyncio.timeout(ms(1_000)), self.slots:
                answer = await self.client.get(f"/stock/{quote(sku, safe='')}")
                return answer.raise_for_status().json()
        except (TimeoutError, httpx2.HTTPError, ValueError):
            return None


def with_market(make_app: Callable[[str], Any]) -> Callable[..., Any]:
    """Return the maker of an app that asks the market too, given that of one that doesn't."""

    async def make_both(supplier_url: str, market_url: str) -> Any:
        app = make_app(supplier_url)
        if inspect.isawaitable(app):
            app = await app
        if isinstance(app, FastAPI):
            app.add_middleware(Market, url=market_url)
        return app

    return make_both


@pytest.mark.parametrize(
    ("name", "source"),
    RIGHT_BUT_FOR_THE_MARKET,
    ids=[name for name, _ in RIGHT_BUT_FOR_THE_MARKET],
)
async def test_a_right_answer_passes_in_any_style(name: str, source: str, written: Written) -> None:
    verdict = await check_client(with_market(written("08", source)["make_app"]), limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


@pytest.mark.parametrize(("name", "source"), RIGHT, ids=[name for name, _ in RIGHT])
async def test_a_right_answer_with_the_market_passes_in_any_style(
    name: str, source: str, written: Written
) -> None:
    verdict = await check_client(written("08", source)["make_app"], limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


WITH = """        async with httpx.AsyncClient(timeout=ms(1_000), cookies=jar) as client:
            yield {"client": client, "slots": asyncio.Semaphore(10)}
"""
MADE = "httpx.AsyncClient(timeout=ms(1_000), cookies=jar)"
JAR = "        jar = CookieJar(DefaultCookiePolicy(allowed_domains=()))\n"
SLOT = "            async with asyncio.timeout(ms(1_000)), request.state.slots:\n"
YIELD = 'yield {"client": client, "slots": asyncio.Semaphore(10)}'
GET = "                answer = await request.state.client.get(url)\n"
RETURN = "            return answer.raise_for_status().json()\n"
LATE = """        except (TimeoutError, httpx.TimeoutException):
            raise HTTPException(504) from None
"""
FAILED = """        except (httpx.HTTPError, ValueError):
            raise HTTPException(502) from None
"""
PATTERNED = r"""sku: Annotated[str, Path(pattern=r"^\w")]"""
PASSED = "FastAPI(lifespan=lifespan)"


def with_client(options: str) -> str:
    """Return the app with other options for its client."""
    return changed(LIFESPAN, (MADE, f"httpx.AsyncClient({options})"))


def undated(options: str) -> str:
    """Return the app with other options for its client, and no deadline around the call."""
    return changed(with_client(options), ("asyncio.timeout(ms(1_000)), ", ""))


WRONG: tuple[tuple[str, str, str], ...] = (
    # -- one client
    (
        "it makes a client for each call, as the stub does",
        changed(
            LIFESPAN,
            (
                GET,
                """                jar = CookieJar(DefaultCookiePolicy(allowed_domains=()))
                async with httpx.AsyncClient(timeout=ms(1_000), cookies=jar) as client:
                    answer = await client.get(url)
""",
            ),
        ),
        "client-per-call",
    ),
    (
        "a dependency makes a client for each call",
        changed(
            LIFESPAN,
            (
                ", request: Request):",
                ", request: Request, client=Depends(lambda: httpx.AsyncClient(timeout=1))):",
            ),
            ("request.state.client.get", "client.get"),
            ("\ndef make_app", "\nfrom fastapi import Depends\n\ndef make_app"),
        ),
        "client-per-call",
    ),
    (
        "it keeps the client in the request's own state",
        changed(
            LIFESPAN,
            (
                GET,
                """                if not hasattr(request.state, "own"):
                    request.state.own = httpx.AsyncClient(timeout=ms(1_000))
                answer = await request.state.own.get(url)
""",
            ),
        ),
        "client-per-call",
    ),
    (
        "it closes the connection after each call",
        changed(LIFESPAN, ("client.get(url)", 'client.get(url, headers={"Connection": "close"})')),
        "client-per-call",
    ),
    (
        "it keeps no connection",
        with_client(
            "timeout=ms(1_000), cookies=jar, limits=httpx.Limits(max_keepalive_connections=0)"
        ),
        "client-per-call",
    ),
    (
        "it allows one connection",
        with_client("timeout=ms(1_000), cookies=jar, limits=httpx.Limits(max_connections=1)"),
        "one-at-a-time",
    ),
    (
        "it guards the client with a lock",
        changed(
            LIFESPAN,
            (
                "    @asynccontextmanager\n",
                "    lock = asyncio.Lock()\n\n    @asynccontextmanager\n",
            ),
            (GET, "                async with lock:\n    " + GET),
        ),
        "one-at-a-time",
    ),
    # -- its life
    (
        "it never closes the client",
        changed(
            LIFESPAN,
            (WITH, f"        client = kept[0] = {MADE}\n" + f"        {YIELD}\n"),
            ("\ndef make_app", "\nkept = {}\n\ndef make_app"),
        ),
        "never-closed",
    ),
    (
        "it closes the client only when the app stops well",
        changed(
            LIFESPAN,
            (
                WITH,
                f"        client = {MADE}\n" + f"        {YIELD}\n        await client.aclose()\n",
            ),
        ),
        "left-open-on-error",
    ),
    (
        "it closes the client when the app fails with an Exception",
        changed(
            LIFESPAN,
            (
                WITH,
                f"""        client = {MADE}
        try:
            {YIELD}
        except Exception:
            await client.aclose()
            raise
        await client.aclose()
""",
            ),
        ),
        "left-open-on-error",
    ),
    (
        "it yields behind the client's block",
        changed(
            LIFESPAN,
            (
                f"            {YIELD}\n",
                f"            pass\n        {YIELD}\n",
            ),
        ),
        "closed-too-soon",
    ),
    (
        "it makes the client beside the lifespan and closes it in there",
        changed(
            LIFESPAN,
            (JAR, ""),
            (WITH, f"        {YIELD}\n        await client.aclose()\n"),
            (
                "    @asynccontextmanager\n",
                """    jar = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    client = httpx.AsyncClient(timeout=ms(1_000), cookies=jar)

    @asynccontextmanager
""",
            ),
        ),
        "dead-on-the-second-start",
    ),
    (
        "it does not pass the lifespan",
        changed(LIFESPAN, (PASSED, "FastAPI()")),
        "lifespan-not-passed",
    ),
    (
        "it yields nothing",
        changed(LIFESPAN, (YIELD, "yield")),
        "lifespan-not-passed",
    ),
    (
        "it yields the client itself",
        changed(LIFESPAN, (YIELD, "yield client")),
        "does-not-start",
    ),
    (
        "it fails before its yield",
        changed(LIFESPAN, (JAR, JAR + '        raise ValueError("no supplier")\n')),
        "does-not-start",
    ),
    (
        "it fails behind its yield",
        changed(LIFESPAN, (WITH, WITH + '        raise ValueError("cannot stop")\n')),
        "does-not-stop",
    ),
    # -- the time-out
    ("it has no time-out", undated("timeout=None, cookies=jar"), "no-timeout"),
    ("it has httpx's five seconds", undated("cookies=jar"), "no-timeout"),
    ("it has the card's 30 s", undated("timeout=30.0, cookies=jar"), "no-timeout"),
    (
        "it has a time-out to connect only",
        undated("timeout=httpx.Timeout(None, connect=ms(1_000)), cookies=jar"),
        "no-timeout",
    ),
    (
        "it tries twice more when it was late",
        changed(
            LIFESPAN,
            ("asyncio.timeout(ms(1_000)), ", ""),
            (
                GET,
                """                for attempt in range(3):
                    try:
                        answer = await request.state.client.get(url)
                        break
                    except httpx.TimeoutException:
                        if attempt == 2:
                            raise
""",
            ),
        ),
        "no-timeout",
    ),
    ("it gives up after 100 ms", with_client("timeout=ms(100), cookies=jar"), "gives-up-too-soon"),
    (
        "it gives up after half a second",
        with_client("timeout=ms(500), cookies=jar"),
        "gives-up-too-soon",
    ),
    # -- a rush
    (
        "it has no slots",
        changed(LIFESPAN, (", request.state.slots:", ":")),
        "too-many-at-once",
    ),
    (
        "each request has slots of its own",
        changed(LIFESPAN, (", request.state.slots:", ", asyncio.Semaphore(10):")),
        "too-many-at-once",
    ),
    (
        "it has twenty slots",
        changed(LIFESPAN, ("Semaphore(10)", "Semaphore(20)")),
        "too-many-at-once",
    ),
    (
        "it allows the client twenty connections, and has no slots",
        changed(
            with_client("timeout=ms(1_000), cookies=jar, limits=httpx.Limits(max_connections=20)"),
            (", request.state.slots:", ":"),
        ),
        "too-many-at-once",
    ),
    (
        "its deadline begins when it has a slot",
        changed(
            LIFESPAN,
            (
                "asyncio.timeout(ms(1_000)), request.state.slots",
                "request.state.slots, asyncio.timeout(ms(1_000))",
            ),
        ),
        "waits-without-end",
    ),
    (
        "it leaves the second to the client, and waits for a slot as long as it takes",
        undated("timeout=ms(1_000), cookies=jar"),
        "waits-without-end",
    ),
    (
        "it has httpx2's pool of ten, its time-outs, and no deadline",
        changed(POOL, ("async with asyncio.timeout(ms(1_000)):", "if True:")),
        "waits-add-up",
    ),
    (
        "it has a deadline for the slot, and the client's time-outs for the call",
        changed(
            LIFESPAN,
            (
                SLOT + GET,
                """            async with asyncio.timeout(ms(900)):
                await request.state.slots.acquire()
            try:
                answer = await request.state.client.get(url)
            finally:
                request.state.slots.release()
""",
            ),
        ),
        "waits-add-up",
    ),
    (
        "it gives the client the time that the wait for the slot has left",
        changed(
            LIFESPAN,
            (
                SLOT + GET,
                """            deadline = asyncio.get_running_loop().time() + ms(1_000)
            async with asyncio.timeout_at(deadline):
                await request.state.slots.acquire()
            try:
                left = max(deadline - asyncio.get_running_loop().time(), 0.001)
                answer = await request.state.client.get(url, timeout=left)
            finally:
                request.state.slots.release()
""",
            ),
        ),
        "waits-add-up",
    ),
    (
        "it keeps the slot of a call that failed or was late",
        changed(
            LIFESPAN,
            (
                SLOT,
                """            async with asyncio.timeout(ms(1_000)):
                await request.state.slots.acquire()
""",
            ),
            (RETURN, "            request.state.slots.release()\n" + RETURN),
        ),
        "seats-lost",
    ),
    (
        "it has nine slots",
        changed(LIFESPAN, ("Semaphore(10)", "Semaphore(9)")),
        "seats-lost",
    ),
    (
        "it lets calls queue inside httpx, and a deadline end them",
        changed(
            with_client(
                "timeout=httpx.Timeout(ms(5_000)), cookies=jar, "
                "limits=httpx.Limits(max_connections=10)"
            ),
            (", request.state.slots:", ":"),
        ),
        "seats-lost",
    ),
    # -- failures
    (
        "a 503 of the supplier becomes a 200",
        changed(LIFESPAN, (".raise_for_status()", "")),
        "failure-as-answer",
    ),
    (
        "it answers None when the supplier fails",
        changed(
            LIFESPAN, (FAILED, "        except httpx.HTTPStatusError:\n            return None\n")
        ),
        "failure-as-answer",
    ),
    (
        "it answers an empty dict when the supplier fails",
        changed(LIFESPAN, (FAILED, "        except httpx.HTTPError:\n            return {}\n")),
        "failure-as-answer",
    ),
    ("it lets the supplier's failure out", changed(LIFESPAN, (FAILED, "")), "wrong-status"),
    (
        "it lets the time-out out",
        changed(
            LIFESPAN,
            (LATE, ""),
            ("httpx.HTTPError", "httpx.HTTPStatusError"),
        ),
        "wrong-status",
    ),
    ("it answers 502 for a time-out", changed(LIFESPAN, (LATE, "")), "wrong-status"),
    ("it answers 500 for every failure", changed(LIFESPAN, ("502", "500")), "wrong-status"),
    (
        "it lets a refused connection out",
        changed(LIFESPAN, ("httpx.HTTPError", "httpx.HTTPStatusError")),
        "wrong-status",
    ),
    (
        "it passes the supplier's 503 on",
        changed(
            LIFESPAN,
            (
                RETURN,
                """            if answer.is_error:
                raise HTTPException(answer.status_code)
            return answer.json()
""",
            ),
        ),
        "wrong-status",
    ),
    (
        "it lets out that a body isn't JSON",
        changed(LIFESPAN, ("(httpx.HTTPError, ValueError)", "httpx.HTTPError")),
        "no-json",
    ),
    (
        "it passes a page of HTML on as text",
        changed(
            LIFESPAN,
            (
                RETURN,
                """            answer.raise_for_status()
            try:
                return answer.json()
            except ValueError:
                return answer.text
""",
            ),
        ),
        "no-json",
    ),
    # -- another loop
    (
        "it makes the slots beside the lifespan",
        changed(
            LIFESPAN,
            ("    @asynccontextmanager\n", "    slots = SLOTS\n\n    @asynccontextmanager\n"),
            ('"slots": asyncio.Semaphore(10)', '"slots": slots'),
            ("slots = SLOTS", "slots = asyncio.Semaphore(10)"),
        ),
        "bound-to-one-loop",
    ),
    (
        "it makes the slots at the top of the module",
        changed(
            LIFESPAN,
            ("\ndef make_app", "\nslots = asyncio.Semaphore(10)\n\ndef make_app"),
            (", request.state.slots:", ", slots:"),
        ),
        "bound-to-one-loop",
    ),
    # -- what travels
    ("its client keeps cookies", with_client("timeout=ms(1_000)"), "cookies-shared"),
    (
        "its jar is empty and takes what comes",
        changed(LIFESPAN, ("CookieJar(DefaultCookiePolicy(allowed_domains=()))", "CookieJar()")),
        "cookies-shared",
    ),
    (
        "it puts the sku into the path as it is",
        changed(LIFESPAN, ("{quote(sku, safe='')}", "{sku}")),
        "sku-cut",
    ),
    (
        "it encodes all but question marks",
        changed(LIFESPAN, ("safe=''", "safe='?=&'")),
        "sku-cut",
    ),
    (
        "it cuts the sku at the question mark",
        changed(LIFESPAN, ("quote(sku, safe='')", "quote(sku.partition('?')[0])")),
        "sku-cut",
    ),
    (
        "it encodes the sku, and lets dots climb",
        changed(LIFESPAN, (PATTERNED, "sku: str")),
        "sku-climbs",
    ),
    (
        "its pattern allows dots wherever they stand",
        changed(LIFESPAN, (r'r"^\w"', r'r"^[-\w.?=]+$"')),
        "sku-climbs",
    ),
    # -- the answer
    (
        "it returns the status alone",
        changed(
            LIFESPAN,
            (RETURN, '            return {"status": answer.raise_for_status().status_code}\n'),
        ),
        "wrong-answer",
    ),
    (
        "it caches the first answer for all",
        changed(
            LIFESPAN,
            (
                RETURN,
                '            return kept.setdefault("answer", answer.raise_for_status().json())\n',
            ),
            ("\ndef make_app", "\nkept = {}\n\ndef make_app"),
        ),
        "wrong-answer",
    ),
    (
        "it has no such endpoint",
        "def make_app(partner_url):\n    return FastAPI()\n",
        "wrong-answer",
    ),
    # -- what any exercise may meet
    (
        "it is not written",
        "def make_app(partner_url):\n    raise NotImplementedError\n",
        "not-written",
    ),
    ("it returns nothing", "def make_app(partner_url):\n    return None\n", "not-written"),
    ("it returns no app", "def make_app(partner_url):\n    return partner_url\n", "wrong-type"),
)


ONLY_LATE = """    except HTTPException as failed:
        if failed.status_code != 504:
            raise
        return None
"""
ONLY_FAILED = ONLY_LATE.replace("504", "502")


def in_slots(body: str, slots: str) -> str:
    """Return the lines in a block that holds one of the slots."""
    return f"        async with {slots}:\n" + textwrap.indent(body, "    ")


SEQUENCE = """        found = await ask(request.state.supplier, path)
        return found | {"elsewhere": await ask_or_none(request.state.market, path)}
"""

WRONG_WITH_MARKET: tuple[tuple[str, str, str], ...] = (
    (
        "it asks the supplier, and then the market",
        changed(GROUPED, (IN_THE_GROUP, SEQUENCE)),
        "one-after-another",
    ),
    (
        "it asks the market, and then the supplier",
        changed(
            GROUPED,
            (
                IN_THE_GROUP,
                """        more = await ask_or_none(request.state.market, path)
        return await ask(request.state.supplier, path) | {"elsewhere": more}
""",
            ),
        ),
        "one-after-another",
    ),
    (
        "it awaits the second coroutine when the first has ended",
        changed(
            GROUPED,
            (
                IN_THE_GROUP,
                """        more = ask_or_none(request.state.market, path)
        try:
            return await ask(request.state.supplier, path) | {"elsewhere": await more}
        finally:
            more.close()
""",
            ),
        ),
        "one-after-another",
    ),
    (
        "it lets the market's failure out of the group",
        changed(GROUPED, ("ask_or_none(request.state.market", "ask(request.state.market")),
        "market-needed",
    ),
    (
        "it can do without a market that is late, and not without one that fails",
        changed(
            GROUPED,
            ("    except HTTPException:\n        return None\n", ONLY_LATE),
        ),
        "market-needed",
    ),
    (
        "it can do without a market that fails, and not without one that is late",
        changed(
            GROUPED,
            ("    except HTTPException:\n        return None\n", ONLY_FAILED),
        ),
        "market-needed",
    ),
    (
        "it catches the market's statuses and lets a refused connection out",
        changed(
            GROUPED,
            (
                "return await ask(partner, path)\n",
                "async with asyncio.timeout(ms(1_000)), partner.slots:\n"
                "            answer = await partner.client.get(path)\n"
                "        return answer.json() if answer.is_success else None\n",
            ),
            ("    except HTTPException:", "    except (TimeoutError, ValueError):"),
        ),
        "market-needed",
    ),
    (
        "it has one set of slots for both",
        changed(
            GROUPED,
            (
                'yield {"supplier": supplier, "market": market}',
                "market.slots = supplier.slots\n"
                '            yield {"supplier": supplier, "market": market}',
            ),
        ),
        "market-starves-supplier",
    ),
    (
        "it holds a slot of the supplier's for the whole request",
        changed(
            GROUPED,
            (", partner.slots:", ":"),
            (IN_THE_GROUP, in_slots(IN_THE_GROUP, "request.state.supplier.slots")),
        ),
        "market-starves-supplier",
    ),
    (
        "it waits for both, and looks at the supplier's failure then",
        changed(
            GROUPED,
            (
                IN_THE_GROUP,
                """        found, more = await asyncio.gather(
            ask(request.state.supplier, path),
            ask_or_none(request.state.market, path),
            return_exceptions=True,
        )
        if isinstance(found, Exception):
            raise found
        return found | {"elsewhere": more}
""",
            ),
        ),
        "waits-for-market",
    ),
    (
        "it gathers, and the market's call goes on when the supplier's has failed",
        changed(
            GROUPED,
            (
                IN_THE_GROUP,
                """        found, more = await asyncio.gather(
            ask(request.state.supplier, path), ask_or_none(request.state.market, path)
        )
        return found | {"elsewhere": more}
""",
            ),
        ),
        "market-goes-on",
    ),
    (
        "it catches the exception where a group comes",
        changed(
            GROUPED,
            (
                """        except* HTTPException as failed:
            raise failed.exceptions[0] from None
""",
                "        except HTTPException:\n            raise\n",
            ),
        ),
        "group-let-out",
    ),
    (
        "it answers 502 for a supplier that is late, too",
        changed(
            GROUPED, ("raise failed.exceptions[0] from None", "raise HTTPException(502) from None")
        ),
        "wrong-status",
    ),
    (
        "it doesn't look at the market's status",
        changed(
            GROUPED,
            (
                "return await ask(partner, path)\n",
                """async with asyncio.timeout(ms(1_000)), partner.slots:
            return (await partner.client.get(path)).json()
""",
            ),
            (
                "    except HTTPException:",
                "    except (TimeoutError, httpx2.HTTPError, ValueError):",
            ),
        ),
        "wrong-elsewhere",
    ),
    (
        "its deadline begins when it has a slot of the market's",
        changed(
            GROUPED,
            (
                "return await ask(partner, path)\n",
                """async with partner.slots, asyncio.timeout(ms(1_000)):
            return (await partner.client.get(path)).raise_for_status().json()
""",
            ),
            (
                "    except HTTPException:",
                "    except (TimeoutError, httpx2.HTTPError, ValueError):",
            ),
        ),
        "market-starves-supplier",
    ),
    (
        "it lets the group's error out",
        changed(
            GROUPED,
            ("except* HTTPException as failed:", "except* KeyError as failed:"),
        ),
        "group-let-out",
    ),
    (
        "it calls the item by another name",
        changed(GROUPED, ('{"elsewhere": more.result()}', '{"market": more.result()}')),
        "wrong-elsewhere",
    ),
    (
        "it returns the market's answer alone",
        changed(GROUPED, ('found.result() | {"elsewhere": more.result()}', "more.result()")),
        "wrong-elsewhere",
    ),
    (
        "it says nothing where the market has failed, and not None",
        changed(
            GROUPED,
            (
                'return found.result() | {"elsewhere": more.result()}',
                'told = {"elsewhere": more.result()} if more.result() else {}\n'
                "        return found.result() | told",
            ),
        ),
        "wrong-elsewhere",
    ),
    (
        "it asks the market without slots",
        changed(
            GROUPED,
            (
                "return await ask(partner, path)\n",
                "return await ask(SimpleNamespace(client=partner.client, slots=free()), path)\n",
            ),
            (
                "async def ask_or_none",
                "@asynccontextmanager\nasync def free():\n    yield\n\nasync def ask_or_none",
            ),
        ),
        "too-many-at-once",
    ),
    (
        "it makes a client for each call of the market",
        changed(
            GROUPED,
            (
                "return await ask(partner, path)\n",
                "async with partner_at(partner.client.base_url) as own:\n"
                "            return await ask(own, path)\n",
            ),
        ),
        "client-per-call",
    ),
    (
        "it closes the supplier's client and forgets the market's",
        changed(
            GROUPED,
            (
                TWO_CLIENTS,
                "async with partner_at(supplier_url) as supplier:\n"
                "            jar = CookieJar(DefaultCookiePolicy(allowed_domains=()))\n"
                "            client = httpx2.AsyncClient(base_url=market_url, cookies=jar)\n"
                '            kept["market"] = client\n'
                "            market = SimpleNamespace(client=client, slots=asyncio.Semaphore(10))",
            ),
            ("\ndef make_app", "\nkept = {}\n\ndef make_app"),
        ),
        "never-closed",
    ),
    (
        "the market's client keeps cookies",
        changed(
            GROUPED,
            (
                'yield {"supplier": supplier, "market": market}',
                "market.client.cookies = CookieJar()\n"
                '            yield {"supplier": supplier, "market": market}',
            ),
        ),
        "cookies-shared",
    ),
)


# Each passes, and why that is let be.
SURVIVES = (
    # A call that begins while another's answer is read takes its cookie along. The window is the
    # time that a body takes to arrive; to hold it open the supplier would have to send half an
    # answer, and nobody who knows of the jar clears it instead of taking it away.
    (
        "it clears the cookies after each answer",
        changed(
            with_client("timeout=ms(1_000)"),
            (GET, GET + "            request.state.client.cookies.clear()\n"),
        ),
    ),
    # The deadline ends that wait too, and the slots see to it that there is none.
    (
        "it waits for a place in the pool without a limit",
        with_client("timeout=httpx.Timeout(ms(1_000), pool=None), cookies=jar"),
    ),
)


@pytest.mark.parametrize(("name", "source"), SURVIVES, ids=[name for name, _ in SURVIVES])
async def test_what_survives_is_known(name: str, source: str, written: Written) -> None:
    make_app = with_market(written("08", source)["make_app"])
    assert (await check_client(make_app, limit=AMPLE)).passed
    assert 20 * len(SURVIVES) <= len(SURVIVES) + len(WRONG)


@pytest.mark.parametrize(
    ("name", "source", "mistake", "whole"),
    [(*row, False) for row in WRONG] + [(*row, True) for row in WRONG_WITH_MARKET],
    ids=[name for name, *_ in (*WRONG, *WRONG_WITH_MARKET)],
)
async def test_a_wrong_answer_gets_its_own_hint(
    name: str, source: str, mistake: str, whole: bool, written: Written, tried: Callable[..., Any]
) -> None:
    async def checked() -> Any:
        names = written("08", source)
        make_app = names["make_app"] if whole else with_market(names["make_app"])
        verdict = await check_client(make_app, limit=AMPLE)
        for client in names.get("kept", {}).values():
            if not isinstance(client, dict):
                await client.aclose()
        return verdict

    verdict = await tried(checked, mistake, pace=0.5)  # a lost seat is a matter of moments
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    assert {mistake.name for mistake in EXERCISE.mistakes} <= {
        mistake for *_, mistake in (*WRONG, *WRONG_WITH_MARKET)
    }


IN_MAKE_APP = changed(
    LIFESPAN,
    (JAR, ""),
    (WITH, "        " + YIELD + "\n"),
    (
        "    @asynccontextmanager\n",
        """    jar = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    client = httpx.AsyncClient(timeout=ms(1_000), cookies=jar)
    kept.append(client)

    @asynccontextmanager
""",
    ),
    ("\ndef make_app", "\nkept = []\n\ndef make_app"),
)


async def test_connections_that_an_attempt_leaves_are_closed_after_the_check(
    written: Written,
) -> None:
    def connections() -> list[Any]:
        return [one for one in psutil.Process().net_connections("tcp") if one.status != "LISTEN"]

    before = connections()
    names = written("08", IN_MAKE_APP)
    for _ in range(2):
        verdict = await check_client(with_market(names["make_app"]), limit=AMPLE)
        assert verdict.mistake == "never-closed"
    assert len(names["kept"]) == 2  # so that no garbage collector closes them
    assert [one for one in connections() if one not in before and one.status != "TIME_WAIT"] == []


ENDPOINT = """
def make_app(supplier_url, market_url):
    app = FastAPI()

    @app.get("/stock/{sku}")
    async def stock(sku: str):
        await asyncio.Event().wait()

    return app
"""


async def test_an_endpoint_that_never_answers_is_stopped(written: Written) -> None:
    before, began = asyncio.all_tasks(), time.monotonic()
    verdict = await check_client(written("08", ENDPOINT)["make_app"], limit=0.5)
    assert verdict.mistake == "never-ends"
    assert time.monotonic() - began < AT_MOST
    assert asyncio.all_tasks() == before
    assert (await check_client(written("08", GROUPED)["make_app"], limit=AMPLE)).passed


async def test_an_app_in_place_of_the_function() -> None:
    verdict = await check_client(FastAPI())
    assert not verdict.passed
