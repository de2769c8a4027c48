"""The reader on a real server: each log once despite broken links, results as rows and DataFrames, clear errors."""

import csv
import json
import random
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import orjson
import pandas
import pytest

from factory_logs.client import ClientError, PandasMissingError, Reader, ResultRows, ServerUnavailableError
from factory_logs.client.read_results import LOG_COLUMNS
from factory_logs.client.retry import Backoff
from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.errors import BadRequestError, ForbiddenError, NotFoundError, UnauthenticatedError
from factory_logs.permissions import Level
from factory_logs.security.tokens import issue_token
from tests.client.links import Cutting
from tests.client.reading import IMEIS, attempts, numbered, store
from tests.client.servers import BadLink, Server

Rows = Callable[[ResultRows], ResultRows]


def quick() -> Backoff:
    return Backoff(0.001, 0.01, random.Random(1))


@pytest.fixture
def reader(shared_server: Server, token: str) -> Iterator[Reader]:
    with Reader(shared_server.url, token) as reader:
        yield reader


class TestLogs:
    @pytest.mark.parametrize("seed", [1, 3])
    def test_each_log_is_returned_once_and_in_order_over_an_unreliable_link(
        self, shared_server: Server, token: str, seed: int
    ) -> None:
        ids = store(shared_server, token, numbered(950))
        troubles: list[str] = []
        with (
            BadLink(shared_server.port, seed) as link,
            Reader(link.url, token, on_trouble=troubles.append, backoff=quick()) as reader,
        ):
            by_id = [log["factory_log_id"] for log in reader.logs()]
            by_time = [log["factory_log_id"] for log in reader.logs({"order_by": [{"field": "timestamp"}]})]
        assert by_id == ids
        assert by_time == ids[::-1]
        assert link.cuts > 0
        assert troubles

    def test_a_truncated_page_or_export_is_requested_again(self, shared_server: Server, token: str) -> None:
        ids = store(shared_server, token, numbered(450))
        link, troubles = Cutting(), list[str]()
        with Reader(shared_server.url, token, transport=link, on_trouble=troubles.append, backoff=quick()) as reader:
            assert [log["factory_log_id"] for log in reader.logs()] == ids
            assert (link.responses, len(troubles)) == (10, 5)
            groups = reader.logs({"group_by": [{"field": "product_imei"}]})
            assert sorted(log["fields"]["n"] for log in groups) == [0, 1, 2]
            assert (link.responses, len(troubles)) == (12, 6)

    def test_each_group_is_returned_once_over_an_unreliable_link(self, shared_server: Server, token: str) -> None:
        ids = store(shared_server, token, numbered(300))
        newest_of_each = {"group_by": [{"field": "fields__n"}], "order_by": [{"field": "fields__n"}]}
        with BadLink(shared_server.port, 4) as link, Reader(link.url, token, backoff=quick()) as reader:
            assert [log["factory_log_id"] for log in reader.logs(newest_of_each)] == ids
            assert link.cuts > 0

    @pytest.mark.slow
    def test_an_iteration_survives_a_killed_server_and_leaves_out_logs_stored_meanwhile(
        self, migrated_url: str, token: str, tmp_path: Path
    ) -> None:
        server = Server(migrated_url, tmp_path / "log")
        server.start()
        server.wait()
        try:
            ids = store(server, token, numbered(250))
            troubles: list[str] = []

            def on_trouble(why: str) -> None:
                troubles.append(why)
                if not server.is_running:
                    server.start()

            with Reader(server.url, token, on_trouble=on_trouble, backoff=Backoff(0.2, 1.0)) as reader:
                logs = iter(reader.logs())
                found = [log["factory_log_id"] for log in islice(logs, 100)]
                store(server, token, numbered(10))
                server.kill()
                found += [log["factory_log_id"] for log in logs]
        finally:
            server.stop()
        assert found == ids
        assert troubles

    def test_q_may_be_an_object_or_text_and_each_iteration_reads_again(
        self, reader: Reader, shared_server: Server, token: str
    ) -> None:
        store(shared_server, token, numbered(250))
        q = {"order_by": [{"field": "fields__n", "direction": "desc"}], "limit": 150, "offset": 20}
        expected = list(range(229, 79, -1))
        logs = reader.logs(q)
        assert [log["fields"]["n"] for log in logs] == expected
        assert [log["fields"]["n"] for log in reader.logs(json.dumps(q))] == expected
        store(shared_server, token, [{"app_name": "jig", "timestamp": "2024-02-01", "fields": {"n": 250}}])
        assert [log["fields"]["n"] for log in logs] == [n + 1 for n in expected]

    def test_an_empty_result_is_not_an_error(self, reader: Reader) -> None:
        assert list(reader.logs()) == []

    @pytest.mark.parametrize("q", ["{", '{"filters": 1}', '{"filters": [{"name": "nope", "op": "==", "val": 1}]}'])
    def test_an_invalid_q_is_an_error_with_the_servers_message(self, reader: Reader, q: str) -> None:
        with pytest.raises(BadRequestError, match="Unable to"):
            list(reader.logs(q))


class TestDataFrames:
    def test_logs_have_a_column_for_each_path_with_its_type(
        self, reader: Reader, shared_server: Server, token: str
    ) -> None:
        logs = [
            {"app_name": "jig", "timestamp": "2024-01-31 13:45:00.123456",
             "tags": {"jig_id": "J-07"}, "fields": {"passed": True, "battery": {"voltage": 3.28}, "n": 2**62 + 1}},
            {"app_name": "jig", "timestamp": "2024-01-31 13:46:00", "fields": {"passed": False, "list": [1, 2]}},
            {"app_name": "jig", "timestamp": "2024-01-31 13:47:00", "fields": "text"},
        ]  # fmt: skip
        store(shared_server, token, logs)
        frame = reader.logs().dataframe()
        paths = {"tags__jig_id", "fields__passed", "fields__battery__voltage", "fields__n", "fields__list", "fields"}
        assert list(frame.columns)[:9] == [name for name in LOG_COLUMNS if name not in ("tags", "fields")]
        assert set(frame.columns[9:]) == paths
        assert frame["timestamp"].tolist()[0] == pandas.Timestamp("2024-01-31 13:45:00.123456", tz="UTC")
        assert frame["fields__n"].tolist()[0] == 2**62 + 1
        assert frame["fields__passed"].dtype == "boolean"
        assert len(frame[frame["fields__passed"]]) == 1
        assert frame["fields__battery__voltage"].mean() == 3.28
        assert frame["fields"].tolist()[2] == "text"

    def test_results_have_times_in_utc(self, reader: Reader, shared_server: Server, token: str) -> None:
        store(shared_server, token, attempts())
        frame = reader.yields(bucket="1d", by="tags__jig").dataframe()
        assert frame["bucket"].tolist()[0] == pandas.Timestamp("2024-01-30", tz="UTC")
        assert frame.set_index("tags__jig")["units"].groupby(level=0).sum().to_dict() == {"J-1": 1, "J-2": 2}
        assert reader.unit(IMEIS[0]).dataframe()["first"].tolist() == [pandas.Timestamp("2024-01-30 10:00", tz="UTC")]

    def test_no_rows_make_an_empty_frame_with_its_columns(self, reader: Reader) -> None:
        assert list(reader.logs().dataframe().columns)[:2] == ["factory_log_id", "app_name"]
        found = reader.yields(bucket="1h", by="app_name")
        assert list(found.dataframe().columns) == list(found.columns)
        assert len(found.dataframe()) == 0

    def test_without_pandas_the_error_names_the_extra_to_install(
        self, reader: Reader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pandas", None)
        for frame in (reader.logs().dataframe, reader.yields().dataframe):
            with pytest.raises(PandasMissingError, match=r"pip install 'factory-logs\[pandas\]'"):
                frame()


RESULTS: list[tuple[str, dict[str, Any], Callable[[Reader], ResultRows]]] = [
    ("factory_logs/yield", {"bucket": "1d", "by": ["app_name", "tags__jig"], "tz": "Asia/Shanghai"},
     lambda reader: reader.yields(bucket="1d", by=["app_name", "tags__jig"], tz="Asia/Shanghai")),
    ("factory_logs/yield", {"unit": "tags__jig", "passed": "fields__volt__pass"},
     lambda reader: reader.yields(unit="tags__jig", passed="fields__volt__pass")),
    ("factory_logs/stats", {"bucket": "1h", "by": "tags__jig", "field": ["fields__volt__value", "fields__passed"]},
     lambda reader: reader.stats(bucket="1h", by="tags__jig", field=["fields__volt__value", "fields__passed"])),
    ("factory_logs/stats", {"bucket": "1d", "tz": "Asia/Shanghai"},
     lambda reader: reader.stats(bucket="1d", tz="Asia/Shanghai")),
    ("factory_logs/failures", {"limit": 5}, lambda reader: reader.failures(limit=5)),
    ("factory_logs/failures", {"unit": "tags__jig", "passed": "fields__passed"},
     lambda reader: reader.failures(unit="tags__jig", passed="fields__passed")),
    ("factory_logs/distribution",
     {"field": "fields__volt__value", "bins": 2, "by": "app_name", "lower": 3.0, "upper": 3.6},
     lambda reader: reader.distribution("fields__volt__value", by="app_name", bins=2, lower=3.0, upper=3.6)),
    ("factory_logs/facets", {"field": ["tags__jig", "app_name"], "limit": 1},
     lambda reader: reader.facets(["tags__jig", "app_name"], limit=1)),
    ("factory_logs/catalog", {}, lambda reader: reader.catalog()),
    (f"units/{IMEIS[1]}", {}, lambda reader: reader.unit(IMEIS[1])),
]  # fmt: skip


def cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return orjson.dumps(value).decode()


class TestResults:
    @pytest.mark.parametrize(("path", "asked", "read"), RESULTS, ids=[path for path, _, _ in RESULTS])
    def test_a_result_has_the_json_body_and_the_csv_rows(
        self, reader: Reader, shared_server: Server, token: str,
        path: str, asked: dict[str, Any], read: Callable[[Reader], ResultRows],
    ) -> None:  # fmt: skip
        store(shared_server, token, attempts())
        headers = {"Authorization": f"Token {token}"}
        url = f"{shared_server.url}/v1/{path}"
        table = (
            httpx.get(url, params=asked, headers=headers | {"Accept": "text/csv"}, timeout=60).raise_for_status().text
        )
        names, *rows = csv.reader(table.splitlines())
        found = read(reader)
        assert found.body == httpx.get(url, params=asked, headers=headers, timeout=60).json()
        assert list(found.columns) == names
        assert [[cell(row.get(name)) for name in names] for row in found] == rows
        assert len(found) == len(found.dataframe()) == len(rows) > 0

    def test_q_selects_in_each_call(self, reader: Reader, shared_server: Server, token: str) -> None:
        store(shared_server, token, attempts())
        q = {"filters": [{"name": "tags__jig", "op": "==", "val": "J-2"}]}
        assert reader.yields(q).body["total"]["attempts"] == 2
        assert reader.stats(q)[0]["count"] == 2
        assert reader.failures(q).body["failed_attempts"] == 2
        assert reader.distribution("fields__volt__value", q)[0]["max"] == 3.1
        assert reader.facets("tags__jig", q)[0:] == [{"field": "tags__jig", "value": "J-2", "count": 2}]


class TestErrors:
    def refused(self, shared_server: Server, token: str, ask: Callable[[Reader], object], kind: type[Exception]) -> str:
        troubles: list[str] = []
        with (
            Reader(shared_server.url, token, on_trouble=troubles.append) as reader,
            pytest.raises(kind) as raised,
        ):
            ask(reader)
        assert troubles == []
        return str(raised.value) + "; ".join(error.field for error in getattr(raised.value, "errors", ()))

    def test_a_400_names_the_parameter(self, shared_server: Server, token: str) -> None:
        words = self.refused(shared_server, token, lambda reader: reader.yields(bucket="1 day"), BadRequestError)
        assert "bucket" in words

    def test_a_401_is_an_error_that_the_token_is_refused(self, shared_server: Server, database: Database) -> None:
        assert "token" in self.refused(shared_server, "x" * 64, lambda reader: reader.catalog(), UnauthenticatedError)

    async def test_a_token_that_may_only_write_gets_a_403(
        self, shared_server: Server, database: Database, password_hash: str
    ) -> None:
        user = await UserRepository(database).create("jig-08", "Jig 8", password_hash, Level.SYSTEM)
        only_write = await issue_token(database, user.user_id, expires_at=None, only_write=True)
        assert self.refused(shared_server, only_write, lambda reader: list(reader.logs()), ForbiddenError)

    def test_an_unknown_unit_gets_a_404(self, shared_server: Server, token: str) -> None:
        words = self.refused(shared_server, token, lambda reader: reader.unit("352099001761481"), NotFoundError)
        assert "352099001761481" in words

    def test_a_slash_in_an_imei_does_not_change_the_path(self, shared_server: Server, token: str) -> None:
        self.refused(shared_server, token, lambda reader: reader.unit("../factory_logs/stats"), NotFoundError)


class TestCredentials:
    def test_the_environment_names_server_and_token_as_for_the_device_commands(
        self, shared_server: Server, token: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("FACTORY_LOGS_URL", shared_server.url)
        monkeypatch.setenv("FACTORY_LOGS_TOKEN", token)
        with Reader() as reader:
            assert reader.catalog().body == {"apps": []}
        monkeypatch.delenv("FACTORY_LOGS_TOKEN")
        (tmp_path / "token").write_text(f"{token}\n")
        monkeypatch.setenv("FACTORY_LOGS_TOKEN_FILE", str(tmp_path / "token"))
        with Reader() as reader:
            assert reader.catalog().body == {"apps": []}

    def test_the_reader_can_log_in(self, shared_server: Server, token: str) -> None:
        with Reader(shared_server.url, username="jig-07", password="open sesame") as reader:
            assert reader.catalog().body == {"apps": []}

    def test_a_refused_login_and_an_unreadable_token_file_are_not_retried(
        self, shared_server: Server, token: str, tmp_path: Path
    ) -> None:
        with (
            Reader(shared_server.url, username="jig-07", password="wrong") as reader,
            pytest.raises(UnauthenticatedError, match="username and password"),
        ):
            reader.catalog()
        with (
            Reader(shared_server.url, token_file=tmp_path / "none") as reader,
            pytest.raises(UnauthenticatedError, match="cannot be read"),
        ):
            reader.catalog()

    def test_no_credentials_and_no_url_are_value_errors(self) -> None:
        with pytest.raises(ValueError, match="FACTORY_LOGS_TOKEN_FILE"):
            Reader("http://logs.test")
        with pytest.raises(ValueError, match="URL"):
            Reader(token="t")


class Scripted:
    """A server that sends scripted responses; errors of this API get the id of the request."""

    def __init__(self, *responses: httpx.Response | Exception) -> None:
        self.responses = list(responses)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        response = self.responses.pop(0)
        if isinstance(response, Exception):
            raise response
        return response

    def reader(self, **options: Any) -> tuple[Reader, list[str]]:
        troubles: list[str] = []
        return Reader("http://logs.test/prefix/", "t", transport=httpx.MockTransport(self),
                      on_trouble=troubles.append, **({"backoff": quick()} | options)), troubles  # fmt: skip


def ours(status: int, message: str, **headers: str) -> httpx.Response:
    return httpx.Response(
        status, json={"message": message, "request_id": "r-1"}, headers={"X-Request-ID": "r-1", **headers}
    )


EMPTY = {"apps": []}


class TestResponsesOfOthers:
    def test_only_responses_of_this_api_are_accepted(self) -> None:
        server = Scripted(
            httpx.Response(200, html="<h1>Sign in to the guest network</h1>"),
            httpx.Response(200, json={"status": "ok"}),
            httpx.Response(401, json={"message": "who are you?"}),
            httpx.Response(404, html="<h1>no route</h1>"),
            ours(503, "busy", **{"Retry-After": "0"}),
            ours(500, "Internal error"),
            httpx.ConnectError("unreachable"),
            httpx.Response(200, json=EMPTY),
        )
        reader, troubles = server.reader()
        assert reader.catalog().body == EMPTY
        assert len(troubles) == 7
        assert "is not a response of this API" in troubles[0]
        assert server.requests[0].url == "http://logs.test/prefix/v1/factory_logs/catalog"
        assert len({request.headers["x-request-id"] for request in server.requests}) == 8

    def test_a_retry_after_is_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        waits: list[float] = []
        monkeypatch.setattr("factory_logs.client.reader.time.sleep", waits.append)
        server = Scripted(ours(503, "busy", **{"Retry-After": "7"}), httpx.Response(200, json=EMPTY))
        server.reader()[0].catalog()
        (wait,) = waits
        assert 7 <= wait < 8

    def test_it_gives_up_after_its_time_limit_or_if_retry_after_exceeds_it(self) -> None:
        with pytest.raises(ServerUnavailableError, match="within 0 s: ConnectError: unreachable"):
            Scripted(httpx.ConnectError("unreachable")).reader(patience_seconds=0)[0].catalog()
        with pytest.raises(ServerUnavailableError, match="away"):
            Scripted(ours(503, "away", **{"Retry-After": "3600"})).reader(patience_seconds=60)[0].catalog()

    def test_a_query_that_took_too_long_is_not_retried(self) -> None:
        server = Scripted(ours(503, "The query ran longer than 30 s: narrow it", **{"Retry-After": "1"}))
        with pytest.raises(ServerUnavailableError, match="narrow it"):
            server.reader()[0].catalog()

    def test_a_proxy_that_removes_the_link_to_the_next_page_is_an_error_and_not_the_end(self) -> None:
        page = {"num_results": 200, "total_pages": 2, "page": 1, "objects": [{"factory_log_id": 1}] * 100}
        reader, _ = Scripted(httpx.Response(200, json=page)).reader()
        with pytest.raises(ClientError, match="Link"):
            list(reader.logs())

    def test_the_next_page_is_requested_from_the_same_server_despite_another_address_in_the_link(self) -> None:
        page = {"num_results": 2, "total_pages": 2, "page": 1, "objects": [{"factory_log_id": 1}]}
        link = '<http://10.0.0.1:8000/v1/factory_logs?q=%7B%7D&cursor=abc-_&results_per_page=1>; rel="next"'
        server = Scripted(
            httpx.Response(200, json=page, headers={"Link": link}),
            httpx.Response(200, json=page | {"page": 2, "objects": [{"factory_log_id": 2}]}),
        )
        reader, _ = server.reader()
        assert [log["factory_log_id"] for log in reader.logs("{}")] == [1, 2]
        assert server.requests[1].url.host == "logs.test"
        assert dict(server.requests[1].url.params) == {"cursor": "abc-_", "results_per_page": "100", "q": "{}"}

    def test_a_revoked_login_is_renewed_once(self) -> None:
        def login(token: str) -> httpx.Response:
            success = {"API_token": token, "token_expiry": "Mon, 01 Aug 2044 17:05:11 GMT"}
            return httpx.Response(200, json={"message": {"login_successful": success}})

        ended = ours(401, "The token is unknown")
        server = Scripted(login("first"), ended, login("second"), httpx.Response(200, json=EMPTY))
        reader = Reader("http://logs.test", username="u", password="p", transport=httpx.MockTransport(server))
        assert reader.catalog().body == EMPTY
        refusing = Scripted(login("first"), ended, login("second"), ended)
        reader = Reader("http://logs.test", username="u", password="p", transport=httpx.MockTransport(refusing))
        with pytest.raises(UnauthenticatedError, match="The token is unknown"):
            reader.catalog()
