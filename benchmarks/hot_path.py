"""Benchmark of the parts of a single POST: `uv run python -m benchmarks.hot_path [--rounds 5]`
(docs/explanation/hot-path.md).

The service's own code runs in this process on an embedded PostgreSQL, with 64 concurrent requests as under full load.
Each stage is timed by itself; the difference to the whole is called the rest. HTTP itself is measured with wrk: the
service's protocol in front of an application that does nothing. Times are CPU times, as CPU time limits a worker.

At the end, one part is timed in its place in the whole, for fewer and fewer clients: the longer the worker waits
between two requests, the slower the same code is.
"""

import argparse
import asyncio
import io
import json
import logging
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import uvloop
from pydantic import SecretStr
from starlette.requests import Request
from uvicorn.protocols.http.flow_control import FlowControl

from benchmarks.harness import cpu_seconds, embedded, peer_process, report, wrk
from benchmarks.writes import CONNECTIONS, log, posting
from factory_logs import metrics
from factory_logs.api.asgi.access_log import AccessLog
from factory_logs.api.http.exchange import Exchange
from factory_logs.api.http.responses import collection_url, created
from factory_logs.api.services import Services
from factory_logs.app import FactoryLogs, create_app
from factory_logs.db.log_inserts import NewRow, insert_logs
from factory_logs.db.migrations import upgrade
from factory_logs.db.records import record_text
from factory_logs.db.users import UserRepository
from factory_logs.ingest import single_records
from factory_logs.ingest.fast_validation import fast_log_from_text, read_log
from factory_logs.ingest.validation import NewLog
from factory_logs.permissions import Level
from factory_logs.schemas.record_limits import RecordLimits
from factory_logs.security.tokens import issue_token
from factory_logs.settings import Settings

REQUESTS = 6400
FEWEST_REQUESTS = 400
HTTP_SECONDS = 2
Message = dict[str, Any]


class Stages:
    """The parts of one POST, each timed by itself over many requests, in CPU microseconds of this process per
    request."""

    def __init__(self, app: FactoryLogs, token: str) -> None:
        self._app = app
        self._services: Services = app.state.services
        self._authorization = f"Token token={token}"
        self._bodies = [json.dumps(log(number)).encode() for number in range(500)]
        self._headers = [(b"host", b"127.0.0.1:8000"), (b"content-type", b"application/json"),
                         (b"authorization", self._authorization.encode())]  # fmt: skip
        self._logs = [read_log(body, self._services.limits) for body in self._bodies]

    def scope(self) -> Message:
        return {
            "type": "http", "method": "POST", "path": "/v1/factory_logs", "query_string": b"", "scheme": "http",
            "headers": self._headers, "server": ("127.0.0.1", 8000), "root_path": "", "app": self._app, "state": {},
        }  # fmt: skip

    async def whole(self, clients: int = CONNECTIONS) -> float:
        """Time everything except HTTP: requests started as the protocol starts them."""
        count = max(REQUESTS * clients // CONNECTIONS, FEWEST_REQUESTS)
        ended = asyncio.get_running_loop().create_future()
        running = clients

        def start_next() -> None:
            nonlocal running
            exchange = next(exchanges, None)
            if exchange is not None:
                assert self._app.start_without_task(exchange)
                return
            running -= 1
            if not running:
                ended.set_result(None)

        notes: dict[object, Any] = {}
        requests = [arrived(self._bodies[number % 500], self.scope(), notes, start_next) for number in range(count)]
        exchanges = iter(requests)
        started = time.process_time()
        await self._services.authenticator.authenticate(self._authorization)
        for _ in range(clients):
            start_next()
        await ended
        return self._each(started, count)

    async def validation_within(self, clients: int) -> float:
        """Return the time of validation within the whole: the lower quartile, without the calls that were
        interrupted."""
        nanoseconds: list[int] = []

        def timed(text: bytes, limits: RecordLimits) -> NewLog | None:
            started = time.perf_counter_ns()
            log = fast_log_from_text(text, limits)
            nanoseconds.append(time.perf_counter_ns() - started)
            return log

        with patch.object(single_records, "fast_log_from_text", timed):
            await self.whole(clients)
        return statistics.quantiles(nanoseconds, n=4)[0] / 1000

    async def authentication(self) -> float:
        await self._services.authenticator.authenticate(self._authorization)
        started = time.process_time()
        for _ in range(REQUESTS):
            self._services.authenticator.cached(self._authorization)
        return self._each(started)

    async def validation(self) -> float:
        started = time.process_time()
        for number in range(REQUESTS):
            read_log(self._bodies[number % 500], self._services.limits)
        return self._each(started)

    async def statement(self) -> float:
        connection = await self._services.database.connect_raw()
        rows = [NewRow(log, "admin") for log in self._logs[:CONNECTIONS]]
        started = time.process_time()
        for _ in range(REQUESTS // CONNECTIONS):
            await insert_logs(connection, rows)
        each = self._each(started)
        await connection.close()
        return each

    async def waiting(self) -> float:
        """Return the wall-clock time of PostgreSQL per row, for a batch as under full load."""
        connection = await self._services.database.connect_raw()
        rows = [NewRow(log, "admin") for log in self._logs[:CONNECTIONS]]
        started, busy = time.perf_counter(), time.process_time()
        for _ in range(REQUESTS // CONNECTIONS):
            await insert_logs(connection, rows)
        each = (time.perf_counter() - started - (time.process_time() - busy)) / REQUESTS * 1e6
        await connection.close()
        return each

    async def response(self) -> float:
        connection = await self._services.database.connect_raw()
        (stored,) = await insert_logs(connection, [NewRow(self._logs[0], "admin")])
        await connection.close()
        collection = collection_url(Request(self.scope()).scope)
        started = time.process_time()
        for _ in range(REQUESTS):
            created(record_text(self._logs[0], "admin").stored(stored), collection, 1)  # type: ignore[arg-type]
        return self._each(started)

    async def accounting(self) -> float:
        lines = AccessLog(io.BytesIO())
        started = time.process_time()
        for _ in range(REQUESTS):
            metrics.count_response("POST", "/v1/factory_logs", 201, 0.001)
            lines.write(
                request_id="0", method="POST", route="/v1/factory_logs", status=201, seconds=0.001, user="admin"
            )
        lines.flush()
        return self._each(started)

    @staticmethod
    def _each(started: float, count: int = REQUESTS) -> float:
        return (time.process_time() - started) / count * 1e6


class SilentExchange(Exchange):
    """An exchange that sends nothing, because HTTP is timed by itself."""

    def respond(self, status: int, headers: object, body: object) -> bool:
        assert status == 201
        self.on_response()
        return True


def arrived(body: bytes, scope: Message, head_notes: dict[object, Any], on_response: Callable[[], object]) -> Exchange:
    """Return the exchange of a request whose body has arrived. All requests repeat the same head."""
    transport = asyncio.Transport()
    exchange = SilentExchange(
        scope=scope,  # type: ignore[arg-type]
        transport=transport, flow=FlowControl(transport), logger=logging.getLogger(),
        access_logger=logging.getLogger(), access_log=False, default_headers=[], message_event=asyncio.Event(),
        expect_100_continue=False, keep_alive=True, on_response=on_response,
    )  # fmt: skip
    exchange.head_notes = head_notes
    exchange.body += body
    exchange.more_body = False
    exchange.message_event.set()
    return exchange


def http(application: str) -> float:
    """Return the CPU microseconds per request of the service's HTTP protocol alone, at full load."""
    protocol = "factory_logs.api.asgi.uvicorn_protocol:JsonHttpProtocol"
    with peer_process(f"benchmarks.peers:{application}", protocol=protocol) as (url, pid):
        bodies = [json.dumps(log(number)).encode() for number in range(500)]
        script = posting(bodies, "none", "application/json")
        started = cpu_seconds(pid)
        measured = wrk(url, script, connections=CONNECTIONS, seconds=HTTP_SECONDS)
        return (cpu_seconds(pid) - started) / measured.requests * 1e6


async def measure(url: str, rounds: int) -> dict[str, list[float]]:
    await upgrade(url)
    app = create_app(Settings(database_url=SecretStr(url), token_cache_seconds=3600))
    app.state.access_log._stream = io.BytesIO()
    async with app.router.lifespan_context(app):
        database = app.state.services.database
        user = await UserRepository(database).create("admin", "admin", None, Level.SYSTEM)
        stages = Stages(app, await issue_token(database, user.user_id, expires_at=None))
        parts: dict[str, Callable[[], Awaitable[float]]] = {
            "whole": stages.whole, "token": stages.authentication,
            "validation": stages.validation, "statement": stages.statement, "response": stages.response,
            "accounting": stages.accounting, "PostgreSQL": stages.waiting,
        }  # fmt: skip
        for clients in CLIENTS:
            parts[f"whole, {clients} clients"] = partial(stages.whole, clients)
            parts[f"validation within, {clients} clients"] = partial(stages.validation_within, clients)
        figures: dict[str, list[float]] = {name: [] for name in [*parts, *HTTP]}
        for _ in range(rounds):
            for name, part in parts.items():
                figures[name].append(await part())
            for name, application in HTTP.items():
                figures[name].append(await asyncio.to_thread(http, application))
    return figures


CLIENTS = (64, 8, 1)
HTTP = {"HTTP": "silent", "HTTP by messages": "silent_messages"}
NAMES = {
    "HTTP": "HTTP in and out: uvicorn, httptools, the socket",
    "token": "token and permission, from memory",
    "validation": "JSON to a valid log, and its tags and fields to text",
    "statement": "asyncpg: encoding the batch, reading the ids",
    "response": "the record as JSON, Location",
    "accounting": "metrics and log line",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with embedded() as url:
        figures = uvloop.run(measure(url, options.rounds))
    medians = {name: statistics.median(values) for name, values in figures.items()}
    rest = medians["whole"] - sum(medians[name] for name in NAMES if name != "HTTP")
    total = medians["whole"] + medians["HTTP"]
    rows = [(text, medians[name]) for name, text in NAMES.items()]
    rows.append(("the rest: dispatcher, headers, route, queue", rest))
    lines: list[dict[str, object]] = [
        {"benchmark": text, "us a request": round(each, 1), "share": f"{each / total:.0%}"} for text, each in rows
    ]
    lines.append({"benchmark": "all that a worker does", "us a request": round(total, 1), "share": "100%"})
    waiting = f"{medians['PostgreSQL']:.1f}"
    lines.append({"benchmark": "beside it: PostgreSQL, a row of a batch of 64", "us a request": waiting, "share": "-"})
    messages = round(medians["HTTP by messages"], 1)
    lines.append(
        {"benchmark": "instead of the first line: HTTP by ASGI's messages", "us a request": messages, "share": "-"}
    )
    for clients in CLIENTS:
        for text, name in (("all but HTTP", "whole"), ("JSON to a valid log, within it", "validation within")):
            each = round(medians[f"{name}, {clients} clients"], 1)
            lines.append({"benchmark": f"{text}, {clients} clients", "us a request": each, "share": "-"})
    report("hot_path", lines, figures)


if __name__ == "__main__":
    main()
