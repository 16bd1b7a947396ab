"""The course as it is in this checkout."""

import pytest

from looplab.project import Project


@pytest.fixture(scope="session")
def course() -> Project:
    return Project.here()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that asks for a ``lesson`` once for every notebook."""
    if "lesson" in metafunc.fixturenames:
        lessons = Project.here().lessons()
        metafunc.parametrize("lesson", lessons, ids=[lesson.name for lesson in lessons])
