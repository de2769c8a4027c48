"""The dashboards of docker/grafana, on the example data (docs/how-to/grafana.md).

Each query has data, and each metric exists. Grafana itself does not run here.
"""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from factory_logs import metrics

ROOT = Path(__file__).parents[2]
DASHBOARDS = ROOT / "docker" / "grafana" / "dashboards"
FACTORY: dict[str, Any] = json.loads((DASHBOARDS / "factory.json").read_text())
SERVICE: dict[str, Any] = json.loads((DASHBOARDS / "service.json").read_text())
LOGS = [json.loads(line) for line in (ROOT / "examples" / "factory_logs.ndjson").read_text().splitlines()]
FIRST, LAST = (int(datetime(2024, month, day, tzinfo=UTC).timestamp() * 1000) for month, day in ((1, 29), (2, 1)))
ALL = {"app": ".*", "jig": ".*", "measurement": "output_12v.value"}
ONE = {"app": "(tiger_test_jig_production|tiger_test_jig_repair)", "jig": "J-07", "measurement": "battery.voltage"}


QUERIES = {
    f"{panel['title']} {target['refId']}": target["query"]
    for panel in FACTORY["panels"]
    for target in panel["targets"]
    if target["datasource"]["uid"] == "factory-logs"
}
"""Each statement of the factory's dashboard, by its panel."""
ANNOTATIONS = {annotation["name"]: annotation["query"] for annotation in FACTORY["annotations"]["list"]}


def interpolated(query: str, variables: dict[str, str]) -> str:
    """Return the statement that Grafana sends."""
    for name, value in variables.items():
        query = query.replace(f"${{{name}:regex}}", value).replace(f"${{{name}}}", value)
    query = query.replace("$timeFilter", f"time >= {FIRST}ms and time <= {LAST}ms").replace("$__interval", "30m")
    assert "$" not in query.replace("$/", ""), query
    return query


def sent(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    """Return the series of a statement, sent as the provisioned data source does."""
    response = client.post("/query", params={"db": "factory_logs", "epoch": "ms"}, data={"q": query})
    body = response.json()
    assert response.status_code == 200, body
    (result,) = body["results"]
    assert "error" not in result, result
    series: list[dict[str, Any]] = result.get("series", [])
    return series


def values(series: list[dict[str, Any]]) -> list[object]:
    """Return all values that are not null."""
    return [value for each in series for row in each["values"] for value in row[1:] if value is not None]


def total(series: list[dict[str, Any]]) -> int:
    return sum(row[1] for each in series for row in each["values"])


@pytest.mark.parametrize("variables", [ALL, ONE], ids=["all", "one jig"])
@pytest.mark.parametrize("name", QUERIES)
def test_each_query_of_the_factory_has_data(examples: httpx.Client, name: str, variables: dict[str, str]) -> None:
    assert values(sent(examples, interpolated(QUERIES[name], variables)))


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_each_annotation_has_data(examples: httpx.Client, name: str) -> None:
    assert values(sent(examples, interpolated(ANNOTATIONS[name], ALL)))


@pytest.mark.parametrize("variables", [ALL, ONE], ids=["all", "one jig"])
def test_the_panels_show_the_numbers_in_the_logs(examples: httpx.Client, variables: dict[str, str]) -> None:
    logs = [
        log for log in LOGS
        if re.fullmatch(variables["app"], log["app_name"]) and re.fullmatch(variables["jig"], log["tags"]["jig_id"])
    ]  # fmt: skip
    failed = [log for log in logs if not log["fields"]["passed"]]
    for name, expected in {
        "Attempts A": len(logs), "Failed attempts A": len(failed), "Attempts by app A": len(logs),
        "Failed attempts by jig A": len(failed), "Yield by app A": len(logs) - len(failed),
        "Yield by jig B": len(logs),
    }.items():  # fmt: skip
        assert total(sent(examples, interpolated(QUERIES[name], variables))) == expected, name


def test_the_variables_list_the_existing_values(examples: httpx.Client) -> None:
    listed = {}
    for variable in FACTORY["templating"]["list"]:
        statement = interpolated(variable["query"]["query"], ALL)
        column = 1 if "TAG VALUES" in statement else 0
        found = {row[column] for series in sent(examples, statement) for row in series["values"]}
        if variable["regex"]:
            found = {value for value in found if re.search(variable["regex"].strip("/"), value)}
        listed[variable["name"]] = found
    assert listed["app"] == {log["app_name"] for log in LOGS}
    assert listed["jig"] == {log["tags"]["jig_id"] for log in LOGS}
    assert listed["measurement"] == {"battery.voltage", "input_pv.value", "output_12v.value", "output_usb.value"}


def test_each_metric_of_the_service_exists(examples: httpx.Client) -> None:
    exported = set(re.findall(r"^(factory_logs_\w+)", metrics.exposition().decode(), re.MULTILINE))
    families = set(
        re.findall(r"^# TYPE (factory_logs_\w+) (?:counter|gauge)", examples.get("/metrics").text, re.MULTILINE)
    )
    used = {
        name for panel in SERVICE["panels"] for target in panel["targets"]
        for name in re.findall(r"factory_logs_\w+", target["expr"])
    }  # fmt: skip
    assert used - exported - families == set()
    parts = re.compile(r"_(bucket|sum|count)$")
    shown = {parts.sub("", name) for name in used}
    assert {parts.sub("", name) for name in exported if not name.endswith("_created")} - shown == set()


@pytest.mark.parametrize("dashboard", [FACTORY, SERVICE], ids=["factory", "service"])
def test_each_panel_has_a_source_and_does_not_overlap_others(dashboard: dict[str, Any]) -> None:
    taken = set()
    for panel in dashboard["panels"]:
        assert panel["title"]
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] in ("factory-logs", "prometheus", "__expr__")
        position = panel["gridPos"]
        covered = {(x, y) for x in range(position["x"], position["x"] + position["w"])
                   for y in range(position["y"], position["y"] + position["h"])}  # fmt: skip
        assert max(x for x, _ in covered) < 24
        assert not taken & covered, panel["title"]
        taken |= covered
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
