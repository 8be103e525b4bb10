"""Source code in text, run in the engine's namespace: what ``execute`` and ``run`` do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

from hpcremote.engine.comm.named import offered
from hpcremote.engine.namespace import Namespace
from hpcremote.wire.sources import remember

_MAGIC = re.compile(r"^\s*(%{1,2}\s*[A-Za-z_]|!)")
_CO_COROUTINE = 0x80
_MIME_REPRS = {
    "text/html": "_repr_html_",
    "text/markdown": "_repr_markdown_",
    "text/latex": "_repr_latex_",
    "application/json": "_repr_json_",
    "image/svg+xml": "_repr_svg_",
    "image/png": "_repr_png_",
    "image/jpeg": "_repr_jpeg_",
}
_MISSING: Any = object()


class Source:
    """Runs source code, and keeps its lines for tracebacks."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._count = 0

    def run(self, code: str, filename: str = "", silent: bool = True) -> dict[str, Any] | None:
        """Run *code*. Unless *silent*, return a record of what its last expression shows.

        The record has ``execution_count`` and ``data``: representations by MIME type, none for None.

        Raises:
            SyntaxError: *code* is not Python.
            BaseException: whatever it raises.
        """
        self._count += 1
        name = filename or f"<execute {self._count}>"
        tree = _parse(code, name)
        remember(name, 1, code.splitlines(keepends=True))
        last = None if silent else _take_last(tree)
        with self._file(filename), offered(self._namespace.dict, code, name):
            self._do(_compile(tree, name, "exec"))
            if last is None:
                return None if silent else self._record(None)
            return self._record(self._do(_compile(last, name, "eval")))

    def _do(self, code: CodeType) -> Any:
        value = eval(code, self._namespace.dict)  # noqa: S307 - what an engine is for
        if code.co_flags & _CO_COROUTINE:  # await at top level
            import asyncio

            return asyncio.run(value)
        return value

    def _record(self, value: Any) -> dict[str, Any]:
        if value is not None:
            self._namespace.dict["_"] = value
        return {"execution_count": self._count, "data": {} if value is None else representations(value)}

    @contextmanager
    def _file(self, filename: str) -> Iterator[None]:
        space = self._namespace.dict
        if not filename or filename.startswith("<"):
            yield
            return
        saved = space.get("__file__", _MISSING)
        space["__file__"] = filename
        try:
            yield
        finally:
            if saved is _MISSING:
                space.pop("__file__", None)
            else:
                space["__file__"] = saved


def representations(value: Any) -> dict[str, Any]:
    """Return *value* in text, and in the richer forms that it offers, by MIME type."""
    shown: dict[str, Any] = {"text/plain": repr(value)}
    if isinstance(value, type):
        return shown
    for mime, method in _MIME_REPRS.items():
        rich = _rich(value, method)
        if rich is not None:
            shown[mime] = rich
    return shown


def _rich(value: Any, method: str) -> Any:
    try:
        rich = getattr(value, method)()
    except Exception:  # noqa: BLE001 - most objects have no such method, and a broken one must not hide the others
        return None
    return rich[0] if isinstance(rich, tuple) else rich  # (data, metadata)


def _parse(code: str, name: str) -> ast.Module:
    try:
        # What ast.parse() does, without its frame in the user's traceback.
        tree = compile(code, name, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
        assert isinstance(tree, ast.Module)  # noqa: S101 - for the type checker
        return tree
    except SyntaxError as error:
        line = (error.text or "").rstrip("\n")
        if _MAGIC.match(line):
            note = f"IPython magics and shell lines do not exist on engines: write {line.strip()!r} in Python"
            error.__notes__ = [note]  # type: ignore[attr-defined, unused-ignore]
        raise


def _take_last(tree: ast.Module) -> ast.Expression | None:
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        return ast.Expression(tree.body.pop().value)  # type: ignore[attr-defined]
    return None


def _compile(tree: ast.AST, name: str, mode: str) -> CodeType:
    # dont_inherit: this file's own "from __future__" must not change what users' annotations mean.
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    made: CodeType = compile(tree, name, mode, flags, dont_inherit=True)  # type: ignore[call-overload]
    return made
