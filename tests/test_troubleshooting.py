"""Each message in docs/how-to/troubleshooting.md is one that the program writes, so the page cannot go stale."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "how-to" / "troubleshooting.md"
ROW = re.compile(r"^\| `(.+?)`(?: after the name.*?)? \|", re.MULTILINE)


def texts(tree: ast.AST) -> set[str]:
    """Return the texts in a module, each value that is inserted written as `...`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
            found.add("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


@cache
def written() -> set[str]:
    return set().union(*(texts(ast.parse(path.read_text())) for path in (ROOT / "src").rglob("*.py")))


def test_each_message_of_the_page_is_in_the_source() -> None:
    messages = ROW.findall(PAGE.read_text())
    assert len(messages) > 50
    source = written()
    missing = [message for message in messages if not any(message.removesuffix("...") in text for text in source)]
    assert missing == []


def test_no_message_is_explained_twice() -> None:
    messages = ROW.findall(PAGE.read_text())
    assert len(messages) == len(set(messages))


def test_a_message_that_is_not_written_is_noticed() -> None:
    assert not any("the database is sulking" in text for text in written())
