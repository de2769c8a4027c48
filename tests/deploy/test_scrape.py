"""A real Prometheus with the configuration of deploy/ scrapes a service of two workers and evaluates the rules."""

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from factory_logs import __version__
from factory_logs.permissions import Level
from tests.api.conftest import password_hash, tokens  # noqa: F401
from tests.serving import free_port, serving

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
PATIENCE_SECONDS = 300

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed: apt-get install it"),
]


def ask(url: str, expression: str) -> list[dict[str, Any]]:
    """Return the result of an instant query; nothing while Prometheus starts."""
    try:
        response = httpx.get(f"{url}/api/v1/query", params={"query": expression}, timeout=60)
    except httpx.TransportError:
        return []
    return response.json()["data"]["result"] if response.status_code == 200 else []


def wait_for(url: str, expression: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := ask(url, expression)):
        assert time.monotonic() < deadline, expression
        time.sleep(0.2)
    return found[0]


def test_prometheus_scrapes_the_workers_and_alerts_on_a_silent_app(
    migrated_url: str,
    tokens: dict[Level, str],  # noqa: F811
    tmp_path: Path,
) -> None:
    service, port = free_port(), free_port()
    configuration = (FOLDER / "prometheus.yml").read_text()
    assert configuration.count("127.0.0.1:8000") == 1
    configuration = configuration.replace("127.0.0.1:8000", f"127.0.0.1:{service}").replace(": 15s", ": 1s")
    (tmp_path / "prometheus.yml").write_text(configuration)
    shutil.copy(FOLDER / "factory-logs.rules.yml", tmp_path)
    settings = {"FACTORY_LOGS_DATABASE_URL": migrated_url, "FACTORY_LOGS_DATABASE_METRICS_SECONDS": "0.5"}
    two_days_ago = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 2 * 86400))
    with serving(settings, service, tmp_path / "service.log", workers=2):
        headers = {"Authorization": f"Token token={tokens[Level.SYSTEM]}"}
        log = {"app_name": "silent jig", "timestamp": two_days_ago}
        posted = httpx.post(f"http://127.0.0.1:{service}/v1/factory_logs", json=log, headers=headers, timeout=60)
        assert posted.status_code == 201
        with (tmp_path / "prometheus.log").open("wb") as output:
            prometheus = subprocess.Popen(
                ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
                 f"--web.listen-address=127.0.0.1:{port}"],
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            assert wait_for(url, "factory_logs_info")["metric"]["version"] == __version__
            assert wait_for(url, "factory_logs_database_up == 1")
            assert wait_for(url, "factory_logs_database_bytes > 1e6")
            alarm = wait_for(url, 'ALERTS{alertname="FactoryLogsAppSilent", alertstate="firing"}')
            assert alarm["metric"]["app_name"] == "silent jig"
        finally:
            prometheus.terminate()
            prometheus.wait(PATIENCE_SECONDS)
