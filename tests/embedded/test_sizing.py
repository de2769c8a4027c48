"""The sizes of the embedded PostgreSQL follow the memory and the disk of its machine."""

from pathlib import Path

import pytest

from factory_logs.embedded.sizing import GIB, MIB, machine_memory, sized_settings


@pytest.mark.parametrize(
    ("memory", "shared_buffers", "maintenance_work_mem"),
    [
        (256 * MIB, "128MB", "64MB"),
        (2 * GIB, "512MB", "64MB"),
        (4 * GIB, "1024MB", "128MB"),
        (32 * GIB, "8192MB", "1024MB"),
        (64 * GIB, "8192MB", "1024MB"),
    ],
)
def test_a_quarter_of_the_memory_is_for_shared_buffers_up_to_8_gib(
    memory: int, shared_buffers: str, maintenance_work_mem: str
) -> None:
    sized = sized_settings(memory, 100 * GIB, "")
    assert sized["shared_buffers"] == shared_buffers
    assert sized["maintenance_work_mem"] == maintenance_work_mem


def test_the_planner_counts_on_three_quarters_of_the_memory_as_cache() -> None:
    assert sized_settings(4 * GIB, 100 * GIB, "")["effective_cache_size"] == "3072MB"


@pytest.mark.parametrize(("free", "expected"), [(0, "1024MB"), (50 * GIB, "5120MB"), (1000 * GIB, "16384MB")])
def test_wal_may_take_a_tenth_of_the_free_disk_within_bounds(free: int, expected: str) -> None:
    assert sized_settings(4 * GIB, free, "")["max_wal_size"] == expected


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        ("'--without-readline' '--without-icu'", "off"),
        ("'--with-lz4' '--with-zstd'", "lz4"),
        ("'--with-zstd'", "zstd"),
    ],
)
def test_wal_is_compressed_only_by_a_fast_codec_that_is_built_in(configured: str, expected: str) -> None:
    assert sized_settings(4 * GIB, 100 * GIB, configured)["wal_compression"] == expected


def test_a_container_with_a_limit_has_that_memory(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("536870912\n")
    assert machine_memory((limit,)) == 512 * MIB


@pytest.mark.parametrize("text", ["max\n", "9223372036854771712\n"], ids=["cgroups 2", "cgroups 1"])
def test_a_container_without_a_limit_has_the_machines_memory(tmp_path: Path, text: str) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text(text)
    assert machine_memory((limit, tmp_path / "missing")) == machine_memory(())
