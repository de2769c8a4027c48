"""Services for the tests of InfluxQL: one with the same points as InfluxDB, one with the example data."""

import csv
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.influxd import Influxd
from tests.influxql.points import DATABASE, IMEIS, lines
from tests.threaded import OwnDatabase, client_in_thread, own_database

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
async def points_database(postgres_url: str, _no_settings_of_the_developer: None) -> AsyncIterator[OwnDatabase]:
    async with own_database(postgres_url, "influxql_points") as database:
        yield database


@pytest.fixture(scope="session")
def both(points_database: OwnDatabase, influxd: Influxd) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Yield InfluxDB and the service with the same points; InfluxDB has no other database."""
    for name in influxd.databases():
        influxd.http.post("/query", params={"q": f'DROP DATABASE "{name}"'}).raise_for_status()
    influxd.http.post("/query", params={"q": f"CREATE DATABASE {DATABASE}"}).raise_for_status()
    with client_in_thread(points_database) as served:
        for imei in IMEIS:
            served.post("/v1/repairs", json={"product_imei": imei}).raise_for_status()
        body = "\n".join(lines(datetime.now(UTC).replace(microsecond=0))).encode()
        for server in (influxd.http, served):
            response = server.post("/write", params={"db": DATABASE}, content=body)
            assert response.status_code == 204, response.text
        yield influxd.http, served


@pytest.fixture(scope="session")
async def examples_database(postgres_url: str, _no_settings_of_the_developer: None) -> AsyncIterator[OwnDatabase]:
    async with own_database(postgres_url, "influxql_examples") as database:
        yield database


@pytest.fixture(scope="session")
def examples(examples_database: OwnDatabase) -> Iterator[httpx.Client]:
    """Yield a client of a service with the example data."""
    with client_in_thread(examples_database) as client:
        with (EXAMPLES / "repairs.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                repair: dict[str, object] = {name: value or None for name, value in row.items() if name != "repair_id"}
                if capacity := row["measured_battery_capacity"]:
                    repair["measured_battery_capacity"] = float(capacity)
                client.post("/v1/repairs", json=repair).raise_for_status()
        logs = (EXAMPLES / "factory_logs.ndjson").read_bytes()
        ndjson = {"Content-Type": "application/x-ndjson"}
        client.post("/v1/factory_logs", content=logs, headers=ndjson).raise_for_status()
        yield client
