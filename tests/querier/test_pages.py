"""A page from a shared prepared statement equals the page that is compiled for its query alone."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory_logs.db.engine import Database
from factory_logs.db.prepared_statements import PreparedStatements, compile_statement
from factory_logs.errors import BadRequestError
from factory_logs.querier.counts import LogCounts, OnTop
from factory_logs.querier.pages import Pages, compile_page, page_with_placeholders
from factory_logs.querier.result_cache import ResultCache
from factory_logs.query import FACTORY_LOGS, REPAIRS, QueryLimits, parse_query, with_placeholders
from factory_logs.settings import Settings
from tests.conftest import CITUS_URL
from tests.query.conftest import filled  # noqa: F401 - a fixture
from tests.query.strategies import ANY_LEAF, COUNTS, FILTERS, KEYS

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


@pytest.mark.slow
@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(Q, st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), st.booleans())
async def test_the_statement_with_placeholders_is_the_statement_of_each_query(
    filled: Database,  # noqa: F811
    q: dict[str, Any],
    numbers: tuple[int, int, int, int],
    is_on_top: bool,
) -> None:
    """All examples share one cache, so most statements run with other values than the first ones."""
    dialect = filled.engine.dialect
    for resource in (FACTORY_LOGS, REPAIRS):
        try:
            query = parse_query(json.dumps(q), resource, QueryLimits())
        except BadRequestError:
            continue
        on_top = OnTop(*numbers[:3], 0) if is_on_top and resource is FACTORY_LOGS else None
        template, values = with_placeholders(query)
        values += (numbers[3], 10)
        build = lambda t=template, r=resource, v=values, o=on_top: page_with_placeholders(t, r, len(v), o is not None)  # noqa: E731
        shared = CACHE.setdefault("all", PreparedStatements(dialect, 10_000)).get(
            (resource.table.name, on_top is None, template), build
        )
        plain = compile_statement(compile_page(query, resource, numbers[3], 10, on_top), dialect)
        assert shared.sql == plain.sql
        bound = shared.bind([*values, *(on_top or ())])
        assert bound == plain.bind([])
        assert list(map(type, bound)) == list(map(type, plain.bind([])))


CACHE: dict[str, PreparedStatements] = {}


async def test_queries_that_share_a_statement_read_their_own_pages(filled: Database) -> None:  # noqa: F811
    pages = Pages(filled, LogCounts(ResultCache(filled, Settings()), Settings()), Settings())
    try:
        for name, expected in (("cit", [1, 6]), ("CIT", [2]), ("nobody", []), ("cit", [1, 6])):
            q = {"filters": [{"name": "app_name", "op": "==", "val": name}]}
            total, text = await pages.read(parse_query(json.dumps(q), FACTORY_LOGS, QueryLimits()), FACTORY_LOGS, 0, 10)
            assert total == len(expected)
            assert [record["factory_log_id"] for record in json.loads(f"[{text}]")] == expected
        assert len(pages._statements) == (1 if CITUS_URL is None else 2)  # a cluster counts by its own statement
    finally:
        pages.close()


async def test_the_number_of_prepared_statements_is_limited(database: Database) -> None:
    few = Settings().model_copy(update={"max_query_shapes": 2})
    counts = LogCounts(ResultCache(database, few), few)
    pages = Pages(database, counts, few)
    try:
        for name in ("app_name", "product_imei", "created_by"):
            q = {"filters": [{"name": name, "op": "==", "val": "x"}]}
            assert await pages.read(parse_query(json.dumps(q), FACTORY_LOGS, QueryLimits()), FACTORY_LOGS, 0, 10) == (
                0,
                "",
            )
        assert len(pages._statements) == len(counts._statements) == 2
    finally:
        pages.close()
