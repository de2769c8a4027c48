"""The scripts and commands of docs/how-to/analysis.md and docs/tutorial/from-logs-to-yield.md, and the queries of
README, work as written, on the example data in a real server."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked
from tests.client.servers import Server

ROOT = Path(__file__).parents[2]
ANALYSIS = (ROOT / "docs" / "how-to" / "analysis.md").read_text()
TUTORIAL = (ROOT / "docs" / "tutorial" / "from-logs-to-yield.md").read_text()
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(python|sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
END = "--- end of the block ---"


def run(*command: str, server: Server, token: str, folder: Path) -> str:
    paths = os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"])
    environment = {"PATH": paths, "FACTORY_LOGS_URL": server.url, "FACTORY_LOGS_TOKEN": token}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    return ran.stdout


@pytest.fixture
def examples(shared_server: Server, token: str, migrated_url: str) -> None:
    """Import the example data with the commands of the tutorial."""
    commands = re.findall(r"^\$ factory-logs (import .+)$", TUTORIAL, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        environment = os.environ | {"FACTORY_LOGS_DATABASE_URL": migrated_url}
        forked.run(*command.split(), environment=environment, cwd=ROOT).check_returncode()


@pytest.mark.usefixtures("examples")
def test_every_command_of_the_tutorial_has_the_shown_output(shared_server: Server, token: str, tmp_path: Path) -> None:
    blocks = BLOCK.findall(TUTORIAL)
    assert [kind for kind, _ in blocks] == ["sh", "text"] * 8
    script = "\n".join(f"{text}echo '{END}'" for kind, text in blocks if kind == "sh")
    output = run("bash", "-euo", "pipefail", "-c", script, server=shared_server, token=token, folder=tmp_path)
    for (_, commands), (_, expected), found in zip(blocks[::2], blocks[1::2], output.split(f"{END}\n"), strict=False):
        assert [line.rstrip() for line in found.splitlines()] == expected.splitlines(), commands


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize("tool", ["pandas", "polars", "duckdb"])
def test_each_tool_reads_the_streams_in_one_line(shared_server: Server, token: str, tmp_path: Path, tool: str) -> None:
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed: uv sync --all-groups brings it, if there is a wheel for this machine")
    section = ANALYSIS[: ANALYSIS.index("## The Reader")]
    scripts = [text for kind, text in BLOCK.findall(section) if kind == "python" and f"import {tool}\n" in text]
    assert scripts
    streams = next(text for kind, text in BLOCK.findall(section) if kind == "sh")
    run("bash", "-euc", streams, server=shared_server, token=token, folder=tmp_path)
    given = f"url, token = {shared_server.url!r}, {token!r}\n"
    for script in scripts:
        run(sys.executable, "-c", given + script, server=shared_server, token=token, folder=tmp_path)


@pytest.mark.usefixtures("examples")
def test_the_scripts_and_commands_of_the_page_run(shared_server: Server, token: str, tmp_path: Path) -> None:
    section = ANALYSIS[ANALYSIS.index("## The Reader") :]
    script, commands = (text for kind, text in BLOCK.findall(section) if kind in ("python", "sh"))
    given = f"url, token = {shared_server.url!r}, {token!r}\n"
    output = run(sys.executable, "-c", given + script, server=shared_server, token=token, folder=tmp_path)
    assert len(re.findall(r"^2024-01-[\d .:]+ 35209900\d{7} [23]\.\d+$", output, re.MULTILINE)) == 51
    assert "\n0.64386931" in output  # the rolled throughput yield
    run("bash", "-euc", commands, server=shared_server, token=token, folder=tmp_path)
    assert len((tmp_path / "j07.csv").read_text().splitlines()) > 100
    assert (tmp_path / "yield.json").read_text().startswith('{"buckets":')


@pytest.mark.usefixtures("examples")
def test_each_query_of_readme_finds_the_stated_number_of_records(
    shared_server: Server, token: str, tmp_path: Path
) -> None:
    queries = re.findall(r"\((\d+) (?:logs|units)\)\n\n```sh\n(curl .*?)```", README, re.DOTALL)
    assert len(queries) == 3
    for number, query in queries:
        command = f"TOKEN={token}; {query.replace('localhost:8000', shared_server.url)}"
        page = json.loads(
            run("bash", "-euo", "pipefail", "-c", command, server=shared_server, token=token, folder=tmp_path)
        )
        assert (page["num_results"], len(page["objects"])) == (int(number), int(number)), query
