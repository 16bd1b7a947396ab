"""The check of lesson 05, with right answers and wrong ones."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.exercises.deadlines import EXERCISE, check_search

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


GROUPED = """
async def search_sources(query, sources, budget):
    found, missing = {}, dict.fromkeys(sources, "late")

    async def ask(name):
        try:
            found[name] = await sources[name](query)
            del missing[name]
        except (SourceUnavailable, TimeoutError):
            missing[name] = "failed"

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(budget), asyncio.TaskGroup() as group:
            for name in sources:
                group.create_task(ask(name))
    return found, missing
"""

WAITED = """
async def search_sources(query, sources, budget):
    tasks = {name: asyncio.create_task(search(query)) for name, search in sources.items()}
    found, missing = {}, {}
    try:
        done, pending = await asyncio.wait(tasks.values(), timeout=budget)
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
        except (SourceUnavailable, TimeoutError):
            missing[name] = "failed"
    return found, missing
"""

WAITED_FOR_THE_FIRST_BUG = """
async def search_sources(question, engines, seconds):
    found, missing = {}, {}

    async def ask(name):
        try:
            found[name] = await engines[name](question)
        except (SourceUnavailable, TimeoutError):
            missing[name] = "failed"

    tasks = {asyncio.create_task(ask(name)): name for name in engines}
    try:
        done, late = await asyncio.wait(
            tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION
        )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()
    for task in late:
        missing[tasks[task]] = "late"
    return found, missing
"""

EACH_WITH_ALL_OF_IT = """
async def search_sources(query, sources, budget):
    found, missing = {}, {}
    until = asyncio.get_running_loop().time() + budget

    async def ask(name):
        deadline = asyncio.timeout_at(until)
        try:
            async with deadline:
                found[name] = await sources[name](query)
        except SourceUnavailable:
            missing[name] = "failed"
        except TimeoutError:
            missing[name] = "late" if deadline.expired() else "failed"

    async with asyncio.TaskGroup() as group:
        for name in sources:
            group.create_task(ask(name))
    return found, missing
"""

ANYIO = """
import anyio

async def search_sources(query, sources, budget):
    found, missing = {}, dict.fromkeys(sources, "late")

    async def ask(name):
        try:
            found[name] = await sources[name](query)
            del missing[name]
        except (SourceUnavailable, TimeoutError):
            missing[name] = "failed"

    with anyio.move_on_after(budget):
        async with anyio.create_task_group() as group:
            for name in sources:
                group.start_soon(ask, name)
    return found, missing
"""

GATHERED = """
async def search_sources(query, sources, budget):
    found, missing = {}, dict.fromkeys(sources, "late")

    async def ask(name):
        try:
            found[name] = await sources[name](query)
            del missing[name]
        except (SourceUnavailable, TimeoutError):
            missing[name] = "failed"

    tasks = [asyncio.create_task(ask(name)) for name in sources]
    try:
        async with asyncio.timeout(budget) as deadline:
            await asyncio.gather(*tasks)
    except TimeoutError:
        if not deadline.expired():
            raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return found, missing
"""

CLASS = """
class Search:
    def __init__(self, query, sources, budget):
        self.query, self.sources = query, sources
        self.found, self.missing = {}, dict.fromkeys(sources, "late")
        self.deadline = asyncio.timeout(budget)

    async def __aenter__(self):
        await self.deadline.__aenter__()
        return self

    async def __aexit__(self, kind, error, traceback):
        try:
            await self.deadline.__aexit__(kind, error, traceback)
        except TimeoutError:
            return True

    async def ask(self, name):
        try:
            self.found[name] = await self.sources[name](self.query)
            self.missing.pop(name)
        except (SourceUnavailable, TimeoutError):
            self.missing[name] = "failed"


async def search_sources(query, sources, budget):
    async with Search(query, sources, budget) as search:
        async with asyncio.TaskGroup() as group:
            for name in sources:
                group.create_task(search.ask(name))
    return search.found, search.missing
"""

RIGHT = (
    ("a TaskGroup in a deadline", GROUPED),
    ("asyncio.wait with a timeout", WAITED),
    ("asyncio.wait for the first bug, with other names", WAITED_FOR_THE_FIRST_BUG),
    ("a deadline for each, the same for all", EACH_WITH_ALL_OF_IT),
    ("AnyIO", ANYIO),
    ("gather, with a finally that ends the others", GATHERED),
    ("a class with __aenter__", CLASS),
)


@pytest.mark.parametrize(("name", "source"), RIGHT, ids=[name for name, _ in RIGHT])
async def test_a_right_answer_passes_in_any_style(name: str, source: str, written: Written) -> None:
    search = written("05", source)["search_sources"]
    verdict = await check_search(search, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


HEAD = "async def search_sources(query, sources, budget):\n"
TASKS = """    tasks = {name: asyncio.create_task(ask(query)) for name, ask in sources.items()}
"""
DEADLINE = "asyncio.timeout(budget)"
FOUND = "found[name] = await sources[name](query)"
CAUGHT = "(SourceUnavailable, TimeoutError)"
RETURN = "    return found, missing\n"
ENDED = """        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
"""


def search(body: str) -> str:
    """Return an answer of its own with this body."""
    return HEAD + body


def with_budget(budget: str) -> str:
    """Return the search with another budget."""
    return changed(GROUPED, (DEADLINE, f"asyncio.timeout({budget})"))


WRONG: tuple[tuple[str, str, str], ...] = (
    (
        "it asks one source after another, as the stub does",
        search("    return {name: await ask(query) for name, ask in sources.items()}, {}\n"),
        "one-by-one",
    ),
    # -- the budget
    (
        "it has no budget",
        changed(GROUPED, (f"async with {DEADLINE}, ", "async with ")),
        "no-budget",
    ),
    ("it waits four times as long", with_budget("4 * budget"), "no-budget"),
    ("it takes the budget for milliseconds", with_budget("1000 * budget"), "no-budget"),
    ("it waits for 1.4 budgets", with_budget("1.4 * budget"), "budget-stretched"),
    ("it waits for 1.25 budgets", with_budget("1.25 * budget"), "budget-stretched"),
    ("it always waits for 250 ms", with_budget("0.25"), "budget-split"),
    ("it always waits for ten seconds", with_budget("10"), "no-budget"),
    (
        "it begins a new budget for each wait",
        search(
            TASKS
            + """    found, missing = {}, {}
    for name, task in tasks.items():
        try:
            found[name] = await asyncio.wait_for(task, budget)
        except TimeoutError:
            missing[name] = "late"
    return found, missing
"""
        ),
        "budget-stretched",
    ),
    (
        "it returns late, after it has given up in time",
        changed(
            GROUPED,
            (RETURN, "    if missing:\n        await asyncio.sleep(budget / 2)\n" + RETURN),
        ),
        "budget-stretched",
    ),
    ("it waits for three quarters of the budget", with_budget("0.75 * budget"), "budget-split"),
    ("it waits for 0.85 of the budget", with_budget("0.85 * budget"), "budget-split"),
    ("it gives each source a third", with_budget("budget / len(sources)"), "budget-split"),
    (
        "it returns with the first answer",
        changed(
            WAITED,
            ("timeout=budget", "timeout=budget, return_when=asyncio.FIRST_COMPLETED"),
        ),
        "budget-split",
    ),
    (
        "it sleeps for the budget and then looks what has come",
        search(
            TASKS
            + """    await asyncio.sleep(budget)
    found = {name: task.result() for name, task in tasks.items() if task.done()}
    return found, {name: "late" for name in sources if name not in found}
"""
        ),
        "waits-out-budget",
    ),
    (
        "it never gives a good day back before the budget has passed",
        changed(GROUPED, (RETURN, "    await asyncio.sleep(budget)\n" + RETURN)),
        "waits-out-budget",
    ),
    # -- what is late
    (
        "it lets the deadline's error out",
        changed(GROUPED, ("contextlib.suppress(TimeoutError)", "contextlib.nullcontext()")),
        "all-or-nothing",
    ),
    (
        "it finds nothing where nothing came, as on the card",
        changed(
            EACH_WITH_ALL_OF_IT,
            ('missing[name] = "late" if deadline.expired() else "failed"', "found[name] = []"),
        ),
        "late-as-empty",
    ),
    (
        "it finds None where nothing came",
        changed(GROUPED, (RETURN, "    return {name: found.get(name) for name in sources}, {}\n")),
        "late-as-empty",
    ),
    (
        "it returns while the late source is still asked",
        changed(WAITED, (ENDED, "        pass\n")),
        "late-left-running",
    ),
    (
        "it cancels the late source and does not wait for it",
        changed(
            WAITED,
            ("        await asyncio.gather(*tasks.values(), return_exceptions=True)\n", ""),
        ),
        "late-left-running",
    ),
    # -- what fails
    (
        "it lets a source that is down end the search",
        changed(GROUPED, (CAUGHT, "TimeoutError")),
        "failure-loses-all",
    ),
    (
        "it lets a source's own TimeoutError end the search",
        changed(GROUPED, (CAUGHT, "SourceUnavailable")),
        "inner-timeout-taken-for-deadline",
    ),
    (
        "it takes a source's own TimeoutError for the deadline",
        changed(
            EACH_WITH_ALL_OF_IT,
            (
                'missing[name] = "late" if deadline.expired() else "failed"',
                'missing[name] = "late"',
            ),
        ),
        "inner-timeout-taken-for-deadline",
    ),
    (
        "a source's own TimeoutError ends the others",
        changed(
            GATHERED,
            (CAUGHT, "SourceUnavailable"),
            ("        if not deadline.expired():\n            raise\n", "        pass\n"),
        ),
        "inner-timeout-taken-for-deadline",
    ),
    (
        "it finds nothing where a source failed",
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
        "it reports a source without hits as failed",
        changed(
            GROUPED,
            (
                "            del missing[name]\n",
                """            if not found[name]:
                del found[name]
                raise SourceUnavailable
            del missing[name]
""",
            ),
        ),
        "empty-as-missing",
    ),
    (
        "it leaves out a source without hits",
        changed(
            GROUPED,
            (RETURN, "    return {n: hits for n, hits in found.items() if hits}, missing\n"),
        ),
        "empty-as-missing",
    ),
    # -- bugs
    ("it takes every error for a failure", changed(GROUPED, (CAUGHT, "Exception")), "bug-hidden"),
    (
        "it takes a ValueError for a failure",
        changed(GROUPED, (CAUGHT, "(SourceUnavailable, TimeoutError, ValueError)")),
        "bug-hidden",
    ),
    (
        "it takes a LookupError for a failure",
        changed(GROUPED, (CAUGHT, "(SourceUnavailable, TimeoutError, LookupError)")),
        "bug-hidden",
    ),
    (
        "it gathers with return_exceptions and sorts errors into missing",
        search("""    tasks = [asyncio.create_task(search(query)) for search in sources.values()]
    async def all_of_them():
        return await asyncio.gather(*tasks, return_exceptions=True)
    done, late = await asyncio.wait(tasks, timeout=budget)
    for task in late:
        task.cancel()
    found, missing = {}, {}
    for name, answer in zip(sources, await all_of_them(), strict=True):
        if isinstance(answer, asyncio.CancelledError):
            missing[name] = "late"
        elif isinstance(answer, Exception):
            missing[name] = "failed"
        else:
            found[name] = answer
    return found, missing
"""),
        "bug-hidden",
    ),
    (
        "it lets a bug out and its other sources run on",
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
        "its sources run on when it is cancelled",
        search(
            TASKS
            + """    found, missing = {}, {}
    done, pending = await asyncio.wait(tasks.values(), timeout=budget)
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending)
    for name, task in tasks.items():
        if task in pending:
            missing[name] = "late"
            continue
        try:
            found[name] = task.result()
        except (SourceUnavailable, TimeoutError):
            missing[name] = "failed"
    return found, missing
"""
        ),
        "left-on-cancel",
    ),
    (
        "it returns what it has when it is cancelled",
        changed(
            GROUPED,
            (
                "contextlib.suppress(TimeoutError)",
                "contextlib.suppress(TimeoutError, asyncio.CancelledError)",
            ),
        ),
        "swallows-cancel",
    ),
    (
        "each source takes the cancellation for lateness",
        changed(
            GROUPED,
            (CAUGHT, "asyncio.CancelledError:\n            pass\n        except " + CAUGHT),
            (
                "contextlib.suppress(TimeoutError)",
                "contextlib.suppress(TimeoutError, asyncio.CancelledError)",
            ),
        ),
        "swallows-cancel",
    ),
    (
        "it shields the search from its cancellation",
        changed(
            GROUPED,
            (
                """    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(budget), asyncio.TaskGroup() as group:
            for name in sources:
                group.create_task(ask(name))
""",
                """    async def ask_all():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(budget), asyncio.TaskGroup() as group:
                for name in sources:
                    group.create_task(ask(name))

    await asyncio.shield(asyncio.create_task(ask_all()))
""",
            ),
        ),
        "left-on-cancel",
    ),
    # -- the answer
    (
        "it knows the sources by name",
        changed(
            GROUPED,
            (
                "            for name in sources:\n",
                '            for name in ("database", "elasticsearch", "external_api"):\n',
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
                """    names = ("database", "elasticsearch", "external_api")
    names = dict(zip(sources, names, strict=True))
    return (
        {names[name]: hits for name, hits in found.items()},
        {names[name]: why for name, why in missing.items()},
    )
""",
            ),
        ),
        "names-hard-coded",
    ),
    (
        "it calls late what failed, and the other way round",
        changed(
            GROUPED,
            (
                RETURN,
                '    return found, {name: "timed out" for name in missing}\n',
            ),
        ),
        "wrong-reason",
    ),
    ("it returns one dict", changed(GROUPED, (RETURN, "    return found\n")), "wrong-answer"),
    (
        "it returns what is missing as a list",
        changed(GROUPED, (RETURN, "    return found, list(missing)\n")),
        "wrong-answer",
    ),
    (
        "it crosses the answers",
        changed(
            GROUPED,
            (RETURN, "    return dict(zip(found, [*found.values()][::-1])), missing\n"),
        ),
        "wrong-answer",
    ),
    (
        "it does not say what is missing",
        changed(GROUPED, (RETURN, "    return found, {}\n")),
        "wrong-answer",
    ),
    (
        "it asks the sources something else",
        changed(GROUPED, ("sources[name](query)", "sources[name](query.split()[-1])")),
        "wrong-answer",
    ),
    (
        "it keeps what an earlier search has found",
        changed(
            "kept, lacking = {}, {}\n" + GROUPED,
            (
                'found, missing = {}, dict.fromkeys(sources, "late")',
                """found, missing = kept, lacking
    missing.update(dict.fromkeys(sources, "late"))""",
            ),
        ),
        "names-hard-coded",
    ),
    # -- what any exercise may meet
    ("it is not written", search("    raise NotImplementedError\n"), "not-written"),
    ("it returns nothing", changed(GROUPED, (RETURN, "")), "not-written"),
    ("it takes one argument", "async def search_sources(query):\n    return {}, {}\n", "raised"),
    (
        "it starts and forgets",
        search(TASKS + "    await asyncio.sleep(0)\n    return {}, {}\n"),
        "left-running",
    ),
    (
        "it never asks",
        search("    return {name: ask(query) for name, ask in sources.items()}, {}\n"),
        "forgotten-await",
    ),
    (
        "it is no coroutine function",
        search("    return {}, {}\n").removeprefix("async "),
        "not-async",
    ),
)


# Each passes, and why that is let be.
SURVIVES = (
    # A budget is a real wait, and a busy machine is late by a few hundredths of it. A search
    # that keeps less than a tenth of it, to send its answer in time, is right.
    ("it keeps a twentieth of the budget for itself", with_budget("0.95 * budget")),
    ("it uses 1.05 budgets", with_budget("1.05 * budget")),
)


@pytest.mark.parametrize(("name", "source"), SURVIVES, ids=[name for name, _ in SURVIVES])
async def test_what_survives_is_known(name: str, source: str, written: Written) -> None:
    assert (await check_search(written("05", source)["search_sources"], limit=AMPLE)).passed
    assert 20 * len(SURVIVES) <= len(SURVIVES) + len(WRONG)


@pytest.mark.parametrize(("name", "source", "mistake"), WRONG, ids=[name for name, *_ in WRONG])
async def test_a_wrong_answer_gets_its_own_hint(
    name: str, source: str, mistake: str, written: Written
) -> None:
    search = written("05", source)["search_sources"]
    before = asyncio.all_tasks()
    verdict = await check_search(search, limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message
    assert asyncio.all_tasks() == before


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    assert {mistake.name for mistake in EXERCISE.mistakes} <= {mistake for *_, mistake in WRONG}


@pytest.mark.parametrize("late", ["before the end of the budget", "after it"])
async def test_a_machine_that_stands_still_is_not_taken_for_a_wrong_budget(
    late: str, written: Written
) -> None:
    right = written("05", WAITED)["search_sources"]
    budgets: list[float] = []

    async def search(query: str, sources: dict[str, Any], budget: float) -> Any:
        budgets.append(budget)
        if len(budgets) == 2:  # the first round in which a source hangs
            when = (0.85 if late == "before the end of the budget" else 0.98) * budget
            asyncio.get_running_loop().call_later(when, time.sleep, budget / 2)
        return await right(query, sources, budget)

    verdict = await check_search(search, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert budgets[2] == 2 * budgets[1]  # another round, with more room


HOSTILE = (
    ("it waits for ever", search("    await asyncio.Event().wait()\n"), "never-ends"),
    (
        "it asks for ever and swallows every error, its cancellation too",
        search("""    while True:
        try:
            await sources["database"](query)
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
    search = written("05", source)["search_sources"]
    before, began = asyncio.all_tasks(), time.monotonic()
    verdict = await check_search(search, limit=2.0)
    assert verdict.mistake == mistake, verdict.message
    assert time.monotonic() - began < AT_MOST
    assert asyncio.all_tasks() == before
    assert (await check_search(written("05", GROUPED)["search_sources"], limit=AMPLE)).passed


async def test_the_search_called_in_the_check_cell(written: Written) -> None:
    search = written("05", GROUPED)["search_sources"]
    verdict = await check_search(search("lamp", {}, 1.0))
    assert verdict.mistake == "called-instead-of-passed"


async def test_no_function_at_all() -> None:
    assert (await check_search({})).mistake == "wrong-type"


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
async def test_a_limit_must_be_above_0(limit: float, written: Written) -> None:
    with pytest.raises(ValueError, match="limit"):
        await check_search(written("05", GROUPED)["search_sources"], limit=limit)
