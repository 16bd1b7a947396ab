"""Partner services: FastAPI apps in this process, with knobs that make them slow, late or broken.

Call a partner's `app` through `httpx.ASGITransport` or a real server. Everything random comes from
its seed: the same calls in the same order meet the same delays and failures.
"""

from support.shop.partners.partner import Fault, Knobs, Partner
from support.shop.partners.search import SearchEngine
from support.shop.partners.services import Charge, Mail, Mailer, PaymentService, Supplier

__all__ = [
    "Charge",
    "Fault",
    "Knobs",
    "Mail",
    "Mailer",
    "Partner",
    "PaymentService",
    "SearchEngine",
    "Supplier",
]
