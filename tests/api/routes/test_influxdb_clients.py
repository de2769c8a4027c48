"""InfluxDB's own Python clients, unmodified, against a running server (docs/reference/http-api.md#influxdbs-calls)."""

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import influxdb_client
import pytest
import uvicorn
from influxdb.exceptions import InfluxDBClientError
from influxdb_client.client.write_api import SYNCHRONOUS, WriteOptions
from influxdb_client.rest import ApiException
from pydantic import SecretStr

import influxdb
from factory_logs.app import create_app
from factory_logs.db.engine import Database
from factory_logs.permissions import Level
from factory_logs.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

WHEN = datetime(2024, 1, 31, 13, 45, 0, 123456, tzinfo=UTC)
IMEI = "352099001761481"


@pytest.fixture(scope="module")
def port(migrated_url: str, _no_settings_of_the_developer: None) -> Iterator[int]:
    """Run a server in a separate thread."""
    app = create_app(Settings().model_copy(update={"database_url": SecretStr(migrated_url), "access_log": False}))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level=logging.CRITICAL, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()


@pytest.fixture
def token(database: Database, tokens: dict[Level, str]) -> str:
    return tokens[Level.SYSTEM]


def stored(port: int, token: str) -> list[dict[str, object]]:
    response = httpx.get(
        f"http://127.0.0.1:{port}/v1/factory_logs",
        params={"results_per_page": 100},
        headers={"Authorization": f"Token token={token}"},
        timeout=60,
    )
    objects: list[dict[str, object]] = response.json()["objects"]
    return objects


# The client of version 1


@contextlib.contextmanager
def version_1(port: int, token: str, **options: object) -> Iterator[influxdb.InfluxDBClient]:
    client = influxdb.InfluxDBClient("127.0.0.1", port, "jig-07", token, "jigs", timeout=60, **options)
    try:
        yield client
    finally:
        client.close()


def test_client_1_connects(port: int, token: str) -> None:
    with version_1(port, token) as client:
        assert client.ping() == "1.8.10"
        client.create_database("jigs")
        assert client.get_list_database() == [{"name": "factory_logs"}]
        client.switch_database("another")


@pytest.mark.parametrize("packed", [False, True])
def test_client_1_writes_points(port: int, token: str, packed: bool) -> None:
    points = [
        {
            "measurement": "tiger, the jig",
            "tags": {"product_imei": IMEI, "jig id": "J=07, second"},
            "time": WHEN,
            "fields": {"passed": True, "voltage": 3.28, "cycles": 12, "note": 'two\nlines, "quoted" \\'},
        }
    ]
    with version_1(port, token, gzip=packed) as client:
        assert client.write_points(points)
        assert client.write_points(points * 2, time_precision="ms", tags={"host": "CN-REG03"}, batch_size=1)
    first, *others = stored(port, token)
    assert (first["app_name"], first["product_imei"], first["timestamp"]) == (
        "tiger, the jig", IMEI, "2024-01-31 13:45:00.123456",
    )  # fmt: skip
    assert first["tags"] == {"jig id": "J=07, second"}
    # This client sends a line end as a backslash and an n, and InfluxDB stores these two characters too.
    assert first["fields"] == points[0]["fields"] | {"note": 'two\\nlines, "quoted" \\'}
    assert [log["timestamp"] for log in others] == ["2024-01-31 13:45:00.123000"] * 2
    assert others[0]["tags"] == {"jig id": "J=07, second", "host": "CN-REG03"}


def test_client_1_raises_the_error(port: int, token: str) -> None:
    with version_1(port, token) as client, pytest.raises(InfluxDBClientError, match="product_imei: expected") as error:
        client.write_points(["m f=1 1", "m,product_imei=12 f=1 1"], protocol="line")
    assert (error.value.code, len(stored(port, token))) == (400, 1)
    with version_1(port, "x" * 64) as client, pytest.raises(InfluxDBClientError, match="unknown, revoked") as error:
        client.write_points(["m f=1 1"], protocol="line")
    assert error.value.code == 401


# The client of version 2


def version_2(port: int, token: str, **options: object) -> influxdb_client.InfluxDBClient:
    return influxdb_client.InfluxDBClient(
        f"http://127.0.0.1:{port}", token=token, org="factory", timeout=60_000, **options
    )


@pytest.mark.parametrize("packed", [False, True])
def test_client_2_writes_points_at_once(port: int, token: str, packed: bool) -> None:
    point = (
        influxdb_client.Point("koala, the jig")
        .tag("product_imei", IMEI)
        .tag("jig id", "J=07, second")
        .field("passed", True)
        .field("voltage", 3.28)
        .field("cycles", 12)
        .field("note", 'two\nlines, "quoted" \\')
        .time(WHEN)
    )
    with version_2(port, token, enable_gzip=packed) as client:
        assert client.ping()
        assert client.version() == "1.8.10"
        assert client.health().status == "pass"
        with client.write_api(write_options=SYNCHRONOUS) as api:
            api.write("jigs", record=point)
            api.write("jigs", record=[point, point], write_precision=influxdb_client.WritePrecision.S)
    logs = stored(port, token)
    assert [log["app_name"] for log in logs] == ["koala, the jig"] * 3
    assert (logs[0]["product_imei"], logs[0]["timestamp"]) == (IMEI, "2024-01-31 13:45:00.123456")
    assert logs[0]["tags"] == {"jig id": "J=07, second"}
    assert logs[0]["fields"] == {"passed": True, "voltage": 3.28, "cycles": 12, "note": 'two\nlines, "quoted" \\'}


def test_client_2_writes_batches_in_the_background(port: int, token: str) -> None:
    outcomes: list[str] = []
    with (
        version_2(port, token) as client,
        client.write_api(
            write_options=WriteOptions(batch_size=10, flush_interval=50),
            success_callback=lambda conf, data: outcomes.append("stored"),
            error_callback=lambda conf, data, error: outcomes.append(str(error)),
        ) as api,
    ):
        for number in range(35):
            api.write("jigs", record=f"m n={number}i {number}")
    assert set(outcomes) == {"stored"}
    assert sorted(log["fields"]["n"] for log in stored(port, token)) == list(range(35))  # type: ignore[index]


def test_client_2_raises_the_error(port: int, token: str) -> None:
    with version_2(port, token) as client, client.write_api(write_options=SYNCHRONOUS) as api:
        with pytest.raises(ApiException) as error:
            api.write("jigs", record=["m f=1 1", "m f= 1"])
        assert (error.value.status, len(stored(port, token))) == (400, 1)
        assert error.value.message.startswith("partial write: line 2: unable to parse")
    with version_2(port, "x" * 64) as client, client.write_api(write_options=SYNCHRONOUS) as api:
        with pytest.raises(ApiException) as error:
            api.write("jigs", record="m f=1 1")
        assert error.value.status == 401


def test_client_2_retries_after_a_lost_response_and_the_points_are_stored_once(port: int, token: str) -> None:
    """A proxy forwards the first write and closes the connection before the response."""
    with losing_the_first_response(port) as proxy, version_2(proxy, token) as client:
        errors: list[object] = []
        options = WriteOptions(batch_size=2, flush_interval=50, retry_interval=100, jitter_interval=0, max_retries=3)
        with client.write_api(
            write_options=options,
            error_callback=lambda conf, data, error: errors.append(error),
        ) as api:
            api.write("jigs", record=["m n=1i 1", "m n=2i 2"])
        assert errors == []
    assert [log["fields"] for log in stored(port, token)] == [{"n": 1}, {"n": 2}]


@contextlib.contextmanager
def losing_the_first_response(port: int) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        responses = 0
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, socket.create_connection(("127.0.0.1", port)) as server:
                while request := client.recv(65536):
                    server.sendall(request)
                    if request.endswith(b"\r\n\r\n") and b"POST" in request:
                        continue  # the body has not arrived yet
                    response = server.recv(65536)
                    responses += 1
                    assert b" 204 " in response
                    if responses > 1:
                        client.sendall(response)
                    break

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(60)
