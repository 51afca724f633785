"""The words with which the stand-alone privileged step says why it failed, read from its source."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator

from rotator.privsep import apply


def words_of_apply() -> Iterator[str]:
    """Every value of `Applied.error` in the source: the words of its own refusals and of system errors."""
    for node in ast.walk(ast.parse(inspect.getsource(apply))):
        match node:
            case ast.Call(func=ast.Name(id="_RequestError"), args=[ast.Constant(value=str(word)), *_]):
                yield word
            case ast.FunctionDef(name="_reason"):
                yield from (
                    str(inner.value.value)
                    for inner in ast.walk(node)
                    if isinstance(inner, ast.Return) and isinstance(inner.value, ast.Constant)
                )
