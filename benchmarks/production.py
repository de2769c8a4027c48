"""The logs for the read benchmarks: units that pass along a production line, forty at a time, each with 250 logs.

The logs of a unit are equally close together in a table of any size, and for all sizes the same number of units is
queried, spread over the whole table. So the tables differ only in the number of other logs.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from benchmarks.seeding import STEP, filling

AT_A_TIME = 40
LOGS_PER_UNIT = 250
TOGETHER = AT_A_TIME * LOGS_PER_UNIT
"""The number of logs written while the same units are on the line."""
SECONDS_TOGETHER = 11_000
MOST_ASKED = 400
FIRST_IMEI = 352099000000000
SINCE = datetime(2024, 1, 31, 1, tzinfo=UTC)
"""An hour after the first units arrived: a third of their logs is older."""

_SEED = f"""
INSERT INTO factory_logs (app_name, product_imei, timestamp, tags, fields, created_by)
SELECT 'tiger_test_jig_production', ({FIRST_IMEI} + n / {TOGETHER} * {AT_A_TIME} + n % {AT_A_TIME})::text,
    timestamp '2024-01-31' + n * interval '{SECONDS_TOGETHER / TOGETHER} s',
    '{{"jig_id": "J-07", "machine_id": "M-3", "hostname": "CN-REG03", "user": "li.wei", "version": "2.4.1"}}',
    jsonb_build_object('passed', n % 50 <> 0, 'input_pv', jsonb_build_object('value', 17.82 + n % 7, 'pass', true),
        'output_usb', '{{"value": 5.03, "pass": true}}'::jsonb,
        'output_12v', '{{"value": 12.11, "pass": true}}'::jsonb),
    'admin'
FROM generate_series($1::bigint, $2::bigint) AS n
"""


async def fill(database_url: str, logs: int) -> None:
    """Fill the table up to `logs` logs, with ids from 1."""
    async with filling(database_url) as connection:
        for first in range(0, logs, STEP):
            await connection.execute(_SEED, first, min(first + STEP, logs) - 1, timeout=None)


@dataclass(frozen=True, slots=True)
class Units:
    """The units that are queried in a table of `logs` logs: every n-th of all units."""

    asked: int
    every: int

    @classmethod
    def of(cls, logs: int) -> "Units":
        units = logs // LOGS_PER_UNIT
        return cls(min(units, MOST_ASKED), max(1, units // MOST_ASKED))

    @property
    def page_sql(self) -> str:
        """Return a pgbench script: for a random unit, the count of its later logs and the first hundred of them."""
        where = f"product_imei = :imei::text AND timestamp >= timestamp '{SINCE:%F %T}' + :seconds * interval '1 s'"
        return f"""\\set unit random(0, {self.asked - 1}) * {self.every}
            \\set imei {FIRST_IMEI} + :unit
            \\set seconds :unit / {AT_A_TIME} * {SECONDS_TOGETHER}
            SELECT count(*) FROM factory_logs WHERE {where};
            SELECT * FROM factory_logs WHERE {where} ORDER BY factory_log_id LIMIT 100;
        """.replace("  ", "")

    @property
    def page_script(self) -> str:
        """Return a wrk script that makes the same queries through the API."""
        filters = [
            {"name": "product_imei", "op": "==", "val": "UNIT"},
            {"name": "timestamp", "op": ">=", "val": "TIME"},
        ]
        q = quote(json.dumps({"filters": filters}))
        return f"""function request()
            local unit = math.random(0, {self.asked - 1}) * {self.every}
            local since = {SINCE.timestamp():.0f} + math.floor(unit / {AT_A_TIME}) * {SECONDS_TOGETHER}
            local imei = string.format("%.0f", {FIRST_IMEI} + unit)
            local values = {{UNIT = imei, TIME = os.date("!%Y-%m-%dT%H:%M:%S", since)}}
            local q = string.gsub("{q}", "%u%u%u%u", values)
            return wrk.format(nil, wrk.path .. "?results_per_page=100&q=" .. q)
        end"""

    @property
    def first_page(self) -> str:
        """Return the path of one such page, for the peer that sends its bytes from memory."""
        filters = [
            {"name": "product_imei", "op": "==", "val": str(FIRST_IMEI)},
            {"name": "timestamp", "op": ">=", "val": f"{SINCE:%F %T}"},
        ]
        return f"/v1/factory_logs?results_per_page=100&q={quote(json.dumps({'filters': filters}))}"
