"""The check of lesson 14, with right answers and wrong ones."""

import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest

from looplab.exercises.service_faults import (
    CLIENT,
    DEADLINE,
    EXERCISE,
    FAN_OUT,
    LOAN,
    TASK,
    TRUE,
    check_faults,
)

pytestmark = pytest.mark.anyio


def found(**changes: str) -> dict[str, Any]:
    """Return the right answer with changes, such as ``client="/offer"``."""
    names = {"client": CLIENT, "loan": LOAN, "task": TASK, "deadline": DEADLINE, "fan_out": FAN_OUT}
    return TRUE | {names[name]: path for name, path in changes.items()}


RIGHT = {
    "paths only": TRUE,
    "with the method": {fault: f"GET {path}" for fault, path in TRUE.items()},
    "as the lesson lists them": found(client="GET /stock/{sku}", deadline="/delivery/{sku}"),
    "as they were asked": found(client="GET /stock/tea-1", deadline="GET /delivery/tea-hangs"),
    "with spaces and a slash at the end": found(fan_out="  /prices/ "),
    "in another order": dict(reversed(TRUE.items())),
    "a mapping that is no dict": MappingProxyType(TRUE),
}

WRONG = {
    "the stub": (dict.fromkeys(TRUE, ""), "not-written"),
    "nothing": ({}, "not-written"),
    "a list": (list(TRUE.values()), "wrong-type"),
    "a function": (found, "wrong-type"),
    "a number for an endpoint": (TRUE | {CLIENT: 3}, "wrong-type"),
    "a renamed fault": ({**TRUE, "a slow client": "/stock"}, "no-such-fault"),
    "one left empty": (found(task=""), "a-fault-missing"),
    "one left out": ({CLIENT: "/stock"}, "a-fault-missing"),
    "a path that is not there": (found(client="/stocks"), "no-such-endpoint"),
    "the line's function": (found(client="name_of"), "no-such-endpoint"),
    "the fault of the lesson": (found(client="GET /label/tea-1"), "found-together"),
    "the thread": (found(deadline="/invoice"), "runs-in-a-thread"),
    "many connections": (found(client="/prices"), "many-but-kept"),
    "any call of a partner": (found(client="/offer"), "shares-its-client"),
    "the parcel for the client": (found(client="/parcel"), "shares-its-client"),
    "one call at a time": (found(fan_out="/offer"), "one-call-each"),
    "the client for the fan-out": (found(fan_out="/stock"), "one-call-each"),
    "any loan": (found(loan="/offer"), "gives-it-back"),
    "the list": (found(loan="/teas"), "gives-it-back"),
    "a request that hangs": (found(task="/delivery"), "a-request-not-a-task"),
    "all tasks": (found(task="/prices"), "waits-for-its-tasks"),
    "what it left": (found(deadline="/visit"), "answers-at-once"),
    "what is slow": (found(deadline="/prices"), "slow-not-endless"),
    "the stock gives up": (found(deadline="/stock"), "gives-up-in-time"),
    "the parcel gives up": (found(deadline="/parcel"), "gives-up-in-time"),
    "two confused": (found(loan="/visit", task="/parcel"), "another-fault"),
    "a healthy one": (found(client="/teas"), "healthy"),
}


@pytest.mark.parametrize("answer", RIGHT.values(), ids=RIGHT)
async def test_a_right_answer_passes_in_any_style(answer: Any) -> None:
    verdict = await check_faults(answer)
    assert verdict.passed, verdict.message


@pytest.mark.parametrize(("answer", "mistake"), WRONG.values(), ids=WRONG)
async def test_a_wrong_answer_gets_its_own_hint(answer: Any, mistake: str) -> None:
    verdict = await check_faults(answer)
    assert (verdict.passed, verdict.mistake) == (False, mistake)


def test_every_hint_is_given_to_somebody() -> None:
    assert {one.name for one in EXERCISE.mistakes} <= {mistake for _, mistake in WRONG.values()}


async def test_a_hint_names_the_fault_and_the_endpoint_but_not_the_right_one() -> None:
    verdict = await check_faults(found(client="/offer"))
    assert CLIENT in verdict.message
    assert "/offer" in verdict.message
    assert TRUE[CLIENT] not in verdict.message


class Hostile(Mapping):
    """A mapping that does ``act`` when somebody looks into it."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    def __getitem__(self, key: object) -> Any:
        return self.act()

    def __iter__(self) -> Iterator[Any]:
        self.act()
        return iter(TRUE)

    def __len__(self) -> int:
        return len(TRUE)


async def test_a_mapping_that_fails_is_told_as_an_error_of_the_learner() -> None:
    def fail() -> None:
        raise RuntimeError("no keys today")

    verdict = await check_faults(Hostile(fail))
    assert (verdict.passed, verdict.mistake) == (False, "raised")
    assert "no keys today" in verdict.message


async def test_a_mapping_that_blocks_is_ended_in_time() -> None:
    began = time.perf_counter()
    verdict = await check_faults(Hostile(lambda: time.sleep(30)))
    assert (verdict.passed, verdict.mistake) == (False, "blocks-the-loop")
    assert time.perf_counter() - began < 20
