"""Generate random filters, sort keys and counts, including invalid ones."""

from typing import Any

from hypothesis import strategies as st

from factory_logs.query import FACTORY_LOGS, REPAIRS
from factory_logs.query.operators import ALIASES

NUMBERS = st.sampled_from([0, 1, 1.0, -1, 2**53, 2**53 + 1, 3.28, 12, 2**63, 10**30, 1e308])

TEXTS = st.sampled_from(["cit", "CIT", "J-1", "J-2", "1", "", "3.28", "ÿ"])

SCALARS = NUMBERS | TEXTS | st.booleans()

PATHS = st.sampled_from(["tags__n", "tags__jig", "tags__ok", "fields__b__v", "fields__b", "tags__none"])

SINGLE = st.sampled_from(["==", "!=", ">", "<", ">=", "<="])

LISTED = st.sampled_from(["in", "not_in"])


def leaves(names: st.SearchStrategy[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return (
        st.fixed_dictionaries({"name": names, "op": SINGLE, "val": values})
        | st.fixed_dictionaries({"name": names, "op": LISTED, "val": st.lists(values, max_size=3)})
        | st.fixed_dictionaries({"name": names, "op": st.sampled_from(["is_null", "is_not_null"])})
    )


INTS = st.sampled_from([0, 1, 2, 3, 6, 2**31, 2**63, -(2**70)])

LEAVES = (
    leaves(PATHS, SCALARS)
    | leaves(st.sampled_from(["app_name", "product_imei", "repair__process"]), TEXTS | st.just("Replaced"))
    | leaves(st.sampled_from(["factory_log_id", "repair_id", "repair__repair_id"]), INTS)
)

FILTERS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(lambda items: {"or": items}, st.lists(inner, max_size=3))
        | st.builds(lambda items: {"and": items}, st.lists(inner, max_size=3))
        | st.builds(lambda item: {"not": item}, inner)
    ),
    max_leaves=8,
)

JSON_VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | SCALARS,
    lambda inner: st.lists(inner | st.none(), max_size=3) | st.dictionaries(st.text(), inner | st.none(), max_size=3),
    max_leaves=5,
)

MOMENTS = st.sampled_from(["0001-01-01", "9999-12-31 23:59:59.999999", -62135596800000, 0]) | st.datetimes().map(str)

NAMES = (
    st.sampled_from([*FACTORY_LOGS.fields, *REPAIRS.fields, *(f"repair__{name}" for name in REPAIRS.fields), "repair"])
    | PATHS
    | st.text(min_size=1).map(lambda part: f"tags__{part}")
    | st.integers().map(lambda part: f"fields__{part}")
)

ANY_LEAF = st.fixed_dictionaries(
    {"name": NAMES, "op": st.sampled_from(sorted(ALIASES)), "val": JSON_VALUES | MOMENTS | LEAVES | st.lists(MOMENTS)}
) | st.fixed_dictionaries({"name": NAMES, "op": SINGLE, "field": NAMES})

KEYS = st.lists(
    st.fixed_dictionaries({"field": NAMES}, optional={"direction": st.sampled_from(["asc", "desc"])}), max_size=3
)

COUNTS = st.sampled_from([0, 1, 5, 2**63, 10**40])
