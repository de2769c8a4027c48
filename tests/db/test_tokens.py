from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from factory_logs.db.engine import Database
from factory_logs.db.tokens import TokenRepository, ValidToken
from factory_logs.db.users import UserRepository

HASH = bytes(range(32))
OTHER_HASH = bytes(range(32, 64))


@pytest.fixture
def tokens(database: Database) -> TokenRepository:
    return TokenRepository(database)


@pytest.fixture
async def user_id(database: Database) -> int:
    return (await UserRepository(database).create("ann", "Ann", None, "TECHNICAL")).user_id


def in_seconds(seconds: float) -> datetime:
    return datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=seconds)


async def found(tokens: TokenRepository, token_hash: bytes = HASH) -> ValidToken:
    token = await tokens.look_up(token_hash)
    assert token is not None
    return token


async def end(tokens: TokenRepository) -> datetime | None:
    (token,) = await tokens.list()
    return token.expires_at


async def test_a_token_without_end_returns_its_user(tokens: TokenRepository, user_id: int) -> None:
    await tokens.issue(HASH, user_id, expires_at=None)
    assert await tokens.look_up(HASH) == ValidToken(user_id, "ann", "TECHNICAL", None, None, None)


async def test_an_unknown_hash_returns_none(tokens: TokenRepository) -> None:
    assert await tokens.look_up(HASH) is None


async def test_a_token_is_valid_until_its_end(tokens: TokenRepository, user_id: int) -> None:
    await tokens.issue(HASH, user_id, expires_at=in_seconds(7200))
    await tokens.issue(OTHER_HASH, user_id, expires_at=in_seconds(-1))
    assert 3600 < (await found(tokens)).seconds_left <= 7200
    assert await tokens.look_up(OTHER_HASH) is None


async def test_a_sliding_token_starts_with_its_whole_life(tokens: TokenRepository, user_id: int) -> None:
    issued = await tokens.issue_sliding(HASH, user_id, idle_seconds=3 * 3600)
    assert issued == await end(tokens)
    assert in_seconds(2 * 3600) < issued <= in_seconds(3 * 3600)


async def test_a_use_moves_the_end_of_a_sliding_token(tokens: TokenRepository, user_id: int) -> None:
    await tokens.issue_sliding(HASH, user_id, idle_seconds=1000)
    first_end = await end(tokens)
    await tokens.touch({HASH: 0.0})
    moved = await end(tokens)
    assert first_end is not None
    assert moved is not None
    assert moved > first_end


async def test_an_older_use_never_moves_the_end_back(tokens: TokenRepository, user_id: int) -> None:
    await tokens.issue_sliding(HASH, user_id, idle_seconds=1000)
    await tokens.touch({HASH: 0.0})
    newest = await tokens.list()
    await tokens.touch({HASH: 500.0})
    assert await tokens.list() == newest


@pytest.mark.parametrize("seconds", [None, 100])
async def test_a_use_does_not_change_the_end_of_other_tokens(
    tokens: TokenRepository, user_id: int, seconds: int | None
) -> None:
    expires_at = None if seconds is None else in_seconds(seconds)
    await tokens.issue(HASH, user_id, expires_at=expires_at)
    await tokens.touch({HASH: 0.0})
    assert await end(tokens) == expires_at
    (token,) = await tokens.list()
    assert token.last_used_at is not None


async def test_many_uses_are_written_at_once_and_unknown_tokens_are_ignored(
    tokens: TokenRepository, user_id: int
) -> None:
    hashes = [number.to_bytes(32, "big") for number in range(300)]
    for token_hash in hashes[:3]:
        await tokens.issue_sliding(token_hash, user_id, idle_seconds=1000)
    await tokens.touch(dict.fromkeys(hashes, 10.0))
    await tokens.touch({})
    for token_hash in hashes[:3]:
        assert 10 <= (await found(tokens, token_hash)).seconds_since_use < 600


async def test_a_revoked_token_is_deleted_and_a_use_does_not_restore_it(tokens: TokenRepository, user_id: int) -> None:
    await tokens.issue_sliding(HASH, user_id, idle_seconds=1000)
    assert await tokens.revoke(HASH) == 1
    assert await tokens.revoke(HASH) == 0
    await tokens.touch({HASH: 0.0})
    assert await tokens.look_up(HASH) is None


async def test_revoking_all_ends_the_tokens_of_one_user_only(
    tokens: TokenRepository, database: Database, user_id: int
) -> None:
    other = await UserRepository(database).create("bob", "Bob", None, "OVERVIEW")
    await tokens.issue(HASH, user_id, expires_at=None)
    await tokens.issue_sliding(OTHER_HASH, user_id, idle_seconds=1000)
    await tokens.issue(b"bob", other.user_id, expires_at=None)
    assert await tokens.revoke_all(user_id) == 2
    assert await tokens.revoke_all(user_id) == 0
    assert await tokens.look_up(HASH) is None
    assert await tokens.look_up(OTHER_HASH) is None
    assert (await found(tokens, b"bob")).username == "bob"


async def test_only_tokens_that_ended_long_ago_are_deleted(tokens: TokenRepository, user_id: int) -> None:
    hashes = [bytes([n]) * 32 for n in range(6)]
    for token_hash, end in zip(hashes, (None, 100, -100, -1000, None, 100), strict=True):
        await tokens.issue(token_hash, user_id, expires_at=None if end is None else in_seconds(end))
    await tokens.revoke(hashes[4])
    assert await tokens.purge(keep_seconds=500) == 1
    assert await tokens.purge(keep_seconds=50) == 1
    assert [await tokens.look_up(token_hash) is not None for token_hash in hashes] == [
        True, True, False, False, False, True,
    ]  # fmt: skip
    assert await tokens.purge(keep_seconds=-1) == 1, "the revoked one"
    assert await tokens.purge(keep_seconds=-1) == 0


@pytest.mark.parametrize("ended", [0, 1, 3, 4, 7])
async def test_ended_tokens_are_deleted_in_small_portions_until_none_is_left(
    tokens: TokenRepository, user_id: int, ended: int
) -> None:
    await tokens.issue(HASH, user_id, expires_at=None)
    for number in range(ended):
        await tokens.issue(bytes([number]) * 32, user_id, expires_at=in_seconds(-100))
    assert await tokens.purge(keep_seconds=50, at_once=2) == ended
    assert await tokens.purge(keep_seconds=-1) == 0
    assert await tokens.look_up(HASH) is not None


async def test_an_ended_token_locked_by_another_transaction_is_left_for_the_next_time(
    tokens: TokenRepository, database: Database, user_id: int
) -> None:
    for number in range(3):
        await tokens.issue(bytes([number]) * 32, user_id, expires_at=in_seconds(-100))
    async with database.begin() as connection:
        await connection.execute(
            text("select from tokens where token_hash = :token for update"), {"token": bytes([1]) * 32}
        )
        assert await tokens.purge(keep_seconds=50, at_once=1) == 2
    assert await tokens.purge(keep_seconds=50, at_once=1) == 1


async def test_an_only_write_token_is_marked_as_such(tokens: TokenRepository, user_id: int) -> None:
    await tokens.issue(HASH, user_id, expires_at=None, label="J-07", only_write=True)
    await tokens.issue_sliding(OTHER_HASH, user_id, idle_seconds=1000)
    assert (await found(tokens)).only_write
    assert not (await found(tokens, OTHER_HASH)).only_write
    assert [(token.label, token.only_write, token.has_ended) for token in await tokens.list(user_id)] == [
        ("J-07", True, False),
        (None, False, False),
    ]


async def test_a_disabled_user_has_no_valid_token_and_gets_none(
    tokens: TokenRepository, database: Database, user_id: int
) -> None:
    await tokens.issue(HASH, user_id, expires_at=None)
    await UserRepository(database).disable(user_id)
    assert await tokens.look_up(HASH) is None
    assert not await tokens.issue(OTHER_HASH, user_id, expires_at=None)
    assert await tokens.issue_sliding(OTHER_HASH, user_id, idle_seconds=1000) is None
    assert len(await tokens.list()) == 1


async def test_tokens_are_listed_with_their_ends(tokens: TokenRepository, user_id: int) -> None:
    for number, end in enumerate((None, 100, -100)):
        await tokens.issue(bytes([number]) * 32, user_id, expires_at=None if end is None else in_seconds(end))
    await tokens.revoke(bytes(32))
    listed = {token.token_hash[0]: token for token in await tokens.list()}
    assert [listed[number].has_ended for number in range(3)] == [True, False, True]
    assert [listed[number].revoked_at is None for number in range(3)] == [False, True, True]
    assert await tokens.list(user_id + 1) == []
