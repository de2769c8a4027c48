import hashlib
import itertools
import json
import os
import re
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from factory_logs.cli.output import CommandError
from factory_logs.cli.server import startup
from factory_logs.embedded import is_running
from tests import forked
from tests.serving import COMMAND, free_port, serving

pytestmark = pytest.mark.slow


def on(data_dir: Path) -> dict[str, str]:
    return {"FACTORY_LOGS_DATA_DIR": str(data_dir)}


def environment(data_dir: Path) -> dict[str, str]:
    return os.environ | on(data_dir)


def command(data_dir: Path, *arguments: str, stdin: str = "") -> str:
    result = forked.run(*arguments, environment=environment(data_dir), stdin=stdin)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_start_stores_and_returns_a_log(short_tmp: Path, tmp_path: Path, workers: int) -> None:
    data_dir, port, output = short_tmp / f"serve-{workers}", free_port(), tmp_path / "output"
    url = f"http://127.0.0.1:{port}/v1/factory_logs"
    audit = tmp_path / "audit.log"
    settings = on(data_dir) | {"FACTORY_LOGS_AUDIT_FILE": str(audit)}
    with serving(settings, port, output, workers=workers) as process:
        printed = output.read_text()
        assert f"Starting the embedded PostgreSQL in {data_dir} ..." in printed
        (line,) = [line for line in printed.splitlines() if line.startswith("curl ")]
        curl = shlex.split(line)
        assert curl[3] == url
        headers = dict(part.split(": ", 1) for flag, part in itertools.pairwise(curl) if flag == "-H")
        token = headers["Authorization"].partition("=")[2]
        assert re.fullmatch("[A-Za-z0-9]{64}", token)
        created, issued = (json.loads(line) for line in audit.read_text().splitlines())
        assert (created["action"], created["user"], created["permission"]) == ("user created", "admin", "SYSTEM")
        assert (issued["action"], issued["user"], issued["expires_in"]) == ("token issued", "admin", "never")
        assert issued["token"] == hashlib.sha256(token.encode()).hexdigest()[:16]
        stored = httpx.post(url, content=curl[-1], headers=headers, timeout=60)
        assert stored.status_code == 201, stored.text
        assert stored.json()["created_by"] == "admin"

        command(data_dir, "users", "create", "jig-07", "--permission", "SYSTEM", stdin="a secret\n")
        device = command(data_dir, "tokens", "issue", "jig-07", "--expires-in", "never").strip()
        response = httpx.post(
            url,
            content=curl[-1],
            headers={"Authorization": f"Token token={device}", "Content-Type": "application/json"},
            timeout=60,
        )
        assert (response.status_code, response.json()["created_by"]) == (201, "jig-07")
        assert is_running(data_dir)

        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 0, output.read_text()
    assert not is_running(data_dir)

    with serving(settings, port, output, workers=workers) as process:
        response = httpx.get(url, headers={"Authorization": f"Token token={token}"}, timeout=60)
        assert response.json()["num_results"] == 2
        assert "curl" not in output.read_text()
        assert token not in output.read_text()
        assert len(audit.read_text().splitlines()) == 2, "the first token is issued once"
        assert token not in audit.read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 0, output.read_text()
    assert not is_running(data_dir)


def test_errors_outside_http_and_all_log_lines_are_json_too(short_tmp: Path, tmp_path: Path) -> None:
    port, output = free_port(), tmp_path / "output"
    with serving(on(short_tmp / "serve-json"), port, output):
        for request in (b"FOO /v1/factory_logs HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.sendall(request)
                head, body = b"".join(iter(lambda c=connection: c.recv(4096), b"")).split(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 ")
            assert b"content-type: application/json" in head
            assert json.loads(body).keys() == {"message", "request_id"}
    lines = [line for line in output.read_text().splitlines() if "startup" in line or "request" in line]
    assert len(lines) >= 2
    assert all({"level", "event", "timestamp"} <= json.loads(line).keys() for line in lines)


def test_two_services_share_one_data_directory_and_a_killed_one_can_start_again(
    short_tmp: Path, tmp_path: Path
) -> None:
    data_dir, ports = short_tmp / "shared", (free_port(), free_port())
    with serving(on(data_dir), ports[0], tmp_path / "first") as first:
        token = next(
            line for line in (tmp_path / "first").read_text().splitlines() if re.fullmatch("[A-Za-z0-9]{64}", line)
        )
        headers = {"Authorization": f"Token token={token}"}
        with serving(on(data_dir), ports[1], tmp_path / "second"):
            log = {"app_name": "tiger", "timestamp": "2024-01-31"}
            for port in ports:
                response = httpx.post(f"http://127.0.0.1:{port}/v1/factory_logs", json=log, headers=headers, timeout=60)
                assert response.status_code == 201, response.text
            first.kill()
            first.wait(300)
            url = f"http://127.0.0.1:{ports[1]}/v1/factory_logs"
            assert httpx.get(url, headers=headers, timeout=60).json()["num_results"] == 2
    assert not is_running(data_dir)
    with serving(on(data_dir), ports[0], tmp_path / "alone") as alone:
        alone.kill()
        alone.wait(300)
    assert is_running(data_dir), "nobody was left to stop the server"
    with serving(on(data_dir), ports[0], tmp_path / "again"):
        url = f"http://127.0.0.1:{ports[0]}/v1/factory_logs"
        assert httpx.get(url, headers=headers, timeout=60).json()["num_results"] == 2
    assert not is_running(data_dir)


def test_a_taken_port_is_an_error_before_anything_is_done(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = subprocess.run(
            [*COMMAND, "serve", "--port", str(port)],
            env=environment(tmp_path / "data"), capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr == f"error: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    assert not (tmp_path / "data").exists()


def test_a_port_that_another_program_takes_during_the_start_is_an_error() -> None:
    """Until it listens, Linux lets two sockets with SO_REUSEADDR bind a port."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        ours = startup._bind(startup.Settings(port=port))
        other.listen()
        with ours, pytest.raises(CommandError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            startup._listen(ours, 1, startup.Settings(port=port))
