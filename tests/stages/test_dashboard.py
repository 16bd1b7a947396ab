"""What fails in lesson 02."""

import pytest
from fastapi import HTTPException

from looplab.stages.dashboard import find_user

pytestmark = pytest.mark.anyio


async def test_there_is_never_such_a_user() -> None:
    with pytest.raises(HTTPException) as caught:
        await find_user()
    assert caught.value.status_code == 404
