"""The storefront of lesson 13: its endpoints, its partners' weak spots, its visits."""

from collections import Counter
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.responses import Response

from looplab.shop import open_shop
from looplab.shop.storefront import (
    HANGING,
    REFUSED,
    Partners,
    csv_text,
    front_page,
    in_stock,
    restock,
    storefront,
    user_summary,
    visits,
)

pytestmark = pytest.mark.anyio

USER, PRODUCT = uuid4(), uuid4()


class Bare:
    """Sets `db`, as the lesson's middleware does."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("state", {})["db"] = "the db"
        await self.app(scope, receive, send)


class Noted:
    """A service that notes how it is called."""

    middleware = Bare

    def __init__(self) -> None:
        self.calls: list[Any] = []

    @asynccontextmanager
    async def lifespan(self, app):
        yield

    async def home(self, db, index):
        if index == "full":
            raise PoolTimeoutError("no seat")
        return [db, index]

    async def offers(self, skus):
        return skus

    async def check_fraud(self, user_id):
        self.calls.append(("fraud", user_id))

    async def take_stock(self, db, product_id):
        self.calls.append(("stock", db, product_id))

    async def publish(self, event, addresses):
        self.calls.append((event, addresses))

    async def export_users(self):
        return Response("a,b", media_type="text/csv")

    async def no_seat(self, request, error):
        return Response(str(error), status_code=503)


def client_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.test")


async def test_endpoints_ask_the_service() -> None:
    service = Noted()
    app = storefront(service, user_id=USER, product_id=PRODUCT)
    assert app.state.service is service
    async with client_of(app) as client:
        assert (await client.get("/home/new")).json() == ["the db", "new"]
        assert (await client.get("/offers/5")).json() == ["5-0", "5-1", "5-2"]
        assert (await client.post("/orders/grace")).status_code == 200
        assert (await client.get("/export/users")).text == "a,b"
        full = await client.get("/home/full")
    assert (full.status_code, full.text) == (503, "no seat")
    assert service.calls == [
        ("fraud", USER),
        ("stock", "the db", PRODUCT),
        ("order.placed", ["ada@shop.test", "grace@shop.test"]),
    ]


async def test_partners_have_their_weak_spots() -> None:
    partners = Partners(latency=0)
    async with client_of(partners.app) as client:
        found = await client.get("/search/new/_search")
        stock = await client.get("/supplier/stock/5-0")
        taken = await client.post("/mailer/send", json={"to": "ada@shop.test"})
        refused = await client.post("/mailer/send", json={"to": REFUSED})
    assert len(found.json()["hits"]["hits"]) == 1
    assert stock.json()["sku"] == "5-0"
    assert (taken.status_code, refused.status_code) == (202, 503)
    assert partners.search.faults[HANGING].hang
    assert partners.supplier.degrade_above == 4
    partners.reset()
    assert [p.calls for p in (partners.search, partners.supplier, partners.mailer)] == [0, 0, 0]


def test_visits_are_always_the_same() -> None:
    asked = visits(36)
    assert asked == visits(36)
    kinds = Counter(path.split("/")[1] for _, path in asked)
    assert kinds == {"home": 18, "offers": 9, "orders": 9}
    assert asked.count(("GET", f"/home/{HANGING}")) == 2
    assert asked.count(("POST", "/orders/gone")) == 2
    with pytest.raises(ValueError, match="count=0"):
        visits(0)


async def test_stock_and_summary_come_from_the_database() -> None:
    async with open_shop(name="storefront") as shop:
        await restock(shop, 7)
        featured = await shop.products.get_featured(2)
        assert [product.stock for product in featured] == [7, 7]
        assert await in_stock(shop.sessions, featured[0].id) == 7
        async with shop.session() as session:
            assert await in_stock(session, featured[1].id) == 7
        with pytest.raises(LookupError, match=str(PRODUCT)):
            await in_stock(shop.sessions, PRODUCT)
        with pytest.raises(ValueError, match="quantity=-1"):
            await restock(shop, -1)
        buyer = await shop.any_user()
        user = await shop.users.get_by_id(buyer)
        assert user is not None
        stats = (
            await shop.orders.count_by_user(buyer),
            await shop.orders.sum_total_by_user(buyer),
            await shop.orders.count_items_by_user(buyer),
        )
        recent = await shop.orders.get_recent_by_user(buyer)
        shop.reset_counters()
        async with shop.session() as session:
            name, *summed = (await session.execute(user_summary(), {"user_id": buyer})).one()
        assert shop.statements == 1
    assert (name, tuple(summed)) == (user.name, stats)
    page = front_page(user.name, recent, featured, stats)
    assert page == {
        "user": user.name,
        "recent": len(recent),
        "featured": [product.name for product in featured],
        "stats": list(stats),
    }
    assert csv_text([user]) == f"{user.id},{user.name},{user.email}\r\n"
