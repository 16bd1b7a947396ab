"""Every exercise by its lesson, for the instructors' guide."""

from support.exercises import (
    blocking,
    capstone,
    deadlines,
    draining,
    event_bus,
    export,
    http_client,
    limits,
    locks,
    pool,
    product_page,
    request_id,
    row_import,
)

_MODULES = (
    blocking,
    product_page,
    row_import,
    limits,
    deadlines,
    draining,
    pool,
    http_client,
    locks,
    request_id,
    export,
    event_bus,
    capstone,
)

EXERCISES = {module.EXERCISE.lesson: module.EXERCISE for module in _MODULES}
