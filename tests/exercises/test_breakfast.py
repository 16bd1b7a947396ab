"""The check of lesson 00, with right answers and wrong ones."""

import pytest

from looplab.exercises.breakfast import EXERCISE, check_breakfast

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy

RIGHT = (
    (
        "a TaskGroup, with the tea in its body",
        """
    async with asyncio.TaskGroup() as group:
        toasting = group.create_task(toast_bread())
        tea = await steep_tea(await boil_water())
    return tea, toasting.result()
""",
    ),
    (
        "a task that is awaited last",
        """
    toasting = asyncio.create_task(toast_bread())
    water = await boil_water()
    tea = await steep_tea(water)
    return tea, await toasting
""",
    ),
    (
        "gather over a chain and the toast",
        """
    async def make_tea():
        return await steep_tea(await boil_water())

    return await asyncio.gather(make_tea(), toast_bread())
""",
    ),
    (
        "a TaskGroup with a task for the chain",
        """
    async def make_tea():
        return await steep_tea(await boil_water())

    async with asyncio.TaskGroup() as group:
        tea = group.create_task(make_tea())
        toast = group.create_task(toast_bread())
    return [tea.result(), toast.result()]
""",
    ),
    (
        "an AnyIO task group",
        """
    made = {}

    async def toast():
        made["toast"] = await toast_bread()

    async with anyio.create_task_group() as group:
        group.start_soon(toast)
        tea = await steep_tea(await boil_water())
    return tea, made["toast"]
""",
    ),
)

TURNS = """
    water = await boil_water()
    tea = await steep_tea(water)
    return tea, await toast_bread()
"""

WRONG = (
    ("the stub", TURNS, "in-turn"),
    (
        "the toast first, in turn",
        """
    toast = await toast_bread()
    return await steep_tea(await boil_water()), toast
""",
        "in-turn",
    ),
    (
        "tasks that are awaited at once",
        """
    water = await asyncio.create_task(boil_water())
    tea = await asyncio.create_task(steep_tea(water))
    return tea, await asyncio.create_task(toast_bread())
""",
        "in-turn",
    ),
    (
        "all three gathered, the tea with a coroutine",
        """
    await asyncio.gather(steep_tea(boil_water()), toast_bread())
    return "tea", "toast"
""",
        "cold-water",
    ),
    (
        "the tea with a task",
        """
    async with asyncio.TaskGroup() as group:
        water = group.create_task(boil_water())
        tea = group.create_task(steep_tea(water))
        toast = group.create_task(toast_bread())
    return tea.result(), toast.result()
""",
        "cold-water",
    ),
    (
        "the tea with nothing",
        """
    _, tea, toast = await asyncio.gather(boil_water(), steep_tea(None), toast_bread())
    return tea, toast
""",
        "cold-water",
    ),
    (
        "the tea without an argument",
        """
    _, tea, toast = await asyncio.gather(boil_water(), steep_tea(), toast_bread())
    return tea, toast
""",
        "cold-water",
    ),
    (
        "the toast's result inside its block",
        """
    async with asyncio.TaskGroup() as group:
        toasting = group.create_task(toast_bread())
        tea = await steep_tea(await boil_water())
        return tea, toasting.result()
""",
        "result-too-early",
    ),
    (
        "the result of each as soon as its task is made",
        """
    async with asyncio.TaskGroup() as group:
        water = group.create_task(boil_water()).result()
        tea = group.create_task(steep_tea(water)).result()
        return tea, group.create_task(toast_bread()).result()
""",
        "result-too-early",
    ),
    (
        "the toast beside the tea only",
        """
    water = await boil_water()
    return await asyncio.gather(steep_tea(water), toast_bread())
""",
        "toast-waits",
    ),
    (
        "the toast beside the tea only, in a TaskGroup",
        """
    water = await boil_water()
    async with asyncio.TaskGroup() as group:
        tea = group.create_task(steep_tea(water))
        toast = group.create_task(toast_bread())
    return tea.result(), toast.result()
""",
        "toast-waits",
    ),
    (
        "the tea after water and toast",
        """
    water, toast = await asyncio.gather(boil_water(), toast_bread())
    return await steep_tea(water), toast
""",
        "tea-waits",
    ),
    (
        "the tea after a group of water and toast",
        """
    async with asyncio.TaskGroup() as group:
        toast = group.create_task(toast_bread())
        water = group.create_task(boil_water())
    return await steep_tea(water.result()), toast.result()
""",
        "tea-waits",
    ),
    ("no toast", "    return await steep_tea(await boil_water()), 'toast'", "not-once"),
    ("nothing at all", "    return 'tea', 'toast'", "not-once"),
    (
        "toast twice",
        """
    first = asyncio.create_task(toast_bread())
    tea = await steep_tea(await boil_water())
    await first
    return tea, await toast_bread()
""",
        "not-once",
    ),
    (
        "the toast's task in place of the toast",
        """
    async with asyncio.TaskGroup() as group:
        toasting = group.create_task(toast_bread())
        tea = await steep_tea(await boil_water())
    return tea, toasting
""",
        "wrong-breakfast",
    ),
    (
        "toast before tea",
        """
    toasting = asyncio.create_task(toast_bread())
    tea = await steep_tea(await boil_water())
    return await toasting, tea
""",
        "wrong-breakfast",
    ),
    (
        "nothing returned",
        """
    async with asyncio.TaskGroup() as group:
        group.create_task(toast_bread())
        await steep_tea(await boil_water())
""",
        "wrong-breakfast",
    ),
    (
        "the toast left behind",
        """
    toasting = asyncio.create_task(toast_bread())
    await asyncio.sleep(0)
    return await steep_tea(boil_water), toasting
""",
        "cold-water",
    ),
    (
        "a task that nobody awaits",
        """
    toasting = asyncio.create_task(asyncio.sleep(3600))
    return await steep_tea(await boil_water()), await toast_bread()
""",
        "left-running",
    ),
    ("the placeholder", "    raise NotImplementedError", "not-written"),
    ("a forgotten await", "    toast_bread()\n    return 'tea', 'toast'", "forgotten-await"),
    ("a wait without an end", "    await asyncio.Event().wait()", "never-ends"),
    ("a sleep that blocks", "    time.sleep(30)", "blocks-the-loop"),
    ("an error", "    return 1 / 0", "raised"),
)


def written(source: str) -> object:
    """Return the function that a learner wrote."""
    names: dict[str, object] = {}
    head = (
        "import asyncio, time, anyio\nasync def make_breakfast(boil_water, steep_tea, toast_bread):"
    )
    exec(f"{head}\n{source}", names)
    return names["make_breakfast"]


@pytest.mark.parametrize("source", [pytest.param(source, id=name) for name, source in RIGHT])
async def test_a_right_answer_passes_in_any_style(source: str) -> None:
    verdict = await check_breakfast(written(source), limit=AMPLE)
    assert verdict.passed, verdict.message


@pytest.mark.parametrize(
    ("source", "mistake"),
    [pytest.param(source, mistake, id=name) for name, source, mistake in WRONG],
)
async def test_a_wrong_answer_gets_its_own_hint(source: str, mistake: str) -> None:
    verdict = await check_breakfast(written(source), limit=3.0)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    assert {mistake.name for mistake in EXERCISE.mistakes} <= {mistake for *_, mistake in WRONG}


async def test_a_def_function_and_a_call_are_told() -> None:
    def make_breakfast(boil_water, steep_tea, toast_bread):
        return "tea", "toast"

    assert (await check_breakfast(make_breakfast)).mistake == "not-async"
    assert (await check_breakfast(called_already())).mistake == "called-instead-of-passed"


async def called_already() -> None:
    raise NotImplementedError
