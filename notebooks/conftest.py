"""How pytest runs the lessons: one at a time, since they time things."""

import pytest


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Return 0, this process, for lessons alone; `tests` says for all."""
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return None if everything else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep all lessons on one worker where there are several."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.xdist_group("notebooks"))
