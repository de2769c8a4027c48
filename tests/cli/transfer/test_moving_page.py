"""The commands of docs/how-to/moving-from-influxdb.md run in one shell, in their order.

If InfluxDB is installed, the commands use its programs and a real server; otherwise they use the recorded output in
`data`.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from factory_logs.db.engine import Database
from tests.cli.conftest import Query
from tests.cli.factories import DATA
from tests.influxd import Influxd
from tests.serving import free_port, serving

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "moving-from-influxdb.md"
POINTS = "\n".join(
    f"tiger,jig_id=J-0{number % 3},product_imei=352099001761481 passed=true,voltage={number}.5 {10**18 + number}000"
    for number in range(10)
)
RECORDED = """
influx_inspect() { gunzip -c "$DATA/influxdb-1.6.lp.gz" > jigs.lp; }
influx() { printf 'name,tags,time,passed\\ntiger,jig_id=J-07,1706708700123456789,true\\n'; }
"""


@pytest.fixture
def programs(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """Return shell functions that replace the programs that are not installed, and the folder of InfluxDB."""
    inspect = os.environ.get("INFLUX_INSPECT") or shutil.which("influx_inspect")
    if not (inspect and shutil.which("influxd") and shutil.which("influx")):
        return RECORDED, Path("/nowhere")
    influxd: Influxd = request.getfixturevalue("influxd")
    for statement in ("DROP DATABASE jigs", "CREATE DATABASE jigs"):
        influxd.http.post("/query", params={"q": statement}).raise_for_status()
    influxd.http.post("/write", params={"db": "jigs"}, content=POINTS.encode()).raise_for_status()
    functions = f"""
influx_inspect() {{ {inspect} "$@"; }}
influx() {{ command influx -port {influxd.http.base_url.port} "$@"; }}
"""
    return functions, influxd.folder


def test_the_commands_of_the_page_work_as_described(
    database: Database, migrated_url: str, query: Query, tmp_path: Path, programs: tuple[str, Path]
) -> None:
    functions, folder = programs
    port = free_port()
    settings = {"FACTORY_LOGS_DATABASE_URL": migrated_url}
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    script = functions + "\necho --- ---\n".join(blocks)
    script = script.replace("localhost:8000", f"127.0.0.1:{port}").replace("/var/lib/influxdb/", f"{folder}/")
    environment = (
        os.environ | settings | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DATA": str(DATA)}
    )
    with serving(settings, port, tmp_path / "serve.log"):
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], input="a password for jig-07\n", env=environment, cwd=tmp_path,
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=60).status_code == 200
    assert ran.returncode == 0, ran.stderr
    _, written, exported, shell = ran.stdout.split("--- ---\n")
    assert re.findall(r"^HTTP/1.1 (.*?)\s*$", written, re.MULTILINE) == ["204 No Content"] * 2
    moved = re.search(r"Imported (\d+) logs from jigs.lp", exported)
    assert moved
    assert query("select count(*) from factory_logs where created_by = 'influxdb'") == [{"count": int(moved[1])}]
    assert query("select passed from (select fields->>'passed' as passed from factory_logs where created_by = 'jig-07'"
                 " order by timestamp) logs") == [{"passed": "true"}, {"passed": "false"}]  # fmt: skip
    assert re.search(r"Imported \d+ logs from jigs.csv", shell)
    assert not (tmp_path / "rejected.lp").read_text()
