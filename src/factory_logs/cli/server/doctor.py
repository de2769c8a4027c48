"""`factory-logs doctor`: check everything that the service needs, and show what to fix."""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from factory_logs import __version__, device_environment
from factory_logs.cli.device.options import CaFile, Token, TokenFile, fixed_token
from factory_logs.cli.environment import is_set, load_settings, variable_name
from factory_logs.cli.output import CommandError, ending_on_sigterm, print_table, reporting_errors, utc

if TYPE_CHECKING:
    import asyncpg
    import httpx

    from factory_logs.db.citus import NodeState
    from factory_logs.db.engine import Database
    from factory_logs.settings import Settings

OLDEST_POSTGRESQL = 14
CLOCK_SECONDS = 5.0
"""A larger difference between clocks causes a warning, because times from different machines are compared: the times of
logs, and the expiry of tokens."""
CONNECTIONS_OF_COMMANDS = 10
"""The number of connections reserved for PostgreSQL itself, and for commands that run while the service runs."""
SERVICE_SECONDS = 10.0


class State(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


COLOURS = {State.OK: "green", State.WARNING: "yellow", State.ERROR: "red"}


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check: its subject, the finding, and the advice."""

    subject: str
    state: State
    found: str
    advice: str = ""


def doctor(
    url: Annotated[
        str | None, typer.Option("--url", envvar=device_environment.URL, help="Also check this running service.")
    ] = None,
    token: Token = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array instead of a table.")] = False,
) -> None:
    """Check this machine, the database and, with --url, a running service. The exit code is 1 if there is an error.

    The command changes nothing. A token is only checked together with --url.
    """
    with reporting_errors(), ending_on_sigterm():
        has_token = url is not None and not (token is None and token_file is None)
        given = fixed_token(token, token_file) if has_token else None
        checks = list(_checks(url, given, ca_file))
        if as_json:
            typer.echo(json.dumps([asdict(check) for check in checks], indent=2, ensure_ascii=False))
        else:
            table = Table("Check", "State", "Found", "What to do")
            for check in checks:
                state = f"[{COLOURS[check.state]}]{check.state}[/]"
                table.add_row(check.subject, state, escape(check.found), escape(check.advice))
            print_table(table)
        if any(check.state is State.ERROR for check in checks):
            raise typer.Exit(1)


def _checks(url: str | None, token: str | None, ca_file: Path | None) -> Iterator[Check]:
    yield Check("program", State.OK, f"factory-logs {__version__}, Python {sys.version.split()[0]}")
    try:
        settings = load_settings()
    except CommandError as error:
        yield Check(
            "settings", State.ERROR, str(error), "correct the variable; `factory-logs settings` lists all settings"
        )
        return
    changed = [variable_name(name) for name in type(settings).model_fields if is_set(name)]
    yield Check("settings", State.OK, ", ".join(changed) or "all defaults")
    yield _open_files(settings)
    yield from _directories(settings)
    if settings.retention_policies is not None:
        yield _retention(settings, settings.retention_policies)
    if settings.database_url is None:
        yield from _data_dir(settings)
    yield from _database(settings)
    if url is not None:
        yield from _service(url, token, ca_file)


def _open_files(settings: "Settings") -> Check:
    import resource  # missing on Windows, on which devices run other commands

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = "open files: no limit" if hard == resource.RLIM_INFINITY else f"open files: {hard}"
    if hard == resource.RLIM_INFINITY or hard > settings.max_connections:
        return Check("machine", State.OK, f"{os.cpu_count()} cores, {found}")
    return Check(
        "machine", State.WARNING, f"{found}, fewer than the {settings.max_connections} connections of a worker",
        f"raise the limit (LimitNOFILE= of systemd, ulimit -n), or lower {variable_name('max_connections')}",
    )  # fmt: skip


def _directories(settings: "Settings") -> Iterator[Check]:
    """Check the folders and files that workers write to."""
    folder = settings.body_file_dir or Path(tempfile.gettempdir())
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        yield Check("long bodies", State.OK, f"{folder}, {_free(folder)}")
    else:
        yield Check(
            "long bodies", State.ERROR, f"{folder} is no folder that can be written to",
            f"make it, or set {variable_name('body_file_dir')} to another",
        )  # fmt: skip
    if (audit := settings.audit_file) is not None:
        target = audit if audit.exists() else audit.parent
        good = os.access(target, os.W_OK) and not audit.is_dir()
        advice = (
            ""
            if good
            else f"make its folder and give this user the right to write, or change {variable_name('audit_file')}"
        )
        yield Check(
            "audit file", State.OK if good else State.ERROR, f"{audit}{'' if good else ' cannot be written'}", advice
        )


def _retention(settings: "Settings", file: Path) -> Check:
    """Check what `serve` checks before it starts: the file of the policies, and their folders for archives."""
    from factory_logs.errors import BadRequestError
    from factory_logs.query import QueryLimits
    from factory_logs.retention.policies import check_archives, read_policies

    try:
        policies = read_policies(file, QueryLimits.from_settings(settings))
        check_archives(policies)
    except BadRequestError as error:
        found = "; ".join([error.message, *map(str, error.errors)])
        return Check("retention", State.ERROR, found, f"correct it, or change {variable_name('retention_policies')}")
    return Check("retention", State.OK, f"{file}: {', '.join(policy.name for policy in policies)}")


def _free(folder: Path) -> str:
    disk = os.statvfs(folder)
    return f"{decimal(disk.f_bavail * disk.f_frsize)} free"


def _data_dir(settings: "Settings") -> Iterator[Check]:
    """Check the data directory of the embedded database and its disk."""
    from factory_logs.embedded.os_user import cluster_dir, server_user
    from factory_logs.ingest.disk_reserve import free_bytes

    data_dir = settings.data_dir.expanduser().resolve()
    cluster = cluster_dir(data_dir)
    try:
        status = cluster.stat()
        free = min(free_bytes(cluster).values())
    except (FileNotFoundError, NotADirectoryError):
        return  # the check of the database reports this error
    except PermissionError as error:
        yield Check(
            "data directory", State.ERROR, f"no permission for {error.filename}",
            "run the commands as the user who runs the service, or as root",
        )  # fmt: skip
        return
    user = server_user(data_dir)
    if status.st_uid != user.uid or status.st_mode & 0o077:
        yield Check(
            "data directory", State.ERROR, f"{cluster} must belong to {user.name or user.uid} alone",
            f"chown -R {user.name or user.uid} {cluster} && chmod 700 {cluster}",
        )  # fmt: skip
    else:
        yield Check("data directory", State.OK, f"{data_dir}, PostgreSQL runs as {user.name or user.uid}")
    reserve = settings.disk_reserve_bytes
    found = f"{decimal(free)} free, the reserve is {decimal(reserve)}"
    advice = "enlarge the disk, or remove expired logs: factory-logs retention (docs/how-to/operating.md)"
    if free < reserve:
        yield Check("disk", State.ERROR, f"{found}: new logs are refused", advice)
    elif free < 2 * reserve:
        yield Check("disk", State.WARNING, f"{found}: new logs will be refused", advice)
    else:
        yield Check("disk", State.OK, found)


def _database(settings: "Settings") -> Iterator[Check]:
    import asyncpg
    from sqlalchemy.exc import DBAPIError

    from factory_logs.cli.database import database_url
    from factory_logs.db.errors import driver_error
    from factory_logs.errors import DatabaseUnavailableError

    if settings.database_url is None and not _has_database(settings):
        yield Check(
            "database", State.ERROR, f"there is no embedded database in {settings.data_dir.expanduser().resolve()}",
            "set FACTORY_LOGS_DATA_DIR to that of the service; `factory-logs serve` creates a new database",
        )  # fmt: skip
        return
    try:
        with database_url(settings) as url:
            yield from asyncio.run(_database_checks(url, settings))
    except CommandError as error:
        yield Check("database", State.ERROR, str(error), "" if settings.database_url is None else _URL_ADVICE)
    except DatabaseUnavailableError as error:
        yield Check("database", State.ERROR, getattr(error, "reason", error.message), _URL_ADVICE)
    except (DBAPIError, asyncpg.PostgresError) as error:  # for example, the role may not read a table
        advice = "grant the role of FACTORY_LOGS_DATABASE_URL what docker/init.sql grants"
        yield Check("database", State.ERROR, str(driver_error(error)), advice)


def _has_database(settings: "Settings") -> bool:
    from factory_logs.embedded import has_database

    return has_database(settings.data_dir)


_URL_ADVICE = "correct FACTORY_LOGS_DATABASE_URL, or what the message says (docs/how-to/operating.md)"


async def _database_checks(url: str, settings: "Settings") -> list[Check]:
    """Return the checks of the database. Raises DatabaseUnavailableError."""
    from factory_logs.db.connecting import ENCODING, destination
    from factory_logs.db.engine import Database

    database = Database(url, settings)
    try:
        await database.check()
        connection = await database.connect_raw()
        try:
            version = await connection.fetchval("SHOW server_version")
            where = settings.data_dir if settings.database_url is None else destination(url)
            reachable = Check("database", State.OK, f"PostgreSQL {version}, encoding {ENCODING}: {where}")
            if connection.get_server_version().major < OLDEST_POSTGRESQL:
                reachable = Check(
                    "database", State.WARNING, reachable.found,
                    f"upgrade PostgreSQL: versions before {OLDEST_POSTGRESQL} are not supported any more",
                )  # fmt: skip
            checks = [reachable, *await _server_settings(connection, settings), await _clock(connection)]
            tables = await _tables(database)
            checks.append(tables)
            if tables.state is State.OK:
                checks += await _content(connection)
            return checks + await _nodes(connection)
        finally:
            await connection.close()
    finally:
        await database.dispose()


_SERVER = """
SELECT current_setting('fsync')::boolean AS fsync, current_setting('full_page_writes')::boolean AS full_page_writes,
       current_setting('autovacuum')::boolean AS autovacuum, current_setting('max_connections')::int AS max_connections,
       current_setting('superuser_reserved_connections')::int AS reserved,
       pg_is_in_recovery() AS is_standby, current_setting('transaction_read_only')::boolean AS is_read_only
"""


async def _server_settings(connection: "asyncpg.Connection", settings: "Settings") -> list[Check]:
    found = await connection.fetchrow(_SERVER)
    checks = []

    def add(state: State, what: str, advice: str) -> None:
        checks.append(Check("database settings", state, what, advice))

    if not found["fsync"]:
        add(State.ERROR, "fsync = off: a power cut loses acknowledged logs or the database", "set fsync = on")
    if not found["full_page_writes"]:
        add(State.WARNING, "full_page_writes = off: safe on few file systems only", "set full_page_writes = on")
    if not found["autovacuum"]:
        add(State.WARNING, "autovacuum = off: reads become slow, room is not used again", "set autovacuum = on")
    if found["is_standby"]:
        add(State.ERROR, "the server is a standby and takes no writes", "name the primary in FACTORY_LOGS_DATABASE_URL")
    elif found["is_read_only"]:
        add(State.ERROR, "default_transaction_read_only = on: no log can be stored", "set it to off for this role")
    needed = settings.workers * _connections(settings) + CONNECTIONS_OF_COMMANDS
    usable = found["max_connections"] - found["reserved"]
    if usable < needed:
        what = f"max_connections = {found['max_connections']}, and {settings.workers} workers may use {needed}"
        add(State.WARNING, what, "raise it, or lower the workers' connections (docs/how-to/operating.md#connections)")
    return checks or [Check("database settings", State.OK, f"durable, {usable} connections for at most {needed}")]


def _connections(settings: "Settings") -> int:
    """Return the maximum number of connections that one worker opens (docs/how-to/operating.md#connections)."""
    return 2 + sum(
        (
            settings.pool_size, settings.page_connections, settings.id_readers, settings.auth_connections,
            settings.write_connections, settings.writers, settings.batch_connections,
        )
    )  # fmt: skip


async def _clock(connection: "asyncpg.Connection") -> Check:
    asked = time.time()
    theirs: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return _clock_check("clock", "the database's", theirs.timestamp(), (asked + time.time()) / 2)


def _clock_check(subject: str, whose: str, theirs: float, ours: float) -> Check:
    difference = abs(theirs - ours)
    now = utc(datetime.fromtimestamp(ours, UTC))
    if difference <= CLOCK_SECONDS:
        return Check(subject, State.OK, f"{now} UTC, as {whose}")
    return Check(
        subject, State.WARNING, f"{now} UTC, {whose} is {difference:.0f} s {'ahead' if theirs > ours else 'behind'}",
        "synchronise the clocks of both machines (chrony, systemd-timesyncd)",
    )  # fmt: skip


async def _tables(database: "Database") -> Check:
    from factory_logs.db.migrations import current, head, is_known

    found, needed = await current(database), head()
    if found == needed:
        return Check("tables", State.OK, f"revision {found}")
    if found is not None and not is_known(found):
        return Check("tables", State.ERROR, f"revision {found} is of a newer factory-logs", "upgrade this one")
    have = "there are none" if found is None else f"revision {found}"
    return Check("tables", State.ERROR, f"{have}, revision {needed} is needed", "factory-logs migrate")


async def _nodes(connection: "asyncpg.Connection") -> list[Check]:
    """Check the nodes of a Citus cluster."""
    from factory_logs.db.citus import is_distributed, node_states

    return [_node_check(node) for node in await node_states(connection)] if is_distributed(connection) else []


def _node_check(node: "NodeState") -> Check:
    state, found, advice = State.ERROR, f"PostgreSQL {node.version}", ""
    if node.error:
        found = f"does not respond: {node.error}"
        advice = "start it, or correct pg_hba.conf or its row in pg_dist_node (docs/how-to/scale-out.md)"
    elif not node.has_fsync:
        found, advice = "fsync = off: a power cut loses acknowledged logs or the node", "set fsync = on"
    elif not node.most_prepared:
        found, advice = "max_prepared_transactions = 0: no log can be stored", "set it to max_connections or more"
    elif node.waits_for_recovery:
        state, found = State.WARNING, "a transaction has waited for recovery for over a minute: its logs are invisible"
        advice = "SELECT recover_prepared_transactions() on the coordinator"
    else:
        state = State.OK
    return Check(f"node {node.host}:{node.port}", state, found, advice)


_CONTENT = """
SELECT (SELECT count(*) FROM users WHERE disabled_at IS NULL) AS users,
       (SELECT seqcache = 1 AND seqincrement > 0 AND NOT seqcycle FROM pg_sequence
        WHERE seqrelid = pg_get_serial_sequence('factory_logs', 'factory_log_id')::regclass) AS is_ordered,
       ARRAY(SELECT indexrelid::regclass::text FROM pg_index
             WHERE NOT indisvalid AND indrelid IN ('factory_logs'::regclass, 'repairs'::regclass)) AS invalid
"""


async def _content(connection: "asyncpg.Connection") -> list[Check]:
    found = await connection.fetchrow(_CONTENT)
    checks = []
    if found["invalid"]:
        names = ", ".join(found["invalid"])
        checks.append(Check("indexes", State.WARNING, f"not complete: {names}", "factory-logs migrate"))
    if not found["is_ordered"]:
        checks.append(
            Check(
                "ids", State.WARNING, "the sequence of factory_log_id caches or cycles, so each count reads all logs",
                "ALTER SEQUENCE factory_logs_factory_log_id_seq INCREMENT 1 CACHE 1 NO CYCLE",
            )
        )  # fmt: skip
    if found["users"]:
        checks.append(Check("users", State.OK, f"{found['users']} may log in"))
    else:
        advice = "factory-logs users create NAME --permission SYSTEM"
        checks.append(Check("users", State.WARNING, "there is no user who may log in", advice))
    return checks


def _service(url: str, token: str | None, ca_file: Path | None) -> Iterator[Check]:
    """Check a running service over HTTP."""
    import httpx

    from factory_logs.client.settings import checked_url, tls_verification

    try:
        verify = tls_verification(ca_file)
    except ValueError as error:
        yield Check("service", State.ERROR, str(error), "correct --ca-file or FACTORY_LOGS_CA_FILE")
        return
    try:
        with httpx.Client(base_url=checked_url(url), timeout=SERVICE_SECONDS, verify=verify) as client:
            yield from _ready(client.get("/readyz"), url)
            if token is not None:
                headers = {"Authorization": f"Token token={token}"}
                yield _token(client.get("/v1/factory_logs?results_per_page=1", headers=headers))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        yield Check(
            "service", State.ERROR, f"{url} does not respond: {error or type(error).__name__}",
            "start it with `factory-logs serve`, or correct --url; a proxy before it must pass requests on",
        )  # fmt: skip


def _ready(response: "httpx.Response", url: str) -> Iterator[Check]:
    from factory_logs.client.retry import http_date

    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or not {"status", "message"} & body.keys():
        yield Check("service", State.ERROR, f"{url} is no factory-logs, or a proxy responds for it", "correct --url")
        return
    if response.status_code != 200:
        advice = "see the checks of the database above, and the service's log"
        yield Check("service", State.ERROR, f"{url} is not ready: {body.get('message')}", advice)
    elif body.get("warnings"):
        advice = "docs/how-to/operating.md#a-disk-that-is-nearly-full"
        yield Check("service", State.WARNING, f"{url} is ready, but: {'; '.join(body['warnings'])}", advice)
    else:
        yield Check("service", State.OK, f"{url} is ready")
    if (date := http_date(response.headers.get("date"))) is not None:
        yield _clock_check("service clock", "the service's", date, time.time())


def _token(response: "httpx.Response") -> Check:
    if response.status_code == 200:
        return Check("token", State.OK, "valid, and may read")
    if response.status_code == 403:
        return Check("token", State.OK, "valid; it may not read, as one for a jig (--only-write)")
    advice = "factory-logs tokens list shows tokens and their ends; tokens issue makes a new one"
    return Check("token", State.ERROR, f"refused with {response.status_code}", advice)
