"""Time buckets in time zones, compared with Python's zoneinfo."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import ARRAY, func, literal, select

from factory_logs.db.aggregates import bucket_begin, bucket_start
from factory_logs.db.engine import Database
from factory_logs.db.models import TIME
from tests.querier import results_model as model

CHANGES = [
    ("UTC", datetime(2024, 3, 1)),
    ("Asia/Kolkata", datetime(2024, 3, 1)),
    ("Asia/Kathmandu", datetime(1986, 1, 1)),  # from 05:30 to 05:45 ahead of UTC
    ("Europe/Berlin", datetime(2024, 3, 31)),
    ("Europe/Berlin", datetime(2024, 10, 27)),
    ("Australia/Sydney", datetime(2024, 10, 6)),
    ("Australia/Lord_Howe", datetime(2024, 4, 7)),  # by half an hour
    ("America/Sao_Paulo", datetime(2018, 11, 4)),  # no midnight
    ("America/Sao_Paulo", datetime(2018, 2, 18)),
    ("Pacific/Apia", datetime(2011, 12, 30)),  # no such day
    ("America/Havana", datetime(2024, 11, 3)),  # midnight twice, an hour apart
    ("America/St_Johns", datetime(2009, 11, 1)),  # midnight twice, with 23:01 between them
    ("Asia/Colombo", datetime(2006, 4, 15)),  # midnight twice, half an hour apart
    ("Asia/Magadan", datetime(2014, 10, 26)),  # midnight twice, two hours apart
]


@pytest.mark.parametrize("days", [1, 2, 7])
async def test_buckets_of_days_begin_at_the_first_local_midnight(database: Database, days: int) -> None:
    length = timedelta(days=days)
    async with database.connect() as connection:
        for zone, change in CHANGES:
            moments = [change + timedelta(minutes=15 * quarter + 1) for quarter in range(-4 * 48, 4 * 72)]
            moment = func.unnest(literal(moments, ARRAY(TIME))).column_valued("moment")
            begin = bucket_begin(bucket_start(moment, length, zone), zone)
            found = [tuple(row) for row in await connection.execute(select(moment, begin))]
            assert found == [(each, model.bucket_begin(each, length, zone)) for each in moments], (zone, change)
