"""A wall clock that tests can set for the service and PostgreSQL only."""

import mmap
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


class WallClock:
    """Processes that start with this `environment` use this clock."""

    def __init__(self, library: Path, offset: Path, shared: mmap.mmap) -> None:
        self.environment: Mapping[str, str] = {"LD_PRELOAD": str(library), "TEST_CLOCK_OFFSET": str(offset)}
        self._shared = shared

    def jump_to(self, hours: float) -> None:
        """Make the clock wrong by this many hours."""
        self._shared[:8] = round(hours * 3600).to_bytes(8, "little", signed=True)


@contextmanager
def wall_clock(folder: Path) -> Iterator[WallClock | None]:
    """Return the clock, or None if this system has no C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        yield None
        return
    folder.mkdir()
    folder.chmod(0o755)
    library, offset = folder / "clock.so", folder / "offset"
    made = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl"], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    library.chmod(0o755)
    offset.write_bytes(bytes(8))
    offset.chmod(0o644)
    with offset.open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
        yield WallClock(library, offset, shared)
