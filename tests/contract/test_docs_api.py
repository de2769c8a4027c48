"""The commands of the pages with curl run in one shell for each page, and return the responses that the page shows."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import Service

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "how-to" / "api-with-curl.md"
BLOCK = re.compile(r"^```(sh|json|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHANGING = {"created_at", "request_id", "API_token", "token_expiry"}
END = "--- end of the block ---"


def session(page: Path) -> list[tuple[str, str, str]]:
    """Return each block of commands with the kind and text of the expected response below it."""
    blocks = BLOCK.findall(page.read_text())
    steps = []
    for index, (kind, text) in enumerate(blocks):
        if kind == "sh":
            after = blocks[index + 1] if index + 1 < len(blocks) else ("sh", "")
            steps.append((text, *(("text", "") if after[0] == "sh" else after)))
    return steps


def documents(text: str) -> list[Any]:
    """Return the JSON values of a text, however they are separated; values that change between runs become `...`."""
    found, decoder, rest = [], json.JSONDecoder(object_hook=_steady), text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        found.append(value)
        rest = rest[end:].lstrip()
    return found


def _steady(members: dict[str, Any]) -> dict[str, Any]:
    return {name: "..." if name in CHANGING else value for name, value in members.items()}


def plain(text: str) -> str:
    steady = re.sub(r'"request_id":"[0-9a-f]+"', '"request_id":"..."', text)
    return "\n".join(line.replace(": ", ":").rstrip() for line in steady.strip().splitlines())


@pytest.mark.parametrize(
    ("page", "least"),
    [
        ("how-to/api-with-curl.md", 15),
        ("explanation/reading.md", 4),
        ("tutorial/first-logs.md", 4),
        ("reference/test-results.md", 6),
    ],
)
async def test_every_command_of_the_page_has_the_shown_response(service: Service, page: str, least: int) -> None:
    steps = session(DOCS / page)
    assert len(steps) > least
    script = "\n".join(f"{commands}\necho; echo '{END}'" for commands, _, _ in steps)
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "BASE": service.url, "TOKEN": service.token},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    responses = ran.stdout.split(END)
    wrong = []
    for (commands, kind, expected), response in zip(steps, responses, strict=False):
        read = documents if kind == "json" else plain
        if read(response) != read(expected):
            wrong.append(f"{commands}\n--- gives\n{response}--- and not\n{expected}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("operator", ["==", "does_not_equal", ">", "lt", ">=", "lte", "in", "not_in", "is_null",
                                      "is_not_null", "like", "ilike", "has", "any"])  # fmt: skip
def test_the_page_shows_every_operator(operator: str) -> None:
    assert f'"op": "{operator}"' in PAGE.read_text()
