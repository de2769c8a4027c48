"""The requests of Grafana's InfluxDB data source in the mode InfluxQL, and how it reads the responses.

The requests follow its source code (pkg/tsdb/influxdb/influxql/influxql.go, models/query.go, healthcheck.go,
public/app/plugins/datasource/influxdb). Grafana itself does not run here.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.influxql.grafana import GrafanaError, frames, names, table

EXAMPLES = Path(__file__).parents[2] / "examples"
LOGS: list[dict[str, Any]] = [json.loads(line) for line in (EXAMPLES / "factory_logs.ndjson").read_text().splitlines()]
TIGER = [log for log in LOGS if log["app_name"] == "tiger_test_jig_production"]
APPS = sorted({log["app_name"] for log in LOGS})
JIGS = sorted({log["tags"]["jig_id"] for log in TIGER})
FROM, TO = 1706486400000, 1706745600000
"""The range of the example data, in milliseconds."""
TIME = f"time >= {FROM}ms and time <= {TO}ms"


def ask(client: httpx.Client, statement: str, method: str = "GET") -> httpx.Response:
    """Send a statement as the back end of the data source does, in one of its two modes."""
    parameters, headers = {"db": "jigs", "epoch": "ms"}, {"User-Agent": "Grafana/12.2.0", "Accept-Encoding": "gzip"}
    if method == "POST":
        return client.post("/query", params=parameters, data={"q": statement}, headers=headers)
    return client.get("/query", params=parameters | {"q": statement}, headers=headers)


def millisecond(log: dict[str, Any]) -> int:
    day, hour, minute, second, fraction = map(
        int, re.findall(r"2024-01-(\d+)T(\d+):(\d+):(\d+)\.(\d+)Z", log["timestamp"])[0]
    )
    return FROM + ((((day - 29) * 24 + hour) * 60 + minute) * 60 + second) * 1000 + fraction


# Save & test


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_health_check_counts_the_measurements(examples: httpx.Client, method: str) -> None:
    statement = "SHOW measurements"
    (frame,) = frames(ask(examples, statement, method), statement)
    assert frame.values == APPS


def test_the_token_is_accepted_in_each_form_that_the_data_source_sends(examples: httpx.Client) -> None:
    scheme, token = examples.headers["authorization"].split()
    parameters = {"db": "jigs", "epoch": "ms", "q": "SHOW measurements"}
    with httpx.Client(base_url=examples.base_url, timeout=120) as bare:
        assert bare.get("/query", params=parameters).status_code == 401
        assert bare.get("/query", params=parameters, auth=("grafana", token)).status_code == 200
        assert bare.get("/query", params=parameters | {"u": "grafana", "p": token}).status_code == 200
        header = {"Authorization": f"{scheme} {token}"}
        assert bare.get("/query", params=parameters, headers=header).status_code == 200
        with pytest.raises(GrafanaError, match="InfluxDB returned error"):
            frames(bare.get("/query", params=parameters), "")


# The query editor


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ('SHOW RETENTION POLICIES on "jigs"', ["autogen"]),
        ("SHOW MEASUREMENTS LIMIT 100", APPS),
        ("SHOW MEASUREMENTS WITH MEASUREMENT =~ /(?i)TIGER/ LIMIT 100", [app for app in APPS if "tiger" in app]),
        ("SHOW MEASUREMENTS WHERE \"jig_id\" = 'J-07' LIMIT 100", ["tiger_test_jig_production"]),
        (
            'SHOW TAG KEYS FROM "tiger_test_jig_production"',
            sorted({"product_imei"}.union(*(log["tags"] for log in TIGER))),
        ),
        (
            'SHOW TAG KEYS FROM "tiger_test_jig_production" WHERE time > now() - 5000d',
            sorted({"product_imei"}.union(*(log["tags"] for log in TIGER))),
        ),
        ('SHOW TAG VALUES FROM "tiger_test_jig_production" WITH KEY = "jig_id"', JIGS),
        (
            'SHOW TAG VALUES FROM "tiger_test_jig_production" WITH KEY = "jig_id" WHERE "hostname" = \'CN-REG03\'',
            sorted({log["tags"]["jig_id"] for log in TIGER if log["tags"]["hostname"] == "CN-REG03"}),
        ),
        (
            'SHOW TAG VALUES FROM "autogen"."tiger_test_jig_production" WITH KEY = "jig_id" WHERE "user"::tag =~ /^li/',
            sorted({log["tags"]["jig_id"] for log in TIGER if log["tags"]["user"].startswith("li")}),
        ),
        (
            'SHOW FIELD KEYS FROM "tiger_test_jig_production"',
            ["battery.voltage", "input_pv.pass", "input_pv.value", "output_12v.pass", "output_12v.value",
             "output_usb.pass", "output_usb.value", "passed"],
        ),
    ],
)  # fmt: skip
def test_the_query_editor_offers_the_existing_names(
    examples: httpx.Client, statement: str, expected: list[str]
) -> None:
    assert names(ask(examples, statement), statement) == expected


# Template variables


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SHOW MEASUREMENTS", APPS),
        ('SHOW TAG VALUES FROM /^(tiger_test_jig_production|koala_test_jig_production)$/ WITH KEY = "jig_id"',
         ["J-11", "J-12", "J-13", "J-14", *JIGS]),
        ("SHOW TAG VALUES WITH KEY = \"user\" WHERE jig_id =~ /^(J-21|J-22)$/", ["a.otieno", "j.wanjiru", "p.mutua"]),
        ("SHOW TAG VALUES FROM tiger_test_jig_production WITH KEY IN (\"jig_id\") LIMIT 2", JIGS[:2]),
        ("SHOW DATABASES", ["factory_logs"]),
    ],
)  # fmt: skip
def test_a_variable_lists_its_values(examples: httpx.Client, statement: str, expected: list[str]) -> None:
    assert names(ask(examples, statement), statement) == expected


def test_a_variable_can_list_the_values_of_a_field(examples: httpx.Client) -> None:
    """Grafana uses the values of the second column, because the first is the time."""
    statement = 'SELECT DISTINCT("firmware") FROM bpower20_registration_production'
    expected = {log["fields"]["firmware"] for log in LOGS if log["app_name"] == "bpower20_registration_production"}
    (frame,) = frames(ask(examples, statement), statement)
    assert set(frame.values) == expected


# Panels


def test_a_panel_of_the_visual_editor_has_data(examples: httpx.Client) -> None:
    statement = (
        'SELECT mean("output_12v.value") FROM "tiger_test_jig_production" WHERE ("jig_id"::tag = \'J-07\') AND '
        f"{TIME} GROUP BY time(6h) fill(null)"
    )
    (frame,) = frames(ask(examples, statement), statement)
    assert frame.name == "tiger_test_jig_production.mean"
    assert frame.times == list(range(FROM, TO + 1, 6 * 3_600_000))
    for start, mean in zip(frame.times, frame.values, strict=True):
        own = [
            log["fields"]["output_12v"]["value"] for log in TIGER
            if log["tags"]["jig_id"] == "J-07" and start <= millisecond(log) < start + 6 * 3_600_000
        ]  # fmt: skip
        assert mean == (pytest.approx(sum(own) / len(own)) if own else None)


def test_a_panel_can_have_a_line_for_each_tag(examples: httpx.Client) -> None:
    statement = (
        'SELECT count("passed") AS "failed" FROM "tiger_test_jig_production" WHERE ("passed"::field = false) AND '
        f'{TIME} GROUP BY time(1d), "jig_id"::tag fill(0) ORDER BY time ASC'
    )
    failed = Counter(log["tags"]["jig_id"] for log in TIGER if not log["fields"]["passed"])
    found = frames(ask(examples, statement, "POST"), statement)
    assert {frame.labels["jig_id"]: sum(frame.values) for frame in found} == dict(failed)
    assert found[0].name == f"tiger_test_jig_production.failed {{ jig_id: {found[0].labels['jig_id']} }}"
    assert [frame.labels["jig_id"] for frame in found] == sorted(failed)


def test_a_panel_can_use_a_variable_with_several_values_and_arithmetic(examples: httpx.Client) -> None:
    statement = (
        'SELECT max("battery.voltage") *1000 AS "mV" FROM /^(tiger_test_jig_production|tiger_test_jig_repair)$/ WHERE '
        f'("jig_id" =~ /^(J-01|J-21)$/ AND "user" !~ /nobody/) AND {TIME} GROUP BY time($__interval) fill(none)'
    ).replace("$__interval", "12h")
    found = frames(ask(examples, statement), statement)
    assert [frame.name for frame in found] == ["tiger_test_jig_production.mV", "tiger_test_jig_repair.mV"]
    for frame, (app, jig) in zip(
        found, [("tiger_test_jig_production", "J-01"), ("tiger_test_jig_repair", "J-21")], strict=True
    ):
        expected = max(
            log["fields"]["battery"]["voltage"] for log in LOGS
            if log["app_name"] == app and log["tags"]["jig_id"] == jig
        )  # fmt: skip
        assert max(frame.values) == pytest.approx(expected * 1000)


def test_a_panel_can_have_limits_an_adhoc_filter_and_a_time_zone(examples: httpx.Client) -> None:
    statement = (
        f'SELECT last("output_usb.value") FROM "koala_test_jig_production" WHERE {TIME} AND "batch_id" = \'B-3137\' '
        "GROUP BY time(1d), \"jig_id\" fill(none) ORDER BY time DESC LIMIT 2 SLIMIT 1 tz('Asia/Shanghai')"
    )
    found = frames(ask(examples, statement), statement)
    assert len(found) == 1
    assert found[0].times == sorted(found[0].times, reverse=True)
    assert len(found[0].times) <= 2
    assert all((start + 8 * 3_600_000) % 86_400_000 == 0 for start in found[0].times)


def test_a_table_shows_logs(examples: httpx.Client) -> None:
    statement = (
        'SELECT "passed", "product_imei", "jig_id", "output_12v.value" FROM "tiger_test_jig_production" WHERE '
        f'"passed" = false AND {TIME} ORDER BY time DESC LIMIT 5'
    )
    newest = sorted((log for log in TIGER if not log["fields"]["passed"]), key=millisecond, reverse=True)[:5]
    assert table(ask(examples, statement)) == [
        {"time": millisecond(log), "passed": False, "product_imei": log["product_imei"],
         "jig_id": log["tags"]["jig_id"], "output_12v.value": log["fields"]["output_12v"]["value"]}
        for log in newest
    ]  # fmt: skip


def test_a_table_of_groups_has_their_tags_as_columns(examples: httpx.Client) -> None:
    statement = f'SELECT count("passed") FROM "tiger_test_jig_production" WHERE {TIME} GROUP BY "jig_id"'
    counts = Counter(log["tags"]["jig_id"] for log in TIGER)
    assert table(ask(examples, statement)) == [
        {"time": FROM, "jig_id": jig, "count": count} for jig, count in sorted(counts.items())
    ]


def test_a_panel_without_data_is_empty_and_no_error(examples: httpx.Client) -> None:
    for statement in (
        'SELECT mean("voltage") FROM "nowhere" WHERE time >= now() - 1h GROUP BY time(10s) fill(null)',
        'SELECT mean("battery.voltage") FROM "tiger_test_jig_production" WHERE time >= now() - 1h GROUP BY time(10s)',
    ):
        assert frames(ask(examples, statement), statement) == []


def test_grafana_before_8_sends_all_statements_of_a_panel_at_once(examples: httpx.Client) -> None:
    statement = ";".join(f'SELECT count("passed") FROM "{app}" WHERE time > 1706486399s' for app in APPS)
    response = examples.get("/query", params={"db": "jigs", "q": statement, "epoch": "ms"})
    counts = Counter(log["app_name"] for log in LOGS)
    results = response.json()["results"]
    assert [result["series"][0]["values"][0][1] for result in results] == [counts[app] for app in APPS]
    assert [result["statement_id"] for result in results] == list(range(len(APPS)))


# Annotations


def test_an_annotation_has_a_time_a_text_and_tags(examples: httpx.Client) -> None:
    statement = f'SELECT "error", "jig_id" FROM "bpower20_registration_production" WHERE {TIME}'
    errors = [log for log in LOGS if log["app_name"] == "bpower20_registration_production" and "error" in log["fields"]]
    assert [(row["time"], row["error"], row["jig_id"]) for row in table(ask(examples, statement))] == [
        (millisecond(log), log["fields"]["error"], log["tags"]["jig_id"]) for log in sorted(errors, key=millisecond)
    ]


# Errors


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ('SELECT mean("voltage" FROM "tiger"', "InfluxDB returned error: error parsing query: "),
        ('SELECT mean("firmware") FROM "bpower20_registration_production"', "unsupported mean iterator type"),
        ('from(bucket: "jigs") |> range(start: -1h)', "InfluxDB returned error: "),
        ('DROP MEASUREMENT "tiger_test_jig_production"', "."),
    ],
)
def test_a_panel_shows_the_error(examples: httpx.Client, statement: str, message: str) -> None:
    with pytest.raises(GrafanaError, match=message):
        frames(ask(examples, statement), statement)


def test_nothing_was_dropped(examples: httpx.Client) -> None:
    for method in ("GET", "POST"):
        ask(examples, 'DROP MEASUREMENT "tiger_test_jig_production"', method)
        ask(examples, 'DELETE FROM "tiger_test_jig_production"', method)
    statement = 'SELECT count("passed") FROM "tiger_test_jig_production"'
    (frame,) = frames(ask(examples, statement), statement)
    assert frame.values == [len(TIGER)]
