"""The storefront of lesson 13: what its service needs and the lesson does not teach.

The lesson writes the service, faults included, and mends it. Here are the endpoints around it, the
partners it calls, and what its visitors ask for.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol
from uuid import UUID

from fastapi import FastAPI, Request
from sqlalchemy import Select, bindparam, func, select, update
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.responses import Response

from looplab.shop import ProductRepository, Shop, checks
from looplab.shop.models import Order, OrderItem, Product, User
from looplab.shop.partners import Mailer, SearchEngine, Supplier
from looplab.shop.repositories import Sessions

HANGING: Final = "outlet"
"""The index for which the search engine never answers."""
REFUSED: Final = "gone@shop.test"
"""The address that the mailer refuses."""
SUPPLIER_AT_ONCE: Final = 4
OFFERS_A_PAGE: Final = 3


class Partners:
    """A search engine, a supplier and a mailer in one app, each with a weak spot.

    The search engine never answers for the index `outlet`. The supplier serves four calls at once;
    with n under way, a call takes (n / 4)² times as long. The mailer refuses `gone@shop.test`.

    Attributes:
        app: the FastAPI app, with the partners under `/search`, `/supplier` and `/mailer`.
        search, supplier, mailer: the partners.
    """

    def __init__(self, *, latency: float) -> None:
        """Make the partners; `latency` is each one's, in seconds.

        Raises:
            TypeError, ValueError: `latency` is not a number of seconds, 0 or more.
        """
        news = {"new": [{"id": 1, "name": "Brass lamp"}], HANGING: []}
        self.search = SearchEngine(latency=latency, documents=news)
        self.search.fault(HANGING, hang=True)
        self.supplier = Supplier(latency=latency, degrade_above=SUPPLIER_AT_ONCE)
        self.mailer = Mailer(latency=latency)
        self.mailer.fault(REFUSED, failure=True)
        self.app = FastAPI()
        for partner in (self.search, self.supplier, self.mailer):
            self.app.mount(f"/{partner.name}", partner.app)

    def reset(self) -> None:
        """Count every partner's calls from 0 again."""
        for partner in (self.search, self.supplier, self.mailer):
            partner.reset()


class Service(Protocol):
    """What the endpoints ask of a service. `db` is what its middleware has put into the state."""

    middleware: Any

    def lifespan(self, app: FastAPI, /) -> AbstractAsyncContextManager[None]: ...

    async def home(self, db: Any, index: str) -> Any: ...

    async def offers(self, skus: Sequence[str]) -> Any: ...

    async def check_fraud(self, user_id: UUID) -> None: ...

    async def take_stock(self, db: Any, product_id: UUID) -> None: ...

    async def publish(self, event: str, addresses: Sequence[str]) -> None: ...

    async def export_users(self) -> Response: ...

    async def no_seat(self, request: Request, error: Exception) -> Response: ...


def storefront(service: Service, *, user_id: UUID, product_id: UUID) -> FastAPI:
    """Return an app with four endpoints around `service`, all for one user and one product.

    `GET /home/{index}`, `GET /offers/{number}` (three SKUs), `POST /orders/{follower}` (fraud
    check, stock, and a letter to two followers) and `GET /export/users`. Its `state.service` is the
    service. A pool's timeout is answered by the service's `no_seat`.
    """
    app = FastAPI(lifespan=service.lifespan)
    app.state.service = service
    app.add_middleware(service.middleware)
    no_seat: Callable[[Request, Exception], Awaitable[Response]] = service.no_seat
    app.add_exception_handler(PoolTimeoutError, no_seat)

    @app.get("/home/{index}")
    async def home(index: str, request: Request) -> Any:
        return await service.home(request.state.db, index)

    @app.get("/offers/{number}")
    async def offers(number: int) -> Any:
        return await service.offers([f"{number}-{place}" for place in range(OFFERS_A_PAGE)])

    @app.post("/orders/{follower}")
    async def order(follower: str, request: Request) -> None:
        await service.check_fraud(user_id)
        await service.take_stock(request.state.db, product_id)
        await service.publish("order.placed", ["ada@shop.test", f"{follower}@shop.test"])

    @app.get("/export/users", response_model=None)
    async def export_users() -> Response:
        return await service.export_users()

    return app


def visits(count: int) -> list[tuple[str, str]]:
    """Return `count` requests, each a method and a path, always the same.

    Of four, two are home pages, one is a page of offers and one is an order. Numbers 2 and 10 ask
    for the index that hangs, 7 and 19 write to the address that is refused; numbers start at 0.

    Raises:
        TypeError, ValueError: `count` is not a whole number, 1 or more.
    """
    return [_visit(number) for number in range(checks.count("count", count, at_least=1))]


def _visit(number: int) -> tuple[str, str]:
    if number % 2 == 0:
        return "GET", f"/home/{HANGING}" if number in (2, 10) else "/home/new"
    if number % 4 == 1:
        return "GET", f"/offers/{number}"
    return "POST", "/orders/gone" if number in (7, 19) else "/orders/grace"


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


def front_page(
    user: str, recent: Sequence[Order], featured: Sequence[Product], stats: Sequence[int]
) -> dict[str, Any]:
    """Return what a home page shows of a user called `user`; `stats` are three figures."""
    shelf = [product.name for product in featured]
    return {"user": user, "recent": len(recent), "featured": shelf, "stats": list(stats)}


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
