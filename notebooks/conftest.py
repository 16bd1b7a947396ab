"""How pytest runs lessons alone: one at a time, in one process."""

import pytest


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Return 0, this process, for lessons alone; `tests` says for all."""
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return None if everything else 0
