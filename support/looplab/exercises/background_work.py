"""The exercise of lesson 15: a job that may be done twice, or be killed anywhere and done again.

A kill is played by a call that never comes back, before or after it has had its effect; the judge
then cancels the attempt, as no process that is killed could go on. What the attempt still asks for
has no effect. Each attempt gets an order of its own, with the same number, as each worker reads one
from the queue; its hash differs, as it does between processes.
"""

import asyncio
import contextlib
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from looplab.exercises.checking import check, require_function
from looplab.exercises.cut_off import CutOff, WasCutOff
from looplab.exercises.error_text import chain
from looplab.exercises.sandbox import Sandbox, require_awaitable
from looplab.exercises.verdicts import Exercise, Mistake, Verdict, Wrong
from looplab.lab.silent_failures import let_go
from looplab.lab.units import ms

EXAMPLE: Final = "check_settle_again(settle_again)"
PATIENCE: Final = 1_500  # milliseconds that an attempt may take
AMOUNT: Final = 1_999
MOST_CALLS: Final = 30  # of one attempt; an endless loop of calls is cut off here

EXERCISE = Exercise(
    lesson="15",
    check="check_settle_again",
    stub="new-key",
    task="Write a job that charges once and loses no letter, wherever it is killed and begun anew.",
    usual_wrong_prediction=(
        "Next to nothing, since the invoice is mailed after the answer. But the background task is "
        "part of the request and holds its session, so eight of ten orders queue for one of the "
        "two connections while invoices are mailed."
    ),
    mistakes=(
        Mistake(
            "new-key",
            "draws a key in the job, or protects the charge by a note alone",
            "The order was charged twice. The worker was killed after the bank had charged and "
            "before anything could be noted, so only the bank knows. What do both attempts know of "
            "the order? Make the key of that, so that the second attempt finds it again.",
        ),
        Mistake(
            "key-of-this-process",
            "makes the key from hash() or id()",
            "The order was charged twice. hash() and id() give another number in each process, and "
            "the second attempt runs in another one. Use the order's own number.",
        ),
        Mistake(
            "shared-key",
            "uses one key for all orders, or a key made from the amount",
            "Two orders of the same amount came, and one was charged: they had the same key. The "
            "key has to tell one order from another.",
        ),
        Mistake(
            "not-charged",
            "notes the charge before it happens, or forgets it",
            "The order was never charged, and its job is over. A note that is written before the "
            "deed makes the second attempt believe it was done. The bank may be asked again, with "
            "the same key.",
        ),
        Mistake(
            "letter-lost",
            "writes the note before the letter has left, or returns once the order is charged",
            "The letter never left, and its job is over. The worker was killed before the sending, "
            "and the second attempt found a note that said there was nothing left to do. Note the "
            "letter after it has left.",
        ),
        Mistake(
            "letter-again",
            "writes no note, or doesn't look for it",
            "The job was done again, and the letter left again, though the first attempt had come "
            "to its end. Write a note when the letter has left, and look for it first.",
        ),
        Mistake(
            "shared-note",
            "writes a note without the order's number",
            "Another order came, and its letter never left: it found the first order's note. All "
            "orders share the notes, so put the order's number into the text.",
        ),
        Mistake(
            "remembers-in-memory",
            "keeps what is done in a variable outside the job",
            "The job remembered something that was not in the notes, or forgot it with its "
            "process. Another worker has another memory: keep in the notes what has to last.",
        ),
        Mistake(
            "letter-first",
            "sends the letter before the charge, or both at once",
            "A letter left before its order was charged. If the bank refuses, somebody has an "
            "invoice for nothing: charge first, and wait for it.",
        ),
        Mistake(
            "error-swallowed",
            "catches what bank or mailer raises, and returns",
            "The bank or the mailer refused, and the job ended as if all were well. Then the queue "
            "doesn't try again. Let the error out.",
        ),
        Mistake(
            "wrong-call",
            "leaves out the key, or gives the bank or the mailer something else than the order",
            "A call got something else than it takes. They are charge(order, key=text), "
            "send(order), has(text) and write(text), with the order that the job was given.",
        ),
        Mistake(
            "too-many-calls",
            "tries again in a loop of its own",
            "The job called again and again, and did not end. The queue tries again; let the error "
            "out.",
        ),
    ),
)


async def check_settle_again(settle_again: Any) -> Verdict:
    """Run the job whole, twice, and killed at each point; show what was found, and return it.

    ``settle_again(order, bank, mailer, notes)`` is an ``async def``. Nothing that it does raises
    here.
    """
    return await check(functools.partial(_judge, settle_again=settle_again))


async def _judge(sandbox: Sandbox, *, settle_again: Any) -> str:
    job = require_function(settle_again, example=EXAMPLE)
    trials = (
        _runs_whole_and_again,
        _two_orders,
        _starts_in_another_shop,
        _is_killed_everywhere,
        _fails_and_is_tried_again,
    )
    await sandbox.run_each(trials, job)
    return (
        "Killed anywhere and begun again, it charged each order once and lost no letter. A queue "
        "may hand this job out as often as it likes."
    )


class _RefusedError(ConnectionError, LookupError, ValueError, TypeError, RuntimeError):
    """What a partner raises: a narrow except that hides it catches it too."""


class _Number(str):
    """An order's number. Its hash is another one in each attempt, as in each process."""

    __slots__ = ("attempt",)

    attempt: int

    def __hash__(self) -> int:
        return str.__hash__(self) ^ (self.attempt * 0x9E3779B9)

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other)


@dataclass(frozen=True)
class _Order:
    """What the queue hands to an attempt."""

    id: str
    amount: int = AMOUNT


@dataclass(slots=True)
class _World:
    """Bank, mailer and notes as they last; ``steps`` are all effects, in order."""

    charged: dict[str, str] = field(default_factory=dict)
    """The order's number by the key of its charge."""
    steps: list[tuple[str, str]] = field(default_factory=list)
    notes: set[str] = field(default_factory=set)
    refuses: str = ""
    """The call that fails: "charge" or "send"."""
    orders: list[_Order] = field(default_factory=list)
    """All that attempts were given, kept so that no two have the same id()."""

    def order(self, number: str) -> _Order:
        """Return an order as another process would read it."""
        own = _Number(number)
        own.attempt = len(self.orders) + 1
        self.orders.append(_Order(own))
        return self.orders[-1]

    def count(self, what: str, number: str) -> int:
        """Return how often that happened to the order."""
        return self.steps.count((what, number))


@dataclass(slots=True)
class _Attempt:
    """One run of the job in a world. At ``kill_at``, counted from 0, it is killed.

    A call has two such points: before its effect and after it.
    """

    job: Callable[..., Any]
    world: _World
    number: str
    kill_at: int | None = None
    killed: str = ""
    """Where it was killed, such as "after mailer.send"."""
    order: _Order = field(init=False)
    points: int = 0
    called: list[str] = field(default_factory=list)
    cut: CutOff = field(default_factory=CutOff)

    def __post_init__(self) -> None:
        self.order = self.world.order(self.number)

    async def run(self) -> None:
        """Run it. Raises WasCutOff when it was killed, and what the job raised."""
        await self.cut.run(self._work, patience=ms(PATIENCE))

    async def _work(self) -> Any:
        bank, mailer, notes = _Bank(self), _Mailer(self), _Notes(self)
        return await require_awaitable(self.job(self.order, bank, mailer, notes))

    async def point(self, where: str) -> None:
        """Stop here for ever if the attempt is to be killed here, or has been."""
        killed = self.points == self.kill_at
        self.points += 1
        if killed:
            self.killed = where
        if killed or self.cut.happened:
            await self.cut.here()

    async def call(self, name: str, effect: Callable[[], Any]) -> Any:
        """Have the effect of the call of that name between two points."""
        self.called.append(name)
        if len(self.called) > MOST_CALLS:
            await self.cut.here(EXERCISE.wrong("too-many-calls", f"{MOST_CALLS} calls"))
        await self.point(f"before {name}")
        await asyncio.sleep(0)
        outcome = effect()
        await self.point(f"after {name}")
        return outcome

    async def require(self, given: object, kind: type, what: str) -> None:
        """End the attempt unless ``given`` is of that type, and, if an order, its own."""
        if not isinstance(given, kind) or (kind is _Order and given is not self.order):
            await self.cut.here(EXERCISE.wrong("wrong-call", f"{what} got {given!r}"))


@dataclass(frozen=True, slots=True)
class _Bank:
    _attempt: _Attempt

    async def charge(self, order: Any = None, *, key: Any = None) -> int:
        attempt, world = self._attempt, self._attempt.world
        await attempt.require(order, _Order, "charge")
        await attempt.require(key, str, "charge's key")
        text = str.__str__(key)

        def effect() -> int:
            if world.refuses == "charge":
                raise _RefusedError("the bank refuses")
            if text not in world.charged:
                world.charged[text] = str(order.id)
                world.steps.append(("charge", str(order.id)))
            return [*world.charged].index(text) + 1

        return await attempt.call("bank.charge", effect)


@dataclass(frozen=True, slots=True)
class _Mailer:
    _attempt: _Attempt

    async def send(self, order: Any = None) -> None:
        attempt, world = self._attempt, self._attempt.world
        await attempt.require(order, _Order, "send")

        def effect() -> None:
            if world.refuses == "send":
                raise _RefusedError("the mailer refuses")
            world.steps.append(("letter", str(order.id)))

        await attempt.call("mailer.send", effect)


@dataclass(frozen=True, slots=True)
class _Notes:
    _attempt: _Attempt

    async def has(self, text: Any = None) -> bool:
        attempt, notes = self._attempt, self._attempt.world.notes
        await attempt.require(text, str, "has")
        return await attempt.call("notes.has", lambda: str(text) in notes)

    async def write(self, text: Any = None) -> None:
        attempt, world = self._attempt, self._attempt.world
        await attempt.require(text, str, "write")

        def effect() -> None:
            world.notes.add(str(text))
            world.steps.append(("note", str(attempt.order.id)))

        await attempt.call("notes.write", effect)


def _account(world: _World, number: str, *, letters: int = 1, keys: str = "") -> None:
    """Raise Wrong unless the order was charged once and has up to ``letters`` letters, and one."""
    charges, sent = world.count("charge", number), world.count("letter", number)
    if charges > 1:
        used = [key for key, order in world.charged.items() if order == number]
        raise _charged_again(used)
    if not charges:
        raise EXERCISE.wrong("not-charged", keys)
    order = [what for what, whose in world.steps if whose == number and what != "note"]
    if order[0] == "letter":
        raise EXERCISE.wrong("letter-first")
    if not sent:
        raise EXERCISE.wrong("letter-lost", keys)
    if sent > letters:
        raise EXERCISE.wrong("letter-again", f"{sent} letters; {keys}" if keys else "")


def _charged_again(keys: list[str]) -> Wrong:
    own = [key for key in keys if key.lstrip("-").isdigit()]
    name = "key-of-this-process" if len(own) == len(keys) else "new-key"
    return EXERCISE.wrong(name, f"its keys were {keys[0]!r} and {keys[1]!r}")


async def _runs_whole_and_again(job: Callable[..., Any]) -> None:
    world = _World()
    await _Attempt(job, world, "order-7").run()
    _account(world, "order-7")
    await _Attempt(job, world, "order-7").run()
    _account(world, "order-7", keys="done twice, one after the other")


async def _two_orders(job: Callable[..., Any]) -> None:
    world = _World()
    for number in ("order-8", "order-9"):
        attempt = _Attempt(job, world, number)
        await attempt.run()
        if not world.count("charge", number):
            asked = "bank.charge" in attempt.called
            raise EXERCISE.wrong("shared-key" if asked else "shared-note")
        if not world.count("letter", number):
            raise EXERCISE.wrong("shared-note")
        _account(world, number)


async def _fails_and_is_tried_again(job: Callable[..., Any]) -> None:
    for refuses, number in (("charge", "order-10"), ("send", "order-11")):
        world = _World(refuses=refuses)
        if not await _is_refused(job, world, number):
            raise EXERCISE.wrong("error-swallowed")
        partner = "bank" if refuses == "charge" else "mailer"
        told = f"the {partner} had refused at first"
        if not await _is_refused(job, world, number):
            _account(world, number, keys=told)  # which raises: nothing can have been done yet
        if refuses == "charge" and world.count("letter", number):
            raise EXERCISE.wrong("letter-first", "the bank had refused")
        world.refuses = ""
        await _Attempt(job, world, number).run()
        _account(world, number, keys=told)


async def _is_refused(job: Callable[..., Any], world: _World, number: str) -> bool:
    """Run the job, whose bank or mailer refuses, and return whether the refusal came out."""
    try:
        await _Attempt(job, world, number).run()
    except Exception as error:
        if isinstance(error, Wrong):
            raise
        if not any(isinstance(one, _RefusedError) for one in chain(error)):
            raise
        let_go(error)
        return True
    return False


async def _is_killed_everywhere(job: Callable[..., Any]) -> None:
    whole = _Attempt(job, _World(), "order-12")
    await whole.run()
    for point in range(whole.points):
        await _is_killed(job, point)
    for first, second in itertools.product(range(whole.points), repeat=2):
        await _is_killed(job, first, second)


async def _is_killed(job: Callable[..., Any], *points: int) -> None:
    """Kill one attempt after another at these points, then let one come to its end."""
    world, number, again = _World(), "order-12", 0
    places: list[str] = []
    for point in points:
        before = len(world.steps)
        attempt = _Attempt(job, world, number, kill_at=point)
        with contextlib.suppress(WasCutOff):
            await attempt.run()
        if attempt.killed:
            places.append(attempt.killed)
        # a letter that left and could not be noted any more may leave again
        again += [what for what, _ in world.steps[before:]][-1:] == ["letter"]
    await _Attempt(job, world, number).run()
    where = f"killed {', then killed again '.join(places)}" if places else "done again"
    _account(world, number, letters=1 + again, keys=where)


async def _starts_in_another_shop(job: Callable[..., Any]) -> None:
    """Start with notes and a bank that know nothing of the orders before, as another shop would."""
    world = _World()
    await _Attempt(job, world, "order-7").run()
    if not (world.count("charge", "order-7") and world.count("letter", "order-7")):
        raise EXERCISE.wrong("remembers-in-memory", "another shop has an order of that number")
    _account(world, "order-7")
