"""An export of a real InfluxDB is imported and compared, point by point, with InfluxDB's own results.

`data/influxdb-1.6.lp.gz` is an export of Debian's InfluxDB 1.6.7, written by influx_inspect of the same version.
`influxdb-1.6.json.gz` contains that server's results of SELECT. If the programs are installed, the tests run them
again; with INFLUX_RECORD set they also write the two files.
"""

import gzip
import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Query, Run
from tests.cli.factories import DATA
from tests.influxd import Influxd
from tests.influxdb.strategies import escaped, written

pytestmark = pytest.mark.slow

NAMES = ["plain", "with space", "a,comma", "an=equals", 'a"quote', "ünïcode", "back\\slash"]
LOGS = "select app_name, product_imei, timestamp, tags, fields from factory_logs"


def lines() -> list[str]:
    """Return points with every kind of character in names and strings, some repeated with other and more fields, and
    points of jigs."""
    chance = random.Random(8)
    odd = [
        # No value belongs to two tags, because InfluxDB 1.6 returns the wrong key of GROUP BY * for two tags with one
        # value.
        f"{escaped(chance.choice(NAMES), ', ')},"
        f"{escaped(tag := chance.choice(NAMES))}={escaped(tag + chance.choice(NAMES))},"
        f"product_imei={352099001761400 + chance.randrange(50)} "
        + ",".join(
            f"{escaped(name)}_{kind}={written(value)}"
            for name, (kind, value) in zip(
                chance.sample(NAMES, 3),
                chance.sample(
                    [("b", chance.random() < 0.5), ("i", chance.randrange(-(2**63), 2**63)),
                     ("f", chance.gauss(0, 1e9)), ("s", 'two\nlines, "quoted" \\ ' + chance.choice(NAMES))], 3,
                ),
                strict=True,
            )
        )
        + f" {1706708700000000000 + chance.randrange(200) * 1000}"
        for _ in range(1000)
    ]  # fmt: skip
    plain = [
        f"tiger,jig_id=J-0{number % 3},product_imei=352099001761{number % 3}00 passed={written(number % 7 > 0)},"
        f'voltage={chance.choice([3, 3.28, 1e23, 5e-324, 0.1])},cycles={number}i,note="正常 {number % 5}" '
        f"{chance.choice([1706708700, 1706808700, 86400, -86400]) * 10**9 + number * 1000}"
        for number in range(600)
    ]
    return odd + plain


def points_of(influxd: Influxd) -> list[dict[str, Any]]:
    """Write all lines; return the server's own list of its points."""
    influxd.http.post("/query", params={"q": "CREATE DATABASE jigs"}).raise_for_status()
    for start in range(0, len(lines()), 400):
        body = "\n".join(lines()[start : start + 400]).encode()
        influxd.http.post("/write", params={"db": "jigs"}, content=body).raise_for_status()
    return influxd.query("SELECT * FROM /.*/ GROUP BY *", "jigs")


def export(influxd: Influxd, command: str, file: Path, *options: str) -> None:
    subprocess.run(
        [command, "export", "-datadir", influxd.folder / "data", "-waldir", influxd.folder / "wal",
         "-database", "jigs", "-out", file, *options],
        check=True, capture_output=True,
    )  # fmt: skip


def test_a_recorded_export_is_imported_point_by_point(run: Run, query: Query) -> None:
    file, points = (
        DATA / "influxdb-1.6.lp.gz",
        json.loads(gzip.decompress((DATA / "influxdb-1.6.json.gz").read_bytes())),
    )
    assert len(points) > 1000
    assert run("import", file).stdout == f"Imported {len(points)} logs from {file}\n"
    assert as_stored(query(LOGS)) == as_returned(points)
    assert run("import", file).stdout == f"Imported 0 logs from {file}; {len(points)} were imported before\n"


def test_an_export_of_a_running_influxdb_is_imported_point_by_point(
    run: Run, query: Query, influxd: Influxd, tmp_path: Path
) -> None:
    command = os.environ.get("INFLUX_INSPECT") or shutil.which("influx_inspect")
    if command is None:
        pytest.skip("influx_inspect is not installed; INFLUX_INSPECT may name it")
    points, file, packed = points_of(influxd), tmp_path / "jigs.lp", tmp_path / "jigs.lp.gz"
    export(influxd, command, file)
    assert run("import", file).stdout == f"Imported {len(points)} logs from {file}\n"
    assert as_stored(query(LOGS)) == as_returned(points)
    assert run("import", file).stdout.startswith("Imported 0 logs")
    export(influxd, command, packed, "-compress")
    with gzip.open(packed) as opened:
        assert opened.readline().startswith(b"# ")
    assert "rejected" not in run("import", packed).stdout
    if "INFLUX_RECORD" in os.environ:
        shutil.copy(packed, DATA / "influxdb-1.6.lp.gz")
        (DATA / "influxdb-1.6.json.gz").write_bytes(gzip.compress(json.dumps(points).encode(), mtime=0))


def test_csv_of_a_running_influxdb_is_imported_point_by_point(
    run: Run, query: Query, influxd: Influxd, tmp_path: Path
) -> None:
    if shutil.which("influx") is None:
        pytest.skip("the shell influx is not installed (Debian: influxdb-client)")
    influxd.http.post("/query", params={"q": "CREATE DATABASE shell"}).raise_for_status()
    body = "\n".join(
        f'tiger,jig_id=J-0{n % 3},product_imei=352099001761{n % 3}00 passed=true,voltage={n + 0.5},note="a, b" {n}'
        for n in range(1000, 900_000, 10_000)
    )
    influxd.http.post("/write", params={"db": "shell"}, content=body).raise_for_status()
    host, port = str(influxd.http.base_url.host), str(influxd.http.base_url.port)
    file = tmp_path / "jigs.csv"
    with file.open("wb") as output:
        subprocess.run(
            ["influx", "-host", host, "-port", port, "-database", "shell", "-format", "csv", "-precision", "ns",
             "-execute", "select * from /.*/ group by *"],
            check=True, stdout=output,
        )  # fmt: skip
    points = influxd.query("SELECT * FROM /.*/ GROUP BY *", "shell")
    result = run("import", "--format", "influx-csv", file)
    assert (result.stdout, result.stderr) == (f"Imported {len(points)} logs from {file}\n", "")
    assert as_stored(query(LOGS)) == as_returned(points)


def as_returned(points: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    """Return the points of a query result, in which the tags of other series are empty."""
    return in_order(
        (
            point["name"],
            sorted((key, value) for key, value in point["tags"].items() if value),
            point["time"],
            {key: value for key, value in point.items() if key not in ("name", "tags", "time")},
        )
        for point in points
    )


def as_stored(rows: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    return in_order(
        (
            row["app_name"],
            sorted((json.loads(row["tags"]) | {"product_imei": row["product_imei"]}).items()),
            (row["timestamp"] - datetime(1970, 1, 1)) // timedelta(microseconds=1) * 1000,
            json.loads(row["fields"]),
        )
        for row in rows
    )


def in_order(points: Iterable[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """The name, the tags and the time identify a point."""
    return sorted(points, key=lambda point: str(point[:3]))
