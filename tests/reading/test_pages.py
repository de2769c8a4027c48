"""A page by the kept SQL of its shape is the page that is compiled for it alone."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory_logs.db.engine import Database
from factory_logs.db.slots import Statements, compile_statement
from factory_logs.errors import BadRequestError
from factory_logs.query import FACTORY_LOGS, REPAIRS, Limits, parse_query, shape_of
from factory_logs.reading.counts import LogCounts, OnTop
from factory_logs.reading.pages import Pages, compile_page, page_with_slots
from factory_logs.settings import Settings
from tests.query.conftest import filled  # noqa: F401 - a fixture
from tests.query.test_against_python import ANY_LEAF, COUNTS, FILTERS, KEYS

Q = st.fixed_dictionaries(
    {},
    optional={
        "filters": st.lists(FILTERS | ANY_LEAF | st.builds(lambda f: {"not": f}, ANY_LEAF), max_size=3),
        "order_by": KEYS,
        "group_by": KEYS,
        "limit": COUNTS,
        "offset": COUNTS,
    },
)
NUMBERS = st.sampled_from([0, 1, 3, 2**31, 2**62])


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(Q, st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), st.booleans())
async def test_the_statement_of_a_shape_is_that_of_each_query_of_it(
    filled: Database,  # noqa: F811
    q: dict[str, Any],
    numbers: tuple[int, int, int, int],
    is_on_top: bool,
) -> None:
    """One cache for all examples, so that most shapes are asked with other values than they were made for."""
    dialect = filled.engine.dialect
    for resource in (FACTORY_LOGS, REPAIRS):
        try:
            query = parse_query(json.dumps(q), resource, Limits())
        except BadRequestError:
            continue
        on_top = OnTop(*numbers[:3], 0) if is_on_top and resource is FACTORY_LOGS else None
        shape, values = shape_of(query)
        values += (numbers[3], 10)
        build = lambda s=shape, r=resource, v=values, o=on_top: page_with_slots(s, r, len(v), o is not None)  # noqa: E731
        kept = KEPT.setdefault("all", Statements(dialect, 10_000)).get(
            (resource.table.name, on_top is None, shape), build
        )
        plain = compile_statement(compile_page(query, resource, numbers[3], 10, on_top), dialect)
        assert kept.sql == plain.sql
        bound = kept.bind([*values, *(on_top or ())])
        assert bound == plain.bind([])
        assert list(map(type, bound)) == list(map(type, plain.bind([])))


KEPT: dict[str, Statements] = {}


async def test_pages_of_one_shape_are_each_their_own(filled: Database) -> None:  # noqa: F811
    pages = Pages(filled, LogCounts(filled, Settings()), Settings())
    try:
        for name, expected in (("cit", [1, 6]), ("CIT", [2]), ("nobody", []), ("cit", [1, 6])):
            q = {"filters": [{"name": "app_name", "op": "==", "val": name}]}
            total, text = await pages.read(parse_query(json.dumps(q), FACTORY_LOGS, Limits()), FACTORY_LOGS, 0, 10)
            assert total == len(expected)
            assert [record["factory_log_id"] for record in json.loads(f"[{text}]")] == expected
        assert len(pages._statements) == 1
    finally:
        await pages.close()


async def test_no_more_shapes_are_kept_than_the_limit(database: Database) -> None:
    pages = Pages(database, LogCounts(database, Settings()), Settings().model_copy(update={"max_query_shapes": 2}))
    try:
        for name in ("app_name", "product_imei", "created_by"):
            q = {"filters": [{"name": name, "op": "==", "val": "x"}]}
            assert await pages.read(parse_query(json.dumps(q), FACTORY_LOGS, Limits()), FACTORY_LOGS, 0, 10) == (0, "")
        assert len(pages._statements) == 2
    finally:
        await pages.close()
