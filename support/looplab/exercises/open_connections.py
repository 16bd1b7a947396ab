"""The exercise of lesson 17: an inbox of prices that skips what a slow reader has missed.

Everything is judged by order: the readers take when the judge says so, in one loop and in memory.
"""

import asyncio
import functools
import gc
import inspect
import weakref
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, NoReturn

from looplab.exercises.checking import check, require_function
from looplab.exercises.error_text import tell
from looplab.exercises.sandbox import Sandbox, require_awaitable
from looplab.exercises.verdicts import Exercise, Mistake, Verdict, Wrong, wrong
from looplab.lab.silent_failures import let_go
from looplab.lab.units import ms

SOON = 1_000  # milliseconds that a take() gets whose news is there
QUIET = 120  # milliseconds in which nothing is published
WAKES = 2  # how often a take() may look in that time: once, and once more for a late clear()
MANY = 2_000  # prices of one product, more than any queue of a sensible size holds
EXAMPLE = "check_price_board(Inbox)"

EXERCISE = Exercise(
    lesson="17",
    check="check_price_board",
    stub="old-prices",
    task="Write an inbox that gives its reader the newest price of each product, however slow.",
    usual_wrong_prediction=(
        "Less than 500 ms, or even 140 ms. Streaming moves the first word, not the last: the model "
        "takes as long as before, and the reader has the last word when it has been written."
    ),
    mistakes=(
        Mistake(
            "old-prices",
            "leaves the stub as it is, or keeps every price in a queue",
            "A price had changed many times, and the reader got one that was out of date. A queue "
            "keeps every message; you need one place for each product, which a newer price "
            "takes over.",
        ),
        Mistake(
            "newest-lost",
            "drops the new message when the queue is full",
            "A slow reader never got the newest price. When there is no room, the old price has to "
            "go, not the new one.",
        ),
        Mistake(
            "product-lost",
            "keeps one place for all products",
            "Two products had news, and the reader got only one of them. A newer price replaces "
            "the older one of the same product, and no other.",
        ),
        Mistake(
            "taken-twice",
            "leaves the price in its place when it is taken",
            "A reader got the same price twice. Take it out of its place as you return it.",
        ),
        Mistake(
            "out-of-order",
            "takes the last product first, or moves a product to the end when its price changes",
            "Products came in another order than their news began. A product that changes all the "
            "time must not move to the end, nor come before one that has waited longer. A dict "
            "keeps the order in which its keys were put in, and a new value leaves it as it is.",
        ),
        Mistake(
            "not-everyone",
            "shares one place, queue or event among all readers",
            "Two readers had joined, and not both got the news. Each needs its own places and its "
            "own event, made in __init__ and not in the class: one reader's taking and clearing "
            "must not touch another's.",
        ),
        Mistake(
            "from-before",
            "keeps the prices for all readers and gives them to those who join later",
            "A reader got a price that was published before it joined.",
        ),
        Mistake(
            "missed-after-joining",
            "joins only when take is called for the first time",
            "A reader had joined, a price was published, and the first take() didn't return it. "
            "Joining has to happen when the with block is entered.",
        ),
        Mistake(
            "overlooked",
            "clears the event and waits before it has looked for news",
            "A price came before take() began to wait, and was overlooked. Look for news first; "
            "clear the event only when there is none.",
        ),
        Mistake(
            "sleeps-on",
            "clears the event although more news waits, or sets it only for some",
            "News was there, and take() went on waiting. Clear the event when nothing is left, "
            "not each time, and set it at every put.",
        ),
        Mistake(
            "returns-nothing",
            "returns without waiting when there is no news",
            "Nothing was published, and take() returned or failed at once. It has to wait for "
            "news. Clear the event when the last is taken.",
        ),
        Mistake(
            "polls",
            "loops with sleep until there is news",
            "Nothing was published, and take() woke up again and again to look. With a thousand "
            "readers that is all the server does. Wait for an asyncio.Event instead.",
        ),
        Mistake(
            "wrong-pair",
            "returns the price alone, or something else",
            "take() must return a tuple of two: the product, and its price as it was published.",
        ),
        Mistake(
            "publish-waits",
            "writes async def put, or a publish that returns something to wait for",
            "put must be a plain method: the board calls it without await. It puts the price where "
            "the reader finds it, and returns nothing.",
        ),
        Mistake(
            "publish-fails",
            "lets QueueFull, WouldBlock or a reader's error out of publish",
            "put raised an error, and with it publish. Their caller can do nothing about a slow "
            "reader, or about one who has left.",
        ),
        Mistake(
            "not-a-with",
            "writes a board of their own whose join is no context manager, or yields no function",
            "with board.join() as take: didn't work. Put @contextmanager on join, and yield an "
            "async function that takes no arguments.",
        ),
        Mistake(
            "remembers-the-gone",
            "does not take the reader off the list, or not when its block fails",
            "A reader had left, and the board still kept prices for it. Each visitor would cost "
            "memory for ever. Take the reader off in a finally, which runs however the block ends.",
        ),
        Mistake(
            "removes-another",
            "takes the wrong reader off, or all of them",
            "One reader left, and another one got no more news.",
        ),
        Mistake(
            "time-out-loses",
            "takes the price out before it waits, or waits in a task that goes on after the cancel",
            "A take() was cancelled by a time-out, and a price was lost with it. Take the price "
            "out after the last await, right before you return it.",
        ),
    ),
)

Take = Callable[[], Any]


async def check_price_board(board: Any, *, limit: float | None = None) -> Verdict:
    """Check the learner's inbox of lesson 17, show one line, and return the verdict.

    ``board`` is the class of the inbox, called without arguments. It has ``put(product, price)``, a
    plain method, and ``take()``, a coroutine method; each reader of a :class:`PriceBoard` gets one.
    A learner who rewrites the board gives that class instead: it has ``publish(product, price)``
    and ``join()``, which returns a context manager that gives ``take``. It passes if

    - ``await take()`` returns ``(product, price)``, the newest price of the product whose news
      began first, once, and waits without polling while there is none;
    - each reader gets everything from its joining on, and the board forgets those who left;
    - ``put`` neither waits nor fails, and a cancelled ``take`` loses nothing.

    ``limit`` is how long the learner's code may take in all, in seconds; 15 unless given. Nothing
    that it does raises.
    """
    return await check(functools.partial(_judge, board=board), limit=limit)


class PriceBoard:
    """The board that is given: it makes an inbox for each reader and puts all prices into it."""

    def __init__(self, make_inbox: Callable[[], Any]) -> None:
        self.make_inbox, self.inboxes = make_inbox, []

    @contextmanager
    def join(self) -> Generator[Any]:
        mine = self.make_inbox()
        self.inboxes.append(mine)
        try:
            yield mine.take
        finally:
            kept = [each for each in self.inboxes if each is not mine]
            self.inboxes = kept

    def publish(self, product: str, price: Any) -> None:
        for inbox in self.inboxes:
            inbox.put(product, price)


class _TellingBoard(PriceBoard):
    """The given board, which tells what a ``put`` returns that should return nothing."""

    def publish(self, product: str, price: Any) -> Any:
        for inbox in self.inboxes:
            outcome = inbox.put(product, price)
            if outcome is not None:
                return outcome
        return None


class _Price:
    """A price that a weak reference can watch."""

    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __repr__(self) -> str:
        return str(self.amount)


class _Board:
    """A learner's board, whose misuse is told as a mistake."""

    def __init__(self, board: Any) -> None:
        self._board = board

    @property
    def is_given(self) -> bool:
        """Whether the learner wrote the inbox only, and the board is the exercise's."""
        return isinstance(self._board, PriceBoard)

    def publish(self, product: str, price: Any) -> None:
        try:
            outcome = self._board.publish(product, price)
        except Exception as error:
            _blame(error, "publish-fails")
        if outcome is not None:
            if inspect.iscoroutine(outcome):
                outcome.close()
            raise EXERCISE.wrong("publish-waits", f"it returned {type(outcome).__name__}")

    def join(self) -> "_Joined":
        return _Joined(self._board)


class _Joined:
    """The block of one reader; entering it gives a ``take`` that is judged."""

    def __init__(self, board: Any) -> None:
        self._board = board
        self._block: Any = None

    def __enter__(self) -> "_Reader":
        self._block = self._board.join()
        if not (hasattr(self._block, "__enter__") and hasattr(self._block, "__exit__")):
            found = type(self._block).__name__
            if inspect.iscoroutine(self._block):
                self._block.close()
            raise EXERCISE.wrong("not-a-with", f"join() returned {found}")
        take = self._block.__enter__()
        if not callable(take):
            raise EXERCISE.wrong("not-a-with", f"take is {type(take).__name__}")
        return _Reader(take)

    def __exit__(self, *error: Any) -> bool:
        try:
            return bool(self._block.__exit__(*error))
        except BaseException as raised:
            if raised is error[1]:
                return False
            raise


class _Reader:
    """A reader that takes when the judge says so."""

    def __init__(self, take: Take) -> None:
        self._take = take

    async def once(self, mistake: str) -> tuple[Any, Any]:
        """Return what one take() gives; ``mistake`` is made when it goes on waiting."""
        try:
            async with asyncio.timeout(ms(SOON)):
                told = await require_awaitable(self._take())
        except TimeoutError as error:
            let_go(error)
            raise EXERCISE.wrong(mistake) from None
        if not (isinstance(told, tuple) and len(told) == 2):
            raise EXERCISE.wrong("wrong-pair", f"it returned {_word(told)}")
        return told

    async def wakes(self, seconds: float) -> int:
        """Return how often a take() wakes up in that time, cancelled then; -1 if it has ended."""
        looks = _Counted(require_awaitable(self._take()))
        task = asyncio.ensure_future(looks.run())
        ended, _ = await asyncio.wait({task}, timeout=seconds)
        wakes = looks.waits - 1
        task.cancel()
        await asyncio.wait({task})
        if ended:
            if not task.cancelled() and (error := task.exception()) is not None:
                if isinstance(
                    error, StopIteration | LookupError | RuntimeError | asyncio.QueueEmpty
                ):
                    let_go(error)
                    return -1
                raise error
            return -1
        return wakes


class _Counted:
    """Awaits something and counts how often it lets the loop go on."""

    def __init__(self, awaitable: Awaitable[Any]) -> None:
        self.waits = 0
        self._awaitable = awaitable

    async def run(self) -> Any:
        return await self

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._awaitable.__await__()
        resume: Callable[[Any], Any] = inner.send
        given: Any = None
        while True:
            try:
                waits_for = resume(given)
            except StopIteration as stop:
                return stop.value
            self.waits += 1
            try:
                resume, given = inner.send, (yield waits_for)
            except BaseException as error:  # a time-out's, or the end
                resume, given = inner.throw, error


Scene = Callable[[_Board], Awaitable[None]]


async def _judge(sandbox: Sandbox, *, board: Any) -> str:
    if (hasattr(board, "publish") or hasattr(board, "put")) and not isinstance(board, type):
        raise wrong("wrong-type", f"pass the class, not an object of it: write {EXAMPLE}")
    make = board if isinstance(board, type) else require_function(board, example=EXAMPLE)
    if isinstance(board, type) and not hasattr(board, "join"):
        make = functools.partial(_TellingBoard, board)
    for scene in (
        _first_news,
        _skips,
        _products,
        _order,
        _two_readers,
        _joins_late,
        _cancelled,
        _waits,
        _two_waiters,
        _wakes,
        _leaves,
        _leaves_by_error,
        _one_of_two_leaves,
    ):
        await _play(sandbox, make, scene)
    return (
        "Each reader got the newest price of each product, once and in order, and nobody waited "
        "for a slow one."
    )


async def _play(sandbox: Sandbox, make: Callable[[], Any], scene: Scene) -> None:
    async def act() -> None:
        await scene(_Board(make()))

    (await sandbox.run(act)).result()


def _blame(error: Exception, mistake: str) -> NoReturn:
    """Raise ``mistake`` for an error of the learner's, unless it says more by itself."""
    if isinstance(error, Wrong | NotImplementedError):
        raise error
    detail = tell(error)
    let_go(error)
    raise EXERCISE.wrong(mistake, detail) from None


async def _first_news(board: _Board) -> None:
    with board.join() as reader:
        board.publish("tea", 3)
        try:
            told = await reader.once("missed-after-joining")
        except Wrong as refused:
            if refused.mistake.name != "missed-after-joining":
                raise
            if await _still_there(board, reader, {"tea"}):
                raise EXERCISE.wrong("overlooked") from None
            if board.is_given:  # it joins for its readers, so the inbox must be at fault
                raise EXERCISE.wrong("sleeps-on") from None
            raise
        if told != ("tea", 3):
            raise EXERCISE.wrong("wrong-pair", f"it returned {_word(told)}")


async def _skips(board: _Board) -> None:
    """Publish many prices of one product; the reader gets the newest, once."""
    with board.join() as reader:
        for price in range(MANY):
            board.publish("tea", price)
        _, price = await reader.once("sleeps-on")
        if price != MANY - 1:
            # Whether it is to come later, or was thrown away.
            while price != MANY - 1:
                _, price = await reader.once("newest-lost")
            raise EXERCISE.wrong("old-prices")
        board.publish("milk", 1)
        if (await reader.once("sleeps-on"))[0] == "tea":
            raise EXERCISE.wrong("taken-twice")


async def _products(board: _Board) -> None:
    with board.join() as reader:
        for product in ("tea", "milk", "salt"):
            for price in (1, 2):
                board.publish(product, price)
        due = {"tea", "milk", "salt"}
        told = [await _or_lost(board, reader, due) for _ in range(3)]
    if sorted(told) != [("milk", 2), ("salt", 2), ("tea", 2)]:
        mistake = "taken-twice" if len(set(told)) < 3 else "old-prices"
        raise EXERCISE.wrong(mistake, f"it got {', '.join(map(str, told))}")


async def _or_lost(board: _Board, reader: _Reader, due: set[str]) -> tuple[Any, Any]:
    """Take what must be there; if nothing comes, a product more tells whether it is lost."""
    try:
        return await reader.once("product-lost")
    except Wrong as refused:
        if refused.mistake.name == "product-lost" and await _still_there(board, reader, due):
            raise EXERCISE.wrong("sleeps-on") from None
        raise


async def _still_there(board: _Board, reader: _Reader, due: set[str]) -> bool:
    """Return whether ``reader`` gets news of ``due`` once another product has woken it.

    Two takes wait for it, so that one of them finds what is due in whichever order it comes.
    """
    waiting = [asyncio.ensure_future(reader.once("sleeps-on")) for _ in range(2)]
    await asyncio.sleep(ms(2))
    board.publish("bread", 1)
    told = await asyncio.gather(*waiting, return_exceptions=True)
    for each in told:
        if isinstance(each, Exception):
            let_go(each)
    return any(isinstance(each, tuple) and each[0] in due for each in told)


async def _order(board: _Board) -> None:
    """Let one product change all the time between others."""
    with board.join() as reader:
        told = []
        for product in ("tea", "milk", "salt"):
            board.publish(product, 1)
            board.publish("tea", 2)
        told.append((await reader.once("sleeps-on"))[0])
        board.publish("tea", 3)
        for _ in range(3):
            board.publish("milk", 2)
            told.append((await reader.once("sleeps-on"))[0])
            if len(told) == 2:
                board.publish("milk", 3)
    # tea is taken first and comes again after salt; milk, once taken, after tea
    if told != ["tea", "milk", "salt", "tea"]:
        raise EXERCISE.wrong("out-of-order", f"they came as {', '.join(map(str, told))}")


async def _waits(board: _Board) -> None:
    """Nothing is published, first at all, then any more."""
    for news in (None, "tea"):
        with board.join() as reader:
            if news:
                board.publish(news, 1)
                await reader.once("sleeps-on")
            wakes = await reader.wakes(ms(QUIET))
        if wakes < 0:
            raise EXERCISE.wrong("returns-nothing")
        if wakes > WAKES:
            raise EXERCISE.wrong("polls", f"it woke up {wakes} times")


async def _two_readers(board: _Board) -> None:
    with board.join() as one, board.join() as two:
        board.publish("tea", 1)
        board.publish("milk", 1)
        due = [("tea", 1), ("milk", 1)]
        for reader in (one, two):
            told = [await reader.once("not-everyone") for _ in due]
            if told != due:
                raise EXERCISE.wrong("not-everyone", f"one got {', '.join(map(str, told))}")


async def _two_waiters(board: _Board) -> None:
    """Both wait before anything is published."""
    with board.join() as one, board.join() as two:
        waiting = [asyncio.ensure_future(each.once("not-everyone")) for each in (one, two)]
        await asyncio.sleep(ms(5))
        board.publish("tea", 1)
        told = await asyncio.gather(*waiting)
        if told != [("tea", 1)] * 2:
            raise EXERCISE.wrong("not-everyone", f"they got {', '.join(map(str, told))}")


async def _joins_late(board: _Board) -> None:
    with board.join() as early:
        board.publish("tea", 1)
        with board.join() as late:
            board.publish("milk", 2)
            told = await late.once("missed-after-joining")
            if told != ("milk", 2):
                raise EXERCISE.wrong("from-before", f"it got {told}")
        if (told := await early.once("removes-another")) != ("tea", 1):
            raise EXERCISE.wrong("removes-another", f"it got {told}")


async def _wakes(board: _Board) -> None:
    """A reader waits, is woken, takes one of two, and must find the other."""
    with board.join() as reader:
        for price in range(3):
            waiting = asyncio.ensure_future(reader.once("sleeps-on"))
            await asyncio.sleep(ms(2))
            board.publish("tea", price)
            board.publish("milk", price)
            told = [await waiting, await reader.once("sleeps-on")]
            if told != [("tea", price), ("milk", price)]:
                raise EXERCISE.wrong("out-of-order", f"they came as {', '.join(map(str, told))}")


async def _cancelled(board: _Board) -> None:
    """A take() times out before the news, or so many turns of the loop after it."""
    with board.join() as reader:
        for price, turns in enumerate((None, 0, 1, 2, 3), start=1):
            task = asyncio.ensure_future(reader.once("time-out-loses"))
            await asyncio.sleep(ms(2))
            if task.done():
                if not task.cancelled() and (error := task.exception()) is not None:
                    let_go(error)
                raise EXERCISE.wrong("returns-nothing")
            if turns is not None:
                board.publish("tea", price)
                for _ in range(turns):
                    await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            if turns is None:
                board.publish("tea", price)
            told = await reader.once("time-out-loses") if task.cancelled() else task.result()
            if told != ("tea", price):
                raise EXERCISE.wrong("time-out-loses", f"then it got {told}")


async def _leaves(board: _Board) -> None:
    await _forgotten(board, None)


async def _leaves_by_error(board: _Board) -> None:
    await _forgotten(board, ConnectionError("the reader has left"))


async def _forgotten(board: _Board, error: Exception | None) -> None:
    """A reader leaves with a price untaken, and another comes: nobody is there to keep them for."""
    kept = []

    def price() -> _Price:
        new = _Price(7)
        kept.append(weakref.ref(new))
        return new

    try:
        with board.join():
            board.publish("tea", price())
            if error is not None:
                raise error
    except Exception as raised:
        if raised is not error:
            raise
        let_go(raised)
    board.publish("milk", price())
    gc.collect()
    if any(each() is not None for each in kept):
        raise EXERCISE.wrong("remembers-the-gone", "its block failed" if error else "")


async def _one_of_two_leaves(board: _Board) -> None:
    with board.join() as stays:
        with board.join():
            board.publish("tea", 1)
        if await stays.once("removes-another") != ("tea", 1):
            raise EXERCISE.wrong("removes-another")
        board.publish("milk", 2)
        if await stays.once("removes-another") != ("milk", 2):
            raise EXERCISE.wrong("removes-another")
    with board.join(), board.join() as stays:
        pass_on = board.join()
        with pass_on:
            board.publish("tea", 3)
        if await stays.once("removes-another") != ("tea", 3):
            raise EXERCISE.wrong("removes-another")
    board.publish("salt", 1)  # nobody is there


def _word(told: object) -> str:
    return repr(told) if isinstance(told, int | str | tuple) else type(told).__name__
