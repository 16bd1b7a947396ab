"""The process that signs users up, killed while letters wait."""

import asyncio
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from looplab.lab import serve
from looplab.shop import Shop, open_shop
from looplab.shop.models import OutboxMessage
from looplab.shop.partners import Mailer
from looplab.shop.signups import Keep, SignupsFailedError, signing_up

pytestmark = pytest.mark.anyio

ADDRESSES = ["ada@x.test", "bob@x.test", "cyd@x.test"]
PATIENCE = 60.0  # seconds
NOWHERE = "http://127.0.0.1:9"


async def killed_at_the_second_letter(shop: Shop, keep: Keep) -> list[str]:
    """Return the addresses that were mailed before and after the kill."""
    mailer = Mailer()
    mailer.fault(ADDRESSES[1], hang=True)
    async with (
        serve(mailer.app) as server,
        signing_up(shop.path, server.url, ADDRESSES, keep=keep) as signups,
        asyncio.timeout(PATIENCE),
    ):
        assert await signups.users_created() == ADDRESSES
        while mailer.calls < 2:  # noqa: ASYNC110 (a partner has no event)
            await asyncio.sleep(0.001)
        assert await signups.kill() != 0
        assert not psutil.pid_exists(signups.pid)
    assert mailer.abandoned == 1
    return [letter.to for letter in mailer.sent]


async def test_a_queue_dies_with_its_process() -> None:
    async with open_shop(users=0, products=0, name="queue") as shop:
        assert await killed_at_the_second_letter(shop, "queue") == ADDRESSES[:1]
        assert await shop.users.count() == 3
        async with shop.session() as session:
            assert (await session.scalars(select(OutboxMessage))).all() == []


async def test_an_outbox_holds_what_was_not_sent() -> None:
    async with open_shop(users=0, products=0, name="outbox") as shop:
        assert await killed_at_the_second_letter(shop, "outbox") == ADDRESSES[:1]
        async with shop.session() as session:
            rows = (await session.scalars(select(OutboxMessage).order_by(OutboxMessage.id))).all()
    assert [row.payload["to"] for row in rows] == ADDRESSES
    assert [row.published_at is None for row in rows] == [False, True, True]


async def test_leaving_the_block_ends_the_process() -> None:
    async with open_shop(users=0, products=0, name="left") as shop:
        async with signing_up(shop.path, NOWHERE, ADDRESSES, keep="outbox") as signups:
            assert psutil.pid_exists(signups.pid)
        assert not psutil.pid_exists(signups.pid)


async def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere" / "shop.sqlite3"
    async with signing_up(missing, NOWHERE, ADDRESSES, keep="queue") as signups:
        with pytest.raises(SignupsFailedError, match="unable to open database file"):
            await signups.users_created()


async def test_arguments_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep='memory': must be one of queue, outbox"):
        async with signing_up(tmp_path, NOWHERE, ADDRESSES, keep="memory"):  # ty: ignore
            pass
    with pytest.raises(ValueError, match="addresses is empty"):
        async with signing_up(tmp_path, NOWHERE, [], keep="queue"):
            pass
