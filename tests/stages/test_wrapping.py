"""What lesson 10 asks: the report, and the order in which a request's events are kept."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from fastapi import Depends, FastAPI

from looplab.lab.units import PACE_VARIABLE
from looplab.stages import wrapping

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PACE_VARIABLE, "0.25")


async def test_a_request_begins_the_events_anew_and_its_picture_marks_them() -> None:
    wrapping.events[:] = ["from before"]
    asked = await wrapping.ask(wrapping.reports, "/report", "a report")
    assert asked.title == "a report"
    assert asked.result.text.splitlines() == [f"line {number}" for number in range(5)]
    assert wrapping.events == ["body ended"]
    assert [mark.text for mark in asked.marks] == ["body ended"]


async def test_the_picture_has_what_comes_after_the_answer() -> None:
    app = FastAPI()

    async def slow_to_close() -> AsyncGenerator[None]:
        yield
        await asyncio.sleep(0.05)
        wrapping.noted("closed")

    @app.get("/", dependencies=[Depends(slow_to_close)])
    async def answer() -> str:
        return "answer"

    asked = await wrapping.ask(app, "/", "slow to close")
    assert [mark.text for mark in asked.marks] == ["closed"]
    assert {lane.outcome for lane in asked.lanes} == {"done"}


async def test_a_session_and_a_message_are_noted_when_they_come() -> None:
    shop, sessions = await wrapping.open_noting_shop()
    try:
        wrapping.events.clear()
        async with sessions():
            wrapping.logging_to_events().info("%d ms", 7)
        assert wrapping.events == ["7 ms", "session closed"]
    finally:
        await shop.close()
