"""Docstrings, comments and the names of tests do not use the words that docs/glossary.md rules out."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
RULED_OUT = re.compile(
    r"\b(whoever|whatever|wherever|nobody|anybody|somebody|amid|be it|told"
    r"|tells?|faults?|walk(s|ed|ing)?|answer(s|ed)?)\b",
    re.IGNORECASE,
)


def prose(source: str) -> Iterator[tuple[int, str]]:
    """Yield each docstring and comment of a module with its line, without code in backticks."""
    for found in re.finditer(r'"""(.*?)"""|(?:^|\s)# ([^\n]*)', source, re.DOTALL | re.MULTILINE):
        if found[1] and source[source.rfind("\n", 0, found.start()) + 1 : found.start()].strip():
            continue  # a string in an expression, such as SQL
        yield source.count("\n", 0, found.start()) + 1, re.sub(r"`[^`]*`", "", found[1] or found[2] or "")


def test_docstrings_and_comments_use_the_words_of_the_glossary() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {word[0]}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        for line, text in prose(path.read_text())
        for word in RULED_OUT.finditer(text)
    ]
    assert found == []


def test_names_of_tests_use_the_words_of_the_glossary() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for name in re.findall(r"def (test_\w+)", path.read_text())
        if RULED_OUT.search(name.replace("_", " "))
    ]
    assert found == []
