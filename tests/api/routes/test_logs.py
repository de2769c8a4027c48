import asyncio
import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from factory_logs.db.engine import Database
from factory_logs.permissions import Level
from factory_logs.settings import Settings
from tests.api.conftest import ask, assert_error, client_of, worker
from tests.factories import LOG
from tests.schemas.strategies import STORABLE


async def create(client: httpx.AsyncClient, **changes: object) -> dict[str, object]:
    response = await client.post("/v1/factory_logs", json=LOG | changes)
    assert response.status_code == 201, response.text
    return response.json()


async def test_post_returns_the_stored_record_and_its_location(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/factory_logs", json=LOG)
    record = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"http://logs.test/v1/factory_logs/{record['factory_log_id']}"
    created_at = datetime.fromisoformat(record.pop("created_at"))
    assert abs(created_at - datetime.now(UTC).replace(tzinfo=None)) < timedelta(minutes=1)
    assert record == LOG | {
        "factory_log_id": 1,
        "repair_id": None,
        "timestamp": "2024-01-31 13:45:00.500000",
        "created_by": "system",
        "modified_at": None,
        "modified_by": None,
    }


async def test_get_returns_the_same_as_post(client: httpx.AsyncClient) -> None:
    record = await create(client)
    response = await client.get(f"/v1/factory_logs/{record['factory_log_id']}")
    assert (response.status_code, response.json()) == (200, record)


@pytest.mark.slow
@pytest.mark.parametrize(
    "log",
    [
        {"app_name": "a", "timestamp": "2024-01-01"},
        {"app_name": '"' * 255, "timestamp": "2024-01-31 13:45:00.123456", "product_imei": "352099001761481"},
    ],
    ids=["short", "escaped"],
)
@pytest.mark.parametrize("form", ["application/json", "array", "application/x-ndjson"])
async def test_a_record_may_have_256_kib_and_no_byte_more(
    client: httpx.AsyncClient, log: dict[str, object], form: str
) -> None:
    empty = json.dumps(log | {"fields": {"text": ""}}, separators=(",", ":"))
    statuses = []
    for size in (256 * 1024, 256 * 1024 + 1):
        text = empty.replace('"text":""', f'"text":"{"x" * (size - len(empty))}"')
        assert len(text) == size
        headers = {"Content-Type": "application/json" if form == "array" else form}
        body = f"[{text}]" if form == "array" else text
        statuses.append((await client.post("/v1/factory_logs", content=body, headers=headers)).status_code)
    assert statuses == [201, 400]


@pytest.mark.parametrize("member", ["tags", "fields"])
@pytest.mark.parametrize("form", ["{}", "[{}]"], ids=["single log", "batch"])
async def test_tags_and_fields_may_nest_32_deep_and_no_deeper(
    client: httpx.AsyncClient, member: str, form: str
) -> None:
    def body(depth: int) -> str:
        return form.format(json.dumps(LOG | {member: json.loads("[" * depth + "]" * depth)}))

    json_type = {"Content-Type": "application/json"}
    assert (await client.post("/v1/factory_logs", content=body(32), headers=json_type)).status_code == 201
    (error,) = assert_error(await client.post("/v1/factory_logs", content=body(33), headers=json_type), 400)["errors"]  # type: ignore[misc]
    assert (error["field"].startswith(member), error["message"]) == (True, "arrays and objects are nested too deep")


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(tags=STORABLE, fields=STORABLE)
async def test_any_storable_json_comes_back_equal_and_of_the_same_type(
    client: httpx.AsyncClient, tags: object, fields: object
) -> None:
    record = await create(client, tags=tags, fields=fields)
    read = (await client.get(f"/v1/factory_logs/{record['factory_log_id']}")).json()
    assert read == record
    assert (read["tags"], read["fields"]) == (tags, fields)
    assert type(read["fields"]) is type(fields)


@pytest.mark.slow
@pytest.mark.parametrize("record_id", ["999", "0", "-1", "abc", "1.0", "99999999999999999999", "٣"])
async def test_an_unknown_id_gets_a_404(client: httpx.AsyncClient, record_id: str) -> None:
    assert (await client.get(f"/v1/factory_logs/{record_id}")).status_code == 404


async def test_a_log_with_an_unknown_repair_fails_alone_among_concurrent_logs(client: httpx.AsyncClient) -> None:
    repair = (await client.post("/v1/repairs", json={"product_imei": "352099001761481"})).json()
    ids = [repair["repair_id"], 999, None, 2**70, repair["repair_id"], -(2**70)] * 5
    responses = await asyncio.gather(
        *(client.post("/v1/factory_logs", json=LOG | {"repair_id": repair_id}) for repair_id in ids)
    )
    assert [response.status_code for response in responses] == [201, 400, 201, 400, 201, 400] * 5
    assert responses[1].json()["errors"] == [{"field": "repair_id", "message": "there is no repair 999"}]
    assert (await ask(client)).json()["num_results"] == 15


async def test_every_error_is_named(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/factory_logs", json={"product_imei": "123", "colour": "red"})
    body = response.json()
    assert response.status_code == 400
    assert body["message"] == "Validation failed"
    assert {error["field"] for error in body["errors"]} == {"app_name", "product_imei", "timestamp", "colour"}
    assert body["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "application/vnd.api+json"]
)
async def test_json_content_types_are_accepted(client: httpx.AsyncClient, content_type: str) -> None:
    response = await client.post("/v1/factory_logs", content=json.dumps(LOG), headers={"Content-Type": content_type})
    assert response.status_code == 201


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/x-www-form-urlencoded"])
async def test_any_other_content_type_gets_a_415(client: httpx.AsyncClient, content_type: str) -> None:
    response = await client.post("/v1/factory_logs", content=json.dumps(LOG), headers={"Content-Type": content_type})
    assert response.status_code == 415
    assert "application/json" in response.json()["message"]


@pytest.mark.slow
@pytest.mark.parametrize("level", list(Level))
async def test_reading_needs_overview_and_writing_needs_system(
    app: FastAPI, tokens: dict[Level, str], level: Level
) -> None:
    async with client_of(app, tokens[level]) as client:
        assert (await ask(client)).status_code == 200
        assert (await client.post("/v1/factory_logs", json=LOG)).status_code == (201 if level is Level.SYSTEM else 403)


async def test_without_a_token_reads_and_writes_are_refused(anonymous: httpx.AsyncClient) -> None:
    for response in (await ask(anonymous), await anonymous.post("/v1/factory_logs", json=LOG)):
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith("Token")


async def test_pages_hold_ten_records_by_id_and_link_to_the_next_and_the_last(client: httpx.AsyncClient) -> None:
    for number in range(25):
        await create(client, app_name=f"app-{number}")
    response = await ask(client)
    page = response.json()
    assert (page["num_results"], page["total_pages"], page["page"]) == (25, 3, 1)
    assert [record["factory_log_id"] for record in page["objects"]] == list(range(1, 11))
    assert response.links["next"]["url"].endswith("page=2&results_per_page=10")
    assert response.links["last"]["url"].endswith("page=3&results_per_page=10")
    seen = len(page["objects"])
    while "next" in response.links:
        response = await client.get(response.links["next"]["url"])
        seen += len(response.json()["objects"])
    assert seen == 25
    assert (await ask(client, page=4)).json()["objects"] == []
    for page in (10**17, 2**63, 10**99):
        response = await ask(client, page=page)
        assert (response.status_code, response.json()["page"], response.json()["objects"]) == (200, page, [])


@pytest.mark.slow
@pytest.mark.parametrize("page", ["0", "-1", "x", "1.5", ""])
async def test_a_page_that_is_not_a_positive_integer_gets_a_400(client: httpx.AsyncClient, page: str) -> None:
    assert (await ask(client, page=page)).status_code == 400


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "records"),
    [("3", 3), ("0", 10), ("-5", 10), ("x", 10), ("", 10), ("100000", 12), ("9" * 99, 12), ("1.5", 10)],
)
async def test_results_per_page_falls_back_to_ten_and_is_capped(
    client: httpx.AsyncClient, size: str, records: int
) -> None:
    for _ in range(12):
        await create(client)
    assert len((await ask(client, results_per_page=size)).json()["objects"]) == records


async def test_an_empty_result_has_no_pages(client: httpx.AsyncClient) -> None:
    page = (await ask(client)).json()
    assert page == {"num_results": 0, "total_pages": 0, "page": 1, "objects": []}


async def test_limit_and_offset_apply_before_paging(client: httpx.AsyncClient) -> None:
    for _ in range(8):
        await create(client)
    page = (await ask(client, q={"limit": 5, "offset": 2}, results_per_page=3, page=2)).json()
    assert (page["num_results"], page["total_pages"]) == (5, 2)
    assert [record["factory_log_id"] for record in page["objects"]] == [6, 7]


async def test_single_returns_the_record_itself(client: httpx.AsyncClient) -> None:
    record = await create(client, app_name="one")
    q = {"filters": [{"name": "app_name", "op": "==", "val": "one"}], "single": True}
    response = await ask(client, q=q)
    assert (response.status_code, response.json()) == (200, record)
    assert response.headers["location"] == f"http://logs.test/v1/factory_logs/{record['factory_log_id']}"
    await create(client, app_name="one")
    response = await ask(client, q=q)
    assert (response.status_code, response.json()["message"]) == (400, "Multiple results found")
    q["filters"] = [{"name": "app_name", "op": "==", "val": "none"}]
    response = await ask(client, q=q)
    assert (response.status_code, response.json()["message"]) == (404, "No result found")


@pytest.mark.parametrize(
    ("q", "message"),
    [
        ("{", "Unable to decode data"),
        ('{"filters":[{"name":"colour","op":"==","val":1}]}', "Unable to construct query: "),
        ('{"filters":[{"name":"app_name","op":"~","val":1}]}', "Unable to construct query: "),
        ('{"filters":[{"name":"app_name","op":"=="}]}', "Unable to construct query: "),
        (
            '{"filters":[{"name":"app_name","op":"==","val":null}]}',
            "To compare a value to NULL, use the is_null/is_not_null operators.",
        ),
    ],
)
async def test_an_invalid_q_gets_a_400_with_the_reason(client: httpx.AsyncClient, q: str, message: str) -> None:
    response = await ask(client, q=q)
    assert response.status_code == 400
    assert message in response.json()["message"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.text(max_size=200))
async def test_q_never_causes_a_500(client: httpx.AsyncClient, q: str) -> None:
    assert (await ask(client, q=q.encode("utf-8", "replace").decode())).status_code in (200, 400, 404)


LARGEST = 50
"""The largest value of FACTORY_LOGS_MAX_SORT_KEYS and FACTORY_LOGS_MAX_FILTER_DEPTH."""


async def test_the_largest_limits_of_q_can_be_used_and_not_exceeded(
    database: Database, migrated_url: str, tokens: dict[Level, str]
) -> None:
    fields = {f"value_{number}": number for number in range(LARGEST + 1)}
    keys = [{"field": f"fields__{name}"} for name in fields]
    condition: dict[str, object] = {"name": "fields__value_0", "op": "==", "val": 0}
    for _ in range(LARGEST - 1):
        condition = {"not": condition}
    limits = {"max_sort_keys": LARGEST, "max_filter_depth": LARGEST}
    async with worker(migrated_url, **limits) as app, client_of(app, tokens[Level.SYSTEM]) as client:
        ids = [(await create(client, fields=fields))["factory_log_id"] for _ in range(3)]
        page = await ask(client, q={"order_by": keys[:LARGEST]}, results_per_page=1, cursor="")
        found = page.json()["objects"]
        while "next" in page.links:
            page = await client.get(page.links["next"]["url"])
            found += page.json()["objects"]
        assert [log["factory_log_id"] for log in found] == ids
        assert "up to 50 entries, not 51" in str(assert_error(await ask(client, q={"order_by": keys}), 400))
        assert (await ask(client, q={"filters": [condition]})).json()["num_results"] == 0  # 49 times `not`
        assert "50 deep" in str(assert_error(await ask(client, q={"filters": [{"not": condition}]}), 400))
    for name in limits:
        with pytest.raises(ValidationError):
            Settings(**{name: LARGEST + 1})
