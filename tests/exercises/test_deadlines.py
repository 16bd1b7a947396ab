"""The check of lesson 05, with right answers and wrong ones."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import anyio
import pytest

from support.exercises.deadlines import EXERCISE, SourceUnavailable, check_search

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy

Sources = dict[str, Callable[[str], Coroutine[Any, Any, list[str]]]]
Search = Callable[[str, Sources, float], Any]


async def grouped(query: str, sources: Sources, budget: float) -> Any:
    found, missing = {}, dict.fromkeys(sources, "late")

    async def ask(name: str) -> None:
        try:
            found[name] = await sources[name](query)
            del missing[name]
        except (SourceUnavailable, TimeoutError):
            missing[name] = "failed"

    with suppress(TimeoutError):
        async with asyncio.timeout(budget), asyncio.TaskGroup() as group:
            for name in sources:
                group.create_task(ask(name))
    return found, missing


async def waited(query: str, sources: Sources, budget: float) -> Any:
    """Wait for plain tasks with a timeout, and cancel what is late."""
    tasks = {name: asyncio.create_task(search(query)) for name, search in sources.items()}
    done, pending = await asyncio.wait(tasks.values(), timeout=budget)
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending)
    found, missing = {}, {}
    for name, task in tasks.items():
        if task not in done:
            missing[name] = "late"
            continue
        try:
            found[name] = task.result()
        except (SourceUnavailable, TimeoutError):
            missing[name] = "failed"
    return found, missing


async def each_with_all_of_it(query: str, sources: Sources, budget: float) -> Any:
    """Give each source a deadline of its own, the same for all."""
    found, missing = {}, {}
    until = asyncio.get_running_loop().time() + budget

    async def ask(name: str) -> None:
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


async def with_anyio(query: str, sources: Sources, budget: float) -> Any:
    found, missing = {}, dict.fromkeys(sources, "late")

    async def ask(name: str) -> None:
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


@pytest.mark.parametrize("search", [grouped, waited, each_with_all_of_it, with_anyio])
async def test_right_answers_pass(search: Search) -> None:
    verdict = await check_search(search, limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


async def one_by_one(query: str, sources: Sources, budget: float) -> Any:
    return {name: await search(query) for name, search in sources.items()}, {}


async def without_a_budget(query: str, sources: Sources, budget: float) -> Any:
    answers = await asyncio.gather(*(search(query) for search in sources.values()))
    return dict(zip(sources, answers, strict=True)), {}


async def a_budget_for_each_wait(query: str, sources: Sources, budget: float) -> Any:
    tasks = {name: asyncio.create_task(search(query)) for name, search in sources.items()}
    found, missing = {}, {}
    for name, task in tasks.items():
        try:
            found[name] = await asyncio.wait_for(task, budget)
        except TimeoutError:
            missing[name] = "late"
    return found, missing


async def late_in_returning(query: str, sources: Sources, budget: float) -> Any:
    answer = await grouped(query, sources, budget)
    if "late" in answer[1].values():
        await asyncio.sleep(3.1 * budget)
    return answer


async def split(query: str, sources: Sources, budget: float) -> Any:
    async def within_a_third(search: Callable[[str], Any]) -> list[str]:
        async with asyncio.timeout(budget / 3):
            return await search(query)

    return await grouped(
        query, {n: lambda _, s=s: within_a_third(s) for n, s in sources.items()}, budget
    )


async def all_or_nothing(query: str, sources: Sources, budget: float) -> Any:
    async with asyncio.timeout(budget):
        return await without_a_budget(query, sources, budget)


async def as_on_the_card(query: str, sources: Sources, budget: float) -> Any:
    async def search_source(name: str) -> tuple[str, list[str]]:
        try:
            return name, await asyncio.wait_for(sources[name](query), budget)
        except TimeoutError:
            return name, []

    return dict(await asyncio.gather(*map(search_source, sources))), {}


async def late_uncancelled(query: str, sources: Sources, budget: float) -> Any:
    tasks = {name: asyncio.create_task(search(query)) for name, search in sources.items()}
    kept.extend(tasks.values())
    await asyncio.wait(tasks.values(), timeout=budget)
    found = {name: task.result() for name, task in tasks.items() if task.done()}
    return found, {name: "late" for name in sources if name not in found}


async def late_unawaited(query: str, sources: Sources, budget: float) -> Any:
    try:
        return await late_uncancelled(query, sources, budget)
    finally:
        for task in kept:
            task.cancel()


kept: list[asyncio.Task[Any]] = []


async def failures_let_out(query: str, sources: Sources, budget: float) -> Any:
    found, missing = {}, dict.fromkeys(sources, "late")

    async def ask(name: str) -> None:
        found[name] = await sources[name](query)
        del missing[name]

    with suppress(TimeoutError):
        async with asyncio.timeout(budget), asyncio.TaskGroup() as group:
            for name in sources:
                group.create_task(ask(name))
    return found, missing


async def own_timeout_let_out(query: str, sources: Sources, budget: float) -> Any:
    found, missing = {}, dict.fromkeys(sources, "late")

    async def ask(name: str) -> None:
        try:
            found[name] = await sources[name](query)
            del missing[name]
        except SourceUnavailable:
            missing[name] = "failed"

    with suppress(TimeoutError):
        async with asyncio.timeout(budget), asyncio.TaskGroup() as group:
            for name in sources:
                group.create_task(ask(name))
    return found, missing


async def own_timeout_is_late(query: str, sources: Sources, budget: float) -> Any:
    found, missing = {}, {}

    async def ask(name: str) -> None:
        try:
            async with asyncio.timeout(budget):
                found[name] = await sources[name](query)
        except SourceUnavailable:
            missing[name] = "failed"
        except TimeoutError:
            missing[name] = "late"

    await asyncio.gather(*map(ask, sources))
    return found, missing


async def own_timeout_ends_all(query: str, sources: Sources, budget: float) -> Any:
    found, missing = {}, dict.fromkeys(sources, "late")

    async def ask(name: str) -> None:
        try:
            found[name] = await sources[name](query)
            del missing[name]
        except SourceUnavailable:
            missing[name] = "failed"

    tasks = [asyncio.create_task(ask(name)) for name in sources]
    with suppress(TimeoutError):
        async with asyncio.timeout(budget):
            await asyncio.gather(*tasks)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return found, missing


async def hides_bugs(query: str, sources: Sources, budget: float) -> Any:
    found, missing = {}, dict.fromkeys(sources, "late")

    async def ask(name: str) -> None:
        try:
            found[name] = await sources[name](query)
            del missing[name]
        except Exception:
            missing[name] = "failed"

    with suppress(TimeoutError):
        async with asyncio.timeout(budget), asyncio.TaskGroup() as group:
            for name in sources:
                group.create_task(ask(name))
    return found, missing


async def gathered(query: str, sources: Sources, budget: float) -> Any:
    found, missing = {}, dict.fromkeys(sources, "late")

    async def ask(name: str) -> None:
        try:
            found[name] = await sources[name](query)
            del missing[name]
        except (SourceUnavailable, TimeoutError):
            missing[name] = "failed"

    with suppress(TimeoutError):
        async with asyncio.timeout(budget):
            await asyncio.gather(*map(ask, sources))
    return found, missing


async def all_late(query: str, sources: Sources, budget: float) -> Any:
    found, missing = await grouped(query, sources, budget)
    return found, dict.fromkeys(missing, "timed out")


async def one_dict(query: str, sources: Sources, budget: float) -> Any:
    return (await grouped(query, sources, budget))[0]


async def missing_as_a_list(query: str, sources: Sources, budget: float) -> Any:
    found, missing = await grouped(query, sources, budget)
    return found, list(missing)


async def names_crossed(query: str, sources: Sources, budget: float) -> Any:
    found, missing = await grouped(query, sources, budget)
    return dict(zip(found, reversed(found.values()), strict=True)), missing


async def names_left_out(query: str, sources: Sources, budget: float) -> Any:
    return (await grouped(query, sources, budget))[0], {}


async def another_query(query: str, sources: Sources, budget: float) -> Any:
    return await grouped("lamp", sources, budget)


async def not_yet(query: str, sources: Sources, budget: float) -> Any:
    raise NotImplementedError


async def nothing(query: str, sources: Sources, budget: float) -> Any:
    await grouped(query, sources, budget)


async def wrong_arguments(query: str) -> Any:
    return {}, {}


async def started_and_forgotten(query: str, sources: Sources, budget: float) -> Any:
    kept.extend(asyncio.create_task(search(query)) for search in sources.values())
    await asyncio.sleep(0)
    return {}, {}


async def never_asked(query: str, sources: Sources, budget: float) -> Any:
    return {name: search(query) for name, search in sources.items()}, {}


def plain(query: str, sources: Sources, budget: float) -> Any:
    return {}, {}


WRONG: list[tuple[str, Callable[..., Any]]] = [
    ("one-by-one", one_by_one),
    ("no-budget", without_a_budget),
    ("no-budget", a_budget_for_each_wait),
    ("no-budget", late_in_returning),
    ("budget-split", split),
    ("all-or-nothing", all_or_nothing),
    ("late-as-empty", as_on_the_card),
    ("late-left-running", late_uncancelled),
    ("late-left-running", late_unawaited),
    ("failure-loses-all", failures_let_out),
    ("inner-timeout-taken-for-deadline", own_timeout_let_out),
    ("inner-timeout-taken-for-deadline", own_timeout_is_late),
    ("inner-timeout-taken-for-deadline", own_timeout_ends_all),
    ("bug-hidden", hides_bugs),
    ("bug-leaves-running", gathered),
    ("wrong-reason", all_late),
    ("wrong-answer", one_dict),
    ("wrong-answer", missing_as_a_list),
    ("wrong-answer", names_crossed),
    ("wrong-answer", names_left_out),
    ("wrong-answer", another_query),
    ("not-written", not_yet),
    ("not-written", nothing),
    ("raised", wrong_arguments),
    ("left-running", started_and_forgotten),
    ("forgotten-await", never_asked),
    ("not-async", plain),
]


@pytest.mark.parametrize(("mistake", "search"), WRONG)
async def test_wrong_answers_get_their_hint(mistake: str, search: Search) -> None:
    before = asyncio.all_tasks()
    verdict = await check_search(search, limit=AMPLE)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message
    assert asyncio.all_tasks() == before
    kept.clear()


async def test_a_machine_that_stands_still_is_not_taken_for_a_budget_that_is_split() -> None:
    budgets: list[float] = []

    async def search(query: str, sources: Sources, budget: float) -> Any:
        budgets.append(budget)
        if len(budgets) == 2:  # the round in which a source hangs
            asyncio.get_running_loop().call_later(budget / 2, time.sleep, budget)
        return await gathered(query, sources, budget)

    verdict = await check_search(search, limit=AMPLE)
    assert verdict.mistake == "bug-leaves-running", verdict.message  # which is what it does wrong
    assert budgets[2] == 2 * budgets[1]  # another round, with more room


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    assert {mistake.name for mistake in EXERCISE.mistakes} <= {name for name, _ in WRONG}


async def test_an_endless_search_is_stopped() -> None:
    async def endless(query: str, sources: Sources, budget: float) -> Any:
        await asyncio.Event().wait()

    assert (await check_search(endless, limit=0.5)).mistake == "never-ends"


async def test_the_search_called_in_the_check_cell() -> None:
    verdict = await check_search(one_by_one("lamp", {}, 1.0))
    assert verdict.mistake == "called-instead-of-passed"


async def test_no_function_at_all() -> None:
    assert (await check_search({})).mistake == "wrong-type"


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
async def test_a_limit_must_be_above_0(limit: float) -> None:
    with pytest.raises(ValueError, match="limit"):
        await check_search(grouped, limit=limit)
