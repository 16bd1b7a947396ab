"""Lesson 03's mailer on a server: late letters arrive, and its faults are as before."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest

from looplab.lab import until
from looplab.shop.mailing import SLOW, Mailing, open_mailing
from looplab.stages.mailroom import mailer_on_a_server

pytestmark = pytest.mark.anyio


@pytest.fixture
async def mailing() -> AsyncGenerator[Mailing]:
    opened = await open_mailing(latency=0.0, slow=60.0)
    yield opened
    await opened.letters.aclose()
    await opened.shop.close()


async def test_a_letter_arrives_though_its_sender_was_cancelled(mailing: Mailing) -> None:
    to = list(mailing.address.values())[SLOW[0]]
    before = dict(mailing.mailer.faults)
    async with mailer_on_a_server(mailing, slow=0.5) as client:
        sending = asyncio.create_task(client.post("/send", json={"to": to}))
        await until(lambda: mailing.mailer.in_flight == 1)
        sending.cancel()
        await asyncio.wait([sending])
        assert mailing.mailer.sent == []
    assert [mail.to for mail in mailing.mailer.sent] == [to]
    assert mailing.mailer.faults == before


async def test_a_block_that_fails_leaves_the_faults_as_they_were(mailing: Mailing) -> None:
    before = dict(mailing.mailer.faults)
    with suppress(KeyError):
        async with mailer_on_a_server(mailing, slow=0.5, timeout=7) as client:
            assert client.timeout.read == 7
            raise KeyError
    assert mailing.mailer.faults == before


async def test_a_negative_time_is_refused(mailing: Mailing) -> None:
    before = dict(mailing.mailer.faults)
    with pytest.raises(ValueError, match="latency"):
        async with mailer_on_a_server(mailing, slow=-1):
            pass
    assert mailing.mailer.faults == before
