"""The SQLSTATEs that depend on the state of the server."""

import asyncpg
import pytest

from factory_logs.db.errors import LOST, UNAVAILABLE, translate_errors, unavailable_message
from factory_logs.errors import DatabaseUnavailableError, QueryTooLongError


def error_of(state: str, text: str) -> asyncpg.PostgresError:
    error = asyncpg.PostgresError(text)
    error.sqlstate = state
    return error


@pytest.mark.parametrize("state", [*UNAVAILABLE, "08003", "40P01", "53300", "57P01", "58030"])
def test_an_error_caused_by_the_servers_state_is_retryable(state: str) -> None:
    message = unavailable_message(error_of(state, "whatever PostgreSQL says"))
    assert message is not None
    assert message.endswith("try again shortly.")


@pytest.mark.parametrize("state", ["22021", "23503", "25001", "25P02", "42P01", "42501", "55000", "0A000", "P0001"])
def test_an_error_caused_by_the_statement_is_not_retryable(state: str) -> None:
    assert unavailable_message(error_of(state, "connection to a node lost")) is None


@pytest.mark.parametrize(
    "text",
    [
        "connection to the remote node 10.0.0.7:5432 failed with the following error: timeout expired",
        "failed to connect to worker 10.0.0.7",
        "could not receive results: server closed the connection unexpectedly",
        "terminating because a node is lost",
    ],
)
def test_an_internal_error_that_names_a_lost_node_is_retryable(text: str) -> None:
    assert unavailable_message(error_of("XX000", text)) == LOST


@pytest.mark.parametrize("text", ["cache lookup failed for relation 16385", "could not find nodeSubplan", "bug"])
def test_any_other_internal_error_is_not_retryable(text: str) -> None:
    with pytest.raises(asyncpg.InternalServerError), translate_errors():
        raise asyncpg.InternalServerError(text)


def test_a_result_that_is_too_large_for_a_coordinator_is_not_a_bug() -> None:
    text = "the intermediate result size exceeds citus.max_intermediate_result_size (currently 1048576 kB)"
    with pytest.raises(QueryTooLongError, match="than the cluster allows"), translate_errors():
        raise asyncpg.InternalServerError(text)


def test_a_write_without_a_shard_key_is_retryable_as_the_logs_have_just_been_distributed() -> None:
    with pytest.raises(DatabaseUnavailableError, match="tables have changed"), translate_errors():
        raise asyncpg.NullValueNotAllowedError("cannot perform an INSERT without a partition column value")


def test_a_plan_outdated_by_a_migration_is_retryable() -> None:
    with pytest.raises(DatabaseUnavailableError, match="tables have changed"), translate_errors():
        raise asyncpg.InvalidCachedStatementError("cached plan must not change result type")
