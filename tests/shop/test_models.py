from datetime import timedelta

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from looplab.shop import open_shop
from looplab.shop.models import Notification, Order, OutboxMessage, User, new_id, utc_now
from looplab.shop.seed import seeded_user_id

pytestmark = pytest.mark.anyio


@pytest.fixture
async def shop():
    async with open_shop(name="models", users=8, products=5) as shop:
        yield shop


def test_new_ids_are_version_7_distinct_and_of_the_present():
    ids = [new_id() for _ in range(1_000)]
    assert len(set(ids)) == 1_000
    assert {(id.version, id.variant) for id in ids} == {(7, "specified in RFC 4122")}
    milliseconds = [id.int >> 80 for id in ids]
    assert milliseconds == sorted(milliseconds)


def test_time_is_utc_without_a_zone():
    assert utc_now().tzinfo is None


async def test_ids_are_stored_as_32_hex_digits(shop):
    user = await shop.users.create(name="Grace Hopper", email="grace@example.com")
    async with shop.session() as session:
        stored = await session.scalar(text("SELECT id FROM users WHERE email LIKE 'grace%'"))
    assert stored == user.id.hex


async def test_defaults_are_filled_in(shop):
    user = seeded_user_id(1)
    async with shop.session() as session:
        order = Order(user_id=user, total=100)
        note = Notification(user_id=user, message="Hello")
        letter = OutboxMessage(event="user.created", payload={"id": str(user)})
        session.add_all([order, note, letter])
        await session.commit()
    assert order.status == "pending"
    assert note.sent_at is None
    assert letter.id == 1
    assert letter.published_at is None
    assert utc_now() - order.created_at < timedelta(minutes=5)


async def test_outbox_payload_round_trips(shop):
    payload = {"name": "Zoë", "tags": [1, None, True]}
    async with shop.session() as session:
        session.add(OutboxMessage(event="user.created", payload=payload))
        await session.commit()
    async with shop.session() as session:
        assert (await session.scalars(select(OutboxMessage))).one().payload == payload


async def test_foreign_keys_are_enforced(shop):
    async with shop.session() as session:
        session.add(Order(user_id=new_id(), total=100))
        with pytest.raises(IntegrityError):
            await session.commit()


def test_each_model_says_what_it_is():
    assert repr(User(name="Ada", email="a@b.c")) == "User(name='Ada', email='a@b.c')"
    assert "total=5" in repr(Order(total=5, status="paid"))
