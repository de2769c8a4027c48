"""The first and the last value of each series come from the oldest or newest logs alone if these have all series."""

import json
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from factory_logs.db.engine import Database
from factory_logs.db.log_inserts import NewRow, insert_logs
from factory_logs.influxql.ast import Reference, Type
from factory_logs.influxql.constants import EARLIEST, LATEST
from factory_logs.influxql.schema import FieldKey, MeasurementSchema
from factory_logs.influxql.selection import Source, TimeBins
from factory_logs.ingest.validation import NewLog
from factory_logs.querier.influxql import window_aggregates
from factory_logs.querier.influxql.window_aggregates import Tags, window_sums
from factory_logs.query import FACTORY_LOGS, compile_filters
from factory_logs.query.rewriting import split_time

DAY = datetime(2024, 1, 1)
SCHEMA = MeasurementSchema({"v": FieldKey({Type.INTEGER}, [("v",)])}, {"jig": [("jig",)]})
V = Reference("v", Type.INTEGER)
NEWEST = 20
LARGE = 10_000


@pytest.fixture(autouse=True)
def few_logs_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_aggregates, "AT_EDGE", NEWEST)
    monkeypatch.setattr(window_aggregates, "AT_EDGE_OF_SERIES", 1)


async def store(database: Database, logs: Sequence[tuple[int, str | None, int | None]]) -> None:
    """Store logs of a minute, a jig and a value; None is a missing one."""
    rows = [
        NewRow(
            NewLog(
                "tiger",
                None,
                None,
                DAY + timedelta(minutes=minute),
                None if jig is None else json.dumps({"jig": jig}),
                json.dumps({} if value is None else {"v": value}),
            ),
            None,
        )
        for minute, jig, value in logs
    ]
    connection = await database.connect_raw()
    await insert_logs(connection, rows)
    await connection.close()


async def first_values(database: Database, jigs: set[Tags]) -> dict[Tags, Any]:
    found = await last_values(database, jigs, name="first")
    return {tags: (minute, -value) for tags, (minute, value) in found.items()}


async def last_values(
    database: Database, jigs: set[Tags], dimensions: tuple[str, ...] = ("jig",), name: str = "last"
) -> dict[Tags, Any]:
    """Return the time in minutes and the value of each series that has one."""
    source = Source("tiger", SCHEMA, None, EARLIEST, LATEST, dimensions)
    summed = window_sums(source, TimeBins(), [(name, V)], [(name, V)], jigs)
    query, _ = split_time(summed.query)
    async with database.snapshot() as connection:
        rows = await summed.read(connection, compile_filters(query, FACTORY_LOGS), LARGE)
    return {
        tuple(row[:-1]): (
            (datetime(1970, 1, 1) + timedelta(microseconds=row[-1][0]) - DAY) // timedelta(minutes=1),
            row[-1][1],
        )
        for row in rows
        if row[-1] is not None
    }


async def test_all_jigs_among_the_newest_logs(database: Database) -> None:
    await store(database, [(minute, f"J-{minute % 3}", minute) for minute in range(100)])
    jigs: set[Tags] = {("J-0",), ("J-1",), ("J-2",)}
    assert await last_values(database, jigs) == {("J-0",): (99, 99), ("J-1",): (97, 97), ("J-2",): (98, 98)}


async def test_a_jig_that_has_not_logged_for_long(database: Database) -> None:
    await store(database, [(0, "old", 7), (1, None, 8), *((minute, "new", minute) for minute in range(10, 100))])
    jigs: set[Tags] = {("old",), ("new",), ("",)}
    assert await last_values(database, jigs) == {("old",): (0, 7), ("",): (1, 8), ("new",): (99, 99)}


async def test_a_jig_whose_newest_logs_lack_the_field(database: Database) -> None:
    await store(database, [(0, "a", 7), *((minute, "a", None) for minute in range(10, 100))])
    assert await last_values(database, {("a",)}) == {("a",): (0, 7)}


async def test_without_tags_and_without_logs(database: Database) -> None:
    assert await last_values(database, {()}, ()) == {}
    await store(database, [(minute, "a", minute) for minute in range(50)])
    assert await last_values(database, {()}, ()) == {(): (49, 49)}


@pytest.mark.parametrize("count", [NEWEST - 1, NEWEST, NEWEST + 1])
async def test_the_greatest_of_several_values_at_one_time(database: Database, count: int) -> None:
    """Not all logs of that time are among the newest ones, and the greatest value may be missing from them."""
    await store(database, [(5, "a", value) for value in range(count)] + [(6, "b", 1)])
    assert await last_values(database, {("a",), ("b",)}) == {("a",): (5, count - 1), ("b",): (6, 1)}
    await store(database, [(4, "b", 1)])
    assert await first_values(database, {("a",), ("b",)}) == {("a",): (5, count - 1), ("b",): (4, 1)}


async def test_the_first_value_of_a_jig_that_began_late(database: Database) -> None:
    await store(database, [*((minute, "old", minute) for minute in range(50)), (60, "new", 7)])
    assert await first_values(database, {("old",), ("new",)}) == {("old",): (0, 0), ("new",): (60, 7)}
    assert await first_values(database, {("old",)}) == {("old",): (0, 0)}, "the other jig is not looked for"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
async def test_equals_the_values_of_all_logs(database: Database, seed: int) -> None:
    choose = random.Random(seed)
    jigs = ["a", "b", "c", None][: choose.randint(1, 4)]
    logs = [
        (choose.randrange(60), choose.choice(jigs), choose.choice([None, *range(5)]))
        for _ in range(choose.choice([5, 19, 20, 21, 100]))
    ]
    await store(database, logs)
    present = {(jig or "",) for _, jig, _ in logs}
    points = [(minute, (jig or "",), value) for minute, jig, value in logs if value is not None]
    of_series = {tags: [(minute, value) for minute, jig, value in points if jig == tags] for _, tags, _ in points}
    assert await last_values(database, present) == {tags: max(found) for tags, found in of_series.items()}
    assert await first_values(database, present) == {
        tags: min(found, key=lambda point: (point[0], -point[1])) for tags, found in of_series.items()
    }
