"""The scripts and commands of docs/how-to/devices.md work as written, with a real server."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from factory_logs.client import ClientSettings
from tests.client.servers import Server
from tests.devices import Rows

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "devices.md").read_text()
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(kind: str) -> list[str]:
    return [text for language, text in BLOCK.findall(PAGE) if language == kind]


def run_script(text: str, folder: Path, server: Server, token: str) -> str:
    given = f"url, token = {server.url!r}, {token!r}\n"
    ran = subprocess.run([sys.executable, "-c", given + text], cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_three_lines_deliver_a_log(shared_server: Server, token: str, tmp_path: Path, rows: Rows) -> None:
    three_lines = blocks("python")[0]
    assert len([line for line in three_lines.splitlines() if line]) == 3
    run_script(three_lines, tmp_path, shared_server, token)
    (row,) = rows("SELECT app_name, product_imei, fields FROM factory_logs")
    assert tuple(row.values()) == (
        "tiger_test_jig_production", "352099001761481", '{"passed": true, "voltage": 3.28}'
    )  # fmt: skip


def test_the_scripts_run_one_after_the_other(shared_server: Server, token: str, tmp_path: Path, rows: Rows) -> None:
    output = run_script("".join(blocks("python")), tmp_path, shared_server, token)
    assert "SpoolTotals(pending=0, pending_bytes=0, rejected=0, rejected_bytes=0, delivered=3, dropped=0)" in output
    stored = rows("SELECT fields->>'message' AS message FROM factory_logs ORDER BY factory_log_id")
    assert [row["message"] for row in stored] == [None, None, None, None, "relay 3 stuck"]


def test_the_commands_run_one_after_the_other(shared_server: Server, token: str, tmp_path: Path, rows: Rows) -> None:
    *commands, tail = [text for text in blocks("sh") if not text.startswith("pip ")]
    assert tail.startswith("factory-logs tail")
    assert len(commands) == 4
    paths = os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"])
    environment = {"PATH": paths, "SERVER": shared_server.url, "DEVICE_TOKEN": token, "COLUMNS": "200"}
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "".join(commands)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "Delivered\n" in ran.stderr
    assert "Spooled 1 line of jig.ndjson\n" in ran.stderr
    assert ran.stdout.startswith("0 logs wait (0 bytes), 0 are rejected, 2 were delivered, 0 dropped\n")
    assert len(rows("SELECT 1 FROM factory_logs")) == 2

    with subprocess.Popen(
        ["bash", "-euc", f"{commands[0]}exec {tail}"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert "FAIL jig" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.wait(300)


def test_the_page_lists_every_setting_with_its_default() -> None:
    for name, field in ClientSettings.model_fields.items():
        assert f"| `{name}` | `{field.default}` | {field.description} |" in PAGE
