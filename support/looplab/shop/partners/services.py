"""The mailer, the payment service and the supplier."""

from __future__ import annotations

import zlib
from typing import Annotated, Any, Unpack

from fastapi import Header, Request
from pydantic import BaseModel, Field

from looplab.shop.partners.partner import Knobs, Partner


class Mail(BaseModel):
    """A letter to one address."""

    to: str = Field(min_length=3, max_length=254)
    subject: str = ""
    body: str = ""


class Mailer(Partner):
    """Takes letters: `POST /send {"to", "subject", "body"}` answers 202 `{"id", "to"}`.

    The subject of a fault is an address. `sent` holds the letters that were accepted.
    """

    def __init__(self, name: str = "mailer", **knobs: Unpack[Knobs]) -> None:
        super().__init__(name, **knobs)

        @self.app.post("/send", status_code=202)
        async def send(mail: Mail, request: Request) -> dict[str, Any]:
            with self._call(request, mail.to) as call:
                await call.wait()
                call.check()
                self.sent.append(mail)
                return {"id": len(self.sent), "to": mail.to}

    def reset(self) -> None:
        """Do as `Partner.reset`, and forget what was sent."""
        super().reset()
        self.sent: list[Mail] = []


class Charge(BaseModel):
    """An order to be paid; `amount` in cents."""

    order_id: str
    amount: int = Field(gt=0)


class PaymentService(Partner):
    """Takes money: `POST /charges {"order_id", "amount"}` answers 201 with an "id" besides.

    With an `Idempotency-Key` header a repeated call answers what the first one did, and charges
    nothing. The subject of a fault is an order's id. `charges` holds what was charged.
    """

    def __init__(self, name: str = "payment", **knobs: Unpack[Knobs]) -> None:
        super().__init__(name, **knobs)

        @self.app.post("/charges", status_code=201)
        async def charge(
            order: Charge,
            request: Request,
            idempotency_key: Annotated[str | None, Header()] = None,
        ) -> dict[str, Any]:
            with self._call(request, order.order_id) as call:
                await call.wait()
                call.check()
                if idempotency_key is not None and idempotency_key in self._answers:
                    return self._answers[idempotency_key]
                self.charges.append(order)
                answer = {"id": len(self.charges), **order.model_dump()}
                if idempotency_key is not None:
                    self._answers[idempotency_key] = answer
                return answer

    def reset(self) -> None:
        """Do as `Partner.reset`, and forget what was charged."""
        super().reset()
        self.charges: list[Charge] = []
        self._answers: dict[str, dict[str, Any]] = {}


class Supplier(Partner):
    """Knows what can be ordered: `GET /stock/{sku}` answers `{"sku", "available", "lead_days"}`.

    The answer is a function of the SKU. The subject of a fault is a SKU.
    """

    def __init__(self, name: str = "supplier", **knobs: Unpack[Knobs]) -> None:
        super().__init__(name, **knobs)

        @self.app.get("/stock/{sku}")
        async def stock(sku: str, request: Request) -> dict[str, Any]:
            with self._call(request, sku) as call:
                await call.wait()
                call.check()
                number = zlib.crc32(sku.encode())
                return {"sku": sku, "available": number % 500, "lead_days": 1 + number % 9}
