"""The exercises: one checker a lesson, in a module of its own, and what it is built from.

``verdict = await check_blocking(app)``, from ``looplab.exercises.blocking``, runs a learner's code,
shows one line, and returns a :class:`~looplab.exercises.verdicts.Verdict`. What instructors want to
know, by lesson, is gathered in :mod:`looplab.exercises.catalogue`.

The package imports nothing: process pools import it too.
"""
