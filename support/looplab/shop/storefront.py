"""The storefront of lesson 13: what its service needs and the lesson does not teach.

The lesson writes the parts of the service, first slow and then fixed. Here are the endpoints that
put the parts together, the partners that they call, and what visitors ask for.
"""

from __future__ import annotations

import asyncio
import csv
import io
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, Final, Protocol
from uuid import UUID

import httpx2
from fastapi import FastAPI, HTTPException, Path, Request
from sqlalchemy import Select, bindparam, func, select, update
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from looplab.shop import OrderRepository, ProductRepository, Shop, UserRepository, checks, open_shop
from looplab.shop.models import Order, OrderItem, Product, User
from looplab.shop.partners import Mailer, SearchEngine
from looplab.shop.repositories import Sessions

HANGING: Final = "outlet"
"""The index for which the search engine never answers."""
FOLLOWERS: Final = ("ada@shop.test", "grace@shop.test")
"""Who gets a letter when somebody orders."""
RETRY_AFTER: Final = "1"
"""Seconds after which a client may try again when no connection was free."""
log = logging.getLogger("shop")

Question = Callable[[], Awaitable[Any]]
"""One question to the database; calling it asks."""


class Partners:
    """A search engine and a mailer in one app.

    The search engine never answers for the index `outlet`.

    Attributes:
        app: the FastAPI app, with the partners under `/search` and `/mailer`.
        search, mailer: the partners.
    """

    def __init__(self, *, latency: float) -> None:
        """Make the partners; `latency` is each one's, in seconds.

        Raises:
            TypeError, ValueError: `latency` is not a number of seconds, 0 or more.
        """
        news = {"new": [{"id": 1, "name": "Brass lamp"}], HANGING: []}
        self.search = SearchEngine(latency=latency, documents=news)
        self.search.fault(HANGING, hang=True)
        self.mailer = Mailer(latency=latency)
        self.app = FastAPI()
        for one in (self.search, self.mailer):
            self.app.mount(f"/{one.name}", one.app)


class AsyncResourceMiddleware(BaseHTTPMiddleware):
    """The card's: opens a session before the endpoint runs, and holds it until the answer.

    The session is in `request.state.db`, and has a connection of the pool from the start.
    """

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        async with request.app.state.shop.session() as session:
            await session.connection()
            request.state.db = session
            return await call_next(request)


class LendSessions:
    """Hands on the sessionmaker in `request.state.db`, and holds nothing.

    Each question to the database opens a session of its own, and closes it after the answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`, an ASGI app."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope.setdefault("state", {})["db"] = scope["app"].state.shop.sessions
        await self.app(scope, receive, send)


class PartnerCalls(Protocol):
    """What calls the partners. One is made when the app starts, and closed when it stops."""

    async def call_external_api(self, method: str, path: str, **more: Any) -> Any:
        """Return the JSON of the answer; raise what a failed call raises."""
        ...

    async def aclose(self) -> None:
        """Close what it holds."""
        ...


def storefront(
    *,
    shop: Shop,
    partners: Callable[[str], PartnerCalls],
    middleware: Any,
    check_fraud: Callable[[UUID], Awaitable[None]],
    ask: Callable[[Sequence[Question]], Awaitable[Sequence[Any]]],
    recommend: Callable[[PartnerCalls, str], Awaitable[Any]],
    url: str,
    user_id: UUID,
    product_id: UUID,
) -> FastAPI:
    """Return an app with two endpoints that are made of the parts given.

    `GET /page/{index}` asks the database six questions and then the search engine for `index`.
    `POST /orders` checks for fraud, takes one piece from stock (409 when there is none) and writes
    to two followers; a letter that fails is logged, and the answer names who was not told. Both are
    for one user and one product. A pool that has no connection in time is a 503 with `Retry-After`.

    Args:
        shop: the database; found in `app.state.shop`.
        partners: makes what calls the partners at a URL.
        middleware: an ASGI middleware that sets `request.state.db`, a session or a sessionmaker.
        check_fraud: raises if a user may not order.
        ask: asks questions, and returns their answers in the same order.
        recommend: returns what the search engine recommends for an index.
        url: where the partners are.
        user_id: the user.
        product_id: the product.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        app.state.partners = partners(url)
        try:
            yield
        finally:
            await app.state.partners.aclose()

    app = FastAPI(lifespan=lifespan)
    app.state.shop = shop
    app.add_middleware(middleware)
    app.add_exception_handler(PoolTimeoutError, no_seat)

    @app.get("/page/{index}")
    async def page(
        index: Annotated[str, Path(pattern="^[a-z]+$")], request: Request
    ) -> dict[str, Any]:
        answers = await ask(questions(request.state.db, user_id))
        advice = await recommend(app.state.partners, index)
        return _page(answers, advice)

    @app.post("/orders")
    async def order(request: Request) -> dict[str, Any]:
        await check_fraud(user_id)
        await take_one(request.state.db, product_id)
        letters = [tell_follower(app.state.partners, address) for address in FOLLOWERS]
        told = zip(FOLLOWERS, await asyncio.gather(*letters), strict=True)
        return {"not told": [address for address, heard in told if not heard]}

    return app


async def no_seat(request: Request, error: Exception) -> Response:
    """Return 503 with `Retry-After`: what a client gets when no connection was free in time."""
    return Response(status_code=503, headers={"Retry-After": RETRY_AFTER})


async def take_one(db: Sessions, product_id: UUID) -> None:
    """Take one piece of the product from stock. Raises HTTPException 409 when none is left."""
    taken = await ProductRepository(db).reserve(product_id)
    if not taken:
        raise HTTPException(409, "it is sold out")
    if isinstance(db, AsyncSession):  # a sessionmaker's repositories commit by themselves
        await db.commit()


async def tell_follower(partners: PartnerCalls, address: str) -> bool:
    """Write to one address and return whether that worked; a letter that fails is logged."""
    try:
        await partners.call_external_api("POST", "/mailer/send", json={"to": address})
    except (TimeoutError, httpx2.HTTPError, ValueError) as error:
        log.warning("%s was not told: %r", address, error)
        return False
    return True


def questions(db: Sessions, user_id: UUID) -> list[Question]:
    """Return the six questions of a home page to `db`: each asks when it is called and awaited.

    They are the user, the recent orders, the featured products, and how many orders, cents and
    items there are in all.
    """
    users, orders, products = UserRepository(db), OrderRepository(db), ProductRepository(db)
    return [
        partial(users.get_by_id, user_id),
        partial(orders.get_recent_by_user, user_id),
        partial(products.get_featured, 5),
        partial(orders.count_by_user, user_id),
        partial(orders.sum_total_by_user, user_id),
        partial(orders.count_items_by_user, user_id),
    ]


def _page(answers: Sequence[Any], advice: Any) -> dict[str, Any]:
    user, recent, featured, *stats = answers
    return {
        "user": user.name,
        "recent": len(recent),
        "featured": [product.name for product in featured],
        "stats": stats,
        "recommended": advice,
    }


def visits(count: int) -> list[tuple[str, str]]:
    """Return `count` requests, each a method and a path, always the same.

    Of four, three are home pages and one is an order. Of eight, the third asks for the index that
    hangs.

    Raises:
        TypeError, ValueError: `count` is not a whole number, 1 or more.
    """
    return [_visit(number) for number in range(checks.count("count", count, at_least=1))]


def _visit(number: int) -> tuple[str, str]:
    if number % 4 == 3:
        return "POST", "/orders"
    return "GET", f"/page/{HANGING}" if number % 8 == 2 else "/page/new"


async def open_stocked(size: int, round_trip: float, *, patience: float) -> Shop:
    """Open a shop `round_trip` seconds away, its pool warm, its shelves full.

    The pool has `size` connections. Who waits longer than `patience` seconds for one gets the
    pool's TimeoutError. Every such shop has the same users and products. Close it when you are
    done.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range.
    """
    shop = await open_shop(pool_size=size, pool_timeout=patience, name=f"storefront {size}")
    await shop.warm()
    await restock(shop)
    shop.round_trip = round_trip
    return shop


async def restock(shop: Shop, quantity: int = 10_000) -> None:
    """Put `quantity` of each product into stock: one statement.

    Raises:
        TypeError, ValueError: `quantity` is not a whole number, 0 or more.
    """
    stocked = update(Product).values(stock=checks.count("quantity", quantity))
    async with shop.session() as session:
        await session.execute(stocked)
        await session.commit()


async def in_stock(db: Sessions, product_id: UUID) -> int:
    """Return how many of the product are left: one statement, by a repository on `db`.

    Raises:
        LookupError: there is no such product.
    """
    product = await ProductRepository(db).get_by_id(product_id)
    if product is None:
        raise LookupError(f"there is no product {product_id}")
    return product.stock


def user_summary() -> Select[str, int, int, int]:
    """Return one SELECT of a user's name, number of orders, cents spent and items bought.

    Its parameter is `user_id`, so that it need be built once only.
    """
    user_id = bindparam("user_id", type_=User.id.type)
    mine = Order.user_id == user_id
    orders = select(func.count()).select_from(Order).where(mine)
    spent = select(func.coalesce(func.sum(Order.total), 0)).where(mine)
    items = select(func.coalesce(func.sum(OrderItem.quantity), 0))
    bought = items.join(Order, Order.id == OrderItem.order_id).where(mine)
    figures = orders.scalar_subquery(), spent.scalar_subquery(), bought.scalar_subquery()
    return select(User.name, *figures).where(User.id == user_id)


def csv_text(users: Iterable[User]) -> str:
    """Return the users as lines of CSV: id, name, email."""
    buffer = io.StringIO()
    csv.writer(buffer).writerows([user.id, user.name, user.email] for user in users)
    return buffer.getvalue()
