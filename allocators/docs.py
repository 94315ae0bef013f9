"""Docstrings of classes and of their modules; for compiled ones, which have lost theirs, read from the source file."""

from __future__ import annotations

import ast
import sys
from pathlib import Path


def class_doc(cls: type) -> str:
    """Return the docstring of a class, or nothing."""
    if cls.__doc__:
        return cls.__doc__
    found = (node for node in _source(cls).body if isinstance(node, ast.ClassDef) and node.name == cls.__name__)
    return next((ast.get_docstring(node) or "" for node in found), "")


def module_doc(cls: type) -> str:
    """Return the docstring of the module that a class is from, or nothing."""
    return sys.modules[cls.__module__].__doc__ or ast.get_docstring(_source(cls)) or ""


def _source(cls: type) -> ast.Module:
    file = sys.modules[cls.__module__].__file__
    if file is None:
        return ast.Module([], [])
    path = Path(file)
    return ast.parse(path.with_name(path.name.split(".")[0] + ".py").read_text(encoding="utf-8"))
