"""A random sequence of faults under load. `--fault-minutes 10` sets the duration, and `--fault-seed` repeats an earlier
order."""

import random
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.faults import faults
from tests.faults.conftest import OWN_SERVER
from tests.faults.processes import MIB
from tests.faults.report import Round, table
from tests.faults.site import Site
from tests.faults.writers import Ledger

pytestmark = [pytest.mark.faults, OWN_SERVER]

SHORT_ROUNDS = 5
SHORT_SEED = 20240131
MOST_MEMORY = 300 * MIB
"""A worker holds some 100 MiB by itself, and the load of this test is far below its limits."""


def sequence(rng: random.Random, site: Site) -> Iterator[faults.Fault]:
    """Yield all faults in random order, then the clock jump, and repeat."""
    possible = [fault for fault in faults.ALL if site.disk is not None or fault is not faults.disk_full]
    while True:
        rng.shuffle(possible)
        yield from possible
        if site.clock is not None:
            yield faults.clock_jumped


async def run_round(number: int, fault: faults.Fault, site: Site, rng: random.Random, ledger: Ledger) -> Round:
    own = Ledger()
    with site.writers(f"round-{number}", own) as writers:
        writers.wait_for_acknowledgement()
        time.sleep(rng.uniform(0, 0.3))
        await fault(site, rng)
        seconds = writers.wait_for_acknowledgement()
        memory = site.service.memory()
    site.service.wait_until_ready()
    verdict = await site.judge(own)
    ledger.writes += own.writes
    ledger.surprises += own.surprises
    return Round(fault.__name__, verdict, seconds, max(memory, site.service.memory()))


async def test_acknowledged_logs_are_stored_once_despite_random_failures(
    site: Site, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    minutes = request.config.getoption("--fault-minutes")
    report = request.config.getoption("--fault-report")
    seed = request.config.getoption("--fault-seed") or (random.randrange(2**32) if minutes else SHORT_SEED)
    rng = random.Random(seed)
    end = time.monotonic() + minutes * 60
    ledger, rounds = Ledger(), []
    print(f"--fault-seed {seed}")
    for number, fault in zip(count(1), sequence(rng, site), strict=False):
        if time.monotonic() > end and number > SHORT_ROUNDS:
            break
        rounds.append(await run_round(number, fault, site, rng, ledger))
        with capsys.disabled():
            if minutes:
                print(f"{number:4} {rounds[-1]}", flush=True)
        text = f"{table(rounds)}\n\nSeed {seed}, {len(rounds)} rounds.\n"
        if report:
            Path(report).write_text(text)
        rounds[-1].verdict.check()
        assert ledger.surprises == [], site.service.errors()
    print(text)
    # Check all rounds again: writes that a worker or PostgreSQL still held at the end of their round have finished by
    # now.
    (await site.judge(ledger)).check()
    assert max(one.memory for one in rounds) < MOST_MEMORY
