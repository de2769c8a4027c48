"""Traverse results by cursor over HTTP (docs/reference/http-api.md#cursors)."""

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory_logs.api.http.pagination import write_cursor
from factory_logs.querier import result_cache
from factory_logs.querier.pages import CursorPosition
from factory_logs.query import FACTORY_LOGS, REPAIRS, QueryLimits, parse_query
from tests.api.conftest import ask

BY_TIME = {"order_by": [{"field": "timestamp", "direction": "desc"}]}


@pytest.fixture
async def filled(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Store 25 logs; every five share a timestamp, and every second one has a value in `fields`."""
    logs = [
        {
            "app_name": f"app-{n % 3}",
            "timestamp": f"2024-01-31 00:00:0{n % 5}",
            "fields": {"v": n % 4 if n % 3 else str(n)} if n % 2 else None,
        }
        for n in range(25)
    ]
    assert (await client.post("/v1/factory_logs", json=logs)).status_code == 201
    return client


async def pages(client: httpx.AsyncClient, **params: object) -> AsyncIterator[httpx.Response]:
    response = await ask(client, cursor="", **params)
    while True:
        assert response.status_code == 200, response.text
        yield response
        if "next" not in response.links:
            return
        response = await client.get(response.links["next"]["url"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "q",
    [
        {},
        BY_TIME,
        {"order_by": [{"field": "fields__v"}, {"field": "app_name", "direction": "desc"}]},
        {"order_by": [{"field": "repair__process"}]},
        {"filters": [{"name": "app_name", "op": "!=", "val": "app-1"}], **BY_TIME},
        {"limit": 11, "offset": 3},
        {"limit": 12, **BY_TIME},
    ],
)
async def test_cursors_return_the_pages_of_the_same_q(filled: httpx.AsyncClient, q: dict[str, object]) -> None:
    expected = (await ask(filled, q=q, results_per_page=100)).json()
    for size in (4, 6, 100):
        found = [page.json() async for page in pages(filled, q=q, results_per_page=size)]
        assert [log for page in found for log in page["objects"]] == expected["objects"]
        assert {page["num_results"] for page in found} == {expected["num_results"]}
        assert [page["page"] for page in found] == list(range(1, found[0]["total_pages"] + 1))


@pytest.mark.slow
async def test_logs_stored_meanwhile_do_not_change_the_pages_by_cursor(filled: httpx.AsyncClient) -> None:
    """A traversal returns only the records that existed at its beginning, so it ends even while clients write."""
    for q in ({}, BY_TIME, {"order_by": [{"field": "app_name"}]}):
        before = (await ask(filled, q=q, results_per_page=100)).json()
        found = []
        async for page in pages(filled, q=q, results_per_page=4):
            found += page.json()["objects"]
            assert page.json()["num_results"] == before["num_results"]
            logs = [{"app_name": f"app-{n}", "timestamp": f"2024-01-31 00:00:0{n}"} for n in range(1)]
            assert (await filled.post("/v1/factory_logs", json=logs)).status_code == 201
        assert found == before["objects"]


@pytest.mark.slow
async def test_each_log_stored_before_is_returned_once_despite_concurrent_writers(
    filled: httpx.AsyncClient, migrated_url: str
) -> None:
    """Among them are late commits: transactions that drew ids before the traversal began, and commit during it."""
    pool = await asyncpg.create_pool(migrated_url, min_size=3, max_size=3)
    traversed = asyncio.Event()

    async def write(writer: int) -> None:
        number = 0
        while not traversed.is_set():
            number += 1
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("INSERT INTO factory_logs (app_name, timestamp) VALUES ('w', '2024-01-31')")
                await asyncio.sleep(0.001 * ((writer * 7 + number * 3) % 5))

    async with pool:
        writers = [asyncio.create_task(write(writer)) for writer in range(3)]
        try:
            only = {"filters": [{"name": "app_name", "op": "==", "val": "w"}]}
            for q in ({}, BY_TIME, only, {"order_by": [{"field": "app_name"}]}, only | {"offset": 2}, {"limit": 1000}):
                before = {row[0] for row in await pool.fetch("SELECT factory_log_id FROM factory_logs")}
                responses = [page.json() async for page in pages(filled, q=q, results_per_page=7)]
                found = [log["factory_log_id"] for response in responses for log in response["objects"]]
                assert len(found) == len(set(found))
                assert before <= set(found) or "filters" in q
                assert {response["num_results"] for response in responses} == {len(found)}, q
        finally:
            traversed.set()
            await asyncio.gather(*writers)


@pytest.fixture
async def late(client: httpx.AsyncClient, migrated_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield an open transaction that has drawn the id 26; the logs 1 to 25 and 27 are visible."""
    connection = await asyncpg.connect(migrated_url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("INSERT INTO factory_logs (app_name, timestamp) VALUES ('late', '2024-01-31')")
    assert (await client.post("/v1/factory_logs", json={"app_name": "x", "timestamp": 0})).json()[
        "factory_log_id"
    ] == 27
    yield connection
    await connection.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "q", [{}, BY_TIME, {"limit": 100}, {"filters": [{"name": "app_name", "op": "!=", "val": "y"}]}]
)
async def test_the_first_page_by_cursor_waits_for_running_transactions_and_counts_their_logs(
    filled: httpx.AsyncClient, late: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, q: dict[str, object]
) -> None:
    monkeypatch.setattr(result_cache, "WATERMARK_SECONDS", 60.0)
    first = asyncio.create_task(ask(filled, q=q, cursor="", results_per_page=100))
    await asyncio.wait({first}, timeout=0.3)
    assert not first.done()
    await late.execute("COMMIT")
    response = (await first).json()
    assert response["num_results"] == len(response["objects"]) == 27


@pytest.mark.slow
async def test_pages_by_cursor_do_not_wait_for_a_long_transaction_and_include_its_logs_beyond_the_count(
    filled: httpx.AsyncClient, late: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_cache, "WATERMARK_SECONDS", 0.02)
    first = await ask(filled, cursor="", results_per_page=20)
    assert first.json()["num_results"] == 26
    await late.execute("COMMIT")
    rest = (await filled.get(first.links["next"]["url"])).json()
    assert [log["factory_log_id"] for log in rest["objects"]] == [21, 22, 23, 24, 25, 26, 27]
    assert rest["num_results"] == 26


async def cursor_of(client: httpx.AsyncClient, **params: object) -> str:
    response = await ask(client, cursor="", results_per_page=5, **params)
    return parse_qs(urlsplit(response.links["next"]["url"]).query)["cursor"][0]


async def test_a_cursor_of_another_q_gets_a_400_with_this_reason(filled: httpx.AsyncClient) -> None:
    cursor = await cursor_of(filled, q=BY_TIME)
    for other in ({}, {"order_by": [{"field": "timestamp"}]}, BY_TIME | {"limit": 9}):
        response = await ask(filled, cursor=cursor, q=other)
        assert (response.status_code, "another q" in response.json()["message"]) == (400, True)
    same = json.dumps(BY_TIME, indent=3)
    assert (await ask(filled, cursor=cursor, q=same)).status_code == 200


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.integers(0, 74), st.sampled_from("Aq_-7=é \0"))
async def test_a_cursor_that_was_tampered_with_gets_a_400(filled: httpx.AsyncClient, index: int, letter: str) -> None:
    cursor = await cursor_of(filled)
    response = await ask(filled, cursor=cursor[:index] + letter + cursor[index + 1 :])
    assert response.status_code == (200 if cursor[index] == letter else 400)


@pytest.mark.slow
@pytest.mark.parametrize("cursor", ["x", "0", "é", "=" * 75, "A" * 74, "A" * 75, "A" * 76, "A" * 5000])
async def test_any_other_text_gets_a_400(filled: httpx.AsyncClient, cursor: str) -> None:
    response = await ask(filled, cursor=cursor)
    assert (response.status_code, "begin again" in response.json()["message"]) == (400, True)


async def test_a_cursor_by_time_at_a_removed_record_gets_a_400_and_one_by_id_continues(
    filled: httpx.AsyncClient, migrated_url: str
) -> None:
    by_id, by_time = await cursor_of(filled), await cursor_of(filled, q=BY_TIME)
    connection = await asyncpg.connect(migrated_url)
    try:
        await connection.execute(
            "DELETE FROM factory_logs WHERE factory_log_id <= 6 OR timestamp > '2024-01-31 0:00:02'"
        )
    finally:
        await connection.close()
    assert (await ask(filled, cursor=by_id)).json()["objects"][0]["factory_log_id"] == 7
    response = await ask(filled, cursor=by_time, q=BY_TIME)
    assert (response.status_code, "begin again" in response.json()["message"]) == (400, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"page": 1}, "Either page or cursor"),
        ({"q": {"single": True}}, "single"),
        ({"q": {"group_by": [{"field": "app_name"}]}}, "groups"),
    ],
)
async def test_a_query_that_cannot_have_a_cursor_gets_a_400(
    filled: httpx.AsyncClient, params: dict[str, object], message: str
) -> None:
    response = await ask(filled, cursor="", **params)
    assert (response.status_code, message in response.json()["message"]) == (400, True)


async def test_repairs_have_cursors_too(client: httpx.AsyncClient) -> None:
    for _ in range(5):
        await client.post("/v1/repairs", json={"product_imei": "352099001761481"})
    response = await client.get("/v1/repairs", params={"cursor": "", "results_per_page": 3})
    rest = await client.get(response.links["next"]["url"])
    assert [repair["repair_id"] for repair in response.json()["objects"] + rest.json()["objects"]] == [1, 2, 3, 4, 5]


async def test_a_forged_cursor_does_not_cause_a_500(filled: httpx.AsyncClient) -> None:
    for path, resource, q in (("factory_logs", FACTORY_LOGS, BY_TIME), ("repairs", REPAIRS, {})):
        query = parse_query(json.dumps(q), resource, QueryLimits())
        for number in (-1, 0, 2**31, 2**62, 2**63 - 1, -(2**63)):
            cursor = write_cursor(CursorPosition(number, number, number, number, number), query)
            response = await filled.get(f"/v1/{path}", params={"q": json.dumps(q), "cursor": cursor})
            assert response.status_code in (200, 400), response.text
