"""The docstrings under a class's fields, for the JSON Schema.

pydantic can collect them too, but does so whenever a class is made, which would cost every
command 70 ms; here they are read from the source when a schema is asked for.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Mapping
from itertools import pairwise


def field_docs(cls: type) -> dict[str, str]:
    """Return the docstring of each field of a class and of its bases in one line, by the field's name."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith(("workloads.", "sim.")):
            docs |= _classes(base.__module__)[base.__qualname__]
    return docs


def _classes(module: str) -> Mapping[str, dict[str, str]]:
    """Read the fields' docstrings of every class of a module."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: dict(_fields(node.body)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _fields(body: Iterable[ast.stmt]) -> Iterable[tuple[str, str]]:
    for field, below in pairwise(body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            yield field.target.id, " ".join(str(below.value.value).split())
