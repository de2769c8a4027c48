"""The Python package `influxdb`, unmodified, reads its own points from Factory Logs and from InfluxDB 1.6.

InfluxDB is skipped if it is not installed; the expected values are the same for both.
"""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pandas as pd
import pytest
from influxdb.exceptions import InfluxDBClientError
from requests.exceptions import HTTPError

from influxdb import DataFrameClient, InfluxDBClient
from tests.influxd import Influxd
from tests.threaded import OwnDatabase, client_in_thread, own_database

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::ResourceWarning",
    "ignore::FutureWarning",
    "ignore::pandas.errors.Pandas4Warning",
)

START = datetime(2024, 1, 31, 13, 0, tzinfo=UTC)
IMEI = "352099001761481"
DATABASE = "factory_logs"


class Server(NamedTuple):
    """The address of a server, and the password that it accepts."""

    name: str
    port: int
    token: str

    def client(self) -> InfluxDBClient:
        return InfluxDBClient("127.0.0.1", self.port, "jig-07", self.token, DATABASE, timeout=120)

    def frames(self) -> DataFrameClient:
        return DataFrameClient("127.0.0.1", self.port, "jig-07", self.token, DATABASE, timeout=120)


@pytest.fixture(scope="module")
async def clients_database(postgres_url: str, _no_settings_of_the_developer: None) -> AsyncIterator[OwnDatabase]:
    async with own_database(postgres_url, "influxql_clients") as database:
        yield database


@pytest.fixture(scope="module", params=["Factory Logs", "InfluxDB"])
def server(request: pytest.FixtureRequest, clients_database: OwnDatabase) -> Iterator[Server]:
    """Yield a server with ten logs of two jigs, one a minute, written by the client."""
    if request.param == "InfluxDB":
        influxd: Influxd = request.getfixturevalue("influxd")
        influxd.http.post("/query", params={"q": f"DROP DATABASE {DATABASE}"}).raise_for_status()
        server = Server(request.param, influxd.http.base_url.port or 0, "")
        fill(server)
        yield server
        influxd.http.post("/query", params={"q": f"DROP DATABASE {DATABASE}"}).raise_for_status()
    else:
        with client_in_thread(clients_database) as client:
            server = Server(request.param, client.base_url.port or 0, clients_database.token)
            fill(server)
            yield server


def fill(server: Server) -> None:
    points = [
        {
            "measurement": "tiger",
            "tags": {"jig_id": f"J-0{number % 2}", "product_imei": IMEI},
            "time": START + timedelta(minutes=number),
            "fields": {"passed": number != 3, "voltage": 3 + number / 8, "cycles": number, "note": f"n° {number}"},
        }
        for number in range(10)
    ]
    with server.client() as client:
        client.create_database(DATABASE)
        assert client.write_points(points)


@pytest.fixture
def client(server: Server) -> Iterator[InfluxDBClient]:
    with server.client() as client:
        yield client


def minute(number: int) -> str:
    return f"2024-01-31T13:{number:02}:00Z"


@pytest.mark.slow
def test_the_client_lists_the_existing_names(client: InfluxDBClient) -> None:
    assert {"name": DATABASE} in client.get_list_database()
    assert client.get_list_measurements() == [{"name": "tiger"}]
    series = [f"tiger,jig_id={jig},product_imei={IMEI}" for jig in ("J-00", "J-01")]
    assert client.get_list_series() == series
    assert client.get_list_series(measurement="tiger", tags={"jig_id": "J-01"}) == series[1:]
    (policy,) = client.get_list_retention_policies()
    assert (policy["name"], policy["duration"], policy["default"]) == ("autogen", "0s", True)


def test_points_are_dicts_by_column(client: InfluxDBClient) -> None:
    result = client.query("SELECT voltage, passed, note, cycles FROM tiger WHERE jig_id = 'J-01' LIMIT 2")
    assert list(result.get_points()) == [
        {"time": minute(1), "voltage": 3.125, "passed": True, "note": "n° 1", "cycles": 1},
        {"time": minute(3), "voltage": 3.375, "passed": False, "note": "n° 3", "cycles": 3},
    ]
    assert result.error is None


def test_groups_are_keys_with_their_tags(client: InfluxDBClient) -> None:
    result = client.query("SELECT mean(voltage), count(voltage) FROM tiger GROUP BY jig_id")
    assert [key for key, _ in result.items()] == [("tiger", {"jig_id": "J-00"}), ("tiger", {"jig_id": "J-01"})]
    assert list(result.get_points(tags={"jig_id": "J-01"})) == [
        {"time": "1970-01-01T00:00:00Z", "mean": 3.625, "count": 5}
    ]


@pytest.mark.parametrize(("epoch", "unit"), [("ns", 10**9), ("u", 10**6), ("ms", 10**3), ("s", 1)])
def test_times_are_numbers_in_the_unit_of_the_epoch(client: InfluxDBClient, epoch: str, unit: int) -> None:
    (point,) = client.query("SELECT last(voltage) FROM tiger", epoch=epoch).get_points()
    assert point == {"time": int((START + timedelta(minutes=9)).timestamp()) * unit, "last": 4.125}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_parameters_are_bound_and_never_part_of_the_statement(client: InfluxDBClient, method: str) -> None:
    statement = "SELECT voltage FROM tiger WHERE jig_id = $jig AND voltage >= $least AND time > $after"
    bound: dict[str, object] = {"jig": "J-00", "least": 3.5, "after": minute(4)}
    points = client.query(statement, bind_params=bound, method=method).get_points()
    assert [point["voltage"] for point in points] == [3.75, 4.0]
    hostile = bound | {"jig": "J-00' OR jig_id = 'J-01"}
    assert list(client.query(statement, bind_params=hostile, method=method).get_points()) == []


@pytest.mark.parametrize("chunk_size", [1, 3, 0])
def test_a_chunked_response_has_all_points(server: Server, client: InfluxDBClient, chunk_size: int) -> None:
    if server.name == "InfluxDB":
        pytest.skip("InfluxDB sends this client MessagePack, of which it cannot read several chunks")
    parts = client.query("SELECT cycles FROM tiger", chunked=True, chunk_size=chunk_size)
    chunks = [[point["cycles"] for point in part.get_points()] for part in parts]
    assert [len(part) for part in chunks] == [
        min(chunk_size or 10, 10 - start) for start in range(0, 10, chunk_size or 10)
    ]
    assert [cycles for part in chunks for cycles in part] == list(range(10))


def test_several_statements_are_several_results(client: InfluxDBClient) -> None:
    first, second, third = client.query("SELECT max(cycles) FROM tiger; SELECT x FROM nowhere; SHOW TAG KEYS")
    assert [point["max"] for point in first.get_points()] == [9]
    assert list(second.get_points()) == []
    assert [point["tagKey"] for point in third.get_points()] == ["jig_id", "product_imei"]


@pytest.mark.parametrize("statement", ["SELEC", "SELECT mean(note) FROM tiger", "SELECT voltage FROM tiger WHERE"])
def test_an_error_is_an_exception_with_the_message(client: InfluxDBClient, statement: str) -> None:
    with pytest.raises(InfluxDBClientError, match=r"error parsing query|unsupported mean iterator type"):
        client.query(statement)


def test_a_wrong_token_is_an_exception(server: Server) -> None:
    if server.name == "InfluxDB":
        pytest.skip("this InfluxDB has no users")
    with server._replace(token="x" * 64).client() as client, pytest.raises((InfluxDBClientError, HTTPError)) as error:
        client.query("SELECT voltage FROM tiger")
    assert getattr(error.value, "code", 401) == 401


def test_a_data_frame_is_indexed_by_time(server: Server) -> None:
    with server.frames() as client:
        frame = client.query("SELECT voltage, cycles, passed, note FROM tiger")["tiger"]
    assert list(frame.index) == [pd.Timestamp(START + timedelta(minutes=number)) for number in range(10)]
    assert list(frame.columns) == ["voltage", "cycles", "passed", "note"]
    assert frame["voltage"].dtype == float
    assert frame["cycles"].tolist() == list(range(10))
    assert frame["passed"].sum() == 9


def test_data_frames_of_groups_have_the_tags_in_their_keys(server: Server) -> None:
    with server.frames() as client:
        frames = client.query(
            "SELECT mean(voltage) FROM tiger WHERE time >= '2024-01-31T13:00:00Z' AND time < '2024-01-31T13:10:00Z' "
            "GROUP BY time(5m), jig_id"
        )
    assert frames.keys() == {("tiger", (("jig_id", "J-00"),)), ("tiger", (("jig_id", "J-01"),))}
    assert frames["tiger", (("jig_id", "J-00"),)]["mean"].tolist() == [3.25, 3.875]


def test_a_data_frame_is_equal_after_writing_and_reading(server: Server) -> None:
    times = pd.date_range("2024-02-01", periods=4, freq="h", tz="UTC", unit="ns")  # this client only writes this unit
    written = pd.DataFrame({"level": [1.5, 2.5, 3.5, 4.5], "batch": ["a", "a", "b", "b"]}, index=times)
    with server.frames() as client:
        assert client.write_points(written, "frame", tag_columns=["batch"])
        read = client.query("SELECT level, batch FROM frame")["frame"]
        means = client.query("SELECT mean(level) FROM frame GROUP BY batch")
    assert read["level"].tolist() == [1.5, 2.5, 3.5, 4.5]
    assert read["batch"].tolist() == ["a", "a", "b", "b"]
    assert read.index.equals(times.as_unit(read.index.unit))
    assert means["frame", (("batch", "b"),)]["mean"].tolist() == [4.0]
