"""What a logger says, kept as a list that an experiment can read."""

import logging


class _Keeper(logging.Handler):
    """Appends each message to ``lines``."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def keep_log(name: str) -> tuple[logging.Logger, list[str]]:
    """Return the logger ``name`` and a list that grows by each message of INFO and above.

    The logger has no other handlers after that, so that nothing is printed; asking again begins a
    new list.
    """
    logger = logging.getLogger(name)
    lines: list[str] = []
    logger.handlers[:] = [_Keeper(lines)]
    logger.propagate = False
    logger.setLevel(logging.INFO)
    return logger, lines
