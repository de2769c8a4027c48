"""The rows that each `q` finds in PostgreSQL (docs/reference/http-api.md#the-query-language-q)."""

import json
from typing import Any

import pytest
from sqlalchemy.dialects import postgresql

from factory_logs.query import FACTORY_LOGS, REPAIRS, QueryLimits, compile_rows, parse_query

from .conftest import Ids


def leaf(name: str, op: str, val: Any = None) -> dict[str, Any]:
    return {"name": name, "op": op} | ({} if val is None else {"val": val})


ALL = [1, 2, 3, 4, 5, 6]
FILTERS: list[tuple[dict[str, Any], list[int]]] = [
    (leaf("app_name", "==", "cit"), [1, 6]),
    (leaf("app_name", "!=", "cit"), [2, 3, 4, 5]),
    (leaf("product_imei", "!=", "1" * 15), [5]),
    (leaf("factory_log_id", ">", 4), [5, 6]),
    (leaf("factory_log_id", "<=", 2), [1, 2]),
    (leaf("timestamp", ">=", "2024-01-01T04:00:00+01:00"), [4, 5, 6]),
    (leaf("timestamp", "<", 1704070800000), [1]),
    (leaf("timestamp", "in", ["2024-01-01", "2024-01-01 01:00:00"]), [1, 2]),
    (leaf("app_name", "like", "a_b"), [3, 4, 5]),
    (leaf("app_name", "like", "a\\_b"), [3]),
    (leaf("app_name", "like", "C%"), [2]),
    (leaf("app_name", "ilike", "C%"), [1, 2, 6]),
    (leaf("product_imei", "is_null"), [2, 3, 4, 6]),
    (leaf("product_imei", "is_not_null", "ignored"), [1, 5]),
    (leaf("app_name", "in", ["cit", "axb"]), [1, 5, 6]),
    (leaf("product_imei", "not_in", ["1" * 15]), [5]),
    (leaf("app_name", "in", []), []),
    (leaf("product_imei", "not_in", []), ALL),
    # integers outside the range of the column do not match
    (leaf("factory_log_id", "==", 2**63), []),
    (leaf("factory_log_id", "<", 10**300), ALL),
    (leaf("repair_id", "==", 2**31), []),
    (leaf("repair_id", "<", 2**64), [1, 2, 4]),
    (leaf("repair_id", "in", [1, 2**31, 2**64]), [1, 4]),
    (leaf("repair_id", "not_in", [2**64]), [1, 2, 4]),
    # and, or, not
    ({"or": [leaf("factory_log_id", "==", 1), leaf("factory_log_id", "==", 3)]}, [1, 3]),
    ({"or": []}, []),
    ({"and": []}, ALL),
    ({"not": leaf("product_imei", "==", "1" * 15)}, [2, 3, 4, 5, 6]),
    ({"not": {"not": leaf("product_imei", "==", "1" * 15)}}, [1]),
    ({"not": leaf("tags__n", "!=", 1)}, [1, 2, 3, 5]),
    # the related repair
    (leaf("repair", "has", leaf("process", "==", "Replaced")), [1, 4]),
    (leaf("repair", "any", {"not": leaf("process", "==", "Replaced")}), [2]),
    (leaf("repair__process", "has", "Replaced"), [1, 4]),
    (leaf("repair__process", "has", leaf("product_imei", "==", "2" * 15)), [2]),
    (leaf("repair__process", "like", "Rep%"), [1, 4]),
    (leaf("repair__process", "is_null"), [2]),
    (leaf("repair__process", "in", ["Replaced"]), [1, 4]),
    (leaf("repair__measured_battery_capacity", ">", 2), [1, 4]),
    (leaf("repair", "is_null"), [3, 5, 6]),
    (leaf("repair", "is_not_null"), [1, 2, 4]),
    # two fields
    ({"name": "factory_log_id", "op": "==", "field": "repair_id"}, [1, 2]),
    ({"name": "factory_log_id", "op": ">", "fieldname": "repair__repair_id"}, [4]),
    ({"name": "repair__product_imei", "op": "==", "field": "product_imei"}, [1]),
    ({"name": "timestamp", "op": "<", "field": "repair__arrival_date"}, [2]),
    ({"name": "fields", "op": "==", "field": "tags__jig"}, [6]),
    ({"name": "tags__n", "op": "==", "field": "factory_log_id"}, [1]),
    ({"name": "tags__n", "op": "<", "field": "fields__b__v"}, [2]),
    ({"name": "tags__jig", "op": "==", "field": "tags__jig"}, [1, 2, 6]),
    # JSON as a whole
    (leaf("fields", "==", [1, 2]), [5]),
    (leaf("fields", "==", "J-1"), [6]),
    (leaf("fields", "!=", [1, 2]), [2, 3, 4, 6]),
    (leaf("tags", "is_null"), [5]),
    (leaf("tags", "is_not_null"), [1, 2, 3, 4, 6]),
    # JSON paths: a missing value or one of another type never matches
    (leaf("tags__n", "==", 1), [1, 2]),
    (leaf("tags__n", "==", "1"), [3]),
    (leaf("tags__n", "!=", 1), [4, 6]),
    (leaf("tags__n", "not_in", [1]), [4, 6]),
    (leaf("tags__n", "in", [1, "1"]), [1, 2, 3]),
    (leaf("tags__n", "not_in", [1, "2"]), [3, 4, 6]),
    (leaf("tags__n", "==", 2**53 + 1), [4]),
    (leaf("tags__n", ">", 2**53), [4]),
    (leaf("tags__n", "<", 10**400), [1, 2, 4, 6]),
    (leaf("tags__ok", "==", True), [2]),
    (leaf("tags__ok", "!=", True), [3]),
    (leaf("tags__jig", ">", "J-1"), [2]),
    (leaf("tags__jig", "like", "J-_"), [1, 2, 6]),
    (leaf("tags__jig", "ilike", "j-1"), [1, 6]),
    (leaf("tags__n", "like", "1%"), [3]),
    (leaf("tags__jig", "is_null"), [3, 4, 5]),
    (leaf("tags__jig", "is_not_null"), [1, 2, 6]),
    (leaf("fields__b__v", ">", 3.27), [2, 3]),
    (leaf("fields__b__v", "==", 3.28), [2]),
    (leaf("tags__at__0", "==", 5), [1]),
    (leaf("tags__at__1__x", "==", 6), [1]),
    (leaf("tags__0", "==", "key"), [6]),
    (leaf("tags__at", "==", [5, {"x": 6}]), [1]),
    (leaf("tags__99999999999999999999", "==", 5), []),
]


@pytest.mark.slow
@pytest.mark.parametrize(("condition", "expected"), FILTERS, ids=[str(condition) for condition, _ in FILTERS])
async def test_a_filter_finds(ids: Ids, condition: dict[str, Any], expected: list[int]) -> None:
    assert await ids({"filters": [condition]}) == expected


@pytest.mark.slow
@pytest.mark.parametrize("condition", [condition for condition, _ in FILTERS], ids=str)
async def test_not_finds_exactly_the_other_rows(ids: Ids, condition: dict[str, Any]) -> None:
    found = await ids({"filters": [condition]})
    assert sorted(found + await ids({"filters": [{"not": condition}]})) == ALL


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        ([], ALL),
        ([{"field": "factory_log_id", "direction": "desc"}], ALL[::-1]),
        ([{"field": "timestamp", "direction": "desc"}], [5, 6, 4, 3, 2, 1]),
        ([{"field": "repair__process"}], [1, 4, 2, 3, 5, 6]),
        ([{"field": "repair__repair_id", "direction": "desc"}, {"field": "timestamp"}], [3, 5, 6, 2, 1, 4]),
        ([{"field": "tags__jig"}], [1, 6, 2, 3, 4, 5]),
        ([{"field": "tags__jig", "direction": "desc"}], [2, 1, 6, 3, 4, 5]),
        ([{"field": "tags__ok"}, {"field": "tags__ok"}], [3, 2, 1, 4, 5, 6]),
    ],
)
async def test_rows_come_in_order_and_the_id_breaks_ties(
    ids: Ids, order_by: list[dict[str, str]], expected: list[int]
) -> None:
    assert await ids({"order_by": order_by}) == expected
    assert await ids({"order_by": order_by, "limit": 4, "offset": 1}) == expected[1:5]


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ({"limit": 2}, [1, 2]),
        ({"offset": 4}, [5, 6]),
        ({"limit": 10**30, "offset": 10**30}, []),
        ({"limit": 10**30, "offset": 2}, [3, 4, 5, 6]),
        ({"group_by": [{"field": "app_name"}]}, [2, 3, 4, 5, 6]),
        ({"group_by": [{"field": "app_name"}], "limit": 2}, [2, 3]),
        ({"group_by": [{"field": "timestamp"}]}, [1, 2, 3, 4, 6]),
        ({"group_by": [{"field": "app_name"}], "order_by": [{"field": "factory_log_id"}]}, [1, 2, 3, 4, 5]),
        ({"group_by": [{"field": "tags__jig"}]}, [2, 5, 6]),
        ({"group_by": [{"field": "tags__jig"}], "order_by": [{"field": "tags__jig"}], "limit": 2}, [1, 2]),
        ({"group_by": [{"field": "repair__process"}]}, [4, 6]),
        ({"group_by": [{"field": "tags"}], "filters": [leaf("factory_log_id", "<", 3)]}, [1, 2]),
        ({"group_by": [{"field": "repair_id"}, {"field": "app_name"}]}, [1, 2, 3, 4, 5, 6]),
    ],
    ids=str,
)
async def test_limit_and_group_by(ids: Ids, q: dict[str, Any], expected: list[int]) -> None:
    assert await ids(q) == expected


async def test_repairs_can_be_queried_too(ids: Ids) -> None:
    assert await ids({"filters": [leaf("process", "is_null")]}, REPAIRS) == [2]
    assert await ids({"group_by": [{"field": "process"}]}, REPAIRS) == [1, 2]


@pytest.mark.slow
async def test_a_long_or_of_long_lists_fits_one_statement(ids: Ids) -> None:
    one = leaf("factory_log_id", "in", list(range(1000)))
    assert await ids({"filters": [{"or": [one] * 400}]}) == ALL


@pytest.mark.slow
async def test_the_deepest_and_widest_query_allowed_runs(ids: Ids) -> None:
    order_by = [{"field": f"tags__{n}__b"} for n in range(20)]
    group_by = [{"field": f"tags__{n}__c"} for n in range(200)]
    nested: dict[str, Any] = leaf("app_name", "==", "cit")
    for _ in range(19):
        nested = {"not": nested}
    assert await ids({"filters": [nested], "order_by": order_by, "group_by": group_by, "limit": 5}) == [2]


@pytest.mark.parametrize("condition", [leaf("factory_log_id", "==", 5000), leaf("factory_log_id", "in", [1, 5000])])
def test_a_single_server_compares_ids_alone(condition: dict[str, Any]) -> None:
    query = parse_query(json.dumps({"filters": [condition]}), FACTORY_LOGS, QueryLimits())
    compiled = compile_rows(query, FACTORY_LOGS).compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
    where = str(compiled).partition("WHERE ")[2]
    assert where.startswith("factory_logs.factory_log_id = ")
    assert "shard_key" not in where
    assert " AND " not in where
