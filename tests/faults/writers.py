"""Client threads that write continuously and record the responses."""

import random
import threading
import time
from dataclasses import dataclass, field

import httpx

APP = "fault_test"
RETRIES = 6
ANSWER_SECONDS = 20.0
LONGEST_WAIT_SECONDS = 0.3
"""Retry-After is in whole seconds; the tests are more impatient."""


@dataclass(slots=True)
class Write:
    """One write of `size` logs, with or without a key; `ids` is set when it is acknowledged."""

    name: str
    size: int
    keyed: bool
    ids: list[int] | None = None
    acknowledged_at: float = 0.0


@dataclass
class Ledger:
    """The writes of all writers of a test."""

    writes: list[Write] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    """Responses that no fault explains: neither a 201 nor a 503 with Retry-After."""
    newest: float = 0.0
    """The time at which the newest acknowledged write began."""
    slowest_refusal: float = 0.0


class Writer(threading.Thread):
    """Writes single logs and batches, most with an Idempotency-Key, until a test ends it.

    A write with a key and without a response is retried, or sometimes abandoned; one without a key is never retried.
    """

    def __init__(self, url: str, token: str, name: str, ledger: Ledger) -> None:
        super().__init__(name=name)
        self._random = random.Random(name)
        self._ledger = ledger
        self._ending = threading.Event()
        self._headers = {"Authorization": f"Token token={token}"}
        self._url = f"{url}/v1/factory_logs"

    def end(self) -> None:
        self._ending.set()
        self.join(ANSWER_SECONDS * 2)
        assert not self.is_alive(), "a request neither ended nor failed"

    def run(self) -> None:
        with httpx.Client(headers=self._headers, timeout=ANSWER_SECONDS) as client:
            number = 0
            while not self._ending.is_set():
                number += 1
                size = self._random.choice((0, 0, 0, 0, 1, 5, 50))
                write = Write(f"{self.name}-{number}", max(size, 1), keyed=self._random.random() < 0.9)
                self._ledger.writes.append(write)
                self._write(client, write, as_batch=size > 0)

    def _write(self, client: httpx.Client, write: Write, *, as_batch: bool) -> None:
        logs = [
            {"app_name": APP, "timestamp": "2024-01-31 13:45:00", "fields": {"write": write.name, "index": index}}
            for index in range(write.size)
        ]
        headers = {"Idempotency-Key": write.name} if write.keyed else {}
        tries = self._random.choice((1, RETRIES, RETRIES)) if write.keyed else 1
        for _ in range(tries):
            began = time.monotonic()
            try:
                response = client.post(self._url, json=logs if as_batch else logs[0], headers=headers)
            except httpx.TransportError:
                self._ending.wait(self._random.uniform(0.01, LONGEST_WAIT_SECONDS))
                continue
            if response.status_code == 201:
                body = response.json()
                write.ids = body["ids"] if as_batch else [body["factory_log_id"]]
                write.acknowledged_at = time.monotonic()
                self._ledger.newest = max(self._ledger.newest, began)
                return
            if response.status_code != 503 or "retry-after" not in response.headers:
                self._ledger.surprises.append(f"{write.name}: {response.status_code} {response.text[:300]}")
                return
            self._ledger.slowest_refusal = max(self._ledger.slowest_refusal, time.monotonic() - began)
            self._ending.wait(self._random.uniform(0.01, LONGEST_WAIT_SECONDS))


class Writers:
    """Several writers at once. Use it as a context manager: they write inside the block."""

    def __init__(self, url: str, token: str, name: str, ledger: Ledger, *, threads: int = 6) -> None:
        self._threads = [Writer(url, token, f"{name}-{number}", ledger) for number in range(threads)]
        self._ledger = ledger

    def __enter__(self) -> "Writers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.end()

    def wait_for_acknowledgement(self, seconds: float = 180.0) -> float:
        """Wait until a write that begins now is acknowledged; return the seconds that this took."""
        asked = time.monotonic()
        while self._ledger.newest < asked:
            assert time.monotonic() < asked + seconds, f"nothing was acknowledged for {seconds} s"
            time.sleep(0.01)
        return time.monotonic() - asked
