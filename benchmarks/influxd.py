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


def written_bytes(folder: Path) -> int:
    """Return the bytes of InfluxDB's files once they have not changed for a while: data, index and log."""
    last = -1
    while (size := sum(file.stat().st_blocks * 512 for file in folder.glob("[dw]a*/**/*") if file.is_file())) != last:
        last = size
        time.sleep(SETTLED_SECONDS)
    return size


def compacted_bytes(folder: Path) -> int:
    """Return the bytes of a copy of InfluxDB's files after its own compaction, which otherwise takes hours to begin."""
    with tempfile.TemporaryDirectory(prefix="flbench-influxd-") as name:
        subprocess.run(["cp", "-a", f"{folder}/.", name], check=True)
        with _on(Path(name), SOON):
            while not _is_compacted(Path(name)):
                time.sleep(1)
            return written_bytes(Path(name))


def _is_compacted(folder: Path) -> bool:
    """Return whether the log is empty and each shard has only one file."""
    if any(file.stat().st_size for file in folder.glob("wal/**/*.wal")):
        return False
    shards = [file.parent for file in folder.glob("data/**/*.tsm")]
    return bool(shards) and len(shards) == len(set(shards))
