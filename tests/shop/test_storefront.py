"""The storefront of lesson 13: its endpoints, its middleware, its partners, its visits."""

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import httpx
import httpx2
import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from looplab.shop import Shop
from looplab.shop.storefront import (
    FOLLOWERS,
    HANGING,
    AsyncResourceMiddleware,
    LendSessions,
    Partners,
    csv_text,
    in_stock,
    open_stocked,
    questions,
    restock,
    storefront,
    user_summary,
    visits,
)

pytestmark = pytest.mark.anyio


class Noting:
    """Calls no partner: notes what it is asked, and fails for the addresses in ``refused``."""

    refused: tuple[str, ...] = ()

    def __init__(self, url: str) -> None:
        self.url = url
        self.calls: list[Any] = []
        self.closed = False

    async def call_external_api(self, method: str, path: str, **more: Any) -> Any:
        self.calls.append((method, path, more))
        if more.get("json", {}).get("to") in self.refused:
            raise httpx2.ReadTimeout("late")
        return {}

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture
async def shop() -> AsyncGenerator[Shop]:
    shop = await open_stocked(2, 0.0, patience=0.5)
    yield shop
    await shop.close()


async def app_of(shop: Shop, **parts: Any) -> Any:
    """Return a storefront of parts that do next to nothing, but for those given."""

    async def pass_fraud(user_id: Any) -> None: ...

    async def ask(asked: Sequence[Any]) -> list[Any]:
        return [await question() for question in asked]

    async def recommend(partners: Any, index: str) -> str:
        return f"news of {index} at {partners.url}"

    [product] = await shop.products.get_featured(1)
    usual: dict[str, Any] = {
        "shop": shop,
        "partners": Noting,
        "middleware": LendSessions,
        "check_fraud": pass_fraud,
        "ask": ask,
        "recommend": recommend,
        "url": "http://partners.test",
        "user_id": await shop.any_user(),
        "product_id": product.id,
    }
    return storefront(**usual | parts)


def client_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.test")


@pytest.mark.parametrize("middleware", [AsyncResourceMiddleware, LendSessions])
async def test_endpoints_put_the_parts_together(shop: Shop, middleware: Any) -> None:
    app = await app_of(shop, middleware=middleware)
    [lamp] = await shop.products.get_featured(1)
    user = await shop.users.get_by_id(await shop.any_user())
    assert user is not None
    async with app.router.lifespan_context(app), client_of(app) as client:
        page = (await client.get("/page/new")).json()
        ordered = await client.post("/orders")
        assert (await client.get("/page/no%2Fsuch")).status_code == 404
        assert (await client.get("/page/x1")).status_code == 422
    assert page["user"] == user.name
    assert len(page["featured"]) == 5
    assert len(page["stats"]) == 3
    assert page["recommended"] == "news of new at http://partners.test"
    assert ordered.json() == {"not told": []}
    assert await in_stock(shop.sessions, lamp.id) == lamp.stock - 1
    calls = app.state.partners.calls
    assert [more["json"]["to"] for _, _, more in calls] == list(FOLLOWERS)
    assert app.state.partners.closed


async def test_a_letter_that_fails_is_named_and_logged(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    class Refusing(Noting):
        refused = FOLLOWERS[:1]

    app = await app_of(shop, partners=Refusing)
    with caplog.at_level(logging.WARNING, "shop"):
        async with app.router.lifespan_context(app), client_of(app) as client:
            ordered = await client.post("/orders")
    assert (ordered.status_code, ordered.json()) == (200, {"not told": [FOLLOWERS[0]]})


async def test_what_is_sold_out_is_a_409_and_writes_to_nobody(shop: Shop) -> None:
    await restock(shop, 0)
    app = await app_of(shop)
    async with app.router.lifespan_context(app), client_of(app) as client:
        assert (await client.post("/orders")).status_code == 409
    assert app.state.partners.calls == []


async def test_a_full_pool_is_a_503(shop: Shop) -> None:
    async def ask(asked: Sequence[Any]) -> list[Any]:
        raise PoolTimeoutError("no seat")

    app = await app_of(shop, ask=ask)
    async with app.router.lifespan_context(app), client_of(app) as client:
        full = await client.get("/page/new")
    assert (full.status_code, full.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize(
    ("middleware", "kind", "held"),
    [(AsyncResourceMiddleware, AsyncSession, 1), (LendSessions, async_sessionmaker, 0)],
)
async def test_middleware_hands_on_a_held_session_or_the_sessionmaker(
    shop: Shop, middleware: Any, kind: type, held: int
) -> None:
    seen: list[Any] = []

    async def recommend(partners: Any, index: str) -> None:
        seen.append(shop.checked_out)

    async def ask(asked: Sequence[Any]) -> list[Any]:
        seen.append(type(asked[0].func.__self__._sessions))
        return [await question() for question in asked]

    app = await app_of(shop, middleware=middleware, recommend=recommend, ask=ask)
    async with app.router.lifespan_context(app), client_of(app) as client:
        assert (await client.get("/page/new")).status_code == 200
    assert seen == [kind, held]
    assert shop.checked_out == 0


async def test_a_home_page_asks_six_questions(shop: Shop) -> None:
    asked = questions(shop.sessions, await shop.any_user())
    shop.reset_counters()
    for question in asked:
        await question()
    assert (len(asked), shop.statements) == (6, 6)


async def test_the_search_engine_has_its_weak_spot() -> None:
    partners = Partners(latency=0)
    async with client_of(partners.app) as client:
        found = await client.get("/search/new/_search")
        taken = await client.post("/mailer/send", json={"to": FOLLOWERS[0]})
    assert len(found.json()["hits"]["hits"]) == 1
    assert taken.status_code == 202
    assert partners.search.faults[HANGING].hang


def test_visits_are_always_the_same() -> None:
    asked = visits(24)
    assert asked == visits(24)
    assert Counter(asked) == {
        ("GET", "/page/new"): 15,
        ("GET", f"/page/{HANGING}"): 3,
        ("POST", "/orders"): 6,
    }
    assert visits(8) == asked[:8]
    assert asked[2] == ("GET", f"/page/{HANGING}")
    with pytest.raises(ValueError, match="count=0"):
        visits(0)


async def test_stock_and_summary_come_from_the_database(shop: Shop) -> None:
    await restock(shop, 7)
    featured = await shop.products.get_featured(2)
    assert [product.stock for product in featured] == [7, 7]
    async with shop.session() as session:
        assert await in_stock(session, featured[1].id) == 7
    buyer = await shop.any_user()
    with pytest.raises(LookupError, match=str(buyer)):
        await in_stock(shop.sessions, buyer)
    with pytest.raises(ValueError, match="quantity=-1"):
        await restock(shop, -1)
    user = await shop.users.get_by_id(buyer)
    assert user is not None
    stats = (
        await shop.orders.count_by_user(buyer),
        await shop.orders.sum_total_by_user(buyer),
        await shop.orders.count_items_by_user(buyer),
    )
    shop.reset_counters()
    async with shop.session() as session:
        name, *summed = (await session.execute(user_summary(), {"user_id": buyer})).one()
    assert shop.statements == 1
    assert (name, tuple(summed)) == (user.name, stats)
    assert csv_text([user]) == f"{user.id},{user.name},{user.email}\r\n"


async def test_stocked_shops_have_the_same_users_and_products(shop: Shop) -> None:
    other = await open_stocked(3, 0.01, patience=1)
    try:
        assert await other.any_user() == await shop.any_user()
        assert other.round_trip == 0.01
        [here] = await shop.products.get_featured(1)
        [there] = await other.products.get_featured(1)
        assert here.id == there.id
    finally:
        await other.close()
