"""Hints name the paths, apps and types for which a query finds nothing."""

from typing import Any

import pytest

from factory_logs.client.hints import MOST_HINTS, hints

CATALOG: dict[str, Any] = {
    "apps": [
        {
            "app_name": "tiger",
            "tags": [{"path": "tags__jig_id", "types": ["string"]}],
            "fields": [
                {"path": "fields__battery__voltage", "types": ["number"]},
                {"path": "fields__passed", "types": ["boolean"]},
            ],
        },
        {"app_name": "cit", "tags": [], "fields": [{"path": "fields__battery__voltage", "types": ["null"]}]},
    ]
}


def leaf(name: str, val: Any, op: str = "==") -> dict[str, Any]:
    return {"name": name, "op": op, "val": val}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([leaf("fields__battery__volt", 3)], "the field fields__battery__volt; did you mean fields__battery__voltage"),
        ([leaf("fields__voltage", 3)], "the field fields__voltage; did you mean fields__battery__voltage"),
        ([leaf("tags__Jig_ID", "J-1")], "the field tags__Jig_ID; did you mean tags__jig_id"),
        ([leaf("tags__colour", "red")], "the field tags__colour"),
        ([leaf("app_name", "tigre")], "the app tigre; did you mean tiger"),
        ([{"or": [{"and": [{"not": leaf("tags__jigid", 1)}]}]}], "the field tags__jigid; did you mean tags__jig_id"),
        ([{"name": "app_name", "op": ">", "field": "tags__jigi"}], "the field tags__jigi; did you mean tags__jig_id"),
    ],
)  # fmt: skip
def test_an_unknown_name_gets_the_nearest_known_one(filters: list[dict[str, Any]], expected: str) -> None:
    (hint,) = hints(CATALOG, {"filters": filters})
    assert hint.removesuffix("?") == f"no log has {expected}"


@pytest.mark.parametrize(
    "q",
    [
        {},
        {"filters": [leaf("fields__battery", None, "is_not_null")]},
        {"filters": [leaf("fields__battery__voltage", 3), leaf("fields__passed", [True], "in")]},
        {"filters": [leaf("app_name", "tiger"), leaf("app_name", "tig%", "like"), leaf("product_imei", "1")]},
        {"filters": [{"name": "repair", "op": "has", "val": leaf("process", "Replaced")}]},
        {"order_by": [{"field": "timestamp"}], "group_by": [{"field": "tags__jig_id"}]},
    ],
)
def test_a_query_of_known_names_gets_no_hint(q: dict[str, Any]) -> None:
    assert hints(CATALOG, q, ["product_imei", "fields__passed"]) == []


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        (
            leaf("fields__passed", "true"),
            "fields__passed is compared with a string, but in the logs it is a boolean",
        ),
        (
            leaf("fields__battery__voltage", ["3", True], "in"),
            "fields__battery__voltage is compared with a boolean or string, but in the logs it is a null or number",
        ),
    ],
)
def test_a_value_of_a_type_that_the_logs_do_not_have_gets_a_hint(filter_: dict[str, Any], expected: str) -> None:
    assert hints(CATALOG, {"filters": [filter_]}) == [expected]


def test_other_names_of_the_request_get_hints_too_and_their_number_is_limited() -> None:
    names = [f"fields__x{number}" for number in range(MOST_HINTS + 1)]
    assert len(hints(CATALOG, {"group_by": [{"field": "tags__y"}], "order_by": [{"field": "tags__y"}]}, names[:2])) == 3
    assert len(hints(CATALOG, {}, names)) == MOST_HINTS
