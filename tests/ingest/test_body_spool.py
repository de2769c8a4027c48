import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.errors import OverloadedError
from factory_logs.ingest.body_spool import BodyBudget, BodySpool

MEMORY = 100


async def all_parts(spool: BodySpool, size: int) -> list[bytes]:
    parts = [await spool.read(size)]
    while not spool.is_read:
        parts.append(await spool.read(size))
    return parts


@given(st.lists(st.binary(max_size=150), max_size=8), st.integers(1, 400), st.sampled_from([0, 1950, 2000]))
async def test_a_body_is_read_back_unchanged_and_the_budget_is_released(
    pieces: list[bytes], part_bytes: int, of_others: int
) -> None:
    budget = BodyBudget(4000, 10_000)
    assert budget.take_arriving(of_others)
    spool = BodySpool(budget, MEMORY, None)
    for piece in pieces:
        await spool.write(piece)
        assert budget.arriving <= min(MEMORY + of_others, 2000)
    assert spool.size == sum(map(len, pieces))
    parts = await all_parts(spool, part_bytes)
    assert b"".join(parts) == b"".join(pieces)
    assert all(len(part) >= part_bytes for part in parts[:-1])
    spool.close()
    assert (budget.held, budget.arriving, budget.in_files) == (of_others, of_others, 0)


async def test_a_body_is_in_memory_up_to_its_share_and_then_in_a_file() -> None:
    budget = BodyBudget(10_000, 10_000)
    spool = BodySpool(budget, MEMORY, None)
    await spool.write(b"x" * MEMORY)
    assert (budget.arriving, budget.in_files) == (MEMORY, 0)
    await spool.write(b"x")
    assert (budget.arriving, budget.held, budget.in_files) == (0, 0, MEMORY + 1)
    spool.close()


async def test_arriving_bodies_leave_half_of_the_memory_to_complete_ones() -> None:
    budget = BodyBudget(200, 10_000)
    first, second = BodySpool(budget, 1000, None), BodySpool(budget, 1000, None)
    await first.write(b"x" * 100)
    await second.write(b"y")
    assert (budget.held, budget.in_files) == (100, 1)
    budget.take(100)
    for spool in (first, second):
        spool.close()


@pytest.mark.parametrize(("size", "fits"), [(300, True), (301, False)])
async def test_the_files_of_all_bodies_together_have_a_limit(size: int, fits: bool) -> None:
    budget = BodyBudget(10_000, 500)
    first, second = BodySpool(budget, MEMORY, None), BodySpool(budget, MEMORY, None)
    await first.write(b"x" * 200)
    if fits:
        await second.write(b"y" * size)
        assert budget.in_files == 500
    else:
        with pytest.raises(OverloadedError):
            await second.write(b"y" * size)
    first.close()
    second.close()
    assert budget.in_files == 0


async def test_a_missing_folder_is_a_retryable_error(tmp_path: Path) -> None:
    budget = BodyBudget(10_000, 10_000)
    spool = BodySpool(budget, MEMORY, tmp_path / "missing")
    with pytest.raises(OverloadedError, match="cannot keep the body"):
        await spool.write(b"x" * 200)
    spool.close()
    assert (budget.held, budget.arriving, budget.in_files) == (0, 0, 0)


async def test_a_file_leaves_nothing_behind(tmp_path: Path) -> None:
    spool = BodySpool(BodyBudget(10_000, 10_000), MEMORY, tmp_path)
    await spool.write(b"x" * 200)
    assert await all_parts(spool, 1000) == [b"x" * 200]
    assert list(tmp_path.iterdir()) == []
    spool.close()


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """Limit the size of files that this process writes, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("further", [1, 5000, 1024 * 1024])
async def test_a_full_disk_is_a_retryable_error_and_the_budget_is_released(further: int) -> None:
    """The buffered rest of the file does not fit when the file is closed."""
    limit = 4 * 1024 * 1024
    budget = BodyBudget(16 * 1024 * 1024, 16 * 1024 * 1024)
    spool = BodySpool(budget, 0, None)

    async def write_too_much() -> None:
        await spool.write(b"x" * limit)
        await spool.write(b"x" * further)
        await spool.read(limit)

    with files_no_longer_than(limit):
        with pytest.raises(OverloadedError, match="cannot keep the body"):
            await write_too_much()
        spool.close()
    assert (budget.held, budget.arriving, budget.in_files) == (0, 0, 0)
