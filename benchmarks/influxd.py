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
{compaction}
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
[monitor]
  store-enabled = false
"""
SOON = """
  cache-snapshot-write-cold-duration = "2s"
  compact-full-write-cold-duration = "5s"
"""
"""InfluxDB moves points from its log to its data 10 minutes after the last write, and compacts the data after 4 hours.
With this it does both at once."""
SETTLED_SECONDS = 20


@contextlib.contextmanager
def influxd() -> Iterator[tuple[str, Path]]:
    """Run a new InfluxDB; yield its URL and the folder of its data."""
    with tempfile.TemporaryDirectory(prefix="flbench-influxd-") as name, _on(Path(name), "") as url:
        httpx.post(f"{url}/query", params={"q": "CREATE DATABASE jigs"}).raise_for_status()
        yield url, Path(name)


@contextlib.contextmanager
def _on(folder: Path, compaction: str) -> Iterator[str]:
    port = free_port()
    config = folder / "influxd.conf"
    config.write_text(INFLUXD.format(folder=folder, port=port, rpc_port=free_port(), compaction=compaction))
    with (folder / "output").open("ab") as log:
        process = subprocess.Popen(
            ["influxd", "run", "-pidfile", folder / "pid", "-config", config], stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"{url}/ping")
                break
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def written_bytes(folder: Path, parts: str = "[dw]a*") -> int:
    """Return the bytes of InfluxDB's files once they have not changed for a while: data, index and log."""
    last = -1
    while (size := sum(file.stat().st_blocks * 512 for file in folder.glob(f"{parts}/**/*") if file.is_file())) != last:
        last = size
        time.sleep(SETTLED_SECONDS)
    return size


def compacted_bytes(folder: Path) -> int:
    """Return the bytes of data and index of a copy of InfluxDB's files after its own compaction, which otherwise takes
    hours to begin. The log is left out: its last file stays until the next write, although the data has its points."""
    with tempfile.TemporaryDirectory(prefix="flbench-influxd-") as name:
        subprocess.run(["cp", "-a", f"{folder}/.", name], check=True)
        with _on(Path(name), SOON):
            return written_bytes(Path(name), "data")
