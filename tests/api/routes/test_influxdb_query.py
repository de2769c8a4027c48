"""`GET` and `POST /query` run InfluxQL like InfluxDB 1.x."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from factory_logs.permissions import Level
from tests.api.conftest import client_of, worker

POINTS = """
tiger,jig_id=J-01,site=CN voltage=3.25,cycles=1i,passed=true 1706700000000000000
tiger,jig_id=J-02,site=CN voltage=3.5,cycles=2i,passed=false,note="a<b" 1706700060000000000
tiger,jig_id=J-01 voltage=3,cycles=4i 1706700120000000000
koala,product_imei=352099001761481 battery.voltage=4.5 1706700000000000000
"""


@pytest.fixture
async def reader(app: FastAPI, client: httpx.AsyncClient, tokens: dict[Level, str]) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client with the lowest permission, after writing some points."""
    written = await client.post("/write", params={"db": "t"}, content=POINTS)
    assert written.status_code == 204, written.text
    async with client_of(app, tokens[Level.OVERVIEW]) as reading:
        yield reading


async def query(client: httpx.AsyncClient, q: str, **more: str) -> httpx.Response:
    return await client.get("/query", params={"q": q, "db": "t", **more})


async def one(client: httpx.AsyncClient, q: str, **more: str) -> list[dict[str, Any]]:
    """Return the series of the only statement."""
    response = await query(client, q, **more)
    (result,) = response.json()["results"]
    assert "error" not in result, result
    return result.get("series", [])  # type: ignore[no-any-return]


async def test_select_returns_points_with_fields_and_tags(reader: httpx.AsyncClient) -> None:
    response = await query(reader, "SELECT * FROM tiger LIMIT 2")
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-influxdb-version"] == "1.8.10"
    assert response.text == (
        '{"results":[{"statement_id":0,"series":[{"name":"tiger",'
        '"columns":["time","cycles","jig_id","note","passed","site","voltage"],"values":'
        '[["2024-01-31T11:20:00Z",1,"J-01",null,true,"CN",3.25],'
        '["2024-01-31T11:21:00Z",2,"J-02","a\\u003cb",false,"CN",3.5]]}]}]}\n'
    )


async def test_select_returns_a_mean_by_time_and_tag(reader: httpx.AsyncClient) -> None:
    series = await one(
        reader,
        "SELECT mean(voltage) FROM tiger WHERE time >= 1706700000s AND time < 1706700180s GROUP BY time(1m), jig_id",
        epoch="s",
    )
    assert [(each["tags"], each["values"]) for each in series] == [
        ({"jig_id": "J-01"}, [[1706700000, 3.25], [1706700060, None], [1706700120, 3]]),
        ({"jig_id": "J-02"}, [[1706700000, None], [1706700060, 3.5], [1706700120, None]]),
    ]


async def test_show_lists_the_existing_names(reader: httpx.AsyncClient) -> None:
    assert (await one(reader, "SHOW MEASUREMENTS"))[0]["values"] == [["koala"], ["tiger"]]
    assert (await one(reader, "SHOW FIELD KEYS FROM koala"))[0]["values"] == [["battery.voltage", "float"]]
    assert (await one(reader, "SHOW TAG KEYS FROM koala"))[0]["values"] == [["product_imei"]]
    values = await one(reader, "SHOW TAG VALUES FROM tiger WITH KEY IN (jig_id, site) WHERE jig_id = 'J-02'")
    assert values[0]["values"] == [["jig_id", "J-02"], ["site", "CN"]]
    assert (await one(reader, "SHOW SERIES FROM tiger"))[0]["values"] == [
        ["tiger,jig_id=J-01"], ["tiger,jig_id=J-01,site=CN"], ["tiger,jig_id=J-02,site=CN"],
    ]  # fmt: skip


async def test_a_field_of_numbers_of_both_kinds_is_a_float(
    reader: httpx.AsyncClient, client: httpx.AsyncClient
) -> None:
    for value in (1, 2.5):
        log = {"app_name": "mixed", "timestamp": "2024-01-31", "fields": {"x": value, "y": [1], "z": None}}
        assert (await client.post("/v1/factory_logs", json=log)).status_code == 201
    assert (await one(reader, "SHOW FIELD KEYS FROM mixed"))[0]["values"] == [["x", "float"], ["x", "integer"]]
    assert (await one(reader, "SELECT sum(x) FROM mixed"))[0]["values"] == [["1970-01-01T00:00:00Z", 3.5]]


async def test_statements_after_one_that_fails_are_not_run(reader: httpx.AsyncClient) -> None:
    response = await query(reader, "SHOW DATABASES; SELECT mean(note) FROM tiger; SHOW DATABASES")
    results = response.json()["results"]
    assert response.status_code == 200
    assert [result["statement_id"] for result in results] == [0, 1, 2]
    assert "mean" in results[1]["error"]
    assert results[2]["error"] == "not executed"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("q", "error"),
    [
        ("SELECT", "found EOF, expected identifier, string, number, bool at line 1, char 8"),
        ("SELECT a FROM m WHERE a =~ /(/", "error parsing regexp: missing closing ): `(` at line 1, char 27"),
        ("SHOW FOO", "found FOO, expected CONTINUOUS, DATABASES, DIAGNOSTICS, FIELD, GRANTS, MEASUREMENT"),
    ],
)
async def test_text_that_is_not_influxql_gets_a_400(reader: httpx.AsyncClient, q: str, error: str) -> None:
    response = await query(reader, q)
    assert response.status_code == 400
    assert response.json()["error"].startswith(f"error parsing query: {error}")
    assert response.headers["x-influxdb-error"] in response.json()["error"]


async def test_a_request_without_a_query_or_a_database_is_an_error(reader: httpx.AsyncClient) -> None:
    response = await reader.get("/query")
    assert (response.status_code, response.json()) == (400, {"error": 'missing required parameter "q"'})
    response = await reader.get("/query", params={"q": "SHOW MEASUREMENTS"})
    assert response.json()["results"] == [{"statement_id": 0, "error": "database name required"}]


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "DROP DATABASE t", "DROP MEASUREMENT tiger", "DROP SERIES FROM tiger", "DELETE FROM tiger", "GRANT ALL TO a",
        "SELECT voltage INTO copied FROM tiger", "CREATE USER a WITH PASSWORD 'b'", "KILL QUERY 1",
        'CREATE CONTINUOUS QUERY "c" ON "t" BEGIN SELECT mean(a) INTO b FROM c GROUP BY time(1m) END',
        "EXPLAIN SELECT voltage INTO copied FROM tiger", "SHOW DATABASES; DROP SERIES FROM tiger",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_statements_that_write_or_manage_are_refused(
    reader: httpx.AsyncClient, method: str, statement: str
) -> None:
    response = await reader.request(method, "/query", params={"q": statement, "db": "t"})
    assert response.status_code == 403
    assert response.json()["error"].startswith("error authorizing query: ")


async def test_a_database_is_created_without_effect(reader: httpx.AsyncClient) -> None:
    for method in ("GET", "POST"):
        response = await reader.request(method, "/query", params={"q": "CREATE DATABASE x WITH DURATION 1d"})
        assert (response.status_code, response.json()) == (200, {"results": [{"statement_id": 0}]})


async def test_parameters_may_be_in_a_form_and_in_the_query_string(reader: httpx.AsyncClient) -> None:
    response = await reader.post("/query", data={"q": "SHOW MEASUREMENTS", "db": "t"})
    assert response.json()["results"][0]["series"][0]["values"] == [["koala"], ["tiger"]]
    response = await reader.post("/query", params={"q": "SHOW DATABASES"}, data={"q": "SHOW MEASUREMENTS", "db": "t"})
    assert response.json()["results"][0]["series"][0]["name"] == "databases"


async def test_flux_is_refused_with_a_clear_message(reader: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/vnd.flux"}
    response = await reader.post("/query", content='from(bucket: "t")', headers=headers)
    assert (response.status_code, "Flux is not supported" in response.json()["error"]) == (400, True)


async def test_the_query_call_of_influxdb_2_is_refused_with_the_reason(reader: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/vnd.flux"}
    response = await reader.post("/api/v2/query?org=x", content='from(bucket: "x")', headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    assert "Flux is not supported" in response.json()["message"]


async def test_parameters_can_be_bound(reader: httpx.AsyncClient) -> None:
    params = json.dumps({"jig": "J-02", "least": 3.4, "field": {"identifier": "voltage"}})
    series = await one(reader, "SELECT $field FROM tiger WHERE jig_id = $jig AND voltage > $least", params=params)
    assert series[0]["values"] == [["2024-01-31T11:21:00Z", 3.5]]
    text = json.dumps({"jig": "' OR 1 = 1"})
    assert await one(reader, "SELECT voltage FROM tiger WHERE jig_id = $jig", params=text) == []
    missing = await query(reader, "SELECT voltage FROM tiger WHERE jig_id = $jig")
    assert missing.json() == {"error": "error parsing query: missing parameter: jig"}


async def test_each_chunk_is_a_document_of_one_series(reader: httpx.AsyncClient) -> None:
    response = await query(
        reader, "SELECT voltage FROM tiger GROUP BY jig_id; SHOW DATABASES", chunked="true", chunk_size="1"
    )
    documents = [json.loads(line)["results"][0] for line in response.text.splitlines()]
    assert [document["statement_id"] for document in documents] == [0, 0, 0, 1]
    assert [document.get("partial", False) for document in documents] == [True, True, False, False]
    assert [document["series"][0].get("partial", False) for document in documents] == [True, False, False, False]


async def test_json_can_be_pretty(reader: httpx.AsyncClient) -> None:
    response = await query(reader, "SHOW MEASUREMENTS LIMIT 1", pretty="true")
    assert response.text == json.dumps(response.json(), indent=4) + "\n"


@pytest.mark.slow
async def test_results_can_be_csv(reader: httpx.AsyncClient) -> None:
    params = {"q": "SELECT voltage, note FROM tiger GROUP BY jig_id LIMIT 1; SHOW DATABASES", "db": "t", "epoch": "s"}
    response = await reader.get("/query", params=params, headers={"Accept": "application/csv"})
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.text.splitlines() == [
        "name,tags,time,voltage,note", "tiger,jig_id=J-01,1706700000,3.25,", "tiger,jig_id=J-02,1706700060,3.5,a<b", "",
        "name,tags,name", "databases,,factory_logs",
    ]  # fmt: skip


async def test_the_token_is_accepted_in_each_form(
    reader: httpx.AsyncClient, anonymous: httpx.AsyncClient, tokens: dict[Level, str]
) -> None:
    token = tokens[Level.OVERVIEW]
    basic = base64.b64encode(f"any:{token}".encode()).decode()
    for headers in ({"Authorization": f"Basic {basic}"}, {"Authorization": f"Bearer {token}"}):
        assert (await anonymous.get("/query", params={"q": "SHOW DATABASES"}, headers=headers)).status_code == 200
    assert (await anonymous.get("/query", params={"q": "SHOW DATABASES", "u": "a", "p": token})).status_code == 200
    wrong = await anonymous.get("/query", params={"q": "SHOW DATABASES", "p": "x"})
    assert (wrong.status_code, wrong.headers["www-authenticate"]) == (401, 'Basic realm="InfluxDB"')


async def test_a_lone_surrogate_in_a_parameter_is_not_an_unexpected_error(reader: httpx.AsyncClient) -> None:
    q = "SELECT voltage FROM tiger WHERE note =~ $p"
    assert (await query(reader, q, params=r'{"p": {"regex": "\ud800"}}')).json()["results"] == [{"statement_id": 0}]


async def test_the_rows_of_all_statements_together_are_limited_unless_they_are_chunked(
    reader: httpx.AsyncClient, migrated_url: str, tokens: dict[Level, str]
) -> None:
    one_row = "SELECT voltage FROM tiger LIMIT 1"
    async with worker(migrated_url, max_influxql_rows=2) as app, client_of(app, tokens[Level.OVERVIEW]) as limited:
        assert (await query(limited, ";".join([one_row] * 2))).status_code == 200
        response = await query(limited, ";".join([one_row] * 3))
        assert response.status_code == 400
        assert "more than 2 rows" in response.json()["error"]
        chunked = await query(limited, ";".join([one_row] * 3), chunked="true")
        assert len(chunked.text.splitlines()) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "allowed", "refused", "error"),
    [
        ("max_influxql_rows", "SELECT voltage FROM tiger LIMIT 2", "SELECT voltage FROM tiger", "limit is 2"),
        ("max_influxql_points", "SELECT voltage FROM tiger LIMIT 2", "SELECT median(voltage) FROM tiger", "2 points"),
        ("max_influxql_values", "SELECT voltage, cycles FROM tiger LIMIT 1", "SELECT voltage, cycles FROM tiger",
         "more than 2 values: select fewer columns"),
        ("max_influxql_values", "SELECT max(voltage), cycles FROM tiger",
         "SELECT max(voltage), cycles, note FROM tiger", "more than 2 values: select fewer columns"),
        ("max_influxql_series", "SHOW SERIES FROM koala", "SHOW SERIES FROM tiger", "more than 2 values"),
        ("max_influxql_series", "SHOW TAG VALUES FROM tiger WITH KEY = jig_id",
         "SHOW TAG VALUES FROM tiger WITH KEY IN (jig_id, site)", "more than 2 values"),
        ("max_influxql_columns", "SELECT voltage, cycles FROM tiger LIMIT 2", "SELECT * FROM tiger", "limit is 2"),
        ("max_influxql_measurements", "SELECT * FROM tiger, koala LIMIT 1", None, ""),
        (
            "max_influxql_buckets",
            "SELECT count(voltage) FROM tiger WHERE time >= 0 AND time < 2m GROUP BY time(1m)",
            "SELECT count(voltage) FROM tiger WHERE time >= 0 AND time < 3m GROUP BY time(1m)",
            "max-select-buckets limit exceeded: (3/2)",
        ),
    ],
)  # fmt: skip
async def test_the_limits_at_their_edges(
    reader: httpx.AsyncClient, migrated_url: str, tokens: dict[Level, str], setting: str, allowed: str,
    refused: str | None, error: str,
) -> None:  # fmt: skip
    async with worker(migrated_url, **{setting: 2}) as app, client_of(app, tokens[Level.OVERVIEW]) as limited:
        assert "error" not in (await query(limited, allowed)).json()["results"][0]
        if refused is not None:
            assert error in (await query(limited, refused)).json()["results"][0]["error"]
