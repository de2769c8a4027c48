"""Running the service: database, tables, the first user, then uvicorn."""

import asyncio
import json
import math
import os
import resource
import shlex
import signal
import socket
import tempfile
from contextlib import suppress
from types import FrameType
from typing import Any

import typer
import uvicorn
from rich.console import Console
from uvicorn.supervisors import Multiprocess

from factory_logs import logs, metrics
from factory_logs.cli.database import database_url, load_settings, migrated
from factory_logs.cli.reporting import CommandError, audit, tell
from factory_logs.db.engine import Database
from factory_logs.db.migrate import current, head
from factory_logs.db.users import UserRepository
from factory_logs.errors import ConflictError
from factory_logs.schemas.factory_log import FactoryLogIn
from factory_logs.security.issuing import issue_token
from factory_logs.security.levels import Level
from factory_logs.security.tokens import short_hash
from factory_logs.settings import Settings

FACTORY = "factory_logs.app:create_app_from_environment"
FIRST_USER = "admin"
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - read, not bound


def run(*, host: str | None, port: int | None, workers: int | None) -> None:
    """Serve until SIGTERM or SIGINT. The port is taken first: a second `serve` fails before it does anything."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    settings = load_settings(host=host, port=port, workers=workers)
    logs.configure(settings.log_level)
    _allow_many_connections()
    config = _uvicorn_config(settings)
    listener = _bind(settings)
    settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    with listener, database_url(settings, serving=True) as url:
        asyncio.run(_bring_up_to_date(url, settings))
        listener.listen(config.backlog)
        if settings.database_url is None:
            _welcome(settings, asyncio.run(_first_token(url, settings)))
        _hand_to_workers(settings, url)
        _serve(config, listener)


def migrate_only() -> None:
    """Run the migrations the database lacks."""
    with database_url(load_settings()) as url:
        asyncio.run(migrated(url))
        tell(f"The tables are at revision {head()}")


def _stop(number: int, frame: FrameType | None) -> None:
    """uvicorn raises a signal it has served again; it ends the process by way of every `finally`."""
    raise SystemExit(0)


def _allow_many_connections() -> None:
    """Each connection is an open file, of which a process may have only a thousand until it asks for more."""
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
        raise CommandError(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}") from None
    return listener


async def _bring_up_to_date(url: str, settings: Settings) -> None:
    """Migrate where that is needed: in a company the role that serves may not change tables (docker-compose.yml)."""
    database = Database(url, settings)
    try:
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
        loop="uvloop",
        http="factory_logs.api.protocol:JsonHttpProtocol",
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        log_config=logs.STANDARD_LIBRARY,
        log_level=settings.log_level,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
    )


def _hand_to_workers(settings: Settings, url: str) -> None:
    """The workers read the environment, as they would without this command."""
    os.environ |= {
        "FACTORY_LOGS_DATABASE_URL": url,
        "FACTORY_LOGS_HOST": settings.host,
        "FACTORY_LOGS_PORT": str(settings.port),
        "FACTORY_LOGS_WORKERS": str(settings.workers),
    }


def _serve(config: uvicorn.Config, listener: socket.socket) -> None:
    if config.workers > 1:
        with tempfile.TemporaryDirectory(prefix="factory-logs-metrics-") as directory:
            os.environ[metrics.DIRECTORY_VARIABLE] = directory
            Multiprocess(config, sockets=[listener]).run()
        return
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if not server.started:
        raise SystemExit(1)


async def _first_token(url: str, settings: Settings) -> str | None:
    """A token without end for the first user of a database without users; None where there are some."""
    database = Database(url, settings)
    try:
        users = UserRepository(database)
        if await users.list():
            return None
        try:
            admin = await users.create(FIRST_USER, "Administrator", None, Level.SYSTEM)
        except ConflictError:  # another `serve` on the same data directory was first
            return None
        token = await issue_token(database, admin.user_id, expires_at=None)
        audit(settings, "user created", user=FIRST_USER, permission=Level.SYSTEM)
        audit(settings, "token issued", user=FIRST_USER, token=short_hash(token), expires_in="never")
        return token
    finally:
        await database.dispose()


def _welcome(settings: Settings, token: str | None) -> None:
    """The token is shown this once: only its hash is stored."""
    if token is None:
        return
    console = Console(highlight=False)
    console.print(f"\n[bold]This is a new database. The token of its user {FIRST_USER!r}, shown only now:[/bold]\n")
    typer.echo(token)
    console.print("\nStore a first log with it:\n")
    typer.echo(_curl_line(settings, token))
    console.print(f"\nA lost token is replaced by: factory-logs tokens issue {FIRST_USER} --expires-in never\n")
    console.file.flush()


def _curl_line(settings: Settings, token: str) -> str:
    host = ANY_ADDRESS.get(settings.host, settings.host)
    place = f"[{host}]" if ":" in host else host
    extra: Any = FactoryLogIn.model_config["json_schema_extra"]
    return shlex.join(
        [
            "curl", "-X", "POST", f"http://{place}:{settings.port}/v1/factory_logs",
            "-H", f"Authorization: Token token={token}",
            "-H", "Content-Type: application/json",
            "-d", json.dumps(extra["examples"][0]),
        ]
    )  # fmt: skip
