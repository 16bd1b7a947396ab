"""What outputs say to the reading site alone: `course refresh` keeps it beside the notebook.

A front end that does not know these MIME types, as JupyterLab, shows the others of the output.
"""

PREFIX = "application/vnd.looplab."
PREDICTION = f"{PREFIX}prediction+json"
"""A question that is asked: ``question``, ``between`` (least and greatest answer), ``unit``."""
REVEALED = f"{PREFIX}revealed+json"
"""The answer: ``question``, ``between``, ``unit`` and ``measured``, a number in ``unit``."""
CHOICES = f"{PREFIX}choices+json"
"""A dial's results.

``name`` of the dial; ``choices`` as texts; ``start``, the place of the choice that ran first;
``shown``, how many outputs that run left right before this one; ``results``, a list of outputs
(``data`` and ``metadata``) for each choice, empty for ``start``.
"""
ALL_CHOICES = "COURSE_ALL_CHOICES"
"""The environment variable that makes a dial run every choice at once, when it is not empty."""
