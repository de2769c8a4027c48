"""The example data is reproducible, has the documented format, and contains the findings that the docs describe."""

import csv
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from factory_logs.schemas.factory_log import FactoryLogIn
from factory_logs.schemas.repair import Process, RepairIn

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"
FILES = ("repairs.csv", "factory_logs.ndjson")
TEST_JIGS = {"tiger_test_jig_production", "tiger_test_jig_repair", "koala_test_jig_production"}
REGISTRATIONS = {"bpower20_registration_production", "bpower50_registration_production"}


@pytest.fixture(scope="module")
def logs() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EXAMPLES / "factory_logs.ndjson").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def repairs() -> list[dict[str, str]]:
    with (EXAMPLES / "repairs.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_script_writes_the_shipped_bytes_every_time(tmp_path: Path) -> None:
    for run in ("first", "second"):
        out = tmp_path / run
        out.mkdir()
        subprocess.run([sys.executable, EXAMPLES / "generate.py", "--out", out], check=True, capture_output=True)
        for name in FILES:
            assert (out / name).read_bytes() == (EXAMPLES / name).read_bytes(), f"{name} differs: run generate.py"


def test_another_seed_gives_other_data_and_logs_sets_the_count(tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLES / "generate.py", "--out", tmp_path, "--seed", "1", "--logs", "200"]
    subprocess.run(command, check=True, capture_output=True)
    written = (tmp_path / "factory_logs.ndjson").read_bytes()
    assert written.count(b"\n") == 200
    assert (tmp_path / "repairs.csv").read_bytes() != (EXAMPLES / "repairs.csv").read_bytes()


def test_the_files_stay_small() -> None:
    assert sum((EXAMPLES / name).stat().st_size for name in FILES) < 2_000_000


def test_every_log_has_the_documented_keys_and_values(logs: list[dict[str, Any]]) -> None:
    assert len(logs) == 3000
    assert {log["app_name"] for log in logs} == TEST_JIGS | REGISTRATIONS
    for log in logs:
        assert log.keys() == {"app_name", "product_imei", "repair_id", "timestamp", "tags", "fields"}
        assert re.fullmatch(r"[0-9]{15}", log["product_imei"])
        assert re.fullmatch(r"2024-01-(29|30|31)T\d\d:\d\d:\d\d\.\d{3}Z", log["timestamp"])
        assert log["tags"].keys() - {"batch_id"} == {
            "jig_id",
            "machine_id",
            "hostname",
            "user",
            "software_version",
            "serial_number",
        }
        assert all(isinstance(value, str) for value in log["tags"].values())
        assert re.fullmatch(r"J-\d\d", log["tags"]["jig_id"])
        assert re.fullmatch(r"[A-Z]{2}-[A-Z]{3}\d\d", log["tags"]["hostname"])
        FactoryLogIn.model_validate(log)


def test_a_test_jig_passes_a_unit_exactly_when_every_value_is_good(logs: list[dict[str, Any]]) -> None:
    for log in logs:
        if log["app_name"] not in TEST_JIGS:
            continue
        fields = log["fields"]
        assert fields.keys() == {"passed", "input_pv", "output_usb", "output_12v", "battery"}
        for name in ("input_pv", "output_usb", "output_12v"):
            assert fields[name].keys() == {"value", "pass"}
            assert isinstance(fields[name]["value"], float)
            assert isinstance(fields[name]["pass"], bool)
        assert fields["battery"].keys() == {"voltage"}
        good = all(fields[name]["pass"] for name in ("input_pv", "output_usb", "output_12v"))
        assert fields["passed"] is (good and fields["battery"]["voltage"] >= 3.1)


def test_a_registration_has_fields_of_its_own(logs: list[dict[str, Any]]) -> None:
    for log in logs:
        if log["app_name"] in REGISTRATIONS:
            fields = log["fields"]
            assert fields.keys() - {"error"} == {"passed", "firmware", "sim_iccid"}
            assert re.fullmatch(r"8986\d{15}", fields["sim_iccid"])
            assert fields["passed"] is ("error" not in fields)


def test_about_seven_in_a_hundred_fail_and_some_pass_later(logs: list[dict[str, Any]]) -> None:
    failed = [log for log in logs if not log["fields"]["passed"]]
    assert 0.06 <= len(failed) / len(logs) <= 0.08
    passed_later = [
        log
        for log in logs
        if log["repair_id"] is None
        and log["fields"]["passed"]
        and any(f["product_imei"] == log["product_imei"] and f["timestamp"] < log["timestamp"] for f in failed)
    ]
    assert len(passed_later) > 20


def test_jig_07_drifts_on_the_last_day(logs: list[dict[str, Any]]) -> None:
    def readings(day: str) -> list[dict[str, Any]]:
        return [
            log["fields"]
            for log in logs
            if log["tags"]["jig_id"] == "J-07" and log["timestamp"].startswith(f"2024-01-{day}")
        ]

    def failures(day: str) -> int:
        return sum(not fields["output_12v"]["pass"] for fields in readings(day))

    assert failures("31") >= 10
    assert failures("31") > 3 * (failures("29") + failures("30"))
    last = readings("31")
    half = len(last) // 2
    assert max(f["output_12v"]["value"] for f in last[-5:]) < min(f["output_12v"]["value"] for f in last[:5])
    assert sum(not f["passed"] for f in last[half:]) > sum(not f["passed"] for f in last[:half])


def test_one_batch_of_koala_fails_at_its_usb_port_and_no_other_does(logs: list[dict[str, Any]]) -> None:
    attempts: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for log in logs:
        if log["app_name"] == "koala_test_jig_production":
            attempts[log["tags"]["batch_id"]] += 1
            failures[log["tags"]["batch_id"]] += not log["fields"]["output_usb"]["pass"]
    (bad,) = (batch for batch in attempts if failures[batch] > 0.1 * attempts[batch])
    assert bad == "B-3137"
    assert 0.4 < failures[bad] / attempts[bad] < 0.8


def test_some_repaired_units_come_back_to_the_line(logs: list[dict[str, Any]], repairs: list[dict[str, str]]) -> None:
    left = {repair["product_imei"]: repair["refurbishment_date"] for repair in repairs if repair["refurbishment_date"]}
    back = [log for log in logs if log["repair_id"] is None and log["product_imei"] in left]
    assert len(back) >= 3
    for log in back:
        assert log["app_name"] == "tiger_test_jig_production"
        assert left[log["product_imei"]] < log["timestamp"]
        assert "batch_id" not in log["tags"]


def test_a_unit_in_repair_has_several_logs_each_of_its_own_repair(
    logs: list[dict[str, Any]], repairs: list[dict[str, str]]
) -> None:
    by_id = {int(repair["repair_id"]): repair for repair in repairs}
    for log in logs:
        assert (log["repair_id"] is not None) == (log["app_name"] == "tiger_test_jig_repair")
        if log["repair_id"] is not None:
            repair = by_id[log["repair_id"]]
            assert log["product_imei"] == repair["product_imei"]
            assert log["timestamp"] >= repair["arrival_date"]
            assert not repair["refurbishment_date"] or log["timestamp"] < repair["refurbishment_date"]
    tests_per_repair = Counter(log["repair_id"] for log in logs if log["repair_id"] is not None)
    assert sum(count >= 3 for count in tests_per_repair.values()) > 30


def test_some_batteries_are_weak(logs: list[dict[str, Any]]) -> None:
    voltages = [log["fields"]["battery"]["voltage"] for log in logs if "battery" in log["fields"]]
    assert 10 < sum(voltage < 3.2 for voltage in voltages) < len(voltages) / 10


def test_every_repair_is_one_the_service_takes(repairs: list[dict[str, str]]) -> None:
    assert [int(repair["repair_id"]) for repair in repairs] == list(range(1, 151))
    assert {repair["process"] for repair in repairs} == set(Process)
    for repair in repairs:
        values: dict[str, Any] = {name: value or None for name, value in repair.items()}
        if capacity := values["measured_battery_capacity"]:
            values["measured_battery_capacity"] = float(capacity)
        RepairIn.model_validate(values)
        assert bool(repair["pending_status"]) == (not repair["refurbishment_date"])
        assert bool(repair["outcome"]) == bool(repair["refurbishment_date"])
