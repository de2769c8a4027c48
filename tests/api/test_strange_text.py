"""Text that a response cannot repeat unchanged: the error is still JSON, and nothing fails after a commit."""

import json

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings

from tests.api.conftest import assert_error
from tests.ingest.strategies import RECORDS

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
GOOD = '{"app_name": "a", "timestamp": "2024-01-01"}'
NESTED = r'{"app_name": "a", "timestamp": "2024-01-01", "tags": {"\ud800": {"x": "\u0000"}}}'
BATCHES = pytest.mark.parametrize(
    ("headers", "template"), [(JSON, "[{0},{1},{0}]"), (NDJSON, "{0}\n{1}\n{0}")], ids=["array", "ndjson"]
)
LOGINS = [r'{"username": "\ud800", "password": "x"}', r'{"username": "\u0000", "password": "x"}']


async def number_stored(client: httpx.AsyncClient) -> int:
    number: int = (await client.get("/v1/factory_logs")).json()["num_results"]
    return number


async def test_a_key_that_is_a_lone_surrogate_is_named_by_its_escape(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/factory_logs", content=NESTED, headers=JSON)
    errors = assert_error(response, 400)["errors"]
    assert [error["field"] for error in errors] == ["tags", r"tags.\ud800.x"]


@BATCHES
async def test_the_response_to_a_batch_with_such_a_key_lists_the_stored_logs(
    client: httpx.AsyncClient, headers: dict[str, str], template: str
) -> None:
    text = template.format(GOOD, NESTED)
    assert_error(await client.post("/v1/factory_logs", content=text, headers=headers), 400)
    assert await number_stored(client) == 0
    response = await client.post("/v1/factory_logs?on_error=skip", content=text, headers=headers)
    body = response.json()
    assert (response.status_code, body["num_created"], body["num_rejected"]) == (201, 2, 1)
    assert {error["field"] for error in body["errors"]} == {"tags", r"tags.\ud800.x"}
    assert await number_stored(client) == 2


@pytest.mark.parametrize("text", LOGINS)
async def test_a_login_with_such_text_is_refused(anonymous: httpx.AsyncClient, text: str) -> None:
    response = await anonymous.post("/v1/auth/login", content=text, headers=JSON)
    assert_error(response, response.status_code)
    assert response.status_code in (400, 401)


@pytest.mark.parametrize(
    "form", ["username=%ED%A0%80&password=x", "username=%00&password=x", b"username=\xff&password=x"]
)
async def test_a_login_form_with_such_text_is_refused(anonymous: httpx.AsyncClient, form: bytes) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = await anonymous.post("/v1/auth/login", content=form, headers=headers)
    assert_error(response, response.status_code)
    assert response.status_code in (400, 401)


@pytest.mark.parametrize("name", ["%ED%A0%80", "%00", "%FF"])
async def test_a_user_of_such_a_name_does_not_exist(client: httpx.AsyncClient, name: str) -> None:
    response = await client.get(f"/v1/auth/validate_user?username={name}")
    assert response.status_code == 400 or response.json()["data"] == "False"


@pytest.mark.parametrize("member", ["product_imei", "arrival_date", "process", "outcome", r"\ud800"])
async def test_a_repair_with_such_text_is_refused(client: httpx.AsyncClient, member: str) -> None:
    text = rf'{{"product_imei": "352099001761481", "{member}": "\udc00"}}'
    assert_error(await client.post("/v1/repairs", content=text, headers=JSON), 400)


@pytest.mark.parametrize(
    "q",
    [
        r'{"filters": [{"name": "\ud800", "op": "==", "val": 1}]}',
        r'{"filters": [{"name": "tags__\ud800", "op": "==", "val": 1}]}',
        r'{"filters": [{"name": "app_name", "op": "\ud800", "val": "x"}]}',
        r'{"filters": [{"name": "app_name", "op": "==", "val": {"\ud800": 1}}]}',
        r'{"order_by": [{"field": "app_name", "direction": "\ud800"}]}',
        r'{"limit": "\ud800"}',
    ],
)
async def test_a_query_with_such_text_is_refused(client: httpx.AsyncClient, q: str) -> None:
    for path in ("/v1/factory_logs", "/v1/repairs", "/v1/factory_logs/stats"):
        assert_error(await client.get(path, params={"q": q}), 400)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(RECORDS)
@example(NESTED)
@example('{"app_name": "a", "timestamp": 1, "repair_id": 1' + "0" * 300 + "}")
async def test_no_record_makes_a_response_fail(client: httpx.AsyncClient, text: str) -> None:
    one_line = text.replace("\n", " ")
    for content, headers in ((text, JSON), (f"[{text}]", JSON), (one_line, NDJSON)):
        response = await client.post(
            "/v1/factory_logs?on_error=skip", content=content.encode("utf-8", "surrogatepass"), headers=headers
        )
        assert response.status_code in (201, 400), response.text
        assert json.loads(response.content)
