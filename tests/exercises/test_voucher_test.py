"""The check of lesson 18: it breaks the service, and sees which tests notice."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from looplab.exercises.verdicts import ANY_EXERCISE
from looplab.exercises.voucher_test import EXERCISE, check_voucher_test

pytestmark = pytest.mark.anyio

AMPLE = 60.0  # seconds: no right answer is to fail because the machine is busy
AT_MOST = 6.0  # seconds that any answer may keep the check, on a machine with room

Written = Callable[[str, str], dict[str, Any]]

HEAD = "async def test_voucher(client):\n"
GATHER = """
    codes = ["TEA", "CAKE"] * 5
    asking = [client.post(f"/redeem/{code}") for code in codes]
    async with asyncio.timeout(ms(1_500)):
        answers = await asyncio.gather(*asking)
    statuses = [answer.status_code for answer in answers]
    for place in range(2):
        assert sorted(statuses[place::2]) == [200] + [409] * 4
"""
BOTH = "    assert sorted(statuses) == [200] * 2 + [409] * 8\n"


def changed(source: str, *edits: tuple[str, str]) -> str:
    """Return the source with each edit made, each in one place."""
    for old, new in edits:
        assert source.count(old) == 1, f"{old!r} is there {source.count(old)} times"
        source = source.replace(old, new)
    return source


def answer(body: str) -> str:
    """Return a test with this body."""
    return HEAD + body


LOOP = """    for place in range(2):
        assert sorted(statuses[place::2]) == [200] + [409] * 4
"""
GROUP = """
    async def ask(code):
        return (await client.post(f"/redeem/{code}")).status_code

    for code in ("TEA", "CAKE"):
        async with asyncio.timeout(ms(1_500)), asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(code)) for _ in range(3)]
        statuses = [task.result() for task in tasks]
        assert statuses.count(200) == 1, statuses
        assert statuses.count(409) == 2, statuses
"""
WAIT_FOR = """
    for code in ["CAKE", "TEA"]:
        asking = asyncio.gather(*(client.post(f"/redeem/{code}") for _ in range(2)))
        first, second = await asyncio.wait_for(asking, ms(2_000))
        assert {first.status_code, second.status_code} == {200, 409}
"""
RAISES = """
    async with asyncio.timeout(ms(1_500)):
        answers = await asyncio.gather(
            *(client.post("/redeem/" + code) for code in ["TEA"] * 4 + ["CAKE"] * 4)
        )
    for asked in (answers[:4], answers[4:]):
        refused = [one for one in asked if one.status_code != 200]
        if len(refused) != 3 or any(one.status_code != 409 for one in refused):
            raise ValueError("a voucher counts once")
"""
FAIL = """
    async with asyncio.timeout(ms(1_500)):
        tea = await asyncio.gather(*[client.post("/redeem/TEA") for _ in range(6)])
        cake = await client.post("/redeem/CAKE")
    if [one.status_code for one in tea].count(409) != 5 or cake.status_code != 200:
        pytest.fail("a voucher counts once")
    assert any(one.status_code == 200 for one in tea)
"""

RIGHT = (
    ("gather, sorted by code", answer(GATHER)),
    ("a group for each code", answer(GROUP)),
    ("two at a time with wait_for", answer(WAIT_FOR)),
    ("an error of its own", answer(RAISES)),
    ("pytest.fail", answer(FAIL)),
)

WRONG: tuple[tuple[str, str, str], ...] = (
    (
        "one after another, as the stub does",
        answer("""
    first = await client.post("/redeem/TEA")
    second = await client.post("/redeem/TEA")
    assert first.status_code == 200
    assert second.status_code == 409
"""),
        "misses-the-race",
    ),
    (
        "one after another, both codes, many times",
        answer("""
    for code in ("TEA", "CAKE"):
        statuses = [(await client.post("/redeem/" + code)).status_code for _ in range(10)]
        assert statuses == [200] + [409] * 9
"""),
        "misses-the-race",
    ),
    (
        "two tasks that are awaited one after another",
        answer("""
    for code in ("TEA", "CAKE"):
        first = await asyncio.create_task(client.post("/redeem/" + code))
        second = await asyncio.create_task(client.post("/redeem/" + code))
        assert [first.status_code, second.status_code] == [200, 409]
"""),
        "misses-the-race",
    ),
    ("it asserts nothing", answer(changed(GATHER, (LOOP, ""))), "misses-everything"),
    (
        "it asserts that somebody got an answer",
        answer(changed(GATHER, (LOOP, "    assert answers\n"))),
        "misses-everything",
    ),
    (
        "it asserts that one of them is 200",
        answer(changed(GATHER, (LOOP, "    assert 200 in statuses\n"))),
        "misses-everything",
    ),
    (
        "it catches what it asserts",
        answer(
            changed(
                GATHER,
                (
                    LOOP,
                    "    try:\n        assert statuses.count(200) == 2\n"
                    "    except AssertionError as error:\n        print(error)\n",
                ),
            )
        ),
        "misses-everything",
    ),
    (
        "it returns whether it holds",
        answer(changed(GATHER, (LOOP, "    return statuses.count(200) == 2\n"))),
        "misses-everything",
    ),
    (
        "at most one gets it",
        answer(changed(GATHER, (LOOP, "    assert statuses.count(200) <= 2\n"))),
        "misses-nobody",
    ),
    (
        "it counts those who were refused, at least",
        answer(changed(GATHER, (LOOP, "    assert statuses.count(409) >= 8\n"))),
        "misses-nobody",
    ),
    (
        "it counts the 200 only",
        answer(changed(GATHER, (LOOP, "    assert statuses.count(200) == 2\n"))),
        "misses-errors",
    ),
    (
        "it counts who is no 200",
        answer(
            changed(GATHER, (LOOP, "    assert sum(status >= 400 for status in statuses) == 8\n"))
        ),
        "misses-errors",
    ),
    (
        "it asks for one voucher only",
        answer(
            changed(
                GATHER,
                ('["TEA", "CAKE"] * 5', '["TEA"] * 5'),
                (LOOP, "    assert sorted(statuses) == [200] + [409] * 4\n"),
            )
        ),
        "misses-other-code",
    ),
    (
        "it sorts the statuses of both codes together",
        answer(changed(GATHER, (LOOP, BOTH))),
        "mixes-the-codes",
    ),
    (
        "it sorts two requests for each code together",
        answer(
            changed(
                GATHER,
                ('["TEA", "CAKE"] * 5', '["TEA", "CAKE"] * 2'),
                (LOOP, "    assert sorted(statuses) == [200] * 2 + [409] * 2\n"),
            )
        ),
        "mixes-the-codes",
    ),
    (
        "it counts both codes together",
        answer(
            changed(
                GATHER,
                (LOOP, "    assert (statuses.count(200), statuses.count(409)) == (2, 8)\n"),
            )
        ),
        "mixes-the-codes",
    ),
    (
        "it has no deadline",
        answer(changed(GATHER, ("asyncio.timeout(ms(1_500))", "asyncio.timeout(None)"))),
        "never-fails",
    ),
    (
        "its deadline is a minute",
        answer(changed(GATHER, ("asyncio.timeout(ms(1_500))", "asyncio.timeout(60)"))),
        "never-fails",
    ),
    (
        "its deadline is the lesson's PATIENCE",
        "PATIENCE = 20\n\n\n" + answer(changed(GATHER, ("ms(1_500)", "PATIENCE"))),
        "never-fails",
    ),
    (
        "it takes a time-out for a pass",
        answer(
            changed(
                GATHER,
                (
                    "        answers = await asyncio.gather(*asking)\n",
                    "        try:\n            answers = await asyncio.gather(*asking)\n"
                    "        except asyncio.CancelledError:\n            return\n",
                ),
            )
        ),
        "never-fails",
    ),
    (
        "its deadline is too short",
        answer(changed(GATHER, ("ms(1_500)", "ms(20)"))),
        "gives-up-early",
    ),
    (
        "the first one has to win",
        answer(changed(GATHER, (LOOP, "    assert statuses == [200] * 2 + [409] * 8\n"))),
        "expects-the-first",
    ),
    (
        "it looks at the first of each code",
        answer(changed(GATHER, ("        assert sorted(", "        assert ("))),
        "expects-the-first",
    ),
    (
        "it wants another status",
        answer(changed(GATHER, ("[200] + [409]", "[200] + [410]"))),
        "fails-the-right",
    ),
    (
        "it wants everybody to get one",
        answer(changed(GATHER, (LOOP, "    assert statuses == [200] * 10\n"))),
        "fails-the-right",
    ),
    (
        "it asks for a voucher that isn't there",
        answer(changed(GATHER, ('"CAKE"', '"COFFEE"'))),
        "fails-the-right",
    ),
    ("it isn't async", "def test_voucher(client):\n    pass\n", "not-async"),
    ("it has a bug", answer("    assert cliend\n"), "raised"),
    (
        "it forgets to await",
        answer("    client.post('/redeem/TEA')\n    client.post('/redeem/CAKE')\n"),
        "forgotten-await",
    ),
    (
        "it leaves a request behind",
        answer("    asking = asyncio.create_task(asyncio.sleep(30))\n    assert asking\n"),
        "left-running",
    ),
    ("it isn't written", answer("    raise NotImplementedError\n"), "not-written"),
)

HOSTILE = (
    ("it blocks the loop", answer("    time.sleep(30)\n"), "blocks-the-loop"),
    ("it exits", answer("    raise SystemExit(1)\n"), "exits"),
    ("it cancels itself", answer("    raise asyncio.CancelledError\n"), "cancels-itself"),
    ("it never ends", answer("    await asyncio.Event().wait()\n"), "never-fails"),
)


@pytest.mark.parametrize(("name", "source"), RIGHT, ids=[name for name, _ in RIGHT])
async def test_a_right_answer_passes_in_any_style(name: str, source: str, written: Written) -> None:
    verdict = await check_voucher_test(written("18", source)["test_voucher"], limit=AMPLE)
    assert verdict.passed, verdict.message
    assert verdict.mistake is None


@pytest.mark.parametrize(("name", "source", "mistake"), WRONG, ids=[name for name, *_ in WRONG])
async def test_a_wrong_answer_gets_its_own_hint(
    name: str, source: str, mistake: str, written: Written
) -> None:
    verdict = await check_voucher_test(written("18", source)["test_voucher"], limit=AMPLE)
    assert verdict.mistake == mistake, verdict.message
    assert not verdict.passed


@pytest.mark.parametrize(("name", "source", "mistake"), HOSTILE, ids=[name for name, *_ in HOSTILE])
async def test_a_hostile_answer_ends_soon_and_leaves_later_checks_whole(
    name: str, source: str, mistake: str, written: Written
) -> None:
    began = time.monotonic()
    verdict = await check_voucher_test(written("18", source)["test_voucher"])
    assert verdict.mistake == mistake, verdict.message
    assert time.monotonic() - began < 3 * AT_MOST
    good = written("18", answer(GATHER))["test_voucher"]
    assert (await check_voucher_test(good, limit=AMPLE)).passed


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (("ms(1_500)", "20"), "PATIENCE from the lesson, 20 seconds, is too long here."),
        (
            ('f"/redeem/{code}"', '"/cups"'),
            "(one that answers at once: it answered 404 (10 times))",
        ),
        (
            ("[200] + [409]", "[200] + [410]"),
            "(one that answers at once: it answered 200 (2 times) and 409 (8 times))",
        ),
        (("        assert sorted(", "        assert ("), "(one where the last to ask wins)"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
async def test_a_hint_says_what_the_learner_needs_to_find_the_line(
    edit: tuple[str, str], told: str, written: Written
) -> None:
    test = written("18", answer(changed(GATHER, edit)))["test_voucher"]
    verdict = await check_voucher_test(test, limit=AMPLE)
    assert told in verdict.message


def test_every_mistake_of_the_exercise_is_made_here() -> None:
    made = {mistake for *_, mistake in WRONG} | {mistake for *_, mistake in HOSTILE}
    assert {mistake.name for mistake in EXERCISE.mistakes} - made == set()
    known = {mistake.name for mistake in (*EXERCISE.mistakes, *ANY_EXERCISE)}
    assert made - known == set()


@pytest.mark.parametrize("given", [None, 3, [], type])
async def test_something_else_than_a_function(given: Any) -> None:
    assert (await check_voucher_test(given)).mistake == "wrong-type"
