"""The check of lesson 05, with right answers and wrong ones."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from looplab.exercises.deadlines import EXERCISE, check_page

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy
AT_MOST = 6.0  # seconds that any answer may keep the check, on a machine with room

Written = Callable[[str, str], dict[str, Any]]


def changed(source: str, *edits: tuple[str, str]) -> str:
    """Return the source with each edit made, each in one place."""
    for old, new in edits:
        assert source.count(old) == 1, f"{old!r} is there {source.count(old)} times"
        source = source.replace(old, new)
    return source


ADD = """    async def add(name):
        try:
            found[name] = await extras[name](products)
            del missing[name]
        except (ExternalServiceError, TimeoutError):
            missing[name] = "failed"
"""

GROUPED = f"""
async def product_page(query, search, extras, budget):
    products, found, missing = None, {{}}, dict.fromkeys(extras, "late")

{ADD}
    try:
        async with asyncio.timeout(budget):
            products = await search(query)
            async with asyncio.TaskGroup() as group:
                for name in extras:
                    group.create_task(add(name))
    except TimeoutError:
        if products is None:
            raise
    return products, found, missing
"""

WHAT_IS_LEFT = f"""
async def product_page(query, search, extras, budget):
    loop = asyncio.get_running_loop()
    until = loop.time() + budget
    async with asyncio.timeout(budget):
        products = await search(query)
    found, missing = {{}}, dict.fromkeys(extras, "late")

{ADD}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(until - loop.time()), asyncio.TaskGroup() as group:
            for name in extras:
                group.create_task(add(name))
    return products, found, missing
"""

WAITED = """
async def product_page(query, search, extras, budget):
    loop = asyncio.get_running_loop()
    began = loop.time()
    products = await asyncio.wait_for(search(query), budget)
    tasks = {name: asyncio.create_task(extra(products)) for name, extra in extras.items()}
    found, missing = {}, {}
    try:
        left = budget - (loop.time() - began)
        done, pending = await asyncio.wait(tasks.values(), timeout=left)
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
    for name, task in tasks.items():
        if task in pending:
            missing[name] = "late"
            continue
        try:
            found[name] = task.result()
        except (ExternalServiceError, TimeoutError):
            missing[name] = "failed"
    return products, found, missing
"""

UNTIL = """
async def product_page(question, find, more, seconds):
    until = asyncio.get_running_loop().time() + seconds
    async with asyncio.timeout_at(until):
        products = await find(question)
    found, missing = {}, {}

    async def ask(name):
        deadline = asyncio.timeout_at(until)
        try:
            async with deadline:
                found[name] = await more[name](products)
        except ExternalServiceError:
            missing[name] = "failed"
        except TimeoutError:
            missing[name] = "late" if deadline.expired() else "failed"

    async with asyncio.TaskGroup() as group:
        for name in more:
            group.create_task(ask(name))
    return products, found, missing
"""

ANYIO = f"""
import anyio

async def product_page(query, search, extras, budget):
    products, found, missing = None, {{}}, dict.fromkeys(extras, "late")

{ADD}
    with anyio.move_on_after(budget):
        products = await search(query)
        async with anyio.create_task_group() as group:
            for name in extras:
                group.start_soon(add, name)
    if products is None:
        raise TimeoutError
    return products, found, missing
"""

GATHERED = f"""
async def product_page(query, search, extras, budget):
    products, found, missing = None, {{}}, dict.fromkeys(extras, "late")
    tasks = []

{ADD}
    try:
        async with asyncio.timeout(budget) as deadline:
            products = await search(query)
            tasks = [asyncio.create_task(add(name)) for name in extras]
            await asyncio.gather(*tasks)
    except TimeoutError:
        if products is None or not deadline.expired():
            raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return products, found, missing
"""

CLASS = f"""
class Budget:
    def __init__(self, seconds):
        self.deadline = asyncio.timeout(seconds)

    async def __aenter__(self):
        await self.deadline.__aenter__()
        return self

    async def __aexit__(self, *raised):
        try:
            return await self.deadline.__aexit__(*raised)
        except TimeoutError:
            return True


async def product_page(query, search, extras, budget):
    products, found, missing = None, {{}}, dict.fromkeys(extras, "late")

{ADD}
    async with Budget(budget):
        products = await search(query)
        async with asyncio.TaskGroup() as group:
            for name in extras:
                group.create_task(add(name))
    if products is None:
        raise TimeoutError("no products in time")
    return products, found, missing
"""

RIGHT = (
    ("one deadline around both steps", GROUPED),
    ("a second deadline of what is left", WHAT_IS_LEFT),
    ("wait_for, then asyncio.wait with a timeout", WAITED),
    ("a deadline for each, the same for all, with other names", UNTIL),
    ("AnyIO", ANYIO),
    ("gather, with a finally that ends the others", GATHERED),
    ("a class with __aenter__", CLASS),
)


@pytest.mark.parametrize(("name", "source"), RIGHT, ids=[name for name, _ in RIGHT])
async def test_a_right_answer_passes_in_any_style(name: str, source: str, written: Written) -> None:
    page = written("05", source)["product_page"]
    verdict = await check_page(page, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


HEAD = "async def product_page(query, search, extras, budget):\n"
DEADLINE = "asyncio.timeout(budget)"
CAUGHT = "(ExternalServiceError, TimeoutError)"
RETURN = "    return products, found, missing\n"
LATE = """    except TimeoutError:
        if products is None:
            raise
"""
ENDED = """        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
"""
SECOND = "async with asyncio.timeout(until - loop.time()), "
GROUP = """            async with asyncio.TaskGroup() as group:
                for name in extras:
                    group.create_task(add(name))
"""


def page(body: str) -> str:
    """Return an answer of its own with this body."""
    return HEAD + body


def with_budget(budget: str) -> str:
    """Return the page with another budget."""
    return changed(GROUPED, (DEADLINE, f"asyncio.timeout({budget})"))


def with_second(second: str) -> str:
    """Return the page of two deadlines with another second one."""
    return changed(WHAT_IS_LEFT, ("asyncio.timeout(until - loop.time())", second))


WRONG: tuple[tuple[str, str, str], ...] = (
    (
        "it asks one extra after another, as the stub does",
        page(
            "    products = await search(query)\n"
            "    return products, {name: await ask(products) for name, ask in extras.items()}, {}\n"
        ),
        "one-by-one",
    ),
    # -- the budget
    (
        "it has no budget",
        changed(GROUPED, (f"async with {DEADLINE}:", "async with contextlib.AsyncExitStack():")),
        "no-budget",
    ),
    (
        "only the search has a deadline",
        changed(WHAT_IS_LEFT, (SECOND, "async with ")),
        "no-budget",
    ),
    (
        "only the extras have a deadline",
        changed(
            WHAT_IS_LEFT,
            (f"async with {DEADLINE}:", "async with contextlib.AsyncExitStack():"),
        ),
        "search-without-budget",
    ),
    ("it waits four times as long", with_budget("4 * budget"), "no-budget"),
    ("it takes the budget for milliseconds", with_budget("1000 * budget"), "no-budget"),
    ("it always waits for ten seconds", with_budget("10"), "no-budget"),
    ("it waits for 1.4 budgets", with_budget("1.4 * budget"), "budget-stretched"),
    ("it waits for 1.25 budgets", with_budget("1.25 * budget"), "budget-stretched"),
    ("it begins a new budget for the extras", with_second(DEADLINE), "budget-stretched"),
    (
        "it begins the budget when the search has ended",
        changed(
            UNTIL,
            (
                "    found, missing = {}, {}\n",
                "    until = asyncio.get_running_loop().time() + seconds\n"
                "    found, missing = {}, {}\n",
            ),
        ),
        "budget-stretched",
    ),
    (
        "it returns late, after it has given up in time",
        changed(
            GROUPED, (RETURN, "    if missing:\n        await asyncio.sleep(budget / 2)\n" + RETURN)
        ),
        "budget-stretched",
    ),
    ("it always waits for 250 ms", with_budget("0.25"), "budget-split"),
    ("it waits for three quarters of the budget", with_budget("0.75 * budget"), "budget-split"),
    ("it waits for 0.85 of the budget", with_budget("0.85 * budget"), "budget-split"),
    (
        "it gives each step a half",
        changed(
            with_second("asyncio.timeout(budget / 2)"),
            (f"async with {DEADLINE}:", "async with asyncio.timeout(budget / 2):"),
        ),
        "budget-split",
    ),
    (
        "it gives the extras a half, whatever the search took",
        with_second("asyncio.timeout(min(budget / 2, until - loop.time()))"),
        "budget-split",
    ),
    (
        "it returns with the first extra",
        changed(WAITED, ("timeout=left", "timeout=left, return_when=asyncio.FIRST_COMPLETED")),
        "budget-split",
    ),
    (
        "it sleeps for the budget and then looks what has come",
        page("""    tasks = {}

    async def work():
        products = await search(query)
        for name, ask in extras.items():
            tasks[name] = asyncio.create_task(ask(products))
        return products

    products = asyncio.create_task(work())
    await asyncio.sleep(budget)
    found = {name: task.result() for name, task in tasks.items() if task.done()}
    return products.result(), found, {name: "late" for name in extras if name not in found}
"""),
        "waits-out-budget",
    ),
    (
        "it never gives a good day back before the budget has passed",
        changed(GROUPED, (RETURN, "    await asyncio.sleep(budget)\n" + RETURN)),
        "waits-out-budget",
    ),
    # -- the search
    (
        "it returns a page without products when the search is late",
        changed(GROUPED, (LATE, "    except TimeoutError:\n        products = products or []\n")),
        "page-without-products",
    ),
    (
        "it goes on to products that were never set",
        changed(
            WHAT_IS_LEFT,
            (
                f"    async with {DEADLINE}:\n        products = await search(query)\n",
                f"    with contextlib.suppress(TimeoutError):\n        async with {DEADLINE}:\n"
                "            products = await search(query)\n",
            ),
        ),
        "goes-on-without-products",
    ),
    (
        "it returns None for products when the search is late",
        changed(GROUPED, (LATE, "    except TimeoutError:\n        pass\n")),
        "page-without-products",
    ),
    (
        "it returns a page without products when the search fails",
        changed(
            GROUPED,
            (LATE, LATE + "    except ExternalServiceError:\n        products = []\n"),
        ),
        "search-failure-hidden",
    ),
    (
        "it turns the failure of the search into a time-out",
        changed(
            GROUPED,
            (
                LATE,
                LATE + "    except ExternalServiceError:\n        raise TimeoutError from None\n",
            ),
        ),
        "search-failure-hidden",
    ),
    (
        "it takes no products for no answer",
        changed(GROUPED, ("if products is None", "if not products")),
        "no-products-as-late",
    ),
    # -- what is late
    (
        "it lets the deadline's error out",
        changed(GROUPED, (LATE, "    finally:\n        pass\n")),
        "all-or-nothing",
    ),
    (
        "it finds nothing where nothing came, as on the card",
        changed(
            UNTIL,
            ('missing[name] = "late" if deadline.expired() else "failed"', "found[name] = []"),
        ),
        "late-as-empty",
    ),
    (
        "it finds None where nothing came",
        changed(
            GROUPED,
            (RETURN, "    return products, {name: found.get(name) for name in extras}, {}\n"),
        ),
        "late-as-empty",
    ),
    (
        "it returns while the late extra is still asked",
        changed(WAITED, (ENDED, "        pass\n")),
        "late-left-running",
    ),
    (
        "it cancels the late extra and does not wait for it",
        changed(
            WAITED,
            ("        await asyncio.gather(*tasks.values(), return_exceptions=True)\n", ""),
        ),
        "late-left-running",
    ),
    (
        "it leaves a late search running",
        changed(
            WAITED,
            (
                "await asyncio.wait_for(search(query), budget)",
                "await asyncio.wait_for("
                "asyncio.shield(asyncio.create_task(search(query))), budget)",
            ),
        ),
        "late-left-running",
    ),
    # -- what fails
    (
        "it lets an extra that is down end the page",
        changed(GROUPED, (CAUGHT, "TimeoutError")),
        "failure-loses-all",
    ),
    (
        "it lets an extra's own TimeoutError end the page",
        changed(GROUPED, (CAUGHT, "ExternalServiceError")),
        "inner-timeout-taken-for-deadline",
    ),
    (
        "it takes an extra's own TimeoutError for the deadline",
        changed(
            UNTIL,
            (
                'missing[name] = "late" if deadline.expired() else "failed"',
                'missing[name] = "late"',
            ),
        ),
        "inner-timeout-taken-for-deadline",
    ),
    (
        "an extra's own TimeoutError ends the others",
        changed(
            GATHERED,
            (CAUGHT, "ExternalServiceError"),
            ("if products is None or not deadline.expired():", "if products is None:"),
        ),
        "inner-timeout-taken-for-deadline",
    ),
    (
        "it finds nothing where an extra failed",
        changed(
            GROUPED,
            (
                '            missing[name] = "failed"\n',
                "            found[name] = []\n            del missing[name]\n",
            ),
        ),
        "failed-as-empty",
    ),
    (
        "it reports an extra with nothing to show as failed",
        changed(
            GROUPED,
            (
                "            del missing[name]\n",
                """            if not found[name]:
                del found[name]
                raise TimeoutError
            del missing[name]
""",
            ),
        ),
        "empty-as-missing",
    ),
    (
        "it leaves out an extra with nothing to show",
        changed(
            GROUPED,
            (
                RETURN,
                "    return products, {n: shown for n, shown in found.items() if shown}, missing\n",
            ),
        ),
        "empty-as-missing",
    ),
    # -- bugs
    ("it takes every error for a failure", changed(GROUPED, (CAUGHT, "Exception")), "bug-hidden"),
    (
        "it takes a ValueError for a failure",
        changed(GROUPED, (CAUGHT, "(ExternalServiceError, TimeoutError, ValueError)")),
        "bug-hidden",
    ),
    (
        "it takes a LookupError for a failure",
        changed(GROUPED, (CAUGHT, "(ExternalServiceError, TimeoutError, LookupError)")),
        "bug-hidden",
    ),
    (
        "it lets a bug out and its other extras run on",
        changed(
            GATHERED,
            (
                """    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
""",
                "",
            ),
        ),
        "bug-leaves-running",
    ),
    # -- its own cancellation
    (
        "its extras run on when it is cancelled",
        changed(
            WAITED,
            (
                "    finally:\n" + ENDED,
                """        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
    finally:
        pass
""",
            ),
        ),
        "left-on-cancel",
    ),
    (
        "its search runs on when it is cancelled",
        changed(
            GROUPED,
            (
                "await search(query)",
                "await asyncio.shield(found.setdefault(0, asyncio.create_task(search(query))))",
            ),
            (
                LATE,
                """    except TimeoutError:
        if products is None:
            found.pop(0).cancel()
            await asyncio.sleep(0.01)
            raise
""",
            ),
            (GROUP, "            del found[0]\n" + GROUP),
        ),
        "left-on-cancel",
    ),
    (
        "it returns what it has when it is cancelled",
        changed(
            GROUPED,
            (LATE, LATE + "    except asyncio.CancelledError:\n        pass\n"),
        ),
        "swallows-cancel",
    ),
    (
        "each extra takes the cancellation for lateness",
        changed(
            GROUPED,
            (CAUGHT, "asyncio.CancelledError:\n            pass\n        except " + CAUGHT),
            (LATE, LATE + "    except asyncio.CancelledError:\n        pass\n"),
        ),
        "swallows-cancel",
    ),
    (
        "it turns its cancellation into a TimeoutError",
        changed(
            GROUPED,
            (
                LATE,
                LATE + "    except asyncio.CancelledError:\n        raise TimeoutError from None\n",
            ),
        ),
        "swallows-cancel",
    ),
    # -- the answer
    (
        "it knows the extras by name",
        changed(
            GROUPED,
            (
                "                for name in extras:\n",
                '                for name in ("prices", "reviews", "stock"):\n',
            ),
        ),
        "names-hard-coded",
    ),
    (
        "it answers under names that it has seen once",
        changed(
            GROUPED,
            (
                RETURN,
                """    names = dict(zip(extras, ("prices", "reviews", "stock"), strict=True))
    return (
        products,
        {names[name]: shown for name, shown in found.items()},
        {names[name]: why for name, why in missing.items()},
    )
""",
            ),
        ),
        "names-hard-coded",
    ),
    (
        "it keeps what an earlier page has found",
        changed(
            "kept, lacking = {}, {}\n" + GROUPED,
            (
                'products, found, missing = None, {}, dict.fromkeys(extras, "late")',
                """products, found, missing = None, kept, lacking
    missing.update(dict.fromkeys(extras, "late"))""",
            ),
        ),
        "names-hard-coded",
    ),
    (
        "it gives a reason of its own",
        changed(
            GROUPED,
            (RETURN, '    return products, found, {name: "timed out" for name in missing}\n'),
        ),
        "wrong-reason",
    ),
    ("it returns one dict", changed(GROUPED, (RETURN, "    return found\n")), "wrong-answer"),
    (
        "it returns no products",
        changed(GROUPED, (RETURN, "    return found, missing\n")),
        "wrong-answer",
    ),
    (
        "it returns the query for the products",
        changed(GROUPED, (RETURN, "    return query, found, missing\n")),
        "wrong-answer",
    ),
    (
        "it returns what is missing as a list",
        changed(GROUPED, (RETURN, "    return products, found, list(missing)\n")),
        "wrong-answer",
    ),
    (
        "it crosses the answers",
        changed(
            GROUPED,
            (RETURN, "    return products, dict(zip(found, [*found.values()][::-1])), missing\n"),
        ),
        "wrong-answer",
    ),
    (
        "it does not say what is missing",
        changed(GROUPED, (RETURN, "    return products, found, {}\n")),
        "wrong-answer",
    ),
    (
        "it asks the extras about the query",
        changed(GROUPED, ("extras[name](products)", "extras[name](query)")),
        "wrong-answer",
    ),
    (
        "it searches for something else",
        changed(GROUPED, ("search(query)", "search(query.split()[-1])")),
        "wrong-answer",
    ),
    (
        "it searches twice",
        changed(
            GROUPED, ("= await search(query)", "= await search(query) and await search(query)")
        ),
        "wrong-answer",
    ),
    # -- what any exercise may meet
    ("it is not written", page("    raise NotImplementedError\n"), "not-written"),
    ("it returns nothing", changed(GROUPED, (RETURN, "")), "not-written"),
    ("it takes one argument", "async def product_page(query):\n    return [], {}, {}\n", "raised"),
    (
        "it starts and forgets",
        page("""    products = await search(query)
    tasks = [asyncio.create_task(extra(products)) for extra in extras.values()]
    await asyncio.sleep(0)
    return products, {}, {}
"""),
        "left-running",
    ),
    (
        "it never asks",
        page(
            "    products = await search(query)\n"
            "    return products, {name: ask(products) for name, ask in extras.items()}, {}\n"
        ),
        "forgotten-await",
    ),
    (
        "it is no coroutine function",
        page("    return [], {}, {}\n").removeprefix("async "),
        "not-async",
    ),
)


# Each passes, and why that is let be.
SURVIVES = (
    # A budget is a real wait, and a busy machine is late by a few hundredths of it. A page that
    # keeps less than a tenth of it, to send its answer in time, is right.
    ("it keeps a twentieth of the budget for itself", with_budget("0.95 * budget")),
    ("it uses 1.05 budgets", with_budget("1.05 * budget")),
)


@pytest.mark.parametrize(("name", "source"), SURVIVES, ids=[name for name, _ in SURVIVES])
async def test_what_survives_is_known(name: str, source: str, written: Written) -> None:
    assert (await check_page(written("05", source)["product_page"], limit=AMPLE)).passed
    assert 20 * len(SURVIVES) <= len(SURVIVES) + len(WRONG)


@pytest.mark.parametrize(("name", "source", "mistake"), WRONG, ids=[name for name, *_ in WRONG])
async def test_a_wrong_answer_gets_its_own_hint(
    name: str, source: str, mistake: str, written: Written
) -> None:
    page = written("05", source)["product_page"]
    before = asyncio.all_tasks()
    verdict = await check_page(page, limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message
    assert asyncio.all_tasks() == before


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    assert {mistake.name for mistake in EXERCISE.mistakes} <= {mistake for *_, mistake in WRONG}


@pytest.mark.parametrize("late", ["before the end of the budget", "after it"])
async def test_a_machine_that_stands_still_is_not_taken_for_a_wrong_budget(
    late: str, written: Written
) -> None:
    right = written("05", WAITED)["product_page"]
    budgets: list[float] = []

    async def page(query: str, search: Any, extras: dict[str, Any], budget: float) -> Any:
        budgets.append(budget)
        if len(budgets) == 2:  # the first round in which an extra hangs
            when = (0.85 if late == "before the end of the budget" else 0.98) * budget
            asyncio.get_running_loop().call_later(when, time.sleep, budget / 2)
        return await right(query, search, extras, budget)

    verdict = await check_page(page, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert budgets[2] == 2 * budgets[1]  # another round, with more room


HOSTILE = (
    ("it waits for ever", page("    await asyncio.Event().wait()\n"), "never-ends"),
    (
        "it asks for ever and swallows every error, its cancellation too",
        page("""    while True:
        try:
            await search(query)
        except BaseException:
            pass
"""),
        "never-ends",
    ),
)


@pytest.mark.parametrize(("name", "source", "mistake"), HOSTILE, ids=[name for name, *_ in HOSTILE])
async def test_a_hostile_answer_ends_soon_and_leaves_later_checks_whole(
    name: str, source: str, mistake: str, written: Written
) -> None:
    page = written("05", source)["product_page"]
    before, began = asyncio.all_tasks(), time.monotonic()
    verdict = await check_page(page, limit=2.0)
    assert verdict.mistake == mistake, verdict.message
    assert time.monotonic() - began < AT_MOST
    assert asyncio.all_tasks() == before
    assert (await check_page(written("05", GROUPED)["product_page"], limit=AMPLE)).passed


async def test_the_page_called_in_the_check_cell(written: Written) -> None:
    page = written("05", GROUPED)["product_page"]

    async def no_products(_query: str) -> list[str]:
        return []

    verdict = await check_page(page("lamp", no_products, {}, 1.0))
    assert verdict.mistake == "called-instead-of-passed"


async def test_no_function_at_all() -> None:
    assert (await check_page({})).mistake == "wrong-type"


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
async def test_a_limit_must_be_above_0(limit: float, written: Written) -> None:
    with pytest.raises(ValueError, match="limit"):
        await check_page(written("05", GROUPED)["product_page"], limit=limit)
