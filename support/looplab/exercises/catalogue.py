"""Every exercise by its lesson: what the modules of this package call ``EXERCISE``."""

from importlib import import_module
from pkgutil import iter_modules

import looplab.exercises
from looplab.exercises.verdicts import Exercise


def _found() -> dict[str, Exercise]:
    modules = (
        import_module(f"{looplab.exercises.__name__}.{module.name}")
        for module in iter_modules(looplab.exercises.__path__)
        if module.name != "catalogue"
    )
    exercises = (getattr(module, "EXERCISE", None) for module in modules)
    found = [one for one in exercises if isinstance(one, Exercise)]
    return {one.lesson: one for one in sorted(found, key=lambda one: one.lesson)}


EXERCISES = _found()
