import os
from collections.abc import Callable

import pytest

REQUIRE_ALL = "COURSE_REQUIRE_ALL"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def missing() -> Callable[[str], None]:
    """Skip the test for want of a program, or fail it where COURSE_REQUIRE_ALL is set, as in CI."""

    def say(what: str) -> None:
        if os.environ.get(REQUIRE_ALL):
            pytest.fail(f"{what}, and {REQUIRE_ALL} is set")
        pytest.skip(what)

    return say
