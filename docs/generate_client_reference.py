"""Print docs/reference/client.md from the docstrings and signatures of factory_logs.client and its two integrations.

uv run python docs/generate_client_reference.py > docs/reference/client.md
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

import factory_logs.client

HEAD = """\
# The client's reference

This page is generated from the docstrings of `factory_logs.client`. [Send logs from devices](../how-to/devices.md)
explains the client, [Analyse logs](../how-to/analysis.md#the-reader) the reader. `FactoryLogsOutput` is in
`factory_logs.client.openhtf` ([OpenHTF](../how-to/openhtf.md)). `ItemLog` is the fixture `factory_logs` of the
[pytest plugin](../how-to/pytest.md).

| name | purpose |
|---|---|
"""
SETTINGS = "[Send logs from devices](../how-to/devices.md#settings) lists its fields with their defaults."
INTEGRATIONS = {"FactoryLogsOutput": "client/openhtf.py", "ItemLog": "pytest_plugin.py"}
"""Classes that are imported from their own module, as only that needs openhtf or pytest."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def page() -> str:
    """Return the page as Markdown."""
    package = Path(factory_logs.client.__file__).parents[1]
    public = {name: getattr(factory_logs.client, name) for name in factory_logs.client.__all__}
    nodes = [_node(name, Path(inspect.getfile(of))) for name, of in public.items()]
    nodes += [_node(name, package / file) for name, file in INTEGRATIONS.items()]
    settings = {name for name, of in public.items() if issubclass(of, BaseModel)}
    rows = [f"| [`{node.name}`](#{node.name.lower()}) | {_first_sentence(node)} |\n" for node in nodes]
    return HEAD + "".join(rows) + "".join(_section(node, is_settings=node.name in settings) for node in nodes)


def _node(name: str, file: Path) -> ast.ClassDef:
    body = ast.parse(file.read_text()).body
    return next(node for node in body if isinstance(node, ast.ClassDef) and node.name == name)


def _first_sentence(node: ast.ClassDef) -> str:
    text = " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".")


def _section(node: ast.ClassDef, *, is_settings: bool) -> str:
    name = node.name
    bases = ", ".join(map(ast.unparse, node.bases))
    lines = ["", f"## {name}", "", f"`class {name}({bases})`" if bases else f"`class {name}`", ""]
    lines += _paragraphs(ast.get_docstring(node))
    lines += [SETTINGS, ""] if is_settings else list(_attributes(node))
    for function in node.body:
        if isinstance(function, Function) and (function.name == "__init__" or not function.name.startswith("_")):
            lines += _function(name, function)
    return "\n".join(lines[:-1]) + "\n"


def _attributes(node: ast.ClassDef) -> Iterator[str]:
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
    yield from (f"- `{ast.unparse(field.target)}: {ast.unparse(field.annotation)}`" for field in fields)
    if fields:
        yield ""


def _function(name: str, function: Function) -> Iterator[str]:
    arguments = function.args
    arguments.args = arguments.args[1:]  # without self
    keyword = "await " if isinstance(function, ast.AsyncFunctionDef) else ""
    if function.name == "__init__":
        title, code = None, f"{name}({ast.unparse(arguments)})"
    else:
        returns = "" if function.returns is None else f" -> {ast.unparse(function.returns)}"
        is_property = any(ast.unparse(each) == "property" for each in function.decorator_list)
        given = "" if is_property else f"({ast.unparse(arguments)})"
        title, code = f"### {name}.{function.name}", f"{keyword}{function.name}{given}{returns}"
    if title is not None:
        yield from (title, "")
    yield from ("```python", _wrapped(code), "```", "")
    yield from _paragraphs(ast.get_docstring(function))


def _wrapped(code: str) -> str:
    """Return a signature, with one argument a line if it is long. A comma inside brackets separates no arguments."""
    if "(" not in code:
        return code
    depth, parts, start = 0, [], code.index("(") + 1
    begin, end = code[:start], _closing(code, start)
    for index in range(start, end + 1):
        depth += (code[index] in "([{") - (code[index] in ")]}")
        if (code[index] == "," and depth == 0) or (index == end and start < end):
            parts.append(_spaced(code[start:index].strip()))
            start = index + 1
    line = begin + ", ".join(parts) + code[end:]
    return line if len(line) <= 100 else "\n".join([begin, *(f"    {part}," for part in parts), code[end:]])


def _spaced(argument: str) -> str:
    name, colon, rest = argument.partition(": ")
    return f"{name}{colon}{rest.replace('=', ' = ', 1)}"


def _closing(code: str, start: int) -> int:
    depth = 1
    for index in range(start, len(code)):
        depth += (code[index] in "([{") - (code[index] in ")]}")
        if depth == 0:
            return index
    raise ValueError(f"no closing bracket in {code}")


def _paragraphs(docstring: str | None) -> Iterator[str]:
    if docstring:
        yield from (docstring.replace("<", "&lt;"), "")


if __name__ == "__main__":
    sys.stdout.write(page())
