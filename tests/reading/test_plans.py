"""Which index answers each of the usual questions; pinned by plans, not by times (docs/indexes.md).

On logs enough for PostgreSQL to prefer an index: a plan that reads the whole table here does so on any larger one.
"""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from benchmarks.seeding import seed
from sqlalchemy import Select, make_url
from sqlalchemy.dialects.postgresql import asyncpg as dialect

from factory_logs.db import migrate
from factory_logs.db.counts import counting
from factory_logs.db.engine import Database
from factory_logs.query import FACTORY_LOGS, Limits, compile_filters, compile_rows, parse_query
from factory_logs.settings import Settings

LOGS = 60_000
PAGE = 10
UNIT = "352099000000703"
IMEI = "ix_factory_logs_product_imei_timestamp"
APP = "ix_factory_logs_app_name_timestamp"
TIME = "ix_factory_logs_timestamp"
REPAIR = "ix_factory_logs_repair_id"
TAGS = "ix_factory_logs_tags"
ID = "factory_logs_pkey"
LAST_HOUR = {"name": "timestamp", "op": ">=", "val": "2023-01-14 20:20:00"}
NEWEST = [{"field": "timestamp", "direction": "desc"}]


def leaf(name: str, op: str, val: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "val": val}


@dataclass(frozen=True)
class Question:
    """What is asked, and the indexes that may find its first page and count it from the beginning."""

    q: dict[str, Any]
    page: set[str]
    count: set[str]


QUESTIONS = {
    "the first logs": Question({}, {ID}, {ID, TIME}),
    "the newest logs": Question({"order_by": NEWEST}, {TIME}, {ID, TIME}),
    "a unit's logs": Question({"filters": [leaf("product_imei", "==", UNIT)]}, {IMEI}, {IMEI}),
    "a unit's newest logs": Question(
        {"filters": [leaf("product_imei", "==", UNIT)], "order_by": NEWEST}, {IMEI}, {IMEI}
    ),
    "a unit's logs of some days": Question(
        {
            "filters": [
                leaf("product_imei", "==", UNIT),
                leaf("timestamp", ">=", "2023-01-03"),
                leaf("timestamp", "<", "2023-01-09"),
            ]
        },
        {IMEI},
        {IMEI},
    ),
    "an app's logs of the last hour": Question(
        {"filters": [leaf("app_name", "==", "rework"), LAST_HOUR]}, {APP}, {APP}
    ),
    "an app's newest logs": Question({"filters": [leaf("app_name", "==", "rework")], "order_by": NEWEST}, {APP}, {APP}),
    "the logs of the last hour": Question({"filters": [LAST_HOUR]}, {TIME, ID}, {TIME}),
    "a repair's logs": Question({"filters": [leaf("repair_id", "==", 77)]}, {REPAIR}, {REPAIR}),
    "a serial number": Question({"filters": [leaf("tags__serial_number", "==", "TG000004000")]}, {TAGS}, {TAGS}),
    "a jig's newest failures": Question(
        {
            "filters": [leaf("tags__jig_id", "==", "J-07"), leaf("fields__passed", "==", False), LAST_HOUR],
            "order_by": NEWEST,
        },
        {TIME, TAGS},
        {TIME, TAGS},
    ),
}


@pytest_asyncio.fixture(scope="module")
async def connection(postgres_url: str, _no_settings_of_the_developer: None) -> AsyncIterator[asyncpg.Connection]:
    """To a database of its own, full of logs, with the settings of the service's connections but for the time-out."""
    patient = Settings().model_copy(update={"statement_timeout_seconds": 600.0})
    administrator = await Database(postgres_url, patient).connect_raw()
    await administrator.execute("create database plans")
    url = make_url(postgres_url).set(database="plans").render_as_string(hide_password=False)
    await migrate.upgrade(url)
    opened = await Database(url, patient).connect_raw()
    await seed(opened, LOGS)
    yield opened
    await opened.close()
    await administrator.execute("drop database plans with (force)")
    await administrator.close()


async def plan(connection: asyncpg.Connection, statement: Select[Any]) -> str:
    compiled = statement.compile(dialect=dialect.dialect())
    values = [compiled.params[name] for name in compiled.positiontup or ()]
    return "\n".join(row[0] for row in await connection.fetch(f"explain {compiled}", *values))


def indexes(plan: str) -> set[str]:
    """The indexes used; a table that is read as a whole counts as one that is not there."""
    whole = re.findall(r"Seq Scan on (factory_logs|repairs)\b", plan)
    return set(re.findall(r"(?:using|Bitmap Index Scan on) (\w+)", plan)) | {f"the whole of {name}" for name in whole}


@pytest.mark.parametrize("name", QUESTIONS)
async def test_the_first_page_is_found_by(connection: asyncpg.Connection, name: str) -> None:
    question = QUESTIONS[name]
    query = parse_query(json.dumps(question.q), FACTORY_LOGS, Limits())
    known = await first_of(connection, question.q)
    found = await plan(connection, compile_rows(query, FACTORY_LOGS, known).limit(PAGE))
    assert indexes(found) <= question.page, found


@pytest.mark.parametrize("name", QUESTIONS)
async def test_what_is_not_known_yet_is_counted_by(connection: asyncpg.Connection, name: str) -> None:
    question = QUESTIONS[name]
    conditions = compile_filters(parse_query(json.dumps(question.q), FACTORY_LOGS, Limits()), FACTORY_LOGS)
    found = await plan(connection, counting(conditions, LOGS))
    assert indexes(found) <= question.count, found


@pytest.mark.parametrize("name", QUESTIONS)
async def test_what_is_new_is_counted_without_what_is_known(connection: asyncpg.Connection, name: str) -> None:
    question = QUESTIONS[name]
    conditions = compile_filters(parse_query(json.dumps(question.q), FACTORY_LOGS, Limits()), FACTORY_LOGS)
    found = await plan(connection, counting(conditions, LOGS - 5, LOGS - 20))
    assert indexes(found) <= question.page | question.count | {ID}, found
    assert "the whole" not in str(indexes(found))


async def first_of(connection: asyncpg.Connection, q: dict[str, Any]) -> int:
    """What is known of a filter after it was counted."""
    conditions = compile_filters(parse_query(json.dumps(q), FACTORY_LOGS, Limits()), FACTORY_LOGS)
    compiled = counting(conditions, LOGS).compile(dialect=dialect.dialect())
    values = [compiled.params[name] for name in compiled.positiontup or ()]
    lowest: int = (await connection.fetchrow(str(compiled), *values))["lowest"]
    return lowest


async def test_a_walk_along_the_ids_begins_at_the_first_that_matches(connection: asyncpg.Connection) -> None:
    """PostgreSQL would walk by all older logs to the first of the last days."""
    q = {"filters": [leaf("timestamp", ">=", "2023-01-10")]}
    query = parse_query(json.dumps(q), FACTORY_LOGS, Limits())
    lowest = await first_of(connection, q)
    assert lowest > LOGS // 2
    found = await plan(connection, compile_rows(query, FACTORY_LOGS, lowest).limit(PAGE))
    assert f"Index Cond: (factory_log_id >= '{lowest}'::bigint)" in found
