from pathlib import Path

import pytest

from factory_logs.settings import Settings
from tests.cli.conftest import Run

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_in_docs_is_what_the_command_prints(run: Run) -> None:
    printed = run("settings", "--markdown").stdout
    assert PAGE.read_text() == printed, "run: uv run factory-logs settings --markdown > docs/settings.md"


def test_every_setting_is_described(run: Run) -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert f"`FACTORY_LOGS_{name.upper()}`" in PAGE.read_text()


def test_the_table_says_what_a_setting_is_now_and_who_set_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_LOGS_PORT", "8123")
    lines = {line.split()[1]: line for line in run("settings").stdout.splitlines() if "FACTORY_LOGS_" in line}
    assert "8123" in lines["FACTORY_LOGS_PORT"]
    assert "8000" in lines["FACTORY_LOGS_PORT"]
    assert "environment" in lines["FACTORY_LOGS_PORT"]
    assert "default" in lines["FACTORY_LOGS_WORKERS"]


def test_no_secret_is_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_LOGS_DATABASE_URL", "postgresql://u:pass-word@h/x")
    shown = run("settings").stdout
    assert "****" in shown
    assert "pass-word" not in shown
