"""The simulated devices: each writes, waits for the 201 and writes again, as a test jig does
(docs/reference/http-api.md#writing).

A write is retried under its Idempotency-Key until it gets a response, so a write whose response is lost is stored once;
`Retry-After` is honoured. All logs of one run have the same unique `app_name`, by which they are counted at the end.

The devices must not be the limit. So each device is a thread with its own httpx transport (load/transport.py), without
an httpx client, which would take several times the processor time (docs/how-to/loadtest.md#the-cost-of-a-request).
"""

import copy
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import orjson

from factory_logs.client.retry import Backoff, retry_after
from factory_logs.client.settings import tls_verification
from factory_logs.load.statistics import LoadCounts
from factory_logs.load.transport import DeviceTransport

PATH = "v1/factory_logs"
FIRST_IMEI = 990_000_000_000_000
BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.1, 5.0
RESPONSE_SECONDS = 60.0
THREAD_STACK_BYTES = 512 * 1024
"""Thousands of threads with the usual 8 MiB each would need more address space than a container may have."""
MISSING_PERMISSION = {
    401: "the service refuses the token",
    403: "the token's user may not write; it needs the permission SYSTEM",
}
WORTH_ANOTHER_TRY = frozenset({429, 500, 502, 503, 504})


class LoadError(Exception):
    """The load test cannot continue; the message contains no secret."""


@dataclass(frozen=True, slots=True)
class Load:
    """The logs to send, and the duration. `ca_file` contains the trusted CAs, as in ClientSettings."""

    url: str
    token: str = field(repr=False)
    devices: int
    batch: int
    """The number of logs in one request. With 1, a request contains a single log, otherwise a JSON array."""
    duration_seconds: float
    grace_seconds: float
    """The time after the duration in which writes without a response are still retried."""
    ca_file: Path | None = None
    run: str = field(default_factory=lambda: f"loadtest_{datetime.now(UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(4)}")
    """The `app_name` of all logs of this run."""

    def client(self) -> httpx.Client:
        """Return a client for requests other than writes. Like the devices, it uses no proxy."""
        return httpx.Client(
            base_url=f"{self.url.rstrip('/')}/",
            headers={"Authorization": f"Token token={self.token}"},
            verify=tls_verification(self.ca_file),
            timeout=RESPONSE_SECONDS,
            trust_env=False,
        )

    def transports(self) -> Callable[[], httpx.BaseTransport]:
        """Return a function that makes the transport of a device. All transports share one TLS context, because making
        one is slow.

        Raises ValueError for a CA file that cannot be used.
        """
        verification = tls_verification(self.ca_file)
        context = httpx.create_ssl_context() if verification is True else verification
        return lambda: DeviceTransport(context, RESPONSE_SECONDS)

    def body(self, device: int, number: int) -> bytes:
        """Return the body of the device's write with this number as JSON."""
        logs = [self._log(device, number * self.batch + index) for index in range(self.batch)]
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


class DeviceGroup:
    """The devices of one process, by their numbers. Call `start` once, then `wait` until all devices have ended."""

    def __init__(
        self, load: Load, numbers: Sequence[int], transports: Callable[[], httpx.BaseTransport] | None = None
    ) -> None:
        self._load = load
        self._url = httpx.URL(f"{load.url.rstrip('/')}/{PATH}")
        self._headers = [("Authorization", f"Token token={load.token}"), ("Content-Type", "application/json")]
        make = transports or load.transports()
        self._counts = LoadCounts()
        self._counting = threading.Lock()
        self._stop = threading.Event()
        self._end = 0.0
        self._give_up_at = 0.0
        self._started_processor = 0.0
        self._error: LoadError | None = None
        self._threads = [threading.Thread(target=self._run, args=(number, make()), daemon=True) for number in numbers]

    def start(self) -> None:
        """Start all devices. Raises LoadError if the system allows no more threads."""
        self._started_processor = time.process_time()
        self._end = time.monotonic() + self._load.duration_seconds
        self._give_up_at = self._end + self._load.grace_seconds
        stack_before = threading.stack_size(THREAD_STACK_BYTES)
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError:
            self.stop()
            raise LoadError("this system allows fewer threads than devices; lower --devices") from None
        finally:
            threading.stack_size(stack_before)

    def stop(self) -> None:
        """Stop each device after its current request."""
        self._stop.set()

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds`, and return whether all devices have ended. Raises LoadError if a device has raised
        it."""
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                return False
        if self._error is not None:
            raise self._error
        return True

    def counts(self) -> LoadCounts:
        """Return a copy of the counts so far."""
        with self._counting:
            self._counts.processor_seconds = time.process_time() - self._started_processor
            return copy.deepcopy(self._counts)

    def _run(self, device: int, transport: httpx.BaseTransport) -> None:
        """Write until the duration is over, but at least once. Store the error that ends the device."""
        number = 0
        try:
            while not number or (not self._stop.is_set() and time.monotonic() < self._end):
                self._write(transport, self._load.body(device, number), f"{self._load.run}-{device}-{number}")
                number += 1
        except LoadError as error:
            self._error = error
            self._stop.set()
        finally:
            with suppress(httpx.TransportError):
                transport.close()

    def _write(self, transport: httpx.BaseTransport, body: bytes, key: str) -> None:
        """Send one write, and retry it until it has a final response or the time for retries is over. Raises
        LoadError."""
        headers = [*self._headers, ("Idempotency-Key", key)]
        backoff: Backoff | None = None
        started = time.monotonic()
        while True:
            sent = time.monotonic()
            try:
                request = httpx.Request("POST", self._url, headers=headers, content=body)
                response = transport.handle_request(request)
            except httpx.TransportError as error:
                failure, wait_at_least = type(error).__name__, None
            else:
                now = time.monotonic()
                if response.status_code == 201:
                    self._acknowledged(now - started, now - sent, "idempotency-replayed" in response.headers)
                    return
                if response.status_code in MISSING_PERMISSION:
                    raise LoadError(MISSING_PERMISSION[response.status_code])
                failure = f"HTTP {response.status_code}"
                if response.status_code not in WORTH_ANOTHER_TRY:
                    self._failed(failure, now - sent, refused=self._load.batch)
                    return
                wait_at_least = retry_after(response.headers.get("retry-after"), time.time())
            backoff = backoff or Backoff(BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS)
            wait, now = backoff.failed(wait_at_least), time.monotonic()
            if now + wait > self._give_up_at or self._stop.is_set():
                self._failed(failure, now - sent, in_doubt=self._load.batch)
                return
            self._failed(failure, now - sent)
            self._stop.wait(wait)
            with self._counting:
                self._counts.retry_seconds += wait

    def _acknowledged(self, write_seconds: float, request_seconds: float, is_replayed: bool) -> None:
        with self._counting:
            self._counts.requests += 1
            self._counts.request_seconds += request_seconds
            self._counts.latencies.add(write_seconds)
            self._counts.stored += self._load.batch
            self._counts.replayed += self._load.batch if is_replayed else 0

    def _failed(self, failure: str, request_seconds: float, *, refused: int = 0, in_doubt: int = 0) -> None:
        with self._counting:
            self._counts.requests += 1
            self._counts.request_seconds += request_seconds
            self._counts.failures[failure] += 1
            self._counts.refused += refused
            self._counts.in_doubt += in_doubt


def count_stored(load: Load, http: httpx.Client) -> int:
    """Return the number of logs of this run that the service has stored, according to its API. Raises LoadError if it
    does not respond."""
    q = orjson.dumps({"filters": [{"name": "app_name", "op": "==", "val": load.run}]}).decode()
    backoff = Backoff(BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS)
    give_up_at = time.monotonic() + load.grace_seconds
    while True:
        try:
            response = http.get(PATH, params={"q": q, "results_per_page": 1})
            if response.status_code == 200:
                return int(response.json()["num_results"])
            reason = f"HTTP {response.status_code}"
        except httpx.TransportError as error:
            reason = type(error).__name__
        wait = backoff.failed()
        if time.monotonic() + wait > give_up_at:
            raise LoadError(f"the number of logs that the service has stored is unknown: {reason}")
        time.sleep(wait)
