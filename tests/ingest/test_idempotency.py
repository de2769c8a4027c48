"""How long keys are stored: keys from clients for a day, keys derived from a request for an hour."""

import pytest
from pydantic import ValidationError

from factory_logs.db import idempotency_keys
from factory_logs.db.connection_pool import BatchConnections
from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.errors import BadRequestError
from factory_logs.ingest.idempotency import RETRY_PREFIX, RETRY_SECONDS, KeyedBody, WriteKey, retry_key
from factory_logs.permissions import Level
from factory_logs.settings import Settings


@pytest.fixture
async def user_id(database: Database) -> int:
    return (await UserRepository(database).create("ann", "Ann", None, Level.SYSTEM)).user_id


async def is_kept(database: Database, settings: Settings, key: WriteKey, age_seconds: float) -> bool:
    """Return whether a key that was first used so long ago is still stored after old keys were deleted."""
    connections = BatchConnections(database, settings)
    try:
        async with connections.transaction() as connection:
            assert await idempotency_keys.claim(connection, key)
            await connection.execute(
                "UPDATE idempotency_keys SET created_at = created_at - make_interval(secs => $1)", age_seconds
            )
            await idempotency_keys.purge(connection, settings.idempotency_seconds, RETRY_PREFIX, RETRY_SECONDS)
            return await idempotency_keys.find(connection, key) is not None
    finally:
        connections.close()


@pytest.mark.parametrize("header", [b"b1c6-7", b"retry of job 17", RETRY_PREFIX.strip().encode()])
@pytest.mark.parametrize(("more_than_a_day", "kept"), [(-60, True), (60, False)])
async def test_a_clients_key_is_stored_for_a_day_with_any_text(
    database: Database, settings: Settings, user_id: int, header: bytes, more_than_a_day: int, kept: bool
) -> None:
    key = KeyedBody(user_id, header, "JSON /v1/factory_logs").key()
    assert await is_kept(database, settings, key, 24 * 3600 + more_than_a_day) is kept


@pytest.mark.parametrize(("more_than_an_hour", "kept"), [(-60, True), (60, False)])
async def test_a_key_made_of_the_request_itself_is_stored_for_an_hour(
    database: Database, settings: Settings, user_id: int, more_than_an_hour: int, kept: bool
) -> None:
    key = retry_key(KeyedBody(user_id, b"-", "/write").key())
    assert await is_kept(database, settings, key, RETRY_SECONDS + more_than_an_hour) is kept


def test_no_client_can_send_a_key_with_the_prefix_of_derived_keys() -> None:
    with pytest.raises(BadRequestError):
        KeyedBody(1, RETRY_PREFIX.encode() + b"job 17", "JSON /v1/factory_logs")


def test_keys_are_stored_for_a_day_at_least_because_devices_rely_on_it() -> None:
    assert Settings(idempotency_seconds=24 * 3600).idempotency_seconds == 24 * 3600
    with pytest.raises(ValidationError):
        Settings(idempotency_seconds=24 * 3600 - 1)
