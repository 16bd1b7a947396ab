"""The exercises: one checker a lesson, and what its exercise is built from.

``verdict = await check_blocking(app)`` runs a learner's code, shows one line, and returns a
:class:`~support.exercises.verdicts.Verdict`. ``EXERCISES`` holds, by lesson, what instructors want
to know: the mistakes each checker tells apart, and the usual wrong prediction.

Names are loaded when they are asked for, because process pools import this package too.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from support.exercises.blocking import check_blocking
    from support.exercises.capstone import check_capstone
    from support.exercises.deadlines import SourceUnavailable, check_search
    from support.exercises.draining import check_worker
    from support.exercises.event_bus import check_event_bus
    from support.exercises.export import check_export
    from support.exercises.guide import EXERCISES
    from support.exercises.http_client import check_client
    from support.exercises.limits import check_process_batch
    from support.exercises.locks import check_locks
    from support.exercises.pool import check_pool_settings
    from support.exercises.product_page import Catalogue, check_product_page
    from support.exercises.request_id import check_request_id
    from support.exercises.row_import import RowRefused, check_import
    from support.exercises.supplier import fetch_prices, summarise
    from support.exercises.taking import taken
    from support.exercises.verdicts import ANY_EXERCISE, Exercise, Mistake, Verdict

__all__ = [
    "ANY_EXERCISE",
    "EXERCISES",
    "Catalogue",
    "Exercise",
    "Mistake",
    "RowRefused",
    "SourceUnavailable",
    "Verdict",
    "check_blocking",
    "check_capstone",
    "check_client",
    "check_event_bus",
    "check_export",
    "check_import",
    "check_locks",
    "check_pool_settings",
    "check_process_batch",
    "check_product_page",
    "check_request_id",
    "check_search",
    "check_worker",
    "fetch_prices",
    "summarise",
    "taken",
]

_MODULES = {
    "ANY_EXERCISE": "verdicts",
    "EXERCISES": "guide",
    "Catalogue": "product_page",
    "Exercise": "verdicts",
    "Mistake": "verdicts",
    "RowRefused": "row_import",
    "SourceUnavailable": "deadlines",
    "Verdict": "verdicts",
    "check_blocking": "blocking",
    "check_capstone": "capstone",
    "check_client": "http_client",
    "check_event_bus": "event_bus",
    "check_export": "export",
    "check_import": "row_import",
    "check_locks": "locks",
    "check_pool_settings": "pool",
    "check_process_batch": "limits",
    "check_product_page": "product_page",
    "check_request_id": "request_id",
    "check_search": "deadlines",
    "check_worker": "draining",
    "fetch_prices": "supplier",
    "summarise": "supplier",
    "taken": "taking",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
