"""What a house rule is."""

from collections.abc import Iterator
from typing import Protocol

from looplab.publishing.draft import Draft


class Rule(Protocol):
    """A function that yields a line for each thing in a draft that breaks one house rule."""

    __name__: str

    def __call__(self, draft: Draft, /) -> Iterator[str]: ...
