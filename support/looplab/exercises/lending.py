"""A shop that is lent to a learner's code, and comes back whatever the code has done with it."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from looplab.exercises.sandbox import Sandbox
from looplab.shop import Shop, open_shop


@contextlib.asynccontextmanager
async def lent_shop(
    sandbox: Sandbox, *, name: str, users: int, products: int
) -> AsyncGenerator[tuple[Shop, async_sessionmaker[AsyncSession]]]:
    """Open a shop of the check's own; yields it, and the sessionmaker to hand to the learner.

    In the end whatever runs on the sandbox is stopped, and sessions that were left open are closed.
    """
    opened: list[AsyncSession] = []

    class Lent(AsyncSession):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            opened.append(self)

    async with open_shop(users=users, products=products, name=name) as shop:
        try:
            yield (
                shop,
                async_sessionmaker(
                    shop.engine, class_=Lent, autoflush=False, expire_on_commit=False
                ),
            )
        finally:
            await sandbox.stop()
            for session in opened:
                with contextlib.suppress(Exception):  # one that was interrupted may refuse
                    await session.close()
            opened.clear()
