"""Errors of the shop that a learner may meet: each message is one sentence that says what to do."""

from __future__ import annotations

from sqlalchemy.exc import InvalidRequestError


class ShopError(Exception):
    """What the shop's own errors have in common: Jupyter shows the message and no traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class ShopClosedError(ShopError, InvalidRequestError):
    """A shop was asked after it had closed."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is closed: open the shop again")

    def _render_traceback_(self) -> list[str]:
        return [
            f"{self}. In a lesson, run the cell that opens it, then this one "
            "(a lesson closes its shop at the end)."
        ]


class TemporaryDirectoryError(ShopError, OSError):
    """The shop cannot keep its database file in the temporary directory."""

    def __init__(self, directory: str, reason: str) -> None:
        super().__init__(
            f"The shop cannot write to the temporary directory {directory} ({reason}): "
            "set TMPDIR to a folder that you may write to, and restart the kernel."
        )


class DatabaseUrlError(ShopError, ValueError):
    """A database URL that is none, or one of another kind of database."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"The shop cannot use the database URL {url!r}: it runs on PostgreSQL, so write "
            "postgresql://user:password@host:port/database."
        )


class DatabaseUnavailableError(ShopError, ConnectionError):
    """A database server that is down, refuses the log-in, or lets the shop create no schema."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"The shop cannot use the database at {url} ({reason}): start the server or correct "
            "the URL, or leave the URL out to use the embedded SQLite."
        )


class DriverMissingError(ShopError, ModuleNotFoundError):
    """The package that speaks to the database server is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"The shop needs the package {package} to speak to a PostgreSQL server: install it "
            f"with python -m pip install {package}.",
            name=package,
        )


class EmbeddedOnlyError(ShopError, AttributeError):
    """Something that only a shop in a SQLite file has was asked of one on a server."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"A shop on a database server has no {name!r}: only one in an embedded SQLite file has."
        )
