"""The advice in the error of a query that took too long."""

import json
from typing import Any

import pytest

from factory_logs.query import FACTORY_LOGS, REPAIRS, QueryLimits, Resource, index_advice_for, parse_query

COLUMNS = "app_name, product_imei, repair_id or timestamp"
SINCE = {"name": "timestamp", "op": ">=", "val": "2020-01-01"}
VOLTAGE = {"name": "fields__voltage", "op": ">", "val": 3}
JIG = {"name": "tags__jig_id", "op": "==", "val": "J-07"}


def advice(q: dict[str, Any], resource: Resource = FACTORY_LOGS) -> str:
    return index_advice_for(parse_query(json.dumps(q), resource, QueryLimits()), resource)


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ([], f"q selects all records; add a filter by {COLUMNS}"),
        ([VOLTAGE], f"no index serves the filter by fields__voltage; add a filter by {COLUMNS}"),
        (
            [SINCE],
            "take a smaller part of timestamp, or add a filter by app_name, product_imei or repair_id",
        ),
        (
            [VOLTAGE, SINCE],
            "no index serves the filter by fields__voltage; take a smaller part of timestamp, or add a filter by "
            "app_name, product_imei or repair_id",
        ),
        ([JIG], f"take a smaller part of tags__jig_id, or add a filter by {COLUMNS}"),
        (
            [JIG | {"op": "in", "val": ["J-07"]}],
            f"no index serves the filter by tags__jig_id; add a filter by {COLUMNS}",
        ),
        (
            [{"name": "app_name", "op": "like", "val": "%audit%"}],
            f"no index serves the filter by app_name; add a filter by {COLUMNS}",
        ),
        (
            [{"name": "product_imei", "op": "is_null"}, {"name": "app_name", "op": "!=", "field": "created_by"}],
            "no index serves the filter by product_imei, app_name and created_by; " + f"add a filter by {COLUMNS}",
        ),
        (
            [{"name": "repair", "op": "has", "val": {"name": "process", "op": "==", "val": "Replaced"}}],
            f"no index serves the filter by repair__process; add a filter by {COLUMNS}",
        ),
        (
            [{"or": [SINCE, VOLTAGE]}, {"not": SINCE}],
            f"no index serves the filter by timestamp and fields__voltage; add a filter by {COLUMNS}",
        ),
        (
            [{"or": [SINCE, {"and": [VOLTAGE, {"name": "app_name", "op": "in", "val": ["audit"]}]}]}],
            "take a smaller part of timestamp, fields__voltage or app_name, or add a filter by "
            "product_imei or repair_id",
        ),
    ],
)
def test_the_advice_names_filters_without_an_index_and_suggests_narrower_ones(filters: list[Any], said: str) -> None:
    assert advice({"filters": filters}) == said


def test_the_advice_names_an_order_without_an_index() -> None:
    assert advice({"order_by": [{"field": "fields__voltage"}]}).startswith(
        "order_by fields__voltage sorts all that q selects; add a filter by"
    )
    assert "order_by" not in advice({"order_by": [{"field": "timestamp"}]})


def test_the_advice_for_groups_is_that_they_read_all_records() -> None:
    assert advice({"group_by": [{"field": "app_name"}]}).startswith("group_by reads all that q selects; ")


def test_the_advice_names_only_the_first_fields() -> None:
    filters = [{"name": f"fields__{name}", "op": ">", "val": 1} for name in "abcdefg"]
    assert "by fields__a, fields__b, fields__c, fields__d, fields__e and others; " in advice({"filters": filters})


def test_the_advice_for_repairs_is_to_filter_by_unit() -> None:
    q = {"filters": [{"name": "process", "op": "==", "val": "Replaced"}]}
    assert advice(q, REPAIRS) == "no index serves the filter by process; add a filter by product_imei"
