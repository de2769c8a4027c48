"""Stats (docs/reference/http-api.md#stats), compared with the same numbers computed in Python."""

import json
import math
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from factory_logs.db.engine import Database
from factory_logs.permissions import Level
from tests.api.conftest import client_of, worker

START = datetime(2024, 1, 31, 23, 30)
VALUES = [3, 3.28, "3.3", None, True, -1, 1e300, 2**63, [1], 0.1, 2**53 + 1, 3.28]


async def stats(client: httpx.AsyncClient, status: int = 200, **params: Any) -> Any:
    if "q" in params:
        params["q"] = json.dumps(params["q"])
    response = await client.get("/v1/factory_logs/stats", params=params)
    assert response.status_code == status, response.text
    return response.json() if status >= 400 else response.json()["buckets"]


@pytest.fixture
async def logs(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Store 60 logs of 3 apps, one every 7 minutes; `fields.v` is often not a number."""
    logs = [
        {
            "app_name": f"app-{n % 3}",
            "timestamp": str(START + n * timedelta(minutes=7)),
            "tags": {"jig": f"J-{n % 2}"} if n % 5 else None,
            "fields": {"v": VALUES[n % len(VALUES)], "w": n},
        }
        for n in range(60)
    ]
    assert (await client.post("/v1/factory_logs", json=logs)).status_code == 201
    return logs


def numbers(values: list[Any]) -> dict[str, Any]:
    """False counts as 0 and true as 1."""
    found = sorted(v for v in values if isinstance(v, int | float))
    if not found:
        return {"count": 0, "min": None, "avg": None, "max": None, "p50": None, "p95": None}
    return {
        "count": len(found),
        "min": found[0],
        "avg": pytest.approx(sum(found) / len(found)),
        "max": found[-1],
        **{f"p{p}": found[max(0, math.ceil(p / 100 * len(found)) - 1)] for p in (50, 95)},
    }


@pytest.mark.slow
@pytest.mark.parametrize(("bucket", "minutes"), [("1h", 60), ("45m", 45), ("2700s", 45), ("1d", 1440), ("1w", 10080)])
async def test_stats_have_counts_and_measures_by_bucket_and_group(
    client: httpx.AsyncClient, logs: list[dict[str, Any]], bucket: str, minutes: int
) -> None:
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    origin, length = datetime(1, 1, 1), timedelta(minutes=minutes)
    for log in logs:
        moment = datetime.fromisoformat(log["timestamp"])
        start = str(origin + (moment - origin) // length * length)
        groups[start, log["app_name"]].append(log)
    expected = [
        {
            "bucket": start,
            "app_name": app,
            "count": len(found),
            "values": {f"fields__{name}": numbers([log["fields"][name] for log in found]) for name in "vw"},
        }
        for (start, app), found in sorted(groups.items())
    ]
    assert await stats(client, bucket=bucket, by="app_name", field=["fields__v", "fields__w"]) == expected


async def test_stats_may_have_only_counts_without_buckets(
    client: httpx.AsyncClient, logs: list[dict[str, Any]]
) -> None:
    assert await stats(client) == [{"count": 60}]
    assert await stats(client, by="app_name") == [{"app_name": f"app-{n}", "count": 20} for n in range(3)]
    assert [row["count"] for row in await stats(client, bucket="1d")] == [5, 55]


async def test_groups_of_any_type_keep_their_type(client: httpx.AsyncClient, logs: list[dict[str, Any]]) -> None:
    by_jig = await stats(client, by=["tags__jig", "repair__process"])
    assert by_jig == [
        {"tags__jig": "J-0", "repair__process": None, "count": 24},
        {"tags__jig": "J-1", "repair__process": None, "count": 24},
        {"tags__jig": None, "repair__process": None, "count": 12},
    ]
    values = {json.dumps(row["fields__v"]) for row in await stats(client, by="fields__v")}
    assert values == {json.dumps(value) for value in VALUES}
    assert (await stats(client, by="timestamp"))[0] == {"timestamp": "2024-01-31 23:30:00", "count": 1}


async def test_stats_take_the_same_q(client: httpx.AsyncClient, logs: list[dict[str, Any]]) -> None:
    q = {"filters": [{"name": "fields__w", "op": "<", "val": 10}, {"name": "app_name", "op": "==", "val": "app-1"}]}
    (row,) = await stats(client, q=q, field="fields__w")
    assert row == {"count": 3, "values": {"fields__w": numbers([1, 4, 7])}}
    assert await stats(client, q={"filters": [{"name": "app_name", "op": "==", "val": "none"}]}, bucket="1h") == []


async def test_the_largest_and_smallest_numbers_are_exact(client: httpx.AsyncClient) -> None:
    edges = [1.7976931348623157e308, -1.7976931348623157e308, 5e-324, 2**64 - 1, -(2**63)]
    moments = ["0001-01-01", "9999-12-31 23:59:59.999999", "0001-01-02", "2024-01-31", "9999-12-31"]
    batch = [{"app_name": "e", "timestamp": t, "fields": {"v": v}} for t, v in zip(moments, edges, strict=True)]
    assert (await client.post("/v1/factory_logs", json=batch)).status_code == 201
    (row,) = await stats(client, field="fields__v")
    measured = row["values"]["fields__v"]
    assert (measured["min"], measured["max"], measured["p50"]) == (edges[1], edges[0], 5e-324)
    for bucket in ("1s", "7h", "13d", "9999d", "999w", "999999h"):
        rows = await stats(client, bucket=bucket)
        assert sum(row["count"] for row in rows) == 5
        assert rows[0]["bucket"] == "0001-01-01 00:00:00"
    exact = {"filters": [{"name": "fields__v", "op": "==", "val": 2**64 - 1}]}
    assert (await stats(client, q=exact, field="fields__v"))[0]["values"]["fields__v"]["max"] == 2**64 - 1


async def test_a_column_with_numbers_is_measured_too(client: httpx.AsyncClient) -> None:
    for capacity in (2363.25, 0.1):
        repair = {"product_imei": "352099001761481", "measured_battery_capacity": capacity}
        repair_id = (await client.post("/v1/repairs", json=repair)).json()["repair_id"]
        log = {"app_name": "r", "timestamp": "2024-01-31", "repair_id": repair_id}
        await client.post("/v1/factory_logs", json=log)
    name = "repair__measured_battery_capacity"
    assert (await stats(client, field=name))[0]["values"][name] == numbers([2363.25, 0.1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("params", "field", "message"),
    [
        ({"bucket": "1"}, "bucket", "30s, 15m, 1h"),
        ({"bucket": "0h"}, "bucket", "duration"),
        ({"bucket": "1h "}, "bucket", "duration"),
        ({"bucket": "٣h"}, "bucket", "duration"),
        ({"bucket": "10000d"}, "bucket", "at most 9999d"),
        ({"bucket": "1000000h"}, "bucket", "duration"),
        ({"bucket": "1000w"}, "bucket", "duration"),
        ({"by": "colour"}, "by", "no field 'colour'"),
        ({"by": "repair"}, "by", "relation"),
        ({"field": "app_name"}, "field", "a string"),
        ({"field": "tags"}, "field", "JSON path"),
        ({"field": "tags__"}, "field", "empty part"),
        ({"q": {"limit": 5}}, "q", "only filters"),
        ({"q": {"group_by": [{"field": "app_name"}]}}, "q", "only filters"),
    ],
)
async def test_each_invalid_parameter_is_named(
    client: httpx.AsyncClient, params: dict[str, Any], field: str, message: str
) -> None:
    (error,) = (await stats(client, 400, **params))["errors"]
    assert error["field"] == field
    assert message in error["message"]


async def test_a_setting_limits_the_names(client: httpx.AsyncClient) -> None:
    names = [f"fields__v{n}" for n in range(10)]
    await stats(client, by=names[:4], field=names[4:])
    (error,) = (await stats(client, 400, by=names[:4], field=[*names[4:], "fields__w"]))["errors"]
    assert error["message"] == "at most 10 of by and field together"


async def test_a_setting_limits_the_rows(database: Database, migrated_url: str, tokens: dict[Level, str]) -> None:
    async with (
        worker(migrated_url, max_stats_rows=3) as app,
        client_of(app, tokens[Level.SYSTEM]) as client,
    ):
        batch = [{"app_name": f"app-{n}", "timestamp": "2024-01-31"} for n in range(4)]
        await client.post("/v1/factory_logs", json=batch[:3])
        assert len(await stats(client, by="app_name")) == 3
        await client.post("/v1/factory_logs", json=batch[3:])
        assert "More than 3 buckets and groups" in (await stats(client, 400, by="app_name"))["message"]
        assert await stats(client, bucket="1d") == [{"bucket": "2024-01-31 00:00:00", "count": 4}]


async def test_stats_need_a_token(anonymous: httpx.AsyncClient) -> None:
    await stats(anonymous, 401)
    assert (await anonymous.post("/v1/factory_logs/stats")).status_code == 405


@pytest.mark.slow
@pytest.mark.parametrize("parameter", ["by", "field"])
@pytest.mark.parametrize("name", ["fields__\0", "tags__a__\0b", "fields__a\0"])
async def test_a_name_that_cannot_be_stored_gets_a_400_that_names_the_parameter(
    client: httpx.AsyncClient, parameter: str, name: str
) -> None:
    response = await stats(client, 400, **{parameter: name})
    assert response["errors"][0]["field"] == parameter
    assert "NUL" in response["errors"][0]["message"]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["\0", "%ff", "%ed%a0%80", "\ufffe", "fields__\ud7ff"])
@pytest.mark.parametrize("parameter", ["by", "field", "bucket", "q"])
async def test_text_in_a_parameter_never_causes_a_500(client: httpx.AsyncClient, parameter: str, text: str) -> None:
    raw = text if text.startswith("%") else quote(text)
    response = await client.get(f"/v1/factory_logs/stats?{parameter}={raw}")
    assert response.status_code in (200, 400), response.text
