"""Services in a process of their own, stopped while somebody reads."""

import sys

import pytest

from looplab.stages.services import ServiceFailed, stopped_with_a_reader

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="has no SIGTERM"),
]

ENDS = """
app = FastAPI()
@app.get("/one", response_class=EventSourceResponse)
async def one():
    yield "hello"
    await asyncio.sleep({wait})
    print("said at the end")
"""


async def test_a_stream_that_ends_in_its_grace_ends_clean() -> None:
    stopped = await stopped_with_a_reader(ENDS.format(wait=0.3), "/one", grace=20)
    assert stopped.clean
    assert stopped.said == ["said at the end"]
    assert stopped.seconds < 20


async def test_a_stream_that_does_not_is_cut_off() -> None:
    stopped = await stopped_with_a_reader(ENDS.format(wait=60), "/one", grace=0.2)
    assert not stopped.clean
    assert stopped.said == []
    assert stopped.seconds < 20


async def test_a_service_that_fails_says_how() -> None:
    with pytest.raises(ServiceFailed, match="no such shop"):
        await stopped_with_a_reader("raise LookupError('no such shop')", "/one", grace=1)
