"""What a logger says, given to whoever wants it: to a list of lines, or to a list of all steps."""

import logging
from collections.abc import Callable


class _Telling(logging.Handler):
    """Gives each message to ``tell``."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())


def only_handler(name: str, handler: logging.Handler) -> logging.Logger:
    """Return the logger ``name``, whose records go to ``handler`` and nowhere else from now on."""
    logger = logging.getLogger(name)
    logger.handlers[:] = [handler]
    logger.propagate = False
    return logger


def note_log(name: str, note: Callable[[str], object]) -> logging.Logger:
    """Return the logger called ``name``; ``note`` alone gets its messages, from INFO on."""
    logger = only_handler(name, _Telling(note))
    logger.setLevel(logging.INFO)
    return logger


def keep_log(name: str) -> tuple[logging.Logger, list[str]]:
    """Return the logger ``name`` and a list that grows by each message of INFO and above.

    The logger has no other handlers after that, so that nothing is printed; asking again begins a
    new list.
    """
    lines: list[str] = []
    return note_log(name, lines.append), lines
