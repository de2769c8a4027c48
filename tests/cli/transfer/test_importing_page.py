"""The commands of docs/how-to/importing-and-exporting.md run in one shell, in their order."""

import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from factory_logs.db.engine import Database
from tests.cli.conftest import Query

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "importing-and-exporting.md"


def test_the_commands_of_the_page_work_as_described(
    database: Database, migrated_url: str, query: Query, tmp_path: Path
) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    environment = os.environ | {
        "FACTORY_LOGS_DATABASE_URL": migrated_url,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)], env=environment, cwd=tmp_path, capture_output=True,
        text=True, check=False, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[:4] == [
        "Imported 2 logs from logs.ndjson",
        "Imported 1 logs from more.csv, rejected 1",
        "Imported 1 logs from rejected.csv",
        "Imported 1 logs from flat.csv",
    ]
    assert '"jig_id": "J-07"' in lines[4]
    assert len(lines) == 5
    assert gzip.decompress((tmp_path / "logs.csv.gz").read_bytes()).count(b"\n") == 6
    stored = query("select tags->>'jig_id' as jig, jsonb_typeof(fields->'voltage') as kind from factory_logs")
    assert stored == [{"jig": "J-07", "kind": "number"}] * 5
