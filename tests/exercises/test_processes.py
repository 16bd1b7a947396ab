"""The check of lesson 20, with right answers in several styles and wrong ones."""

import asyncio
import textwrap
import time
from collections.abc import Callable
from typing import Any

import pytest

from looplab.exercises.processes import EXERCISE, check_roll

pytestmark = pytest.mark.anyio

HEAD = "async def roll(old, start_new):\n"

SOLUTION = """
    new = []
    for worker in old:
        fresh = await start_new()
        try:
            async with asyncio.timeout(0.3):
                while not await fresh.is_ready():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            await fresh.stop()
            raise RuntimeError("broken") from None
        await worker.drain()
        await worker.stop()
        new.append(fresh)
    return new
"""


def changed(*changes: tuple[str, str]) -> str:
    """Return the solution with changes. Each must be possible."""
    source = SOLUTION
    for old, new in changes:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source


RIGHT = {
    "the solution": SOLUTION,
    "a function that waits, by wait_for": """
        async def until_ready(worker):
            while True:
                if await worker.is_ready():
                    return
                await asyncio.sleep(0.005)

        new = []
        for one in list(old):
            fresh = await start_new()
            try:
                await asyncio.wait_for(until_ready(fresh), 0.3)
            except asyncio.TimeoutError as late:
                await fresh.stop()
                raise RuntimeError("the new version is broken") from late
            await one.drain()
            await one.stop()
            new += [fresh]
        return new
    """,
    "thirty questions": """
        new = []
        while old:
            fresh = await start_new()
            for _ in range(30):
                if await fresh.is_ready():
                    break
                await asyncio.sleep(0.01)
            else:
                await fresh.stop()
                raise RuntimeError(f"{fresh} isn't ready")
            new.append(fresh)
            gone = old.pop(0)
            await gone.drain()
            await gone.stop()
        return new
    """,
    "a flag in a finally": """
        import time

        new = []
        for worker in reversed(old):
            fresh, ready = await start_new(), False
            try:
                until = time.monotonic() + 0.3
                while not ready and time.monotonic() < until:
                    ready = await fresh.is_ready()
                    await asyncio.sleep(0.01)
                if not ready:
                    raise RuntimeError("not ready")
            finally:
                if not ready:
                    await fresh.stop()
            new.append(fresh)
            await worker.drain()
            await worker.stop()
        return new
    """,
    "it drains the broken one too": changed(
        ("            await fresh.stop()", "            await fresh.drain(); await fresh.stop()")
    ),
    "a long wait, then one question": """
        new = []
        for worker in old:
            fresh = await start_new()
            await asyncio.sleep(0.3)
            if not await fresh.is_ready():
                await fresh.stop()
                raise RuntimeError("broken")
            await worker.drain()
            await worker.stop()
            new.append(fresh)
        return new
    """,
}

WAIT = """            async with asyncio.timeout(0.3):
                while not await fresh.is_ready():
                    await asyncio.sleep(0.01)
"""
RAISE = '            raise RuntimeError("broken") from None\n'
AWAY = "        await worker.drain()\n        await worker.stop()\n"

BACK = "            for one in new: await one.drain(); await one.stop()\n"
STOPPED = "            for one in new: await one.stop()\n"

WRONG = {
    "all new ones first": (
        "too-many-processes",
        """
        new = [await start_new() for _ in old]
        for worker in old:
            await worker.stop()
        return new
        """,
    ),
    "all at once in a group": (
        "too-many-processes",
        """
        return list(await asyncio.gather(*(start_new() for _ in old)))
        """,
    ),
    "the old ones never stop": ("too-many-processes", changed((AWAY, ""))),
    "drained, never stopped": (
        "too-many-processes",
        changed(("        await worker.stop()\n", "")),
    ),
    "the old one is stopped first": (
        "old-first",
        changed((AWAY, ""), ("    for worker in old:\n", f"    for worker in old:\n{AWAY}")),
    ),
    "the old one is drained first": (
        "old-first",
        changed(
            ("        await worker.drain()\n", ""),
            ("    for worker in old:\n", "    for worker in old:\n        await worker.drain()\n"),
        ),
    ),
    "it doesn't wait": (
        "not-waited",
        """
        new = []
        for worker in old:
            new.append(await start_new())
            await worker.drain()
            await worker.stop()
        return new
        """,
    ),
    "it waits for a fixed time": (
        "not-waited",
        changed((WAIT, "            await asyncio.sleep(0.04)\n")),
    ),
    "it asks and doesn't look": (
        "not-waited",
        changed((WAIT, "            await fresh.is_ready()\n")),
    ),
    "it looks at the method, not at its answer": (
        "not-waited",
        changed((WAIT, "            while not fresh.is_ready:\n                pass\n")),
    ),
    "stopped without draining": (
        "not-drained",
        changed(("        await worker.drain()\n", "")),
    ),
    "stopped while draining": (
        "not-drained",
        changed((AWAY, "        await asyncio.gather(worker.drain(), worker.stop())\n")),
    ),
    "no bound": (
        "never-gives-up",
        changed(("asyncio.timeout(0.3)", "asyncio.timeout(None)")),
    ),
    "a bound far too long": (
        "never-gives-up",
        changed(("asyncio.timeout(0.3)", "asyncio.timeout(300)")),
    ),
    "milliseconds in the place of seconds": (
        "gave-up-too-soon",
        changed(("asyncio.timeout(0.3)", "asyncio.timeout(0.03)")),
    ),
    "one question": (
        "gave-up-too-soon",
        changed((WAIT, "            if not await fresh.is_ready(): raise TimeoutError\n")),
    ),
    "the time-out comes out": ("wrong-error", changed((RAISE, "            raise\n"))),
    "another error": (
        "wrong-error",
        changed((RAISE, '            raise ValueError("broken") from None\n')),
    ),
    "it returns what it has": ("error-swallowed", changed((RAISE, "            return new\n"))),
    "it goes on with the next": ("tried-again", changed((RAISE, "            continue\n"))),
    "the broken one runs on": (
        "broken-left-running",
        changed(("            await fresh.stop()\n", "")),
    ),
    "all new ones are rolled back": (
        "others-stopped",
        changed((RAISE, BACK + RAISE)),
    ),
    "the new ones stop before the broken one": (
        "others-stopped",
        changed(("            await fresh.stop()\n", f"{STOPPED}            await fresh.stop()\n")),
    ),
    "the new ones drain and stop before the broken one": (
        "others-stopped",
        changed(("            await fresh.stop()\n", f"{BACK}            await fresh.stop()\n")),
    ),
    "the last old one stays": (
        "old-left",
        changed(("for worker in old:", "for worker in old[:-1]:")),
    ),
    "only the first": ("old-left", changed(("new.append(fresh)", "return [fresh]"))),
    "nothing is returned": ("not-returned", changed(("    return new\n", ""))),
    "a tuple": ("not-returned", changed(("return new\n", "return tuple(new)\n"))),
    "the old ones are returned": ("not-returned", changed(("return new\n", "return old\n"))),
    "no pause": (
        "asks-without-pause",
        changed(("await asyncio.sleep(0.01)", "await asyncio.sleep(0)")),
    ),
    "every error is a broken version": (
        "start-error-hidden",
        """
        new = []
        for worker in old:
            try:
                fresh = await start_new()
                async with asyncio.timeout(0.3):
                    while not await fresh.is_ready():
                        await asyncio.sleep(0.01)
            except Exception:
                if "fresh" in locals():
                    await fresh.stop()
                raise RuntimeError("broken") from None
            await worker.drain()
            await worker.stop()
            new.append(fresh)
        return new
        """,
    ),
    "stopped twice": (
        "used-after-stop",
        changed((AWAY, AWAY + "        await worker.stop()\n")),
    ),
    "not written": ("not-written", "    raise NotImplementedError\n"),
    "no await": ("forgotten-await", changed(("await worker.drain()", "worker.drain()"))),
}


def answer(source: str) -> Any:
    names: dict[str, Any] = {"asyncio": __import__("asyncio")}
    body = textwrap.indent(textwrap.dedent(source), "    ")
    exec(HEAD + body, names)
    return names["roll"]


@pytest.mark.parametrize("name", RIGHT)
async def test_right_answers_pass_in_any_style(name: str) -> None:
    verdict = await check_roll(answer(RIGHT[name]))
    assert verdict.passed, verdict.message


async def test_a_machine_that_stands_still_for_a_moment_is_not_the_answers_mistake() -> None:
    roll = answer(next(iter(RIGHT.values())))
    stalls = iter([0.06])  # while the slow one of four starts

    async def stalled(old: list[Any], start_new: Any) -> Any:
        for after in stalls if len(old) == 4 else ():
            asyncio.get_running_loop().call_later(after, time.sleep, 0.4)
        return await roll(old, start_new)

    verdict = await check_roll(stalled)
    assert verdict.passed, verdict.message
    assert next(stalls, None) is None


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_answers_are_told_their_own_mistake(
    name: str, tried: Callable[..., Any]
) -> None:
    mistake, source = WRONG[name]
    verdict = await tried(lambda: check_roll(answer(source)), mistake)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message


def test_every_mistake_is_made_by_some_wrong_answer() -> None:
    assert {one.name for one in EXERCISE.mistakes} <= {mistake for mistake, _ in WRONG.values()}


HOSTILE = {
    "it blocks the loop": "    import time\n    time.sleep(30)\n",
    "it never ends": "    await asyncio.sleep(3600)\n",
    "it swallows its cancellation": """
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
""",
    "it exits": "    raise SystemExit\n",
    "it catches everything": """
    while True:
        try:
            for worker in old:
                await worker.stop()
        except BaseException:
            pass
""",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_answers_end_soon(name: str) -> None:
    began = time.perf_counter()
    verdict = await check_roll(answer(HOSTILE[name]))
    assert not verdict.passed
    assert time.perf_counter() - began < 12


@pytest.mark.parametrize("given", [None, 42, "roll", dict])
async def test_what_is_no_function_is_refused(given: Callable[..., Any]) -> None:
    assert not (await check_roll(given)).passed
