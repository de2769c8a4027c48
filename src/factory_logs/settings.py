"""Every knob of the service, read from the environment as `FACTORY_LOGS_*` (SPEC 9).

Each setting has its unit in its name or its description; `factory-logs settings` and docs/settings.md are derived
from this class.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024


class Settings(BaseSettings):
    """The service's settings. Defaults suit one machine; docs/operating.md says what to change for a company."""

    model_config = SettingsConfigDict(env_prefix="FACTORY_LOGS_", frozen=True, extra="ignore")

    database_url: SecretStr | None = Field(
        None,
        description="An own PostgreSQL, `postgresql://user:password@host:5432/name`; "
        "without it an embedded one runs under the data directory",
    )
    data_dir: Path = Field(
        Path("data"),
        description="Where the embedded PostgreSQL keeps its data; relative to the working directory",
    )

    host: str = Field("127.0.0.1", description="The address that `serve` listens on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="The port that `serve` listens on")
    workers: PositiveInt = Field(1, description="Worker processes of `serve`")
    docs_enabled: bool = Field(True, description="Whether /docs and /openapi.json are served")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe log lines that are written"
    )
    access_log: bool = Field(True, description="Whether each request writes a log line")
    audit_file: Path | None = Field(
        None,
        description="A file that a line is appended to for each login and each change of users or tokens; "
        "without it they are written on stderr",
    )

    max_connections: PositiveInt = Field(10_000, description="The most connections to one worker; over it a 503")
    max_head_bytes: PositiveInt = Field(
        64 * 1024, description="The longest URL and headers of a request in all; over it a 400"
    )
    max_headers: PositiveInt = Field(100, description="The most headers of a request; over it a 400")
    head_seconds: PositiveFloat = Field(
        20.0,
        description="How long the head of a request may take to arrive, on a new connection from its beginning; "
        "then a 408",
    )
    keep_alive_seconds: PositiveInt = Field(
        5, description="How long a connection may rest after an answer before it is closed"
    )
    send_seconds: PositiveFloat = Field(
        60.0, description="How long a caller may take nothing of its answer before the connection is closed"
    )

    max_body_bytes: PositiveInt = Field(
        16 * MIB, description="The largest request body, compressed or not; over it a 413"
    )
    max_record_bytes: PositiveInt = Field(256 * 1024, description="The largest record as compact JSON; over it a 400")
    max_nesting: PositiveInt = Field(32, description="How deep arrays and objects may nest in `tags` and `fields`")
    max_reported_errors: PositiveInt = Field(100, description="How many bad records of a batch an answer lists")

    session_idle_seconds: PositiveInt = Field(
        3 * 3600, description="How long after its last use a login's token expires"
    )
    ended_token_seconds: PositiveInt = Field(
        7 * 86400, description="How long the row of an expired or revoked token is kept"
    )
    token_cache_seconds: PositiveFloat = Field(
        3.0,
        description="How long a worker trusts a token it has checked; a revocation is seen within this time",
    )
    token_touch_seconds: PositiveFloat = Field(60.0, description="How often at most a token's last use is written back")

    pool_size: PositiveInt = Field(8, description="Database connections of one worker for all that has none of its own")
    page_connections: PositiveInt = Field(
        4,
        description="Database connections of one worker for pages; a page that waits longer than "
        "`FACTORY_LOGS_POOL_TIMEOUT_SECONDS` for one is a 503",
    )
    max_query_shapes: PositiveInt = Field(
        500, description="For how many shapes of `q`, which differ in more than their values, one worker keeps the SQL"
    )
    pool_timeout_seconds: PositiveFloat = Field(5.0, description="How long a request waits for one of them; then a 503")
    connect_timeout_seconds: PositiveFloat = Field(5.0, description="How long opening a database connection may take")
    id_readers: PositiveInt = Field(
        1, description="Database connections of one worker for logs asked for by id, dozens of them in one query"
    )
    statement_timeout_seconds: PositiveFloat = Field(
        30.0, description="How long one query may run; a longer one is a 503 that says what to narrow"
    )

    writers: PositiveInt = Field(1, description="Group-commit writers of one worker, a database connection each")
    max_batch_logs: PositiveInt = Field(1000, description="The most logs in one group commit")
    max_batch_bytes: PositiveInt = Field(4 * MIB, description="The most bytes in one group commit")
    max_queued_logs: PositiveInt = Field(
        10_000, description="How many logs may wait for a group commit in one worker; then a 503"
    )
    max_queued_bytes: PositiveInt = Field(
        64 * MIB, description="How many bytes may wait for a group commit in one worker; then a 503"
    )
    batch_connections: PositiveInt = Field(
        3, description="Database connections of one worker for batches; that many are written at once"
    )
    batch_wait_seconds: PositiveFloat = Field(5.0, description="How long a batch waits for one of them; then a 503")
    max_bodies_bytes: PositiveInt = Field(
        128 * MIB, description="How many bytes of bodies one worker holds at once; over it a 503"
    )
    batch_part_bytes: PositiveInt = Field(
        4 * MIB, description="A longer NDJSON body is stored in parts of this size, in one transaction"
    )
    body_timeout_seconds: PositiveFloat = Field(
        300.0, description="How long a body may take to arrive; a slower one is a 408"
    )
    body_idle_seconds: PositiveFloat = Field(
        30.0, description="How long a body may pause on its way; after a longer pause a 408"
    )
    leftover_body_seconds: PositiveFloat = Field(
        20.0,
        description="How long the rest of a body may take that was answered before its end; then the connection ends",
    )
    max_login_bytes: PositiveInt = Field(16 * 1024, description="The largest body of a login; over it a 413")
    idempotency_seconds: PositiveInt = Field(24 * 3600, description="How long an Idempotency-Key is kept at least")
    commit_timeout_seconds: PositiveFloat = Field(
        10.0, description="How long a group commit may take before its waiters get a 503"
    )
    stall_seconds: PositiveFloat = Field(
        2.0, description="After PostgreSQL has kept all writers waiting so long, new logs get a 503 at once"
    )
    drain_seconds: PositiveFloat = Field(10.0, description="How long a stopping worker goes on storing what waits")
    login_max_failures: PositiveInt = Field(
        10, description="Failed logins of one user from one address within the window; then a 429"
    )
    login_max_failures_per_address: PositiveInt = Field(
        100, description="Failed logins of all users from one address within the window; then a 429"
    )
    login_window_seconds: PositiveInt = Field(300, description="The window in which failed logins are counted")

    max_filter_depth: PositiveInt = Field(20, description="How deep and/or/not/has may nest in `q`")
    max_filter_nodes: PositiveInt = Field(500, description="How many filters `q` may hold in all")
    max_in_values: PositiveInt = Field(1000, description="How many values one `in` or `not_in` may list")
    max_results_per_page: PositiveInt = Field(100, description="The most records on one page")
    default_results_per_page: PositiveInt = Field(10, description="Records on a page where the caller names no number")

    count_look_seconds: PositiveFloat = Field(
        1.0, description="How often a worker looks which logs are settled, so that they need not be counted again"
    )
    max_known_counts: PositiveInt = Field(1000, description="For how many filters one worker knows the count")
    kept_count_seconds: Annotated[float, Field(ge=0)] = Field(
        0.2, description="A count that takes so long is kept in the database, for other workers and after a restart"
    )
    max_kept_counts: PositiveInt = Field(1000, description="How many counts are kept in the database, the newest")

    max_stats_rows: PositiveInt = Field(10_000, description="The most buckets and groups in one answer of stats")
    max_stats_fields: PositiveInt = Field(10, description="How many `by` and `field` one question for stats may name")

    compress_min_bytes: PositiveInt = Field(
        1024, description="Pages and stats of at least this size are compressed where the caller accepts it"
    )
    record_cache_seconds: PositiveInt = Field(
        3600, description="How long a client may show a log by id again without asking; logs never change"
    )

    max_exports: PositiveInt = Field(
        2, description="How many NDJSON or CSV answers of one worker may run; then a 503. Each holds one of the pool"
    )
    export_send_seconds: PositiveFloat = Field(
        30.0, description="How long the reader of an export may take nothing before it is broken off"
    )
    export_max_seconds: PositiveFloat = Field(3600.0, description="How long an export may take; then it is broken off")

    max_tails: PositiveInt = Field(50, description="How many connections of one worker may follow new logs; then a 503")
    tail_poll_seconds: PositiveFloat = Field(0.25, description="How often a worker looks for new logs to be followed")
    tail_heartbeat_seconds: PositiveFloat = Field(
        15.0, description="How long a quiet follower waits for a sign of life"
    )
    tail_send_seconds: PositiveFloat = Field(30.0, description="How long a follower may take nothing before it is left")
    tail_max_seconds: PositiveFloat = Field(3600.0, description="How long one connection may follow; it may come back")
