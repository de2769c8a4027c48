"""The faults of the random sequence (docs/explanation/faults.md). Each function causes one fault, and leaves the system
so that the service can recover.

It also does at once what an operator's supervisor would do: start an own PostgreSQL, or a service whose supervisor was
killed.
"""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg

from tests.faults import processes
from tests.faults.site import Site

Fault = Callable[[Site, random.Random], Awaitable[None]]


async def worker_killed(site: Site, rng: random.Random) -> None:
    processes.send([rng.choice(site.service.workers())], signal.SIGKILL)


async def workers_killed(site: Site, rng: random.Random) -> None:
    processes.send(site.service.workers(), signal.SIGKILL)


async def service_killed(site: Site, rng: random.Random) -> None:
    site.service.kill()
    site.service.start()


async def supervisor_killed(site: Site, rng: random.Random) -> None:
    workers = site.service.workers()
    site.service.kill_supervisor()
    while any(processes.is_alive(pid) for pid in workers):
        await asyncio.sleep(0.02)
    site.service.start()


async def service_restarted(site: Site, rng: random.Random) -> None:
    assert site.service.stop() == 0, site.service.tail()
    site.service.start()


async def worker_frozen(site: Site, rng: random.Random) -> None:
    """Longer or shorter than the time-out of its supervisor."""
    worker = rng.choice(site.service.workers())
    processes.send([worker], signal.SIGSTOP)
    await asyncio.sleep(rng.uniform(0, 7))
    processes.send([worker], signal.SIGCONT)


async def backend_killed(site: Site, rng: random.Random) -> None:
    """PostgreSQL ends all connections and recovers, as after any crash of a backend."""
    backends = site.cluster.processes()[1:]
    processes.send([rng.choice(backends)] if backends else [], signal.SIGKILL)


async def backends_terminated(site: Site, rng: random.Random) -> None:
    async with site.cluster.connected() as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
        )


async def postgres_killed(site: Site, rng: random.Random) -> None:
    site.cluster.kill()
    await asyncio.sleep(rng.uniform(0, 1.5))
    site.cluster.start()


async def postgres_restarted(site: Site, rng: random.Random) -> None:
    site.cluster.stop(rng.choice(("fast", "immediate")))
    site.cluster.start()


async def postgres_stopped(site: Site, rng: random.Random) -> None:
    paused = site.cluster.pause()
    await asyncio.sleep(rng.uniform(0, 5))
    processes.send(paused, signal.SIGCONT)


async def connections_cut(site: Site, rng: random.Random) -> None:
    for _ in range(rng.randrange(1, 20)):
        site.link.cut()
        await asyncio.sleep(rng.uniform(0, 0.1))


async def responses_lost(site: Site, rng: random.Random) -> None:
    """PostgreSQL's responses arrive late, or never."""
    site.link.hold_responses(rng.choice((b"", b"COMMIT\0", b"SELECT 1\0")))
    await asyncio.sleep(rng.uniform(0, 4))
    if rng.random() < 0.7:
        site.link.cut()
    site.link.pass_responses()


async def pool_exhausted(site: Site, rng: random.Random) -> None:
    """The table is locked: every statement waits, until no connection is free."""
    async with site.cluster.connected() as connection:
        with suppress(asyncpg.DeadlockDetectedError):
            async with connection.transaction():
                await connection.execute("LOCK TABLE factory_logs, idempotency_keys IN ACCESS EXCLUSIVE MODE")
                await asyncio.sleep(rng.uniform(0, 5))


async def server_full(site: Site, rng: random.Random) -> None:
    """Other clients take all of PostgreSQL's connections just when the service has lost its own."""
    taken: list[asyncpg.Connection] = []
    site.link.cut()
    with suppress(asyncpg.TooManyConnectionsError):
        while True:
            taken.append(await site.cluster.connect())
    site.link.cut()
    await asyncio.sleep(rng.uniform(0, 3))
    for connection in taken:
        connection.terminate()


async def disk_full(site: Site, rng: random.Random) -> None:
    assert site.disk is not None
    site.disk.fill()
    if rng.random() < 0.7:  # PostgreSQL's next log segment does not fit, so the server stops
        with suppress(asyncpg.PostgresError, OSError):
            async with site.cluster.connected() as connection:
                await connection.execute("SELECT pg_switch_wal()")
    await asyncio.sleep(rng.uniform(0, 4))
    site.disk.free()
    if site.cluster.pid is None:
        site.cluster.start()


async def clock_jumped(site: Site, rng: random.Random) -> None:
    """The wall clock of the service and of PostgreSQL is set forward or back by hours, and then corrected."""
    assert site.clock is not None
    site.clock.jump_to(rng.uniform(-6, 6))
    await asyncio.sleep(rng.uniform(0, 4))
    site.clock.jump_to(0)


ALL: tuple[Fault, ...] = (
    worker_killed,
    workers_killed,
    service_killed,
    supervisor_killed,
    service_restarted,
    worker_frozen,
    backend_killed,
    backends_terminated,
    postgres_killed,
    postgres_restarted,
    postgres_stopped,
    connections_cut,
    responses_lost,
    pool_exhausted,
    server_full,
    disk_full,
)
