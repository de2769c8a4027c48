"""The banner of `serve` on a terminal."""

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from factory_logs import __version__
from factory_logs.cli.server import startup
from tests.cli.conftest import Run
from tests.serving import COMMAND, free_port

pytestmark = pytest.mark.slow


def shown_on_a_terminal(environment: dict[str, str], port: int) -> str:
    """Return the output of `serve` on a terminal until it serves requests; then stop it with Ctrl-C."""
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "serve", "--port", str(port)],
        env=os.environ | environment, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(terminal)
        shown, stopped = "", False
        deadline = time.monotonic() + 120
        with suppress(OSError):  # no process writes to the terminal any more
            while time.monotonic() < deadline:
                shown += os.read(controller, 65536).decode()
                if "startup complete" in shown and not stopped:
                    process.send_signal(signal.SIGINT)
                    stopped = True
        assert process.wait(300) == 0, shown
    os.close(controller)
    return shown.replace("\r\n", "\n")


def test_a_terminal_shows_the_url_and_how_to_get_a_token(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port, data_dir = free_port(), short_tmp / "data"
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    environment = {"FACTORY_LOGS_DATA_DIR": str(data_dir)}
    first = shown_on_a_terminal(environment, port)
    assert f"Factory Logs {__version__}\n" in first
    assert f"  Page   http://127.0.0.1:{port}/\n" in first
    for line in (f"API    http://127.0.0.1:{port}", f"Docs   http://127.0.0.1:{port}/docs", f"Data   {data_dir}"):
        assert f"  {line}\n" in first
    assert re.search(
        r"^audit: token issued: user=admin token=[0-9a-f]{16} expires_in=never by=\S+$", first, re.MULTILINE
    )
    assert '"event":"audit"' not in first

    again = shown_on_a_terminal(environment, port)
    assert "This is a new database" not in again
    (token_line,) = re.findall(r"^  Token  (.*)$", again, re.MULTILINE)
    assert token_line.startswith(f"FACTORY_LOGS_DATA_DIR={data_dir} ")
    # Return the command as the banner shows it, with the interpreter of this test.
    words = shlex.split(token_line)
    words[1] = sys.executable
    issued = subprocess.run(["env", *words], capture_output=True, text=True, check=True)
    assert re.fullmatch("[A-Za-z0-9]{64}\n", issued.stdout)


def test_without_a_terminal_there_is_no_banner(capsys: pytest.CaptureFixture[str], settings: startup.Settings) -> None:
    startup.show_banner(settings)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("program", "uv", "typed"),
    [
        ("/venv/bin/factory-logs", "", "factory-logs"),
        ("/venv/bin/factory-logs", "1", "uv run factory-logs"),
        ("/else where/factory-logs", "", "'/else where/factory-logs'"),
        ("/venv/lib/factory_logs/__main__.py", "", f"{Path(sys.executable).name} -m factory_logs"),
    ],
)
def test_a_command_is_shown_as_it_was_typed(monkeypatch: pytest.MonkeyPatch, program: str, uv: str, typed: str) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/venv/bin")
    monkeypatch.setattr(sys, "argv", [program, "serve"])
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    if uv:
        monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", uv)
    assert startup.typed_command() == typed


def test_the_version_is_shown(run: Run) -> None:
    assert run("--version").stdout == f"factory-logs {__version__}\n"
