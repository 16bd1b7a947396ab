"""How many HTTP responses there are in what a function returned, and which of them are errors."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

FIRST_ERROR = 400  # HTTP's client errors begin here, its server errors at 500: RFC 9110, 15.5, 15.6


def status_of(answer: object) -> int | None:
    """Return the status of an HTTP response, or None for anything else.

    A response is what has a whole number as its ``status_code``, as those of httpx, httpx2 and
    Starlette do.
    """
    status = getattr(answer, "status_code", None)
    return status if isinstance(status, int) else None


@dataclass
class Answers:
    """How many answers there were, and of which kind the errors among them.

    ``errors`` counts responses of 4xx and 5xx by their status, and exceptions that were returned
    instead of a response by the name of their class.
    """

    total: int = 0
    errors: Counter[int | str] = field(default_factory=Counter)

    def count(self, outcome: object) -> None:
        """Count the answers in ``outcome``: a response, an exception, or a container of such.

        Lists, tuples, sets and dicts are searched, in each other too.
        """
        seen: set[int] = set()
        waiting: list[Any] = [outcome]
        while waiting:
            one = waiting.pop()
            if isinstance(one, BaseException):
                self.total += 1
                self.errors[type(one).__name__] += 1
            elif isinstance(one, dict | list | tuple | set | frozenset):
                if id(one) not in seen:  # a list may hold itself
                    seen.add(id(one))
                    waiting += one.values() if isinstance(one, dict) else one
            elif (status := status_of(one)) is not None:
                self.total += 1
                if status >= FIRST_ERROR:
                    self.errors[status] += 1

    def __str__(self) -> str:
        """Return the sentence of it: ``3 of 20 answers were 500``."""
        if not self.errors:
            return f"none of {self.total} answers was an error"
        kinds = " and ".join(
            f"{times} {'was' if times == 1 else 'were'} {kind}"
            for kind, times in self.errors.most_common()
        )
        first, _, rest = kinds.partition(" ")
        return f"{first} of {self.total} answers {rest}"
