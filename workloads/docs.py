"""The docstrings under a class's fields, for the JSON Schema.

pydantic can collect them too, but does so whenever a class is made, which would cost every
command 70 ms; here they are read from the source when a schema is asked for.
"""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise


def field_docs(cls: type) -> dict[str, str]:
    """Return the docstring of each field of a class and of its bases in one line, by the field's name."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not base.__module__.startswith(("workloads.", "sim.")):
            continue
        definition = ast.parse(inspect.getsource(base)).body[0]
        body = definition.body if isinstance(definition, ast.ClassDef) else []
        for field, below in pairwise(body):
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                docs[field.target.id] = " ".join(str(below.value.value).split())
    return docs
