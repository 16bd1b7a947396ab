"""What lesson 02 ships is attacked: failures, cancellations, crowds, and a real PostgreSQL."""

import asyncio
import gc
import warnings
from functools import partial
from typing import Any, cast
from uuid import UUID

import pytest
from fastapi import FastAPI, HTTPException
from sqlalchemy import text
from sqlalchemy.exc import IllegalStateChangeError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from looplab.lab import get, ms, xray
from looplab.shop import Shop, open_shop

pytestmark = pytest.mark.anyio

SMALL: dict[str, Any] = {"users": 40, "products": 30}
SHIPPED = ("practice-ship", "practice-app")


@pytest.fixture
async def lesson(cells_of):
    """Lesson 02's names, on a small shop that is 2 ms away."""
    cells = cells_of("02")
    pool: dict[str, Any] = {"pool_size": 6, "pool_timeout": ms(200)}
    async with open_shop(name="lesson 02", round_trip=0.002, **SMALL, **pool) as shop:
        await shop.warm()
        cells.names.update(shop=shop, buyer=await shop.any_user())
        await cells.run("setup")
        yield cells


async def running_statements(shop: Shop) -> int:
    """Return how many of the shop's connections to PostgreSQL are in the middle of `pg_sleep`."""
    sleeping = text(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = :name"
        " AND state = 'active' AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()"
    )
    async with shop.session() as session:
        return await session.scalar(sleeping, {"name": shop._database.name}) or 0


class TestTheDashboards:
    async def test_all_three_show_the_same(self, lesson):
        names = await lesson.run("naive-service", "pattern-stats", "pattern-service", *SHIPPED)
        shop, buyer = names["shop"], names["buyer"]
        pages = [
            await names["one_by_one"](shop, buyer),
            await names["DashboardService"](shop).get_dashboard_data(buyer),
            await names["shipped_dashboard"](shop, buyer),
        ]
        for page in pages:
            ids = [page["user"].id, *(row.id for row in page["recent_orders"])]
            ids += [row.id for row in page["featured_products"]]
            assert ids == [pages[0]["user"].id, *ids[1:]]
            assert len(ids) > 8
            assert list(page["stats"]) == pages[0]["stats"]

    async def test_the_shipped_one_asks_four_times(self, lesson):
        names = await lesson.run(*SHIPPED)
        shop = names["shop"]
        shop.reset_counters()
        await names["shipped_dashboard"](shop, names["buyer"])
        assert (shop.statements, shop.peak_checked_out) == (4, 4)

    async def test_a_user_without_orders_has_a_dashboard(self, lesson):
        names = await lesson.run("naive-service", *SHIPPED)
        shop = names["shop"]
        new = await shop.users.create(name="Grace", email="grace@example.com")
        shipped = await names["shipped_dashboard"](shop, new.id)
        assert list(shipped["stats"]) == [0, 0, 0]
        assert (await names["one_by_one"](shop, new.id))["stats"] == [0, 0, 0]

    async def test_branches_on_one_session_make_eight_trips(self, lesson):
        names = await lesson.run("pattern-stats", "pattern-service")
        shop = names["shop"]
        shop.reset_counters()
        async with shop.session() as session:
            service = names["DashboardService"](shop.on(session))
            shared = await xray(service.get_dashboard_data(names["buyer"]), show=False)
        assert (shop.round_trips, shop.peak_checked_out) == (8, 1)
        assert shared.duration >= 7 * shop.round_trip, "ROLLBACK comes after it"


class TestUnwrapped:
    @pytest.fixture
    async def unwrapped(self, lesson):
        return (await lesson.run("breaks-404-mended"))["unwrapped"]

    async def test_a_404_of_a_group_comes_out_alone(self, unwrapped):
        refused = HTTPException(404)

        async def work():
            raise ExceptionGroup("a branch failed", [refused])

        with pytest.raises(HTTPException) as caught:
            await unwrapped(work)
        assert caught.value is refused

    async def test_a_bug_beside_the_404_is_a_500(self, unwrapped):
        async def work():
            raise ExceptionGroup("two branches failed", [HTTPException(404), KeyError("total")])

        app = FastAPI()
        app.add_api_route("/", partial(unwrapped, work))
        assert (await get(app, "/", raise_errors=False)).status_code == 500
        with pytest.raises(ExceptionGroup) as caught:
            await unwrapped(work)
        assert caught.value.subgroup(HTTPException)
        assert caught.value.subgroup(KeyError)


class TestOneError:
    @pytest.fixture
    async def one_error(self, lesson):
        return (await lesson.run(*SHIPPED))["one_error"]

    @pytest.mark.parametrize("count", [1, 2, 5])
    async def test_errors_of_one_type_come_out_as_the_first(self, one_error, count):
        errors = [PoolTimeout(str(number)) for number in range(count)]
        assert one_error(ExceptionGroup("", errors)) is errors[0]

    async def test_it_looks_into_groups_within_groups(self, one_error):
        first, last = HTTPException(404), HTTPException(403)
        inner = ExceptionGroup("", [ExceptionGroup("", [first]), last])
        assert one_error(ExceptionGroup("", [inner])) is first

    @pytest.mark.parametrize(
        "errors",
        [
            [HTTPException(404), KeyError("a bug")],
            [KeyError("a bug"), HTTPException(404)],
            [LookupError("handled"), KeyError("a bug of a subclass")],
            [ExceptionGroup("", [HTTPException(404), KeyError("a bug")]), HTTPException(404)],
            [HTTPException(404), ExceptionGroup("", [ExceptionGroup("", [KeyError("deep")])])],
        ],
        ids=["last", "first", "subclass", "beside-in-a-group", "deep"],
    )
    async def test_a_bug_beside_is_never_hidden(self, one_error, errors):
        group = ExceptionGroup("", errors)
        assert one_error(group) is group


class TestFailures:
    @pytest.mark.parametrize(
        ("repository", "method"),
        [
            ("users", "get_by_id"),
            ("orders", "get_recent_by_user"),
            ("products", "get_featured"),
            ("orders", "get_totals_by_user"),
        ],
    )
    async def test_whichever_branch_fails_its_error_comes_out_and_nothing_runs_on(
        self, lesson, monkeypatch, repository, method
    ):
        names = await lesson.run(*SHIPPED)
        shop = names["shop"]

        async def fails(*_arguments, **_options):
            raise HTTPException(403)

        monkeypatch.setattr(getattr(shop, repository), method, fails)
        before = asyncio.all_tasks()
        with pytest.raises(HTTPException) as caught:
            await names["shipped_dashboard"](shop, names["buyer"])
        assert caught.value.status_code == 403
        assert asyncio.all_tasks() == before
        assert shop.checked_out == 0

    async def test_a_dashboard_that_is_cancelled_ends_as_cancelled_and_leaves_nothing(self, lesson):
        names = await lesson.run(*SHIPPED)
        shop = names["shop"]
        before = asyncio.all_tasks()
        page = asyncio.create_task(names["shipped_dashboard"](shop, names["buyer"]))
        while shop.checked_out < 4:  # noqa: ASYNC110
            await asyncio.sleep(0)
        page.cancel()
        with pytest.raises(asyncio.CancelledError):
            await page
        assert asyncio.all_tasks() == before
        assert shop.checked_out == 0

    async def test_a_deadline_around_it_is_a_timeout(self, lesson):
        names = await lesson.run(*SHIPPED)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.002):
                await names["shipped_dashboard"](names["shop"], names["buyer"])
        assert names["shop"].checked_out == 0


class TestACrowd:
    async def test_each_client_gets_a_page_or_a_503_and_the_pool_stays_whole(self, lesson):
        names = await lesson.run(*SHIPPED)
        shop, app = names["shop"], names["shipped_app"]
        shop.round_trip = ms(20)
        for _ in range(2):
            calls = [get(app, "/", raise_errors=False) for _ in range(20)]
            statuses = [answer.status_code for answer in await asyncio.gather(*calls)]
            assert set(statuses) == {200, 503}
            assert shop.checked_out == 0
        shop.round_trip = 0.002
        shop.reset_counters()
        await asyncio.gather(*[shop.users.count() for _ in range(12)])
        assert shop.peak_checked_out == 6

    async def test_a_503_says_when_to_come_back(self, lesson):
        names = await lesson.run(*SHIPPED)
        busy = await names["busy"](None, PoolTimeout("full"))
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")


@pytest.mark.postgres
class TestOnPostgreSQL:
    async def test_a_crowd_gets_pages_or_the_pools_own_error(self, lesson, postgres_server):
        names = await lesson.run(*SHIPPED)
        pool: dict[str, Any] = {"pool_size": 2, "pool_timeout": 0.1}
        async with open_shop(name="pg", database_url=postgres_server, **pool, **SMALL) as served:
            await served.warm()
            buyer, held = await served.any_user(), []
            for _ in range(2):
                session = served.session()
                await session.execute(text("SELECT 1"))
                held.append(session)
            with pytest.raises(PoolTimeout):
                await names["shipped_dashboard"](served, buyer)
            for session in held:
                await session.close()
            orders, *_ = (await names["shipped_dashboard"](served, buyer))["stats"]
            assert orders > 0
            assert served.checked_out == 0

    async def test_a_failing_branch_stops_the_statements_of_the_others(
        self, lesson, monkeypatch, postgres_server
    ):
        names = await lesson.run(*SHIPPED)
        async with open_shop(name="pg", database_url=postgres_server, **SMALL) as served:

            async def slow(*_arguments, **_options):
                async with served.session() as session:
                    await session.execute(text("SELECT pg_sleep(60)"))

            async def missing(_user_id: UUID):
                async with asyncio.timeout(20):
                    while await running_statements(served) < 3:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                raise HTTPException(404)

            monkeypatch.setattr(served.orders, "get_recent_by_user", slow)
            monkeypatch.setattr(served.orders, "get_totals_by_user", slow)
            monkeypatch.setattr(served.products, "get_featured", slow)
            monkeypatch.setattr(served.users, "get_by_id", missing)
            with pytest.raises(HTTPException):
                await names["shipped_dashboard"](served, UUID(int=0))
            assert served.checked_out == 0
            assert await running_statements(served) == 0


class TestTheSecondHelping:
    @pytest.fixture
    def deeper(self, cells_of, lesson):
        cells = cells_of("02_deeper")
        cells.names.update(shop=lesson.names["shop"], buyer=lesson.names["buyer"])
        return cells

    async def test_a_connection_lost_by_a_shared_session_comes_back_with_the_collector(
        self, deeper
    ):
        await deeper.run("setup")
        names = await deeper.define("session-as-written")
        branches = names["branches"] = []
        empty = await open_shop(name="empty", round_trip=0.002, **SMALL)
        pool = cast("QueuePool", empty.engine.pool)
        with pytest.raises(IllegalStateChangeError) as caught:
            await names["as_written"](empty)
        assert isinstance(caught.value, InvalidRequestError)
        await asyncio.wait(branches)
        assert pool.checkedout() == 1
        branches.clear()
        del caught
        with warnings.catch_warnings(action="ignore"):
            await asyncio.sleep(0)
            gc.collect()
            assert pool.checkedout() == 0
            await empty.close()

    async def test_a_limit_in_time_gives_every_seat_back(self, deeper):
        await deeper.run("setup")
        names = await deeper.run("load-asks", "load-timed")
        seats = names["seats"]

        async def query():
            await asyncio.sleep(ms(150))

        calls = [names["limited_in_time"](query) for _ in range(12)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(answer) for answer in answers].count(TimeoutError) == 2
        assert seats.borrowed_tokens == 0
        holding = [asyncio.create_task(names["limited_in_time"](query)) for _ in range(9)]
        await asyncio.sleep(ms(20))
        for task in holding:
            task.cancel()
        await asyncio.wait(holding)
        assert seats.borrowed_tokens == 0
        assert seats.statistics().tasks_waiting == 0
