"""How pytest runs the lessons: one at a time, since they time things."""

import pytest


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Return 0, which is this process, for lessons alone; leave a run of everything to `tests`."""
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return None if everything else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep all lessons on one worker where the tests are spread over several."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.xdist_group("notebooks"))
