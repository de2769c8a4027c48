"""Repairs, to which a log's `repair_id` refers (docs/reference/http-api.md#repairs)."""

import json

import httpx
import pytest

from factory_logs.schemas.repair import Process
from tests.factories import REPAIR

IMEI = "352099001761481"


async def test_post_returns_the_record_and_its_location_and_get_the_same(client: httpx.AsyncClient) -> None:
    made = await client.post("/v1/repairs", json=REPAIR)
    assert (made.status_code, made.headers["location"]) == (201, "http://logs.test/v1/repairs/1")
    record = made.json()
    assert record == REPAIR | {
        "repair_id": 1,
        "arrival_date": "2024-01-31 12:45:00.123456",
        "refurbishment_date": "2024-01-31 13:45:00.123000",
        "created_at": record["created_at"],
        "created_by": "system",
        "modified_at": None,
        "modified_by": None,
    }
    read = await client.get(made.headers["location"])
    assert (read.status_code, read.json()) == (200, record)
    assert (await client.get("/v1/repairs")).json()["objects"] == [record]


async def test_only_the_unit_is_required(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/repairs", json={"product_imei": IMEI})).status_code == 201
    response = await client.post("/v1/repairs", json={})
    assert response.json()["errors"] == [{"field": "product_imei", "message": "is required"}]
    assert (await client.post("/v1/repairs", json={"product_imei": None})).status_code == 400


@pytest.mark.parametrize("process", list(Process))
async def test_each_process_is_accepted(client: httpx.AsyncClient, process: Process) -> None:
    made = await client.post("/v1/repairs", json={"product_imei": IMEI, "process": process})
    assert made.json()["process"] == process


async def test_metadata_is_ignored(client: httpx.AsyncClient) -> None:
    sent = {"product_imei": IMEI, "repair_id": 77, "created_by": "x", "created_at": {}, "modified_at": 1}
    record = (await client.post("/v1/repairs", json=sent)).json()
    assert (record["repair_id"], record["created_by"], record["modified_at"]) == (1, "system", None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("product_imei", "12"),
        ("process", "Lost"),
        ("process", 1),
        ("arrival_date", "yesterday"),
        ("refurbishment_date", True),
        ("measured_battery_capacity", "3050"),
        ("measured_battery_capacity", True),
        ("outcome", "a\0b"),
        ("outcome", "x" * 256),
        ("pending_status", 1),
        ("colour", "red"),
    ],
)
async def test_a_bad_field_gets_a_400_that_names_it(client: httpx.AsyncClient, field: str, value: object) -> None:
    response = await client.post("/v1/repairs", json={"product_imei": IMEI, field: value})
    assert response.status_code == 400
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert (await client.get("/v1/repairs")).json()["num_results"] == 0


@pytest.mark.parametrize("capacity", ["NaN", "Infinity", "1e400", "9" * 400])
async def test_a_number_beyond_a_double_gets_a_400(client: httpx.AsyncClient, capacity: str) -> None:
    body = f'{{"product_imei": "{IMEI}", "measured_battery_capacity": {capacity}}}'
    response = await client.post("/v1/repairs", content=body, headers={"Content-Type": "application/json"})
    assert response.json()["errors"][0]["field"] == "measured_battery_capacity"


@pytest.mark.slow
@pytest.mark.parametrize("repair_id", ["0", "-1", "x", "2147483648", "9223372036854775807", "9" * 19, "9" * 50])
async def test_an_unknown_id_gets_a_404(client: httpx.AsyncClient, repair_id: str) -> None:
    assert (await client.get(f"/v1/repairs/{repair_id}")).status_code == 404


@pytest.mark.slow
async def test_repairs_can_be_queried_by_q_like_logs(client: httpx.AsyncClient) -> None:
    for process in ("Replaced", "Repossessed", "Replaced", None):
        await client.post("/v1/repairs", json={"product_imei": IMEI, "process": process})

    async def ids(q: object) -> list[int]:
        response = await client.get("/v1/repairs", params={"q": json.dumps(q)})
        assert response.status_code == 200, response.text
        return [record["repair_id"] for record in response.json()["objects"]]

    assert await ids({"filters": [{"name": "process", "op": "==", "val": "Replaced"}]}) == [1, 3]
    assert await ids({"order_by": [{"field": "repair_id", "direction": "desc"}], "limit": 2}) == [4, 3]
    assert await ids({"filters": [{"name": "repair_id", "op": ">", "val": 2**40}]}) == []
    assert len(await ids({"group_by": [{"field": "process"}]})) == 3
    bad = await client.get("/v1/repairs", params={"q": '{"filters":[{"name":"app_name","op":"is_null"}]}'})
    assert bad.json()["message"].startswith("Unable to construct query: ")
