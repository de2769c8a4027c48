"""OpenHTF's test records, of tests that the real package runs, become logs before their outcome is shown."""

import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from factory_logs.client import Client, ClientSettings, InvalidLogError
from tests.client.links import Switched
from tests.client.servers import Server

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import openhtf as htf
    from openhtf.core import test_record
    from openhtf.util import units, validators

    from factory_logs.client.openhtf import FactoryLogsOutput, convert_record

Outcome, Record = test_record.Outcome, test_record.TestRecord
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

IMEI = "352099001761481"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "openhtf.md"


@htf.measures(
    htf.Measurement("voltage").in_range(3.1, 3.5).with_units(units.VOLT),
    htf.Measurement("led").equals(True),
    htf.Measurement("firmware").matches_regex(r"^2\."),
)
def power_on(test: Any) -> None:
    """Return the values that a good unit has."""
    test.measurements.voltage = np.float64(3.3)
    test.measurements.led = True
    test.measurements.firmware = "2.4.1"


@pytest.fixture
def offline(tmp_path: Path) -> Iterator[Client]:
    settings = ClientSettings(exit_seconds=0, block_seconds=0)
    with Client("http://logs.test", "t", spool=tmp_path / "spool", settings=settings, transport=Switched()) as client:
        yield client


def spooled(folder: Path) -> list[dict[str, Any]]:
    """Return the logs that another process finds in the spool now."""
    script = (
        "import sqlite3, sys; from factory_logs.client.spool_file import current_file; from pathlib import Path\n"
        "c = sqlite3.connect(current_file(Path(sys.argv[1])))\n"
        "for (line,) in c.execute('select line from records order by seq'): sys.stdout.buffer.write(line + b'\\n')"
    )
    ran = subprocess.run([sys.executable, "-c", script, folder], check=True, capture_output=True)
    return [orjson.loads(line) for line in ran.stdout.splitlines()]


def run(*phases: Any, unit: str = IMEI, callbacks: Any = (), **metadata: Any) -> Record:
    """Run a test and return its record."""
    records: list[Record] = []
    test = htf.Test(*phases, **metadata)
    test.add_output_callbacks(*callbacks, records.append)
    test.execute(test_start=lambda: unit)
    return records[0]


def fields_of(*phases: Any, **options: Any) -> dict[str, Any]:
    fields: dict[str, Any] = convert_record(run(*phases, **options))["fields"]
    return fields


def test_a_record_is_on_the_disk_when_the_callback_returns(offline: Client) -> None:
    found: list[dict[str, Any]] = []

    def look(record: Record) -> None:
        found.extend(spooled(offline.folder))

    record = run(power_on, callbacks=[FactoryLogsOutput(offline, tags={"line": 3}), look], test_name="tiger_final")
    assert record.outcome is Outcome.PASS
    (log,) = found
    assert log["app_name"] == "tiger_final"
    assert log["product_imei"] == IMEI
    assert log["tags"] == {"jig_id": record.station_id, "line": 3}
    assert log["fields"]["passed"] is True
    assert log["fields"]["outcome"] == "PASS"
    assert log["fields"]["duration_seconds"] >= 0
    assert log["fields"]["power_on"] == {
        "voltage": {"value": 3.3, "pass": True, "lower": 3.1, "upper": 3.5, "unit": "V"},
        "led": {"value": 1, "pass": True, "validators": ["x == True"]},
        "firmware": {"value": "2.4.1", "pass": True, "validators": ["'x' matches /^2\\./"]},
    }
    assert log["fields"]["phases"]["power_on"]["outcome"] == "PASS"


FULL_DISK = """
import sys

import openhtf as htf
from factory_logs.client import Client, ClientSettings
from factory_logs.client.openhtf import FactoryLogsOutput

def power_on(test):
    pass

settings = ClientSettings(exit_seconds=0, block_seconds=0, max_spool_bytes=int(sys.argv[2]))
with Client("http://127.0.0.1:9", "t", spool=sys.argv[1], settings=settings) as client:
    test = htf.Test(power_on)
    test.add_output_callbacks(FactoryLogsOutput(client))
    sys.exit(0 if test.execute(test_start=lambda: "352099001761481") else 3)
"""


@pytest.mark.parametrize(("spool_bytes", "code"), [(10**6, 0), (50, 3)])
def test_pass_is_shown_for_a_stored_record_only(tmp_path: Path, spool_bytes: int, code: int) -> None:
    script = tmp_path / "final_test.py"
    script.write_text(FULL_DISK)
    ran = subprocess.run(
        [sys.executable, script, tmp_path / "spool", str(spool_bytes)], capture_output=True, text=True, check=False
    )
    shown = ran.stdout + ran.stderr
    assert ran.returncode == code, shown
    assert ("outcome: " in shown) == (code == 0)
    assert ("PASS" in shown) == (code == 0)
    assert len(spooled(tmp_path / "spool")) == (1 if code == 0 else 0)
    assert ("Error: The test record is not stored on this device: the spool" in shown) == (code == 3)


def test_no_pass_is_shown_for_a_record_that_a_full_spool_refuses(tmp_path: Path) -> None:
    settings = ClientSettings(exit_seconds=0, block_seconds=0, max_spool_bytes=50)
    with Client("http://logs.test", "t", spool=tmp_path, settings=settings, transport=Switched()) as client:
        record = run(power_on, callbacks=[FactoryLogsOutput(client)])
    assert record.outcome is Outcome.ERROR
    assert [detail.code for detail in record.outcome_details] == ["FACTORY_LOGS"]
    assert spooled(tmp_path) == []


def test_a_record_that_is_too_large_is_an_error_too(offline: Client) -> None:
    @htf.measures(htf.Measurement("trace").with_dimensions("time"))
    def sample(test: Any) -> None:
        for number in range(30_000):
            test.measurements.trace[number] = float(number)

    record = run(sample)
    with pytest.raises(InvalidLogError, match="262144"):
        FactoryLogsOutput(offline)(record)
    assert record.outcome is Outcome.ERROR


@pytest.mark.parametrize("settings", [{"fsync": "normal"}, {"when_full": "drop_oldest"}])
def test_a_client_that_may_lose_a_stored_record_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    given = ClientSettings.model_validate({"exit_seconds": 0, **settings})
    with (
        Client("http://logs.test", "t", spool=tmp_path, settings=given, transport=Switched()) as client,
        pytest.raises(ValueError, match='fsync="full" and when_full="block"'),
    ):
        FactoryLogsOutput(client)


def test_a_failed_measurement_counts_and_its_phase_does_not() -> None:
    @htf.measures(htf.Measurement("voltage").in_range(3.1, 3.5), htf.Measurement("relay"))
    def power(test: Any) -> None:
        test.measurements.voltage = 2.9
        test.measurements.relay = False

    fields = fields_of(power)
    assert fields["passed"] is False
    assert fields["power"]["voltage"] == {"value": 2.9, "pass": False, "lower": 3.1, "upper": 3.5}
    assert fields["power"]["relay"] == {"value": 0, "pass": True}
    assert fields["phases"]["power"]["outcome"] == "FAIL"
    assert "pass" not in fields["phases"]["power"]


def test_a_measurement_that_is_missing_counts_as_failed() -> None:
    @htf.measures(htf.Measurement("voltage").in_range(maximum=3.5))
    def power(test: Any) -> None:
        pass

    assert fields_of(power)["power"] == {"voltage": {"pass": False, "upper": 3.5, "outcome": "UNSET"}}


def test_a_phase_that_fails_by_itself_counts_with_its_error() -> None:
    @htf.measures("voltage")
    def power(test: Any) -> None:
        raise OSError("the supply does not respond\0")

    def by_hand(test: Any) -> htf.PhaseResult:
        return htf.PhaseResult.FAIL_AND_CONTINUE

    fields = fields_of(by_hand, power)
    assert fields["outcome"] == "ERROR"
    assert fields["passed"] is False
    assert fields["phases"]["by_hand"]["pass"] is False
    assert fields["phases"]["power"]["pass"] is False
    assert fields["phases"]["power"]["error"] == "OSError: the supply does not respond\\0"
    assert fields["outcome_details"][0]["code"] == "OSError"
    assert fields["power"] == {"voltage": {"outcome": "UNSET"}}


def test_of_a_repeated_phase_the_last_run_counts_and_the_others_stay() -> None:
    values = iter([2.0, 3.3])

    @htf.PhaseOptions(repeat_limit=3)
    @htf.measures(htf.Measurement("voltage").in_range(3.1, 3.5))
    def power(test: Any) -> htf.PhaseResult:
        test.measurements.voltage = next(values)
        return htf.PhaseResult.REPEAT if test.measurements.voltage < 3 else htf.PhaseResult.CONTINUE

    fields = fields_of(power)
    assert fields["passed"] is True
    assert fields["power"]["voltage"]["value"] == 3.3
    (other,) = fields["phases"]["power"]["other_runs"]
    assert other["outcome"] == "SKIP"
    assert other["measurements"]["voltage"] == {"value": 2.0, "lower": 3.1, "upper": 3.5, "outcome": "FAIL"}


def test_an_aborted_test_is_not_an_attempt() -> None:
    running = threading.Event()

    def wait(test: Any) -> None:
        running.set()
        for _ in range(600):
            threading.Event().wait(0.1)

    records: list[Record] = []
    test = htf.Test(wait)
    test.add_output_callbacks(records.append)
    threading.Thread(target=lambda: (running.wait(), test.abort_from_sig_int())).start()
    test.execute(test_start=lambda: IMEI)
    fields = convert_record(records[0])["fields"]
    assert fields["outcome"] == "ABORTED"
    assert "passed" not in fields


def test_limits_are_the_narrowest_of_all_ranges_and_other_validators_are_text() -> None:
    @htf.measures(
        htf.Measurement("a").in_range(1, 9).in_range(2, 10),
        htf.Measurement("b").within_percent(100, 5),
        htf.Measurement("c").equals(7),
        htf.Measurement("d").with_validator(validators.in_range(maximum=4)).with_validator(lambda value: True),
        htf.Measurement("e").with_dimensions(units.HERTZ).with_units(units.DECIBEL),
        htf.Measurement("f__g").with_units(units.NO_DIMENSION),
    )
    def outcome(test: Any) -> None:
        for name, value in {"a": 5, "b": 99.0, "c": 7, "d": 1, "f__g": float("inf")}.items():
            test.measurements[name] = value
        test.measurements.e[10] = -3
        test.measurements.e[20] = -4.5

    fields = fields_of(outcome)
    assert fields["outcome"] == "PASS"
    found = fields["outcome_phase"]
    assert {name: (found[name].get("lower"), found[name].get("upper")) for name in "abcd"} == {
        "a": (2, 9), "b": (95.0, 105.0), "c": (7, 7), "d": (None, 4)
    }  # fmt: skip
    assert len(found["d"]["validators"]) == 1
    assert found["e"]["value"] == [[10, -3], [20, -4.5]]
    assert (found["e"]["dimensions"], found["e"]["unit"]) == (["Hz"], "dB")
    assert found["f_g"]["value"] == "inf"


def test_a_unit_without_imei_is_a_tag_and_metadata_are_tags() -> None:
    log = convert_record(
        run(power_on, unit="SN-17", test_version="1.2", test_name="x"), "tiger_final", {"jig_id": "J-07"}
    )
    assert log["app_name"] == "tiger_final"
    assert log["product_imei"] is None
    assert log["tags"] == {"jig_id": "J-07", "dut_id": "SN-17", "test_version": "1.2", "test_name": "x"}


def test_yields_failures_and_distributions_work_on_the_records(
    shared_server: Server, token: str, tmp_path: Path
) -> None:
    values = {"352099001761481": 3.3, "352099001761499": 2.9, "352099001761507": 3.4}
    with Client(shared_server.url, token, spool=tmp_path) as client:
        for imei, value in values.items():

            @htf.measures(htf.Measurement("voltage").in_range(3.1, 3.5))
            def power(test: Any, value: float = value) -> None:
                test.measurements.voltage = value

            run(power, unit=imei, callbacks=[FactoryLogsOutput(client, "tiger")])
        assert client.flush(60)
    with httpx.Client(
        base_url=f"{shared_server.url}/v1/", headers={"Authorization": f"Token token={token}"}, timeout=60
    ) as http:
        total = http.get("factory_logs/yield").json()["total"]
        assert (total["units"], total["first_passed"]) == (3, 2)
        failures = http.get("factory_logs/failures").json()
        assert [row["measurement"] for row in failures["failures"]] == ["fields__power__voltage"]
        path = {"field": "fields__power__voltage__value", "lower": 3.1, "upper": 3.5}
        (group,) = http.get("factory_logs/distribution", params=path).json()["groups"]
        assert (group["count"], group["below"], group["above"]) == (3, 1, 0)
        unit = http.get("units/352099001761499").json()
        assert [(app["app_name"], app["last_passed"]) for app in unit["apps"]] == [("tiger", False)]


def test_the_script_of_the_page_runs(shared_server: Server, token: str, tmp_path: Path) -> None:
    script = tmp_path / "final_test.py"  # OpenHTF reads the source of phases
    script.write_text(PAGE.read_text().partition("```python\n")[2].partition("```")[0])
    ran = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path, input=f"{IMEI}\n", capture_output=True, text=True, check=False,
        env={
            "PATH": "", "HOME": str(tmp_path), "FACTORY_LOGS_URL": shared_server.url, "FACTORY_LOGS_TOKEN": token,
            "FACTORY_LOGS_SPOOL": str(tmp_path / "spool"),
        },
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    headers = {"Authorization": f"Token token={token}"}
    (log,) = httpx.get(f"{shared_server.url}/v1/factory_logs", headers=headers, timeout=60).json()["objects"]
    assert (log["app_name"], log["product_imei"], log["fields"]["passed"]) == ("tiger_final_test", IMEI, True)


def test_the_client_does_not_import_openhtf() -> None:
    script = "import sys, factory_logs.client, factory_logs.pytest_plugin; assert 'openhtf' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
