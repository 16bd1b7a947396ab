"""What a check says: its verdict, and the mistakes it can tell from one another."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mistake:
    """One way to miss, as a record that the checker and the instructors' guide share.

    ``name`` is in kebab-case, ``looks_like`` tells an instructor what the learner did, ``hint`` is
    what the check says to the learner.
    """

    name: str
    looks_like: str
    hint: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found: whether it passed, one line for the learner, and the mistake's name."""

    passed: bool
    message: str
    mistake: str | None = None

    def _ipython_display_(self) -> None:
        """Show nothing more when a cell ends in a check: the check has shown its line."""


@dataclass(frozen=True, slots=True)
class Exercise:
    """The exercise of one lesson, as the instructors' guide needs it.

    ``check`` is the checker's name in its module; ``stub`` is the mistake that the check finds in
    the stub as it is given; ``usual_wrong_prediction`` is one sentence on what learners tend to
    predict in that lesson, and why it is wrong.
    """

    lesson: str
    check: str
    stub: str
    task: str
    usual_wrong_prediction: str
    mistakes: tuple[Mistake, ...]

    def wrong(self, name: str, detail: str = "") -> "Wrong":
        """Return the exception that ends a check with this mistake.

        Raises LookupError when the exercise has no mistake of that name.
        """
        return Wrong(find(name, self.mistakes), detail)


class Wrong(Exception):
    """Ends a check: the learner's code makes ``mistake``; ``detail`` says where or how."""

    def __init__(self, mistake: Mistake, detail: str = "") -> None:
        super().__init__(mistake.name)
        self.mistake = mistake
        self.detail = detail

    @property
    def message(self) -> str:
        """The hint, and the detail behind it."""
        return f"{self.mistake.hint} ({self.detail})" if self.detail else self.mistake.hint


ANY_EXERCISE: tuple[Mistake, ...] = (
    Mistake(
        "not-written",
        "raises NotImplementedError, or returns nothing where an answer is due",
        "Nothing to check yet: replace the placeholder with your code and run both cells again.",
    ),
    Mistake(
        "wrong-type",
        "passes something else than the exercise asks for",
        "The check needs something else than it was given.",
    ),
    Mistake(
        "called-instead-of-passed",
        "passes a coroutine, a task or a generator: the function was called in the check cell",
        "Pass the function itself, without the parentheses that call it: the check calls it.",
    ),
    Mistake(
        "not-async",
        "writes def where async def is needed",
        "This function answers without waiting: write it with async def, and await inside.",
    ),
    Mistake(
        "forgotten-await",
        "makes a coroutine that nothing awaits",
        "A coroutine was made and never awaited, so its code never ran: put await in front of it.",
    ),
    Mistake(
        "raised",
        "any exception",
        "Your code raised an error.",
    ),
    Mistake(
        "never-ends",
        "waits for ever, or loops for ever with an await inside",
        "Your code had not ended when the check lost patience: look for a loop without an end, or "
        "a wait for something that never happens.",
    ),
    Mistake(
        "left-running",
        "starts a task and returns without awaiting it",
        "Your code returned while a task of its own was still running: await every task you start.",
    ),
    Mistake(
        "cancels-itself",
        "cancels the task that runs it, or lets CancelledError out",
        "Your code ended in CancelledError, though nobody outside cancelled it.",
    ),
    Mistake(
        "exits",
        "calls exit() or sys.exit(), or raises KeyboardInterrupt",
        "Your code tried to end the whole program: a server would go down with it. Return, or "
        "raise an ordinary exception.",
    ),
    Mistake(
        "blocks-the-loop",
        "calls time.sleep or another blocking function, or loops without an await inside",
        "Your code kept the event loop to itself, so the check ended it: a server would answer "
        "nobody meanwhile. Look for time.sleep, which is await asyncio.sleep in async code, or for "
        "a loop that never awaits anything that waits.",
    ),
    Mistake(
        "runs-away",
        "prints or keeps something at each turn of a loop that does not end",
        "Your code filled the output or the memory, so the check ended it: a server would go down. "
        "Look for a loop that adds something at each turn and never stops.",
    ),
    Mistake(
        "reaches-too-far",
        "stops the event loop, replaces asyncio.sleep, closes sys.stdout",
        "Your code changed what the whole process shares, and each other request would feel it. "
        "Leave alone what your function did not make; the check has put it back.",
    ),
)


def find(name: str, mistakes: Iterable[Mistake] = ANY_EXERCISE) -> Mistake:
    """Return the mistake called ``name``.

    Raises LookupError, naming those there are, when there is none.
    """
    known = {mistake.name: mistake for mistake in mistakes}
    if name not in known:
        raise LookupError(f"name is {name!r}; known mistakes are {', '.join(known)}")
    return known[name]


def wrong(name: str, detail: str = "") -> Wrong:
    """Return the exception that ends any exercise's check with a mistake of `ANY_EXERCISE`."""
    return Wrong(find(name), detail)
