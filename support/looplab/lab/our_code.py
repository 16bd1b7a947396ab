"""Whose code a frame runs: the course's and the learner's, or a library's."""

import asyncio
import importlib.util
import os
import site
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import CodeType, ModuleType

import anyio

Packages = str | ModuleType | Sequence[str | ModuleType]


def folder(path: str | Path) -> str:
    """Return ``path`` so that the text of every path below it begins with it."""
    return f"{path}{os.sep}"


LAB_FOLDER = folder(Path(__file__).parent)
LIBRARY_FOLDERS = tuple(
    {folder(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {folder(path) for path in (*site.getsitepackages(), site.getusersitepackages())}
    | {folder(Path(str(module.__file__)).parent.parent) for module in (asyncio, anyio)}
)


def is_ours(code: CodeType, places: tuple[str, ...] = ()) -> bool:
    """Return whether ``code`` is the course's or the learner's: not a library's, not the lab's.

    Code in one of ``places``, beginnings of paths, is ours wherever it is installed.
    """
    file = code.co_filename
    if file.startswith("<frozen"):
        return False
    return file.startswith(places) or not file.startswith((*LIBRARY_FOLDERS, LAB_FOLDER))


def short_name(qualified: str) -> str:
    """Return the last part of a qualified name: ``f.<locals>.Users.get_by_id`` is ``get_by_id``.

    Two methods that every ASGI layer has say nothing without their class: ``Timing.__call__`` is
    ``Timing``, and ``Timing.dispatch`` stays so.
    """
    local = qualified.rpartition("<locals>.")[2]
    if "/" in local or " " in local:
        return local
    owner, _, name = local.rpartition(".")
    cls = owner.rpartition(".")[2]
    if cls and name == "__call__":
        return cls
    return f"{cls}.{name}" if cls and name == "dispatch" else name


def places_of(ours: Packages) -> tuple[str, ...]:
    """Return where the code of packages or modules lies, for :func:`is_ours`.

    Args:
        ours: a module, a name such as ``"shop"`` or ``"shop.orders"``, or a sequence of these. A
            package stands for all that is in it.

    Raises:
        TypeError: ``ours`` holds something that is neither a module nor a name.
        ValueError: no module of that name can be found, or it has no Python file.
    """
    listed = [ours] if isinstance(ours, str | ModuleType) else ours
    if not isinstance(listed, Sequence):
        raise _no_package(ours, ours)
    found: list[str] = []
    for one in listed:
        if isinstance(one, ModuleType):
            found.extend(
                _places(one.__name__, getattr(one, "__path__", ()), getattr(one, "__file__", None))
            )
        elif isinstance(one, str):
            found.extend(_places_of_name(one))
        else:
            raise _no_package(ours, one)
    return tuple(dict.fromkeys(found))


def _no_package(ours: object, wrong: object) -> TypeError:
    return TypeError(
        f"ours is {ours!r}; it must be a module, the name of one such as 'shop', or a list of "
        f"these, and {wrong!r} is neither"
    )


def _places_of_name(name: str) -> list[str]:
    try:
        valid = all(part.isidentifier() for part in name.split("."))
        spec = importlib.util.find_spec(name) if valid else None
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise ValueError(
            f"ours names {name!r}; no package or module of that name can be imported here"
        )
    return _places(name, spec.submodule_search_locations or (), spec.origin)


def _places(name: str, folders: Iterable[str], file: str | None) -> list[str]:
    """Return the folders of a package, or else the file of a module, links in them resolved too."""
    paths = [Path(path) for path in folders]
    texts = [folder(path) for one in paths for path in (one, one.resolve())]
    if not paths and file is not None and file.endswith(".py"):
        texts = [str(path) for path in (Path(file), Path(file).resolve())]
    if not texts:
        raise ValueError(f"ours names {name!r}, which has no Python file whose code could be drawn")
    return texts
