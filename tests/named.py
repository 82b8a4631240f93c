"""The names of tests, for the lists that say which of them shows what."""

import ast
from functools import cache
from pathlib import Path


@cache
def named_in(path: Path) -> list[str]:
    """The tests of a file, in their order: test_x or TestY::test_x."""
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inner, prefix = (node.body, f"{node.name}::") if isinstance(node, ast.ClassDef) else ([node], "")
        functions = [each.name for each in inner if isinstance(each, ast.FunctionDef)]
        found += [f"{prefix}{name}" for name in functions if name.startswith("test_")]
    return found
