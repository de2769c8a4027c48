"""Yield, failures, distribution, facets and units: the definitions, case by case (docs/reference/test-results.md)."""

import csv
import io
import json
from typing import Any

import httpx
import pytest

from factory_logs.db.engine import Database
from factory_logs.permissions import Level
from tests.api.conftest import client_of, worker

LOGS = "/v1/factory_logs"
UNIT, OTHER = "352099001761481", "352099001761499"
DAY, NEXT_DAY = "2024-01-30 00:00:00", "2024-01-31 00:00:00"


def log(app: str, unit: str | None, timestamp: str, fields: Any = None, **tags: Any) -> dict[str, Any]:
    return {"app_name": app, "product_imei": unit, "timestamp": timestamp, "fields": fields, "tags": tags or None}


async def store(client: httpx.AsyncClient, *logs: dict[str, Any]) -> None:
    assert (await client.post(LOGS, json=list(logs))).status_code == 201


async def ask(client: httpx.AsyncClient, call: str, status: int = 200, **params: Any) -> Any:
    params = {name: json.dumps(value) if name == "q" else value for name, value in params.items()}
    response = await client.get(f"{LOGS}/{call}", params=params)
    assert response.status_code == status, response.text
    return response.json()


def counts(row: dict[str, Any]) -> tuple[int, ...]:
    return tuple(row[name] for name in ("attempts", "passed", "units", "first_passed", "last_passed", "retested"))


async def test_a_pair_of_unit_and_app_belongs_to_its_first_attempt(client: httpx.AsyncClient) -> None:
    await store(
        client,
        log("tiger", UNIT, "2024-01-31 08:00", {"passed": True}, jig="J-2"),
        log("tiger", UNIT, "2024-01-30 08:00", {"passed": False}, jig="J-1"),
        log("koala", UNIT, "2024-01-31 09:00", {"passed": True}, jig="J-2"),
    )
    result = await ask(client, "yield", bucket="1d", by="tags__jig")
    first, second = result["buckets"]
    assert (first["bucket"], first["tags__jig"], counts(first)) == (DAY, "J-1", (1, 0, 1, 0, 1, 1))
    assert (second["bucket"], second["tags__jig"], counts(second)) == (NEXT_DAY, "J-2", (2, 2, 1, 1, 1, 0))
    assert counts(result["total"]) == (3, 2, 2, 1, 2, 1)
    assert result["total"]["attempt_yield"] == 2 / 3
    assert result["total"]["first_pass_yield"] == 0.5
    assert result["total"]["final_yield"] == 1.0
    assert result["total"]["rolled_throughput_yield"] == 0.0


async def test_the_first_attempt_is_the_first_one_that_q_selects(client: httpx.AsyncClient) -> None:
    await store(
        client,
        log("tiger", UNIT, "2024-01-30 08:00", {"passed": False}),
        log("tiger", UNIT, "2024-01-31 08:00", {"passed": True}),
    )
    q = {"filters": [{"name": "timestamp", "op": ">=", "val": "2024-01-31"}]}
    (bucket,) = (await ask(client, "yield", q=q, bucket="1d"))["buckets"]
    assert (bucket["bucket"], counts(bucket)) == (NEXT_DAY, (1, 1, 1, 1, 1, 0))


async def test_attempts_at_the_same_time_are_ordered_by_id(client: httpx.AsyncClient) -> None:
    await store(client, *(log("tiger", UNIT, "2024-01-30 08:00", {"passed": passed}) for passed in (True, False)))
    assert counts((await ask(client, "yield"))["total"]) == (2, 1, 1, 1, 0, 1)


async def test_attempts_without_a_unit_count_as_attempts_only_and_other_logs_not_at_all(
    client: httpx.AsyncClient,
) -> None:
    await store(
        client,
        log("tiger", None, "2024-01-30 08:00", {"passed": True}),
        log("tiger", None, "2024-01-30 09:00", {"passed": False}),
        log("tiger", UNIT, "2024-01-30 08:00", {"passed": "true"}),
        log("tiger", UNIT, "2024-01-30 08:00", {"passed": 1}),
        log("tiger", UNIT, "2024-01-30 08:00", {"passed": None}),
        log("tiger", UNIT, "2024-01-30 08:00"),
    )
    result = await ask(client, "yield")
    assert counts(result["total"]) == (2, 1, 0, 0, 0, 0)
    assert result["total"]["attempt_yield"] == 0.5
    assert [result["total"][name] for name in ("first_pass_yield", "final_yield", "rolled_throughput_yield")] == [
        None
    ] * 3


async def test_yields_without_attempts_are_null(client: httpx.AsyncClient) -> None:
    for params in ({}, {"bucket": "1d"}, {"by": "app_name"}):
        result = await ask(client, "yield", **params)
        assert result["buckets"] == []
        assert counts(result["total"]) == (0, 0, 0, 0, 0, 0)
        assert result["total"]["attempt_yield"] is None


async def test_the_rolled_throughput_yield_is_the_product_of_the_apps(client: httpx.AsyncClient) -> None:
    await store(
        client,
        *(log("tiger", unit, "2024-01-30 08:00", {"passed": unit == UNIT}) for unit in (UNIT, OTHER)),
        *(log("koala", unit, "2024-01-30 08:00", {"passed": unit == UNIT}) for unit in (UNIT, OTHER)),
        log("no units", None, "2024-01-30 08:00", {"passed": False}),
    )
    assert (await ask(client, "yield", bucket="1d"))["total"]["rolled_throughput_yield"] == 0.25


async def test_a_unit_may_be_any_field_and_the_result_any_boolean(client: httpx.AsyncClient) -> None:
    await store(
        client,
        log("tiger", None, "2024-01-30 08:00", {"test": {"ok": False}}, serial="A"),
        log("tiger", None, "2024-01-30 09:00", {"test": {"ok": True}}, serial="A"),
        log("tiger", None, "2024-01-30 09:00", {"test": {"ok": True}}, serial=1),
    )
    result = await ask(client, "yield", unit="tags__serial", passed="fields__test__ok")
    assert counts(result["total"]) == (3, 2, 2, 1, 2, 1)


async def test_days_and_weeks_begin_at_local_midnight_also_on_days_with_23_and_25_hours(
    client: httpx.AsyncClient,
) -> None:
    moments = [
        "2024-03-30T22:59:59Z",  # Berlin: the last second of Saturday
        "2024-03-30T23:00:00Z",  # Sunday begins, which has 23 hours
        "2024-03-31T21:59:59Z",
        "2024-03-31T22:00:00Z",  # Monday
        "2024-10-27T22:59:59Z",  # Sunday had 25 hours
        "2024-10-27T23:00:00Z",
    ]
    await store(client, *(log("tiger", None, moment, {"passed": True}) for moment in moments))
    days = ["2024-03-29 23:00:00", "2024-03-30 23:00:00", "2024-03-31 22:00:00", "2024-10-26 22:00:00"]
    expected = [*zip(days, [1, 2, 1, 1], strict=True), ("2024-10-27 23:00:00", 1)]
    for call, count in (("yield", "attempts"), ("stats", "count")):
        rows = (await ask(client, call, bucket="1d", tz="Europe/Berlin"))["buckets"]
        assert [(row["bucket"], row[count]) for row in rows] == expected
        weeks = (await ask(client, call, bucket="1w", tz="Europe/Berlin"))["buckets"]
        assert weeks[0]["bucket"] == "2024-03-24 23:00:00"
        assert [row[count] for row in weeks] == [3, 1, 1, 1]
        hours = (await ask(client, call, bucket="24h", tz="Europe/Berlin"))["buckets"]
        assert hours[0]["bucket"] == "2024-03-30 00:00:00"


async def test_a_midnight_that_occurs_twice_or_never_has_one_bucket(client: httpx.AsyncClient) -> None:
    """Havana goes from 01:00 back to 00:00 on 2024-11-03; Beirut from 00:00 to 01:00 on 2024-03-31."""
    await store(
        client,
        *(log("havana", None, moment) for moment in ("2024-11-03T04:30:00Z", "2024-11-03T05:30:00Z")),
        log("beirut", None, "2024-03-30T22:00:00Z"),
    )
    rows = (await ask(client, "stats", bucket="1d", tz="America/Havana", by="app_name"))["buckets"]
    assert [(row["bucket"], row["count"]) for row in rows if row["app_name"] == "havana"] == [
        ("2024-11-03 04:00:00", 2)
    ]
    rows = (await ask(client, "stats", bucket="1d", tz="Asia/Beirut", by="app_name"))["buckets"]
    assert [row["bucket"] for row in rows if row["app_name"] == "beirut"] == ["2024-03-30 22:00:00"]


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
async def test_the_first_and_the_last_timestamp_have_a_bucket_in_every_zone(
    client: httpx.AsyncClient, zone: str
) -> None:
    await store(client, log("first", None, "0001-01-01"), log("last", None, "9999-12-31 23:59:59.999999"))
    for bucket in ("1d", "1w", "9999d"):
        rows = (await ask(client, "stats", bucket=bucket, tz=zone))["buckets"]
        assert [row["count"] for row in rows] == [1, 1]
        assert rows[0]["bucket"] == "0001-01-01 00:00:00"


async def test_booleans_count_as_numbers_in_stats_and_not_in_a_distribution(client: httpx.AsyncClient) -> None:
    await store(client, *(log("t", None, DAY, {"v": value}) for value in (True, True, False, 1, "1", None)))
    (row,) = (await ask(client, "stats", field="fields__v"))["buckets"]
    assert row["values"]["fields__v"] == {"count": 4, "min": 0, "avg": 0.75, "max": 1, "p50": 1, "p95": 1}
    (group,) = (await ask(client, "distribution", field="fields__v"))["groups"]
    assert group["count"] == 1


async def test_failures_count_the_failed_measurements(client: httpx.AsyncClient) -> None:
    await store(
        client,
        log(
            "t",
            UNIT,
            DAY,
            {"passed": False, "volt": {"value": 3, "pass": False, "in_range": False}, "usb": {"passed": False}},
        ),
        log("t", UNIT, DAY, {"passed": False, "volt": {"pass": False, "passed": False}}),
        log("t", None, DAY, {"passed": False, "volt": {"pass": False}, "rows": [True, {"pass": False}, False]}),
        log("u", UNIT, DAY, {"passed": False, "error": "no answer", "pass": True}),
        log("u", UNIT, DAY, {"passed": False, "pass": False}),
        log("u", UNIT, DAY, {"passed": True, "volt": {"pass": False}}),
        log("u", UNIT, DAY, {"volt": {"pass": False}}),
    )
    result = await ask(client, "failures")
    assert result["failed_attempts"] == 5
    rows = [(row["measurement"], row["attempts"], row["units"], row["share"]) for row in result["failures"]]
    assert rows == [
        ("fields__volt", 3, 1, 0.6),
        ("fields__pass", 1, 1, 0.2),
        ("fields__rows__1", 1, 0, 0.2),
        ("fields__rows__2", 1, 0, 0.2),
        ("fields__usb", 1, 1, 0.2),
        ("fields__volt__in_range", 1, 1, 0.2),
        (None, 1, 1, 0.2),
    ]
    assert [row["cumulative_share"] for row in result["failures"]] == [n / 9 for n in (3, 4, 5, 6, 7, 8, 9)]
    limited = await ask(client, "failures", limit=1)
    assert limited == {"failed_attempts": 5, "failures": result["failures"][:1]}


async def test_the_boolean_at_passed_is_never_a_failed_measurement(client: httpx.AsyncClient) -> None:
    await store(client, log("t", UNIT, DAY, {"test": {"passed": False, "volt": {"pass": False}}, "passed": False}))
    result = await ask(client, "failures", passed="fields__test__passed")
    assert [row["measurement"] for row in result["failures"]] == ["fields__passed", "fields__test__volt"]


async def test_units_that_failed_are_counted_once_for_each_app(client: httpx.AsyncClient) -> None:
    await store(client, *(log(app, unit, DAY, {"passed": False}) for app in "tu" for unit in (UNIT, UNIT, OTHER)))
    (row,) = (await ask(client, "failures"))["failures"]
    assert (row["attempts"], row["units"]) == (6, 4)


async def test_without_failures_the_result_is_empty(client: httpx.AsyncClient) -> None:
    await store(client, log("t", UNIT, DAY, {"passed": True}))
    assert await ask(client, "failures") == {"failed_attempts": 0, "failures": []}


async def test_capability_uses_moving_ranges_in_the_order_of_time(client: httpx.AsyncClient) -> None:
    """In time 1, 3, 2, 6: moving ranges 2, 1, 4."""
    moments = {"2024-01-30 04:00": 6, "2024-01-30 01:00": 1, "2024-01-30 02:00": 3, "2024-01-30 03:00": 2}
    await store(client, *(log("t", None, moment, {"v": value}) for moment, value in moments.items()))
    (group,) = (await ask(client, "distribution", field="fields__v", lower="0", upper="9"))["groups"]
    short_term, deviation = (7 / 3) / 1.128, 2.160246899469287
    assert (group["mean"], group["stddev"]) == (3, pytest.approx(deviation))
    assert group["cp"] == pytest.approx(9 / (6 * short_term))
    assert group["cpk"] == pytest.approx(3 / (3 * short_term))
    assert group["pp"] == pytest.approx(9 / (6 * deviation))
    assert group["ppk"] == pytest.approx(3 / (3 * deviation))
    assert (group["below"], group["above"]) == (0, 0)


async def test_capability_indices_need_limits_and_different_values(client: httpx.AsyncClient) -> None:
    names = ("below", "above", "cp", "cpk", "pp", "ppk")
    await store(client, log("t", None, DAY, {"v": 1}))
    (single,) = (await ask(client, "distribution", field="fields__v", lower="0", upper="2"))["groups"]
    assert [single[name] for name in ("stddev", *names)] == [None, 0, 0, None, None, None, None]
    await store(client, log("t", None, DAY, {"v": 1}))
    (same,) = (await ask(client, "distribution", field="fields__v", lower="0", upper="2"))["groups"]
    assert [same[name] for name in ("stddev", *names)] == [0, 0, 0, None, None, None, None]
    await store(client, log("t", None, DAY, {"v": 3}))
    (none,) = (await ask(client, "distribution", field="fields__v"))["groups"]
    assert [none[name] for name in names] == [None] * 6
    (lower,) = (await ask(client, "distribution", field="fields__v", lower="2"))["groups"]
    assert [lower[name] is None for name in names] == [False, True, True, False, True, False]
    assert lower["below"] == 2
    (upper,) = (await ask(client, "distribution", field="fields__v", upper="0"))["groups"]
    assert [upper[name] is None for name in names] == [True, False, True, False, True, False]
    assert upper["above"] == 3


async def test_the_edges_of_bins_rise_if_no_double_lies_between_them(client: httpx.AsyncClient) -> None:
    values = [1_706_500_000_000_000_100 + step for step in (0, 40, 90)]  # nanoseconds; doubles are 256 apart
    await store(client, *(log("t", None, DAY, {"ns": value}) for value in values))
    (group,) = (await ask(client, "distribution", field="fields__ns", bins=4))["groups"]
    edges = [each["from"] for each in group["histogram"]] + [group["histogram"][-1]["to"]]
    assert edges == sorted(edges)
    assert (edges[0], edges[-1], sum(each["count"] for each in group["histogram"])) == (values[0], values[-1], 3)


async def test_bins_are_of_equal_width_over_all_groups_and_the_last_one_is_closed(client: httpx.AsyncClient) -> None:
    values = {"a": [0, 1, 2], "b": [2.5, 4, "x"]}
    await store(client, *(log(app, None, DAY, {"v": v}) for app, of_app in values.items() for v in of_app))
    groups = (await ask(client, "distribution", field="fields__v", by="app_name", bins=2))["groups"]
    assert [group["app_name"] for group in groups] == ["a", "b"]
    edges = [{"from": 0, "to": 2.0}, {"from": 2.0, "to": 4}]
    assert [[each["count"] for each in group["histogram"]] for group in groups] == [[2, 1], [0, 2]]
    assert all([{k: each[k] for k in ("from", "to")} for each in group["histogram"]] == edges for group in groups)


async def test_percentiles_use_the_nearest_rank(client: httpx.AsyncClient) -> None:
    await store(client, *(log("t", None, DAY, {"v": value}) for value in (15, 20, 35, 40, 50)))
    (group,) = (await ask(client, "distribution", field="fields__v"))["groups"]
    assert [group[f"p{p}"] for p in (1, 5, 25, 50, 75, 95, 99)] == [15, 15, 20, 35, 40, 50, 50]


async def test_the_largest_and_smallest_numbers_are_exact(client: httpx.AsyncClient) -> None:
    most = 1.7976931348623157e308
    await store(client, *(log("t", None, DAY, {"v": value}) for value in (most, -most, 2**64 - 1, 5e-324)))
    result = await ask(client, "distribution", field="fields__v", lower=str(-most), upper=str(most), bins=200)
    (group,) = result["groups"]
    assert (group["min"], group["max"], group["p50"]) == (-most, most, 5e-324)
    assert sum(each["count"] for each in group["histogram"]) == 4
    assert len(group["histogram"]) == 200


async def test_without_numbers_the_distribution_is_empty(client: httpx.AsyncClient) -> None:
    await store(client, log("t", None, DAY, {"v": "x"}))
    assert await ask(client, "distribution", field="fields__v") == {"groups": []}
    assert await ask(client, "distribution", field="fields__v", by="app_name", lower="1") == {"groups": []}


async def test_facets_are_the_most_frequent_first_then_by_value(client: httpx.AsyncClient) -> None:
    jigs = ["J-2", {"a": 1}, "J-6", True, "J-1", 10, "J-3", "J-3", None, "J-5", "J-4", 9]
    await store(client, *(log("t", None, DAY, None, jig=jig) for jig in jigs))
    result = await ask(client, "facets", field=["tags__jig", "app_name", "fields__none"], limit=8)
    jig = result["facets"]["tags__jig"]
    assert jig["values"][0] == {"value": "J-3", "count": 2}
    assert [value["value"] for value in jig["values"]] == ["J-3", "J-1", "J-2", "J-4", "J-5", "J-6", 9, 10]
    assert (jig["other"], jig["missing"]) == (2, 1)
    assert result["facets"]["app_name"] == {"values": [{"value": "t", "count": 12}], "other": 0, "missing": 0}
    assert result["facets"]["fields__none"] == {"values": [], "other": 0, "missing": 12}


async def test_without_logs_the_facets_are_empty(client: httpx.AsyncClient) -> None:
    nothing = {"app_name": {"values": [], "other": 0, "missing": 0}}
    assert await ask(client, "facets", field="app_name") == {"facets": nothing}


async def test_a_unit_has_its_history(client: httpx.AsyncClient) -> None:
    for arrival in ("2024-02-02", "2024-02-01"):
        repair = {"product_imei": UNIT, "arrival_date": arrival}
        assert (await client.post("/v1/repairs", json=repair)).status_code == 201
    await store(
        client,
        log("tiger", UNIT, "2024-01-31 09:00", {"passed": True}),
        log("tiger", UNIT, "2024-01-31 08:00", {"passed": False}),
        log("tiger", UNIT, "2024-01-31 10:00", {"note": "packed"}),
        log("cit", UNIT, "2024-02-01 08:00"),
        log("cit", OTHER, "2024-02-01 08:00"),
    )
    unit = (await client.get(f"/v1/units/{UNIT}")).json()
    tiger, cit = unit.pop("apps")
    repairs = unit.pop("repairs")
    assert unit == {
        "product_imei": UNIT, "logs": 4, "first": "2024-01-31 08:00:00", "last": "2024-02-01 08:00:00",
    }  # fmt: skip
    assert tiger == {
        "app_name": "tiger", "logs": 3, "attempts": 2, "passed": 1,
        "first": "2024-01-31 08:00:00", "last": "2024-01-31 10:00:00", "last_passed": True,
    }  # fmt: skip
    assert (cit["app_name"], cit["logs"], cit["attempts"], cit["last_passed"]) == ("cit", 1, 0, None)
    assert [repair["arrival_date"] for repair in repairs] == ["2024-02-01 00:00:00", "2024-02-02 00:00:00"]
    assert repairs[0] == (await client.get(f"/v1/repairs/{repairs[0]['repair_id']}")).json()


async def test_a_unit_with_only_repairs_is_found_and_an_unknown_one_gets_a_404(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/repairs", json={"product_imei": UNIT})).status_code == 201
    unit = (await client.get(f"/v1/units/{UNIT}")).json()
    assert (unit["logs"], unit["first"], unit["apps"], len(unit["repairs"])) == (0, None, [], 1)
    for unknown in (OTHER, "1", "x" * 200, "35209900176148١"):
        response = await client.get(f"/v1/units/{unknown}")
        assert response.status_code == 404, response.text
    assert (await client.get(f"/v1/units/{UNIT}", params={"q": "{}"})).status_code == 400


async def test_the_catalog_lists_leaves_with_their_types(client: httpx.AsyncClient) -> None:
    assert await ask(client, "catalog") == {"apps": []}
    await store(
        client,
        log("tiger", UNIT, "2024-01-31 08:00", {"volt": {"value": 3, "pass": True}, "rows": [{"a": 1}], "none": {}}),
        log("tiger", None, "2024-01-30 08:00", {"volt": "none", "note": None}, jig="J-1"),
        log("tiger", None, "2024-01-30 09:00", {"volt": None}),
        log("cit", None, "2024-02-01", 5),
        log("cit", None, "2024-02-01 00:00:01", [1]),
    )
    assert await ask(client, "catalog") == {
        "apps": [
            {
                "app_name": "cit", "logs": 2, "first": "2024-02-01 00:00:00", "last": "2024-02-01 00:00:01",
                "tags": [], "fields": [{"path": "fields", "types": ["array", "number"]}],
            },
            {
                "app_name": "tiger", "logs": 3, "first": "2024-01-30 08:00:00", "last": "2024-01-31 08:00:00",
                "tags": [{"path": "tags__jig", "types": ["string"]}],
                "fields": [
                    {"path": "fields__note", "types": ["null"]},
                    {"path": "fields__rows", "types": ["array"]},
                    {"path": "fields__volt", "types": ["null", "string"]},
                    {"path": "fields__volt__pass", "types": ["boolean"]},
                    {"path": "fields__volt__value", "types": ["number"]},
                ],
            },
        ]
    }  # fmt: skip
    (error,) = (await ask(client, "catalog", 400, q={}))["errors"]
    assert error == {"field": "q", "message": "unknown parameter; this call takes escape_formulas"}


async def test_a_setting_limits_the_catalog(database: Database, migrated_url: str, tokens: dict[Level, str]) -> None:
    async with worker(migrated_url, max_catalog_paths=2) as app, client_of(app, tokens[Level.SYSTEM]) as client:
        await store(client, log("t", None, DAY, {"a": 1, "b": 1}))
        assert len((await ask(client, "catalog"))["apps"][0]["fields"]) == 2
        await store(client, log("t", None, DAY, {"a": "x"}))
        assert "More than 2 paths" in (await ask(client, "catalog", 400))["message"]


async def test_results_are_csv_if_accept_asks_for_it(client: httpx.AsyncClient) -> None:
    await store(
        client,
        log("t", UNIT, "2024-01-30 08:00", {"passed": False, "v": {"pass": False}, "n": 1}, jig='J-1, "left"'),
        log("t", UNIT, "2024-01-31 08:00", {"passed": False, "n": 3}, jig=7),
    )

    async def table(path: str, **params: Any) -> list[dict[str, str]]:
        response = await client.get(path, params=params, headers={"Accept": "text/csv"})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "text/csv; charset=utf-8"
        return list(csv.DictReader(io.StringIO(response.text)))

    rows = await table(f"{LOGS}/yield", bucket="1d", by="tags__jig")
    assert [row["tags__jig"] for row in rows] == ['J-1, "left"', "7"]
    assert [(row["bucket"], row["units"], row["first_pass_yield"]) for row in rows] == [
        (DAY, "1", "0.0"),
        (NEXT_DAY, "0", ""),
    ]
    rows = await table(f"{LOGS}/failures")
    assert [(row["measurement"], row["share"]) for row in rows] == [("fields__v", "0.5"), ("", "0.5")]
    (row,) = await table(f"{LOGS}/distribution", field="fields__n", bins=1)
    assert (row["mean"], row["cp"], json.loads(row["histogram"])) == ("2.0", "", [{"from": 1, "to": 3, "count": 2}])
    rows = await table(f"{LOGS}/facets", field=["app_name", "tags__jig"])
    assert [tuple(row.values()) for row in rows] == [
        ("app_name", "t", "2"),
        ("tags__jig", 'J-1, "left"', "1"),
        ("tags__jig", "7", "1"),
    ]
    (row,) = await table(f"{LOGS}/stats", field="fields__n")
    assert row == {
        f"fields__n.{k}": v
        for k, v in zip(("count", "min", "avg", "max", "p50", "p95"), ("2", "1", "2.0", "3", "1", "3"), strict=True)
    } | {"count": "2"}
    rows = await table(f"{LOGS}/catalog")
    assert [(row["app_name"], row["logs"], row["path"], row["types"]) for row in rows] == [
        ("t", "2", "tags__jig", "number string"),
        ("t", "2", "fields__n", "number"),
        ("t", "2", "fields__passed", "boolean"),
        ("t", "2", "fields__v__pass", "boolean"),
    ]
    (row,) = await table(f"/v1/units/{UNIT}")
    assert row["last_passed"] == "false"
    response = await client.get(f"{LOGS}/facets?field=app_name", headers={"Accept": "text/csv;q=0.5, application/json"})
    assert response.headers["content-type"] == "application/json"


CALLS = ("stats", "yield", "failures", "distribution", "facets")


VOLT = {"field": "fields__v"}
FIELDS = {"stats": VOLT, "distribution": VOLT, "facets": VOLT}
BAD_ZONES = ("Mars/Olympus", "../x", "", "UTC+1", "a" * 300)
BAD_LIMITS = ("0", "10001", "x", "-1", "1.5", "٣")
BAD_NUMBERS = ("x", "NaN", "1e999", "", "0x1", "inf")
MANY = [f"fields__v{n}" for n in range(11)]
WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    *((call, {"colour": "red"} | FIELDS.get(call, {}), "colour", "this call takes q, ") for call in CALLS),
    *((call, {"q": {"limit": 1}} | FIELDS.get(call, {}), "q", "only filters") for call in CALLS),
    ("yield", {"q": {"order_by": [{"field": "app_name"}]}}, "q", "only filters"),
    ("failures", {"q": {"single": True}}, "q", "only filters"),
    ("yield", VOLT, "field", "unknown parameter"),
    ("distribution", VOLT | {"bucket": "1d"}, "bucket", "unknown parameter"),
    ("yield", {"bucket": "1 day"}, "bucket", "30s, 15m, 1h"),
    ("yield", {"bucket": ["1d", "1h"]}, "bucket", "more than once"),
    ("yield", {"by": "colour"}, "by", "no field 'colour'"),
    ("yield", {"unit": "colour"}, "unit", "no field 'colour'"),
    ("yield", {"passed": "app_name"}, "passed", "JSON path such as fields__passed"),
    ("failures", {"passed": "tags"}, "passed", "JSON path"),
    *(("yield", {"bucket": "1d", "tz": zone}, "tz", "Asia/Shanghai") for zone in BAD_ZONES),
    ("stats", {"tz": "Mars/Olympus"}, "tz", "Asia/Shanghai"),
    *(("failures", {"limit": limit}, "limit", "from 1 to 10000") for limit in BAD_LIMITS),
    *(("distribution", VOLT | {"bins": bins}, "bins", "from 1 to 200") for bins in ("0", "201", "")),
    *(("distribution", VOLT | {"lower": number}, "lower", "a number") for number in BAD_NUMBERS),
    ("distribution", VOLT | {"lower": "2", "upper": "1"}, "upper", "below lower"),
    ("distribution", {}, "field", "exactly one"),
    ("distribution", {"field": MANY[:2]}, "field", "exactly one"),
    ("distribution", {"field": "app_name"}, "field", "a string"),
    ("facets", {}, "field", "at least one"),
    ("facets", {"field": "app_name", "limit": "1001"}, "limit", "from 1 to 1000"),
    ("facets", {"field": MANY}, "field", "at most 10 of field"),
    ("yield", {"by": MANY}, "by", "at most 10 of by"),
]


@pytest.mark.parametrize(("call", "params", "field", "message"), WRONG)
async def test_each_invalid_parameter_is_named(
    client: httpx.AsyncClient, call: str, params: dict[str, Any], field: str, message: str
) -> None:
    (error,) = (await ask(client, call, 400, **params))["errors"]
    assert error["field"] == field
    assert message in error["message"]


@pytest.mark.parametrize("call", ["stats", "yield"])
async def test_a_time_zone_that_only_this_machine_knows_is_refused(client: httpx.AsyncClient, call: str) -> None:
    """Debian's time zones contain a file of this name; PostgreSQL's do not."""
    await store(client, log("t", UNIT, DAY, {"passed": True}))
    (error,) = (await ask(client, call, 400, bucket="1d", tz="localtime"))["errors"]
    assert error["field"] == "tz"
    assert "Asia/Shanghai" in error["message"]


async def test_every_error_is_named_at_once(client: httpx.AsyncClient) -> None:
    errors = (await ask(client, "yield", 400, bucket="x", by="colour", tz="Mars", unknown="1"))["errors"]
    assert sorted(error["field"] for error in errors) == ["bucket", "by", "tz", "unknown"]


async def test_a_setting_limits_the_groups(database: Database, migrated_url: str, tokens: dict[Level, str]) -> None:
    async with worker(migrated_url, max_stats_rows=3) as app, client_of(app, tokens[Level.SYSTEM]) as client:
        await store(client, *(log(f"app-{n}", None, DAY, {"passed": True, "v": n}) for n in range(4)))
        three = {"filters": [{"name": "fields__v", "op": "<", "val": 3}]}
        for call, params in (
            ("yield", {}),
            ("distribution", {"field": "fields__v"}),
            ("stats", {"field": "fields__v"}),
        ):
            await ask(client, call, q=three, by="app_name", **params)
            refused = await ask(client, call, 400, by="app_name", **params)
            assert "More than 3 buckets and groups" in refused["message"]
        assert len((await ask(client, "yield"))["buckets"]) == 1


async def test_a_setting_limits_the_concurrent_aggregates(
    database: Database, migrated_url: str, tokens: dict[Level, str]
) -> None:
    async with (
        worker(migrated_url, max_aggregates=1, pool_timeout_seconds=0.05) as app,
        client_of(app, tokens[Level.OVERVIEW]) as client,
        app.state.services.aggregates.snapshot(),
    ):
        refused = await client.get(f"{LOGS}/yield")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert "Too many aggregates" in refused.json()["message"]
        assert (await client.get(LOGS)).status_code == 200


@pytest.mark.parametrize("path", [*(f"{LOGS}/{call}" for call in (*CALLS, "catalog")), f"/v1/units/{UNIT}"])
async def test_the_calls_need_a_token_and_only_support_get(anonymous: httpx.AsyncClient, path: str) -> None:
    assert (await anonymous.get(path)).status_code == 401
    refused = await anonymous.post(path)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(("value", "cell"), [("true", "'=1+1"), ("false", "=1+1")])
async def test_texts_that_a_spreadsheet_would_run_are_escaped_on_demand(
    client: httpx.AsyncClient, value: str, cell: str
) -> None:
    await client.post(LOGS, json={"app_name": "=1+1", "timestamp": "2024-01-31", "fields": {"passed": True, "n": -1}})
    for call in ("yield?by=app_name&by=fields__n&", "stats?by=app_name&by=fields__n&"):
        response = await client.get(f"{LOGS}/{call}escape_formulas={value}", headers={"Accept": "text/csv"})
        (row,) = csv.DictReader(io.StringIO(response.text))
        assert (row["app_name"], row["fields__n"]) == (cell, "-1")


@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
async def test_head_has_the_headers_of_get_without_its_body(client: httpx.AsyncClient, accept: str) -> None:
    await store(client, log("t", UNIT, "2024-01-30", {"passed": True, "n": 1}))
    paths = ("stats?bucket=1d", "yield", "failures", "distribution?field=fields__n", "facets?field=app_name", "catalog")
    for path in (*(f"{LOGS}/{path}" for path in paths), f"/v1/units/{UNIT}"):
        got = await client.get(path, headers={"Accept": accept})
        head = await client.head(path, headers={"Accept": accept})
        assert (head.status_code, head.content) == (got.status_code, b""), path
        for name in ("content-type", "content-length", "vary"):
            assert head.headers.get(name) == got.headers.get(name), (path, name)
    assert (await client.head(f"{LOGS}/yield?bucket=1")).status_code == 400


async def test_escape_formulas_is_true_or_false(client: httpx.AsyncClient) -> None:
    for call in ("yield", "stats", "catalog"):
        response = await client.get(f"{LOGS}/{call}?escape_formulas=yes")
        (error,) = response.json()["errors"]
        assert (response.status_code, error["field"]) == (400, "escape_formulas")
