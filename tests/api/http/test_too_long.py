"""A query that exceeds the statement timeout is a 503 that names the part to narrow
(docs/reference/http-api.md#errors)."""

import asyncio
from dataclasses import dataclass

import pytest

from factory_logs.db.engine import Database
from factory_logs.permissions import Level
from tests.api.conftest import client_of, worker
from tests.locking import locked

SECONDS = 2.0


@dataclass(frozen=True)
class Kind:
    """A query, and the advice that its error contains."""

    path: str
    named: str
    accept: str = "application/json"


VOLTAGE = 'q={"filters": [{"name": "fields__voltage", "op": ">", "val": 3}]}'
PROCESS = 'q={"filters": [{"name": "process", "op": "==", "val": "Replaced"}]}'
SORTED = 'q={"order_by": [{"field": "tags__jig_id"}]}'
COLUMNS = "add a filter by app_name, product_imei, repair_id or timestamp"
KINDS = {
    "a page": Kind(f"factory_logs?{VOLTAGE}", f"fields__voltage; {COLUMNS}"),
    "a page of everything": Kind("factory_logs", f"q selects all records; {COLUMNS}"),
    "a traversal": Kind(f"factory_logs?cursor=&{SORTED}", f"order_by tags__jig_id sorts all that q selects; {COLUMNS}"),
    "a single log": Kind(f'factory_logs?{VOLTAGE[:-1]}, "single": true}}', f"fields__voltage; {COLUMNS}"),
    "stats": Kind(f"factory_logs/stats?by=app_name&{VOLTAGE}", f"fields__voltage; {COLUMNS}"),
    "a yield": Kind(f"factory_logs/yield?{VOLTAGE}", f"fields__voltage; {COLUMNS}"),
    "failures": Kind(f"factory_logs/failures?{VOLTAGE}", f"fields__voltage; {COLUMNS}"),
    "a distribution": Kind(f"factory_logs/distribution?field=fields__v&{VOLTAGE}", f"fields__voltage; {COLUMNS}"),
    "facets": Kind(f"factory_logs/facets?field=app_name&{VOLTAGE}", f"fields__voltage; {COLUMNS}"),
    "the catalog": Kind("factory_logs/catalog", f"q selects all records; {COLUMNS}"),
    "an export": Kind(f"factory_logs?{VOLTAGE}", f"fields__voltage; {COLUMNS}", "application/x-ndjson"),
    "an export as CSV": Kind(
        f"factory_logs?{SORTED}", f"order_by tags__jig_id sorts all that q selects; {COLUMNS}", "text/csv"
    ),
    "repairs": Kind(f"repairs?{PROCESS}", "process; add a filter by product_imei"),
    "a traversal of repairs": Kind(f"repairs?cursor=&{PROCESS}", "process; add a filter by product_imei"),
}


@pytest.mark.slow
async def test_every_kind_of_read_that_takes_too_long_has_index_advice(
    database: Database, migrated_url: str, tokens: dict[Level, str]
) -> None:
    async with (
        worker(migrated_url, statement_timeout_seconds=SECONDS, pool_timeout_seconds=60.0) as app,
        client_of(app, tokens[Level.OVERVIEW]) as client,
        locked(migrated_url),
    ):
        asked = [client.get(f"/v1/{kind.path}", headers={"Accept": kind.accept}) for kind in KINDS.values()]
        responses = dict(zip(KINDS, await asyncio.gather(*asked), strict=True))
    for name, response in responses.items():
        assert response.status_code == 503, (name, response.text)
        assert response.headers["retry-after"]
        message = response.json()["message"]
        assert message.startswith("The query ran longer than 2 s: "), (name, message)
        assert message.endswith(KINDS[name].named), (name, message)
