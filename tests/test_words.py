"""Docstrings, comments, pages, and the names of tests and of variables do not use the words that docs/glossary.md rules
out."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORDS = (
    "whoever|whatever|wherever|nobody|anybody|somebody|everybody|amid|be it|told|tells?|walk(s|ed|ing)?|answer(s|ed)?"
    "|owed|in vain|whom|at will|if need be|for good|br(ing|ings|ought) back|put right|whereby|thereby|hence|lest"
)
RULED_OUT = re.compile(rf"\b({WORDS}|faults?)\b", re.IGNORECASE)
RULED_OUT_IN_PAGES = re.compile(rf"\b({WORDS})\b", re.IGNORECASE)  # docs/explanation/faults.md is about faults
RULED_OUT_NAMES = frozenset({"place", "places", "beside", "walk", "told", "settled"})
"""Names of variables and functions: index, position, path, location, others, traversal and so on say more."""
PAGES = [
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if path.name not in ("CHANGELOG.md", "glossary.md", "LICENSE.md")
]


def prose(source: str) -> Iterator[tuple[int, str]]:
    """Yield each docstring and comment of a module with its line, without code in backticks."""
    for found in re.finditer(r'"""(.*?)"""|(?:^|\s)# ([^\n]*)', source, re.DOTALL | re.MULTILINE):
        if found[1] and source[source.rfind("\n", 0, found.start()) + 1 : found.start()].strip():
            continue  # a string in an expression, such as SQL
        yield source.count("\n", 0, found.start()) + 1, re.sub(r"`[^`]*`", "", found[1] or found[2] or "")


def without_code(page: str) -> str:
    """Return the text of a page in which code is replaced by empty lines or removed."""
    text = re.sub(r"```.*?```", lambda block: "\n" * block[0].count("\n"), page, flags=re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def test_docstrings_and_comments_use_the_words_of_the_glossary() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {word[0]}"
        for folder, words in (("src", RULED_OUT), ("tests", RULED_OUT_IN_PAGES), ("benchmarks", RULED_OUT_IN_PAGES))
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in prose(path.read_text())
        for word in words.finditer(text)
    ]
    assert found == []


def test_variables_and_functions_have_the_names_of_the_field() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}: {name}"
        for folder in ("src", "tests", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (getattr(node, attribute, None) for attribute in ("id", "arg", "name"))
        if isinstance(name, str) and name.strip("_") in RULED_OUT_NAMES
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


def test_pages_use_the_words_of_the_glossary() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {word[0]}"
        for path in sorted(PAGES)
        for number, line in enumerate(without_code(path.read_text()).splitlines(), start=1)
        for word in RULED_OUT_IN_PAGES.finditer(line)
    ]
    assert found == []
