"""What every kernel of the course's environment loads as it starts, so it imports nothing heavy.

A name that a cell lacks is told in one sentence, through IPython's own hook for exceptions,
`set_custom_exc`. A cell run before the set-up cell gets the sentence too.
"""

import builtins
import difflib
import re
from types import TracebackType
from typing import Any

RUN_ABOVE = "menu Run > Run All Above Selected Cell"
# The frames of an expression at the top level of a cell, besides the cell's own.
TOP_LEVEL = {"<module>", "<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}
CELL_OF_OLD = "<cell line"  # IPython 7 and early 8 name the cell's frame by its line


def load_ipython_extension(shell: Any) -> None:
    """Tell a missing name in one sentence from now on; ``shell`` is IPython's."""
    tell(shell, NameError)


def unload_ipython_extension(shell: Any) -> None:
    """Give IPython all its tracebacks back."""
    shell.set_custom_exc((), None)


def tell(shell: Any, *kinds: type[BaseException]) -> None:
    """Let ``shell`` tell exceptions of these kinds in one sentence, where there is one to tell.

    That is a missing name, and an exception that renders its own traceback: IPython asks that for
    its sentence too, but not while an exception group is being handled.
    """
    shell.set_custom_exc(kinds, _show)


def _show(
    shell: Any,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
    tb_offset: int | None = None,
) -> None:
    render = getattr(error, "_render_traceback_", None)
    sentence = render() if render is not None else _missing_name(shell, error, trace)
    if sentence is None:
        shell.showtraceback((kind, error, trace), running_compiled_code=True)
    else:
        # Sends the error message too, so that nbclient and nbmake fail the cell.
        shell._showtraceback(kind, error, sentence)


def _missing_name(
    shell: Any, error: BaseException, trace: TracebackType | None
) -> list[str] | None:
    name = getattr(error, "name", None)
    if type(error) is not NameError or not name or not _is_top_level(shell, trace):
        return None
    known = [*shell.user_ns, *dir(builtins)]
    close = [] if re.fullmatch(r"_*.?", name) else difflib.get_close_matches(name, known, 1, 0.8)
    guess = f" Or did you mean `{close[0]}`?" if close else ""
    return [
        f"NameError: `{name}` is not defined yet: run the cells above this one first "
        f"({RUN_ABOVE}).{guess}"
    ]


def _is_top_level(shell: Any, trace: TracebackType | None) -> bool:
    """Return whether an error was raised by a cell's own lines, not in a function they call."""
    cell_frames = False
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_globals is shell.user_global_ns:
            cell_frames = True
            name = frame.f_code.co_name
            if name not in TOP_LEVEL and not name.startswith(CELL_OF_OLD):
                return False
        elif cell_frames:
            return False
        trace = trace.tb_next
    return cell_frames
