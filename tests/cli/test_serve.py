import itertools
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from factory_logs.embedded import is_running

COMMAND = [sys.executable, "-m", "factory_logs"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def environment(data_dir: Path) -> dict[str, str]:
    return os.environ | {"FACTORY_LOGS_DATA_DIR": str(data_dir)}


@contextmanager
def serving(data_dir: Path, port: int, workers: int, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    with output.open("wb") as out:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--port", str(port), "--workers", str(workers)],
            env=environment(data_dir), stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_until_healthy(port, process, output)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def wait_until_healthy(port: int, process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, output.read_text()
        try:
            httpx.get(f"http://127.0.0.1:{port}/v1/factory_logs", timeout=5)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"not serving after 60 s: {output.read_text()}")


def command(data_dir: Path, *arguments: str, stdin: str = "") -> str:
    result = subprocess.run(
        [*COMMAND, *arguments], env=environment(data_dir), input=stdin, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("workers", [1, 2])
def test_from_nothing_to_a_stored_log_and_back_again(short_tmp: Path, tmp_path: Path, workers: int) -> None:
    data_dir, port, output = short_tmp / f"serve-{workers}", free_port(), tmp_path / "output"
    url = f"http://127.0.0.1:{port}/v1/factory_logs"
    with serving(data_dir, port, workers, output) as process:
        printed = output.read_text()
        assert f"Starting the embedded PostgreSQL in {data_dir} ..." in printed
        (line,) = [line for line in printed.splitlines() if line.startswith("curl ")]
        curl = shlex.split(line)
        assert curl[3] == url
        headers = dict(part.split(": ", 1) for flag, part in itertools.pairwise(curl) if flag == "-H")
        token = headers["Authorization"].partition("=")[2]
        assert re.fullmatch("[A-Za-z0-9]{64}", token)
        stored = httpx.post(url, content=curl[-1], headers=headers)
        assert stored.status_code == 201, stored.text
        assert stored.json()["created_by"] == "admin"

        command(data_dir, "users", "create", "jig-07", "--permission", "SYSTEM", stdin="secret\n")
        device = command(data_dir, "tokens", "issue", "jig-07", "--expires-in", "never").strip()
        beside = httpx.post(
            url,
            content=curl[-1],
            headers={"Authorization": f"Token token={device}", "Content-Type": "application/json"},
        )
        assert (beside.status_code, beside.json()["created_by"]) == (201, "jig-07")
        assert is_running(data_dir)

        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, output.read_text()
    assert not is_running(data_dir)

    with serving(data_dir, port, workers, output) as process:
        answer = httpx.get(url, headers={"Authorization": f"Token token={token}"})
        assert answer.json()["num_results"] == 2
        assert "curl" not in output.read_text()
        assert token not in output.read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, output.read_text()
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
