"""The profile `grafana` of docker-compose.yml provides the data sources that the dashboards use. No engine runs
here."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker" / "grafana"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
GRAFANA, PROMETHEUS = (COMPOSE["services"][name] for name in ("grafana", "prometheus"))
SOURCES: dict[str, Any] = {
    source["uid"]: source
    for source in yaml.safe_load((FOLDER / "provisioning" / "datasources" / "factory-logs.yml").read_text())[
        "datasources"
    ]
}
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in (FOLDER / "dashboards").glob("*.json")}
EXPRESSIONS = "__expr__"
"""Grafana's own source, which calculates with the results of the others."""


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Return the mounts with their paths, and whether they are read-only."""
    return {mount.split(":")[1]: mount.split(":")[0] for mount in service["volumes"]}


def test_grafana_and_prometheus_start_only_with_their_profile() -> None:
    assert GRAFANA["profiles"] == PROMETHEUS["profiles"] == ["grafana"]


def test_grafana_finds_its_provisioning_and_the_dashboards() -> None:
    mounted = mounts(GRAFANA)
    assert mounted["/etc/grafana/provisioning"] == "./docker/grafana/provisioning"
    (provider,) = yaml.safe_load((FOLDER / "provisioning" / "dashboards" / "factory-logs.yml").read_text())["providers"]
    assert mounted[provider["options"]["path"]] == "./docker/grafana/dashboards"
    assert mounted["/var/lib/grafana"] in COMPOSE["volumes"]


def test_the_sources_use_services_of_the_compose_file() -> None:
    assert {source["type"] for source in SOURCES.values()} == {"influxdb", "prometheus"}
    for source in SOURCES.values():
        host, port = re.fullmatch(r"http://(\w+):(\d+)", source["url"]).groups()  # type: ignore[union-attr]
        assert (host, port) in {("api", "8000"), ("prometheus", "9090")}
        assert host in COMPOSE["services"]


def test_the_token_comes_from_the_environment_and_is_in_no_file() -> None:
    source = SOURCES["factory-logs"]
    assert source["jsonData"]["httpHeaderName1"] == "Authorization"
    assert source["secureJsonData"] == {"httpHeaderValue1": "Token $FACTORY_LOGS_GRAFANA_TOKEN"}
    assert GRAFANA["environment"]["FACTORY_LOGS_GRAFANA_TOKEN"] == "${FACTORY_LOGS_GRAFANA_TOKEN:-}"


def test_grafana_is_published_only_on_this_machine_by_default() -> None:
    assert GRAFANA["ports"] == ["${GRAFANA_PUBLISH:-127.0.0.1:3000}:3000"]
    assert "ports" not in PROMETHEUS


def test_prometheus_scrapes_the_service() -> None:
    assert mounts(PROMETHEUS)["/etc/prometheus/prometheus.yml"] == "./docker/grafana/prometheus.yml"
    (job,) = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["api:8000"]}]


def test_each_dashboard_names_sources_that_are_provisioned() -> None:
    assert DASHBOARDS.keys() == {"factory", "service"}
    assert len({dashboard["uid"] for dashboard in DASHBOARDS.values()}) == 2
    for dashboard in DASHBOARDS.values():
        named = re.findall(r'"datasource": \{"type": "(\w+)", "uid": "([\w-]+)"\}', json.dumps(dashboard))
        assert named
        for kind, uid in named:
            assert uid == EXPRESSIONS or SOURCES[uid]["type"] == kind
