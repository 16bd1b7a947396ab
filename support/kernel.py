"""What every kernel of the course's environment loads as it starts, so it imports nothing heavy."""

from typing import Any


def load_ipython_extension(shell: Any) -> None:
    """Let a cell that runs before the set-up cell be told so in one sentence.

    ``shell`` is IPython's. The sentence itself comes from ``support.lab.session``, which is
    imported at the first error and not before.
    """
    shown = shell.showtraceback

    def showtraceback(*args: Any, **options: Any) -> Any:
        if shell.showtraceback is not showtraceback:  # a lesson has begun and put its own in front
            return shown(*args, **options)
        shell.showtraceback = shown
        try:
            from support.lab import session

            session.load_ipython_extension(shell)
        except Exception:
            return shown(*args, **options)
        return shell.showtraceback(*args, **options)

    shell.showtraceback = showtraceback
