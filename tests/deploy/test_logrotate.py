"""The logrotate example of deploy/ does not lose lines to `ship`: two rotations leave the last one uncompressed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "deploy" / "logrotate" / "factory-logs"
PROGRAM = shutil.which("logrotate") or shutil.which("logrotate", path="/usr/sbin")

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="logrotate is not installed: apt-get install logrotate")


def test_the_newest_rotated_file_stays_readable_and_older_ones_are_compressed(tmp_path: Path) -> None:
    file = tmp_path / "jig.ndjson"
    example = EXAMPLE.read_text()
    assert example.count("/var/log/jig/") == 1
    configuration = tmp_path / "logrotate.conf"
    configuration.write_text(example.replace("/var/log/jig/", f"{tmp_path}/"))
    configuration.chmod(0o644)
    for text in ("first\n", "second\n"):
        file.write_text(text)
        command = [str(PROGRAM), "--force", "--state", tmp_path / "state", configuration]
        rotated = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
        assert (rotated.returncode, rotated.stderr) == (0, "")
    assert (tmp_path / "jig.ndjson.1").read_text() == "second\n"
    assert (tmp_path / "jig.ndjson.2.gz").exists()
