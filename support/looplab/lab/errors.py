"""Errors that a learner can cause, shown in a notebook as one sentence."""


class LessonError(Exception):
    """Something in a cell needs the learner's attention.

    IPython asks an exception for ``_render_traceback_`` and prints what it returns, so the learner
    reads the sentence and no traceback from inside the instruments. Everywhere else (pytest, a
    script) this is an ordinary exception with an ordinary traceback.
    """

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]
