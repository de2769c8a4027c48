"""Random requests to two workers over real sockets: the only 5xx is an intended 503, and no worker dies.

`pytest tests/hostile/test_fuzz.py --fuzz-inputs 200000` is the long form; `-s` shows its figures.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.permissions import Level
from factory_logs.security.tokens import issue_token
from tests.faults import processes
from tests.hostile.conftest import GROWTH_BYTES, LIMIT_SECONDS, MIB, settings
from tests.hostile.fuzzing import mutated, requests
from tests.serving import free_port, serving

INPUTS = 1_000
CONNECTIONS = 100
SECONDS = 120
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
# It must be a whole header line: an echoed value cannot contain a line break.
RESPONSE = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]*\r\n((?:[a-z-]+: [^\r\n]*\r\n)+)\r\n")


@dataclass(slots=True)
class Figures:
    statuses: Counter[int] = field(default_factory=Counter)
    unavailable: Counter[str] = field(default_factory=Counter)
    bad: list[tuple[bytes, bytes]] = field(default_factory=list)
    silent: int = 0

    def add(self, sent: bytes, received: bytes) -> None:
        found = list(RESPONSE.finditer(received))
        self.silent += not found
        for each in found:
            status, headers = int(each[1]), each[2]
            self.statuses[status] += 1
            if status == 503 and b"retry-after: " in headers:
                message = received[each.end() :].partition(b'"request_id"')[0][:120]
                self.unavailable[message.decode(errors="replace")] += 1
            elif status >= 500:
                self.bad.append((sent, received))


async def converse(port: int, sent: bytes) -> bytes:
    """Send the bytes, and return the response bytes until the service closes the connection."""
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(sent)
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


async def fuzz(port: int, token: str, inputs: int, random: Random) -> Figures:
    figures, seeds = Figures(), requests(token)
    left = iter(range(inputs))

    async def caller() -> None:
        for _ in left:
            batch = [mutated(random, seeds)]
            while random.random() < 0.2 and next(left, None) is not None:
                batch.append(mutated(random, seeds))
            sent = b"".join([*batch, LAST])
            figures.add(sent, await converse(port, sent))

    await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))
    return figures


@pytest.fixture(scope="module")
def two_workers(migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int, Path]]:
    port, output = free_port(), tmp_path_factory.mktemp("fuzz") / "output"
    chosen = {"FACTORY_LOGS_DATABASE_URL": migrated_url, "FACTORY_LOGS_TAIL_MAX_SECONDS": "1"}
    with serving(chosen | settings(LIMIT_SECONDS), port, output, workers=2) as supervisor:
        yield port, supervisor.pid, output


@pytest.mark.slow
async def test_no_random_request_is_a_5xx_or_ends_a_worker(
    two_workers: tuple[int, int, Path], database: Database, pytestconfig: pytest.Config
) -> None:
    port, supervisor, output = two_workers
    inputs = pytestconfig.getoption("fuzz_inputs") or INPUTS
    seed = pytestconfig.getoption("fuzz_seed") or time.time_ns()
    user = await UserRepository(database).create("mallory", "Mallory", None, Level.SYSTEM)
    token = await issue_token(database, user.user_id, expires_at=None)
    workers = set(processes.children(supervisor))
    figures = await fuzz(port, token, inputs, Random(seed))
    print(f"\n{inputs} inputs, seed {seed}: {sorted(figures.statuses.items())}, no response: {figures.silent}")
    print(f"intended 503: {figures.unavailable.most_common()}")
    print(f"memory of the workers in MiB: {[processes.memory(pid) // MIB for pid in workers]}")
    assert not figures.bad, f"seed {seed}: {figures.bad[0]}"
    written = output.read_text(errors="replace")
    assert not re.search("unexpected error|Traceback|Exception in ASGI", written), f"seed {seed}"
    assert set(processes.children(supervisor)) == workers, f"seed {seed}"
    assert all(processes.memory(pid) < 2 * GROWTH_BYTES for pid in workers), f"seed {seed}"
    assert figures.statuses[200] > inputs / 10, "most requests must reach the inside"
    assert figures.statuses[201], "most requests must reach the inside"
