"""The text of `q` becomes a Query or a 400 that names the path and the error
(docs/reference/http-api.md#the-query-language-q)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.errors import BadRequestError
from factory_logs.query import FACTORY_LOGS, REPAIRS, Query, QueryLimits, parse_query
from factory_logs.query.ast import And, Compare, Field, Has, Kind, Member, Not, Null, Or, Order
from factory_logs.query.operators import ALIASES, Operator

APP_NAME = Field("app_name", Kind.STR)


def parse(q: Any, limits: QueryLimits | None = None) -> Query:
    return parse_query(json.dumps(q), FACTORY_LOGS, limits or QueryLimits())


def error(q: Any, limits: QueryLimits | None = None) -> str:
    with pytest.raises(BadRequestError) as caught:
        parse(q, limits)
    return caught.value.message


def leaf(name: Any = "app_name", op: Any = "==", val: Any = "x") -> dict[str, Any]:
    return {"name": name, "op": op, "val": val}


def test_a_missing_or_empty_q_selects_everything() -> None:
    assert parse_query(None, FACTORY_LOGS, QueryLimits()) == parse({}) == Query()


def test_unknown_members_are_ignored() -> None:
    assert parse({"page": 3, "filters": [leaf() | {"colour": "red"}]}) == parse({"filters": [leaf()]})


@pytest.mark.parametrize(
    "text", ["", "{", "nope", "[]", "1", "null", '{"limit": NaN}', "[" * 100_000, '{"a":' * 100_000]
)
def test_text_that_is_not_a_json_object_cannot_be_decoded(text: str) -> None:
    with pytest.raises(BadRequestError, match=r"^Unable to decode data$") as caught:
        parse_query(text, FACTORY_LOGS, QueryLimits())
    (error,) = caught.value.errors
    assert error.field == "q"
    assert error.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"filters": [{"name": "app_name" "op": 1}]}', "Expecting ',' delimiter at character 34, at '\"op\": 1}]}'"),
        ("{'limit': 1}", "Expecting property name enclosed in double quotes at character 2, at \"'limit': 1}\""),
        ('{"limit": 1}}', "Extra data at character 13, at '}'"),
        ('{"limit": ', "Expecting value at character 11, the end"),
        ("", "Expecting value at character 1, the end"),
        ('{"limit": NaN}', "NaN is not JSON"),
        ("[" * 100_000, "the JSON nests too deep"),
        ("[]", "must be a JSON object, not a list"),
    ],
)
def test_invalid_json_is_an_error_with_its_position(text: str, message: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_query(text, FACTORY_LOGS, QueryLimits())
    assert [error.as_json() for error in caught.value.errors] == [{"field": "q", "message": message}]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("tags.jig_id", "tags__jig_id"),
        ("tags_jig_id", "tags__jig_id"),
        ("tag__jig_id", "tags__jig_id"),
        ("field.battery.voltage", "fields__battery__voltage"),
        ("fields['voltage']", "fields__voltage"),
        ("fields->>'voltage'", "fields__voltage"),
        ("fields->'battery'->>'voltage'", "fields__battery__voltage"),
        ("repair.process", "repair__process"),
        ("repair_process", "repair__process"),
        ("repair__proces", "repair__process"),
        ("repairs__outcome", "repair__outcome"),
        ("imei", "product_imei"),
        ("App_Name", "app_name"),
        ("timestmp", "timestamp"),
        ("repair_idd", "repair_id"),
    ],
)
def test_a_misspelt_field_is_named_with_a_suggestion(name: str, meant: str) -> None:
    for q in ({"filters": [leaf(name)]}, {"order_by": [{"field": name}]}, {"group_by": [{"field": name}]}):
        assert error(q).endswith(f"; did you mean {meant}?")


@pytest.mark.parametrize("name", ["colour", "jig_id", "hostname", "", "__class__", "x" * 10_000])
def test_for_a_field_without_a_suggestion_all_are_listed(name: str) -> None:
    message = error({"filters": [leaf(name)]})
    assert "there are factory_log_id, app_name," in message
    assert "tags__..., fields__..., repair__..." in message
    assert len(message) < 500


@given(st.text(max_size=120))
def test_every_suggested_field_exists(name: str) -> None:
    try:
        parse({"filters": [{"name": name, "op": "is_null"}]})
    except BadRequestError as error:
        meant = error.message.partition("did you mean ")[2].removesuffix("?")
        if meant:
            parse({"filters": [{"name": meant, "op": "is_null"}]})


@pytest.mark.parametrize(
    ("op", "meant"),
    [
        ("=", "=="), ("===", "=="), ("<>", "!="), ("=>", ">="), ("=<", "<="), ("equal", "equals"),
        ("isnull", "is_null"),
        ("not in", "not_in"), ("LIKE", "like"),
    ],
)  # fmt: skip
def test_a_misspelt_operator_is_named_with_a_suggestion(op: str, meant: str) -> None:
    assert error({"filters": [leaf(op=op)]}).endswith(f"; did you mean {meant}?")


def test_for_an_operator_without_a_suggestion_all_are_listed() -> None:
    assert error({"filters": [leaf(op="~")]}).endswith(", ".join(operator.label for operator in Operator))


@pytest.mark.parametrize(
    ("q", "ending"),
    [
        (
            {"filters": [{"name": "app_name", "operator": "==", "val": 1}]},
            "op: missing; did you mean op by 'operator'?",
        ),
        ({"filters": [{"name": "app_name", "op": "==", "value": 1}]}, "val: missing; did you mean val by 'value'?"),
        ({"filters": [{"OR": []}]}, "name: missing; did you mean or by 'OR'?"),
        ({"filters": [{"field": "app_name", "op": "==", "val": 1}]}, 'missing; a filter is {"name", "op", "val"}'),
        ({"order_by": [{"fields": "app_name"}]}, "field: missing; did you mean field by 'fields'?"),
        ({"order_by": [{"name": "app_name"}]}, 'missing; an entry is {"field"}, in order_by also with "direction"'),
    ],
)
def test_a_missing_member_is_named_with_a_similar_one_that_is_present(q: Any, ending: str) -> None:
    assert error(q).endswith(ending)


@pytest.mark.parametrize(("member", "meant"), [("filter", "filters"), ("orderby", "order_by"), ("Limit", "limit")])
def test_an_error_also_names_an_ignored_member_that_is_probably_misspelt(member: str, meant: str) -> None:
    assert parse({member: [leaf()]}) == Query()
    with pytest.raises(BadRequestError) as caught:
        parse({member: [], "group_by": [{"field": "nope"}]})
    hint = {"field": "q", "message": f"'{member}' is ignored; did you mean {meant}?"}
    assert [error.as_json() for error in caught.value.errors] == [hint]


@pytest.mark.parametrize(("alias", "operator"), ALIASES.items())
def test_every_alias_names_its_operator(alias: str, operator: Operator) -> None:
    name, val = {"in": ("app_name", []), "has": ("repair__process", "x")}.get(operator.label, ("app_name", "x"))
    if operator in (Operator.IN, Operator.NOT_IN):
        assert parse({"filters": [leaf(op=alias, val=["x"])]}).filters == (
            Member(APP_NAME, ("x",), operator is Operator.NOT_IN),
        )
    elif operator in (Operator.HAS, Operator.ANY):
        inner = Compare(Field("process", Kind.STR), Operator.EQUAL, "x")
        assert parse({"filters": [leaf("repair__process", alias)]}).filters == (Has("repair", inner),)
    elif operator in (Operator.IS_NULL, Operator.IS_NOT_NULL):
        filters = parse({"filters": [{"name": name, "op": alias}]}).filters
        assert filters == (Null(APP_NAME, operator is Operator.IS_NOT_NULL),)
    else:
        assert parse({"filters": [leaf(name, alias, val)]}).filters == (Compare(APP_NAME, operator, "x"),)


def test_filters_nest() -> None:
    x = Compare(APP_NAME, Operator.EQUAL, "x")
    filters = [{"or": [leaf(), {"and": [leaf(), {"not": leaf()}]}]}]
    assert parse({"filters": filters}).filters == (Or((x, And((x, Not(x))))),)


def test_order_by_is_ascending_by_default() -> None:
    q = {"order_by": [{"field": "app_name"}, {"field": "tags__a", "direction": "desc"}]}
    assert parse(q).order_by == (Order(APP_NAME), Order(Field("tags", Kind.JSON, path=("a",)), descending=True))


@pytest.mark.parametrize("nothing", [0, None, "", False, [], {}, 0.0])
def test_a_falsy_limit_means_no_limit(nothing: Any) -> None:
    assert parse({"limit": nothing, "offset": nothing}) == Query()


@pytest.mark.parametrize("wrong", [-1, True, 1.5, "-5", "5.0", [1]])
@pytest.mark.parametrize("member", ["limit", "offset"])
def test_a_limit_is_an_integer_that_is_not_negative(member: str, wrong: Any) -> None:
    assert error({member: wrong}).startswith(f"Unable to construct query: {member}: ")


@pytest.mark.parametrize(
    "name_op",
    [("app_name", "=="), ("app_name", "in"), ("repair", "has"), ("repair__process", "any"), ("tags__a", "!=")],
)
def test_comparing_with_null_is_an_error_that_names_is_null(name_op: tuple[str, str]) -> None:
    expected = "To compare a value to NULL, use the is_null/is_not_null operators."
    assert error({"filters": [leaf(*name_op, val=None)]}) == expected


@pytest.mark.parametrize(
    ("filters", "where"),
    [
        ("x", "filters"),
        (None, "filters"),
        ({"name": 1}, "filters"),
        ([1], "filters[0]"),
        ([{"op": "==", "val": 1}], "filters[0].name"),
        ([leaf(name=["x"])], "filters[0].name"),
        ([leaf(name="nope")], "filters[0].name"),
        ([leaf(name="__class__")], "filters[0].name"),
        ([leaf(name="app_name__x")], "filters[0].name"),
        ([leaf(name="tags__")], "filters[0].name"),
        ([leaf(name="tags__a____b")], "filters[0].name"),
        ([leaf(name="tags" + "__a" * 17)], "filters[0].name"),
        ([leaf(name="repair__nope")], "filters[0].name"),
        ([{"name": "app_name", "val": "x"}], "filters[0].op"),
        ([leaf(op="~")], "filters[0].op"),
        ([leaf(op=["=="])], "filters[0].op"),
        ([leaf(op="has")], "filters[0].op"),
        ([leaf(name="repair")], "filters[0].op"),
        ([{"name": "app_name", "op": "=="}], "filters[0].val"),
        ([leaf(val=1)], "filters[0].val"),
        ([leaf(), {"or": [leaf(), leaf("factory_log_id", val=True)]}], "filters[1].or[1].val"),
        ([leaf("factory_log_id", val="1")], "filters[0].val"),
        ([leaf("factory_log_id", val=1.0)], "filters[0].val"),
        ([leaf("factory_log_id", "like", "1")], "filters[0].val"),
        ([leaf("timestamp", val="yesterday")], "filters[0].val"),
        ([leaf("timestamp", val=10**30)], "filters[0].val"),
        ([leaf("repair__measured_battery_capacity", val="1")], "filters[0].val"),
        ([leaf("repair__measured_battery_capacity", val=10**400)], "filters[0].val"),
        ([leaf("tags", ">", 1)], "filters[0].val"),
        ([leaf("tags", "in", [1])], "filters[0].val"),
        ([leaf("tags__a", ">", [1])], "filters[0].val"),
        ([leaf("tags__a", "like", 1)], "filters[0].val"),
        ([leaf("tags", "==", json.loads("[" * 40 + "]" * 40))], "filters[0].val"),
        ([leaf(op="in", val="x")], "filters[0].val"),
        ([leaf(op="in", val=["x", 1])], "filters[0].val[1]"),
        ([leaf(op="in", val=[None])], "filters[0].val[0]"),
        ([leaf(op="like", val="x\\")], "filters[0].val"),
        ([leaf("repair", "has", "x")], "filters[0].val"),
        ([leaf("repair", "has", leaf("app_name"))], "filters[0].val.name"),
        ([{"not": [leaf()]}], "filters[0].not"),
        ([{"or": leaf()}], "filters[0].or"),
        ([{"or": [], "and": []}], "filters[0]"),
        ([{"name": "app_name", "op": "==", "field": "factory_log_id"}], "filters[0].field"),
        ([{"name": "app_name", "op": "==", "fieldname": "nope"}], "filters[0].fieldname"),
        ([{"name": "app_name", "op": "like", "field": "product_imei"}], "filters[0].field"),
        ([{"name": "timestamp", "op": "==", "field": "tags__at"}], "filters[0].field"),
        ([leaf(val="\x00")], "q"),
        ([leaf(val="\ud800")], "q"),
    ],
)
def test_an_invalid_filter_is_named_by_its_path(filters: Any, where: str) -> None:
    assert error({"filters": filters}).startswith(f"Unable to construct query: {where}: ")


@pytest.mark.parametrize(
    ("q", "where"),
    [
        ({"order_by": "app_name"}, "order_by"),
        ({"order_by": [{}]}, "order_by[0].field"),
        ({"order_by": [{"field": "app_name", "direction": "up"}]}, "order_by[0].direction"),
        ({"order_by": [{"field": "app_name", "direction": ["asc"]}]}, "order_by[0].direction"),
        ({"group_by": [{"field": "repair"}]}, "group_by[0].field"),
        ({"group_by": [7]}, "group_by[0]"),
    ],
)
def test_an_invalid_order_is_named_by_its_path(q: Any, where: str) -> None:
    assert error(q).startswith(f"Unable to construct query: {where}: ")


def test_an_overflowing_number_is_refused() -> None:
    with pytest.raises(BadRequestError, match="out of the range of a double"):
        parse_query('{"filters": [{"name": "tags__a", "op": "==", "val": 1e999}]}', FACTORY_LOGS, QueryLimits())


def test_depth_nodes_and_lists_have_limits_that_the_error_names() -> None:
    nested: dict[str, Any] = leaf()
    for _ in range(3):
        nested = {"not": nested}
    assert "3 deep" in error({"filters": [nested]}, QueryLimits(max_depth=3))
    assert "3 deep" in error({"filters": [{"or": [{"and": [{"or": []}]}]}]}, QueryLimits(max_depth=3))
    assert parse({"filters": [nested]}, QueryLimits(max_depth=4))
    assert "more than 2 " in error(
        {"filters": [leaf(), leaf()], "order_by": [{"field": "app_name"}]}, QueryLimits(max_nodes=2)
    )
    assert "up to 2 values" in error({"filters": [leaf(op="in", val=["x"] * 3)]}, QueryLimits(max_in_values=2))
    keys = [{"field": "app_name"}] * 3
    assert "order_by: takes up to 2 entries, not 3" in error({"order_by": keys}, QueryLimits(max_sort_keys=2))
    assert len(parse({"order_by": keys}, QueryLimits(max_sort_keys=3)).order_by) == 3


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([*ALIASES, *FACTORY_LOGS.fields]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "op", "val", "field", "or", "and", "not", "direction"]) | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)
MEMBERS = st.sampled_from(["filters", "order_by", "group_by", "limit", "offset", "single"])


@pytest.mark.slow
@given(JSON | st.dictionaries(MEMBERS, JSON) | st.dictionaries(MEMBERS, st.lists(JSON)))
def test_any_json_is_a_query_or_a_bad_request(q: Any) -> None:
    for resource in (FACTORY_LOGS, REPAIRS):
        try:
            assert isinstance(parse_query(json.dumps(q), resource, QueryLimits()), Query)
        except BadRequestError as error:
            error.message.encode()


@given(st.text())
def test_any_text_is_a_query_or_a_bad_request(text: str) -> None:
    try:
        parse_query(text, FACTORY_LOGS, QueryLimits())
    except BadRequestError as error:
        assert error.message  # noqa: PT017
