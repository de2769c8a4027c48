"""The size of the embedded PostgreSQL's log is limited."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from factory_logs.embedded import running
from factory_logs.embedded.server_log import rotate_log
from factory_logs.embedded.sharing import prepare

MAX_BYTES = 64 * 1024


def complain(url: str, times: int) -> None:
    """Make PostgreSQL write an error of half a kilobyte, so many times."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(
                f"""do $$ begin for n in 1..{times} loop raise warning '% %', n, repeat('x', 500); end loop; end $$"""
            )
        finally:
            await connection.close()

    asyncio.run(run())


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_the_log_of_a_running_server_is_shortened_and_continues(short_tmp: Path) -> None:
    data_dir = short_tmp / "data"
    log, old = data_dir / "postgres.log", data_dir / "postgres.log.1"
    with running(data_dir, watch=True, max_log_bytes=MAX_BYTES) as url:
        for _ in range(3):
            old.unlink(missing_ok=True)
            complain(url, 200)
            wait_for(old.exists)
            assert old.stat().st_size <= MAX_BYTES
        complain(url, 1)
        wait_for(lambda: "WARNING:  1 xxx" in log.read_text())
        assert log.stat().st_size <= MAX_BYTES
        assert "\0" not in log.read_text()
        assert old.lstat().st_uid == log.lstat().st_uid == (data_dir / "pgdata").stat().st_uid


@pytest.mark.slow
def test_a_start_shortens_a_log_that_is_too_long(short_tmp: Path) -> None:
    data_dir = short_tmp / "data"
    with running(data_dir):
        pass
    log, old = data_dir / "postgres.log", data_dir / "postgres.log.1"
    with log.open("a") as file:
        file.write("an old line\n" * MAX_BYTES + "the last line\n")
    with running(data_dir, max_log_bytes=MAX_BYTES):
        assert "an old line" not in log.read_text()
        assert old.stat().st_size == MAX_BYTES
        assert old.read_text().endswith("the last line\n")


def test_a_log_at_the_limit_is_unchanged_and_one_byte_more_is_shortened(short_tmp: Path) -> None:
    stopped = prepare(short_tmp / "data")
    with stopped.opened() as folder:
        folder.replace("postgres.log", "x" * MAX_BYTES)
        rotate_log(folder, MAX_BYTES)
        assert not (stopped.data_dir / "postgres.log.1").exists()
        folder.append("postgres.log", "y")
        rotate_log(folder, MAX_BYTES)
        assert folder.read("postgres.log.1") == "x" * (MAX_BYTES - 1) + "y"
        assert folder.read("postgres.log") == ""


def test_a_missing_log_is_not_an_error(short_tmp: Path) -> None:
    with prepare(short_tmp / "data").opened() as folder:
        rotate_log(folder, MAX_BYTES)
