"""A user that is deleted and created again under the same name is another user."""

from collections.abc import AsyncIterator

import httpx
import pytest

from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.permissions import Level
from factory_logs.security.tokens import issue_token
from tests.api.conftest import client_of, worker
from tests.factories import LOG

LOGIN = {"username": "jig", "password": "open sesame"}


@pytest.fixture
async def caller(database: Database, migrated_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client without a token, of a worker that looks up each token for each request."""
    async with worker(migrated_url, token_cache_seconds=1e-9) as app, client_of(app, None) as client:
        yield client


async def new_token(database: Database, password_hash: str) -> str:
    user = await UserRepository(database).create("jig", "Jig", password_hash, Level.SYSTEM)
    return await issue_token(database, user.user_id, expires_at=None)


async def session(caller: httpx.AsyncClient) -> str:
    """Return the token of a login."""
    response = await caller.post("/v1/auth/login", json=LOGIN)
    return str(response.json()["message"]["login_successful"]["API_token"])


def with_token(token: str) -> dict[str, str]:
    return {"Authorization": f"Token token={token}"}


async def test_no_token_and_no_key_of_a_deleted_user_is_one_of_the_new_user(
    caller: httpx.AsyncClient, database: Database, password_hash: str
) -> None:
    users = UserRepository(database)
    old = [await new_token(database, password_hash), await session(caller)]
    first = await caller.post("/v1/factory_logs", json=LOG, headers=with_token(old[0]) | {"Idempotency-Key": "same"})
    user = await users.get_by_name("jig")
    assert user is not None
    await users.delete(user.user_id)
    new = [await new_token(database, password_hash), await session(caller)]
    for token in old:
        responses = [
            await caller.get("/v1/factory_logs", headers=with_token(token)),
            await caller.post("/v1/factory_logs", json=LOG, headers=with_token(token)),
            await caller.post("/write?db=x", params={"u": "jig", "p": token}, content="m f=1"),
        ]
        assert [response.status_code for response in responses] == [401, 401, 401]
    for token in new:
        assert (await caller.get("/v1/factory_logs", headers=with_token(token))).status_code == 200
    second = await caller.post("/v1/factory_logs", json=LOG, headers=with_token(new[0]) | {"Idempotency-Key": "same"})
    assert (first.status_code, second.status_code) == (201, 201)
    assert "idempotency-replayed" not in second.headers
    assert first.json()["factory_log_id"] != second.json()["factory_log_id"]
    assert first.json()["created_by"] == second.json()["created_by"] == "jig"
