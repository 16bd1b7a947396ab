"""Every exercise by its lesson, for the instructors' guide."""

from support.exercises import blocking, event_bus, export, product_page, row_import

_MODULES = (blocking, product_page, row_import, export, event_bus)

EXERCISES = {module.EXERCISE.lesson: module.EXERCISE for module in _MODULES}
