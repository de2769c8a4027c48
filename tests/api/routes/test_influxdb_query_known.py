"""Cached windows give the same result as reading all points, even if points are written between two requests."""

import random
from collections.abc import AsyncIterator

import httpx
import pytest

from factory_logs.permissions import Level
from tests.api.conftest import client_of, worker

BEGIN = 1_706_700_000
STATEMENTS = (
    "SELECT count(v), sum(n), mean(v), min(v), max(n), spread(n), first(v), last(n), last(ok) FROM m "
    "WHERE time >= {first}s AND time < {last}s GROUP BY time(1m), jig fill(none)",
    "SELECT mean(n) FROM m WHERE time >= {first}s AND time <= {last}s GROUP BY time(1m, 7s) fill(0)",
    "SELECT count(n) FROM m WHERE time >= {first}s AND time < {last}s AND jig != 'a' "
    "GROUP BY time(30m) tz('Asia/Kolkata')",
    "SELECT derivative(mean(n), 1s) FROM m WHERE time >= {first}s AND time < {last}s GROUP BY time(1m)",
    "SELECT mean(n) FROM m WHERE time >= {first}s AND time < {last}s GROUP BY time(1m) ORDER BY time DESC LIMIT 3",
    "SELECT count(v), sum(n), mean(v), min(v), last(n) FROM m WHERE time >= {first}s AND time < {last}s",
    "SELECT mean(v) FROM m WHERE time >= {first}s AND time < {last}s GROUP BY jig",
    "SELECT max(n) FROM m WHERE time >= {first}s AND time < {last}s",
    "SELECT mean(v) FROM m GROUP BY jig",
    "SELECT mean(v) FROM m",
    "SELECT last(n) FROM m GROUP BY jig",
    "SELECT first(v) FROM m",
    "SELECT max(n) FROM m GROUP BY jig",
    "SELECT min(v) FROM m",
    "SELECT count(n) FROM m GROUP BY time(1m) fill(none)",
    "SHOW TAG VALUES WITH KEY = jig",
    "SHOW TAG VALUES FROM m WITH KEY = jig WHERE site = 'x'",
)


@pytest.fixture
async def pair(
    database: object, migrated_url: str, tokens: dict[Level, str]
) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Yield a worker that caches everything, and one that caches nothing."""
    remembering = {"known_sums_seconds": 0.0, "count_look_seconds": 0.001}
    async with (
        worker(migrated_url, **remembering) as knowing,
        worker(migrated_url, max_known_rows=1, known_sums_seconds=1e9) as plain,
        client_of(knowing, tokens[Level.SYSTEM]) as first,
        client_of(plain, tokens[Level.SYSTEM]) as second,
    ):
        yield first, second


def point(drawn: random.Random, second: int) -> str:
    fields = [f"n={drawn.randint(-9, 9)}i"]
    if drawn.random() < 0.7:
        fields.append(f"v={drawn.randint(0, 40) / 8}")
    if drawn.random() < 0.5:
        fields.append(f"ok={drawn.choice(['true', 'false'])}")
    tags = "".join(f",{name}={drawn.choice('abc')}" for name in ("jig", "site") if drawn.random() < 0.9)
    return f"m{tags.replace('site=a', 'site=x')} {','.join(fields)} {second * 10**9}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_a_moving_time_range_is_correct_while_points_are_written(
    pair: tuple[httpx.AsyncClient, httpx.AsyncClient], seed: int
) -> None:
    knowing, plain = pair
    drawn, first, length = random.Random(seed), BEGIN, 600
    for _ in range(12):
        lines = [point(drawn, first + drawn.randint(-200, length + 200)) for _ in range(drawn.randint(0, 12))]
        if lines:
            assert (await knowing.post("/write", params={"db": "t"}, content="\n".join(lines))).status_code == 204
        for statement in STATEMENTS:
            text = statement.format(first=first, last=first + length)
            params = {"q": text, "db": "t"}
            found, expected = await knowing.get("/query", params=params), await plain.get("/query", params=params)
            assert found.text == expected.text, text
        first += drawn.choice([0, 0, 13, 60, 120, -60, 5000])
        length = drawn.choice([600, 600, 300, 905])
