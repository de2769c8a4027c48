"""Configure the embedded PostgreSQL for the size of its machine, at each start (docs/how-to/operating.md).

PostgreSQL's defaults suit very small machines. The rules here come from its documentation: a quarter of the memory for
shared buffers, which helps with units whose earlier logs are old. Between two checkpoints, WAL may grow to a tenth of
the free disk, because fewer checkpoints mean fewer full-page writes.
"""

import os
from pathlib import Path

MIB = 1024 * 1024
GIB = 1024 * MIB
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""The files with the memory limit of a container, in versions 2 and 1 of cgroups."""
SHARED_BUFFERS = (128 * MIB, 8 * GIB)
MAINTENANCE_WORK_MEM = (64 * MIB, GIB)
MAX_WAL_SIZE = (GIB, 16 * GIB)
FAST_CODECS = ("lz4", "zstd")
"""The codecs for which WAL compression is worthwhile. The built-in pglz takes more time than it saves."""


def machine_memory(limits: tuple[Path, ...] = CGROUP_LIMITS) -> int:
    """Return the bytes of memory that this process may use: the machine's memory, or the lower limit of its
    container."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in limits:
        try:
            limit = file.read_text().strip()
        except OSError:
            continue
        if limit.isdecimal():  # "max" means no limit
            memory = min(memory, int(limit))
    return memory


def sized_settings(memory_bytes: int, free_bytes: int, configured: str) -> dict[str, str]:
    """Return the settings of a server with this memory and this free disk space.

    `configured` is the output of `pg_config --configure`, which lists the built-in codecs.
    """
    codec = next((codec for codec in FAST_CODECS if f"--with-{codec}" in configured), "off")
    return {
        "shared_buffers": _megabytes(memory_bytes // 4, SHARED_BUFFERS),
        "effective_cache_size": _megabytes(memory_bytes * 3 // 4, (SHARED_BUFFERS[0], memory_bytes)),
        "maintenance_work_mem": _megabytes(memory_bytes // 32, MAINTENANCE_WORK_MEM),
        "max_wal_size": _megabytes(free_bytes // 10, MAX_WAL_SIZE),
        "wal_compression": codec,
    }


def _megabytes(size: int, bounds: tuple[int, int]) -> str:
    least, most = bounds
    return f"{max(least, min(size, most)) // MIB}MB"
