"""Errors of the shop that a learner may meet."""

from __future__ import annotations

from sqlalchemy.exc import InvalidRequestError


class ShopClosedError(InvalidRequestError):
    """A shop was asked after it had closed. Jupyter shows one sentence and no traceback."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is closed: open the shop again")

    def _render_traceback_(self) -> list[str]:
        return [
            f"{self}. In a lesson, run the cell that opens it, then this one "
            "(a lesson closes its shop at the end)."
        ]


class TemporaryDirectoryError(OSError):
    """The shop cannot keep its database file in the temporary directory.

    The message is one sentence that says what to do. Jupyter shows it without a traceback.
    """

    def __init__(self, directory: str, reason: str) -> None:
        super().__init__(
            f"The shop cannot write to the temporary directory {directory} ({reason}): "
            "set TMPDIR to a folder that you may write to, and restart the kernel."
        )

    def _render_traceback_(self) -> list[str]:
        return [str(self)]
