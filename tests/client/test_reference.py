"""docs/reference/client.md is the output of its script, and describes every public class."""

import re
import runpy
from pathlib import Path

import factory_logs.client

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference" / "client.md").read_text()


def test_the_page_is_what_the_script_prints() -> None:
    made = runpy.run_path(str(DOCS / "generate_client_reference.py"))["page"]()
    assert made == PAGE, "run: uv run python docs/generate_client_reference.py > docs/reference/client.md"


def test_every_public_name_has_a_section_that_says_what_it_is_for() -> None:
    for name in factory_logs.client.__all__:
        (text,) = re.findall(rf"^## {name}\n\n`class [^`]+`\n\n([^\n]+)", PAGE, re.MULTILINE)
        assert text[0].isupper()


def test_every_public_method_says_what_it_does() -> None:
    for title, rest in re.findall(r"^### (\S+)\n\n```python\n.*?^```\n\n([^\n]*)", PAGE, re.MULTILINE | re.DOTALL):
        assert re.match(r"[A-Z][a-z]+ .", rest), title
