"""The layout of the tests: code that several modules share is not in a test module."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent


def test_no_test_module_imports_another() -> None:
    importing = []
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(part.startswith("test_") for name in names for part in name.split(".")):
                importing.append(f"{path.relative_to(TESTS)}:{node.lineno}")
    assert importing == []
