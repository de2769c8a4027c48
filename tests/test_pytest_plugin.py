"""The pytest plugin, run by pytest itself with a real service: a log for each item, on the disk before the next."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from factory_logs.pytest_plugin import ItemLog, _app_name
from tests.client.servers import Server
from tests.devices import Rows

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "pytest.md"
IMEI = "352099001761481"
RunPytest = Callable[..., pytest.RunResult]


@pytest.fixture
def jig(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunPytest:
    """Run pytest on a jig without a reachable server, in a process of its own."""
    monkeypatch.setenv("FACTORY_LOGS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("FACTORY_LOGS_TOKEN", "t")
    monkeypatch.setenv("FACTORY_LOGS_SPOOL", str(tmp_path / "spool"))
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    return lambda *arguments: pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


@pytest.fixture
def online(jig: RunPytest, shared_server: Server, token: str, monkeypatch: pytest.MonkeyPatch) -> RunPytest:
    """Run pytest on a jig with a real service."""
    monkeypatch.setenv("FACTORY_LOGS_URL", shared_server.url)
    monkeypatch.setenv("FACTORY_LOGS_TOKEN", token)
    return jig


LOGS = "SELECT app_name, product_imei, tags, fields FROM factory_logs ORDER BY factory_log_id"


def logs(rows: Rows) -> dict[str, dict[str, Any]]:
    """Return `fields` by the name of the test."""
    import json

    return {row["app_name"].rpartition("::")[2]: json.loads(row["fields"]) for row in rows(LOGS)}


def test_each_item_is_a_log_with_its_verdict(pytester: pytest.Pytester, online: RunPytest, rows: Rows) -> None:
    pytester.makepyfile(
        test_jig="""
        import pytest

        def test_good(factory_logs):
            assert factory_logs.measure("voltage", 3.3, lower=3.1, upper=3.5, unit="V")

        def test_bad():
            assert 1 == 2, "one is not two"

        def test_limits(factory_logs):
            factory_logs.measure("voltage", 2.9, lower=3.1, unit="V")
            factory_logs.measure("current", 1, upper=2)

        @pytest.fixture
        def broken():
            raise OSError("no supply")

        def test_broken(broken): pass

        @pytest.mark.skip(reason="no relay on this jig")
        def test_skipped(): pass

        @pytest.mark.xfail(reason="a known fault")
        def test_expected(factory_logs):
            factory_logs.measure("noise", 9, upper=2)

        @pytest.mark.parametrize("level", [1, 2])
        def test_level(level): pass
        """
    )
    result = online("--factory-logs", "--factory-logs-imei", IMEI, "--factory-logs-tag", "jig_id=J-07")
    result.assert_outcomes(passed=3, failed=2, errors=1, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines(
        [
            "*measurements did not pass: voltage = 2.9 V (lower limit 3.1 V)*",
            "factory-logs: 8 logs stored on this device, all delivered",
        ]
    )
    found = logs(rows)
    assert {name: (one.get("passed"), one["outcome"]) for name, one in found.items()} == {
        "test_good": (True, "passed"), "test_bad": (False, "failed"), "test_limits": (False, "failed"),
        "test_broken": (False, "error"), "test_skipped": (None, "skipped"), "test_expected": (None, "xfailed"),
        "test_level[1]": (True, "passed"), "test_level[2]": (True, "passed"),
    }  # fmt: skip
    assert found["test_good"]["voltage"] == {"value": 3.3, "pass": True, "lower": 3.1, "upper": 3.5, "unit": "V"}
    assert found["test_limits"]["voltage"] == {"value": 2.9, "pass": False, "lower": 3.1, "unit": "V"}
    assert found["test_limits"]["current"] == {"value": 1, "pass": True, "upper": 2}
    assert "one is not two" in found["test_bad"]["errors"]["call"]
    assert "no supply" in found["test_broken"]["errors"]["setup"]
    assert "no relay on this jig" in found["test_skipped"]["errors"]["setup"]
    assert all(one["duration_seconds"] >= 0 for one in found.values())
    (row, *_) = rows(LOGS)
    assert row["app_name"] == f"{pytester.path.name}/test_jig.py::test_good"
    assert row["product_imei"] == IMEI
    assert '"jig_id": "J-07"' in row["tags"]
    assert '"hostname": ' in row["tags"]


def test_a_measurement_in_a_teardown_that_does_not_pass_fails_the_item(
    pytester: pytest.Pytester, online: RunPytest, rows: Rows
) -> None:
    pytester.makepyfile(
        test_jig="""
        import pytest

        @pytest.fixture
        def supply(factory_logs):
            yield
            factory_logs.measure("leakage", 9.0, upper=1.0)

        def test_power(supply): pass

        def test_next(): pass
        """
    )
    online("--factory-logs").assert_outcomes(passed=2, errors=1)
    found = logs(rows)
    assert found["test_power"]["leakage"] == {"value": 9.0, "pass": False, "upper": 1.0}
    assert (found["test_power"]["passed"], found["test_next"]["passed"]) == (False, True)


@pytest.mark.parametrize(
    ("test", "verdict", "is_measured"),
    [
        ("def test_it(supply): signal.raise_signal(signal.SIGINT)", (None, "interrupted"), True),
        ("def test_it(supply): pytest.exit('smoke')", (None, "interrupted"), True),
        ("def test_it(interrupted): pass", (None, "interrupted"), False),
        ("def test_it(supply, interrupting): pass", (None, "interrupted"), True),
        ("def test_it(supply, interrupting): assert 1 == 2", (False, "failed"), True),
    ],
)
def test_an_interrupted_item_is_a_log_without_a_verdict_unless_it_has_failed(
    pytester: pytest.Pytester, online: RunPytest, rows: Rows,
    test: str, verdict: tuple[bool | None, str], is_measured: bool,
) -> None:  # fmt: skip
    pytester.makepyfile(
        f"""
        import signal
        import pytest

        @pytest.fixture
        def supply(factory_logs):
            factory_logs.measure("voltage", 3.3, lower=3.1)

        @pytest.fixture
        def interrupted():
            signal.raise_signal(signal.SIGINT)

        @pytest.fixture
        def interrupting():
            yield
            signal.raise_signal(signal.SIGINT)

        def test_first(): pass

        {test}

        def test_never(): pass
        """
    )
    result = online("--factory-logs")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["factory-logs: 2 logs stored on this device, all delivered"])
    found = logs(rows)
    assert set(found) == {"test_first", "test_it"}
    assert (found["test_it"].get("passed"), found["test_it"]["outcome"]) == verdict
    assert ("voltage" in found["test_it"]) is is_measured
    assert "duration_seconds" not in found["test_it"]


def test_an_interrupted_item_whose_log_cannot_be_stored_is_reported(pytester: pytest.Pytester, jig: RunPytest) -> None:
    pytester.makepyfile(
        """
        def test_unstorable(factory_logs):
            factory_logs.product_imei = "not an IMEI"
            raise KeyboardInterrupt
        """
    )
    result = jig("--factory-logs")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(
        ["factory-logs: 0 logs stored *, 1 NOT STORED*", "*the log of *test_unstorable is not stored: *product_imei*"]
    )


def test_a_log_is_on_the_disk_before_the_next_test_begins(pytester: pytest.Pytester, jig: RunPytest) -> None:
    pytester.makepyfile(
        """
        import os, sqlite3, subprocess, sys
        from pathlib import Path

        def stored():
            file = next(Path(os.environ["FACTORY_LOGS_SPOOL"]).glob("spool-*.sqlite3"))
            script = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('select count(*) from records')"
            return int(subprocess.check_output([sys.executable, "-c", script + ".fetchone()[0])", file]))

        def test_first(): assert stored() == 0
        def test_second(): assert stored() == 1
        def test_third(): assert stored() == 2
        """
    )
    result = jig("--factory-logs")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["factory-logs: 3 logs stored on this device, 3 in the spool wait for the server (*)"])


def test_a_test_whose_log_cannot_be_stored_is_an_error(pytester: pytest.Pytester, jig: RunPytest) -> None:
    pytester.makepyfile(
        """
        def test_good(): pass
        def test_unstorable(factory_logs): factory_logs.product_imei = "not an IMEI"
        """
    )
    result = jig("--factory-logs")
    result.assert_outcomes(passed=2, errors=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["*the log of *test_unstorable is not stored: *product_imei*", "factory-logs: 1 log stored *, 1 NOT STORED*"]
    )


def test_without_the_option_nothing_is_stored_or_imported(
    pytester: pytest.Pytester, jig: RunPytest, tmp_path: Path
) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_inert():
            assert not [name for name in sys.modules if name.startswith("factory_logs.client")]
            assert "httpx" not in sys.modules

        def test_measures(factory_logs):
            assert factory_logs.measure("voltage", 3.3, lower=3)

        def test_limits(factory_logs):
            assert not factory_logs.measure("voltage", 2.9, lower=3)
        """
    )
    result = jig()
    result.assert_outcomes(passed=2, failed=1)
    assert "factory-logs:" not in result.stdout.str()
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize(
    ("variables", "arguments", "message"),
    [
        ({"FACTORY_LOGS_URL": ""}, [], "--factory-logs: FACTORY_LOGS_URL is not set; it names the server"),
        ({"FACTORY_LOGS_TOKEN": ""}, [], "--factory-logs: give one of: token, token_file*FACTORY_LOGS_TOKEN*"),
        ({"FACTORY_LOGS_CA_FILE": "/nowhere"}, [], "--factory-logs: the CA file /nowhere cannot be used: *"),
        ({}, ["--factory-logs-tag", "x"], "--factory-logs-tag 'x' is not like NAME=VALUE"),
    ],
)
def test_wrong_settings_end_pytest_with_a_line(
    pytester: pytest.Pytester, jig: RunPytest, monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str], arguments: list[str], message: str,
) -> None:  # fmt: skip
    pytester.makepyfile("def test_it(): pass")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = jig("--factory-logs", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])


def test_the_processes_of_xdist_share_the_spool(pytester: pytest.Pytester, online: RunPytest, rows: Rows) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.parametrize('n', range(8))\ndef test_it(n): pass")
    result = online("--factory-logs", "-n", "2")
    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines(["factory-logs: 8 logs stored on this device, all delivered"])
    assert len(rows(LOGS)) == 8


def test_the_imei_fixture_can_be_overridden_and_a_test_can_add_to_its_log(
    pytester: pytest.Pytester, online: RunPytest, rows: Rows
) -> None:
    pytester.makeini("[pytest]\nfactory_logs_app = tiger_final_test")
    pytester.makeconftest(f"import pytest\n@pytest.fixture(scope='session')\ndef factory_logs_imei(): return '{IMEI}'")
    pytester.makepyfile(
        test_jig="""
        def test_it(factory_logs):
            factory_logs.tags["fixture__no"] = 3
            factory_logs.fields["note"] = "nul \\0"
            factory_logs.fields["flag"] = False
        """
    )
    online("--factory-logs").assert_outcomes(passed=1)
    (row,) = rows(LOGS)
    assert (row["app_name"], row["product_imei"]) == ("tiger_final_test/test_jig.py::test_it", IMEI)
    assert '"fixture_no": 3' in row["tags"]
    assert '"note": "nul \\\\0"' in row["fields"]
    assert '"flag": 0' in row["fields"]


def test_the_example_of_the_page_runs(
    pytester: pytest.Pytester, online: RunPytest, rows: Rows, shared_server: Server, token: str, tmp_path: Path
) -> None:
    text = PAGE.read_text()
    pytester.makepyfile(test_final=text.partition("```python\n")[2].partition("```")[0])
    commands = text.partition("```sh\n")[2].partition("```")[0]
    path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"])
    environment = {"PATH": path, "SERVER": shared_server.url, "DEVICE_TOKEN": token, "HOME": str(tmp_path)}
    ran = subprocess.run(
        ["bash", "-euc", commands], cwd=pytester.path, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "factory-logs: 2 logs stored on this device, all delivered" in ran.stdout
    assert [row["product_imei"] for row in rows(LOGS)] == [IMEI, IMEI]


@pytest.mark.parametrize(
    ("value", "limits", "passed"),
    [
        (3.0, {"lower": 3.0, "upper": 3.0}, True),
        (2.999, {"lower": 3.0}, False),
        (3.001, {"upper": 3.0}, False),
        (float("nan"), {"lower": 0}, False),
        (float("nan"), {"upper": 0}, False),
        (True, {}, True),
        ("2.4.1", {"passed": False}, False),
        (5, {"lower": 1, "passed": False}, False),
        (5, {"lower": 1, "passed": 0}, False),
        (5, {"lower": 1, "passed": True}, True),
    ],
)
def test_a_measurement_passes_within_its_limits(value: object, limits: dict[str, Any], passed: bool) -> None:
    log = ItemLog()
    assert log.measure("voltage", value, **limits) is passed
    assert len(log.failed()) == (0 if passed else 1)


@pytest.mark.parametrize(
    ("name", "value", "limits", "message"),
    [
        ("v", "3.3", {"lower": 3}, "only a number can have limits, not '3.3'"),
        ("v", True, {"lower": 0}, "only a number can have limits, not True"),
        ("v", 3, {"lower": float("inf")}, "a limit must be a finite number, not inf"),
        ("passed", 3, {}, "the plugin uses this name itself"),
    ],
)
def test_a_measurement_that_makes_no_sense_is_an_error(
    name: str, value: object, limits: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ItemLog().measure(name, value, **limits)


def test_numbers_of_numpy_are_measured_as_pythons() -> None:
    numpy = pytest.importorskip("numpy")
    log = ItemLog()
    assert log.measure("v", numpy.float32(0.5), lower=numpy.float32(0.5), upper=numpy.int64(1))
    assert log.measurements["v"] == {"value": 0.5, "pass": True, "lower": 0.5, "upper": 1}
    assert log.measure("w", numpy.float64(9), passed=numpy.float64(9) < 1) is False
    assert log.measurements["w"]["pass"] is False


def test_a_long_name_is_cut_to_one_of_its_own() -> None:
    assert len(_app_name("app", "x" * 252)) == 255
    assert _app_name("app", "x" * 251) == "app/" + "x" * 251
    assert len({_app_name("app", "x" * 300 + end) for end in "ab"}) == 2
