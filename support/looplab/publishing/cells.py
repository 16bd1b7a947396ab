"""Code cells run without a kernel: tests and benchmarks take what a lesson ships from its cells."""

import ast
import inspect
import linecache
from typing import Any

from looplab.publishing.draft import TOP_LEVEL_AWAIT

AWAITS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def imports_of(source: str) -> str:
    """Return the imports of a cell, wherever in it; a set-up cell may do more than import."""
    nodes = ast.walk(ast.parse(source))
    return "\n".join(ast.unparse(n) for n in nodes if isinstance(n, ast.Import | ast.ImportFrom))


def definitions_of(source: str) -> str:
    """Return the imports, functions, classes and constants of a cell, without what it runs."""

    def is_kept(one: ast.stmt) -> bool:
        if isinstance(one, ast.Assign):
            return all(isinstance(to, ast.Name) and to.id.isupper() for to in one.targets)
        defines = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        return isinstance(one, ast.Import | ast.ImportFrom | defines)

    cell = compile(source, "<cell>", "exec", TOP_LEVEL_AWAIT)
    return "\n".join(ast.unparse(one) for one in cell.body if is_kept(one))


async def run_cell(source: str, names: dict[str, Any], file: str = "<cell>") -> Any:
    """Run a cell as a notebook does, awaits included; return the value of its last expression."""
    # as a notebook does: what the cell defines can be asked for its source
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    body = ast.parse(source).body
    value = None
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    await _run(compile(ast.Module(body, []), file, "exec", AWAITS), names)
    if isinstance(last, ast.Expr):
        value = await _run(compile(ast.Expression(last.value), file, "eval", AWAITS), names)
    return value


async def _run(code: Any, names: dict[str, Any]) -> Any:
    value = eval(code, names)
    if code.co_flags & inspect.CO_COROUTINE:
        value = await value
    return value
