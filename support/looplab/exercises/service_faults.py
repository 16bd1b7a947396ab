"""The exercise of lesson 14: say which endpoint of the teahouse has which of five faults."""

import functools
from collections.abc import Mapping
from typing import Any, Final

from looplab.exercises.checking import check
from looplab.exercises.sandbox import Sandbox
from looplab.exercises.verdicts import Exercise, Mistake, Verdict, wrong
from looplab.shop.teahouse import create_app

CLIENT: Final = "a client per request"
LOAN: Final = "a connection held during a call"
TASK: Final = "a task that nobody waits for"
DEADLINE: Final = "no deadline"
FAN_OUT: Final = "an unbounded fan-out"

TRUE: Final = {
    CLIENT: "/stock",
    LOAN: "/parcel",
    TASK: "/visit",
    DEADLINE: "/delivery",
    FAN_OUT: "/prices",
}
"""Where each fault stands; tests measure the teahouse and find them there."""

OFTEN_TAKEN: Final = {
    (CLIENT, "/prices"): "many-but-kept",
    (CLIENT, "/offer"): "shares-its-client",
    (CLIENT, "/parcel"): "shares-its-client",
    (FAN_OUT, "/stock"): "one-call-each",
    (FAN_OUT, "/offer"): "one-call-each",
    (LOAN, "/offer"): "gives-it-back",
    (LOAN, "/teas"): "gives-it-back",
    (TASK, "/delivery"): "a-request-not-a-task",
    (TASK, "/prices"): "waits-for-its-tasks",
    (DEADLINE, "/visit"): "answers-at-once",
    (DEADLINE, "/prices"): "slow-not-endless",
    (DEADLINE, "/stock"): "gives-up-in-time",
    (DEADLINE, "/parcel"): "gives-up-in-time",
    (DEADLINE, "/offer"): "gives-up-in-time",
}
"""What learners take for a fault, and the hint that they get."""

EXERCISE = Exercise(
    lesson="14",
    check="check_faults",
    stub="not-written",
    task="Find five faults of a service by its tables, and say at which endpoint each stands.",
    usual_wrong_prediction=(
        "That ten requests at once take as long as one, since each is an async function: while one "
        "prints, the loop can go on with none of the others."
    ),
    mistakes=(
        Mistake(
            "a-fault-missing",
            "leaves a fault out, or leaves its endpoint empty",
            "You have not placed every fault yet. Run check_up on more endpoints, and on the tea "
            "that the supplier never answers about.",
        ),
        Mistake(
            "no-such-fault",
            "renames a key of the dict",
            "The dict has a key that is none of the five faults. Leave the keys as they were.",
        ),
        Mistake(
            "no-such-endpoint",
            "misspells a path",
            "The teahouse has no such endpoint.",
        ),
        Mistake(
            "found-together",
            "names the label, whose fault the lesson has found",
            "The label blocks the loop, which we found together. It has no second fault.",
        ),
        Mistake(
            "runs-in-a-thread",
            "takes the invoice for a fault because it is slow",
            "The invoice takes as long as the label, and it is a plain def function: FastAPI runs "
            "it in a thread. Look at its longest hold.",
        ),
        Mistake(
            "many-but-kept",
            "takes the many connections of a fan-out for a client per request",
            "These connections are many because so many calls are under way at once, and later "
            "requests use them again. Look for an endpoint that opens one more with each request.",
        ),
        Mistake(
            "shares-its-client",
            "takes any call of the supplier for a client per request",
            "This endpoint uses the client that all requests share: ten requests open no more "
            "connections than are needed at once. Compare the column connects.",
        ),
        Mistake(
            "one-call-each",
            "takes an endpoint with one call under way for a fan-out",
            "Here a request has one call under way at a time. A fan-out starts tasks, so look at "
            "how many are there at once.",
        ),
        Mistake(
            "gives-it-back",
            "takes any loan for one that is held too long",
            "This endpoint gives its connection back as soon as its statement is done. Compare its "
            "usual loan with the 60 ms that the supplier takes.",
        ),
        Mistake(
            "a-request-not-a-task",
            "takes a request that hangs for a lost task",
            "What is left there is the request itself, which still waits. A lost task goes on "
            "after its request was answered.",
        ),
        Mistake(
            "waits-for-its-tasks",
            "takes every task for a lost one",
            "This endpoint starts many tasks and waits for all of them. Look at what is left "
            "behind.",
        ),
        Mistake(
            "answers-at-once",
            "takes what is left behind for a missing deadline",
            "This endpoint answers at once, and what it leaves is no request. Look for a request "
            "that gets no answer at all.",
        ),
        Mistake(
            "slow-not-endless",
            "takes a slow answer for a missing deadline",
            "This endpoint may be slow, but it does answer. Ask about the tea that the supplier "
            "never answers about.",
        ),
        Mistake(
            "gives-up-in-time",
            "doesn't try the hanging tea",
            "Ask this endpoint about the tea that hangs: it answers 504 before you give up. "
            "Without a deadline there is no answer.",
        ),
        Mistake(
            "another-fault",
            "confuses two faults",
            "This endpoint has a fault, but another one of the five.",
        ),
        Mistake(
            "healthy",
            "names an endpoint that has no fault",
            "This endpoint has no fault. Compare its row with the others, column by column.",
        ),
    ),
)


async def check_faults(found: Any) -> Verdict:
    """Check where the learner places the five faults, show one line, and return the verdict.

    ``found`` is a dict from fault to endpoint. An endpoint may be written with its method and with
    a tea or a placeholder, or without: ``"GET /stock/{sku}"``, ``"/stock/tea-1"``, ``"/stock"``.
    """
    return await check(functools.partial(_judge, found=found))


async def _judge(sandbox: Sandbox, *, found: Any) -> str:
    if not isinstance(found, Mapping):
        raise wrong("wrong-type", f"it got {type(found).__name__}; write check_faults(found)")

    async def copied() -> dict[Any, Any]:
        return dict(found)  # a mapping of the learner's may run code of theirs

    answer = (await sandbox.run(copied)).result()
    given = {fault: _endpoint(fault, path) for fault, path in answer.items()}
    if not any(given.values()):
        raise wrong("not-written")
    if strange := [str(fault) for fault in given if fault not in TRUE]:
        raise EXERCISE.wrong("no-such-fault", strange[0])
    for fault, endpoint in given.items():
        if endpoint:
            _judge_one(fault, endpoint)
    if missing := [fault for fault in TRUE if not given.get(fault)]:
        raise EXERCISE.wrong("a-fault-missing", ", ".join(missing))
    return "All five faults are where you say, and none of the healthy endpoints is among them."


def _endpoint(fault: object, written: object) -> str:
    """Return the first part of a path, such as ``/stock``, or "" for an empty one."""
    if not isinstance(written, str):
        raise wrong("wrong-type", f"{fault}: {type(written).__name__}; write 'GET /teas'")
    path = written.strip().rpartition(" ")[2].strip("/")
    return f"/{path.partition('/')[0]}" if path else ""


def _judge_one(fault: str, endpoint: str) -> None:
    if endpoint == TRUE[fault]:
        return
    detail = f"{fault}: {endpoint}"
    known = {f"/{path.split('/')[1]}" for path in create_app().openapi()["paths"]}
    if endpoint not in known:
        raise EXERCISE.wrong("no-such-endpoint", f"{detail}; there are {', '.join(sorted(known))}")
    if endpoint == "/label":
        raise EXERCISE.wrong("found-together", detail)
    if endpoint == "/invoice":
        raise EXERCISE.wrong("runs-in-a-thread", detail)
    if mistake := OFTEN_TAKEN.get((fault, endpoint)):
        raise EXERCISE.wrong(mistake, detail)
    raise EXERCISE.wrong("another-fault" if endpoint in TRUE.values() else "healthy", detail)
