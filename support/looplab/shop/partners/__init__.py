"""Partner services: FastAPI apps in this process, with knobs that make them slow, late or broken.

Call a partner by the client of `in_this_process`, or serve its `app`. Everything random comes from
its seed: the same calls in the same order meet the same delays and failures.
"""

from looplab.shop.partners.partner import Fault, Knobs, Partner, in_this_process
from looplab.shop.partners.search import SearchEngine
from looplab.shop.partners.services import Charge, Mail, Mailer, PaymentService, Supplier

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
    "in_this_process",
]
