"""The simulated devices: each writes, waits for the 201 and writes again, as a test jig does (SPEC 7).

A write is tried again under its Idempotency-Key until it is answered, so a write whose answer is lost is stored once;
`Retry-After` is honoured. All logs of one run share an `app_name` of their own, by which they are counted in the end.
"""

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
import orjson

from factory_logs.client.backoff import Backoff
from factory_logs.client.server_clock import retry_after
from factory_logs.load.tally import Tally

PATH = "v1/factory_logs"
FIRST_IMEI = 990_000_000_000_000
BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.1, 5.0
ANSWER_SECONDS = 60.0
MISSING_PERMISSION = {401: "the service refuses the token", 403: "the token's user may not write (SYSTEM is needed)"}
WORTH_ANOTHER_TRY = frozenset({429, 500, 502, 503, 504})


class LoadError(Exception):
    """The load cannot go on; the message holds no secret."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent, and for how long."""

    url: str
    token: str = field(repr=False)
    devices: int
    batch: int
    """Logs in one request; 1 sends a single log, more a JSON array."""
    duration_seconds: float
    grace_seconds: float
    """How long after that a write without an answer is still tried again."""
    run: str = field(default_factory=lambda: f"loadtest_{datetime.now(UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(4)}")
    """The `app_name` of all logs of this run."""

    def client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=self.devices, max_keepalive_connections=self.devices)
        headers = {"Authorization": f"Token token={self.token}"}
        return httpx.AsyncClient(
            base_url=f"{self.url.rstrip('/')}/", headers=headers, limits=limits, timeout=ANSWER_SECONDS
        )

    def body(self, device: int, number: int) -> bytes:
        """The device's write number `number`, as JSON."""
        logs = [self._log(device, number * self.batch + place) for place in range(self.batch)]
        return orjson.dumps(logs[0] if self.batch == 1 else logs)

    def _log(self, device: int, serial: int) -> dict[str, object]:
        return {
            "app_name": self.run,
            "product_imei": f"{FIRST_IMEI + device}",
            "timestamp": datetime.now(UTC).isoformat(),
            "tags": {"jig_id": f"J-{device:03}", "hostname": "loadtest", "version": "1.0.0"},
            "fields": {
                "serial": serial,
                "passed": serial % 50 != 0,
                "input_pv": {"value": 17.82 + serial % 7, "pass": True},
                "output_usb": {"value": 5.03, "pass": True},
            },
        }


async def run_load(load: Load, http: httpx.AsyncClient, tally: Tally) -> None:
    """All devices, until the time is over and each write has been answered or given up. Raises LoadError."""
    end = time.monotonic() + load.duration_seconds
    try:
        async with asyncio.TaskGroup() as devices:
            for number in range(load.devices):
                devices.create_task(_run_device(number, load, http, tally, end))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _run_device(device: int, load: Load, http: httpx.AsyncClient, tally: Tally, end: float) -> None:
    number = 0
    while time.monotonic() < end:
        key = f"{load.run}-{device}-{number}"
        await _write(load, load.body(device, number), key, http, tally, end + load.grace_seconds)
        number += 1


async def _write(load: Load, body: bytes, key: str, http: httpx.AsyncClient, tally: Tally, give_up_at: float) -> None:
    backoff = Backoff(BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS)
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    started = time.monotonic()
    while True:
        try:
            answer = await http.post(PATH, content=body, headers=headers)
        except httpx.TransportError as error:
            tally.failures[type(error).__name__] += 1
            wait = backoff.failed()
        else:
            if answer.status_code == 201:
                tally.latencies.add(time.monotonic() - started)
                tally.stored += load.batch
                tally.replayed += load.batch if "idempotency-replayed" in answer.headers else 0
                return
            if answer.status_code in MISSING_PERMISSION:
                raise LoadError(MISSING_PERMISSION[answer.status_code])
            tally.failures[f"HTTP {answer.status_code}"] += 1
            if answer.status_code not in WORTH_ANOTHER_TRY:
                tally.refused += load.batch
                return
            wait = backoff.failed(retry_after(answer.headers.get("retry-after"), time.time()))
        if time.monotonic() + wait > give_up_at:
            tally.in_doubt += load.batch
            return
        await asyncio.sleep(wait)


async def count_stored(load: Load, http: httpx.AsyncClient) -> int:
    """How many logs of this run the service has, by its own API. Raises LoadError where it does not say."""
    q = orjson.dumps({"filters": [{"name": "app_name", "op": "==", "val": load.run}]}).decode()
    backoff = Backoff(BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS)
    give_up_at = time.monotonic() + load.grace_seconds
    while True:
        try:
            answer = await http.get(PATH, params={"q": q, "results_per_page": 1})
            if answer.status_code == 200:
                return int(answer.json()["num_results"])
            reason = f"HTTP {answer.status_code}"
        except httpx.TransportError as error:
            reason = type(error).__name__
        wait = backoff.failed()
        if time.monotonic() + wait > give_up_at:
            raise LoadError(f"the service does not say how many logs it has stored: {reason}")
        await asyncio.sleep(wait)
