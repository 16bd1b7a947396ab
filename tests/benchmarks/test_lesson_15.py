"""How far lesson 15's three ways are from their bounds: waiting in groups, and not waiting."""

from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends
from sqlalchemy.ext.asyncio import AsyncSession

from looplab.stages.back_office import FrontDesk, app_with, rush

pytestmark = [pytest.mark.anyio, pytest.mark.benchmark]

INVOICE = 0.15  # seconds
GROUPS = 5  # ten orders over two connections
ROUNDS = 3
GIVEN = {
    "Annotated": Annotated,
    "AsyncSession": AsyncSession,
    "BackgroundTasks": BackgroundTasks,
    "Depends": Depends,
}


async def test_orders_wait_for_invoices_in_groups_of_two_unless_the_session_is_let_go(
    names_of: Any, figures: Any
) -> None:
    desk = await FrontDesk.open(invoice=INVOICE)
    names = names_of("15", ("naive-app", "pattern-app"), desk=desk, **GIVEN)
    brief = Annotated[AsyncSession, Depends(names["get_session"], scope="function")]

    async def let_go_first(session: brief, tasks: BackgroundTasks) -> Any:
        return await names["answer_first"](session, tasks)

    ways = {name: names[name] for name in ("all_in_turn", "answer_first")}
    ways["let_go_first"] = let_go_first
    best: dict[str, float] = {}
    for name, endpoint in ways.items():
        app = app_with(endpoint)
        best[name] = min([(await rush(app, desk.mailer)).answered for _ in range(ROUNDS)])
    await desk.close()
    with figures("lesson 15, ten orders over two connections, until the last answer") as table:
        table.at_most("in turn, of its bound", best["all_in_turn"] / (GROUPS * INVOICE), 1.2)
        bound = (GROUPS - 1) * INVOICE
        table.at_most("answer first, of its bound", best["answer_first"] / bound, 1.2)
        table.at_most("let go, of answer first", best["let_go_first"] / best["answer_first"], 0.5)
