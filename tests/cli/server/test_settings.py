import json
from pathlib import Path

import pytest

from factory_logs.settings import Settings
from tests.cli.conftest import Run

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "settings.md"


def test_the_page_in_docs_equals_the_output_of_the_command(run: Run) -> None:
    printed = run("settings", "--markdown").stdout
    assert PAGE.read_text() == printed, "run: uv run factory-logs settings --markdown > docs/reference/settings.md"


def test_every_setting_is_described(run: Run) -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert f"`FACTORY_LOGS_{name.upper()}`" in PAGE.read_text()


def test_the_page_shows_the_range_of_each_number() -> None:
    lines = PAGE.read_text().splitlines()
    shown = {cells[1].strip(" `"): cells[4].strip() for line in lines if len(cells := line.split("|")) > 4}
    assert shown["FACTORY_LOGS_PORT"] == "≥ 0, ≤ 65535"
    assert shown["FACTORY_LOGS_WORKERS"] == "> 0"
    assert shown["FACTORY_LOGS_IDEMPOTENCY_SECONDS"] == "≥ 86400"
    assert shown["FACTORY_LOGS_LOG_LEVEL"] == ""


def test_each_setting_shows_its_value_and_source_in_one_line_at_any_width(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORY_LOGS_PORT", "8123")
    monkeypatch.setenv("FACTORY_LOGS_AUDIT_FILE", "/var/log/" + "long" * 50)
    for columns in ("40", "80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        lines = run("settings").stdout.splitlines()
        assert "FACTORY_LOGS_PORT = 8123  (environment, default 8000)" in lines
        assert "FACTORY_LOGS_LOGIN_MAX_FAILURES_PER_ADDRESS = 100  (default)" in lines
        assert "FACTORY_LOGS_MAX_BODY_BYTES = 16777216 bytes  (default)" in lines
        assert f"FACTORY_LOGS_AUDIT_FILE = /var/log/{'long' * 50}  (environment, default none)" in lines
        assert [line.split()[0] for line in lines if line.startswith("FACTORY")] == [
            f"FACTORY_LOGS_{name.upper()}" for name in Settings.model_fields
        ]


def test_the_settings_can_be_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_LOGS_PORT", "8123")
    shown = json.loads(run("settings", "--json").stdout)
    assert shown.keys() == {f"FACTORY_LOGS_{name.upper()}" for name in Settings.model_fields}
    assert shown["FACTORY_LOGS_PORT"] == {
        "value": 8123,
        "default": 8000,
        "unit": None,
        "set_by": "environment",
        "description": Settings.model_fields["port"].description,
    }
    assert shown["FACTORY_LOGS_MAX_BODY_BYTES"]["unit"] == "bytes"
    assert shown["FACTORY_LOGS_DATABASE_URL"]["default"] is None


def test_only_one_format_can_be_requested(run: Run) -> None:
    result = run("settings", "--json", "--markdown")
    assert (result.exit_code, result.stderr) == (1, "error: give either --json or --markdown\n")


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_no_secret_is_shown(run: Run, monkeypatch: pytest.MonkeyPatch, form: list[str]) -> None:
    monkeypatch.setenv("FACTORY_LOGS_DATABASE_URL", "postgresql://u:pass-word@h/x")
    shown = run("settings", *form).stdout
    assert "****" in shown
    assert "pass-word" not in shown


def test_a_variable_that_is_not_a_setting_causes_a_warning(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_LOGS_WORKER", "4")
    monkeypatch.setenv("factory_logs_qqqq", "4")
    monkeypatch.setenv("FACTORY_LOGS_TOKEN", "of a device's command")
    monkeypatch.setenv("factory_logs_port", "8123")
    assert run("settings").stderr.splitlines() == [
        "warning: FACTORY_LOGS_WORKER is not a setting and has no effect; is FACTORY_LOGS_WORKERS meant?",
        "warning: factory_logs_qqqq is not a setting and has no effect; `factory-logs settings` lists all settings",
    ]
    assert json.loads(run("settings", "--json").stdout)["FACTORY_LOGS_PORT"]["value"] == 8123
