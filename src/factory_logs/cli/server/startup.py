"""Start the service: bind the port, open and migrate the database, create the first user, and run uvicorn. Print the
address and how to get a token."""

import asyncio
import json
import math
import os
import resource
import shlex
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import typer
import uvicorn
from rich.console import Console

from factory_logs import __version__, logging, metrics
from factory_logs.cli.database import database_url, migrated
from factory_logs.cli.environment import load_settings, variable_name
from factory_logs.cli.output import CommandError, audit, is_terminal, print_message
from factory_logs.cli.server.supervisor import Supervisor
from factory_logs.db.engine import Database
from factory_logs.db.migrations import current, head
from factory_logs.db.users import UserRepository
from factory_logs.errors import ConflictError
from factory_logs.ingest.disk_reserve import CLUSTER_VARIABLE
from factory_logs.permissions import Level
from factory_logs.query import QueryLimits
from factory_logs.retention.policies import check_archives, read_policies
from factory_logs.schemas.factory_log import FactoryLogIn
from factory_logs.security.tokens import issue_token, short_hash
from factory_logs.settings import Settings

FACTORY = "factory_logs.app:create_app_from_environment"


def run(*, host: str | None, port: int | None, workers: int | None) -> None:
    """Serve until SIGTERM or SIGINT. The port is bound first, so that a second `serve` fails before it changes
    anything."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    settings = load_settings(host=host, port=port, workers=workers)
    logging.configure(settings.log_level)
    if settings.retention_policies is not None:
        check_archives(read_policies(settings.retention_policies, QueryLimits.from_settings(settings)))
    _allow_many_connections()
    config = _uvicorn_config(settings)
    listener = _bind(settings)
    settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    with listener, database_url(settings, create=True, serving=True) as url:
        asyncio.run(_bring_up_to_date(url, settings))
        _listen(listener, config.backlog, settings)
        if settings.database_url is None and (token := asyncio.run(_first_token(url, settings))) is not None:
            show_first_token(settings, token)
        show_banner(settings)
        _hand_to_workers(settings, url)
        _serve(config, listener, settings)


def _stop(number: int, frame: FrameType | None) -> None:
    """End the process so that every `finally` block runs. uvicorn raises a signal again after handling it."""
    raise SystemExit(0)


def _allow_many_connections() -> None:
    """Raise the limit on open files. Each connection is an open file, and a process may have only about a thousand by
    default."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _bind(settings: Settings) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise _cannot_listen(settings, error) from None
    return listener


def _listen(listener: socket.socket, backlog: int, settings: Settings) -> None:
    """Accept connections. Raises CommandError if another program has bound the port too and listens already."""
    try:
        listener.listen(backlog)
    except OSError as error:
        raise _cannot_listen(settings, error) from None


def _cannot_listen(settings: Settings, error: OSError) -> CommandError:
    return CommandError(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}")


async def _bring_up_to_date(url: str, settings: Settings) -> None:
    """Migrate only if the tables are out of date, because the role of the service may not be allowed to change tables
    (docker-compose.yml)."""
    database = Database(url, settings)
    try:
        await database.check()
        if await current(database) == head():
            return
    finally:
        await database.dispose()
    await migrated(url)


def _uvicorn_config(settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        FACTORY,
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="factory_logs.api.asgi.event_loop:EventLoop",
        http="factory_logs.api.asgi.uvicorn_protocol:JsonHttpProtocol",
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # uvicorn's default trusts 127.0.0.1; see api/asgi/forwarded.py
        log_config=logging.STANDARD_LIBRARY,
        log_level=settings.log_level,
        timeout_worker_healthcheck=math.ceil(settings.worker_start_seconds),  # applies after a restart by SIGHUP
        backlog=settings.max_unaccepted_connections,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
    )


def _hand_to_workers(settings: Settings, url: str) -> None:
    """Set the environment variables that the workers read."""
    os.environ |= {
        "FACTORY_LOGS_DATABASE_URL": url,
        "FACTORY_LOGS_HOST": settings.host,
        "FACTORY_LOGS_PORT": str(settings.port),
        "FACTORY_LOGS_WORKERS": str(settings.workers),
    }
    if settings.database_url is None:
        from factory_logs.embedded.os_user import cluster_dir

        os.environ[CLUSTER_VARIABLE] = str(cluster_dir(settings.data_dir.expanduser().resolve()))


def _serve(config: uvicorn.Config, listener: socket.socket, settings: Settings) -> None:
    if config.workers > 1:
        with tempfile.TemporaryDirectory(prefix="factory-logs-metrics-") as directory:
            os.environ[metrics.DIRECTORY_VARIABLE] = directory
            supervisor = Supervisor(config, [listener], settings)
            supervisor.run()
        if supervisor.has_failed:
            raise SystemExit(1)
        return
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if not server.started:
        raise SystemExit(1)


async def _first_token(url: str, settings: Settings) -> str | None:
    """Create the first user if the database contains no users. Return a token for this user that never expires, or None
    if there are users."""
    database = Database(url, settings)
    try:
        users = UserRepository(database)
        if await users.list():
            return None
        try:
            admin = await users.create(FIRST_USER, "Administrator", None, Level.SYSTEM)
        except ConflictError:  # another `serve` on the same data directory has created the user
            return None
        token = await issue_token(database, admin.user_id, expires_at=None)
        audit(settings, "user created", user=FIRST_USER, permission=Level.SYSTEM)
        audit(settings, "token issued", user=FIRST_USER, token=short_hash(token), expires_in="never")
        return token
    finally:
        await database.dispose()


FIRST_USER = "admin"
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - read, not bound


def show_banner(settings: Settings) -> None:
    """Print addresses and hints if stderr is a terminal, because the log of a service does not need them."""
    if not is_terminal():
        return
    url = _url(settings)
    lines = {"Page": f"{url}/"} if settings.page_enabled else {}
    lines["API"] = url
    if settings.docs_enabled:
        lines["Docs"] = f"{url}/docs"
    if settings.database_url is None:
        lines["Data"] = str(settings.data_dir.expanduser().resolve())
        lines["Token"] = f"{_given_data_dir()}{typed_command()} tokens issue {FIRST_USER} --expires-in 12h"
    else:
        lines["Data"] = "the PostgreSQL of FACTORY_LOGS_DATABASE_URL"
        lines["Token"] = f"{typed_command()} tokens issue NAME --expires-in 12h"
    lines["Stop"] = "Ctrl-C"
    print_message(
        "\n".join(["", f"Factory Logs {__version__}", *(f"  {name:<6} {text}" for name, text in lines.items()), ""])
    )


def show_first_token(settings: Settings, token: str) -> None:
    """Print the first token. It is shown only once, because the database stores only its hash."""
    console = Console(highlight=False)
    console.print(f"\n[bold]This is a new database. The token of its user {FIRST_USER!r}, shown only now:[/bold]\n")
    typer.echo(token)
    console.print("\nStore a first log with it:\n")
    typer.echo(_curl_line(settings, token))
    typer.echo(
        f"\nA lost token is replaced by: {_given_data_dir()}{typed_command()} tokens issue {FIRST_USER} "
        "--expires-in never\n"
    )
    console.file.flush()


def typed_command() -> str:
    """Return `factory-logs` in the form in which it was called: through uv, as a Python module, by its path or by its
    name."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        typed = f"{Path(sys.executable).name} -m factory_logs"
    elif any(Path(folder, program.name) == program for folder in os.environ.get("PATH", "").split(os.pathsep)):
        typed = program.name
    else:
        typed = shlex.quote(str(program))
    # uv sets this variable for the commands that it runs.
    return f"uv run {typed}" if "UV_RUN_RECURSION_DEPTH" in os.environ else typed


def _given_data_dir() -> str:
    """Return the assignment of FACTORY_LOGS_DATA_DIR to put before the shown command, or an empty text if the variable
    is not set."""
    variable = variable_name("data_dir")
    return f"{variable}={shlex.quote(os.environ[variable])} " if variable in os.environ else ""


def _url(settings: Settings) -> str:
    host = ANY_ADDRESS.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _curl_line(settings: Settings, token: str) -> str:
    extra: Any = FactoryLogIn.model_config["json_schema_extra"]
    return shlex.join(
        [
            "curl", "-X", "POST", f"{_url(settings)}/v1/factory_logs",
            "-H", f"Authorization: Token token={token}",
            "-H", "Content-Type: application/json",
            "-d", json.dumps(extra["examples"][0]),
        ]
    )  # fmt: skip
