"""The device's client and commands need nothing that Windows lacks (docs/how-to/devices.md#windows)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client import without_posix
from tests.client.servers import Server
from tests.devices import Rows

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEVICE = [
    "-p", "factory_logs.client", "-p", "factory_logs.load", "-p", "factory_logs.schemas",
    "-p", "factory_logs.cli.device",
    "-m", "factory_logs.cli.loadtest", "-m", "factory_logs.pytest_plugin", "-m", "factory_logs.processors",
]  # fmt: skip


def run(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a Python without POSIX."""
    return subprocess.run(
        [sys.executable, "-m", without_posix.__name__, *arguments],
        cwd=ROOT, env=os.environ | {"FACTORY_LOGS_SPOOL": str(folder / "spool"), "COLUMNS": "200", **variables},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def online(shared_server: Server, token: str) -> dict[str, str]:
    return {"FACTORY_LOGS_URL": shared_server.url, "FACTORY_LOGS_TOKEN": token}


def test_the_types_of_the_devices_code_are_right_on_windows(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--platform", "win32", "--cache-dir", tmp_path / "cache", *DEVICE],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout


def test_a_log_is_sent_a_file_shipped_and_both_are_read(online: dict[str, str], rows: Rows, tmp_path: Path) -> None:
    sent = run("send", "jig", "--field", "passed=true", folder=tmp_path, **online)
    assert (sent.returncode, sent.stderr) == (0, "Delivered\n")
    file = tmp_path / "jig.ndjson"
    file.write_text('{"app_name": "jig", "fields": {"passed": false}}\n')
    assert run("ship", str(file), folder=tmp_path, **online).returncode == 0
    shown = run("spool", "show", folder=tmp_path)
    assert shown.stdout.startswith("0 logs wait (0 bytes), 0 are rejected, 2 were delivered, 0 dropped\n"), shown.stderr
    read = run("query", "--csv", "--columns", "app_name,fields.passed", folder=tmp_path, **online)
    assert sorted(read.stdout.splitlines()[1:]) == ["jig,false", "jig,true"], read.stderr
    assert len(rows("SELECT 1 FROM factory_logs")) == 2


def test_without_a_link_logs_stay_on_the_disk_and_one_of_two_clients_sends(tmp_path: Path) -> None:
    script = """
from factory_logs.client import Client, ClientSettings
from factory_logs.client.spool_lock import SpoolLock
from factory_logs.client.spool_view import SpoolView

settings = ClientSettings(exit_seconds=0)
with Client.from_environment(settings) as one, Client.from_environment(settings) as other:
    one.send("jig", fields={"n": 1})
    other.send("jig", fields={"n": 2})
    assert not one.flush(1)
    assert SpoolView(one.folder).is_sent_from()
    assert not SpoolLock(one.folder).acquire()
    assert one.status().totals.pending == 2
assert SpoolLock(one.folder).acquire()
"""
    nowhere = {"FACTORY_LOGS_URL": "http://127.0.0.1:9", "FACTORY_LOGS_TOKEN": "t"}
    ran = run("-c", script, folder=tmp_path, **nowhere)
    assert ran.returncode == 0, ran.stderr
    shown = run("spool", "show", folder=tmp_path)
    assert shown.stdout.startswith("2 logs wait"), shown.stderr


@pytest.mark.parametrize("module", [name for name in without_posix.MODULES if name != "readline"])
def test_the_modules_are_missing_in_these_tests(tmp_path: Path, module: str) -> None:
    ran = run("-c", f"import {module}", folder=tmp_path)
    assert "ModuleNotFoundError" in ran.stderr
