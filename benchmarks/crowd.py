"""Many concurrent writers, in a process of their own, and how evenly a server treats them.

wrk reports nothing by connection, so it cannot show whether some writers wait while others are served. Here each writer
has a connection, sends its next request when it has the response to the last one, and waits as long as a 503 says.

The writers connect either before the measurement, a few at a time, or all at once at its beginning.
"""

import argparse
import asyncio
import json
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
GROUP = 50
"""How many writers connect at a time before the measurement."""
_RETRY_AFTER = re.compile(rb"\r\nretry-after: (\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Crowd:
    """The figures of all writers together. `refused` counts the responses with 503."""

    per_second: float
    refused: int
    p50_seconds: float
    p99_seconds: float
    slowest_seconds: float
    fairness: float
    """Jain's index of the writers' successes: 1 if all writers stored the same number, 1/n if one stored all."""
    fewest: int
    most: int
    """The successes of the writer with the fewest, and of the writer with the most."""
    unserved: int
    """The number of writers without any response."""


class Writer(asyncio.Protocol):
    """One writer, which sends the same request again and again until `end`."""

    def __init__(self, request: bytes, end: asyncio.Future[None]) -> None:
        self._request = request
        self._end = end
        self._received = b""
        self._sent_at = 0.0
        self._first: asyncio.Future[None] | None = None
        self.seconds: list[float] = []
        self.refused = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if not self._end.done():
            self._end.set_exception(RuntimeError(f"the server closed a connection: {error}"))

    def send(self) -> None:
        if not self._end.done():
            self._sent_at = time.perf_counter()
            self._transport.write(self._request)

    async def send_first(self) -> None:
        """Send one request before the measurement, and wait for its response."""
        self._first = asyncio.get_running_loop().create_future()
        self.send()
        await asyncio.wait([self._first, self._end], return_when=asyncio.FIRST_COMPLETED)
        self._first = None
        self.seconds.clear()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        head += b"\r\n"
        length = _LENGTH.search(head)
        if not found or (length and len(body) < int(length[1])) or self._end.done():
            return
        self._received = b""
        status = head[9:12]
        if status == b"503":
            self.refused += 1
            wait = _RETRY_AFTER.search(head)
            asyncio.get_running_loop().call_later(int(wait[1]) if wait else 1, self.send)
        elif status == b"201":
            self.seconds.append(time.perf_counter() - self._sent_at)
            if self._first is None:
                self.send()
            elif not self._first.done():
                self._first.set_result(None)
        else:
            self._end.set_exception(RuntimeError(f"the server responded with {head!r}"))


async def load(url: str, requests: Sequence[bytes], writers: int, seconds: float, *, at_once: bool) -> Crowd:
    """Let the writers write for `seconds`, and return their figures. `at_once`: they also connect in this time."""
    loop = asyncio.get_running_loop()
    address = urlsplit(url)
    end: asyncio.Future[None] = loop.create_future()
    crowd: list[Writer] = []
    for first in range(0, writers, GROUP):
        group = []
        for number in range(first, min(first + GROUP, writers)):
            request = requests[number % len(requests)]
            _, writer = await loop.create_connection(
                lambda request=request: Writer(request, end),
                address.hostname,
                address.port,  # type: ignore[misc]
            )
            group.append(writer)
        if not at_once:
            await asyncio.gather(*(writer.send_first() for writer in group))
        crowd += group
    for writer in crowd:
        writer.send()
    loop.call_later(seconds, lambda: end.done() or end.set_result(None))
    await end
    return figures([writer.seconds for writer in crowd], sum(writer.refused for writer in crowd), seconds)


def figures(by_writer: Sequence[Sequence[float]], refused: int, seconds: float) -> Crowd:
    """Return the figures of writers, from the seconds that each success of each writer took."""
    counts = [len(each) for each in by_writer]
    every = sorted(second for each in by_writer for second in each)
    if not every:
        raise RuntimeError("no writer got a response in time: pass more --seconds")
    return Crowd(
        per_second=len(every) / seconds,
        refused=refused,
        p50_seconds=statistics.median(every),
        p99_seconds=every[int(len(every) * 0.99)],
        slowest_seconds=every[-1],
        fairness=sum(counts) ** 2 / (len(counts) * sum(count * count for count in counts)),
        fewest=min(counts),
        most=max(counts),
        unserved=counts.count(0),
    )


def crowd(
    url: str, bodies: Sequence[bytes], token: str, *, writers: int, seconds: float, at_once: bool = False
) -> Crowd:
    """Run the writers in a process of their own, and return their figures."""
    task = {"url": url, "bodies": [body.decode() for body in bodies], "token": token, "writers": writers,
            "seconds": seconds, "at_once": at_once}  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.crowd"]
    output = subprocess.run(command, input=json.dumps(task), check=True, stdout=subprocess.PIPE, text=True).stdout
    return Crowd(**json.loads(output))


def allow_many_connections() -> None:
    """Raise the limit on open files, for this process and those it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _request(url: str, body: bytes, token: str) -> bytes:
    address = urlsplit(url)
    return (
        f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
        f"Authorization: Token token={token}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    task = json.load(sys.stdin)
    allow_many_connections()
    requests = [_request(task["url"], body.encode(), task["token"]) for body in task["bodies"]]
    measured = uvloop.run(load(task["url"], requests, task["writers"], task["seconds"], at_once=task["at_once"]))
    print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
