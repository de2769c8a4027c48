"""Every link in the pages, every page that source and tests cite, and every file that ARCHITECTURE.md names, exists."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
)
CITING = sorted(path for folder in ("src", "tests", "benchmarks", "alembic") for path in (ROOT / folder).rglob("*.py"))


def headings(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        if anchor:
            assert anchor in headings(linked), target


def test_each_page_that_the_code_cites_exists() -> None:
    missing = []
    for path in CITING:
        for name, anchor in re.findall(r"\b(docs/[\w/-]+\.md)(?:#([\w-]+))?", path.read_text()):
            page = ROOT / name
            if not page.exists() or (anchor and anchor not in headings(page)):
                missing.append((str(path.relative_to(ROOT)), f"{name}#{anchor}" if anchor else name))
    assert missing == []


def test_the_index_links_each_page_of_the_docs() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)", index.read_text())}
    assert [page for page in PAGES if page.is_relative_to(ROOT / "docs") and page not in linked | {index}] == []


def test_each_file_that_architecture_names_exists() -> None:
    named = re.findall(r"`([\w/]+(?:/|\.py|\.js|\.sql|\.ini))`", (ROOT / "ARCHITECTURE.md").read_text())
    missing = [name for name in named if not any((base / name).exists() for base in (ROOT / "src/factory_logs", ROOT))]
    assert len(named) > 50
    assert missing == []
