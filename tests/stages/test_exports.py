"""The export that a client leaves: what is left in its log, and in its picture."""

import pytest

from looplab.lab import in_process
from looplab.lab.units import PACE_VARIABLE
from looplab.stages import exports

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PACE_VARIABLE, "0.25")


async def test_a_visit_ends_after_three_items_and_begins_a_new_log() -> None:
    exports.log[:] = ["from before"]
    seen, story = await exports.visit(exports.export_app(exports.as_printed), "streaming")
    assert seen.title == "streaming"
    assert seen.cancelled[0] == "client"
    assert story[:2] == ["item begun", "item done"]
    assert 3 <= story.count("item done") < 10
    exports.log.clear()
    assert story, "a story is a copy of the log"


async def test_an_export_that_is_read_to_its_end_has_all_items() -> None:
    app = exports.export_app(exports.process_with_cancellation)
    async with in_process(app) as client:
        answer = await client.get("/export")
    lines = answer.text.splitlines(keepends=True)
    assert lines == [f"item {number}\n" for number in range(1, 11)]
    assert exports.log[-1] == "cleanup done"
