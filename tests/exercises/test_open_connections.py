"""The check of lesson 17, with right answers and wrong ones."""

import asyncio
import textwrap
import time
from collections import OrderedDict
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from looplab.exercises.open_connections import EXERCISE, check_price_board

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy
PATIENCE = 6.0  # seconds, in which a wrong one is found, whatever it does


def board_of(source: str) -> Any:
    """Run an answer's source, and return the inbox, or the board of its own, that it defines."""
    names: dict[str, Any] = {
        "asyncio": asyncio,
        "contextmanager": contextmanager,
        "asynccontextmanager": asynccontextmanager,
        "OrderedDict": OrderedDict,
    }
    exec(compile(textwrap.dedent(source), "<answer>", "exec"), names)
    return names["PriceBoard"] if "PriceBoard" in names else names["Inbox"]


ANSWER = """
class PriceBoard:
    def __init__(self):
        self.readers = []

    {manager}
    def join(self):
        newest, changed = {{}}, asyncio.Event()

        async def take():
            {take}

        {joined}
        try:
            yield take
        finally:
            {left}

    def publish(self, product, price):
        for newest, changed in self.readers:
            {put}
            {wake}
"""

INBOX = """
class Inbox:
    {around}
    def __init__(self):
        {init}

    {put}
        {place}

    async def take(self):
        {take}
"""

TAKE_NEWEST = """\
while not self.prices:
            self.changed.clear()
            await self.changed.wait()
        return self.prices.popitem(last=False)"""


def inbox(
    around: str = "",
    init: str = "self.prices, self.changed = OrderedDict(), asyncio.Event()",
    put: str = "def put(self, product, price):",
    place: str = "self.prices[product] = price; self.changed.set()",
    take: str = TAKE_NEWEST,
) -> str:
    """Return the solution's inbox with one part of it changed."""
    return INBOX.format(around=around, init=init, put=put, place=place, take=take)


TAKE = """\
while not newest:
                changed.clear()
                await changed.wait()
            product = next(iter(newest))
            return product, newest.pop(product)"""


def answer(
    manager: str = "@contextmanager",
    take: str = TAKE,
    joined: str = "self.readers.append((newest, changed))",
    left: str = "self.readers.remove((newest, changed))",
    put: str = "newest[product] = price",
    wake: str = "changed.set()",
) -> str:
    """Return one right answer with one part of it changed."""
    return ANSWER.format(manager=manager, take=take, joined=joined, left=left, put=put, wake=wake)


TIDIES = """\
try:
                    await changed.wait()
                except asyncio.CancelledError:
                    for _ in range(9):
                        await asyncio.sleep(0)
                    raise"""

RIGHT: tuple[tuple[str, str], ...] = (
    ("an inbox with an event", inbox()),
    (
        "an inbox with a queue of products",
        inbox(
            init="self.prices, self.news = {}, asyncio.Queue()",
            place="product in self.prices or self.news.put_nowait(product)\n"
            "        self.prices[product] = price",
            take="product = await self.news.get()\n"
            "        return product, self.prices.pop(product)",
        ),
    ),
    (
        "an inbox that is a dict, equal to another's when both are empty",
        """
        class Inbox(dict):
            def __init__(self):
                self.changed = asyncio.Event()

            def put(self, product, price):
                self[product] = price
                self.changed.set()

            async def take(self):
                while not self:
                    self.changed.clear()
                    await self.changed.wait()
                product = next(iter(self))
                return product, self.pop(product)
        """,
    ),
    (
        "tidies up for a while when it is cancelled",
        answer(take=TAKE.replace("await changed.wait()", TIDIES)),
    ),
    ("a dict and an event for each reader", answer()),
    (
        "an event that is cleared with the last product",
        answer(
            take="""\
await changed.wait()
            product = next(iter(newest))
            price = newest.pop(product)
            if not newest:
                changed.clear()
            return product, price"""
        ),
    ),
    (
        "a reader of a class of its own, called by the board",
        """
        class Reader:
            def __init__(self):
                self.newest, self.changed = OrderedDict(), asyncio.Event()

            def put(self, product, price):
                self.newest[product] = price
                self.changed.set()

            async def __call__(self):
                while not self.newest:
                    self.changed.clear()
                    await self.changed.wait()
                return self.newest.popitem(last=False)


        class PriceBoard:
            def __init__(self):
                self.readers = set()

            @contextmanager
            def join(self):
                reader = Reader()
                self.readers.add(reader)
                try:
                    yield reader
                finally:
                    self.readers.discard(reader)

            def publish(self, product, price):
                for reader in self.readers:
                    reader.put(product, price)
        """,
    ),
    (
        "a condition, and a block of a class of its own",
        """
        class Joined:
            def __init__(self, readers):
                self.readers = readers
                self.newest = {}
                self.waiting = None

            def __enter__(self):
                self.readers[id(self)] = self
                return self.take

            def __exit__(self, *error):
                del self.readers[id(self)]

            async def take(self):
                while not self.newest:
                    self.waiting = asyncio.get_running_loop().create_future()
                    await self.waiting
                product, price = next(iter(self.newest.items()))
                del self.newest[product]
                return product, price

            def put(self, product, price):
                self.newest[product] = price
                if self.waiting is not None and not self.waiting.done():
                    self.waiting.set_result(None)


        class PriceBoard:
            def __init__(self):
                self.readers = {}

            def join(self):
                return Joined(self.readers)

            def publish(self, product, price):
                for reader in self.readers.values():
                    reader.put(product, price)
        """,
    ),
    (
        "a queue of products, and a dict of prices beside it",
        """
        class PriceBoard:
            def __init__(self):
                self.readers = []

            @contextmanager
            def join(self):
                prices, products = {}, asyncio.Queue()

                async def take():
                    product = await products.get()
                    return product, prices.pop(product)

                reader = [prices, products]
                self.readers.append(reader)
                try:
                    yield take
                finally:
                    self.readers = [one for one in self.readers if one is not reader]

            def publish(self, product, price):
                for prices, products in self.readers:
                    if product not in prices:
                        products.put_nowait(product)
                    prices[product] = price
        """,
    ),
)


@pytest.mark.parametrize("source", [each[1] for each in RIGHT], ids=[each[0] for each in RIGHT])
async def test_a_right_answer_passes_in_any_style(source: str) -> None:
    verdict = await check_price_board(board_of(source), limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


QUEUES = """
class PriceBoard:
    def __init__(self):
        self.readers = []

    @contextmanager
    def join(self):
        queue = asyncio.Queue({size})
        self.readers.append(queue)
        try:
            yield queue.get
        finally:
            self.readers.remove(queue)

    {publish}
        for queue in self.readers:
            {put}
"""


def queues(
    size: str = "",
    publish: str = "def publish(self, product, price):",
    put: str = "queue.put_nowait((product, price))",
) -> str:
    """Return an answer with a queue for each reader."""
    return QUEUES.format(size=size, publish=publish, put=put)


def looks(pause: str) -> str:
    """Return a take() that looks again after ``pause``."""
    return TAKE.replace("changed.clear()", "pass").replace("changed.wait()", pause)


def returns(what: str) -> str:
    """Return a take() that returns ``what``."""
    return TAKE.replace("product, newest.pop(product)", what)


NEVER_CLEARS = "await changed.wait()\n            " + TAKE.rpartition("wait()\n            ")[2]
PLAIN = answer().replace("async def take", "def take").replace(TAKE, "return newest.popitem()")

OLD = "return await self.queue.get()"
TIME_OUT = """\
try:
                    async with asyncio.timeout(0.005):
                        await changed.wait()
                except TimeoutError:
                    pass"""
WRONG: tuple[tuple[str, str, str], ...] = (
    (
        "the stub's inbox",
        "old-prices",
        inbox(
            init="self.queue = asyncio.Queue()",
            place="self.queue.put_nowait((product, price))",
            take=OLD,
        ),
    ),
    (
        "an inbox that is full raises",
        "publish-fails",
        inbox(
            init="self.queue = asyncio.Queue(10)",
            place="self.queue.put_nowait((product, price))",
            take=OLD,
        ),
    ),
    ("put is async", "publish-waits", inbox(put="async def put(self, product, price):")),
    (
        "the prices are the class's",
        "not-everyone",
        inbox(
            around="prices = OrderedDict()",
            init="self.changed = asyncio.Event(); self.prices.clear()",
        ),
    ),
    (
        "the prices of the class stay for the next reader",
        "from-before",
        inbox(
            around="all = {}",
            init="self.prices, self.changed = OrderedDict(self.all), asyncio.Event()",
            place="self.all[product] = self.prices[product] = price; self.changed.set()",
        ),
    ),
    (
        "the newest product comes first",
        "out-of-order",
        inbox(take=TAKE_NEWEST.replace("last=False", "last=True")),
    ),
    (
        "take returns the price alone",
        "wrong-pair",
        inbox(take=TAKE_NEWEST.replace("last=False)", "last=False)[1]")),
    ),
    (
        "take returns nothing when nothing is there",
        "returns-nothing",
        inbox(take="return self.prices.popitem(last=False) if self.prices else None"),
    ),
    (
        "take looks again and again",
        "polls",
        inbox(take=TAKE_NEWEST.replace("self.changed.wait()", "asyncio.sleep(0.001)")),
    ),
    ("there is no put", "publish-fails", inbox(put="def add(self, product, price):")),
    ("put isn't written", "not-written", inbox(place="raise NotImplementedError")),
    ("a queue without a size", "old-prices", queues()),
    (
        "a full queue drops the new one",
        "newest-lost",
        queues("10", put="queue.full() or queue.put_nowait((product, price))"),
    ),
    (
        "a full queue drops the oldest, whichever product it is",
        "old-prices",
        queues(
            "10",
            put="queue.full() and queue.get_nowait(); queue.put_nowait((product, price))",
        ),
    ),
    ("a full queue raises", "publish-fails", queues("10")),
    (
        "one place for all products",
        "product-lost",
        queues("1", put="queue.full() and queue.get_nowait(); queue.put_nowait((product, price))"),
    ),
    (
        "publish is async and waits",
        "publish-waits",
        queues(
            "10", "async def publish(self, product, price):", "await queue.put((product, price))"
        ),
    ),
    (
        "publish starts a task",
        "publish-waits",
        answer(wake="changed.set()\n        return asyncio.create_task(asyncio.sleep(0))"),
    ),
    (
        "the price stays where it is",
        "taken-twice",
        answer(
            take="await changed.wait()\n            return next(iter(newest.items()))",
        ),
    ),
    (
        "the last product comes first",
        "out-of-order",
        answer(
            take=TAKE.replace("next(iter(newest))", "next(reversed(newest))"),
        ),
    ),
    (
        "a product moves to the end when its price changes",
        "out-of-order",
        answer(put="newest.pop(product, None); newest[product] = price"),
    ),
    (
        "products come by name",
        "out-of-order",
        answer(take=TAKE.replace("next(iter(newest))", "min(newest)")),
    ),
    (
        "all readers share the places",
        "not-everyone",
        """
        class PriceBoard:
            def __init__(self):
                self.newest, self.changed = {}, asyncio.Event()

            @contextmanager
            def join(self):
                async def take():
                    while not self.newest:
                        self.changed.clear()
                        await self.changed.wait()
                    product = next(iter(self.newest))
                    return product, self.newest.pop(product)

                self.newest.clear()
                yield take

            def publish(self, product, price):
                self.newest[product] = price
                self.changed.set()
        """,
    ),
    (
        "all readers share the event",
        "not-everyone",
        """
        class PriceBoard:
            def __init__(self):
                self.readers, self.changed = [], asyncio.Event()

            @contextmanager
            def join(self):
                newest = {}

                async def take():
                    await self.changed.wait()
                    product = next(iter(newest))
                    price = newest.pop(product)
                    if not newest:
                        self.changed.clear()
                    return product, price

                self.readers.append(newest)
                try:
                    yield take
                finally:
                    self.readers[:] = [one for one in self.readers if one is not newest]

            def publish(self, product, price):
                for newest in self.readers:
                    newest[product] = price
                self.changed.set()
        """,
    ),
    (
        "those who join later get what the board has",
        "from-before",
        """
        class PriceBoard:
            def __init__(self):
                self.readers, self.all = [], {}

            @contextmanager
            def join(self):
                newest, changed = dict(self.all), asyncio.Event()

                async def take():
                    while not newest:
                        changed.clear()
                        await changed.wait()
                    product = next(iter(newest))
                    return product, newest.pop(product)

                self.readers.append((newest, changed))
                try:
                    yield take
                finally:
                    self.readers.remove((newest, changed))

            def publish(self, product, price):
                self.all[product] = price
                for newest, changed in self.readers:
                    newest[product] = price
                    changed.set()
        """,
    ),
    (
        "joins with the first take",
        "missed-after-joining",
        answer(
            joined="pass",
            left="pass",
            take=f"""\
if (newest, changed) not in self.readers:
                self.readers.append((newest, changed))
            {TAKE}""",
        ),
    ),
    (
        "clears the event each time",
        "sleeps-on",
        answer(
            take="""\
await changed.wait()
            changed.clear()
            product = next(iter(newest))
            return product, newest.pop(product)"""
        ),
    ),
    (
        "clears the event and waits, before it has looked",
        "overlooked",
        inbox(
            take="self.changed.clear(); await self.changed.wait()\n"
            "        return self.prices.popitem(last=False)"
        ),
    ),
    (
        "clears the event and waits, before it has looked, and takes the last first",
        "overlooked",
        inbox(
            take="self.changed.clear(); await self.changed.wait()\n"
            "        return self.prices.popitem()"
        ),
    ),
    (
        "clears and waits, before it has looked, on a board of its own",
        "overlooked",
        answer(
            take="""\
changed.clear()
            await changed.wait()
            product = next(iter(newest))
            return product, newest.pop(product)"""
        ),
    ),
    (
        "an inbox clears the event each time",
        "sleeps-on",
        inbox(
            take="await self.changed.wait(); self.changed.clear()\n"
            "        return self.prices.popitem(last=False)"
        ),
    ),
    (
        "an inbox clears the event each time, and takes the last first",
        "sleeps-on",
        inbox(
            take="await self.changed.wait(); self.changed.clear()\n"
            "        return self.prices.popitem()"
        ),
    ),
    (
        "put wakes nobody",
        "sleeps-on",
        inbox(
            place="self.prices[product] = price",
            take="await self.changed.wait()\n        return self.prices.popitem(last=False)",
        ),
    ),
    (
        "wakes the first reader only",
        "not-everyone",
        answer(wake="self.readers[0][1].set()"),
    ),
    (
        "returns None when there is nothing",
        "returns-nothing",
        answer(
            take="return newest.popitem() if False else next("
            "((p, newest.pop(p)) for p in list(newest)), None)"
        ),
    ),
    (
        "never clears the event",
        "returns-nothing",
        answer(take=NEVER_CLEARS),
    ),
    (
        "looks again and again",
        "polls",
        answer(take=looks("asyncio.sleep(0.005)")),
    ),
    (
        "spins",
        "polls",
        answer(take=looks("asyncio.sleep(0)")),
    ),
    (
        "looks again by a time-out",
        "polls",
        answer(take=TAKE.replace("await changed.wait()", TIME_OUT)),
    ),
    (
        "the price alone",
        "wrong-pair",
        answer(take=TAKE.replace("return product, ", "return ")),
    ),
    (
        "a list of two",
        "wrong-pair",
        answer(take=returns("[product, newest.pop(product)]")),
    ),
    (
        "price and product, the wrong way round",
        "wrong-pair",
        answer(take=returns("newest.pop(product), product")),
    ),
    ("join is no context manager", "not-a-with", answer(manager="")),
    (
        "join is an async context manager",
        "not-a-with",
        answer(manager="@asynccontextmanager").replace("def join", "async def join"),
    ),
    (
        "yields the places, and no function",
        "not-a-with",
        answer().replace("yield take", "yield newest"),
    ),
    ("nobody is taken off", "remembers-the-gone", answer(left="pass")),
    (
        "taken off, unless the block fails",
        "remembers-the-gone",
        answer(left="pass").replace(
            "yield take\n        finally:\n            pass",
            "yield take\n            self.readers.remove((newest, changed))\n"
            "        finally:\n            pass",
        ),
    ),
    ("everybody is taken off", "removes-another", answer(left="self.readers.clear()")),
    ("the wrong one is taken off", "removes-another", answer(left="self.readers.pop(0)")),
    (
        "takes the price out, then lets others run",
        "time-out-loses",
        answer(
            take=TAKE.replace(
                "return product, newest.pop(product)",
                "price = newest.pop(product)\n            await asyncio.sleep(0)\n"
                "            return product, price",
            )
        ),
    ),
    (
        "a task that goes on after the cancel",
        "time-out-loses",
        answer(
            take=f"""\
async def taking():
                {TAKE.replace(chr(10), chr(10) + "    ")}
            return await asyncio.shield(asyncio.ensure_future(taking()))"""
        ),
    ),
    (
        "publish fails once a reader has left",
        "publish-fails",
        answer(left="self.readers.append(None)"),
    ),
    ("take is a plain function", "not-async", PLAIN),
    ("nothing is written", "not-written", answer(take="raise NotImplementedError")),
    ("a typo", "raised", answer(take="return newst.popitem()")),
    ("leaves the program", "exits", answer(take="raise SystemExit")),
    ("blocks", "blocks-the-loop", "import time\n" + answer(take="time.sleep(30)")),
)


@pytest.mark.parametrize(
    ("mistake", "source"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG]
)
async def test_a_wrong_answer_gets_its_own_hint_in_time(mistake: str, source: str) -> None:
    began = time.perf_counter()

    verdict = await check_price_board(board_of(source))

    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message
    assert time.perf_counter() - began < PATIENCE


@pytest.mark.parametrize("given", [None, 7, "board", board_of(answer())(), board_of(inbox())()])
async def test_something_else_than_the_class_is_refused(given: Any) -> None:
    verdict = await check_price_board(given)
    assert (verdict.passed, verdict.mistake) == (False, "wrong-type")


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    made = {mistake for _, mistake, _ in WRONG}
    assert {mistake.name for mistake in EXERCISE.mistakes} <= made
