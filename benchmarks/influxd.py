"""InfluxDB 1.6 as a peer, with its defaults (Debian: influxdb)."""

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from benchmarks.harness import free_port

INFLUXD = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc_port}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  max-values-per-tag = 0
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
[monitor]
  store-enabled = false
"""


@contextlib.contextmanager
def influxd() -> Iterator[tuple[str, Path]]:
    """A new InfluxDB and where its data lies."""
    with tempfile.TemporaryDirectory(prefix="flbench-influxd-") as name:
        folder, port = Path(name), free_port()
        config = folder / "influxd.conf"
        config.write_text(INFLUXD.format(folder=folder, port=port, rpc_port=free_port()))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(["influxd", "run", "-config", config], stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(300):
                with contextlib.suppress(httpx.HTTPError):
                    httpx.get(f"{url}/ping")
                    break
                time.sleep(0.1)
            httpx.post(f"{url}/query", params={"q": "CREATE DATABASE jigs"}).raise_for_status()
            yield url, folder
        finally:
            process.terminate()
            process.wait(30)
