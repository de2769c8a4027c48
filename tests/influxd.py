"""A real InfluxDB 1.6 for comparisons, if it is installed (Debian: `apt-get install influxdb`). A plugin."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.serving import free_port

CONFIG = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc_port}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  query-log-enabled = false
  cache-snapshot-write-cold-duration = "1s"
  max-values-per-tag = 0
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
[monitor]
  store-enabled = false
"""


@dataclass(frozen=True)
class Influxd:
    """A running server and its data directory."""

    http: httpx.Client
    folder: Path

    def query(self, statement: str, database: str) -> list[dict[str, object]]:
        """Return each point of the result: `time` in nanoseconds, all columns that are not null, and `name`."""
        response = self.http.post("/query", params={"q": statement, "db": database, "epoch": "ns"}).json()
        return [
            {"name": series["name"], "tags": series.get("tags", {})}
            | {column: value for column, value in zip(series["columns"], row, strict=True) if value is not None}
            for result in response["results"]
            for series in result.get("series", ())
            for row in series["values"]
        ]

    def databases(self) -> list[str]:
        """The names of all databases."""
        response = self.http.get("/query", params={"q": "SHOW DATABASES"}).json()
        return [name for (name,) in response["results"][0]["series"][0].get("values", ())]


@pytest.fixture(scope="session")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    command = shutil.which("influxd")
    if command is None:
        pytest.skip("influxd is not installed")
    folder, port = tmp_path_factory.mktemp("influxd"), free_port()
    (folder / "influxd.conf").write_text(CONFIG.format(folder=folder, port=port, rpc_port=free_port()))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [command, "run", "-config", str(folder / "influxd.conf")], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            _wait(http, process, folder / "log")
            yield Influxd(http, folder)
    finally:
        process.terminate()
        process.wait(300)


def _wait(http: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            http.get("/ping")
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"influxd does not respond: {log.read_text()}")
