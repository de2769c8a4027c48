"""`factory-logs loadtest` on a real `serve`, and on services that lose logs."""

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from factory_logs.cli import app
from tests.serving import COMMAND, free_port, serving

pytestmark = pytest.mark.slow


def loadtest(url: str, token: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it in its own process, as users do; the token is in the environment."""
    return subprocess.run(
        [*COMMAND, "loadtest", "--url", url, *arguments],
        env=os.environ | {"FACTORY_LOGS_TOKEN": token, "COLUMNS": "100"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def row(table: str, name: str) -> str:
    found = re.search(rf"│ {re.escape(name)}\s*│\s*(\S+).*│", table)
    assert found is not None, table
    return found[1]


def test_two_workers_have_stored_exactly_the_acknowledged_logs(short_tmp: Path, tmp_path: Path) -> None:
    port, output = free_port(), tmp_path / "output"
    picture = tmp_path / "table.svg"
    with serving({"FACTORY_LOGS_DATA_DIR": str(short_tmp / "loadtest")}, port, output, workers=2):
        (token,) = re.findall("^[A-Za-z0-9]{64}$", output.read_text(), re.MULTILINE)
        result = loadtest(
            f"http://127.0.0.1:{port}", token, "--devices", "5", "--duration", "1s", "--svg", str(picture)
        )
    assert result.returncode == 0, result.stdout + result.stderr
    acknowledged, stored = (row(result.stdout, name) for name in ("acknowledged (201)", "stored, by the service"))
    assert acknowledged == stored != "0"
    assert token not in result.stdout + result.stderr
    assert float(row(result.stdout, "processors used by loadtest")) > 0
    assert row(result.stdout, "mean of a write, by the service") != "-"
    assert row(result.stdout, "limit") in ("the", "loadtest")
    assert "acknowledged&#160;(201)" in picture.read_text()


class Forgetful(BaseHTTPRequestHandler):
    """Responds to every write with a 201 and stores all logs but one."""

    protocol_version = "HTTP/1.1"
    stored = -1

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).stored += 1
        self._respond(201, {})

    def do_GET(self) -> None:
        self._respond(200, {"num_results": self.stored})

    def _respond(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its base's name
        pass


class Stopping(Forgetful):
    """Responds to ten writes, and then to no request."""

    stored = 0

    def do_POST(self) -> None:
        if self.stored < 10:
            super().do_POST()
        else:
            self.close_connection = True

    def do_GET(self) -> None:
        self.close_connection = True


@contextmanager
def service(handler: type[Forgetful]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_log_that_is_missing_in_the_end_is_exit_code_1() -> None:
    with service(Forgetful) as url:
        result = loadtest(url, "t", "--devices", "1", "--duration", "1s")
    assert result.returncode == 1
    acknowledged, stored = (row(result.stdout, name) for name in ("acknowledged (201)", "stored, by the service"))
    assert int(acknowledged.replace(",", "")) == int(stored.replace(",", "")) + 1


def test_the_table_is_shown_if_the_service_stops_during_the_test(tmp_path: Path) -> None:
    picture = tmp_path / "table.svg"
    with service(Stopping) as url:
        result = loadtest(url, "t", "--devices", "1", "--duration", "1s", "--grace", "1s", "--svg", str(picture))
    assert result.returncode == 1
    assert (row(result.stdout, "acknowledged (201)"), row(result.stdout, "in doubt")) == ("10", "1")
    assert row(result.stdout, "stored, by the service") == "unknown"
    assert "acknowledged&#160;(201)" in picture.read_text()
    assert result.stderr == ("error: the number of logs that the service has stored is unknown: RemoteProtocolError\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: a token is needed: give one of --token, --token-file and FACTORY_LOGS_TOKEN\n"),
        (
            ["--token", "t", "--token-file", "f"],
            "error: a token is needed: give one of --token, --token-file and FACTORY_LOGS_TOKEN\n",
        ),
        (["--token-file", "/nowhere"], "error: the token file /nowhere cannot be read: FileNotFoundError\n"),
        (
            ["--token", "t", "--url", "http://127.0.0.1:1", "--devices", "1", "--duration", "1s", "--grace", "1s"],
            "error: the number of logs that the service has stored is unknown: ConnectError\n",
        ),
        (
            ["--token", "t", "--ca-file", "/nowhere"],
            "error: the CA file /nowhere cannot be used: No such file or directory\n",
        ),
        (["--token", "t", "--url", "ftp://x"], "error: the URL must be like https://logs.example.com, not 'ftp://x'\n"),
        (["--token", "t", "--duration", "soon"], "error: 'soon' is not a duration such as 30s, 15m, 12h, 90d, 2w\n"),
    ],
)
def test_an_invalid_option_is_a_one_line_error(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["loadtest", *arguments])
    assert (result.exit_code, result.stderr) == (1, message)
