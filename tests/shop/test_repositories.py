import asyncio
import inspect
from datetime import datetime

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import object_session

from looplab.shop import OrderRepository, ProductRepository, UserRepository, open_shop
from looplab.shop.models import User, new_id
from looplab.shop.seed import seeded_products, seeded_user_id

pytestmark = pytest.mark.anyio

PRODUCT = seeded_products(1)[0].id
ADA = seeded_user_id(3)

CALLS = [
    ("users", "get_by_id", (ADA,)),
    ("users", "get_by_email", ("user3@example.com",)),
    ("users", "count", ()),
    ("users", "get_batch", (10, 5)),
    ("users", "get_batch_after", (None, 5)),
    ("users", "get_batch_after", ((datetime(2024, 1, 1), ADA), 5)),
    ("users", "get_recent_buyers", (PRODUCT, 5)),
    ("users", "create", {"name": "Grace", "email": "grace@example.com"}),
    ("users", "delete", (ADA,)),
    ("orders", "get_by_id", (ADA,)),
    ("orders", "get_recent_by_user", (ADA, 5)),
    ("orders", "get_items", (ADA,)),
    ("orders", "count_by_user", (ADA,)),
    ("orders", "sum_total_by_user", (ADA,)),
    ("orders", "count_items_by_user", (ADA,)),
    ("orders", "get_totals_by_user", (ADA,)),
    ("orders", "count_sold", (PRODUCT,)),
    ("orders", "create", {"user_id": ADA, "total": 100}),
    ("orders", "set_status", (ADA, "paid")),
    ("products", "get_by_id", (PRODUCT,)),
    ("products", "get_featured", (10,)),
    ("products", "get_bought_with", (PRODUCT, 5)),
    ("products", "create", {"name": "Lamp", "price": 100}),
    ("products", "reserve", (PRODUCT, 1)),
]
NAMES = [f"{repository}.{method}" for repository, method, _ in CALLS]


def call(repository, method, arguments):
    function = getattr(repository, method)
    return function(**arguments) if isinstance(arguments, dict) else function(*arguments)


def waiting_in(coroutine):
    """Return the names of the shop's coroutines in the await chain, outermost first."""
    names = []
    while coroutine is not None:
        if inspect.iscoroutine(coroutine) and "shop" in coroutine.cr_code.co_filename:
            names.append(coroutine.cr_code.co_name)
        coroutine = getattr(coroutine, "cr_await", None)
    return names


@pytest.fixture
async def embedded():
    async with open_shop(name="repositories", users=40, products=30) as shop:
        yield shop


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def shop(request):
    url = request.getfixturevalue("postgres_server") if request.param == "postgres" else None
    async with open_shop(name="repositories", users=40, products=30, database_url=url) as shop:
        yield shop


def test_every_public_method_is_called_here():
    public = {
        (name, method)
        for name, repository in [
            ("users", UserRepository),
            ("orders", OrderRepository),
            ("products", ProductRepository),
        ]
        for method in vars(repository)
        if not method.startswith("_")
    }
    assert public == {(repository, method) for repository, method, _ in CALLS}


@pytest.mark.parametrize(("repository", "method", "arguments"), CALLS, ids=NAMES)
async def test_a_call_is_one_statement_and_returns_its_connection(
    embedded, repository, method, arguments
):
    shop = embedded
    shop.reset_counters()
    await call(getattr(shop, repository), method, arguments)
    assert shop.statements == 1
    assert shop.checked_out == 0
    assert shop.peak_checked_out == 1


@pytest.mark.parametrize(("repository", "method", "arguments"), CALLS, ids=NAMES)
async def test_calls_on_one_session_share_its_connection(embedded, repository, method, arguments):
    shop = embedded
    async with shop.session() as session:
        shared = type(getattr(shop, repository))(session)
        shop.reset_counters()
        await call(shared, method, arguments)
        assert shop.statements == 1
        await call(shared, "get_by_id", (ADA,))
        assert shop.statements == 2
        assert shop.peak_checked_out == 1


@pytest.mark.parametrize(("repository", "method", "arguments"), CALLS, ids=NAMES)
async def test_wherever_a_call_waits_its_own_name_is_the_innermost_of_the_shop(
    embedded, repository, method, arguments
):
    shop = embedded
    shop.round_trip = 0.005
    task = asyncio.create_task(call(getattr(shop, repository), method, arguments))
    seen = set()
    await asyncio.sleep(0)
    while not task.done():
        seen.add(waiting_in(task.get_coro())[-1])
        await asyncio.sleep(0)
    await task
    assert seen == {method}


@pytest.mark.postgres
async def test_on_postgresql_too_each_call_is_one_statement_on_a_connection(postgres_server):
    opened = open_shop(name="calls", users=40, products=30, database_url=postgres_server)
    # The user is deleted last, since the other calls are about that user.
    calls = sorted(CALLS, key=lambda each: each[1] == "delete")
    async with opened as shop:
        for repository, method, arguments in calls[:-1]:
            shop.reset_counters()
            await call(getattr(shop, repository), method, arguments)
            used = (shop.statements, shop.peak_checked_out, shop.checked_out)
            assert used == (1, 1, 0), f"{repository}.{method}"
        async with shop.session() as session:
            shop.reset_counters()
            for repository, method, arguments in calls:
                await call(type(getattr(shop, repository))(session), method, arguments)
            assert (shop.statements, shop.peak_checked_out) == (len(CALLS), 1)


async def test_repositories_on_one_session_share_its_connection(shop):
    with pytest.raises(TypeError, match="must be an AsyncSession"):
        shop.on(shop.sessions)
    shop.reset_counters()
    async with shop.session() as session:
        sharing = shop.on(session)
        counts = [await sharing.users.count(), len(await sharing.products.get_featured(3))]
        assert await sharing.orders.count_by_user(new_id()) == 0
    assert counts == [await shop.users.count(), 3]
    assert shop.peak_checked_out == 1


async def test_the_dashboard_adds_up(shop):
    user_id = await shop.any_user()
    orders = await shop.orders.get_recent_by_user(user_id, limit=100)
    items = [item for order in orders for item in await shop.orders.get_items(order.id)]
    assert await shop.orders.count_by_user(user_id) == len(orders) > 5
    assert await shop.orders.sum_total_by_user(user_id) == sum(order.total for order in orders)
    assert await shop.orders.count_items_by_user(user_id) == sum(item.quantity for item in items)
    assert await shop.orders.get_totals_by_user(user_id) == (
        len(orders),
        sum(order.total for order in orders),
        sum(item.quantity for item in items),
    )
    newest = await shop.orders.get_recent_by_user(user_id, limit=5)
    assert [order.id for order in newest] == [order.id for order in orders[:5]]
    assert [order.created_at for order in orders] == sorted(
        (order.created_at for order in orders), reverse=True
    )


async def test_what_is_not_there(shop):
    nobody = new_id()
    assert await shop.users.get_by_id(nobody) is None
    assert await shop.users.get_by_email("nobody@example.com") is None
    assert await shop.orders.get_by_id(nobody) is None
    assert await shop.products.get_by_id(nobody) is None
    assert await shop.orders.get_recent_by_user(nobody) == []
    assert await shop.orders.count_by_user(nobody) == 0
    assert await shop.orders.sum_total_by_user(nobody) == 0
    assert await shop.orders.count_items_by_user(nobody) == 0
    assert await shop.orders.get_totals_by_user(nobody) == (0, 0, 0)
    assert await shop.orders.count_sold(nobody) == 0
    assert await shop.users.delete(nobody) is False
    assert await shop.orders.set_status(nobody, "paid") is False


async def test_objects_stay_readable_after_their_session_has_closed(shop):
    user = await shop.users.create(name="Grace", email="grace@example.com")
    assert object_session(user) is None
    assert (user.name, user.id.version) == ("Grace", 7)
    [product, *_] = await shop.products.get_featured()
    assert product.featured


async def test_featured_products_come_by_name(shop):
    featured = await shop.products.get_featured(limit=2)
    assert len(featured) == 2
    assert [p.name for p in featured] == sorted(p.name for p in seeded_products(30) if p.featured)[
        :2
    ]


async def test_keyset_and_offset_pages_hold_the_same_users(shop):
    by_offset = [
        user.id for offset in range(0, 40, 7) for user in await shop.users.get_batch(offset, 7)
    ]
    by_key, last = [], None
    while page := await shop.users.get_batch_after(last, 7):
        by_key += [user.id for user in page]
        last = (page[-1].created_at, page[-1].id)
    assert by_offset == by_key == [seeded_user_id(n) for n in range(1, 41)]


async def test_a_deleted_row_shifts_offset_pages_but_not_keyset_pages(shop):
    first = await shop.users.get_batch(0, 10)
    assert await shop.users.delete(first[0].id)
    by_offset = await shop.users.get_batch(10, 10)
    by_key = await shop.users.get_batch_after((first[-1].created_at, first[-1].id), 10)
    assert by_key[0].id == seeded_user_id(11)
    assert by_offset[0].id == seeded_user_id(12)


async def test_deleting_a_user_deletes_the_orders(shop):
    user_id = await shop.any_user()
    assert await shop.users.delete(user_id)
    assert await shop.orders.count_by_user(user_id) == 0


async def test_the_product_page(shop):
    product = seeded_products(30)[0].id
    buyers = await shop.users.get_recent_buyers(product, limit=3)
    assert len(buyers) == 3
    assert all(isinstance(buyer, User) for buyer in buyers)
    assert await shop.orders.count_sold(product) > 0
    others = await shop.products.get_bought_with(product, limit=3)
    assert len(others) == 3
    assert product not in {other.id for other in others}


async def test_reserving_stops_at_the_last_one(shop):
    lamp = await shop.products.create(name="Lamp", price=100, stock=3)
    taken = await asyncio.gather(*[shop.products.reserve(lamp.id) for _ in range(5)])
    assert sorted(taken) == [False, False, True, True, True]
    left = await shop.products.get_by_id(lamp.id)
    assert left is not None
    assert left.stock == 0


async def test_a_sessionmaker_commits_and_a_session_leaves_it_to_its_owner(shop):
    await shop.users.create(name="Kept", email="kept@example.com")
    assert await shop.users.get_by_email("kept@example.com")
    async with shop.session() as session:
        users = UserRepository(session)
        await users.create(name="Undone", email="undone@example.com")
        assert await users.get_by_email("undone@example.com")
    assert await shop.users.get_by_email("undone@example.com") is None


async def test_a_failed_insert_leaves_no_connection_behind(shop):
    with pytest.raises(IntegrityError):
        await shop.orders.create(user_id=new_id(), total=100)
    with pytest.raises(IntegrityError):
        await shop.users.create(id=ADA, name="Twice", email="twice@example.com")
    assert shop.checked_out == 0


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda shop: shop.users.get_batch(-1, 5), "offset=-1: must be a whole number, 0 or more"),
        (lambda shop: shop.users.get_batch_after(None, -5), "limit=-5"),
        (lambda shop: shop.orders.get_recent_by_user(ADA, limit=-1), "limit=-1"),
        (lambda shop: shop.products.get_featured(limit=-1), "limit=-1"),
        (lambda shop: shop.orders.create(user_id=ADA, total=-5), "total=-5"),
        (lambda shop: shop.products.reserve(PRODUCT, 0), "quantity=0"),
    ],
)
async def test_bad_arguments_are_named_before_anything_is_sent(shop, attempt, message):
    shop.reset_counters()
    with pytest.raises(ValueError, match=message):
        await attempt(shop)
    assert shop.statements == 0


@pytest.mark.parametrize("repository", [UserRepository, OrderRepository, ProductRepository])
def test_a_repository_takes_a_sessionmaker_or_a_session(repository):
    with pytest.raises(TypeError, match=r"^sessions='shop': must be an async_sessionmaker"):
        repository("shop")
